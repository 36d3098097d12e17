//! One pass of a shard's loop: reap, mail, dispatch, tasks, timers, notices, flush.
//!
//! Nothing is sent before the flush, and one turn flushes one slice: while there is more, turns
//! follow each other and look at what has come in between.

use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use bytes::BytesMut;
use futures_util::Stream;
use futures_util::stream::FuturesUnordered;

use super::Shard;
use super::app::{Guest, LocalFuture, Tasks};
use super::core::{Core, DriverOp, NO_TIMER, Weight};
use super::flush::Flush;
use super::link::{After, Destination, HttpLink, HttpPhase, LinkKind, Reply};
use super::port::{Counted, Mail};
use super::tasks::TaskOf;
use super::timers::TimerKey;
use crate::DisconnectReason;
use crate::io::{Driver, Event, Handoff, LinkId};
use crate::session::{Beat, Phase, SessionId};
use crate::socket::Expired;
use crate::wire::fixed;

/// Deadlines seen to in one turn. Only a server that stood still has more.
const DEADLINES_PER_TURN: usize = 4096;

/// After accepting failed, it is tried again this much later.
const ACCEPT_RETRY_MS: u64 = 100;

/// What a turn leaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// There is more to do at once.
    More,
    /// Nothing to do until the driver, mail, a task or this time says so.
    Idle { until_ms: Option<u64> },
    /// Shut down: no link is left.
    Over,
}

/// A shard and its driver. However it ends, nobody waits for its mail any more.
pub(crate) struct Turn<D> {
    pub(crate) shard: Rc<Shard>,
    pub(crate) driver: D,
    tasks: FuturesUnordered<LocalFuture<()>>,
    flush: Flush,
    /// Deadlines that have passed and were not seen to yet.
    fired: Vec<(TimerKey, u64)>,
}

impl<D> std::fmt::Debug for Turn<D> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Turn").field("shard", &self.shard).finish_non_exhaustive()
    }
}

impl<D> Drop for Turn<D> {
    fn drop(&mut self) {
        self.shard.port.close();
        // Futures that never ran hold the shard that holds them.
        self.shard.spawned.borrow_mut().clear();
        // What was taken in and not read: whoever waits for an answer learns that none comes.
        let inbox =
            self.shard.core.try_borrow_mut().map(|mut core| std::mem::take(&mut core.inbox));
        drop(inbox);
    }
}

impl<D: Driver> Turn<D> {
    pub(crate) fn new(shard: Rc<Shard>, driver: D) -> Self {
        Self {
            shard,
            driver,
            tasks: FuturesUnordered::new(),
            flush: Flush::default(),
            fired: Vec::new(),
        }
    }

    /// Takes one turn. The context's waker is woken by mail and by tasks.
    pub(crate) fn turn(&mut self, cx: &mut Context<'_>) -> std::io::Result<Outcome> {
        {
            let mut core = self.shard.core.borrow_mut();
            core.now_ms = self.driver.now_ms();
            core.in_turn = true;
            core.waker = Some(cx.waker().clone());
        }
        self.driver.poll()?;
        self.shard.port.register(cx.waker());
        self.read_mail();
        self.dispatch();
        self.read_own_mail();
        self.run_tasks(cx);
        self.fire_timers();
        self.resume_links();
        self.shard.run_notices();
        self.flush.slice(&mut self.shard.core.borrow_mut(), &mut self.driver);
        self.end_broken();
        self.drive();
        Ok(self.outcome())
    }

    fn outcome(&mut self) -> Outcome {
        let mut core = self.shard.core.borrow_mut();
        core.in_turn = false;
        let idle = core.links.len() == 0 && self.shard.counts.all_is_said();
        let late = core.over_by_ms.is_some_and(|by_ms| core.now_ms >= by_ms);
        if core.is_draining() && (idle || late) && core.notices.is_empty() {
            // Polling clients that did not come back to hear of it.
            let left: Vec<SessionId> = core.sessions.ids().collect();
            left.into_iter().for_each(|session| core.free_session(session));
            return Outcome::Over;
        }
        let pending = !core.dirty.is_empty()
            || !core.prompt.is_empty()
            || !core.outgoing.is_empty()
            || !core.inbox.is_empty()
            || !self.fired.is_empty()
            || !core.notices.is_empty()
            || !core.resumed.is_empty()
            || !core.driver_ops.is_empty()
            || !core.broken.is_empty()
            || !self.shard.spawned.borrow().is_empty()
            || self.shard.port.has_mail();
        let timers = core.timers.next_ms();
        let acks = core.acks.next_deadline_ms();
        let over_by_ms = core.over_by_ms;
        drop(core);
        if pending || self.driver.has_more() {
            return Outcome::More;
        }
        let until_ms = [timers, acks, over_by_ms].into_iter().flatten().min();
        Outcome::Idle { until_ms }
    }

    // ---- the driver's events ----

    fn dispatch(&mut self) {
        let Self { shard, driver, .. } = self;
        while let Some(event) = driver.next() {
            match event {
                Event::Accepted { link, peer } => shard.accepted(link, peer, true),
                Event::Received { link, bytes } => shard.received(link, bytes),
                Event::Ended { link } => shard.lost(link, false),
                Event::Failed { link, error } => {
                    tracing::trace!(target: "stentor::link", %error, "link failed");
                    shard.lost(link, true);
                }
                Event::Writable { link } => shard.core.borrow_mut().writable(link),
                Event::Detached { link, handoff } => shard.detached(link, handoff),
                Event::AcceptFailed { error } => {
                    tracing::warn!(target: "stentor::link", %error, "accepting fails for now");
                    let mut core = shard.core.borrow_mut();
                    let at_ms = core.now_ms + ACCEPT_RETRY_MS;
                    core.timers.schedule(at_ms, TimerKey::Accept);
                }
            }
            // What the dispatch caused is heard before the next event, as its sender expects.
            if !shard.core.borrow().notices.is_empty() {
                shard.run_notices();
            }
        }
    }

    /// Links whose request is answered go on with the next; broken ones end.
    fn resume_links(&mut self) {
        let resumed = std::mem::take(&mut self.shard.core.borrow_mut().resumed);
        resumed.into_iter().for_each(|link| self.shard.http_process(link));
    }

    fn end_broken(&mut self) {
        let broken = std::mem::take(&mut self.shard.core.borrow_mut().broken);
        broken.into_iter().for_each(|link| self.shard.lost(link, true));
    }

    /// Carries out what was left for the driver.
    fn drive(&mut self) {
        let ops = std::mem::take(&mut self.shard.core.borrow_mut().driver_ops);
        for op in ops {
            match op {
                DriverOp::Close(link) => self.driver.close(link),
                DriverOp::ShutdownWrite(link) => self.driver.shutdown_write(link),
                DriverOp::Detach(link) => self.driver.detach(link),
                DriverOp::SetReading(link, reading) => self.driver.set_reading(link, reading),
                DriverOp::StopAccepting => self.driver.stop_accepting(),
                DriverOp::ResumeAccepting => self.driver.resume_accepting(),
            }
        }
    }

    // ---- mail ----

    /// Before anything that came in is dispatched: its sender may have seen what waits here.
    fn read_mail(&mut self) {
        self.shard.core.borrow_mut().open_mail();
        self.shard.run_notices();
    }

    /// After the dispatch: a shutdown should not end a link whose request has just come.
    fn read_own_mail(&mut self) {
        let letters = self.shard.core.borrow_mut().inbox.take_for_turn();
        for letter in letters {
            match letter {
                Mail::Connection { handoff, mut bytes, peer, counted } => {
                    let Some(link) = self.attach(handoff) else { continue };
                    self.shard.accepted(link, peer, counted);
                    if !bytes.is_empty() {
                        self.shard.received(link, &mut bytes);
                    }
                }
                Mail::Shutdown { within_ms } => self.shut_down(within_ms),
                _ => debug_assert!(false, "mail for the tables"),
            }
        }
    }

    fn attach(&mut self, handoff: Handoff) -> Option<LinkId> {
        match self.driver.attach(handoff) {
            Ok(link) => Some(link),
            Err(error) => {
                tracing::warn!(target: "stentor::link", %error, "a handed-over connection is lost");
                None
            }
        }
    }

    // ---- tasks ----

    fn run_tasks(&mut self, cx: &mut Context<'_>) {
        loop {
            let spawned = std::mem::take(&mut *self.shard.spawned.borrow_mut());
            let fresh = !spawned.is_empty();
            self.tasks.extend(spawned);
            if self.tasks.is_empty() {
                return;
            }
            while let Poll::Ready(Some(())) = Pin::new(&mut self.tasks).poll_next(cx) {}
            if !fresh {
                return;
            }
        }
    }

    // ---- timers ----

    fn fire_timers(&mut self) {
        let mut fired = std::mem::take(&mut self.fired);
        let now_ms = {
            let mut core = self.shard.core.borrow_mut();
            let now_ms = core.now_ms;
            // One after the other: what is due now must not overtake what was due before.
            if fired.is_empty() {
                core.timers.expire(now_ms, &mut fired);
            }
            now_ms
        };
        let rest = fired.len().saturating_sub(DEADLINES_PER_TURN);
        for (key, tick) in fired.drain(rest..) {
            match key {
                TimerKey::Accept => {
                    self.shard.core.borrow_mut().driver_ops.push(DriverOp::ResumeAccepting);
                }
                TimerKey::Session { slot, generation } => {
                    let id = SessionId { slot, generation };
                    self.shard.core.borrow_mut().session_deadline(id, tick);
                }
                TimerKey::Link { index, generation } => {
                    self.shard.link_deadline(LinkId { index, generation }, tick);
                }
            }
        }
        if rest == 0 {
            // A burst's room is not kept for good.
            fired.shrink_to(DEADLINES_PER_TURN);
        }
        self.fired = fired;
        self.shard.core.borrow_mut().expire_acks();
        let mut core = self.shard.core.borrow_mut();
        if core.over_by_ms.is_some_and(|by_ms| now_ms >= by_ms) {
            core.links.ids().into_iter().for_each(|link| core.drop_link(link));
        }
    }

    // ---- shutdown ----

    fn shut_down(&mut self, within_ms: u64) {
        let mut core = self.shard.core.borrow_mut();
        let by_ms = core.now_ms.saturating_add(within_ms);
        if let Some(before) = core.over_by_ms {
            // A second wish may only hurry.
            core.over_by_ms = Some(before.min(by_ms));
            return;
        }
        tracing::info!(target: "stentor", shard = self.shard.port.index(), "shutting down");
        core.over_by_ms = Some(by_ms);
        core.driver_ops.push(DriverOp::StopAccepting);
        let sessions: Vec<SessionId> = core.sessions.ids().collect();
        let hurried_ms = core.now_ms + core.config.timings.linger;
        for session in sessions {
            core.close_session(session, DisconnectReason::ServerShuttingDown);
            // One that was closed before, in its upgrade, has no more time than the others.
            if let Some(cold) = core.sessions.get_mut(session) {
                cold.upgrade.hurry(hurried_ms);
                core.schedule_session(session);
            }
        }
        // Idle connections have nothing to wait for.
        for link in core.links.ids() {
            let idle = core.links.http(link).is_some_and(|http| {
                matches!(http.phase, HttpPhase::Head) && http.unread.is_empty()
            });
            if idle {
                core.end_link(link);
            }
        }
    }
}

impl Shard {
    /// `counted`: the connection is new to the server, or was counted by the shard it comes from.
    fn accepted(self: &Rc<Self>, link: LinkId, peer: std::net::SocketAddr, counted: bool) {
        if counted {
            self.port.connections.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        }
        let mut core = self.core.borrow_mut();
        let http = HttpLink {
            peer,
            unread: BytesMut::new(),
            phase: HttpPhase::Head,
            reply: Reply::default(),
            paused: false,
        };
        core.links.insert(link, LinkKind::Http(Box::new(http)));
        let until_ms = core.now_ms + self.config.timings.head_timeout;
        core.set_link_deadline(link, until_ms);
        if let Some(entry) = core.links.get_mut(link) {
            entry.counted = counted;
        }
        let full = counted && self.ports.connections() > self.config.limits.connections;
        if full || core.is_draining() {
            tracing::debug!(target: "stentor::link", full, "connection refused");
            if let Some(http) = core.links.http(link) {
                http.reply.connection = crate::protocol::http::Connection::Close;
            }
            core.reply_empty(link, 503);
        }
    }

    fn received(self: &Rc<Self>, link: LinkId, bytes: &mut [u8]) {
        let is_websocket = {
            let mut core = self.core.borrow_mut();
            match core.links.get_mut(link).map(|link| &mut link.kind) {
                Some(LinkKind::WebSocket(_)) => true,
                Some(LinkKind::Http(_)) => false,
                Some(LinkKind::Leaving { bytes: kept, .. }) => {
                    kept.extend_from_slice(bytes);
                    if kept.len() > super::http::UNREAD_BYTES_MAX {
                        core.driver_ops.push(DriverOp::SetReading(link, false));
                    }
                    return;
                }
                Some(LinkKind::Draining | LinkKind::Vacant) | None => return,
            }
        };
        match is_websocket {
            true => self.websocket_received(link, bytes),
            false => self.http_received(link, bytes),
        }
    }

    /// The peer ended its side, or the connection broke.
    fn lost(&self, link: LinkId, failed: bool) {
        let mut core = self.core.borrow_mut();
        let Some(entry) = core.links.get_mut(link) else { return };
        entry.ended = true;
        match &entry.kind {
            LinkKind::WebSocket(_) => {
                drop(core);
                self.websocket_lost(link, failed);
            }
            LinkKind::Http(_) => {
                drop(core);
                self.http_lost(link, failed);
            }
            // The peer may end its side before our last words are out.
            LinkKind::Draining if !failed && !entry.out.is_empty() => {}
            LinkKind::Leaving { .. } if !failed => {}
            _ => core.drop_link(link),
        }
    }

    fn detached(self: &Rc<Self>, link: LinkId, handoff: Handoff) {
        let Some(removed) = self.core.borrow_mut().links.remove(link) else { return };
        let counted = removed.counted.then(|| Counted(self.port.clone()));
        let LinkKind::Leaving { destination, bytes, peer } = removed.kind else { return };
        match destination {
            Destination::Shard(shard) => {
                let Some(port) = self.ports.get(shard) else { return };
                // A connection always finds room.
                let was_counted = counted.is_some();
                // Before the other shard counts it: a move is no second connection.
                drop(counted);
                let counted = was_counted;
                let _ = port.post(Mail::Connection { handoff, bytes, peer, counted });
            }
            Destination::Fallback => {
                let mut tasks = Tasks::new();
                self.app.fallback(Guest { handoff, bytes, peer, counted }, &mut tasks);
                self.adopt(&TaskOf::Guest, tasks);
            }
        }
    }

    fn link_deadline(self: &Rc<Self>, link: LinkId, tick: u64) {
        let mut core = self.core.borrow_mut();
        let now_ms = core.now_ms;
        let Some(entry) = core.links.get_mut(link) else { return };
        if entry.timer_tick != tick {
            return;
        }
        entry.timer_tick = NO_TIMER;
        let at_ms = entry.deadline_ms;
        if at_ms > now_ms {
            core.set_link_deadline(link, at_ms);
            return;
        }
        let ending = entry.after != After::Nothing;
        let LinkKind::Http(http) = &mut entry.kind else {
            core.drop_link(link);
            return;
        };
        match http.phase {
            // It had its last answer and did not take it.
            _ if ending => core.drop_link(link),
            HttpPhase::Head if http.unread.is_empty() => core.drop_link(link),
            HttpPhase::Head => {
                http.reply.connection = crate::protocol::http::Connection::Close;
                core.reply_empty(link, 408);
            }
            HttpPhase::Body { session, .. } => {
                http.phase = HttpPhase::Head;
                http.reply.connection = crate::protocol::http::Connection::Close;
                if let Some(cold) = core.sessions.get_mut(session) {
                    cold.post = None;
                }
                core.reply_empty(link, 408);
            }
            HttpPhase::Deciding(_) | HttpPhase::Polling(_) => {}
        }
    }
}

impl Core {
    fn session_deadline(&mut self, id: SessionId, tick: u64) {
        let now_ms = self.now_ms;
        let timings = &self.config.timings;
        let ping_timeout = timings.ping_timeout;
        let Some(cold) = self.sessions.get_mut(id) else { return };
        if cold.owner.timer_tick != tick {
            return;
        }
        cold.owner.timer_tick = NO_TIMER;
        if let (Some(until_ms), Some(link)) = (cold.upgrade.deadline_ms(), cold.upgrade.link())
            && until_ms <= now_ms
        {
            self.refuse_candidate(id, link.into());
        }
        let Some(cold) = self.sessions.get_mut(id) else { return };
        if let Phase::Closing { until_ms, .. } = cold.phase {
            match until_ms <= now_ms {
                true => self.free_session(id),
                false => self.schedule_session(id),
            }
            return;
        }
        if cold.owner.join_by_ms <= now_ms {
            self.close_session(id, DisconnectReason::ForcedServerClose);
            return;
        }
        match cold.heartbeat.beat(now_ms, ping_timeout) {
            Beat::Later => {}
            Beat::SendPing => self.send_frames(id.slot, fixed::PING, Weight::Control),
            Beat::Timeout => self.close_session(id, DisconnectReason::PingTimeout),
        }
        self.schedule_session(id);
    }

    fn expire_acks(&mut self) {
        while let Some(expired) = self.acks.expire(self.now_ms) {
            match expired {
                Expired::Single(waiter) => {
                    Self::tell(waiter, Err(super::port::NoAnswer::Timeout));
                }
                Expired::Broadcast(finished) => Self::tell_all(finished),
            }
        }
    }
}
