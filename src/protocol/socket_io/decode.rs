//! The arguments of an event or an acknowledgement -> Rust values.
//!
//! The mirror of `encode`: the root of the wanted type is asked for its shape by [`Probe`], and
//! [`Root`] then hands it one argument, all of them, or none. `serde_json` reads the text
//! straight into the type. (simd-json was measured: up to twice as slow below 300 bytes, some
//! 10 % faster on large arrays of structs, and it would need a scratch copy and a second set of
//! rules for numbers and raw JSON.) Packets
//! with attachments take the rare path over [`Tree`].
//!
//! An error says whose fault it is: [`ArgsError::Syntax`] if the peer broke the protocol,
//! [`ArgsError::Mismatch`] if it merely sent something else than the handler wants. Tests:
//! `decode/tests.rs`.

use std::fmt;
use std::marker::PhantomData;

use bytes::Bytes;
use serde::Deserializer;
use serde::de::value::SeqDeserializer;
use serde::de::{
    Deserialize, DeserializeOwned, DeserializeSeed, Error, IgnoredAny, SeqAccess, Visitor,
};
use serde::forward_to_deserialize_any;

use super::args::ARGS_TOKEN;
use super::packet::{PacketError, PacketType, mend_surrogates, validate};
use super::tree::{Tree, check_placeholders};
use super::value::Value;

#[cfg(test)]
mod tests;

/// Why a payload did not become the wanted type.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ArgsError {
    /// Not a valid payload for anybody: the peer broke the protocol and its session ends.
    #[error("{0}")]
    Syntax(#[from] PacketError),
    /// A valid payload, but not of this type.
    #[error("{0}")]
    Mismatch(serde_json::Error),
}

/// Makes a `T` of the payload's elements after the first `skip`: 1 for events, whose first
/// element is the name, 0 for acknowledgements.
///
/// The payload is read to its end in any case: if this succeeds, all of it was JSON.
/// Placeholders are looked at only if there are attachments.
pub(crate) fn from_args<T: DeserializeOwned>(
    payload: &[u8],
    attachments: &[Bytes],
    skip: usize,
) -> Result<T, ArgsError> {
    let text = simdutf8::basic::from_utf8(payload).map_err(|_| PacketError::NotUtf8)?;
    match parse(text, attachments, skip) {
        Ok(value) => Ok(value),
        Err(Failure::Placeholder) => Err(PacketError::BadPlaceholder.into()),
        Err(Failure::Serde(error)) => {
            // Whether it was the text or the type is told apart here, where time is no matter.
            check(text)?;
            let mended = mend_surrogates(text).ok_or(ArgsError::Mismatch(error))?;
            parse(&mended, attachments, skip).map_err(|failure| match failure {
                Failure::Placeholder => PacketError::BadPlaceholder.into(),
                Failure::Serde(error) => ArgsError::Mismatch(error),
            })
        }
    }
}

#[cold]
fn check(text: &str) -> Result<(), PacketError> {
    validate(text.as_bytes())?;
    let is_array = text.trim_ascii_start().starts_with('[');
    if is_array { Ok(()) } else { Err(PacketError::BadPayload(PacketType::Event)) }
}

enum Failure {
    Placeholder,
    Serde(serde_json::Error),
}

impl From<serde_json::Error> for Failure {
    fn from(error: serde_json::Error) -> Self {
        Self::Serde(error)
    }
}

fn parse<T: DeserializeOwned>(
    text: &str,
    attachments: &[Bytes],
    skip: usize,
) -> Result<T, Failure> {
    let root = Root { skip, wanted: PhantomData };
    if !attachments.is_empty() {
        let args: Vec<Value> = serde_json::from_str(text)?;
        if !check_placeholders(&args, attachments.len()) {
            return Err(Failure::Placeholder);
        }
        let elements = args.iter().map(|value| Tree::new(value, attachments));
        return Ok(root.visit_seq(SeqDeserializer::new(elements))?);
    }
    let mut text = serde_json::Deserializer::from_str(text);
    let value = text.deserialize_seq(root)?;
    text.end()?;
    Ok(value)
}

/// Reads the array of arguments into the one value that is wanted of them.
struct Root<T> {
    skip: usize,
    wanted: PhantomData<T>,
}

impl<'de, T: Deserialize<'de>> Visitor<'de> for Root<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array of arguments")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut args: A) -> Result<T, A::Error> {
        for _ in 0..self.skip {
            args.next_element::<IgnoredAny>()?;
        }
        let value = match Probe::ask::<T>() {
            Found::Nothing => T::deserialize(Missing(PhantomData))?,
            Found::One => match args.next_element()? {
                Some(value) => value,
                None => T::deserialize(Missing(PhantomData))?,
            },
            Found::Spread => T::deserialize(Spread(&mut args))?,
        };
        while args.next_element::<IgnoredAny>()?.is_some() {}
        Ok(value)
    }
}

/// What the root of a type turned out to want.
#[derive(Debug)]
enum Found {
    /// No argument, whatever there is.
    Nothing,
    /// The first argument.
    One,
    /// All arguments, as a sequence.
    Spread,
}

/// A deserializer that only looks at what it is asked for first, and always "fails" with that.
struct Probe;

impl Probe {
    fn ask<'de, T: Deserialize<'de>>() -> Found {
        // A type that needs no input to come into being wants no argument.
        T::deserialize(Probe).err().unwrap_or(Found::Nothing)
    }
}

impl std::error::Error for Found {}

impl fmt::Display for Found {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the shape of the root")
    }
}

impl Error for Found {
    fn custom<T: fmt::Display>(_: T) -> Self {
        Self::One
    }
}

impl<'de> Deserializer<'de> for Probe {
    type Error = Found;

    fn deserialize_any<V: Visitor<'de>>(self, _: V) -> Result<V::Value, Found> {
        Err(Found::One)
    }

    fn deserialize_unit<V: Visitor<'de>>(self, _: V) -> Result<V::Value, Found> {
        Err(Found::Nothing)
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, _: V) -> Result<V::Value, Found> {
        Err(Found::Nothing)
    }

    fn deserialize_tuple<V: Visitor<'de>>(self, _: usize, _: V) -> Result<V::Value, Found> {
        Err(Found::Spread)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        _: V,
    ) -> Result<V::Value, Found> {
        Err(if name == ARGS_TOKEN { Found::Spread } else { Found::One })
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf
        option unit_struct seq tuple_struct map struct enum identifier
    }
}

/// All arguments that are left, as the sequence that a root tuple or an `Args` is made of.
struct Spread<'a, A>(&'a mut A);

impl<'de, A: SeqAccess<'de>> Deserializer<'de> for Spread<'_, A> {
    type Error = A::Error;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, A::Error> {
        visitor.visit_seq(self.0)
    }

    fn deserialize_tuple<V: Visitor<'de>>(
        self,
        _: usize,
        visitor: V,
    ) -> Result<V::Value, A::Error> {
        visitor.visit_seq(Padded(self.0))
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, A::Error> {
        visitor.visit_newtype_struct(self)
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf
        option unit unit_struct seq tuple_struct map struct enum identifier ignored_any
    }
}

/// Arguments followed by as many missing ones as are asked for.
struct Padded<'a, A>(&'a mut A);

impl<'de, A: SeqAccess<'de>> SeqAccess<'de> for Padded<'_, A> {
    type Error = A::Error;

    fn next_element_seed<S: DeserializeSeed<'de>>(
        &mut self,
        seed: S,
    ) -> Result<Option<S::Value>, A::Error> {
        // A seed is consumed by the attempt; it stays in its slot if there was no argument.
        let mut slot = Some(seed);
        if let Some(value) = self.0.next_element_seed(Slot(&mut slot))? {
            return Ok(Some(value));
        }
        slot.map(|seed| seed.deserialize(Missing(PhantomData))).transpose()
    }
}

struct Slot<'a, S>(&'a mut Option<S>);

impl<'de, S: DeserializeSeed<'de>> DeserializeSeed<'de> for Slot<'_, S> {
    type Value = S::Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<S::Value, D::Error> {
        let seed = self.0.take().ok_or_else(|| D::Error::custom("an argument was read twice"))?;
        seed.deserialize(deserializer)
    }
}

/// An argument that is not there: `undefined` in JavaScript.
struct Missing<E>(PhantomData<E>);

impl<'de, E: Error> Deserializer<'de> for Missing<E> {
    type Error = E;

    fn deserialize_any<V: Visitor<'de>>(self, _: V) -> Result<V::Value, E> {
        Err(E::custom("an argument is missing"))
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, E> {
        visitor.visit_none()
    }

    fn deserialize_unit<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, E> {
        visitor.visit_unit()
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, E> {
        visitor.visit_unit()
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, E> {
        visitor.visit_newtype_struct(self)
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf
        unit_struct seq tuple tuple_struct map struct enum identifier
    }
}
