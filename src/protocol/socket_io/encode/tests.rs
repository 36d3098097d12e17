use std::collections::BTreeMap;

use proptest::prelude::*;
use serde::Serialize;
use serde_json::json;

use super::super::{Args, RawJson, Value};
use super::*;

#[derive(Serialize)]
struct Named {
    a: u8,
    b: Option<&'static str>,
}

#[derive(Serialize)]
struct Pair(u8, u8);

#[derive(Serialize)]
struct Wrapped((u8, u8));

#[derive(Serialize)]
#[serde(transparent)]
struct Transparent((u8, u8));

#[derive(Serialize)]
struct Unit;

#[derive(Serialize)]
enum Choice {
    Bare,
    New(u8),
    Tuple(u8, u8),
    Struct { a: u8 },
}

fn event<T: Serialize + ?Sized>(args: &T) -> String {
    let mut out = Vec::new();
    let kind = encode_event(&mut out, "/", None, "e", args, &mut Vec::new()).unwrap();
    assert_eq!(out[0], kind.digit());
    String::from_utf8(out).unwrap()
}

fn ack<T: Serialize + ?Sized>(args: &T) -> String {
    let mut out = Vec::new();
    let kind = encode_ack(&mut out, "/", 7, args, &mut Vec::new()).unwrap();
    assert_eq!(out[0], kind.digit());
    String::from_utf8(out).unwrap()
}

/// Checks what `value` becomes in an event and in an acknowledgement.
fn check<T: Serialize + ?Sized>(value: &T, args: &str) {
    let comma = if args.is_empty() { "" } else { "," };
    assert_eq!(event(value), format!("2[\"e\"{comma}{args}]"));
    assert_eq!(ack(value), format!("37[{args}]"));
}

#[test]
fn tuples_arrays_and_args_spread() {
    check(&(), "");
    check(&(1,), "1");
    check(&(1, "two", [3, 4]), r#"1,"two",[3,4]"#);
    check(&[1, 2], "1,2");
    check::<[u8; 0]>(&[], "");
    check(&Args::default(), "");
    check(&Args(vec![1.into(), Value::Array(vec![2.into()])]), "1,[2]");
    check(&&(1, 2), "1,2");
    check(&Box::new((1, 2)), "1,2");
    check(&Transparent((1, 2)), "1,2");
}

#[test]
fn everything_else_is_one_argument() {
    check(&true, "true");
    check(&-1_i8, "-1");
    check(&u128::MAX, "340282366920938463463374607431768211455");
    check(&1.5, "1.5");
    check(&f64::NAN, "null");
    check(&f32::INFINITY, "null");
    check(&'c', "\"c\"");
    check("text", "\"text\"");
    check(&"a\"\n\u{1e}\u{2028}é", "\"a\\\"\\n\\u001e\u{2028}é\"");
    check(&vec![1, 2], "[1,2]");
    check(&[1, 2][..], "[1,2]");
    check::<Vec<u8>>(&vec![], "[]");
    check(&None::<u8>, "null");
    check(&Some(1), "1");
    check(&Some((1, 2)), "[1,2]");
    check(&Pair(1, 2), "[1,2]");
    check(&Wrapped((1, 2)), "[1,2]");
    check(&Unit, "null");
    check(&Named { a: 1, b: None }, r#"{"a":1,"b":null}"#);
    check(&BTreeMap::from([(1, "x")]), r#"{"1":"x"}"#);
    check(&Choice::Bare, "\"Bare\"");
    check(&Choice::New(1), r#"{"New":1}"#);
    check(&Choice::Tuple(1, 2), r#"{"Tuple":[1,2]}"#);
    check(&Choice::Struct { a: 1 }, r#"{"Struct":{"a":1}}"#);
    check(&json!([1, {"z": 1, "a": 2}]), r#"[1,{"a":2,"z":1}]"#);
    check(&Value::Array(vec![Value::Null]), "[null]");
    check(&RawJson::parse("{ \"a\" : 1.0 }").unwrap(), "{ \"a\" : 1.0 }");
    check(&format_args!("{}", 1), "\"1\"");
}

#[test]
fn args_inside_a_value_are_an_array() {
    check(&(Args(vec![1.into(), 2.into()]), 3), "[1,2],3");
    check(&vec![Args::default()], "[[]]");
}

#[test]
fn only_an_ack_looks_into_a_result() {
    type R<T> = Result<T, &'static str>;
    let table = [
        (ack(&R::Ok(())), "37[]"),
        (ack(&R::Ok(1)), "37[1]"),
        (ack(&R::Ok((1, 2))), "37[1,2]"),
        (ack(&R::<R<u8>>::Ok(Ok(1))), "37[1]"),
        (ack(&R::<()>::Err("no")), r#"37[{"error":"no"}]"#),
        (ack(&R::<R<u8>>::Ok(Err("no"))), r#"37[{"error":"no"}]"#),
        (ack(&Err::<(), _>((1, 2))), r#"37[{"error":[1,2]}]"#),
        (ack(&(R::Ok(1), 2)), r#"37[{"Ok":1},2]"#),
        (event(&R::Ok(1)), r#"2["e",{"Ok":1}]"#),
    ];
    for (written, expected) in table {
        assert_eq!(written, expected);
    }
}

#[test]
fn heads_name_namespace_and_id() {
    let mut out = Vec::new();
    encode_event(&mut out, "/n", Some(12), "e", &1, &mut Vec::new()).unwrap();
    encode_ack(&mut out, "/n", 0, &(), &mut Vec::new()).unwrap();
    assert_eq!(String::from_utf8(out).unwrap(), r#"2/n,12["e",1]3/n,0[]"#);
}

#[test]
fn event_names_are_escaped() {
    let mut out = Vec::new();
    event_args(&mut out, "a\"\u{0}é", &(), &mut Vec::new()).unwrap();
    assert_eq!(String::from_utf8(out).unwrap(), "[\"a\\\"\\u0000é\"]");
}

#[test]
fn bytes_become_attachments_at_any_depth() {
    #[derive(Serialize)]
    struct File {
        name: &'static str,
        data: Bytes,
    }
    let file = File { name: "f", data: Bytes::from_static(b"one") };
    let args = (Value::Binary(Bytes::from_static(b"zero")), vec![Some(file)], Bytes::new());

    // What already stands in both buffers belongs to somebody else.
    let mut out = b"before".to_vec();
    let mut attachments = vec![Bytes::from_static(b"before")];
    let kind = encode_event(&mut out, "/n", Some(5), "e", &args, &mut attachments).unwrap();
    assert_eq!(kind, PacketType::BinaryEvent);
    let expected = concat!(
        r#"before53-/n,5["e",{"_placeholder":true,"num":0},"#,
        r#"[{"name":"f","data":{"_placeholder":true,"num":1}}],{"_placeholder":true,"num":2}]"#
    );
    assert_eq!(String::from_utf8(out).unwrap(), expected);
    assert_eq!(attachments, [&b"before"[..], b"zero", b"one", b""]);

    let mut out = Vec::new();
    let mut attachments = Vec::new();
    let eleven = vec![Bytes::from_static(b"x"); 11];
    let kind = encode_ack(&mut out, "/", 1, &eleven, &mut attachments).unwrap();
    assert_eq!(kind, PacketType::BinaryAck);
    assert!(out.starts_with(br#"611-1[[{"_placeholder":true,"num":0},"#));
    assert_eq!(attachments.len(), 11);
}

#[test]
fn a_value_that_fails_leaves_nothing_behind() {
    struct Fails;
    impl Serialize for Fails {
        fn serialize<S: Serializer>(&self, _: S) -> Result<S::Ok, S::Error> {
            Err(serde::ser::Error::custom("as I please"))
        }
    }
    let mut out = b"before".to_vec();
    let mut attachments = vec![Bytes::new()];
    let args = (Bytes::from_static(b"x"), Fails);
    let no_key = BTreeMap::from([((1, 2), Bytes::new())]);
    let results = [
        encode_event(&mut out, "/", None, "e", &args, &mut attachments).map(drop),
        encode_ack(&mut out, "/", 0, &args, &mut attachments).map(drop),
        encode_ack(&mut out, "/", 0, &Err::<(), _>(Fails), &mut attachments).map(drop),
        event_args(&mut out, "e", &Fails, &mut attachments),
        ack_args(&mut out, &no_key, &mut attachments),
    ];
    for result in results {
        assert!(matches!(result, Err(EncodeError::Json(_))), "{result:?}");
    }
    let reserved = encode_event(&mut out, "/", None, "disconnect", &(), &mut attachments);
    assert!(matches!(reserved, Err(EncodeError::ReservedEventName)));
    assert_eq!((&out[..], attachments.len()), (&b"before"[..], 1));
}

/// Texts wherever serde knows a place for one.
#[derive(Serialize)]
enum Everywhere {
    Bare,
    New(String),
    Tuple(String, Option<String>),
    Struct {
        name: String,
        letter: char,
        #[serde(flatten)]
        more: BTreeMap<String, Value>,
    },
    Nested(Vec<Everywhere>, Newtype, Both, (String, u8), BTreeMap<String, Newtype>),
    Raw(Box<serde_json::value::RawValue>, RawJson, serde_json::Number),
}

#[derive(Serialize)]
struct Newtype(String);

#[derive(Serialize)]
struct Both(String, std::net::Ipv4Addr);

#[derive(Serialize)]
#[serde(tag = "type")]
enum Tagged {
    One { text: String },
}

fn everywhere(text: &str) -> Vec<Everywhere> {
    let own = || text.to_owned();
    let more = BTreeMap::from([(own(), Value::from(text)), ("n".to_owned(), Value::from(1.5))]);
    let letter = text.chars().next().unwrap_or('"');
    let raw = json!({ text: [text, 1] }).to_string();
    let inner = vec![Everywhere::Bare, Everywhere::New(own())];
    let map = BTreeMap::from([(own(), Newtype(own()))]);
    let both = Both(own(), std::net::Ipv4Addr::LOCALHOST);
    vec![
        Everywhere::Tuple(own(), Some(own())),
        Everywhere::Struct { name: own(), letter, more },
        Everywhere::Nested(inner, Newtype(own()), both, (own(), 7), map),
        Everywhere::Raw(
            serde_json::value::RawValue::from_string(raw.clone()).unwrap(),
            RawJson::parse(raw).unwrap(),
            serde_json::Number::from(u64::MAX),
        ),
    ]
}

fn same_as_serde_json<T: Serialize>(value: &T) {
    let json = serde_json::to_string(value).unwrap();
    assert_eq!(event(&(value,)), format!("2[\"e\",{json}]"));
    assert_eq!(ack(&(value,)), format!("37[{json}]"));
}

#[test]
fn each_character_is_written_as_serde_json_does_wherever_it_stands() {
    let others = ['\u{7f}', '\u{80}', 'é', '\u{2028}', '\u{ffff}', '𝄞'];
    for character in (0..128).map(char::from).chain(others) {
        // Before, in and behind each kind of block.
        for before in 0..45 {
            for after in [0, 1, 7, 8, 40] {
                let text = format!("{}{character}{}", "a".repeat(before), "é".repeat(after));
                let mut out = Vec::new();
                write_text(&mut out, text.as_bytes()).unwrap();
                assert_eq!(String::from_utf8(out).unwrap(), serde_json::to_string(&text).unwrap());
            }
        }
    }
}

#[test]
fn bytes_beside_texts_stay_bytes() {
    let args = ("text", Bytes::from_static(b"bytes"), "more", Value::Binary(Bytes::new()));
    let mut attachments = Vec::new();
    let mut out = Vec::new();
    encode_event(&mut out, "/", None, "e", &args, &mut attachments).unwrap();
    let expected = concat!(
        r#"52-["e","text",{"_placeholder":true,"num":0},"more","#,
        r#"{"_placeholder":true,"num":1}]"#
    );
    assert_eq!(String::from_utf8(out).unwrap(), expected);
    assert_eq!(attachments, [&b"bytes"[..], b""]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn texts_anywhere_are_written_as_serde_json_does(
        text in prop_oneof![any::<String>(), "[a-z\"\\\\\n\u{1}]{0,80}", "[ -~]{0,200}"]
    ) {
        same_as_serde_json(&text);
        same_as_serde_json(&everywhere(&text));
        same_as_serde_json(&Tagged::One { text: text.clone() });
        same_as_serde_json(&Value::from(vec![Value::from(text.as_str())]));
        let mut out = Vec::new();
        event_args(&mut out, &format!("e{text}"), &(), &mut Vec::new()).unwrap();
        prop_assert_eq!(out, serde_json::to_vec(&[format!("e{text}")]).unwrap());
    }
}
