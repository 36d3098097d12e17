//! Clients that poll. On the connection that every client has, a GET waits for packets; what a
//! packet asks for in return goes there as a POST before the next GET.
//!
//! A client that has something to say while its GET waits opens a second connection for its POSTs
//! and keeps it, as browsers do. At most one POST of a client is under way, so that what it says
//! keeps its order; the rest waits and leaves together.

use std::fmt::Write as _;
use std::io::{self, Read, Write as _};

use mio::Token;
use mio::net::TcpStream;

use super::{Phase, SIDE, Swarm, Work, is_not_yet};
use crate::Failure;
use crate::wire;

/// Packets of one payload stand apart by this byte.
const SEPARATOR: u8 = 0x1e;
/// What a POST may hold when the server does not say.
const PAYLOAD_BYTES_MAX: usize = 1_000_000;

/// What the first connection of a polling client waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Waiting {
    Get,
    Post,
}

/// The session of a polling client.
#[derive(Debug)]
pub(super) struct Polling {
    sid: Box<str>,
    /// What one POST may hold.
    payload_bytes_max: usize,
    waiting: Waiting,
    /// A POST is under way, on either connection.
    posting: bool,
    /// Packets to be said, apart by [`SEPARATOR`].
    queue: Vec<u8>,
    side: Option<Side>,
}

/// The connection for POSTs while a GET waits.
#[derive(Debug)]
struct Side {
    stream: TcpStream,
    /// The beginning of an answer that has not come whole.
    partial: Vec<u8>,
    /// What the socket has not taken yet.
    unsent: Vec<u8>,
}

impl Polling {
    pub(super) fn new() -> Box<Self> {
        Box::new(Self {
            sid: "".into(),
            payload_bytes_max: PAYLOAD_BYTES_MAX,
            waiting: Waiting::Get,
            posting: false,
            queue: Vec::new(),
            side: None,
        })
    }

    /// The body of the next POST: whole packets, as many as the server takes at once.
    fn next_body(&mut self) -> Vec<u8> {
        let most = self.payload_bytes_max;
        if self.queue.len() <= most {
            return std::mem::take(&mut self.queue);
        }
        let last = memchr::memrchr(SEPARATOR, &self.queue[..=most]);
        let end = last.or_else(|| memchr::memchr(SEPARATOR, &self.queue));
        let Some(end) = end else { return std::mem::take(&mut self.queue) };
        let rest = self.queue.split_off(end + 1);
        let mut body = std::mem::replace(&mut self.queue, rest);
        body.truncate(end);
        body
    }
}

impl Swarm {
    /// A GET or, with a body, a POST of a client; without a session it opens one.
    pub(super) fn poll_request(&self, who: u32, body: Option<&[u8]>) -> Vec<u8> {
        let target = &self.targets[self.server_of(who)];
        let sid = self.clients[who as usize].polling.as_ref().map_or("", |it| &it.sid);
        let mut head = String::with_capacity(200);
        let method = if body.is_some() { "POST" } else { "GET" };
        let _ = write!(head, "{method} {}?EIO=4&transport=polling", target.path);
        if !sid.is_empty() {
            let _ = write!(head, "&sid={sid}");
        }
        let _ = write!(head, " HTTP/1.1\r\nHost: {}\r\n", target.host);
        if let Some(body) = body {
            let length = body.len();
            let _ = write!(head, "Content-Type: text/plain\r\nContent-Length: {length}\r\n");
        }
        head.push_str("\r\n");
        let mut request = head.into_bytes();
        request.extend_from_slice(body.unwrap_or_default());
        request
    }

    /// Takes whole answers from the start of `bytes`; returns how many bytes that were.
    pub(super) fn poll_answers(
        &mut self,
        who: u32,
        bytes: &[u8],
        work: &mut impl Work,
    ) -> Result<usize, Failure> {
        let fault = |why: String| Failure::Protocol(format!("client {who}: {why}"));
        let mut at = 0;
        while let Some((start, end)) = answer(&bytes[at..]).map_err(fault)? {
            let body = &bytes[at + start..at + end];
            at += end;
            let Some(polling) = &mut self.clients[who as usize].polling else { break };
            if polling.waiting == Waiting::Post {
                polling.posting = false;
            } else {
                for packet in body.split(|byte| *byte == SEPARATOR) {
                    if self.clients[who as usize].phase == Phase::Opening {
                        self.take_open(who, packet).map_err(fault)?;
                    }
                    self.packet(who, packet, work).map_err(fault)?;
                }
            }
            self.poll_again(who)?;
        }
        Ok(at)
    }

    /// Says what there is to say, and polls.
    fn poll_again(&mut self, who: u32) -> Result<(), Failure> {
        let mut reply = std::mem::take(&mut self.reply);
        let Some(polling) = &mut self.clients[who as usize].polling else { return Ok(()) };
        append_payload(&mut polling.queue, &reply);
        reply.clear();
        self.reply = reply;
        // Without a second connection the first one does both, in turns.
        if !polling.queue.is_empty() && !polling.posting && polling.side.is_none() {
            (polling.waiting, polling.posting) = (Waiting::Post, true);
            let body = polling.next_body();
            let request = self.poll_request(who, Some(&body));
            return self.write(who, &request);
        }
        polling.waiting = Waiting::Get;
        let request = self.poll_request(who, None);
        self.write(who, &request)?;
        self.post_next(who)
    }

    /// Says something on a client's own account, that is while its GET waits.
    pub(super) fn post(&mut self, who: u32, frames: &[u8]) -> Result<(), Failure> {
        if let Some(polling) = &mut self.clients[who as usize].polling {
            append_payload(&mut polling.queue, frames);
        }
        self.post_next(who)
    }

    /// Posts what waits, when nothing else is being posted.
    fn post_next(&mut self, who: u32) -> Result<(), Failure> {
        let Some(polling) = &mut self.clients[who as usize].polling else { return Ok(()) };
        if polling.posting || polling.queue.is_empty() {
            return Ok(());
        }
        polling.posting = true;
        let body = polling.next_body();
        let request = self.poll_request(who, Some(&body));
        if self.side(who).is_none() {
            let stream = self.open(self.server_of(who), Token(SIDE | who as usize))?;
            let side = Side { stream, partial: Vec::new(), unsent: Vec::new() };
            if let Some(polling) = &mut self.clients[who as usize].polling {
                polling.side = Some(side);
            }
        }
        let Some(side) = self.side(who) else { return Ok(()) };
        side.unsent.extend_from_slice(&request);
        side.flush()
    }

    fn side(&mut self, who: u32) -> Option<&mut Side> {
        self.clients.get_mut(who as usize)?.polling.as_mut()?.side.as_mut()
    }

    /// Something happened on a second connection.
    pub(super) fn side_event(&mut self, who: u32, is_writable: bool) -> Result<(), Failure> {
        let fault = |why: String| Failure::Protocol(format!("client {who}: {why}"));
        // Its events may outlive it.
        let Some(side) = self.side(who) else { return Ok(()) };
        if is_writable {
            side.flush()?;
        }
        let mut chunk = [0; 1024];
        let ended = loop {
            match side.stream.read(&mut chunk) {
                Ok(0) => break true,
                Ok(length) => side.partial.extend_from_slice(&chunk[..length]),
                Err(error) if is_not_yet(&error) => break false,
                Err(error) if error.kind() == io::ErrorKind::ConnectionReset => break true,
                Err(error) => return Err(Failure::io("receive")(error)),
            }
        };
        let mut answered = false;
        while let Some((_, end)) = answer(&side.partial).map_err(fault)? {
            side.partial.drain(..end);
            answered = true;
        }
        if side.partial.is_empty() {
            side.partial = Vec::new();
        }
        let Some(polling) = &mut self.clients[who as usize].polling else { return Ok(()) };
        polling.posting &= !answered;
        if ended {
            // A server may end a connection that nobody uses; the next POST opens another one.
            polling.side = None;
            if polling.posting {
                return Err(fault("the server closed the connection instead of answering".into()));
            }
        }
        self.post_next(who)
    }

    /// What the open packet says: the session's id, and what a POST may hold.
    fn take_open(&mut self, who: u32, packet: &[u8]) -> Result<(), String> {
        let start =
            memchr::memmem::find(packet, b"\"sid\":\"").ok_or("an open packet without sid")?;
        let rest = &packet[start + 7..];
        let end = memchr::memchr(b'"', rest).ok_or("a sid without an end")?;
        let sid = std::str::from_utf8(&rest[..end]).map_err(|error| error.to_string())?;
        let most = memchr::memmem::find(packet, b"\"maxPayload\":")
            .and_then(|at| wire::number(&packet[at + 13..]))
            .and_then(|(most, _)| usize::try_from(most).ok());
        if let Some(polling) = &mut self.clients[who as usize].polling {
            polling.sid = sid.into();
            polling.payload_bytes_max = most.unwrap_or(PAYLOAD_BYTES_MAX).max(1);
        }
        Ok(())
    }
}

impl Side {
    fn flush(&mut self) -> Result<(), Failure> {
        while !self.unsent.is_empty() {
            match self.stream.write(&self.unsent) {
                Ok(sent) if sent == self.unsent.len() => self.unsent = Vec::new(),
                Ok(sent) => drop(self.unsent.drain(..sent)),
                Err(error) if is_not_yet(&error) => break,
                Err(error) => return Err(Failure::io("send")(error)),
            }
        }
        Ok(())
    }
}

/// Where the body of the answer at the start of `bytes` begins and ends, once it is whole.
fn answer(bytes: &[u8]) -> Result<Option<(usize, usize)>, String> {
    let Some(end) = super::end_of_head(bytes)? else { return Ok(None) };
    let head = String::from_utf8_lossy(&bytes[..end]);
    let mut lines = head.split("\r\n");
    let status = lines.next().unwrap_or_default();
    let length = lines
        .filter_map(|line| line.split_once(':'))
        .find(|(name, _)| name.eq_ignore_ascii_case("content-length"))
        .and_then(|(_, value)| value.trim().parse::<usize>().ok());
    if !status.starts_with("HTTP/1.1 200 ") {
        return Err(format!("answered {status:?}"));
    }
    let length = length.ok_or("an answer without Content-Length")?;
    if length > wire::FRAME_BYTES_MAX {
        return Err(format!("an answer of {length} B"));
    }
    let (start, end) = (end + 4, end + 4 + length);
    Ok((bytes.len() >= end).then_some((start, end)))
}

/// Appends frames of a WebSocket client to the payload of a POST.
fn append_payload(payload: &mut Vec<u8>, mut frames: &[u8]) {
    while let Ok(Some(frame)) = wire::frame(frames) {
        if !payload.is_empty() {
            payload.push(SEPARATOR);
        }
        let mask = frame.mask.unwrap_or_default();
        let text = frames[frame.start..frame.end].iter().zip(mask.iter().cycle());
        payload.extend(text.map(|(byte, mask)| byte ^ mask));
        frames = &frames[frame.end..];
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_become_a_payload() {
        let (mut frames, mut payload) = (Vec::new(), Vec::new());
        wire::client_frame(&mut frames, b"3");
        wire::client_frame(&mut frames, b"42[\"a\"]");
        append_payload(&mut payload, &frames);
        assert_eq!(payload, b"3\x1e42[\"a\"]");
    }

    #[test]
    fn a_post_holds_whole_packets_and_no_more_than_the_server_takes() {
        for (most, bodies) in [(100, vec!["aaa\x1ebb\x1ec"]), (6, vec!["aaa\x1ebb", "c"])] {
            let mut polling = Polling::new();
            polling.queue = b"aaa\x1ebb\x1ec".to_vec();
            polling.payload_bytes_max = most;
            for body in bodies {
                assert_eq!(polling.next_body(), body.as_bytes());
            }
            assert!(polling.queue.is_empty());
        }
        let mut polling = Polling::new();
        (polling.queue, polling.payload_bytes_max) = (b"aaa\x1ebb".to_vec(), 1);
        assert_eq!((polling.next_body(), polling.next_body()), (b"aaa".to_vec(), b"bb".to_vec()));
    }

    #[test]
    fn an_answer_is_taken_when_it_is_whole() {
        let bytes = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokHTTP";
        assert_eq!(answer(bytes).unwrap(), Some((38, 40)));
        assert_eq!(answer(&bytes[..39]).unwrap(), None);
        assert!(answer(b"HTTP/1.1 400 Bad Request\r\n\r\n").is_err());
        for length in [u64::MAX, 1 << 40] {
            let bytes = format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n");
            assert!(answer(bytes.as_bytes()).unwrap_err().contains("an answer of"));
        }
        assert!(answer(&[b'x'; 20_000]).is_err(), "a head without an end");
    }
}
