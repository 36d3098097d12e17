use proptest::prelude::*;
use serde_json::json;

use super::super::encode::ack_args;
use super::super::{Args, PacketType, RawJson, decode_head, encode_event, from_args};
use super::*;

fn number() -> impl Strategy<Value = Value> {
    prop_oneof![
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        // Whether all other floats survive to the last bit is for serde_json's features to say.
        any::<i32>().prop_map(|n| Value::from(f64::from(n) / 8.0)),
    ]
}

/// Any value of at most a few levels.
fn value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        number(),
        any::<String>().prop_map(Value::from),
        prop::collection::vec(any::<u8>(), 0..8).prop_map(|b| Value::Binary(b.into())),
    ];
    leaf.prop_recursive(4, 32, 6, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(Value::Array),
            prop::collection::vec((any::<String>(), inner), 0..6).prop_map(Value::Object),
        ]
    })
}

fn has_bytes(value: &Value) -> bool {
    match value {
        Value::Binary(_) => true,
        Value::Array(elements) => elements.iter().any(has_bytes),
        Value::Object(members) => members.iter().any(|(_, member)| has_bytes(member)),
        _ => false,
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn args_survive_the_round_trip(
        args in prop::collection::vec(value(), 0..4).prop_map(Args),
        name in "[a-z\\PC]{0,6}",
        id: Option<u64>,
    ) {
        let (mut out, mut attachments) = (Vec::new(), Vec::new());
        let kind = encode_event(&mut out, "/n", id, &name, &args, &mut attachments).unwrap();
        let head = decode_head(&out, 1_000).unwrap();
        prop_assert_eq!((head.kind, head.namespace, head.id), (kind, "/n", id));
        prop_assert_eq!(head.attachments as usize, attachments.len());
        let is_binary = args.iter().any(has_bytes);
        prop_assert_eq!(kind == PacketType::BinaryEvent, is_binary);
        let read: Args = from_args(&out[head.payload_at..], &attachments, 1).unwrap();
        prop_assert_eq!(read, args);
    }

    #[test]
    fn one_value_survives_the_round_trip(value in value()) {
        let (mut out, mut attachments) = (Vec::new(), Vec::new());
        ack_args(&mut out, &value, &mut attachments).unwrap();
        let read: Value = from_args(&out, &attachments, 0).unwrap();
        prop_assert_eq!(&read, &value);
        prop_assert_eq!(&value.to::<Value>().unwrap(), &value);
        prop_assert_eq!(Value::new(&value).unwrap(), value);
    }

    /// Reading out of a parsed value and out of the text must be the same thing.
    #[test]
    fn reading_from_a_value_agrees_with_serde_json(value in value()) {
        prop_assume!(!has_bytes(&value));
        let text = serde_json::to_string(&value).unwrap();
        let json: serde_json::Value = serde_json::from_str(&text).unwrap();
        prop_assert_eq!(value.to::<serde_json::Value>().unwrap(), json);
        macro_rules! agree {
            ($($kind:ty),*) => {
                $(prop_assert_eq!(
                    value.to::<$kind>().ok(),
                    serde_json::from_str::<$kind>(&text).ok(),
                    "{}", text
                );)*
            };
        }
        agree!(
            bool, i8, u64, f64, String, char, (), Option<u8>, Vec<Option<i64>>, (Value, Value),
            std::collections::BTreeMap<String, Value>, Result<u8, Value>, std::net::IpAddr
        );
    }
}

#[test]
fn members_are_found_and_what_is_missing_is_null() {
    let value = Value::from(json!({"a": [1, {"b": "x"}], "c": null}));
    assert_eq!(value["a"][1]["b"].as_str(), Some("x"));
    assert_eq!(value["a"][0].as_i64(), Some(1));
    assert_eq!(value["a"][0].as_f64(), Some(1.0));
    assert!(value["a"][9].is_null() && value["z"]["y"].is_null() && value[0].is_null());
    assert_eq!(value.get("z"), None);
    assert_eq!(value.get("c"), Some(&Value::Null));
    assert_eq!(value["a"].as_array().map(<[_]>::len), Some(2));
    assert_eq!(value.as_object().map(<[_]>::len), Some(2));
    assert_eq!(value.as_bool().or(Value::from(true).as_bool()), Some(true));
}

#[test]
fn members_keep_their_order_and_the_last_of_a_name_counts() {
    let value: Value = serde_json::from_str(r#"{"z":1,"a":2,"z":3}"#).unwrap();
    assert_eq!(value["z"].as_u64(), Some(3));
    assert_eq!(serde_json::to_string(&value).unwrap(), r#"{"z":1,"a":2,"z":3}"#);
}

#[test]
fn floats_without_a_json_form_are_null() {
    assert_eq!(Value::from(f64::NAN), Value::Null);
    assert_eq!(Value::from(f64::NEG_INFINITY), Value::Null);
}

#[test]
fn a_value_is_made_of_anything_with_its_bytes() {
    let made = Value::new(&(1, Bytes::from_static(b"x"))).unwrap();
    assert_eq!(made, Value::from(vec![1.into(), Bytes::from_static(b"x").into()]));
    assert_eq!(made.to::<(u8, Bytes)>().unwrap(), (1, Bytes::from_static(b"x")));
    assert_eq!(made[1].to::<Vec<u8>>().unwrap(), b"x");
    assert!(made[1].to::<u8>().is_err());
}

#[test]
fn raw_json_checks_and_compares_its_text() {
    let raw = RawJson::parse("[1, 2]").unwrap();
    assert_eq!(raw, raw.clone());
    assert_ne!(raw, RawJson::new(&[1, 2]).unwrap());
    assert_eq!(raw.to_string(), "[1, 2]");
    assert_eq!(format!("{raw:?}"), "RawJson(\"[1, 2]\")");
    assert_eq!(raw.to::<(u8, u8)>().unwrap(), (1, 2));
    for text in ["", "1 2", "[", "nul"] {
        assert!(RawJson::parse(text).is_err(), "{text}");
    }
}
