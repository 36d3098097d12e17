//! One message -> its frames, in one contiguous run.

use std::cell::Cell;

use bytes::Bytes;
use serde::Serialize;

use crate::protocol::socket_io::{self, EncodeError};
use crate::protocol::websocket::{HEAD_BYTES_MAX, Opcode, push_head, write_head};

/// Room for the longest frame head and the Engine.IO type before a packet of unknown length.
const HEADROOM: usize = HEAD_BYTES_MAX + 1;

/// Buffers that keep their capacity between messages, so that encoding allocates nothing.
#[derive(Debug, Default)]
pub(crate) struct Encoder {
    out: Vec<u8>,
    attachments: Vec<Bytes>,
}

/// A thread's buffer that grew past this for one large message is given back after it.
const KEPT_BYTES_MAX: usize = 256 * 1024;

impl Encoder {
    /// An EVENT (or BINARY_EVENT with its attachments).
    pub(crate) fn event<T: Serialize + ?Sized>(
        &mut self,
        namespace: &str,
        id: Option<u64>,
        event: &str,
        args: &T,
    ) -> Result<&[u8], EncodeError> {
        self.begin();
        socket_io::encode_event(&mut self.out, namespace, id, event, args, &mut self.attachments)?;
        Ok(self.finish())
    }

    /// An ACK (or BINARY_ACK with its attachments).
    pub(crate) fn ack<T: Serialize + ?Sized>(
        &mut self,
        namespace: &str,
        id: u64,
        args: &T,
    ) -> Result<&[u8], EncodeError> {
        self.begin();
        socket_io::encode_ack(&mut self.out, namespace, id, args, &mut self.attachments)?;
        Ok(self.finish())
    }

    /// A Socket.IO packet that `write` appends.
    pub(crate) fn packet(&mut self, write: impl FnOnce(&mut Vec<u8>)) -> &[u8] {
        self.begin();
        write(&mut self.out);
        self.finish()
    }

    /// An Engine.IO packet that `write` appends, type included.
    pub(crate) fn engine_packet(&mut self, write: impl FnOnce(&mut Vec<u8>)) -> &[u8] {
        self.begin();
        self.out.pop();
        write(&mut self.out);
        self.head(HEADROOM - 1)
    }

    /// A binary Engine.IO message.
    pub(crate) fn engine_binary(&mut self, bytes: &[u8]) -> &[u8] {
        self.out.clear();
        push_head(&mut self.out, true, Opcode::Binary, bytes.len());
        self.out.extend_from_slice(bytes);
        &self.out
    }

    #[cfg(test)]
    pub(super) fn capacity_bytes(&self) -> usize {
        self.out.capacity()
    }

    fn begin(&mut self) {
        self.out.clear();
        self.attachments.clear();
        self.out.resize(HEADROOM, b'4');
    }

    /// Keeps what serves the next message, and nothing of the last one's.
    fn shed(&mut self) {
        if self.out.capacity() > KEPT_BYTES_MAX {
            self.out = Vec::new();
        }
        // A message that failed may have left some.
        self.attachments.clear();
    }

    fn finish(&mut self) -> &[u8] {
        let start = self.place_head(HEADROOM - 1);
        for attachment in self.attachments.drain(..) {
            push_head(&mut self.out, true, Opcode::Binary, attachment.len());
            self.out.extend_from_slice(&attachment);
        }
        &self.out[start..]
    }

    fn head(&mut self, packet: usize) -> &[u8] {
        let start = self.place_head(packet);
        &self.out[start..]
    }

    /// Writes the head of a text frame right before `packet`; returns where it begins.
    fn place_head(&mut self, packet: usize) -> usize {
        let mut head = [0; HEAD_BYTES_MAX];
        let len = write_head(&mut head, true, Opcode::Text, self.out.len() - packet);
        let start = packet - len;
        self.out[start..packet].copy_from_slice(&head[..len]);
        start
    }
}

/// A Socket.IO DISCONNECT, framed.
pub(crate) fn disconnect(namespace: &str) -> Vec<u8> {
    Encoder::default().packet(|out| socket_io::disconnect(out, namespace)).to_vec()
}

thread_local! {
    static ENCODER: Cell<Option<Encoder>> = const { Cell::new(None) };
}

/// Lends this thread's encoder. A nested call gets a fresh one.
pub(crate) fn with_encoder<R>(encode: impl FnOnce(&mut Encoder) -> R) -> R {
    let mut encoder = ENCODER.take().unwrap_or_default();
    let result = encode(&mut encoder);
    encoder.shed();
    ENCODER.set(Some(encoder));
    result
}
