//! The public face, as a user's program and its clients see it: extractors, answers, hooks,
//! namespaces, broadcasts, ways to end, raw Engine.IO, shutdown.

#[path = "support/raw.rs"]
mod raw;
#[path = "support/tools.rs"]
mod tools;

use std::net::TcpStream;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use bytes::Bytes;
use raw::{
    BINARY, CLOSE, Client, FIN, POLLING, Polling, Raw, TestServer, WEBSOCKET, frame,
    on_both_drivers, text, until, upgrade,
};
use serde::{Deserialize, Serialize};
use stentor::{
    Ack, AckError, Args, Auth, ConnectError, Context, Data, DisconnectReason, DriverKind,
    EmitError, EngineHandler, EngineSocket, Event, EventName, FromContext, HandlerError, Message,
    Namespace, RawJson, Rejection, Request, ServerBuilder, Socket, State, Value,
};

/// What happened, in order.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<String>>>);

impl Log {
    fn note(&self, line: impl Into<String>) {
        self.0.lock().expect("no panics").push(line.into());
    }

    fn lines(&self) -> Vec<String> {
        self.0.lock().expect("no panics").clone()
    }

    #[track_caller]
    fn expect(&self, lines: &[&str]) {
        until(&format!("{lines:?}, not {:?}", self.lines()), || self.lines().len() >= lines.len());
        assert_eq!(self.lines(), lines);
    }
}

fn echo(ns: &mut Namespace) {
    ns.on("echo", |socket: Socket, Data(args): Data<Args>| socket.emit("echo", &args));
}

fn with_echo(builder: ServerBuilder) -> ServerBuilder {
    builder.namespace("/", echo)
}

/// Drives a future on a runtime that is none of the server's.
fn wait_for<T>(future: impl IntoFuture<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.expect("a runtime").block_on(async { future.await })
}

// ---- extractors ----

#[derive(Clone)]
struct Motto(&'static str);

#[derive(Clone)]
struct Missing;

#[derive(Deserialize, Serialize, Debug)]
struct Point {
    x: i32,
    y: Option<i32>,
}

#[derive(Deserialize)]
struct Picture {
    name: String,
    bytes: Bytes,
}

/// An extractor of the user's own.
struct Shouted(String);

impl FromContext<Event> for Shouted {
    fn from_context(context: &Context<'_>) -> Result<Self, Rejection> {
        let Data(text) = Data::<String>::from_context(context)?;
        Ok(Self(text.to_uppercase()))
    }
}

fn extractors_give_what_they_promise(driver: DriverKind) {
    let server = TestServer::start(driver, |builder| {
        builder.state(Motto("many")).namespace("/", |ns| {
            ns.on("state", |State(motto): State<Motto>| motto.0);
            ns.on("auth", |Auth(auth): Auth<Point>| auth);
            ns.on("tuple", |Data((a, b)): Data<(i32, String)>| format!("{a}{b}"));
            ns.on("first", |Data(a): Data<i32>| a);
            ns.on("option", |Data((a, b)): Data<(i32, Option<i32>)>| (a, b));
            ns.on("struct", |Data(point): Data<Point>| point);
            ns.on("vec", |Data(all): Data<Vec<i32>>| all.len());
            ns.on("nothing", |Data(()): Data<()>| "nothing");
            ns.on("args", |Data(args): Data<Args>| args);
            ns.on("raw", |Data(json): Data<RawJson>| json.get().to_owned());
            ns.on("value", |Data(value): Data<Value>| value["deep"][0].as_i64());
            ns.on("picture", |Data(p): Data<Picture>| (p.name, p.bytes.len(), p.bytes));
            ns.on("own", |Shouted(text): Shouted| text);
            ns.on("name", |EventName(name): EventName| name);
            ns.on("both", |Data(a): Data<Args>, Data((b,)): Data<(i32,)>| (a.len(), b));
            ns.on("request", |socket: Socket| {
                let request = socket.request();
                (request.query("who").map(|who| who.into_owned()), request.peer_addr().ip())
            });
        })
    });
    let target = format!("{WEBSOCKET}&who=a%20b");
    let mut client = Client::connect_over(server.raw(), &target, r#"{"x":1,"y":2}"#);
    for (event, answer) in [
        (r#"["state"]"#, r#"["many"]"#),
        (r#"["auth"]"#, r#"[{"x":1,"y":2}]"#),
        (r#"["tuple",1,"b"]"#, r#"["1b"]"#),
        (r#"["tuple",1,"b","surplus",{}]"#, r#"["1b"]"#),
        (r#"["first",7,8]"#, "[7]"),
        (r#"["option",1]"#, "[1,null]"),
        (r#"["option",1,2]"#, "[1,2]"),
        (r#"["struct",{"x":1,"z":[]}]"#, r#"[{"x":1,"y":null}]"#),
        (r#"["vec",[1,2,3]]"#, "[3]"),
        (r#"["nothing"]"#, r#"["nothing"]"#),
        (r#"["args",1,null,{"a":[true]}]"#, r#"[1,null,{"a":[true]}]"#),
        (r#"["raw",{ "a" : 1.50 }]"#, r#"["{ \"a\" : 1.50 }"]"#),
        (r#"["value",{"deep":[5]}]"#, "[5]"),
        (r#"["own","loud"]"#, r#"["LOUD"]"#),
        (r#"["name"]"#, r#"["name"]"#),
        (r#"["both",4]"#, "[1,4]"),
        (r#"["request"]"#, r#"["a b","127.0.0.1"]"#),
    ] {
        assert_eq!(client.ask(event), answer, "{event}");
    }
    client.send(r#"451-7["picture",{"name":"n","bytes":{"_placeholder":true,"num":0}}]"#);
    client.raw.send(frame(FIN | BINARY, b"png"));
    client.expect(r#"461-7["n",3,{"_placeholder":true,"num":0}]"#);
    assert_eq!(client.raw.frame().payload, b"png");
}

fn a_missing_state_is_told_to_the_program(driver: DriverKind) {
    let log = Log::default();
    let noted = log.clone();
    let server = TestServer::start(driver, |builder| {
        builder.namespace("/", move |ns| {
            ns.on("missing", |State(_): State<Missing>| "never");
            ns.on_error(move |_, event, error| noted.note(format!("{event}: {error}")));
            echo(ns);
        })
    });
    let mut client = server.client();
    assert_eq!(client.ask(r#"["missing"]"#), r#"[{"error":"handler failed"}]"#);
    client.echoes();
    let lines = log.lines();
    assert!(lines[0].starts_with("missing: ") && lines[0].contains("Missing"), "{lines:?}");
}

fn a_bad_payload_reaches_its_hook_and_is_answered(driver: DriverKind) {
    let log = Log::default();
    let noted = log.clone();
    let server = TestServer::start(driver, |builder| {
        builder.namespace("/", move |ns| {
            ns.on("number", |Data(n): Data<i64>| n);
            ns.on("auth", |Auth(n): Auth<i64>| n);
            ns.on_bad_payload(move |_, event, error| {
                assert!(!error.to_string().is_empty());
                noted.note(event);
            });
            echo(ns);
        })
    });
    let mut client = server.client();
    for event in [r#"["number"]"#, r#"["number","one"]"#, r#"["number",1.5]"#, r#"["auth"]"#] {
        let answer = client.ask(event);
        assert!(answer.starts_with(r#"[{"error":"bad payload: "#), "{answer}");
    }
    client.send(r#"42["number","no answer is due"]"#);
    client.echoes();
    log.expect(&["number", "number", "number", "auth", "number"]);
}

// ---- answers ----

#[derive(Debug, thiserror::Error)]
#[error("told to the program only")]
struct Inner;

#[derive(Serialize)]
struct Public {
    code: u8,
}

fn fails() -> Result<u8, HandlerError> {
    Err(Inner)?
}

fn what_a_handler_returns_is_the_acknowledgement(driver: DriverKind) {
    let log = Log::default();
    let noted = log.clone();
    let server = TestServer::start(driver, |builder| {
        builder.namespace("/", move |ns| {
            ns.on("value", || "v");
            ns.on("unit", || ());
            ns.on("tuple", || (1, "two", [3]));
            ns.on("vec", || vec![1, 2]);
            ns.on("none", || None::<u8>);
            ns.on("bytes", || Bytes::from_static(b"b"));
            ns.on("ok", || Ok::<_, Public>(1));
            ns.on("err", || Err::<u8, _>(Public { code: 7 }));
            ns.on("std-ok", || Ok::<_, Inner>(2));
            ns.on("std-err", || Err::<u8, _>(Inner));
            ns.on("handler-err", fails);
            ns.on("async", async |Data(n): Data<u8>| n + 1);
            ns.on("async-late", async || {
                tokio::time::sleep(Duration::from_millis(5)).await;
                (1, 2)
            });
            ns.on("async-err", async || {
                tokio::time::sleep(Duration::from_millis(5)).await;
                fails()
            });
            ns.on("async-public", async || Err::<(), _>(Public { code: 8 }));
            ns.on_error(move |_, event, error| noted.note(format!("{event}: {error}")));
        })
    });
    let mut client = server.client();
    let failed = r#"[{"error":"handler failed"}]"#;
    for (event, answer) in [
        ("value", r#"["v"]"#),
        ("unit", "[]"),
        ("tuple", r#"[1,"two",[3]]"#),
        ("vec", "[[1,2]]"),
        ("none", "[null]"),
        ("ok", "[1]"),
        ("err", r#"[{"error":{"code":7}}]"#),
        ("std-ok", "[2]"),
        ("std-err", failed),
        ("handler-err", failed),
        ("async\",41,\"", "[42]"),
        ("async-late", "[1,2]"),
        ("async-err", failed),
        ("async-public", r#"[{"error":{"code":8}}]"#),
    ] {
        assert_eq!(client.ask(&format!("[\"{event}\"]")), answer, "{event}");
    }
    client.send(r#"427["bytes"]"#);
    client.expect(r#"461-7[{"_placeholder":true,"num":0}]"#);
    assert_eq!(client.raw.frame().payload, b"b");
    let told = "told to the program only";
    log.expect(&[
        &format!("std-err: {told}"),
        &format!("handler-err: {told}"),
        &format!("async-err: {told}"),
    ]);
}

fn no_acknowledgement_is_sent_that_nobody_asked_for(driver: DriverKind) {
    let server = TestServer::start(driver, |builder| {
        builder.namespace("/", |ns| {
            ns.on("value", || "v");
            ns.on("async", async || "v");
            ns.on("ack", |ack: Ack| {
                assert!(!ack.is_wanted());
                ack.send("a").expect("nothing to do");
            });
            echo(ns);
        })
    });
    let mut client = server.client();
    for event in ["value", "async", "ack"] {
        client.send(&format!("42[\"{event}\"]"));
    }
    client.echoes();
}

fn an_ack_may_be_sent_later_from_another_thread(driver: DriverKind) {
    let (kept, acks) = mpsc::channel();
    let kept = Mutex::new(kept);
    let server = TestServer::start(driver, |builder| {
        builder.namespace("/", move |ns| {
            ns.on("later", move |ack: Ack| {
                assert!(ack.is_wanted());
                kept.lock().expect("no panics").send(ack).expect("the test waits");
                "what a handler returns beside an Ack acknowledges nothing"
            });
            ns.on("drop", |ack: Ack| drop(ack));
            echo(ns);
        })
    });
    let mut client = server.client();
    client.send(r#"421["later"]"#);
    client.send(r#"422["later"]"#);
    client.send(r#"423["drop"]"#);
    client.echoes();
    let (one, two): (Ack, Ack) = (acks.recv().expect("one"), acks.recv().expect("two"));
    thread::spawn(move || two.send(("second", 2)).expect("a live server")).join().expect("sent");
    client.expect(r#"432["second",2]"#);
    one.send(Bytes::from_static(b"first")).expect("a live server");
    client.expect(r#"461-1[{"_placeholder":true,"num":0}]"#);
    assert_eq!(client.raw.frame().payload, b"first");
}

// ---- panics ----

struct Explosive;

impl Serialize for Explosive {
    fn serialize<S: serde::Serializer>(&self, _: S) -> Result<S::Ok, S::Error> {
        panic!("while serialising")
    }
}

fn a_panic_of_a_handler_ends_nothing_but_itself(driver: DriverKind) {
    let log = Log::default();
    let noted = log.clone();
    let server = TestServer::start(driver, |builder| {
        builder.namespace("/", move |ns| {
            ns.on("plain", || -> u8 { panic!("one") });
            ns.on("formatted", || -> u8 { panic!("two {}", 2) });
            ns.on("async", async || -> u8 { panic!("three") });
            ns.on("async-late", async || -> u8 {
                tokio::time::sleep(Duration::from_millis(5)).await;
                panic!("four")
            });
            ns.on("serialise", || Explosive);
            ns.on("serialise-late", async || {
                tokio::time::sleep(Duration::from_millis(5)).await;
                Explosive
            });
            ns.on_disconnecting(|| -> () { panic!("of on_disconnecting") });
            ns.on_disconnect(|| -> () { panic!("of on_disconnect") });
            ns.on_connect(|| -> () { panic!("of on_connect") });
            ns.on_error(move |_, event, error| {
                noted.note(format!("{event}: {error}"));
                panic!("of the hook");
            });
            echo(ns);
        })
    });
    let mut bystander = server.client();
    let mut client = server.client();
    for event in ["plain", "formatted", "async", "async-late", "serialise", "serialise-late"] {
        let answer = client.ask(&format!("[\"{event}\"]"));
        assert_eq!(answer, r#"[{"error":"handler failed"}]"#, "{event}");
        bystander.echoes();
        client.echoes();
    }
    drop(client);
    until("the session is gone", || server.handle.sessions() == 1);
    bystander.echoes();
    let lines = log.lines();
    let of_events: Vec<&str> =
        lines.iter().map(|line| &**line).filter(|line| !line.contains("connect")).collect();
    assert_eq!(
        of_events,
        [
            "plain: panicked: one",
            "formatted: panicked: two 2",
            "async: panicked: three",
            "async-late: panicked: four",
            "serialise: panicked: while serialising",
            "serialise-late: panicked: while serialising",
        ]
    );
}

fn a_panic_of_a_gatekeeper_refuses(driver: DriverKind) {
    let server = TestServer::start(driver, |builder| {
        builder
            .allow_request(|request| match request.query("panic").as_deref() {
                Some("allow") => panic!("of allow_request"),
                _ => Ok(()),
            })
            .generate_id(|request| match request.query("panic").as_deref() {
                Some("id") => panic!("of generate_id"),
                _ => format!("id-{}", request.peer_addr().port()),
            })
            .namespace("/plain", |ns| {
                ns.middleware(|| -> Result<(), ConnectError> { panic!("of a middleware") });
            })
            .namespace("/late", |ns| {
                ns.middleware(async || -> Result<(), ConnectError> {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                    panic!("of a middleware")
                });
            })
            .dynamic_namespace_where(|_, _| panic!("of the function"), |_| {})
            .namespace("/", echo)
    });
    let mut client = server.client();
    for (namespace, words) in [
        ("/plain", "internal error"),
        ("/late", "internal error"),
        ("/unknown", "Invalid namespace"),
    ] {
        client.send(&format!("40{namespace},"));
        client.expect(&format!(r#"44{namespace},{{"message":"{words}"}}"#));
    }
    assert_eq!(server.raw().get(&format!("{POLLING}&panic=allow")).status, 403);
    assert_eq!(server.raw().get(&format!("{POLLING}&panic=id")).status, 400);
    client.echoes();
}

// ---- who hears what, and when ----

fn handlers_run_in_the_order_of_their_registration(driver: DriverKind) {
    let log = Log::default();
    let server = TestServer::start(driver, |builder| {
        let note = |line: &'static str| {
            let log = log.clone();
            move || {
                log.note(line);
                line
            }
        };
        let any = log.clone();
        builder.namespace("/", |ns| {
            ns.on("event", note("first"));
            ns.on("event", note("second"));
            ns.on_unhandled(note("unhandled"));
            ns.on_any(move |EventName(name): EventName| any.note(format!("any {name}")));
            ns.on_any(note("any again"));
            ns.on_connect(note("connected"));
            ns.on_disconnecting(note("disconnecting"));
            ns.on_disconnect(note("disconnected"));
        })
    });
    let mut client = server.client();
    assert_eq!(client.ask(r#"["event"]"#), r#"["first"]"#);
    assert_eq!(client.ask(r#"["else"]"#), r#"["unhandled"]"#);
    drop(client);
    log.expect(&[
        "connected",
        "any event",
        "any again",
        "first",
        "second",
        "any else",
        "any again",
        "unhandled",
        "disconnecting",
        "disconnected",
    ]);
}

fn middlewares_run_in_order_until_one_refuses(driver: DriverKind) {
    let log = Log::default();
    let server = TestServer::start(driver, |builder| {
        let (one, two, three, four) = (log.clone(), log.clone(), log.clone(), log.clone());
        builder.state(Motto("secret")).namespace("/guarded", |ns| {
            ns.middleware(move |socket: Socket| {
                one.note(format!("one, connected: {}", socket.is_connected()));
                socket.set_data(Motto("set by a middleware"));
                socket.join("early");
                Ok::<_, ConnectError>(())
            });
            ns.middleware(move |Auth(token): Auth<Option<String>>, State(motto): State<Motto>| {
                let log = two.clone();
                async move {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                    log.note("two");
                    match token {
                        Some(token) if token == motto.0 => Ok(()),
                        token => Err(ConnectError::new("not authorised")
                            .with_data(&serde_json::json!({ "token": token }))),
                    }
                }
            });
            ns.middleware(move || {
                three.note("three");
                Result::<(), &str>::Ok(())
            });
            ns.on_connect(move |socket: Socket| {
                let motto = socket.data::<Motto>().expect("set before");
                let rooms = socket.try_rooms().expect("on its own core");
                four.note(format!("{}, {:?}", motto.0, &rooms[1..]));
            });
        })
    });
    let mut client = server.client();
    client.send(r#"40/guarded,"wrong""#);
    // An `auth` that is no object is no CONNECT at all.
    assert_eq!(client.raw.close_code(), 1002);

    let server = TestServer::start(driver, |builder| {
        let (one, two, three) = (log.clone(), log.clone(), log.clone());
        builder.namespace("/guarded", |ns| {
            ns.middleware(move |socket: Socket| {
                one.note(format!("one, connected: {}", socket.is_connected()));
                socket.set_data(Motto("set by a middleware"));
                Ok::<_, ConnectError>(())
            });
            ns.middleware(move |Auth(auth): Auth<Option<Point>>| {
                let log = two.clone();
                async move {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                    log.note("two");
                    match auth {
                        Some(Point { x: 1, .. }) => Ok(()),
                        auth => Err(ConnectError::new("not authorised")
                            .with_data(&serde_json::json!({ "auth": auth }))),
                    }
                }
            });
            ns.middleware(|| Result::<(), &str>::Ok(()));
            ns.on_connect(move |socket: Socket| {
                three.note(socket.data::<Motto>().expect("set before").0);
            });
        })
    });
    let mut client = server.client();
    client.send("40/guarded,");
    client.expect(r#"44/guarded,{"message":"not authorised","data":{"auth":null}}"#);
    client.send(r#"40/guarded,{"x":2}"#);
    client.expect(r#"44/guarded,{"message":"not authorised","data":{"auth":{"x":2,"y":null}}}"#);
    client.send(r#"40/guarded,{"x":1}"#);
    assert!(client.next().starts_with(r#"40/guarded,{"sid":""#));
    let one = "one, connected: false";
    log.expect(&[one, "two", one, "two", one, "two", "set by a middleware"]);
}

fn a_client_that_leaves_while_a_middleware_runs_never_connects(driver: DriverKind) {
    let log = Log::default();
    let (entered, seen) = mpsc::channel();
    let (release, gate) = tokio::sync::watch::channel(false);
    let server = TestServer::start(driver, |builder| {
        let (one, two, three) = (log.clone(), log.clone(), log.clone());
        builder.namespace("/slow", |ns| {
            ns.middleware(move || {
                let (mut gate, log) = (gate.clone(), one.clone());
                entered.send(()).expect("the test waits");
                async move {
                    gate.wait_for(|open| *open).await.expect("the test lives");
                    log.note("let in");
                    Result::<(), ConnectError>::Ok(())
                }
            });
            ns.on_connect(move || two.note("connected"));
            ns.on_disconnect(move || three.note("disconnected"));
        })
    });
    let mut client = server.client();
    client.send("40/slow,");
    seen.recv().expect("the middleware runs");
    drop(client);
    until("the session is gone", || server.handle.sessions() == 0);
    release.send(true).expect("the middleware waits");
    log.expect(&["let in"]);
    server.end(Duration::from_secs(5)).expect("a good end");
    log.expect(&["let in"]);
}

fn namespaces_are_found_by_name_then_pattern_then_function(driver: DriverKind) {
    let named = |name: &'static str| {
        move |ns: &mut Namespace| {
            ns.on("which", move |socket: Socket| (name, socket.namespace().to_owned()));
        }
    };
    let pattern = |text: &str| regex::Regex::new(text).expect("a pattern");
    let server = TestServer::start(driver, |builder| {
        builder
            .dynamic_namespace(pattern("^/room-\\d+$"), named("pattern"))
            .dynamic_namespace(pattern("^/room-"), named("second pattern"))
            .dynamic_namespace_where(
                |name, auth| name == "/secret" && auth.to::<Point>().is_some_and(|p| p.x == 1),
                named("function"),
            )
            .namespace("room-1", named("name"))
            .namespace("/", named("root"))
    });
    let mut client = server.client();
    for (namespace, auth, which) in [
        ("/room-1", "", "name"),
        ("/room-2", "", "pattern"),
        ("/room-x", "", "second pattern"),
        ("/secret", r#"{"x":1}"#, "function"),
    ] {
        client.send(&format!("40{namespace},{auth}"));
        assert!(client.next().starts_with(&format!("40{namespace},{{")));
        client.send(&format!(r#"42{namespace},7["which"]"#));
        client.expect(&format!(r#"43{namespace},7["{which}","{namespace}"]"#));
    }
    for (namespace, auth) in [("/nowhere", ""), ("/secret2", r#"{"x":1}"#)] {
        client.send(&format!("40{namespace},{auth}"));
        client.expect(&format!(r#"44{namespace},{{"message":"Invalid namespace"}}"#));
    }
    assert_eq!(client.ask(r#"["which"]"#), r#"["root","/"]"#);
    // They share nothing but the connection.
    server.handle.of("room-2").emit("hello", 1).expect("a live server");
    server.handle.emit("hello", 2).expect("a live server");
    client.expect(r#"42/room-2,["hello",1]"#);
    client.expect(r#"42["hello",2]"#);
}

fn data_is_kept_by_type_until_the_end(driver: DriverKind) {
    let log = Log::default();
    let noted = log.clone();
    let server = TestServer::start(driver, |builder| {
        builder.namespace("/", move |ns| {
            ns.on("set", |socket: Socket, Data(n): Data<u32>| {
                socket.set_data(Motto("typed"));
                socket.set_data(n).map(|old| *old)
            });
            ns.on("get", |socket: Socket| {
                (socket.data::<u32>().map(|n| *n), socket.data::<u64>().is_some())
            });
            ns.on_disconnect(move |socket: Socket| {
                noted.note(socket.data::<Motto>().map_or("none", |motto| motto.0));
            });
        })
    });
    let (mut one, mut two) = (server.client(), server.client());
    assert_eq!(one.ask(r#"["set",1]"#), "[null]");
    assert_eq!(one.ask(r#"["set",2]"#), "[1]");
    assert_eq!(one.ask(r#"["get"]"#), "[2,false]");
    assert_eq!(two.ask(r#"["get"]"#), "[null,false]");
    drop(one);
    log.expect(&["typed"]);
}

// ---- from outside ----

/// Sockets as they connected.
fn keeping_sockets(
    driver: DriverKind,
    shards: usize,
    fill: impl FnOnce(&mut Namespace),
) -> (TestServer, mpsc::Receiver<Socket>) {
    let (keep, sockets) = mpsc::channel();
    let server = TestServer::start_on(driver, shards, |builder| {
        builder.namespace("/", move |ns| {
            ns.on_connect(move |socket: Socket| keep.send(socket).expect("the test waits"));
            echo(ns);
            fill(ns);
        })
    });
    (server, sockets)
}

fn events_of_one_thread_arrive_in_its_order(driver: DriverKind) {
    const THREADS: usize = 4;
    const EVENTS: usize = 500;
    let (server, sockets) = keeping_sockets(driver, 2, |_| {});
    let mut client = server.client();
    let socket = sockets.recv().expect("connected");
    let senders: Vec<_> = (0..THREADS)
        .map(|thread| {
            let (socket, handle) = (socket.clone(), server.handle.clone());
            thread::spawn(move || {
                for n in 0..EVENTS {
                    match n % 3 {
                        0 => socket.emit("n", (thread, n)),
                        1 => handle.to(socket.id()).emit("n", (thread, n)),
                        _ => handle.emit("n", (thread, n)),
                    }
                    .expect("room for mail");
                }
            })
        })
        .collect();
    let mut next = [0; THREADS];
    for _ in 0..THREADS * EVENTS {
        let event = client.next();
        let args = event.strip_prefix(r#"42["n","#).expect("an event").trim_end_matches(']');
        let (thread, n) = args.split_once(',').expect("two arguments");
        let thread: usize = thread.parse().expect("a number");
        assert_eq!(n, next[thread].to_string(), "of thread {thread}");
        next[thread] += 1;
    }
    senders.into_iter().for_each(|sender| sender.join().expect("no panic"));
}

fn sockets_and_handles_work_in_other_runtimes(driver: DriverKind) {
    let (server, sockets) = keeping_sockets(driver, 2, |_| {});
    let mut client = server.client();
    let socket = sockets.recv().expect("connected");
    let handle = server.handle.clone();
    let answering = thread::spawn(move || {
        client.expect(r#"420["question","?"]"#);
        client.send("430[42]");
        client.expect(r#"42["after"]"#);
        client
    });
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    runtime.expect("a runtime").block_on(async move {
        let asked = tokio::spawn({
            let socket = socket.clone();
            async move { socket.emit_with_ack::<u8>("question", "?").await }
        });
        assert_eq!(asked.await.expect("no panic").expect("an answer"), 42);
        socket.join(["a", "b"]);
        let mut rooms = socket.rooms().await;
        rooms.sort();
        let mut expected = vec![socket.id().to_owned(), "a".to_owned(), "b".to_owned()];
        expected.sort();
        assert_eq!(rooms, expected);
        assert_eq!(socket.try_rooms(), None, "not on its core");
        assert_eq!(handle.fetch_sockets().await, [socket.clone()]);
        handle.to("a").emit("after", ()).expect("a live server");
    });
    drop(answering.join().expect("no panic"));
}

fn every_wait_for_an_acknowledgement_ends(driver: DriverKind) {
    let (server, sockets) = keeping_sockets(driver, 1, |_| {});
    let mut client = server.client();
    let socket = sockets.recv().expect("connected");
    let short = Duration::from_millis(50);

    let late = wait_for(socket.emit_with_ack::<u8>("q", ()).timeout(short));
    assert!(matches!(late, Err(AckError::Timeout)), "{late:?}");
    client.expect(r#"420["q"]"#);
    // Late, repeated and invented answers are nobody's.
    ["430[1]", "430[1]", "4399[1]"].into_iter().for_each(|answer| client.send(answer));

    let request = socket.emit_with_ack::<u8>("q", ()).into_future();
    client.expect(r#"421["q"]"#);
    client.send(r#"431["text"]"#);
    let wrong = wait_for(request);
    assert!(matches!(wrong, Err(AckError::Decode(_))), "{wrong:?}");

    let request = socket.emit_with_ack::<(u8, String)>("q", ("a", 1)).into_future();
    client.expect(r#"422["q","a",1]"#);
    client.send(r#"432[7,"seven",null]"#);
    assert_eq!(wait_for(request).expect("an answer"), (7, "seven".to_owned()));

    let request = socket.emit_with_ack::<u8>("q", ()).into_future();
    client.expect(r#"423["q"]"#);
    drop(client);
    let gone = wait_for(request);
    assert!(matches!(gone, Err(AckError::Disconnected)), "{gone:?}");
    let gone = wait_for(socket.emit_with_ack::<u8>("q", ()));
    assert!(matches!(gone, Err(AckError::Disconnected)), "{gone:?}");
    let reserved = wait_for(socket.emit_with_ack::<u8>("disconnect", ()));
    assert!(matches!(reserved, Err(AckError::Emit(EmitError::ReservedEventName))), "{reserved:?}");

    let handle = server.handle.clone();
    server.end(Duration::from_secs(5)).expect("a good end");
    let over = wait_for(socket.emit_with_ack::<u8>("q", ()));
    assert!(over.is_err(), "{over:?}");
    assert!(wait_for(handle.fetch_sockets()).is_empty());
    assert!(wait_for(socket.rooms()).is_empty());
    // Whatever it says, it does not wait.
    let _ = wait_for(handle.emit_with_ack::<u8>("q", ()));
    let _ = handle.emit("q", ());
}

fn what_cannot_be_sent_is_an_error(driver: DriverKind) {
    let (server, sockets) = keeping_sockets(driver, 1, |ns| {
        ns.on("leave", |socket: Socket| {
            socket.disconnect();
            let refused = socket.emit("n", ());
            assert!(matches!(refused, Err(EmitError::Disconnected)), "{refused:?}");
        });
    });
    let mut client = server.client();
    let socket = sockets.recv().expect("connected");
    assert!(matches!(socket.emit("connect", ()), Err(EmitError::ReservedEventName)));
    assert!(matches!(server.handle.emit("disconnecting", ()), Err(EmitError::ReservedEventName)));
    let keys_of_bytes = std::collections::HashMap::from([(vec![1_u8], 1)]);
    assert!(matches!(socket.emit("n", keys_of_bytes), Err(EmitError::Encode(_))));
    client.send(r#"427["leave"]"#);
    client.expect("41");
}

// ---- broadcasts over two shards ----

/// As many clients as it takes to be sure that both shards have some.
const CROWD: usize = 24;

struct Crowd {
    server: TestServer,
    clients: Vec<(Client, Socket)>,
}

fn crowd(driver: DriverKind) -> Crowd {
    let (server, sockets) = keeping_sockets(driver, 2, |ns| {
        ns.on("relay", |socket: Socket, Data((to, except)): Data<(Vec<String>, Vec<String>)>| {
            socket.to(to).except(except).emit("relayed", ()).expect("room for mail");
        });
        ns.on("shout", |socket: Socket| socket.broadcast().emit("shouted", ()));
    });
    let clients = (0..CROWD)
        .map(|_| {
            let client = server.client();
            (client, sockets.recv().expect("connected"))
        })
        .collect();
    Crowd { server, clients }
}

impl Crowd {
    /// Everybody is told to stop listening; what came before is compared with `expected`.
    fn expect(&mut self, expected: impl Fn(usize) -> Vec<&'static str>) {
        self.server.handle.emit("end", ()).expect("room for mail");
        for (index, (client, _)) in self.clients.iter_mut().enumerate() {
            let mut got = Vec::new();
            loop {
                match client.next() {
                    end if end == r#"42["end"]"# => break,
                    event => got.push(event),
                }
            }
            let expected: Vec<String> =
                expected(index).into_iter().map(|event| format!("42[\"{event}\"]")).collect();
            assert_eq!(got, expected, "client {index}");
        }
    }
}

fn a_union_reaches_each_socket_once_and_except_wins(driver: DriverKind) {
    let mut crowd = crowd(driver);
    for (index, (_, socket)) in crowd.clients.iter().enumerate() {
        if index % 2 == 0 {
            socket.join("even");
        }
        if index % 3 == 0 {
            socket.join("third");
        }
        if index % 4 == 0 {
            socket.join("quarter");
        }
    }
    let handle = crowd.server.handle.clone();
    let both = handle.to(["even", "third"]);
    both.emit("union", ()).expect("room for mail");
    both.clone().except("quarter").emit("less", ()).expect("room for mail");
    handle.to("even").to("even").except(["even"]).emit("nobody", ()).expect("room for mail");
    handle.except("even").emit("odd", ()).expect("room for mail");
    let id = crowd.clients[5].1.id().to_owned();
    handle.to(&id).to("quarter").except("third").emit("one more", ()).expect("room for mail");
    both.emit("union again", ()).expect("room for mail");
    crowd.expect(|index| {
        let (even, third, quarter) = (index % 2 == 0, index % 3 == 0, index % 4 == 0);
        let mut events = Vec::new();
        events.extend((even || third).then_some("union"));
        events.extend(((even || third) && !quarter).then_some("less"));
        events.extend((!even).then_some("odd"));
        events.extend(((index == 5 || quarter) && !third).then_some("one more"));
        events.extend((even || third).then_some("union again"));
        events
    });
}

fn the_sender_of_a_broadcast_is_left_out(driver: DriverKind) {
    let mut crowd = crowd(driver);
    for index in [1, 2, 3] {
        crowd.clients[index].1.join("room");
    }
    wait_for(crowd.clients[3].1.rooms());
    crowd.clients[1].0.send(r#"427["relay",["room"],[]]"#);
    crowd.clients[1].0.expect("437[]");
    crowd.clients[0].0.send(r#"427["shout"]"#);
    crowd.clients[0].0.expect(r#"437[null]"#);
    crowd.expect(|index| match index {
        0 => vec![],
        2 | 3 => vec!["relayed", "shouted"],
        _ => vec!["shouted"],
    });
}

fn sockets_are_moved_and_found_across_shards(driver: DriverKind) {
    let mut crowd = crowd(driver);
    let handle = crowd.server.handle.clone();
    handle.sockets_join(["all", "some"]).expect("room for mail");
    let last = crowd.clients[CROWD - 1].1.clone();
    handle.to(last.id()).sockets_leave("some").expect("room for mail");
    assert_eq!(wait_for(handle.fetch_sockets()).len(), CROWD);
    assert_eq!(wait_for(handle.to("all").fetch_sockets()).len(), CROWD);
    let some = wait_for(handle.to("some").fetch_sockets());
    assert_eq!(some.len(), CROWD - 1);
    assert!(!some.contains(&last));
    assert_eq!(wait_for(handle.to("nowhere").fetch_sockets()), []);
    handle.to("some").emit("some", ()).expect("room for mail");
    crowd.expect(|index| if index == CROWD - 1 { vec![] } else { vec!["some"] });

    handle.to("some").disconnect_sockets(false).expect("room for mail");
    for (client, _) in &mut crowd.clients[..CROWD - 1] {
        client.expect("41");
    }
    // Their connections stay, and may join again.
    crowd.clients[0].0.send("40");
    assert!(crowd.clients[0].0.next().starts_with("40{"));
    assert_eq!(wait_for(handle.fetch_sockets()).len(), 2);
    handle.disconnect_sockets(true).expect("room for mail");
    for index in [0, CROWD - 1] {
        crowd.clients[index].0.expect("41");
        assert_eq!(crowd.clients[index].0.raw.close_code(), 1000);
    }
    until("two sessions are gone", || handle.sessions() == CROWD - 2);
}

fn a_broadcast_collects_acknowledgements_of_all_who_stay(driver: DriverKind) {
    let mut crowd = crowd(driver);
    let handle = crowd.server.handle.clone();
    let request = handle.emit_with_ack::<usize>("q", ()).timeout(Duration::from_secs(20));
    let request = request.into_future();
    let mut ids = Vec::new();
    for (index, (client, _)) in crowd.clients.iter_mut().enumerate() {
        let question = client.next();
        let id = question.strip_prefix("42").and_then(|rest| rest.strip_suffix(r#"["q"]"#));
        let id = id.expect("a question").to_owned();
        match index {
            // Leaves without an answer, or with one of the wrong type.
            0 => client.send("41"),
            1 => client.raw.send(frame(FIN | CLOSE, b"")),
            2 => client.send(&format!(r#"43{id}["text"]"#)),
            _ => client.send(&format!("43{id}[{index}]")),
        }
        ids.push(id);
    }
    assert!(ids.iter().all(|id| *id == ids[0]), "one id for all: {ids:?}");
    let mut answers = wait_for(request).expect("a live server");
    answers.answers.sort_unstable();
    assert!(answers.answers.iter().copied().eq(3..CROWD), "{answers:?}");
    assert_eq!((answers.missing, answers.undecodable), (2, 1));
    assert!(!answers.is_complete());

    let nobody = wait_for(handle.to("nowhere").emit_with_ack::<u8>("q", ())).expect("at once");
    assert!(nobody.is_complete() && nobody.answers.is_empty());
    let silent = handle.emit_with_ack::<u8>("q", ()).timeout(Duration::from_millis(50));
    assert_eq!(wait_for(silent).expect("a live server").missing, CROWD - 2);
}

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
            client.send("40");
            assert!(client.next().starts_with("40{"), "the connection stays");
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
        if name == "a DISCONNECT" {
            // The second socket of that connection was in no room; `expect` would hear it.
            let again = sockets.recv().expect("connected again");
            drop(again);
        }
        until(name, || log.lines().len() >= expected.len());
        assert_eq!(
            log.lines()[expected.len() - 2..][..2],
            expected[expected.len() - 2..],
            "{name}"
        );
        log.0.lock().expect("no panics").truncate(expected.len());
        until(name, || server.handle.sessions() == 0);
        log.0.lock().expect("no panics").truncate(expected.len());
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
    assert_eq!(garbage.raw.post(&garbage.target().to_owned(), "x").status, 400);
    log.expect(&["transport close", "server namespace disconnect", "parse error"]);
}

// ---- who may open a session, and under which id ----

fn allow_request_decides_at_once_or_later(driver: DriverKind) {
    let decide = |request: &Request| match request.query("token").as_deref() {
        Some("good") => Ok(()),
        Some(_) => Err("bad token".to_owned()),
        None => Err(String::new()),
    };
    let plain = TestServer::start(driver, |builder| with_echo(builder).allow_request(decide));
    let late = TestServer::start(driver, |builder| {
        with_echo(builder).allow_request_async(move |request: Arc<Request>| async move {
            tokio::time::sleep(Duration::from_millis(5)).await;
            decide(&request)
        })
    });
    for server in [&plain, &late] {
        let refused = server.raw().get(&format!("{POLLING}&token=bad"));
        assert_eq!((refused.status, refused.text()), (403, r#"{"code":4,"message":"bad token"}"#));
        let refused = server.raw().get(POLLING);
        assert_eq!((refused.status, refused.text()), (403, r#"{"code":4,"message":"Forbidden"}"#));
        let mut raw = server.raw();
        raw.send(upgrade(&format!("{WEBSOCKET}&token=bad")));
        let refused = raw.response();
        assert_eq!((refused.status, refused.text()), (400, "bad token"));
        assert!(raw.ends());
        // Frames that come with the request wait for the decision.
        let mut raw = server.raw();
        raw.send([upgrade(&format!("{WEBSOCKET}&token=good")).into_bytes(), text("40")].concat());
        raw.expect_switch();
        assert!(raw.text().starts_with("0{"));
        assert!(raw.text().starts_with("40{"));
        Polling::open_at(server.addr, &format!("{POLLING}&token=good")).post("40");
    }
}

fn ids_of_the_users_making_are_used(driver: DriverKind) {
    let count = AtomicUsize::new(0);
    let server = TestServer::start_on(driver, 2, |builder| {
        with_echo(builder).generate_id(move |request| match request.query("id") {
            Some(id) => id.into_owned(),
            None => format!("own-{}", count.fetch_add(1, Ordering::Relaxed)),
        })
    });
    let mut polling = Polling::open_at(server.addr, &format!("{POLLING}&id=mine"));
    assert_eq!(polling.sid, "mine");
    // Taken and empty ids open nothing; one that is free again does.
    for id in ["mine", ""] {
        assert_eq!(server.raw().get(&format!("{POLLING}&id={id}")).status, 400);
    }
    polling.post("40");
    assert!(polling.poll().starts_with("40{"));
    // Found from whichever shard gets the connection.
    for _ in 0..CROWD {
        let mut raw = server.raw();
        assert_eq!(raw.post(polling.target(), r#"42["echo",1]"#).text(), "ok");
        assert_eq!(raw.get(polling.target()).text(), r#"42["echo",1]"#);
    }
    polling.post("1");
    until("the id is free", || server.raw().get(&format!("{POLLING}&id=mine")).status == 200);
    assert!(server.client().sid.starts_with("own-"));
}

fn ids_are_long_and_all_different(driver: DriverKind) {
    let (server, sockets) = keeping_sockets(driver, 2, |_| {});
    let mut ids = std::collections::HashSet::new();
    for _ in 0..CROWD {
        let client = server.client();
        let socket = sockets.recv().expect("connected");
        assert_eq!(socket.id(), client.id);
        for id in [client.id, client.sid] {
            assert_eq!(id.len(), 20);
            assert!(ids.insert(id), "a socket's id is not its session's");
        }
    }
}

// ---- shards ----

fn requests_find_their_session_on_any_shard(driver: DriverKind) {
    let server = TestServer::start_on(driver, 2, with_echo);
    let sessions: Vec<Polling> = (0..CROWD).map(|_| Polling::connect(server.addr)).collect();
    // One connection serves them all, moving between the shards as it goes.
    let mut raw = server.raw();
    for round in 0..3 {
        for session in &sessions {
            let packet = format!(r#"42["echo",{round}]"#);
            assert_eq!(raw.post(session.target(), &packet).text(), "ok");
            assert_eq!(raw.get(session.target()).text(), packet);
        }
    }
    // Also when everything is pipelined, and when it is a WebSocket that asks.
    let requests: String = sessions
        .iter()
        .map(|session| {
            let get = format!("GET {} HTTP/1.1\r\nHost: here\r\n\r\n", session.target());
            raw::post(session.target(), r#"42["echo","all"]"#) + &get
        })
        .collect();
    raw.send(requests);
    for _ in &sessions {
        assert_eq!(raw.response().text(), "ok");
        assert_eq!(raw.response().text(), r#"42["echo","all"]"#);
    }
    for session in &sessions {
        let mut raw = server.raw();
        let request = upgrade(&session.upgrade_target());
        raw.send([request.into_bytes(), text("2probe"), text("5")].concat());
        raw.expect_switch();
        assert_eq!(raw.text(), "3probe");
        raw.send(text(r#"42["echo","moved"]"#));
        assert_eq!(raw.text(), r#"42["echo","moved"]"#);
    }
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
    extractors_give_what_they_promise,
    a_missing_state_is_told_to_the_program,
    a_bad_payload_reaches_its_hook_and_is_answered,
    what_a_handler_returns_is_the_acknowledgement,
    no_acknowledgement_is_sent_that_nobody_asked_for,
    an_ack_may_be_sent_later_from_another_thread,
    a_panic_of_a_handler_ends_nothing_but_itself,
    a_panic_of_a_gatekeeper_refuses,
    handlers_run_in_the_order_of_their_registration,
    middlewares_run_in_order_until_one_refuses,
    a_client_that_leaves_while_a_middleware_runs_never_connects,
    namespaces_are_found_by_name_then_pattern_then_function,
    data_is_kept_by_type_until_the_end,
    events_of_one_thread_arrive_in_its_order,
    sockets_and_handles_work_in_other_runtimes,
    every_wait_for_an_acknowledgement_ends,
    what_cannot_be_sent_is_an_error,
    a_union_reaches_each_socket_once_and_except_wins,
    the_sender_of_a_broadcast_is_left_out,
    sockets_are_moved_and_found_across_shards,
    a_broadcast_collects_acknowledgements_of_all_who_stay,
    every_way_to_end_has_its_reason,
    deadlines_have_their_reasons,
    polling_clients_end_as_well,
    allow_request_decides_at_once_or_later,
    ids_of_the_users_making_are_used,
    ids_are_long_and_all_different,
    requests_find_their_session_on_any_shard,
    raw_engine_io_over_websocket,
    raw_engine_io_over_polling,
    shutdown_tells_flushes_and_returns,
    a_polling_client_that_stays_does_not_hold_a_shutdown_up,
    a_client_that_never_reads_is_cut_at_the_deadline,
    a_slow_client_has_until_the_deadline,
    a_shutdown_may_begin_in_a_handler,
}
