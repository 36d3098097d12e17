//! [`Handle`]: the server, from any thread or runtime.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::watch;

use super::ack::{BroadcastAckRequest, millis};
use super::broadcast::{BroadcastOperator, Rooms};
use super::error::EmitError;
use super::socket::Socket;
use crate::shard::port::Ports;
use crate::socket::Target;

/// The server as seen from outside: one namespace of it, `/` at first.
///
/// Cheap to clone, `Send + Sync`, and of any thread or runtime. It outlives the server; then
/// nothing it sends reaches anybody.
#[derive(Clone)]
pub struct Handle {
    ports: Arc<Ports>,
    namespace: Arc<str>,
    ack_timeout_ms: u64,
    /// How many shards run.
    running: watch::Receiver<usize>,
}

impl Handle {
    pub(crate) fn new(
        ports: Arc<Ports>,
        ack_timeout_ms: u64,
        running: watch::Receiver<usize>,
    ) -> Self {
        Self { ports, namespace: "/".into(), ack_timeout_ms, running }
    }

    /// The same server, another namespace. A missing leading `/` is added.
    #[must_use]
    pub fn of(&self, namespace: &str) -> Self {
        let namespace = match namespace.starts_with('/') {
            true => namespace.into(),
            false => format!("/{namespace}").into(),
        };
        Self { namespace, ..self.clone() }
    }

    /// Everybody of the namespace.
    #[must_use]
    pub fn everyone(&self) -> BroadcastOperator {
        let target = Target::all(self.namespace.clone());
        BroadcastOperator::new(self.ports.clone(), target, self.ack_timeout_ms)
    }

    /// Everybody of the rooms.
    #[must_use]
    pub fn to(&self, rooms: impl Rooms) -> BroadcastOperator {
        self.everyone().to(rooms)
    }

    /// The same as [`to`](Self::to) (the reference's `in`).
    #[must_use]
    pub fn in_(&self, rooms: impl Rooms) -> BroadcastOperator {
        self.to(rooms)
    }

    /// Everybody but the rooms.
    #[must_use]
    pub fn except(&self, rooms: impl Rooms) -> BroadcastOperator {
        self.everyone().except(rooms)
    }

    /// Only this process's clients.
    #[must_use]
    pub fn local(&self) -> BroadcastOperator {
        self.everyone().local()
    }

    /// Dropped for every client that does not take it at once.
    #[must_use]
    pub fn volatile(&self) -> BroadcastOperator {
        self.everyone().volatile()
    }

    /// Sends an event to everybody of the namespace.
    ///
    /// # Errors
    /// [`EmitError`].
    pub fn emit(&self, event: &str, args: impl Serialize) -> Result<(), EmitError> {
        self.everyone().emit(event, args)
    }

    /// Sends an event to everybody of the namespace and collects their acknowledgements.
    pub fn emit_with_ack<T: DeserializeOwned>(
        &self,
        event: &str,
        args: impl Serialize,
    ) -> BroadcastAckRequest<T> {
        self.everyone().emit_with_ack(event, args)
    }

    /// Every socket of the namespace.
    pub async fn fetch_sockets(&self) -> Vec<Socket> {
        self.everyone().fetch_sockets().await
    }

    /// Makes every socket of the namespace join rooms.
    ///
    /// # Errors
    /// [`EmitError::MailboxFull`].
    pub fn sockets_join(&self, rooms: impl Rooms) -> Result<(), EmitError> {
        self.everyone().sockets_join(rooms)
    }

    /// Makes every socket of the namespace leave rooms.
    ///
    /// # Errors
    /// [`EmitError::MailboxFull`].
    pub fn sockets_leave(&self, rooms: impl Rooms) -> Result<(), EmitError> {
        self.everyone().sockets_leave(rooms)
    }

    /// Disconnects every socket of the namespace; with `close`, their whole connections.
    ///
    /// # Errors
    /// [`EmitError::MailboxFull`].
    pub fn disconnect_sockets(&self, close: bool) -> Result<(), EmitError> {
        self.everyone().disconnect_sockets(close)
    }

    /// Open Engine.IO sessions (the reference's `engine.clientsCount`).
    #[must_use]
    pub fn sessions(&self) -> usize {
        self.ports.sessions()
    }

    /// Open connections.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.ports.connections()
    }

    /// Shuts the server down: no more accepting, every socket hears `server shutting down`, what
    /// is queued is flushed, connections are closed. What is not gone after `deadline` is cut.
    ///
    /// Handlers of events end with the last connection, finished or not; those of disconnects are
    /// waited for.
    ///
    /// Begins at once; the future ends when every shard is done, and may be dropped.
    pub fn shutdown(&self, deadline: Duration) -> Shutdown {
        self.ports.shut_down(millis(deadline));
        let mut running = self.running.clone();
        Shutdown(Box::pin(async move {
            // An error means that all shards are gone.
            let _ = running.wait_for(|shards| *shards == 0).await;
        }))
    }
}

impl fmt::Debug for Handle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Handle").field("namespace", &self.namespace).finish_non_exhaustive()
    }
}

/// A shutdown under way; see [`Handle::shutdown`].
pub struct Shutdown(Pin<Box<dyn Future<Output = ()> + Send>>);

impl Future for Shutdown {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        self.0.as_mut().poll(cx)
    }
}

impl fmt::Debug for Shutdown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Shutdown")
    }
}
