//! Texts of a value, written faster than `serde_json` does.
//!
//! It looks at every byte of a text alone; nearly all need no escape, and many are seen at once
//! here. But it lets nobody else write texts, only bytes. So [`Texts`] stands between a value and
//! its serializer and hands texts on as bytes, which [`Notice`] says to the formatter, and that
//! calls [`write_text`]. Keys of maps and names of fields stay `serde_json`'s: they are short.
//!
//! What is written is the same to the last byte. Tests: `encode/tests.rs`.

use std::cell::Cell;
use std::fmt::Display;
use std::io;

use serde::ser::{
    Serialize, SerializeMap, SerializeSeq, SerializeStruct, SerializeStructVariant, SerializeTuple,
    SerializeTupleStruct, SerializeTupleVariant, Serializer,
};

/// Structs by which `serde_json` writes raw JSON and long numbers. Their text is to stay one.
const PRIVATE: &str = "$serde_json::private::";

/// Whether the bytes that come next are a text.
#[derive(Debug, Default)]
pub(super) struct Notice(Cell<bool>);

impl Notice {
    /// For the formatter, once for all bytes that it gets.
    pub(super) fn take(&self) -> bool {
        self.0.take()
    }
}

/// A value, a serializer or a part of one, with texts on their way between them. `None` lets them
/// pass as they are.
pub(super) struct Texts<'n, I> {
    pub(super) inner: I,
    pub(super) notice: Option<&'n Notice>,
}

impl<T: Serialize + ?Sized> Serialize for Texts<'_, &T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.notice {
            Some(_) => self.inner.serialize(Texts { inner: serializer, notice: self.notice }),
            None => self.inner.serialize(serializer),
        }
    }
}

impl<'n, I> Texts<'n, I> {
    fn with<J>(&self, inner: J) -> Texts<'n, J> {
        Texts { inner, notice: self.notice }
    }
}

/// Calls that are none of ours.
macro_rules! pass_on {
    ($($method:ident($($name:ident: $kind:ty),*))*) => {
        $(
            #[inline]
            fn $method(self, $($name: $kind),*) -> Result<Self::Ok, Self::Error> {
                self.inner.$method($($name),*)
            }
        )*
    };
}

/// Calls that begin something with parts.
macro_rules! begin {
    ($($method:ident($($name:ident: $kind:ty),*) -> $part:ident)*) => {
        $(
            #[inline]
            fn $method(self, $($name: $kind),*) -> Result<Self::$part, Self::Error> {
                let Self { inner, notice } = self;
                Ok(Texts { inner: inner.$method($($name),*)?, notice })
            }
        )*
    };
}

impl<'n, S: Serializer> Serializer for Texts<'n, S> {
    type Ok = S::Ok;
    type Error = S::Error;
    type SerializeSeq = Texts<'n, S::SerializeSeq>;
    type SerializeTuple = Texts<'n, S::SerializeTuple>;
    type SerializeTupleStruct = Texts<'n, S::SerializeTupleStruct>;
    type SerializeTupleVariant = Texts<'n, S::SerializeTupleVariant>;
    type SerializeMap = Texts<'n, S::SerializeMap>;
    type SerializeStruct = Texts<'n, S::SerializeStruct>;
    type SerializeStructVariant = Texts<'n, S::SerializeStructVariant>;

    #[inline]
    fn serialize_str(self, text: &str) -> Result<S::Ok, S::Error> {
        let Some(notice) = self.notice else { return self.inner.serialize_str(text) };
        notice.0.set(true);
        self.inner.serialize_bytes(text.as_bytes())
    }

    pass_on! {
        serialize_bool(value: bool)
        serialize_i8(value: i8) serialize_i16(value: i16) serialize_i32(value: i32)
        serialize_i64(value: i64) serialize_i128(value: i128)
        serialize_u8(value: u8) serialize_u16(value: u16) serialize_u32(value: u32)
        serialize_u64(value: u64) serialize_u128(value: u128)
        serialize_f32(value: f32) serialize_f64(value: f64)
        serialize_char(value: char) serialize_bytes(value: &[u8])
        serialize_unit() serialize_none() serialize_unit_struct(name: &'static str)
        serialize_unit_variant(name: &'static str, index: u32, variant: &'static str)
    }

    begin! {
        serialize_seq(len: Option<usize>) -> SerializeSeq
        serialize_tuple(len: usize) -> SerializeTuple
        serialize_tuple_struct(name: &'static str, len: usize) -> SerializeTupleStruct
        serialize_tuple_variant(
            name: &'static str, index: u32, variant: &'static str, len: usize
        ) -> SerializeTupleVariant
        serialize_map(len: Option<usize>) -> SerializeMap
        serialize_struct_variant(
            name: &'static str, index: u32, variant: &'static str, len: usize
        ) -> SerializeStructVariant
    }

    #[inline]
    fn serialize_struct(
        self,
        name: &'static str,
        len: usize,
    ) -> Result<Self::SerializeStruct, S::Error> {
        let notice = self.notice.filter(|_| !name.starts_with(PRIVATE));
        Ok(Texts { inner: self.inner.serialize_struct(name, len)?, notice })
    }

    #[inline]
    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Result<S::Ok, S::Error> {
        let value = self.with(value);
        self.inner.serialize_some(&value)
    }

    #[inline]
    fn serialize_newtype_struct<T: Serialize + ?Sized>(
        self,
        name: &'static str,
        value: &T,
    ) -> Result<S::Ok, S::Error> {
        let value = self.with(value);
        self.inner.serialize_newtype_struct(name, &value)
    }

    #[inline]
    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        name: &'static str,
        index: u32,
        variant: &'static str,
        value: &T,
    ) -> Result<S::Ok, S::Error> {
        let value = self.with(value);
        self.inner.serialize_newtype_variant(name, index, variant, &value)
    }

    fn collect_str<T: Display + ?Sized>(self, value: &T) -> Result<S::Ok, S::Error> {
        self.inner.collect_str(value)
    }

    fn is_human_readable(&self) -> bool {
        self.inner.is_human_readable()
    }
}

/// Parts without names, and parts with names that are known.
macro_rules! parts {
    ($($of:ident $method:ident($($key:ident)?))*) => {
        $(
            impl<P: $of> $of for Texts<'_, P> {
                type Ok = P::Ok;
                type Error = P::Error;

                #[inline]
                fn $method<T: Serialize + ?Sized>(
                    &mut self,
                    $($key: &'static str,)?
                    value: &T,
                ) -> Result<(), P::Error> {
                    let value = self.with(value);
                    self.inner.$method($($key,)? &value)
                }

                #[inline]
                fn end(self) -> Result<P::Ok, P::Error> {
                    self.inner.end()
                }
            }
        )*
    };
}

parts! {
    SerializeSeq serialize_element()
    SerializeTuple serialize_element()
    SerializeTupleStruct serialize_field()
    SerializeTupleVariant serialize_field()
    SerializeStruct serialize_field(key)
    SerializeStructVariant serialize_field(key)
}

impl<P: SerializeMap> SerializeMap for Texts<'_, P> {
    type Ok = P::Ok;
    type Error = P::Error;

    #[inline]
    fn serialize_key<T: Serialize + ?Sized>(&mut self, key: &T) -> Result<(), P::Error> {
        self.inner.serialize_key(key)
    }

    #[inline]
    fn serialize_value<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), P::Error> {
        let value = self.with(value);
        self.inner.serialize_value(&value)
    }

    #[inline]
    fn serialize_entry<K: Serialize + ?Sized, V: Serialize + ?Sized>(
        &mut self,
        key: &K,
        value: &V,
    ) -> Result<(), P::Error> {
        let value = self.with(value);
        self.inner.serialize_entry(key, &value)
    }

    #[inline]
    fn end(self) -> Result<P::Ok, P::Error> {
        self.inner.end()
    }
}

/// Writes UTF-8 as a JSON string.
///
/// A block that needs an escape is gone through byte by byte, and so is what is shorter than a
/// block; so texts full of escapes are looked at hardly more than once.
pub(super) fn write_text<W: io::Write + ?Sized>(out: &mut W, text: &[u8]) -> io::Result<()> {
    out.write_all(b"\"")?;
    // What is before it is written.
    let mut written = 0;
    let mut at = 0;
    while at < text.len() {
        let rest = &text[at..];
        let block = match rest.first_chunk::<32>() {
            Some(block) if is_plain(block) => {
                at += block.len();
                continue;
            }
            Some(block) => &block[..],
            None => match rest.first_chunk::<8>() {
                Some(block) if is_plain(block) => {
                    at += block.len();
                    continue;
                }
                Some(block) => &block[..],
                None => rest,
            },
        };
        for byte in block {
            let letter = ESCAPES[usize::from(*byte)];
            if letter != PLAIN {
                out.write_all(&text[written..at])?;
                write_escape(out, *byte, letter)?;
                written = at + 1;
            }
            at += 1;
        }
    }
    out.write_all(&text[written..])?;
    out.write_all(b"\"")
}

/// Neither an exit before the end nor a `bool` between: so it becomes the best vector code.
#[inline]
fn is_plain<const LEN: usize>(block: &[u8; LEN]) -> bool {
    let escapes =
        |byte: u8| u8::from(byte < 0x20) | u8::from(byte == b'"') | u8::from(byte == b'\\');
    block.iter().fold(0, |found, byte| found | escapes(*byte)) == 0
}

/// The letter behind the backslash for each byte.
const ESCAPES: [u8; 256] = {
    let mut letters = [PLAIN; 256];
    let mut byte = 0;
    while byte < 0x20 {
        letters[byte] = CODE;
        byte += 1;
    }
    letters[0x08] = b'b';
    letters[0x09] = b't';
    letters[0x0a] = b'n';
    letters[0x0c] = b'f';
    letters[0x0d] = b'r';
    letters[b'"' as usize] = b'"';
    letters[b'\\' as usize] = b'\\';
    letters
};
/// Stands as it is.
const PLAIN: u8 = 0;
/// Has no letter of its own, but a number.
const CODE: u8 = b'u';

#[inline]
fn write_escape<W: io::Write + ?Sized>(out: &mut W, byte: u8, letter: u8) -> io::Result<()> {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    if letter != CODE {
        return out.write_all(&[b'\\', letter]);
    }
    let [high, low] = [byte >> 4, byte & 15].map(|digit| HEX[usize::from(digit)]);
    out.write_all(&[b'\\', CODE, b'0', b'0', high, low])
}
