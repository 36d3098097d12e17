//! Request heads, parsed in place by httparse and judged by RFC 9112.
//!
//! A [`Head`] borrows everything from the bytes it was parsed from, and parsing allocates nothing
//! for up to sixteen fields. A head is parsed whole or not at all: short input answers `None` and
//! consumes nothing, and the work of asking again with more bytes is bounded by
//! [`HeadLimits::bytes_max`].
//!
//! Requests whose end two parsers could see in different places are refused
//! ([`HeadError::Framing`]), so that nothing can be smuggled past a proxy in front of us.
//! Folded lines and control characters never get here: httparse refuses them.
//!
//! Tests: `tests/head.rs`.

use std::mem::MaybeUninit;

use smallvec::SmallVec;

use super::query::Query;
use super::response::Connection;

/// Room for header fields in a [`Head`], whatever the limits say.
pub(crate) const HEADERS_MAX: usize = 64;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Method {
    Get,
    Post,
    Options,
    Head,
    /// Any other token.
    Other,
}

impl Method {
    /// Methods are case-sensitive (RFC 9110, 9.1).
    fn from_token(token: &str) -> Self {
        match token {
            "GET" => Self::Get,
            "POST" => Self::Post,
            "OPTIONS" => Self::Options,
            "HEAD" => Self::Head,
            _ => Self::Other,
        }
    }
}

#[derive(Debug, Clone, Copy)]
pub(crate) struct HeadLimits {
    /// Bytes of the request line and all header fields, with their line ends.
    pub(crate) bytes_max: usize,
    /// Header fields; more than [`HEADERS_MAX`] means [`HEADERS_MAX`].
    pub(crate) headers_max: usize,
}

impl Default for HeadLimits {
    /// 16 KiB, as Node allows.
    fn default() -> Self {
        Self { bytes_max: 16 * 1024, headers_max: HEADERS_MAX }
    }
}

/// Why a head is refused. Always the peer's fault; answer [`HeadError::status`] and close.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum HeadError {
    #[error("the request head is longer than allowed")]
    TooLong,
    #[error("the request head has more fields than allowed")]
    TooManyHeaders,
    #[error("the request head is malformed")]
    Malformed,
    #[error("the HTTP version is not 1.0 or 1.1")]
    UnsupportedVersion,
    #[error("the request does not have exactly one Host field")]
    Host,
    #[error("the end of the request body is ambiguous")]
    Framing,
    #[error("the transfer coding is not supported")]
    UnsupportedCoding,
}

impl HeadError {
    pub(crate) fn status(self) -> u16 {
        match self {
            Self::TooLong | Self::TooManyHeaders => 431,
            Self::Malformed | Self::Host | Self::Framing => 400,
            Self::UnsupportedVersion => 505,
            Self::UnsupportedCoding => 501,
        }
    }
}

/// How the body of a request is delimited.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum BodyKind {
    None,
    Sized(u64),
    Chunked,
}

/// Clients send fewer than sixteen; a browser behind proxies may need an allocation.
type Fields<'b> = SmallVec<[httparse::Header<'b>; 16]>;

/// One request head, borrowed from the bytes it came in.
#[derive(Debug, Clone)]
pub(crate) struct Head<'b> {
    pub(crate) method: Method,
    /// The request target as it was sent.
    pub(crate) target: &'b str,
    /// The path of the target; also of an absolute one (`GET http://host/path`). Not decoded.
    pub(crate) path: &'b str,
    /// The query of the target, empty when there is none.
    pub(crate) query: Query<'b>,
    /// 0 or 1: the minor version of HTTP/1.
    pub(crate) version_minor: u8,
    /// Bytes of the head: the body, or the next request, starts there.
    pub(crate) len: usize,
    fields: Fields<'b>,
}

/// Parses the head at the front of `buf`; `None` when more bytes are needed.
pub(crate) fn parse_head<'b>(
    buf: &'b [u8],
    limits: &HeadLimits,
) -> Result<Option<Head<'b>>, HeadError> {
    let headers_max = limits.headers_max.min(HEADERS_MAX);
    let window = &buf[..buf.len().min(limits.bytes_max)];
    let mut fields = [const { MaybeUninit::uninit() }; HEADERS_MAX];
    let mut request = httparse::Request::new(&mut []);
    let len = match request.parse_with_uninit_headers(window, &mut fields[..headers_max]) {
        Ok(httparse::Status::Complete(len)) => len,
        Ok(httparse::Status::Partial) if window.len() == limits.bytes_max => {
            return Err(HeadError::TooLong);
        }
        Ok(httparse::Status::Partial) => return Ok(None),
        Err(httparse::Error::TooManyHeaders) => return Err(HeadError::TooManyHeaders),
        Err(httparse::Error::Version) => return Err(HeadError::UnsupportedVersion),
        Err(_) => return Err(HeadError::Malformed),
    };
    let (Some(method), Some(target), Some(version_minor)) =
        (request.method, request.path, request.version)
    else {
        return Err(HeadError::Malformed);
    };
    let fields = Fields::from_slice(request.headers);
    let (path, query) = split_target(target);
    let method = Method::from_token(method);
    let head = Head { method, target, path, query, version_minor, len, fields };
    head.check_host()?;
    Ok(Some(head))
}

impl<'b> Head<'b> {
    /// The fields in the order they were sent.
    pub(crate) fn headers(&self) -> impl Iterator<Item = (&'b str, &'b [u8])> + '_ {
        self.fields.iter().map(|field| (field.name, field.value))
    }

    /// The value of the first field of this name, in any letter case.
    pub(crate) fn header(&self, name: &str) -> Option<&'b [u8]> {
        self.values(name).next()
    }

    /// The values of all fields of this name.
    pub(crate) fn values<'h>(&'h self, name: &'h str) -> impl Iterator<Item = &'b [u8]> + 'h {
        self.headers()
            .filter(move |(field, _)| field.eq_ignore_ascii_case(name))
            .map(|(_, value)| value)
    }

    /// Whether the comma-separated list in the fields of this name contains `token`.
    pub(crate) fn has_token(&self, name: &str, token: &str) -> bool {
        self.values(name)
            .flat_map(list_items)
            .any(|item| item.eq_ignore_ascii_case(token.as_bytes()))
    }

    /// What the response's Connection field has to say, if the server wants to go on as well.
    pub(crate) fn connection(&self) -> Connection {
        if self.has_token("connection", "close") {
            Connection::Close
        } else if self.version_minor > 0 {
            Connection::Implied
        } else if self.has_token("connection", "keep-alive") {
            Connection::KeepAlive
        } else {
            Connection::Close
        }
    }

    /// How long the body is (RFC 9112, 6.3), or why nobody can say.
    pub(crate) fn body(&self) -> Result<BodyKind, HeadError> {
        let coded = self.header("transfer-encoding").is_some();
        let mut lengths = self.values("content-length");
        match (coded, lengths.next(), lengths.next()) {
            (false, None, _) => Ok(BodyKind::None),
            // A list, or the same length twice, is refused as well: it is only ever sent by
            // somebody who hopes that two readers take different ones.
            (false, Some(length), None) => parse_length(length).map(BodyKind::Sized),
            (true, None, _) if self.version_minor > 0 => self.check_transfer_coding(),
            _ => Err(HeadError::Framing),
        }
    }

    /// Whether the peer waits for `100 Continue` before it sends its body.
    pub(crate) fn expects_continue(&self) -> bool {
        self.version_minor > 0
            && self
                .header("expect")
                .is_some_and(|value| value.eq_ignore_ascii_case(b"100-continue"))
    }

    /// Whether the peer asks to speak `protocol` on this link from now on.
    pub(crate) fn is_upgrade(&self, protocol: &str) -> bool {
        self.version_minor > 0
            && self.has_token("connection", "upgrade")
            && self.has_token("upgrade", protocol)
    }

    /// RFC 9112, 3.2: one Host field, no more; HTTP/1.0 may have none.
    fn check_host(&self) -> Result<(), HeadError> {
        match self.values("host").count() {
            1 => Ok(()),
            0 if self.version_minor == 0 => Ok(()),
            _ => Err(HeadError::Host),
        }
    }

    /// Chunked alone is read here. A coding below it is honest but unknown to us; chunked anywhere
    /// but at the end, or not at all, leaves the end of the body open.
    fn check_transfer_coding(&self) -> Result<BodyKind, HeadError> {
        let is_chunked = |coding: &[u8]| coding.eq_ignore_ascii_case(b"chunked");
        let mut chunked_count = 0;
        let mut other_count = 0;
        let mut chunked_last = false;
        for coding in self.values("transfer-encoding").flat_map(list_items) {
            chunked_last = is_chunked(coding);
            match chunked_last {
                true => chunked_count += 1,
                false if coding.is_empty() => return Err(HeadError::Framing),
                false => other_count += 1,
            }
        }
        match (chunked_last, chunked_count, other_count) {
            (true, 1, 0) => Ok(BodyKind::Chunked),
            (true, 1, _) => Err(HeadError::UnsupportedCoding),
            _ => Err(HeadError::Framing),
        }
    }
}

/// Only digits: no sign, no list, no blank inside (`u64::from_str` would take a plus).
fn parse_length(value: &[u8]) -> Result<u64, HeadError> {
    if value.is_empty() || !value.iter().all(u8::is_ascii_digit) {
        return Err(HeadError::Framing);
    }
    let digits = str::from_utf8(value).map_err(|_| HeadError::Framing)?;
    digits.parse().map_err(|_| HeadError::Framing)
}

fn list_items(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value.split(|&byte| byte == b',').map(<[u8]>::trim_ascii)
}

/// Path and query of a target in any of its forms. A fragment has no business there; it is cut
/// off, as Node does.
fn split_target(target: &str) -> (&str, Query<'_>) {
    let target = target.split_once('#').map_or(target, |(before, _)| before);
    let local = after_authority(target).unwrap_or(target);
    let (path, query) = local.split_once('?').unwrap_or((local, ""));
    (if path.is_empty() { "/" } else { path }, Query(query))
}

/// What follows `http://host` in an absolute target; `None` for the other forms.
fn after_authority(target: &str) -> Option<&str> {
    if target.starts_with('/') {
        return None;
    }
    let (scheme, rest) = target.split_once("://")?;
    if !scheme.eq_ignore_ascii_case("http") && !scheme.eq_ignore_ascii_case("https") {
        return None;
    }
    Some(rest.find(['/', '?']).map_or("", |start| &rest[start..]))
}
