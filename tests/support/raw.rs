//! Clients of bytes: HTTP by hand, WebSocket frames by hand, and just enough Socket.IO on top.
//!
//! Everything blocks, and everything has a deadline ([`LIMIT`]): a server that owes an answer and
//! does not give it fails the test that waits. Nothing here is shared with the engine's own codecs,
//! so a mistake there is not made twice.

#![allow(dead_code, reason = "each test binary uses its own part")]

use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use socket2::{Domain, SockRef, Socket as Socket2, Type};
use stentor::{Bound, DriverKind, Handle, Running, Server, ServerBuilder};

use crate::tools;

/// Far more than anything here takes: a debug build on a busy machine still fits.
pub(crate) const LIMIT: Duration = Duration::from_secs(20);

/// Makes each claim two tests: one on io_uring, one on readiness.
macro_rules! on_both_drivers {
    ($($claim:ident),* $(,)?) => {
        mod on_io_uring {
            $(#[test]
            fn $claim() {
                if crate::raw::io_uring_is_there(stringify!($claim)) {
                    super::$claim(stentor::DriverKind::Uring);
                }
            })*
        }
        mod on_mio {
            $(#[test]
            fn $claim() {
                super::$claim(stentor::DriverKind::Mio);
            })*
        }
    };
}
pub(crate) use on_both_drivers;

pub(crate) fn io_uring_is_there(claim: &str) -> bool {
    let there = tools::has_io_uring();
    if !there {
        tools::leave_out_uring(claim);
    }
    there
}

/// Waits for a condition, but not for ever.
#[track_caller]
pub(crate) fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let started = Instant::now();
    while !is_so() {
        assert!(started.elapsed() < LIMIT, "not within {LIMIT:?}: {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// A running server; dropping it shuts it down. Declare it before its clients.
pub(crate) struct TestServer {
    pub(crate) addr: SocketAddr,
    pub(crate) handle: Handle,
    running: Option<Running>,
}

impl TestServer {
    /// One shard.
    pub(crate) fn start(
        driver: DriverKind,
        fill: impl FnOnce(ServerBuilder) -> ServerBuilder,
    ) -> Self {
        Self::start_on(driver, 1, fill)
    }

    pub(crate) fn start_on(
        driver: DriverKind,
        shards: usize,
        fill: impl FnOnce(ServerBuilder) -> ServerBuilder,
    ) -> Self {
        let builder = fill(Server::builder().driver(driver).shards(shards));
        Self::spawn(builder.bind("127.0.0.1:0").expect("a free port"))
    }

    pub(crate) fn spawn(bound: Bound) -> Self {
        let (addr, handle) = (bound.local_addr(), bound.handle());
        let running = Some(bound.spawn().expect("the shards start"));
        Self { addr, handle, running }
    }

    /// Shuts down and waits for the end.
    pub(crate) fn end(mut self, deadline: Duration) -> stentor::Result<()> {
        drop(self.handle.shutdown(deadline));
        self.running.take().expect("ends once").join()
    }

    /// Waits for the end that somebody else has begun.
    pub(crate) fn join(mut self) -> stentor::Result<()> {
        self.running.take().expect("ends once").join()
    }

    pub(crate) fn client(&self) -> Client {
        Client::connect(self.addr)
    }

    pub(crate) fn raw(&self) -> Raw {
        Raw::connect(self.addr)
    }
}

impl Drop for TestServer {
    fn drop(&mut self) {
        let Some(running) = self.running.take() else { return };
        // Begins at once; `join` waits for its end.
        drop(self.handle.shutdown(Duration::from_secs(1)));
        let ended = running.join();
        if !std::thread::panicking() {
            ended.expect("the shards end well");
        }
    }
}

// ---- bytes ----

/// One TCP connection.
pub(crate) struct Raw {
    pub(crate) stream: TcpStream,
    /// Read but not yet consumed.
    buf: Vec<u8>,
}

impl Raw {
    pub(crate) fn connect(addr: SocketAddr) -> Self {
        Self::of(TcpStream::connect(addr).expect("the server listens"))
    }

    /// A peer that can hold next to nothing for itself.
    pub(crate) fn connect_narrow(addr: SocketAddr) -> Self {
        let socket = Socket2::new(Domain::for_address(addr), Type::STREAM, None).expect("a socket");
        socket.set_recv_buffer_size(32 * 1024).expect("a small buffer");
        socket.connect(&addr.into()).expect("the server listens");
        Self::of(socket.into())
    }

    /// From an address of one's own choice.
    pub(crate) fn connect_from(source: IpAddr, addr: SocketAddr) -> Self {
        let socket = Socket2::new(Domain::for_address(addr), Type::STREAM, None).expect("a socket");
        socket.bind(&SocketAddr::new(source, 0).into()).expect("a loopback address");
        socket.connect(&addr.into()).expect("the server listens");
        Self::of(socket.into())
    }

    fn of(stream: TcpStream) -> Self {
        stream.set_nodelay(true).expect("a TCP option");
        stream.set_read_timeout(Some(LIMIT)).expect("a timeout");
        stream.set_write_timeout(Some(LIMIT)).expect("a timeout");
        Self { stream, buf: Vec::new() }
    }

    #[track_caller]
    pub(crate) fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.stream.write_all(bytes.as_ref()).expect("the server takes bytes");
    }

    /// Reads once more. `false`: the server has ended the connection.
    #[track_caller]
    fn fill(&mut self) -> bool {
        let mut chunk = [0; 64 * 1024];
        match self.stream.read(&mut chunk) {
            Ok(0) => false,
            Ok(len) => {
                self.buf.extend_from_slice(&chunk[..len]);
                true
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => self.fill(),
            Err(error)
                if matches!(error.kind(), ErrorKind::ConnectionReset | ErrorKind::BrokenPipe) =>
            {
                false
            }
            Err(error) => panic!("nothing came: {error}; so far {:?}", lossy(&self.buf)),
        }
    }

    #[track_caller]
    pub(crate) fn take(&mut self, len: usize) -> Vec<u8> {
        while self.buf.len() < len {
            assert!(self.fill(), "the connection ended; so far {:?}", lossy(&self.buf));
        }
        self.buf.drain(..len).collect()
    }

    /// Whether the next thing that comes is the end of the connection.
    #[track_caller]
    pub(crate) fn ends(&mut self) -> bool {
        self.buf.is_empty() && !self.fill()
    }

    /// Everything up to the end of the connection.
    #[track_caller]
    pub(crate) fn rest(&mut self) -> Vec<u8> {
        while self.fill() {}
        std::mem::take(&mut self.buf)
    }

    /// Whether nothing has come for `wait`.
    pub(crate) fn is_silent_for(&mut self, wait: Duration) -> bool {
        if !self.buf.is_empty() {
            return false;
        }
        self.stream.set_read_timeout(Some(wait)).expect("a timeout");
        let outcome = loop {
            match self.stream.peek(&mut [0]) {
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                outcome => break outcome,
            }
        };
        self.stream.set_read_timeout(Some(LIMIT)).expect("a timeout");
        let waited = [ErrorKind::WouldBlock, ErrorKind::TimedOut];
        outcome.is_err_and(|error| waited.contains(&error.kind()))
    }

    /// Ends our side only.
    pub(crate) fn half_close(&self) {
        self.stream.shutdown(Shutdown::Write).expect("an open connection");
    }

    /// Ends the connection with a reset.
    pub(crate) fn reset(self) {
        SockRef::from(&self.stream).set_linger(Some(Duration::ZERO)).expect("a TCP option");
    }

    #[track_caller]
    fn take_line(&mut self) -> String {
        loop {
            if let Some(at) = self.buf.windows(2).position(|pair| pair == b"\r\n") {
                let line = lossy(&self.buf[..at]);
                self.buf.drain(..at + 2);
                return line;
            }
            assert!(self.fill(), "the connection ended in a line: {:?}", lossy(&self.buf));
        }
    }

    /// A response head; the body stays where it is.
    #[track_caller]
    pub(crate) fn head(&mut self) -> Response {
        let status_line = self.take_line();
        let status = status_line
            .strip_prefix("HTTP/1.1 ")
            .and_then(|rest| rest.get(..3)?.parse().ok())
            .unwrap_or_else(|| panic!("a status line: {status_line:?}"));
        let mut fields = Vec::new();
        loop {
            let line = self.take_line();
            let Some((name, value)) = line.split_once(':') else {
                assert_eq!(line, "", "a header field");
                break;
            };
            fields.push((name.to_ascii_lowercase(), value.trim().to_owned()));
        }
        Response { status, fields, body: Vec::new() }
    }

    /// A whole response to anything but a HEAD.
    #[track_caller]
    pub(crate) fn response(&mut self) -> Response {
        let mut response = self.head();
        if matches!(response.status, 100..=199 | 204 | 304) {
            return response;
        }
        if response.field("transfer-encoding") == Some("chunked") {
            loop {
                let size = usize::from_str_radix(&self.take_line(), 16).expect("a chunk size");
                response.body.extend(self.take(size));
                assert_eq!(self.take_line(), "");
                if size == 0 {
                    break;
                }
            }
        } else {
            let len = response.field("content-length").expect("a length").parse();
            response.body = self.take(len.expect("a number"));
        }
        response
    }

    #[track_caller]
    pub(crate) fn get(&mut self, target: &str) -> Response {
        self.send(format!("GET {target} HTTP/1.1\r\nHost: here\r\n\r\n"));
        self.response()
    }

    #[track_caller]
    pub(crate) fn post(&mut self, target: &str, body: &str) -> Response {
        self.send(post(target, body));
        self.response()
    }
}

/// A POST with a sized body.
pub(crate) fn post(target: &str, body: &str) -> String {
    let len = body.len();
    format!("POST {target} HTTP/1.1\r\nHost: here\r\nContent-Length: {len}\r\n\r\n{body}")
}

fn lossy(bytes: &[u8]) -> String {
    let end = bytes.len().min(400);
    String::from_utf8_lossy(&bytes[..end]).into_owned()
}

#[derive(Debug)]
pub(crate) struct Response {
    pub(crate) status: u16,
    fields: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl Response {
    pub(crate) fn field(&self, name: &str) -> Option<&str> {
        self.fields.iter().find(|(known, _)| known == name).map(|(_, value)| &**value)
    }

    pub(crate) fn text(&self) -> &str {
        str::from_utf8(&self.body).expect("text")
    }

    /// Whether the server says that this is its last response here.
    pub(crate) fn is_last(&self) -> bool {
        self.field("connection").is_some_and(|value| value.eq_ignore_ascii_case("close"))
    }
}

// ---- WebSocket ----

pub(crate) const CONTINUATION: u8 = 0;
pub(crate) const TEXT: u8 = 1;
pub(crate) const BINARY: u8 = 2;
pub(crate) const CLOSE: u8 = 8;
pub(crate) const PING: u8 = 9;
pub(crate) const PONG: u8 = 10;
/// The bit of the first byte that ends a message.
pub(crate) const FIN: u8 = 0x80;

/// The example key of RFC 6455 and what answers it.
const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

/// A masked frame; `first` is its first byte as it is.
pub(crate) fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    const MASK: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];
    let mut frame = vec![first];
    match payload.len() {
        len @ 0..=125 => frame.push(0x80 | len as u8),
        len @ 126..=0xffff => {
            frame.push(0x80 | 126);
            frame.extend((len as u16).to_be_bytes());
        }
        len => {
            frame.push(0x80 | 127);
            frame.extend((len as u64).to_be_bytes());
        }
    }
    frame.extend(MASK);
    frame.extend(payload.iter().zip(MASK.iter().cycle()).map(|(byte, key)| byte ^ key));
    frame
}

pub(crate) fn text(payload: &str) -> Vec<u8> {
    frame(FIN | TEXT, payload.as_bytes())
}

pub(crate) fn upgrade(target: &str) -> String {
    format!(
        "GET {target} HTTP/1.1\r\nHost: here\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Key: {KEY}\r\nSec-WebSocket-Version: 13\r\n\r\n"
    )
}

pub(crate) const WEBSOCKET: &str = "/socket.io/?EIO=4&transport=websocket";
pub(crate) const POLLING: &str = "/socket.io/?EIO=4&transport=polling";

/// What a server sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Frame {
    pub(crate) fin: bool,
    pub(crate) opcode: u8,
    pub(crate) payload: Vec<u8>,
}

impl Raw {
    #[track_caller]
    pub(crate) fn expect_switch(&mut self) {
        let answer = self.head();
        assert_eq!(answer.status, 101);
        assert_eq!(answer.field("sec-websocket-accept"), Some(ACCEPT));
    }

    /// The next frame; `None` when the connection ends before it is whole.
    #[track_caller]
    pub(crate) fn frame_or_end(&mut self) -> Option<Frame> {
        let is_whole = |buf: &[u8]| {
            let (len, head) = match buf {
                [_, 126, a, b, ..] => (u16::from_be_bytes([*a, *b]).into(), 4),
                [_, 127, rest @ ..] if rest.len() >= 8 => {
                    (u64::from_be_bytes(rest[..8].try_into().expect("8")), 10)
                }
                [_, 126 | 127, ..] => return false,
                [_, len, ..] => (u64::from(*len), 2),
                _ => return false,
            };
            buf.len() as u64 >= head + len
        };
        while !is_whole(&self.buf) {
            if !self.fill() {
                return None;
            }
        }
        Some(self.frame())
    }

    #[track_caller]
    pub(crate) fn frame(&mut self) -> Frame {
        let head = self.take(2);
        assert_eq!(head[0] & 0x70, 0, "no reserved bits");
        assert_eq!(head[1] & 0x80, 0, "servers do not mask");
        let len = match head[1] {
            126 => u16::from_be_bytes(self.take(2).try_into().expect("2")) as usize,
            127 => u64::from_be_bytes(self.take(8).try_into().expect("8")) as usize,
            len => usize::from(len),
        };
        Frame { fin: head[0] & FIN != 0, opcode: head[0] & 15, payload: self.take(len) }
    }

    /// The next text; Engine.IO pings before it are answered.
    #[track_caller]
    pub(crate) fn text(&mut self) -> String {
        loop {
            let frame = self.frame();
            assert_eq!(frame.opcode, TEXT, "{frame:?}");
            match String::from_utf8(frame.payload).expect("UTF-8") {
                ping if ping == "2" => self.send(text("3")),
                text => return text,
            }
        }
    }

    /// The code of the close frame that comes next, after which the connection ends.
    #[track_caller]
    pub(crate) fn close_code(&mut self) -> u16 {
        let frame = self.frame();
        assert_eq!(frame.opcode, CLOSE, "{frame:?}");
        let code = u16::from_be_bytes(frame.payload[..2].try_into().expect("a code"));
        // The peer closes as well: nothing else is owed.
        let _ = self.stream.shutdown(Shutdown::Write);
        assert!(self.ends(), "nothing follows a close frame");
        code
    }
}

// ---- Socket.IO ----

/// A Socket.IO client in `/`, over WebSocket.
pub(crate) struct Client {
    pub(crate) raw: Raw,
    /// The socket's id in `/`.
    pub(crate) id: String,
    /// The session's id.
    pub(crate) sid: String,
}

/// The text between `"sid":"` and the next quote.
#[track_caller]
pub(crate) fn sid_of(text: &str) -> String {
    let rest = text.split_once("\"sid\":\"").unwrap_or_else(|| panic!("an id: {text}")).1;
    rest[..rest.find('"').expect("a quote")].to_owned()
}

impl Client {
    #[track_caller]
    pub(crate) fn connect(addr: SocketAddr) -> Self {
        Self::connect_over(Raw::connect(addr), WEBSOCKET, "")
    }

    /// With an `auth` object.
    #[track_caller]
    pub(crate) fn connect_with(addr: SocketAddr, auth: &str) -> Self {
        Self::connect_over(Raw::connect(addr), WEBSOCKET, auth)
    }

    #[track_caller]
    pub(crate) fn connect_over(raw: Raw, target: &str, auth: &str) -> Self {
        let mut client = Self::open(raw, target);
        client.send(&format!("40{auth}"));
        client.id = sid_of(&client.expect_start("40{"));
        client
    }

    /// A session without a socket yet.
    #[track_caller]
    pub(crate) fn open(mut raw: Raw, target: &str) -> Self {
        raw.send(upgrade(target));
        raw.expect_switch();
        let open = raw.text();
        assert!(open.starts_with("0{"), "{open}");
        Self { raw, id: String::new(), sid: sid_of(&open) }
    }

    #[track_caller]
    pub(crate) fn send(&mut self, packet: &str) {
        self.raw.send(text(packet));
    }

    #[track_caller]
    pub(crate) fn next(&mut self) -> String {
        self.raw.text()
    }

    #[track_caller]
    pub(crate) fn expect(&mut self, packet: &str) {
        assert_eq!(self.next(), packet);
    }

    #[track_caller]
    fn expect_start(&mut self, start: &str) -> String {
        let packet = self.next();
        assert!(packet.starts_with(start), "{packet}");
        packet
    }

    /// Sends an event that asks for an acknowledgement (`event` is the JSON array) and returns
    /// the answer's array.
    #[track_caller]
    pub(crate) fn ask(&mut self, event: &str) -> String {
        self.send(&format!("427{event}"));
        self.answer()
    }

    #[track_caller]
    pub(crate) fn answer(&mut self) -> String {
        let packet = self.expect_start("437");
        packet[3..].to_owned()
    }

    /// Joins a namespace and returns the socket's id there.
    #[track_caller]
    pub(crate) fn join(&mut self, namespace: &str) -> String {
        self.send(&format!("40{namespace},"));
        sid_of(&self.expect_start(&format!("40{namespace},{{")))
    }

    /// Whether the server still does what it is told: needs an `echo` event there.
    #[track_caller]
    pub(crate) fn echoes(&mut self) {
        self.send(r#"42["echo","bystander"]"#);
        self.expect(r#"42["echo","bystander"]"#);
    }
}

/// A session over long-polling, on one connection kept alive.
pub(crate) struct Polling {
    pub(crate) raw: Raw,
    pub(crate) sid: String,
    target: String,
}

impl Polling {
    /// Opens a session.
    #[track_caller]
    pub(crate) fn open(addr: SocketAddr) -> Self {
        Self::open_at(addr, POLLING)
    }

    #[track_caller]
    pub(crate) fn open_at(addr: SocketAddr, target: &str) -> Self {
        Self::open_on(Raw::connect(addr), target)
    }

    #[track_caller]
    fn open_on(mut raw: Raw, target: &str) -> Self {
        let answer = raw.get(target);
        assert_eq!(answer.status, 200, "{answer:?}");
        let sid = sid_of(answer.text());
        Self { raw, target: format!("{target}&sid={sid}"), sid }
    }

    /// Opens a session and joins `/`.
    #[track_caller]
    pub(crate) fn connect(addr: SocketAddr) -> Self {
        Self::connect_on(Raw::connect(addr))
    }

    #[track_caller]
    pub(crate) fn connect_on(raw: Raw) -> Self {
        let mut polling = Self::open_on(raw, POLLING);
        polling.post("40");
        let reply = polling.poll();
        assert!(reply.starts_with("40{"), "{reply}");
        polling
    }

    pub(crate) fn target(&self) -> &str {
        &self.target
    }

    /// The request target of the WebSocket this session may move to.
    pub(crate) fn upgrade_target(&self) -> String {
        self.target.replace("transport=polling", "transport=websocket")
    }

    #[track_caller]
    pub(crate) fn post(&mut self, body: &str) {
        let answer = self.raw.post(&self.target, body);
        assert_eq!((answer.status, answer.text()), (200, "ok"));
    }

    #[track_caller]
    pub(crate) fn poll(&mut self) -> String {
        let answer = self.raw.get(&self.target);
        assert_eq!(answer.status, 200, "{answer:?}");
        answer.text().to_owned()
    }

    /// Sends the GET and does not wait.
    #[track_caller]
    pub(crate) fn begin_poll(&mut self) {
        self.raw.send(format!("GET {} HTTP/1.1\r\nHost: here\r\n\r\n", self.target));
    }
}

/// Resident memory of this process in bytes, where the system tells.
pub(crate) fn resident_bytes() -> Option<usize> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|line| line.starts_with("VmRSS:"))?;
    let kilobytes: usize = line.split_whitespace().nth(1)?.parse().ok()?;
    Some(kilobytes * 1024)
}
