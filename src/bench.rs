//! What `benches/` measures, behind the feature `bench-internals`.
//!
//! Not part of the API: whatever is here may change or go with any release. The codecs are private;
//! each function lends one of them, adds nothing worth measuring, and gives back a number or a
//! value so that the work cannot be optimised away. `None` means that the input was refused, which
//! no benchmark wants. [`Kernel`] lends the drivers as they are, with their rules.
//!
//! ```text
//! unmask, Reader, {decode,encode}_frame  websocket
//! split_payload, write_payload           engine_io
//! read_head, read_args, read_ack_head    socket_io
//! encode_event, encode_ack               socket_io
//! event_frames                           wire: all of an emit but its queueing
//! parse_request                          http
//! Rooms                                  the tables of sockets and rooms
//! Kernel, Batch, listen                  io
//! ```

use std::fmt;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::task::Poll;

use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::io::mio::Mio;
#[cfg(target_os = "linux")]
use crate::io::uring::{Config, Uring};
use crate::io::wake::WakeEdge;
use crate::io::{Bytes as SendBytes, Driver, Event as IoEvent, LinkId, SendOp, Short};
use crate::protocol::engine_io::{PayloadPacket, PayloadWriter, split};
use crate::protocol::http::{HeadLimits, parse_head};
use crate::protocol::socket_io;
use crate::protocol::websocket::{self, Decoder, Event, Opcode, push_head};
use crate::socket::{SocketId, Sockets};
use crate::wire;

/// Attachments that a packet may announce.
const ATTACHMENTS_MAX: u32 = 10;
/// Bytes that a message may have.
const MESSAGE_BYTES_MAX: usize = 1_000_000;

/// A text frame as a client sends it. With the key `[0; 4]` decoding it in place changes nothing,
/// so that it can be decoded again, and takes as long as with any other key.
#[must_use]
pub fn masked_frame(payload: &[u8], key: [u8; 4]) -> Vec<u8> {
    let mut frame = Vec::new();
    push_head(&mut frame, true, Opcode::Text, payload.len());
    // The mask bit stands beside the short length; the key follows the head.
    frame[1] |= 0x80;
    frame.extend_from_slice(&key);
    let start = frame.len();
    frame.extend_from_slice(payload);
    unmask(&mut frame[start..], key);
    frame
}

/// Masks or unmasks a payload.
pub fn unmask(payload: &mut [u8], key: [u8; 4]) {
    websocket::unmask(payload, key, 0);
}

/// Reads one whole text message off the front of `bytes`; its length.
pub fn decode_frame(bytes: &mut [u8]) -> Option<usize> {
    let mut at = 0;
    match Decoder::server().next(bytes, &mut at, MESSAGE_BYTES_MAX) {
        Ok(Some(Event::Text(text))) => Some(text.len()),
        _ => None,
    }
}

/// What reads one connection's frames.
#[derive(Debug)]
pub struct Reader(Decoder);

impl Default for Reader {
    fn default() -> Self {
        Self(Decoder::server())
    }
}

impl Reader {
    /// Reads all text messages that are whole; how many bytes they were with their frames.
    pub fn read(&mut self, bytes: &mut [u8], mut text: impl FnMut(&[u8])) -> Option<usize> {
        let mut at = 0;
        loop {
            match self.0.next(bytes, &mut at, MESSAGE_BYTES_MAX) {
                Ok(Some(Event::Text(payload))) => text(payload),
                Ok(None) => return Some(at),
                _ => return None,
            }
        }
    }
}

/// Appends a text frame as the server sends it.
pub fn encode_frame(out: &mut Vec<u8>, payload: &[u8]) {
    push_head(out, true, Opcode::Text, payload.len());
    out.extend_from_slice(payload);
}

/// Reads a polling body, base64 in place; how many bytes of data its packets have.
pub fn split_payload(body: &mut [u8]) -> Option<usize> {
    split(body).try_fold(0, |sum, packet| match packet {
        Ok(PayloadPacket::Packet(_, data) | PayloadPacket::Binary(data)) => Some(sum + data.len()),
        Err(_) => None,
    })
}

/// Appends packets, each with its type digit, as a polling body.
pub fn write_payload<'p>(out: &mut Vec<u8>, packets: impl Iterator<Item = &'p [u8]>) {
    let mut payload = PayloadWriter::new(out);
    packets.for_each(|packet| payload.packet(packet));
}

/// Appends the data of one binary message as a polling body.
pub fn write_binary_payload(out: &mut Vec<u8>, data: &[u8]) {
    PayloadWriter::new(out).binary(data);
}

/// Reads the head and the name of an event; where the arguments begin, and the name's length.
#[must_use]
pub fn read_head(packet: &[u8]) -> Option<(usize, usize)> {
    let head = socket_io::decode_head(packet, ATTACHMENTS_MAX).ok()?;
    let name = socket_io::event_name(&packet[head.payload_at..]).ok()?;
    Some((head.payload_at, name.len()))
}

/// Reads the head of an acknowledgement; its id.
#[must_use]
pub fn read_ack_head(packet: &[u8]) -> Option<u64> {
    socket_io::decode_head(packet, ATTACHMENTS_MAX).ok()?.id
}

/// Deserialises the arguments of an event from its payload.
#[must_use]
pub fn read_args<T: DeserializeOwned>(payload: &[u8], attachments: &[Bytes]) -> Option<T> {
    socket_io::from_args(payload, attachments, 1).ok()
}

/// Appends an event of the namespace `/` as a packet, without any frame.
pub fn encode_event<T: Serialize + ?Sized>(
    out: &mut Vec<u8>,
    event: &str,
    args: &T,
    attachments: &mut Vec<Bytes>,
) -> Option<()> {
    socket_io::encode_event(out, "/", None, event, args, attachments).ok().map(drop)
}

/// Appends an acknowledgement of the namespace `/` as a packet, without any frame.
pub fn encode_ack<T: Serialize + ?Sized>(
    out: &mut Vec<u8>,
    id: u64,
    args: &T,
    attachments: &mut Vec<Bytes>,
) -> Option<()> {
    socket_io::encode_ack(out, "/", id, args, attachments).ok().map(drop)
}

/// Encodes an event of the namespace `/` down to its frames, as an emit does; their length.
#[must_use]
pub fn event_frames<T: Serialize + ?Sized>(event: &str, args: &T) -> Option<usize> {
    wire::with_encoder(|encoder| encoder.event("/", None, event, args).map(<[u8]>::len).ok())
}

/// Reads the head of a request; its length.
#[must_use]
pub fn parse_request(bytes: &[u8]) -> Option<usize> {
    parse_head(bytes, &HeadLimits::default()).ok()?.map(|head| head.len)
}

/// Sockets and rooms of one namespace: everybody is in the room `all`, every second socket in
/// `half`, every tenth in `tenth`. Sockets are named by the order in which they came.
#[derive(Debug)]
pub struct Rooms {
    sockets: Sockets<()>,
    ids: Vec<SocketId>,
    namespace: u32,
}

impl Rooms {
    /// A namespace with this many sockets, each of a session of its own.
    #[must_use]
    pub fn new(members: usize) -> Self {
        let mut sockets = Sockets::new(members);
        let namespace = sockets.namespace_or_new("/", true);
        let mut rooms = Self { sockets, ids: Vec::new(), namespace };
        for member in 0..members {
            let id = rooms.come(member as u32);
            rooms.ids.push(id);
            rooms.join(member, "all");
            if member.is_multiple_of(2) {
                rooms.join(member, "half");
            }
            if member.is_multiple_of(10) {
                rooms.join(member, "tenth");
            }
        }
        rooms
    }

    fn come(&mut self, session: u32) -> SocketId {
        let id = self.sockets.reserve();
        self.sockets.insert(id, session, self.namespace, ());
        self.sockets.connect(id);
        id
    }

    /// A socket joins a room.
    pub fn join(&mut self, member: usize, room: &str) {
        self.sockets.join(self.ids[member], room);
    }

    /// A socket leaves a room.
    pub fn leave(&mut self, member: usize, room: &str) {
        self.sockets.leave(self.ids[member], room);
    }

    /// One socket more comes, joins rooms, and goes.
    pub fn come_and_go(&mut self, rooms: &[String]) {
        let id = self.come(0);
        rooms.iter().for_each(|room| self.sockets.join(id, room));
        self.sockets.silence(id);
        self.sockets.remove(id);
    }

    /// How many sockets a target reaches.
    pub fn reach(&mut self, rooms: &[Box<str>], except: &[Box<str>]) -> usize {
        let mut reached = 0;
        let nobody = |_: &str, _: &Sockets<()>| None;
        self.sockets.for_each(self.namespace, rooms, except, nobody, |_, _| reached += 1);
        reached
    }
}

/// A listener on the loopback as the server makes its own, non-blocking and without Nagle's delay.
///
/// # Errors
/// What the system says, such as that the port is taken.
pub fn listen(port: u16, backlog: u32) -> io::Result<TcpListener> {
    crate::io::listen::listen(SocketAddr::from((Ipv4Addr::LOCALHOST, port)), false, backlog)
}

/// Raises the soft limit of open descriptors to the hard one; the limit then.
pub fn raise_descriptor_limit() -> u64 {
    crate::io::listen::raise_descriptor_limit().0
}

/// One connection of a [`Kernel`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Link(LinkId);

impl Link {
    /// A small number that no other link has at the same time.
    #[must_use]
    pub fn index(self) -> usize {
        self.0.index as usize
    }
}

/// What a [`Kernel`] tells.
#[derive(Debug)]
pub enum KernelEvent<'d> {
    /// A connection was made and is being read.
    Accepted(Link),
    /// Bytes came.
    Received(Link, &'d mut [u8]),
    /// The peer is gone; the link is to be closed.
    Gone(Link),
    /// A link that was full takes bytes again.
    Writable(Link),
}

/// Sends that leave together: one of each link at most.
#[derive(Debug, Default)]
pub struct Batch<'b>(Vec<SendOp<'b>>);

impl<'b> Batch<'b> {
    /// Adds a send.
    #[inline]
    pub fn push(&mut self, link: Link, bytes: &'b [u8]) {
        self.0.push(SendOp { link: link.0, bytes: SendBytes::One(bytes) });
    }
}

/// A driver of the engine's on a tokio runtime: what a shard stands on.
///
/// Each turn: [`poll`](Self::poll), [`next`](Self::next) until there is nothing, sends, and
/// [`wait`](Self::wait).
pub struct Kernel {
    driver: Lent,
    edge: Option<WakeEdge>,
    short: Vec<Short>,
}

enum Lent {
    #[cfg(target_os = "linux")]
    Uring(Box<Uring>),
    Mio(Box<Mio>),
}

/// The same call of whichever driver it is.
macro_rules! driver {
    ($kernel:expr, $driver:ident => $call:expr) => {
        match &mut $kernel.driver {
            #[cfg(target_os = "linux")]
            Lent::Uring($driver) => $call,
            Lent::Mio($driver) => $call,
        }
    };
}

impl fmt::Debug for Kernel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Kernel").finish_non_exhaustive()
    }
}

impl Kernel {
    /// The driver over io_uring. Must be called inside a tokio runtime, on its thread.
    ///
    /// # Errors
    /// When there is no io_uring here, or not enough of it.
    #[cfg(target_os = "linux")]
    pub fn uring(listener: TcpListener) -> io::Result<Self> {
        let driver = Uring::new(Some(listener), &Config::default()).map_err(io::Error::other)?;
        let edge = WakeEdge::new(&driver)?;
        Ok(Self { driver: Lent::Uring(Box::new(driver)), edge, short: Vec::new() })
    }

    /// The driver over readiness. Must be called inside a tokio runtime.
    ///
    /// # Errors
    /// What the system says.
    pub fn readiness(listener: TcpListener) -> io::Result<Self> {
        let driver = Mio::new(Some(listener))?;
        let edge = WakeEdge::new(&driver)?;
        Ok(Self { driver: Lent::Mio(Box::new(driver)), edge, short: Vec::new() })
    }

    /// Collects what happened.
    ///
    /// # Errors
    /// When the driver itself is broken.
    pub fn poll(&mut self) -> io::Result<()> {
        driver!(self, driver => driver.poll())
    }

    /// The next event of this turn.
    ///
    /// # Errors
    /// When accepting failed.
    #[allow(clippy::should_implement_trait, reason = "it lends")]
    pub fn next(&mut self) -> io::Result<Option<KernelEvent<'_>>> {
        Ok(Some(match driver!(self, driver => driver.next()) {
            None => return Ok(None),
            Some(IoEvent::Accepted { link, .. }) => KernelEvent::Accepted(Link(link)),
            Some(IoEvent::Received { link, bytes }) => KernelEvent::Received(Link(link), bytes),
            Some(IoEvent::Writable { link }) => KernelEvent::Writable(Link(link)),
            // Nothing here detaches, so nothing is ever detached.
            Some(
                IoEvent::Ended { link }
                | IoEvent::Failed { link, .. }
                | IoEvent::Detached { link, .. },
            ) => KernelEvent::Gone(Link(link)),
            Some(IoEvent::AcceptFailed { error }) => return Err(error),
        }))
    }

    /// Sends; tells of each send that fell short its place in the batch, how many bytes it took,
    /// and why if its link is broken.
    pub fn send(
        &mut self,
        batch: &Batch<'_>,
        mut fell_short: impl FnMut(usize, usize, Option<io::Error>),
    ) {
        driver!(self, driver => driver.send(&batch.0, &mut self.short));
        for Short { op, sent, error } in self.short.drain(..) {
            fell_short(op, sent, error);
        }
    }

    /// Frees a link.
    pub fn close(&mut self, link: Link) {
        driver!(self, driver => driver.close(link.0));
    }

    /// Waits until there is something to collect.
    ///
    /// # Errors
    /// When the driver itself is broken.
    pub async fn wait(&mut self) -> io::Result<()> {
        let has_more = driver!(self, driver => {
            driver.prepare_wait()?;
            driver.has_more()
        });
        let Some(edge) = &self.edge else { return Ok(()) };
        // An edge that came is forgotten in any case, before the next poll.
        std::future::poll_fn(|cx| match edge.poll_wait(cx) {
            Poll::Pending if has_more => Poll::Ready(Ok(())),
            outcome => outcome,
        })
        .await
    }
}
