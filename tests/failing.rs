//! What fails beyond handlers: rules of the user's that panic, and a shard that dies.
//!
//! Panics of handlers are in `tests/api.rs`; here it is seen who else notices, and who is told.

#[path = "support/raw.rs"]
mod raw;
#[path = "support/tools.rs"]
mod tools;

use std::fmt::Write;
use std::sync::{Mutex, Once, PoisonError};
use std::time::{Duration, Instant};

use raw::{Client, POLLING, Polling, TestServer, on_both_drivers, until};
use stentor::{Cors, Data, DriverKind, Error, Socket, Value};
use tracing::field::{Field, Visit};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};

// ---- what is logged ----

/// Errors that the servers of this process have logged, each with all of its fields.
static ERRORS: Mutex<Vec<String>> = Mutex::new(Vec::new());

struct Errors;

impl<S: tracing::Subscriber> Layer<S> for Errors {
    fn on_event(&self, event: &tracing::Event<'_>, _: Context<'_, S>) {
        struct Text(String);
        impl Visit for Text {
            fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
                let _ = write!(self.0, "{}={value:?} ", field.name());
            }
        }
        if *event.metadata().level() == tracing::Level::ERROR {
            let mut text = Text(String::new());
            event.record(&mut text);
            ERRORS.lock().expect("no panics").push(text.0);
        }
    }
}

/// Held by whoever counts errors.
static COUNTING: Mutex<()> = Mutex::new(());

fn keep_errors() -> impl Drop {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let subscriber = tracing_subscriber::registry().with(Errors);
        tracing::subscriber::set_global_default(subscriber).expect("no other");
    });
    COUNTING.lock().unwrap_or_else(PoisonError::into_inner)
}

fn logged(part: &str) -> usize {
    ERRORS.lock().expect("no panics").iter().filter(|line| line.contains(part)).count()
}

// ---- rules ----

fn a_cors_rule_that_panics_allows_nothing_and_is_logged(driver: DriverKind) {
    let _counting = keep_errors();
    let server = TestServer::start(driver, |builder| {
        let rule = Cors::predicate(|origin| match origin {
            "https://ok.example" => true,
            other => panic!("what is {other}?"),
        });
        builder.cors(rule.credentials(true)).namespace("/", |ns| {
            ns.on("echo", |socket: Socket, Data(value): Data<Value>| socket.emit("echo", value));
        })
    });
    let mut bystander = server.client();
    let mut raw = server.raw();
    let mut ask = |method: &str, origin: &str| {
        raw.send(format!("{method} {POLLING} HTTP/1.1\r\nHost: here\r\nOrigin: {origin}\r\n\r\n"));
        raw.response()
    };
    let before = logged("CORS predicate");
    // Answered like requests of origins that are not allowed: the browser keeps the page out.
    for (method, status) in [("OPTIONS", 204), ("GET", 200)] {
        let answer = ask(method, "https://odd.example");
        assert_eq!(answer.status, status, "{answer:?}");
        for field in ["origin", "credentials", "methods", "headers"] {
            assert_eq!(answer.field(&format!("access-control-allow-{field}")), None);
        }
    }
    assert_eq!(logged("CORS predicate") - before, 2, "each is logged");
    // The same connection and everybody else are served on.
    let allowed = ask("GET", "https://ok.example");
    assert_eq!(allowed.status, 200);
    assert_eq!(allowed.field("access-control-allow-origin"), Some("https://ok.example"));
    bystander.echoes();
    Polling::connect(server.addr);
}

// ---- the end of a shard ----

/// Its destructor panics, which no engine can contain everywhere: values are dropped wherever
/// they happen to be.
struct Bomb;

impl Drop for Bomb {
    fn drop(&mut self) {
        panic!("a destructor that panics");
    }
}

const SHARDS: usize = 3;

fn a_server_follows_a_shard_that_dies(driver: DriverKind) {
    let _counting = keep_errors();
    let (tell, ends) = std::sync::mpsc::channel();
    let server = TestServer::start_on(driver, SHARDS, |builder| {
        builder.namespace("/", |ns| {
            ns.on("where", || std::thread::current().name().map(str::to_owned));
            ns.on("arm", |socket: Socket| drop(socket.set_data(Bomb)));
            ns.on_disconnect(move |socket: Socket, why: stentor::DisconnectReason| {
                let _ = tell.send((socket.id().to_owned(), why));
            });
        })
    });
    // Somebody on each shard; the kernel deals connections out.
    let mut crowd: Vec<(String, Client)> = Vec::new();
    until("every shard has clients", || {
        let mut client = server.client();
        crowd.push((client.ask(r#"["where"]"#), client));
        let mut shards: Vec<&str> = crowd.iter().map(|(shard, _)| &**shard).collect();
        shards.sort_unstable();
        shards.dedup();
        shards.len() == SHARDS
    });
    let (doomed, mut victim) = crowd.pop().expect("the last to come");
    assert_eq!(victim.ask(r#"["arm"]"#), "[]");
    let before = logged("a shard ended by itself");
    let started = Instant::now();
    victim.send("1");
    let others = crowd.iter().filter(|(shard, _)| *shard != doomed).count();
    assert!(others >= SHARDS - 1);
    for (shard, client) in &mut crowd {
        if *shard == doomed {
            // Nobody is left who could say a word.
            assert!(client.raw.frame_or_end().is_none());
        } else {
            assert_eq!(client.raw.close_code(), 1001, "{shard} of {doomed}");
        }
    }
    let addr = server.addr;
    let index: usize = doomed.trim_matches(|c: char| !c.is_ascii_digit()).parse().expect("it");
    match server.join() {
        Err(Error::ShardPanicked(found)) => assert_eq!(found, index),
        other => panic!("{other:?}"),
    }
    assert!(started.elapsed() < Duration::from_secs(10), "{:?}", started.elapsed());
    assert!(std::net::TcpStream::connect(addr).is_err());
    assert_eq!(logged("a shard ended by itself") - before, 1);
    let told: Vec<_> = ends.try_iter().collect();
    for (shard, client) in &crowd {
        let why = told.iter().find(|(id, _)| *id == client.id).map(|(_, why)| *why);
        let shut_down = stentor::DisconnectReason::ServerShuttingDown;
        assert_eq!(why, (*shard != doomed).then_some(shut_down));
    }
}

on_both_drivers! {
    a_cors_rule_that_panics_allows_nothing_and_is_logged,
    a_server_follows_a_shard_that_dies,
}
