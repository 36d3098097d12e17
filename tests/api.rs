//! What handlers see and say: extractors, answers, hooks, panics, order, middlewares, namespaces.

#[path = "support/program.rs"]
mod program;
#[path = "support/raw.rs"]
mod raw;
#[path = "support/tools.rs"]
mod tools;

use std::sync::{Mutex, mpsc};
use std::thread;
use std::time::Duration;

use bytes::Bytes;
use program::{Log, echo};
use raw::{BINARY, Client, FIN, POLLING, TestServer, WEBSOCKET, frame, on_both_drivers, until};
use serde::{Deserialize, Serialize};
use stentor::{
    Ack, Args, Auth, ConnectError, Context, Data, DriverKind, Event, EventName, FromContext,
    HandlerError, Namespace, RawJson, Rejection, Socket, State, Value,
};
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
}
