//! Acknowledgements, both ways.

use std::fmt;
use std::future::{Future, IntoFuture};
use std::marker::PhantomData;
use std::pin::Pin;
use std::time::Duration;

use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::oneshot;

use super::broadcast::BroadcastOperator;
use super::error::{AckError, EmitError};
use super::handler::acknowledge;
use crate::protocol::socket_io::from_args;
use crate::shard::port::{Answer, Mail, ShardAnswers};
use crate::shard::{SocketKey, with_current};

/// A boxed future that any runtime may drive.
type SendFuture<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// The acknowledgement that a client asked for, to be sent whenever it is ready, from anywhere.
///
/// A handler that takes it decides itself: what the handler returns acknowledges nothing. Dropped
/// without [`send`](Self::send), the client is never answered.
pub struct Ack {
    socket: SocketKey,
    id: Option<u64>,
}

impl Ack {
    pub(crate) fn new(socket: SocketKey, id: Option<u64>) -> Self {
        Self { socket, id }
    }

    /// Whether the client asked to be acknowledged.
    #[must_use]
    pub fn is_wanted(&self) -> bool {
        self.id.is_some()
    }

    /// Acknowledges. A tuple or an array becomes several arguments, `()` none (see
    /// [`Args`](crate::Args)). Does nothing when the client did not ask.
    ///
    /// # Errors
    /// [`EmitError`].
    pub fn send(self, args: impl Serialize) -> Result<(), EmitError> {
        match self.id {
            Some(id) => acknowledge(&self.socket, id, &args),
            None => Ok(()),
        }
    }
}

impl fmt::Debug for Ack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ack").field("id", &self.id).finish_non_exhaustive()
    }
}

/// An event that asks one client for an acknowledgement; sent when awaited.
///
/// Dropping the future stops the wait, not the event.
///
/// It is no future itself but becomes one: by `.await`, or, for what wants futures, by
/// [`into_future`](IntoFuture::into_future), which sends the event at once.
///
/// ```
/// use std::future::IntoFuture;
///
/// use futures_util::future::join_all;
/// use stentor::{AckError, Socket};
///
/// async fn ages(sockets: &[Socket]) -> Vec<Result<u32, AckError>> {
///     let asked = sockets.iter().map(|socket| socket.emit_with_ack("age?", ()).into_future());
///     join_all(asked).await
/// }
/// ```
#[must_use = "the event is sent when the request is awaited"]
pub struct AckRequest<T> {
    socket: SocketKey,
    id: u64,
    frames: Result<Bytes, EmitError>,
    timeout_ms: u64,
    answer: PhantomData<fn() -> T>,
}

impl<T> AckRequest<T> {
    pub(crate) fn new(socket: SocketKey, id: u64, frames: Result<Bytes, EmitError>) -> Self {
        let timeout_ms = u64::from(socket.ack_timeout_ms);
        Self { socket, id, frames, timeout_ms, answer: PhantomData }
    }

    /// How long to wait. Default 10 s, or `ServerBuilder::ack_timeout`.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout_ms = millis(timeout);
        self
    }
}

pub(crate) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

impl<T> fmt::Debug for AckRequest<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AckRequest").field("id", &self.id).finish_non_exhaustive()
    }
}

impl<T: DeserializeOwned + 'static> IntoFuture for AckRequest<T> {
    type Output = Result<T, AckError>;
    type IntoFuture = SendFuture<Self::Output>;

    fn into_future(self) -> Self::IntoFuture {
        // Sent now, not at the first poll: what is emitted after this call comes after it.
        let answer = self.send();
        Box::pin(async move {
            let answer = answer?.await.map_err(|_| AckError::ServerGone)??;
            decode(&answer)
        })
    }
}

type AnswerReceiver = oneshot::Receiver<Result<Answer, crate::shard::port::NoAnswer>>;

impl<T> AckRequest<T> {
    fn send(self) -> Result<AnswerReceiver, AckError> {
        let frames = self.frames?;
        let (id, timeout_ms, socket) = (self.id, self.timeout_ms, self.socket.id);
        let (waiter, receiver) = oneshot::channel();
        let mut waiter = Some(waiter);
        let here = with_current(self.socket.port(), |core| {
            if let Some(waiter) = waiter.take() {
                core.emit_with_ack(socket, &frames, id, timeout_ms, waiter);
            }
        });
        if here.is_none()
            && let Some(waiter) = waiter
        {
            let mail = Mail::EmitWithAck { socket, frames, id, timeout_ms, waiter };
            self.socket.port().post(mail).map_err(|_| EmitError::MailboxFull)?;
        }
        Ok(receiver)
    }
}

fn decode<T: DeserializeOwned>(answer: &Answer) -> Result<T, AckError> {
    from_args(&answer.payload, &answer.attachments, 0)
        .map_err(|error| AckError::Decode(error.into()))
}

/// What a broadcast with acknowledgements came to.
#[derive(Debug)]
pub struct BroadcastAnswers<T> {
    /// The answers, in the order of their arrival on each shard.
    pub answers: Vec<T>,
    /// Clients that did not answer in time or left.
    pub missing: usize,
    /// Clients whose answer was not of type `T`.
    pub undecodable: usize,
}

impl<T> BroadcastAnswers<T> {
    /// Whether every client answered.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.missing == 0 && self.undecodable == 0
    }
}

/// An event that asks every recipient for an acknowledgement, under one id; sent when awaited.
#[must_use = "the event is sent when the request is awaited"]
pub struct BroadcastAckRequest<T> {
    operator: BroadcastOperator,
    id: u64,
    frames: Result<Bytes, EmitError>,
    answer: PhantomData<fn() -> T>,
}

impl<T> BroadcastAckRequest<T> {
    pub(crate) fn new(
        operator: BroadcastOperator,
        id: u64,
        frames: Result<Bytes, EmitError>,
    ) -> Self {
        Self { operator, id, frames, answer: PhantomData }
    }

    /// How long to wait for the last answer. Default 10 s, or `ServerBuilder::ack_timeout`.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.operator = self.operator.timeout(timeout);
        self
    }
}

impl<T> fmt::Debug for BroadcastAckRequest<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BroadcastAckRequest").field("id", &self.id).finish_non_exhaustive()
    }
}

impl<T: DeserializeOwned + Send + 'static> IntoFuture for BroadcastAckRequest<T> {
    type Output = Result<BroadcastAnswers<T>, AckError>;
    type IntoFuture = SendFuture<Self::Output>;

    fn into_future(self) -> Self::IntoFuture {
        let shards = self.frames.and_then(|frames| self.operator.send_with_ack(self.id, frames));
        Box::pin(async move {
            let mut total = BroadcastAnswers { answers: Vec::new(), missing: 0, undecodable: 0 };
            for shard in shards? {
                let ShardAnswers { answers, missing } =
                    shard.await.map_err(|_| AckError::ServerGone)?;
                total.missing += missing;
                for answer in &answers {
                    match decode(answer) {
                        Ok(answer) => total.answers.push(answer),
                        Err(_) => total.undecodable += 1,
                    }
                }
            }
            Ok(total)
        })
    }
}
