//! RFC 6455, the server's side: bytes <-> frames <-> messages, and the opening handshake.
//!
//! ```text
//!   handshake   header values -> 101 response
//!   message     received bytes -> Event (whole messages, pings, pongs, close)
//!   frame       heads, masking, walking a buffer of frames
//!   close       close codes, what a peer can do wrong, the close frame
//!   client      the other role, as far as tests and the simulator need it
//! ```
//!
//! Nothing here keeps a connection's bytes (but for an open fragmented message), knows what a
//! message means, or decides when to answer. Compression (RFC 7692) is not negotiated here, so a
//! reserved bit is an error. Tests: `tests.rs`, `tests/properties.rs`.

pub(crate) mod client;
mod close;
mod frame;
mod handshake;
mod message;
#[cfg(test)]
mod tests;

pub(crate) use close::{CloseCode, ProtocolError, close_frame};
#[cfg(feature = "bench-internals")]
pub(crate) use frame::unmask;
pub(crate) use frame::{Frame, HEAD_BYTES_MAX, Opcode, frames, push_head, write_head};
pub(crate) use handshake::{HandshakeError, accept_key, check, write_response};
pub(crate) use message::{Decoder, Event, wanted};
