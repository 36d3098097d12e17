//! What one message costs in each codec.
//!
//! ```text
//! cargo bench --features bench-internals --bench codecs [-- <part of a name>]
//! ```
//!
//! The messages are those of a chat: a short text, a user's record, a page of history. Everything
//! in place is fed so that it can be run again on the same bytes (see `bench::masked_frame`).

use std::hint::black_box;

use bytes::Bytes;
use criterion::{BatchSize, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use serde::{Deserialize, Serialize};
use stentor::bench;

/// Payload lengths: a keystroke, a chat message, a record.
const LENGTHS: [usize; 3] = [16, 200, 1000];

/// Text of this many bytes.
fn text(len: usize) -> String {
    "the quick brown fox jumps over the lazy dog ".chars().cycle().take(len).collect()
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Message {
    id: u64,
    room: String,
    user: String,
    text: String,
    sent_at_ms: u64,
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

fn websocket(c: &mut Criterion) {
    let mut group = c.benchmark_group("websocket");
    for len in LENGTHS {
        let payload = text(len);
        group.throughput(Throughput::Bytes(len as u64));
        group.bench_function(BenchmarkId::new("decode", len), |b| {
            let mut frame = bench::masked_frame(payload.as_bytes(), [0; 4]);
            b.iter(|| bench::decode_frame(black_box(&mut frame)).expect("a whole frame"));
        });
        group.bench_function(BenchmarkId::new("unmask", len), |b| {
            let mut bytes = payload.clone().into_bytes();
            b.iter(|| bench::unmask(black_box(&mut bytes), black_box([1, 2, 3, 4])));
        });
        group.bench_function(BenchmarkId::new("encode", len), |b| {
            let mut out = Vec::new();
            b.iter(|| {
                out.clear();
                bench::encode_frame(&mut out, black_box(payload.as_bytes()));
                black_box(out.len())
            });
        });
    }
    group.finish();
}

fn engine_io(c: &mut Criterion) {
    let mut group = c.benchmark_group("engine_io");
    let packet = format!("42[\"chat\",\"{}\"]", text(100));
    for count in [1, 16] {
        let packets = vec![packet.as_bytes(); count];
        let mut body = Vec::new();
        bench::write_payload(&mut body, &packets);
        group.throughput(Throughput::Bytes(body.len() as u64));
        group.bench_function(BenchmarkId::new("write", count), |b| {
            let mut out = Vec::new();
            b.iter(|| {
                out.clear();
                bench::write_payload(&mut out, black_box(&packets));
                black_box(out.len())
            });
        });
        group.bench_function(BenchmarkId::new("split", count), |b| {
            b.iter(|| bench::split_payload(black_box(&mut body)).expect("a valid body"));
        });
    }
    let mut body = Vec::new();
    bench::write_binary_payload(&mut body, &[&[7; 1000]]);
    group.throughput(Throughput::Bytes(1000));
    group.bench_function("split/binary", |b| {
        let split = |body: &mut Vec<u8>| bench::split_payload(body).expect("a valid body");
        b.iter_batched_ref(|| body.clone(), split, BatchSize::SmallInput);
    });
    group.finish();
}

fn socket_io(c: &mut Criterion) {
    let mut group = c.benchmark_group("socket_io");
    let json = serde_json::to_string(&message()).expect("a record is JSON");
    let packets = [
        ("short", "2[\"chat\",\"hello\"]".to_owned()),
        ("record", format!("2/rooms,17[\"message\",{json}]")),
    ];
    for (name, packet) in &packets {
        group.bench_function(BenchmarkId::new("head", name), |b| {
            b.iter(|| bench::read_head(black_box(packet.as_bytes())).expect("an event"));
        });
    }
    let payload = format!("[\"message\",{json}]");
    group.bench_function("args/string", |b| {
        let payload = b"[\"chat\",\"hello\"]";
        b.iter(|| bench::read_args::<String>(black_box(payload), &[]).expect("a string"));
    });
    group.bench_function("args/record", |b| {
        let payload = payload.as_bytes();
        b.iter(|| bench::read_args::<Message>(black_box(payload), &[]).expect("a record"));
    });
    group.bench_function("args/binary", |b| {
        let payload = b"[\"file\",\"a.png\",{\"_placeholder\":true,\"num\":0}]";
        let attachments = [Bytes::from(vec![7; 1000])];
        b.iter(|| {
            bench::read_args::<(String, Bytes)>(black_box(payload), black_box(&attachments))
                .expect("a name and bytes")
        });
    });
    encode(&mut group);
    group.finish();
}

fn encode(group: &mut criterion::BenchmarkGroup<'_, criterion::measurement::WallTime>) {
    let record = message();
    let file = ("a.png", Bytes::from(vec![7; 1000]));
    let (mut out, mut attachments) = (Vec::new(), Vec::new());
    group.bench_function("encode/string", |b| {
        b.iter(|| {
            out.clear();
            bench::encode_event(&mut out, "chat", black_box("hello"), &mut attachments)
                .expect("a string");
            black_box(out.len())
        });
    });
    group.bench_function("encode/record", |b| {
        b.iter(|| {
            out.clear();
            bench::encode_event(&mut out, "message", black_box(&record), &mut attachments)
                .expect("a record");
            black_box(out.len())
        });
    });
    group.bench_function("encode/binary", |b| {
        b.iter(|| {
            out.clear();
            attachments.clear();
            bench::encode_event(&mut out, "file", black_box(&file), &mut attachments)
                .expect("a name and bytes");
            black_box((out.len(), attachments.len()))
        });
    });
    group.bench_function("frames/record", |b| {
        b.iter(|| bench::event_frames("message", black_box(&record)).expect("a record"));
    });
}

fn http(c: &mut Criterion) {
    let mut group = c.benchmark_group("http");
    let poll = "GET /socket.io/?EIO=4&transport=polling&t=abc123&sid=AAAAAAAAAAAAAAAAAAAA \
                HTTP/1.1\r\n\
                Host: chat.example\r\nUser-Agent: Mozilla/5.0 (X11; Linux x86_64)\r\n\
                Accept: */*\r\nAccept-Encoding: gzip, deflate, br\r\nAccept-Language: en\r\n\
                Origin: https://chat.example\r\nReferer: https://chat.example/\r\n\
                Cookie: session=0123456789abcdef\r\nConnection: keep-alive\r\n\r\n";
    let upgrade = "GET /socket.io/?EIO=4&transport=websocket HTTP/1.1\r\nHost: chat.example\r\n\
                   Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n\
                   Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    for (name, head) in [("poll", poll), ("upgrade", upgrade)] {
        group.throughput(Throughput::Bytes(head.len() as u64));
        group.bench_function(BenchmarkId::new("head", name), |b| {
            b.iter(|| bench::parse_request(black_box(head.as_bytes())).expect("a whole head"));
        });
    }
    group.finish();
}

criterion_group!(codecs, websocket, engine_io, socket_io, http);
criterion_main!(codecs);
