//! Everything that could grow has a bound: what happens at each of them, seen from outside.
//!
//! The victim of a bound is one client; the others must not notice. Tests that measure the memory
//! of this process run alone in it.

#[path = "support/raw.rs"]
mod raw;
#[path = "support/tools.rs"]
mod tools;

use std::collections::HashMap;
use std::io::{ErrorKind, Write};
use std::sync::{Arc, Mutex, PoisonError, RwLock, mpsc};
use std::time::Duration;

use raw::{
    BINARY, CLOSE, Client, FIN, PING, POLLING, Polling, Raw, TEXT, TestServer, WEBSOCKET, frame,
    on_both_drivers, resident_bytes, sid_of, text, until, upgrade,
};
use stentor::{
    AckError, Args, Data, DisconnectReason, DriverKind, EmitError, Namespace, ServerBuilder,
    SlowConsumer, Socket,
};

/// Held for writing by whoever measures memory.
static MEMORY: RwLock<()> = RwLock::new(());

fn shared() -> impl Drop {
    MEMORY.read().unwrap_or_else(PoisonError::into_inner)
}

fn alone() -> impl Drop {
    MEMORY.write().unwrap_or_else(PoisonError::into_inner)
}

/// Why sockets ended, by their ids.
#[derive(Clone, Default)]
struct Ends(Arc<Mutex<HashMap<String, DisconnectReason>>>);

impl Ends {
    fn note(&self, ns: &mut Namespace) {
        let ends = self.0.clone();
        ns.on_disconnect(move |socket: Socket, why: DisconnectReason| {
            ends.lock().expect("no panics").insert(socket.id().to_owned(), why);
        });
    }

    fn of(&self, id: &str) -> Option<DisconnectReason> {
        self.0.lock().expect("no panics").get(id).copied()
    }

    #[track_caller]
    fn expect(&self, id: &str, why: DisconnectReason) {
        until("the socket ends", || self.of(id).is_some());
        assert_eq!(self.of(id), Some(why));
    }
}

fn with_echo(ends: &Ends) -> impl FnOnce(ServerBuilder) -> ServerBuilder {
    let ends = ends.clone();
    move |builder| {
        builder.namespace("/", |ns| {
            ns.on("echo", |socket: Socket, Data(args): Data<Args>| socket.emit("echo", &args));
            ns.on("join", |socket: Socket, Data(room): Data<String>| socket.join(room));
            ends.note(ns);
        })
    }
}

// ---- clients that do not read ----

const OUTBOX: usize = 256 * 1024;
const FAT_BYTES: usize = 64 * 1024;
const ROUNDS: usize = 200;
/// Far less than what the victim is sent, far more than the bound and its surroundings.
const GROWTH_MAX: usize = 8 * 1024 * 1024;
/// What one turn may receive before reading stops (4 MiB of buffers), in a vector that doubled,
/// and the buffers themselves.
const FLOOD_GROWTH_MAX: usize = 16 * 1024 * 1024;

/// What the victim finds once it reads, and why it ended if it did.
struct Outcome {
    /// The rounds whose fat event came, in the order of their coming.
    got: Vec<usize>,
    reason: Option<DisconnectReason>,
}

/// A thousand clients get an event per round, in order, while one that never reads is sent fifty
/// times its bound.
fn starve_one_of_a_thousand(driver: DriverKind, policy: SlowConsumer) -> Outcome {
    let _alone = alone();
    let ends = Ends::default();
    let server = TestServer::start(driver, |builder| {
        with_echo(&ends)(builder).outbox_limit(OUTBOX).slow_consumer(policy)
    });
    let mut crowd: Vec<Client> = (0..1_000).map(|_| server.client()).collect();
    let mut victim = Client::connect_over(Raw::connect_narrow(server.addr), WEBSOCKET, "");
    victim.send(r#"42["join","victims"]"#);
    victim.send(r#"42["echo",1]"#);
    victim.expect(r#"42["echo",1]"#);
    let before = resident_bytes();
    for round in 0..ROUNDS {
        let fat = format!("{round}:{}", "x".repeat(FAT_BYTES));
        server.handle.to("victims").emit("fat", fat).expect("room for mail");
        server.handle.emit("tick", round).expect("room for mail");
        // One of the crowd keeps the pace, so that nothing piles up on the way to the shard.
        crowd[0].expect(&format!(r#"42["tick",{round}]"#));
    }
    if let (Some(before), Some(after)) = (before, resident_bytes()) {
        let grown = after.saturating_sub(before);
        assert!(grown < GROWTH_MAX, "{grown} bytes for a client that never reads");
    }
    for client in &mut crowd[1..] {
        for round in 0..ROUNDS {
            client.expect(&format!(r#"42["tick",{round}]"#));
        }
    }
    let reason = ends.of(&victim.id);
    let mut got = Vec::new();
    if reason.is_none() {
        // Something to end on: it comes when the victim has drained what was kept.
        server.handle.to("victims").emit("fat", "end:").expect("room for mail");
    }
    while let Some(frame) = victim.raw.frame_or_end() {
        if frame.opcode == CLOSE {
            break;
        }
        let text = String::from_utf8(frame.payload).expect("whole characters");
        let Some(rest) = text.strip_prefix(r#"42["fat",""#) else {
            assert!(text.starts_with(r#"42["tick","#), "{text}");
            continue;
        };
        let (round, filling) = rest.split_once(':').expect("a round");
        if round == "end" {
            break;
        }
        assert_eq!(filling.len(), FAT_BYTES + 2, "a whole event");
        got.push(round.parse().expect("a number"));
        if reason.is_none() && got.last() == Some(&(ROUNDS - 1)) {
            break;
        }
        if reason.is_none() && got.len() % 4 == 0 {
            // Space was made: the next mark gets through at last.
            server.handle.to("victims").emit("fat", "end:").expect("room for mail");
        }
    }
    assert!(got.is_sorted_by(|a, b| a < b), "in order, nothing twice: {got:?}");
    assert!(got.len() < ROUNDS, "the bound was reached");
    Outcome { got, reason }
}

fn a_client_that_never_reads_is_disconnected_alone(driver: DriverKind) {
    let outcome = starve_one_of_a_thousand(driver, SlowConsumer::Disconnect);
    assert_eq!(outcome.reason, Some(DisconnectReason::LimitOutbox));
    assert!(outcome.got.iter().copied().eq(0..outcome.got.len()), "no gap before the end");
}

fn the_close_frame_of_a_full_outbox_follows_a_whole_event(driver: DriverKind) {
    let _shared = shared();
    let ends = Ends::default();
    let server =
        TestServer::start(driver, |builder| with_echo(&ends)(builder).outbox_limit(OUTBOX));
    let mut victim = Client::connect_over(Raw::connect_narrow(server.addr), WEBSOCKET, "");
    let fat = "x".repeat(FAT_BYTES);
    until("the outbox overflows", || {
        server.handle.emit("fat", &fat).expect("room for mail");
        ends.of(&victim.id).is_some()
    });
    let mut frame = victim.raw.frame();
    while frame.opcode == TEXT {
        assert_eq!(frame.payload.len(), FAT_BYTES + r#"42["fat",""]"#.len());
        frame = victim.raw.frame();
    }
    assert_eq!((frame.opcode, &frame.payload[..2]), (CLOSE, &1008_u16.to_be_bytes()[..]));
}

fn a_client_that_never_reads_loses_the_new_events_only(driver: DriverKind) {
    let outcome = starve_one_of_a_thousand(driver, SlowConsumer::DropNew);
    assert_eq!(outcome.reason, None);
    // What was there first was kept; what follows came when there was room by chance.
    assert_eq!(outcome.got[..4], [0, 1, 2, 3]);
    assert!(outcome.got.last().is_some_and(|&last| last < ROUNDS - 1), "{:?}", outcome.got);
}

fn a_client_that_never_reads_loses_the_old_events_only(driver: DriverKind) {
    let outcome = starve_one_of_a_thousand(driver, SlowConsumer::DropOld);
    assert_eq!(outcome.reason, None);
    assert_eq!(outcome.got.last(), Some(&(ROUNDS - 1)), "{:?}", outcome.got);
}

/// Writes once; `None` when the server takes no more for a while.
fn write_for_a_while(raw: &mut Raw, bytes: &[u8]) -> Option<usize> {
    raw.stream.set_write_timeout(Some(Duration::from_millis(500))).expect("a timeout");
    let written = loop {
        match raw.stream.write(bytes) {
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            written => break written.ok(),
        }
    };
    raw.stream.set_write_timeout(Some(raw::LIMIT)).expect("a timeout");
    written
}

/// Writes until the server takes no more for a while. Returns how much it took.
fn pour(raw: &mut Raw, bytes: &[u8], at_most: usize) -> usize {
    let mut poured = 0;
    while poured < at_most {
        match write_for_a_while(raw, bytes) {
            Some(len) => poured += len,
            None => break,
        }
    }
    poured
}

/// More than the kernel holds for two ends of a connection.
const FLOOD: usize = 64 * 1024 * 1024;

fn a_client_that_pings_and_never_reads_is_disconnected(driver: DriverKind) {
    let _alone = alone();
    let ends = Ends::default();
    let server =
        TestServer::start(driver, |builder| with_echo(&ends)(builder).outbox_limit(64 * 1024));
    let mut bystander = server.client();
    let raw = Raw::connect_narrow(server.addr);
    let mut pinger = Client::connect_over(raw, WEBSOCKET, "");
    let pings = frame(FIN | PING, &[b'p'; 125]).repeat(500);
    pour(&mut pinger.raw, &pings, FLOOD);
    ends.expect(&pinger.id, DisconnectReason::LimitOutbox);
    bystander.send(r#"42["echo",1]"#);
    bystander.expect(r#"42["echo",1]"#);
}

fn a_client_that_pipelines_and_never_reads_is_no_longer_read(driver: DriverKind) {
    let _alone = alone();
    let server = TestServer::start(driver, with_echo(&Ends::default()));
    let mut bystander = server.client();
    let before = resident_bytes();
    let mut flooder = Raw::connect_narrow(server.addr);
    let requests = "GET /nowhere HTTP/1.1\r\nHost: here\r\n\r\n".repeat(1_000);
    let poured = pour(&mut flooder, requests.as_bytes(), FLOOD);
    assert!(poured < FLOOD, "the server reads without end");
    if let (Some(before), Some(after)) = (before, resident_bytes()) {
        // The driver's shared buffers may all be used for the first time.
        let grown = after.saturating_sub(before);
        assert!(grown < FLOOD_GROWTH_MAX, "{grown} bytes for a client that never reads");
    }
    bystander.send(r#"42["echo",1]"#);
    bystander.expect(r#"42["echo",1]"#);
}

fn what_follows_a_waiting_poll_is_no_longer_read(driver: DriverKind) {
    let _alone = alone();
    let server = TestServer::start(driver, with_echo(&Ends::default()));
    let mut polling = Polling::connect(server.addr);
    polling.begin_poll();
    let requests = "GET /nowhere HTTP/1.1\r\nHost: here\r\n\r\n".repeat(1_000);
    let poured = pour(&mut polling.raw, requests.as_bytes(), FLOOD);
    assert!(poured < FLOOD, "the server reads without end");
}

/// Writes one piece after the other until the server takes no more for a while. Returns how many
/// were begun, and what is left of the last.
fn pour_pieces(raw: &mut Raw, piece: impl Fn(usize) -> Vec<u8>) -> (usize, Vec<u8>) {
    let mut poured = 0;
    for begun in 1.. {
        let mut rest = piece(begun - 1);
        while !rest.is_empty() {
            match write_for_a_while(raw, &rest) {
                Some(len) => poured += rest.drain(..len).len(),
                None => return (begun, rest),
            }
        }
        assert!(poured < FLOOD, "the server reads without end");
    }
    unreachable!("a flood has an end")
}

/// An event of 16 KiB that `with_receipts` answers in few bytes.
fn numbered(n: usize) -> Vec<u8> {
    text(&format!(r#"42["numbered",{n},"{}"]"#, "x".repeat(16 * 1024)))
}

fn with_receipts(builder: ServerBuilder) -> ServerBuilder {
    builder.namespace("/", |ns| {
        ns.on("numbered", |socket: Socket, Data((n, _)): Data<(usize, String)>| {
            socket.emit("receipt", n)
        });
    })
}

fn expect_receipts(raw: &mut Raw, count: usize) {
    for n in 0..count {
        assert_eq!(raw.text(), format!(r#"42["receipt",{n}]"#));
    }
}

fn frames_behind_an_upgrade_that_waits_for_a_poll_are_all_answered(driver: DriverKind) {
    let _alone = alone();
    let server = TestServer::start(driver, with_receipts);
    let mut polling = Polling::connect(server.addr);
    polling.begin_poll();
    let moves = [upgrade(&polling.upgrade_target()).into_bytes(), text("2probe"), text("5")];
    polling.raw.send(moves.concat());
    // Nothing behind the poll may be served before it is, so reading stops.
    let (count, rest) = pour_pieces(&mut polling.raw, numbered);
    server.handle.emit("go", ()).expect("room for mail");
    assert_eq!(polling.raw.response().text(), r#"42["go"]"#);
    polling.raw.expect_switch();
    polling.raw.send(rest);
    assert_eq!(polling.raw.text(), "3probe");
    expect_receipts(&mut polling.raw, count);
    // From here on it is a WebSocket like any other.
    polling.raw.send(numbered(0));
    expect_receipts(&mut polling.raw, 1);
}

fn frames_behind_answers_that_are_not_read_are_all_answered(driver: DriverKind) {
    const FRAMES: usize = 200;
    let _alone = alone();
    let server = TestServer::start(driver, |builder| {
        // Every answer carries it, so that few of them fill the connection.
        let long = "x".repeat(16 * 1024);
        with_receipts(builder).cors(stentor::Cors::any().exposed_headers([long]))
    });
    let polling = Polling::connect(server.addr);
    let mut raw = Raw::connect_narrow(server.addr);
    // Long requests as well: few fit into what the kernel holds.
    let unknown = format!(
        "GET /socket.io/?EIO=4&transport=pigeon HTTP/1.1\r\nHost: here\r\nX-Long: {}\r\n\r\n",
        "x".repeat(12 * 1024)
    );
    let (requests, rest) = pour_pieces(&mut raw, |_| unknown.clone().into_bytes());
    let moves = [upgrade(&polling.upgrade_target()).into_bytes(), text("2probe"), text("5")];
    let frames: Vec<u8> = (0..FRAMES).flat_map(numbered).collect();
    let mut writer = raw.stream.try_clone().expect("a descriptor");
    std::thread::scope(|scope| {
        // It goes on as fast as its answers are read.
        scope.spawn(move || {
            writer.write_all(&[rest, moves.concat(), frames].concat()).expect("all is taken");
        });
        for _ in 0..requests {
            assert_eq!(raw.response().status, 400);
        }
        raw.expect_switch();
        assert_eq!(raw.text(), "3probe");
        expect_receipts(&mut raw, FRAMES);
    });
}

// ---- counts ----

fn attachments_beyond_the_limit_end_the_session(driver: DriverKind) {
    let _shared = shared();
    let ends = Ends::default();
    let server = TestServer::start(driver, with_echo(&ends));
    let mut client = server.client();
    let leaves: Vec<String> =
        (0..10).map(|num| format!(r#"{{"_placeholder":true,"num":{num}}}"#)).collect();
    let ten = format!(r#"4510-["echo",{}]"#, leaves.join(","));
    client.send(&ten);
    for num in 0..10 {
        client.raw.send(frame(FIN | BINARY, &[num]));
    }
    client.expect(&ten);
    for num in 0..10 {
        assert_eq!(client.raw.frame().payload, [num]);
    }
    client.send(r#"4511-["echo"]"#);
    assert_eq!(client.raw.close_code(), 1008);
    ends.expect(&client.id, DisconnectReason::LimitAttachments);
}

fn attachments_that_break_the_rules_end_the_session(driver: DriverKind) {
    let _shared = shared();
    let ends = Ends::default();
    let server = TestServer::start(driver, with_echo(&ends));
    let placeholder = |num: u32| format!(r#"451-["echo",{{"_placeholder":true,"num":{num}}}]"#);
    let binary = || frame(FIN | BINARY, b"b");
    for offence in [
        binary(),
        [text(&placeholder(0)), text("42[\"echo\"]")].concat(),
        [text(&placeholder(1)), binary()].concat(),
        [text(&placeholder(0)), binary(), binary()].concat(),
    ] {
        let mut client = server.client();
        client.raw.send(offence);
        let mut frame = client.raw.frame();
        while frame.opcode == TEXT || frame.opcode == BINARY {
            frame = client.raw.frame();
        }
        assert_eq!(frame.payload[..2], 1002_u16.to_be_bytes());
        ends.expect(&client.id, DisconnectReason::ForcedClose);
    }
}

fn namespaces_beyond_the_limit_end_the_session(driver: DriverKind) {
    let _shared = shared();
    let ends = Ends::default();
    let server = TestServer::start(driver, |builder| {
        let any = regex::Regex::new("^/room-").expect("a pattern");
        with_echo(&ends)(builder)
            .dynamic_namespace(any, |ns| ends.note(ns))
            .max_namespaces_per_client(3)
    });
    let mut client = server.client();
    let others = [client.join("/room-1"), client.join("/room-2")];
    client.send("41/room-1,");
    client.join("/room-3");
    client.send("40/room-4,");
    assert_eq!(client.raw.close_code(), 1008);
    ends.expect(&client.id, DisconnectReason::LimitNamespaces);
    ends.expect(&others[1], DisconnectReason::LimitNamespaces);
    ends.expect(&others[0], DisconnectReason::ClientNamespaceDisconnect);
}

fn rooms_beyond_the_limit_are_refused(driver: DriverKind) {
    let _shared = shared();
    let server = TestServer::start(driver, |builder| {
        builder.max_rooms_per_socket(3).namespace("/", |ns| {
            ns.on("join", |socket: Socket, Data(rooms): Data<(String, String)>| {
                socket.join([rooms.0, rooms.1]);
                let mut rooms = socket.try_rooms().expect("on its own core");
                rooms.remove(0);
                rooms.sort();
                (rooms,)
            });
        })
    });
    let mut client = server.client();
    assert_eq!(client.ask(r#"["join","a","b"]"#), r#"[["a","b"]]"#);
    // One that is joined already costs nothing.
    assert_eq!(client.ask(r#"["join","a","b"]"#), r#"[["a","b"]]"#);
    assert_eq!(client.ask(r#"["join","c","d"]"#), r#"[["a","b","c"]]"#);
}

fn pending_acks_beyond_the_limit_are_refused(driver: DriverKind) {
    let _shared = shared();
    let server = TestServer::start(driver, |builder| {
        builder.max_pending_acks(2).namespace("/", |ns| {
            ns.on("ask", async |socket: Socket| {
                let ask = |n: u8| socket.emit_with_ack::<u8>("question", n).into_future();
                let (one, two, three) = (ask(1), ask(2), ask(3));
                let refused = matches!(three.await, Err(AckError::TooManyPending));
                (refused, one.await.ok(), two.await.ok())
            });
        })
    });
    let mut client = server.client();
    client.send(r#"427["ask"]"#);
    for answer in [10, 20] {
        let question = client.next();
        let id = question.trim_start_matches("42").split('[').next().expect("an id").to_owned();
        client.send(&format!("43{id}[{answer}]"));
    }
    assert_eq!(client.answer(), "[true,10,20]");
}

fn unfinished_handlers_beyond_the_limit_end_the_session(driver: DriverKind) {
    let _shared = shared();
    let ends = Ends::default();
    let server = TestServer::start(driver, |builder| {
        with_echo(&ends)(builder).max_pending_handlers(3).namespace("/", |ns| {
            ns.on("later", async || tokio::time::sleep(Duration::from_millis(100)).await);
            ns.on("never", async || std::future::pending::<()>().await);
        })
    });
    let mut patient = server.client();
    for _ in 0..3 {
        // Those that end make room.
        (0..3).for_each(|_| patient.send(r#"427["later"]"#));
        (0..3).for_each(|_| assert_eq!(patient.answer(), "[]"));
    }
    let mut client = server.client();
    (0..4).for_each(|_| client.send(r#"42["never"]"#));
    assert_eq!(client.raw.close_code(), 1008);
    ends.expect(&client.id, DisconnectReason::LimitPendingHandlers);
    patient.send(r#"42["echo",1]"#);
    patient.expect(r#"42["echo",1]"#);
}

/// Handlers that wait for ever, and how many of them there are, by what started them.
#[derive(Clone, Default)]
struct Waiting(Arc<Mutex<HashMap<String, usize>>>);

impl Waiting {
    /// Counts one more until dropped.
    fn begin(&self, who: &str) -> impl Drop + use<> {
        struct Guard(Waiting, String);
        impl Drop for Guard {
            fn drop(&mut self) {
                let mut all = self.0.0.lock().expect("no panics");
                *all.get_mut(&self.1).expect("was begun") -= 1;
            }
        }
        *self.0.lock().expect("no panics").entry(who.to_owned()).or_default() += 1;
        Guard(self.clone(), who.to_owned())
    }

    fn of(&self, who: &str) -> usize {
        self.0.lock().expect("no panics").get(who).copied().unwrap_or(0)
    }

    fn all(&self) -> usize {
        self.0.lock().expect("no panics").values().sum()
    }

    fn on_never(&self, ns: &mut Namespace) {
        let waiting = self.clone();
        ns.on("never", move |Data(who): Data<String>| {
            let guard = waiting.begin(&who);
            async move {
                std::future::pending::<()>().await;
                drop(guard);
            }
        });
        ns.on("later", async || tokio::time::sleep(Duration::from_millis(1)).await);
    }

    #[track_caller]
    fn start(&self, client: &mut Client, who: &str, count: usize) {
        (0..count).for_each(|_| client.send(&format!(r#"42["never","{who}"]"#)));
        until("its handlers wait", || self.of(who) == count);
    }
}

fn handlers_of_clients_that_left_make_room(driver: DriverKind) {
    let _shared = shared();
    let (ends, waiting) = (Ends::default(), Waiting::default());
    let server = TestServer::start(driver, |builder| {
        with_echo(&ends)(builder)
            .max_pending_handlers(10)
            .max_pending_handlers_per_shard(20)
            .namespace("/", |ns| waiting.on_never(ns))
    });
    let mut bystander = server.client();
    for who in ["first", "second"] {
        let mut client = server.client();
        waiting.start(&mut client, who, 10);
        client.send("1");
        ends.expect(&client.id, DisconnectReason::TransportClose);
    }
    assert_eq!(waiting.all(), 20, "they go on although their clients have left");
    assert_eq!(bystander.ask(r#"["later"]"#), "[]");
    until("the first to leave made room", || waiting.of("first") == 0);
    assert_eq!(waiting.of("second"), 10);
    // One that comes back again and again has the bound to itself and to nobody's cost.
    for _ in 0..20 {
        let mut client = server.client();
        (0..10).for_each(|_| client.send(r#"42["never","again"]"#));
        client.echoes();
        assert!(waiting.all() <= 20, "{}", waiting.all());
        client.raw.reset();
        assert_eq!(bystander.ask(r#"["later"]"#), "[]");
    }
    assert_eq!(waiting.of("second"), 0);
    bystander.echoes();
}

fn when_nobody_has_left_the_handler_too_many_costs_its_client(driver: DriverKind) {
    let _shared = shared();
    let (ends, waiting) = (Ends::default(), Waiting::default());
    let server = TestServer::start(driver, |builder| {
        with_echo(&ends)(builder)
            .max_pending_handlers_per_shard(20)
            .namespace("/", |ns| waiting.on_never(ns))
    });
    let mut clients = [server.client(), server.client()];
    waiting.start(&mut clients[0], "first", 10);
    waiting.start(&mut clients[1], "second", 10);
    let mut late = server.client();
    late.send(r#"42["never","late"]"#);
    assert_eq!(late.raw.close_code(), 1008);
    ends.expect(&late.id, DisconnectReason::LimitPendingHandlers);
    assert_eq!((waiting.of("first"), waiting.of("second"), waiting.of("late")), (10, 10, 0));
    clients.iter_mut().for_each(Client::echoes);
}

fn decisions_about_requests_that_were_hung_up_make_room(driver: DriverKind) {
    let _shared = shared();
    let waiting = Waiting::default();
    let begun = waiting.clone();
    let server = TestServer::start(driver, move |builder| {
        with_echo(&Ends::default())(builder).max_pending_handlers_per_shard(5).allow_request_async(
            move |request| {
                let guard = request.query("never").map(|who| begun.begin(&who));
                async move {
                    match guard {
                        Some(_guard) => std::future::pending().await,
                        None => tokio::time::sleep(Duration::from_millis(1)).await,
                    }
                    Ok(())
                }
            },
        )
    });
    let begin = |who: &str| {
        let mut raw = server.raw();
        raw.send(format!("GET {POLLING}&never={who} HTTP/1.1\r\nHost: here\r\n\r\n"));
        until("it waits", || waiting.of(who) == 1);
        raw
    };
    for n in 0..20 {
        begin(&format!("gone-{n}")).reset();
        until("it is gone", || server.handle.connections() == 0);
        assert!(waiting.all() <= 5);
    }
    server.client().echoes();
    // As many that still wait are too many, and the next one is told.
    let mut waiters: Vec<Raw> = (0..5).map(|n| begin(&format!("there-{n}"))).collect();
    let refused = server.raw().get(POLLING);
    assert_eq!(refused.status, 403);
    assert_eq!(refused.text(), r#"{"code":4,"message":"the server is busy"}"#);
    assert!(waiters.iter_mut().all(|raw| raw.is_silent_for(Duration::from_millis(1))));
}

fn disconnect_handlers_have_a_bound_of_their_own(driver: DriverKind) {
    let _shared = shared();
    let (ended, waiting) = (mpsc::channel(), Waiting::default());
    let (begun, tell) = (waiting.clone(), ended.0);
    let server = TestServer::start(driver, |builder| {
        with_echo(&Ends::default())(builder).max_pending_handlers_per_shard(3).namespace(
            "/",
            |ns| {
                waiting.on_never(ns);
                ns.on_disconnect(move || {
                    let guard = begun.begin("end");
                    tell.send(()).expect("the test waits");
                    async move {
                        std::future::pending::<()>().await;
                        drop(guard);
                    }
                });
            },
        )
    });
    let mut bystander = server.client();
    for _ in 0..5 {
        server.client().send("1");
        ended.1.recv_timeout(raw::LIMIT).expect("it ends");
    }
    assert_eq!(bystander.ask(r#"["later"]"#), "[]", "handlers have their own");
    assert_eq!(waiting.of("end"), 3);
}

fn a_handler_runs_to_its_end_when_its_client_leaves(driver: DriverKind) {
    let _shared = shared();
    let ends = Ends::default();
    let gate = Arc::new(tokio::sync::Notify::new());
    let (tell, told) = mpsc::channel();
    let opened = gate.clone();
    let server = TestServer::start(driver, |builder| {
        with_echo(&ends)(builder).namespace("/", |ns| {
            ns.on("work", move |socket: Socket| {
                let (gate, tell) = (opened.clone(), tell.clone());
                async move {
                    tell.send("begun").expect("the test waits");
                    gate.notified().await;
                    assert!(!socket.is_connected());
                    assert!(matches!(socket.emit("late", ()), Err(EmitError::Disconnected)));
                    tell.send("done").expect("the test waits");
                }
            });
        })
    });
    let mut client = server.client();
    client.send(r#"42["work"]"#);
    assert_eq!(told.recv_timeout(raw::LIMIT), Ok("begun"));
    client.send("1");
    ends.expect(&client.id, DisconnectReason::TransportClose);
    gate.notify_one();
    assert_eq!(told.recv_timeout(raw::LIMIT), Ok("done"));
}

fn messages_beyond_the_limit_end_the_session(driver: DriverKind) {
    let _shared = shared();
    let ends = Ends::default();
    let server =
        TestServer::start(driver, |builder| with_echo(&ends)(builder).max_http_buffer_size(100));
    let mut client = server.client();
    client.send(&"4".repeat(101));
    assert_eq!(client.raw.close_code(), 1009);
    ends.expect(&client.id, DisconnectReason::LimitMessageSize);
}

fn a_full_mailbox_is_told_to_the_sender(driver: DriverKind) {
    let _shared = shared();
    let (entered, blocked) = mpsc::channel();
    let (release, gate) = mpsc::channel::<()>();
    let gate = Mutex::new(gate);
    let server = TestServer::start(driver, |builder| {
        with_echo(&Ends::default())(builder).max_mail(5).namespace("/", move |ns| {
            ns.on("block", move || {
                entered.send(()).expect("the test waits");
                let _ = gate.lock().expect("no panics").recv();
            });
        })
    });
    let mut client = server.client();
    client.send(r#"42["block"]"#);
    blocked.recv().expect("the handler runs");
    let sent: Vec<bool> = (0..10).map(|n| server.handle.emit("n", n).is_ok()).collect();
    assert_eq!(sent, [vec![true; 5], vec![false; 5]].concat());
    assert!(matches!(server.handle.emit("n", 10), Err(EmitError::MailboxFull)));
    drop(release);
    for n in 0..5 {
        client.expect(&format!(r#"42["n",{n}]"#));
    }
    server.handle.emit("n", "again").expect("room for mail");
    client.expect(r#"42["n","again"]"#);
}

fn connections_beyond_the_limit_are_refused_on_all_shards_together(driver: DriverKind) {
    let _shared = shared();
    let server = TestServer::start_on(driver, 2, |builder| {
        with_echo(&Ends::default())(builder).max_connections(20)
    });
    let mut clients: Vec<Client> = (0..20).map(|_| server.client()).collect();
    let mut refused = server.raw();
    assert_eq!(refused.response().status, 503);
    assert!(refused.ends());
    for client in &mut clients {
        client.send(r#"42["echo",1]"#);
        client.expect(r#"42["echo",1]"#);
    }
}

fn sessions_beyond_the_limit_are_refused_until_one_ends(driver: DriverKind) {
    let _shared = shared();
    let server = TestServer::start_on(driver, 2, |builder| {
        with_echo(&Ends::default())(builder).max_connections(4)
    });
    // Two that stay, and one connection that opens sessions one after the other.
    let mut stays = server.client();
    let mut polls = Polling::connect(server.addr);
    let mut raw = server.raw();
    let sids = [(); 2].map(|()| sid_of(raw.get(POLLING).text()));
    assert_eq!((server.handle.sessions(), server.handle.connections()), (4, 3));
    let refused = raw.get(POLLING);
    assert_eq!(refused.status, 403);
    assert_eq!(refused.text(), r#"{"code":4,"message":"too many sessions"}"#);
    let mut fourth = server.raw();
    fourth.send(upgrade(WEBSOCKET));
    let refused = fourth.response();
    assert_eq!((refused.status, refused.text()), (400, "too many sessions"));
    assert!(fourth.ends());
    drop(fourth);
    // Those that were there have lost nothing: neither the sessions nor the connections.
    assert_eq!(server.handle.sessions(), 4);
    stays.echoes();
    polls.post(r#"42["echo",1]"#);
    assert_eq!(polls.poll(), r#"42["echo",1]"#);
    let place = |n: usize| format!("{POLLING}&sid={}", sids[n]);
    assert_eq!(raw.post(&place(1), "40").text(), "ok");
    assert!(raw.get(&place(1)).text().starts_with("40{"));
    // Whoever ends makes room, at once and for one.
    assert_eq!(raw.post(&place(0), "1").text(), "ok");
    assert_eq!(server.handle.sessions(), 3);
    assert_eq!(raw.get(&place(0)).status, 400, "it is over");
    assert_eq!(raw.get(POLLING).status, 200);
    assert_eq!(raw.get(POLLING).status, 403);
    stays.echoes();
}

on_both_drivers! {
    a_client_that_never_reads_is_disconnected_alone,
    a_client_that_never_reads_loses_the_new_events_only,
    a_client_that_never_reads_loses_the_old_events_only,
    the_close_frame_of_a_full_outbox_follows_a_whole_event,
    a_client_that_pings_and_never_reads_is_disconnected,
    a_client_that_pipelines_and_never_reads_is_no_longer_read,
    what_follows_a_waiting_poll_is_no_longer_read,
    frames_behind_an_upgrade_that_waits_for_a_poll_are_all_answered,
    frames_behind_answers_that_are_not_read_are_all_answered,
    attachments_beyond_the_limit_end_the_session,
    attachments_that_break_the_rules_end_the_session,
    namespaces_beyond_the_limit_end_the_session,
    rooms_beyond_the_limit_are_refused,
    pending_acks_beyond_the_limit_are_refused,
    unfinished_handlers_beyond_the_limit_end_the_session,
    handlers_of_clients_that_left_make_room,
    when_nobody_has_left_the_handler_too_many_costs_its_client,
    decisions_about_requests_that_were_hung_up_make_room,
    disconnect_handlers_have_a_bound_of_their_own,
    a_handler_runs_to_its_end_when_its_client_leaves,
    messages_beyond_the_limit_end_the_session,
    a_full_mailbox_is_told_to_the_sender,
    connections_beyond_the_limit_are_refused_on_all_shards_together,
    sessions_beyond_the_limit_are_refused_until_one_ends,
}
