//! Our mapping of arguments beside plain serde_json, sonic-rs and simd-json, on the same events.
//!
//! ```text
//! cargo bench --bench socket_io [-- <part of a name>]
//! ```
//!
//! `parse`: the array of an event becomes its arguments, and all of it was JSON in valid UTF-8. The
//! others skip the event's name by `IgnoredAny`. simd-json parses in place, so that the bytes are
//! copied for it first, and it keeps its buffers. `encode`: a packet at the end of a buffer, with
//! its type before the array; all of them write the same bytes.

use std::fmt::Debug;
use std::hint::black_box;
use std::time::Duration;

use bytes::Bytes;
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use serde::de::{DeserializeOwned, IgnoredAny};
use serde::{Deserialize, Serialize};
use stentor::{Value, bench};

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Record {
    id: u64,
    name: String,
    online: bool,
    score: f64,
}

fn record(id: u64) -> Record {
    Record { id: 1_000 + id, name: "ada".to_owned(), online: id.is_multiple_of(2), score: 0.5 }
}

fn text(len: usize) -> String {
    "the quick brown fox jumps over the lazy dog ".chars().cycle().take(len).collect()
}

fn escaped(len: usize) -> String {
    "\"a\"\tb\\c\n".chars().cycle().take(len).collect()
}

/// One event under all codecs: `Ours` are its arguments, `Theirs` the whole array.
fn event<Ours, Theirs>(c: &mut Criterion, name: &str, ours: &Ours, array: impl Serialize)
where
    Ours: Serialize + DeserializeOwned + PartialEq + Debug,
    Theirs: DeserializeOwned,
{
    let payload = serde_json::to_vec(&array).expect("JSON");
    let read = bench::read_args::<Ours>(&payload, &[]).expect("these arguments");
    assert!(read == *ours, "{name}: read as {read:?}");
    parse::<Ours, Theirs>(c, name, &payload);
    encode(c, name, ours, &array, &payload);
}

fn parse<Ours: DeserializeOwned, Theirs: DeserializeOwned>(
    c: &mut Criterion,
    name: &str,
    payload: &[u8],
) {
    let mut group = c.benchmark_group("parse");
    group.throughput(Throughput::Bytes(payload.len() as u64));
    group.bench_function(BenchmarkId::new("stentor", name), |b| {
        b.iter(|| bench::read_args::<Ours>(black_box(payload), &[]).expect("these arguments"));
    });
    group.bench_function(BenchmarkId::new("serde_json", name), |b| {
        b.iter(|| serde_json::from_slice::<Theirs>(black_box(payload)).expect("these arguments"));
    });
    group.bench_function(BenchmarkId::new("sonic-rs", name), |b| {
        b.iter(|| sonic_rs::from_slice::<Theirs>(black_box(payload)).expect("these arguments"));
    });
    group.bench_function(BenchmarkId::new("simd-json", name), |b| {
        let mut buffers = simd_json::Buffers::new(payload.len());
        let mut bytes = payload.to_vec();
        b.iter(|| {
            bytes.copy_from_slice(black_box(payload));
            simd_json::serde::from_slice_with_buffers::<Theirs>(&mut bytes, &mut buffers)
                .expect("these arguments")
        });
    });
    group.finish();
}

fn encode<Ours: Serialize>(
    c: &mut Criterion,
    name: &str,
    ours: &Ours,
    array: &impl Serialize,
    payload: &[u8],
) {
    let mut group = c.benchmark_group("encode");
    group.throughput(Throughput::Bytes(payload.len() as u64));
    let packet = [b"2", payload].concat();
    let mut out = Vec::new();
    group.bench_function(BenchmarkId::new("stentor", name), |b| {
        let mut attachments: Vec<Bytes> = Vec::new();
        b.iter(|| {
            out.clear();
            bench::encode_event(&mut out, EVENT, black_box(ours), &mut attachments).expect("JSON");
            black_box(out.len())
        });
        assert_eq!(out, packet);
    });
    group.bench_function(BenchmarkId::new("serde_json", name), |b| {
        b.iter(|| {
            out.clear();
            out.push(b'2');
            serde_json::to_writer(&mut out, black_box(array)).expect("JSON");
            black_box(out.len())
        });
        assert_eq!(out, packet);
    });
    group.bench_function(BenchmarkId::new("sonic-rs", name), |b| {
        b.iter(|| {
            out.clear();
            out.push(b'2');
            sonic_rs::to_writer(&mut out, black_box(array)).expect("JSON");
            black_box(out.len())
        });
        assert_eq!(out, packet);
    });
    group.bench_function(BenchmarkId::new("simd-json", name), |b| {
        b.iter(|| {
            out.clear();
            out.push(b'2');
            simd_json::serde::to_writer(&mut out, black_box(array)).expect("JSON");
            black_box(out.len())
        });
        assert_eq!(out, packet);
    });
    group.finish();
}

const EVENT: &str = "move";

fn typed(c: &mut Criterion) {
    event::<(i64, i64), (IgnoredAny, i64, i64)>(
        c,
        "tuple, 18 B",
        &(1234, 5678),
        (EVENT, 1234, 5678),
    );
    let one = record(7);
    event::<Record, (IgnoredAny, Record)>(c, "record, 60 B", &one, (EVENT, &one));
    let short = text(64);
    event::<String, (IgnoredAny, String)>(c, "text, 64 B", &short, (EVENT, &short));
    let long = text(4096);
    event::<String, (IgnoredAny, String)>(c, "text, 4 KiB", &long, (EVENT, &long));
    let escaped = escaped(2048);
    event::<String, (IgnoredAny, String)>(c, "escapes, 4 KiB", &escaped, (EVENT, &escaped));
    for (name, count) in [("records, 1 KiB", 20), ("records, 4 KiB", 80), ("records, 64 KiB", 1250)]
    {
        let records: Vec<Record> = (0..count).map(record).collect();
        event::<Vec<Record>, (IgnoredAny, Vec<Record>)>(c, name, &records, (EVENT, &records));
    }
}

/// Arguments of no type known beforehand, each library's own tree.
fn untyped(c: &mut Criterion) {
    let mut group = c.benchmark_group("parse");
    for (name, count) in [("any, 60 B", 1), ("any, 4 KiB", 80)] {
        let records: Vec<Record> = (0..count).map(record).collect();
        let payload = serde_json::to_vec(&(EVENT, &records)).expect("JSON");
        let payload = payload.as_slice();
        group.throughput(Throughput::Bytes(payload.len() as u64));
        group.bench_function(BenchmarkId::new("stentor", name), |b| {
            b.iter(|| bench::read_args::<Value>(black_box(payload), &[]).expect("JSON"));
        });
        group.bench_function(BenchmarkId::new("serde_json", name), |b| {
            b.iter(|| {
                serde_json::from_slice::<serde_json::Value>(black_box(payload)).expect("JSON")
            });
        });
        group.bench_function(BenchmarkId::new("sonic-rs", name), |b| {
            b.iter(|| sonic_rs::from_slice::<sonic_rs::Value>(black_box(payload)).expect("JSON"));
        });
        group.bench_function(BenchmarkId::new("simd-json", name), |b| {
            let mut buffers = simd_json::Buffers::new(payload.len());
            let mut bytes = payload.to_vec();
            b.iter(|| {
                bytes.copy_from_slice(black_box(payload));
                simd_json::to_owned_value_with_buffers(&mut bytes, &mut buffers).expect("JSON")
            });
        });
    }
    group.finish();
}

fn config() -> Criterion {
    Criterion::default()
        .sample_size(30)
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_millis(1200))
}

criterion_group!(name = socket_io; config = config(); targets = typed, untyped);
criterion_main!(socket_io);
