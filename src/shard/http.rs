//! HTTP requests on a link: which is whose, and the long-polling transport.
//!
//! Requests of one link are served one after the other; what comes behind one in work stays
//! unread, within a bound. The order of the checks and the exact answers are the reference's.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::{Buf, BytesMut};
use smallvec::SmallVec;

use super::Shard;
use super::app::Tasks;
use super::core::{Client, Core, DriverOp, NO_TIMER, Owner, Weight};
use super::link::{After, Destination, HttpPhase, LinkKind, Opening, Reader, Reply, WebSocketLink};
use super::port::EngineCell;
use super::request::Request;
use super::tasks::{Pending, TaskOf};
use crate::DisconnectReason;
use crate::io::LinkId;
use crate::protocol::engine_io::{Open, PayloadPacket, RequestError, split};
use crate::protocol::http::{
    self, BodyKind, BodyReader, Connection, CorsRequest, HEADERS_MAX, Head, HeadLimits, Method,
    negotiate, parse_head, write_continue, write_error_json, write_upgrade_error,
};
use crate::protocol::socket_io::Assembler;
use crate::protocol::websocket::{self, HandshakeError};
use crate::session::{Cold, Heartbeat, Phase, SessionId, Sid, Transport, Upgrade};
use crate::wire::{Encoder, fixed};

/// What a link may leave unread, or owe in answers, before its requests wait.
pub(super) const UNREAD_BYTES_MAX: usize = 64 * 1024;

/// What follows a step of a link.
enum Next {
    /// There may be another request.
    Again,
    /// Nothing to do until something happens.
    Wait,
    /// The link speaks WebSocket now; these bytes came behind the request.
    Switched(Vec<u8>),
}

/// What a request for an Engine.IO path wants.
enum Wanted {
    Session,
    Candidate(SessionId),
    Poll(SessionId),
    Post(SessionId),
    /// The session lives on another shard.
    Elsewhere(u16),
    /// No method of the polling transport.
    UnknownMethod,
}

impl Shard {
    pub(super) fn http_received(self: &Rc<Self>, link: LinkId, bytes: &[u8]) {
        {
            let mut core = self.core.borrow_mut();
            let Some(entry) = core.links.get_mut(link) else { return };
            let ending = entry.after != After::Nothing;
            let LinkKind::Http(http) = &mut entry.kind else { return };
            if ending {
                // The last answer is on its way; nothing more will be served here.
                return;
            }
            let began = http.unread.is_empty() && matches!(http.phase, HttpPhase::Head);
            http.unread.extend_from_slice(bytes);
            let waits = !matches!(http.phase, HttpPhase::Body { .. });
            // A head that is let in must not stop halfway.
            let unread_max = UNREAD_BYTES_MAX.max(self.config.limits.head_bytes);
            if waits && http.unread.len() > unread_max && !http.paused {
                http.paused = true;
                core.driver_ops.push(DriverOp::SetReading(link, false));
            }
            if began {
                let until_ms = core.now_ms + self.config.timings.head_timeout;
                core.set_link_deadline(link, until_ms);
            }
        }
        self.http_process(link);
    }

    /// Serves what is unread, as far as it goes.
    pub(super) fn http_process(self: &Rc<Self>, link: LinkId) {
        loop {
            match self.http_step(link) {
                Next::Again => {}
                Next::Wait => break,
                Next::Switched(mut unread) => {
                    if !unread.is_empty() {
                        self.websocket_received(link, &mut unread);
                    }
                    return;
                }
            }
        }
        let mut core = self.core.borrow_mut();
        if let Some(http) = core.links.http(link)
            && http.unread.is_empty()
        {
            // A link between its requests keeps no buffer.
            http.unread = BytesMut::new();
        }
        if let Some(http) = core.links.http(link)
            && http.paused
            && http.unread.len() <= UNREAD_BYTES_MAX.max(self.config.limits.head_bytes)
        {
            http.paused = false;
            core.driver_ops.push(DriverOp::SetReading(link, true));
        }
    }

    fn http_step(self: &Rc<Self>, link: LinkId) -> Next {
        let limits =
            HeadLimits { bytes_max: self.config.limits.head_bytes, headers_max: HEADERS_MAX };
        let head = {
            let mut core = self.core.borrow_mut();
            let Some(entry) = core.links.get_mut(link) else { return Next::Wait };
            if entry.after != After::Nothing || entry.out.len() > UNREAD_BYTES_MAX {
                return Next::Wait;
            }
            let LinkKind::Http(http) = &mut entry.kind else { return Next::Wait };
            match http.phase {
                HttpPhase::Deciding(_) | HttpPhase::Polling(_) => return Next::Wait,
                HttpPhase::Body { .. } => {
                    drop(core);
                    return self.read_body(link);
                }
                HttpPhase::Head if http.unread.is_empty() => return Next::Wait,
                HttpPhase::Head => {
                    let len = parse_head(&http.unread, &limits).map(|head| head.map(|it| it.len));
                    match len {
                        Ok(None) => return Next::Wait,
                        // Cut off, not copied: many requests may stand behind it.
                        Ok(Some(len)) => http.unread.split_to(len),
                        Err(error) => {
                            tracing::debug!(target: "stentor::link", %error, "bad request head");
                            http.reply =
                                Reply { connection: Connection::Close, ..Reply::default() };
                            core.reply_empty(link, error.status());
                            return Next::Wait;
                        }
                    }
                }
            }
        };
        match parse_head(&head, &limits) {
            Ok(Some(parsed)) => self.route(link, &parsed, &head),
            _ => {
                debug_assert!(false, "a head that was parsed once is one");
                Next::Wait
            }
        }
    }

    /// Decides whose request this is. `bytes` is its head.
    fn route(self: &Rc<Self>, link: LinkId, head: &Head<'_>, bytes: &[u8]) -> Next {
        let endpoint = self.endpoint_of(head.path);
        if endpoint.is_none() && self.config.fallback {
            self.leave(link, Destination::Fallback, bytes);
            return Next::Wait;
        }
        let body = head.body();
        {
            let mut core = self.core.borrow_mut();
            let Some(http) = core.links.http(link) else { return Next::Wait };
            // A body that nobody will read would be taken for the next request.
            let unwanted = head.method != Method::Post && body != Ok(BodyKind::None);
            http.reply = Reply {
                connection: if unwanted { Connection::Close } else { head.connection() },
                head_only: head.method == Method::Head,
                ..Reply::default()
            };
            core.set_link_deadline(link, u64::MAX);
        }
        let body = match body {
            Ok(body) => body,
            Err(error) => {
                self.close_after_reply(link);
                self.core.borrow_mut().reply_empty(link, error.status());
                return Next::Wait;
            }
        };
        if endpoint.is_some() && self.prepare_reply(link, head) {
            return Next::Again;
        }
        if endpoint == Some(None) && self.serve_client_file(link, head) {
            return Next::Again;
        }
        match endpoint {
            None => {
                self.core.borrow_mut().reply_empty(link, 404);
                if body != BodyKind::None {
                    self.close_after_reply(link);
                    self.core.borrow_mut().end_link(link);
                }
                Next::Again
            }
            Some(endpoint) => self.engine_request(link, head, endpoint, body, bytes),
        }
    }

    /// The endpoint that serves a path: `Some(None)` is Socket.IO. The longest path wins.
    fn endpoint_of(&self, path: &str) -> Option<Option<u16>> {
        let config = &self.config;
        let socket_io = (&*config.path, None);
        let raw = config.engine_paths.iter().enumerate();
        std::iter::once(socket_io)
            .chain(raw.map(|(index, prefix)| (&**prefix, Some(index as u16))))
            .filter(|(prefix, _)| path.starts_with(prefix))
            .max_by_key(|(prefix, _)| prefix.len())
            .map(|(_, endpoint)| endpoint)
    }

    fn engine_request(
        self: &Rc<Self>,
        link: LinkId,
        head: &Head<'_>,
        endpoint: Option<u16>,
        body: BodyKind,
        bytes: &[u8],
    ) -> Next {
        let upgrade = head.is_upgrade("websocket");
        match self.classify(head, endpoint, upgrade) {
            Err(error) => {
                self.reply_error(link, &error, upgrade, body != BodyKind::None);
                Next::Again
            }
            Ok(Wanted::Elsewhere(shard)) => {
                self.leave(link, Destination::Shard(shard), bytes);
                Next::Wait
            }
            Ok(Wanted::UnknownMethod) => {
                self.core.borrow_mut().reply_empty(link, 500);
                Next::Again
            }
            Ok(Wanted::Session) => {
                let peer = self.peer_of(link);
                let Some(peer) = peer else { return Next::Wait };
                let request = Arc::new(Request::new(&bytes[..head.len], peer));
                let opening = Opening { link, request, endpoint, websocket: upgrade };
                self.decide(opening)
            }
            Ok(Wanted::Candidate(session)) => self.open_candidate(link, head, session),
            Ok(Wanted::Poll(session)) => {
                self.core.borrow_mut().poll(link, session);
                Next::Again
            }
            Ok(Wanted::Post(session)) => self.begin_post(link, head, session, body),
        }
    }

    /// Notes what every answer of this request carries. `true`: it was a preflight, answered.
    fn prepare_reply(&self, link: LinkId, head: &Head<'_>) -> bool {
        // The user's predicate may be among the rules: no table is borrowed, and a panic of it
        // allows nothing.
        let rules = self.config.cors.as_ref();
        let fields: Option<Vec<(String, String)>> = rules.map(|cors| {
            let fields = || cors.headers(&CorsRequest::from_head(head)).to_vec();
            let fields = catch_unwind(AssertUnwindSafe(fields)).unwrap_or_else(|_| {
                tracing::error!(target: "stentor::handler", what = "a CORS predicate", "panicked");
                Vec::new()
            });
            fields.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect()
        });
        let mut core = self.core.borrow_mut();
        let Some(http) = core.links.http(link) else { return true };
        if self.config.compression.is_some() {
            http.reply.encoding = head.header("accept-encoding").and_then(negotiate);
        }
        let Some(fields) = fields else { return false };
        http.reply.headers = fields;
        if head.method != Method::Options {
            return false;
        }
        core.reply_empty(link, 204);
        true
    }

    fn classify(
        &self,
        head: &Head<'_>,
        endpoint: Option<u16>,
        upgrade: bool,
    ) -> Result<Wanted, RequestError> {
        let websocket = match head.query.get("transport").as_deref() {
            Some("polling") if self.config.polling => false,
            Some("websocket") if self.config.websocket => true,
            _ => return Err(RequestError::UnknownTransport),
        };
        let Some(sid) = head.query.get("sid").filter(|sid| !sid.is_empty()) else {
            if head.method != Method::Get {
                return Err(RequestError::BadHandshakeMethod);
            }
            if websocket != upgrade || self.core.borrow().is_draining() {
                return Err(RequestError::BadRequest);
            }
            return Ok(Wanted::Session);
        };
        let session = match self.locate(&sid).ok_or(RequestError::UnknownSid)? {
            (shard, None) if shard != self.port.index() => return Ok(Wanted::Elsewhere(shard)),
            (_, session) => session.ok_or(RequestError::UnknownSid)?,
        };
        let core = self.core.borrow();
        let cold = core.sessions.get(session).ok_or(RequestError::UnknownSid)?;
        let served_by = match &cold.owner.owner {
            Owner::SocketIo => None,
            Owner::Engine { endpoint, .. } => Some(*endpoint),
        };
        // A session that is over only has its last poll to answer.
        let over = cold.phase != Phase::Open && (upgrade || head.method != Method::Get);
        if served_by != endpoint || over {
            return Err(RequestError::UnknownSid);
        }
        if upgrade {
            return if websocket {
                Ok(Wanted::Candidate(session))
            } else {
                Err(RequestError::BadRequest)
            };
        }
        let current = core.sessions.hot[session.slot as usize].transport;
        if websocket || current != Transport::Polling {
            return Err(RequestError::BadRequest);
        }
        Ok(match head.method {
            Method::Get => Wanted::Poll(session),
            Method::Post => Wanted::Post(session),
            _ => Wanted::UnknownMethod,
        })
    }

    fn peer_of(&self, link: LinkId) -> Option<std::net::SocketAddr> {
        self.core.borrow_mut().links.http(link).map(|http| http.peer)
    }

    /// The answer will be the link's last.
    pub(super) fn close_after_reply(&self, link: LinkId) {
        if let Some(http) = self.core.borrow_mut().links.http(link) {
            http.reply.connection = Connection::Close;
        }
    }

    fn reply_error(&self, link: LinkId, error: &RequestError, upgrade: bool, has_body: bool) {
        let (code, message) = (error.code(), error.message());
        tracing::debug!(target: "stentor::session", code, message, "request refused");
        let mut core = self.core.borrow_mut();
        if upgrade {
            if let Some(entry) = core.links.get_mut(link) {
                write_upgrade_error(&mut entry.out, error.message());
            }
            core.end_link(link);
            return;
        }
        if has_body && let Some(http) = core.links.http(link) {
            http.reply.connection = Connection::Close;
        }
        let mut body = Vec::new();
        write_error_json(&mut body, error.code(), error.message());
        core.reply(link, error.status(), Some("application/json"), &body);
    }

    // ---- opening a session ----

    fn decide(self: &Rc<Self>, opening: Opening) -> Next {
        let pending = Rc::<Pending>::default();
        if let Some(http) = self.core.borrow_mut().links.http(opening.link) {
            http.phase = HttpPhase::Deciding(pending.clone());
        }
        let step = self.app.allow_request(&opening.request);
        let link = opening.link;
        let busy = || Err("the server is busy".to_owned());
        self.finish(TaskOf::Request(pending), step, busy, move |shard, verdict| {
            let next = shard.open(&opening, verdict);
            if let Next::Switched(mut unread) = next {
                shard.websocket_received(opening.link, &mut unread);
            }
            shard.core.borrow_mut().resumed.push(opening.link);
        });
        match self.core.borrow_mut().links.http(link) {
            Some(http) if matches!(http.phase, HttpPhase::Head) => Next::Again,
            _ => Next::Wait,
        }
    }

    /// Opens the session that a request asked for.
    fn open(self: &Rc<Self>, opening: &Opening, verdict: Result<(), String>) -> Next {
        let link = opening.link;
        let http_is_there = {
            let mut core = self.core.borrow_mut();
            let wanted = !core.is_draining()
                && core.links.get(link).is_some_and(|link| link.after == After::Nothing);
            // The peer may have left, and the server begun to, while this was decided.
            let verdict = core.links.http(link).map(|http| http.phase = HttpPhase::Head);
            if verdict.is_some() && !wanted {
                core.end_link(link);
            }
            verdict.is_some() && wanted
        };
        let (true, Some(head)) = (http_is_there, opening.request.head()) else { return Next::Wait };
        let checked = match verdict {
            Err(message) => {
                let message = (!message.is_empty()).then_some(message);
                Err(RequestError::Forbidden(message))
            }
            // Version 3 is spoken by clients of Socket.IO 1 and 2.
            Ok(()) if head.query.get("EIO").as_deref() != Some("4") => {
                Err(RequestError::UnsupportedVersion)
            }
            Ok(()) => Ok(()),
        };
        let accept = match (&checked, opening.websocket) {
            (Ok(()), true) => match websocket_accept(&head) {
                Ok(accept) => Some(accept),
                Err(error) => {
                    self.core.borrow_mut().refuse_handshake(link, error);
                    return Next::Wait;
                }
            },
            _ => None,
        };
        let session = match checked.and_then(|()| self.new_session(opening)) {
            Ok(session) => session,
            Err(error) => {
                self.reply_error(link, &error, opening.websocket, false);
                return Next::Again;
            }
        };
        let next = match accept {
            Some(accept) => self.core.borrow_mut().start_websocket(link, session, &accept),
            None => self.core.borrow_mut().start_polling(link, session),
        };
        self.opened(session);
        next
    }

    fn new_session(&self, opening: &Opening) -> Result<SessionId, RequestError> {
        if self.ports.sessions() >= self.config.limits.connections {
            return Err(RequestError::Forbidden(Some("too many sessions".to_owned())));
        }
        let custom = match self.config.custom_ids {
            true => self.app.generate_id(&opening.request),
            false => None,
        };
        let mut core = self.core.borrow_mut();
        let core = &mut *core;
        let id = core.sessions.reserve();
        let sid = if self.config.custom_ids {
            let claimed =
                |sid: &String| !sid.is_empty() && self.ports.claim_sid(sid, self.port.index(), id);
            match custom.filter(claimed) {
                Some(sid) => Sid::Custom(sid.into()),
                None => {
                    core.sessions.unreserve(id);
                    return Err(RequestError::BadRequest);
                }
            }
        } else {
            Sid::Own(core.new_id(id.slot))
        };
        let timings = &self.config.timings;
        let (owner, join_by_ms) = match opening.endpoint {
            None => (Owner::SocketIo, core.now_ms + timings.connect_timeout),
            Some(endpoint) => {
                let key = Arc::new(EngineCell {
                    port: self.port.clone(),
                    session: id,
                    request: opening.request.clone(),
                    connected: true.into(),
                });
                (Owner::Engine { endpoint, key }, u64::MAX)
            }
        };
        let client = Client {
            request: opening.request.clone(),
            owner,
            sockets: SmallVec::new(),
            assembler: Assembler::default(),
            join_by_ms,
            pending: None,
            timer_tick: NO_TIMER,
        };
        core.sessions.insert(
            id,
            Cold {
                generation: id.generation,
                sid,
                phase: Phase::Open,
                heartbeat: Heartbeat::opened(core.now_ms, timings.ping_interval),
                upgrade: Upgrade::None,
                post: None,
                owner: client,
            },
        );
        self.port.sessions.fetch_add(1, Ordering::Relaxed);
        core.schedule_session(id);
        tracing::debug!(
            target: "stentor::session",
            slot = id.slot,
            websocket = opening.websocket,
            "session opens"
        );
        Ok(id)
    }

    /// The open packet is queued; a raw endpoint's user hears of the session.
    fn opened(self: &Rc<Self>, session: SessionId) {
        let engine = {
            let core = self.core.borrow();
            core.sessions.get(session).and_then(|cold| match &cold.owner.owner {
                Owner::SocketIo => None,
                Owner::Engine { endpoint, key } => Some((*endpoint, key.clone())),
            })
        };
        if let Some((endpoint, key)) = engine {
            let mut tasks = Tasks::new();
            self.app.engine_opened(endpoint, &key, &mut tasks);
            self.adopt(&TaskOf::Session(session), tasks);
        }
    }

    /// A WebSocket for a session that polls.
    fn open_candidate(self: &Rc<Self>, link: LinkId, head: &Head<'_>, session: SessionId) -> Next {
        let mut core = self.core.borrow_mut();
        let accept = match websocket_accept(head) {
            Ok(accept) => accept,
            Err(error) => {
                core.refuse_handshake(link, error);
                return Next::Wait;
            }
        };
        let until_ms = core.now_ms + self.config.timings.upgrade_timeout;
        let polls = core.sessions.hot[session.slot as usize].transport == Transport::Polling;
        let Some(cold) = core.sessions.get_mut(session) else { return Next::Wait };
        let free = polls && cold.upgrade == Upgrade::None && cold.phase == Phase::Open;
        if free {
            cold.upgrade = Upgrade::Probing { link: link.into(), until_ms };
        }
        let headers = core.links.http(link).map(|http| std::mem::take(&mut http.reply.headers));
        let unread = core.switch(link, session, true);
        if let Some(entry) = core.links.get_mut(link) {
            write_accept(&mut entry.out, &accept, &headers.unwrap_or_default());
        }
        if free {
            core.queue_link(link);
            core.schedule_session(session);
        } else {
            // One upgrade at a time, and only away from polling.
            core.close_websocket(link, websocket::CloseCode::NORMAL, Vec::new());
        }
        Next::Switched(unread)
    }

    // ---- POST ----

    fn begin_post(
        self: &Rc<Self>,
        link: LinkId,
        head: &Head<'_>,
        session: SessionId,
        body: BodyKind,
    ) -> Next {
        let mut core = self.core.borrow_mut();
        let Some(cold) = core.sessions.get_mut(session) else { return Next::Wait };
        let octets = head
            .header("content-type")
            .is_some_and(|kind| kind.to_ascii_lowercase().starts_with(b"application/octet-stream"));
        if cold.post.is_some() || octets {
            if let Some(http) = core.links.http(link) {
                http.reply.connection = Connection::Close;
            }
            core.reply_empty(link, 400);
            core.close_session(session, DisconnectReason::TransportError);
            return Next::Wait;
        }
        let reader = match BodyReader::new(body, self.config.limits.message_bytes) {
            Ok(reader) => reader,
            Err(error) => {
                core.refuse_body(link, error);
                return Next::Wait;
            }
        };
        cold.post = Some(link.into());
        let until_ms = core.now_ms + self.config.timings.body_timeout;
        core.set_link_deadline(link, until_ms);
        if head.expects_continue()
            && !reader.is_done()
            && let Some(entry) = core.links.get_mut(link)
        {
            write_continue(&mut entry.out);
            core.queue_link(link);
        }
        if let Some(http) = core.links.http(link) {
            http.phase = HttpPhase::Body { session, reader, body: Vec::new() };
        }
        Next::Again
    }

    fn read_body(self: &Rc<Self>, link: LinkId) -> Next {
        let mut core = self.core.borrow_mut();
        let Some(http) = core.links.http(link) else { return Next::Wait };
        let HttpPhase::Body { session, reader, body } = &mut http.phase else { return Next::Wait };
        let session = *session;
        let done = if reader.is_done() {
            true
        } else {
            match reader.feed(&http.unread, body) {
                Ok(progress) => {
                    http.unread.advance(progress.consumed);
                    progress.done
                }
                Err(error) => {
                    if let Some(cold) = core.sessions.get_mut(session) {
                        cold.post = None;
                    }
                    core.refuse_body(link, error);
                    return Next::Wait;
                }
            }
        };
        if !done {
            return Next::Wait;
        }
        let mut body = std::mem::take(body);
        http.phase = HttpPhase::Head;
        if let Some(cold) = core.sessions.get_mut(session) {
            cold.post = None;
        }
        drop(core);
        self.finish_post(link, session, &mut body);
        Next::Again
    }

    fn finish_post(self: &Rc<Self>, link: LinkId, session: SessionId, body: &mut [u8]) {
        for packet in split(body) {
            // What a packet caused is heard before the next one.
            if !self.core.borrow().notices.is_empty() {
                self.run_notices();
            }
            match packet {
                Ok(PayloadPacket::Packet(kind, data)) => self.engine_packet(session, kind, data),
                Ok(PayloadPacket::Binary(bytes)) => self.engine_binary(session, bytes),
                Err(error) => {
                    tracing::debug!(target: "stentor::session", %error, "bad payload");
                    let mut core = self.core.borrow_mut();
                    core.close_session(session, DisconnectReason::ParseError);
                    core.reply_empty(link, 400);
                    return;
                }
            }
        }
        self.core.borrow_mut().reply_post(link);
    }

    /// Gives the link away, once its answers are out.
    fn leave(&self, link: LinkId, destination: Destination, head: &[u8]) {
        let mut core = self.core.borrow_mut();
        let Some(http) = core.links.http(link) else { return };
        let (peer, bytes) = (http.peer, [head, &http.unread].concat());
        // A peer that does not read what it was answered may not stay on the threshold.
        let until_ms = core.now_ms + self.config.timings.keep_alive_timeout;
        core.set_link_deadline(link, until_ms);
        if let Some(entry) = core.links.get_mut(link) {
            entry.kind = LinkKind::Leaving { destination, bytes, peer };
            entry.after = After::Detach(destination);
        }
        core.queue_link(link);
    }

    /// The peer ended its side, or the connection broke, on a link that speaks HTTP.
    pub(super) fn http_lost(&self, link: LinkId, failed: bool) {
        let mut core = self.core.borrow_mut();
        let Some(http) = core.links.http(link) else { return };
        let session = match http.phase {
            HttpPhase::Polling(session) | HttpPhase::Body { session, .. } => Some(session),
            HttpPhase::Head | HttpPhase::Deciding(_) => None,
        };
        if let Some(session) = session {
            if let Some(cold) = core.sessions.get_mut(session) {
                if cold.post == Some(link.into()) {
                    cold.post = None;
                }
                let hot = &mut core.sessions.hot[session.slot as usize];
                if hot.link == Some(link.into()) {
                    hot.link = None;
                }
            }
            core.drop_link(link);
            core.close_session(session, DisconnectReason::TransportError);
        } else if failed {
            core.drop_link(link);
        } else {
            // What was answered is still delivered.
            core.end_link(link);
        }
    }
}

fn websocket_accept(head: &Head<'_>) -> Result<[u8; 28], HandshakeError> {
    websocket::check(head.header("sec-websocket-version"), head.header("sec-websocket-key"))
        .map(|key| key.accept())
}

fn write_accept(out: &mut Vec<u8>, accept: &[u8; 28], headers: &[(String, String)]) {
    // Fields come from checked configuration; one that is not a legal field is left out.
    let legal = headers.iter().filter(|(name, value)| http::check_header(name, value).is_ok());
    websocket::write_response(out, accept, legal.map(|(name, value)| (name, value)));
}

impl Core {
    /// Turns an HTTP link into a WebSocket link; returns what was unread.
    fn switch(&mut self, link: LinkId, session: SessionId, candidate: bool) -> Vec<u8> {
        self.set_link_deadline(link, u64::MAX);
        let Some(entry) = self.links.get_mut(link) else { return Vec::new() };
        let reader = Reader::default();
        let websocket = LinkKind::WebSocket(WebSocketLink { session, candidate, reader });
        match std::mem::replace(&mut entry.kind, websocket) {
            LinkKind::Http(http) => {
                if http.paused {
                    self.driver_ops.push(DriverOp::SetReading(link, true));
                }
                http.unread.to_vec()
            }
            _ => Vec::new(),
        }
    }

    fn start_websocket(&mut self, link: LinkId, session: SessionId, accept: &[u8; 28]) -> Next {
        let headers = self.links.http(link).map(|http| std::mem::take(&mut http.reply.headers));
        let mut head = Vec::with_capacity(256);
        write_accept(&mut head, accept, &headers.unwrap_or_default());
        let unread = self.switch(link, session, false);
        let hot = &mut self.sessions.hot[session.slot as usize];
        hot.transport = Transport::WebSocket;
        hot.link = Some(link.into());
        self.send_frames(session.slot, &head, Weight::Control);
        // The response head is no frame: nothing may be dropped before it.
        self.sessions.hot[session.slot as usize].outbox.pin();
        self.send_open(session, &[]);
        Next::Switched(unread)
    }

    fn start_polling(&mut self, link: LinkId, session: SessionId) -> Next {
        let cookie =
            self.config.cookie.as_ref().and_then(|cookie| {
                Some(cookie.set_cookie(self.sessions.get(session)?.sid.as_str()))
            });
        let upgrades = self.config.allow_upgrades && self.config.websocket;
        if let Some(http) = self.links.http(link) {
            http.phase = HttpPhase::Polling(session);
            http.reply.headers.extend(cookie.map(|cookie| ("Set-Cookie".to_owned(), cookie)));
        }
        self.sessions.hot[session.slot as usize].link = Some(link.into());
        self.send_open(session, if upgrades { &["websocket"] } else { &[] });
        Next::Wait
    }

    fn send_open(&mut self, session: SessionId, upgrades: &[&str]) {
        let Some(cold) = self.sessions.get(session) else { return };
        let (timings, limits) = (&self.config.timings, &self.config.limits);
        let open = Open {
            sid: cold.sid.as_str(),
            upgrades,
            ping_interval_ms: timings.ping_interval,
            ping_timeout_ms: timings.ping_timeout,
            payload_bytes_max: limits.message_bytes as u64,
        };
        let mut encoder = Encoder::default();
        let frame = encoder.engine_packet(|out| open.write(out));
        self.send_frames(session.slot, frame, Weight::Control);
    }

    /// A GET on a polling session.
    fn poll(&mut self, link: LinkId, session: SessionId) {
        let Some(cold) = self.sessions.get(session) else { return };
        let (phase, probed) = (cold.phase, cold.upgrade.is_probed());
        if phase != Phase::Open && self.sessions.hot[session.slot as usize].outbox.is_empty() {
            self.answer_poll(link, fixed::body::NOOP_CLOSE);
            self.free_session(session);
            return;
        }
        if self.sessions.hot[session.slot as usize].link.is_some() {
            self.reply_empty(link, 400);
            self.close_session(session, DisconnectReason::TransportError);
            return;
        }
        if let Some(http) = self.links.http(link) {
            http.phase = HttpPhase::Polling(session);
        }
        let hot = &mut self.sessions.hot[session.slot as usize];
        hot.link = Some(link.into());
        if !hot.outbox.is_empty() || probed {
            self.mark_prompt(session.slot);
        }
    }
}
