//! Errors: whose fault it is, and what to do next.

use std::fmt;
use std::io;

use crate::protocol::socket_io::{ArgsError, EncodeError};
use crate::shard::port::NoAnswer;

/// What [`Server`](crate::Server) functions return.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why a server could not be built or run; and, for handlers that end with `?`, why something
/// could not be sent.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The configuration contradicts itself or names something illegal. Correct it.
    #[error("configuration: {0}")]
    Config(String),
    /// The address could not be bound, or the machine refused something else.
    #[error("{what}: {source}")]
    Io {
        /// What was attempted.
        what: &'static str,
        /// What the system said.
        source: io::Error,
    },
    /// A shard's thread panicked: a defect of this library. The other shards went on.
    #[error("shard {0} panicked")]
    ShardPanicked(usize),
    /// An event could not be sent.
    #[error(transparent)]
    Emit(#[from] EmitError),
    /// An acknowledgement did not come.
    #[error(transparent)]
    Ack(#[from] AckError),
}

impl Error {
    pub(crate) fn io(what: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io { what, source }
    }
}

/// Why an event was not queued.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EmitError {
    /// The event's name is one of the protocol's own (`connect`, `disconnect`, ...). Choose
    /// another.
    #[error("the event name is reserved")]
    ReservedEventName,
    /// The arguments do not serialise to JSON.
    #[error("the arguments do not serialise: {0}")]
    Encode(#[source] serde_json::Error),
    /// The socket is no longer connected. Nothing was sent.
    #[error("the socket is disconnected")]
    Disconnected,
    /// The mailbox of one or more shards is full: the emitting threads outrun the shards. Those
    /// shards' sockets did not get the event; try again later or send less.
    #[error("a shard's mailbox is full")]
    MailboxFull,
}

impl From<EncodeError> for EmitError {
    fn from(error: EncodeError) -> Self {
        match error {
            EncodeError::ReservedEventName => Self::ReservedEventName,
            EncodeError::Json(error) => Self::Encode(error),
        }
    }
}

/// Why an acknowledgement did not come. Every wait ends with an answer or with one of these.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AckError {
    /// The client did not answer in time. It may still have got the event.
    #[error("operation has timed out")]
    Timeout,
    /// The client left before it answered.
    #[error("socket has been disconnected")]
    Disconnected,
    /// The socket owes too many answers already. Nothing was sent.
    #[error("too many acknowledgements are pending")]
    TooManyPending,
    /// The answer is not of the type asked for.
    #[error("the answer does not deserialise: {0}")]
    Decode(#[source] BadPayload),
    /// The event was never queued.
    #[error(transparent)]
    Emit(#[from] EmitError),
    /// The server shut down.
    #[error("the server is gone")]
    ServerGone,
}

impl From<NoAnswer> for AckError {
    fn from(error: NoAnswer) -> Self {
        match error {
            NoAnswer::Timeout => Self::Timeout,
            NoAnswer::Disconnected => Self::Disconnected,
            NoAnswer::TooManyPending => Self::TooManyPending,
        }
    }
}

/// A payload that is valid but not of the type a handler asks for: the client's fault.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct BadPayload(String);

impl BadPayload {
    /// A payload that an extractor of your own refuses, and why.
    #[must_use]
    pub fn new(why: impl Into<String>) -> Self {
        Self(why.into())
    }
}

impl From<ArgsError> for BadPayload {
    fn from(error: ArgsError) -> Self {
        Self(error.to_string())
    }
}

/// An error a handler ended with: anything that is a standard error, by `?`.
///
/// It reaches the namespace's `on_error` hook; a client that asked for an acknowledgement is told
/// that the handler failed, and no more. To tell the client more, return a `Result` whose error
/// type serialises.
pub struct HandlerError(BoxError);

/// What other libraries' fallible functions return.
pub(crate) type BoxError = Box<dyn std::error::Error + Send + Sync>;

impl HandlerError {
    /// Makes one of anything that becomes a boxed standard error, for `map_err`: of a `String`, or
    /// of an error type that is no standard error itself. What is one needs only `?`.
    #[must_use]
    pub fn new(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self(error.into())
    }

    /// The error that the handler returned.
    #[must_use]
    pub fn get_ref(&self) -> &(dyn std::error::Error + Send + Sync + 'static) {
        &*self.0
    }

    pub(crate) fn panicked(panic: &(dyn std::any::Any + Send)) -> Self {
        let text = panic
            .downcast_ref::<&str>()
            .map(|text| (*text).to_owned())
            .or_else(|| panic.downcast_ref::<String>().cloned());
        Self(format!("panicked: {}", text.unwrap_or_default()).into())
    }
}

impl<E: std::error::Error + Send + Sync + 'static> From<E> for HandlerError {
    fn from(error: E) -> Self {
        Self(Box::new(error))
    }
}

impl fmt::Debug for HandlerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for HandlerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
