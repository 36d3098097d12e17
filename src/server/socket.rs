//! [`Socket`]: one client in one namespace, as handlers hold it.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::oneshot;

use super::ack::AckRequest;
use super::broadcast::{BroadcastOperator, Rooms};
use super::error::{BadPayload, EmitError};
use crate::shard::core::Weight;
use crate::shard::port::{Change, Mail};
use crate::shard::request::Request;
use crate::shard::{SocketKey, with_current};
use crate::socket::Target;
use crate::wire;

/// One client in one namespace.
///
/// A cheap key: clone it, keep it in maps, send it to other threads and runtimes. On its own
/// core an operation acts at once; from anywhere else it is posted to that core, in order. Keeping
/// a `Socket` keeps no connection: once the client is gone, operations report it.
#[derive(Clone)]
pub struct Socket {
    key: SocketKey,
}

/// Queues whole frames for a socket, wherever the caller is.
pub(crate) fn queue(
    key: &SocketKey,
    frames: &[u8],
    volatile: bool,
    weight: Weight,
) -> Result<(), EmitError> {
    match with_current(key.port(), |core| core.emit(key.id, frames, volatile, weight)) {
        Some(true) => Ok(()),
        Some(false) => Err(EmitError::Disconnected),
        None => {
            let frames = bytes::Bytes::copy_from_slice(frames);
            let is_event = weight == Weight::Event;
            let mail = Mail::Emit { socket: key.id, frames, volatile, is_event };
            key.port().post(mail).map_err(|_| EmitError::MailboxFull)
        }
    }
}

impl Socket {
    pub(crate) fn new(key: SocketKey) -> Self {
        Self { key }
    }

    /// The socket's id: 20 characters, another one in each namespace and for each connection. It
    /// names the room that only this socket is in.
    #[must_use]
    pub fn id(&self) -> &str {
        self.key.name.as_str()
    }

    /// The namespace, `/` included.
    #[must_use]
    pub fn namespace(&self) -> &str {
        &self.key.namespace
    }

    /// Whether the socket is connected. In a middleware it is not yet.
    #[must_use]
    pub fn is_connected(&self) -> bool {
        self.key.connected.load(Ordering::Acquire)
    }

    /// The HTTP request that opened the session.
    #[must_use]
    pub fn request(&self) -> &Request {
        &self.key.request
    }

    /// What the client sent as `auth` with its CONNECT.
    ///
    /// # Errors
    /// When it is not of type `T`; a client that sent nothing sent `null`.
    pub fn auth<T: DeserializeOwned>(&self) -> Result<T, BadPayload> {
        serde_json::from_str(self.key.auth.as_deref().unwrap_or("null"))
            .map_err(|error| BadPayload::new(format!("auth: {error}")))
    }

    /// Keeps a value with the socket, one per type, until it disconnects. Returns the one that it
    /// replaces.
    ///
    /// ```
    /// # use stentor::Socket;
    /// struct Nickname(String);
    /// fn rename(socket: &Socket, name: String) {
    ///     socket.set_data(Nickname(name));
    ///     assert!(socket.data::<Nickname>().is_some());
    /// }
    /// ```
    pub fn set_data<T: Send + Sync + 'static>(&self, value: T) -> Option<Arc<T>> {
        self.key.set_data(value)
    }

    /// The value of this type kept by [`set_data`](Self::set_data).
    #[must_use]
    pub fn data<T: Send + Sync + 'static>(&self) -> Option<Arc<T>> {
        self.key.data()
    }

    /// Sends an event to this client. `args`: a tuple or an array becomes several arguments, `()`
    /// none (nor does `serde_json::Value::Null`, which serialises like it), any other value
    /// one, a `Vec` or a slice too; `(value,)` is one argument whatever it is.
    /// [`bytes::Bytes`] leaves go as binary attachments.
    ///
    /// # Errors
    /// [`EmitError`]. From another thread, a socket that has just disconnected goes unnoticed.
    pub fn emit(&self, event: &str, args: impl Serialize) -> Result<(), EmitError> {
        self.emit_with(event, args, false)
    }

    /// This socket, for events that are dropped if they cannot leave at once: the client does
    /// not drain its connection, or polls and has no poll open.
    #[must_use]
    pub fn volatile(&self) -> Volatile<'_> {
        Volatile(self)
    }

    fn emit_with(
        &self,
        event: &str,
        args: impl Serialize,
        volatile: bool,
    ) -> Result<(), EmitError> {
        wire::with_encoder(|encoder| {
            let frames = encoder.event(&self.key.namespace, None, event, &args)?;
            queue(&self.key, frames, volatile, Weight::Event)
        })
    }

    /// Sends an event and waits for the client's acknowledgement. The event leaves when the
    /// request is awaited; the wait always ends, by the answer, by the timeout (10 s unless set)
    /// or by the disconnect. To ask many at once, see [`AckRequest`].
    ///
    /// ```
    /// # async fn example(socket: stentor::Socket) -> Result<(), stentor::AckError> {
    /// use std::time::Duration;
    /// let age: u32 = socket.emit_with_ack("age?", ()).timeout(Duration::from_secs(2)).await?;
    /// # Ok(()) }
    /// ```
    pub fn emit_with_ack<T: DeserializeOwned>(
        &self,
        event: &str,
        args: impl Serialize,
    ) -> AckRequest<T> {
        let id = self.key.ports.next_ack_id();
        let frames = wire::with_encoder(|encoder| {
            let frames = encoder.event(&self.key.namespace, Some(id), event, &args)?;
            Ok(bytes::Bytes::copy_from_slice(frames))
        });
        AckRequest::new(self.key.clone(), id, frames)
    }

    /// Everybody of the rooms but this socket.
    #[must_use]
    pub fn to(&self, rooms: impl Rooms) -> BroadcastOperator {
        self.broadcast().to(rooms)
    }

    /// The same as [`to`](Self::to) (the reference's `in`).
    #[must_use]
    pub fn in_(&self, rooms: impl Rooms) -> BroadcastOperator {
        self.to(rooms)
    }

    /// Everybody of the namespace but this socket and the rooms.
    #[must_use]
    pub fn except(&self, rooms: impl Rooms) -> BroadcastOperator {
        self.broadcast().except(rooms)
    }

    /// Everybody of the namespace but this socket.
    #[must_use]
    pub fn broadcast(&self) -> BroadcastOperator {
        let target = Target::all(self.key.namespace.clone());
        let timeout_ms = u64::from(self.key.ack_timeout_ms);
        BroadcastOperator::new(self.key.ports.clone(), target, timeout_ms).except(self.id())
    }

    /// Joins rooms. On the socket's own core at once; after a disconnect nothing happens. A socket
    /// may join as many rooms as `ServerBuilder::max_rooms_per_socket` says; the rest is refused
    /// with a warning in the log. From elsewhere, a change that a full mailbox does not take is
    /// lost, with an error in the log.
    pub fn join(&self, rooms: impl Rooms) {
        self.change(Change::Join(rooms.into_vec()));
    }

    /// Leaves rooms. A room it is not in changes nothing.
    pub fn leave(&self, rooms: impl Rooms) {
        self.change(Change::Leave(rooms.into_vec()));
    }

    /// The rooms of the socket, its own id first, the others in no order; `None` when the caller
    /// is not on the socket's own core, where plain handlers always are.
    #[must_use]
    pub fn try_rooms(&self) -> Option<Vec<String>> {
        let joined = with_current(self.key.port(), |core| core.sockets.rooms_of(self.key.id))?;
        Some(self.name_rooms(&joined))
    }

    fn name_rooms(&self, joined: &[Arc<str>]) -> Vec<String> {
        let own = self.is_connected().then(|| self.id().to_owned());
        own.into_iter().chain(joined.iter().map(|room| room.to_string())).collect()
    }

    /// [`try_rooms`](Self::try_rooms) from anywhere. On the socket's own core the future is ready
    /// at once.
    pub async fn rooms(&self) -> Vec<String> {
        match self.try_rooms() {
            Some(rooms) => rooms,
            None => {
                let (reply, rooms) = oneshot::channel();
                let asked = self.key.port().post(Mail::Rooms { socket: self.key.id, reply });
                match asked {
                    Ok(()) => self.name_rooms(&rooms.await.unwrap_or_default()),
                    Err(_) => Vec::new(),
                }
            }
        }
    }

    /// Leaves the namespace: the client gets `io server disconnect` and does not reconnect by
    /// itself. The connection and its other namespaces stay.
    pub fn disconnect(&self) {
        self.change(Change::Disconnect { close: false });
    }

    /// Leaves all namespaces and closes the connection.
    pub fn close(&self) {
        self.change(Change::Disconnect { close: true });
    }

    fn change(&self, change: Change) {
        if with_current(self.key.port(), |core| core.change(self.key.id, &change)).is_none()
            && self.key.port().post(Mail::ChangeSocket { socket: self.key.id, change }).is_err()
        {
            let id = self.id();
            tracing::error!(target: "stentor::socket", id, "mailbox full: a change is lost");
        }
    }
}

/// A socket whose events are dropped rather than queued; see [`Socket::volatile`].
#[derive(Debug, Clone, Copy)]
pub struct Volatile<'s>(&'s Socket);

impl Volatile<'_> {
    /// Sends an event if it can leave at once.
    ///
    /// # Errors
    /// [`EmitError`]. An event that is dropped is no error.
    pub fn emit(&self, event: &str, args: impl Serialize) -> Result<(), EmitError> {
        self.0.emit_with(event, args, true)
    }
}

impl fmt::Debug for Socket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.key.fmt(f)
    }
}

impl PartialEq for Socket {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.key, &other.key)
    }
}

impl Eq for Socket {}

impl Hash for Socket {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.key.name.hash(state);
    }
}
