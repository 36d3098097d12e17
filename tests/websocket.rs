//! RFC 6455, end to end: what a strict peer tests and what a hostile one tries.
//!
//! Every violation ends the connection that committed it, with the right close code, and no other:
//! a bystander on the same shard goes on. The client is `support/raw.rs`, plus tungstenite where an
//! independent implementation says more than bytes of our own.

#[path = "support/raw.rs"]
mod raw;
#[path = "support/tools.rs"]
mod tools;

use raw::{
    BINARY, CLOSE, CONTINUATION, FIN, PING, PONG, Polling, Raw, TEXT, TestServer, WEBSOCKET, frame,
    on_both_drivers, text, upgrade,
};
use stentor::{Args, Data, DriverKind, ServerBuilder, Socket};

/// Bytes of a message that the server here accepts.
const MESSAGE_MAX: usize = 1000;

fn with_echo(builder: ServerBuilder) -> ServerBuilder {
    builder.max_http_buffer_size(MESSAGE_MAX).namespace("/", |ns| {
        ns.on("echo", |socket: Socket, Data(args): Data<Args>| socket.emit("echo", &args));
    })
}

/// Each offence by its name, its bytes, and the close code it earns.
type Offence = (&'static str, Vec<u8>, u16);

/// Commits each offence on a connection of its own.
fn each_ends_its_connection_only(driver: DriverKind, offences: Vec<Offence>) {
    let server = TestServer::start(driver, with_echo);
    let mut bystander = server.client();
    for (name, bytes, code) in offences {
        let mut offender = server.client();
        offender.raw.send(bytes);
        assert_eq!(offender.raw.close_code(), code, "{name}");
        bystander.echoes();
    }
}

/// A frame that the client forgot to mask.
fn unmasked(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![first, payload.len() as u8];
    frame.extend_from_slice(payload);
    frame
}

/// The head of a masked frame with a length as it is written, and no payload.
fn head(first: u8, length: &[u8]) -> Vec<u8> {
    let mut head = vec![first];
    head.extend_from_slice(length);
    head.extend_from_slice(&[0; 4]);
    head
}

fn close(code: u16, reason: &[u8]) -> Vec<u8> {
    frame(FIN | CLOSE, &[&code.to_be_bytes(), reason].concat())
}

fn unmasked_frames_end_with_1002(driver: DriverKind) {
    each_ends_its_connection_only(
        driver,
        vec![
            ("text", unmasked(FIN | TEXT, b"42[\"echo\"]"), 1002),
            ("ping", unmasked(FIN | PING, b""), 1002),
            ("close", unmasked(FIN | CLOSE, b""), 1002),
        ],
    );
}

fn reserved_bits_and_opcodes_end_with_1002(driver: DriverKind) {
    let bits = [0x40, 0x20, 0x10].map(|bit| ("reserved bit", frame(FIN | bit | TEXT, b"3"), 1002));
    let opcodes = (3..=7).chain(11..=15).map(|code| ("opcode", frame(FIN | code, b""), 1002));
    each_ends_its_connection_only(driver, bits.into_iter().chain(opcodes).collect());
}

fn malformed_control_frames_end_with_1002(driver: DriverKind) {
    each_ends_its_connection_only(
        driver,
        vec![
            ("fragmented ping", frame(PING, b""), 1002),
            ("fragmented pong", frame(PONG, b"x"), 1002),
            ("fragmented close", frame(CLOSE, b""), 1002),
            ("long ping", frame(FIN | PING, &[0; 126]), 1002),
            ("long close", frame(FIN | CLOSE, &[3; 126]), 1002),
        ],
    );
}

fn malformed_fragments_end_with_1002(driver: DriverKind) {
    let nested = [frame(TEXT, b"42"), text("3")].concat();
    let after_whole = [text("3"), frame(FIN | CONTINUATION, b"x")].concat();
    each_ends_its_connection_only(
        driver,
        vec![
            ("continuation of nothing", frame(FIN | CONTINUATION, b"x"), 1002),
            ("continuation of a whole message", after_whole, 1002),
            ("message inside a message", nested, 1002),
        ],
    );
}

fn lengths_not_in_their_shortest_form_end_with_1002(driver: DriverKind) {
    let text_of = |length: &[u8]| head(FIN | TEXT, length);
    each_ends_its_connection_only(
        driver,
        vec![
            ("125 in 16 bits", text_of(&[0xfe, 0, 125]), 1002),
            ("65535 in 64 bits", text_of(&[0xff, 0, 0, 0, 0, 0, 0, 0xff, 0xff]), 1002),
            ("top bit of 64", text_of(&[0xff, 0x80, 0, 0, 0, 0, 0, 0, 0]), 1002),
        ],
    );
}

fn close_frames_that_must_not_be_sent_end_with_1002(driver: DriverKind) {
    let codes = [0, 999, 1004, 1005, 1006, 1015, 1016, 2999, 5000, 65535];
    let mut offences: Vec<Offence> =
        codes.iter().map(|&code| ("close code", close(code, b""), 1002)).collect();
    offences.push(("half a code", frame(FIN | CLOSE, b"\x03"), 1002));
    offences.push(("reason not UTF-8", close(1000, b"\xff"), 1007));
    each_ends_its_connection_only(driver, offences);
}

fn text_that_is_not_utf8_ends_with_1007(driver: DriverKind) {
    let bad: [(&str, &[u8]); 4] = [
        ("stray byte", b"42[\"\xff\"]"),
        ("overlong", b"42[\"\xc0\xaf\"]"),
        ("surrogate", b"42[\"\xed\xa0\x80\"]"),
        ("cut character", b"42[\"\xe2\x82"),
    ];
    let mut offences: Vec<Offence> =
        bad.iter().map(|&(name, bytes)| (name, frame(FIN | TEXT, bytes), 1007)).collect();
    for (name, bytes) in bad {
        for cut in 0..bytes.len() {
            let (one, two) = bytes.split_at(cut);
            offences.push((name, [frame(TEXT, one), frame(FIN, two)].concat(), 1007));
        }
    }
    // The fault is told before the message ends.
    offences.push(("unfinished message", frame(TEXT, b"4\xff"), 1007));
    each_ends_its_connection_only(driver, offences);
}

fn messages_beyond_the_limit_end_with_1009(driver: DriverKind) {
    let half = vec![b'x'; MESSAGE_MAX / 2 + 1];
    let sum = [frame(TEXT, &half), frame(FIN, &half)].concat();
    // The head alone is enough: nobody waits for what will not be kept.
    let announced = head(FIN | BINARY, &[0xff, 0, 0, 0, 1, 0, 0, 0, 0]);
    each_ends_its_connection_only(
        driver,
        vec![
            ("one frame", frame(FIN | TEXT, &[b'x'; MESSAGE_MAX + 1]), 1009),
            ("binary", frame(FIN | BINARY, &[0; MESSAGE_MAX + 1]), 1009),
            ("fragments", sum, 1009),
            ("four gigabytes announced", announced, 1009),
        ],
    );
}

fn a_message_of_the_limit_is_taken(driver: DriverKind) {
    let server = TestServer::start(driver, with_echo);
    let mut client = server.client();
    let room = MESSAGE_MAX - r#"42["echo",""]"#.len();
    let packet = format!(r#"42["echo","{}"]"#, "x".repeat(room));
    client.send(&packet);
    client.expect(&packet);
}

fn legal_closes_are_answered_in_kind(driver: DriverKind) {
    let server = TestServer::start(driver, with_echo);
    for code in [1000, 1001, 1002, 1003, 1007, 1011, 3000, 4999] {
        let mut client = server.client();
        client.raw.send(close(code, "très bien".as_bytes()));
        assert_eq!(client.raw.close_code(), code);
    }
    let mut client = server.client();
    client.raw.send(frame(FIN | CLOSE, b""));
    assert_eq!(client.raw.close_code(), 1000);
}

fn nothing_after_a_close_frame_is_read(driver: DriverKind) {
    let server = TestServer::start(driver, with_echo);
    let mut client = server.client();
    client.raw.send([close(1000, b""), text(r#"42["echo",1]"#)].concat());
    assert_eq!(client.raw.close_code(), 1000);
}

fn fragments_make_one_message_with_pings_between_them(driver: DriverKind) {
    let server = TestServer::start(driver, with_echo);
    let mut client = server.client();
    let packet = r#"42["echo","né € 😀"]"#.as_bytes();
    let mut bytes = Vec::new();
    // One byte a fragment: characters are cut too, and some fragments are empty.
    for (index, byte) in packet.iter().enumerate() {
        let opcode = if index == 0 { TEXT } else { CONTINUATION };
        bytes.extend(frame(opcode, &[*byte]));
        bytes.extend(frame(CONTINUATION, b""));
        bytes.extend(frame(FIN | PING, &[index as u8]));
    }
    bytes.extend(frame(FIN | CONTINUATION, b""));
    client.raw.send(bytes);
    for index in 0..packet.len() {
        let pong = client.raw.frame();
        assert_eq!((pong.opcode, pong.payload), (PONG, vec![index as u8]));
    }
    client.expect(str::from_utf8(packet).expect("UTF-8"));
}

fn fragmented_attachments_are_whole_again(driver: DriverKind) {
    let server = TestServer::start(driver, with_echo);
    let mut client = server.client();
    client.send(r#"451-["echo",{"_placeholder":true,"num":0}]"#);
    client.raw.send([frame(BINARY, &[1, 2]), frame(FIN, &[3])].concat());
    client.expect(r#"451-["echo",{"_placeholder":true,"num":0}]"#);
    let attachment = client.raw.frame();
    assert_eq!((attachment.opcode, attachment.payload), (BINARY, vec![1, 2, 3]));
}

fn a_ping_is_answered_by_its_pong(driver: DriverKind) {
    let server = TestServer::start(driver, with_echo);
    let mut client = server.client();
    for payload in [&b""[..], b"x", &[0xff; 125]] {
        client.raw.send(frame(FIN | PING, payload));
        let pong = client.raw.frame();
        assert!(pong.fin);
        assert_eq!((pong.opcode, &*pong.payload), (PONG, payload));
    }
    // A pong that nobody asked for is no offence.
    client.raw.send(frame(FIN | PONG, b"unasked"));
    client.echoes();
}

/// Upgrade, pings, text in all three length forms, fragments, binary: everything legal at once.
fn conversation() -> Vec<u8> {
    let middle = format!(r#"42["echo","{}"]"#, "m".repeat(200));
    [
        upgrade(WEBSOCKET).into_bytes(),
        text("40"),
        text(r#"42["echo",1]"#),
        frame(FIN | PING, b"in between"),
        text(&middle),
        frame(TEXT, b"42[\"ec"),
        frame(FIN | PONG, b""),
        frame(FIN, b"ho\",2]"),
        text(r#"451-["echo",{"_placeholder":true,"num":0}]"#),
        frame(FIN | BINARY, b"bin"),
        close(1000, b""),
    ]
    .concat()
}

#[track_caller]
fn expect_conversation(raw: &mut Raw) {
    raw.expect_switch();
    assert!(raw.text().starts_with("0{"));
    assert!(raw.text().starts_with("40{"));
    assert_eq!(raw.text(), r#"42["echo",1]"#);
    assert_eq!(raw.frame().payload, b"in between");
    assert_eq!(raw.text().len(), 200 + r#"42["echo",""]"#.len());
    assert_eq!(raw.text(), r#"42["echo",2]"#);
    assert_eq!(raw.text(), r#"451-["echo",{"_placeholder":true,"num":0}]"#);
    assert_eq!(raw.frame().payload, b"bin");
    assert_eq!(raw.close_code(), 1000);
}

fn a_conversation_pipelined_behind_its_upgrade_is_served(driver: DriverKind) {
    let server = TestServer::start(driver, with_echo);
    let mut raw = server.raw();
    raw.send(conversation());
    expect_conversation(&mut raw);
}

fn an_offence_pipelined_behind_its_upgrade_comes_after_the_switch(driver: DriverKind) {
    let server = TestServer::start(driver, with_echo);
    let mut raw = server.raw();
    raw.send([upgrade(WEBSOCKET).into_bytes(), unmasked(FIN | TEXT, b"40")].concat());
    raw.expect_switch();
    assert_eq!(raw.close_code(), 1002);
}

fn a_conversation_of_single_bytes_is_served(driver: DriverKind) {
    let server = TestServer::start(driver, with_echo);
    let mut raw = server.raw();
    for byte in conversation() {
        raw.send([byte]);
    }
    expect_conversation(&mut raw);
}

fn a_conversation_cut_at_any_place_is_served(driver: DriverKind) {
    let server = TestServer::start(driver, with_echo);
    let mut bystander = server.client();
    let bytes = conversation();
    for cut in 1..bytes.len() {
        let mut raw = server.raw();
        raw.send(&bytes[..cut]);
        // The shard has turned since the first part arrived.
        bystander.echoes();
        raw.send(&bytes[cut..]);
        expect_conversation(&mut raw);
    }
}

fn a_long_frame_in_many_pieces_is_served(driver: DriverKind) {
    const LEN: usize = 300_000;
    let server = TestServer::start(driver, |builder| {
        with_echo(builder).max_http_buffer_size(2 * LEN).outbox_limit(8 * LEN)
    });
    let mut client = server.client();
    let packet = format!(r#"42["echo","{}"]"#, "long".repeat(LEN / 4));
    let bytes = [text(&packet), text(r#"42["echo","after"]"#)].concat();
    for piece in bytes.chunks(7_001) {
        client.raw.send(piece);
    }
    client.expect(&packet);
    client.expect(r#"42["echo","after"]"#);
}

fn an_upgrade_with_everything_pipelined_moves_the_session(driver: DriverKind) {
    let server = TestServer::start(driver, with_echo);
    let polling = Polling::connect(server.addr);
    let mut raw = server.raw();
    let pipelined = [
        upgrade(&polling.upgrade_target()).into_bytes(),
        text("2probe"),
        text("5"),
        text(r#"42["echo","moved"]"#),
    ];
    raw.send(pipelined.concat());
    raw.expect_switch();
    assert_eq!(raw.text(), "3probe");
    assert_eq!(raw.text(), r#"42["echo","moved"]"#);
}

fn an_offence_of_a_candidate_leaves_its_session_to_polling(driver: DriverKind) {
    let server = TestServer::start(driver, with_echo);
    let mut polling = Polling::connect(server.addr);
    for offence in [unmasked(FIN | TEXT, b"2probe"), frame(FIN | TEXT, b"\xff"), text("4nonsense")]
    {
        let mut candidate = server.raw();
        candidate.send(upgrade(&polling.upgrade_target()));
        candidate.expect_switch();
        candidate.send(offence);
        let code = candidate.close_code();
        assert!(matches!(code, 1000 | 1002 | 1007), "{code}");
        polling.post(r#"42["echo","still here"]"#);
        assert_eq!(polling.poll(), r#"42["echo","still here"]"#);
    }
}

fn bad_handshakes_are_refused(driver: DriverKind) {
    let server = TestServer::start(driver, with_echo);
    let good = upgrade(WEBSOCKET);
    let refused = |request: String| {
        let mut raw = server.raw();
        raw.send(request);
        let answer = raw.response();
        assert!(raw.ends());
        answer
    };
    let old = refused(good.replace("Version: 13", "Version: 8"));
    assert_eq!((old.status, old.field("sec-websocket-version")), (426, Some("13")));
    assert_eq!(refused(good.replace("dGhlIHNhbXBsZSBub25jZQ==", "short")).status, 400);
    assert_eq!(refused(good.replace("Sec-WebSocket-Key", "X-Key")).status, 400);
    assert_eq!(refused(good.replace("GET", "POST")).text(), "Bad handshake method");
    assert_eq!(refused(good.replace("EIO=4", "EIO=3")).text(), "Unsupported protocol version");
    assert_eq!(refused(good.replace("websocket HTTP", "carrier-pigeon HTTP")).status, 400);
    let stranger = good.replace("websocket HTTP", "websocket&sid=nobody HTTP");
    assert_eq!(refused(stranger).text(), "Session ID unknown");
}

fn an_independent_implementation_agrees(driver: DriverKind) {
    use tungstenite::Message;
    let server = TestServer::start(driver, with_echo);
    let url = format!("ws://{}{WEBSOCKET}", server.addr);
    let (mut peer, _) = tungstenite::connect(url).expect("a handshake");
    let mut next = |send: Option<Message>| {
        send.into_iter().for_each(|message| peer.send(message).expect("an open connection"));
        peer.read().expect("a message")
    };
    assert!(next(None).to_text().expect("text").starts_with("0{"));
    assert!(next(Some("40".into())).to_text().expect("text").starts_with("40{"));
    for len in [0, 100, 200, 900] {
        let packet = format!(r#"42["echo","{}"]"#, "é".repeat(len / 2));
        assert_eq!(next(Some(packet.clone().into())), Message::text(packet));
    }
    assert_eq!(next(Some(Message::Ping("?".into()))), Message::Pong("?".into()));
    let closed = next(Some(Message::Close(None)));
    assert!(matches!(closed, Message::Close(_)), "{closed:?}");
}

on_both_drivers! {
    unmasked_frames_end_with_1002,
    reserved_bits_and_opcodes_end_with_1002,
    malformed_control_frames_end_with_1002,
    malformed_fragments_end_with_1002,
    lengths_not_in_their_shortest_form_end_with_1002,
    close_frames_that_must_not_be_sent_end_with_1002,
    text_that_is_not_utf8_ends_with_1007,
    messages_beyond_the_limit_end_with_1009,
    a_message_of_the_limit_is_taken,
    legal_closes_are_answered_in_kind,
    nothing_after_a_close_frame_is_read,
    fragments_make_one_message_with_pings_between_them,
    fragmented_attachments_are_whole_again,
    a_ping_is_answered_by_its_pong,
    a_conversation_pipelined_behind_its_upgrade_is_served,
    an_offence_pipelined_behind_its_upgrade_comes_after_the_switch,
    a_conversation_of_single_bytes_is_served,
    a_conversation_cut_at_any_place_is_served,
    a_long_frame_in_many_pieces_is_served,
    an_upgrade_with_everything_pipelined_moves_the_session,
    an_offence_of_a_candidate_leaves_its_session_to_polling,
    bad_handshakes_are_refused,
    an_independent_implementation_agrees,
}
