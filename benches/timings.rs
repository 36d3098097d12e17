//! How long each case takes, by criterion.
//!
//! ```text
//! cargo bench --features bench-internals --bench timings [-- <part of a name>]
//! ```
//!
//! What is measured stands in `cases/`; `instructions` counts the same. The figures of `fanout`
//! and `inbound` are of whole turns of the shard over the simulated network.

mod cases;

use std::hint::black_box;
use std::time::Duration;

use cases::{codecs, tables, turns};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};

macro_rules! timed {
    ($($group:ident { $($case:ident: $elements:literal => $make:expr;)* })*) => {
        fn all(c: &mut Criterion) {
            $(
                let mut group = c.benchmark_group(stringify!($group));
                $(
                    group.throughput(Throughput::Elements($elements));
                    group.bench_function(stringify!($case), |b| b.iter(black_box($make)));
                )*
                group.finish();
            )*
        }
    };
}

cases::every_case!(timed);

/// What valgrind would take too long for.
fn large(c: &mut Criterion) {
    let mut group = c.benchmark_group("fanout");
    for outstanding in [1, 16] {
        let mut case = turns::room(10_000, outstanding);
        group.throughput(Throughput::Elements(10_000 * outstanding as u64));
        group.bench_function(format!("room_10000_w{outstanding}"), |b| b.iter(&mut case));
    }
    group.finish();
}

/// Fifty cases in four minutes. Longer runs are no steadier: what moves a median is the machine.
fn brief() -> Criterion {
    Criterion::default()
        .warm_up_time(Duration::from_secs(1))
        .measurement_time(Duration::from_secs(3))
}

criterion_group!(name = benches; config = brief(); targets = all, large);
criterion_main!(benches);
