//! A scripted Socket.IO client: one Engine.IO session, its sockets, and what they were told.
//!
//! It does what the official client does on the wire, on the crate's own client-side codecs, and
//! watches the server: what the protocol does not allow ends in [`State::Violated`].

use std::collections::BTreeMap;
use std::fmt;
use std::hash::{DefaultHasher, Hasher};
use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::link::{Heard, Outgoing, Polling, WebSocket, World};
use crate::io::sim::{ClientId, ClientState};
use crate::protocol::socket_io::{
    Args, Assembler, PacketHead, PacketType, Value, decode_head, disconnect, encode_ack,
    encode_event, event_name, from_args, write_prefix,
};
use crate::protocol::websocket::Opcode;

/// Attachments of one packet, and bytes of all of them, that a client puts up with.
const ATTACHMENTS_MAX: u32 = 1 << 16;
const PACKET_BYTES_MAX: usize = 256 * 1024 * 1024;

/// Names one socket (one client in one namespace) of a simulation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Client {
    pub(super) peer: usize,
    pub(super) socket: usize,
}

/// How a simulated client travels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Transport {
    /// A WebSocket from the start.
    #[default]
    WebSocket,
    /// Long-polling only.
    Polling,
    /// Long-polling first, then a WebSocket: what official clients do.
    Upgrade,
}

/// What a client connects with.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct ConnectOptions {
    /// The namespace; empty means `/`.
    pub namespace: String,
    /// What it sends as `auth`; an object.
    pub auth: Option<Value>,
    /// How it travels.
    pub transport: Transport,
    /// The shard whose listener takes its connections; drawn for each of them when `None`.
    pub shard: Option<usize>,
}

/// Where a client stands.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum State {
    /// Its namespace has not answered yet.
    Connecting,
    /// It is in its namespace.
    Connected,
    /// A middleware, or a namespace that is not there, refused it.
    Refused {
        /// The error's message.
        message: String,
    },
    /// It left its namespace.
    Left,
    /// The server disconnected it from its namespace.
    Disconnected,
    /// Either side closed the connection in order.
    Closed {
        /// The code of the server's close frame, if it sent one with a code.
        code: Option<u16>,
    },
    /// The connection broke, or ended without a word.
    Lost,
    /// The server answered a request with this HTTP status.
    Rejected {
        /// The status.
        status: u16,
    },
    /// The server did something that the protocol does not allow: a defect of the engine.
    Violated {
        /// What it did.
        what: String,
    },
}

/// Names one acknowledgement that a client asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[must_use = "the answer is found by its ticket"]
pub struct AckTicket {
    pub(super) client: Client,
    pub(super) id: u64,
}

/// How a client acknowledges what the server asks it to: `None` leaves it unanswered.
type Answer = Box<dyn FnMut(&str, &[Value]) -> Option<Vec<Value>>>;

/// One client in one namespace.
pub(super) struct Socket {
    namespace: String,
    auth: Option<Value>,
    pub(super) state: State,
    pub(super) id: Option<String>,
    pub(super) events: Vec<(String, Vec<Value>)>,
    /// Packets from before the namespace has answered.
    waiting: Vec<Packet>,
    next_ack: u64,
    /// `None`: not answered yet. What was taken is no longer here.
    pub(super) answers: BTreeMap<u64, Option<Vec<Value>>>,
    pub(super) answer: Answer,
}

impl fmt::Debug for Socket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Socket")
            .field("namespace", &self.namespace)
            .field("state", &self.state)
            .finish_non_exhaustive()
    }
}

/// A Socket.IO packet in its Engine.IO message, and its attachments.
#[derive(Debug)]
struct Packet {
    text: Vec<u8>,
    attachments: Vec<Bytes>,
}

impl Packet {
    fn new(write: impl FnOnce(&mut Vec<u8>, &mut Vec<Bytes>)) -> Self {
        let (mut text, mut attachments) = (vec![b'4'], Vec::new());
        write(&mut text, &mut attachments);
        Self { text, attachments }
    }
}

/// What carries the session.
#[derive(Debug)]
enum Carrier {
    WebSocket(WebSocket),
    Polling(Polling),
    Upgrading { polling: Polling, candidate: WebSocket, is_probed: bool },
    Gone,
}

/// One Engine.IO session from its client's side.
#[derive(Debug)]
pub(super) struct Peer {
    carrier: Carrier,
    path: String,
    shard: Option<usize>,
    transport: Transport,
    pub(super) sid: Option<String>,
    pub(super) sockets: Vec<Socket>,
    assembler: Assembler,
    pub(super) is_reading: bool,
    pub(super) sends_pongs: bool,
    /// When the server pinged.
    pub(super) pings: Vec<Duration>,
    /// Of everything the client was sent, and when.
    pub(super) trace: DefaultHasher,
}

/// The part of an open packet that a client acts upon.
#[derive(Deserialize)]
struct Open {
    sid: String,
    upgrades: Vec<String>,
}

/// The part of the answer to a CONNECT that a client acts upon.
#[derive(Deserialize)]
struct ConnectReply {
    sid: String,
}

#[derive(Deserialize)]
struct Refusal {
    message: String,
}

impl Peer {
    pub(super) fn connect(
        world: &mut World<'_>,
        path: &str,
        transport: Transport,
        shard: Option<usize>,
    ) -> Self {
        let carrier = match transport {
            Transport::WebSocket => {
                let target = format!("{path}?EIO=4&transport=websocket");
                Carrier::WebSocket(WebSocket::open(world, &target, shard))
            }
            Transport::Polling | Transport::Upgrade => {
                Carrier::Polling(Polling::open(world, path, shard))
            }
        };
        Self {
            carrier,
            path: path.to_owned(),
            shard,
            transport,
            sid: None,
            sockets: Vec::new(),
            assembler: Assembler::default(),
            is_reading: true,
            sends_pongs: true,
            pings: Vec::new(),
            trace: DefaultHasher::new(),
        }
    }

    /// The connections that carry the session now.
    pub(super) fn ids(&self) -> Vec<ClientId> {
        match &self.carrier {
            Carrier::WebSocket(websocket) => vec![websocket.id],
            Carrier::Polling(polling) => polling.ids().collect(),
            Carrier::Upgrading { polling, candidate, .. } => {
                polling.ids().chain([candidate.id]).collect()
            }
            Carrier::Gone => Vec::new(),
        }
    }

    /// The connection that raw bytes go to.
    pub(super) fn id(&self) -> Option<ClientId> {
        match &self.carrier {
            Carrier::WebSocket(websocket) => Some(websocket.id),
            _ => self.ids().last().copied(),
        }
    }

    pub(super) fn is_websocket(&self) -> bool {
        matches!(self.carrier, Carrier::WebSocket(_))
    }

    /// Adds a socket; its index.
    pub(super) fn join(
        &mut self,
        world: &mut World<'_>,
        namespace: &str,
        auth: Option<Value>,
    ) -> usize {
        self.sockets.push(Socket {
            namespace: if namespace.is_empty() { "/" } else { namespace }.to_owned(),
            auth,
            state: State::Connecting,
            id: None,
            events: Vec::new(),
            waiting: Vec::new(),
            next_ack: 0,
            answers: BTreeMap::new(),
            answer: Box::new(|_, _| Some(Vec::new())),
        });
        let index = self.sockets.len() - 1;
        if self.sid.is_some() {
            self.send_connect(world, index);
        }
        index
    }

    // ---- what the client says ----

    fn send_connect(&mut self, world: &mut World<'_>, socket: usize) {
        let Socket { namespace, auth, .. } = &self.sockets[socket];
        let packet = Packet::new(|out, _| {
            write_prefix(out, PacketType::Connect, 0, namespace, None);
            if let Some(auth) = auth {
                serde_json::to_writer(out, auth).expect("invariant: a Value always serialises");
            }
        });
        self.send(world, packet);
    }

    /// Sends an event, once its namespace has answered. `Some`: the id of its acknowledgement.
    ///
    /// Panics when the event cannot be written.
    pub(super) fn emit(
        &mut self,
        world: &mut World<'_>,
        socket: usize,
        event: &str,
        args: &impl Serialize,
        with_ack: bool,
    ) -> Option<u64> {
        let entry = &mut self.sockets[socket];
        let id = with_ack.then_some(entry.next_ack);
        if let Some(id) = id {
            entry.next_ack += 1;
            entry.answers.insert(id, None);
        }
        let packet = Packet::new(|out, attachments| {
            encode_event(out, &entry.namespace, id, event, args, attachments)
                .unwrap_or_else(|error| panic!("{event:?} cannot be emitted: {error}"));
        });
        match entry.state {
            State::Connecting => entry.waiting.push(packet),
            State::Connected => self.send(world, packet),
            _ => {}
        }
        id
    }

    fn send(&mut self, world: &mut World<'_>, packet: Packet) {
        match &mut self.carrier {
            Carrier::WebSocket(websocket) if websocket.is_open() => {
                websocket.send(world, Opcode::Text, &packet.text);
                for attachment in packet.attachments {
                    websocket.send(world, Opcode::Binary, &attachment);
                }
            }
            Carrier::Polling(polling) | Carrier::Upgrading { polling, .. } => {
                polling.send(world, Outgoing::Packet(packet.text));
                for attachment in packet.attachments {
                    polling.send(world, Outgoing::Binary(attachment.to_vec()));
                }
            }
            Carrier::WebSocket(_) | Carrier::Gone => {}
        }
    }

    /// Leaves one namespace.
    pub(super) fn leave(&mut self, world: &mut World<'_>, socket: usize) {
        let entry = &mut self.sockets[socket];
        if entry.state == State::Connected {
            entry.state = State::Left;
            let packet = Packet::new(|out, _| disconnect(out, &entry.namespace));
            self.send(world, packet);
        }
    }

    /// Closes the session as a client does.
    pub(super) fn close(&mut self, world: &mut World<'_>) {
        match &mut self.carrier {
            Carrier::WebSocket(websocket) if websocket.is_connecting() => {
                self.end(world, &State::Closed { code: None });
            }
            Carrier::WebSocket(websocket) => websocket.close(world),
            Carrier::Polling(_) if self.sid.is_none() => {
                self.end(world, &State::Closed { code: None });
            }
            Carrier::Polling(polling) => {
                polling.send(world, Outgoing::Packet(b"1".to_vec()));
                polling.finish();
            }
            Carrier::Upgrading { .. } => {
                self.abandon_upgrade(world);
                self.close(world);
            }
            Carrier::Gone => {}
        }
    }

    /// Breaks every connection.
    pub(super) fn reset(&mut self, world: &mut World<'_>) {
        for id in self.ids() {
            world.net.client_reset(id);
        }
        self.end(world, &State::Lost);
    }

    // ---- what it hears ----

    pub(super) fn hear(&mut self, world: &mut World<'_>, id: ClientId) {
        if !self.is_reading {
            return;
        }
        let bytes = world.net.client_recv(id);
        self.trace.write_u64(world.net.now_ms());
        self.trace.write(&bytes);
        let mut heard = Vec::new();
        match &mut self.carrier {
            Carrier::WebSocket(websocket) if websocket.id == id => {
                hear_websocket(websocket, world, &bytes, &mut heard);
            }
            Carrier::Upgrading { candidate, .. } if candidate.id == id => {
                hear_websocket(candidate, world, &bytes, &mut heard);
                heard.into_iter().for_each(|heard| self.probed(world, heard));
                self.go_on(world);
                return;
            }
            Carrier::Polling(polling) | Carrier::Upgrading { polling, .. } => {
                polling.hear(world, id, &bytes, &mut heard);
            }
            Carrier::WebSocket(_) | Carrier::Gone => {}
        }
        heard.into_iter().for_each(|heard| self.heard(world, heard));
        self.go_on(world);
    }

    fn heard(&mut self, world: &mut World<'_>, heard: Heard) {
        match heard {
            Heard::Packet(packet) => {
                if let Err(what) = self.engine_packet(world, &packet) {
                    self.end(world, &State::Violated { what });
                }
            }
            Heard::Binary(bytes) => match self.assembler.add(bytes.into()) {
                Ok(None) => {}
                Ok(Some(packet)) => {
                    let outcome = self.socket_packet(world, &packet.text, &packet.attachments);
                    if let Err(what) = outcome {
                        self.end(world, &State::Violated { what });
                    }
                }
                Err(error) => self.end(world, &State::Violated { what: error.to_string() }),
            },
            Heard::Closed(code) => self.end(world, &State::Closed { code }),
            Heard::Lost => self.end(world, &State::Lost),
            Heard::Rejected(status) => self.end(world, &State::Rejected { status }),
            Heard::Violated(what) => self.end(world, &State::Violated { what }),
        }
    }

    /// What came over the connection that probes.
    fn probed(&mut self, world: &mut World<'_>, heard: Heard) {
        let Carrier::Upgrading { polling, is_probed, .. } = &mut self.carrier else { return };
        match heard {
            Heard::Packet(packet) if packet == b"3probe" => {
                *is_probed = true;
                polling.is_paused = true;
            }
            Heard::Closed(_) | Heard::Lost | Heard::Rejected(_) => self.abandon_upgrade(world),
            Heard::Packet(_) | Heard::Binary(_) => {
                self.end(world, &State::Violated { what: "a probe is answered 3probe".to_owned() });
            }
            Heard::Violated(what) => self.end(world, &State::Violated { what }),
        }
    }

    fn abandon_upgrade(&mut self, world: &World<'_>) {
        match std::mem::replace(&mut self.carrier, Carrier::Gone) {
            Carrier::Upgrading { mut polling, candidate, .. } => {
                world.net.client_close(candidate.id);
                polling.is_paused = false;
                self.carrier = Carrier::Polling(polling);
            }
            other => self.carrier = other,
        }
    }

    /// Does what is due after something was heard.
    fn go_on(&mut self, world: &mut World<'_>) {
        match &mut self.carrier {
            Carrier::Upgrading { polling, candidate, is_probed } => {
                if !*is_probed || !polling.is_quiet() {
                    polling.resume(world);
                    if candidate.is_ready_to_probe() {
                        candidate.send(world, Opcode::Text, b"2probe");
                    }
                    return;
                }
                candidate.send(world, Opcode::Text, b"5");
                for packet in polling.take_queue() {
                    match packet {
                        Outgoing::Packet(packet) => candidate.send(world, Opcode::Text, &packet),
                        Outgoing::Binary(bytes) => candidate.send(world, Opcode::Binary, &bytes),
                    }
                }
                polling.close(world);
                if let Carrier::Upgrading { candidate, .. } =
                    std::mem::replace(&mut self.carrier, Carrier::Gone)
                {
                    self.carrier = Carrier::WebSocket(candidate);
                }
            }
            Carrier::Polling(polling) => {
                polling.resume(world);
                if polling.is_over_and_quiet() {
                    self.end(world, &State::Closed { code: None });
                }
            }
            Carrier::WebSocket(_) | Carrier::Gone => {}
        }
    }

    fn engine_packet(&mut self, world: &mut World<'_>, packet: &[u8]) -> Result<(), String> {
        if self.sid.is_none() != packet.starts_with(b"0") {
            return Err(format!("{:?} at this place", String::from_utf8_lossy(packet)));
        }
        match packet {
            [b'0', open @ ..] => self.opened(world, open),
            b"1" => {
                self.end(world, &State::Closed { code: None });
                Ok(())
            }
            b"2" => {
                self.pings.push(Duration::from_millis(world.net.now_ms()));
                if self.sends_pongs {
                    let pong = Packet { text: b"3".to_vec(), attachments: Vec::new() };
                    self.send(world, pong);
                }
                Ok(())
            }
            [b'4', text @ ..] => {
                self.assembler.expect_text().map_err(|error| error.to_string())?;
                self.socket_packet(world, text, &[])
            }
            b"6" => Ok(()),
            _ => Err(format!("{:?} is no packet of a server", String::from_utf8_lossy(packet))),
        }
    }

    fn opened(&mut self, world: &mut World<'_>, open: &[u8]) -> Result<(), String> {
        let open: Open = serde_json::from_slice(open).map_err(|error| error.to_string())?;
        self.sid = Some(open.sid.clone());
        if let Carrier::Polling(polling) = &mut self.carrier {
            polling.opened(&open.sid);
        }
        for socket in 0..self.sockets.len() {
            self.send_connect(world, socket);
        }
        let upgrades = open.upgrades.iter().any(|upgrade| upgrade == "websocket");
        if self.transport != Transport::Upgrade || !upgrades {
            return Ok(());
        }
        match std::mem::replace(&mut self.carrier, Carrier::Gone) {
            Carrier::Polling(polling) => {
                let target = format!("{}?EIO=4&transport=websocket&sid={}", self.path, open.sid);
                let candidate = WebSocket::open(world, &target, self.shard);
                self.carrier = Carrier::Upgrading { polling, candidate, is_probed: false };
            }
            other => self.carrier = other,
        }
        Ok(())
    }

    fn socket_packet(
        &mut self,
        world: &mut World<'_>,
        text: &[u8],
        attachments: &[Bytes],
    ) -> Result<(), String> {
        let head = decode_head(text, ATTACHMENTS_MAX).map_err(|error| error.to_string())?;
        if head.attachments as usize > attachments.len() {
            let started = self.assembler.start(text.into(), head.attachments, PACKET_BYTES_MAX);
            return started.map(drop).map_err(|error| error.to_string());
        }
        let payload = &text[head.payload_at..];
        // A namespace may be asked for again after it was left or refused.
        let of_name = |socket: &Socket| socket.namespace == head.namespace;
        let waits = |socket: &Socket| of_name(socket) && socket.state == State::Connecting;
        let index = match head.kind {
            PacketType::Connect | PacketType::ConnectError => self.sockets.iter().position(waits),
            _ => self.sockets.iter().rposition(of_name),
        };
        let index = index.ok_or("an answer to a namespace that was not asked for")?;
        let socket = &mut self.sockets[index];
        let misplaced = || format!("{:?} in this state", String::from_utf8_lossy(text));
        match (&socket.state, head.kind) {
            (State::Connecting, PacketType::Connect) => {
                let reply: ConnectReply =
                    serde_json::from_slice(payload).map_err(|error| error.to_string())?;
                socket.id = Some(reply.sid);
                socket.state = State::Connected;
                for packet in std::mem::take(&mut socket.waiting) {
                    self.send(world, packet);
                }
            }
            (State::Connecting, PacketType::ConnectError) => {
                let refusal: Refusal =
                    serde_json::from_slice(payload).map_err(|error| error.to_string())?;
                socket.state = State::Refused { message: refusal.message };
            }
            (State::Connected, PacketType::Disconnect) => socket.state = State::Disconnected,
            (State::Connected, PacketType::Event | PacketType::BinaryEvent) => {
                self.event(world, index, &head, payload, attachments)?;
            }
            (State::Connected, PacketType::Ack | PacketType::BinaryAck) => {
                let id = head.id.ok_or_else(misplaced)?;
                let Args(args) =
                    from_args(payload, attachments, 0).map_err(|error| error.to_string())?;
                match socket.answers.get_mut(&id) {
                    Some(answer @ None) => *answer = Some(args),
                    _ => return Err(format!("acknowledgement {id} is not due")),
                }
            }
            // What was on its way when the client left.
            (State::Left, _) => {}
            _ => return Err(misplaced()),
        }
        Ok(())
    }

    fn event(
        &mut self,
        world: &mut World<'_>,
        index: usize,
        head: &PacketHead<'_>,
        payload: &[u8],
        attachments: &[Bytes],
    ) -> Result<(), String> {
        let socket = &mut self.sockets[index];
        let name = event_name(payload).map_err(|error| error.to_string())?.into_owned();
        let Args(args) = from_args(payload, attachments, 1).map_err(|error| error.to_string())?;
        let answer = head.id.and_then(|id| Some((id, (socket.answer)(&name, &args)?)));
        socket.events.push((name, args));
        if let Some((id, answer)) = answer {
            let packet = Packet::new(|out, attachments| {
                encode_ack(out, &socket.namespace, id, &Args(answer), attachments)
                    .expect("invariant: a Value always serialises");
            });
            self.send(world, packet);
        }
        Ok(())
    }

    /// The session is over, and so are its sockets.
    fn end(&mut self, world: &World<'_>, state: &State) {
        match std::mem::replace(&mut self.carrier, Carrier::Gone) {
            Carrier::WebSocket(websocket) => world.net.client_close(websocket.id),
            Carrier::Polling(mut polling) => polling.close(world),
            Carrier::Upgrading { mut polling, candidate, .. } => {
                polling.close(world);
                world.net.client_close(candidate.id);
            }
            Carrier::Gone => {}
        }
        let violated = matches!(state, State::Violated { .. });
        for socket in &mut self.sockets {
            if violated || matches!(socket.state, State::Connecting | State::Connected) {
                socket.state = state.clone();
            }
        }
    }
}

fn hear_websocket(
    websocket: &mut WebSocket,
    world: &mut World<'_>,
    bytes: &[u8],
    heard: &mut Vec<Heard>,
) {
    websocket.hear(world, bytes, heard);
    let is_over = world.net.client_state(websocket.id) != ClientState::Open;
    let is_told = heard.iter().any(|heard| !matches!(heard, Heard::Packet(_) | Heard::Binary(_)));
    if is_over && !is_told {
        heard.push(Heard::Lost);
    }
}
