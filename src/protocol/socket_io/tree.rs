//! Deserialises out of a [`Value`] that has already been parsed, with attachments at hand.
//!
//! Behaves as `serde_json` does on the text, and besides gives bytes to whatever asks for bytes
//! where a placeholder stands. Used for packets with attachments, and for [`Value::to`]. Tests:
//! `decode/tests.rs` (placeholders) and `value/tests.rs` (agreement with `serde_json`).

use std::any::type_name;

use bytes::Bytes;
use serde::Deserializer;
use serde::de::value::{MapAccessDeserializer, MapDeserializer, SeqDeserializer};
use serde::de::{Error as _, IntoDeserializer, Unexpected, Visitor};
use serde::forward_to_deserialize_any;
use serde_json::Error;

use super::value::{VALUE_TOKEN, Value};

/// Whether every placeholder in there points to one of `count` attachments.
pub(super) fn check_placeholders(values: &[Value], count: usize) -> bool {
    values.iter().all(|value| match value {
        Value::Array(elements) => check_placeholders(elements, count),
        Value::Object(members) => match placeholder(members) {
            Some(num) => num.is_some_and(|num| num < count),
            None => members.iter().all(|(_, v)| check_placeholders(std::slice::from_ref(v), count)),
        },
        _ => true,
    })
}

/// `None` if an object is no placeholder, `Some(None)` if it is one without a usable number.
///
/// As in JavaScript, what makes a placeholder is `_placeholder: true`, and the last of several
/// members of one name counts.
#[allow(clippy::option_option, reason = "three cases, each named in the doc, used twice")]
fn placeholder(members: &[(String, Value)]) -> Option<Option<usize>> {
    let last = |name| members.iter().rev().find(|(key, _)| key == name).map(|(_, value)| value);
    match last("_placeholder") {
        Some(Value::Bool(true)) => {
            Some(last("num").and_then(Value::as_u64).and_then(|num| usize::try_from(num).ok()))
        }
        _ => None,
    }
}

/// One value and the attachments that placeholders in it point to.
#[derive(Debug, Clone, Copy)]
pub(super) struct Tree<'de> {
    value: &'de Value,
    /// Empty if placeholders are to be taken for ordinary objects.
    attachments: &'de [Bytes],
}

impl<'de> Tree<'de> {
    pub(super) fn new(value: &'de Value, attachments: &'de [Bytes]) -> Self {
        Self { value, attachments }
    }

    /// The bytes which this value is or stands for.
    fn bytes(self) -> Option<&'de [u8]> {
        match self.value {
            Value::Binary(bytes) => Some(bytes),
            Value::Object(members) if !self.attachments.is_empty() => {
                self.attachments.get(placeholder(members)??).map(|bytes| &bytes[..])
            }
            _ => None,
        }
    }

    fn with(self, value: &'de Value) -> Self {
        Self { value, ..self }
    }

    fn visit_elements<V: Visitor<'de>>(
        self,
        elements: &'de [Value],
        visitor: V,
    ) -> Result<V::Value, Error> {
        let mut seq = SeqDeserializer::new(elements.iter().map(|element| self.with(element)));
        let value = visitor.visit_seq(&mut seq)?;
        seq.end()?;
        Ok(value)
    }

    fn members(
        self,
        members: &'de [(String, Value)],
    ) -> MapDeserializer<'de, impl Iterator<Item = (Key<'de>, Self)>, Error> {
        MapDeserializer::new(members.iter().map(move |(key, value)| (Key(key), self.with(value))))
    }

    /// The same value in plain JSON, placeholders left as they came.
    fn to_json(self) -> Result<serde_json::Value, Error> {
        serde_json::to_value(self.value)
    }
}

impl<'de> IntoDeserializer<'de, Error> for Tree<'de> {
    type Deserializer = Self;

    fn into_deserializer(self) -> Self {
        self
    }
}

/// Whether `T` is the buffer in which serde keeps a value while it looks for the tag of an enum.
///
/// Such a buffer is asked for bytes later, when it is too late to give it any but those it was
/// filled with. Other types that take anything are given placeholders as they are, since most
/// have no room for bytes; so they would here if serde renamed its buffer.
fn is_serde_buffer<T>() -> bool {
    let name = type_name::<T>();
    let name = name.split('<').next().unwrap_or(name);
    name.starts_with("serde") && name.ends_with("::Content")
}

impl<'de> Deserializer<'de> for Tree<'de> {
    type Error = Error;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match self.value {
            Value::Null => visitor.visit_unit(),
            Value::Bool(value) => visitor.visit_bool(*value),
            Value::Number(number) => number.deserialize_any(visitor),
            Value::String(text) => visitor.visit_borrowed_str(text),
            Value::Array(elements) => self.visit_elements(elements, visitor),
            Value::Binary(bytes) => visitor.visit_borrowed_bytes(bytes),
            Value::Object(members) => match self.bytes() {
                Some(bytes) if is_serde_buffer::<V::Value>() => visitor.visit_borrowed_bytes(bytes),
                _ => {
                    let mut map = self.members(members);
                    let value = visitor.visit_map(&mut map)?;
                    map.end()?;
                    Ok(value)
                }
            },
        }
    }

    fn deserialize_bytes<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match (self.bytes(), self.value) {
            (Some(bytes), _) => visitor.visit_borrowed_bytes(bytes),
            (None, Value::String(text)) => visitor.visit_borrowed_bytes(text.as_bytes()),
            _ => self.deserialize_any(visitor),
        }
    }

    fn deserialize_byte_buf<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        self.deserialize_bytes(visitor)
    }

    /// A plain `Vec<u8>` is a list of numbers to serde; it may still receive an attachment.
    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match self.bytes() {
            Some(bytes) => {
                let mut seq = SeqDeserializer::new(bytes.iter().copied());
                let value = visitor.visit_seq(&mut seq)?;
                seq.end()?;
                Ok(value)
            }
            None => self.deserialize_any(visitor),
        }
    }

    fn deserialize_tuple<V: Visitor<'de>>(self, _: usize, visitor: V) -> Result<V::Value, Error> {
        self.deserialize_seq(visitor)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match self.value {
            Value::Null => visitor.visit_none(),
            _ => visitor.visit_some(self),
        }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        visitor: V,
    ) -> Result<V::Value, Error> {
        if name == VALUE_TOKEN {
            return match self.bytes() {
                Some(bytes) => visitor.visit_borrowed_bytes(bytes),
                None => visitor.visit_newtype_struct(self),
            };
        }
        if name.starts_with("$serde_json") {
            return self.to_json()?.deserialize_newtype_struct(name, visitor);
        }
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        match self.value {
            Value::String(variant) => visitor.visit_enum(variant.as_str().into_deserializer()),
            Value::Object(members) if members.len() == 1 => {
                visitor.visit_enum(MapAccessDeserializer::new(self.members(members)))
            }
            Value::Object(_) => {
                Err(Error::invalid_value(Unexpected::Map, &"an object with one member"))
            }
            _ => Err(Error::custom("expected a string or an object with one member")),
        }
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string
        unit unit_struct tuple_struct map struct identifier ignored_any
    }
}

/// The name of a member, which may have to become a number or a bool.
#[derive(Debug, Clone, Copy)]
struct Key<'de>(&'de str);

impl<'de> IntoDeserializer<'de, Error> for Key<'de> {
    type Deserializer = Self;

    fn into_deserializer(self) -> Self {
        self
    }
}

macro_rules! read_as_json {
    ($($method:ident)*) => {
        $(fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
            let mut text = serde_json::Deserializer::from_str(self.0);
            let value = text.$method(visitor)?;
            text.end()?;
            Ok(value)
        })*
    };
}

impl<'de> Deserializer<'de> for Key<'de> {
    type Error = Error;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_borrowed_str(self.0)
    }

    read_as_json! {
        deserialize_bool deserialize_i8 deserialize_i16 deserialize_i32 deserialize_i64
        deserialize_i128 deserialize_u8 deserialize_u16 deserialize_u32 deserialize_u64
        deserialize_u128 deserialize_f32 deserialize_f64
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_some(self)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, Error> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        visitor.visit_enum(self.0.into_deserializer())
    }

    forward_to_deserialize_any! {
        char str string bytes byte_buf unit unit_struct seq tuple tuple_struct map struct
        identifier ignored_any
    }
}
