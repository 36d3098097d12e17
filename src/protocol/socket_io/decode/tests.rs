use std::collections::{BTreeMap, HashMap};

use proptest::prelude::*;
use serde::Deserialize;
use serde_json::json;

use super::super::{Args, RawJson};
use super::*;

fn event<T: DeserializeOwned>(payload: &str) -> Result<T, ArgsError> {
    from_args(payload.as_bytes(), &[], 1)
}

fn ack<T: DeserializeOwned>(payload: &str) -> Result<T, ArgsError> {
    from_args(payload.as_bytes(), &[], 0)
}

fn with_attachments<T: DeserializeOwned>(payload: &str, count: u8) -> Result<T, ArgsError> {
    let attachments: Vec<Bytes> = (0..count).map(|i| vec![i; 3].into()).collect();
    from_args(payload.as_bytes(), &attachments, 1)
}

/// Checks that `payload` gives `expected`, with and without an attachment being there.
fn gives<T: DeserializeOwned + PartialEq + fmt::Debug>(payload: &str, expected: T) {
    assert_eq!(event::<T>(payload).unwrap(), expected, "{payload}");
    assert_eq!(with_attachments::<T>(payload, 1).unwrap(), expected, "{payload}, attachments");
}

fn mismatches<T: DeserializeOwned + fmt::Debug>(payload: &str) {
    for result in [event::<T>(payload), with_attachments::<T>(payload, 1)] {
        assert!(matches!(result, Err(ArgsError::Mismatch(_))), "{payload}: {result:?}");
    }
}

fn is_syntax<T: DeserializeOwned + fmt::Debug>(payload: &str) {
    for result in [event::<T>(payload), with_attachments::<T>(payload, 1)] {
        assert!(matches!(result, Err(ArgsError::Syntax(_))), "{payload}: {result:?}");
    }
}

#[derive(Deserialize, Debug, PartialEq)]
struct Point {
    x: i32,
    #[serde(default)]
    y: i32,
}

#[derive(Deserialize, Debug, PartialEq)]
struct Pair(i32, i32);

#[derive(Deserialize, Debug, PartialEq)]
#[serde(transparent)]
struct Transparent((i32, i32));

#[derive(Deserialize, Debug, PartialEq)]
struct Unit;

#[derive(Deserialize, Debug, PartialEq)]
enum Choice {
    Bare,
    New(u8),
    Tuple(u8, u8),
    Struct { a: u8 },
}

#[test]
fn the_root_type_says_how_many_arguments_it_takes() {
    gives(r#"["e"]"#, ());
    gives(r#"["e",1,{}]"#, ());
    gives(r#"["e",1]"#, (1,));
    gives(r#"["e",1,"two",[3]]"#, (1, "two".to_owned(), vec![3]));
    gives(r#"["e",1,2]"#, [1, 2]);
    gives(r#"["e",1,2]"#, Transparent((1, 2)));
    gives(r#"["e",1,[2]]"#, Args(vec![1.into(), vec![2.into()].into()]));
    gives(r#"["e"]"#, Args::default());
    gives(r#"["e",[1,2]]"#, vec![1, 2]);
    gives(r#"["e",[1,2]]"#, Pair(1, 2));
    gives(r#"["e",[1,2]]"#, Some((1, 2)));
    gives(r#"["e",{"x":1}]"#, Point { x: 1, y: 0 });
    gives(r#"["e",[1,2]]"#, Point { x: 1, y: 2 });
    gives(r#"["e",null]"#, Unit);
    gives(r#"["e","text"]"#, "text".to_owned());
    gives(r#" [ "e" , 1 ] "#, 1.0);
    gives(r#"["e",null]"#, Value::Null);
    gives(r#"["e",{"a":[1,"x"]}]"#, json!({"a": [1, "x"]}));
    assert_eq!(ack::<(i32, i32)>("[1,2]").unwrap(), (1, 2));
    assert_eq!(ack::<i32>("[1,2]").unwrap(), 1);
    ack::<()>("[]").unwrap();
}

#[test]
fn missing_arguments_are_none_and_extra_ones_ignored() {
    gives(r#"["e"]"#, None::<i32>);
    gives(r#"["e",null]"#, None::<i32>);
    gives(r#"["e",1]"#, Some(1));
    gives(r#"["e",1]"#, (1, None::<i32>, None::<String>));
    gives(r#"["e"]"#, (None::<i32>,));
    gives(r#"["e"]"#, ((), None::<i32>));
    gives(r#"["e",1,2,{"x":[]}]"#, 1);
    gives(r#"["e",1,2,3]"#, (1, 2));
    mismatches::<i32>(r#"["e"]"#);
    mismatches::<(i32, i32)>(r#"["e",1]"#);
    mismatches::<[i32; 2]>(r#"["e",1]"#);
    mismatches::<Point>(r#"["e"]"#);
    mismatches::<Value>(r#"["e"]"#);
    mismatches::<RawJson>(r#"["e"]"#);
}

#[test]
fn enums_and_maps_are_read_alike_with_and_without_attachments() {
    gives(r#"["e","Bare"]"#, Choice::Bare);
    gives(r#"["e",{"New":1}]"#, Choice::New(1));
    gives(r#"["e",{"Tuple":[1,2]}]"#, Choice::Tuple(1, 2));
    gives(r#"["e",{"Struct":{"a":1}}]"#, Choice::Struct { a: 1 });
    gives(r#"["e",{"1":"a","2":"b"}]"#, BTreeMap::from([(1_u64, "a".to_owned()), (2, "b".into())]));
    gives(r#"["e",{"true":-1}]"#, HashMap::from([(true, -1_i8)]));
    gives(r#"["e",{"Bare":1.5}]"#, HashMap::from([(Some("Bare".to_owned()), 1.5)]));
    gives(r#"["e",18446744073709551615]"#, u64::MAX);
    gives(r#"["e","abc"]"#, Bytes::from_static(b"abc"));
    gives(r#"["e",[1,2]]"#, Bytes::from_static(&[1, 2]));
    mismatches::<Choice>(r#"["e","Other"]"#);
    mismatches::<Choice>(r#"["e",{"New":1,"Bare":null}]"#);
    mismatches::<Choice>(r#"["e",{}]"#);
    mismatches::<Choice>(r#"["e",3]"#);
    mismatches::<HashMap<u64, u8>>(r#"["e",{"x":1}]"#);
    mismatches::<(i32, i32, Pair)>(r#"["e",1,2,[1,2,3]]"#);
    mismatches::<u8>(r#"["e",256]"#);
    mismatches::<Unit>(r#"["e",1]"#);
}

#[test]
fn syntax_errors_are_found_wherever_they_are() {
    for payload in [
        "",
        "x",
        "[",
        r#"["e""#,
        r#"["e",]"#,
        r#"["e",1"#,
        r#"["e",1]]"#,
        r#"["e",1]x"#,
        r#"["e",1,tru]"#,
        r#"["e",1 2]"#,
        r#"["e",1,"\x"]"#,
        "[\"e\",1,\"\u{1}\"]",
        "[\"\n\",1]",
        r#"["e",1,{"a"}]"#,
        r#"{"e":1}"#,
        "1",
        "\"e\"",
    ] {
        is_syntax::<()>(payload);
        is_syntax::<i32>(payload);
        is_syntax::<String>(payload);
        is_syntax::<(i32,)>(payload);
        is_syntax::<Args>(payload);
        is_syntax::<RawJson>(payload);
    }
    assert!(matches!(
        from_args::<()>(b"[\"e\",\"\xff\"]", &[], 1),
        Err(ArgsError::Syntax(PacketError::NotUtf8))
    ));
}

#[test]
fn numbers_too_large_for_rust_are_no_fault_of_the_peer() {
    mismatches::<f64>(r#"["e",1e999]"#);
    event::<()>(r#"["e",1e999]"#).unwrap();
}

#[test]
fn surrogates_without_a_partner_become_replacement_characters() {
    gives(r#"["e","a\ud83db"]"#, "a\u{fffd}b".to_owned());
    gives(r#"["\ud83d",["\udc00",1]]"#, Value::from(vec!["\u{fffd}".into(), 1.into()]));
    gives(r#"["e","\ud83d\udce6"]"#, "📦".to_owned());
    let raw = event::<RawJson>(r#"["e","\ud83d"]"#).unwrap();
    assert_eq!(raw.get(), r#""\ud83d""#);
    mismatches::<i32>(r#"["e","\ud83d"]"#);
}

#[test]
fn raw_json_keeps_its_text() {
    let raw = event::<RawJson>("[ \"e\" , { \"b\" : 1.0, \"a\":[ ]} , 2 ]").unwrap();
    assert_eq!(raw.get(), "{ \"b\" : 1.0, \"a\":[ ]}");
    let (one, two): (i32, RawJson) = event("[\"e\",1,[2, 3]]").unwrap();
    assert_eq!((one, two.get()), (1, "[2, 3]"));

    let payload = r#"["e",{"_placeholder":true,"num":0}]"#;
    let raw = with_attachments::<RawJson>(payload, 1).unwrap();
    assert_eq!(raw.get(), r#"{"_placeholder":true,"num":0}"#);
}

#[test]
fn hostile_nesting_is_refused_without_recursion() {
    for depth in [128, 1_000, 100_000] {
        let nested = format!("[\"e\",{}{}]", "[".repeat(depth), "]".repeat(depth));
        is_syntax::<Value>(&nested);
        is_syntax::<RawJson>(&nested);
        is_syntax::<serde_json::Value>(&nested);
        is_syntax::<(i32, Args)>(&nested);
    }
}

#[derive(Deserialize, Debug, PartialEq)]
struct File {
    name: String,
    data: Bytes,
}

#[derive(Deserialize, Debug, PartialEq)]
#[serde(tag = "type")]
enum Tagged {
    File(File),
    Inline { data: Bytes, rest: Value },
}

#[derive(Deserialize, Debug, PartialEq)]
#[serde(untagged)]
enum Untagged {
    Number(u8),
    Bytes(Bytes),
}

#[derive(Deserialize, Debug, PartialEq)]
struct Flat {
    id: u8,
    #[serde(flatten)]
    file: File,
}

#[test]
fn placeholders_give_bytes_to_who_asks_for_them() {
    let zero = r#"{"_placeholder":true,"num":0}"#;
    let one = r#"{"num":1,"_placeholder":true}"#;
    let bytes = |i: u8| Bytes::from(vec![i; 3]);
    let payload = format!(r#"["e",{zero},{{"name":"f","data":{one}}}]"#);
    let file = || File { name: "f".to_owned(), data: bytes(1) };

    assert_eq!(with_attachments::<Bytes>(&payload, 2).unwrap(), bytes(0));
    assert_eq!(with_attachments::<(Bytes, File)>(&payload, 2).unwrap(), (bytes(0), file()));
    assert_eq!(with_attachments::<Vec<u8>>(&payload, 2).unwrap(), [0; 3]);
    assert_eq!(with_attachments::<([u8; 3],)>(&payload, 2).unwrap(), ([0; 3],));
    assert_eq!(with_attachments::<Option<Bytes>>(&payload, 2).unwrap(), Some(bytes(0)));
    let members = vec![("name".into(), "f".into()), ("data".into(), Value::Binary(bytes(1)))];
    let args = Args(vec![Value::Binary(bytes(0)), Value::Object(members)]);
    assert_eq!(with_attachments::<Args>(&payload, 2).unwrap(), args);
    assert_eq!(with_attachments::<Value>(&payload, 2).unwrap(), args[0]);
    let plain = json!({"_placeholder": true, "num": 0});
    assert_eq!(with_attachments::<serde_json::Value>(&payload, 2).unwrap(), plain);
    assert!(matches!(with_attachments::<String>(&payload, 2), Err(ArgsError::Mismatch(_))));
}

/// Serde keeps such types in a buffer of its own before it knows what it needs.
#[test]
fn placeholders_reach_tagged_untagged_and_flattened_types() {
    let zero = r#"{"_placeholder":true,"num":0}"#;
    let data = Bytes::from_static(&[0; 3]);
    let file = || File { name: "f".to_owned(), data: data.clone() };

    let payload = format!(r#"["e",{{"name":"f","data":{zero},"type":"File"}}]"#);
    assert_eq!(with_attachments::<Tagged>(&payload, 1).unwrap(), Tagged::File(file()));
    let payload = format!(r#"["e",{{"data":{zero},"rest":[{zero}],"type":"Inline"}}]"#);
    let rest = Value::from(vec![Value::Binary(data.clone())]);
    let inline = Tagged::Inline { data: data.clone(), rest };
    assert_eq!(with_attachments::<Tagged>(&payload, 1).unwrap(), inline);
    let payload = format!(r#"["e",{zero},7]"#);
    let both = (Untagged::Bytes(data.clone()), Untagged::Number(7));
    assert_eq!(with_attachments::<(Untagged, Untagged)>(&payload, 1).unwrap(), both);
    let payload = format!(r#"["e",{{"name":"f","data":{zero},"id":7}}]"#);
    assert_eq!(with_attachments::<Flat>(&payload, 1).unwrap(), Flat { id: 7, file: file() });
}

#[test]
fn placeholders_that_point_nowhere_break_the_protocol() {
    for num in ["1", "-1", "0.5", "\"0\"", "null", "18446744073709551616"] {
        let nested = format!(r#"["e",1,[{{"a":{{"_placeholder":true,"num":{num}}}}}]]"#);
        for result in [with_attachments::<i32>(&nested, 1), with_attachments(&nested, 1)] {
            let expected = matches!(result, Err(ArgsError::Syntax(PacketError::BadPlaceholder)));
            assert!(expected, "{nested}: {result:?}");
        }
    }
    let no_num = r#"["e",{"_placeholder":true}]"#;
    assert!(matches!(with_attachments::<()>(no_num, 1), Err(ArgsError::Syntax(_))));
}

#[test]
fn placeholders_mean_nothing_without_attachments() {
    let payload = r#"["e",{"_placeholder":true,"num":9}]"#;
    let value = event::<Value>(payload).unwrap();
    assert_eq!(value["num"].as_u64(), Some(9));
    mismatches::<Bytes>(r#"["e",{"_placeholder":false,"num":0}]"#);
}

proptest! {
    #[test]
    fn arbitrary_bytes_never_panic(bytes: Vec<u8>, skip in 0..2_usize) {
        let attachments = [Bytes::new()];
        for attachments in [&[][..], &attachments] {
            let _ = from_args::<Args>(&bytes, attachments, skip);
            let _ = from_args::<(Option<String>, RawJson)>(&bytes, attachments, skip);
        }
    }

    /// Success means JSON, failure by syntax means no JSON, whatever type was wanted.
    #[test]
    fn the_verdict_on_syntax_does_not_depend_on_the_type(
        inner in r#"[\[\]{}",:\\ud8c0-2a. ]{0,12}"#,
    ) {
        let payload = format!("[\"e\",{inner}]");
        let valid = validate(payload.as_bytes()).is_ok();
        let verdicts = [
            event::<()>(&payload).err(), event::<i32>(&payload).err(),
            event::<String>(&payload).err(), event::<(Option<f64>, i8)>(&payload).err(),
            event::<Args>(&payload).err(), event::<RawJson>(&payload).err(),
            event::<Vec<Value>>(&payload).err(), event::<Point>(&payload).err(),
        ];
        for verdict in verdicts {
            let refused = matches!(verdict, Some(ArgsError::Syntax(_)));
            prop_assert_eq!(refused, !valid, "{}: {:?}", payload, verdict);
        }
    }
}
