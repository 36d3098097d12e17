//! Whole servers in virtual time: random clients over an unkind network, one seed after the other,
//! against a model that knows who should have heard what.
//!
//! `STENTOR_SEED=n cargo test --test simulation` replays one seed, `STENTOR_TESTS_LONG=1` runs many
//! more. What is checked is listed at `Play::check`. What a seed does changes with every draw that
//! is added, so a defect that one has shown becomes a test of its own in `simulated_time.rs`.

#![allow(clippy::unwrap_used)] // a failed expectation is the verdict

mod model;
mod play;

use std::panic::catch_unwind;
use std::sync::atomic::{AtomicU64, Ordering};

use play::{Play, Report};

fn run(seed: u64) -> Report {
    let outcome = catch_unwind(|| {
        let report = Play::new(seed).run();
        if seed.is_multiple_of(8) {
            let again = Play::new(seed).run();
            assert_eq!(report.trace, again.trace, "the same seed gives the same trace");
        }
        report
    });
    outcome.unwrap_or_else(|_| panic!("seed {seed} fails: replay it with STENTOR_SEED={seed}"))
}

/// Runs the seeds `0..count` on all cores.
fn run_all(count: u64) -> Report {
    let next = AtomicU64::new(0);
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        let run_some = || {
            let mut total = Report::default();
            loop {
                let seed = next.fetch_add(1, Ordering::Relaxed);
                if seed >= count {
                    return total;
                }
                total.add(&run(seed));
            }
        };
        let threads: Vec<_> = (0..cores).map(|_| scope.spawn(run_some)).collect();
        let mut total = Report::default();
        for thread in threads {
            match thread.join() {
                Ok(report) => total.add(&report),
                Err(panic) => std::panic::resume_unwind(panic),
            }
        }
        total
    })
}

#[test]
fn every_seed_keeps_the_promises() {
    if let Ok(seed) = std::env::var("STENTOR_SEED") {
        run(seed.parse().expect("STENTOR_SEED is a number"));
        return;
    }
    let count = match std::env::var_os("STENTOR_TESTS_LONG") {
        Some(_) => 10_000,
        None => 500,
    };
    let total = run_all(count);
    // The seeds are worth something only if what they are about does happen.
    assert!(total.delivered > 100 * count, "{total:?}");
    assert!(total.connected > 5 * count, "{total:?}");
    assert!(total.answers > count, "{total:?}");
    assert!(total.overflowed > 0 && total.dropped > 0 && total.upgraded > 0, "{total:?}");
    assert!(total.reasons.len() >= 7, "{total:?}");
}
