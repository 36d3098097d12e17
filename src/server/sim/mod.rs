//! A whole server in virtual time, from a seed.
//!
//! [`Sim`] takes the [`ServerBuilder`] of a real server and runs all of its shards on the calling
//! thread, over a network that exists in memory only: it delays, splits, refuses and breaks as
//! [`Faults`] says. Time does not pass, it is moved: a heartbeat timeout takes microseconds.
//! Everything that happens is drawn from the seed, so a seed that shows a defect shows it again.
//!
//! ```
//! use std::time::Duration;
//! use stentor::sim::{ConnectOptions, Faults, Sim};
//! use stentor::{Data, Server, Value};
//!
//! let server = Server::builder().namespace("/", |ns| {
//!     ns.on("add", |Data((a, b)): Data<(i64, i64)>| a + b);
//! });
//! let mut sim = Sim::new(server, 7, Faults::harsh().without_resets())?;
//! let client = sim.connect(ConnectOptions::default());
//! let sum = sim.emit_with_ack(client, "add", (2, 3));
//! sim.run_for(Duration::from_secs(1));
//! assert_eq!(sim.answer(sum), Some(vec![Value::from(5)]));
//! # Ok::<(), stentor::Error>(())
//! ```
//!
//! # What is different
//!
//! There is no tokio runtime: async handlers run, and may await whatever needs none (an
//! acknowledgement, a channel, a lock), but not tokio's timers and sockets, which panic without
//! their runtime. Requests for the router of `ServerBuilder::fallback` are answered 404. A turn
//! takes no time. `ServerBuilder::shards` defaults to 1. Handlers that look at a clock, ask for
//! random numbers or iterate a `HashMap` are not repeatable, whatever the seed.

mod client;
mod faults;
mod link;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fmt;
use std::future::Future;
use std::hash::{DefaultHasher, Hasher};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng, RngExt, SeedableRng};
use serde::Serialize;
use tokio::sync::watch;

pub use self::client::{AckTicket, Client, ConnectOptions, State, Transport};
use self::client::{Peer, Socket};
pub use self::faults::Faults;
use self::link::World;
use super::ack::millis;
use super::builder::ServerBuilder;
use super::error::Result;
use super::handle::Handle;
use crate::io::Driver;
use crate::io::sim::{ClientId, ClientState, SimDriver, SimNet};
use crate::protocol::socket_io::Value;
use crate::shard::Shard;
use crate::shard::port::Ports;
use crate::shard::turn::{Outcome, Turn};

/// Rounds without time passing after which something runs in circles.
const ROUNDS_MAX: u32 = 1_000_000;

/// Remembers that it was woken.
#[derive(Debug, Default)]
struct Flag(AtomicBool);

impl Wake for Flag {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.0.store(true, Ordering::Release);
    }
}

impl Flag {
    fn is_up(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }

    fn take(&self) -> bool {
        self.0.swap(false, Ordering::AcqRel)
    }
}

/// A shard and when it wants its next turn.
struct Running {
    turn: Turn<SimDriver>,
    flag: Arc<Flag>,
    waker: Waker,
    has_more: bool,
    until_ms: Option<u64>,
}

impl Running {
    fn is_due(&mut self, now_ms: u64) -> bool {
        self.has_more
            || self.flag.is_up()
            || self.until_ms.is_some_and(|until_ms| until_ms <= now_ms)
            || self.turn.driver.has_more()
    }
}

/// A connection without a client: bytes in, bytes out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Raw(ClientId);

/// What a simulated server did so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Stats {
    /// Events that slow consumers lost to the policy.
    pub dropped: u64,
    /// Sessions closed because their outbox was full.
    pub overflowed: u64,
    /// Sends offered to the network.
    pub sends: u64,
    /// Turns taken.
    pub turns: u64,
}

/// A server in virtual time, and its clients. See the [module's text](self).
pub struct Sim {
    net: SimNet,
    rng: StdRng,
    /// `None`: has shut down.
    shards: Vec<Option<Running>>,
    order: Vec<usize>,
    running: watch::Sender<usize>,
    handle: Handle,
    path: String,
    peers: Vec<Peer>,
    peer_of: BTreeMap<ClientId, usize>,
    stats: Stats,
}

impl fmt::Debug for Sim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sim").field("now", &self.now()).finish_non_exhaustive()
    }
}

impl Drop for Sim {
    fn drop(&mut self) {
        for shard in &mut self.shards {
            end(shard);
        }
    }
}

/// Drops a shard; what its futures do while they are dropped, they do on it.
fn end(shard: &mut Option<Running>) {
    if let Some(running) = shard.take() {
        let _entered = running.turn.shard.enter();
        drop(running);
    }
}

impl Sim {
    /// Makes the server. Nothing runs until time is given, by [`run_for`](Self::run_for) or
    /// [`run_until`](Self::run_until).
    ///
    /// # Errors
    /// As [`ServerBuilder::bind`], but for those of the kernel.
    pub fn new(mut builder: ServerBuilder, seed: u64, faults: Faults) -> Result<Self> {
        builder.finish()?;
        // Its connections are served by a library that needs real descriptors.
        builder.config.fallback = false;
        let mut rng = StdRng::seed_from_u64(seed);
        let count = builder.shards.unwrap_or(1).min(usize::from(u16::MAX));
        let net = SimNet::new(rng.random(), faults.into());
        let ports = Arc::new(Ports::new(
            count,
            builder.config.limits.mail,
            builder.config.limits.mail_bytes,
        ));
        let running = watch::Sender::new(count);
        let timeout_ms = builder.config.timings.ack_timeout;
        let handle = Handle::new(ports.clone(), timeout_ms, running.subscribe());
        let path = builder.config.path.to_string();
        let (app, config) = (Arc::new(builder.registered), Arc::new(builder.config));
        let mut shards = Vec::with_capacity(count);
        for index in 0..count {
            let driver = net.driver(true);
            let mut seed = [0; 32];
            rng.fill_bytes(&mut seed);
            let (app, config, ports) = (app.clone(), config.clone(), ports.clone());
            let shard = Shard::new(app, config, ports, index as u16, driver.now_ms(), seed);
            let flag = Arc::new(Flag::default());
            let waker = Waker::from(flag.clone());
            let turn = Turn::new(shard, driver);
            shards.push(Some(Running { turn, flag, waker, has_more: true, until_ms: None }));
        }
        Ok(Self {
            net,
            rng,
            shards,
            order: (0..count).collect(),
            running,
            handle,
            path,
            peers: Vec::new(),
            peer_of: BTreeMap::new(),
            stats: Stats::default(),
        })
    }

    /// The server from outside. What is done with it is done as from another thread.
    #[must_use]
    pub fn handle(&self) -> Handle {
        self.handle.clone()
    }

    /// Changes how unkind the network is, from now on.
    pub fn set_faults(&mut self, faults: Faults) {
        self.net.set_faults(faults.into());
    }

    // ---- time ----

    /// The time since the beginning.
    #[must_use]
    pub fn now(&self) -> Duration {
        Duration::from_millis(self.net.now_ms())
    }

    /// Lets time pass.
    ///
    /// # Panics
    /// When the server runs in circles, or one of its handlers' hooks panics.
    pub fn run_for(&mut self, time: Duration) {
        self.run_until(time, |_| false);
    }

    /// Lets time pass until something holds; `false` if it still does not after `limit`. It is
    /// asked whenever nothing is left to do at one moment, and may act.
    ///
    /// # Panics
    /// As [`run_for`](Self::run_for).
    pub fn run_until(&mut self, limit: Duration, mut holds: impl FnMut(&mut Self) -> bool) -> bool {
        let end_ms = self.net.now_ms().saturating_add(millis(limit));
        loop {
            self.settle();
            if holds(self) {
                return true;
            }
            if !self.is_settled() {
                continue;
            }
            let deadlines = self.shards.iter().flatten().filter_map(|shard| shard.until_ms).min();
            match (self.net.next_event_at(), deadlines) {
                // One event after the other, or all of a millisecond at once.
                (Some(event_ms), deadline_ms)
                    if event_ms <= end_ms && deadline_ms.is_none_or(|at_ms| event_ms <= at_ms) =>
                {
                    match self.rng.random() {
                        true => drop(self.net.step()),
                        false => self.net.advance(event_ms),
                    }
                }
                (_, Some(deadline_ms)) if deadline_ms <= end_ms => self.net.advance(deadline_ms),
                _ if self.net.now_ms() < end_ms => self.net.advance(end_ms),
                _ => return false,
            }
        }
    }

    /// Lets time pass until a future is ready; `None` if it still is not after `limit`.
    ///
    /// # Panics
    /// As [`run_for`](Self::run_for).
    pub fn run_future<F: Future>(&mut self, limit: Duration, future: F) -> Option<F::Output> {
        let mut future = pin!(future);
        let mut output = None;
        self.run_until(limit, |_| {
            let mut context = Context::from_waker(Waker::noop());
            if let Poll::Ready(ready) = future.as_mut().poll(&mut context) {
                output = Some(ready);
            }
            output.is_some()
        });
        output
    }

    /// Whether every shard has shut down, after [`Handle::shutdown`].
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.shards.iter().all(Option::is_none)
    }

    fn is_settled(&mut self) -> bool {
        let now_ms = self.net.now_ms();
        !self.net.has_news() && !self.shards.iter_mut().flatten().any(|shard| shard.is_due(now_ms))
    }

    /// Takes turns, at one moment, until nobody has anything to do.
    fn settle(&mut self) {
        for _ in 0..ROUNDS_MAX {
            let mut active = false;
            while let Some(id) = self.net.take_news() {
                active = true;
                self.hear(id);
            }
            for place in (1..self.order.len()).rev() {
                self.order.swap(place, self.rng.random_range(0..=place));
            }
            for place in 0..self.order.len() {
                active |= self.turn(self.order[place]);
            }
            if !active {
                return;
            }
        }
        panic!("the server runs in circles at {:?}", self.now());
    }

    /// Gives a shard its turn if it wants one.
    fn turn(&mut self, index: usize) -> bool {
        let now_ms = self.net.now_ms();
        let Some(shard) = &mut self.shards[index] else { return false };
        if !shard.is_due(now_ms) {
            return false;
        }
        shard.flag.take();
        self.stats.turns += 1;
        let entered = shard.turn.shard.enter();
        let outcome = shard.turn.turn(&mut Context::from_waker(&shard.waker));
        drop(entered);
        match outcome.expect("invariant: the simulated driver never fails") {
            Outcome::More => (shard.has_more, shard.until_ms) = (true, None),
            Outcome::Idle { until_ms } => (shard.has_more, shard.until_ms) = (false, until_ms),
            Outcome::Over => {
                self.stats = self.stats();
                end(&mut self.shards[index]);
                self.running.send_modify(|running| *running -= 1);
            }
        }
        true
    }

    // ---- clients ----

    fn hear(&mut self, id: ClientId) {
        if let Some(&peer) = self.peer_of.get(&id) {
            self.act(peer, |peer, world| peer.hear(world, id));
        }
    }

    /// Lets a client act, and keeps book of its connections.
    fn act<R>(&mut self, peer: usize, act: impl FnOnce(&mut Peer, &mut World<'_>) -> R) -> R {
        let entry = &mut self.peers[peer];
        let outcome = act(entry, &mut World { net: &self.net, rng: &mut self.rng });
        for id in entry.ids() {
            self.peer_of.insert(id, peer);
        }
        outcome
    }

    fn socket(&self, client: Client) -> &Socket {
        &self.peers[client.peer].sockets[client.socket]
    }

    fn socket_mut(&mut self, client: Client) -> &mut Socket {
        &mut self.peers[client.peer].sockets[client.socket]
    }

    /// Connects a client to a namespace.
    pub fn connect(&mut self, options: ConnectOptions) -> Client {
        let ConnectOptions { namespace, auth, transport, shard } = options;
        let mut world = World { net: &self.net, rng: &mut self.rng };
        self.peers.push(Peer::connect(&mut world, &self.path, transport, shard));
        let peer = self.peers.len() - 1;
        let socket = self.act(peer, |peer, world| peer.join(world, &namespace, auth));
        Client { peer, socket }
    }

    /// Connects a client to one namespace more, over the connection it has.
    pub fn connect_also(&mut self, client: Client, namespace: &str, auth: Option<Value>) -> Client {
        let socket = self.act(client.peer, |peer, world| peer.join(world, namespace, auth));
        Client { socket, ..client }
    }

    /// Sends an event, as soon as the client is connected. After its end, nothing.
    ///
    /// # Panics
    /// When the event's name is reserved or its arguments do not serialise.
    pub fn emit(&mut self, client: Client, event: &str, args: impl Serialize) {
        self.act(client.peer, |peer, world| {
            peer.emit(world, client.socket, event, &args, false);
        });
    }

    /// Sends an event that asks for an acknowledgement: see [`answer`](Self::answer).
    ///
    /// # Panics
    /// As [`emit`](Self::emit).
    pub fn emit_with_ack(
        &mut self,
        client: Client,
        event: &str,
        args: impl Serialize,
    ) -> AckTicket {
        let id = self.act(client.peer, |peer, world| {
            peer.emit(world, client.socket, event, &args, true).unwrap_or_default()
        });
        AckTicket { client, id }
    }

    /// Takes the answer to an event, once it is there.
    pub fn answer(&mut self, ticket: AckTicket) -> Option<Vec<Value>> {
        let answers = &mut self.socket_mut(ticket.client).answers;
        answers.get(&ticket.id)?.as_ref()?;
        answers.remove(&ticket.id).flatten()
    }

    /// Takes the events that came.
    pub fn events(&mut self, client: Client) -> Vec<(String, Vec<Value>)> {
        std::mem::take(&mut self.socket_mut(client).events)
    }

    /// Where the client stands.
    #[must_use]
    pub fn state(&self, client: Client) -> State {
        self.socket(client).state.clone()
    }

    /// The id of the client's socket, once it is connected.
    #[must_use]
    pub fn id(&self, client: Client) -> Option<&str> {
        self.socket(client).id.as_deref()
    }

    /// The id of the client's Engine.IO session, once it is open.
    #[must_use]
    pub fn sid(&self, client: Client) -> Option<&str> {
        self.peers[client.peer].sid.as_deref()
    }

    /// Whether the client's session goes over a WebSocket now.
    #[must_use]
    pub fn is_websocket(&self, client: Client) -> bool {
        self.peers[client.peer].is_websocket()
    }

    /// When the server pinged the client.
    #[must_use]
    pub fn pings(&self, client: Client) -> &[Duration] {
        &self.peers[client.peer].pings
    }

    /// Whether the client answers pings. It does unless told otherwise.
    pub fn set_pongs(&mut self, client: Client, sends_pongs: bool) {
        self.peers[client.peer].sends_pongs = sends_pongs;
    }

    /// How the client answers events that ask for it, by name and arguments; `None` is no answer.
    /// It answers without arguments unless told otherwise.
    pub fn answer_with(
        &mut self,
        client: Client,
        answer: impl FnMut(&str, &[Value]) -> Option<Vec<Value>> + 'static,
    ) {
        self.socket_mut(client).answer = Box::new(answer);
    }

    /// The client takes no bytes any more: what comes fills its window, then the server's outbox.
    pub fn stop_reading(&mut self, client: Client) {
        self.peers[client.peer].is_reading = false;
        for id in self.peers[client.peer].ids() {
            self.net.client_stop_reading(id);
        }
    }

    /// The client reads again.
    pub fn resume_reading(&mut self, client: Client) {
        self.peers[client.peer].is_reading = true;
        for id in self.peers[client.peer].ids() {
            self.net.client_start_reading(id);
            self.hear(id);
        }
    }

    /// Bytes that the client's connection holds unread, from now on: what a slow reader costs the
    /// network before it costs the server.
    pub fn set_window(&mut self, client: Client, bytes: usize) {
        for id in self.peers[client.peer].ids() {
            self.net.client_window(id, bytes);
        }
    }

    /// Leaves the namespace; the connection stays.
    pub fn leave(&mut self, client: Client) {
        self.act(client.peer, |peer, world| peer.leave(world, client.socket));
    }

    /// Closes the connection as clients do: by a close frame, or by the last POST of polling.
    pub fn close(&mut self, client: Client) {
        self.act(client.peer, |peer, world| peer.close(world));
    }

    /// Ends the client's side of its connections and goes on reading.
    pub fn half_close(&mut self, client: Client) {
        for id in self.peers[client.peer].ids() {
            self.net.client_finish(id);
        }
    }

    /// Breaks the client's connections.
    pub fn reset(&mut self, client: Client) {
        self.act(client.peer, |peer, world| peer.reset(world));
    }

    /// Sends bytes of no codec over the client's connection.
    pub fn send_raw(&mut self, client: Client, bytes: &[u8]) {
        if let Some(id) = self.peers[client.peer].id() {
            self.net.client_send(id, bytes);
        }
    }

    // ---- connections of no client ----

    /// Opens a connection that nobody speaks on but you.
    pub fn open(&mut self, shard: Option<usize>) -> Raw {
        Raw(match shard {
            Some(shard) => self.net.connect_to(shard),
            None => self.net.connect(),
        })
    }

    /// Sends bytes.
    pub fn send(&mut self, raw: Raw, bytes: &[u8]) {
        self.net.client_send(raw.0, bytes);
    }

    /// Takes the bytes that came.
    pub fn receive(&mut self, raw: Raw) -> Vec<u8> {
        self.net.client_recv(raw.0)
    }

    /// Whether the server has neither closed nor broken the connection.
    #[must_use]
    pub fn is_open(&self, raw: Raw) -> bool {
        self.net.client_state(raw.0) == ClientState::Open
    }

    /// Closes the connection.
    pub fn hang_up(&mut self, raw: Raw) {
        self.net.client_close(raw.0);
    }

    // ---- what happened ----

    /// A hash of everything that every client was sent, and when. Two runs of one seed and one
    /// script agree in it.
    #[must_use]
    pub fn trace(&self) -> u64 {
        let mut all = DefaultHasher::new();
        self.peers.iter().for_each(|peer| all.write_u64(peer.trace.finish()));
        all.finish()
    }

    /// What the server did so far.
    #[must_use]
    pub fn stats(&self) -> Stats {
        let mut stats = self.stats;
        for shard in self.shards.iter().flatten() {
            let counters = shard.turn.shard.core.borrow().counters;
            stats.dropped += counters.dropped;
            stats.overflowed += counters.overflowed;
            stats.sends += counters.sends;
        }
        stats
    }

    /// Bytes that wait for the session that most bytes wait for.
    #[must_use]
    pub fn largest_outbox(&self) -> usize {
        let largest = |shard: &Running| {
            let core = shard.turn.shard.core.borrow();
            core.sessions.hot.iter().map(|hot| hot.outbox.len()).max()
        };
        self.shards.iter().flatten().filter_map(largest).max().unwrap_or(0)
    }

    /// Connections that the network knows of, on either side.
    #[must_use]
    pub fn open_connections(&self) -> usize {
        self.net.connections()
    }

    /// From now on, what servers send is taken whole and thrown away, and clients' connections and
    /// what they send are there at once: for benchmarks of the server alone.
    pub fn mute(&mut self, muted: bool) {
        self.net.mute(muted);
    }
}
