//! The public face: what a user of the crate sees and nothing else.

mod ack;
mod app;
mod broadcast;
mod builder;
mod contain;
mod context;
mod engine;
mod error;
#[cfg(feature = "axum")]
mod fallback;
mod handle;
mod handler;
mod namespace;
mod refused;
mod running;
pub mod sim;
mod socket;

pub use ack::{Ack, AckRequest, BroadcastAckRequest, BroadcastAnswers};
pub use broadcast::{BroadcastOperator, Rooms};
pub use builder::{DriverKind, Server, ServerBuilder, Transport};
pub use context::{
    Auth, Connect, Context, Data, Disconnect, Event, EventName, FromContext, Rejection, State,
};
pub use engine::{EngineHandler, EngineSocket, Message};
pub use error::{AckError, BadPayload, EmitError, Error, HandlerError, Result};
pub use handle::{Handle, Shutdown};
pub use handler::{Handler, IntoReply, reply};
#[doc(hidden)]
pub use namespace::verdict;
pub use namespace::{AuthPayload, IntoVerdict, MiddlewareFn, Namespace};
pub use running::{Bound, Running};
pub use socket::{Socket, Volatile};
