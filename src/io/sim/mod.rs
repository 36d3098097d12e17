//! A network without a kernel: virtual time, and every fault a seed can think of.
//!
//! [`SimNet`] is the world: a clock that moves only when told to, listeners (one per shard's
//! [`SimDriver`]) and clients, which are driven by calls. Everything that happens is drawn from one
//! seeded generator and nothing else, so a seed is a repeatable run and a failing one is a test.
//! Nothing is iterated in an order that the seed does not fix.
//!
//! The order of bytes within one direction of a connection is kept, as TCP keeps it; between
//! connections and directions there is none. Bytes may be split and joined anywhere, delayed, sent
//! in part, refused for a while; connections may break, accepts fail.
//!
//! Tests: `tests` here, and the contract suite in `io::tests`.

mod connection;
mod driver;
mod net;
#[cfg(test)]
mod tests;

use std::cell::RefCell;
use std::ops::RangeInclusive;
use std::rc::Rc;

pub(crate) use self::connection::ClientState;
pub(crate) use self::driver::SimDriver;
use self::net::Net;

/// How unkind the network is. Probabilities are from 0 to 1.
#[derive(Debug, Clone)]
pub(crate) struct SimFaults {
    /// How long a segment travels.
    pub(crate) delay_us: RangeInclusive<u64>,
    /// A segment, or what one read yields, is cut at a random byte.
    pub(crate) split: f64,
    /// A server's send takes a random part only.
    pub(crate) short_send: f64,
    /// A server's send takes nothing.
    pub(crate) refused_send: f64,
    /// A segment, of either side, breaks its connection instead of arriving.
    pub(crate) reset: f64,
    /// An accept fails for want of descriptors.
    pub(crate) accept_failure: f64,
    /// Bytes that one direction holds until its reader takes them.
    pub(crate) window: usize,
}

impl Default for SimFaults {
    /// A kind network, a tenth of a millisecond wide.
    fn default() -> Self {
        Self {
            delay_us: 100..=100,
            split: 0.0,
            short_send: 0.0,
            refused_send: 0.0,
            reset: 0.0,
            accept_failure: 0.0,
            window: 256 * 1024,
        }
    }
}

/// Names a client. Never reused within one network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct ClientId(pub(crate) u64);

/// The network. Clones are the same network.
#[derive(Debug, Clone)]
pub(crate) struct SimNet {
    net: Rc<RefCell<Net>>,
}

impl SimNet {
    pub(crate) fn new(seed: u64, faults: SimFaults) -> Self {
        Self { net: Rc::new(RefCell::new(Net::new(seed, faults))) }
    }

    /// A driver for one more shard, with a listener of its own if it `listens`.
    pub(crate) fn driver(&self, listens: bool) -> SimDriver {
        SimDriver::new(Rc::clone(&self.net), listens)
    }

    /// Changes the faults from now on.
    pub(crate) fn set_faults(&self, faults: SimFaults) {
        self.net.borrow_mut().faults = faults;
    }

    /// From now on what servers send is taken whole and thrown away, and clients' connections and
    /// what they send are there at once, without any dice: so that what a server costs can be
    /// measured almost alone.
    pub(crate) fn mute(&self, muted: bool) {
        self.net.borrow_mut().muted = muted;
    }

    // Time.

    pub(crate) fn now_ms(&self) -> u64 {
        self.net.borrow().now_us / 1000
    }

    /// The millisecond to [`Self::advance`] to for the next thing to happen, if anything will.
    pub(crate) fn next_event_at(&self) -> Option<u64> {
        self.net.borrow().next_at_us().map(|at_us| at_us.div_ceil(1000))
    }

    /// Moves the clock and lets everything happen that is due by then.
    pub(crate) fn advance(&self, to_ms: u64) {
        self.net.borrow_mut().advance(to_ms * 1000);
    }

    /// Moves the clock to the very next thing and lets that alone happen. `false` if nothing will.
    pub(crate) fn step(&self) -> bool {
        self.net.borrow_mut().step()
    }

    // Clients.

    /// Connects to a listener chosen at random. Refused if there is none.
    pub(crate) fn connect(&self) -> ClientId {
        ClientId(self.net.borrow_mut().connect(None))
    }

    /// Connects to the listener of one shard, counted in the order in which drivers were made.
    pub(crate) fn connect_to(&self, shard: usize) -> ClientId {
        ClientId(self.net.borrow_mut().connect(Some(shard)))
    }

    /// Sends. The client holds what the window does not take yet.
    pub(crate) fn client_send(&self, client: ClientId, bytes: &[u8]) {
        self.net.borrow_mut().client_send(client.0, bytes);
    }

    /// Takes all bytes that arrived.
    pub(crate) fn client_recv(&self, client: ClientId) -> Vec<u8> {
        self.net.borrow_mut().client_recv(client.0)
    }

    /// Ends the client's side in order; it can still receive.
    pub(crate) fn client_finish(&self, client: ClientId) {
        self.net.borrow_mut().client_finish(client.0);
    }

    /// Closes: what was sent is delivered, then the end; what comes after that is answered by a
    /// reset.
    pub(crate) fn client_close(&self, client: ClientId) {
        self.net.borrow_mut().client_close(client.0);
    }

    /// Breaks the connection.
    pub(crate) fn client_reset(&self, client: ClientId) {
        self.net.borrow_mut().client_reset(client.0);
    }

    /// From now on only [`Self::client_recv`] makes room, so a window's worth of bytes fills the
    /// link.
    pub(crate) fn client_stop_reading(&self, client: ClientId) {
        self.net.borrow_mut().client_set_reading(client.0, false);
    }

    /// Bytes are taken as they arrive again.
    pub(crate) fn client_start_reading(&self, client: ClientId) {
        self.net.borrow_mut().client_set_reading(client.0, true);
    }

    /// Bytes the client holds unread, or has on their way to it, at most.
    pub(crate) fn client_window(&self, client: ClientId, bytes: usize) {
        self.net.borrow_mut().client_window(client.0, bytes);
    }

    /// The next client that has something to look at: bytes it reads, or another state. Each is
    /// named once until more has come.
    pub(crate) fn take_news(&self) -> Option<ClientId> {
        self.net.borrow_mut().take_news().map(ClientId)
    }

    /// Whether [`Self::take_news`] would name a client.
    pub(crate) fn has_news(&self) -> bool {
        !self.net.borrow().news.is_empty()
    }

    /// Connections that either side still holds.
    pub(crate) fn connections(&self) -> usize {
        self.net.borrow().connections.len()
    }

    /// What the client knows of its connection. It may hold unread bytes in any state.
    pub(crate) fn client_state(&self, client: ClientId) -> ClientState {
        self.net.borrow().client_state(client.0)
    }
}
