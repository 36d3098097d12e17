//! The decoder of one connection: received bytes in, whole messages and control frames out.
//!
//! ```text
//!            first fragment            last fragment          next call
//!   Ready ------------------> Open -------------------> Lent -----------> Ready
//!     |                        |
//!     +---- close frame -------+---- close frame ----> Closed    (any error leads there too)
//! ```
//!
//! The bytes stay the caller's: a message that came in one frame is unmasked and lent where it
//! lies. Only an open fragmented message has a buffer here, so an idle connection costs the size of
//! [`Decoder`] and nothing else. A frame that is not all there is left alone: each call reads its
//! head again and nothing more, so a large frame in many reads costs no quadratic work.
//!
//! The decoder answers nothing: pongs and close frames are the caller's to send. Tests: `tests.rs`.

use std::ops::Range;

use super::close::{CloseFrame, ProtocolError};
use super::frame::{FrameHead, HEAD_BYTES_MAX, Opcode, SHORT_LEN_MAX, parse_head, unmask};

/// What the peer said. Payloads are unmasked; those of messages may be changed in place.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Event<'b> {
    /// A whole message of valid UTF-8.
    Text(&'b mut [u8]),
    /// A whole binary message.
    Binary(&'b mut [u8]),
    /// To be answered with a pong of the same payload.
    Ping(&'b [u8]),
    Pong(&'b [u8]),
    /// The last event. To be answered with a close frame, unless this one is such an answer.
    Close(Option<CloseFrame<'b>>),
}

/// One connection's incoming side.
#[derive(Debug)]
pub(crate) struct Decoder {
    state: State,
    role: Role,
}

/// Which side we are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Role {
    Server,
    #[cfg_attr(not(test), allow(dead_code, reason = "tests and simulations have clients"))]
    Client,
}

#[derive(Debug)]
enum State {
    /// Between messages.
    Ready,
    /// Inside a fragmented message.
    Open(Box<Assembly>),
    /// A fragmented message was handed out and is freed by the next call.
    Lent(Box<Assembly>),
    /// After a close frame or an error.
    Closed,
}

/// A fragmented message.
#[derive(Debug)]
struct Assembly {
    bytes: Vec<u8>,
    /// How much of a text is known to be valid UTF-8: all but an incomplete character at the end.
    valid_len: usize,
    is_text: bool,
}

/// A frame that is all there, or the end of a fragmented message.
enum Found {
    Frame { opcode: Opcode, payload: Range<usize> },
    Assembled,
}

impl Decoder {
    /// Reads what a client sends.
    pub(crate) const fn server() -> Self {
        Self { state: State::Ready, role: Role::Server }
    }

    /// Reads what a server sends.
    pub(crate) const fn client() -> Self {
        Self { state: State::Ready, role: Role::Client }
    }

    /// The next event of `buf[*pos..]`; `*pos` moves past what was consumed.
    ///
    /// `None`: what remains from `*pos` is an incomplete frame (or nothing). Keep these bytes and
    /// call again when more have followed them; [`wanted`] says how many to make room for. Call
    /// until `None`, for a message that came in fragments is only freed by the next call.
    ///
    /// After [`Event::Close`] or an error the rest of the stream means nothing: every further call
    /// consumes all of `buf` and returns `None`.
    pub(crate) fn next<'b>(
        &'b mut self,
        buf: &'b mut [u8],
        pos: &mut usize,
        message_bytes_max: usize,
    ) -> Result<Option<Event<'b>>, ProtocolError> {
        let found = match self.find(buf, pos, message_bytes_max) {
            Ok(Some(found)) => found,
            Ok(None) => return Ok(None),
            Err(error) => return Err(self.fail(error, buf.len(), pos)),
        };
        let (opcode, payload) = match found {
            Found::Frame { opcode, payload } => (opcode, payload),
            Found::Assembled => return Ok(self.lend_assembled()),
        };
        let buf_len = buf.len();
        let payload = &mut buf[payload];
        Ok(Some(match opcode {
            Opcode::Text => {
                if !is_utf8(payload) {
                    return Err(self.fail(ProtocolError::InvalidUtf8, buf_len, pos));
                }
                Event::Text(payload)
            }
            Opcode::Ping => Event::Ping(payload),
            Opcode::Pong => Event::Pong(payload),
            Opcode::Close => match CloseFrame::parse(payload) {
                Ok(frame) => {
                    self.state = State::Closed;
                    Event::Close(frame)
                }
                Err(error) => return Err(self.fail(error, buf_len, pos)),
            },
            Opcode::Binary | Opcode::Continuation => Event::Binary(payload),
        }))
    }

    /// Finds and unmasks the next whole frame, after adding the fragments before it to their
    /// message.
    #[inline]
    fn find(
        &mut self,
        buf: &mut [u8],
        pos: &mut usize,
        message_bytes_max: usize,
    ) -> Result<Option<Found>, ProtocolError> {
        match self.state {
            State::Ready | State::Open(_) => {}
            State::Lent(_) => self.state = State::Ready,
            State::Closed => {
                *pos = buf.len();
                return Ok(None);
            }
        }
        loop {
            let Some(rest) = buf.get_mut(*pos..) else { return Ok(None) };
            let Some(head) = parse_head(rest)? else { return Ok(None) };
            self.admit(&head, message_bytes_max)?;
            // What was admitted is within a limit that is a usize.
            let frame_len = head.len.saturating_add(head.payload_len as usize);
            let Some(frame) = rest.get_mut(..frame_len) else { return Ok(None) };
            let payload = &mut frame[head.len..];
            if let Some(key) = head.masked {
                unmask(payload, key, 0);
            }
            let payload_start = *pos + head.len;
            *pos += frame_len;
            if head.opcode.is_control() || (head.fin && head.opcode != Opcode::Continuation) {
                let payload = payload_start..*pos;
                return Ok(Some(Found::Frame { opcode: head.opcode, payload }));
            }
            if self.assemble(&head, payload, message_bytes_max)? {
                return Ok(Some(Found::Assembled));
            }
        }
    }

    /// Whether a frame may come now and may be as long as its head says.
    #[inline]
    fn admit(&self, head: &FrameHead, message_bytes_max: usize) -> Result<(), ProtocolError> {
        if head.rsv != 0 {
            return Err(ProtocolError::ReservedBits);
        }
        match (self.role, head.masked) {
            (Role::Server, Some(_)) => {}
            (Role::Server, None) => return Err(ProtocolError::Unmasked),
            (Role::Client, None) => {}
            (Role::Client, Some(_)) => return Err(ProtocolError::Masked),
        }
        if head.opcode.is_control() {
            return Ok(());
        }
        let assembled_len = match (&self.state, head.opcode) {
            (State::Open(assembly), Opcode::Continuation) => assembly.bytes.len(),
            (State::Open(_), _) => return Err(ProtocolError::MessageInsideFragments),
            (_, Opcode::Continuation) => return Err(ProtocolError::ContinuationWithoutStart),
            _ => 0,
        };
        if head.payload_len > message_bytes_max.saturating_sub(assembled_len) as u64 {
            return Err(ProtocolError::TooBig { message_bytes_max });
        }
        Ok(())
    }

    /// Adds an admitted fragment to its message; `true` when it is the last one.
    #[cold]
    #[inline(never)]
    fn assemble(
        &mut self,
        head: &FrameHead,
        fragment: &[u8],
        message_bytes_max: usize,
    ) -> Result<bool, ProtocolError> {
        let mut assembly = match std::mem::replace(&mut self.state, State::Ready) {
            State::Open(assembly) => assembly,
            _ => Box::new(Assembly::new(head.opcode == Opcode::Text)),
        };
        assembly.append(fragment, head.fin, message_bytes_max)?;
        self.state = if head.fin { State::Lent(assembly) } else { State::Open(assembly) };
        Ok(head.fin)
    }

    #[cold]
    fn lend_assembled(&mut self) -> Option<Event<'_>> {
        let State::Lent(assembly) = &mut self.state else { return None };
        let Assembly { bytes, is_text, .. } = &mut **assembly;
        Some(if *is_text { Event::Text(bytes) } else { Event::Binary(bytes) })
    }

    #[cold]
    fn fail(&mut self, error: ProtocolError, buf_len: usize, pos: &mut usize) -> ProtocolError {
        self.state = State::Closed;
        *pos = buf_len;
        error
    }
}

/// Below this length the check by SIMD is none, but the standard library's.
const SIMD_BYTES_MIN: usize = 64;

/// Most short messages are ASCII, which is told in fewer steps than that they are UTF-8.
#[inline]
fn is_utf8(text: &[u8]) -> bool {
    (text.len() < SIMD_BYTES_MIN && text.is_ascii()) || simdutf8::basic::from_utf8(text).is_ok()
}

impl Assembly {
    const fn new(is_text: bool) -> Self {
        Self { bytes: Vec::new(), valid_len: 0, is_text }
    }

    /// Appends a fragment that keeps the message within its limit, and checks a text as far as it
    /// can be checked.
    fn append(
        &mut self,
        fragment: &[u8],
        fin: bool,
        message_bytes_max: usize,
    ) -> Result<(), ProtocolError> {
        self.reserve(fragment.len(), message_bytes_max);
        self.bytes.extend_from_slice(fragment);
        if !self.is_text {
            return Ok(());
        }
        match simdutf8::compat::from_utf8(&self.bytes[self.valid_len..]) {
            Ok(_) => self.valid_len = self.bytes.len(),
            Err(error) if error.error_len().is_none() && !fin => {
                self.valid_len += error.valid_up_to();
            }
            Err(_) => return Err(ProtocolError::InvalidUtf8),
        }
        Ok(())
    }

    /// Doubles, but never past the limit: the bound on a message is the bound on its memory.
    fn reserve(&mut self, additional: usize, message_bytes_max: usize) {
        let len = self.bytes.len();
        let needed = len + additional;
        if needed > self.bytes.capacity() {
            let target = (self.bytes.capacity() * 2).min(message_bytes_max).max(needed);
            self.bytes.reserve_exact(target - len);
        }
    }
}

/// How long the incomplete frame at the front of `buf` will be in all, so that a buffer can be
/// reserved once. While its length has not arrived: how long a head can be.
///
/// A hint, bounded by `message_bytes_max` and the longest head whatever the peer claims;
/// [`Decoder::next`] is what refuses a longer frame.
pub(crate) fn wanted(buf: &[u8], message_bytes_max: usize) -> usize {
    let Ok(Some(head)) = parse_head(buf) else { return HEAD_BYTES_MAX };
    let payload_bytes_max = (message_bytes_max as u64).max(SHORT_LEN_MAX);
    head.len.saturating_add(head.payload_len.min(payload_bytes_max) as usize)
}
