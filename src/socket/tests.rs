//! Tests of the Socket.IO machine: `sockets` by example, `model` against a naive model, `acks`
//! both ways.

mod acks;
mod model;
mod sockets;
