//! Our WebSocket codec beside those of fastwebsockets and tungstenite, on the same bytes.
//!
//! ```text
//! cargo bench --bench websocket [-- <part of a name>]
//! ```
//!
//! `decode`: what one read of a socket brought becomes messages of valid UTF-8. Each codec gets the
//! bytes as it gets them from a socket, by one copy into the buffer that it reads from. `encode`:
//! payloads become frames at the end of a buffer. `unmask`: in place.

use std::future::Future;
use std::hint::black_box;
use std::io::{self, Read, Write};
use std::pin::{Pin, pin};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use fastwebsockets::{FragmentCollector, Frame, Payload};
use stentor::bench;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tungstenite::protocol::frame::Frame as TungsteniteFrame;
use tungstenite::protocol::frame::coding::{Data, OpCode};
use tungstenite::protocol::{Role, WebSocketConfig};
use tungstenite::{Message, WebSocket};

const KEY: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];
/// How many messages of how many bytes: a keystroke, a busy read, a record, a page.
const STREAMS: [(&str, usize, usize); 4] = [
    ("1 x 64 B", 1, 64),
    ("16 x 64 B", 16, 64),
    ("1 x 1 KiB", 1, 1 << 10),
    ("1 x 64 KiB", 1, 1 << 16),
];
const UNMASKED: [usize; 5] = [16, 64, 127, 1 << 10, 1 << 16];

fn text(len: usize) -> String {
    "the quick brown fox jumps over the lazy dog ".chars().cycle().take(len).collect()
}

/// A connection that always has the same bytes to read, and takes whatever is written.
#[derive(Debug, Clone)]
struct Wire {
    bytes: Vec<u8>,
    at: usize,
}

impl Read for Wire {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let rest = &self.bytes[self.at..];
        if rest.is_empty() {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let len = rest.len().min(buffer.len());
        buffer[..len].copy_from_slice(&rest[..len]);
        self.at += len;
        Ok(len)
    }
}

impl Write for Wire {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// For fastwebsockets, which is not told beforehand that there is no more: it reads again from the
/// start.
struct Endless(Wire);

impl AsyncRead for Endless {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let wire = &mut self.0;
        if wire.at == wire.bytes.len() {
            wire.at = 0;
        }
        let len = (wire.bytes.len() - wire.at).min(buffer.remaining());
        buffer.put_slice(&wire.bytes[wire.at..][..len]);
        wire.at += len;
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Endless {
    fn poll_write(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// The value of a future that never has to wait.
fn now<T>(future: impl Future<Output = T>) -> T {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(value) => value,
        Poll::Pending => panic!("nothing here makes anybody wait"),
    }
}

fn decode(c: &mut Criterion) {
    let mut group = c.benchmark_group("decode");
    for (name, count, len) in STREAMS {
        let text = text(len);
        let stream = bench::masked_frame(text.as_bytes(), KEY).repeat(count);
        let wire = Wire { bytes: stream.clone(), at: 0 };
        group.throughput(Throughput::Elements(count as u64));
        let wanted = count * len;

        group.bench_function(BenchmarkId::new("stentor", name), |b| {
            let (mut reader, mut buffer) = (bench::Reader::default(), vec![0; stream.len()]);
            b.iter(|| {
                buffer.copy_from_slice(black_box(&stream));
                let mut read = 0;
                let used = reader.read(&mut buffer, |text| read += black_box(text).len());
                assert_eq!((used, read), (Some(stream.len()), wanted));
            });
            assert!(buffer.ends_with(text.as_bytes()));
        });
        group.bench_function(BenchmarkId::new("fastwebsockets", name), |b| {
            let role = fastwebsockets::Role::Server;
            let socket = fastwebsockets::WebSocket::after_handshake(Endless(wire.clone()), role);
            let mut socket = FragmentCollector::new(socket);
            b.iter(|| {
                let mut read = 0;
                for _ in 0..count {
                    let frame = now(socket.read_frame()).expect("a valid frame");
                    read += black_box(&frame.payload[..]).len();
                }
                assert_eq!(read, wanted);
            });
            let frame = now(socket.read_frame()).expect("a valid frame");
            assert!(frame.payload == text.as_bytes());
        });
        group.bench_function(BenchmarkId::new("tungstenite", name), |b| {
            let mut socket = WebSocket::from_raw_socket(wire.clone(), Role::Server, None);
            b.iter(|| {
                socket.get_mut().at = 0;
                let mut read = 0;
                for _ in 0..count {
                    let message = socket.read().expect("a valid frame");
                    read += black_box(message.to_text().expect("a text")).len();
                }
                assert_eq!(read, wanted);
            });
            socket.get_mut().at = 0;
            assert_eq!(socket.read().expect("a valid frame"), Message::text(text.as_str()));
        });
    }
    group.finish();
}

fn encode(c: &mut Criterion) {
    let mut group = c.benchmark_group("encode");
    for (name, count, len) in STREAMS {
        let text = text(len);
        let payload = text.as_bytes();
        let mut wanted = Vec::new();
        (0..count).for_each(|_| bench::encode_frame(&mut wanted, payload));
        group.throughput(Throughput::Elements(count as u64));

        group.bench_function(BenchmarkId::new("stentor", name), |b| {
            let mut out = Vec::new();
            b.iter(|| {
                out.clear();
                (0..count).for_each(|_| bench::encode_frame(&mut out, black_box(payload)));
                black_box(out.len())
            });
            assert!(out == wanted);
        });
        // It writes a frame to the front of a buffer, so several are put side by side.
        group.bench_function(BenchmarkId::new("fastwebsockets", name), |b| {
            let (mut out, mut one) = (Vec::new(), Vec::new());
            b.iter(|| {
                out.clear();
                for _ in 0..count {
                    let mut frame = Frame::text(Payload::Borrowed(black_box(payload)));
                    if count == 1 {
                        black_box(frame.write(&mut out).len());
                    } else {
                        out.extend_from_slice(frame.write(&mut one));
                    }
                }
                black_box(out.len())
            });
            assert!(out.starts_with(&wanted));
        });
        // The payload is its own kind of shared bytes, which a broadcast would clone.
        group.bench_function(BenchmarkId::new("tungstenite", name), |b| {
            let shared = tungstenite::Bytes::copy_from_slice(payload);
            let mut out = Vec::new();
            b.iter(|| {
                out.clear();
                for _ in 0..count {
                    let payload = black_box(&shared).clone();
                    let frame = TungsteniteFrame::message(payload, OpCode::Data(Data::Text), true);
                    frame.format(&mut out).expect("a buffer takes all");
                }
                black_box(out.len())
            });
            assert!(out == wanted);
        });
        // As its users have it: by a socket, which flushes into a stream.
        group.bench_function(BenchmarkId::new("tungstenite, socket", name), |b| {
            let wire = Wire { bytes: Vec::new(), at: 0 };
            let config = WebSocketConfig::default();
            let mut socket = WebSocket::from_raw_socket(wire, Role::Server, Some(config));
            let message = Message::text(text.as_str());
            b.iter(|| {
                for _ in 0..count {
                    socket.write(black_box(&message).clone()).expect("a valid message");
                }
                socket.flush().expect("a stream that takes all");
            });
        });
    }
    group.finish();
}

type Unmask = fn(&mut [u8], [u8; 4]);

fn naive(payload: &mut [u8], key: [u8; 4]) {
    for (index, byte) in payload.iter_mut().enumerate() {
        *byte ^= key[index % 4];
    }
}

fn unmask(c: &mut Criterion) {
    let mut group = c.benchmark_group("unmask");
    let codecs: [(&str, Unmask); 3] =
        [("stentor", bench::unmask), ("fastwebsockets", fastwebsockets::unmask), ("naive", naive)];
    for len in UNMASKED {
        group.throughput(Throughput::Bytes(len as u64));
        for (name, unmask) in codecs {
            group.bench_function(BenchmarkId::new(name, len), |b| {
                let mut bytes = text(len).into_bytes();
                let (mut once, mut wanted) = (bytes.clone(), bytes.clone());
                unmask(&mut once, KEY);
                naive(&mut wanted, KEY);
                assert!(once == wanted);
                b.iter(|| unmask(black_box(&mut bytes), black_box(KEY)));
            });
        }
    }
    group.finish();
}

fn config() -> Criterion {
    Criterion::default()
        .sample_size(30)
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_millis(1200))
}

criterion_group!(name = websocket; config = config(); targets = decode, encode, unmask);
criterion_main!(websocket);
