//! Bytes <-> values, nothing else.
//!
//! Codecs are functions of slices. They know no clock, descriptor, task, lock or channel, and
//! they do not know each other: only [`crate::wire`] knows how Socket.IO nests in Engine.IO and
//! Engine.IO in WebSocket.

pub(crate) mod engine_io;
pub(crate) mod http;
pub(crate) mod id;
pub(crate) mod socket_io;
pub(crate) mod websocket;
