//! Bytes of a WebSocket link -> messages -> packets.

use std::rc::Rc;

use super::Shard;
use super::core::Weight;
use super::link::{LinkKind, Reader};
use crate::io::LinkId;
use crate::protocol::engine_io::{PacketType, decode_mut};
use crate::protocol::websocket::{CloseCode, Event, Opcode, ProtocolError, push_head, wanted};
use crate::session::{DisconnectReason, Phase, Probe, SessionId, Transport};
use crate::wire;

/// What follows a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Next {
    /// The next message of the same bytes.
    Message,
    /// The link or its session is over: the rest of the bytes is nobody's.
    Stop,
}

impl Shard {
    /// Reads the frames of `bytes`. Whole frames are handled where they lie; only the beginning of
    /// one whose rest has not come is copied.
    pub(super) fn websocket_received(self: &Rc<Self>, link: LinkId, bytes: &mut [u8]) {
        let Some(mut reader) = self.take_reader(link) else { return };
        let max = self.config.limits.message_bytes;
        let mut at = 0;
        if reader.unread.is_empty() {
            self.read_messages(link, &mut reader, bytes, &mut at);
            let rest = &bytes[at..];
            if !rest.is_empty() {
                reader.unread.reserve_exact(wanted(rest, max).max(rest.len()));
                reader.unread.extend_from_slice(rest);
            }
        } else {
            let mut joined = std::mem::take(&mut reader.unread);
            joined.extend_from_slice(bytes);
            self.read_messages(link, &mut reader, &mut joined, &mut at);
            joined.drain(..at);
            if joined.is_empty() {
                joined = Vec::new();
            }
            reader.unread = joined;
        }
        if let Some(websocket) = self.core.borrow_mut().links.websocket(link) {
            websocket.reader = reader;
        }
    }

    fn take_reader(&self, link: LinkId) -> Option<Reader> {
        let mut core = self.core.borrow_mut();
        core.links.websocket(link).map(|websocket| std::mem::take(&mut websocket.reader))
    }

    fn read_messages(
        self: &Rc<Self>,
        link: LinkId,
        reader: &mut Reader,
        bytes: &mut [u8],
        at: &mut usize,
    ) {
        let max = self.config.limits.message_bytes;
        loop {
            let next = match reader.decoder.next(bytes, at, max) {
                Ok(None) => return,
                Ok(Some(event)) => self.websocket_event(link, event),
                Err(error) => {
                    self.websocket_failed(link, error);
                    Next::Stop
                }
            };
            // What a packet caused is heard before the next packet, however the bytes were cut.
            if !self.core.borrow().notices.is_empty() {
                self.run_notices();
            }
            if next == Next::Stop {
                *at = bytes.len();
                return;
            }
        }
    }

    fn websocket_event(self: &Rc<Self>, link: LinkId, event: Event<'_>) -> Next {
        let (session, candidate) = {
            let mut core = self.core.borrow_mut();
            let Some(websocket) = core.links.websocket(link) else { return Next::Stop };
            (websocket.session, websocket.candidate)
        };
        match event {
            Event::Text(text) if candidate => self.candidate_packet(link, session, text),
            Event::Binary(_) if candidate => self.candidate_packet(link, session, b"binary"),
            Event::Text(text) => self.engine_text(session, text),
            Event::Binary(bytes) => self.engine_binary(session, bytes),
            Event::Ping(payload) => self.websocket_pong(link, session, candidate, payload),
            Event::Pong(_) => {}
            Event::Close(frame) => {
                let code = frame.map_or(CloseCode::NORMAL, |frame| frame.code);
                self.websocket_closed(link, session, candidate, code);
                return Next::Stop;
            }
        }
        match self.core.borrow().links.get(link).map(|link| &link.kind) {
            Some(LinkKind::WebSocket(_)) => Next::Message,
            _ => Next::Stop,
        }
    }

    /// One text message of a session: one Engine.IO packet.
    fn engine_text(self: &Rc<Self>, session: SessionId, text: &mut [u8]) {
        match decode_mut(text) {
            Ok((kind, data)) => self.engine_packet(session, kind, data),
            Err(_) => self.close(session, DisconnectReason::ParseError),
        }
    }

    /// One Engine.IO packet, whichever transport brought it.
    pub(super) fn engine_packet(
        self: &Rc<Self>,
        session: SessionId,
        kind: PacketType,
        data: &mut [u8],
    ) {
        if self.core.borrow_mut().sessions.get_open(session).is_none() {
            return;
        }
        match kind {
            PacketType::Message => self.message(session, data),
            PacketType::Pong => {
                let mut core = self.core.borrow_mut();
                let now_ms = core.now_ms;
                if let Some(cold) = core.sessions.get_mut(session) {
                    cold.heartbeat.pong(now_ms, self.config.timings.ping_interval);
                }
                core.schedule_session(session);
            }
            PacketType::Close => self.close(session, DisconnectReason::TransportClose),
            // In Engine.IO 4 only the server pings.
            PacketType::Ping => self.close(session, DisconnectReason::TransportError),
            PacketType::Open | PacketType::Upgrade | PacketType::Noop => {}
        }
    }

    pub(super) fn close(&self, session: SessionId, reason: DisconnectReason) {
        self.core.borrow_mut().close_session(session, reason);
    }

    /// A packet of a link that probes an upgrade.
    fn candidate_packet(self: &Rc<Self>, link: LinkId, session: SessionId, packet: &[u8]) {
        let mut core = self.core.borrow_mut();
        let Some(cold) = core.sessions.get_mut(session) else {
            core.close_websocket(link, CloseCode::NORMAL, Vec::new());
            return;
        };
        let phase = cold.phase;
        match (cold.upgrade.packet(packet), phase) {
            (Probe::Answer, _) => {
                if let Some(entry) = core.links.get_mut(link) {
                    entry.out.extend_from_slice(wire::fixed::PROBE_PONG);
                }
                core.queue_link(link);
                // The client pauses polling and waits for the open poll to end.
                core.mark_prompt(session.slot);
            }
            (Probe::Complete, Phase::Closing { reason, .. }) => {
                core.close_over_candidate(session, link, reason);
            }
            (Probe::Complete, Phase::Open) => {
                if let Some(websocket) = core.links.websocket(link) {
                    websocket.candidate = false;
                }
                let poll = core.sessions.hot[session.slot as usize].link.replace(link.into());
                if let Some(poll) = poll {
                    core.answer_poll(poll.into(), wire::fixed::body::NOOP);
                }
                let blocked = core.links.get(link).is_some_and(|link| link.blocked);
                let hot = &mut core.sessions.hot[session.slot as usize];
                hot.transport = Transport::WebSocket;
                hot.blocked = blocked;
                if !hot.outbox.is_empty() {
                    core.mark_prompt(session.slot);
                }
                tracing::trace!(target: "stentor::session", slot = session.slot, "upgraded");
            }
            (Probe::Refuse, _) => core.close_websocket(link, CloseCode::NORMAL, Vec::new()),
        }
    }

    fn websocket_pong(&self, link: LinkId, session: SessionId, candidate: bool, payload: &[u8]) {
        let mut frame = Vec::with_capacity(payload.len() + 2);
        push_head(&mut frame, true, Opcode::Pong, payload.len());
        frame.extend_from_slice(payload);
        let mut core = self.core.borrow_mut();
        if !candidate {
            core.send_frames(session.slot, &frame, Weight::Control);
        } else if let Some(entry) = core.links.get_mut(link) {
            // A candidate owes little; one that only pings is not worth keeping.
            if entry.out.len() > super::http::UNREAD_BYTES_MAX {
                core.refuse_candidate(session, link);
                return;
            }
            entry.out.extend_from_slice(&frame);
            core.queue_link(link);
        }
    }

    /// The peer broke RFC 6455: this connection ends with the right code, and nothing else does.
    fn websocket_failed(&self, link: LinkId, error: ProtocolError) {
        tracing::debug!(target: "stentor::link", %error, "WebSocket protocol error");
        let mut core = self.core.borrow_mut();
        let Some(websocket) = core.links.websocket(link) else { return };
        let (session, candidate) = (websocket.session, websocket.candidate);
        if candidate {
            core.close_websocket(link, error.close_code(), Vec::new());
            core.forget_candidate(session, link);
            return;
        }
        let reason = match error.close_code() {
            CloseCode::TOO_BIG => DisconnectReason::LimitMessageSize,
            _ => DisconnectReason::TransportError,
        };
        core.part(session, link, error.close_code(), reason);
    }

    fn websocket_closed(&self, link: LinkId, session: SessionId, candidate: bool, code: CloseCode) {
        let mut core = self.core.borrow_mut();
        if candidate {
            core.close_websocket(link, code, Vec::new());
            core.forget_candidate(session, link);
            return;
        }
        core.part(session, link, code, DisconnectReason::TransportClose);
    }

    /// The link broke or ended without a close frame.
    pub(super) fn websocket_lost(&self, link: LinkId, failed: bool) {
        let mut core = self.core.borrow_mut();
        let Some(websocket) = core.links.websocket(link) else { return };
        let (session, candidate) = (websocket.session, websocket.candidate);
        core.drop_link(link);
        if candidate {
            core.forget_candidate(session, link);
            return;
        }
        core.sessions.hot[session.slot as usize].link = None;
        let reason = match failed {
            true => DisconnectReason::TransportError,
            false => DisconnectReason::TransportClose,
        };
        core.close_session(session, reason);
    }
}

impl super::core::Core {
    /// Ends a session whose link is to end with `code`. A peer that says goodbye first gets what
    /// was queued for it; one that broke the rules gets the rest of what was begun, for a close
    /// frame in the middle of another frame (or of the response head) would be none.
    fn part(&mut self, session: SessionId, link: LinkId, code: CloseCode, why: DisconnectReason) {
        let hot = &mut self.sessions.hot[session.slot as usize];
        hot.link = None;
        let mut unsaid = hot.outbox.to_vec(&self.log);
        if why != DisconnectReason::TransportClose {
            unsaid.truncate(hot.outbox.pinned());
        }
        self.close_websocket(link, code, unsaid);
        self.close_session(session, why);
    }

    /// The session no longer probes over `link`.
    pub(super) fn forget_candidate(&mut self, session: SessionId, link: LinkId) {
        if let Some(cold) = self.sessions.get_mut(session)
            && cold.upgrade.link() == Some(link.into())
        {
            cold.upgrade = Default::default();
        }
    }

    /// Closes a candidate; its session goes on over polling.
    pub(super) fn refuse_candidate(&mut self, session: SessionId, link: LinkId) {
        self.forget_candidate(session, link);
        self.close_websocket(link, CloseCode::NORMAL, Vec::new());
    }
}
