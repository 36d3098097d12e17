//! All arguments of one event, and the page on which users read how arguments map to Rust.
//!
//! The rule itself is carried out by `encode` and `decode`, which recognise [`Args`] by the name
//! of its newtype. Tests: `encode/tests.rs` and `decode/tests.rs`.

use std::fmt;
use std::ops::{Deref, DerefMut};

use serde::de::{SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::value::Value;

/// The newtype name by which the mapping knows [`Args`].
pub(super) const ARGS_TOKEN: &str = "$stentor::Args";

/// All arguments of an event or an acknowledgement, whatever they are.
///
/// # How Rust values become arguments
///
/// JavaScript says `socket.emit("move", 3, 4)`: an event carries a *list* of arguments. One
/// Rust value stands for that list, by a rule which looks at nothing but its outermost type:
///
/// | Rust value                          | emitted as           | as the type of received data    |
/// |-------------------------------------|----------------------|---------------------------------|
/// | `()`                                | no argument          | whatever was sent               |
/// | a tuple `(a, b)`, an array `[a, b]` | arguments `a`, `b`   | takes that many arguments       |
/// | [`Args`]                            | each of its elements | takes all arguments             |
/// | anything else                       | one argument         | takes the first argument        |
///
/// "Anything else" includes structs, tuple structs, maps, `Option` and `Vec`: to send an array
/// as one argument, send a `Vec` or a slice, or wrap it: `([1, 2],)`.
///
/// Received arguments beyond those wanted are ignored, and a wanted one which is missing is
/// `None` for an `Option` and an error for everything else.
///
/// In the answer to an event a `Result` is looked into as well: `Ok(value)` answers with `value`
/// by the rule above, `Err(error)` with the one argument `{"error": error}`.
///
/// # Bytes
///
/// Whatever serialises as bytes (`bytes::Bytes`, [`Value::Binary`], or a field marked
/// `#[serde(with = "serde_bytes")]`), at any depth, reaches JavaScript as a `Buffer` or an
/// `ArrayBuffer`, and the other way round. A plain `Vec<u8>` is sent as an array of numbers, as
/// serde has it, but can receive either. Official clients refuse packets with more than 10
/// binary leaves unless told otherwise.
///
/// # Examples
///
/// ```
/// use stentor::{Args, Value};
///
/// let mut args = Args::from(vec![Value::from("lobby"), Value::from(3)]);
/// args.push(Value::from(vec![Value::Null]));
/// assert_eq!(args.len(), 3);
/// assert_eq!(args[0].as_str(), Some("lobby"));
/// ```
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Args(pub Vec<Value>);

impl Deref for Args {
    type Target = Vec<Value>;

    fn deref(&self) -> &Vec<Value> {
        &self.0
    }
}

impl DerefMut for Args {
    fn deref_mut(&mut self) -> &mut Vec<Value> {
        &mut self.0
    }
}

impl From<Vec<Value>> for Args {
    fn from(values: Vec<Value>) -> Self {
        Self(values)
    }
}

impl FromIterator<Value> for Args {
    fn from_iter<I: IntoIterator<Item = Value>>(values: I) -> Self {
        Self(values.into_iter().collect())
    }
}

impl IntoIterator for Args {
    type Item = Value;
    type IntoIter = std::vec::IntoIter<Value>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}

impl<'a> IntoIterator for &'a Args {
    type Item = &'a Value;
    type IntoIter = std::slice::Iter<'a, Value>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.iter()
    }
}

impl Serialize for Args {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_newtype_struct(ARGS_TOKEN, &self.0)
    }
}

impl<'de> Deserialize<'de> for Args {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_newtype_struct(ARGS_TOKEN, AnyArgs)
    }
}

struct AnyArgs;

impl<'de> Visitor<'de> for AnyArgs {
    type Value = Args;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array of arguments")
    }

    fn visit_newtype_struct<D: Deserializer<'de>>(self, inner: D) -> Result<Args, D::Error> {
        Vec::deserialize(inner).map(Args)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Args, A::Error> {
        let mut values = Vec::new();
        while let Some(value) = seq.next_element()? {
            values.push(value);
        }
        Ok(Args(values))
    }
}
