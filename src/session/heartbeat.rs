//! Engine.IO 4 heartbeat: the server pings, only a pong counts.
//!
//! ```text
//!            interval passes: PING           timeout passes: dead
//!   Resting ─────────────────────▶ Waiting ──────────────────────▶ (Timeout)
//!      ▲                              │
//!      └────────────── pong ──────────┘   the interval restarts at the pong
//! ```

/// See the module's text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Heartbeat {
    /// The next ping is due at this time.
    Resting { ping_at_ms: u64 },
    /// A pong must come before this time.
    Waiting { until_ms: u64 },
}

/// What a deadline that was looked at asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Beat {
    /// Nothing yet; look again at [`Heartbeat::deadline_ms`].
    Later,
    SendPing,
    Timeout,
}

impl Heartbeat {
    pub(crate) fn opened(now_ms: u64, interval_ms: u64) -> Self {
        Self::Resting { ping_at_ms: now_ms + interval_ms }
    }

    pub(crate) fn deadline_ms(self) -> u64 {
        match self {
            Self::Resting { ping_at_ms } => ping_at_ms,
            Self::Waiting { until_ms } => until_ms,
        }
    }

    /// A pong came, asked for or not.
    pub(crate) fn pong(&mut self, now_ms: u64, interval_ms: u64) {
        *self = Self::opened(now_ms, interval_ms);
    }

    /// Time passed.
    pub(crate) fn beat(&mut self, now_ms: u64, timeout_ms: u64) -> Beat {
        if now_ms < self.deadline_ms() {
            return Beat::Later;
        }
        match self {
            Self::Resting { .. } => {
                *self = Self::Waiting { until_ms: now_ms + timeout_ms };
                Beat::SendPing
            }
            Self::Waiting { .. } => Beat::Timeout,
        }
    }
}
