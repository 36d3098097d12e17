//! How sessions and servers end, and what everybody is told; raw Engine.IO from its beginning on.

#[path = "support/program.rs"]
mod program;
#[path = "support/raw.rs"]
mod raw;
#[path = "support/tools.rs"]
mod tools;

use std::net::TcpStream;
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use program::{CROWD, Log, keeping_sockets, wait_for, with_echo};
use raw::{
    BINARY, CLOSE, Client, FIN, Polling, Raw, TestServer, WEBSOCKET, frame, on_both_drivers, text,
    until, upgrade,
};
use stentor::{
    DisconnectReason, DriverKind, EmitError, EngineHandler, EngineSocket, Message, Socket,
};
// ---- ways to end ----

/// How a client brings its end about, and what the server calls it.
type Ending = (&'static str, DisconnectReason, fn(&TestServer, Client, &mpsc::Receiver<Socket>));

fn every_way_to_end_has_its_reason(driver: DriverKind) {
    use DisconnectReason as R;
    let log = Log::default();
    let noted = log.clone();
    let (server, sockets) = keeping_sockets(driver, 1, move |ns| {
        let rooms = noted.clone();
        ns.on_disconnecting(move |socket: Socket| {
            let rooms_left = socket.try_rooms().expect("on its own core");
            assert_eq!(rooms_left, [socket.id(), "room"]);
            rooms.note("rooms");
        });
        ns.on_disconnect(move |socket: Socket, why: DisconnectReason| {
            assert!(!socket.is_connected());
            assert_eq!(socket.try_rooms().expect("on its own core"), [""; 0]);
            noted.note(why.as_str());
        });
    });
    let endings: Vec<Ending> = vec![
        ("a close frame", R::TransportClose, |_, mut client, _| {
            client.raw.send(frame(FIN | CLOSE, b""));
        }),
        ("a close packet", R::TransportClose, |_, mut client, _| client.send("1")),
        ("no more bytes", R::TransportClose, |_, client, _| client.raw.half_close()),
        ("a reset", R::TransportError, |_, client, _| client.raw.reset()),
        ("a bad frame", R::TransportError, |_, mut client, _| client.raw.send([0xff; 2])),
        ("a ping of the client", R::TransportError, |_, mut client, _| client.send("2")),
        ("no packet", R::ParseError, |_, mut client, _| client.send("x")),
        ("an empty message", R::ParseError, |_, mut client, _| client.send("")),
        ("a bad packet", R::ForcedClose, |_, mut client, _| client.send("49")),
        ("a bad payload", R::ForcedClose, |_, mut client, _| client.send("42[\"echo\"")),
        ("no array", R::ForcedClose, |_, mut client, _| client.send("42{}")),
        ("a reserved name", R::ForcedClose, |_, mut client, _| client.send(r#"42["connect"]"#)),
        ("a second CONNECT", R::ForcedServerClose, |_, mut client, _| client.send("40")),
        ("a CONNECT_ERROR", R::ForcedServerClose, |_, mut client, _| client.send("44{}")),
        ("an event elsewhere", R::ForcedServerClose, |_, mut client, _| {
            client.send(r#"42/nowhere,["echo"]"#);
        }),
        ("a DISCONNECT", R::ClientNamespaceDisconnect, |_, mut client, _| {
            client.send("41");
            client.send("1");
        }),
        ("disconnect()", R::ServerNamespaceDisconnect, |_, mut client, sockets| {
            sockets.recv().expect("connected").disconnect();
            client.expect("41");
        }),
        ("close()", R::ServerNamespaceDisconnect, |_, mut client, sockets| {
            sockets.recv().expect("connected").close();
            client.expect("41");
            assert_eq!(client.raw.close_code(), 1000);
        }),
    ];
    let mut expected = Vec::new();
    for (name, reason, bring_about) in endings {
        let client = server.client();
        let socket = sockets.recv().expect("connected");
        socket.join("room");
        // Give the ending the socket; and be sure that it is in its room.
        wait_for(socket.rooms());
        let (give, sockets_again) = mpsc::channel();
        give.send(socket).expect("open");
        bring_about(&server, client, &sockets_again);
        expected.extend(["rooms", reason.as_str()]);
        let all_said = || log.lines().len() >= expected.len();
        until(name, || server.handle.sessions() == 0 && all_said());
        assert_eq!(log.lines(), expected, "{name}");
    }
}

fn deadlines_have_their_reasons(driver: DriverKind) {
    let log = Log::default();
    let noted = log.clone();
    let server = TestServer::start(driver, |builder| {
        builder
            .ping_interval(Duration::from_millis(60))
            .ping_timeout(Duration::from_millis(120))
            .connect_timeout(Duration::from_millis(300))
            .namespace("/", move |ns| {
                ns.on_disconnect(move |why: DisconnectReason| noted.note(why.as_str()));
            })
    });
    // Pings come as long as pongs do.
    let mut client = server.client();
    for _ in 0..4 {
        assert_eq!(client.raw.frame().payload, b"2");
        client.send("3");
    }
    assert_eq!(client.raw.frame().payload, b"2");
    assert!(client.raw.frame_or_end().is_none(), "cut without a word");
    log.expect(&["ping timeout"]);
    // Whoever joins nothing must go.
    let mut idle = Client::open(server.raw(), WEBSOCKET);
    let mut frame = idle.raw.frame();
    while frame.payload == b"2" {
        idle.send("3");
        frame = idle.raw.frame();
    }
    assert_eq!(frame.opcode, CLOSE);
    until("the sessions are gone", || server.handle.sessions() == 0);
    log.expect(&["ping timeout"]);
}

fn polling_clients_end_as_well(driver: DriverKind) {
    let log = Log::default();
    let noted = log.clone();
    let (server, sockets) = keeping_sockets(driver, 1, move |ns| {
        ns.on_disconnect(move |why: DisconnectReason| noted.note(why.as_str()));
    });
    let mut goodbye = Polling::connect(server.addr);
    goodbye.begin_poll();
    let mut other = server.raw();
    assert_eq!(other.post(goodbye.target(), "1").text(), "ok");
    assert_eq!(goodbye.raw.response().text(), "6");
    log.expect(&["transport close"]);

    let mut told = Polling::connect(server.addr);
    sockets.recv().expect("the one before");
    let socket = sockets.recv().expect("connected");
    socket.emit("last", "words").expect("a live server");
    socket.close();
    wait_for(server.handle.fetch_sockets());
    let words = told.poll();
    assert!(words.starts_with(r#"42["last","words"]"#), "{words}");
    let end = if words.ends_with("41") { told.poll() } else { words };
    assert!(end.ends_with('1'), "{end}");
    log.expect(&["transport close", "server namespace disconnect"]);

    let mut garbage = Polling::connect(server.addr);
    let target = garbage.target().to_owned();
    assert_eq!(garbage.raw.post(&target, "x").status, 400);
    log.expect(&["transport close", "server namespace disconnect", "parse error"]);
}

/// A session whose client was just told to move to a WebSocket, with its socket.
fn moving(
    server: &TestServer,
    sockets: &mpsc::Receiver<Socket>,
    polls: bool,
) -> (Polling, Raw, Socket) {
    let mut polling = Polling::connect(server.addr);
    let socket = sockets.recv().expect("connected");
    let mut candidate = server.raw();
    candidate.send(upgrade(&polling.upgrade_target()));
    candidate.expect_switch();
    candidate.send(text("2probe"));
    assert_eq!(candidate.text(), "3probe");
    if polls {
        // The one that the client still had out ends with what there is, or with nothing.
        assert_eq!(polling.poll(), "6");
    }
    (polling, candidate, socket)
}

fn a_session_that_ends_in_its_upgrade_says_the_rest_where_its_client_is(driver: DriverKind) {
    let (server, sockets) = keeping_sockets(driver, 1, |_| {});
    let say_and_close = |socket: Socket| {
        socket.emit("last", "words").expect("a live server");
        socket.close();
        wait_for(server.handle.fetch_sockets());
    };
    let words = r#"42["last","words"]"#;

    // The client goes on with its move.
    let (_polling, mut moved, socket) = moving(&server, &sockets, true);
    say_and_close(socket);
    moved.send(text("5"));
    assert_eq!((moved.text(), moved.text()), (words.to_owned(), "41".to_owned()));
    assert_eq!(moved.close_code(), 1000);

    // A poll of its takes the words, and the end awaits it where it goes.
    let (mut polling, mut moved, socket) = moving(&server, &sockets, false);
    say_and_close(socket);
    assert_eq!(polling.poll(), format!("{words}\x1e41"));
    moved.send(text("5"));
    assert_eq!(moved.close_code(), 1000);

    // The client stays, and its candidate ends with the session.
    let (mut polling, mut left, socket) = moving(&server, &sockets, true);
    say_and_close(socket);
    assert_eq!(polling.poll(), format!("{words}\x1e41"));
    assert_eq!(polling.poll(), "6\x1e1");
    assert_eq!(left.close_code(), 1000);

    // The candidate breaks: the words wait for a poll.
    let (mut polling, broken, socket) = moving(&server, &sockets, true);
    say_and_close(socket);
    broken.reset();
    assert_eq!(polling.poll(), format!("{words}\x1e41"));
    assert_eq!(polling.poll(), "6\x1e1");
    until("nothing is left", || server.handle.sessions() == 0);
}

// ---- raw Engine.IO ----

struct Noting(Log);

impl EngineHandler for Noting {
    fn on_open(&self, socket: EngineSocket) {
        assert!(socket.is_connected());
        self.0.note(format!("open {}", socket.request().query("who").unwrap_or_default()));
        socket.send("welcome").expect("open");
    }

    fn on_message(&self, socket: EngineSocket, message: Message) {
        match message {
            Message::Text(text) if text == "panic" => panic!("of the handler"),
            Message::Text(text) if text == "close" => {
                socket.send("bye").expect("open");
                socket.close();
                assert!(matches!(socket.send("too late"), Err(EmitError::Disconnected)));
            }
            Message::Text(text) if text == "elsewhere" => {
                drop(thread::spawn(move || socket.send_binary(b"from elsewhere")));
            }
            Message::Text(text) => socket.send(&text).expect("open"),
            Message::Binary(bytes) => socket.send_binary(&bytes).expect("open"),
        }
    }

    fn on_close(&self, socket: EngineSocket, reason: DisconnectReason) {
        assert!(!socket.is_connected());
        self.0.note(reason.as_str());
    }
}

const ENGINE_WEBSOCKET: &str = "/engine/?EIO=4&transport=websocket";
const ENGINE_POLLING: &str = "/engine/?EIO=4&transport=polling";

fn raw_engine_io_over_websocket(driver: DriverKind) {
    let log = Log::default();
    let server = TestServer::start(driver, |builder| {
        with_echo(builder).engine_io("/engine/", Noting(log.clone()))
    });
    let mut client = Client::open(server.raw(), &format!("{ENGINE_WEBSOCKET}&who=me"));
    client.expect("4welcome");
    client.send("4hello");
    client.expect("4hello");
    client.send("4");
    client.expect("4");
    client.send("4panic");
    client.raw.send(frame(FIN | BINARY, &[0, 255]));
    let echoed = client.raw.frame();
    assert_eq!((echoed.opcode, echoed.payload), (BINARY, vec![0, 255]));
    client.send("4elsewhere");
    assert_eq!(client.raw.frame().payload, b"from elsewhere");
    client.send("4close");
    client.expect("4bye");
    assert_eq!(client.raw.close_code(), 1000);
    let mut leaving = Client::open(server.raw(), ENGINE_WEBSOCKET);
    leaving.expect("4welcome");
    leaving.send("1");
    log.expect(&["open me", "forced server close", "open ", "transport close"]);
    server.client().echoes();
}

fn raw_engine_io_over_polling(driver: DriverKind) {
    let log = Log::default();
    let server = TestServer::start(driver, |builder| {
        with_echo(builder).engine_io("/engine/", Noting(log.clone()))
    });
    let mut polling = Polling::open_at(server.addr, ENGINE_POLLING);
    if !log.lines().is_empty() {
        // The welcome may have come with the open packet or after it.
        polling.post("4a\x1ebAP8=\x1e4b");
    }
    let mut got = String::new();
    while !got.ends_with("4b") {
        got += &polling.poll();
        got.push('\x1e');
        got.truncate(got.len() - 1);
    }
    assert!(got.ends_with("4a\x1ebAP8=\x1e4b"), "{got}");
    polling.post("4close");
    let mut end = polling.poll();
    assert!(end.starts_with("4bye"), "{end}");
    if !end.ends_with("\x1e1") {
        end = polling.poll();
    }
    assert!(end.ends_with('1'), "{end}");
    // A session of one endpoint is unknown to the other.
    let other = Polling::open_at(server.addr, ENGINE_POLLING);
    let elsewhere = other.target().replace("/engine/", "/socket.io/");
    assert_eq!(server.raw().get(&elsewhere).text(), r#"{"code":1,"message":"Session ID unknown"}"#);
    log.expect(&["open ", "forced server close", "open "]);
}

// ---- the end ----

fn shutdown_tells_flushes_and_returns(driver: DriverKind) {
    let log = Log::default();
    let noted = log.clone();
    let (server, sockets) = keeping_sockets(driver, 2, move |ns| {
        ns.on_disconnect(move |socket: Socket, why: DisconnectReason| {
            let _ = socket.emit("too", "late");
            noted.note(why.as_str());
        });
    });
    let mut clients: Vec<Client> = (0..CROWD).map(|_| server.client()).collect();
    let mut polling = Polling::connect(server.addr);
    polling.begin_poll();
    let mut idle = server.raw();
    assert_eq!(idle.get("/nowhere").status, 404);
    for _ in 0..=CROWD {
        sockets.recv().expect("connected");
    }
    server.handle.emit("last", "words").expect("room for mail");
    let addr = server.addr;
    drop(server.handle.shutdown(Duration::from_secs(15)));
    for client in &mut clients {
        client.expect(r#"42["last","words"]"#);
        assert_eq!(client.raw.close_code(), 1001);
    }
    let words = polling.raw.response();
    assert!(words.text().starts_with(r#"42["last","words"]"#), "{words:?}");
    drop(polling);
    assert!(idle.ends());
    let started = Instant::now();
    server.join().expect("a good end");
    assert!(started.elapsed() < Duration::from_secs(10), "ends once everybody has");
    assert!(TcpStream::connect(addr).is_err());
    assert_eq!(log.lines(), vec!["server shutting down"; CROWD + 1]);
}

fn a_polling_client_that_stays_does_not_hold_a_shutdown_up(driver: DriverKind) {
    let (server, sockets) = keeping_sockets(driver, 1, |_| {});
    let mut polling = Polling::connect(server.addr);
    polling.begin_poll();
    let socket = sockets.recv().expect("connected");
    socket.emit("last", "words").expect("room for mail");
    drop(server.handle.shutdown(Duration::from_secs(15)));
    assert!(polling.raw.response().text().starts_with(r#"42["last","words"]"#));
    // The client does what clients do: it polls again, on the same connection.
    let started = Instant::now();
    polling.raw.send(format!("GET {} HTTP/1.1\r\nHost: here\r\n\r\n", polling.target()));
    let rest = String::from_utf8(polling.raw.rest()).expect("text");
    assert!(rest.is_empty() || rest.ends_with('1'), "{rest}");
    server.join().expect("a good end");
    assert!(started.elapsed() < Duration::from_secs(10), "{:?}", started.elapsed());
}

/// Queues more for the only client than the kernel takes.
fn stuff(server: &TestServer, client: &Client) {
    let fat = "x".repeat(64 * 1024);
    for n in 0..150 {
        server.handle.to(&client.id).emit("fat", (n, &fat)).expect("room for mail");
        wait_for(server.handle.fetch_sockets());
    }
}

fn a_client_that_never_reads_is_cut_at_the_deadline(driver: DriverKind) {
    let server =
        TestServer::start(driver, |builder| with_echo(builder).outbox_limit(64 * 1024 * 1024));
    let victim = Client::connect_over(Raw::connect_narrow(server.addr), WEBSOCKET, "");
    stuff(&server, &victim);
    let started = Instant::now();
    server.end(Duration::from_millis(500)).expect("a good end");
    let took = started.elapsed();
    assert!(took < Duration::from_secs(5), "{took:?}");
    drop(victim);
}

fn a_slow_client_has_until_the_deadline(driver: DriverKind) {
    let server =
        TestServer::start(driver, |builder| with_echo(builder).outbox_limit(64 * 1024 * 1024));
    let mut slow = Client::connect_over(Raw::connect_narrow(server.addr), WEBSOCKET, "");
    stuff(&server, &slow);
    let addr = server.addr;
    drop(server.handle.shutdown(Duration::from_secs(20)));
    until("nobody is let in", || TcpStream::connect(addr).is_err());
    // Longer than a connection that has said everything would be waited for.
    thread::sleep(Duration::from_millis(2_500));
    for n in 0..150 {
        let event = slow.next();
        assert!(event.starts_with(&format!(r#"42["fat",{n},"#)), "{}", &event[..20]);
    }
    assert_eq!(slow.raw.close_code(), 1001);
    server.join().expect("a good end");
}

fn a_shutdown_may_begin_in_a_handler(driver: DriverKind) {
    let handle: Arc<std::sync::OnceLock<stentor::Handle>> = Arc::default();
    let known = handle.clone();
    let server = TestServer::start_on(driver, 2, |builder| {
        builder.namespace("/", move |ns| {
            ns.on("stop", move || {
                drop(known.get().expect("set").shutdown(Duration::from_secs(5)));
                "stopping"
            });
        })
    });
    assert!(handle.set(server.handle.clone()).is_ok());
    let mut client = server.client();
    assert_eq!(client.ask(r#"["stop"]"#), r#"["stopping"]"#);
    assert_eq!(client.raw.close_code(), 1001);
    wait_for(server.handle.shutdown(Duration::ZERO));
    server.join().expect("a good end");
}

on_both_drivers! {
    every_way_to_end_has_its_reason,
    deadlines_have_their_reasons,
    polling_clients_end_as_well,
    a_session_that_ends_in_its_upgrade_says_the_rest_where_its_client_is,
    raw_engine_io_over_websocket,
    raw_engine_io_over_polling,
    shutdown_tells_flushes_and_returns,
    a_polling_client_that_stays_does_not_hold_a_shutdown_up,
    a_client_that_never_reads_is_cut_at_the_deadline,
    a_slow_client_has_until_the_deadline,
    a_shutdown_may_begin_in_a_handler,
}
