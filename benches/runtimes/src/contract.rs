//! What every server here answers: bytes in, bytes out, whatever the runtime.
//!
//! As little of loadtest's contract as its generator needs: the upgrade (all its clients send the
//! same key, so the answer is prebuilt), the connect packet, `join`, `publish` and `echo`. A
//! `publish` becomes one frame, made once. Knows nothing of sockets, tasks or other connections.

/// What RFC 6455 makes of the key that all of loadtest's clients send.
const WELCOME: &[u8] = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\
    Connection: Upgrade\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";
const OPEN: &[u8] = b"0{\"sid\":\"AAAAAAAAAAAAAAAAAAAA\",\"upgrades\":[],\"pingInterval\":25000,\
    \"pingTimeout\":20000,\"maxPayload\":1000000}";
const CONNECTED: &[u8] = b"40{\"sid\":\"BBBBBBBBBBBBBBBBBBBB\"}";

/// The longest frame that a client may send, and the longest head of a request.
const FRAME_BYTES_MAX: usize = 16 << 20;
const HEAD_BYTES_MAX: usize = 16 << 10;

/// Bytes that a connection may lag behind before it is given up.
pub(crate) const BACKLOG_BYTES_MAX: usize = 64 << 20;
/// What one read takes from the kernel.
pub(crate) const READ_BYTES: usize = 16 << 10;

/// What a client sent was nothing of the contract.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Unknown;

/// One connection, as far as the protocol goes.
#[derive(Debug, Default)]
pub(crate) struct Peer {
    upgraded: bool,
    /// Whether it gets broadcasts.
    pub(crate) joined: bool,
    /// A frame or head that has not come whole.
    partial: Vec<u8>,
}

impl Peer {
    /// Takes what came: answers are appended to `replies`, each broadcast is given to `tick`.
    pub(crate) fn read(
        &mut self,
        bytes: &[u8],
        replies: &mut Vec<u8>,
        mut tick: impl FnMut(Vec<u8>),
    ) -> Result<(), Unknown> {
        if self.partial.is_empty() {
            let used = self.take(bytes, replies, &mut tick)?;
            self.partial.extend_from_slice(&bytes[used..]);
        } else {
            let mut kept = std::mem::take(&mut self.partial);
            kept.extend_from_slice(bytes);
            let used = self.take(&kept, replies, &mut tick)?;
            kept.drain(..used);
            self.partial = kept;
        }
        Ok(())
    }

    /// How many bytes were whole.
    fn take(
        &mut self,
        bytes: &[u8],
        replies: &mut Vec<u8>,
        tick: &mut impl FnMut(Vec<u8>),
    ) -> Result<usize, Unknown> {
        let mut at = 0;
        if !self.upgraded {
            let Some(end) = memchr::memmem::find(bytes, b"\r\n\r\n") else {
                return if bytes.len() > HEAD_BYTES_MAX { Err(Unknown) } else { Ok(0) };
            };
            self.upgraded = true;
            replies.extend_from_slice(WELCOME);
            push_frame(replies, &[OPEN]);
            at = end + 4;
        }
        let mut text = Vec::new();
        while let Some(used) = unmask(&bytes[at..], &mut text)? {
            self.text(&text, replies, tick)?;
            at += used;
        }
        Ok(at)
    }

    fn text(
        &mut self,
        text: &[u8],
        replies: &mut Vec<u8>,
        tick: &mut impl FnMut(Vec<u8>),
    ) -> Result<(), Unknown> {
        if let Some(arguments) = text.strip_prefix(b"42[\"publish\",") {
            let mut frame = Vec::new();
            push_frame(&mut frame, &[b"42[\"tick\",", arguments]);
            tick(frame);
        } else if text == b"40" {
            push_frame(replies, &[CONNECTED]);
        } else if let Some(event) = text.strip_prefix(b"42") {
            let digits = event.iter().take_while(|byte| byte.is_ascii_digit()).count();
            let (id, event) = event.split_at(digits);
            if event.starts_with(b"[\"join\",") {
                self.joined = true;
                push_frame(replies, &[b"43", id, b"[]"]);
            } else if let Some(arguments) = event.strip_prefix(b"[\"echo\",") {
                push_frame(replies, &[b"43", id, b"[", arguments]);
            } else {
                return Err(Unknown);
            }
        } else if text != b"3" {
            return Err(Unknown);
        }
        Ok(())
    }
}

/// Appends a text frame of these parts.
fn push_frame(out: &mut Vec<u8>, parts: &[&[u8]]) {
    let length: usize = parts.iter().map(|part| part.len()).sum();
    out.push(0x81);
    match length {
        0..126 => out.push(length as u8),
        126..65_536 => {
            out.push(126);
            out.extend_from_slice(&(length as u16).to_be_bytes());
        }
        _ => {
            out.push(127);
            out.extend_from_slice(&(length as u64).to_be_bytes());
        }
    }
    parts.iter().for_each(|part| out.extend_from_slice(part));
}

/// Reads the whole masked text frame at the front into `text`; how long the frame is.
fn unmask(bytes: &[u8], text: &mut Vec<u8>) -> Result<Option<usize>, Unknown> {
    let [first, second, rest @ ..] = bytes else { return Ok(None) };
    if *first != 0x81 || second & 0x80 == 0 {
        return Err(Unknown);
    }
    let long = match second & 0x7f {
        126 => 2,
        127 => 8,
        _ => 0,
    };
    let Some((field, rest)) = rest.split_at_checked(long) else { return Ok(None) };
    let length = match long {
        0 => usize::from(second & 0x7f),
        _ => field.iter().fold(0, |sum, byte| sum << 8 | usize::from(*byte)),
    };
    if length > FRAME_BYTES_MAX {
        return Err(Unknown);
    }
    let Some((mask, rest)) = rest.split_first_chunk::<4>() else { return Ok(None) };
    let Some(masked) = rest.get(..length) else { return Ok(None) };
    text.clear();
    text.extend_from_slice(masked);
    stentor::bench::unmask(text, *mask);
    Ok(Some(2 + long + 4 + length))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MASK: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];

    fn masked(text: &[u8]) -> Vec<u8> {
        stentor::bench::masked_frame(text, MASK)
    }

    fn plain(text: &[u8]) -> Vec<u8> {
        let mut frame = Vec::new();
        push_frame(&mut frame, &[text]);
        frame
    }

    /// What all of it is answered with, and what it broadcasts, read `step` bytes at a time.
    fn read(input: &[u8], step: usize) -> (Vec<u8>, Vec<Vec<u8>>, bool) {
        let (mut peer, mut replies, mut ticks) = (Peer::default(), Vec::new(), Vec::new());
        for part in input.chunks(step) {
            peer.read(part, &mut replies, |frame| ticks.push(frame)).expect("all is known");
        }
        (replies, ticks, peer.joined)
    }

    #[test]
    fn a_client_is_answered_however_its_bytes_are_split() {
        let long = "x".repeat(70_000);
        let mut input = b"GET /socket.io/?EIO=4 HTTP/1.1\r\nHost: here\r\n\r\n".to_vec();
        let mut wanted = WELCOME.to_vec();
        wanted.extend(plain(OPEN));
        for (text, answer) in [
            ("40".to_owned(), Some(String::from_utf8(CONNECTED.to_vec()).expect("ASCII"))),
            ("42100000[\"join\",[\"all\"]]".to_owned(), Some("43100000[]".to_owned())),
            ("427[\"echo\",\"hello\"]".to_owned(), Some("437[\"hello\"]".to_owned())),
            ("3".to_owned(), None),
            ("42[\"publish\",5,\"abc\"]".to_owned(), None),
            (format!("42[\"publish\",6,\"{long}\"]"), None),
        ] {
            input.extend(masked(text.as_bytes()));
            answer.iter().for_each(|answer| wanted.extend(plain(answer.as_bytes())));
        }
        let ticks = [
            plain(b"42[\"tick\",5,\"abc\"]"),
            plain(format!("42[\"tick\",6,\"{long}\"]").as_bytes()),
        ];
        for step in [1, 7, 1000, input.len()] {
            assert!(read(&input, step) == (wanted.clone(), ticks.to_vec(), true), "step {step}");
        }
    }

    #[test]
    fn what_is_not_of_the_contract_is_refused() {
        let head = b"GET / HTTP/1.1\r\n\r\n";
        for wrong in [masked(b"42[\"leave\"]"), masked(b"hello"), plain(b"40"), vec![0x01, 0x80]] {
            let input = [&head[..], &wrong].concat();
            let outcome = Peer::default().read(&input, &mut Vec::new(), |_| {});
            assert_eq!(outcome, Err(Unknown), "{wrong:?}");
        }
        let endless = vec![b'x'; HEAD_BYTES_MAX + 1];
        assert_eq!(Peer::default().read(&endless, &mut Vec::new(), |_| {}), Err(Unknown));
    }
}
