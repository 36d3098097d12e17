//! Engine.IO messages -> Socket.IO packets -> the user's handlers.

use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;

use super::Shard;
use super::app::{ConnectError, Definition, EngineMessage, Incoming, Tasks};
use super::core::{Owner, Weight};
use super::port::{Answer, SocketCell, SocketFacts};
use super::tasks::TaskOf;
use crate::DisconnectReason;
use crate::protocol::socket_io::{
    self, Args, ArgsError, Complete, PacketError, PacketHead, PacketType, check_payload,
    decode_head, event_name, from_args, validate,
};
use crate::session::SessionId;
use crate::socket::{Answered, SocketId, SocketState};
use crate::wire::Encoder;

/// Why a packet ends its session.
type Ended = DisconnectReason;

impl Shard {
    /// The text message of a session.
    pub(super) fn message(self: &Rc<Self>, session: SessionId, text: &mut [u8]) {
        let engine = {
            let mut core = self.core.borrow_mut();
            let Some(cold) = core.sessions.get_open(session) else { return };
            match &cold.owner.owner {
                Owner::SocketIo => None,
                Owner::Engine { endpoint, key } => Some((*endpoint, key.clone())),
            }
        };
        if let Some((endpoint, key)) = engine {
            let text = std::str::from_utf8(text).unwrap_or_default();
            let mut tasks = Tasks::new();
            self.app.engine_message(endpoint, &key, EngineMessage::Text(text), &mut tasks);
            self.adopt(&TaskOf::Session(session), tasks);
            return;
        }
        if let Err(reason) = self.socket_packet(session, text) {
            self.close(session, reason);
        }
    }

    /// The binary message of a session: an attachment, for Socket.IO.
    pub(super) fn engine_binary(self: &Rc<Self>, session: SessionId, bytes: &[u8]) {
        let mut core = self.core.borrow_mut();
        let Some(cold) = core.sessions.get_open(session) else { return };
        if let Owner::Engine { endpoint, key } = &cold.owner.owner {
            let (endpoint, key) = (*endpoint, key.clone());
            drop(core);
            let mut tasks = Tasks::new();
            self.app.engine_message(endpoint, &key, EngineMessage::Binary(bytes), &mut tasks);
            self.adopt(&TaskOf::Session(session), tasks);
            return;
        }
        let added = cold.owner.assembler.add(Bytes::copy_from_slice(bytes));
        drop(core);
        let outcome = match added {
            Ok(None) => Ok(()),
            Ok(Some(complete)) => self.binary_packet(session, &complete),
            Err(_) => Err(DisconnectReason::ForcedClose),
        };
        if let Err(reason) = outcome {
            self.close(session, reason);
        }
    }

    fn socket_packet(self: &Rc<Self>, session: SessionId, text: &[u8]) -> Result<(), Ended> {
        let limits = &self.config.limits;
        let head = decode_head(text, limits.attachments).map_err(reason_of)?;
        {
            let mut core = self.core.borrow_mut();
            let Some(cold) = core.sessions.get_open(session) else { return Ok(()) };
            if cold.owner.assembler.is_pending() {
                return Err(DisconnectReason::ForcedClose);
            }
            if head.attachments > 0 {
                // Each message is within the limit on its own; together they have this one.
                let bytes_max = limits.message_bytes * (1 + head.attachments as usize);
                let started = cold.owner.assembler.start(text.into(), head.attachments, bytes_max);
                return started.map(drop).map_err(|_| DisconnectReason::ForcedClose);
            }
        }
        self.packet(session, &head, &text[head.payload_at..], &[])
    }

    fn binary_packet(self: &Rc<Self>, session: SessionId, packet: &Complete) -> Result<(), Ended> {
        let head = decode_head(&packet.text, self.config.limits.attachments).map_err(reason_of)?;
        self.packet(session, &head, &packet.text[head.payload_at..], &packet.attachments)
    }

    /// One whole packet.
    fn packet(
        self: &Rc<Self>,
        session: SessionId,
        head: &PacketHead<'_>,
        payload: &[u8],
        attachments: &[Bytes],
    ) -> Result<(), Ended> {
        if !attachments.is_empty() {
            // Each placeholder must name one of them, whether or not anybody reads it.
            if let Err(ArgsError::Syntax(error)) = from_args::<Args>(payload, attachments, 0) {
                return Err(reason_of(error));
            }
        }
        match head.kind {
            PacketType::Event | PacketType::BinaryEvent => {
                let name = event_name(payload).map_err(reason_of)?;
                let ack = head.id;
                let event = Incoming { name: &name, payload, attachments, ack };
                self.event(session, head.namespace, event)
            }
            PacketType::Ack | PacketType::BinaryAck => {
                check_payload(head.kind, payload).map_err(reason_of)?;
                validate(payload).map_err(reason_of)?;
                self.ack(session, head, payload, attachments)
            }
            PacketType::Connect => {
                check_payload(head.kind, payload).map_err(reason_of)?;
                self.connect(session, head.namespace, payload)
            }
            PacketType::Disconnect => {
                check_payload(head.kind, payload).map_err(reason_of)?;
                let mut core = self.core.borrow_mut();
                let socket = core.socket_in(session, head.namespace);
                let connected = socket
                    .filter(|socket| core.sockets.state(*socket) == Some(SocketState::Connected));
                let socket = connected.ok_or(Ended::ForcedServerClose)?;
                core.end_socket(socket, DisconnectReason::ClientNamespaceDisconnect);
                Ok(())
            }
            PacketType::ConnectError => Err(DisconnectReason::ForcedServerClose),
        }
    }

    fn event(
        self: &Rc<Self>,
        session: SessionId,
        namespace: &str,
        event: Incoming<'_>,
    ) -> Result<(), Ended> {
        let key = self.connected_key(session, namespace).ok_or(Ended::ForcedServerClose)?;
        let span = tracing::trace_span!(target: "stentor::event", "event", name = event.name);
        let _entered = span.enter();
        let mut tasks = Tasks::new();
        let outcome = self.app.event(&key, event, &mut tasks);
        self.adopt(&TaskOf::Session(session), tasks);
        outcome.map_err(|_| DisconnectReason::ForcedClose)
    }

    fn connected_key(&self, session: SessionId, namespace: &str) -> Option<Arc<SocketCell>> {
        let core = self.core.borrow();
        let socket = core.socket_in(session, namespace)?;
        let connected = core.sockets.state(socket) == Some(SocketState::Connected);
        core.sockets.key(socket).filter(|_| connected).cloned()
    }

    fn ack(
        &self,
        session: SessionId,
        head: &PacketHead<'_>,
        payload: &[u8],
        attachments: &[Bytes],
    ) -> Result<(), Ended> {
        let id = head.id.ok_or(DisconnectReason::ForcedClose)?;
        let mut core = self.core.borrow_mut();
        let Some(socket) = core.socket_in(session, head.namespace) else {
            return Err(DisconnectReason::ForcedServerClose);
        };
        let answer = Answer { payload: payload.to_vec(), attachments: attachments.to_vec() };
        match core.acks.answer(socket.slot, id, answer) {
            Answered::Unknown | Answered::Counted => {}
            Answered::Single(waiter, answer) => super::Core::tell(waiter, Ok(answer)),
            Answered::Broadcast(finished) => super::Core::tell_all(finished),
        }
        Ok(())
    }

    /// A CONNECT: who serves the namespace decides through its middlewares.
    fn connect(
        self: &Rc<Self>,
        session: SessionId,
        namespace: &str,
        payload: &[u8],
    ) -> Result<(), Ended> {
        if namespace.bytes().any(|byte| byte.is_ascii_control()) {
            return Err(DisconnectReason::ForcedClose);
        }
        {
            let core = self.core.borrow();
            if core.socket_in(session, namespace).is_some() {
                return Err(DisconnectReason::ForcedServerClose);
            }
            let sockets = core.sessions.get(session).map_or(0, |cold| cold.owner.sockets.len());
            if sockets >= self.config.limits.namespaces {
                return Err(DisconnectReason::LimitNamespaces);
            }
        }
        let auth = std::str::from_utf8(payload).ok().filter(|auth| !auth.trim().is_empty());
        let Some(definition) = self.app.definition_of(namespace, auth) else {
            let refusal = ConnectError::new("Invalid namespace");
            self.refuse(session, namespace, &refusal);
            return Ok(());
        };
        let Some(key) = self.new_socket(session, namespace, definition, auth) else {
            return Ok(());
        };
        let step = self.app.admit(&key);
        let busy = || Err(ConnectError::new("the server is busy"));
        self.finish(TaskOf::Session(session), step, busy, move |shard, admitted| match admitted {
            Ok(()) => shard.admit(&key),
            Err(refusal) => {
                shard.refuse_socket(&key, &refusal);
            }
        });
        Ok(())
    }

    fn new_socket(
        &self,
        session: SessionId,
        namespace: &str,
        definition: Definition,
        auth: Option<&str>,
    ) -> Option<Arc<SocketCell>> {
        let mut core = self.core.borrow_mut();
        let core = &mut *core;
        // User code ran since the packet came: the session may be over.
        let request = core.sessions.get_open(session)?.owner.request.clone();
        let index = core.sockets.namespace_or_new(namespace, definition.permanent);
        let id = core.sockets.reserve();
        let key = Arc::new(SocketCell::new(SocketFacts {
            port: self.port.clone(),
            ports: self.ports.clone(),
            id,
            name: core.new_id(id.slot),
            namespace: core.sockets.namespace(index).name.clone(),
            definition: definition.index,
            request,
            auth: auth.map(Into::into),
            ack_timeout_ms: self.config.timings.ack_timeout,
        }));
        core.sockets.insert(id, session.slot, index, key.clone());
        core.sessions.get_mut(session)?.owner.sockets.push(id);
        Some(key)
    }

    /// The middlewares let the socket in: the reply goes out before anything its handlers emit.
    fn admit(self: &Rc<Self>, key: &Arc<SocketCell>) {
        let session = {
            let mut core = self.core.borrow_mut();
            let core = &mut *core;
            // The client may have left while a middleware ran.
            let live = core.sockets.session_of(key.id).and_then(|slot| core.sessions.id_at(slot));
            let Some(session) = live.filter(|session| owns(core, *session, key.id)) else { return };
            let mut encoder = Encoder::default();
            let reply = encoder
                .packet(|out| socket_io::connect_reply(out, &key.namespace, key.name.as_str()));
            core.send_frames(session.slot, reply, Weight::Control);
            core.sockets.connect(key.id);
            if let Some(cold) = core.sessions.get_mut(session) {
                cold.owner.join_by_ms = u64::MAX;
            }
            session
        };
        key.connected.store(true, Ordering::Release);
        let (id, namespace) = (key.name.as_str(), &*key.namespace);
        tracing::debug!(target: "stentor::socket", id, namespace, "connected");
        let mut tasks = Tasks::new();
        self.app.connected(key, &mut tasks);
        self.adopt(&TaskOf::Session(session), tasks);
    }

    fn refuse_socket(self: &Rc<Self>, key: &Arc<SocketCell>, refusal: &ConnectError) {
        let session = {
            let mut core = self.core.borrow_mut();
            let slot = core.sockets.session_of(key.id);
            let session = slot.and_then(|slot| core.sessions.id_at(slot));
            let owned = session.filter(|session| owns(&core, *session, key.id));
            if let Some(cold) = owned.and_then(|session| core.sessions.get_mut(session)) {
                cold.owner.sockets.retain(|socket| *socket != key.id);
            }
            core.sockets.remove(key.id);
            owned
        };
        if let Some(session) = session {
            self.refuse(session, &key.namespace, refusal);
        }
    }

    fn refuse(&self, session: SessionId, namespace: &str, refusal: &ConnectError) {
        let mut core = self.core.borrow_mut();
        if core.sessions.get(session).is_none() {
            return;
        }
        let mut encoder = Encoder::default();
        let (message, data) = (refusal.message(), refusal.data.as_ref());
        let reply = encoder.packet(|out| socket_io::connect_error(out, namespace, message, data));
        core.send_frames(session.slot, reply, Weight::Control);
    }
}

fn owns(core: &super::Core, session: SessionId, socket: SocketId) -> bool {
    core.sessions.get(session).is_some_and(|cold| cold.owner.sockets.contains(&socket))
}

fn reason_of(error: PacketError) -> DisconnectReason {
    match error {
        PacketError::TooManyAttachments { .. } => DisconnectReason::LimitAttachments,
        _ => DisconnectReason::ForcedClose,
    }
}
