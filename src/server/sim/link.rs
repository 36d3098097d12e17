//! The client's end of a connection: WebSocket frames, or requests and responses of polling.
//!
//! Bytes of the simulated network on one side, Engine.IO packets on the other; what a packet means
//! is known to `client` alone.

use rand::rngs::StdRng;
use rand::{Rng, RngExt};

use crate::io::sim::{ClientId, ClientState, SimNet};
use crate::protocol::engine_io::{PayloadPacket, PayloadWriter, split};
use crate::protocol::websocket::client::{upgrade_request, write_masked};
use crate::protocol::websocket::{CloseCode, Decoder, Event, Opcode, accept_key, close_frame};

/// What a client takes in one message: a server that says more is at fault.
const MESSAGE_BYTES_MAX: usize = 64 * 1024 * 1024;

/// What a link hands up.
#[derive(Debug)]
pub(super) enum Heard {
    /// An Engine.IO packet, type included.
    Packet(Vec<u8>),
    /// A binary message.
    Binary(Vec<u8>),
    /// The peer closed in order, with this code if it gave one.
    Closed(Option<u16>),
    /// The connection broke, or ended without a word.
    Lost,
    /// An HTTP status where another was due.
    Rejected(u16),
    /// The server broke the protocol.
    Violated(String),
}

/// What every link works with.
pub(super) struct World<'w> {
    pub(super) net: &'w SimNet,
    pub(super) rng: &'w mut StdRng,
}

impl World<'_> {
    fn connect(&self, shard: Option<usize>) -> ClientId {
        match shard {
            Some(shard) => self.net.connect_to(shard),
            None => self.net.connect(),
        }
    }
}

/// A WebSocket.
#[derive(Debug)]
pub(super) struct WebSocket {
    pub(super) id: ClientId,
    /// The value of `Sec-WebSocket-Accept` that is due, until the response is there.
    accept: Option<[u8; 28]>,
    unread: Vec<u8>,
    decoder: Decoder,
    is_closing: bool,
    has_probed: bool,
}

impl WebSocket {
    pub(super) fn open(world: &mut World<'_>, target: &str, shard: Option<usize>) -> Self {
        let id = world.connect(shard);
        let mut nonce = [0; 16];
        world.rng.fill_bytes(&mut nonce);
        let key = base64_simd::STANDARD.encode_to_string(nonce);
        world.net.client_send(id, &upgrade_request(target, "sim", &key));
        let accept = Some(accept_key(key.as_bytes()));
        Self {
            id,
            accept,
            unread: Vec::new(),
            decoder: Decoder::client(),
            is_closing: false,
            has_probed: false,
        }
    }

    pub(super) fn is_open(&self) -> bool {
        self.accept.is_none() && !self.is_closing
    }

    pub(super) fn is_connecting(&self) -> bool {
        self.accept.is_some()
    }

    /// Open, and said nothing yet. `true` once.
    pub(super) fn is_ready_to_probe(&mut self) -> bool {
        self.is_open() && !std::mem::replace(&mut self.has_probed, true)
    }

    pub(super) fn send(&self, world: &mut World<'_>, opcode: Opcode, payload: &[u8]) {
        let mut frame = Vec::with_capacity(payload.len() + 14);
        write_masked(&mut frame, opcode, true, world.rng.random(), payload);
        world.net.client_send(self.id, &frame);
    }

    /// Sends a close frame, which the server answers.
    pub(super) fn close(&mut self, world: &mut World<'_>) {
        if self.is_open() {
            self.is_closing = true;
            let frame = close_frame(CloseCode::NORMAL, "");
            self.send(world, Opcode::Close, &frame[2..]);
        }
    }

    /// Takes in the bytes that came.
    pub(super) fn hear(&mut self, world: &mut World<'_>, bytes: &[u8], heard: &mut Vec<Heard>) {
        self.unread.extend_from_slice(bytes);
        if self.accept.is_some() && !self.read_response(heard) {
            return;
        }
        let mut unread = std::mem::take(&mut self.unread);
        let mut at = 0;
        let mut decoder = std::mem::replace(&mut self.decoder, Decoder::client());
        loop {
            let event = match decoder.next(&mut unread, &mut at, MESSAGE_BYTES_MAX) {
                Ok(Some(event)) => event,
                Ok(None) => break,
                Err(error) => {
                    heard.push(Heard::Violated(error.to_string()));
                    break;
                }
            };
            match event {
                Event::Text(text) => heard.push(Heard::Packet(text.to_vec())),
                Event::Binary(bytes) => heard.push(Heard::Binary(bytes.to_vec())),
                Event::Ping(payload) => self.send(world, Opcode::Pong, payload),
                Event::Pong(_) => {}
                Event::Close(frame) => {
                    let code = frame.map(|frame| frame.code.get());
                    if !self.is_closing {
                        let answer = close_frame(CloseCode::NORMAL, "");
                        self.send(world, Opcode::Close, &answer[2..]);
                        self.is_closing = true;
                    }
                    heard.push(Heard::Closed(code));
                }
            }
        }
        unread.drain(..at);
        self.unread = unread;
        self.decoder = decoder;
    }

    /// `true` once the server has agreed to speak WebSocket.
    fn read_response(&mut self, heard: &mut Vec<Heard>) -> bool {
        match Response::parse(&mut self.unread) {
            Ok(None) => false,
            Ok(Some(response)) if response.status == 101 => {
                if response.accept.as_deref() != self.accept.as_ref().map(|accept| &accept[..]) {
                    heard.push(Heard::Violated("another Sec-WebSocket-Accept is due".to_owned()));
                }
                self.accept = None;
                true
            }
            Ok(Some(response)) => {
                heard.push(Heard::Rejected(response.status));
                false
            }
            Err(error) => {
                heard.push(Heard::Violated(error));
                false
            }
        }
    }
}

/// A response: its status, and its body if that is of a known length.
#[derive(Debug)]
struct Response {
    status: u16,
    accept: Option<Vec<u8>>,
    closes: bool,
    body: Vec<u8>,
}

impl Response {
    /// Takes a whole response off the front of `unread`.
    fn parse(unread: &mut Vec<u8>) -> Result<Option<Self>, String> {
        let mut fields = [httparse::EMPTY_HEADER; 32];
        let mut response = httparse::Response::new(&mut fields);
        let head_len = match response.parse(unread) {
            Ok(httparse::Status::Complete(len)) => len,
            Ok(httparse::Status::Partial) => return Ok(None),
            Err(error) => return Err(format!("no HTTP response: {error}")),
        };
        let field = |name: &str| {
            let found = response.headers.iter().find(|field| field.name.eq_ignore_ascii_case(name));
            found.map(|field| field.value)
        };
        let length = field("content-length").and_then(|value| std::str::from_utf8(value).ok());
        let length: usize = length.and_then(|value| value.parse().ok()).unwrap_or(0);
        if unread.len() < head_len + length {
            return Ok(None);
        }
        let taken = Self {
            status: response.code.unwrap_or(0),
            accept: field("sec-websocket-accept").map(<[u8]>::to_vec),
            closes: field("connection").is_some_and(|value| value.eq_ignore_ascii_case(b"close")),
            body: unread[head_len..head_len + length].to_vec(),
        };
        unread.drain(..head_len + length);
        Ok(Some(taken))
    }
}

/// One keep-alive connection of polling, with at most one request in work.
#[derive(Debug, Default)]
struct Requests {
    id: Option<ClientId>,
    unread: Vec<u8>,
    is_busy: bool,
}

impl Requests {
    fn send(&mut self, world: &World<'_>, shard: Option<usize>, request: &[u8]) {
        let id = *self.id.get_or_insert_with(|| world.connect(shard));
        world.net.client_send(id, request);
        self.is_busy = true;
    }

    fn hear(&mut self, world: &World<'_>, bytes: &[u8]) -> Result<Option<Response>, String> {
        self.unread.extend_from_slice(bytes);
        if !self.is_busy {
            return Ok(None);
        }
        let response = Response::parse(&mut self.unread)?;
        if let Some(response) = &response {
            self.is_busy = false;
            if response.closes {
                self.close(world);
            }
        }
        Ok(response)
    }

    fn close(&mut self, world: &World<'_>) {
        self.unread.clear();
        if let Some(id) = self.id.take() {
            world.net.client_close(id);
        }
    }
}

/// Long-polling: one connection for what comes, one for what goes.
#[derive(Debug)]
pub(super) struct Polling {
    path: String,
    shard: Option<usize>,
    sid: Option<String>,
    polls: Requests,
    posts: Requests,
    queue: Vec<Outgoing>,
    /// An upgrade is under way: no new requests.
    pub(super) is_paused: bool,
    /// The session is over: no new polls.
    is_over: bool,
}

/// A packet that waits for a carrier.
#[derive(Debug)]
pub(super) enum Outgoing {
    Packet(Vec<u8>),
    Binary(Vec<u8>),
}

impl Polling {
    pub(super) fn open(world: &World<'_>, path: &str, shard: Option<usize>) -> Self {
        let mut polling = Self {
            path: path.to_owned(),
            shard,
            sid: None,
            polls: Requests::default(),
            posts: Requests::default(),
            queue: Vec::new(),
            is_paused: false,
            is_over: false,
        };
        polling.poll(world);
        polling
    }

    pub(super) fn ids(&self) -> impl Iterator<Item = ClientId> + use<> {
        self.polls.id.into_iter().chain(self.posts.id)
    }

    pub(super) fn opened(&mut self, sid: &str) {
        self.sid = Some(sid.to_owned());
    }

    /// Whether no request is in work.
    pub(super) fn is_quiet(&self) -> bool {
        !self.polls.is_busy && !self.posts.is_busy
    }

    pub(super) fn send(&mut self, world: &World<'_>, packet: Outgoing) {
        self.queue.push(packet);
        self.post(world);
    }

    pub(super) fn take_queue(&mut self) -> Vec<Outgoing> {
        std::mem::take(&mut self.queue)
    }

    fn target(&self) -> String {
        let sid = self.sid.as_ref().map(|sid| format!("&sid={sid}")).unwrap_or_default();
        format!("{}?EIO=4&transport=polling{sid}", self.path)
    }

    fn poll(&mut self, world: &World<'_>) {
        if !self.polls.is_busy && !self.is_paused && !self.is_over {
            let request = format!("GET {} HTTP/1.1\r\nHost: sim\r\n\r\n", self.target());
            self.polls.send(world, self.shard, request.as_bytes());
        }
    }

    fn post(&mut self, world: &World<'_>) {
        if self.posts.is_busy || self.is_paused || self.queue.is_empty() || self.sid.is_none() {
            return;
        }
        let mut body = Vec::new();
        let mut payload = PayloadWriter::new(&mut body);
        for packet in self.queue.drain(..) {
            match packet {
                Outgoing::Packet(packet) => payload.packet(&packet),
                Outgoing::Binary(bytes) => payload.binary(&bytes),
            }
        }
        let target = self.target();
        let mut request = format!(
            "POST {target} HTTP/1.1\r\nHost: sim\r\nContent-Type: text/plain;charset=UTF-8\r\n\
             Content-Length: {}\r\n\r\n",
            body.len()
        )
        .into_bytes();
        request.extend_from_slice(&body);
        self.posts.send(world, self.shard, &request);
    }

    /// Goes on with whatever is allowed now.
    pub(super) fn resume(&mut self, world: &World<'_>) {
        if self.sid.is_some() {
            self.poll(world);
            self.post(world);
        }
    }

    /// Takes in bytes of one of the two connections, or its end.
    pub(super) fn hear(
        &mut self,
        world: &World<'_>,
        id: ClientId,
        bytes: &[u8],
        heard: &mut Vec<Heard>,
    ) {
        let is_poll = self.polls.id == Some(id);
        let requests = if is_poll { &mut self.polls } else { &mut self.posts };
        match requests.hear(world, bytes) {
            Ok(Some(mut response)) if response.status == 200 => match is_poll {
                true => self.read_payload(&mut response.body, heard),
                false if response.body != b"ok" => {
                    heard.push(Heard::Violated("a POST is answered ok".to_owned()));
                }
                false => {}
            },
            Ok(Some(response)) => heard.push(Heard::Rejected(response.status)),
            Ok(None) => {}
            Err(error) => heard.push(Heard::Violated(error)),
        }
        let requests = if is_poll { &mut self.polls } else { &mut self.posts };
        if requests.id == Some(id) && world.net.client_state(id) != ClientState::Open {
            requests.close(world);
            // Between two requests the server may close as it likes.
            if std::mem::take(&mut requests.is_busy) {
                heard.push(Heard::Lost);
            }
        }
    }

    fn read_payload(&mut self, body: &mut [u8], heard: &mut Vec<Heard>) {
        for packet in split(body) {
            match packet {
                Ok(PayloadPacket::Packet(kind, data)) => {
                    let mut packet = vec![kind.digit()];
                    packet.extend_from_slice(data);
                    heard.push(Heard::Packet(packet));
                }
                Ok(PayloadPacket::Binary(bytes)) => heard.push(Heard::Binary(bytes.to_vec())),
                Err(error) => heard.push(Heard::Violated(error.to_string())),
            }
        }
    }

    pub(super) fn is_over_and_quiet(&self) -> bool {
        self.is_over && self.is_quiet() && self.queue.is_empty()
    }

    /// No more polls; what is queued still goes.
    pub(super) fn finish(&mut self) {
        self.is_over = true;
    }

    pub(super) fn close(&mut self, world: &World<'_>) {
        self.polls.close(world);
        self.posts.close(world);
    }
}
