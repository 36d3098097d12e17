//! Tests of the WebSocket codec: the examples of RFC 6455, a table per rule.

use super::client::{upgrade_request, write_masked};
use super::frame::{FrameHead, head_len, parse_head};
use super::*;

mod properties;

const MAX: usize = 1 << 20;
const KEY: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];

/// An [`Event`] that owns its bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Said {
    Text(String),
    Binary(Vec<u8>),
    Ping(Vec<u8>),
    Pong(Vec<u8>),
    Close(Option<(u16, String)>),
}

impl From<Event<'_>> for Said {
    fn from(event: Event<'_>) -> Self {
        match event {
            Event::Text(bytes) => Self::Text(std::str::from_utf8(bytes).unwrap().to_owned()),
            Event::Binary(bytes) => Self::Binary(bytes.to_vec()),
            Event::Ping(bytes) => Self::Ping(bytes.to_vec()),
            Event::Pong(bytes) => Self::Pong(bytes.to_vec()),
            Event::Close(frame) => {
                Self::Close(frame.map(|frame| (frame.code.get(), frame.reason.to_owned())))
            }
        }
    }
}

/// Reads as a session would: keeps the incomplete tail and puts the next bytes behind it.
fn read<'c>(
    decoder: &mut Decoder,
    chunks: impl IntoIterator<Item = &'c [u8]>,
    message_bytes_max: usize,
) -> (Vec<Said>, Option<ProtocolError>) {
    let (mut tail, mut said) = (Vec::new(), Vec::new());
    for chunk in chunks {
        tail.extend_from_slice(chunk);
        let mut pos = 0;
        loop {
            let before = pos;
            let event = decoder.next(&mut tail, &mut pos, message_bytes_max);
            let event = match event {
                Ok(event) => event.map(Said::from),
                Err(error) => {
                    assert_eq!(pos, tail.len());
                    return (said, Some(error));
                }
            };
            assert!(before <= pos && pos <= tail.len());
            let Some(event) = event else { break };
            said.push(event);
        }
        tail.drain(..pos);
        assert!(wanted(&tail, message_bytes_max) > tail.len(), "an incomplete frame wants more");
    }
    (said, None)
}

fn read_whole(bytes: &[u8]) -> (Vec<Said>, Option<ProtocolError>) {
    read(&mut Decoder::server(), [bytes], MAX)
}

fn masked(opcode: Opcode, fin: bool, payload: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    write_masked(&mut out, opcode, fin, KEY, payload);
    out
}

fn text(text: &str) -> Said {
    Said::Text(text.to_owned())
}

#[test]
fn decoder_is_small() {
    assert!(size_of::<Decoder>() <= 32, "{}", size_of::<Decoder>());
}

#[test]
fn rfc_examples_decode() {
    let client = |bytes: &[u8]| read(&mut Decoder::client(), [bytes], MAX);
    let hello = [0x81, 0x05, 0x48, 0x65, 0x6c, 0x6c, 0x6f];
    assert_eq!(client(&hello), (vec![text("Hello")], None));
    let hello = [0x81, 0x85, 0x37, 0xfa, 0x21, 0x3d, 0x7f, 0x9f, 0x4d, 0x51, 0x58];
    assert_eq!(read_whole(&hello), (vec![text("Hello")], None));
    let fragments = [0x01, 0x03, 0x48, 0x65, 0x6c, 0x80, 0x02, 0x6c, 0x6f];
    assert_eq!(client(&fragments), (vec![text("Hello")], None));
    let ping = [0x89, 0x05, 0x48, 0x65, 0x6c, 0x6c, 0x6f];
    assert_eq!(client(&ping), (vec![Said::Ping(b"Hello".to_vec())], None));
    let pong = [0x8a, 0x85, 0x37, 0xfa, 0x21, 0x3d, 0x7f, 0x9f, 0x4d, 0x51, 0x58];
    assert_eq!(read_whole(&pong), (vec![Said::Pong(b"Hello".to_vec())], None));
    for (head, len) in
        [(&[0x82, 0x7e, 1, 0][..], 256), (&[0x82, 0x7f, 0, 0, 0, 0, 0, 1, 0, 0], 65536)]
    {
        let bytes = [head, &vec![7; len]].concat();
        assert_eq!(client(&bytes), (vec![Said::Binary(vec![7; len])], None));
    }
}

#[test]
fn rfc_examples_encode() {
    let mut out = Vec::new();
    push_head(&mut out, true, Opcode::Text, 5);
    push_head(&mut out, false, Opcode::Text, 3);
    push_head(&mut out, true, Opcode::Continuation, 2);
    push_head(&mut out, true, Opcode::Binary, 256);
    push_head(&mut out, true, Opcode::Binary, 65536);
    let heads: [&[u8]; 5] = [
        &[0x81, 5],
        &[0x01, 3],
        &[0x80, 2],
        &[0x82, 0x7e, 1, 0],
        &[0x82, 0x7f, 0, 0, 0, 0, 0, 1, 0, 0],
    ];
    assert_eq!(out, heads.concat());
    let hello = [0x81, 0x85, 0x37, 0xfa, 0x21, 0x3d, 0x7f, 0x9f, 0x4d, 0x51, 0x58];
    assert_eq!(masked(Opcode::Text, true, b"Hello"), hello);
}

#[test]
fn heads_round_trip_at_every_length_form() {
    for len in [0, 1, 125, 126, 127, 65535, 65536, 1 << 32] {
        let mut out = [0xaa; HEAD_BYTES_MAX];
        let head_bytes = write_head(&mut out, true, Opcode::Binary, len);
        assert_eq!(head_bytes, head_len(len));
        let head = parse_head(&out[..head_bytes]).unwrap().unwrap();
        let expected = FrameHead {
            fin: true,
            rsv: 0,
            opcode: Opcode::Binary,
            masked: None,
            payload_len: len as u64,
            len: head_bytes,
        };
        assert_eq!(head, expected);
        for short in 0..head_bytes {
            assert_eq!(parse_head(&out[..short]), Ok(None));
        }
    }
}

#[test]
fn broken_rules_are_refused() {
    use ProtocolError::*;
    let open = masked(Opcode::Text, false, b"a");
    let close = |payload: &[u8]| masked(Opcode::Close, true, payload);
    let head = |first: u8, second: u8, more: &[u8]| [&[first, second], more].concat();
    let table: Vec<(&str, Vec<u8>, ProtocolError, u16)> = vec![
        ("unmasked", head(0x81, 0, &[]), Unmasked, 1002),
        ("unmasked ping", head(0x89, 0, &[]), Unmasked, 1002),
        ("rsv1", head(0xc1, 0x80, &KEY), ReservedBits, 1002),
        ("rsv2", head(0xa1, 0x80, &KEY), ReservedBits, 1002),
        ("rsv3", head(0x91, 0x80, &KEY), ReservedBits, 1002),
        ("rsv on a ping", head(0xc9, 0x80, &KEY), ReservedBits, 1002),
        ("opcode 3", head(0x83, 0x80, &[]), UnknownOpcode(3), 1002),
        ("opcode 7", head(0x87, 0x80, &[]), UnknownOpcode(7), 1002),
        ("opcode 11", head(0x8b, 0x80, &[]), UnknownOpcode(11), 1002),
        ("opcode 15", head(0x8f, 0x80, &[]), UnknownOpcode(15), 1002),
        ("ping without fin", head(0x09, 0x80, &[]), ControlFragmented, 1002),
        ("ping of 126", head(0x89, 0xfe, &[]), ControlTooLong, 1002),
        ("close of 64-bit length", head(0x88, 0xff, &[]), ControlTooLong, 1002),
        ("125 in 16 bits", head(0x82, 0xfe, &[0, 125]), LengthNotMinimal, 1002),
        ("65535 in 64 bits", head(0x82, 0xff, &65535u64.to_be_bytes()), LengthNotMinimal, 1002),
        ("highest bit", head(0x82, 0xff, &(1u64 << 63).to_be_bytes()), LengthOverflow, 1002),
        ("no start", masked(Opcode::Continuation, true, b""), ContinuationWithoutStart, 1002),
        (
            "no start, no end",
            masked(Opcode::Continuation, false, b"a"),
            ContinuationWithoutStart,
            1002,
        ),
        (
            "text inside",
            [open.clone(), masked(Opcode::Text, true, b"")].concat(),
            MessageInsideFragments,
            1002,
        ),
        (
            "binary inside",
            [open, masked(Opcode::Binary, false, b"")].concat(),
            MessageInsideFragments,
            1002,
        ),
        ("close of one byte", close(&[3]), CloseTooShort, 1002),
        ("close 1005", close(&1005u16.to_be_bytes()), CloseCodeInvalid(1005), 1002),
        ("close reason", close(&[3, 0xe8, 0xff]), InvalidUtf8, 1007),
        ("text", masked(Opcode::Text, true, b"a\xff"), InvalidUtf8, 1007),
        (
            "text cut short",
            masked(Opcode::Text, true, "é".as_bytes().split_last().unwrap().1),
            InvalidUtf8,
            1007,
        ),
    ];
    for (name, bytes, error, code) in table {
        assert_eq!(read_whole(&bytes), (vec![], Some(error)), "{name}");
        assert_eq!(error.close_code().get(), code, "{name}");
        assert_eq!(
            read(&mut Decoder::server(), bytes.chunks(1), MAX),
            (vec![], Some(error)),
            "{name}"
        );
    }
    let answer = read(&mut Decoder::client(), [&masked(Opcode::Text, true, b"a")[..]], MAX);
    assert_eq!(answer, (vec![], Some(Masked)));
}

#[test]
fn close_codes_are_those_one_may_send() {
    for code in 0..=u16::MAX {
        let valid = matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999);
        assert_eq!(CloseCode::new(code).is_some(), valid, "{code}");
    }
}

#[test]
fn close_ends_the_stream() {
    for (payload, said) in [
        (&b""[..], None),
        (&[3, 0xe8], Some((1000, String::new()))),
        (b"\x0f\xa0bye", Some((4000, "bye".to_owned()))),
    ] {
        let mut decoder = Decoder::server();
        let mut bytes = masked(Opcode::Close, true, payload);
        bytes.extend(masked(Opcode::Text, true, b"late"));
        assert_eq!(
            read(&mut decoder, [&bytes[..], b"later"], MAX),
            (vec![Said::Close(said)], None)
        );
    }
}

#[test]
fn nothing_is_read_after_an_error() {
    let mut decoder = Decoder::server();
    let bytes = [masked(Opcode::Text, false, b"a"), vec![0x81, 0]].concat();
    let unmasked = Some(ProtocolError::Unmasked);
    assert_eq!(read(&mut decoder, [&bytes[..]], MAX), (vec![], unmasked));
    let late = masked(Opcode::Continuation, true, b"late");
    assert_eq!(read(&mut decoder, [&late[..]], MAX), (vec![], None));
    let mut pos = 0;
    assert_eq!(decoder.next(&mut [1, 2, 3], &mut pos, MAX), Ok(None));
    assert_eq!(pos, 3);
}

#[test]
fn messages_are_limited_on_the_head_alone() {
    let too_big = Some(ProtocolError::TooBig { message_bytes_max: 10 });
    let read = |bytes: &[u8]| read(&mut Decoder::server(), [bytes], 10);
    let whole = masked(Opcode::Binary, true, &[0; 10]);
    assert_eq!(read(&whole), (vec![Said::Binary(vec![0; 10])], None));
    let whole = masked(Opcode::Binary, true, &[0; 11]);
    assert_eq!(read(&whole[..6]), (vec![], too_big));
    let huge = [&[0x82, 0xff][..], &(u64::MAX >> 1).to_be_bytes(), &KEY].concat();
    assert_eq!(read(&huge), (vec![], too_big));

    let first = masked(Opcode::Binary, false, &[0; 6]);
    let fits = [first.clone(), masked(Opcode::Continuation, true, &[0; 4])].concat();
    assert_eq!(read(&fits), (vec![Said::Binary(vec![0; 10])], None));
    let exceeds = [first.clone(), masked(Opcode::Continuation, false, &[0; 5])].concat();
    assert_eq!(read(&exceeds[..first.len() + 6]), (vec![], too_big));

    let ping = masked(Opcode::Ping, true, &[0; 125]);
    assert_eq!(read(&ping), (vec![Said::Ping(vec![0; 125])], None));
}

#[test]
fn an_incomplete_frame_is_left_alone() {
    let mut bytes = masked(Opcode::Binary, true, &[1; 1000]);
    bytes.pop();
    let (before, mut pos) = (bytes.clone(), 0);
    assert_eq!(Decoder::server().next(&mut bytes, &mut pos, MAX), Ok(None));
    assert_eq!((pos, bytes), (0, before));
}

#[test]
fn wanted_is_the_frame_and_never_more_than_the_limit() {
    let frame = masked(Opcode::Binary, true, &[1; 1000]);
    assert_eq!(wanted(&frame[..8], MAX), frame.len());
    assert_eq!(wanted(&frame[..7], MAX), HEAD_BYTES_MAX);
    assert_eq!(wanted(&[], MAX), HEAD_BYTES_MAX);
    let huge = [&[0x82, 0xff][..], &(u64::MAX >> 1).to_be_bytes(), &KEY].concat();
    assert_eq!(wanted(&huge, MAX), HEAD_BYTES_MAX + MAX);
    assert_eq!(wanted(&masked(Opcode::Ping, true, &[0; 125]), 10), 131);
}

#[test]
fn text_may_be_cut_at_every_byte() {
    let said = "aé€😀\u{7ff}\u{10ffff}z";
    for cut in 0..=said.len() {
        for second in cut..=said.len() {
            let bytes = [
                masked(Opcode::Text, false, &said.as_bytes()[..cut]),
                masked(Opcode::Ping, true, b"?"),
                masked(Opcode::Continuation, false, &said.as_bytes()[cut..second]),
                masked(Opcode::Continuation, true, &said.as_bytes()[second..]),
            ]
            .concat();
            assert_eq!(read_whole(&bytes), (vec![Said::Ping(b"?".to_vec()), text(said)], None));
        }
    }
}

#[test]
fn invalid_text_fails_in_its_own_fragment() {
    let invalid = (vec![], Some(ProtocolError::InvalidUtf8));
    for (first, second) in [
        (&b"\xff"[..], None),
        (b"\xed\xa0", None),
        (b"\xc3", Some((&b"a"[..], false))),
        (b"\xf0\x9f", Some((b"\x98\xc0", false))),
        (b"\xc3", Some((b"", true))),
    ] {
        let mut bytes = masked(Opcode::Text, false, first);
        if let Some((second, fin)) = second {
            bytes.extend(masked(Opcode::Continuation, fin, second));
        }
        assert_eq!(read_whole(&bytes), invalid, "{first:?} {second:?}");
    }
    let binary =
        [masked(Opcode::Binary, false, b"\xff"), masked(Opcode::Continuation, true, b"\xc3")];
    assert_eq!(read_whole(&binary.concat()), (vec![Said::Binary(b"\xff\xc3".to_vec())], None));
}

#[test]
fn close_frames_are_whole_and_short() {
    assert_eq!(close_frame(CloseCode::NORMAL, ""), [0x88, 2, 3, 0xe8]);
    let frame = close_frame(CloseCode::new(1001).unwrap(), &"é".repeat(100));
    let cut = Said::Close(Some((1001, "é".repeat(61))));
    assert_eq!(read(&mut Decoder::client(), [&frame[..]], MAX), (vec![cut], None));
}

#[test]
fn handshake_answers_the_rfc_example() {
    let sent = "dGhlIHNhbXBsZSBub25jZQ==";
    let key = check(Some(b"13"), Some(sent.as_bytes())).unwrap();
    assert_eq!(&key.accept(), b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    let mut out = Vec::new();
    write_response(&mut out, &key.accept(), [("Set-Cookie", "a=b"), ("X", "")]);
    let expected = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\
        Connection: Upgrade\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\
        Set-Cookie: a=b\r\nX: \r\n\r\n";
    assert_eq!(String::from_utf8(out).unwrap(), expected);
    let request = String::from_utf8(upgrade_request("/a", "h:1", sent)).unwrap();
    assert!(request.starts_with("GET /a HTTP/1.1\r\nHost: h:1\r\n"));
    assert!(request.contains(&format!("Sec-WebSocket-Key: {sent}\r\n")));
    assert!(request.ends_with("\r\n\r\n"));
}

#[test]
fn handshake_refuses_other_versions_and_keys() {
    let key = Some(&b"dGhlIHNhbXBsZSBub25jZQ=="[..]);
    for version in [None, Some(&b""[..]), Some(b"12"), Some(b"013"), Some(b"13, 8")] {
        assert_eq!(check(version, key), Err(HandshakeError::Version));
    }
    let keys: [Option<&[u8]>; 6] = [
        None,
        Some(b""),
        Some(b"dGhlIHNhbXBsZSBub25jZQ"),
        Some(b"dGhlIHNhbXBsZSBub25jZQ=a"),
        Some(b"dGhlIHNhbXBsZSBub25j ZQ="),
        Some(b"dGhlIHNhbXBsZSBub-5jZQ=="),
    ];
    for key in keys {
        assert_eq!(check(Some(b"13"), key), Err(HandshakeError::Key), "{key:?}");
    }
    assert_eq!(HandshakeError::Version.status(), 426);
    assert_eq!(HandshakeError::Version.header(), Some(("Sec-WebSocket-Version", "13")));
    assert_eq!(HandshakeError::Key.status(), 400);
}
