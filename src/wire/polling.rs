//! Queued frames -> a long-polling body.

use crate::protocol::engine_io::PayloadWriter;
use crate::protocol::websocket::{Opcode, frames};

/// Appends the packets of `bytes` (whole server-side frames) to a polling body.
pub(crate) fn write_payload(bytes: &[u8], payload: &mut PayloadWriter<'_>) {
    for frame in frames(bytes) {
        match frame.opcode {
            Opcode::Text => payload.packet(frame.payload),
            Opcode::Binary => payload.binary(frame.payload),
            // Control frames speak of a WebSocket; a poll has none.
            _ => {}
        }
    }
}
