//! One seed: a server, its clients, what they do, and what must be true of it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use stentor::sim::{AckTicket, Client, ConnectOptions, Faults, Sim, State, Transport};
use stentor::{DisconnectReason, Server, SlowConsumer, Value};

use crate::model::{Member, Message, Order, Shared, Sure, addressed, emit, fill};

const NAMESPACES: [&str; 2] = ["/", "/side"];
const ROOMS: [&str; 4] = ["lobby", "red", "green", "blue"];

/// What came of one seed or of many.
#[derive(Debug, Default)]
pub(crate) struct Report {
    pub(crate) trace: u64,
    pub(crate) connected: u64,
    pub(crate) delivered: u64,
    pub(crate) answers: u64,
    pub(crate) dropped: u64,
    pub(crate) overflowed: u64,
    pub(crate) upgraded: u64,
    pub(crate) reasons: BTreeSet<&'static str>,
}

impl Report {
    pub(crate) fn add(&mut self, other: &Self) {
        self.connected += other.connected;
        self.delivered += other.delivered;
        self.answers += other.answers;
        self.dropped += other.dropped;
        self.overflowed += other.overflowed;
        self.upgraded += other.upgraded;
        self.reasons.extend(&other.reasons);
    }
}

/// A client in one namespace, and what it heard.
struct Actor {
    client: Client,
    namespace: usize,
    session: usize,
    /// Events sent so far.
    sent: u64,
    tickets: Vec<(AckTicket, u64)>,
    /// Numbers heard, by sender, in the order of arrival.
    heard: BTreeMap<String, Vec<u64>>,
    /// The same, whoever sent it.
    order: Vec<(String, u64)>,
}

pub(crate) struct Play {
    sim: Sim,
    rng: StdRng,
    world: Shared,
    policy: SlowConsumer,
    limit: usize,
    resets: bool,
    /// How many of the actions are broadcasts: some seeds flood.
    is_flood: bool,
    actors: Vec<Actor>,
    /// Why the sockets of each session may end, whatever the faults.
    may_end: Vec<BTreeSet<&'static str>>,
    largest_outbox: usize,
    report: Report,
}

fn pick<T: Copy>(rng: &mut StdRng, of: &[T]) -> T {
    of[rng.random_range(0..of.len())]
}

/// Each fault is there or not: combinations that hide each other come apart.
fn faults(rng: &mut StdRng) -> Faults {
    let (kind, harsh) = (Faults::kind(), Faults::harsh());
    let mut some = |most: f64| if rng.random() { rng.random_range(0.0..=most) } else { 0.0 };
    let (split, short_send) = (some(harsh.split), some(harsh.short_send));
    let (refused_send, accept_failure) = (some(harsh.refused_send), some(harsh.accept_failure));
    let reset = some(harsh.reset);
    let delay = if rng.random() { harsh.delay } else { kind.delay };
    let window = pick(rng, &[1024, harsh.window, 64 * 1024]);
    Faults { delay, split, short_send, refused_send, reset, accept_failure, window }
}

impl Play {
    pub(crate) fn new(seed: u64) -> Self {
        let mut rng = StdRng::seed_from_u64(seed);
        let world = Shared::default();
        let policy = pick(
            &mut rng,
            &[SlowConsumer::Disconnect, SlowConsumer::DropNew, SlowConsumer::DropOld],
        );
        let limit = pick(&mut rng, &[1024 * 1024, 16 * 1024, 4 * 1024]);
        let mut server = Server::builder()
            .shards(rng.random_range(1..=3))
            .slow_consumer(policy)
            .outbox_limit(limit)
            .ack_timeout(Duration::from_secs(4))
            .namespace("/refused", |ns| {
                ns.middleware(|| Err::<(), _>(stentor::ConnectError::new("no")));
            });
        for name in NAMESPACES {
            server = server.namespace(name, |ns| fill(ns, &world));
        }
        let faults = faults(&mut rng);
        let resets = faults.reset > 0.0;
        let sim = Sim::new(server, rng.random(), faults).unwrap();
        Self {
            sim,
            is_flood: rng.random(),
            rng,
            world,
            policy,
            limit,
            resets,
            actors: Vec::new(),
            may_end: Vec::new(),
            largest_outbox: 0,
            report: Report::default(),
        }
    }

    pub(crate) fn run(mut self) -> Report {
        for _ in 0..self.rng.random_range(3..12) {
            self.connect();
        }
        for _ in 0..self.rng.random_range(50..250) {
            self.act();
            let millis = match self.rng.random_range(0..100) {
                0 => self.rng.random_range(0..60_000),
                1..10 => self.rng.random_range(0..3_000),
                10..60 => self.rng.random_range(0..30),
                _ => continue,
            };
            self.pass(Duration::from_millis(millis));
        }
        // Everything that is under way arrives, and every wait for an answer ends.
        self.sim.set_faults(Faults::kind());
        for actor in &self.actors {
            self.sim.resume_reading(actor.client);
        }
        self.pass(Duration::from_secs(15));
        self.check();
        self.end();
        self.finish()
    }

    fn pass(&mut self, time: Duration) {
        let Self { sim, world, largest_outbox, .. } = self;
        sim.run_until(time, |sim| {
            world.lock().epoch += 1;
            *largest_outbox = sim.largest_outbox().max(*largest_outbox);
            false
        });
        self.listen();
    }

    fn listen(&mut self) {
        for actor in &mut self.actors {
            for (name, args) in self.sim.events(actor.client) {
                match &*name {
                    "said" => {
                        let sender = args[0].as_str().unwrap().to_owned();
                        let seq = args[1].as_u64().unwrap();
                        actor.heard.entry(sender.clone()).or_default().push(seq);
                        actor.order.push((sender, seq));
                        self.report.delivered += 1;
                    }
                    "question" => {}
                    other => panic!("nobody sends {other:?}"),
                }
            }
            let sim = &mut self.sim;
            actor.tickets.retain(|(ticket, n)| match sim.answer(*ticket) {
                Some(answer) => {
                    assert_eq!(answer, [Value::from(*n)], "an answer to its own question");
                    self.report.answers += 1;
                    false
                }
                None => true,
            });
        }
    }

    // ---- what may happen ----

    fn act(&mut self) {
        if self.actors.is_empty() || self.rng.random_bool(0.05) {
            self.connect();
            return;
        }
        let actor = self.rng.random_range(0..self.actors.len());
        let client = self.actors[actor].client;
        let session = self.actors[actor].session;
        let action = self.rng.random_range(0..if self.is_flood { 200 } else { 100 });
        match action {
            0..8 => self.change(actor, "join"),
            8..14 => self.change(actor, "leave"),
            14..18 => {
                let millis: u64 = pick(&mut self.rng, &[50, 1000, 8000]);
                self.say(actor, "ask", millis);
            }
            18..22 => {
                let order = Order { volatile: false, alone: false, ..self.order() };
                self.say(actor, "ask_all", order);
            }
            22..26 => {
                self.sim.stop_reading(client);
                self.may_end[session].insert("ping timeout");
            }
            26..32 => self.sim.resume_reading(client),
            32..34 => {
                self.may_end[session].extend(["transport error", "ping timeout"]);
                self.sim.reset(client);
            }
            34..36 => {
                self.may_end[session].extend([
                    "transport close",
                    "transport error",
                    "ping timeout",
                ]);
                self.sim.half_close(client);
            }
            36..38 => {
                self.may_end[session].insert("transport close");
                self.sim.close(client);
            }
            38 => {
                self.may_end[session].insert("client namespace disconnect");
                self.sim.leave(client);
            }
            39 => {
                self.may_end[session].insert("ping timeout");
                self.sim.set_pongs(client, false);
            }
            40 => {
                self.may_end[session]
                    .extend(["server namespace disconnect", "forced server close"]);
                let close: bool = self.rng.random();
                self.say(actor, "kick", close);
            }
            41..44 => self.also(actor),
            44..60 => self.manage(),
            60..65 => self.fetch(),
            65..70 if self.is_flood => self.burst(),
            _ => {
                let order = self.order();
                self.say(actor, "say", order);
            }
        }
    }

    fn connect(&mut self) {
        let namespace = self.rng.random_range(0..NAMESPACES.len());
        let options = ConnectOptions {
            namespace: NAMESPACES[namespace].to_owned(),
            transport: pick(
                &mut self.rng,
                &[Transport::WebSocket, Transport::Polling, Transport::Upgrade],
            ),
            ..ConnectOptions::default()
        };
        let client = self.sim.connect(options);
        self.may_end.push(BTreeSet::new());
        let session = self.may_end.len() - 1;
        self.add(client, namespace, session);
    }

    fn add(&mut self, client: Client, namespace: usize, session: usize) {
        let silent = self.rng.random_bool(0.1);
        self.sim.answer_with(client, move |_, args| {
            (!silent).then(|| vec![Value::from(args[0].as_u64().unwrap() + 1)])
        });
        let (tickets, heard, order) = (Vec::new(), BTreeMap::new(), Vec::new());
        self.actors.push(Actor { client, namespace, session, sent: 0, tickets, heard, order });
    }

    /// Another namespace over the same connection, or one that refuses.
    fn also(&mut self, actor: usize) {
        let Actor { client, session, .. } = self.actors[actor];
        if self.rng.random() {
            self.sim.connect_also(client, "/refused", None);
            return;
        }
        let taken: Vec<usize> = self
            .actors
            .iter()
            .filter(|other| other.session == session)
            .map(|other| other.namespace)
            .collect();
        let free = (0..NAMESPACES.len()).find(|namespace| !taken.contains(namespace));
        if let Some(namespace) = free {
            let client = self.sim.connect_also(client, NAMESPACES[namespace], None);
            self.add(client, namespace, session);
        }
    }

    fn say(&mut self, actor: usize, event: &str, with: impl serde::Serialize) {
        let actor = &mut self.actors[actor];
        if !matches!(self.sim.state(actor.client), State::Connecting | State::Connected) {
            return;
        }
        actor.sent += 1;
        if event == "kick" || self.rng.random() {
            self.sim.emit(actor.client, event, (actor.sent, with));
        } else {
            let ticket = self.sim.emit_with_ack(actor.client, event, (actor.sent, with));
            actor.tickets.push((ticket, actor.sent));
        }
    }

    fn change(&mut self, actor: usize, event: &str) {
        let room = pick(&mut self.rng, &ROOMS);
        self.say(actor, event, room);
    }

    /// Names of rooms, now and then of a socket.
    fn rooms(&mut self, most: usize) -> Vec<String> {
        let count = self.rng.random_range(0..=most);
        let name = |_| match self.rng.random_bool(0.2) {
            true => {
                let actor = self.rng.random_range(0..self.actors.len());
                self.sim.id(self.actors[actor].client).unwrap_or("nobody").to_owned()
            }
            false => pick(&mut self.rng, &ROOMS).to_owned(),
        };
        (0..count).map(name).collect()
    }

    fn order(&mut self) -> Order {
        Order {
            rooms: self.rooms(3),
            except: if self.rng.random_bool(0.3) { self.rooms(2) } else { Vec::new() },
            volatile: self.rng.random_bool(0.1),
            alone: self.rng.random_bool(0.1),
            size: pick(&mut self.rng, &[0, 10, 200, 1500]),
            binary: self.rng.random_bool(0.2),
        }
    }

    /// Something from outside, through the handle.
    fn manage(&mut self) {
        let namespace = pick(&mut self.rng, &NAMESPACES);
        let handle = self.sim.handle().of(namespace);
        let actor = self.rng.random_range(0..self.actors.len());
        let session = self.actors[actor].session;
        let id = self.sim.id(self.actors[actor].client).map(str::to_owned);
        match (self.rng.random_range(0..20), id) {
            (0, Some(id)) => {
                self.may_end[session]
                    .extend(["server namespace disconnect", "forced server close"]);
                let close: bool = self.rng.random();
                handle.to(id).disconnect_sockets(close).unwrap();
            }
            (1..3, Some(id)) => {
                let room = pick(&mut self.rng, &ROOMS);
                if self.world.lock().members.get(&id).is_some_and(|m| m.namespace == namespace) {
                    self.world.lock().change(&id, room, true);
                }
                handle.to(id).sockets_join(room).unwrap();
            }
            (3..5, Some(id)) => {
                let room = pick(&mut self.rng, &ROOMS);
                if self.world.lock().members.get(&id).is_some_and(|m| m.namespace == namespace) {
                    self.world.lock().change(&id, room, false);
                }
                handle.to(id).sockets_leave(room).unwrap();
            }
            _ => {
                let order = Order { alone: false, ..self.order() };
                let sender = format!("handle of {namespace}");
                let seq = self.world.lock().send(&sender, namespace, &order);
                emit(&addressed(handle.everyone(), &order), &sender, seq, &order);
            }
        }
    }

    /// More than slow readers have room for.
    fn burst(&mut self) {
        let namespace = pick(&mut self.rng, &NAMESPACES);
        let handle = self.sim.handle().of(namespace);
        let sender = format!("handle of {namespace}");
        for _ in 0..self.rng.random_range(5..40) {
            let order = Order { rooms: vec![], except: vec![], alone: false, ..self.order() };
            let seq = self.world.lock().send(&sender, namespace, &order);
            emit(&handle.everyone(), &sender, seq, &order);
        }
    }

    fn fetch(&mut self) {
        let namespace = pick(&mut self.rng, &NAMESPACES);
        let mut addressed = self.sim.handle().of(namespace).everyone();
        let room = self.rng.random::<bool>().then(|| pick(&mut self.rng, &ROOMS));
        if let Some(room) = room {
            addressed = addressed.to(room);
        }
        let asked = async move { addressed.fetch_sockets().await };
        let Self { sim, world, .. } = self;
        let sockets = sim.run_future(Duration::ZERO, asked).expect("shards answer at once");
        let world = world.lock();
        let live = |member: &Member| {
            let inside = room.is_none_or(|room| member.is_now_in(room));
            member.namespace == namespace && member.gone.is_none() && inside
        };
        let expected: BTreeSet<&str> =
            world.members.iter().filter(|(_, m)| live(m)).map(|(id, _)| &**id).collect();
        let found: BTreeSet<&str> = sockets.iter().map(|socket| socket.id()).collect();
        assert_eq!(found.len(), sockets.len(), "each socket once");
        assert_eq!(found, expected, "everybody who is there, of {room:?}");
    }

    // ---- what must be true ----

    /// Everybody hears in the order of sending, nothing twice, nothing to somebody it was not
    /// meant for, nothing lost to a client that is still there (with a policy that drops: no more
    /// than was counted), no gap before the end of one that is not; acknowledgements both ways;
    /// one disconnect per socket that left, for a reason that there was; the outbox's bound.
    fn check(&mut self) {
        let stats = self.sim.stats();
        let world = self.world.lock();
        assert_eq!(world.faults, Vec::<String>::new());
        assert_eq!(world.asked, world.answered + world.unanswered, "every wait ends once");
        let mut lost = 0;
        for actor in &self.actors {
            let state = self.sim.state(actor.client);
            assert!(!matches!(state, State::Violated { .. }), "{state:?}");
            let Some(id) = self.sim.id(actor.client) else {
                assert!(actor.heard.is_empty());
                continue;
            };
            let member = &world.members[id];
            let live = state == State::Connected && member.gone.is_none();
            if live {
                assert!(actor.tickets.is_empty(), "{id} waits for {:?}", actor.tickets);
            }
            lost += self.check_heard(actor, id, member, live, &world.messages);
        }
        match self.policy {
            SlowConsumer::Disconnect => assert_eq!((lost, stats.dropped), (0, 0)),
            _ => assert!(lost <= stats.dropped, "{lost} lost, {} dropped", stats.dropped),
        }
        assert!(self.largest_outbox <= 2 * self.limit, "{} bytes", self.largest_outbox);
        for (message, count) in &world.polls {
            let asked = |sure: Sure| {
                let gets = |(id, member): &(&String, &Member)| member.gets(id, message) >= sure;
                world.members.iter().filter(gets).count()
            };
            let (least, most) = (asked(Sure::Yes), asked(Sure::Perhaps));
            assert!((least..=most).contains(count), "{message:?} asked {count}: {least}..={most}");
        }
        self.report.connected += world.members.len() as u64;
        self.report.upgraded +=
            self.actors.iter().filter(|actor| self.sim.is_websocket(actor.client)).count() as u64;
        self.report.dropped += stats.dropped;
        self.report.overflowed += stats.overflowed;
    }

    /// Returns how many messages a client that is still there has missed.
    fn check_heard(
        &self,
        actor: &Actor,
        id: &str,
        member: &Member,
        live: bool,
        messages: &[Message],
    ) -> u64 {
        for (sender, heard) in &actor.heard {
            let sorted = heard.windows(2).all(|pair| pair[0] < pair[1]);
            assert!(sorted, "{id} heard {sender} in this order: {heard:?}");
        }
        let sent: BTreeMap<(&str, u64), usize> =
            messages.iter().enumerate().map(|(at, m)| ((&*m.sender, m.seq), at)).collect();
        let order = actor.order.iter().filter_map(|(sender, seq)| sent.get(&(&**sender, *seq)));
        assert!(order.is_sorted(), "{id} heard in this order: {:?}", actor.order);
        let mut lost = 0;
        let mut heard: BTreeMap<&str, BTreeSet<u64>> = BTreeMap::new();
        for (sender, seqs) in &actor.heard {
            heard.insert(sender, seqs.iter().copied().collect());
        }
        for message in messages {
            let of_sender = heard.get_mut(&*message.sender);
            let last = actor.heard.get(&message.sender).and_then(|heard| heard.last());
            let got = of_sender.is_some_and(|seqs| seqs.remove(&message.seq));
            let gets = member.gets(id, message);
            assert!(!got || gets != Sure::No, "{id} got {message:?}: {member:?}");
            if got || gets != Sure::Yes || message.order.volatile {
                continue;
            }
            let followed = last.is_some_and(|last| *last > message.seq);
            if live || followed {
                lost += 1;
                let drops = self.policy != SlowConsumer::Disconnect;
                assert!(drops, "{id} lost {message:?} (live: {live}): {member:?}");
            }
        }
        let invented = heard.values().any(|seqs| !seqs.is_empty());
        assert!(!invented, "{id} got what nobody sent: {heard:?}");
        lost
    }

    /// Everybody leaves, one way or another, or the server does.
    fn end(&mut self) {
        let shutdown = self.rng.random_bool(0.2);
        if shutdown {
            let done = self.sim.handle().shutdown(Duration::from_secs(5));
            let done = self.sim.run_future(Duration::from_secs(6), done);
            assert!(done.is_some() && self.sim.is_over());
        }
        for actor in 0..self.actors.len() {
            let Actor { client, session, .. } = self.actors[actor];
            self.may_end[session].extend(["transport close", "server shutting down"]);
            self.sim.resume_reading(client);
            if self.rng.random() {
                self.sim.close(client);
            } else {
                // Who polls may be between two requests: only its silence tells.
                self.may_end[session].extend(["transport error", "ping timeout"]);
                self.sim.reset(client);
            }
        }
        self.pass(Duration::from_secs(200));
        let handle = self.sim.handle();
        assert_eq!((handle.sessions(), handle.connections()), (0, 0));
        assert_eq!(self.sim.open_connections(), 0);
    }

    fn finish(mut self) -> Report {
        let world = self.world.lock();
        assert_eq!(world.faults, Vec::<String>::new());
        assert_eq!(world.asked, world.answered + world.unanswered, "every wait ends once");
        let mut sessions = BTreeMap::new();
        for actor in &self.actors {
            if let Some(id) = self.sim.id(actor.client) {
                sessions.insert(id.to_owned(), actor.session);
            }
        }
        for (id, member) in &world.members {
            let Some((_, why)) = member.gone else { panic!("{id} never heard of its end") };
            self.report.reasons.insert(why.as_str());
            let Some(&session) = sessions.get(id) else { continue };
            let broke = matches!(why.as_str(), "transport error" | "ping timeout");
            let caused = self.may_end[session].contains(why.as_str())
                || (broke && self.resets)
                || why == DisconnectReason::LimitOutbox;
            assert!(caused, "{id} ended by {why}, after {:?}", self.may_end[session]);
        }
        self.report.trace = self.sim.trace();
        drop(world);
        self.report
    }
}
