//! Clients that poll: one kept connection, on which a GET waits for packets and, when there is
//! something to say, a POST goes in between. That is enough for clients that only answer; whoever
//! publishes does so by WebSocket.

use std::fmt::Write as _;

use super::{Phase, Swarm, Work};
use crate::Failure;
use crate::wire;

/// Packets of one payload stand apart by this byte.
const SEPARATOR: u8 = 0x1e;

/// What a polling client waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Waiting {
    Get,
    Post,
}

/// The session of a polling client.
#[derive(Debug)]
pub(super) struct Polling {
    sid: Box<str>,
    pub(super) waiting: Waiting,
}

impl Polling {
    pub(super) fn new() -> Box<Self> {
        Box::new(Self { sid: "".into(), waiting: Waiting::Get })
    }
}

impl Swarm {
    /// The first request: it opens the session.
    pub(super) fn poll_request(&self, sid: &str, body: Option<&[u8]>) -> Vec<u8> {
        let mut head = String::with_capacity(200);
        let method = if body.is_some() { "POST" } else { "GET" };
        let _ = write!(head, "{method} {}?EIO=4&transport=polling", self.target.path);
        if !sid.is_empty() {
            let _ = write!(head, "&sid={sid}");
        }
        let _ = write!(head, " HTTP/1.1\r\nHost: {}\r\n", self.target.host);
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
            if self.waiting(who) == Some(Waiting::Get) {
                for packet in body.split(|byte| *byte == SEPARATOR) {
                    if self.clients[who as usize].phase == Phase::Opening {
                        self.take_sid(who, packet).map_err(fault)?;
                    }
                    self.packet(who, packet, work).map_err(fault)?;
                }
            }
            self.poll_again(who)?;
        }
        Ok(at)
    }

    fn waiting(&self, who: u32) -> Option<Waiting> {
        self.clients[who as usize].polling.as_ref().map(|polling| polling.waiting)
    }

    /// Says what there is to say, else polls.
    fn poll_again(&mut self, who: u32) -> Result<(), Failure> {
        let reply = std::mem::take(&mut self.reply);
        let Some(polling) = &mut self.clients[who as usize].polling else { return Ok(()) };
        let payload = (!reply.is_empty()).then(|| payload(&reply));
        polling.waiting = if payload.is_some() { Waiting::Post } else { Waiting::Get };
        let sid = polling.sid.clone();
        let request = self.poll_request(&sid, payload.as_deref());
        self.send(who, &request)
    }

    fn take_sid(&mut self, who: u32, packet: &[u8]) -> Result<(), String> {
        let start =
            memchr::memmem::find(packet, b"\"sid\":\"").ok_or("an open packet without sid")?;
        let rest = &packet[start + 7..];
        let end = memchr::memchr(b'"', rest).ok_or("a sid without an end")?;
        let sid = std::str::from_utf8(&rest[..end]).map_err(|error| error.to_string())?;
        if let Some(polling) = &mut self.clients[who as usize].polling {
            polling.sid = sid.into();
        }
        Ok(())
    }
}

/// Where the body of the answer at the start of `bytes` begins and ends, once it is whole.
fn answer(bytes: &[u8]) -> Result<Option<(usize, usize)>, String> {
    let Some(end) = memchr::memmem::find(bytes, b"\r\n\r\n") else { return Ok(None) };
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
    let (start, end) = (end + 4, end + 4 + length);
    Ok((bytes.len() >= end).then_some((start, end)))
}

/// Frames of a WebSocket client as the payload of a POST.
fn payload(mut frames: &[u8]) -> Vec<u8> {
    let mut payload = Vec::new();
    while let Ok(Some(frame)) = wire::frame(frames) {
        if !payload.is_empty() {
            payload.push(SEPARATOR);
        }
        let mask = frame.mask.unwrap_or_default();
        let text = frames[frame.start..frame.end].iter().zip(mask.iter().cycle());
        payload.extend(text.map(|(byte, mask)| byte ^ mask));
        frames = &frames[frame.end..];
    }
    payload
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_become_a_payload() {
        let mut frames = Vec::new();
        wire::client_frame(&mut frames, b"3");
        wire::client_frame(&mut frames, b"42[\"a\"]");
        assert_eq!(payload(&frames), b"3\x1e42[\"a\"]");
    }

    #[test]
    fn an_answer_is_taken_when_it_is_whole() {
        let bytes = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokHTTP";
        assert_eq!(answer(bytes).unwrap(), Some((38, 40)));
        assert_eq!(answer(&bytes[..39]).unwrap(), None);
        assert!(answer(b"HTTP/1.1 400 Bad Request\r\n\r\n").is_err());
    }
}
