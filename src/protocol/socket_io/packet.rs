//! The text of a Socket.IO packet: `<type>[<n>-][/<namespace>,][<id>][json]`.
//!
//! Decoding stops where the JSON begins: the head and the event name are read without parsing
//! the payload, so that a packet nobody listens to costs nanoseconds. Whether the payload is
//! JSON at all is found out when it is deserialised, or by [`validate`] when nobody does that.
//!
//! This module must not know sessions, namespaces that exist, or limits other than those it is
//! given. Every [`PacketError`] is the fault of the peer. Tests: `packet/tests.rs`.

use std::borrow::Cow;
use std::str;

use memchr::memchr;
use serde::de::IgnoredAny;

use super::raw_json::RawJson;

#[cfg(test)]
mod tests;

/// How deep payloads may nest. It is what `serde_json` accepts when it recurses into a type, so
/// a payload is refused at the same depth whether somebody deserialises it or not.
pub(crate) const DEPTH_MAX: usize = 127;

/// What a packet is for; the discriminant is the digit on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum PacketType {
    Connect = 0,
    Disconnect = 1,
    Event = 2,
    Ack = 3,
    ConnectError = 4,
    BinaryEvent = 5,
    BinaryAck = 6,
}

impl PacketType {
    fn from_digit(digit: u8) -> Option<Self> {
        Some(match digit {
            b'0' => Self::Connect,
            b'1' => Self::Disconnect,
            b'2' => Self::Event,
            b'3' => Self::Ack,
            b'4' => Self::ConnectError,
            b'5' => Self::BinaryEvent,
            b'6' => Self::BinaryAck,
            _ => return None,
        })
    }

    /// The digit that stands for this type on the wire.
    pub(crate) fn digit(self) -> u8 {
        b'0' + self as u8
    }

    /// Whether attachments belong to packets of this type.
    pub(crate) fn is_binary(self) -> bool {
        matches!(self, Self::BinaryEvent | Self::BinaryAck)
    }
}

/// How the peer broke the protocol. The session of such a peer ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum PacketError {
    #[error("the packet is empty")]
    Empty,
    #[error("{:?} is no packet type", char::from(*.0))]
    UnknownType(u8),
    #[error("a binary packet does not say how many attachments it has")]
    BadAttachmentCount,
    #[error("more than {max} attachments are announced")]
    TooManyAttachments { max: u32 },
    #[error("the packet id does not fit 64 bits")]
    BadId,
    #[error("the packet is not UTF-8")]
    NotUtf8,
    #[error("the payload is not what a {0:?} packet carries")]
    BadPayload(PacketType),
    #[error("the event has no name")]
    BadEventName,
    #[error("the event has a reserved name")]
    ReservedEventName,
    #[error("the payload is no JSON at line {line}, column {column}")]
    NotJson { line: usize, column: usize },
    #[error("the payload nests deeper than {DEPTH_MAX} levels")]
    TooDeep,
    #[error("a placeholder points to no attachment")]
    BadPlaceholder,
}

impl PacketError {
    pub(super) fn not_json(error: &serde_json::Error) -> Self {
        Self::NotJson { line: error.line(), column: error.column() }
    }
}

/// All that precedes the JSON of a packet, and where that JSON begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct PacketHead<'b> {
    pub(crate) kind: PacketType,
    /// Always 0 for packets that are not binary.
    pub(crate) attachments: u32,
    /// `/` when the packet names none. A query part is left in place.
    pub(crate) namespace: &'b str,
    pub(crate) id: Option<u64>,
    /// Index of the payload in the text; equal to its length when there is none.
    pub(crate) payload_at: usize,
}

/// Reads the head of a packet. At most `attachments_max` attachments may be announced.
pub(crate) fn decode_head(
    text: &[u8],
    attachments_max: u32,
) -> Result<PacketHead<'_>, PacketError> {
    let &digit = text.first().ok_or(PacketError::Empty)?;
    let kind = PacketType::from_digit(digit).ok_or(PacketError::UnknownType(digit))?;
    let mut at = 1;
    let mut attachments = 0;
    if kind.is_binary() {
        let too_many = PacketError::TooManyAttachments { max: attachments_max };
        let (count, end) = decimal(text, at).ok_or(too_many)?;
        if text.get(end) != Some(&b'-') {
            return Err(PacketError::BadAttachmentCount);
        }
        let count = count.ok_or(PacketError::BadAttachmentCount)?;
        attachments =
            u32::try_from(count).ok().filter(|n| *n <= attachments_max).ok_or(too_many)?;
        at = end + 1;
    }
    let mut namespace = "/";
    if text.get(at) == Some(&b'/') {
        let rest = &text[at..];
        let len = memchr(b',', rest).unwrap_or(rest.len());
        namespace = str::from_utf8(&rest[..len]).map_err(|_| PacketError::NotUtf8)?;
        at = text.len().min(at + len + 1);
    }
    let (id, payload_at) = decimal(text, at).ok_or(PacketError::BadId)?;
    Ok(PacketHead { kind, attachments, namespace, id, payload_at })
}

/// The digits at `at` (none is fine) and where they end; `None` when they exceed a `u64`.
fn decimal(text: &[u8], mut at: usize) -> Option<(Option<u64>, usize)> {
    let mut number = None;
    while let Some(digit) = text.get(at).map(|b| b.wrapping_sub(b'0')).filter(|d| *d < 10) {
        let so_far: u64 = number.unwrap_or(0);
        number = Some(so_far.checked_mul(10)?.checked_add(u64::from(digit))?);
        at += 1;
    }
    Some((number, at))
}

/// Checks that `payload` is of the kind that packets of this type carry.
///
/// CONNECT and CONNECT_ERROR payloads are checked to the last byte. Those of events and acks are
/// only looked at from the outside, since they are about to be deserialised. For events this
/// does the work of [`event_name`], which whoever needs the name calls instead.
pub(crate) fn check_payload(kind: PacketType, payload: &[u8]) -> Result<(), PacketError> {
    let bad = Err(PacketError::BadPayload(kind));
    let first = payload.iter().copied().find(|b| !is_space(*b));
    match (kind, first) {
        (PacketType::Connect | PacketType::Disconnect, None) => Ok(()),
        (PacketType::Connect, Some(b'{')) => validate(payload),
        (PacketType::Event | PacketType::BinaryEvent, _) => event_name(payload).map(drop),
        (PacketType::Ack | PacketType::BinaryAck, Some(b'[')) => Ok(()),
        (PacketType::ConnectError, Some(b'{' | b'"')) => validate(payload),
        _ => bad,
    }
}

/// The name of an event, given its payload: the first element of the array.
///
/// A number is a name too and is given as it was written: JavaScript looks up both `1` and
/// `"1"` under `"1"`. What follows the name is not looked at.
pub(crate) fn event_name(payload: &[u8]) -> Result<Cow<'_, str>, PacketError> {
    let array = skip_space(payload);
    let Some((b'[', rest)) = array.split_first() else {
        return Err(PacketError::BadPayload(PacketType::Event));
    };
    let name = skip_space(rest);
    match name.first() {
        Some(b'"') => {
            let name = string_at_start(&name[1..])?;
            if is_reserved(&name) { Err(PacketError::ReservedEventName) } else { Ok(name) }
        }
        Some(b'-' | b'0'..=b'9') => number_at_start(name),
        _ => Err(PacketError::BadEventName),
    }
}

/// Reads a JSON string whose opening quote has just been passed.
fn string_at_start(text: &[u8]) -> Result<Cow<'_, str>, PacketError> {
    let mut at = 0;
    let mut escaped = false;
    loop {
        // Names are so short that a plain loop wins over memchr.
        let found = text[at..].iter().position(|b| matches!(b, b'"' | b'\\'));
        at += found.ok_or(PacketError::BadEventName)?;
        if text[at] == b'"' {
            break;
        }
        escaped = true;
        // What is escaped may be a quote. A backslash at the very end leaves no closing one.
        at = text.len().min(at + 2);
    }
    let raw = str::from_utf8(&text[..at]).map_err(|_| PacketError::NotUtf8)?;
    if escaped { unescape(raw).map(Cow::Owned) } else { Ok(Cow::Borrowed(raw)) }
}

#[cold]
fn unescape(raw: &str) -> Result<String, PacketError> {
    let quoted = format!("\"{raw}\"");
    serde_json::from_str(&quoted)
        .or_else(|error| match mend_surrogates(&quoted) {
            Some(mended) => serde_json::from_str(&mended),
            None => Err(error),
        })
        .map_err(|_| PacketError::BadEventName)
}

#[cold]
fn number_at_start(text: &[u8]) -> Result<Cow<'_, str>, PacketError> {
    let end = text.iter().position(|b| matches!(b, b',' | b']') || is_space(*b));
    let number = str::from_utf8(&text[..end.unwrap_or(text.len())])
        .map_err(|_| PacketError::BadEventName)?;
    serde_json::from_str::<IgnoredAny>(number).map_err(|_| PacketError::BadEventName)?;
    Ok(Cow::Borrowed(number))
}

/// Names that say something about the connection itself and that nobody may emit.
pub(crate) fn is_reserved(name: &str) -> bool {
    matches!(
        name,
        "connect"
            | "connect_error"
            | "disconnect"
            | "disconnecting"
            | "newListener"
            | "removeListener"
    )
}

/// Checks a whole payload: UTF-8, JSON, and no deeper than [`DEPTH_MAX`].
pub(crate) fn validate(payload: &[u8]) -> Result<(), PacketError> {
    let text = simdutf8::basic::from_utf8(payload).map_err(|_| PacketError::NotUtf8)?;
    serde_json::from_str::<IgnoredAny>(text).map_err(|e| PacketError::not_json(&e))?;
    if is_too_deep(text) { Err(PacketError::TooDeep) } else { Ok(()) }
}

/// Whether `json`, which is known to be JSON, nests deeper than [`DEPTH_MAX`].
pub(super) fn is_too_deep(json: &str) -> bool {
    // Each level opens and closes: most payloads are too short to be deep.
    if json.len() <= 2 * DEPTH_MAX {
        return false;
    }
    // Nearly every other one is answered by this count, which runs at memory speed.
    let opening = json.bytes().filter(|b| matches!(b, b'[' | b'{')).count();
    if opening <= DEPTH_MAX {
        return false;
    }
    let bytes = json.as_bytes();
    let (mut at, mut depth, mut in_string) = (0, 0_usize, false);
    while let Some(byte) = bytes.get(at) {
        match byte {
            b'"' => in_string = !in_string,
            b'\\' => at += 1,
            b'[' | b'{' if !in_string => depth += 1,
            b']' | b'}' if !in_string => depth = depth.saturating_sub(1),
            _ => {}
        }
        if depth > DEPTH_MAX {
            return true;
        }
        at += 1;
    }
    false
}

/// Replaces every escaped surrogate that has no partner by U+FFFD; `None` if there is none.
///
/// A JavaScript string may hold such halves, and `JSON.stringify` escapes them: the JSON is
/// valid, but no Rust string can hold it. U+FFFD is what the same string becomes wherever
/// JavaScript turns it into UTF-8 itself. `json` must be valid JSON otherwise.
#[cold]
pub(super) fn mend_surrogates(json: &str) -> Option<String> {
    let mut mended = String::new();
    let mut copied_to = 0;
    let mut at = 0;
    while let Some(found) = memchr(b'\\', json.as_bytes().get(at..)?) {
        at += found;
        match (escaped_unit(json, at), escaped_unit(json, at + 6)) {
            (Some(0xD800..=0xDBFF), Some(0xDC00..=0xDFFF)) => at += 12,
            (Some(0xD800..=0xDFFF), _) => {
                mended.push_str(&json[copied_to..at]);
                mended.push_str("\\ufffd");
                at += 6;
                copied_to = at;
            }
            (Some(_), _) => at += 6,
            (None, _) => at += 2,
        }
    }
    if copied_to == 0 {
        return None;
    }
    mended.push_str(&json[copied_to..]);
    Some(mended)
}

/// The UTF-16 code unit of the `\uXXXX` at `at`, if there is one.
fn escaped_unit(json: &str, at: usize) -> Option<u16> {
    let digits = json.get(at..at + 6)?.strip_prefix("\\u")?;
    u16::from_str_radix(digits, 16).ok()
}

/// What JSON calls whitespace.
fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\n' | b'\r')
}

fn skip_space(text: &[u8]) -> &[u8] {
    match text.first() {
        Some(byte) if is_space(*byte) => {
            let start = text.iter().position(|b| !is_space(*b)).unwrap_or(text.len());
            &text[start..]
        }
        _ => text,
    }
}

/// Writes all that precedes the payload. `attachments` counts only in binary packets.
///
/// The namespace must begin with `/` and hold no comma, as every registered one does.
pub(crate) fn write_prefix(
    out: &mut Vec<u8>,
    kind: PacketType,
    attachments: usize,
    namespace: &str,
    id: Option<u64>,
) {
    debug_assert!(namespace.starts_with('/') && !namespace.contains(','), "{namespace:?}");
    out.push(kind.digit());
    if kind.is_binary() {
        out.extend_from_slice(itoa::Buffer::new().format(attachments).as_bytes());
        out.push(b'-');
    }
    if namespace != "/" {
        out.extend_from_slice(namespace.as_bytes());
        out.push(b',');
    }
    if let Some(id) = id {
        out.extend_from_slice(itoa::Buffer::new().format(id).as_bytes());
    }
}

/// Writes the answer to a CONNECT that was accepted.
pub(crate) fn connect_reply(out: &mut Vec<u8>, namespace: &str, sid: &str) {
    write_prefix(out, PacketType::Connect, 0, namespace, None);
    out.extend_from_slice(b"{\"sid\":");
    write_json_string(out, sid);
    out.push(b'}');
}

/// Writes the answer to a CONNECT that was refused.
pub(crate) fn connect_error(
    out: &mut Vec<u8>,
    namespace: &str,
    message: &str,
    data: Option<&RawJson>,
) {
    write_prefix(out, PacketType::ConnectError, 0, namespace, None);
    out.extend_from_slice(b"{\"message\":");
    write_json_string(out, message);
    if let Some(data) = data {
        out.extend_from_slice(b",\"data\":");
        out.extend_from_slice(data.get().as_bytes());
    }
    out.push(b'}');
}

/// Writes the packet that ends the socket of one namespace.
pub(crate) fn disconnect(out: &mut Vec<u8>, namespace: &str) {
    write_prefix(out, PacketType::Disconnect, 0, namespace, None);
}

fn write_json_string(out: &mut Vec<u8>, text: &str) {
    serde_json::to_writer(out, text).expect("invariant: strings serialise and a Vec accepts them");
}
