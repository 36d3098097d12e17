//! The Socket.IO machine: which socket is in which namespace and room, and who gets what.
//!
//! Pure tables: no clock, descriptor, task, lock or channel. It names a session by its slot only
//! and knows nothing of links, transports or bytes on their way out.
//!
//! Tests: `socket/tests.rs`.

pub(crate) mod acks;
pub(crate) mod table;
pub(crate) mod target;

#[cfg(test)]
mod tests;

pub(crate) use acks::{Acks, Answered, Expired, Finished};
pub(crate) use table::{SocketId, SocketState, Sockets};
pub(crate) use target::Target;
