use bytes::Bytes;

use super::super::{Encoder, disconnect, fixed, with_encoder, write_payload};
use crate::protocol::engine_io::PayloadWriter;
use crate::protocol::socket_io::EncodeError;
use crate::protocol::websocket::{Opcode, close_frame, frames};

/// A text frame with a one-byte length.
fn text(packet: &str) -> Vec<u8> {
    assert!(packet.len() <= 125);
    [&[0x81, packet.len() as u8], packet.as_bytes()].concat()
}

/// A binary frame with a one-byte length.
fn binary(bytes: &[u8]) -> Vec<u8> {
    assert!(bytes.len() <= 125);
    [&[0x82, bytes.len() as u8], bytes].concat()
}

fn payload(bytes: &[u8]) -> String {
    let mut body = Vec::new();
    write_payload(bytes, &mut PayloadWriter::new(&mut body));
    String::from_utf8(body).unwrap()
}

#[test]
fn an_event_is_one_text_frame() {
    let mut encoder = Encoder::default();
    let cases: [(&str, Option<u64>, &str); 4] = [
        ("/", None, r#"42["e",1,"a"]"#),
        ("/", Some(17), r#"4217["e",1,"a"]"#),
        ("/chat", None, r#"42/chat,["e",1,"a"]"#),
        ("/chat", Some(0), r#"42/chat,0["e",1,"a"]"#),
    ];
    for (namespace, id, packet) in cases {
        let frames = encoder.event(namespace, id, "e", &(1, "a")).unwrap();
        assert_eq!(frames, text(packet), "{packet}");
    }
}

#[test]
fn attachments_follow_their_event_as_binary_frames() {
    let mut encoder = Encoder::default();
    let args = (Bytes::from_static(&[1, 2]), 7, Bytes::from_static(&[3]));
    let placeholder = |num| format!(r#"{{"_placeholder":true,"num":{num}}}"#);
    let packet = format!(r#"452-/a,9["e",{},7,{}]"#, placeholder(0), placeholder(1));
    let expected = [text(&packet), binary(&[1, 2]), binary(&[3])].concat();
    assert_eq!(encoder.event("/a", Some(9), "e", &args).unwrap(), expected);
    let packet = format!(r#"462-9[{},7,{}]"#, placeholder(0), placeholder(1));
    let expected = [text(&packet), binary(&[1, 2]), binary(&[3])].concat();
    assert_eq!(encoder.ack("/", 9, &args).unwrap(), expected);
}

#[test]
fn an_acknowledgement_is_one_text_frame() {
    let mut encoder = Encoder::default();
    assert_eq!(encoder.ack("/", 3, &()).unwrap(), text("433[]"));
    assert_eq!(encoder.ack("/x", 3, &"ok").unwrap(), text(r#"43/x,3["ok"]"#));
}

#[test]
fn an_encoder_forgets_what_it_encoded_before() {
    let mut encoder = Encoder::default();
    let large = "x".repeat(300_000);
    assert_eq!(encoder.event("/", None, "e", &large).unwrap().len(), 10 + 300_010);
    encoder.event("/", None, "e", &Bytes::from_static(b"attached")).unwrap();
    assert_eq!(encoder.event("/", None, "e", &()).unwrap(), text(r#"42["e"]"#));
    let refused = encoder.event("/", None, "disconnect", &Bytes::from_static(b"lost"));
    assert!(matches!(refused, Err(EncodeError::ReservedEventName)));
    assert_eq!(encoder.event("/", None, "e", &()).unwrap(), text(r#"42["e"]"#));
}

/// An attachment, then something that no JSON can hold.
#[derive(serde::Serialize)]
struct Broken {
    attached: Bytes,
    map: std::collections::HashMap<Vec<u8>, u8>,
}

#[test]
fn a_message_that_failed_leaves_no_attachment_behind() {
    let attached = Bytes::from(vec![1; 64]);
    let broken = Broken { attached: attached.clone(), map: [(vec![1], 1)].into() };
    with_encoder(|encoder| {
        assert!(encoder.event("/", None, "e", &broken).is_err());
        assert_eq!(encoder.event("/", None, "e", &()).unwrap(), text(r#"42["e"]"#));
        assert!(encoder.event("/", None, "e", &broken).is_err());
    });
    drop(broken);
    assert!(attached.is_unique(), "nobody holds the user's bytes any more");
}

#[test]
fn a_threads_encoder_gives_the_room_of_a_large_message_back() {
    let large = "x".repeat(1_000_000);
    for encode in [
        |encoder: &mut Encoder, large: &str| encoder.event("/", None, "e", large).unwrap().len(),
        |encoder: &mut Encoder, large: &str| encoder.engine_binary(large.as_bytes()).len(),
    ] {
        let small = with_encoder(|encoder| encoder.ack("/", 1, &()).unwrap().len());
        assert!(with_encoder(|encoder| encode(encoder, &large)) > small);
        assert!(with_encoder(|encoder| encoder.capacity_bytes()) <= 256 * 1024);
    }
}

#[test]
fn packets_have_the_shortest_head() {
    let heads: [(usize, &[u8]); 7] = [
        (1, &[0x81, 1]),
        (125, &[0x81, 125]),
        (126, &[0x81, 126, 0, 126]),
        (127, &[0x81, 126, 0, 127]),
        (65_535, &[0x81, 126, 0xff, 0xff]),
        (65_536, &[0x81, 127, 0, 0, 0, 0, 0, 1, 0, 0]),
        (1_000_000, &[0x81, 127, 0, 0, 0, 0, 0, 0x0f, 0x42, 0x40]),
    ];
    let mut encoder = Encoder::default();
    for (len, head) in heads {
        let packet = "x".repeat(len - 1);
        let write = |out: &mut Vec<u8>| out.extend_from_slice(packet.as_bytes());
        let expected = [head, b"4", packet.as_bytes()].concat();
        assert!(encoder.packet(write) == expected, "message of {len} bytes");
        let write = |out: &mut Vec<u8>| {
            out.push(b'0');
            out.extend_from_slice(packet.as_bytes());
        };
        let expected = [head, b"0", packet.as_bytes()].concat();
        assert!(encoder.engine_packet(write) == expected, "packet of {len} bytes");
        let bytes = vec![7; len];
        let expected = [&[0x82], &head[1..], &bytes].concat();
        assert!(encoder.engine_binary(&bytes) == expected, "binary of {len} bytes");
    }
}

#[test]
fn large_attachments_have_the_heads_of_their_lengths() {
    let mut encoder = Encoder::default();
    for len in [0, 125, 126, 65_535, 65_536] {
        let attached = Bytes::from(vec![9; len]);
        let bytes = encoder.event("/", None, "e", &attached).unwrap();
        let walked: Vec<_> = frames(bytes).collect();
        assert_eq!(walked.len(), 2);
        assert!(walked[0].payload.starts_with(b"451-[\"e\","));
        assert_eq!((walked[1].opcode, walked[1].payload.len()), (Opcode::Binary, len));
        assert_eq!(walked[0].len + walked[1].len, bytes.len());
    }
}

#[test]
fn ready_frames_are_what_the_encoder_would_make() {
    assert_eq!(fixed::PING, text("2"));
    assert_eq!(fixed::PROBE_PONG, text("3probe"));
    let noop_close = [fixed::body::NOOP, b"\x1e", fixed::body::CLOSE].concat();
    assert_eq!(fixed::body::NOOP_CLOSE, noop_close);
    assert_eq!(disconnect("/"), text("41"));
    assert_eq!(disconnect("/chat"), text("41/chat,"));
}

#[test]
fn a_polling_body_holds_the_packets_of_the_frames() {
    let mut encoder = Encoder::default();
    let mut all = fixed::PING.to_vec();
    all.extend_from_slice(encoder.event("/", None, "e", &Bytes::from_static(&[1, 2])).unwrap());
    all.extend_from_slice(encoder.ack("/", 1, &"é").unwrap());
    let event = r#"451-["e",{"_placeholder":true,"num":0}]"#;
    assert_eq!(payload(&all), format!("2\u{1e}{event}\u{1e}bAQI=\u{1e}431[\"é\"]"));
    assert_eq!(payload(&[]), "");
}

#[test]
fn control_frames_have_no_place_in_a_polling_body() {
    let pong = [0x8a, 1, b'x'];
    let close = close_frame(crate::protocol::websocket::CloseCode::NORMAL, "");
    let all = [&pong[..], fixed::PING, &close, &text("6")].concat();
    assert_eq!(payload(&all), "2\u{1e}6");
}

#[test]
fn a_polling_body_goes_on_over_several_runs() {
    let mut body = Vec::new();
    let mut writer = PayloadWriter::new(&mut body);
    write_payload(&text("2"), &mut writer);
    write_payload(&[], &mut writer);
    write_payload(&text("6"), &mut writer);
    assert_eq!(body, b"2\x1e6");
}

#[test]
fn encoders_nest() {
    let outer = with_encoder(|outer| {
        let inner = with_encoder(|inner| inner.ack("/", 1, &()).unwrap().to_vec());
        outer.packet(|out| out.extend_from_slice(&inner)).to_vec()
    });
    assert_eq!(outer, [&[0x81, 8, b'4'], &text("431[]")[..]].concat());
}
