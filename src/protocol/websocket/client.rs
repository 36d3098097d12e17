//! The client's role, as far as tests and the simulator need it: masked frames and the upgrade
//! request. What a client receives is read by [`Decoder::client`](super::Decoder::client).
//!
//! Keys are the caller's: nothing here is random. Tests: `tests.rs`.

use super::frame::{MASK, Opcode, push_head, unmask};

/// Appends a masked frame.
pub(crate) fn write_masked(
    out: &mut Vec<u8>,
    opcode: Opcode,
    fin: bool,
    key: [u8; 4],
    payload: &[u8],
) {
    let head = out.len();
    push_head(out, fin, opcode, payload.len());
    out[head + 1] |= MASK;
    out.extend_from_slice(&key);
    let start = out.len();
    out.extend_from_slice(payload);
    unmask(&mut out[start..], key, 0);
}

/// The head of an upgrade request. `key` is the value of `Sec-WebSocket-Key`.
pub(crate) fn upgrade_request(path: &str, host: &str, key: &str) -> Vec<u8> {
    format!(
        "GET {path} HTTP/1.1\r\nHost: {host}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n\r\n"
    )
    .into_bytes()
}
