//! What a slow session's outbox may lose: whole events with all their attachments, nothing else.

use crate::protocol::websocket::{Frame, Opcode, frames};

/// After `sent` bytes of `bytes` (frames after `pinned` bytes of another) left: how many bytes of
/// the frame that was cut remain to be sent before anything may be dropped.
pub(crate) fn pinned_after(bytes: &[u8], pinned: usize, sent: usize) -> usize {
    if sent <= pinned {
        return pinned - sent;
    }
    let mut at = pinned;
    for frame in frames(&bytes[pinned..]) {
        at += frame.len;
        if at >= sent {
            break;
        }
    }
    // A cut event drags its attachments with it: they would have no meaning alone.
    let rest = bytes.get(at..).unwrap_or_default();
    at += frames(rest)
        .take_while(|frame| frame.opcode == Opcode::Binary)
        .map(|f| f.len)
        .sum::<usize>();
    at.saturating_sub(sent)
}

/// Copies `bytes` without the oldest events, as many as it takes to free `excess` bytes. The first
/// `pinned` bytes stay, and so does every packet that is not an event (pings, acks, CONNECT).
/// Returns what is kept and how many events were dropped.
pub(crate) fn keep_undroppable(
    bytes: &[u8],
    pinned: usize,
    excess: usize,
    speaks: Speaks,
) -> (Vec<u8>, u64) {
    let mut kept = Vec::with_capacity(bytes.len());
    kept.extend_from_slice(&bytes[..pinned]);
    let (mut freed, mut dropped, mut dropping) = (0, 0, false);
    let mut at = pinned;
    for frame in frames(&bytes[pinned..]) {
        let is_attachment = frame.opcode == Opcode::Binary && speaks == Speaks::SocketIo;
        if !is_attachment {
            let droppable = match speaks {
                Speaks::SocketIo => is_event(&frame),
                Speaks::EngineIo => is_message(&frame),
            };
            dropping = freed < excess && droppable;
            dropped += u64::from(dropping);
        }
        if dropping {
            freed += frame.len;
        } else {
            kept.extend_from_slice(&bytes[at..at + frame.len]);
        }
        at += frame.len;
    }
    (kept, dropped)
}

/// What the messages of a session are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Speaks {
    /// Packets, some of them with attachments behind them.
    SocketIo,
    /// The user's own, each for itself.
    EngineIo,
}

fn is_message(frame: &Frame<'_>) -> bool {
    match frame.opcode {
        Opcode::Binary => true,
        Opcode::Text => frame.payload.first() == Some(&b'4'),
        _ => false,
    }
}

/// A Socket.IO EVENT or BINARY_EVENT is told by its first bytes, whether or not it asks for an
/// acknowledgement: the wait for one that never left ends by its timeout.
fn is_event(frame: &Frame<'_>) -> bool {
    frame.opcode == Opcode::Text && matches!(frame.payload, [b'4', b'2' | b'5', ..])
}
