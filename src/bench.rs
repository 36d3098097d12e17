//! What `benches/` measures, behind the feature `bench-internals`.
//!
//! Not part of the API: whatever is here may change or go with any release. The codecs are private;
//! each function lends one of them, adds nothing worth measuring, and gives back a number or a
//! value so that the work cannot be optimised away. `None` means that the input was refused, which
//! no benchmark wants.
//!
//! ```text
//! unmask, decode_frame, encode_frame     websocket
//! split_payload, write_payload           engine_io
//! read_head, read_args, encode_event     socket_io
//! event_frames                           wire: all of an emit but its queueing
//! parse_request                          http
//! ```

use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::protocol::engine_io::{PayloadPacket, PayloadWriter, split};
use crate::protocol::http::{HeadLimits, parse_head};
use crate::protocol::socket_io;
use crate::protocol::websocket::{self, Decoder, Event, Opcode, push_head};
use crate::wire;

/// Attachments that a packet may announce.
const ATTACHMENTS_MAX: u32 = 10;
/// Bytes that a message may have.
const MESSAGE_BYTES_MAX: usize = 1_000_000;

/// A text frame as a client sends it. With the key `[0; 4]` decoding it in place changes nothing,
/// so that it can be decoded again, and takes as long as with any other key.
#[must_use]
pub fn masked_frame(payload: &[u8], key: [u8; 4]) -> Vec<u8> {
    let mut frame = Vec::new();
    push_head(&mut frame, true, Opcode::Text, payload.len());
    // The mask bit stands beside the short length; the key follows the head.
    frame[1] |= 0x80;
    frame.extend_from_slice(&key);
    let start = frame.len();
    frame.extend_from_slice(payload);
    unmask(&mut frame[start..], key);
    frame
}

/// Masks or unmasks a payload.
pub fn unmask(payload: &mut [u8], key: [u8; 4]) {
    websocket::unmask(payload, key, 0);
}

/// Reads one whole text message off the front of `bytes`; its length.
pub fn decode_frame(bytes: &mut [u8]) -> Option<usize> {
    let mut at = 0;
    match Decoder::server().next(bytes, &mut at, MESSAGE_BYTES_MAX) {
        Ok(Some(Event::Text(text))) => Some(text.len()),
        _ => None,
    }
}

/// Appends a text frame as the server sends it.
pub fn encode_frame(out: &mut Vec<u8>, payload: &[u8]) {
    push_head(out, true, Opcode::Text, payload.len());
    out.extend_from_slice(payload);
}

/// Reads a polling body, base64 in place; how many bytes of data its packets have.
pub fn split_payload(body: &mut [u8]) -> Option<usize> {
    split(body).try_fold(0, |sum, packet| match packet {
        Ok(PayloadPacket::Packet(_, data) | PayloadPacket::Binary(data)) => Some(sum + data.len()),
        Err(_) => None,
    })
}

/// Appends packets, each with its type digit, as a polling body.
pub fn write_payload(out: &mut Vec<u8>, packets: &[&[u8]]) {
    let mut payload = PayloadWriter::new(out);
    packets.iter().for_each(|packet| payload.packet(packet));
}

/// Appends the data of binary messages as a polling body.
pub fn write_binary_payload(out: &mut Vec<u8>, messages: &[&[u8]]) {
    let mut payload = PayloadWriter::new(out);
    messages.iter().for_each(|data| payload.binary(data));
}

/// Reads the head and the name of an event; where the arguments begin, and the name's length.
#[must_use]
pub fn read_head(packet: &[u8]) -> Option<(usize, usize)> {
    let head = socket_io::decode_head(packet, ATTACHMENTS_MAX).ok()?;
    let name = socket_io::event_name(&packet[head.payload_at..]).ok()?;
    Some((head.payload_at, name.len()))
}

/// Deserialises the arguments of an event from its payload.
#[must_use]
pub fn read_args<T: DeserializeOwned>(payload: &[u8], attachments: &[Bytes]) -> Option<T> {
    socket_io::from_args(payload, attachments, 1).ok()
}

/// Appends an event of the namespace `/` as a packet, without any frame.
pub fn encode_event<T: Serialize + ?Sized>(
    out: &mut Vec<u8>,
    event: &str,
    args: &T,
    attachments: &mut Vec<Bytes>,
) -> Option<()> {
    socket_io::encode_event(out, "/", None, event, args, attachments).ok().map(drop)
}

/// Encodes an event of the namespace `/` down to its frames, as an emit does; their length.
#[must_use]
pub fn event_frames<T: Serialize + ?Sized>(event: &str, args: &T) -> Option<usize> {
    wire::with_encoder(|encoder| encoder.event("/", None, event, args).map(<[u8]>::len).ok())
}

/// Reads the head of a request; its length.
#[must_use]
pub fn parse_request(bytes: &[u8]) -> Option<usize> {
    parse_head(bytes, &HeadLimits::default()).ok()?.map(|head| head.len)
}
