//! HTTP/1.1 end to end: long-polling, what is served beside it, and what must not get through.
//!
//! Requests are written by hand, because what matters here no HTTP client would send.

#[path = "support/raw.rs"]
mod raw;
#[path = "support/tools.rs"]
mod tools;

use std::io::Write;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Body;
use axum::extract::ws::{Message, WebSocketUpgrade};
use axum::extract::{ConnectInfo, DefaultBodyLimit};
use axum::routing::{any, get, post};
use raw::{
    Client, FIN, POLLING, PONG, Polling, Raw, TestServer, WEBSOCKET, frame, on_both_drivers, text,
    until, upgrade,
};
use stentor::{Args, Cors, Data, DriverKind, ServeClient, ServerBuilder, Socket};

const BODY_MAX: usize = 10_000;

fn with_echo(builder: ServerBuilder) -> ServerBuilder {
    builder.max_http_buffer_size(BODY_MAX).namespace("/", |ns| {
        ns.on("echo", |socket: Socket, Data(args): Data<Args>| socket.emit("echo", &args));
    })
}

const ECHO: &str = r#"42["echo",1]"#;

fn get_request(target: &str) -> String {
    format!("GET {target} HTTP/1.1\r\nHost: here\r\n\r\n")
}

// ---- connections ----

fn one_connection_serves_many_requests(driver: DriverKind) {
    let server = TestServer::start(driver, with_echo);
    let mut polling = Polling::connect(server.addr);
    for _ in 0..20 {
        polling.post(ECHO);
        assert_eq!(polling.poll(), ECHO);
    }
    assert_eq!(server.handle.connections(), 1);
}

fn pipelined_requests_are_answered_in_order(driver: DriverKind) {
    let server = TestServer::start(driver, with_echo);
    let mut polling = Polling::connect(server.addr);
    let target = polling.target().to_owned();
    let requests = [
        raw::post(&target, ECHO),
        get_request("/nowhere"),
        get_request(&target),
        raw::post(&target, r#"42["echo",2]"#),
        get_request("/socket.io/?EIO=4&transport=pigeon"),
        get_request(&target),
    ];
    polling.raw.send(requests.concat());
    assert_eq!(polling.raw.response().text(), "ok");
    assert_eq!(polling.raw.response().status, 404);
    assert_eq!(polling.raw.response().text(), ECHO);
    assert_eq!(polling.raw.response().text(), "ok");
    assert_eq!(polling.raw.response().text(), r#"{"code":0,"message":"Transport unknown"}"#);
    assert_eq!(polling.raw.response().text(), r#"42["echo",2]"#);
}

fn what_is_pipelined_behind_a_waiting_poll_waits_too(driver: DriverKind) {
    let server = TestServer::start(driver, with_echo);
    let mut polling = Polling::connect(server.addr);
    polling.raw.send([get_request(polling.target()), raw::post(polling.target(), ECHO)].concat());
    // The echo cannot be what ends the poll: its request stands behind it.
    assert!(polling.raw.is_silent_for(Duration::from_millis(50)));
    server.handle.emit("news", "now").expect("a live server");
    assert_eq!(polling.raw.response().text(), r#"42["news","now"]"#);
    assert_eq!(polling.raw.response().text(), "ok");
    assert_eq!(polling.poll(), ECHO);
}

fn requests_cut_at_any_place_are_served(driver: DriverKind) {
    let server = TestServer::start(driver, with_echo);
    let mut bystander = server.client();
    let mut polling = Polling::connect(server.addr);
    let target = polling.target();
    let bytes = format!(
        "POST {target} HTTP/1.1\r\nHost: here\r\nTransfer-Encoding: chunked\r\n\r\n\
         5;name=\"value\"\r\n42[\"e\r\n7\r\ncho\",1]\r\n0\r\nX-Trailer: yes\r\n\r\n{}",
        get_request(target)
    );
    for cut in 1..bytes.len() {
        polling.raw.send(&bytes[..cut]);
        // The shard has turned since the first part arrived.
        bystander.echoes();
        polling.raw.send(&bytes[cut..]);
        assert_eq!(polling.raw.response().text(), "ok", "cut at {cut}");
        assert_eq!(polling.raw.response().text(), ECHO, "cut at {cut}");
    }
}

fn a_client_that_ends_its_side_still_gets_its_answers(driver: DriverKind) {
    let server = TestServer::start(driver, with_echo);
    let mut raw = server.raw();
    raw.send([get_request("/one"), get_request("/two")].concat());
    raw.half_close();
    assert_eq!(raw.response().status, 404);
    assert_eq!(raw.response().status, 404);
    assert!(raw.ends());
}

fn http_1_0_is_answered_and_closed(driver: DriverKind) {
    let server = TestServer::start(driver, with_echo);
    let mut raw = server.raw();
    raw.send("GET /nowhere HTTP/1.0\r\n\r\n");
    let answer = raw.response();
    assert_eq!(answer.status, 404);
    assert!(raw.ends());

    let mut raw = server.raw();
    raw.send("GET /nowhere HTTP/1.0\r\nConnection: keep-alive\r\n\r\n");
    let answer = raw.response();
    assert_eq!(answer.field("connection").map(str::to_ascii_lowercase), Some("keep-alive".into()));
    assert_eq!(raw.get("/nowhere").status, 404);
}

fn connection_close_is_honoured(driver: DriverKind) {
    let server = TestServer::start(driver, with_echo);
    let mut raw = server.raw();
    raw.send("GET /nowhere HTTP/1.1\r\nHost: here\r\nConnection: close\r\n\r\n");
    assert!(raw.response().is_last());
    assert!(raw.ends());
}

fn connections_beyond_the_limit_get_503(driver: DriverKind) {
    let server = TestServer::start(driver, |builder| with_echo(builder).max_connections(3));
    let mut clients: Vec<Client> = (0..3).map(|_| server.client()).collect();
    let mut fourth = server.raw();
    assert_eq!(fourth.response().status, 503);
    assert!(fourth.ends());
    drop(fourth);
    clients.iter_mut().for_each(Client::echoes);
    // Room is made by whoever leaves.
    drop(clients.pop());
    until("a place is free", || server.handle.connections() == 2);
    server.client().echoes();
}

// ---- bodies ----

fn bodies_beyond_the_limit_get_413_and_the_session_stays(driver: DriverKind) {
    let server = TestServer::start(driver, with_echo);
    let mut polling = Polling::connect(server.addr);
    let target = polling.target().to_owned();
    let sized =
        format!("POST {target} HTTP/1.1\r\nHost: here\r\nContent-Length: {}\r\n\r\n", BODY_MAX + 1);
    let chunk = format!("{:x}\r\n{}\r\n", BODY_MAX, "4".repeat(BODY_MAX));
    let chunked = format!(
        "POST {target} HTTP/1.1\r\nHost: here\r\nTransfer-Encoding: chunked\r\n\r\n{chunk}{chunk}"
    );
    for request in [sized, chunked] {
        let mut raw = server.raw();
        raw.send(request);
        let answer = raw.response();
        assert_eq!((answer.status, answer.text()), (413, ""));
        assert!(raw.ends());
    }
    polling.post(ECHO);
    assert_eq!(polling.poll(), ECHO);
}

fn a_body_of_the_limit_is_taken(driver: DriverKind) {
    let server = TestServer::start(driver, |builder| {
        with_echo(builder).http_compression(None).max_http_buffer_size(200_000)
    });
    let mut polling = Polling::connect(server.addr);
    let packet = format!(r#"42["echo","{}"]"#, "x".repeat(200_000 - r#"42["echo",""]"#.len()));
    polling.post(&packet);
    assert_eq!(polling.poll(), packet);
}

fn malformed_chunks_get_400_and_the_session_stays(driver: DriverKind) {
    let server = TestServer::start(driver, with_echo);
    let mut polling = Polling::connect(server.addr);
    for body in ["zz\r\n", "-1\r\n", "5\n42[\"e", "3\r\n40\x1eXX", "11111111111111111\r\n", "\r\n"]
    {
        let mut raw = server.raw();
        raw.send(format!(
            "POST {} HTTP/1.1\r\nHost: here\r\nTransfer-Encoding: chunked\r\n\r\n{body}\r\n{}",
            polling.target(),
            get_request("/smuggled")
        ));
        assert_eq!(raw.response().status, 400, "{body:?}");
        assert!(raw.ends(), "{body:?}");
    }
    polling.post(ECHO);
    assert_eq!(polling.poll(), ECHO);
}

fn a_client_that_expects_100_hears_it_before_its_body(driver: DriverKind) {
    let server = TestServer::start(driver, with_echo);
    let mut polling = Polling::connect(server.addr);
    let head = |len: usize| {
        let target = polling.target();
        format!(
            "POST {target} HTTP/1.1\r\nHost: here\r\nContent-Length: {len}\r\n\
             Expect: 100-continue\r\n\r\n"
        )
    };
    let (good, too_large) = (head(ECHO.len()), head(BODY_MAX + 1));
    let mut raw = server.raw();
    raw.send(good);
    assert_eq!(raw.response().status, 100);
    raw.send(ECHO);
    assert_eq!(raw.response().text(), "ok");
    // Nobody is invited to send what will not be read.
    raw.send(too_large);
    assert_eq!(raw.response().status, 413);
    assert!(raw.ends());
    assert_eq!(polling.poll(), ECHO);
}

// ---- hostile heads ----

fn heads_that_are_too_long_get_431(driver: DriverKind) {
    let server = TestServer::start(driver, |builder| with_echo(builder).max_head_size(2_000));
    let endless = format!("GET /{} ", "x".repeat(3_000));
    let whole = format!("GET / HTTP/1.1\r\nHost: here\r\nX: {}\r\n\r\n", "x".repeat(3_000));
    let many = format!("GET / HTTP/1.1\r\nHost: here\r\n{}\r\n", "X: 1\r\n".repeat(200));
    for request in [endless, whole, many] {
        let mut raw = server.raw();
        raw.send(request);
        assert_eq!(raw.response().status, 431);
        assert!(raw.ends());
    }
    server.client().echoes();
}

fn a_long_head_is_taken_where_the_limit_allows(driver: DriverKind) {
    let server = TestServer::start(driver, |builder| with_echo(builder).max_head_size(300_000));
    let mut raw = server.raw();
    raw.send(format!("GET / HTTP/1.1\r\nHost: here\r\nX: {}\r\n\r\n", "x".repeat(200_000)));
    assert_eq!(raw.response().status, 404);
}

fn ambiguous_requests_are_refused_and_nothing_behind_them_is_served(driver: DriverKind) {
    let server = TestServer::start(driver, with_echo);
    let polling = Polling::connect(server.addr);
    let fields: [(&str, u16); 17] = [
        ("Content-Length: 3\r\nTransfer-Encoding: chunked", 400),
        ("Transfer-Encoding: chunked\r\nContent-Length: 3", 400),
        ("Content-Length: 3\r\nContent-Length: 4", 400),
        ("Content-Length: 3, 4", 400),
        ("Content-Length: +3", 400),
        ("Content-Length: -3", 400),
        ("Content-Length: 0x3", 400),
        ("Content-Length: ", 400),
        ("Content-Length: 99999999999999999999999", 400),
        ("Content-Length : 3", 400),
        ("Transfer-Encoding: chunked, chunked", 400),
        ("Transfer-Encoding: chunked, identity", 400),
        ("Transfer-Encoding: xchunked", 400),
        ("Transfer-Encoding: gzip, chunked", 501),
        ("X: 1\r\n Folded: 2", 400),
        ("X: a\0b", 400),
        ("Host: elsewhere", 400),
    ];
    for (fields, status) in fields {
        let mut raw = server.raw();
        let target = polling.target();
        raw.send(format!(
            "POST {target} HTTP/1.1\r\nHost: here\r\n{fields}\r\n\r\n0\r\n\r\n{}",
            get_request("/smuggled")
        ));
        let answer = raw.response();
        assert_eq!(answer.status, status, "{fields:?}");
        assert!(raw.ends(), "{fields:?}: one answer and the end");
    }
}

fn malformed_request_lines_are_refused(driver: DriverKind) {
    let server = TestServer::start(driver, with_echo);
    for (request, status) in [
        ("GET / HTTP/1.1\r\n\r\n", 400),
        ("GET / HTTP/2.0\r\nHost: here\r\n\r\n", 505),
        ("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505),
        ("GET  / HTTP/1.1\r\nHost: here\r\n\r\n", 400),
        ("GET /\x01 HTTP/1.1\r\nHost: here\r\n\r\n", 400),
        ("\x16\x03\x01\x02\0\x01\0\x01\x7c\x03\x03\r\n\r\n", 400),
    ] {
        let mut raw = server.raw();
        raw.send(request);
        let got = raw.response().status;
        assert!(got == status || (status == 505 && got == 400), "{request:?}: {got}");
        assert!(raw.ends(), "{request:?}");
    }
    server.client().echoes();
}

fn a_body_that_nobody_reads_is_not_taken_for_a_request(driver: DriverKind) {
    let server = TestServer::start(driver, with_echo);
    let behind = get_request("/smuggled");
    for line in ["GET /nowhere", "POST /nowhere", "DELETE /nowhere", &format!("GET {POLLING}")] {
        let mut raw = server.raw();
        let len = behind.len();
        raw.send(format!("{line} HTTP/1.1\r\nHost: here\r\nContent-Length: {len}\r\n\r\n{behind}"));
        let first = raw.head();
        assert!(matches!(first.status, 200 | 400 | 404), "{line}: {first:?}");
        let rest = String::from_utf8(raw.rest()).expect("text");
        assert!(!rest.contains("HTTP/1.1"), "{line}: a second answer: {rest}");
    }
}

// ---- slow peers ----

fn hasty(builder: ServerBuilder) -> ServerBuilder {
    with_echo(builder)
        .head_timeout(Duration::from_millis(200))
        .body_timeout(Duration::from_millis(300))
        .keep_alive_timeout(Duration::from_millis(400))
}

/// Far beyond the deadlines of [`hasty`].
const LONG: Duration = Duration::from_secs(5);

/// Feeds bytes one by one until the server has had enough.
fn trickle(raw: &mut Raw, bytes: &[u8]) -> Duration {
    let started = Instant::now();
    for byte in bytes.iter().cycle() {
        let sent = raw.stream.write_all(&[*byte]).is_ok();
        let enough = started.elapsed() > LONG;
        if !sent || enough || !raw.is_silent_for(Duration::from_millis(20)) {
            break;
        }
    }
    started.elapsed()
}

fn a_head_that_trickles_in_ends_at_its_deadline(driver: DriverKind) {
    let server = TestServer::start(driver, hasty);
    let mut raw = server.raw();
    raw.send("GET / HTTP/1.1\r\n");
    let took = trickle(&mut raw, b"X: y\r\n");
    assert!(took < LONG, "{took:?}");
    assert_eq!(raw.response().status, 408);
    until("the link is gone", || server.handle.connections() == 0);
}

fn a_body_that_trickles_in_ends_at_its_deadline(driver: DriverKind) {
    let server = TestServer::start(driver, hasty);
    let mut polling = Polling::connect(server.addr);
    for framing in ["Content-Length: 5000", "Transfer-Encoding: chunked"] {
        let mut raw = server.raw();
        let target = polling.target();
        raw.send(format!("POST {target} HTTP/1.1\r\nHost: here\r\n{framing}\r\n\r\n"));
        let took = trickle(&mut raw, b"1\r\n4\r\n");
        assert!(took < LONG, "{took:?}");
        assert_eq!(raw.response().status, 408);
    }
    // The session is not to blame, and takes the next POST.
    let mut raw = server.raw();
    assert_eq!(raw.post(polling.target(), ECHO).text(), "ok");
    polling.raw = raw;
    assert_eq!(polling.poll(), ECHO);
}

fn connections_that_say_nothing_are_closed(driver: DriverKind) {
    let server = TestServer::start(driver, hasty);
    let mut silent = server.raw();
    let mut idle = server.raw();
    assert_eq!(idle.get("/nowhere").status, 404);
    assert!(silent.ends());
    assert!(idle.ends());
    until("the links are gone", || server.handle.connections() == 0);
}

fn a_waiting_poll_is_not_a_slow_client(driver: DriverKind) {
    let server = TestServer::start(driver, hasty);
    let mut polling = Polling::connect(server.addr);
    polling.begin_poll();
    assert!(polling.raw.is_silent_for(Duration::from_millis(800)));
    server.handle.emit("news", ()).expect("a live server");
    assert_eq!(polling.raw.response().text(), r#"42["news"]"#);
}

// ---- long-polling's own rules ----

fn a_second_poll_ends_the_session(driver: DriverKind) {
    let server = TestServer::start(driver, with_echo);
    let mut polling = Polling::connect(server.addr);
    polling.begin_poll();
    // Whichever of the two comes second is refused; the first is told that it is over.
    let mut second = server.raw();
    second.send(get_request(polling.target()));
    let (one, two) = (polling.raw.response(), second.response());
    let mut answers = [(one.status, one.text().to_owned()), (two.status, two.text().to_owned())];
    answers.sort();
    assert_eq!(answers, [(200, "1".to_owned()), (400, String::new())]);
    let gone = server.raw().get(polling.target());
    assert_eq!(gone.text(), r#"{"code":1,"message":"Session ID unknown"}"#);
}

fn a_second_post_ends_the_session(driver: DriverKind) {
    let server = TestServer::start(driver, with_echo);
    let polling = Polling::connect(server.addr);
    let mut first = server.raw();
    let target = polling.target();
    first.send(format!(
        "POST {target} HTTP/1.1\r\nHost: here\r\nContent-Length: 5\r\n\
         Expect: 100-continue\r\n\r\n"
    ));
    assert_eq!(first.response().status, 100);
    assert_eq!(server.raw().post(target, ECHO).status, 400);
    until("the session is gone", || server.handle.sessions() == 0);
}

fn a_post_of_octets_ends_the_session(driver: DriverKind) {
    let server = TestServer::start(driver, with_echo);
    let polling = Polling::connect(server.addr);
    let request = raw::post(polling.target(), "4")
        .replace("Host", "Content-Type: application/octet-stream\r\nHost");
    let mut raw = server.raw();
    raw.send(request);
    assert_eq!(raw.response().status, 400);
    until("the session is gone", || server.handle.sessions() == 0);
}

fn a_closed_poll_ends_the_session(driver: DriverKind) {
    let server = TestServer::start(driver, with_echo);
    let mut polling = Polling::connect(server.addr);
    polling.begin_poll();
    drop(polling);
    until("the session is gone", || server.handle.sessions() == 0);
}

// ---- what is not Socket.IO ----

fn without_a_router_other_paths_get_404(driver: DriverKind) {
    let server = TestServer::start(driver, with_echo);
    let mut raw = server.raw();
    for target in ["/", "/socket.i", "/favicon.ico", "*", "/%2e%2e/etc/passwd"] {
        assert_eq!(raw.get(target).status, 404, "{target}");
    }
}

fn a_head_request_gets_no_body(driver: DriverKind) {
    let server = TestServer::start(driver, with_echo);
    let mut raw = server.raw();
    for target in ["/nowhere", POLLING, "/socket.io/?transport=pigeon"] {
        raw.send(format!("HEAD {target} HTTP/1.1\r\nHost: here\r\n\r\n"));
        assert!(matches!(raw.head().status, 400 | 404), "{target}");
        // Were there a body, it would be taken for this response.
        assert_eq!(raw.get("/nowhere").status, 404, "{target}");
    }
}

async fn echo_socket(upgrade: WebSocketUpgrade) -> axum::response::Response {
    upgrade.on_upgrade(|mut socket| async move {
        while let Some(Ok(message)) = socket.recv().await {
            if let Message::Text(text) = message {
                let _ = socket.send(Message::Text(text)).await;
            }
        }
    })
}

fn with_router(builder: ServerBuilder) -> ServerBuilder {
    let router = Router::new()
        .route("/", get(async || "the page"))
        .route("/count", post(async |body: axum::body::Bytes| body.len().to_string()))
        .route("/stream", post(async |body: Body| body))
        .route("/peer", get(async |ConnectInfo(peer): ConnectInfo<SocketAddr>| peer.to_string()))
        .route("/ws", any(echo_socket))
        .route("/panic", get(async || panic!("of the page") as &'static str))
        .layer(DefaultBodyLimit::disable());
    with_echo(builder).fallback(router)
}

fn other_paths_go_to_the_router(driver: DriverKind) {
    let server = TestServer::start(driver, with_router);
    let mut raw = server.raw();
    assert_eq!(raw.get("/").text(), "the page");
    assert_eq!(raw.get("/nowhere").status, 404);
    assert_eq!(raw.get("/peer").text(), raw.stream.local_addr().expect("an address").to_string());
    assert_eq!(raw.get("/").text(), "the page");
}

fn the_router_takes_bodies_beyond_our_limit(driver: DriverKind) {
    let server = TestServer::start(driver, with_router);
    let body = "b".repeat(20 * BODY_MAX);
    assert_eq!(server.raw().post("/count", &body).text(), body.len().to_string());
}

fn the_router_streams(driver: DriverKind) {
    let server = TestServer::start(driver, with_router);
    let mut raw = server.raw();
    raw.send("POST /stream HTTP/1.1\r\nHost: here\r\nContent-Length: 10\r\n\r\nfirst");
    assert_eq!(raw.head().status, 200);
    assert_eq!(raw.take(5), b"first");
    raw.send("later");
    assert_eq!(raw.take(5), b"later");
    assert_eq!(raw.get("/").text(), "the page");
}

fn the_router_serves_its_own_websocket(driver: DriverKind) {
    let server = TestServer::start(driver, with_router);
    let mut raw = server.raw();
    // The first frame comes with the request, the bytes behind it are the router's too.
    raw.send([upgrade("/ws").into_bytes(), text("one")].concat());
    raw.expect_switch();
    assert_eq!(raw.text(), "one");
    raw.send(text("two"));
    assert_eq!(raw.text(), "two");
}

fn one_connection_gets_a_page_then_polls_then_upgrades(driver: DriverKind) {
    let server = TestServer::start(driver, with_router);
    let mut raw = server.raw();
    assert_eq!(raw.get("/").text(), "the page");
    let sid = raw::sid_of(raw.get(POLLING).text());
    let target = format!("{POLLING}&sid={sid}");
    assert_eq!(raw.post(&target, "40").text(), "ok");
    assert!(raw.get(&target).text().starts_with("40{"));
    assert_eq!(raw.get("/").text(), "the page");
    assert_eq!(raw.post(&target, ECHO).text(), "ok");
    assert_eq!(raw.get(&target).text(), ECHO);
    raw.send(upgrade(&target.replace("=polling", "=websocket")));
    raw.expect_switch();
    raw.send([text("2probe"), text("5"), text(ECHO)].concat());
    assert_eq!(raw.text(), "3probe");
    assert_eq!(raw.text(), ECHO);
    raw.send(frame(FIN | raw::PING, b"still"));
    assert_eq!(raw.frame().opcode, PONG);
    raw.send(frame(FIN | raw::CLOSE, b""));
    assert_eq!(raw.close_code(), 1000);
    until("the session is gone", || server.handle.sessions() == 0);
}

fn a_page_and_a_handshake_in_one_write_are_both_served(driver: DriverKind) {
    let server = TestServer::start(driver, with_router);
    let mut raw = server.raw();
    raw.send([get_request("/"), get_request(POLLING), get_request("/")].concat());
    assert_eq!(raw.response().text(), "the page");
    assert!(raw.response().text().starts_with("0{"));
    assert_eq!(raw.response().text(), "the page");
    let mut raw = server.raw();
    raw.send([get_request(POLLING), get_request("/")].concat());
    assert!(raw.response().text().starts_with("0{"));
    assert_eq!(raw.response().text(), "the page");
}

fn the_connection_of_a_page_may_become_a_websocket(driver: DriverKind) {
    let server = TestServer::start(driver, with_router);
    let mut raw = server.raw();
    assert_eq!(raw.get("/").text(), "the page");
    Client::connect_over(raw, WEBSOCKET, "").echoes();
}

fn a_head_that_trickles_in_behind_a_page_ends_at_its_deadline(driver: DriverKind) {
    let server = TestServer::start(driver, |builder| with_router(hasty(builder)));
    let mut raw = server.raw();
    assert_eq!(raw.get("/").text(), "the page");
    raw.send("GET / HTTP/1.1\r\n");
    let took = trickle(&mut raw, b"X: y\r\n");
    assert!(took < LONG, "{took:?}");
    raw.rest();
}

fn a_page_that_panics_ends_its_connection_only(driver: DriverKind) {
    let server = TestServer::start(driver, with_router);
    let mut bystander = server.client();
    let mut raw = server.raw();
    raw.send(get_request("/panic"));
    assert!(raw.ends());
    bystander.echoes();
    assert_eq!(server.raw().get("/").text(), "the page");
}

fn connections_of_the_router_count(driver: DriverKind) {
    let server = TestServer::start(driver, |builder| with_router(builder).max_connections(3));
    let pages: Vec<Raw> = (0..3)
        .map(|_| {
            let mut raw = server.raw();
            assert_eq!(raw.get("/").text(), "the page");
            raw
        })
        .collect();
    assert_eq!(server.handle.connections(), 3);
    assert_eq!(server.raw().response().status, 503);
    drop(pages);
    until("they are gone", || server.handle.connections() == 0);
    assert_eq!(server.raw().get("/").text(), "the page");
}

// ---- the client's files ----

/// A directory with what the official package's `dist` has, in short.
struct Dist(PathBuf);

impl Dist {
    fn new(name: &str, driver: DriverKind) -> Self {
        let unique = format!("stentor-{}-{name}-{driver:?}", std::process::id());
        let path = std::env::temp_dir().join(unique);
        std::fs::create_dir_all(&path).expect("a directory");
        std::fs::write(path.join("socket.io.min.js"), "/* client */").expect("a file");
        std::fs::write(path.join("socket.io.min.js.map"), "{}").expect("a file");
        std::fs::write(path.join("secret.txt"), "secret").expect("a file");
        Self(path)
    }
}

impl Drop for Dist {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn the_client_is_served_from_a_directory(driver: DriverKind) {
    let dist = Dist::new("dist", driver);
    let server = TestServer::start(driver, |builder| {
        with_echo(builder).serve_client(ServeClient::Directory(dist.0.clone()))
    });
    let mut raw = server.raw();
    let file = raw.get("/socket.io/socket.io.min.js");
    assert_eq!((file.status, file.text()), (200, "/* client */"));
    assert_eq!(file.field("content-type"), Some("application/javascript; charset=utf-8"));
    assert_eq!(file.field("cache-control"), Some("public, max-age=0"));
    let etag = file.field("etag").expect("an etag").to_owned();
    for known in [etag.clone(), format!("W/{etag}"), format!("\"other\", {etag}")] {
        raw.send(format!(
            "GET /socket.io/socket.io.min.js HTTP/1.1\r\nHost: here\r\nIf-None-Match: {known}\r\n\r\n"
        ));
        assert_eq!(raw.response().status, 304, "{known}");
    }
    raw.send("HEAD /socket.io/socket.io.min.js HTTP/1.1\r\nHost: here\r\n\r\n");
    let head = raw.head();
    assert_eq!((head.status, head.field("etag")), (200, Some(&*etag)));
    assert_eq!(head.field("content-length"), Some("12"), "that of the file");
    let map = raw.get("/socket.io/socket.io.min.js.map");
    assert_eq!(map.field("content-type"), Some("application/json; charset=utf-8"));
    // Known to the reference, not in the directory; and the other way round.
    assert_eq!(raw.get("/socket.io/socket.io.esm.min.js").status, 404);
    assert_eq!(raw.get("/socket.io/secret.txt").status, 400);
    assert_eq!(raw.get("/socket.io/../secret.txt").status, 400);
    assert_eq!(raw.post("/socket.io/socket.io.min.js", "").status, 405);
}

fn the_client_is_redirected_to_its_cdn(driver: DriverKind) {
    let server =
        TestServer::start(driver, |builder| with_echo(builder).serve_client(ServeClient::Cdn));
    let answer = server.raw().get("/socket.io/socket.io.min.js");
    assert_eq!(answer.status, 302);
    let location = answer.field("location").expect("a location");
    assert!(location.starts_with("https://cdn.socket.io/4."), "{location}");
    assert!(location.ends_with("/socket.io.min.js"), "{location}");
}

// ---- CORS ----

fn preflights_are_answered_for_allowed_origins(driver: DriverKind) {
    let server = TestServer::start(driver, |builder| {
        with_echo(builder).cors(Cors::origins(["https://ok.example"]).credentials(true))
    });
    let mut raw = server.raw();
    let mut ask = |method: &str, origin: &str| {
        raw.send(format!(
            "{method} {POLLING} HTTP/1.1\r\nHost: here\r\nOrigin: {origin}\r\n\
             Access-Control-Request-Method: POST\r\nAccess-Control-Request-Headers: x-token\r\n\r\n"
        ));
        raw.response()
    };
    let preflight = ask("OPTIONS", "https://ok.example");
    assert_eq!(preflight.status, 204);
    assert_eq!(preflight.field("access-control-allow-origin"), Some("https://ok.example"));
    assert_eq!(preflight.field("access-control-allow-credentials"), Some("true"));
    assert_eq!(preflight.field("access-control-allow-headers"), Some("x-token"));
    assert!(preflight.field("access-control-allow-methods").is_some_and(|m| m.contains("POST")));
    assert!(preflight.field("vary").is_some_and(|vary| vary.contains("Origin")));
    let evil = ask("OPTIONS", "https://evil.example");
    assert_eq!(evil.field("access-control-allow-origin"), None);
    let answer = ask("GET", "https://ok.example");
    assert_eq!(answer.status, 200);
    assert_eq!(answer.field("access-control-allow-origin"), Some("https://ok.example"));
}

on_both_drivers! {
    one_connection_serves_many_requests,
    pipelined_requests_are_answered_in_order,
    what_is_pipelined_behind_a_waiting_poll_waits_too,
    requests_cut_at_any_place_are_served,
    a_client_that_ends_its_side_still_gets_its_answers,
    http_1_0_is_answered_and_closed,
    connection_close_is_honoured,
    connections_beyond_the_limit_get_503,
    bodies_beyond_the_limit_get_413_and_the_session_stays,
    a_body_of_the_limit_is_taken,
    malformed_chunks_get_400_and_the_session_stays,
    a_client_that_expects_100_hears_it_before_its_body,
    heads_that_are_too_long_get_431,
    a_long_head_is_taken_where_the_limit_allows,
    ambiguous_requests_are_refused_and_nothing_behind_them_is_served,
    malformed_request_lines_are_refused,
    a_body_that_nobody_reads_is_not_taken_for_a_request,
    a_head_that_trickles_in_ends_at_its_deadline,
    a_body_that_trickles_in_ends_at_its_deadline,
    connections_that_say_nothing_are_closed,
    a_waiting_poll_is_not_a_slow_client,
    a_second_poll_ends_the_session,
    a_second_post_ends_the_session,
    a_post_of_octets_ends_the_session,
    a_closed_poll_ends_the_session,
    without_a_router_other_paths_get_404,
    a_head_request_gets_no_body,
    other_paths_go_to_the_router,
    the_router_takes_bodies_beyond_our_limit,
    the_router_streams,
    the_router_serves_its_own_websocket,
    one_connection_gets_a_page_then_polls_then_upgrades,
    a_page_and_a_handshake_in_one_write_are_both_served,
    the_connection_of_a_page_may_become_a_websocket,
    a_head_that_trickles_in_behind_a_page_ends_at_its_deadline,
    a_page_that_panics_ends_its_connection_only,
    connections_of_the_router_count,
    the_client_is_served_from_a_directory,
    the_client_is_redirected_to_its_cdn,
    preflights_are_answered_for_allowed_origins,
}
