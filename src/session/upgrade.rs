//! The upgrade from polling to WebSocket (protocol: probe, pong, upgrade).
//!
//! ```text
//!         candidate opens             2probe / 3probe            5
//!   None ────────────────▶ Probing ──────────────────▶ Probed ─────▶ the session moves
//!     ▲                       │                           │
//!     └─── anything else, its end, or the timeout closes the candidate only ───┘
//! ```
//!
//! A client that was answered `3probe` polls no more, so a session that ends in `Probed` keeps its
//! candidate: the rest is said there, or to a poll that comes all the same.

use super::LinkKey;

/// See the module's text. The candidate is a link that the session does not use yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Upgrade {
    #[default]
    None,
    Probing {
        link: LinkKey,
        until_ms: u64,
    },
    Probed {
        link: LinkKey,
        until_ms: u64,
    },
}

/// What a packet of the candidate means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Probe {
    /// Answer the probe; the polling side is to be released.
    Answer,
    /// The session moves to the candidate.
    Complete,
    /// Close the candidate; the session goes on over polling.
    Refuse,
}

impl Upgrade {
    pub(crate) fn link(self) -> Option<LinkKey> {
        match self {
            Self::None => None,
            Self::Probing { link, .. } | Self::Probed { link, .. } => Some(link),
        }
    }

    pub(crate) fn deadline_ms(self) -> Option<u64> {
        match self {
            Self::None => None,
            Self::Probing { until_ms, .. } | Self::Probed { until_ms, .. } => Some(until_ms),
        }
    }

    /// Ends by then at the latest.
    pub(crate) fn hurry(&mut self, by_ms: u64) {
        match self {
            Self::None => {}
            Self::Probing { until_ms, .. } | Self::Probed { until_ms, .. } => {
                *until_ms = by_ms.min(*until_ms);
            }
        }
    }

    /// Whether polls should be answered at once, so that the client can pause polling.
    pub(crate) fn is_probed(self) -> bool {
        matches!(self, Self::Probed { .. })
    }

    /// A text packet came on the candidate.
    pub(crate) fn packet(&mut self, text: &[u8]) -> Probe {
        match *self {
            Self::Probing { link, until_ms } if text == b"2probe" => {
                *self = Self::Probed { link, until_ms };
                Probe::Answer
            }
            Self::Probed { .. } if text == b"5" => {
                *self = Self::None;
                Probe::Complete
            }
            _ => {
                *self = Self::None;
                Probe::Refuse
            }
        }
    }
}
