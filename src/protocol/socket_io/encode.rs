//! Rust values -> the arguments of an event or an acknowledgement.
//!
//! `serde_json` does the writing. What is added is the rule how one Rust value becomes a list of
//! arguments (told on [`Args`](super::Args)), a formatter which moves bytes out of the JSON into
//! attachments, and in `texts` a faster way with texts. The rule only concerns the root of a
//! value, so the root is asked once, by [`Probe`], what shape it has; then the whole value is
//! written in one go.
//!
//! Output is appended, and on error cut back to where it began. Every [`EncodeError`] is the
//! fault of the caller. Tests: `encode/tests.rs`.

use std::fmt::Display;
use std::io;

use bytes::Bytes;
use serde::Serialize;
use serde::ser::{Impossible, Serializer};

use super::args::ARGS_TOKEN;
use super::packet::{PacketType, is_reserved, write_prefix};

mod texts;

#[cfg(test)]
mod tests;

use texts::{Notice, Texts, write_text};

/// Why a value cannot be sent. Nothing has been written.
#[derive(Debug, thiserror::Error)]
pub(crate) enum EncodeError {
    /// The name belongs to the protocol.
    #[error("an event with a reserved name cannot be emitted")]
    ReservedEventName,
    /// The value has no form in JSON: a map key that is no string, or an error of its own.
    #[error("the arguments cannot be written as JSON: {0}")]
    Json(#[from] serde_json::Error),
}

/// Appends a whole EVENT packet: `2…`, or `5<n>-…` if there were binary leaves.
///
/// The attachments are to follow the text in order. Clients accept 10 of them by default.
pub(crate) fn encode_event<T: Serialize + ?Sized>(
    out: &mut Vec<u8>,
    namespace: &str,
    id: Option<u64>,
    event: &str,
    args: &T,
    attachments: &mut Vec<Bytes>,
) -> Result<PacketType, EncodeError> {
    let start = Start::of(out, attachments);
    write_prefix(out, PacketType::Event, 0, namespace, id);
    match event_args(out, event, args, attachments) {
        Ok(()) => Ok(start.mark_binary(out, attachments, PacketType::Event)),
        Err(error) => Err(start.cut_back(out, attachments, error)),
    }
}

/// Appends a whole ACK packet: `3…`, or `6<n>-…` if there were binary leaves.
pub(crate) fn encode_ack<T: Serialize + ?Sized>(
    out: &mut Vec<u8>,
    namespace: &str,
    id: u64,
    args: &T,
    attachments: &mut Vec<Bytes>,
) -> Result<PacketType, EncodeError> {
    let start = Start::of(out, attachments);
    write_prefix(out, PacketType::Ack, 0, namespace, Some(id));
    match ack_args(out, args, attachments) {
        Ok(()) => Ok(start.mark_binary(out, attachments, PacketType::Ack)),
        Err(error) => Err(start.cut_back(out, attachments, error)),
    }
}

/// Appends `["event",arg,…]`, and the binary leaves to `attachments`.
pub(crate) fn event_args<T: Serialize + ?Sized>(
    out: &mut Vec<u8>,
    event: &str,
    args: &T,
    attachments: &mut Vec<Bytes>,
) -> Result<(), EncodeError> {
    if is_reserved(event) {
        return Err(EncodeError::ReservedEventName);
    }
    let start = Start::of(out, attachments);
    let mut sink = Sink { out, attachments, first_attachment: start.attachments };
    match sink.event(event, args) {
        Ok(()) => Ok(()),
        Err(error) => Err(start.cut_back(out, attachments, error.into())),
    }
}

/// Appends `[arg,…]`, and the binary leaves to `attachments`.
pub(crate) fn ack_args<T: Serialize + ?Sized>(
    out: &mut Vec<u8>,
    args: &T,
    attachments: &mut Vec<Bytes>,
) -> Result<(), EncodeError> {
    let start = Start::of(out, attachments);
    let mut sink = Sink { out, attachments, first_attachment: start.attachments };
    match sink.ack(args) {
        Ok(()) => Ok(()),
        Err(error) => Err(start.cut_back(out, attachments, error.into())),
    }
}

/// Appends `value` as one argument, whatever it is, and the binary leaves to `attachments`.
pub(super) fn one_argument<T: Serialize + ?Sized>(
    out: &mut Vec<u8>,
    value: &T,
    attachments: &mut Vec<Bytes>,
) -> Result<(), serde_json::Error> {
    let first_attachment = attachments.len();
    Sink { out, attachments, first_attachment }.json(value)
}

/// How much was there before a packet was begun.
#[derive(Clone, Copy)]
struct Start {
    out: usize,
    attachments: usize,
}

impl Start {
    fn of(out: &[u8], attachments: &[Bytes]) -> Self {
        Self { out: out.len(), attachments: attachments.len() }
    }

    #[cold]
    fn cut_back(
        self,
        out: &mut Vec<u8>,
        attachments: &mut Vec<Bytes>,
        error: EncodeError,
    ) -> EncodeError {
        out.truncate(self.out);
        attachments.truncate(self.attachments);
        error
    }

    /// Makes the packet that begins here a binary one if attachments turned up meanwhile.
    ///
    /// How many there are stands before the JSON but is known only after it. Text packets are
    /// nearly all there is, so it is the binary ones that pay, by moving their text once.
    fn mark_binary(self, out: &mut Vec<u8>, attachments: &[Bytes], kind: PacketType) -> PacketType {
        let count = attachments.len() - self.attachments;
        if count == 0 {
            return kind;
        }
        let binary = match kind {
            PacketType::Ack => PacketType::BinaryAck,
            _ => PacketType::BinaryEvent,
        };
        let mut digits = itoa::Buffer::new();
        let count = digits.format(count).bytes();
        let head = std::iter::once(binary.digit()).chain(count).chain(std::iter::once(b'-'));
        out.splice(self.out..=self.out, head);
        binary
    }
}

/// Where one packet is being written to.
struct Sink<'a> {
    out: &'a mut Vec<u8>,
    attachments: &'a mut Vec<Bytes>,
    /// Placeholders count from here.
    first_attachment: usize,
}

impl Sink<'_> {
    fn event<T: Serialize + ?Sized>(
        &mut self,
        event: &str,
        args: &T,
    ) -> Result<(), serde_json::Error> {
        self.out.push(b'[');
        write_text(self.out, event.as_bytes()).expect("invariant: a Vec accepts all");
        match Probe::ask(args, None) {
            Found::Nothing => self.out.push(b']'),
            Found::One => {
                self.out.push(b',');
                self.json(args)?;
                self.out.push(b']');
            }
            Found::Spread => {
                // The arguments are an array of their own: `["event"[1,2]` needs one byte changed.
                let opening = self.out.len();
                self.json(args)?;
                debug_assert_eq!(self.out[opening], b'[', "what spreads is an array");
                self.out[opening] = b',';
                if self.out.len() == opening + 2 {
                    self.out.remove(opening);
                }
            }
            Found::Written(result) => result?,
        }
        Ok(())
    }

    fn ack<T: Serialize + ?Sized>(&mut self, args: &T) -> Result<(), serde_json::Error> {
        match Probe::ask(args, Some(self)) {
            Found::Nothing => self.out.extend_from_slice(b"[]"),
            Found::One => {
                self.out.push(b'[');
                self.json(args)?;
                self.out.push(b']');
            }
            Found::Spread => self.json(args)?,
            Found::Written(result) => result?,
        }
        Ok(())
    }

    /// The form of an acknowledgement that says that something went wrong.
    fn ack_error<T: Serialize + ?Sized>(&mut self, error: &T) -> Result<(), serde_json::Error> {
        self.out.extend_from_slice(b"[{\"error\":");
        self.json(error)?;
        self.out.extend_from_slice(b"}]");
        Ok(())
    }

    fn json<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), serde_json::Error> {
        let text = Notice::default();
        let (attachments, first) = (&mut *self.attachments, self.first_attachment);
        let formatter = Detach { attachments, first, text: &text };
        let mut json = serde_json::Serializer::with_formatter(&mut *self.out, formatter);
        value.serialize(Texts { inner: &mut json, notice: Some(&text) })
    }
}

/// Compact JSON, except that bytes leave a placeholder and become an attachment.
struct Detach<'a> {
    attachments: &'a mut Vec<Bytes>,
    first: usize,
    text: &'a Notice,
}

impl serde_json::ser::Formatter for Detach<'_> {
    fn write_byte_array<W>(&mut self, writer: &mut W, value: &[u8]) -> io::Result<()>
    where
        W: io::Write + ?Sized,
    {
        if self.text.take() {
            return write_text(writer, value);
        }
        let num = self.attachments.len() - self.first;
        self.attachments.push(Bytes::copy_from_slice(value));
        writer.write_all(b"{\"_placeholder\":true,\"num\":")?;
        writer.write_all(itoa::Buffer::new().format(num).as_bytes())?;
        writer.write_all(b"}")
    }
}

/// What the root of a value turned out to be.
#[derive(Debug)]
enum Found {
    /// No argument at all.
    Nothing,
    /// One argument, whatever it consists of.
    One,
    /// An array whose elements are the arguments.
    Spread,
    /// A `Result`, which has been dealt with at once.
    Written(Result<(), serde_json::Error>),
}

/// A serializer that only looks at what it is called with first, and always "fails" with that.
struct Probe<'a, 'b> {
    /// Set if a `Result` is to be taken apart.
    ack: Option<&'a mut Sink<'b>>,
}

impl<'a, 'b> Probe<'a, 'b> {
    fn ask<T: Serialize + ?Sized>(value: &T, ack: Option<&'a mut Sink<'b>>) -> Found {
        match value.serialize(Probe { ack }) {
            Ok(never) => match never {},
            Err(found) => found,
        }
    }
}

impl std::error::Error for Found {}

impl Display for Found {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("the shape of the root")
    }
}

impl serde::ser::Error for Found {
    /// A value that fails before it says what it is fails again when it is written.
    fn custom<T: Display>(_: T) -> Self {
        Self::One
    }
}

macro_rules! one_argument {
    ($($method:ident($kind:ty))*) => {
        $(fn $method(self, _: $kind) -> Result<Self::Ok, Found> {
            Err(Found::One)
        })*
    };
}

impl Serializer for Probe<'_, '_> {
    type Ok = std::convert::Infallible;
    type Error = Found;
    type SerializeSeq = Impossible<Self::Ok, Found>;
    type SerializeTuple = Impossible<Self::Ok, Found>;
    type SerializeTupleStruct = Impossible<Self::Ok, Found>;
    type SerializeTupleVariant = Impossible<Self::Ok, Found>;
    type SerializeMap = Impossible<Self::Ok, Found>;
    type SerializeStruct = Impossible<Self::Ok, Found>;
    type SerializeStructVariant = Impossible<Self::Ok, Found>;

    one_argument! {
        serialize_bool(bool)
        serialize_i8(i8) serialize_i16(i16) serialize_i32(i32) serialize_i64(i64)
        serialize_i128(i128)
        serialize_u8(u8) serialize_u16(u16) serialize_u32(u32) serialize_u64(u64)
        serialize_u128(u128)
        serialize_f32(f32) serialize_f64(f64)
        serialize_char(char) serialize_str(&str) serialize_bytes(&[u8])
        serialize_unit_struct(&'static str)
    }

    fn serialize_unit(self) -> Result<Self::Ok, Found> {
        Err(Found::Nothing)
    }

    fn serialize_tuple(self, _: usize) -> Result<Self::SerializeTuple, Found> {
        Err(Found::Spread)
    }

    fn serialize_newtype_struct<T: Serialize + ?Sized>(
        self,
        name: &'static str,
        _: &T,
    ) -> Result<Self::Ok, Found> {
        Err(if name == ARGS_TOKEN { Found::Spread } else { Found::One })
    }

    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        name: &'static str,
        _: u32,
        variant: &'static str,
        value: &T,
    ) -> Result<Self::Ok, Found> {
        Err(match (self.ack, name, variant) {
            (Some(sink), "Result", "Ok") => Found::Written(sink.ack(value)),
            (Some(sink), "Result", "Err") => Found::Written(sink.ack_error(value)),
            _ => Found::One,
        })
    }

    fn serialize_none(self) -> Result<Self::Ok, Found> {
        Err(Found::One)
    }

    fn serialize_some<T: Serialize + ?Sized>(self, _: &T) -> Result<Self::Ok, Found> {
        Err(Found::One)
    }

    fn serialize_unit_variant(
        self,
        _: &'static str,
        _: u32,
        _: &'static str,
    ) -> Result<Self::Ok, Found> {
        Err(Found::One)
    }

    fn serialize_seq(self, _: Option<usize>) -> Result<Self::SerializeSeq, Found> {
        Err(Found::One)
    }

    fn serialize_tuple_struct(
        self,
        _: &'static str,
        _: usize,
    ) -> Result<Self::SerializeTupleStruct, Found> {
        Err(Found::One)
    }

    fn serialize_tuple_variant(
        self,
        _: &'static str,
        _: u32,
        _: &'static str,
        _: usize,
    ) -> Result<Self::SerializeTupleVariant, Found> {
        Err(Found::One)
    }

    fn serialize_map(self, _: Option<usize>) -> Result<Self::SerializeMap, Found> {
        Err(Found::One)
    }

    fn serialize_struct(self, _: &'static str, _: usize) -> Result<Self::SerializeStruct, Found> {
        Err(Found::One)
    }

    fn serialize_struct_variant(
        self,
        _: &'static str,
        _: u32,
        _: &'static str,
        _: usize,
    ) -> Result<Self::SerializeStructVariant, Found> {
        Err(Found::One)
    }

    fn collect_str<T: Display + ?Sized>(self, _: &T) -> Result<Self::Ok, Found> {
        Err(Found::One)
    }
}
