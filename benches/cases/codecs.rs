//! One message in each codec. The messages are those of a chat: a short text, a user's record.
//!
//! What a codec changes in place is fed so that it can be run again on the same bytes: masked with
//! the key 0 (see `bench::masked_frame`), or copied anew. Input lies on the heap, where it is
//! aligned: a literal moves with every build, and the instructions that read it with it.

use std::hint::black_box;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use stentor::bench;

/// The poll of a browser.
pub(crate) const POLL: &str = "\
     GET /socket.io/?EIO=4&transport=polling&t=abc123&sid=AAAAAAAAAAAAAAAAAAAA HTTP/1.1\r\n\
     Host: chat.example\r\nUser-Agent: Mozilla/5.0 (X11; Linux x86_64)\r\n\
     Accept: */*\r\nAccept-Encoding: gzip, deflate, br\r\nAccept-Language: en\r\n\
     Origin: https://chat.example\r\nReferer: https://chat.example/\r\n\
     Cookie: session=0123456789abcdef\r\nConnection: keep-alive\r\n\r\n";

/// A request for a WebSocket.
pub(crate) const UPGRADE: &str = "\
     GET /socket.io/?EIO=4&transport=websocket HTTP/1.1\r\nHost: chat.example\r\n\
     Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n\
     Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Message {
    id: u64,
    room: String,
    user: String,
    text: String,
    sent_at_ms: u64,
}

/// Text of this many bytes.
fn text(len: usize) -> String {
    "the quick brown fox jumps over the lazy dog ".chars().cycle().take(len).collect()
}

fn message() -> Message {
    Message {
        id: 1_234_567,
        room: "lobby".to_owned(),
        user: "ada".to_owned(),
        text: text(120),
        sent_at_ms: 1_760_000_000_000,
    }
}

fn file() -> (String, Bytes) {
    ("a.png".to_owned(), Bytes::from(vec![7; 1000]))
}

// ---- WebSocket ----

pub(crate) fn decode(len: usize) -> impl FnMut() {
    let mut frame = bench::masked_frame(text(len).as_bytes(), [0; 4]);
    move || {
        black_box(bench::decode_frame(black_box(&mut frame)).expect("a whole frame"));
    }
}

pub(crate) fn unmask(len: usize) -> impl FnMut() {
    let mut bytes = text(len).into_bytes();
    move || bench::unmask(black_box(&mut bytes), black_box([1, 2, 3, 4]))
}

pub(crate) fn encode(len: usize) -> impl FnMut() {
    let payload = text(len);
    let mut out = Vec::new();
    move || {
        out.clear();
        bench::encode_frame(&mut out, black_box(payload.as_bytes()));
        black_box(out.len());
    }
}

// ---- Engine.IO ----

fn packet() -> String {
    format!("42[\"chat\",\"{}\"]", text(100))
}

pub(crate) fn write_payload(count: usize) -> impl FnMut() {
    let packet = packet();
    let mut out = Vec::new();
    move || {
        out.clear();
        bench::write_payload(&mut out, (0..count).map(|_| black_box(packet.as_bytes())));
        black_box(out.len());
    }
}

pub(crate) fn write_binary() -> impl FnMut() {
    let data = vec![7; 1000];
    let mut out = Vec::new();
    move || {
        out.clear();
        bench::write_binary_payload(&mut out, black_box(&data));
        black_box(out.len());
    }
}

pub(crate) fn split(count: usize) -> impl FnMut() {
    let packet = packet();
    let mut body = Vec::new();
    bench::write_payload(&mut body, (0..count).map(|_| packet.as_bytes()));
    move || {
        black_box(bench::split_payload(black_box(&mut body)).expect("a valid body"));
    }
}

/// base64 is read in place: a copy of the body is part of it.
pub(crate) fn split_binary() -> impl FnMut() {
    let mut body = Vec::new();
    bench::write_binary_payload(&mut body, &[7; 1000]);
    let mut scratch = body.clone();
    move || {
        scratch.copy_from_slice(black_box(&body));
        black_box(bench::split_payload(black_box(&mut scratch)).expect("a valid body"));
    }
}

// ---- Socket.IO ----

/// A short event.
pub(crate) fn short() -> String {
    "2[\"chat\",\"hello\"]".to_owned()
}

fn record_json() -> String {
    serde_json::to_string(&message()).expect("a record is JSON")
}

/// An event of a namespace, with the id of an acknowledgement.
pub(crate) fn record() -> String {
    format!("2/rooms,17[\"message\",{}]", record_json())
}

pub(crate) fn head(packet: String) -> impl FnMut() {
    move || {
        black_box(bench::read_head(black_box(packet.as_bytes())).expect("an event"));
    }
}

pub(crate) fn ack_head() -> impl FnMut() {
    let packet = "3/rooms,17[\"done\"]".to_owned();
    move || {
        black_box(bench::read_ack_head(black_box(packet.as_bytes())).expect("an answer"));
    }
}

pub(crate) fn args_string() -> impl FnMut() {
    let payload = b"[\"chat\",\"hello\"]".to_vec();
    move || {
        black_box(bench::read_args::<String>(black_box(&payload), &[]).expect("a string"));
    }
}

pub(crate) fn args_pair() -> impl FnMut() {
    let payload = b"[\"add\",123456,-17]".to_vec();
    move || {
        black_box(bench::read_args::<(i64, i64)>(black_box(&payload), &[]).expect("two numbers"));
    }
}

pub(crate) fn args_record() -> impl FnMut() {
    let payload = format!("[\"message\",{}]", record_json());
    move || {
        let payload = black_box(payload.as_bytes());
        black_box(bench::read_args::<Message>(payload, &[]).expect("a record"));
    }
}

pub(crate) fn args_binary() -> impl FnMut() {
    let attachments = [file().1];
    let payload = b"[\"file\",\"a.png\",{\"_placeholder\":true,\"num\":0}]".to_vec();
    move || {
        let read = bench::read_args::<(String, Bytes)>(black_box(&payload), &attachments);
        black_box(read.expect("a name and bytes"));
    }
}

/// An event, or without a name an acknowledgement, written again and again.
fn written<T: Serialize>(event: Option<&str>, args: T) -> impl FnMut() + use<T> {
    let event = event.map(str::to_owned);
    let (mut out, mut attachments) = (Vec::new(), Vec::new());
    move || {
        out.clear();
        attachments.clear();
        let written = match black_box(&event) {
            Some(event) => bench::encode_event(&mut out, event, &args, &mut attachments),
            None => bench::encode_ack(&mut out, 17, &args, &mut attachments),
        };
        written.expect("arguments that serialise");
        black_box((out.len(), attachments.len()));
    }
}

pub(crate) fn event_string() -> impl FnMut() {
    written(Some("chat"), "hello".to_owned())
}

pub(crate) fn event_record() -> impl FnMut() {
    written(Some("message"), message())
}

pub(crate) fn event_binary() -> impl FnMut() {
    written(Some("file"), file())
}

pub(crate) fn ack_number() -> impl FnMut() {
    written(None, 42)
}

pub(crate) fn ack_binary() -> impl FnMut() {
    written(None, file())
}

// ---- all of an emit but its queueing ----

pub(crate) fn frames_string() -> impl FnMut() {
    frames("chat", "hello".to_owned())
}

pub(crate) fn frames_record() -> impl FnMut() {
    frames("message", message())
}

pub(crate) fn frames_binary() -> impl FnMut() {
    frames("file", file())
}

fn frames<T: Serialize>(event: &str, args: T) -> impl FnMut() + use<T> {
    let event = event.to_owned();
    move || {
        let len = bench::event_frames(black_box(&event), black_box(&args));
        black_box(len.expect("arguments that serialise"));
    }
}

// ---- HTTP ----

pub(crate) fn request(head: &str) -> impl FnMut() + use<> {
    let head = head.to_owned();
    move || {
        black_box(bench::parse_request(black_box(head.as_bytes())).expect("a whole head"));
    }
}
