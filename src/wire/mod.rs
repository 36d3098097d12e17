//! The nesting: Socket.IO inside Engine.IO inside WebSocket. The only module that knows it.
//!
//! Every outgoing message is written once, as complete server-side WebSocket frames. Long-polling
//! reads the same bytes: the payload of a text frame *is* the Engine.IO packet.
//!
//! Tests: `wire/tests.rs`.

mod encoder;
pub(crate) mod fixed;
mod groups;
mod polling;

#[cfg(test)]
mod tests;

pub(crate) use encoder::{Encoder, disconnect, with_encoder};
pub(crate) use groups::{Speaks, keep_undroppable, pinned_after};
pub(crate) use polling::write_payload;
