//! The public face as users lean on it: errors that must not vanish, what may be returned, keys
//! and options.

#[path = "support/raw.rs"]
mod raw;
#[path = "support/tools.rs"]
mod tools;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use raw::{TestServer, on_both_drivers, until};
use stentor::{
    Ack, Args, ConnectError, Data, DriverKind, EventName, HandlerError, Namespace, Socket, State,
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
                tokio::time::sleep(std::time::Duration::from_millis(5)).await;
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
                    tokio::time::sleep(std::time::Duration::from_millis(5)).await;
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

// ---- keys ----

fn rooms_are_named_by_any_string_or_list_of_them(driver: DriverKind) {
    let server = TestServer::start(driver, |builder| {
        builder.namespace("/", |ns| {
            ns.on("join", |socket: Socket| {
                let list = vec!["vec".to_owned()];
                let shared: Arc<str> = "arc".into();
                socket.join(&list);
                socket.join(list);
                socket.join(&"str");
                socket.join(&["array", "two"]);
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

on_both_drivers! {
    an_error_that_nobody_waits_for_reaches_the_hook,
    a_value_that_does_not_encode_fails_its_handler,
    boxed_errors_are_the_programs_own,
    a_middleware_that_fails_tells_the_program_and_not_the_client,
    rooms_are_named_by_any_string_or_list_of_them,
}
