//! How anything outside a shard reaches it: ports, keys and mail.
//!
//! A key ([`SocketCell`], [`EngineCell`]) is a name plus facts that never change, so it can be
//! cloned, sent and kept anywhere. On the shard's own thread it acts at once; from elsewhere it
//! posts mail. A mailbox is a bounded vector behind a lock that is held to push or to swap; its
//! shard is woken once however many mails arrive before it looks.

use std::any::{Any, TypeId};
use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Waker;

use atomic_waker::AtomicWaker;
use bytes::Bytes;
use tokio::sync::{oneshot, watch};

use super::request::Request;
use crate::io::Handoff;
use crate::protocol::id::Id;
use crate::session::SessionId;
use crate::socket::{SocketId, Target};

/// One answer to an acknowledgement request: the packet's payload and attachments.
#[derive(Debug, Clone)]
pub(crate) struct Answer {
    pub(crate) payload: Vec<u8>,
    pub(crate) attachments: Vec<Bytes>,
}

/// Why a single acknowledgement did not come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NoAnswer {
    Timeout,
    Disconnected,
    TooManyPending,
}

/// The answers of one shard to a broadcast.
#[derive(Debug, Default)]
pub(crate) struct ShardAnswers {
    pub(crate) answers: Vec<Answer>,
    pub(crate) missing: usize,
}

/// Who waits for acknowledgements.
#[derive(Debug)]
pub(crate) enum AckWaiter {
    Single(oneshot::Sender<Result<Answer, NoAnswer>>),
    Broadcast(oneshot::Sender<ShardAnswers>),
}

/// What a broadcast carries besides its bytes.
#[derive(Debug)]
pub(crate) struct Broadcast {
    pub(crate) target: Target,
    pub(crate) volatile: bool,
    /// Id and timeout when every recipient is to acknowledge.
    pub(crate) ack: Option<(u64, u64)>,
}

/// A change of all sockets of a target.
#[derive(Debug)]
pub(crate) struct Changed {
    pub(crate) target: Target,
    pub(crate) change: Change,
}

/// What all shards are told.
#[derive(Debug)]
pub(crate) struct Posted<T> {
    pub(crate) told: T,
    /// Every shard has it in its mailbox. Before, none may show it to anybody: what somebody says
    /// upon it would come before it where it is still missing.
    everywhere: AtomicBool,
}

/// It on its way to the mailboxes, until dropped.
#[derive(Debug)]
pub(crate) struct Posting<T>(pub(crate) Arc<Posted<T>>);

impl<T> Posting<T> {
    pub(crate) fn new(told: T) -> Self {
        Self(Arc::new(Posted { told, everywhere: AtomicBool::new(false) }))
    }
}

impl<T> Drop for Posting<T> {
    fn drop(&mut self) {
        self.0.everywhere.store(true, Ordering::Release);
    }
}

/// What becomes of a socket.
#[derive(Debug, Clone)]
pub(crate) enum Change {
    Join(Vec<Box<str>>),
    Leave(Vec<Box<str>>),
    Disconnect { close: bool },
}

/// What a shard is told from outside.
#[derive(Debug)]
pub(crate) enum Mail {
    Broadcast {
        broadcast: Arc<Posted<Broadcast>>,
        frames: Bytes,
        answers: Option<oneshot::Sender<ShardAnswers>>,
    },
    Emit {
        socket: SocketId,
        frames: Bytes,
        volatile: bool,
        is_event: bool,
    },
    EmitWithAck {
        socket: SocketId,
        frames: Bytes,
        id: u64,
        timeout_ms: u64,
        waiter: oneshot::Sender<Result<Answer, NoAnswer>>,
    },
    Change {
        change: Arc<Posted<Changed>>,
    },
    ChangeSocket {
        socket: SocketId,
        change: Change,
    },
    Rooms {
        socket: SocketId,
        reply: oneshot::Sender<Vec<Arc<str>>>,
    },
    Fetch {
        target: Target,
        reply: oneshot::Sender<Vec<Arc<SocketCell>>>,
    },
    EngineSend {
        session: SessionId,
        frames: Bytes,
    },
    EngineClose {
        session: SessionId,
    },
    /// A connection that asks for a session of this shard, with the bytes already read.
    Connection {
        handoff: Handoff,
        bytes: Vec<u8>,
        peer: SocketAddr,
        /// `false`: it is another one's way back from the router, and counted there.
        counted: bool,
    },
    Shutdown {
        within_ms: u64,
    },
}

impl Mail {
    /// Bytes that waiting costs, besides the letter itself.
    fn bytes(&self) -> usize {
        match self {
            Self::Broadcast { frames, .. }
            | Self::Emit { frames, .. }
            | Self::EmitWithAck { frames, .. }
            | Self::EngineSend { frames, .. } => frames.len(),
            _ => 0,
        }
    }

    /// Whether it may be read: what all shards are told is in all mailboxes first.
    pub(crate) fn is_posted(&self) -> bool {
        match self {
            Self::Broadcast { broadcast, .. } => broadcast.everywhere.load(Ordering::Acquire),
            Self::Change { change, .. } => change.everywhere.load(Ordering::Acquire),
            _ => true,
        }
    }

    /// Letters whose loss would be worse than their wait: bounded elsewhere (connections), or
    /// seldom and not to be refused (an end, a question somebody waits for).
    fn always_finds_room(&self) -> bool {
        match self {
            Self::Connection { .. }
            | Self::Shutdown { .. }
            | Self::EngineClose { .. }
            | Self::Fetch { .. }
            | Self::Rooms { .. } => true,
            Self::Change { change } => matches!(change.told.change, Change::Disconnect { .. }),
            Self::ChangeSocket { change, .. } => matches!(change, Change::Disconnect { .. }),
            _ => false,
        }
    }
}

/// The mailbox of a full shard took nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct MailboxFull;

/// One connection in its shard's count, until dropped.
#[derive(Debug)]
pub(crate) struct Counted(pub(crate) Arc<Port>);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.connections.fetch_sub(1, Ordering::Relaxed);
    }
}

/// What waits for a shard.
#[derive(Default)]
struct Mailbox {
    letters: VecDeque<Mail>,
    /// Bytes of the letters' frames.
    bytes: usize,
    /// The shard is over and reads no more.
    closed: bool,
}

/// The outside of one shard.
pub(crate) struct Port {
    index: u16,
    mail: Mutex<Mailbox>,
    mail_max: usize,
    mail_bytes_max: usize,
    /// Mail was posted since the shard last looked.
    posted: AtomicBool,
    waker: AtomicWaker,
    /// Links of the shard, for `max_connections`.
    pub(crate) connections: AtomicUsize,
    /// Open sessions of the shard.
    pub(crate) sessions: AtomicUsize,
}

impl fmt::Debug for Port {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Port").field("index", &self.index).finish_non_exhaustive()
    }
}

/// A lock whose poison is of no interest: every change under it is one step.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Port {
    fn new(index: u16, mail_max: usize, mail_bytes_max: usize) -> Self {
        Self {
            index,
            mail: Mutex::default(),
            mail_max,
            mail_bytes_max,
            posted: AtomicBool::new(false),
            waker: AtomicWaker::new(),
            connections: AtomicUsize::new(0),
            sessions: AtomicUsize::new(0),
        }
    }

    pub(crate) fn index(&self) -> u16 {
        self.index
    }

    /// Posts mail. A connection and a shutdown always find room: they are bounded elsewhere. To a
    /// shard that is over mail is thrown away, and with it whatever its sender waits for.
    pub(crate) fn post(&self, mail: Mail) -> Result<(), MailboxFull> {
        self.put(mail)?;
        self.announce();
        Ok(())
    }

    /// Puts mail where it will be found once it is announced, if not before. What all shards are
    /// told is put into all mailboxes first: a shard that wakes and may not read would be waiting
    /// for a thread that it may have driven from its core.
    pub(crate) fn put(&self, mail: Mail) -> Result<(), MailboxFull> {
        let mut mailbox = lock(&self.mail);
        if mailbox.closed {
            return Ok(());
        }
        let bytes = mail.bytes();
        let full = mailbox.letters.len() >= self.mail_max
            || (mailbox.bytes > 0 && mailbox.bytes + bytes > self.mail_bytes_max);
        if full && !mail.always_finds_room() {
            return Err(MailboxFull);
        }
        mailbox.bytes += bytes;
        mailbox.letters.push_back(mail);
        Ok(())
    }

    /// Wakes the shard for what was put.
    pub(crate) fn announce(&self) {
        if !self.posted.swap(true, Ordering::AcqRel) {
            self.waker.wake();
        }
    }

    /// Swaps the mail out. `into` should be empty; its capacity serves the next round.
    pub(crate) fn take(&self, into: &mut VecDeque<Mail>) {
        debug_assert!(into.is_empty(), "letters are read before the next are taken");
        if self.posted.swap(false, Ordering::AcqRel) {
            let mut mailbox = lock(&self.mail);
            mailbox.bytes = 0;
            std::mem::swap(&mut mailbox.letters, into);
        }
    }

    /// The shard is over: what waits, and what is still posted, is thrown away.
    pub(crate) fn close(&self) {
        let letters = {
            let mut mailbox = lock(&self.mail);
            mailbox.closed = true;
            std::mem::take(&mut mailbox.letters)
        };
        // Outside of the lock: it closes descriptors and wakes those who wait for answers.
        drop(letters);
    }

    pub(crate) fn has_mail(&self) -> bool {
        self.posted.load(Ordering::Acquire)
    }

    /// Whom the next mail wakes.
    pub(crate) fn register(&self, waker: &Waker) {
        self.waker.register(waker);
    }
}

/// All shards of a server.
#[derive(Debug)]
pub(crate) struct Ports {
    ports: Box<[Arc<Port>]>,
    /// One counter for emits and broadcasts of all namespaces: an id never means two things to a
    /// client, and a broadcast's frame is the same for all.
    ack_ids: AtomicU64,
    /// Becomes true when the server shuts down.
    draining: watch::Sender<bool>,
    /// Where sessions with ids of the user's making live.
    custom_sids: Mutex<HashMap<Box<str>, (u16, SessionId)>>,
}

impl Ports {
    pub(crate) fn new(shards: usize, mail_max: usize, mail_bytes_max: usize) -> Self {
        let ports = (0..shards)
            .map(|index| Arc::new(Port::new(index as u16, mail_max, mail_bytes_max)))
            .collect();
        Self {
            ports,
            ack_ids: AtomicU64::new(0),
            draining: watch::Sender::new(false),
            custom_sids: Mutex::new(HashMap::new()),
        }
    }

    /// Tells every shard to shut down.
    pub(crate) fn shut_down(&self, within_ms: u64) {
        self.draining.send_replace(true);
        for port in self.all() {
            // A shutdown always finds room.
            let _ = port.post(Mail::Shutdown { within_ms });
        }
    }

    /// Whether the server shuts down, for those who may wait for it.
    pub(crate) fn draining(&self) -> watch::Receiver<bool> {
        self.draining.subscribe()
    }

    pub(crate) fn all(&self) -> &[Arc<Port>] {
        &self.ports
    }

    pub(crate) fn get(&self, shard: u16) -> Option<&Arc<Port>> {
        self.ports.get(usize::from(shard))
    }

    pub(crate) fn next_ack_id(&self) -> u64 {
        self.ack_ids.fetch_add(1, Ordering::Relaxed)
    }

    /// Claims a session id of the user's making; `false` when it is taken.
    pub(crate) fn claim_sid(&self, sid: &str, shard: u16, session: SessionId) -> bool {
        let mut sids = lock(&self.custom_sids);
        if sids.contains_key(sid) {
            return false;
        }
        sids.insert(sid.into(), (shard, session));
        true
    }

    pub(crate) fn find_sid(&self, sid: &str) -> Option<(u16, SessionId)> {
        lock(&self.custom_sids).get(sid).copied()
    }

    pub(crate) fn release_sid(&self, sid: &str) {
        lock(&self.custom_sids).remove(sid);
    }

    pub(crate) fn connections(&self) -> usize {
        self.ports.iter().map(|port| port.connections.load(Ordering::Relaxed)).sum()
    }

    pub(crate) fn sessions(&self) -> usize {
        self.ports.iter().map(|port| port.sessions.load(Ordering::Relaxed)).sum()
    }
}

/// Values of the user's, one per type.
#[derive(Default)]
pub(crate) struct TypeMap(HashMap<TypeId, Arc<dyn Any + Send + Sync>>);

/// What every copy of a socket's key shares. A socket's table entry lives on its shard; this may
/// outlive it.
pub(crate) struct SocketCell {
    pub(crate) ports: Arc<Ports>,
    pub(crate) id: SocketId,
    pub(crate) name: Id,
    pub(crate) namespace: Arc<str>,
    pub(crate) definition: u32,
    pub(crate) request: Arc<Request>,
    pub(crate) auth: Option<Box<str>>,
    pub(crate) connected: AtomicBool,
    /// Among `ports`: a million of these are kept, and a number is smaller than a reference.
    shard: u16,
    pub(crate) ack_timeout_ms: u32,
    data: Mutex<Option<Box<TypeMap>>>,
}

impl fmt::Debug for SocketCell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Socket")
            .field("id", &self.name)
            .field("namespace", &self.namespace)
            .finish_non_exhaustive()
    }
}

/// The parts of a [`SocketCell`] that its maker knows.
#[derive(Debug)]
pub(crate) struct SocketFacts {
    pub(crate) port: Arc<Port>,
    pub(crate) ports: Arc<Ports>,
    pub(crate) id: SocketId,
    pub(crate) name: Id,
    pub(crate) namespace: Arc<str>,
    pub(crate) definition: u32,
    pub(crate) request: Arc<Request>,
    pub(crate) auth: Option<Box<str>>,
    pub(crate) ack_timeout_ms: u64,
}

impl SocketCell {
    pub(crate) fn new(facts: SocketFacts) -> Self {
        Self {
            shard: facts.port.index(),
            ports: facts.ports,
            id: facts.id,
            name: facts.name,
            namespace: facts.namespace,
            definition: facts.definition,
            request: facts.request,
            auth: facts.auth,
            connected: AtomicBool::new(false),
            ack_timeout_ms: u32::try_from(facts.ack_timeout_ms).unwrap_or(u32::MAX),
            data: Mutex::new(None),
        }
    }

    /// The outside of the socket's shard.
    pub(crate) fn port(&self) -> &Arc<Port> {
        &self.ports.ports[usize::from(self.shard)]
    }

    pub(crate) fn set_data<T: Send + Sync + 'static>(&self, value: T) -> Option<Arc<T>> {
        let mut data = lock(&self.data);
        let map = data.get_or_insert_default();
        let old = map.0.insert(TypeId::of::<T>(), Arc::new(value));
        drop(data);
        old.and_then(|old| old.downcast().ok())
    }

    pub(crate) fn data<T: Send + Sync + 'static>(&self) -> Option<Arc<T>> {
        let value = lock(&self.data).as_ref()?.0.get(&TypeId::of::<T>())?.clone();
        value.downcast().ok()
    }
}

/// What every copy of a raw Engine.IO session's key shares.
#[derive(Debug)]
pub(crate) struct EngineCell {
    pub(crate) port: Arc<Port>,
    pub(crate) session: SessionId,
    pub(crate) request: Arc<Request>,
    pub(crate) connected: AtomicBool,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::socket::Target;

    fn fetch() -> (Mail, oneshot::Receiver<Vec<Arc<SocketCell>>>) {
        let (reply, sockets) = oneshot::channel();
        (Mail::Fetch { target: Target::all("/".into()), reply }, sockets)
    }

    #[test]
    fn nobody_waits_for_a_shard_that_is_over() {
        let port = Port::new(0, 2, 1024);
        let (before, mut unread) = fetch();
        let (after, mut late) = fetch();
        assert_eq!(port.post(before), Ok(()));
        port.close();
        assert_eq!(port.post(after), Ok(()));
        assert!(matches!(unread.try_recv(), Err(oneshot::error::TryRecvError::Closed)));
        assert!(matches!(late.try_recv(), Err(oneshot::error::TryRecvError::Closed)));
    }

    #[test]
    fn a_full_mailbox_says_so_and_still_takes_what_must_not_be_lost() {
        let emit = |bytes: usize| Mail::Emit {
            socket: SocketId { slot: 0, generation: 0 },
            frames: Bytes::from(vec![0; bytes]),
            volatile: false,
            is_event: true,
        };
        let port = Port::new(0, 2, 1024);
        assert_eq!(port.post(emit(1000)), Ok(()));
        assert_eq!(port.post(emit(100)), Err(MailboxFull), "too many bytes");
        assert_eq!(port.post(emit(10)), Ok(()));
        assert_eq!(port.post(emit(1)), Err(MailboxFull), "too many letters");
        assert_eq!(port.post(fetch().0), Ok(()), "somebody waits for it");
        assert_eq!(port.post(Mail::Shutdown { within_ms: 0 }), Ok(()));
        let mut letters = VecDeque::new();
        port.take(&mut letters);
        assert_eq!(letters.len(), 4);
        assert_eq!(port.post(emit(1024)), Ok(()), "what was taken counts no more");
    }
}
