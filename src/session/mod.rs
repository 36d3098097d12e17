//! The Engine.IO machine of one session: heartbeat, transports, upgrade, outbox.
//!
//! Bytes and `now` go in, values come out. It knows no namespace, no descriptor and no clock; a
//! link is an opaque key to it.
//!
//! Tests: `session/tests.rs`.

mod close;
mod heartbeat;
mod log;
mod outbox;
mod table;
mod upgrade;

#[cfg(test)]
mod tests;

pub use close::DisconnectReason;
pub(crate) use heartbeat::{Beat, Heartbeat};
pub(crate) use log::{Log, Range, Tail};
pub(crate) use outbox::Outbox;
pub(crate) use table::{Cold, LinkKey, Phase, SessionId, Sessions, Sid, Transport};
pub(crate) use upgrade::{Probe, Upgrade};
