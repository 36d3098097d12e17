//! Latencies: an HDR histogram in microseconds, and what is told of it.

use hdrhistogram::Histogram;
use serde::Serialize;

/// Counts of latencies from 1 us to an hour, three significant digits.
#[derive(Debug)]
pub(crate) struct Latency(Histogram<u64>);

/// What is told, in microseconds.
#[derive(Debug, Clone, Copy, Default, Serialize)]
pub(crate) struct Percentiles {
    pub(crate) p50_us: u64,
    pub(crate) p90_us: u64,
    pub(crate) p99_us: u64,
    pub(crate) p999_us: u64,
    pub(crate) max_us: u64,
}

const MOST_US: u64 = 3_600_000_000;

impl Default for Latency {
    fn default() -> Self {
        Self(Histogram::new_with_bounds(1, MOST_US, 3).expect("invariant: valid bounds"))
    }
}

impl Latency {
    #[inline]
    pub(crate) fn record(&mut self, nanoseconds: u64) {
        self.0.saturating_record((nanoseconds / 1_000).clamp(1, MOST_US));
    }

    pub(crate) fn add(&mut self, other: &Self) {
        self.0.add(&other.0).expect("invariant: equal bounds");
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn percentiles(&self) -> Percentiles {
        let at = |quantile| self.0.value_at_quantile(quantile);
        Percentiles {
            p50_us: at(0.5),
            p90_us: at(0.9),
            p99_us: at(0.99),
            p999_us: at(0.999),
            max_us: self.0.max(),
        }
    }

    /// Points of the curve for a plot: share of messages, latency in microseconds.
    pub(crate) fn curve(&self) -> Vec<(f64, u64)> {
        self.0
            .iter_quantiles(4)
            .map(|point| (point.quantile_iterated_to(), point.value_iterated_to()))
            .collect()
    }
}
