//! [`ServerBuilder`]: every option with its default, and the server it makes.

use std::fmt;
use std::future::Future;
use std::net::{SocketAddr, ToSocketAddrs};
use std::sync::Arc;
use std::time::Duration;

use regex::Regex;

use super::ack::millis;
use super::app::{Matcher, Registered, allow_async, allow_plain};
use super::engine::EngineHandler;
use super::error::{Error, Result};
use super::namespace::{AuthPayload, Namespace};
use super::running::Bound;
use crate::io::listen;
use crate::protocol::http::{Cookie, Cors};
use crate::shard::client_files::ClientFiles;
use crate::shard::config::{Config, ServeClient, SlowConsumer};
use crate::shard::request::Request;

/// How the kernel is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum DriverKind {
    /// io_uring where the kernel allows it, else readiness. The log says which and why.
    #[default]
    Auto,
    /// io_uring; an error where it is missing or forbidden.
    Uring,
    /// Readiness: epoll on Linux, kqueue on macOS.
    Mio,
}

/// A transport of Engine.IO.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transport {
    /// HTTP long-polling.
    Polling,
    /// WebSocket.
    WebSocket,
}

/// The Socket.IO server: [`Server::builder`] begins.
#[derive(Debug)]
pub struct Server(());

impl Server {
    /// A builder with the reference's defaults.
    #[must_use]
    pub fn builder() -> ServerBuilder {
        ServerBuilder::default()
    }
}

/// Options and handlers of a server. Names and defaults are the reference's where it has them.
pub struct ServerBuilder {
    pub(crate) config: Config,
    pub(crate) registered: Registered,
    pub(crate) shards: Option<usize>,
    pub(crate) pin: bool,
    pub(crate) driver: DriverKind,
    path: String,
    add_trailing_slash: bool,
    serve_client: Option<ServeClient>,
    #[cfg(feature = "axum")]
    router: Option<axum::Router>,
}

impl fmt::Debug for ServerBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServerBuilder").field("config", &self.config).finish_non_exhaustive()
    }
}

impl Default for ServerBuilder {
    fn default() -> Self {
        Self {
            config: Config::default(),
            registered: Registered::default(),
            shards: None,
            pin: false,
            driver: DriverKind::Auto,
            path: "/socket.io".to_owned(),
            add_trailing_slash: true,
            serve_client: None,
            #[cfg(feature = "axum")]
            router: None,
        }
    }
}

/// Setters of values that only need to be stored.
macro_rules! setters {
    ($($(#[$doc:meta])* $name:ident: $type:ty => $($field:ident).+ = $convert:expr;)*) => {
        $($(#[$doc])*
        #[must_use]
        pub fn $name(mut self, value: $type) -> Self {
            self.$($field).+ = converted(value, $convert);
            self
        })*
    };
}

/// Gives the closures above the type of their argument.
fn converted<T, U>(value: T, convert: impl FnOnce(T) -> U) -> U {
    convert(value)
}

impl ServerBuilder {
    setters! {
        /// Cores to use: one shard each. Default: all there are.
        shards: usize => shards = |n| Some(n.max(1));
        /// Pins each shard to a core of its own. Default `false`.
        pin_cores: bool => pin = |pin| pin;
        /// How the kernel is asked. Default [`DriverKind::Auto`]. The environment variable
        /// `STENTOR_DRIVER` (`uring`, `mio` or `auto`) overrides it.
        driver: DriverKind => driver = |driver| driver;
        /// Time between a pong and the next ping. Default 25 s.
        ping_interval: Duration => config.timings.ping_interval = millis;
        /// How long a pong may take. Default 20 s.
        ping_timeout: Duration => config.timings.ping_timeout = millis;
        /// How long an upgrade may take; after it only the new connection is closed. Default 10 s.
        upgrade_timeout: Duration => config.timings.upgrade_timeout = millis;
        /// How long a client may stay without joining a namespace. Default 45 s.
        connect_timeout: Duration => config.timings.connect_timeout = millis;
        /// How long acknowledgements may take unless said otherwise. Default 10 s.
        ack_timeout: Duration => config.timings.ack_timeout = millis;
        /// How long a request head may take. Default 10 s.
        head_timeout: Duration => config.timings.head_timeout = millis;
        /// How long a request body may take. Default 30 s.
        body_timeout: Duration => config.timings.body_timeout = millis;
        /// How long a connection may idle between requests. Default 75 s.
        keep_alive_timeout: Duration => config.timings.keep_alive_timeout = millis;
        /// How long a peer may take to read our last bytes and to close its side, counted anew
        /// whenever it takes some; then the connection is cut. Default 2 s. Longer lets slow
        /// readers have their last words; each then keeps its connection, and what it was to be
        /// sent, for so long.
        linger_timeout: Duration => config.timings.linger = millis;
        /// Bytes of a POST body or of a WebSocket message. Default 1 000 000.
        max_http_buffer_size: usize => config.limits.message_bytes = |bytes| bytes;
        /// Bytes of a request head. Default 16 KiB.
        max_head_size: usize => config.limits.head_bytes = |bytes| bytes;
        /// Bytes that may wait for one client, and one message more when nothing else waits.
        /// Default 1 MiB. Past it, [`slow_consumer`](Self::slow_consumer) decides.
        outbox_limit: usize => config.limits.outbox_bytes = |bytes| bytes;
        /// What happens to a client that reads too slowly. Default: it is disconnected.
        slow_consumer: SlowConsumer => config.slow_consumer = |policy| policy;
        /// Binary attachments of one packet. Default 10. Each may be as large as a message, so a
        /// packet may hold `max_http_buffer_size` × (1 + `max_attachments`).
        max_attachments: u32 => config.limits.attachments = |count| count;
        /// Namespaces of one client. Default 64.
        max_namespaces_per_client: usize => config.limits.namespaces = |count| count;
        /// Rooms of one socket. Default 1 024.
        max_rooms_per_socket: usize => config.limits.rooms = |count| count;
        /// Acknowledgements that one socket may owe. Default 1 024.
        max_pending_acks: usize => config.limits.pending_acks = |count| count;
        /// Unfinished async handlers of one client; they go on when it leaves. Default 1 024. The
        /// one too many is dropped where it waits, and its client disconnected.
        max_pending_handlers: u32 => config.limits.pending_handlers = |count| count;
        /// Unfinished async handlers of one shard. Default 262 144. Past it the handlers of
        /// clients that have left are dropped where they wait, those of the longest gone first;
        /// when there are none, the client whose handler is one too many is disconnected. As many
        /// again may be unfinished of `on_disconnecting` and `on_disconnect`.
        max_pending_handlers_per_shard: u32 => config.limits.tasks = |count| count;
        /// Connections of the whole server (more are answered 503), and sessions of the whole
        /// server (more are refused as forbidden). Default 1 000 000. A shard with more than 16 384
        /// takes address space (not memory) for its share of them, some 450 bytes each.
        max_connections: usize => config.limits.connections = |count| count;
        /// Messages that may wait for one shard. Default 65 536.
        max_mail: usize => config.limits.mail = |count| count;
        /// Whether polling clients are offered the upgrade. Default `true`.
        allow_upgrades: bool => config.allow_upgrades = |allow| allow;
        /// Whether `/socket.io` is served as `/socket.io/` (with `false`, as it is). Default
        /// `true`.
        add_trailing_slash: bool => add_trailing_slash = |add| add;
        /// A cookie with the session id on the first polling answer. Default: none.
        cookie: Cookie => config.cookie = Some;
        /// Cross-origin requests. Default: none are allowed.
        cors: Cors => config.cors = Some;
        /// Compresses polling answers of this many bytes and more; `None` never. Default 1 024.
        http_compression: Option<usize> => config.compression = |threshold| threshold;
        /// Serves the official browser client at the server's path. Default: not.
        serve_client: ServeClient => serve_client = Some;
    }

    /// The path of the server. Default `/socket.io`.
    #[must_use]
    pub fn path(mut self, path: impl Into<String>) -> Self {
        self.path = path.into();
        self
    }

    /// The transports that clients may use. Default both.
    #[must_use]
    pub fn transports(mut self, transports: impl IntoIterator<Item = Transport>) -> Self {
        (self.config.polling, self.config.websocket) = (false, false);
        for transport in transports {
            match transport {
                Transport::Polling => self.config.polling = true,
                Transport::WebSocket => self.config.websocket = true,
            }
        }
        self
    }

    /// Decides who may open a session. The text of a refusal goes to the client.
    #[must_use]
    pub fn allow_request(
        mut self,
        allow: impl Fn(&Request) -> Result<(), String> + Send + Sync + 'static,
    ) -> Self {
        self.registered.allow_request = Some(allow_plain(allow));
        self
    }

    /// [`allow_request`](Self::allow_request) for a decision that takes time.
    #[must_use]
    pub fn allow_request_async<F>(
        mut self,
        allow: impl Fn(Arc<Request>) -> F + Send + Sync + 'static,
    ) -> Self
    where
        F: Future<Output = Result<(), String>> + 'static,
    {
        self.registered.allow_request = Some(allow_async(allow));
        self
    }

    /// Makes session ids. They authorise polling requests, so they must not be guessable, and
    /// must be unique: one that is taken (or empty) refuses the session. Default: 20 characters,
    /// 72 of their bits random.
    #[must_use]
    pub fn generate_id(
        mut self,
        generate: impl Fn(&Request) -> String + Send + Sync + 'static,
    ) -> Self {
        self.registered.generate_id = Some(Box::new(generate));
        self.config.custom_ids = true;
        self
    }

    /// A value that handlers get by the extractor [`State`](crate::State), one per type.
    #[must_use]
    pub fn state<T: Clone + Send + Sync + 'static>(mut self, value: T) -> Self {
        self.registered.states.insert(value);
        self
    }

    /// Registers a namespace and its handlers. A missing leading `/` is added; a name given twice
    /// keeps the handlers of both. `/` exists in any case.
    #[must_use]
    pub fn namespace(mut self, name: &str, fill: impl FnOnce(&mut Namespace)) -> Self {
        let name = match name.starts_with('/') {
            true => name.to_owned(),
            false => format!("/{name}"),
        };
        let known = self.registered.names.iter().find(|(known, _)| *known == name);
        let index = match known {
            Some(&(_, index)) => index,
            None => {
                let index = self.registered.namespaces.len() as u32;
                self.registered.namespaces.push(Namespace::default());
                self.registered.names.push((name, index));
                index
            }
        };
        fill(&mut self.registered.namespaces[index as usize]);
        self
    }

    /// Registers handlers for every namespace whose name (with its `/`) the pattern matches. A
    /// namespace registered by name goes first; among patterns and functions the first one
    /// registered. Such a namespace exists while somebody is in it.
    #[must_use]
    pub fn dynamic_namespace(self, pattern: Regex, fill: impl FnOnce(&mut Namespace)) -> Self {
        self.dynamic(Matcher::Pattern(pattern), fill)
    }

    /// Like [`dynamic_namespace`](Self::dynamic_namespace), but a function of the name and the
    /// client's `auth` decides.
    #[must_use]
    pub fn dynamic_namespace_where(
        self,
        matches: impl Fn(&str, AuthPayload<'_>) -> bool + Send + Sync + 'static,
        fill: impl FnOnce(&mut Namespace),
    ) -> Self {
        self.dynamic(Matcher::Function(Box::new(matches)), fill)
    }

    fn dynamic(mut self, matcher: Matcher, fill: impl FnOnce(&mut Namespace)) -> Self {
        let mut namespace = Namespace::default();
        fill(&mut namespace);
        self.registered.matchers.push((matcher, self.registered.namespaces.len() as u32));
        self.registered.namespaces.push(namespace);
        self
    }

    /// Mounts a raw Engine.IO endpoint at `path`, beside Socket.IO. Each path is one endpoint's
    /// own; [`bind`](Self::bind) says so otherwise.
    ///
    /// ```
    /// use stentor::{EngineSocket, Message, Server};
    ///
    /// fn echo(socket: EngineSocket, message: Message) {
    ///     if let Message::Text(text) = message {
    ///         let _ = socket.send(&text);
    ///     }
    /// }
    ///
    /// let server = Server::builder().engine_io("/echo/", echo);
    /// ```
    #[must_use]
    pub fn engine_io(mut self, path: &str, handler: impl EngineHandler) -> Self {
        self.config.engine_paths.push(path.into());
        self.registered.engines.push(Box::new(handler));
        self
    }

    /// Serves every other path from an [`axum::Router`] on the same port and cores. Without one
    /// they are answered 404. The peer's address is there as `ConnectInfo<SocketAddr>`. Its
    /// connections count for [`max_connections`](Self::max_connections), and
    /// [`keep_alive_timeout`](Self::keep_alive_timeout) is the deadline of a request's head; bodies
    /// have none but the router's own.
    #[cfg(feature = "axum")]
    #[must_use]
    pub fn fallback(mut self, router: axum::Router) -> Self {
        self.router = Some(router);
        self
    }

    /// Checks the options and binds the address, the first that can be bound if it resolves to
    /// several. Clients are accepted once the server runs.
    ///
    /// # Errors
    /// [`Error::Config`] when options contradict each other, [`Error::Io`] when the address cannot
    /// be bound or the kernel refuses the driver asked for.
    pub fn bind(mut self, addr: impl ToSocketAddrs) -> Result<Bound> {
        self.finish()?;
        let addr = self.choose_address(addr)?;
        Bound::new(self, addr)
    }

    /// The first address that can be bound, as in the standard library; if none can be, the last
    /// one, to fail with its error.
    fn choose_address(&self, addr: impl ToSocketAddrs) -> Result<SocketAddr> {
        let found = addr.to_socket_addrs().map_err(Error::io("resolve the address"))?;
        let mut found: Vec<_> = found.collect();
        let Some(last) = found.pop() else {
            return bad("the address resolves to nothing");
        };
        // Shared, as it will be: a port that another server shares with us is free.
        let shared = self.shards != Some(1);
        let first = found.into_iter().find(|addr| listen::listen(*addr, shared, 1).is_ok());
        Ok(first.unwrap_or(last))
    }

    /// Turns the wishes into what shards work with.
    pub(crate) fn finish(&mut self) -> Result<()> {
        let mut path = format!("/{}", self.path.trim_matches('/'));
        if self.add_trailing_slash && !path.ends_with('/') {
            path.push('/');
        }
        self.config.path = path.into();
        for engine in &mut self.config.engine_paths {
            let path = format!("/{}", engine.trim_start_matches('/'));
            *engine = path.into();
        }
        self.check()?;
        if let Some(wish) = &self.serve_client {
            let files = ClientFiles::load(wish).map_err(Error::io("read the client's files"))?;
            self.config.serve_client = Some(files);
        }
        if !self.registered.names.iter().any(|(name, _)| name == "/") {
            let index = self.registered.namespaces.len() as u32;
            self.registered.namespaces.push(Namespace::default());
            self.registered.names.push(("/".to_owned(), index));
        }
        #[cfg(feature = "axum")]
        if let Some(router) = self.router.take() {
            self.config.fallback = true;
            let keep_alive = Duration::from_millis(self.config.timings.keep_alive_timeout);
            let ours = std::iter::once(self.config.path.clone())
                .chain(self.config.engine_paths.iter().cloned());
            self.registered.router = Some(super::fallback::Fallback::new(router, ours, keep_alive));
        }
        Ok(())
    }

    fn check(&self) -> Result<()> {
        if !self.config.polling && !self.config.websocket {
            return bad("no transport is enabled");
        }
        let mut paths = vec![self.config.path.trim_end_matches('/')];
        for path in &self.config.engine_paths {
            let path = path.trim_end_matches('/');
            if paths.contains(&path) {
                return bad(format!("path {path:?} is given twice"));
            }
            paths.push(path);
        }
        if let Some(cors) = &self.config.cors {
            cors.check().map_err(|error| Error::Config(format!("cors: {error}")))?;
        }
        if let Some(cookie) = &self.config.cookie {
            cookie.check().map_err(|error| Error::Config(format!("cookie: {error}")))?;
        }
        for (name, _) in &self.registered.names {
            if name.contains(',') || name.contains(char::is_control) {
                return bad(format!("namespace {name:?} has a comma or a control character"));
            }
        }
        let timings = &self.config.timings;
        for (name, value) in [
            ("ping_interval", timings.ping_interval),
            ("ping_timeout", timings.ping_timeout),
            ("upgrade_timeout", timings.upgrade_timeout),
            ("connect_timeout", timings.connect_timeout),
            ("ack_timeout", timings.ack_timeout),
            ("head_timeout", timings.head_timeout),
            ("body_timeout", timings.body_timeout),
            ("keep_alive_timeout", timings.keep_alive_timeout),
            ("linger_timeout", timings.linger),
        ] {
            if value == 0 || value > MAX_WAIT_MS {
                return bad(format!("{name} must be between 1 ms and 30 days"));
            }
        }
        let limits = &self.config.limits;
        if limits.message_bytes == 0 || limits.message_bytes > MAX_MESSAGE_BYTES {
            return bad("max_http_buffer_size must be between 1 and 1 GiB");
        }
        if limits.outbox_bytes > MAX_MESSAGE_BYTES {
            return bad("outbox_limit must not exceed 1 GiB");
        }
        Ok(())
    }
}

/// Deadlines beyond this are a mistake in the unit.
const MAX_WAIT_MS: u64 = 30 * 24 * 3600 * 1000;
/// Lengths are kept in 32 bits.
const MAX_MESSAGE_BYTES: usize = 1 << 30;

fn bad<T>(what: impl Into<String>) -> Result<T> {
    Err(Error::Config(what.into()))
}
