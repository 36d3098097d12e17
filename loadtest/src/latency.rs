//! Latencies: an HDR histogram in microseconds, and what is told of it.

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

/// Counts of latencies from 1 us to an hour, three significant digits. Between processes it
/// travels as its buckets, and nothing is lost on the way.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(from = "Vec<(u64, u64)>", into = "Vec<(u64, u64)>")]
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
        let counts = Histogram::new_with_bounds(1, MOST_US, 3);
        let mut counts = counts.expect("invariant: valid bounds");
        // All of its memory is written to, which otherwise would come with the first messages and
        // be taken for the clients'. The compiler would know that it is zero.
        std::hint::black_box(&mut counts).clear();
        Self(counts)
    }
}

impl From<Latency> for Vec<(u64, u64)> {
    fn from(latency: Latency) -> Self {
        let buckets = latency.0.iter_recorded();
        buckets.map(|it| (it.value_iterated_to(), it.count_since_last_iteration())).collect()
    }
}

impl From<Vec<(u64, u64)>> for Latency {
    fn from(buckets: Vec<(u64, u64)>) -> Self {
        let mut latency = Self::default();
        for (value_us, count) in buckets {
            latency.0.saturating_record_n(value_us.clamp(1, MOST_US), count);
        }
        latency
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

    /// Forgets everything, in place.
    pub(crate) fn clear(&mut self) {
        self.0.reset();
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_bring_a_histogram_over_whole() {
        let mut latency = Latency::default();
        for nanoseconds in [1, 999_000, 1_000_500, 77_777_777, u64::MAX] {
            latency.record(nanoseconds);
        }
        let text = serde_json::to_string(&latency).unwrap();
        let copy: Latency = serde_json::from_str(&text).unwrap();
        assert_eq!(copy.0, latency.0);
    }
}
