//! One argument that nobody wants to look into.
//!
//! Wraps `serde_json`'s raw value, so that reading and writing are its own. Tests:
//! `value/tests.rs`.

use std::fmt;

use serde::de::{DeserializeOwned, Error as _};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::value::RawValue;

use super::packet::is_too_deep;

/// The JSON text of one argument, kept as it came.
///
/// Received, it costs no more than the check that it is JSON; emitted, it is copied. It is what
/// a server should use that hands messages on without looking into them. It holds no bytes: use
/// [`Value`](super::Value) where there may be attachments.
///
/// ```
/// use stentor::RawJson;
///
/// let stored = RawJson::parse(r#"{"id":7,"tags":["a"]}"#)?;
/// assert_eq!(stored.get(), r#"{"id":7,"tags":["a"]}"#);
/// assert!(RawJson::parse("{oops}").is_err());
///
/// let made = RawJson::new(&[1, 2, 3])?;
/// assert_eq!(made.get(), "[1,2,3]");
/// assert_eq!(made.to::<Vec<u8>>()?, [1, 2, 3]);
/// # Ok::<(), serde_json::Error>(())
/// ```
#[derive(Clone)]
pub struct RawJson(Box<RawValue>);

impl RawJson {
    /// Takes a text that is one JSON value.
    ///
    /// # Errors
    /// When it is not.
    pub fn parse(text: impl Into<String>) -> Result<Self, serde_json::Error> {
        RawValue::from_string(text.into()).map(Self)
    }

    /// Writes a value as JSON now, to be emitted later, perhaps often.
    ///
    /// # Errors
    /// When it does not serialise to JSON (a map whose keys are no strings, say).
    pub fn new<T: Serialize + ?Sized>(value: &T) -> Result<Self, serde_json::Error> {
        serde_json::value::to_raw_value(value).map(Self)
    }

    /// The text.
    pub fn get(&self) -> &str {
        self.0.get()
    }

    /// Makes a typed value of it.
    ///
    /// # Errors
    /// When it is not of type `T`.
    pub fn to<T: DeserializeOwned>(&self) -> Result<T, serde_json::Error> {
        serde_json::from_str(self.get())
    }
}

/// Texts are compared, not what they mean: `1` is not `1.0`.
impl PartialEq for RawJson {
    fn eq(&self, other: &Self) -> bool {
        self.get() == other.get()
    }
}

impl Eq for RawJson {}

impl fmt::Debug for RawJson {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("RawJson").field(&self.get()).finish()
    }
}

impl fmt::Display for RawJson {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.get())
    }
}

impl Serialize for RawJson {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for RawJson {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let json = Box::<RawValue>::deserialize(deserializer)?;
        // It may be handed on to readers whose parsers recurse.
        if is_too_deep(json.get()) {
            return Err(D::Error::custom("the JSON nests too deep"));
        }
        Ok(Self(json))
    }
}
