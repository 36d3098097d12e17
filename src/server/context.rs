//! Extractors: what a handler may ask for by naming it in its arguments.

use std::any::{Any, TypeId};
use std::cell::Cell;
use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use serde::de::DeserializeOwned;

use super::ack::Ack;
use super::error::BadPayload;
use super::socket::Socket;
use crate::DisconnectReason;
use crate::protocol::socket_io::{ArgsError, from_args, validate};
use crate::shard::SocketKey;

/// Marks handlers of events.
#[derive(Debug, Clone, Copy)]
pub struct Event;

/// Marks handlers and middlewares of connecting sockets.
#[derive(Debug, Clone, Copy)]
pub struct Connect;

/// Marks handlers of disconnecting and disconnected sockets.
#[derive(Debug, Clone, Copy)]
pub struct Disconnect;

/// Values of `ServerBuilder::state`, one per type.
#[derive(Default, Clone)]
pub(crate) struct States(HashMap<TypeId, Arc<dyn Any + Send + Sync>>);

impl States {
    pub(crate) fn insert<T: Clone + Send + Sync + 'static>(&mut self, value: T) {
        self.0.insert(TypeId::of::<T>(), Arc::new(value));
    }

    fn get<T: Clone + 'static>(&self) -> Option<T> {
        self.0.get(&TypeId::of::<T>())?.downcast_ref::<T>().cloned()
    }
}

impl fmt::Debug for States {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "States({})", self.0.len())
    }
}

/// What extractors are made of. Opaque: extractors of your own are built from the ones here.
pub struct Context<'c> {
    pub(crate) socket: &'c SocketKey,
    pub(crate) states: &'c States,
    pub(crate) name: &'c str,
    pub(crate) payload: &'c [u8],
    pub(crate) attachments: &'c [Bytes],
    /// The acknowledgement that the client asks for, until somebody takes it.
    pub(crate) ack: &'c Cell<Option<u64>>,
    pub(crate) reason: Option<DisconnectReason>,
    /// The payload is known to be valid.
    pub(crate) checked: Cell<bool>,
}

impl Context<'_> {
    /// Checks the payload unless an extractor has done so by reading it.
    pub(crate) fn check(&self) -> Result<(), Rejection> {
        if !self.checked.replace(true) && validate(self.payload).is_err() {
            return Err(Rejection::Invalid);
        }
        Ok(())
    }
}

impl fmt::Debug for Context<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Context").field("name", &self.name).finish_non_exhaustive()
    }
}

/// Why an extractor gave nothing.
#[derive(Debug)]
#[non_exhaustive]
pub enum Rejection {
    /// The payload is not of the type asked for: reaches `on_bad_payload`.
    BadPayload(BadPayload),
    /// The payload is not even valid: the session ends.
    Invalid,
    /// The handler asks for a [`State`] that `ServerBuilder::state` never got: a defect of the
    /// program. Reaches `on_error`.
    MissingState(&'static str),
}

/// Something that a handler of kind `K` ([`Event`], [`Connect`], [`Disconnect`]) can ask for.
///
/// ```
/// use stentor::{Context, Data, Event, FromContext, Rejection, Socket};
///
/// /// The text of a message with the id of its sender.
/// struct Said(String);
///
/// impl FromContext<Event> for Said {
///     fn from_context(context: &Context<'_>) -> Result<Self, Rejection> {
///         let socket = <Socket as FromContext<Event>>::from_context(context)?;
///         let Data(text) = Data::<String>::from_context(context)?;
///         Ok(Self(format!("{}: {text}", socket.id())))
///     }
/// }
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` is nothing a handler of kind `{K}` can ask for",
    label = "not an extractor here",
    note = "everywhere: `Socket`, `Auth<T>`, `State<T>`; of events: `Data<T>`, `Ack`, `EventName`; \
            of disconnects: `DisconnectReason`",
    note = "arguments of the event come as `Data<T>`, where `T` is `serde::de::DeserializeOwned`; \
            a value of your own comes as `State<T>`, where `T` is `Clone + Send + Sync + 'static`"
)]
pub trait FromContext<K>: Sized {
    /// Extracts the value.
    ///
    /// # Errors
    /// When the context does not hold what the type needs.
    fn from_context(context: &Context<'_>) -> Result<Self, Rejection>;
}

/// The arguments of an event, deserialised.
///
/// A tuple or an array takes the arguments one by one (`Data<(A, B)>`, `Data<[A; 2]>`), `()` none,
/// any other type, a `Vec` too, the first.
/// Missing trailing arguments are `None` for an `Option`; surplus ones are ignored. A leaf of type
/// [`bytes::Bytes`] takes a binary attachment. [`Args`](crate::Args) takes everything untyped,
/// [`RawJson`](crate::RawJson) the first argument's text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Data<T>(pub T);

impl<T: DeserializeOwned> FromContext<Event> for Data<T> {
    fn from_context(context: &Context<'_>) -> Result<Self, Rejection> {
        let read = from_args(context.payload, context.attachments, 1);
        if let Err(ArgsError::Syntax(_)) = read {
            return Err(Rejection::Invalid);
        }
        context.checked.set(true);
        read.map(Self).map_err(|error| Rejection::BadPayload(error.into()))
    }
}

/// The name of the event: for catch-all handlers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EventName(pub String);

impl FromContext<Event> for EventName {
    fn from_context(context: &Context<'_>) -> Result<Self, Rejection> {
        Ok(Self(context.name.to_owned()))
    }
}

/// What the client sent as `auth` with its CONNECT, deserialised. `Auth<Option<T>>` accepts a
/// client that sent none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Auth<T>(pub T);

impl<K, T: DeserializeOwned> FromContext<K> for Auth<T> {
    fn from_context(context: &Context<'_>) -> Result<Self, Rejection> {
        let auth = context.socket.auth.as_deref().unwrap_or("null");
        serde_json::from_str(auth)
            .map(Self)
            .map_err(|error| Rejection::BadPayload(BadPayload::new(format!("auth: {error}"))))
    }
}

/// A clone of a value given to `ServerBuilder::state`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct State<T>(pub T);

impl<K, T: Clone + Send + Sync + 'static> FromContext<K> for State<T> {
    fn from_context(context: &Context<'_>) -> Result<Self, Rejection> {
        let value = context.states.get();
        value.map(Self).ok_or(Rejection::MissingState(std::any::type_name::<T>()))
    }
}

impl<K> FromContext<K> for Socket {
    fn from_context(context: &Context<'_>) -> Result<Self, Rejection> {
        Ok(Self::new(context.socket.clone()))
    }
}

impl FromContext<Event> for Ack {
    fn from_context(context: &Context<'_>) -> Result<Self, Rejection> {
        Ok(Self::new(context.socket.clone(), context.ack.take()))
    }
}

impl FromContext<Disconnect> for DisconnectReason {
    fn from_context(context: &Context<'_>) -> Result<Self, Rejection> {
        Ok(context.reason.unwrap_or(Self::TransportClose))
    }
}
