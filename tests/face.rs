//! The public face as users lean on it: errors that must not vanish, what may be returned, keys
//! and options.

#[path = "support/raw.rs"]
mod raw;
#[path = "support/tools.rs"]
mod tools;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use raw::{TestServer, on_both_drivers, until};
use stentor::{Ack, Args, Data, DriverKind, EventName, HandlerError, Namespace, Socket};

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

on_both_drivers! {
    an_error_that_nobody_waits_for_reaches_the_hook,
    a_value_that_does_not_encode_fails_its_handler,
}
