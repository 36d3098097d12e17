//! How a WebSocket ends: close codes, the close frame, and what a peer can do wrong.
//!
//! This is the leaf of the module: it knows no other part of it. A [`ProtocolError`] is always the
//! peer's fault; turning it into a close frame and a disconnect is the caller's work. Tests:
//! `tests.rs`.

use std::fmt;

/// The longest payload of a control frame.
const CONTROL_BYTES_MAX: usize = 125;
/// The first byte of every close frame: FIN and opcode 8.
const CLOSE_HEAD: u8 = 0x88;

/// A close code that may stand in a close frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct CloseCode(u16);

impl CloseCode {
    /// The purpose of the connection was fulfilled.
    pub(crate) const NORMAL: Self = Self(1000);
    /// The peer broke the protocol.
    pub(crate) const PROTOCOL_ERROR: Self = Self(1002);
    /// A text message was not UTF-8.
    pub(crate) const INVALID_PAYLOAD: Self = Self(1007);
    /// A message exceeds the limit.
    pub(crate) const TOO_BIG: Self = Self(1009);

    /// The code, if one may send it: those of RFC 6455, section 7.4 and the IANA registry that are
    /// not reserved for local use (1005, 1006, 1015), and the ranges of libraries and applications.
    pub(crate) const fn new(code: u16) -> Option<Self> {
        match code {
            1000..=1003 | 1007..=1014 | 3000..=4999 => Some(Self(code)),
            _ => None,
        }
    }

    pub(crate) const fn get(self) -> u16 {
        self.0
    }
}

impl fmt::Display for CloseCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The payload of a close frame that has one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct CloseFrame<'b> {
    pub(crate) code: CloseCode,
    pub(crate) reason: &'b str,
}

impl<'b> CloseFrame<'b> {
    /// Reads an unmasked payload. An empty one is legal and says nothing.
    pub(super) fn parse(payload: &'b [u8]) -> Result<Option<Self>, ProtocolError> {
        let Some((code, reason)) = payload.split_first_chunk::<2>() else {
            return if payload.is_empty() { Ok(None) } else { Err(ProtocolError::CloseTooShort) };
        };
        let code = u16::from_be_bytes(*code);
        let code = CloseCode::new(code).ok_or(ProtocolError::CloseCodeInvalid(code))?;
        let reason = simdutf8::basic::from_utf8(reason).map_err(|_| ProtocolError::InvalidUtf8)?;
        Ok(Some(Self { code, reason }))
    }
}

/// What the peer did wrong. All of them end the connection with [`ProtocolError::close_code`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ProtocolError {
    #[error("unknown opcode {0:#x}")]
    UnknownOpcode(u8),
    #[error("a reserved bit is set, but no extension was negotiated")]
    ReservedBits,
    #[error("a frame of a client is not masked")]
    Unmasked,
    #[error("a frame of a server is masked")]
    Masked,
    #[error("a control frame is fragmented")]
    ControlFragmented,
    #[error("a control frame exceeds 125 bytes")]
    ControlTooLong,
    #[error("a length is not in its shortest form")]
    LengthNotMinimal,
    #[error("a length has its highest bit set")]
    LengthOverflow,
    #[error("a continuation without a message to continue")]
    ContinuationWithoutStart,
    #[error("a new message inside a fragmented one")]
    MessageInsideFragments,
    #[error("a close payload of one byte")]
    CloseTooShort,
    #[error("close code {0} must not be sent")]
    CloseCodeInvalid(u16),
    #[error("text is not valid UTF-8")]
    InvalidUtf8,
    #[error("a message exceeds {message_bytes_max} bytes")]
    TooBig { message_bytes_max: usize },
}

impl ProtocolError {
    /// The code of the close frame that answers it.
    pub(crate) const fn close_code(self) -> CloseCode {
        match self {
            Self::InvalidUtf8 => CloseCode::INVALID_PAYLOAD,
            Self::TooBig { .. } => CloseCode::TOO_BIG,
            _ => CloseCode::PROTOCOL_ERROR,
        }
    }
}

/// A whole unmasked close frame. A reason that does not fit is cut at a character.
pub(crate) fn close_frame(code: CloseCode, reason: &str) -> Vec<u8> {
    let reason = &reason[..reason.floor_char_boundary(CONTROL_BYTES_MAX - 2)];
    let mut frame = Vec::with_capacity(4 + reason.len());
    frame.extend_from_slice(&[CLOSE_HEAD, 2 + reason.len() as u8]);
    frame.extend_from_slice(&code.get().to_be_bytes());
    frame.extend_from_slice(reason.as_bytes());
    frame
}
