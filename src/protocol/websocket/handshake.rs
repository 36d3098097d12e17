//! The opening handshake, from plain header values to the head of the 101 response.
//!
//! It does not know HTTP: whether the request is a GET that asks for an upgrade, and what an error
//! response looks like, is the caller's business. Tests: `tests.rs`.

use base64_simd::AsOut as _;
use sha1::{Digest as _, Sha1};

/// Appended to every key (RFC 6455, section 1.3).
const GUID: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
/// 16 bytes in base64.
const KEY_BYTES: usize = 24;
/// 20 bytes, the size of a SHA-1 hash, in base64.
const ACCEPT_BYTES: usize = 28;

/// A well-formed `Sec-WebSocket-Key`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Key([u8; KEY_BYTES]);

impl Key {
    /// The value of `Sec-WebSocket-Accept` that answers this key.
    pub(crate) fn accept(&self) -> [u8; ACCEPT_BYTES] {
        accept_key(&self.0)
    }
}

/// Why an upgrade request is refused. Always the client's fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum HandshakeError {
    #[error("Sec-WebSocket-Version must be 13")]
    Version,
    #[error("Sec-WebSocket-Key is missing or is not 16 bytes in base64")]
    Key,
}

impl HandshakeError {
    /// The HTTP status of the refusal.
    pub(crate) const fn status(self) -> u16 {
        match self {
            Self::Version => 426,
            Self::Key => 400,
        }
    }

    /// The header the refusal must carry besides the usual ones.
    pub(crate) const fn header(self) -> Option<(&'static str, &'static str)> {
        match self {
            Self::Version => Some(("Sec-WebSocket-Version", "13")),
            Self::Key => None,
        }
    }
}

/// Checks the values of `Sec-WebSocket-Version` and `Sec-WebSocket-Key`, already trimmed.
pub(crate) fn check(version: Option<&[u8]>, key: Option<&[u8]>) -> Result<Key, HandshakeError> {
    if version != Some(b"13") {
        return Err(HandshakeError::Version);
    }
    // The key is never decoded, so the four bits of the last digit that stand for nothing may have
    // any value, as Node's ws allows.
    let key: &[u8; KEY_BYTES] =
        key.and_then(|key| key.try_into().ok()).ok_or(HandshakeError::Key)?;
    let well_formed = match key {
        [digits @ .., b'=', b'='] => digits.iter().all(|&byte| is_base64_digit(byte)),
        _ => false,
    };
    if well_formed { Ok(Key(*key)) } else { Err(HandshakeError::Key) }
}

fn is_base64_digit(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/')
}

/// The value of `Sec-WebSocket-Accept` for a key as it was sent.
pub(crate) fn accept_key(key: &[u8]) -> [u8; ACCEPT_BYTES] {
    let hash = Sha1::new().chain_update(key).chain_update(GUID).finalize();
    let mut accept = [0; ACCEPT_BYTES];
    let written = base64_simd::STANDARD.encode(&hash, accept.as_mut_slice().as_out());
    debug_assert_eq!(written.len(), ACCEPT_BYTES);
    accept
}

/// Writes the head of the 101 response. Names and values of `headers` must be free of line breaks.
pub(crate) fn write_response<N, V>(
    out: &mut Vec<u8>,
    accept: &[u8; ACCEPT_BYTES],
    headers: impl IntoIterator<Item = (N, V)>,
) where
    N: AsRef<[u8]>,
    V: AsRef<[u8]>,
{
    out.extend_from_slice(
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
          Sec-WebSocket-Accept: ",
    );
    out.extend_from_slice(accept);
    out.extend_from_slice(b"\r\n");
    for (name, value) in headers {
        let (name, value) = (name.as_ref(), value.as_ref());
        debug_assert!(memchr::memchr2(b'\r', b'\n', name).is_none());
        debug_assert!(memchr::memchr2(b'\r', b'\n', value).is_none());
        out.extend_from_slice(name);
        out.extend_from_slice(b": ");
        out.extend_from_slice(value);
        out.extend_from_slice(b"\r\n");
    }
    out.extend_from_slice(b"\r\n");
}
