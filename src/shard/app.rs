//! What a shard asks of the layer above it: the user's handlers, behind one contract.
//!
//! The shard calls with none of its tables borrowed, so handlers may use every key they hold.

use std::fmt;
use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;

use super::port::{Counted, EngineCell, SocketCell};
use super::request::Request;
use crate::io::Handoff;
use crate::protocol::socket_io::RawJson;
use crate::session::DisconnectReason;

/// A future of the shard's own thread.
pub(crate) type LocalFuture<T> = Pin<Box<dyn Future<Output = T>>>;

/// An answer that may need time.
pub(crate) enum Step<T> {
    Ready(T),
    Pending(LocalFuture<T>),
}

impl<T: fmt::Debug> fmt::Debug for Step<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ready(value) => f.debug_tuple("Ready").field(value).finish(),
            Self::Pending(_) => f.write_str("Pending"),
        }
    }
}

/// Unfinished handlers, to be driven by the shard.
pub(crate) type Tasks = Vec<LocalFuture<()>>;

/// Why a middleware refuses a connection: what the client finds in its `connect_error`.
///
/// ```
/// use stentor::ConnectError;
/// let refusal = ConnectError::new("not authorised").with_data(&serde_json::json!({ "code": 7 }));
/// assert_eq!(refusal.message(), "not authorised");
/// ```
#[derive(Debug, Clone, thiserror::Error)]
#[error("{message}")]
pub struct ConnectError {
    message: String,
    pub(crate) data: Option<RawJson>,
}

impl ConnectError {
    /// `message` becomes `err.message` at the client.
    #[must_use]
    pub fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), data: None }
    }

    /// `data` becomes `err.data` at the client. A value that does not serialise to JSON is left
    /// out.
    #[must_use]
    pub fn with_data<T: serde::Serialize + ?Sized>(mut self, data: &T) -> Self {
        self.data = RawJson::new(data).ok();
        self
    }

    /// What the client reads in `err.message`.
    #[must_use]
    pub fn message(&self) -> &str {
        &self.message
    }
}

impl From<String> for ConnectError {
    fn from(message: String) -> Self {
        Self::new(message)
    }
}

impl From<&str> for ConnectError {
    fn from(message: &str) -> Self {
        Self::new(message)
    }
}

/// Which handlers serve a namespace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Definition {
    pub(crate) index: u32,
    /// Registered by name, not by pattern.
    pub(crate) permanent: bool,
}

/// One event as it came in.
#[derive(Debug)]
pub(crate) struct Incoming<'e> {
    pub(crate) name: &'e str,
    /// The JSON array: the name, then the arguments.
    pub(crate) payload: &'e [u8],
    pub(crate) attachments: &'e [Bytes],
    /// The client asks for an acknowledgement.
    pub(crate) ack: Option<u64>,
}

/// The payload is not what the protocol allows: the session must end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct InvalidPayload;

/// A message of a raw Engine.IO session.
#[derive(Debug)]
pub(crate) enum EngineMessage<'m> {
    Text(&'m str),
    Binary(&'m [u8]),
}

/// A connection that is not Socket.IO's, on its way to the user's router.
#[derive(Debug)]
#[cfg_attr(not(feature = "axum"), expect(dead_code, reason = "nobody receives guests"))]
pub(crate) struct Guest {
    pub(crate) handoff: Handoff,
    /// What was already read from it.
    pub(crate) bytes: Vec<u8>,
    pub(crate) peer: SocketAddr,
    /// Its place in the count of connections, to be kept as long as it.
    pub(crate) counted: Option<Counted>,
}

/// See the module's text.
pub(crate) trait App: Send + Sync + 'static {
    /// Whether a session may be opened. The text of a refusal goes to the client.
    fn allow_request(&self, request: &Arc<Request>) -> Step<Result<(), String>>;

    /// The session id, where ids are of the user's making.
    fn generate_id(&self, request: &Request) -> Option<String>;

    /// Who serves a namespace.
    fn definition_of(&self, namespace: &str, auth: Option<&str>) -> Option<Definition>;

    /// Runs the middlewares in order.
    fn admit(&self, socket: &Arc<SocketCell>) -> Step<Result<(), ConnectError>>;

    /// The CONNECT reply is queued.
    fn connected(&self, socket: &Arc<SocketCell>, tasks: &mut Tasks);

    /// An event. Checks the whole payload, whether or not anybody listens.
    fn event(
        &self,
        socket: &Arc<SocketCell>,
        event: Incoming<'_>,
        tasks: &mut Tasks,
    ) -> Result<(), InvalidPayload>;

    /// The socket ends; its rooms are still there.
    fn disconnecting(&self, socket: &Arc<SocketCell>, reason: DisconnectReason, tasks: &mut Tasks);

    /// The socket has ended and left its rooms.
    fn disconnected(&self, socket: &Arc<SocketCell>, reason: DisconnectReason, tasks: &mut Tasks);

    /// A raw Engine.IO session opened on endpoint `endpoint`.
    fn engine_opened(&self, endpoint: u16, session: &Arc<EngineCell>, tasks: &mut Tasks);

    fn engine_message(
        &self,
        endpoint: u16,
        session: &Arc<EngineCell>,
        message: EngineMessage<'_>,
        tasks: &mut Tasks,
    );

    fn engine_closed(
        &self,
        endpoint: u16,
        session: &Arc<EngineCell>,
        reason: DisconnectReason,
        tasks: &mut Tasks,
    );

    /// Serves a connection whose request is not Socket.IO's, from the bytes already read.
    fn fallback(&self, guest: Guest, tasks: &mut Tasks);
}
