//! Raw Engine.IO: for users who want no more than messages both ways.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;

use super::error::EmitError;
use crate::DisconnectReason;
use crate::shard::core::Weight;
use crate::shard::port::{EngineCell, Mail};
use crate::shard::request::Request;
use crate::shard::with_current;
use crate::wire;

/// A message of a raw Engine.IO session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Message {
    /// A text message.
    Text(String),
    /// A binary message.
    Binary(Bytes),
}

/// What serves a raw Engine.IO endpoint. Called on the session's own core, one call after the
/// other for one session.
pub trait EngineHandler: Send + Sync + 'static {
    /// A client opened a session.
    fn on_open(&self, socket: EngineSocket) {
        let _ = socket;
    }

    /// A message came in.
    fn on_message(&self, socket: EngineSocket, message: Message);

    /// The session ended.
    fn on_close(&self, socket: EngineSocket, reason: DisconnectReason) {
        let _ = (socket, reason);
    }
}

/// A closure is a handler of messages.
impl<F: Fn(EngineSocket, Message) + Send + Sync + 'static> EngineHandler for F {
    fn on_message(&self, socket: EngineSocket, message: Message) {
        self(socket, message);
    }
}

/// One raw Engine.IO session: a key, as cheap and as free to move as a [`Socket`](crate::Socket).
#[derive(Clone)]
pub struct EngineSocket {
    key: Arc<EngineCell>,
}

impl EngineSocket {
    pub(crate) fn new(key: Arc<EngineCell>) -> Self {
        Self { key }
    }

    /// A name of the session, its own as long as the server runs: for maps and logs. It is not
    /// the session id, which authorises requests and is nobody else's business.
    #[must_use]
    pub fn id(&self) -> String {
        let session = self.key.session;
        format!("{}-{}-{}", self.key.port.index(), session.slot, session.generation)
    }

    /// The request that opened the session.
    #[must_use]
    pub fn request(&self) -> &Request {
        &self.key.request
    }

    /// Whether the session is open.
    #[must_use]
    pub fn is_connected(&self) -> bool {
        self.key.connected.load(Ordering::Acquire)
    }

    /// Sends a text message.
    ///
    /// # Errors
    /// [`EmitError::Disconnected`], [`EmitError::MailboxFull`].
    pub fn send(&self, text: &str) -> Result<(), EmitError> {
        wire::with_encoder(|encoder| {
            self.queue(encoder.packet(|out| out.extend_from_slice(text.as_bytes())))
        })
    }

    /// Sends a binary message.
    ///
    /// # Errors
    /// [`EmitError::Disconnected`], [`EmitError::MailboxFull`].
    pub fn send_binary(&self, bytes: &[u8]) -> Result<(), EmitError> {
        wire::with_encoder(|encoder| self.queue(encoder.engine_binary(bytes)))
    }

    fn queue(&self, frames: &[u8]) -> Result<(), EmitError> {
        if !self.is_connected() {
            return Err(EmitError::Disconnected);
        }
        let session = self.key.session;
        let here = with_current(&self.key.port, |core| {
            if core.sessions.get(session).is_some() {
                core.send_frames(session.slot, frames, Weight::Event);
            }
        });
        if here.is_some() {
            return Ok(());
        }
        let frames = Bytes::copy_from_slice(frames);
        let mail = Mail::EngineSend { session, frames };
        self.key.port.post(mail).map_err(|_| EmitError::MailboxFull)
    }

    /// Closes the session; what was sent before is still delivered.
    pub fn close(&self) {
        let session = self.key.session;
        let here = with_current(&self.key.port, |core| {
            core.close_session(session, DisconnectReason::ForcedServerClose);
        });
        if here.is_none() && self.key.port.post(Mail::EngineClose { session }).is_err() {
            let id = self.id();
            tracing::error!(target: "stentor::session", id, "mailbox full: a close is lost");
        }
    }
}

impl fmt::Debug for EngineSocket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.key.fmt(f)
    }
}

impl PartialEq for EngineSocket {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.key, &other.key)
    }
}

impl Eq for EngineSocket {}

impl Hash for EngineSocket {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (self.key.port.index(), self.key.session).hash(state);
    }
}
