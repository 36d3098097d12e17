//! Responses to the byte, and that no field breaks out.

use super::super::response::{InvalidHeader, write_head, write_header};
use super::super::*;

fn written(write: impl FnOnce(&mut Vec<u8>)) -> String {
    let mut out = Vec::new();
    write(&mut out);
    String::from_utf8(out).unwrap()
}

const HEAD: ResponseHead<'static> = ResponseHead {
    status: 400,
    content_type: Some("application/json"),
    content_length: 0,
    connection: Connection::Implied,
    extra: &[],
};

#[test]
fn an_error_is_json_with_a_number() {
    let text = written(|out| {
        let mut body = Vec::new();
        write_error_json(&mut body, 0, "Transport unknown");
        write_response(out, &HEAD, &body).unwrap();
    });
    assert_eq!(
        text,
        "HTTP/1.1 400 Bad Request\r\nContent-Type: application/json\r\n\
         Content-Length: 40\r\n\r\n{\"code\":0,\"message\":\"Transport unknown\"}"
    );
    assert_eq!(
        written(|out| write_error_json(out, 4, "a\"\\\n\u{1}é")),
        "{\"code\":4,\"message\":\"a\\\"\\\\\\n\\u0001é\"}"
    );
}

#[test]
fn polls_and_posts_are_answered() {
    let text = written(|out| {
        write_poll_head(out, 3, Connection::KeepAlive, &[("Vary", "Origin")]).unwrap();
    });
    assert_eq!(
        text,
        "HTTP/1.1 200 OK\r\nContent-Type: text/plain; charset=UTF-8\r\n\
         cache-control: no-store\r\nContent-Length: 3\r\nConnection: keep-alive\r\n\
         Vary: Origin\r\n\r\n"
    );
    assert_eq!(
        written(|out| write_post_ok(out, Connection::Implied, &[]).unwrap()),
        "HTTP/1.1 200 OK\r\nContent-Type: text/html\r\ncache-control: no-store\r\n\
         Content-Length: 2\r\n\r\nok"
    );
}

#[test]
fn empty_replies_have_a_length() {
    let cases = [
        (204, "No Content"),
        (400, "Bad Request"),
        (413, "Payload Too Large"),
        (500, "Internal Server Error"),
        (599, ""),
    ];
    for (status, reason) in cases {
        let text = written(|out| write_empty(out, status, Connection::Close, &[]).unwrap());
        let expected =
            format!("HTTP/1.1 {status} {reason}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
        assert_eq!(text, expected);
    }
}

#[test]
fn a_refused_upgrade_is_a_bare_text() {
    assert_eq!(
        written(|out| write_upgrade_error(out, "Session ID unknown")),
        "HTTP/1.1 400 Bad Request\r\nConnection: close\r\nContent-type: text/html\r\n\
         Content-Length: 18\r\n\r\nSession ID unknown"
    );
    assert_eq!(written(write_continue), "HTTP/1.1 100 Continue\r\n\r\n");
}

#[test]
fn fields_cannot_break_out() {
    let fields =
        [("A", "b\r\nC: d"), ("A", "b\n"), ("A", "\0"), ("A\r\n", "b"), ("", "b"), ("A:", "b")];
    for field in fields {
        let extra = [("Fine", "fine"), field];
        let mut out = b"before".to_vec();
        let head = ResponseHead { extra: &extra, ..HEAD };
        let errors = [
            write_head(&mut out, &head),
            write_response(&mut out, &head, b"body"),
            write_poll_head(&mut out, 1, Connection::Implied, &extra),
            write_post_ok(&mut out, Connection::Implied, &extra),
            write_empty(&mut out, 400, Connection::Implied, &extra),
            write_header(&mut out, field.0, field.1),
        ];
        for error in errors {
            assert_eq!(error, Err(InvalidHeader { name: field.0.to_owned() }));
        }
        assert_eq!(out, b"before", "a refused head writes nothing");
    }
    assert!(write_header(&mut Vec::new(), "X-a", "tab\tand é").is_ok());
}
