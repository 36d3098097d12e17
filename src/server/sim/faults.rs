//! [`Faults`]: the unkindness of the network, as users choose it.

use std::ops::RangeInclusive;
use std::time::Duration;

use crate::io::sim::SimFaults;

/// How unkind the simulated network is. Probabilities are from 0 to 1.
///
/// The order of the bytes of one direction of one connection is always kept; between connections
/// and directions there is none.
#[derive(Debug, Clone, PartialEq)]
pub struct Faults {
    /// How long a segment travels.
    pub delay: RangeInclusive<Duration>,
    /// A segment, or what one read yields, is cut at a random byte.
    pub split: f64,
    /// A send of the server takes a random part only.
    pub short_send: f64,
    /// A send of the server takes nothing.
    pub refused_send: f64,
    /// A segment, of either side, breaks its connection.
    pub reset: f64,
    /// Accepting fails for want of descriptors, and is tried again.
    pub accept_failure: f64,
    /// Bytes that one direction of a connection holds until they are read.
    pub window: usize,
}

impl Faults {
    /// No faults; a tenth of a millisecond wide.
    #[must_use]
    pub fn kind() -> Self {
        Self {
            delay: Duration::from_micros(100)..=Duration::from_micros(100),
            split: 0.0,
            short_send: 0.0,
            refused_send: 0.0,
            reset: 0.0,
            accept_failure: 0.0,
            window: 256 * 1024,
        }
    }

    /// Every fault there is, and little room.
    #[must_use]
    pub fn harsh() -> Self {
        Self {
            delay: Duration::ZERO..=Duration::from_millis(40),
            split: 0.3,
            short_send: 0.2,
            refused_send: 0.1,
            reset: 0.001,
            accept_failure: 0.05,
            window: 4 * 1024,
        }
    }

    /// The same, but no connection breaks by itself.
    #[must_use]
    pub fn without_resets(self) -> Self {
        Self { reset: 0.0, ..self }
    }
}

impl Default for Faults {
    fn default() -> Self {
        Self::kind()
    }
}

impl From<Faults> for SimFaults {
    fn from(faults: Faults) -> Self {
        let micros = |time: &Duration| u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        Self {
            delay_us: micros(faults.delay.start())..=micros(faults.delay.end()),
            split: faults.split,
            short_send: faults.short_send,
            refused_send: faults.refused_send,
            reset: faults.reset,
            accept_failure: faults.accept_failure,
            window: faults.window,
        }
    }
}
