//! HTTP/1.1, the server's side of it, as functions of slices.
//!
//! Requests are parsed where they lie ([`parse_head`], [`BodyReader`]), responses are written into
//! a caller's buffer ([`write_response`] and its neighbours). What a request *means* is not known
//! here: no word of Engine.IO or WebSocket beyond the names of header fields.
//!
//! Every limit is an argument. Whatever the bytes are, the answer is a value: an error says which
//! status the peer is owed. Tests stand in each file, long ones in `tests/`.

pub(crate) mod body;
pub(crate) mod cookie;
pub(crate) mod cors;
pub(crate) mod encoding;
pub(crate) mod query;
pub(crate) mod request;
pub(crate) mod response;

#[cfg(test)]
mod tests;

pub(crate) use body::{BodyError, BodyReader};
pub use cookie::{Cookie, SameSite};
pub use cors::Cors;
pub(crate) use cors::CorsRequest;
pub(crate) use encoding::{Encoding, compress, negotiate};
pub(crate) use request::{BodyKind, HEADERS_MAX, Head, HeadLimits, Method, parse_head};
pub(crate) use response::{
    Connection, ResponseHead, check_header, write_continue, write_empty, write_error_json,
    write_head, write_poll_head, write_post_ok, write_response, write_upgrade_error,
};
