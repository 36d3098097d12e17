//! stentor: a Socket.IO server engine for very large fan-out.
//!
//! Official Socket.IO clients connect unchanged. Each core runs one shard: one thread, one loop,
//! one io_uring, its own connections and its own share of every room. A broadcast is encoded once
//! and its bytes are shared by every recipient.
//!
//! ```no_run
//! use stentor::{Data, Server, Socket};
//!
//! fn main() -> stentor::Result<()> {
//!     Server::builder()
//!         .namespace("/", |ns| {
//!             ns.on_connect(|socket: Socket| socket.join("lobby"));
//!             ns.on("chat", |socket: Socket, Data(text): Data<String>| {
//!                 socket.to("lobby").emit("chat", text)
//!             });
//!             // What a handler returns is the acknowledgement.
//!             ns.on("add", |Data((a, b)): Data<(i64, i64)>| a + b);
//!         })
//!         .bind("127.0.0.1:3000")?
//!         .run()
//! }
//! ```
//!
//! # The law of the house
//!
//! Layers, pure to impure; a module imports only what stands below it:
//!
//! ```text
//! server            the public face: builder, handlers, extractors, Socket, Handle, errors
//! shard             one core: the turn, tables, dispatch, flush, timers, mail
//! io                the kernel: trait Driver; uring, mio, sim     imports nothing of ours
//! session | socket  Engine.IO machine | Socket.IO machine         neither knows the other
//! wire              encode once: Socket.IO in Engine.IO in WebSocket
//! protocol          http, websocket, engine_io, socket_io codecs  bytes <-> values
//! memory            how tables grow
//! ```
//!
//! Nothing in `protocol`, `wire`, `session` or `socket` reads a clock, opens a descriptor, spawns,
//! locks or awaits. What stentor does **not** do: TLS (put a proxy in front), WebTransport,
//! Engine.IO 3, compression of WebSocket messages.

// The unsafe parts of the crate are the kernel drivers in `io`; nothing else may.
#![deny(unsafe_code)]

#[cfg(feature = "bench-internals")]
#[doc(hidden)]
pub mod bench;
mod io;
mod memory;
mod protocol;
mod server;
mod session;
mod shard;
mod socket;
mod wire;

pub use protocol::http::{Cookie, Cors, SameSite};
pub use protocol::socket_io::{Args, RawJson, Value};
pub use server::*;
pub use session::DisconnectReason;
pub use shard::app::ConnectError;
pub use shard::config::{ServeClient, SlowConsumer};
pub use shard::request::Request;

/// The programs of the README compile.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
