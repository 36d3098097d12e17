//! The few bytes of WebSocket, Engine.IO 4 and Socket.IO 5 that a load generator needs.
//!
//! Written apart from the engine's codecs on purpose: a generator that shared them would share
//! their mistakes. It accepts what servers of the contract send and calls everything else a fault.

/// Every client sends the same key, so that the floor can answer with prebuilt bytes.
pub(crate) const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
/// What RFC 6455 makes of [`KEY`].
pub(crate) const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";
/// Sequence numbers start here, so that every frame of a run has the same length.
pub(crate) const FIRST_SEQUENCE: u64 = 1_000_000_000;
/// Acknowledgement ids run from here to ten times as much, for the same reason.
pub(crate) const FIRST_ACK: u64 = 100_000;
/// Bytes of a frame, or of the body of an answer.
pub(crate) const FRAME_BYTES_MAX: usize = 64 << 20;
/// A real client draws a new mask per frame; the server must unmask whatever it is.
const MASK: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];

/// The upgrade request of one client.
pub(crate) fn upgrade_request(host: &str, path: &str) -> Vec<u8> {
    format!(
        "GET {path}?EIO=4&transport=websocket HTTP/1.1\r\nHost: {host}\r\nUpgrade: websocket\r\n\
         Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {KEY}\r\n\r\n"
    )
    .into_bytes()
}

/// Appends one masked text frame.
pub(crate) fn client_frame(out: &mut Vec<u8>, text: &[u8]) {
    out.push(0x81);
    push_length(out, text.len(), 0x80);
    out.extend_from_slice(&MASK);
    out.extend(text.iter().zip(MASK.iter().cycle()).map(|(byte, mask)| byte ^ mask));
}

/// Appends one text frame as a server sends it.
pub(crate) fn server_frame(out: &mut Vec<u8>, text: &[u8]) {
    out.push(0x81);
    push_length(out, text.len(), 0);
    out.extend_from_slice(text);
}

fn push_length(out: &mut Vec<u8>, length: usize, mask_bit: u8) {
    match length {
        0..126 => out.push(mask_bit | length as u8),
        126..65_536 => {
            out.push(mask_bit | 126);
            out.extend_from_slice(&(length as u16).to_be_bytes());
        }
        _ => {
            out.push(mask_bit | 127);
            out.extend_from_slice(&(length as u64).to_be_bytes());
        }
    }
}

/// A frame at the start of some bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Frame {
    pub(crate) opcode: u8,
    pub(crate) mask: Option<[u8; 4]>,
    /// Where the payload begins, and where the frame ends.
    pub(crate) start: usize,
    pub(crate) end: usize,
}

/// The frame that `bytes` start with; `None` while it is not whole, an error when it is none that
/// a server of the contract sends (fragments and reserved bits are not).
#[inline]
pub(crate) fn frame(bytes: &[u8]) -> Result<Option<Frame>, &'static str> {
    let [first, second, ..] = *bytes else { return Ok(None) };
    if first & 0xf0 != 0x80 {
        return Err("a fragment or reserved bits");
    }
    let (length, mut start) = match second & 0x7f {
        126 => match bytes.get(2..4) {
            Some(field) => (usize::from(field[0]) << 8 | usize::from(field[1]), 4),
            None => return Ok(None),
        },
        127 => match bytes.get(2..10) {
            Some(field) => (field.iter().fold(0, |sum, byte| sum << 8 | usize::from(*byte)), 10),
            None => return Ok(None),
        },
        short => (usize::from(short), 2),
    };
    let mut mask = None;
    if second & 0x80 != 0 {
        let Some(field) = bytes.get(start..start + 4) else { return Ok(None) };
        mask = Some([field[0], field[1], field[2], field[3]]);
        start += 4;
    }
    if length > FRAME_BYTES_MAX {
        return Err("a frame beyond 64 MiB");
    }
    let end = start + length;
    Ok((bytes.len() >= end).then_some(Frame { opcode: first & 0x0f, mask, start, end }))
}

/// A text frame with an Engine.IO message in it that holds a Socket.IO event.
pub(crate) fn publish(out: &mut Vec<u8>, sequence: u64, payload: &[u8]) {
    event(out, format_args!("42[\"publish\",{sequence},\""), payload);
}

/// The same to one of several rooms.
pub(crate) fn publish_to(out: &mut Vec<u8>, room: usize, sequence: u64, payload: &[u8]) {
    event(out, format_args!("42[\"publish_to\",\"r{room}\",{sequence},\""), payload);
}

/// The same for `echo`, which the server acknowledges.
pub(crate) fn echo(out: &mut Vec<u8>, ack: u64, payload: &[u8]) {
    event(out, format_args!("42{ack}[\"echo\",\""), payload);
}

fn event(out: &mut Vec<u8>, head: std::fmt::Arguments<'_>, payload: &[u8]) {
    let mut text = head.to_string().into_bytes();
    text.extend_from_slice(payload);
    text.extend_from_slice(b"\"]");
    client_frame(out, &text);
}

/// The packet of one `tick`, without its frame.
pub(crate) fn tick(sequence: u64, payload: &[u8]) -> Vec<u8> {
    let mut text = format!("42[\"tick\",{sequence},\"").into_bytes();
    text.extend_from_slice(payload);
    text.extend_from_slice(b"\"]");
    text
}

/// The packet that acknowledges an `echo`, without its frame.
pub(crate) fn answer(ack: u64, payload: &[u8]) -> Vec<u8> {
    let mut text = format!("43{ack}[\"").into_bytes();
    text.extend_from_slice(payload);
    text.extend_from_slice(b"\"]");
    text
}

/// A number at the start of `bytes`, and what follows it.
#[inline]
pub(crate) fn number(bytes: &[u8]) -> Option<(u64, &[u8])> {
    /// So many always fit; no server of the contract sends more.
    const DIGITS_MAX: usize = 19;
    // Sequence numbers have ten digits, and every delivery brings one.
    let (mut value, mut at) = match bytes.first_chunk().and_then(eight_digits) {
        Some(value) => (value, 8),
        None => (0, 0),
    };
    for byte in &bytes[at..] {
        let digit = byte.wrapping_sub(b'0');
        if digit > 9 {
            break;
        }
        if at == DIGITS_MAX {
            return None;
        }
        value = value * 10 + u64::from(digit);
        at += 1;
    }
    (at > 0).then(|| (value, &bytes[at..]))
}

/// Eight digits at once: neighbours become pairs, pairs fours, fours the number.
#[inline]
fn eight_digits(text: &[u8; 8]) -> Option<u64> {
    const ZEROS: u64 = u64::from_ne_bytes([b'0'; 8]);
    const HIGH: u64 = u64::from_ne_bytes([0xf0; 8]);
    const SIX: u64 = u64::from_ne_bytes([6; 8]);
    let digits = u64::from_le_bytes(*text) ^ ZEROS;
    // Above 9 a byte has high bits, now or after six are added; no byte carries into the next
    // unless it had them before.
    if (digits | digits.wrapping_add(SIX)) & HIGH != 0 {
        return None;
    }
    let pairs = (digits * 10 + (digits >> 8)) & 0x00ff_00ff_00ff_00ff;
    let fours = (pairs * 100 + (pairs >> 16)) & 0x0000_ffff_0000_ffff;
    Some((fours * 10_000 + (fours >> 32)) & 0xffff_ffff)
}

/// The text that payloads are cut from: letters and digits, nothing JSON would escape. Message
/// number `n` is the cut at `n % 64`, so that neighbours differ and a mix-up shows.
#[derive(Debug)]
pub(crate) struct Payloads {
    text: Vec<u8>,
    length: usize,
}

impl Payloads {
    pub(crate) fn new(length: usize) -> Self {
        const ALPHABET: &[u8; 62] =
            b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";
        let mut state = 0x9e37_79b9_7f4a_7c15_u64;
        let text = (0..length + 64)
            .map(|_| {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                ALPHABET[(state >> 33) as usize % 62]
            })
            .collect();
        Self { text, length }
    }

    #[inline]
    pub(crate) fn get(&self, number: u64) -> &[u8] {
        let at = (number % 64) as usize;
        &self.text[at..at + self.length]
    }

    /// The text of a room's message: rooms count alike, and what went to another one must show.
    /// The first room has the texts of [`get`](Self::get); by how much those of another one are
    /// moved differs from one 64 messages to the next.
    #[inline]
    pub(crate) fn of_room(&self, room: u32, number: u64) -> &[u8] {
        let seed = (number / 64 + 1).wrapping_mul(u64::from(room));
        self.get(number + (seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 58))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_is_read_back_at_every_length_form() {
        for length in [0, 1, 125, 126, 65_535, 65_536] {
            let text = vec![b'x'; length];
            let mut bytes = Vec::new();
            server_frame(&mut bytes, &text);
            let whole = frame(&bytes).unwrap().unwrap();
            assert_eq!((whole.opcode, whole.mask, whole.end), (1, None, bytes.len()));
            assert_eq!(&bytes[whole.start..whole.end], text);
            assert_eq!(frame(&bytes[..bytes.len() - 1]).unwrap(), None);
        }
    }

    #[test]
    fn a_masked_frame_carries_its_mask() {
        let mut bytes = Vec::new();
        client_frame(&mut bytes, b"40");
        let whole = frame(&bytes).unwrap().unwrap();
        assert_eq!((whole.mask, whole.start, whole.end), (Some(MASK), 6, 8));
    }

    #[test]
    fn a_fragment_is_a_fault() {
        assert!(frame(&[0x01, 0x01, b'a']).is_err());
    }

    #[test]
    fn neighbouring_payloads_differ() {
        let payloads = Payloads::new(64);
        assert!((0..63).all(|n| payloads.get(n) != payloads.get(n + 1)));
    }

    #[test]
    fn rooms_have_texts_of_their_own() {
        let payloads = Payloads::new(64);
        let first = FIRST_SEQUENCE;
        assert!((first..first + 200).all(|n| payloads.of_room(0, n) == payloads.get(n)));
        for (one, other) in (0..300).zip(1..301).chain([(0, 64), (1, 65), (7, 7 + 4_096)]) {
            // Enough that no two rooms can be taken for each other for long.
            let differ = |n: &u64| payloads.of_room(one, *n) != payloads.of_room(other, *n);
            let count = (first..first + 2_000).filter(differ).count();
            assert!(count > 1_500, "rooms {one} and {other} differ in {count} of 2000");
        }
    }

    #[test]
    fn numbers_end_where_digits_do() {
        assert_eq!(number(b"1000000007,\"x"), Some((1_000_000_007, &b",\"x"[..])));
        assert_eq!(number(b",1"), None);
        assert_eq!(number(b"99999999999999999999999"), None);
        assert_eq!(number(b"1234567890123456789,").unwrap().0, 1_234_567_890_123_456_789);
        for wrong in [b'/', b':', b'@', b' ', b'\n', 0, 0x7f, 0xff] {
            for at in 0..12 {
                let mut text = *b"987654321012";
                text[at] = wrong;
                let before = std::str::from_utf8(&text[..at]).unwrap();
                let expected = before.parse().ok().map(|value: u64| (value, &text[at..]));
                assert_eq!(number(&text), expected, "{wrong} at {at}");
            }
        }
        for value in (0..2_000_000_000).step_by(77_777) {
            let text = format!("{value:08},");
            assert_eq!(number(text.as_bytes()), Some((value, &b","[..])));
        }
    }
}
