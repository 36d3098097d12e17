//! Latency percentiles as bars in a terminal.

use std::fmt::Write;

use super::Report;

const WIDTH: usize = 50;

/// One block of bars per histogram, on a logarithmic scale that all of them share.
pub(super) fn draw(report: &Report) -> String {
    let mut out = String::new();
    let most = report.latencies.iter().map(|latency| latency.percentiles.max_us).max();
    let top = (most.unwrap_or(1).max(2) as f64).ln();
    for latency in &report.latencies {
        let it = latency.percentiles;
        let _ = writeln!(out, "  {} (us, logarithmic)", latency.name);
        let rows = [
            ("p50", it.p50_us),
            ("p90", it.p90_us),
            ("p99", it.p99_us),
            ("p99.9", it.p999_us),
            ("max", it.max_us),
        ];
        for (name, value) in rows {
            let length = ((value.max(1) as f64).ln() / top * WIDTH as f64).round() as usize;
            let _ = writeln!(out, "  {name:>6} {:<WIDTH$} {value}", "█".repeat(length.max(1)));
        }
    }
    out
}
