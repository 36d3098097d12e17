//! The one monotonic clock of the kernel drivers.
//!
//! Every shard of a process reads the same origin, so that a deadline which travels with a
//! connection to another shard still means the same moment there.

use std::sync::OnceLock;
use std::time::Instant;

static ORIGIN: OnceLock<Instant> = OnceLock::new();

/// Milliseconds since the first call in this process.
pub(super) fn monotonic_ms() -> u64 {
    let elapsed = ORIGIN.get_or_init(Instant::now).elapsed();
    u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX)
}
