//! The public face as users lean on it: errors that must not vanish, what may be returned, keys
//! and options.

#[path = "support/raw.rs"]
mod raw;
#[path = "support/tools.rs"]
mod tools;

use std::collections::{BTreeMap, HashSet};
use std::net::{SocketAddr, TcpListener};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use raw::{Client, TestServer, on_both_drivers, until};
use stentor::{
    Ack, Args, ConnectError, Data, DriverKind, EngineSocket, EventName, HandlerError, Message,
    Namespace, Server, ServerBuilder, Socket, State,
};

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// What was told to a hook, in order.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<String>>>);

impl Log {
    fn note(&self, line: impl Into<String>) {
        self.0.lock().expect("no panics").push(line.into());
    }

    fn lines(&self) -> Vec<String> {
        self.0.lock().expect("no panics").clone()
    }

    /// The hook `on_error` that notes everything.
    fn hears_errors(&self, ns: &mut Namespace) {
        let log = self.clone();
        ns.on_error(move |_, event, error| log.note(format!("{event}: {error}")));
    }
}

fn echo(ns: &mut Namespace) {
    ns.on("echo", |socket: Socket, Data(args): Data<Args>| socket.emit("echo", &args));
}

// ---- errors that must not vanish ----

fn an_error_that_nobody_waits_for_reaches_the_hook(driver: DriverKind) {
    let log = Log::default();
    let noted = log.clone();
    let server = TestServer::start(driver, |builder| {
        builder.namespace("/", move |ns| {
            ns.on("plain", || Err::<(), _>("no"));
            ns.on("fine", || Ok::<_, String>("yes"));
            ns.on("second", || "first");
            ns.on("second", || Err::<(), _>("of the second"));
            ns.on("taken", |ack: Ack| {
                let _ = ack.send("taken");
                Err::<(), _>("beside an Ack")
            });
            ns.on("late", async || {
                tokio::time::sleep(Duration::from_millis(5)).await;
                Err::<(), _>(serde_json::json!({ "code": 7 }))
            });
            ns.on_any(|EventName(name): EventName| match &*name {
                "any" => Err("of on_any"),
                _ => Ok(()),
            });
            ns.on_connect(|| Err::<(), _>("of on_connect"));
            ns.on_disconnecting(|| Err::<(), _>("of on_disconnecting"));
            ns.on_disconnect(async || Err::<(), _>("of on_disconnect"));
            noted.hears_errors(ns);
            echo(ns);
        })
    });
    let mut client = server.client();
    assert_eq!(client.ask(r#"["plain"]"#), r#"[{"error":"no"}]"#);
    assert_eq!(client.ask(r#"["fine"]"#), r#"["yes"]"#);
    client.send(r#"42["plain"]"#);
    client.send(r#"42["fine"]"#);
    assert_eq!(client.ask(r#"["second"]"#), r#"["first"]"#);
    assert_eq!(client.ask(r#"["taken"]"#), r#"["taken"]"#);
    client.send(r#"42["any"]"#);
    client.send(r#"42["late"]"#);
    client.echoes();
    until("the late one", || log.lines().iter().any(|line| line.starts_with("late")));
    drop(client);
    until("all are told", || log.lines().len() == 8);
    assert_eq!(
        log.lines(),
        [
            "connection: of on_connect",
            "plain: no",
            "second: of the second",
            "taken: beside an Ack",
            "any: of on_any",
            r#"late: {"code":7}"#,
            "disconnecting: of on_disconnecting",
            "disconnect: of on_disconnect",
        ]
    );
}

fn a_value_that_does_not_encode_fails_its_handler(driver: DriverKind) {
    let log = Log::default();
    let noted = log.clone();
    let server = TestServer::start(driver, |builder| {
        builder.namespace("/", move |ns| {
            // JSON knows no keys that are lists.
            ns.on("keyed", || BTreeMap::from([(vec![1], 1)]));
            ns.on("keyed-late", async || Ok::<_, HandlerError>(BTreeMap::from([(vec![1], 1)])));
            noted.hears_errors(ns);
            echo(ns);
        })
    });
    let mut client = server.client();
    for event in ["keyed", "keyed-late"] {
        let answer = client.ask(&format!("[\"{event}\"]"));
        assert_eq!(answer, r#"[{"error":"handler failed"}]"#, "{event}");
    }
    client.echoes();
    let lines = log.lines();
    assert_eq!(lines.len(), 2, "{lines:?}");
    assert!(lines[0].starts_with("keyed: the arguments do not serialise"), "{lines:?}");
}

// ---- what may be returned ----

/// An error that could go to the client as well as to `on_error`.
#[derive(Debug, serde::Serialize, thiserror::Error)]
#[error("both at once")]
struct Both;

fn boxed_errors_are_the_programs_own(driver: DriverKind) {
    let log = Log::default();
    let noted = log.clone();
    let server = TestServer::start(driver, |builder| {
        builder.namespace("/", move |ns| {
            ns.on("boxed", || -> Result<u8, BoxError> { Ok("x".parse::<u8>()?) });
            ns.on("boxed-late", async || -> Result<u8, BoxError> { Err("told by a text".into()) });
            ns.on("both", || -> Result<(), HandlerError> { Err(Both)? });
            ns.on("new", || Err::<(), _>(HandlerError::new("a text")));
            ns.on("fine", || Ok::<_, BoxError>("fine"));
            noted.hears_errors(ns);
            echo(ns);
        })
    });
    let mut client = server.client();
    for event in ["boxed", "boxed-late", "both", "new"] {
        let answer = client.ask(&format!("[\"{event}\"]"));
        assert_eq!(answer, r#"[{"error":"handler failed"}]"#, "{event}");
    }
    assert_eq!(client.ask(r#"["fine"]"#), r#"["fine"]"#);
    assert_eq!(
        log.lines(),
        [
            "boxed: invalid digit found in string",
            "boxed-late: told by a text",
            "both: both at once",
            "new: a text",
        ]
    );
}

fn a_middleware_that_fails_tells_the_program_and_not_the_client(driver: DriverKind) {
    fn fill(ns: &mut Namespace, log: &Log, check: fn() -> Result<(), BoxError>) {
        ns.middleware(check);
        log.hears_errors(ns);
    }
    let log = Log::default();
    let noted = log.clone();
    let server = TestServer::start(driver, move |builder| {
        let (boxed, refusing, late) = (noted.clone(), noted.clone(), noted);
        builder
            .namespace("/", echo)
            .namespace("/boxed", move |ns| fill(ns, &boxed, || Err("secret".into())))
            .namespace("/refusing", move |ns| {
                fill(ns, &refusing, || Err(ConnectError::new("not you"))?);
            })
            .namespace("/late", move |ns| {
                ns.middleware(async || -> Result<(), BoxError> { Ok(()) });
                ns.middleware(async || -> Result<(), HandlerError> {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                    Err(Both)?
                });
                late.hears_errors(ns);
            })
            .namespace("/stateless", |ns| {
                ns.middleware(|State(_): State<u8>| Ok::<_, HandlerError>(()));
            })
    });
    let mut client = server.client();
    for (namespace, message) in [
        ("/boxed", "internal error"),
        ("/refusing", "not you"),
        ("/late", "internal error"),
        ("/stateless", "internal error"),
    ] {
        client.send(&format!("40{namespace},"));
        client.expect(&format!(r#"44{namespace},{{"message":"{message}"}}"#));
    }
    assert_eq!(log.lines(), ["connection: secret", "connection: both at once"]);
}

fn tuples_and_arrays_spread_and_nothing_else_does(driver: DriverKind) {
    let server = TestServer::start(driver, |builder| {
        builder.namespace("/", |ns| {
            ns.on("tuple", || (1, 2));
            ns.on("array", || [1, 2]);
            ns.on("vec", || vec![1, 2]);
            ns.on("one", || ([1, 2],));
            ns.on("unit", || ());
            ns.on("json-null", || serde_json::Value::Null);
            ns.on("null", || stentor::Value::Null);
            ns.on("none", || None::<u8>);
            ns.on("take-array", |Data([a, b]): Data<[i32; 2]>| a + b);
            ns.on("take-vec", |Data(all): Data<Vec<i32>>| all.len());
        })
    });
    let mut client = server.client();
    for (event, answer) in [
        (r#"["tuple"]"#, "[1,2]"),
        (r#"["array"]"#, "[1,2]"),
        (r#"["vec"]"#, "[[1,2]]"),
        (r#"["one"]"#, "[[1,2]]"),
        (r#"["unit"]"#, "[]"),
        (r#"["json-null"]"#, "[]"),
        (r#"["null"]"#, "[null]"),
        (r#"["none"]"#, "[null]"),
        (r#"["take-array",3,4]"#, "[7]"),
        (r#"["take-vec",[3,4],5]"#, "[2]"),
    ] {
        assert_eq!(client.ask(event), answer, "{event}");
    }
}

// ---- keys ----

fn rooms_are_named_by_any_string_or_list_of_them(driver: DriverKind) {
    let server = TestServer::start(driver, |builder| {
        builder.namespace("/", |ns| {
            ns.on("join", |socket: Socket| {
                let list = vec!["vec".to_owned()];
                let shared: Arc<str> = "arc".into();
                let array = ["array".to_owned(), "two".to_owned()];
                socket.join(&list);
                socket.join(list);
                ["str"].iter().for_each(|room| socket.join(room));
                socket.join(&array);
                socket.join(array);
                socket.join(&shared);
                socket.join(shared);
                socket.join(std::borrow::Cow::from("cow"));
                socket.join(Vec::<String>::new());
                let mut rooms = socket.try_rooms().unwrap_or_default().split_off(1);
                rooms.sort();
                rooms.join(" ")
            });
            echo(ns);
        })
    });
    let mut client = server.client();
    assert_eq!(client.ask(r#"["join"]"#), r#"["arc array cow str two vec"]"#);
    let nowhere: &[String] = &[];
    server.handle.to(nowhere).emit("all", ()).expect("a live server");
    client.expect(r#"42["all"]"#);
}

fn an_engine_socket_is_a_key(driver: DriverKind) {
    let log = Log::default();
    let noted = log.clone();
    let server = TestServer::start(driver, |builder| {
        let seen = Mutex::new(HashSet::new());
        builder.engine_io("/engine/", move |socket: EngineSocket, _: Message| {
            let fresh = seen.lock().expect("no panics").insert(socket.clone());
            noted.note(format!("{} {fresh}", socket.id()));
        })
    });
    let target = "/engine/?EIO=4&transport=websocket";
    for _ in 0..2 {
        let mut client = Client::open(server.raw(), target);
        client.raw.send(raw::text("4one"));
        client.raw.send(raw::text("4two"));
    }
    until("all arrived", || log.lines().len() == 4);
    let mut lines = log.lines();
    lines.sort();
    lines.dedup();
    let fresh = |fresh: &str| lines.iter().filter(|line| line.ends_with(fresh)).count();
    assert_eq!((fresh(" true"), fresh(" false")), (2, 2), "{lines:?}");
}

// ---- options ----

#[test]
fn options_that_cannot_be_meant_are_refused() {
    type Wish = fn(ServerBuilder) -> ServerBuilder;
    const YEAR: Duration = Duration::from_secs(365 * 24 * 3600);
    let wishes: [(&str, Wish); 10] = [
        ("ack_timeout", |b| b.ack_timeout(Duration::ZERO)),
        ("ack_timeout", |b| b.ack_timeout(YEAR)),
        ("head_timeout", |b| b.head_timeout(Duration::ZERO)),
        ("head_timeout", |b| b.head_timeout(Duration::from_micros(999))),
        ("body_timeout", |b| b.body_timeout(YEAR)),
        ("keep_alive_timeout", |b| b.keep_alive_timeout(Duration::ZERO)),
        ("given twice", |b| b.engine_io("/socket.io", |_, _| {})),
        ("given twice", |b| b.path("/chat/").engine_io("chat", |_, _| {})),
        ("given twice", |b| b.engine_io("/a/", |_, _| {}).engine_io("/a", |_, _| {})),
        ("no transport", |b| b.transports([])),
    ];
    for (what, wish) in wishes {
        match wish(Server::builder()).bind("127.0.0.1:0") {
            Err(stentor::Error::Config(text)) => assert!(text.contains(what), "{what}: {text}"),
            other => panic!("{what}: {other:?}"),
        }
    }
    let two = Server::builder().engine_io("/a/", |_, _| {}).engine_io("/ab/", |_, _| {});
    two.bind("127.0.0.1:0").expect("two paths");
}

#[test]
fn the_first_address_that_can_be_bound_is_bound() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let taken = taken.local_addr().expect("bound");
    // Nobody has this one: it is for documentation.
    let foreign: SocketAddr = "192.0.2.1:0".parse().expect("an address");
    let free: SocketAddr = "127.0.0.1:0".parse().expect("an address");
    let bound = Server::builder().shards(1).bind(&[foreign, taken, free][..]).expect("the last");
    assert_eq!(bound.local_addr().ip(), free.ip());
    let bound =
        Server::builder().shards(2).bind(&[foreign, free, foreign][..]).expect("the second");
    assert_eq!(bound.local_addr().ip(), free.ip());
    let none = Server::builder().shards(2).bind(&[foreign, foreign][..]);
    assert!(matches!(none, Err(stentor::Error::Io { .. })), "{none:?}");
    let none = Server::builder().bind(&[][..]);
    assert!(matches!(none, Err(stentor::Error::Config(_))), "{none:?}");
}

on_both_drivers! {
    an_error_that_nobody_waits_for_reaches_the_hook,
    a_value_that_does_not_encode_fails_its_handler,
    boxed_errors_are_the_programs_own,
    a_middleware_that_fails_tells_the_program_and_not_the_client,
    rooms_are_named_by_any_string_or_list_of_them,
    tuples_and_arrays_spread_and_nothing_else_does,
    an_engine_socket_is_a_key,
}
