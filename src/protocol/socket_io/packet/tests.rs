use proptest::prelude::*;

use super::*;

const ATTACHMENTS_MAX: u32 = 10;

/// Kind, attachments, namespace, id and payload of a packet that must be accepted.
type Parts<'a> = (PacketType, u32, &'a str, Option<u64>, &'a str);

fn parts(text: &str) -> Result<Parts<'_>, PacketError> {
    let head = decode_head(text.as_bytes(), ATTACHMENTS_MAX)?;
    let payload = &text[head.payload_at..];
    check_payload(head.kind, payload.as_bytes())?;
    Ok((head.kind, head.attachments, head.namespace, head.id, payload))
}

#[test]
fn packets_of_the_protocol_are_read() {
    use PacketType::*;
    let table: &[(&str, Parts<'_>)] = &[
        ("0", (Connect, 0, "/", None, "")),
        ("0{}", (Connect, 0, "/", None, "{}")),
        (r#"0{"token":"a,b"}"#, (Connect, 0, "/", None, r#"{"token":"a,b"}"#)),
        ("0/admin", (Connect, 0, "/admin", None, "")),
        ("0/admin,", (Connect, 0, "/admin", None, "")),
        (r#"0/admin,{"a":1}"#, (Connect, 0, "/admin", None, r#"{"a":1}"#)),
        ("0/chat?x=1&y=2,", (Connect, 0, "/chat?x=1&y=2", None, "")),
        ("0/", (Connect, 0, "/", None, "")),
        ("0/ünï,", (Connect, 0, "/ünï", None, "")),
        ("1", (Disconnect, 0, "/", None, "")),
        ("1/admin,", (Disconnect, 0, "/admin", None, "")),
        (r#"2["a"]"#, (Event, 0, "/", None, r#"["a"]"#)),
        (r#"2["a",1,"/x,"]"#, (Event, 0, "/", None, r#"["a",1,"/x,"]"#)),
        (r#"20["a"]"#, (Event, 0, "/", Some(0), r#"["a"]"#)),
        (r#"2/n,007["a"]"#, (Event, 0, "/n", Some(7), r#"["a"]"#)),
        (r#"218446744073709551615["a"]"#, (Event, 0, "/", Some(u64::MAX), r#"["a"]"#)),
        ("2[1]", (Event, 0, "/", None, "[1]")),
        ("312[]", (Ack, 0, "/", Some(12), "[]")),
        ("3/n,456[1,2]", (Ack, 0, "/n", Some(456), "[1,2]")),
        (r#"4"no""#, (ConnectError, 0, "/", None, r#""no""#)),
        (r#"4/n,{"message":"no"}"#, (ConnectError, 0, "/n", None, r#"{"message":"no"}"#)),
        (r#"51-["a"]"#, (BinaryEvent, 1, "/", None, r#"["a"]"#)),
        (r#"50-["a"]"#, (BinaryEvent, 0, "/", None, r#"["a"]"#)),
        (r#"510-/n,3["a"]"#, (BinaryEvent, 10, "/n", Some(3), r#"["a"]"#)),
        ("61-/n,456[1]", (BinaryAck, 1, "/n", Some(456), "[1]")),
    ];
    for (text, expected) in table {
        assert_eq!(parts(text), Ok(*expected), "{text}");
    }
}

#[test]
fn packets_against_the_protocol_are_refused() {
    use PacketError::*;
    use PacketType::*;
    let table: &[(&str, PacketError)] = &[
        ("", Empty),
        ("7", UnknownType(b'7')),
        ("x", UnknownType(b'x')),
        (" 2[\"a\"]", UnknownType(b' ')),
        ("0[]", BadPayload(Connect)),
        ("0null", BadPayload(Connect)),
        ("0\"x\"", BadPayload(Connect)),
        ("1[]", BadPayload(Disconnect)),
        ("1{}", BadPayload(Disconnect)),
        ("2", BadPayload(Event)),
        ("2/n,", BadPayload(Event)),
        ("2{}", BadPayload(Event)),
        ("2\"a\"", BadPayload(Event)),
        ("2[]", BadEventName),
        ("2[", BadEventName),
        ("2[null]", BadEventName),
        ("2[true]", BadEventName),
        ("2[[\"a\"]]", BadEventName),
        ("2[{}]", BadEventName),
        ("2[\"a", BadEventName),
        ("2[\"a\\", BadEventName),
        ("2[\"a\\\"", BadEventName),
        ("2[\"\\x\"]", BadEventName),
        ("2[1x]", BadEventName),
        ("2[-]", BadEventName),
        ("2[01]", BadEventName),
        ("218446744073709551616[\"a\"]", BadId),
        ("299999999999999999999999[\"a\"]", BadId),
        ("3", BadPayload(Ack)),
        ("312", BadPayload(Ack)),
        ("312{}", BadPayload(Ack)),
        ("4", BadPayload(ConnectError)),
        ("4[]", BadPayload(ConnectError)),
        ("5", BadAttachmentCount),
        ("5[\"a\"]", BadAttachmentCount),
        ("5-[\"a\"]", BadAttachmentCount),
        ("51[\"a\"]", BadAttachmentCount),
        ("51.5-[\"a\"]", BadAttachmentCount),
        ("5x-[\"a\"]", BadAttachmentCount),
        ("511-[\"a\"]", TooManyAttachments { max: 10 }),
        ("54294967296-[\"a\"]", TooManyAttachments { max: 10 }),
        ("599999999999999999999999-[\"a\"]", TooManyAttachments { max: 10 }),
        ("61-1", BadPayload(BinaryAck)),
    ];
    for (text, expected) in table {
        assert_eq!(parts(text), Err(*expected), "{text}");
    }
}

#[test]
fn connect_payloads_are_checked_to_their_end() {
    for text in ["0{\"a\":}", "0{}x", "0{", "4\"x", "4{\"a\" 1}"] {
        assert!(matches!(parts(text), Err(PacketError::NotJson { .. })), "{text}");
    }
}

#[test]
fn a_namespace_that_is_no_utf8_is_refused() {
    assert_eq!(decode_head(b"0/\xff,", 0), Err(PacketError::NotUtf8));
    assert_eq!(event_name(b"[\"\xff\"]"), Err(PacketError::NotUtf8));
    assert_eq!(validate(b"[\"\xff\"]"), Err(PacketError::NotUtf8));
}

#[test]
fn event_names_are_found_and_unescaped() {
    let table = [
        (r#"["a"]"#, "a"),
        (r#"["a",1]"#, "a"),
        (r#"["",1]"#, ""),
        (" [ \"a\" , 1 ] ", "a"),
        ("\n[\r\n\t\"a\"]", "a"),
        (r#"["größe 📦"]"#, "größe 📦"),
        (r#"["a\"b"]"#, "a\"b"),
        (r#"["a\\"]"#, "a\\"),
        (r#"["\u0061\ud83d\udce6\n"]"#, "a📦\n"),
        (r#"["\ud83d-\udce6"]"#, "\u{fffd}-\u{fffd}"),
        ("[1]", "1"),
        ("[ -1.5e3 ,2]", "-1.5e3"),
        (r#"["1"]"#, "1"),
        (r#"["connected"]"#, "connected"),
    ];
    for (payload, expected) in table {
        assert_eq!(event_name(payload.as_bytes()).as_deref(), Ok(expected), "{payload}");
    }
}

#[test]
fn plain_event_names_are_borrowed() {
    assert!(matches!(event_name(br#"["chat",{"a":"\n"}]"#), Ok(Cow::Borrowed("chat"))));
}

#[test]
fn reserved_event_names_are_refused_however_they_are_written() {
    for name in
        ["connect", "connect_error", "disconnect", "disconnecting", "newListener", "removeListener"]
    {
        let escaped = format!("\\u{:04x}{}", u32::from(name.as_bytes()[0]), &name[1..]);
        for name in [name, &escaped] {
            let payload = format!("[\"{name}\"]");
            assert_eq!(event_name(payload.as_bytes()), Err(PacketError::ReservedEventName));
        }
    }
}

#[test]
fn payloads_nest_to_the_bound_and_no_deeper() {
    let nested = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
    assert_eq!(validate(nested(DEPTH_MAX).as_bytes()), Ok(()));
    assert_eq!(validate(nested(DEPTH_MAX + 1).as_bytes()), Err(PacketError::TooDeep));
    assert_eq!(validate(nested(200_000).as_bytes()), Err(PacketError::TooDeep));

    let flat = format!("[{}0]", "[],{},\"[[\\\"[\",".repeat(500));
    assert_eq!(validate(flat.as_bytes()), Ok(()));
    assert!(serde_json::from_str::<serde_json::Value>(&nested(DEPTH_MAX)).is_ok());
    assert!(serde_json::from_str::<serde_json::Value>(&nested(DEPTH_MAX + 1)).is_err());
}

#[test]
fn surrogates_without_a_partner_are_mended() {
    let table = [
        (r#"["a\n\u0041"]"#, None),
        (r#"["\ud83d\udce6"]"#, None),
        (r#"["\\ud83d"]"#, None),
        (r#"["\ud83d"]"#, Some(r#"["\ufffd"]"#)),
        (r#"["\uDCE6\ud83d"]"#, Some(r#"["\ufffd\ufffd"]"#)),
        (r#"["\ud83d\ud83d\udce6!"]"#, Some(r#"["\ufffd\ud83d\udce6!"]"#)),
        (r#"["é\ud83dé"]"#, Some(r#"["é\ufffdé"]"#)),
    ];
    for (json, expected) in table {
        assert_eq!(mend_surrogates(json).as_deref(), expected, "{json}");
    }
}

#[test]
fn replies_are_written_as_the_protocol_has_them() {
    let written = |write: &dyn Fn(&mut Vec<u8>)| {
        let mut out = Vec::new();
        write(&mut out);
        String::from_utf8(out).unwrap()
    };
    let data = RawJson::parse(r#"{"code":7}"#).unwrap();
    assert_eq!(written(&|out| connect_reply(out, "/", "abc")), r#"0{"sid":"abc"}"#);
    assert_eq!(written(&|out| connect_reply(out, "/n", "a\"")), r#"0/n,{"sid":"a\""}"#);
    assert_eq!(
        written(&|out| connect_error(out, "/foo", "Invalid namespace", None)),
        r#"4/foo,{"message":"Invalid namespace"}"#
    );
    assert_eq!(
        written(&|out| connect_error(out, "/", "no\n", Some(&data))),
        r#"4{"message":"no\n","data":{"code":7}}"#
    );
    assert_eq!(written(&|out| disconnect(out, "/")), "1");
    assert_eq!(written(&|out| disconnect(out, "/n")), "1/n,");
}

fn near_miss() -> impl Strategy<Value = String> {
    let head = "[0-7]?[0-9]{0,3}-?/?[a,é]{0,2}[0-9]{0,2}";
    let payload = r#"[\[\{"\\ud8dc,: 1}\]]{0,20}"#;
    (head, payload).prop_map(|(head, payload)| head + &payload)
}

proptest! {
    #[test]
    fn heads_survive_the_round_trip(
        kind in 0..7_usize,
        attachments in 0..=ATTACHMENTS_MAX,
        namespace in "/[^,]{0,8}",
        id: Option<u64>,
    ) {
        let kind = [
            PacketType::Connect, PacketType::Disconnect, PacketType::Event, PacketType::Ack,
            PacketType::ConnectError, PacketType::BinaryEvent, PacketType::BinaryAck,
        ][kind];
        let mut out = Vec::new();
        write_prefix(&mut out, kind, attachments as usize, &namespace, id);
        let payload_at = out.len();
        out.extend_from_slice(b"[\"x\"]");
        let attachments = if kind.is_binary() { attachments } else { 0 };
        let expected = PacketHead { kind, attachments, namespace: &namespace, id, payload_at };
        prop_assert_eq!(decode_head(&out, ATTACHMENTS_MAX), Ok(expected));
    }

    #[test]
    fn arbitrary_bytes_never_panic(bytes: Vec<u8>) {
        if let Ok(head) = decode_head(&bytes, ATTACHMENTS_MAX) {
            prop_assert!(head.payload_at <= bytes.len());
            let _ = check_payload(head.kind, &bytes[head.payload_at..]);
        }
        let _ = event_name(&bytes);
        let _ = validate(&bytes);
    }

    #[test]
    fn near_misses_never_panic(text in near_miss()) {
        let _ = parts(&text);
        let _ = event_name(text.as_bytes());
        let _ = mend_surrogates(&text);
        let _ = is_too_deep(&text);
    }

    #[test]
    fn any_name_is_read_back(name: String, escape: bool) {
        let quoted = if escape {
            let units = name.encode_utf16().map(|unit| format!("\\u{unit:04x}"));
            format!("\"{}\"", units.collect::<String>())
        } else {
            serde_json::to_string(&name).unwrap()
        };
        let payload = format!("[{quoted},1]");
        let read = event_name(payload.as_bytes());
        if is_reserved(&name) {
            prop_assert_eq!(read, Err(PacketError::ReservedEventName));
        } else {
            prop_assert_eq!(read.as_deref(), Ok(name.as_str()));
        }
    }
}
