//! What a shard must know of the user's wishes: timings, limits, policies. Filled by the builder.

use std::path::PathBuf;

use super::client_files::ClientFiles;
use crate::protocol::http::{Cookie, Cors};

/// What happens to a session whose outbox is full.
///
/// Only events may be dropped; acknowledgements, connects and pings never are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum SlowConsumer {
    /// Close the session with [`DisconnectReason::LimitOutbox`](crate::DisconnectReason). Its
    /// client reconnects and starts afresh, knowing that it missed something.
    #[default]
    Disconnect,
    /// Keep what waits, drop the new event.
    DropNew,
    /// Drop the oldest events (a quarter of the bound at a time) to make room for the new one.
    DropOld,
}

/// Where a browser gets the official client from, at the server's own path
/// (`/socket.io/socket.io.min.js` and its siblings).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ServeClient {
    /// A redirect to the official release on the project's CDN.
    Cdn,
    /// Files of a local directory: the `dist` of the `socket.io-client` package.
    Directory(PathBuf),
}

/// Every bound of a shard, with its default. None is infinite.
#[derive(Debug, Clone)]
pub(crate) struct Limits {
    /// A POST body or a WebSocket message. Default 1 000 000 (the reference's).
    pub(crate) message_bytes: usize,
    /// A request head. Default 16 KiB.
    pub(crate) head_bytes: usize,
    /// What may wait on one session. Default 1 MiB; one message more when nothing else waits.
    pub(crate) outbox_bytes: usize,
    /// Binary attachments of one packet. Default 10 (the reference's).
    pub(crate) attachments: u32,
    /// Namespaces one session may be in. Default 64.
    pub(crate) namespaces: usize,
    /// Rooms one socket may join. Default 1 024.
    pub(crate) rooms: usize,
    /// Acknowledgements one socket may owe. Default 1 024.
    pub(crate) pending_acks: usize,
    /// Broadcasts of one shard that may wait for acknowledgements. Default 1 024.
    pub(crate) broadcast_acks: usize,
    /// Unfinished handlers of one session, gone or not. Default 1 024.
    pub(crate) pending_handlers: u32,
    /// Unfinished handlers of one shard, of sessions that are gone too; and as many again of what
    /// is done about their ends. Default 262 144.
    pub(crate) tasks: u32,
    /// Connections of the whole server, and sessions of the whole server. Default 1 000 000.
    pub(crate) connections: usize,
    /// Messages that may wait for one shard. Default 65 536.
    pub(crate) mail: usize,
    /// Bytes that these messages may hold; as much again may be in the shard's hands, and one
    /// message always fits. Default 256 MiB.
    pub(crate) mail_bytes: usize,
}

impl Limits {
    /// Connections that one of so many shards may have to hold: its share, and an eighth more, for
    /// nobody deals them out evenly.
    pub(crate) fn connections_of(&self, shards: usize) -> usize {
        let share = self.connections / shards.max(1);
        share.saturating_add(share / 8)
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            message_bytes: 1_000_000,
            head_bytes: 16 * 1024,
            outbox_bytes: 1024 * 1024,
            attachments: 10,
            namespaces: 64,
            rooms: 1024,
            pending_acks: 1024,
            broadcast_acks: 1024,
            pending_handlers: 1024,
            tasks: 262_144,
            connections: 1_000_000,
            mail: 65_536,
            mail_bytes: 256 * 1024 * 1024,
        }
    }
}

/// Every wait of a shard, in milliseconds, with its default.
#[derive(Debug, Clone)]
pub(crate) struct Timings {
    /// 25 000
    pub(crate) ping_interval: u64,
    /// 20 000
    pub(crate) ping_timeout: u64,
    /// 10 000
    pub(crate) upgrade_timeout: u64,
    /// 45 000
    pub(crate) connect_timeout: u64,
    /// From a connection's (or its next request's) first wait to the end of the head. 10 000
    pub(crate) head_timeout: u64,
    /// For a body once its head is there. 30 000
    pub(crate) body_timeout: u64,
    /// Between two requests of one connection. 75 000
    pub(crate) keep_alive_timeout: u64,
    /// For the peer to read our last bytes (since it last took some) and close its side. 2 000
    pub(crate) linger: u64,
    /// For a closed polling session to be told so by its next poll. 30 000
    pub(crate) poll_close: u64,
    /// For an acknowledgement when the caller gives no timeout. 10 000
    pub(crate) ack_timeout: u64,
}

impl Default for Timings {
    fn default() -> Self {
        Self {
            ping_interval: 25_000,
            ping_timeout: 20_000,
            upgrade_timeout: 10_000,
            connect_timeout: 45_000,
            head_timeout: 10_000,
            body_timeout: 30_000,
            keep_alive_timeout: 75_000,
            linger: 2_000,
            poll_close: 30_000,
            ack_timeout: 10_000,
        }
    }
}

/// Everything a shard is told. One per server, shared.
#[derive(Debug, Clone)]
pub(crate) struct Config {
    pub(crate) timings: Timings,
    pub(crate) limits: Limits,
    pub(crate) slow_consumer: SlowConsumer,
    pub(crate) polling: bool,
    pub(crate) websocket: bool,
    pub(crate) allow_upgrades: bool,
    /// Where Socket.IO lives; a request matches when its path starts with this.
    pub(crate) path: Box<str>,
    /// Raw Engine.IO endpoints, in the order of their indices.
    pub(crate) engine_paths: Vec<Box<str>>,
    pub(crate) cookie: Option<Cookie>,
    pub(crate) cors: Option<Cors>,
    /// Bodies from this size on are compressed; `None` never.
    pub(crate) compression: Option<usize>,
    pub(crate) serve_client: Option<ClientFiles>,
    /// Whether somebody takes connections that are not Socket.IO.
    pub(crate) fallback: bool,
    /// Whether ids come from the user's function.
    pub(crate) custom_ids: bool,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            timings: Timings::default(),
            limits: Limits::default(),
            slow_consumer: SlowConsumer::default(),
            polling: true,
            websocket: true,
            allow_upgrades: true,
            path: "/socket.io/".into(),
            engine_paths: Vec::new(),
            cookie: None,
            cors: None,
            compression: Some(1024),
            serve_client: None,
            fallback: false,
            custom_ids: false,
        }
    }
}
