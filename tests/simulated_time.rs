//! What takes time, in virtual time: heartbeats, timeouts, deadlines, shutdown. Each test is named
//! by its claim. The random whole-server test is `simulation.rs`.

#![allow(clippy::unwrap_used)] // a failed expectation is the verdict

use std::sync::{Arc, Mutex};
use std::time::Duration;

use stentor::sim::{Client, ConnectOptions, Faults, Raw, Sim, State, Transport};
use stentor::{Data, DisconnectReason, EmitError, Server, ServerBuilder, Socket, Value};

fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

/// Timers look at their deadlines this much later at most, and the network takes its time.
const SLACK: Duration = Duration::from_millis(20);

/// Why sockets left, in order.
#[derive(Clone, Default)]
struct Reasons(Arc<Mutex<Vec<DisconnectReason>>>);

impl Reasons {
    fn take(&self) -> Vec<DisconnectReason> {
        std::mem::take(&mut self.0.lock().unwrap())
    }
}

fn server(reasons: &Reasons) -> ServerBuilder {
    let reasons = reasons.clone();
    Server::builder().namespace("/", move |ns| {
        ns.on("echo", |Data(value): Data<Value>| value);
        ns.on("join", |socket: Socket, Data(room): Data<String>| socket.join(room));
        ns.on("close", |socket: Socket| socket.close());
        ns.on_disconnecting(|socket: Socket| {
            // Its session may be somebody else's by now.
            assert!(matches!(socket.emit("bye", ()), Err(EmitError::Disconnected)));
            assert!(socket.volatile().emit("bye", ()).is_err());
        });
        ns.on("async", async |Data(value): Data<u32>| value + 1);
        ns.on_disconnect(move |_: Socket, why: DisconnectReason| {
            reasons.0.lock().unwrap().push(why);
        });
    })
}

fn sim(builder: ServerBuilder) -> Sim {
    Sim::new(builder, 1, Faults::kind()).unwrap()
}

fn connect(sim: &mut Sim, transport: Transport) -> Client {
    let client = sim.connect(ConnectOptions { transport, ..ConnectOptions::default() });
    assert!(sim.run_until(secs(1), |sim| sim.state(client) != State::Connecting));
    assert_eq!(sim.state(client), State::Connected);
    client
}

const TRANSPORTS: [Transport; 3] = [Transport::WebSocket, Transport::Polling, Transport::Upgrade];

#[test]
fn clients_talk_over_every_transport() {
    for transport in TRANSPORTS {
        let reasons = Reasons::default();
        let mut sim = sim(server(&reasons).shards(3));
        let client = connect(&mut sim, transport);
        sim.run_for(secs(1));
        assert_eq!(sim.is_websocket(client), transport != Transport::Polling, "{transport:?}");
        let photo = Value::Binary(vec![1, 2, 3].into());
        let echo = sim.emit_with_ack(client, "echo", photo.clone());
        let later = sim.emit_with_ack(client, "async", 41);
        sim.run_for(secs(1));
        assert_eq!(sim.answer(echo), Some(vec![photo]));
        assert_eq!(sim.answer(later), Some(vec![Value::from(42)]));
        assert_eq!(sim.answer(later), None, "an answer is taken once");
        sim.handle().emit("news", ("a", 1)).unwrap();
        sim.run_for(secs(1));
        assert_eq!(sim.events(client), [("news".to_owned(), vec!["a".into(), 1.into()])]);
        sim.close(client);
        sim.run_for(secs(3));
        assert!(matches!(sim.state(client), State::Closed { .. }), "{:?}", sim.state(client));
        assert_eq!(reasons.take(), [DisconnectReason::TransportClose]);
        // A polling client's connections may idle.
        sim.run_for(secs(80));
        assert_eq!((sim.handle().sessions(), sim.handle().connections()), (0, 0));
        assert_eq!(sim.open_connections(), 0);
    }
}

#[test]
fn the_server_pings_an_interval_after_each_pong() {
    for transport in TRANSPORTS {
        let mut sim = sim(server(&Reasons::default()));
        let client = connect(&mut sim, transport);
        sim.run_for(secs(80));
        let pings = sim.pings(client).to_vec();
        assert_eq!(pings.len(), 3, "{transport:?}");
        for (count, ping) in (1..).zip(pings) {
            let due = secs(25) * count;
            assert!(ping >= due && ping <= due + 2 * SLACK * count, "{ping:?} for {due:?}");
        }
        assert_eq!(sim.state(client), State::Connected);
    }
}

#[test]
fn a_client_that_does_not_pong_is_closed_at_interval_plus_timeout() {
    for transport in TRANSPORTS {
        let reasons = Reasons::default();
        let mut sim = sim(server(&reasons));
        let client = connect(&mut sim, transport);
        sim.set_pongs(client, false);
        assert!(sim.run_until(secs(100), |sim| sim.state(client) != State::Connected));
        let due = secs(25 + 20);
        assert!(sim.now() >= due && sim.now() < due + 2 * SLACK, "{:?}", sim.now());
        assert_eq!(reasons.take(), [DisconnectReason::PingTimeout], "{transport:?}");
        assert_eq!(sim.pings(client).len(), 1);
    }
}

#[test]
fn other_traffic_is_no_pong() {
    let reasons = Reasons::default();
    let mut sim = sim(server(&reasons));
    let client = connect(&mut sim, Transport::WebSocket);
    sim.set_pongs(client, false);
    for _ in 0..100 {
        sim.emit(client, "echo", 1);
        sim.run_for(secs(1));
    }
    assert_eq!(reasons.take(), [DisconnectReason::PingTimeout]);
}

#[test]
fn a_session_without_a_namespace_is_closed_at_the_connect_timeout() {
    let mut sim = sim(server(&Reasons::default()));
    let raw = sim.open(None);
    sim.send(raw, &websocket_request("/socket.io/?EIO=4&transport=websocket"));
    sim.run_for(secs(1));
    assert_eq!(sim.handle().sessions(), 1);
    // A pong in time, so that only the missing namespace is to blame.
    sim.run_for(secs(26));
    sim.send(raw, &masked(1, b"3"));
    assert!(sim.run_until(secs(100), |sim| sim.handle().sessions() == 0));
    assert!(sim.now() >= secs(45) && sim.now() < secs(45) + 2 * SLACK, "{:?}", sim.now());
}

#[test]
fn a_refused_namespace_does_not_stop_the_connect_timeout() {
    let mut sim = sim(server(&Reasons::default()).connect_timeout(secs(5)));
    let options = ConnectOptions { namespace: "/nowhere".to_owned(), ..Default::default() };
    let client = sim.connect(options);
    sim.run_for(secs(4));
    assert_eq!(sim.state(client), State::Refused { message: "Invalid namespace".to_owned() });
    assert_eq!(sim.handle().sessions(), 1);
    sim.run_for(secs(1) + 2 * SLACK);
    assert_eq!(sim.handle().sessions(), 0);
}

#[test]
fn an_upgrade_that_times_out_keeps_the_session() {
    let reasons = Reasons::default();
    let mut sim = sim(server(&reasons));
    let client = connect(&mut sim, Transport::Polling);
    for speaks in [false, true] {
        let candidate = sim.open(None);
        let sid = sim.sid(client).unwrap();
        let target = format!("/socket.io/?EIO=4&transport=websocket&sid={sid}");
        sim.send(candidate, &websocket_request(&target));
        let began = sim.now();
        sim.run_for(secs(1));
        if speaks {
            sim.send(candidate, &masked(1, b"2probe"));
        }
        sim.run_for(secs(8));
        assert!(sim.is_open(candidate));
        assert!(sim.run_until(secs(5), |sim| !sim.is_open(candidate)));
        let lasted = sim.now() - began;
        assert!(lasted >= secs(10) && lasted < secs(10) + 2 * SLACK, "{lasted:?}");
        sim.hang_up(candidate);
        let echo = sim.emit_with_ack(client, "echo", 5);
        sim.run_for(secs(1));
        assert_eq!(sim.answer(echo), Some(vec![5.into()]), "the session goes on over polling");
    }
    assert_eq!(sim.state(client), State::Connected);
    assert_eq!(reasons.take(), []);
}

/// A client that polls, and a connection of its that was answered `3probe`.
fn moving(sim: &mut Sim) -> (Client, Raw) {
    let client = connect(sim, Transport::Polling);
    let candidate = sim.open(None);
    let target = format!("/socket.io/?EIO=4&transport=websocket&sid={}", sim.sid(client).unwrap());
    sim.send(candidate, &websocket_request(&target));
    sim.run_for(SLACK);
    sim.stop_reading(client);
    sim.send(candidate, &masked(1, b"2probe"));
    sim.run_for(SLACK);
    assert!(sim.receive(candidate).ends_with(b"\x81\x063probe"));
    (client, candidate)
}

#[test]
fn a_client_in_its_upgrade_is_told_the_end_within_the_upgrade_timeout() {
    let reasons = Reasons::default();
    let mut sim = sim(server(&reasons).shards(2));
    let (_, moves) = moving(&mut sim);
    let (_, stays) = moving(&mut sim);
    let began = sim.now();
    sim.handle().emit("last", 1).unwrap();
    sim.handle().disconnect_sockets(true).unwrap();
    sim.run_for(secs(5));
    assert_eq!(reasons.take(), [DisconnectReason::ServerNamespaceDisconnect; 2], "at once");
    sim.send(moves, &masked(1, b"5"));
    sim.run_for(SLACK);
    let told = sim.receive(moves);
    assert!(told.starts_with(b"\x81\x0c42[\"last\",1]\x81\x0241\x88"), "{told:?}");
    assert!(!sim.is_open(moves));
    assert!(sim.run_until(secs(30), |sim| !sim.is_open(stays)));
    let lasted = sim.now() - began;
    assert!(lasted > secs(9) && lasted < secs(10) + 2 * SLACK, "{lasted:?}");
    assert_eq!(sim.handle().sessions(), 1, "its words wait for a poll");
    assert!(sim.run_until(secs(30), |sim| sim.handle().sessions() == 0));
    let lasted = sim.now() - began;
    assert!(lasted >= secs(30) && lasted < secs(30) + 2 * SLACK, "{lasted:?}");
}

#[test]
fn a_shutdown_waits_for_an_upgrade_no_longer_than_for_a_last_word() {
    let mut sim = sim(server(&Reasons::default()));
    let (_, candidate) = moving(&mut sim);
    let began = sim.now();
    let shutdown = sim.handle().shutdown(secs(25));
    assert!(sim.run_future(secs(9), shutdown).is_some());
    let lasted = sim.now() - began;
    assert!(lasted < secs(5), "{lasted:?}");
    assert!(!sim.is_open(candidate));
}

#[test]
fn a_slow_reader_has_the_linger_timeout_for_its_last_words() {
    for (linger, waits, hears) in [(2, 3, 0), (20, 3, 1), (20, 19, 1), (20, 21, 0)] {
        let reasons = Reasons::default();
        let faults = Faults { window: 10_000, ..Faults::kind() };
        let server = server(&reasons).linger_timeout(secs(linger));
        let mut sim = Sim::new(server, 1, faults).unwrap();
        let client = connect(&mut sim, Transport::WebSocket);
        sim.stop_reading(client);
        sim.handle().emit("large", "x".repeat(100_000)).unwrap();
        sim.handle().disconnect_sockets(true).unwrap();
        sim.run_for(secs(waits));
        assert_eq!(reasons.take(), [DisconnectReason::ServerNamespaceDisconnect]);
        // From here on it reads, a window at a time.
        sim.resume_reading(client);
        sim.run_for(secs(linger) + secs(1));
        assert_eq!(sim.events(client).len(), hears, "{waits} s of {linger}");
        let ended = if hears == 1 { State::Disconnected } else { State::Lost };
        assert_eq!(sim.state(client), ended);
        assert_eq!(sim.handle().connections(), 0);
    }
}

#[test]
fn a_head_that_drips_is_answered_408_at_the_head_deadline() {
    let mut sim = sim(server(&Reasons::default()));
    let raw = sim.open(None);
    for byte in b"GET /socket.io/?EIO=4&transport=polling HTTP/1.1\r\nHost: slow".iter().take(30) {
        sim.send(raw, &[*byte]);
        sim.run_for(Duration::from_millis(500));
    }
    let answer = String::from_utf8(sim.receive(raw)).unwrap();
    assert!(answer.starts_with("HTTP/1.1 408 "), "{answer:?}");
    assert!(!sim.is_open(raw));
    sim.hang_up(raw);
    sim.run_for(secs(3));
    assert_eq!(sim.handle().connections(), 0);
}

#[test]
fn a_connection_that_says_nothing_ends_at_the_head_deadline() {
    let mut sim = sim(server(&Reasons::default()));
    let raw = sim.open(None);
    sim.run_for(secs(10) - SLACK);
    assert!(sim.is_open(raw));
    sim.run_for(2 * SLACK);
    assert!(!sim.is_open(raw));
    assert_eq!(sim.handle().connections(), 0);
}

#[test]
fn a_body_that_drips_is_answered_408_and_costs_the_request_only() {
    // Shorter than the ping interval: a pong beside the POST would be one POST too many.
    let mut sim = sim(server(&Reasons::default()).body_timeout(secs(15)));
    let client = connect(&mut sim, Transport::Polling);
    let raw = sim.open(None);
    let sid = sim.sid(client).unwrap();
    let head = format!(
        "POST /socket.io/?EIO=4&transport=polling&sid={sid} HTTP/1.1\r\nHost: slow\r\n\
         Content-Length: 1000\r\n\r\n"
    );
    sim.send(raw, head.as_bytes());
    for _ in 0..14 {
        sim.send(raw, b"4");
        sim.run_for(secs(1));
    }
    assert!(sim.is_open(raw));
    sim.run_for(secs(2));
    assert!(sim.receive(raw).starts_with(b"HTTP/1.1 408 "));
    assert!(!sim.is_open(raw));
    let echo = sim.emit_with_ack(client, "echo", 1);
    sim.run_for(secs(1));
    assert_eq!(sim.answer(echo), Some(vec![1.into()]), "the next POST is taken");
}

#[test]
fn an_idle_connection_ends_at_the_keep_alive_timeout() {
    let mut sim = sim(server(&Reasons::default()));
    let raw = sim.open(None);
    sim.run_for(secs(5));
    sim.send(raw, b"GET /elsewhere HTTP/1.1\r\nHost: idle\r\n\r\n");
    sim.run_for(secs(74));
    assert!(sim.receive(raw).starts_with(b"HTTP/1.1 404 "));
    assert!(sim.is_open(raw));
    sim.run_for(secs(1) + 2 * SLACK);
    assert!(!sim.is_open(raw));
    assert_eq!(sim.handle().connections(), 0);
}

#[test]
fn a_closed_polling_session_waits_thirty_seconds_for_its_last_poll() {
    let reasons = Reasons::default();
    let mut sim = sim(server(&reasons));
    let raw = sim.open(None);
    let ask = |sim: &mut Sim, request: String| {
        sim.send(raw, request.as_bytes());
        sim.run_for(SLACK);
        String::from_utf8(sim.receive(raw)).unwrap()
    };
    let path = "/socket.io/?EIO=4&transport=polling";
    let get = |sid: &str| format!("GET {path}{sid} HTTP/1.1\r\nHost: last\r\n\r\n");
    let open = |sim: &mut Sim| {
        let answer = ask(sim, get(""));
        let sid = answer.split("\"sid\":\"").nth(1).unwrap().split('"').next().unwrap();
        let sid = format!("&sid={sid}");
        let post =
            format!("POST {path}{sid} HTTP/1.1\r\nHost: last\r\nContent-Length: 2\r\n\r\n40");
        assert!(ask(sim, post).ends_with("ok"));
        assert!(ask(sim, get(&sid)).contains("40{"));
        sid
    };
    // The one that polls again hears of it.
    let sid = open(&mut sim);
    sim.handle().disconnect_sockets(true).unwrap();
    sim.run_for(secs(29));
    let mut polled = String::new();
    for _ in 0..2 {
        sim.send(raw, get(&sid).as_bytes());
        sim.run_for(SLACK);
        polled += &String::from_utf8(sim.receive(raw)).unwrap();
    }
    assert!(polled.contains("41") && polled.ends_with("6\u{1e}1"), "{polled:?}");
    assert_eq!(sim.handle().sessions(), 0);
    // The one that does not is forgotten.
    open(&mut sim);
    reasons.take();
    sim.handle().disconnect_sockets(true).unwrap();
    sim.run_for(secs(29));
    assert_eq!(reasons.take(), [DisconnectReason::ServerNamespaceDisconnect], "at once");
    assert_eq!(sim.handle().sessions(), 1);
    sim.run_for(secs(1) + 2 * SLACK);
    assert_eq!(sim.handle().sessions(), 0);
}

#[test]
fn a_shutdown_hurries_a_session_that_was_closed_in_its_upgrade() {
    let mut sim = sim(server(&Reasons::default()));
    let (_, candidate) = moving(&mut sim);
    sim.handle().disconnect_sockets(true).unwrap();
    sim.run_for(SLACK);
    let shutdown = sim.handle().shutdown(secs(25));
    assert!(sim.run_future(secs(5), shutdown).is_some(), "not the whole upgrade timeout");
    assert!(!sim.is_open(candidate));
}

#[test]
fn shutdown_tells_flushes_closes_and_ends() {
    let reasons = Reasons::default();
    let mut sim = sim(server(&reasons).shards(2));
    let clients = TRANSPORTS.map(|transport| connect(&mut sim, transport));
    // A client in the middle of its upgrade may listen where nothing comes any more.
    sim.run_for(secs(1));
    sim.handle().emit("last", 1).unwrap();
    let shutdown = sim.handle().shutdown(secs(10));
    assert!(sim.run_future(secs(9), shutdown).is_some());
    assert!(sim.is_over());
    assert!(sim.now() < secs(6), "nobody waited for the deadline: {:?}", sim.now());
    for (client, transport) in clients.into_iter().zip(TRANSPORTS) {
        assert_eq!(sim.events(client).len(), 1, "what was queued is delivered: {transport:?}");
        assert!(matches!(sim.state(client), State::Closed { .. }), "{:?}", sim.state(client));
    }
    assert_eq!(reasons.take(), [DisconnectReason::ServerShuttingDown; 3]);
    let late = sim.connect(ConnectOptions::default());
    sim.run_for(secs(1));
    assert_eq!(sim.state(late), State::Lost);
}

#[test]
fn shutdown_cuts_at_its_deadline_whoever_does_not_read() {
    let mut sim = sim(server(&Reasons::default()));
    let client = connect(&mut sim, Transport::WebSocket);
    sim.stop_reading(client);
    sim.handle().emit("much", "x".repeat(900_000)).unwrap();
    sim.run_for(secs(1));
    let began = sim.now();
    let shutdown = sim.handle().shutdown(Duration::from_millis(1500));
    assert!(sim.run_future(secs(9), shutdown).is_some());
    let lasted = sim.now() - began;
    assert!(lasted >= Duration::from_millis(1500) && lasted < secs(1) * 2, "{lasted:?}");
}

#[test]
fn who_is_being_disconnected_is_out_of_reach_of_the_next_broadcast() {
    let mut sim = sim(server(&Reasons::default()));
    let client = connect(&mut sim, Transport::WebSocket);
    sim.handle().disconnect_sockets(false).unwrap();
    sim.handle().emit("news", 1).unwrap();
    drop(sim.handle().emit_with_ack::<Value>("news", 1).into_future());
    sim.run_for(secs(1));
    assert_eq!(sim.state(client), State::Disconnected);
    assert_eq!(sim.events(client), []);
}

#[test]
fn what_follows_the_end_of_a_session_in_one_payload_is_ignored() {
    let mut sim = sim(server(&Reasons::default()).namespace("/side", |_| {}));
    let raw = sim.open(None);
    let ask = |sim: &mut Sim, request: String| {
        sim.send(raw, request.as_bytes());
        sim.run_for(SLACK);
        String::from_utf8(sim.receive(raw)).unwrap()
    };
    let path = "/socket.io/?EIO=4&transport=polling";
    let answer = ask(&mut sim, format!("GET {path} HTTP/1.1\r\nHost: sim\r\n\r\n"));
    let sid = answer.split("\"sid\":\"").nth(1).unwrap().split('"').next().unwrap();
    let body = "40\u{1e}42[\"close\"]\u{1e}40/side,\u{1e}42[\"close\"]";
    let head = format!("POST {path}&sid={sid} HTTP/1.1\r\nHost: sim\r\n");
    ask(&mut sim, format!("{head}Content-Length: {}\r\n\r\n{body}", body.len()));
    let side = sim.handle().of("/side");
    let left = sim.run_future(secs(1), async move { side.fetch_sockets().await.len() });
    assert_eq!(left, Some(0), "nobody joins over a session that is over");
}

#[test]
fn a_socket_that_ends_reaches_nobody_over_its_old_session() {
    let reasons = Reasons::default();
    let mut sim = sim(server(&reasons));
    for _ in 0..3 {
        let client = connect(&mut sim, Transport::WebSocket);
        sim.reset(client);
        sim.run_for(secs(1));
        let next = connect(&mut sim, Transport::WebSocket);
        sim.run_for(secs(1));
        assert_eq!(sim.state(next), State::Connected);
        assert_eq!(sim.events(next), []);
        sim.close(next);
        sim.run_for(secs(1));
    }
    assert_eq!(reasons.take().len(), 6);
}

#[test]
fn a_close_frame_never_stands_inside_another_frame() {
    for bytes in [masked(8, &1000_u16.to_be_bytes()), masked(0xf, b"no such opcode")] {
        let mut sim =
            Sim::new(server(&Reasons::default()), 1, Faults { window: 10_000, ..Faults::kind() })
                .unwrap();
        let client = connect(&mut sim, Transport::WebSocket);
        sim.stop_reading(client);
        sim.handle().emit("large", "x".repeat(30_000)).unwrap();
        sim.run_for(secs(1));
        sim.send_raw(client, &bytes);
        sim.run_for(secs(1));
        sim.resume_reading(client);
        sim.run_for(secs(1));
        assert_eq!(sim.events(client).len(), 1, "what was begun is finished");
        assert!(matches!(sim.state(client), State::Closed { code: Some(1000 | 1002) }));
    }
}

#[test]
fn a_shut_down_server_has_no_sessions() {
    let mut sim = sim(server(&Reasons::default()));
    let client = connect(&mut sim, Transport::Polling);
    // It does not come back with another poll to hear of the end.
    sim.stop_reading(client);
    sim.handle().emit("news", 1).unwrap();
    sim.run_for(secs(1));
    let shutdown = sim.handle().shutdown(secs(1));
    assert!(sim.run_future(secs(2), shutdown).is_some());
    assert_eq!(sim.handle().sessions(), 0);
}

#[test]
fn an_acknowledgement_that_does_not_come_times_out() {
    let mut sim = sim(server(&Reasons::default()).ack_timeout(secs(3)));
    let client = connect(&mut sim, Transport::WebSocket);
    sim.answer_with(client, |_, _| None);
    let began = sim.now();
    let handle = sim.handle();
    let asked = handle.emit_with_ack::<Value>("anybody", ());
    let answers = sim.run_future(secs(9), async move { asked.await.unwrap() }).unwrap();
    assert_eq!((answers.answers.len(), answers.missing), (0, 1));
    let lasted = sim.now() - began;
    assert!(lasted >= secs(3) && lasted < secs(3) + SLACK, "{lasted:?}");
}

#[test]
fn everybody_is_pinged_when_all_are_due_at_once() {
    // More than the deadlines of one turn.
    const CLIENTS: usize = 5000;
    let at_once = Faults { delay: Duration::ZERO..=Duration::ZERO, ..Faults::kind() };
    let mut sim = Sim::new(server(&Reasons::default()), 1, at_once).unwrap();
    let clients: Vec<Client> =
        (0..CLIENTS).map(|_| sim.connect(ConnectOptions::default())).collect();
    sim.run_for(secs(24));
    sim.run_for(secs(1) + SLACK);
    assert!(clients.iter().all(|&client| sim.pings(client).len() == 1), "once");
    let first = sim.pings(clients[0])[0];
    assert!(clients.iter().all(|&client| sim.pings(client)[0] - first < SLACK), "and in time");
    sim.run_for(secs(21));
    assert!(clients.iter().all(|&client| sim.state(client) == State::Connected));
}

fn websocket_request(target: &str) -> Vec<u8> {
    format!(
        "GET {target} HTTP/1.1\r\nHost: sim\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
    )
    .into_bytes()
}

/// A short frame with the mask 0, which changes nothing.
fn masked(opcode: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![0x80 | opcode, 0x80 | payload.len() as u8, 0, 0, 0, 0];
    frame.extend_from_slice(payload);
    frame
}
