//! The tables of one shard and what is done with them at once: emit, broadcast, close.
//!
//! Nothing here calls user code or the kernel. What user code must hear is left as a [`Notice`],
//! what the driver must do as a [`DriverOp`]; the turn carries both out. So handlers may come back
//! in here through their keys at any time.

use std::collections::{HashSet, VecDeque};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::Waker;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use smallvec::SmallVec;

use super::config::{Config, SlowConsumer};
use super::inbox::Inbox;
use super::link::{After, HttpPhase, LinkKind, Links};
use super::port::{
    AckWaiter, Answer, Broadcast, Counted, EngineCell, NoAnswer, Port, ShardAnswers, SocketCell,
};
use super::request::Request;
use super::tasks::{Orphans, Pending};
use super::timers::{TimerKey, Timers, UNSCHEDULED};
use crate::io::LinkId;
use crate::protocol::id::{ID_RANDOM_BYTES, Id};
use crate::protocol::socket_io::Assembler;
use crate::protocol::websocket::{CloseCode, close_frame};
use crate::session::{
    DisconnectReason, Log, Phase, Range, SessionId, Sessions, Sid, Tail, Transport,
};
use crate::socket::{Acks, SocketId, SocketState, Sockets, Target};
use crate::wire;

/// What serves a session.
#[derive(Debug)]
pub(crate) enum Owner {
    SocketIo,
    /// A raw Engine.IO endpoint.
    Engine {
        endpoint: u16,
        key: Arc<EngineCell>,
    },
}

/// What a shard keeps per session beyond the Engine.IO machine.
#[derive(Debug)]
pub(crate) struct Client {
    pub(crate) request: Arc<Request>,
    pub(crate) owner: Owner,
    /// At most one per namespace, connecting ones included.
    pub(crate) sockets: SmallVec<[SocketId; 1]>,
    pub(crate) assembler: Assembler,
    /// A namespace must be joined by then; `u64::MAX` once one was.
    pub(crate) join_by_ms: u64,
    /// Its unfinished handlers, once there was one.
    pub(crate) pending: Option<Rc<Pending>>,
    pub(crate) timer_tick: u64,
}

/// Something user code must hear of, once the tables are free.
#[derive(Debug)]
pub(crate) enum Notice {
    SocketGone { socket: SocketId, session: SessionId, reason: DisconnectReason },
    EngineGone { endpoint: u16, key: Arc<EngineCell>, reason: DisconnectReason },
}

/// Something the driver must do, once the turn has it at hand.
#[derive(Debug, Clone, Copy)]
pub(crate) enum DriverOp {
    Close(LinkId),
    ShutdownWrite(LinkId),
    Detach(LinkId),
    SetReading(LinkId, bool),
    StopAccepting,
    ResumeAccepting,
}

/// Plain counters of one shard.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Counters {
    /// Events that slow consumers lost to their policy.
    pub(crate) dropped: u64,
    /// Sessions closed because their outbox was full.
    pub(crate) overflowed: u64,
    /// Sends offered to the driver.
    pub(crate) sends: u64,
    /// Sessions that broadcasts were queued for, each time anew.
    pub(crate) deliveries: u64,
}

/// How a packet behaves when the outbox is full.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Weight {
    /// An event: the policy decides.
    Event,
    /// Anything else: never dropped; twice the bound closes the session.
    Control,
}

/// See the module's text.
#[derive(Debug)]
pub(crate) struct Core {
    pub(crate) config: Arc<Config>,
    pub(crate) port: Arc<Port>,
    pub(crate) now_ms: u64,
    rng: StdRng,
    pub(crate) links: Links,
    pub(crate) sessions: Sessions<Client>,
    pub(crate) sockets: Sockets<Arc<SocketCell>>,
    pub(crate) acks: Acks<AckWaiter, Answer>,
    pub(crate) log: Log,
    /// Where the frames of rooms and of whole namespaces ended last, by their indices.
    room_tails: Vec<Tail>,
    namespace_tails: Vec<Tail>,
    /// Sessions with something to send that others are sent too.
    pub(crate) dirty: VecDeque<u32>,
    /// Sessions with something to send that is theirs alone (answers, pongs, pings): they do not
    /// wait until all recipients of a broadcast have had their turn.
    pub(crate) prompt: VecDeque<u32>,
    /// Sessions whose outbox cannot drain now.
    pub(crate) stalled: Vec<u32>,
    /// Links with something of their own to send, each once.
    pub(crate) outgoing: VecDeque<LinkId>,
    /// Links whose next request may already be there.
    pub(crate) resumed: Vec<LinkId>,
    /// Links that turned out broken in a send.
    pub(crate) broken: Vec<LinkId>,
    /// [`Log::rotations`] when the stalled were last copied out.
    pub(crate) copied_at: u64,
    pub(crate) timers: Timers,
    pub(crate) inbox: Inbox,
    pub(crate) orphans: Orphans,
    pub(crate) notices: VecDeque<Notice>,
    pub(crate) driver_ops: Vec<DriverOp>,
    /// Ids of the user's making whose sessions are gone.
    pub(crate) freed_sids: Vec<Box<str>>,
    pub(crate) counters: Counters,
    /// Shutting down: everything ends by then.
    pub(crate) over_by_ms: Option<u64>,
    /// The turn is running: what is left behind will be seen without waking anybody.
    pub(crate) in_turn: bool,
    pub(crate) waker: Option<Waker>,
}

impl Core {
    /// `most`: connections there will be at most, as far as is known.
    pub(crate) fn new(
        config: Arc<Config>,
        port: Arc<Port>,
        most: usize,
        now_ms: u64,
        seed: [u8; 32],
    ) -> Self {
        Self {
            config,
            port,
            now_ms,
            rng: StdRng::from_seed(seed),
            links: Links::new(most),
            sessions: Sessions::new(most),
            sockets: Sockets::new(most),
            acks: Acks::new(),
            log: Log::new(),
            room_tails: Vec::new(),
            namespace_tails: Vec::new(),
            dirty: VecDeque::new(),
            prompt: VecDeque::new(),
            stalled: Vec::new(),
            outgoing: VecDeque::new(),
            resumed: Vec::new(),
            broken: Vec::new(),
            copied_at: 0,
            timers: Timers::new(now_ms),
            inbox: Inbox::default(),
            orphans: Orphans::default(),
            notices: VecDeque::new(),
            driver_ops: Vec::new(),
            freed_sids: Vec::new(),
            counters: Counters::default(),
            over_by_ms: None,
            in_turn: false,
            waker: None,
        }
    }

    /// Something was left for the turn. Outside of one, its host must be woken.
    #[inline]
    pub(crate) fn touch(&mut self) {
        if !self.in_turn
            && let Some(waker) = self.waker.take()
        {
            waker.wake();
        }
    }

    /// A fresh id for something in `slot`.
    pub(crate) fn new_id(&mut self, slot: u32) -> Id {
        let mut random = [0; ID_RANDOM_BYTES];
        self.rng.fill_bytes(&mut random);
        Id::new(self.port.index(), slot, random)
    }

    /// Whether the shard is shutting down.
    pub(crate) fn is_draining(&self) -> bool {
        self.over_by_ms.is_some()
    }

    // ---- outgoing ----

    /// Queues whole frames for one session.
    pub(crate) fn send_frames(&mut self, session: u32, frames: &[u8], weight: Weight) {
        debug_assert!(self.sessions.at(session).is_some(), "bytes for nobody");
        let range = self.log.append(frames);
        let hot = &mut self.sessions.hot[session as usize];
        if Self::fits(&self.config, hot.outbox.len(), range.len(), weight) {
            if hot.outbox.push(range, &mut self.log.queues) {
                self.log.retain(range, 1);
            }
            self.mark_prompt(session);
            return;
        }
        // The range must survive whatever the policy frees.
        self.log.retain(range, 1);
        self.overflow(session, range, weight);
        self.log.release(range.chunk);
    }

    #[inline]
    fn fits(config: &Config, waiting: usize, more: u32, weight: Weight) -> bool {
        let bound = match weight {
            Weight::Event => config.limits.outbox_bytes,
            Weight::Control => config.limits.outbox_bytes * 2,
        };
        // One message always fits where nothing else waits.
        waiting == 0 || waiting + more as usize <= bound
    }

    /// The session has something to send that is its own. One that waits among the recipients of a
    /// broadcast goes ahead: the place it leaves there is passed over.
    #[inline]
    pub(crate) fn mark_prompt(&mut self, session: u32) {
        let hot = &mut self.sessions.hot[session as usize];
        if !hot.prompt {
            hot.prompt = true;
            self.prompt.push_back(session);
            self.touch();
        }
    }

    /// The session has something to send, and all the time that others have.
    pub(crate) fn mark_dirty(&mut self, session: u32) {
        let hot = &mut self.sessions.hot[session as usize];
        if !(hot.dirty || hot.prompt) {
            hot.dirty = true;
            self.dirty.push_back(session);
            self.touch();
        }
    }

    /// The outbox is full. `range` holds a reference of the caller's.
    #[cold]
    fn overflow(&mut self, session: u32, range: Range, weight: Weight) {
        let Some(id) = self.sessions.id_at(session) else { return };
        let policy = match weight {
            Weight::Event => self.config.slow_consumer,
            Weight::Control => SlowConsumer::Disconnect,
        };
        match policy {
            SlowConsumer::Disconnect => {
                self.counters.overflowed += 1;
                self.close_session(id, DisconnectReason::LimitOutbox);
            }
            SlowConsumer::DropNew => self.counters.dropped += 1,
            SlowConsumer::DropOld => self.drop_old(id, range),
        }
    }

    fn drop_old(&mut self, id: SessionId, range: Range) {
        let bound = self.config.limits.outbox_bytes;
        let speaks = match self.sessions.get(id).map(|cold| &cold.owner.owner) {
            Some(Owner::Engine { .. }) => wire::Speaks::EngineIo,
            _ => wire::Speaks::SocketIo,
        };
        let outbox = &mut self.sessions.hot[id.slot as usize].outbox;
        let over = (outbox.len() + range.len() as usize).saturating_sub(bound);
        // A quarter at a time: the copy is then paid once per many events.
        let excess = over.max(bound / 4);
        let (kept, dropped) =
            wire::keep_undroppable(&outbox.to_vec(&self.log), outbox.pinned(), excess, speaks);
        let pinned = outbox.pinned();
        self.counters.dropped += dropped;
        outbox.replace(&mut self.log, kept, pinned);
        if outbox.is_empty() || outbox.len() + range.len() as usize <= bound {
            if outbox.push(range, &mut self.log.queues) {
                self.log.retain(range, 1);
            }
            self.mark_dirty(id.slot);
        } else {
            // Nothing that may be dropped was left.
            self.counters.overflowed += 1;
            self.close_session(id, DisconnectReason::LimitOutbox);
        }
    }

    /// Queues frames written once for every connected socket of the target. Returns how many
    /// sockets they were queued for. This is the broadcast path: per recipient it touches one
    /// member, one hot socket and one hot session, and allocates, clones and wakes nothing.
    pub(crate) fn fan_out(&mut self, target: &Target, frames: &[u8], volatile: bool) -> usize {
        let Some(namespace) = self.sockets.find_namespace(&target.namespace) else { return 0 };
        let range = self.append_for(namespace, target, frames);
        // Held until the end: a slow recipient's policy may free other references to the chunk.
        self.log.retain(range, 1);
        let (mut reached, mut fresh) = (0, 0);
        let mut slow: SmallVec<[u32; 16]> = SmallVec::new();
        let Self { sockets, sessions, dirty, config, port, log, .. } = self;
        let bound = config.limits.outbox_bytes;
        let shard = port.index();
        sockets.for_each(
            namespace,
            &target.rooms,
            &target.except,
            |name, sockets| resolve_name(shard, name, sockets),
            |_, session| {
                let hot = &mut sessions.hot[session as usize];
                if volatile && !hot.is_writable() {
                    return;
                }
                let waiting = hot.outbox.len();
                if waiting != 0 && waiting + range.len() as usize > bound {
                    slow.push(session);
                    return;
                }
                fresh += u32::from(hot.outbox.push(range, &mut log.queues));
                reached += 1;
                if !(hot.dirty | hot.prompt) {
                    hot.dirty = true;
                    dirty.push_back(session);
                }
            },
        );
        self.log.retain(range, fresh);
        for session in slow {
            self.overflow(session, range, Weight::Event);
        }
        self.log.release(range.chunk);
        self.counters.deliveries += reached as u64;
        if !self.dirty.is_empty() {
            self.touch();
        }
        reached
    }

    /// Writes a broadcast's frames beside the last ones of the same audience.
    fn append_for(&mut self, namespace: u32, target: &Target, frames: &[u8]) -> Range {
        let (tails, index) = match self.sockets.only_room(namespace, &target.rooms) {
            Some(room) => (&mut self.room_tails, room as usize),
            None if target.rooms.is_empty() => (&mut self.namespace_tails, namespace as usize),
            None => return self.log.append(frames),
        };
        if tails.len() <= index {
            tails.resize(index + 1, Tail::NONE);
        }
        self.log.append_for(&mut tails[index], frames)
    }

    /// A broadcast of this server, local part: fans out and waits for acknowledgements if asked.
    pub(crate) fn broadcast(
        &mut self,
        broadcast: &Broadcast,
        frames: &[u8],
        answers: Option<tokio::sync::oneshot::Sender<ShardAnswers>>,
    ) {
        if let (Some((id, timeout_ms)), Some(answers)) = (broadcast.ack, answers) {
            let mut awaited: HashSet<u32> = self.select(&broadcast.target).into_iter().collect();
            if broadcast.volatile {
                // Whom the event will not reach owes no answer.
                let Self { sockets, sessions, .. } = self;
                awaited.retain(|slot| {
                    let session = sockets.id_at(*slot).and_then(|id| sockets.session_of(id));
                    session.is_some_and(|session| sessions.hot[session as usize].is_writable())
                });
            }
            if awaited.is_empty() || self.acks.broadcasts() >= self.config.limits.broadcast_acks {
                let missing = awaited.len();
                let _ = answers.send(ShardAnswers { answers: Vec::new(), missing });
                return;
            }
            let deadline_ms = self.now_ms.saturating_add(timeout_ms);
            self.acks.wait_all(awaited, id, deadline_ms, AckWaiter::Broadcast(answers));
            self.touch();
        }
        self.fan_out(&broadcast.target, frames, broadcast.volatile);
    }

    /// The connected sockets (their slots) of a target.
    pub(crate) fn select(&mut self, target: &Target) -> Vec<u32> {
        let Some(namespace) = self.sockets.find_namespace(&target.namespace) else {
            return Vec::new();
        };
        let shard = self.port.index();
        let mut found = Vec::new();
        self.sockets.for_each(
            namespace,
            &target.rooms,
            &target.except,
            |name, sockets| resolve_name(shard, name, sockets),
            |slot, _| found.push(slot),
        );
        found
    }

    /// Queues an event for one socket. `false`: the socket is gone.
    pub(crate) fn emit(
        &mut self,
        socket: SocketId,
        frames: &[u8],
        volatile: bool,
        weight: Weight,
    ) -> bool {
        let Some(session) = self.sockets.session_of(socket) else { return false };
        if volatile && !self.sessions.hot[session as usize].is_writable() {
            return true;
        }
        self.send_frames(session, frames, weight);
        true
    }

    /// Queues an event that asks for an acknowledgement, and its wait.
    pub(crate) fn emit_with_ack(
        &mut self,
        socket: SocketId,
        frames: &[u8],
        id: u64,
        timeout_ms: u64,
        waiter: tokio::sync::oneshot::Sender<Result<Answer, NoAnswer>>,
    ) {
        if self.sockets.state(socket) != Some(SocketState::Connected) {
            let _ = waiter.send(Err(NoAnswer::Disconnected));
            return;
        }
        if self.acks.pending(socket.slot) >= self.config.limits.pending_acks {
            let _ = waiter.send(Err(NoAnswer::TooManyPending));
            return;
        }
        let deadline_ms = self.now_ms.saturating_add(timeout_ms);
        self.acks.wait(socket.slot, id, deadline_ms, AckWaiter::Single(waiter));
        self.touch();
        self.emit(socket, frames, false, Weight::Event);
    }

    /// Tells a waiter of one socket what came of it.
    pub(crate) fn tell(waiter: AckWaiter, outcome: Result<Answer, NoAnswer>) {
        match waiter {
            // A receiver that was dropped no longer cares.
            AckWaiter::Single(sender) => drop(sender.send(outcome)),
            AckWaiter::Broadcast(_) => debug_assert!(false, "broadcasts are told all at once"),
        }
    }

    /// Tells the waiter of a broadcast.
    pub(crate) fn tell_all(finished: crate::socket::Finished<AckWaiter, Answer>) {
        let answers = ShardAnswers { answers: finished.answers, missing: finished.missing };
        match finished.waiter {
            AckWaiter::Broadcast(sender) => drop(sender.send(answers)),
            AckWaiter::Single(_) => debug_assert!(false, "a single wait is told alone"),
        }
    }

    // ---- sockets ----

    /// The connected or connecting socket of a session in a namespace.
    pub(crate) fn socket_in(&self, session: SessionId, namespace: &str) -> Option<SocketId> {
        let client = &self.sessions.get(session)?.owner;
        client.sockets.iter().copied().find(|&socket| {
            self.sockets
                .namespace_of(socket)
                .is_some_and(|index| &*self.sockets.namespace(index).name == namespace)
        })
    }

    /// Ends one socket; its session goes on. No broadcast reaches it from now on.
    pub(crate) fn end_socket(&mut self, socket: SocketId, reason: DisconnectReason) {
        let Some(session) = self.sockets.session_of(socket) else { return };
        let Some(id) = self.sessions.id_at(session) else { return };
        if let Some(cold) = self.sessions.get_mut(id) {
            cold.owner.sockets.retain(|other| *other != socket);
        }
        self.sockets.silence(socket);
        self.notices.push_back(Notice::SocketGone { socket, session: id, reason });
        self.touch();
    }

    /// The server disconnects a socket: a DISCONNECT packet, and the whole connection if `close`.
    pub(crate) fn disconnect_socket(&mut self, socket: SocketId, close: bool) {
        let Some(session) = self.sockets.session_of(socket) else { return };
        let Some(id) = self.sessions.id_at(session) else { return };
        let leaving: SmallVec<[SocketId; 1]> = match close {
            true => {
                self.sessions.get(id).map(|cold| cold.owner.sockets.clone()).unwrap_or_default()
            }
            false => SmallVec::from_elem(socket, 1),
        };
        for socket in leaving {
            // A DISCONNECT that found no room ended the session with all its sockets.
            if self.sockets.session_of(socket) != Some(session) {
                continue;
            }
            let Some(namespace) = self.sockets.namespace_of(socket) else { continue };
            let name = self.sockets.namespace(namespace).name.clone();
            let frames = wire::disconnect(&name);
            self.send_frames(session, &frames, Weight::Control);
            self.end_socket(socket, DisconnectReason::ServerNamespaceDisconnect);
        }
        if close {
            self.close_session(id, DisconnectReason::ServerNamespaceDisconnect);
        }
    }

    // ---- sessions ----

    /// The session's earliest deadline.
    fn session_deadline_ms(&self, id: SessionId) -> Option<u64> {
        let cold = self.sessions.get(id)?;
        let of_phase = match cold.phase {
            Phase::Closing { until_ms, .. } => until_ms,
            Phase::Open => cold.heartbeat.deadline_ms().min(cold.owner.join_by_ms),
        };
        Some(of_phase.min(cold.upgrade.deadline_ms().unwrap_or(u64::MAX)))
    }

    /// Makes sure that the session is looked at by its earliest deadline.
    pub(crate) fn schedule_session(&mut self, id: SessionId) {
        let Some(at_ms) = self.session_deadline_ms(id) else { return };
        let tick = Timers::tick_of(at_ms);
        let key = TimerKey::Session { slot: id.slot, generation: id.generation };
        let Self { sessions, timers, .. } = self;
        let Some(cold) = sessions.get_mut(id) else { return };
        if tick < cold.owner.timer_tick {
            cold.owner.timer_tick = timers.schedule(at_ms, key);
        }
    }

    /// Makes sure that the link is looked at by its deadline.
    pub(crate) fn set_link_deadline(&mut self, link: LinkId, at_ms: u64) {
        let Self { links, timers, .. } = self;
        let Some(entry) = links.get_mut(link) else { return };
        entry.deadline_ms = at_ms;
        if at_ms != u64::MAX && Timers::tick_of(at_ms) < entry.timer_tick {
            let key = TimerKey::Link { index: link.index, generation: link.generation };
            entry.timer_tick = timers.schedule(at_ms, key);
        }
    }

    /// Ends a session: its sockets are told, what it still has to say is said where the reason
    /// allows, its slot is freed (a polling client's stays until its next GET).
    pub(crate) fn close_session(&mut self, id: SessionId, reason: DisconnectReason) {
        let Some(cold) = self.sessions.get_mut(id) else { return };
        if cold.phase != Phase::Open {
            return;
        }
        tracing::debug!(target: "stentor::session", sid_slot = id.slot, %reason, "session closes");
        let timings = &self.config.timings;
        cold.phase = Phase::Closing { until_ms: self.now_ms + timings.poll_close, reason };
        let sockets = std::mem::take(&mut cold.owner.sockets);
        if let Some(pending) = &cold.owner.pending {
            self.orphans.push(pending.clone());
        }
        // Who was told to move may not poll again: it is told the rest where it moves to.
        let candidate = match cold.upgrade.is_probed() {
            true => None,
            false => std::mem::take(&mut cold.upgrade).link(),
        };
        if self.over_by_ms.is_some() {
            cold.upgrade.hurry(self.now_ms + timings.linger);
        }
        if let Owner::Engine { endpoint, key } = &cold.owner.owner {
            key.connected.store(false, Ordering::Release);
            let (endpoint, key) = (*endpoint, key.clone());
            self.notices.push_back(Notice::EngineGone { endpoint, key, reason });
        }
        for socket in sockets {
            self.sockets.silence(socket);
            self.notices.push_back(Notice::SocketGone { socket, session: id, reason });
        }
        if let Some(candidate) = candidate {
            self.close_websocket(candidate.into(), CloseCode::NORMAL, Vec::new());
        }
        let transport = self.sessions.hot[id.slot as usize].transport;
        match transport {
            Transport::WebSocket => self.close_over_websocket(id, reason),
            Transport::Polling => self.close_over_polling(id, reason),
        }
        self.touch();
    }

    fn close_over_websocket(&mut self, id: SessionId, reason: DisconnectReason) {
        let hot = &mut self.sessions.hot[id.slot as usize];
        let link = hot.link.take();
        let mut unsaid = hot.outbox.to_vec(&self.log);
        if reason.is_abrupt() {
            // A frame that was sent in part cannot be followed by a close frame.
            unsaid.truncate(hot.outbox.pinned());
        }
        hot.outbox.clear(&mut self.log);
        self.free_session(id);
        let Some(link) = link.map(LinkId::from) else { return };
        if reason == DisconnectReason::PingTimeout {
            self.drop_link(link);
        } else {
            let code = CloseCode::new(reason.close_code()).unwrap_or(CloseCode::NORMAL);
            self.close_websocket(link, code, unsaid);
        }
    }

    /// The client of a session that ended while it moved has arrived: it is told the rest.
    pub(crate) fn close_over_candidate(
        &mut self,
        id: SessionId,
        link: LinkId,
        reason: DisconnectReason,
    ) {
        let poll = self.sessions.hot[id.slot as usize].link.replace(link.into());
        if let Some(poll) = poll {
            self.answer_poll(poll.into(), wire::fixed::body::NOOP);
        }
        self.close_over_websocket(id, reason);
    }

    fn close_over_polling(&mut self, id: SessionId, reason: DisconnectReason) {
        let hot = &mut self.sessions.hot[id.slot as usize];
        let waits = hot.link.is_some();
        match reason {
            // The client said goodbye: its waiting poll ends with a noop.
            DisconnectReason::TransportClose => {
                hot.outbox.clear(&mut self.log);
                if let Some(link) = hot.link.take() {
                    self.answer_poll(link.into(), wire::fixed::body::NOOP);
                }
                self.free_session(id);
            }
            // A client that is gone, or that cannot keep one poll apart from another.
            DisconnectReason::TransportError | DisconnectReason::PingTimeout => {
                hot.outbox.clear(&mut self.log);
                if let Some(link) = hot.link.take() {
                    self.answer_poll(link.into(), wire::fixed::body::CLOSE);
                }
                self.free_session(id);
            }
            // What it was to hear is void, but it is told by this poll or by its next.
            _ if reason.is_abrupt() => {
                hot.outbox.clear(&mut self.log);
                match hot.link.take() {
                    Some(link) => {
                        self.answer_poll(link.into(), wire::fixed::body::CLOSE);
                        self.free_session(id);
                    }
                    None => self.schedule_session(id),
                }
            }
            _ if waits && hot.outbox.is_empty() => {
                if let Some(link) = hot.link.take() {
                    self.answer_poll(link.into(), wire::fixed::body::CLOSE);
                }
                self.free_session(id);
            }
            // What is queued goes with one poll, the close with the next: clients handle packets a
            // tick later than the close that comes with them.
            _ if waits => {
                self.mark_prompt(id.slot);
                self.schedule_session(id);
            }
            _ => self.schedule_session(id),
        }
    }

    /// Moves the outbox into a polling body.
    pub(crate) fn take_payload(&mut self, session: u32, body: &mut Vec<u8>) {
        let outbox = &mut self.sessions.hot[session as usize].outbox;
        let mut payload = crate::protocol::engine_io::PayloadWriter::new(body);
        for range in outbox.ranges() {
            wire::write_payload(self.log.bytes(range), &mut payload);
        }
        outbox.clear(&mut self.log);
    }

    /// Frees a session that has nothing more to say.
    pub(crate) fn free_session(&mut self, id: SessionId) {
        self.sessions.hot[id.slot as usize].outbox.clear(&mut self.log);
        let Some(cold) = self.sessions.remove(id) else { return };
        debug_assert!(cold.owner.sockets.is_empty(), "sockets end before their session");
        self.port.sessions.fetch_sub(1, Ordering::Relaxed);
        if let Some(candidate) = cold.upgrade.link() {
            self.close_websocket(candidate.into(), CloseCode::NORMAL, Vec::new());
        }
        if let Sid::Custom(sid) = cold.sid {
            self.freed_sids.push(sid);
        }
    }

    // ---- links ----

    /// Sends `unsaid` and a close frame, then ends the link.
    pub(crate) fn close_websocket(&mut self, link: LinkId, code: CloseCode, unsaid: Vec<u8>) {
        let Some(entry) = self.links.get_mut(link) else { return };
        entry.out.extend_from_slice(&unsaid);
        entry.out.extend_from_slice(&close_frame(code, ""));
        entry.kind = LinkKind::Draining;
        self.end_link(link);
    }

    /// Lets the link end once its bytes are out.
    pub(crate) fn end_link(&mut self, link: LinkId) {
        // A shutdown's deadline is the user's; else a peer that takes nothing is waited for no
        // longer than one that does not close.
        let until_ms = self.over_by_ms.unwrap_or(self.now_ms + self.config.timings.linger);
        if let Some(entry) = self.links.get_mut(link) {
            entry.after = After::Close;
            self.set_link_deadline(link, until_ms);
            self.queue_link(link);
        }
    }

    /// The link has bytes of its own (or an end) for the next flush.
    pub(crate) fn queue_link(&mut self, link: LinkId) {
        if let Some(entry) = self.links.get_mut(link)
            && !entry.queued
        {
            entry.queued = true;
            self.outgoing.push_back(link);
            self.touch();
        }
    }

    /// Frees the link at once.
    pub(crate) fn drop_link(&mut self, link: LinkId) {
        if let Some(removed) = self.links.remove(link) {
            drop(removed.counted.then(|| Counted(self.port.clone())));
            if let LinkKind::Http(http) = removed.kind
                && let HttpPhase::Deciding(pending) = http.phase
            {
                self.orphans.push(pending);
            }
            self.driver_ops.push(DriverOp::Close(link));
            self.touch();
        }
    }
}

/// The socket that has `name` as its id: a room that only it is in.
fn resolve_name(shard: u16, name: &str, sockets: &Sockets<Arc<SocketCell>>) -> Option<u32> {
    let (place, slot) = Id::place(name)?;
    let cell = sockets.key_at(slot)?;
    (place == shard && cell.name.as_str() == name).then_some(slot)
}

/// Marks a session's timer as not scheduled.
pub(crate) const NO_TIMER: u64 = UNSCHEDULED;
