//! Broadcasts: whom they address, and what is done with those.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::oneshot;

use super::ack::{BroadcastAckRequest, millis};
use super::error::EmitError;
use super::socket::Socket;
use crate::shard::core::Core;
use crate::shard::port::{
    Broadcast, Change, Changed, Mail, Port, Ports, Posted, Posting, ShardAnswers,
};
use crate::shard::with_current;
use crate::socket::Target;
use crate::wire;

/// One room or several: a `str`, `String`, `Box<str>`, `Arc<str>` or `Cow<str>`, owned or
/// borrowed, or an array, slice or `Vec` of anything that is `AsRef<str>`.
///
/// An empty list adds nothing. So `to` of an empty list still addresses everybody, as it does in
/// the reference: whoever collects rooms at run time should not send when there are none.
#[diagnostic::on_unimplemented(
    message = "`{Self}` names no rooms",
    label = "not one room or several",
    note = "rooms are a string (`&str`, `String`, `Arc<str>`, ..) or an array, slice or `Vec` of \
            strings; collect any other iterator into a `Vec` first, and format numbers"
)]
pub trait Rooms {
    /// The names.
    fn into_vec(self) -> Vec<Box<str>>;
}

/// Types that are one room each.
macro_rules! one_room {
    ($($room:ty),*) => {
        $(impl Rooms for $room {
            fn into_vec(self) -> Vec<Box<str>> {
                vec![self.into()]
            }
        })*
    };
}

one_room!(&str, String, Box<str>, Cow<'_, str>);

impl Rooms for Arc<str> {
    fn into_vec(self) -> Vec<Box<str>> {
        vec![(*self).into()]
    }
}

/// Types that are one room each when borrowed.
macro_rules! one_borrowed_room {
    ($($room:ty),*) => {
        $(impl Rooms for &$room {
            fn into_vec(self) -> Vec<Box<str>> {
                vec![(**self).into()]
            }
        })*
    };
}

one_borrowed_room!(&str, String, Box<str>, Arc<str>, Cow<'_, str>);

impl<R: AsRef<str>, const N: usize> Rooms for [R; N] {
    fn into_vec(self) -> Vec<Box<str>> {
        self.as_slice().into_vec()
    }
}

impl<R: AsRef<str>, const N: usize> Rooms for &[R; N] {
    fn into_vec(self) -> Vec<Box<str>> {
        self.as_slice().into_vec()
    }
}

impl<R: AsRef<str>> Rooms for Vec<R> {
    fn into_vec(self) -> Vec<Box<str>> {
        self.as_slice().into_vec()
    }
}

impl<R: AsRef<str>> Rooms for &Vec<R> {
    fn into_vec(self) -> Vec<Box<str>> {
        self.as_slice().into_vec()
    }
}

impl<R: AsRef<str>> Rooms for &[R] {
    fn into_vec(self) -> Vec<Box<str>> {
        self.iter().map(|room| room.as_ref().into()).collect()
    }
}

/// A broadcast in the making: a union of rooms less the excluded ones.
///
/// Each call returns a new operator, so one may be kept and reused. A socket in several of the
/// rooms gets an event once; a socket in an excluded room gets none. A socket's id is a room too.
#[derive(Debug, Clone)]
pub struct BroadcastOperator {
    ports: Arc<Ports>,
    target: Target,
    local: bool,
    volatile: bool,
    timeout_ms: u64,
}

impl BroadcastOperator {
    pub(crate) fn new(ports: Arc<Ports>, target: Target, timeout_ms: u64) -> Self {
        Self { ports, target, local: false, volatile: false, timeout_ms }
    }

    /// Adds rooms to the union. An empty list adds none: without any room, everybody is addressed.
    #[must_use]
    pub fn to(mut self, rooms: impl Rooms) -> Self {
        self.target.rooms.extend(rooms.into_vec());
        self
    }

    /// The same as [`to`](Self::to) (the reference's `in`).
    #[must_use]
    pub fn in_(self, rooms: impl Rooms) -> Self {
        self.to(rooms)
    }

    /// Leaves out whoever is in one of these rooms.
    #[must_use]
    pub fn except(mut self, rooms: impl Rooms) -> Self {
        self.target.except.extend(rooms.into_vec());
        self
    }

    /// Only clients of this server process. Without a cluster that is everybody.
    #[must_use]
    pub fn local(mut self) -> Self {
        self.local = true;
        self
    }

    /// Dropped for every client whose connection does not take it at once.
    #[must_use]
    pub fn volatile(mut self) -> Self {
        self.volatile = true;
        self
    }

    /// How long acknowledgements may take. Default 10 s, or `ServerBuilder::ack_timeout`.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout_ms = millis(timeout);
        self
    }

    /// Sends an event to everybody addressed: encoded once, queued on this core at once and on
    /// the others by one message each. Never blocks.
    ///
    /// # Errors
    /// [`EmitError`]. With [`EmitError::MailboxFull`], some shards' sockets did not get it.
    pub fn emit(&self, event: &str, args: impl Serialize) -> Result<(), EmitError> {
        wire::with_encoder(|encoder| {
            let frames = encoder.event(&self.target.namespace, None, event, &args)?;
            self.send(frames)
        })
    }

    /// Acts on this thread's own shard, if it runs one; which that was. It comes before the others
    /// are told: they wait for each other from the first letter to the last.
    fn here<R>(&self, mut act: impl FnMut(&mut Core) -> R) -> Option<usize> {
        self.ports.all().iter().position(|port| with_current(port, &mut act).is_some())
    }

    fn others(&self, here: Option<usize>) -> impl Iterator<Item = &Arc<Port>> {
        let ports = self.ports.all().iter().enumerate();
        ports.filter(move |(index, _)| Some(*index) != here).map(|(_, port)| port)
    }

    /// Posts one thing to all shards but one's own. It lies in all mailboxes before any shard may
    /// read it, and may be read before any is woken. Made only if there is another shard.
    fn tell_others<T, X>(
        &self,
        here: Option<usize>,
        make: impl FnOnce() -> (T, X),
        mut letter: impl FnMut(Arc<Posted<T>>, &X) -> Mail,
    ) -> Result<(), EmitError> {
        if self.others(here).next().is_none() {
            return Ok(());
        }
        let (told, extra) = make();
        let posting = Posting::new(told);
        let mut outcome = Ok(());
        for port in self.others(here) {
            if port.put(letter(posting.0.clone(), &extra)).is_err() {
                outcome = Err(EmitError::MailboxFull);
            }
        }
        drop(posting);
        self.others(here).for_each(|port| port.announce());
        outcome
    }

    fn broadcast(&self, ack: Option<(u64, u64)>) -> Broadcast {
        Broadcast { target: self.target.clone(), volatile: self.volatile, ack }
    }

    fn send(&self, frames: &[u8]) -> Result<(), EmitError> {
        let here = self.here(|core| core.fan_out(&self.target, frames, self.volatile));
        let make = || (self.broadcast(None), Bytes::copy_from_slice(frames));
        self.tell_others(here, make, |broadcast, frames| Mail::Broadcast {
            broadcast,
            frames: frames.clone(),
            answers: None,
        })
    }

    /// Sends an event to everybody addressed and collects their acknowledgements. Each client's
    /// first argument counts. Ends when all have answered or left, or at the timeout, with what
    /// there is.
    pub fn emit_with_ack<T: DeserializeOwned>(
        &self,
        event: &str,
        args: impl Serialize,
    ) -> BroadcastAckRequest<T> {
        let id = self.ports.next_ack_id();
        let frames = wire::with_encoder(|encoder| {
            let frames = encoder.event(&self.target.namespace, Some(id), event, &args)?;
            Ok(Bytes::copy_from_slice(frames))
        });
        BroadcastAckRequest::new(self.clone(), id, frames)
    }

    pub(crate) fn send_with_ack(
        &self,
        id: u64,
        frames: Bytes,
    ) -> Result<Vec<oneshot::Receiver<ShardAnswers>>, EmitError> {
        let ack = Some((id, self.timeout_ms));
        let mut receivers = Vec::new();
        let mut ask = || {
            let (sender, receiver) = oneshot::channel();
            receivers.push(receiver);
            Some(sender)
        };
        let here = self.here(|core| core.broadcast(&self.broadcast(ack), &frames, ask()));
        let make = || (self.broadcast(ack), frames);
        self.tell_others(here, make, |broadcast, frames| Mail::Broadcast {
            broadcast,
            frames: frames.clone(),
            answers: ask(),
        })?;
        Ok(receivers)
    }

    /// The sockets addressed.
    pub async fn fetch_sockets(&self) -> Vec<Socket> {
        let mut replies = Vec::new();
        for port in self.ports.all() {
            let (reply, sockets) = oneshot::channel();
            let mail = Mail::Fetch { target: self.target.clone(), reply };
            if port.post(mail).is_ok() {
                replies.push(sockets);
            }
        }
        let mut all = Vec::new();
        for reply in replies {
            // A shard that has shut down has no sockets.
            all.extend(reply.await.unwrap_or_default().into_iter().map(Socket::new));
        }
        all
    }

    /// Makes the sockets addressed join rooms.
    ///
    /// # Errors
    /// [`EmitError::MailboxFull`].
    pub fn sockets_join(&self, rooms: impl Rooms) -> Result<(), EmitError> {
        self.change(&Change::Join(rooms.into_vec()))
    }

    /// Makes the sockets addressed leave rooms.
    ///
    /// # Errors
    /// [`EmitError::MailboxFull`].
    pub fn sockets_leave(&self, rooms: impl Rooms) -> Result<(), EmitError> {
        self.change(&Change::Leave(rooms.into_vec()))
    }

    /// Disconnects the sockets addressed; with `close`, their whole connections.
    ///
    /// # Errors
    /// [`EmitError::MailboxFull`].
    pub fn disconnect_sockets(&self, close: bool) -> Result<(), EmitError> {
        self.change(&Change::Disconnect { close })
    }

    fn change(&self, change: &Change) -> Result<(), EmitError> {
        let here = self.here(|core| core.change_all(&self.target, change));
        let make = || (Changed { target: self.target.clone(), change: change.clone() }, ());
        self.tell_others(here, make, |change, ()| Mail::Change { change })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::{Wake, Waker};

    use super::*;

    /// A shard that reads its mail the moment it is woken, on the poster's own core.
    struct Eager {
        port: Arc<Port>,
        read: AtomicUsize,
    }

    impl Wake for Eager {
        fn wake(self: Arc<Self>) {
            let mut letters = VecDeque::new();
            self.port.take(&mut letters);
            assert!(letters.iter().all(Mail::is_posted), "it would have to wait for the poster");
            self.read.fetch_add(letters.len(), Ordering::Relaxed);
        }
    }

    #[test]
    fn a_shard_that_is_woken_may_read_at_once() {
        let ports = Arc::new(Ports::new(3, 100, 1 << 20));
        let eager = |port: &Arc<Port>| {
            let eager = Arc::new(Eager { port: port.clone(), read: AtomicUsize::new(0) });
            port.register(&Waker::from(eager.clone()));
            eager
        };
        let shards: Vec<Arc<Eager>> = ports.all().iter().map(eager).collect();
        let everyone = BroadcastOperator::new(ports, Target::all("/".into()), 1_000);
        everyone.emit("news", 1).unwrap();
        shards.iter().for_each(|shard| shard.port.register(&Waker::from(shard.clone())));
        everyone.sockets_join("room").unwrap();
        shards.iter().for_each(|shard| shard.port.register(&Waker::from(shard.clone())));
        everyone.send_with_ack(7, Bytes::new()).unwrap();
        for shard in &shards {
            assert_eq!(shard.read.load(Ordering::Relaxed), 3);
        }
    }
}
