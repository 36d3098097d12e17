//! Outboxes and answers -> one batch of sends.
//!
//! A slice takes up to [`SLICE_SENDS`] sessions off the rings and sends each of them all that it
//! waits for, contiguously, in one send. Whatever arrives for the others before their turn joins
//! theirs. The driver finishes every send within the call, so the bytes are only lent.
//!
//! Who waits for a broadcast stands in one ring (`Core::dirty`), who waits for something of its
//! own in another (`Core::prompt`): an answer is a slice or two away, however many are told news.
//! A session may stand in both. Whichever is looked at first sends all, and takes the marks off;
//! without its mark, a place is passed over. So a ring grows by a place too many only where a
//! place of the other was used up, and each slice uses up as many of both.

use std::io::IoSlice;

use super::core::{Core, DriverOp};
use super::link::After;
use crate::io::{Bytes, Driver, LinkId, SEND_PARTS_MAX, SendOp, Short};
use crate::session::{LinkKey, Log, Outbox, Range, Transport};
use crate::wire::{self, fixed};

/// Sends of one slice: one submission to the kernel. What came in is looked at in between, so a
/// large broadcast never blocks accepts, pongs or acknowledgements.
pub(super) const SLICE_SENDS: usize = 256;

/// Most bytes that one send of gathered ranges carries; what is left waits for the next slice.
const GATHER_BYTES_MAX: usize = 256 * 1024;

/// Ranges this long on average are lent to the kernel where they lie; shorter ones are copied side
/// by side, which costs less than a part of its own.
const PART_BYTES_MIN: usize = 4 * 1024;

/// Most bytes that one slice gathers.
const SLICE_GATHER_BYTES_MAX: usize = 1024 * 1024;

/// Bytes that one send in parts carries, but for a last part that goes beyond; what is left waits
/// for the next slice. And as much for all of a slice: a kernel copies that in some milliseconds.
const PARTS_BYTES_MAX: usize = 1024 * 1024;
const SLICE_PARTS_BYTES_MAX: usize = 16 * PARTS_BYTES_MAX;

/// Shared chunks of 256 KiB that slow sessions may pin before their bytes are copied out: a client
/// that is late by some milliseconds is not worth a copy.
const PINNED_CHUNKS_MAX: u64 = 16;

/// Where the bytes of one send lie.
#[derive(Debug, Clone, Copy)]
enum Source {
    /// One range of the log.
    Log(Range),
    /// Several ranges, copied side by side: `start..end` of the scratch buffer.
    Scratch { start: usize, end: usize },
    /// The outbox's first ranges, too large to be copied.
    Parts { count: usize, bytes: usize },
    /// The link's own bytes.
    Link,
    /// Was short, and has been seen to.
    Done,
}

#[derive(Debug, Clone, Copy)]
struct Planned {
    link: LinkId,
    /// The session, or `u32::MAX` for the link's own bytes.
    session: u32,
    source: Source,
}

/// Buffers that keep their capacity between slices.
#[derive(Debug, Default)]
pub(super) struct Flush {
    planned: Vec<Planned>,
    scratch: Vec<u8>,
    /// Bytes of the slice's sends in parts.
    lent: usize,
    short: Vec<Short>,
}

impl Flush {
    /// Sends one slice. Neither answers nor sessions may keep the others waiting: each has half
    /// of the slice while the others have something, and what was looked at counts, sent or not.
    pub(super) fn slice(&mut self, core: &mut Core, driver: &mut impl Driver) {
        self.planned.clear();
        self.scratch.clear();
        self.lent = 0;
        let idle = core.dirty.is_empty() && core.prompt.is_empty();
        let links = if idle { SLICE_SENDS } else { SLICE_SENDS / 2 };
        let mut looked_at = 0;
        while looked_at < links {
            let Some(link) = core.outgoing.pop_front() else { break };
            self.plan_link(core, link);
            looked_at += 1;
        }
        let rest = SLICE_SENDS - looked_at;
        let (prompt, gather_bytes_max) = match core.dirty.is_empty() {
            true => (SLICE_SENDS, SLICE_GATHER_BYTES_MAX),
            false => (looked_at + rest / 2, SLICE_GATHER_BYTES_MAX / 2),
        };
        while looked_at < prompt && self.scratch.len() < gather_bytes_max && self.lends() {
            let Some(session) = core.prompt.pop_front() else { break };
            if core.sessions.hot[session as usize].prompt {
                self.plan_session(core, session);
            }
            looked_at += 1;
        }
        while looked_at < SLICE_SENDS && self.scratch.len() < SLICE_GATHER_BYTES_MAX && self.lends()
        {
            let Some(session) = core.dirty.pop_front() else { break };
            if core.sessions.hot[session as usize].dirty {
                self.plan_session(core, session);
            }
            looked_at += 1;
        }
        if !self.planned.is_empty() {
            self.send(core, driver);
            self.settle(core);
        }
        core.copy_out_stalled();
    }

    /// Whether the slice may lend the kernel more parts.
    const fn lends(&self) -> bool {
        self.lent < SLICE_PARTS_BYTES_MAX
    }

    fn plan_link(&mut self, core: &mut Core, link: LinkId) {
        let Some(entry) = core.links.get_mut(link) else { return };
        entry.queued = false;
        if entry.blocked {
            return;
        }
        if entry.out.is_empty() {
            core.after_out(link);
        } else {
            self.planned.push(Planned { link, session: u32::MAX, source: Source::Link });
        }
    }

    fn plan_session(&mut self, core: &mut Core, session: u32) {
        let hot = &mut core.sessions.hot[session as usize];
        (hot.dirty, hot.prompt) = (false, false);
        if hot.transport == Transport::Polling {
            core.flush_poll(session);
            return;
        }
        if hot.outbox.is_empty() {
            return;
        }
        let link = match hot.link {
            Some(link) if !hot.blocked => LinkId::from(link),
            _ => {
                core.stall(session);
                return;
            }
        };
        let source = match hot.outbox.single() {
            Some(range) => Source::Log(range),
            None => self.gather(core, session),
        };
        // What the link itself still owes goes first.
        match core.links.get(link) {
            Some(entry) if entry.out.is_empty() => {
                self.planned.push(Planned { link, session, source });
            }
            Some(_) => core.stall(session),
            None => {}
        }
    }

    fn gather(&mut self, core: &Core, session: u32) -> Source {
        let outbox = &core.sessions.hot[session as usize].outbox;
        let (mut count, mut bytes) = (0, 0);
        for range in outbox.ranges().take(SEND_PARTS_MAX) {
            if bytes >= PARTS_BYTES_MAX {
                break;
            }
            count += 1;
            bytes += range.len() as usize;
        }
        if bytes >= count * PART_BYTES_MIN {
            self.lent += bytes;
            return Source::Parts { count, bytes };
        }
        let start = self.scratch.len();
        for range in outbox.ranges() {
            if self.scratch.len() - start + range.len() as usize > GATHER_BYTES_MAX {
                break;
            }
            self.scratch.extend_from_slice(core.log.bytes(range));
        }
        Source::Scratch { start, end: self.scratch.len() }
    }

    fn send(&mut self, core: &mut Core, driver: &mut impl Driver) {
        self.short.clear();
        let mut parts: Vec<IoSlice<'_>> = Vec::new();
        let in_parts = if self.lent > 0 { &self.planned[..] } else { &[] };
        for planned in in_parts {
            if let Source::Parts { count, .. } = planned.source {
                let ranges = core.sessions.hot[planned.session as usize].outbox.ranges();
                parts.extend(ranges.take(count).map(|range| IoSlice::new(core.log.bytes(range))));
            }
        }
        let mut parts = &parts[..];
        let mut batch = Vec::with_capacity(self.planned.len());
        for planned in &self.planned {
            let bytes = match planned.source {
                Source::Log(range) => Bytes::One(core.log.bytes(range)),
                Source::Scratch { start, end } => Bytes::One(&self.scratch[start..end]),
                Source::Parts { count, .. } => {
                    let (these, others) = parts.split_at(count);
                    parts = others;
                    Bytes::Parts(these)
                }
                Source::Link => {
                    Bytes::One(core.links.get(planned.link).map_or(&[][..], |entry| &entry.out))
                }
                Source::Done => Bytes::One(&[]),
            };
            batch.push(SendOp { link: planned.link, bytes });
        }
        core.counters.sends += batch.len() as u64;
        driver.send(&batch, &mut self.short);
    }

    /// Takes note of what was sent.
    fn settle(&mut self, core: &mut Core) {
        for index in 0..self.short.len() {
            let op = self.short[index].op;
            let planned = self.planned[op];
            self.planned[op].source = Source::Done;
            let (sent, broken) = (self.short[index].sent, self.short[index].error.is_some());
            Self::settle_short(core, planned, sent, broken);
        }
        for planned in &self.planned {
            match planned.source {
                Source::Done => {}
                Source::Link => {
                    if let Some(entry) = core.links.get_mut(planned.link) {
                        entry.out = Vec::new();
                        core.after_out(planned.link);
                    }
                }
                Source::Log(_) | Source::Scratch { .. } | Source::Parts { .. } => {
                    let Core { sessions, log, .. } = core;
                    let outbox = &mut sessions.hot[planned.session as usize].outbox;
                    let sent = planned.source.len();
                    if sent == outbox.len() {
                        outbox.clear(log);
                    } else {
                        outbox.advance(log, sent, 0);
                        core.mark_dirty(planned.session);
                    }
                }
            }
        }
    }

    fn settle_short(core: &mut Core, planned: Planned, sent: usize, broken: bool) {
        if let Some(entry) = core.links.get_mut(planned.link) {
            entry.blocked = true;
            if matches!(planned.source, Source::Link) {
                entry.out.drain(..sent);
                if sent > 0 && entry.after == After::Close {
                    // It reads, if slowly: what it was promised is still delivered.
                    core.end_link(planned.link);
                }
            }
        }
        if !matches!(planned.source, Source::Link) {
            let Core { sessions, log, .. } = core;
            let hot = &mut sessions.hot[planned.session as usize];
            hot.blocked = true;
            let pinned = rest_of_cut(&hot.outbox, log, sent);
            hot.outbox.advance(log, sent, pinned);
            core.stall(planned.session);
        }
        if broken {
            core.broken.push(planned.link);
        }
    }
}

/// When `sent` bytes of an outbox have left: how many of the frame that was cut have not.
fn rest_of_cut(outbox: &Outbox, log: &Log, mut sent: usize) -> usize {
    let mut pinned = outbox.pinned();
    // A range holds whole frames but for what is pinned, and an event with all its attachments.
    for range in outbox.ranges() {
        let len = range.len() as usize;
        if sent <= pinned {
            break;
        }
        if sent <= len {
            return wire::pinned_after(log.bytes(range), pinned, sent);
        }
        sent -= len;
        pinned = pinned.saturating_sub(len);
    }
    pinned.saturating_sub(sent)
}

impl Source {
    fn len(self) -> usize {
        match self {
            Self::Log(range) => range.len() as usize,
            Self::Scratch { start, end } => end - start,
            Self::Parts { bytes, .. } => bytes,
            Self::Link | Self::Done => 0,
        }
    }
}

impl Core {
    /// The link has nothing more of its own to say.
    fn after_out(&mut self, link: LinkId) {
        let Some(entry) = self.links.get_mut(link) else { return };
        match entry.after {
            After::Nothing => {
                self.resumed.push(link);
                let session = self.links.websocket(link).map(|websocket| websocket.session);
                // A session that waited for the link's own bytes goes on.
                if let Some(session) = session
                    && self.sessions.get(session).is_some()
                    && self.sessions.hot[session.slot as usize].stalled
                {
                    self.mark_dirty(session.slot);
                }
            }
            After::Close if entry.ended => self.drop_link(link),
            After::Close => {
                entry.kind = super::link::LinkKind::Draining;
                entry.after = After::Nothing;
                self.driver_ops.push(DriverOp::ShutdownWrite(link));
                // All is said; from here on the peer's end is waited for.
                let until_ms = self.now_ms + self.config.timings.linger;
                self.set_link_deadline(link, until_ms);
            }
            After::Detach(_) => {
                entry.after = After::Nothing;
                entry.deadline_ms = u64::MAX;
                self.driver_ops.push(DriverOp::Detach(link));
            }
        }
    }

    /// A polling session with news, or one that must let go of its poll.
    fn flush_poll(&mut self, session: u32) {
        let hot = &self.sessions.hot[session as usize];
        let Some(link) = hot.link.map(LinkId::from) else {
            if !hot.outbox.is_empty() {
                self.stall(session);
            }
            return;
        };
        let probed = self.sessions.at(session).is_some_and(|cold| cold.upgrade.is_probed());
        if hot.outbox.is_empty() {
            if probed {
                self.sessions.hot[session as usize].link = None;
                self.answer_poll(link, fixed::body::NOOP);
            }
            return;
        }
        let mut body = Vec::with_capacity(hot.outbox.len());
        self.take_payload(session, &mut body);
        self.sessions.hot[session as usize].link = None;
        self.answer_poll(link, &body);
    }

    /// The session's outbox cannot drain now.
    fn stall(&mut self, session: u32) {
        let hot = &mut self.sessions.hot[session as usize];
        if !hot.stalled {
            hot.stalled = true;
            self.stalled.push(session);
        }
    }

    /// When shared chunks have filled up, those who do not drain take their bytes out of them.
    fn copy_out_stalled(&mut self) {
        if self.log.rotations() < self.copied_at + PINNED_CHUNKS_MAX {
            return;
        }
        self.copied_at = self.log.rotations();
        let Self { stalled, sessions, log, .. } = self;
        stalled.retain(|&session| {
            let hot = &mut sessions.hot[session as usize];
            hot.stalled = !hot.outbox.is_empty();
            if hot.stalled {
                hot.outbox.copy_out(log);
            }
            hot.stalled
        });
    }

    /// The link takes bytes again.
    pub(super) fn writable(&mut self, link: LinkId) {
        let Some(entry) = self.links.get_mut(link) else { return };
        entry.blocked = false;
        let session = match &entry.kind {
            super::link::LinkKind::WebSocket(websocket) if !websocket.candidate => {
                Some(websocket.session)
            }
            _ => None,
        };
        if !entry.out.is_empty() || entry.after != After::Nothing {
            self.queue_link(link);
        }
        if let Some(session) = session
            && self.sessions.get(session).is_some()
        {
            let hot = &mut self.sessions.hot[session.slot as usize];
            if hot.link == Some(LinkKey::from(link)) {
                hot.blocked = false;
                if !hot.outbox.is_empty() {
                    self.mark_dirty(session.slot);
                }
            }
        }
    }
}
