//! The server of the contract in `tests/js/clients.mjs`, and the one of `tests/js/protocol.mjs`
//! whose options are away from their defaults.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use regex::Regex;
use serde::{Deserialize, Serialize};
use stentor::{
    Ack, Args, BroadcastOperator, ConnectError, Cookie, Cors, Data, DisconnectReason, DriverKind,
    EventName, Handle, Namespace, Request, Running, Server, Socket, State, Transport, Value,
};
use tokio::sync::Notify;

/// A running server; dropping it shuts it down.
pub(crate) struct Fixture {
    pub(crate) url: String,
    handle: Handle,
    running: Option<Running>,
}

impl Fixture {
    fn spawn(bound: stentor::Bound) -> Self {
        let url = format!("http://{}", bound.local_addr());
        let handle = bound.handle();
        let running = bound.spawn().expect("the shards start");
        Self { url, handle, running: Some(running) }
    }
}

impl Drop for Fixture {
    fn drop(&mut self) {
        // Begins at once; `join` waits for its end.
        drop(self.handle.shutdown(Duration::from_secs(1)));
        let joined = self.running.take().map(Running::join);
        if !std::thread::panicking() {
            joined.expect("joined once").expect("the shards end well");
        }
    }
}

#[derive(Clone, Default)]
struct World {
    epitaphs: Arc<Mutex<HashMap<String, Epitaph>>>,
    latches: Arc<Mutex<HashMap<String, Arc<Notify>>>>,
    /// Set once the server is bound: handlers reach the whole namespace through it.
    handle: Arc<OnceLock<Handle>>,
}

#[derive(Clone, Default, Serialize)]
struct Epitaph {
    reason: Option<&'static str>,
    rooms: Vec<String>,
}

impl World {
    fn epitaph<T>(&self, name: &str, look: impl FnOnce(&mut Epitaph) -> T) -> T {
        let mut all = self.epitaphs.lock().unwrap_or_else(PoisonError::into_inner);
        look(all.entry(name.to_owned()).or_default())
    }

    fn latch(&self, name: &str) -> Arc<Notify> {
        let mut all = self.latches.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(all.entry(name.to_owned()).or_default())
    }

    fn everyone(&self, socket: &Socket) -> BroadcastOperator {
        self.handle.get().expect("set before the first socket").of(socket.namespace()).everyone()
    }
}

/// The server of `clients.mjs`.
pub(crate) fn start(driver: DriverKind, shards: usize) -> Fixture {
    let world = World::default();
    let guard = |socket: &Socket| match auth_text(socket, "token").as_deref() {
        Some("secret") => Ok(()),
        _ => Err(ConnectError::new("not allowed")
            .with_data(&serde_json::json!({ "code": 401, "why": "token" }))),
    };
    let bound = Server::builder()
        .driver(driver)
        .shards(shards)
        .ping_interval(Duration::from_millis(1_000))
        .ping_timeout(Duration::from_millis(4_000))
        .upgrade_timeout(Duration::from_millis(3_000))
        .connect_timeout(Duration::from_millis(3_000))
        .allow_request(|request: &Request| match request.query("deny") {
            Some(words) => Err(words.into_owned()),
            None => Ok(()),
        })
        .state(world.clone())
        .namespace("/", common)
        .namespace("/chat", common)
        .dynamic_namespace(Regex::new(r"^/tenant-\d+$").expect("a valid pattern"), common)
        .namespace("/guarded", move |ns| {
            ns.middleware(move |socket: Socket| guard(&socket));
            common(ns);
        })
        .namespace("/guarded-async", move |ns| {
            ns.middleware(move |socket: Socket| async move {
                tokio::time::sleep(Duration::from_millis(5)).await;
                guard(&socket)
            });
            common(ns);
        })
        .bind("127.0.0.1:0")
        .expect("a free port");
    assert!(world.handle.set(bound.handle()).is_ok(), "bound once");
    Fixture::spawn(bound)
}

/// The server of `protocol.mjs --options-url`.
pub(crate) fn start_with_options(driver: DriverKind) -> Fixture {
    let bound = Server::builder()
        .driver(driver)
        .shards(1)
        .path("/rt")
        .add_trailing_slash(false)
        .transports([Transport::Polling])
        .allow_upgrades(false)
        .cookie(Cookie::default())
        .cors(Cors::origins(["http://ok.example"]).credentials(true))
        .http_compression(Some(1024))
        .max_http_buffer_size(10_000)
        .namespace("/", |ns| {
            ns.on("echo", |socket: Socket, Data(args): Data<Args>| socket.emit("echo", &args));
        })
        .bind("127.0.0.1:0")
        .expect("a free port");
    Fixture::spawn(bound)
}

/// Where `relay` and `poll` send, and what.
#[derive(Deserialize)]
struct How {
    event: String,
    #[serde(default)]
    to: Vec<String>,
    #[serde(default)]
    except: Vec<String>,
    #[serde(default)]
    sender: bool,
    #[serde(default)]
    volatile: bool,
    #[serde(default)]
    ms: u64,
}

impl How {
    fn aim(&self, mut target: BroadcastOperator) -> BroadcastOperator {
        for room in &self.to {
            target = target.to(room);
        }
        for room in &self.except {
            target = target.except(room);
        }
        if self.volatile { target.volatile() } else { target }
    }
}

#[derive(Deserialize)]
struct Command {
    op: String,
    #[serde(rename = "in")]
    room_of: String,
    #[serde(default)]
    room: String,
    #[serde(default)]
    close: bool,
}

#[derive(Serialize)]
struct Fetched {
    id: String,
    rooms: Vec<String>,
}

fn auth_text(socket: &Socket, key: &str) -> Option<String> {
    let auth: Value = socket.auth().ok()?;
    auth.get(key)?.as_str().map(str::to_owned)
}

/// The socket's rooms without its own.
fn rooms(socket: &Socket) -> Vec<String> {
    let mut rooms: Vec<String> = socket.try_rooms().unwrap_or_default();
    rooms.retain(|room| room != socket.id());
    rooms.sort();
    rooms
}

/// What every namespace does.
fn common(ns: &mut Namespace) {
    ns.on_connect(|socket: Socket| socket.emit("welcome", socket.id()));
    ns.on("echo", |socket: Socket, Data(args): Data<Args>| socket.emit("echo", &args));
    ns.on("whoami", |socket: Socket| {
        let auth: Option<Value> = socket.auth().ok();
        serde_json::json!({ "id": socket.id(), "nsp": socket.namespace(), "auth": auth })
    });
    acknowledgements(ns);
    ns.on("join", |socket: Socket, Data(room): Data<String>| {
        socket.join(room);
        rooms(&socket)
    });
    ns.on("leave", |socket: Socket, Data(room): Data<String>| {
        socket.leave(room);
        rooms(&socket)
    });
    broadcasts(ns);
    ns.on("burst", |socket: Socket, Data(count): Data<u32>| {
        for i in 0..count {
            socket.emit("burst", i).expect("connected");
        }
        count
    });
    ns.on("whisper", |socket: Socket, Data(x): Data<Value>| socket.volatile().emit("whisper", &x));
    ns.on_any(|socket: Socket, EventName(name): EventName, Data(x): Data<Option<Value>>| {
        if name.starts_with("any:") {
            socket.emit("caught", (name, x)).expect("connected");
        }
    });
    endings(ns);
}

fn acknowledgements(ns: &mut Namespace) {
    ns.on("ack", |Data(args): Data<Args>, ack: Ack| {
        // Nothing to do when the client did not ask.
        let _ = ack.send(&args);
    });
    ns.on("add", |Data((a, b)): Data<(i64, i64)>| a + b);
    ns.on("later", async |Data((ms, x)): Data<(u64, Value)>| {
        tokio::time::sleep(Duration::from_millis(ms)).await;
        x
    });
    ns.on("hold", async |State(world): State<World>, Data(name): Data<String>| {
        world.latch(&name).notified().await;
    });
    ns.on("release", |State(world): State<World>, Data(name): Data<String>| {
        world.latch(&name).notify_one();
    });
    ns.on("ask", async |socket: Socket, Data((ms, x)): Data<(u64, Value)>| {
        let limit = Duration::from_millis(ms);
        let answer = socket.emit_with_ack::<Value>("question", &x).timeout(limit).await;
        let told = match answer {
            Ok(answer) => serde_json::json!({ "ok": true, "answer": answer }),
            Err(_) => serde_json::json!({ "ok": false }),
        };
        // The socket may have left while we waited.
        let _ = socket.emit("asked", &told);
    });
}

fn broadcasts(ns: &mut Namespace) {
    ns.on(
        "relay",
        |socket: Socket, State(world): State<World>, Data((how, x)): Data<(How, Value)>| {
            let from = if how.sender { socket.broadcast() } else { world.everyone(&socket) };
            how.aim(from).emit(&how.event, &x).expect("a serialisable value");
            true
        },
    );
    ns.on(
        "poll",
        async |socket: Socket, State(world): State<World>, Data((how, x)): Data<(How, Value)>| {
            let answers = how
                .aim(world.everyone(&socket))
                .emit_with_ack::<Value>(&how.event, &x)
                .timeout(Duration::from_millis(how.ms))
                .await
                .expect("shards that live");
            serde_json::json!({ "answers": answers.answers, "complete": answers.missing == 0 })
        },
    );
    ns.on(
        "command",
        async |socket: Socket, State(world): State<World>, Data(what): Data<Command>| {
            let there = world.everyone(&socket).to(&what.room_of);
            match what.op.as_str() {
                "join" => there.sockets_join(&what.room).expect("room for a room"),
                "leave" => there.sockets_leave(&what.room).expect("shards that live"),
                "disconnect" => there.disconnect_sockets(what.close).expect("shards that live"),
                _ => {
                    let mut all: Vec<Fetched> = Vec::new();
                    for found in there.fetch_sockets().await {
                        let mut rooms = found.rooms().await;
                        rooms.sort();
                        all.push(Fetched { id: found.id().to_owned(), rooms });
                    }
                    all.sort_by(|a, b| a.id.cmp(&b.id));
                    return serde_json::json!(all);
                }
            }
            serde_json::json!(true)
        },
    );
}

fn endings(ns: &mut Namespace) {
    ns.on("bye", |socket: Socket| socket.disconnect());
    ns.on("bye-all", |socket: Socket| socket.close());
    ns.on_disconnecting(|socket: Socket, State(world): State<World>| {
        if let Some(name) = auth_text(&socket, "name") {
            world.epitaph(&name, |epitaph| epitaph.rooms = rooms(&socket));
        }
    });
    ns.on_disconnect(|socket: Socket, why: DisconnectReason, State(world): State<World>| {
        if let Some(name) = auth_text(&socket, "name") {
            world.epitaph(&name, |epitaph| epitaph.reason = Some(why.as_str()));
        }
    });
    ns.on("epitaph", |State(world): State<World>, Data(name): Data<String>| {
        let epitaph = world.epitaph(&name, |epitaph| epitaph.clone());
        epitaph.reason.is_some().then_some(epitaph)
    });
}
