//! Finds the `Err` in a value of which no more is known than that it serialises.
//!
//! A handler's error that serialises is for the client. When no client waits for it, it must not
//! vanish, but a `Result` that serialises is to the compiler a value like any other. Serde still
//! tells: a `Result` announces itself as the variant `Err` of an enum named `Result`. Tests: below
//! and `tests/face.rs`.

use std::convert::Infallible;
use std::fmt::Display;

use serde::Serialize;
use serde::ser::{Impossible, Serializer};

/// What a handler returned as an error that nobody waits for.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Refused(String);

/// The error, if `value` is an `Err`. Looks at the root only; any other value costs one call.
pub(crate) fn refused<T: Serialize + ?Sized>(value: &T) -> Option<Refused> {
    match value.serialize(Probe) {
        Ok(never) => match never {},
        Err(Seen(text)) => text.map(Refused),
    }
}

/// A string as it is, anything else as JSON.
fn told<T: Serialize + ?Sized>(error: &T) -> String {
    match serde_json::to_value(error) {
        Ok(serde_json::Value::String(text)) => text,
        Ok(other) => other.to_string(),
        Err(error) => format!("an error that does not serialise: {error}"),
    }
}

/// A serializer that always "fails", with the text of an `Err` or with nothing.
struct Probe;

#[derive(Debug, thiserror::Error)]
#[error("the root was looked at")]
struct Seen(Option<String>);

impl serde::ser::Error for Seen {
    fn custom<T: Display>(_: T) -> Self {
        Self(None)
    }
}

macro_rules! no_result {
    ($($method:ident($($kind:ty),*) -> $returned:ty;)*) => {
        $(fn $method(self, $(_: $kind),*) -> Result<$returned, Seen> {
            Err(Seen(None))
        })*
    };
}

impl Serializer for Probe {
    type Ok = Infallible;
    type Error = Seen;
    type SerializeSeq = Impossible<Infallible, Seen>;
    type SerializeTuple = Impossible<Infallible, Seen>;
    type SerializeTupleStruct = Impossible<Infallible, Seen>;
    type SerializeTupleVariant = Impossible<Infallible, Seen>;
    type SerializeMap = Impossible<Infallible, Seen>;
    type SerializeStruct = Impossible<Infallible, Seen>;
    type SerializeStructVariant = Impossible<Infallible, Seen>;

    no_result! {
        serialize_bool(bool) -> Infallible;
        serialize_i8(i8) -> Infallible;
        serialize_i16(i16) -> Infallible;
        serialize_i32(i32) -> Infallible;
        serialize_i64(i64) -> Infallible;
        serialize_i128(i128) -> Infallible;
        serialize_u8(u8) -> Infallible;
        serialize_u16(u16) -> Infallible;
        serialize_u32(u32) -> Infallible;
        serialize_u64(u64) -> Infallible;
        serialize_u128(u128) -> Infallible;
        serialize_f32(f32) -> Infallible;
        serialize_f64(f64) -> Infallible;
        serialize_char(char) -> Infallible;
        serialize_str(&str) -> Infallible;
        serialize_bytes(&[u8]) -> Infallible;
        serialize_none() -> Infallible;
        serialize_unit() -> Infallible;
        serialize_unit_struct(&'static str) -> Infallible;
        serialize_unit_variant(&'static str, u32, &'static str) -> Infallible;
        serialize_seq(Option<usize>) -> Self::SerializeSeq;
        serialize_tuple(usize) -> Self::SerializeTuple;
        serialize_tuple_struct(&'static str, usize) -> Self::SerializeTupleStruct;
        serialize_tuple_variant(&'static str, u32, &'static str, usize)
            -> Self::SerializeTupleVariant;
        serialize_map(Option<usize>) -> Self::SerializeMap;
        serialize_struct(&'static str, usize) -> Self::SerializeStruct;
        serialize_struct_variant(&'static str, u32, &'static str, usize)
            -> Self::SerializeStructVariant;
    }

    fn serialize_some<T: Serialize + ?Sized>(self, _: &T) -> Result<Infallible, Seen> {
        Err(Seen(None))
    }

    fn serialize_newtype_struct<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        _: &T,
    ) -> Result<Infallible, Seen> {
        Err(Seen(None))
    }

    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        name: &'static str,
        _: u32,
        variant: &'static str,
        value: &T,
    ) -> Result<Infallible, Seen> {
        Err(Seen((name == "Result" && variant == "Err").then(|| told(value))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text<T: Serialize>(value: T) -> Option<String> {
        refused(&value).map(|error| error.to_string())
    }

    #[test]
    fn only_an_err_is_an_error() {
        #[derive(Serialize)]
        struct Denied {
            code: u16,
        }
        assert_eq!(text(Err::<(), _>("no")), Some("no".to_owned()));
        assert_eq!(text(Err::<u8, _>(Denied { code: 7 })), Some(r#"{"code":7}"#.to_owned()));
        assert_eq!(text(Ok::<_, String>("Err")), None);
        assert_eq!(text(()), None);
        assert_eq!(text((1, Err::<(), _>("within"))), None);
        assert_eq!(text(Some("text")), None);
        assert_eq!(text(vec![1]), None);
        assert_eq!(text(Denied { code: 7 }), None);
    }

    #[test]
    fn an_error_that_does_not_serialise_is_told_all_the_same() {
        let keyed = std::collections::BTreeMap::from([(vec![1], 1)]);
        assert!(text(Err::<(), _>(keyed)).expect("an error").contains("does not serialise"));
    }
}
