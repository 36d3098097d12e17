//! Many Socket.IO clients on one thread: connects them, reads what comes, hands packets on.
//!
//! One poller, one read buffer, and per client a descriptor and a few words; bytes are kept for a
//! client only while half a frame waits. What the clients do with packets is a [`Work`]'s
//! business; what they cost the machine must stay far below what the server costs, and the
//! commands report when it did not.

mod polling;

use std::collections::HashMap;
use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use clap::ValueEnum;
use mio::net::TcpStream;
use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token};
use serde::{Deserialize, Serialize};
use socket2::{Domain, Protocol, Socket, Type};

use crate::Failure;
use crate::system::Timer;
use crate::target::Target;
use crate::wire;
use polling::Polling;

/// How clients connect.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Transport {
    #[default]
    Websocket,
    /// All but those that publish.
    Polling,
}

impl Transport {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Websocket => "websocket",
            Self::Polling => "polling",
        }
    }
}

/// Where a client stands on its way into the namespace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    /// TCP, then the answer to the upgrade request.
    Upgrading,
    /// The open packet.
    Opening,
    /// The namespace's answer.
    Joining,
    /// The acknowledgement of `join`.
    Rooming,
    Ready,
    Closed,
}

/// One client. What a [`Work`] keeps about it lies in `next`.
#[derive(Debug)]
pub(crate) struct Client {
    stream: Option<TcpStream>,
    /// The beginning of a frame that has not come whole.
    partial: Vec<u8>,
    /// Only for clients that poll.
    polling: Option<Box<Polling>>,
    /// The sequence number that must come next; 0 before the first.
    pub(crate) next: u64,
    pub(crate) phase: Phase,
}

/// A client may cost a kibibyte. What it holds for a moment (half a frame, bytes that its socket
/// did not take) comes on top, what a run remembers of it is some words more.
const CLIENT_BYTES_MAX: usize = 1_024;
const _: () = assert!(2 * (size_of::<Client>() + size_of::<Polling>()) < CLIENT_BYTES_MAX);

/// What the clients do once they are in the namespace.
pub(crate) trait Work {
    /// A Socket.IO packet for client `who`: `2…` an event, `3…` an acknowledgement. Bytes put
    /// into `reply` are sent to the server by this client.
    fn packet(
        &mut self,
        who: u32,
        client: &mut Client,
        packet: &[u8],
        reply: &mut Vec<u8>,
    ) -> Result<(), String>;

    /// Called once per read, before its packets: now is the time of receipt.
    fn received(&mut self) {}

    /// A client begins to connect.
    fn connecting(&mut self, _who: u32) {}

    /// A client has come so far that it can be used.
    fn ready(&mut self, _who: u32) {}

    /// The server has closed a connection; an error makes the run fail.
    fn closed(&mut self, who: u32) -> Result<(), String> {
        Err(format!("the server closed the connection of client {who}"))
    }
}

/// Which of a run's clients these are, and what sets their process apart from the others.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
pub(crate) struct Seat {
    /// The number of the first client among all of the run: it chooses the server.
    pub(crate) first: u32,
    /// So many from the first on publish, and so connect by WebSocket.
    pub(crate) publishers: u32,
    /// 0 for the process of the command; workers have source addresses of their own.
    pub(crate) worker: u8,
}

// Clients' tokens are their numbers; whatever is none lies beyond `u32::MAX`.
const TIMER: Token = Token(usize::MAX);
const BELL: Token = Token(usize::MAX - 1);
/// The second connection of a polling client, with its number below.
const SIDE: usize = 1 << 40;

/// Connections from one source address, of the 28 232 ports that there are by default.
const CONNECTIONS_PER_ADDRESS: u32 = 25_000;
/// Source addresses of one process: those of 127.n.0.0/16 less a few.
const ADDRESSES: u32 = 60_000;
const READ_BYTES: usize = 256 * 1024;

pub(crate) struct Swarm {
    poll: Poll,
    events: Events,
    clients: Vec<Client>,
    buffer: Box<[u8]>,
    reply: Vec<u8>,
    /// What a full socket has not taken yet.
    unsent: HashMap<u32, Vec<u8>>,
    pub(crate) transport: Transport,
    seat: Seat,
    /// The servers; clients go round among them.
    targets: Vec<Target>,
    /// The upgrade request to each.
    requests: Vec<Vec<u8>>,
    /// The rooms that a client joins on its way in.
    rooms: Box<dyn Fn(u32) -> Option<String>>,
    timer: Timer,
    /// A descriptor of [`watch`](Self::watch) has something to say.
    rung: bool,
    pub(crate) ready: u32,
    pub(crate) connecting: u32,
    /// Connections begun so far: they choose the source address.
    opened: u32,
    ports: u32,
}

impl Swarm {
    /// Some clients of a run; `rooms` says what client `who` of them joins on its way in.
    pub(crate) fn new(
        targets: Vec<Target>,
        seat: Seat,
        rooms: impl Fn(u32) -> Option<String> + 'static,
    ) -> Result<Self, Failure> {
        let poll = Poll::new().map_err(Failure::io("make a poller"))?;
        let timer = Timer::new().map_err(Failure::io("make a timer"))?;
        poll.registry()
            .register(&mut SourceFd(&timer.fd()), TIMER, Interest::READABLE)
            .map_err(Failure::io("watch a timer"))?;
        Ok(Self {
            poll,
            events: Events::with_capacity(1024),
            clients: Vec::new(),
            // Not zero, so that its memory is there before the clients'.
            buffer: vec![0xff; READ_BYTES].into_boxed_slice(),
            reply: Vec::new(),
            unsent: HashMap::new(),
            transport: Transport::default(),
            seat,
            requests: targets.iter().map(|it| wire::upgrade_request(&it.host, &it.path)).collect(),
            targets,
            rooms: Box::new(rooms),
            timer,
            rung: false,
            ready: 0,
            connecting: 0,
            opened: 0,
            // Some are left for others.
            ports: (crate::system::source_ports() / 8 * 7).clamp(1, CONNECTIONS_PER_ADDRESS),
        })
    }

    /// Ends turns when `fd` can be read, or written after it could not.
    pub(crate) fn watch(&self, fd: i32) -> Result<(), Failure> {
        let interest = Interest::READABLE | Interest::WRITABLE;
        let watched = self.poll.registry().register(&mut SourceFd(&fd), BELL, interest);
        watched.map_err(Failure::io("watch another process"))
    }

    /// Whether a watched descriptor has changed since the last call.
    pub(crate) fn has_rung(&mut self) -> bool {
        std::mem::take(&mut self.rung)
    }

    pub(crate) fn len(&self) -> u32 {
        self.clients.len() as u32
    }

    pub(crate) fn client(&mut self, who: u32) -> &mut Client {
        &mut self.clients[who as usize]
    }

    /// Adds a client that has no connection yet.
    pub(crate) fn add(&mut self) -> u32 {
        self.clients.push(Client::new());
        self.len() - 1
    }

    /// Connects until `count` clients are ready, some hundred at a time.
    pub(crate) fn grow(
        &mut self,
        count: u32,
        work: &mut impl Work,
        mut progress: impl FnMut(u32),
    ) -> Result<(), Failure> {
        const AT_ONCE: u32 = 256;
        const PATIENCE: Duration = Duration::from_secs(20);
        // Doubling would leave up to half of it unused.
        self.clients.reserve_exact(count.saturating_sub(self.len()) as usize);
        let mut last = (self.ready, Instant::now());
        while self.ready < count {
            while self.connecting < AT_ONCE && self.len() < count {
                let who = self.add();
                work.connecting(who);
                self.connect(who)?;
            }
            self.turn(Some(Duration::from_millis(100)), work)?;
            progress(self.ready);
            if crate::system::interrupted() {
                return Err(Failure::InterruptedAt { ready: self.ready, clients: count });
            }
            if self.ready != last.0 {
                last = (self.ready, Instant::now());
            } else if last.1.elapsed() > PATIENCE {
                return Err(Failure::Protocol(format!(
                    "only {} of {count} clients got in, and no more within {PATIENCE:?}",
                    self.ready
                )));
            }
        }
        Ok(())
    }

    /// Begins to connect a client that has no connection.
    pub(crate) fn connect(&mut self, who: u32) -> Result<(), Failure> {
        let server = self.server_of(who);
        let stream = self.open(server, Token(who as usize))?;
        let polls = self.transport == Transport::Polling && who >= self.seat.publishers;
        self.connecting += 1;
        let client = &mut self.clients[who as usize];
        client.stream = Some(stream);
        client.partial = Vec::new();
        client.next = 0;
        if polls {
            client.phase = Phase::Opening;
            client.polling = Some(Polling::new());
            let request = self.poll_request(who, None);
            return self.write(who, &request);
        }
        client.phase = Phase::Upgrading;
        let request = std::mem::take(&mut self.requests[server]);
        let sent = self.write(who, &request);
        self.requests[server] = request;
        sent
    }

    fn server_of(&self, who: u32) -> usize {
        (self.seat.first + who) as usize % self.targets.len()
    }

    /// One more connection to a server.
    fn open(&mut self, server: usize, token: Token) -> Result<TcpStream, Failure> {
        let mut stream = self.begin(server).map_err(|error| match error.raw_os_error() {
            Some(libc::EMFILE) => Failure::DescriptorsAt(self.len()),
            Some(libc::ENFILE) => Failure::SystemDescriptorsAt(self.len()),
            Some(libc::EADDRNOTAVAIL) => Failure::PortsAt(self.opened),
            _ => Failure::io("connect")(error),
        })?;
        self.opened = self.opened.wrapping_add(1);
        let interest = Interest::READABLE | Interest::WRITABLE;
        let watched = self.poll.registry().register(&mut stream, token, interest);
        watched.map_err(Failure::io("watch a connection"))?;
        Ok(stream)
    }

    fn begin(&self, server: usize) -> io::Result<TcpStream> {
        let address = self.targets[server].address;
        let SocketAddr::V4(to) = address else {
            return TcpStream::connect(address);
        };
        let socket = Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::TCP))?;
        socket.set_nonblocking(true)?;
        socket.set_tcp_nodelay(true)?;
        let block = self.opened / self.ports;
        if to.ip().is_loopback() && (block > 0 || self.seat.worker > 0) {
            // More connections than one address has ports: every 127.x.y.z is ours, and each
            // process has its own x. Ports of connections that were closed stay taken for a
            // minute.
            let [_, _, b, c] = (block % ADDRESSES + 1).to_be_bytes();
            let from = Ipv4Addr::new(127, self.seat.worker + 1, b, c);
            crate::system::bind_address_no_port(&socket)?;
            socket.bind(&SocketAddr::new(IpAddr::V4(from), 0).into())?;
        }
        match socket.connect(&address.into()) {
            Err(error) if error.raw_os_error() != Some(libc::EINPROGRESS) => Err(error),
            _ => Ok(TcpStream::from_std(socket.into())),
        }
    }

    /// Closes a client's connection without a word.
    pub(crate) fn close(&mut self, who: u32) {
        let client = &mut self.clients[who as usize];
        let Some(mut stream) = client.stream.take() else { return };
        let _ = self.poll.registry().deregister(&mut stream);
        match client.phase {
            Phase::Ready => self.ready -= 1,
            Phase::Closed => {}
            _ => self.connecting -= 1,
        }
        client.phase = Phase::Closed;
        client.partial = Vec::new();
        client.polling = None;
        self.unsent.remove(&who);
    }

    /// Closes all connections and forgets the clients.
    pub(crate) fn clear(&mut self) {
        for who in 0..self.len() {
            self.close(who);
        }
        self.clients.clear();
    }

    /// Sends frames for a client, by whatever its transport makes of them.
    pub(crate) fn send(&mut self, who: u32, frames: &[u8]) -> Result<(), Failure> {
        match self.clients[who as usize].polling {
            Some(_) => self.post(who, frames),
            None => self.write(who, frames),
        }
    }

    /// Writes to a client's connection; what its socket does not take leaves when it can.
    fn write(&mut self, who: u32, bytes: &[u8]) -> Result<(), Failure> {
        if let Some(waiting) = self.unsent.get_mut(&who) {
            waiting.extend_from_slice(bytes);
            return Ok(());
        }
        let Some(stream) = &mut self.clients[who as usize].stream else { return Ok(()) };
        let sent = match stream.write(bytes) {
            Ok(sent) => sent,
            Err(error) if is_not_yet(&error) => 0,
            Err(error) => return Err(self.failed(who, "send", error)),
        };
        if sent < bytes.len() {
            self.unsent.insert(who, bytes[sent..].to_vec());
        }
        Ok(())
    }

    #[cold]
    fn failed(&self, who: u32, what: &'static str, error: io::Error) -> Failure {
        match error.kind() {
            io::ErrorKind::ConnectionRefused
            | io::ErrorKind::HostUnreachable
            | io::ErrorKind::NetworkUnreachable
            | io::ErrorKind::TimedOut => {
                Failure::Unreachable(self.targets[self.server_of(who)].address, error)
            }
            _ => Failure::io(what)(error),
        }
    }

    /// Wakes the next [`turn`](Self::turn) after `wait`, with more precision than its timeout has.
    pub(crate) fn wake_in(&self, wait: Duration) -> Result<(), Failure> {
        self.timer.set(wait).map_err(Failure::io("set a timer"))
    }

    /// Waits for events once and handles them.
    pub(crate) fn turn(
        &mut self,
        timeout: Option<Duration>,
        work: &mut impl Work,
    ) -> Result<(), Failure> {
        match self.poll.poll(&mut self.events, timeout) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return Ok(()),
            other => other.map_err(Failure::io("poll"))?,
        }
        let events = std::mem::replace(&mut self.events, Events::with_capacity(0));
        let mut outcome = Ok(());
        for event in &events {
            let Token(who) = event.token();
            if who > u32::MAX as usize {
                self.rung |= event.token() == BELL;
                if who & SIDE != 0 && event.token() < BELL {
                    outcome = self.side_event(who as u32, event.is_writable());
                }
                if outcome.is_err() {
                    break;
                }
                continue;
            }
            if event.is_writable() && !self.unsent.is_empty() {
                outcome = self.flush(who as u32);
            }
            if outcome.is_ok() && event.is_readable() {
                outcome = self.read(who as u32, work);
            }
            if outcome.is_err() {
                break;
            }
        }
        self.events = events;
        outcome
    }

    fn flush(&mut self, who: u32) -> Result<(), Failure> {
        match self.unsent.remove(&who) {
            Some(bytes) => self.write(who, &bytes),
            None => Ok(()),
        }
    }

    /// Reads until the socket is empty: the poller reports a change once.
    fn read(&mut self, who: u32, work: &mut impl Work) -> Result<(), Failure> {
        loop {
            let Some(client) = self.clients.get_mut(who as usize) else { return Ok(()) };
            let Some(stream) = &mut client.stream else { return Ok(()) };
            let length = match stream.read(&mut self.buffer) {
                Ok(0) => return self.ended(who, work),
                Ok(length) => length,
                Err(error) if is_not_yet(&error) => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::ConnectionReset => {
                    return self.ended(who, work);
                }
                Err(error) => return Err(self.failed(who, "receive", error)),
            };
            work.received();
            let kept = std::mem::take(&mut client.partial);
            let alive = self.consume(who, kept, length, work)?;
            // A short read emptied the socket.
            if length < self.buffer.len() || !alive {
                return Ok(());
            }
        }
    }

    /// Takes the frames out of what was read, and keeps what is left. `false`: the client is gone.
    fn consume(
        &mut self,
        who: u32,
        mut kept: Vec<u8>,
        length: usize,
        work: &mut impl Work,
    ) -> Result<bool, Failure> {
        let fault = |why: &str| Failure::Protocol(format!("client {who}: {why}"));
        // Taken out so that packets may be handled while they lie in it.
        let buffer = std::mem::take(&mut self.buffer);
        let fresh = kept.is_empty();
        if !fresh {
            kept.extend_from_slice(&buffer[..length]);
        }
        let bytes = if fresh { &buffer[..length] } else { &kept[..] };
        if self.clients[who as usize].polling.is_some() {
            let used = self.poll_answers(who, bytes, work);
            let left = used.as_ref().map_or(Vec::new(), |used| bytes[*used..].to_vec());
            self.buffer = buffer;
            self.clients[who as usize].partial = left;
            return used.map(|_| true);
        }
        let mut at = 0;
        let outcome = loop {
            let rest = &bytes[at..];
            if self.clients[who as usize].phase == Phase::Upgrading {
                match upgraded(rest) {
                    Ok(Some(end)) => {
                        self.clients[who as usize].phase = Phase::Opening;
                        at += end;
                        continue;
                    }
                    Ok(None) => break Ok(()),
                    Err(why) => break Err(fault(&why)),
                }
            }
            match wire::frame(rest) {
                Ok(Some(frame)) => {
                    at += frame.end;
                    let packet = &rest[frame.start..frame.end];
                    match frame.opcode {
                        1 => match self.packet(who, packet, work) {
                            Ok(()) => {}
                            Err(why) => break Err(fault(&why)),
                        },
                        8 => break Err(fault("the server closed the WebSocket")),
                        _ => break Err(fault("a frame that the contract has no use for")),
                    }
                }
                Ok(None) => break Ok(()),
                Err(why) => break Err(fault(why)),
            }
        };
        let left = match bytes.len() - at {
            0 => Vec::new(),
            _ if at == 0 && !fresh => kept,
            _ => bytes[at..].to_vec(),
        };
        self.buffer = buffer;
        self.clients[who as usize].partial = left;
        outcome?;
        if !self.reply.is_empty() {
            let mut reply = std::mem::take(&mut self.reply);
            self.write(who, &reply)?;
            reply.clear();
            self.reply = reply;
        }
        Ok(self.clients[who as usize].stream.is_some())
    }

    /// One Engine.IO packet.
    #[inline]
    fn packet(&mut self, who: u32, packet: &[u8], work: &mut impl Work) -> Result<(), String> {
        let client = &mut self.clients[who as usize];
        match packet {
            [b'4', message @ ..] if client.phase == Phase::Ready => {
                work.packet(who, client, message, &mut self.reply)
            }
            b"2" => {
                wire::client_frame(&mut self.reply, b"3");
                Ok(())
            }
            [b'0', ..] if client.phase == Phase::Opening => {
                client.phase = Phase::Joining;
                wire::client_frame(&mut self.reply, b"40");
                Ok(())
            }
            [b'4', b'0', ..] if client.phase == Phase::Joining => match (self.rooms)(who) {
                Some(rooms) => {
                    client.phase = Phase::Rooming;
                    let join = format!("42{}[\"join\",{rooms}]", wire::FIRST_ACK);
                    wire::client_frame(&mut self.reply, join.as_bytes());
                    Ok(())
                }
                None => {
                    self.came_in(who, work);
                    Ok(())
                }
            },
            [b'4', b'3', ..] if client.phase == Phase::Rooming => {
                self.came_in(who, work);
                Ok(())
            }
            // Somebody publishes while we are still on our way in.
            [b'4', b'2', ..] if client.phase == Phase::Rooming => Ok(()),
            other => {
                let text = String::from_utf8_lossy(&other[..other.len().min(60)]).into_owned();
                Err(format!("unexpected packet {text:?} while {:?}", client.phase))
            }
        }
    }

    fn came_in(&mut self, who: u32, work: &mut impl Work) {
        self.clients[who as usize].phase = Phase::Ready;
        self.connecting -= 1;
        self.ready += 1;
        work.ready(who);
    }

    fn ended(&mut self, who: u32, work: &mut impl Work) -> Result<(), Failure> {
        let phase = self.clients[who as usize].phase;
        self.close(who);
        if phase != Phase::Ready {
            return Err(Failure::Protocol(format!("client {who} was closed while {phase:?}")));
        }
        work.closed(who).map_err(Failure::Protocol)
    }
}

impl Client {
    pub(crate) const fn new() -> Self {
        Self { stream: None, partial: Vec::new(), polling: None, next: 0, phase: Phase::Closed }
    }
}

/// Bytes of the head of an answer.
const HEAD_BYTES_MAX: usize = 16 * 1024;

/// Where the head of an HTTP answer ends, once it is whole.
fn end_of_head(bytes: &[u8]) -> Result<Option<usize>, String> {
    let most = bytes.len().min(HEAD_BYTES_MAX);
    match memchr::memmem::find(&bytes[..most], b"\r\n\r\n") {
        None if most == HEAD_BYTES_MAX => Err("a head without an end".to_owned()),
        found => Ok(found),
    }
}

/// The end of the answer to the upgrade request.
fn upgraded(bytes: &[u8]) -> Result<Option<usize>, String> {
    let Some(end) = end_of_head(bytes)? else { return Ok(None) };
    let head = &bytes[..end];
    if !head.starts_with(b"HTTP/1.1 101 ") {
        let line = head.split(|byte| *byte == b'\r').next().unwrap_or_default();
        return Err(format!("no upgrade: {}", String::from_utf8_lossy(line)));
    }
    if memchr::memmem::find(head, wire::ACCEPT.as_bytes()).is_none() {
        return Err("the upgrade answers another key".to_owned());
    }
    Ok(Some(end + 4))
}

fn is_not_yet(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::NotConnected)
        || error.raw_os_error() == Some(libc::EAGAIN)
}
