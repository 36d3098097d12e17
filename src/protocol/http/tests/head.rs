//! Request heads: what is read, what is refused and with which status.

use proptest::prelude::*;

use super::super::request::HeadError;
use super::super::*;

const BROWSER_POLL: &[u8] =
    b"GET /socket.io/?EIO=4&transport=polling&t=PkQ1xyz&sid=lv_VI97HAXpY6yYWAAAC HTTP/1.1\r\n\
    Host: localhost:3000\r\nConnection: keep-alive\r\nAccept: */*\r\n\
    Origin: http://localhost:8080\r\nAccept-Encoding: gzip, deflate, br\r\n\r\nrest";

fn parse(bytes: &[u8]) -> Result<Option<Head<'_>>, HeadError> {
    parse_head(bytes, &HeadLimits::default())
}

/// A complete head of these lines, with a Host field in front.
fn with_fields<T>(request_line: &str, fields: &str, read: impl Fn(Head<'_>) -> T) -> T {
    let text = format!("{request_line}\r\nHost: a\r\n{fields}\r\n");
    read(parse(text.as_bytes()).unwrap().unwrap())
}

fn body_of(request_line: &str, fields: &str) -> Result<BodyKind, HeadError> {
    with_fields(request_line, fields, |head| head.body())
}

#[test]
fn a_browsers_poll_is_read() {
    let head = parse(BROWSER_POLL).unwrap().unwrap();
    assert_eq!(head.method, Method::Get);
    assert_eq!(head.path, "/socket.io/");
    assert_eq!(head.query.get("sid").as_deref(), Some("lv_VI97HAXpY6yYWAAAC"));
    assert_eq!(head.version_minor, 1);
    assert_eq!(&BROWSER_POLL[head.len..], b"rest");
    assert_eq!(head.header("ORIGIN"), Some(&b"http://localhost:8080"[..]));
    assert_eq!(head.header("cookie"), None);
    assert_eq!(head.headers().count(), 5);
    assert_eq!(head.headers().next(), Some(("Host", &b"localhost:3000"[..])));
    assert_eq!(head.body(), Ok(BodyKind::None));
    assert!(
        head.connection() != Connection::Close
            && !head.expects_continue()
            && !head.is_upgrade("websocket")
    );
}

#[test]
fn a_head_is_read_whole_or_not_at_all() {
    let len = BROWSER_POLL.len() - b"rest".len();
    for end in 0..len {
        assert!(parse(&BROWSER_POLL[..end]).unwrap().is_none(), "{end}");
    }
    assert!(parse(&BROWSER_POLL[..len]).unwrap().is_some());
}

#[test]
fn limits_answer_431() {
    let len = BROWSER_POLL.len() - b"rest".len();
    let limits = |bytes_max, headers_max| HeadLimits { bytes_max, headers_max };
    assert!(parse_head(BROWSER_POLL, &limits(len, 5)).unwrap().is_some());
    let too_long = parse_head(BROWSER_POLL, &limits(len - 1, 5)).unwrap_err();
    let too_many = parse_head(BROWSER_POLL, &limits(len, 4)).unwrap_err();
    assert_eq!((too_long, too_long.status()), (HeadError::TooLong, 431));
    assert_eq!((too_many, too_many.status()), (HeadError::TooManyHeaders, 431));

    let fields = "a: b\r\n".repeat(64);
    let text = format!("GET / HTTP/1.1\r\nHost: a\r\n{fields}\r\n");
    let unbounded = limits(usize::MAX, usize::MAX);
    let error = parse_head(text.as_bytes(), &unbounded).unwrap_err();
    assert_eq!(error, HeadError::TooManyHeaders);
    assert_eq!(parse_head(b"", &limits(0, 0)).unwrap_err(), HeadError::TooLong);
}

#[test]
fn an_incomplete_head_at_the_limit_is_too_long() {
    let limits = HeadLimits { bytes_max: 32, headers_max: 64 };
    assert!(parse_head(&b"\r\n".repeat(15), &limits).unwrap().is_none());
    assert_eq!(parse_head(&b"\r\n".repeat(16), &limits).unwrap_err(), HeadError::TooLong);
    let line = [b"GET /", &[b'a'; 64][..]].concat();
    assert!(parse_head(&line[..31], &limits).unwrap().is_none());
    assert_eq!(parse_head(&line, &limits).unwrap_err(), HeadError::TooLong);
}

#[test]
fn malformed_heads_answer_400() {
    let cases: [&[u8]; 9] = [
        b"GET  / HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nA : b\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nA: b\r\n folded\r\n\r\n",
        b"GET / HTTP/1.1\r\n Host: a\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nA: b\rc\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nA: \0\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nOrigin: http://a\x01\r\n\r\n",
        b"GET /\xff HTTP/1.1\r\nHost: a\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    ];
    for case in cases {
        let error = parse(case).unwrap_err();
        assert_eq!((error, error.status()), (HeadError::Malformed, 400), "{case:?}");
    }
}

#[test]
fn other_versions_answer_505() {
    for case in ["PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "GET / HTTP/1.2\r\nHost: a\r\n\r\n"] {
        let error = parse(case.as_bytes()).unwrap_err();
        assert_eq!((error, error.status()), (HeadError::UnsupportedVersion, 505));
    }
}

#[test]
fn there_is_one_host() {
    assert_eq!(parse(b"GET / HTTP/1.1\r\n\r\n").unwrap_err(), HeadError::Host);
    let twice = parse(b"GET / HTTP/1.1\r\nHost: a\r\nhost: a\r\n\r\n").unwrap_err();
    assert_eq!((twice, twice.status()), (HeadError::Host, 400));
    assert!(parse(b"GET / HTTP/1.0\r\n\r\n").unwrap().is_some());
}

#[test]
fn targets_of_every_form_are_split() {
    let cases = [
        ("/", "/", ""),
        ("/a?b", "/a", "b"),
        ("/a?b?c", "/a", "b?c"),
        ("/a?", "/a", ""),
        ("/a?b#c", "/a", "b"),
        ("/a#b?c", "/a", ""),
        ("/a?u=http://b/c", "/a", "u=http://b/c"),
        ("//a/b", "//a/b", ""),
        ("http://host", "/", ""),
        ("http://host:1/a?b", "/a", "b"),
        ("HTTPS://host?b", "/", "b"),
        ("http://host/a?u=http://b/c", "/a", "u=http://b/c"),
        ("ftp://host/a", "ftp://host/a", ""),
        ("*", "*", ""),
        ("?a=b", "/", "a=b"),
    ];
    for (target, path, query) in cases {
        with_fields(&format!("GET {target} HTTP/1.1"), "", |head| {
            assert_eq!((head.target, head.path, head.query.0), (target, path, query));
        });
    }
}

#[test]
fn methods_are_told_apart() {
    let cases = [
        ("GET", Method::Get),
        ("POST", Method::Post),
        ("OPTIONS", Method::Options),
        ("HEAD", Method::Head),
        ("get", Method::Other),
        ("DELETE", Method::Other),
    ];
    for (token, method) in cases {
        with_fields(&format!("{token} / HTTP/1.1"), "", |h| assert_eq!(h.method, method));
    }
}

#[test]
fn the_end_of_a_body_is_known_or_refused() {
    let framing = Err(HeadError::Framing);
    let unsupported = Err(HeadError::UnsupportedCoding);
    let cases = [
        ("", Ok(BodyKind::None)),
        ("Content-Length: 0\r\n", Ok(BodyKind::Sized(0))),
        ("content-length: \t12 \r\n", Ok(BodyKind::Sized(12))),
        ("Content-Length: 18446744073709551615\r\n", Ok(BodyKind::Sized(u64::MAX))),
        ("Content-Length: 18446744073709551616\r\n", framing),
        ("Content-Length: \r\n", framing),
        ("Content-Length: +1\r\n", framing),
        ("Content-Length: -1\r\n", framing),
        ("Content-Length: 0x1\r\n", framing),
        ("Content-Length: 1 2\r\n", framing),
        ("Content-Length: 1, 1\r\n", framing),
        ("Content-Length: 1\r\nContent-Length: 1\r\n", framing),
        ("Content-Length: 1\r\nContent-Length: 2\r\n", framing),
        ("Transfer-Encoding: chunked\r\n", Ok(BodyKind::Chunked)),
        ("Transfer-Encoding: CHUNKED\r\n", Ok(BodyKind::Chunked)),
        ("Transfer-Encoding: chunked\r\nContent-Length: 1\r\n", framing),
        ("Content-Length: 1\r\nTransfer-Encoding: identity\r\n", framing),
        ("Transfer-Encoding: gzip, chunked\r\n", unsupported),
        ("Transfer-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n", unsupported),
        ("Transfer-Encoding: chunked, gzip\r\n", framing),
        ("Transfer-Encoding: chunked, chunked\r\n", framing),
        ("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n", framing),
        ("Transfer-Encoding: chunked,\r\n", framing),
        ("Transfer-Encoding: , chunked\r\n", framing),
        ("Transfer-Encoding: \r\n", framing),
        ("Transfer-Encoding: identity\r\n", framing),
        ("Transfer-Encoding: xchunked\r\n", framing),
        ("Transfer-Encoding: \"chunked\"\r\n", framing),
    ];
    for (fields, expected) in cases {
        assert_eq!(body_of("POST / HTTP/1.1", fields), expected, "{fields}");
    }
    assert_eq!(body_of("POST / HTTP/1.0", "Transfer-Encoding: chunked\r\n"), framing);
    assert_eq!(HeadError::UnsupportedCoding.status(), 501);
    assert_eq!(HeadError::Framing.status(), 400);
}

#[test]
fn connections_are_kept_or_closed_as_asked() {
    let cases = [
        ("HTTP/1.1", "", Connection::Implied),
        ("HTTP/1.1", "Connection: Close\r\n", Connection::Close),
        ("HTTP/1.1", "Connection: a\r\nConnection: b ,close\r\n", Connection::Close),
        ("HTTP/1.1", "Connection: enclosed\r\n", Connection::Implied),
        ("HTTP/1.0", "", Connection::Close),
        ("HTTP/1.0", "Connection: Keep-Alive\r\n", Connection::KeepAlive),
        ("HTTP/1.0", "Connection: keep-alive, close\r\n", Connection::Close),
    ];
    for (version, fields, expected) in cases {
        with_fields(&format!("GET / {version}"), fields, |head| {
            assert_eq!(head.connection(), expected, "{version} {fields}");
        });
    }
}

#[test]
fn upgrades_need_both_fields() {
    let cases = [
        ("Connection: Upgrade\r\nUpgrade: websocket\r\n", true),
        ("Connection: keep-alive, Upgrade\r\nUpgrade: WebSocket\r\n", true),
        ("Connection: upgrade\r\nUpgrade: h2c, websocket\r\n", true),
        ("Connection: upgrade\r\nUpgrade: h2c\r\n", false),
        ("Connection: keep-alive\r\nUpgrade: websocket\r\n", false),
        ("Upgrade: websocket\r\n", false),
        ("Connection: upgrade\r\n", false),
    ];
    for (fields, expected) in cases {
        let upgrade = |head: Head<'_>| head.is_upgrade("websocket");
        assert_eq!(with_fields("GET / HTTP/1.1", fields, upgrade), expected, "{fields}");
        assert!(!with_fields("GET / HTTP/1.0", fields, upgrade));
    }
}

#[test]
fn continue_is_expected_by_http_1_1_only() {
    let expects = |line| {
        with_fields(line, "Expect: 100-Continue\r\n", |head: Head<'_>| head.expects_continue())
    };
    assert!(expects("POST / HTTP/1.1"));
    assert!(!expects("POST / HTTP/1.0"));
}

proptest! {
    #[test]
    fn any_bytes_have_an_answer(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = parse(&bytes);
    }

    #[test]
    fn damaged_heads_have_an_answer(at in 0..BROWSER_POLL.len(), byte in any::<u8>()) {
        let mut bytes = BROWSER_POLL.to_vec();
        bytes[at] = byte;
        if let Ok(Some(head)) = parse(&bytes) {
            prop_assert!(head.len <= bytes.len());
            let _ = (head.body(), head.connection(), head.query.pairs().count());
        }
    }
}
