//! Engine.IO 4: packets, the payloads of long-polling, and the fixed texts of the protocol.
//!
//! Functions of slices that know neither HTTP nor WebSocket: how a packet travels is decided
//! above. A message's data is opaque here (Socket.IO is not known either).

pub(crate) mod error;
pub(crate) mod open;
pub(crate) mod packet;
pub(crate) mod payload;

pub(crate) use error::RequestError;
pub(crate) use open::Open;
pub(crate) use packet::{PacketType, decode_mut};
pub(crate) use payload::{PayloadPacket, PayloadWriter, split};
