//! One frame: its head, its mask, and the walk over a buffer of them.
//!
//! ```text
//!   bit  0     1..3  4..7     8     9..15      16 / 64 more   32 more
//!        FIN | RSV | opcode | MASK | length | long length | masking key | payload
//! ```
//!
//! Functions of slices: nothing is kept between calls, and a head that is not all there consumes
//! nothing. What a frame may do in the course of a message, and how big it may be, is not known
//! here (`message.rs`). Tests: `tests.rs`.

use super::close::ProtocolError;

/// The longest head: two bytes, a 64-bit length and a masking key.
pub(crate) const HEAD_BYTES_MAX: usize = 14;
/// The longest length that fits the second byte; also the longest of a control frame.
pub(super) const SHORT_LEN_MAX: u64 = 125;

const FIN: u8 = 0x80;
const RSV: u8 = 0x70;
const OPCODE: u8 = 0x0f;
pub(super) const MASK: u8 = 0x80;
/// Second byte: a 16-bit length follows.
const LEN_16: u8 = 126;
/// Second byte: a 64-bit length follows.
const LEN_64: u8 = 127;

/// What a frame is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub(crate) enum Opcode {
    Continuation = 0,
    Text = 1,
    Binary = 2,
    Close = 8,
    Ping = 9,
    Pong = 10,
}

impl Opcode {
    #[inline]
    const fn from_bits(bits: u8) -> Option<Self> {
        Some(match bits {
            0 => Self::Continuation,
            1 => Self::Text,
            2 => Self::Binary,
            8 => Self::Close,
            9 => Self::Ping,
            10 => Self::Pong,
            _ => return None,
        })
    }

    /// Control frames are short, whole, and may stand between the fragments of a message.
    #[inline]
    pub(crate) const fn is_control(self) -> bool {
        self as u8 >= 8
    }
}

/// A parsed head.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct FrameHead {
    pub(crate) fin: bool,
    /// The three reserved bits, RSV1 highest. Zero unless an extension was negotiated.
    pub(crate) rsv: u8,
    pub(crate) opcode: Opcode,
    pub(crate) masked: Option<[u8; 4]>,
    pub(crate) payload_len: u64,
    /// Length of the head itself.
    pub(crate) len: usize,
}

/// Reads the head at the front of `buf`; `None` when it is not all there yet.
///
/// A fault is reported as soon as the bytes that prove it are there.
#[inline]
pub(crate) fn parse_head(buf: &[u8]) -> Result<Option<FrameHead>, ProtocolError> {
    let [first, second, rest @ ..] = buf else { return Ok(None) };
    let bits = first & OPCODE;
    let Some(opcode) = Opcode::from_bits(bits) else {
        return Err(ProtocolError::UnknownOpcode(bits));
    };
    let fin = first & FIN != 0;
    let short_len = second & !MASK;
    if opcode.is_control() {
        if u64::from(short_len) > SHORT_LEN_MAX {
            return Err(ProtocolError::ControlTooLong);
        }
        if !fin {
            return Err(ProtocolError::ControlFragmented);
        }
    }
    let Some((payload_len, rest)) = parse_len(short_len, rest)? else { return Ok(None) };
    let (masked, rest) = if second & MASK == 0 {
        (None, rest)
    } else {
        let Some((key, rest)) = rest.split_first_chunk::<4>() else { return Ok(None) };
        (Some(*key), rest)
    };
    let rsv = (first & RSV) >> 4;
    let len = buf.len() - rest.len();
    Ok(Some(FrameHead { fin, rsv, opcode, masked, payload_len, len }))
}

/// The payload's length, and what follows it.
#[inline]
fn parse_len(short_len: u8, rest: &[u8]) -> Result<Option<(u64, &[u8])>, ProtocolError> {
    match short_len {
        LEN_16 => {
            let Some((bytes, rest)) = rest.split_first_chunk::<2>() else { return Ok(None) };
            let len = u64::from(u16::from_be_bytes(*bytes));
            if len <= SHORT_LEN_MAX {
                return Err(ProtocolError::LengthNotMinimal);
            }
            Ok(Some((len, rest)))
        }
        LEN_64 => {
            let Some((bytes, rest)) = rest.split_first_chunk::<8>() else { return Ok(None) };
            let len = u64::from_be_bytes(*bytes);
            if len <= u64::from(u16::MAX) {
                return Err(ProtocolError::LengthNotMinimal);
            }
            if len >> 63 != 0 {
                return Err(ProtocolError::LengthOverflow);
            }
            Ok(Some((len, rest)))
        }
        len => Ok(Some((u64::from(len), rest))),
    }
}

/// Length of the head of an unmasked frame with this payload.
#[inline]
pub(crate) const fn head_len(payload_len: usize) -> usize {
    match payload_len {
        0..=125 => 2,
        126..=0xffff => 4,
        _ => 10,
    }
}

/// Writes the head of an unmasked frame to the front of `out`, which must hold
/// [`head_len`]`(payload_len)` bytes, and returns that length.
#[inline]
pub(crate) fn write_head(out: &mut [u8], fin: bool, opcode: Opcode, payload_len: usize) -> usize {
    let len = head_len(payload_len);
    let out = &mut out[..len];
    out[0] = opcode as u8 | if fin { FIN } else { 0 };
    match len {
        2 => out[1] = payload_len as u8,
        4 => {
            out[1] = LEN_16;
            out[2..].copy_from_slice(&(payload_len as u16).to_be_bytes());
        }
        _ => {
            out[1] = LEN_64;
            out[2..].copy_from_slice(&(payload_len as u64).to_be_bytes());
        }
    }
    len
}

/// Appends the head of an unmasked frame.
///
/// By length, so that what is appended has one that the compiler knows: it is stored, not copied.
#[inline]
pub(crate) fn push_head(out: &mut Vec<u8>, fin: bool, opcode: Opcode, payload_len: usize) {
    fn push<const LEN: usize>(out: &mut Vec<u8>, fin: bool, opcode: Opcode, payload_len: usize) {
        let mut head = [0; LEN];
        write_head(&mut head, fin, opcode, payload_len);
        out.extend_from_slice(&head);
    }
    match head_len(payload_len) {
        2 => push::<2>(out, fin, opcode, payload_len),
        4 => push::<4>(out, fin, opcode, payload_len),
        _ => push::<10>(out, fin, opcode, payload_len),
    }
}

/// Masks or unmasks (it is the same) in place. `offset` is the position of `payload[0]` in the
/// frame's payload.
///
/// Words of halving size: the widest are what the compiler turns into vector code, and none of
/// them leaves more than the next one takes, so that short payloads need no byte loop either. All
/// are multiples of the key, which therefore never turns between them.
#[inline]
pub(crate) fn unmask(payload: &mut [u8], key: [u8; 4], offset: usize) {
    let mut key = key;
    key.rotate_left(offset % 4);
    let key_32 = u32::from_ne_bytes(key);
    let key_64 = u64::from(key_32) << 32 | u64::from(key_32);

    let (blocks, rest) = payload.as_chunks_mut::<32>();
    for block in blocks {
        let (words, _) = block.as_chunks_mut::<8>();
        for word in words {
            *word = (u64::from_ne_bytes(*word) ^ key_64).to_ne_bytes();
        }
    }
    let (words, rest) = rest.as_chunks_mut::<8>();
    for word in words {
        *word = (u64::from_ne_bytes(*word) ^ key_64).to_ne_bytes();
    }
    let (words, rest) = rest.as_chunks_mut::<4>();
    for word in words {
        *word = (u32::from_ne_bytes(*word) ^ key_32).to_ne_bytes();
    }
    for (byte, key) in rest.iter_mut().zip(key) {
        *byte ^= key;
    }
}

/// One frame of a buffer of unmasked frames.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Frame<'a> {
    pub(crate) opcode: Opcode,
    pub(crate) fin: bool,
    pub(crate) payload: &'a [u8],
    /// Length of the whole frame, head and payload.
    pub(crate) len: usize,
}

/// Walks the frames the server wrote to `bytes`. Ends at the end of `bytes`, or before bytes that
/// are not a whole unmasked frame.
pub(crate) fn frames(bytes: &[u8]) -> impl Iterator<Item = Frame<'_>> {
    let mut rest = bytes;
    std::iter::from_fn(move || {
        let head = parse_head(rest).ok().flatten()?;
        if head.masked.is_some() {
            return None;
        }
        let len = head.len.checked_add(usize::try_from(head.payload_len).ok()?)?;
        let (frame, tail) = rest.split_at_checked(len)?;
        rest = tail;
        Some(Frame { opcode: head.opcode, fin: head.fin, payload: &frame[head.len..], len })
    })
}
