//! Socket.IO 5 packets, and the mapping between Rust values and the arguments of an event.
//!
//! ```text
//!  bytes of one text packet --decode_head--> PacketHead + payload --from_args--> T
//!                           `-> Assembler (binary packets wait here for their attachments)
//!  T --encode_event / encode_ack--> bytes of one text packet + attachments
//! ```
//!
//! Everything here is a function of slices: it knows no session, no socket table and no
//! Engine.IO framing. Whoever calls it decides what a [`PacketError`] does to the session; the
//! protocol says it ends.
//!
//! `packet` is the text grammar, `attachments` collects binary packets, `encode` and `decode`
//! are the serde mapping in each direction (the rule itself is told once, on [`Args`]), `tree`
//! is the deserializer used when attachments are involved, and `args`, `value` and
//! `raw_json` hold the types that users see. Each has its tests beside it, in `<module>/tests.rs`.

mod args;
mod attachments;
mod decode;
mod encode;
mod packet;
mod raw_json;
mod tree;
mod value;

pub use args::Args;
pub(crate) use attachments::{Assembler, Complete};
pub(crate) use decode::{ArgsError, from_args};
pub(crate) use encode::{EncodeError, encode_ack, encode_event};
pub(crate) use packet::{
    PacketError, PacketHead, PacketType, check_payload, connect_error, connect_reply, decode_head,
    disconnect, event_name, is_reserved, validate, write_prefix,
};
pub use raw_json::RawJson;
pub use value::Value;
