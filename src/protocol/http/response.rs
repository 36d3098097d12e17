//! Responses, written into a caller's buffer.
//!
//! The fixed replies of a long-polling server are here as shapes (their codes and texts are the
//! Engine.IO layer's). No Date field is written: there is no clock here; a caller that has one
//! passes it among the extra fields.
//!
//! Names and values that a user or a peer had a hand in are checked: a line end in one would let
//! him write fields, or a whole response, of his own. A refused head writes nothing.
//! Tests: `tests/response.rs`.

use serde::Serialize;

/// One header field: name, value.
pub(crate) type HeaderPair<'h> = (&'h str, &'h str);

/// The Connection field of a response.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Connection {
    /// HTTP/1.1 goes on without saying so.
    Implied,
    /// HTTP/1.0 goes on only if both sides say so.
    KeepAlive,
    Close,
}

/// A header field that cannot be written: the fault of whoever configured or set it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("header field {name:?} has an empty or illegal name, or a control character in its value")]
pub(crate) struct InvalidHeader {
    pub(crate) name: String,
}

/// Everything of a response but its body.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ResponseHead<'h> {
    pub(crate) status: u16,
    pub(crate) content_type: Option<&'h str>,
    pub(crate) content_length: usize,
    pub(crate) connection: Connection,
    /// More fields, in this order, after the ones above.
    pub(crate) extra: &'h [HeaderPair<'h>],
}

/// Appends a status line and header fields, up to and with the blank line.
pub(crate) fn write_head(out: &mut Vec<u8>, head: &ResponseHead<'_>) -> Result<(), InvalidHeader> {
    let start = out.len();
    let written = write_fields(out, head);
    if written.is_err() {
        out.truncate(start);
    }
    written
}

fn write_fields(out: &mut Vec<u8>, head: &ResponseHead<'_>) -> Result<(), InvalidHeader> {
    write_status_line(out, head.status);
    if let Some(content_type) = head.content_type {
        write_header(out, "Content-Type", content_type)?;
    }
    write_number(out, "Content-Length", head.content_length);
    write_connection_and_extra(out, head.connection, head.extra)
}

fn write_connection_and_extra(
    out: &mut Vec<u8>,
    connection: Connection,
    extra: &[HeaderPair<'_>],
) -> Result<(), InvalidHeader> {
    match connection {
        Connection::Implied => {}
        Connection::KeepAlive => out.extend_from_slice(b"Connection: keep-alive\r\n"),
        Connection::Close => out.extend_from_slice(b"Connection: close\r\n"),
    }
    for &(name, value) in extra {
        write_header(out, name, value)?;
    }
    out.extend_from_slice(b"\r\n");
    Ok(())
}

/// Appends a whole response; `head.content_length` is overruled by the body's.
pub(crate) fn write_response(
    out: &mut Vec<u8>,
    head: &ResponseHead<'_>,
    body: &[u8],
) -> Result<(), InvalidHeader> {
    write_head(out, &ResponseHead { content_length: body.len(), ..*head })?;
    out.extend_from_slice(body);
    Ok(())
}

/// The head of the reply to a poll; `content_length` bytes of payload follow.
pub(crate) fn write_poll_head(
    out: &mut Vec<u8>,
    content_length: usize,
    connection: Connection,
    extra: &[HeaderPair<'_>],
) -> Result<(), InvalidHeader> {
    let start = out.len();
    // The hot one of the replies: its fixed part is one copy.
    out.extend_from_slice(
        b"HTTP/1.1 200 OK\r\nContent-Type: text/plain; charset=UTF-8\r\n\
          cache-control: no-store\r\nContent-Length: ",
    );
    write_rest(out, start, content_length, connection, extra)
}

/// The whole reply to an accepted POST.
pub(crate) fn write_post_ok(
    out: &mut Vec<u8>,
    connection: Connection,
    extra: &[HeaderPair<'_>],
) -> Result<(), InvalidHeader> {
    let start = out.len();
    out.extend_from_slice(
        b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n\
          cache-control: no-store\r\nContent-Length: ",
    );
    write_rest(out, start, 2, connection, extra)?;
    out.extend_from_slice(b"ok");
    Ok(())
}

/// A whole response without a body: an error that needs no words, or a preflight's 204.
pub(crate) fn write_empty(
    out: &mut Vec<u8>,
    status: u16,
    connection: Connection,
    extra: &[HeaderPair<'_>],
) -> Result<(), InvalidHeader> {
    let head = ResponseHead { status, content_type: None, content_length: 0, connection, extra };
    write_head(out, &head)
}

/// The body `{"code":<code>,"message":"<message>"}`.
pub(crate) fn write_error_json(out: &mut Vec<u8>, code: u8, message: &str) {
    #[derive(Serialize)]
    struct Body<'m> {
        code: u8,
        message: &'m str,
    }
    serde_json::to_writer(out, &Body { code, message })
        .expect("invariant: a number and a string always serialise into memory");
}

/// The whole reply to a refused upgrade. The link is closed after it.
pub(crate) fn write_upgrade_error(out: &mut Vec<u8>, message: &str) {
    write_status_line(out, 400);
    out.extend_from_slice(b"Connection: close\r\nContent-type: text/html\r\n");
    write_number(out, "Content-Length", message.len());
    out.extend_from_slice(b"\r\n");
    out.extend_from_slice(message.as_bytes());
}

/// Tells a peer that asked (`Head::expects_continue`) to send its body.
pub(crate) fn write_continue(out: &mut Vec<u8>) {
    out.extend_from_slice(b"HTTP/1.1 100 Continue\r\n\r\n");
}

/// Appends one field, or nothing if it would break the message.
pub(crate) fn write_header(
    out: &mut Vec<u8>,
    name: &str,
    value: &str,
) -> Result<(), InvalidHeader> {
    check_header(name, value)?;
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b": ");
    out.extend_from_slice(value.as_bytes());
    out.extend_from_slice(b"\r\n");
    Ok(())
}

/// Whether a field may be written: a token for a name, no control characters in the value.
pub(crate) fn check_header(name: &str, value: &str) -> Result<(), InvalidHeader> {
    let name_fits = !name.is_empty() && name.bytes().all(is_token_byte);
    let value_fits = value.bytes().all(|byte| byte == b'\t' || !byte.is_ascii_control());
    match name_fits && value_fits {
        true => Ok(()),
        false => Err(InvalidHeader { name: name.to_owned() }),
    }
}

/// RFC 9110, 5.6.2.
pub(super) fn is_token_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

/// The end of a head that was begun with everything up to the value of Content-Length.
fn write_rest(
    out: &mut Vec<u8>,
    start: usize,
    content_length: usize,
    connection: Connection,
    extra: &[HeaderPair<'_>],
) -> Result<(), InvalidHeader> {
    out.extend_from_slice(itoa::Buffer::new().format(content_length).as_bytes());
    out.extend_from_slice(b"\r\n");
    let written = write_connection_and_extra(out, connection, extra);
    if written.is_err() {
        out.truncate(start);
    }
    written
}

fn write_status_line(out: &mut Vec<u8>, status: u16) {
    out.extend_from_slice(b"HTTP/1.1 ");
    out.extend_from_slice(itoa::Buffer::new().format(status).as_bytes());
    out.push(b' ');
    out.extend_from_slice(reason(status).as_bytes());
    out.extend_from_slice(b"\r\n");
}

fn write_number(out: &mut Vec<u8>, name: &str, number: usize) {
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b": ");
    out.extend_from_slice(itoa::Buffer::new().format(number).as_bytes());
    out.extend_from_slice(b"\r\n");
}

/// The words after a status: for people only, and empty where we never answer with it.
fn reason(status: u16) -> &'static str {
    match status {
        101 => "Switching Protocols",
        200 => "OK",
        204 => "No Content",
        304 => "Not Modified",
        400 => "Bad Request",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        408 => "Request Timeout",
        413 => "Payload Too Large",
        426 => "Upgrade Required",
        429 => "Too Many Requests",
        431 => "Request Header Fields Too Large",
        500 => "Internal Server Error",
        501 => "Not Implemented",
        503 => "Service Unavailable",
        505 => "HTTP Version Not Supported",
        _ => "",
    }
}
