//! The payload: the body of a long-polling request or reply, packets side by side.
//!
//! Packets are joined by the byte 0x1e; the data of a binary message is `b` and base64, without a
//! type digit. Both ways work without an allocation of their own: decoding lends the packets in
//! place, base64 included, and encoding appends to the caller's buffer. Tests below.

use std::mem;

use super::packet::{PacketError, PacketType, decode_mut};

/// Stands between two packets. JSON escapes it, so it never stands inside one.
pub(crate) const SEPARATOR: u8 = 0x1e;

/// Begins the data of a binary message.
const BINARY: u8 = b'b';

/// A packet of a payload, lent from the body.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum PayloadPacket<'b> {
    /// A packet and its data, which is valid UTF-8.
    Packet(PacketType, &'b mut [u8]),
    /// The data of a binary message, decoded.
    Binary(&'b mut [u8]),
}

/// Why a payload is refused. The peer's fault: the session ends with a parse error.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum PayloadError {
    #[error(transparent)]
    Packet(#[from] PacketError),
    #[error("an Engine.IO text packet is not UTF-8")]
    NotUtf8,
    #[error("the data of an Engine.IO binary message is not base64")]
    NotBase64,
}

/// The packets of a body, in order. Nothing follows an error, and an empty body is one.
pub(crate) fn split(body: &mut [u8]) -> Split<'_> {
    Split { rest: Some(body) }
}

/// See [`split`].
#[derive(Debug)]
pub(crate) struct Split<'b> {
    /// `None` when the last packet or an error was handed out.
    rest: Option<&'b mut [u8]>,
}

impl<'b> Iterator for Split<'b> {
    type Item = Result<PayloadPacket<'b>, PayloadError>;

    fn next(&mut self) -> Option<Self::Item> {
        let rest = self.rest.take()?;
        let part = match memchr::memchr(SEPARATOR, rest) {
            Some(end) => {
                let (part, tail) = rest.split_at_mut(end);
                self.rest = Some(&mut tail[1..]);
                part
            }
            None => rest,
        };
        let packet = decode_part(part);
        if packet.is_err() {
            self.rest = None;
        }
        Some(packet)
    }
}

fn decode_part(part: &mut [u8]) -> Result<PayloadPacket<'_>, PayloadError> {
    if part.first() == Some(&BINARY) {
        return decode_base64(&mut part[1..]).map(PayloadPacket::Binary);
    }
    // A separator is ASCII and never cuts a character: each part can be judged alone.
    simdutf8::basic::from_utf8(part).map_err(|_| PayloadError::NotUtf8)?;
    let (kind, data) = decode_mut(part)?;
    Ok(PayloadPacket::Packet(kind, data))
}

/// Standard alphabet. As Node does, takes too little padding, blanks, and bits left over in the
/// last digit; unlike Node, refuses what is no base64 at all.
fn decode_base64(text: &mut [u8]) -> Result<&mut [u8], PayloadError> {
    let padding = text.iter().rev().take(2).take_while(|&&byte| byte == b'=').count();
    let end = text.len() - padding;
    base64_simd::forgiving_decode_inplace(&mut text[..end]).map_err(|_| PayloadError::NotBase64)
}

/// Appends the packets of one payload to a buffer.
#[derive(Debug)]
pub(crate) struct PayloadWriter<'o> {
    out: &'o mut Vec<u8>,
    is_first: bool,
}

impl<'o> PayloadWriter<'o> {
    /// The payload begins where `out` ends.
    pub(crate) fn new(out: &'o mut Vec<u8>) -> Self {
        Self { out, is_first: true }
    }

    /// A packet with its type digit. A [`SEPARATOR`] in it would reach the peer as two packets.
    pub(crate) fn packet(&mut self, packet: &[u8]) {
        debug_assert!(!packet.is_empty(), "a packet has a type at least");
        self.separate();
        self.out.extend_from_slice(packet);
    }

    /// The data of a binary message.
    pub(crate) fn binary(&mut self, data: &[u8]) {
        self.separate();
        self.out.push(BINARY);
        base64_simd::STANDARD.encode_append(data, self.out);
    }

    fn separate(&mut self) {
        if !mem::take(&mut self.is_first) {
            self.out.push(SEPARATOR);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// What a test compares: the borrowed packets, owned.
    #[derive(Debug, Clone, PartialEq)]
    enum Owned {
        Packet(PacketType, Vec<u8>),
        Binary(Vec<u8>),
    }

    fn read(body: &[u8]) -> Vec<Result<Owned, PayloadError>> {
        split(&mut body.to_vec())
            .map(|packet| {
                packet.map(|packet| match packet {
                    PayloadPacket::Packet(kind, data) => Owned::Packet(kind, data.to_vec()),
                    PayloadPacket::Binary(data) => Owned::Binary(data.to_vec()),
                })
            })
            .collect()
    }

    fn message(data: &str) -> Result<Owned, PayloadError> {
        Ok(Owned::Packet(PacketType::Message, data.into()))
    }

    fn binary(data: &[u8]) -> Result<Owned, PayloadError> {
        Ok(Owned::Binary(data.to_vec()))
    }

    #[test]
    fn captured_payloads_are_read() {
        assert_eq!(read(b"40"), [message("0")]);
        assert_eq!(read("4hello\x1e4€".as_bytes()), [message("hello"), message("€")]);
        assert_eq!(read(b"4test\x1ebAQIDBA=="), [message("test"), binary(&[1, 2, 3, 4])]);
        assert_eq!(
            read(b"6\x1e1"),
            [
                Ok(Owned::Packet(PacketType::Noop, vec![])),
                Ok(Owned::Packet(PacketType::Close, vec![])),
            ]
        );
    }

    #[test]
    fn captured_payloads_are_written() {
        let mut out = b"head".to_vec();
        let mut writer = PayloadWriter::new(&mut out);
        writer.packet(b"4test");
        writer.binary(&[1, 2, 3, 4]);
        writer.packet(b"3");
        assert_eq!(out, b"head4test\x1ebAQIDBA==\x1e3");
    }

    #[test]
    fn base64_is_read_as_generously_as_node_does() {
        let cases: [(&[u8], &[u8]); 9] = [
            (b"b", b""),
            (b"bAQ==", &[1]),
            (b"bAQ=", &[1]),
            (b"bAQ", &[1]),
            (b"bAQI=", &[1, 2]),
            (b"bAQI", &[1, 2]),
            (b"bAQID", &[1, 2, 3]),
            (b"bAR==", &[1]),
            (b"bAQ ID\r\n", &[1, 2, 3]),
        ];
        for (body, data) in cases {
            assert_eq!(read(body), [binary(data)], "{body:?}");
        }
        for body in [&b"bA"[..], b"b*", b"bAQ===", b"b==AQ", b"bAQ==AQ==", b"b\xff"] {
            assert_eq!(read(body), [Err(PayloadError::NotBase64)], "{body:?}");
        }
    }

    #[test]
    fn nothing_follows_an_error() {
        let empty = || Err(PayloadError::Packet(PacketError::Empty));
        assert_eq!(read(b""), [empty()]);
        assert_eq!(read(b"\x1e"), [empty()]);
        assert_eq!(read(b"4a\x1e"), [message("a"), empty()]);
        assert_eq!(read(b"4a\x1e\x1e4b"), [message("a"), empty()]);
        assert_eq!(read(b"4a\xff\x1e4b"), [Err(PayloadError::NotUtf8)]);
        assert_eq!(
            read(b"4a\x1eabc\x1e4b"),
            [message("a"), Err(PayloadError::Packet(PacketError::UnknownType(b'a')))]
        );
    }

    fn packets() -> impl Strategy<Value = Vec<Owned>> {
        let text = "[^\u{1e}]{0,40}"
            .prop_map(|data| Owned::Packet(PacketType::Message, data.into_bytes()));
        let bytes = prop::collection::vec(any::<u8>(), 0..100).prop_map(Owned::Binary);
        prop::collection::vec(prop_oneof![text, bytes], 1..8)
    }

    proptest! {
        #[test]
        fn what_was_written_is_read(packets in packets()) {
            let mut body = Vec::new();
            let mut writer = PayloadWriter::new(&mut body);
            for packet in &packets {
                match packet {
                    Owned::Packet(kind, data) => {
                        writer.packet(&[&[kind.digit()], &data[..]].concat());
                    }
                    Owned::Binary(data) => writer.binary(data),
                }
            }
            let expected: Vec<_> = packets.into_iter().map(Ok).collect();
            prop_assert_eq!(read(&body), expected);
        }

        #[test]
        fn any_bytes_are_read_to_an_end(body in prop::collection::vec(
            prop_oneof![any::<u8>(), Just(SEPARATOR), Just(b'b'), Just(b'4'), Just(b'=')],
            0..200,
        )) {
            let packets = read(&body);
            prop_assert!(packets.iter().rev().skip(1).all(Result::is_ok));
            for packet in packets.into_iter().flatten() {
                if let Owned::Packet(_, data) = packet {
                    prop_assert!(String::from_utf8(data).is_ok());
                }
            }
        }
    }
}
