//! Handlers: plain or async functions whose arguments are extractors and whose return value
//! acknowledges.

use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use futures_util::FutureExt;
use serde::Serialize;

use super::contain::contained;
use super::context::{Context, FromContext, Rejection};
use super::error::{BadPayload, BoxError, EmitError, HandlerError};
use super::refused::refused;
use super::socket::Socket;
use crate::shard::SocketKey;
use crate::shard::app::{InvalidPayload, LocalFuture, Tasks};
use crate::wire;

/// What the hooks of a namespace look like.
type BadPayloadHook = Arc<dyn Fn(&Socket, &str, &BadPayload) + Send + Sync>;
type ErrorHook = Arc<dyn Fn(&Socket, &str, &HandlerError) + Send + Sync>;

/// Where a handler's failures go.
#[derive(Clone, Default)]
pub(crate) struct Hooks {
    pub(crate) bad_payload: Option<BadPayloadHook>,
    pub(crate) error: Option<ErrorHook>,
}

impl Hooks {
    fn bad_payload(&self, socket: &SocketKey, event: &str, error: &BadPayload) {
        match &self.bad_payload {
            Some(hook) => {
                contained("on_bad_payload", || hook(&Socket::new(socket.clone()), event, error));
            }
            None => tracing::warn!(target: "stentor::handler", event, %error, "bad payload"),
        }
    }

    pub(crate) fn error(&self, socket: &SocketKey, event: &str, error: &HandlerError) {
        match &self.error {
            Some(hook) => {
                contained("on_error", || hook(&Socket::new(socket.clone()), event, error));
            }
            None => tracing::error!(target: "stentor::handler", event, %error, "handler failed"),
        }
    }
}

/// To whom a handler's outcome goes.
#[derive(Clone, Copy)]
pub struct ReplyTo<'r> {
    socket: &'r SocketKey,
    hooks: &'r Hooks,
    event: &'r str,
    ack: Option<u64>,
}

/// A [`ReplyTo`] that waits for an async handler.
struct Waiting {
    socket: SocketKey,
    hooks: Hooks,
    event: String,
    ack: Option<u64>,
}

impl Waiting {
    fn as_ref(&self) -> ReplyTo<'_> {
        ReplyTo { socket: &self.socket, hooks: &self.hooks, event: &self.event, ack: self.ack }
    }
}

impl std::fmt::Debug for ReplyTo<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ReplyTo").field("event", &self.event).finish_non_exhaustive()
    }
}

/// The client is told that the handler failed, and no more.
const FAILED: &str = "handler failed";

#[derive(Serialize)]
struct Failure<'e> {
    error: &'e str,
}

/// Sends an acknowledgement; a socket that is gone needs none.
pub(crate) fn acknowledge<T: Serialize + ?Sized>(
    socket: &SocketKey,
    id: u64,
    args: &T,
) -> Result<(), EmitError> {
    wire::with_encoder(|encoder| {
        let frames = encoder.ack(&socket.namespace, id, args)?;
        super::socket::queue(socket, frames, false, crate::shard::core::Weight::Control)
    })
}

/// Markers that tell the kinds of return values apart. Never named by users.
pub mod reply {
    /// A value that serialises.
    #[derive(Debug)]
    pub struct Plain;
    /// A `Result` whose error is a standard error.
    #[derive(Debug)]
    pub struct Fallible;
    /// A `Result` whose error is a boxed standard error.
    #[derive(Debug)]
    pub struct Boxed;
    /// A future of one of the others.
    #[derive(Debug)]
    pub struct Async<M>(std::marker::PhantomData<M>);
}

/// Something a handler may return: a value that serialises (it acknowledges; a tuple or an array
/// becomes several arguments, `()` none), a `Result`, or a future of these.
///
/// An `Err` that serialises goes to the client that waits for an acknowledgement, and to `on_error`
/// when nobody waits. An `Err` that is a standard error, boxed or not, goes to `on_error`, and the
/// client learns only that the handler failed. An error that is both is ambiguous: return
/// `Result<T, HandlerError>`, which `?` makes of it, to keep it to yourself, or map it to a
/// `String` to tell the client.
///
/// `M` is found by the compiler.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is nothing a handler can return",
    label = "not an acknowledgement",
    note = "a handler returns a value that is `serde::Serialize + 'static`, a `Result` of one, or \
            a future of these",
    note = "the error of a `Result` is `Serialize` (the client is told), a standard error that is \
            `Send + Sync + 'static`, a `Box<dyn Error + Send + Sync>` or a `stentor::HandlerError`"
)]
pub trait IntoReply<M>: 'static {
    /// Acknowledges, or reports the failure.
    #[doc(hidden)]
    fn outcome(self, to: ReplyTo<'_>);

    /// Splits off the future, if this is one.
    #[doc(hidden)]
    fn into_future(self, to: ReplyTo<'_>) -> Option<LocalReply>
    where
        Self: Sized,
    {
        self.outcome(to);
        None
    }
}

/// An async handler at work.
#[doc(hidden)]
pub(crate) type LocalReply = LocalFuture<()>;

impl<T: Serialize + 'static> IntoReply<reply::Plain> for T {
    fn outcome(self, to: ReplyTo<'_>) {
        to.value(&self);
    }
}

impl<T, E> IntoReply<reply::Fallible> for Result<T, E>
where
    T: Serialize + 'static,
    E: Into<HandlerError> + 'static,
{
    fn outcome(self, to: ReplyTo<'_>) {
        match self {
            Ok(value) => to.value(&value),
            Err(error) => to.failed(&error.into()),
        }
    }
}

impl<T: Serialize + 'static> IntoReply<reply::Boxed> for Result<T, BoxError> {
    fn outcome(self, to: ReplyTo<'_>) {
        match self {
            Ok(value) => to.value(&value),
            Err(error) => to.failed(&HandlerError::new(error)),
        }
    }
}

impl<F, M> IntoReply<reply::Async<M>> for F
where
    F: Future + 'static,
    F::Output: IntoReply<M>,
{
    fn outcome(self, _to: ReplyTo<'_>) {}

    fn into_future(self, to: ReplyTo<'_>) -> Option<LocalReply> {
        let (socket, hooks) = (to.socket.clone(), to.hooks.clone());
        let waiting = Waiting { socket, hooks, event: to.event.to_owned(), ack: to.ack };
        Some(Box::pin(async move {
            let work = async { self.await.outcome(waiting.as_ref()) };
            if let Err(panic) = AssertUnwindSafe(work).catch_unwind().await {
                waiting.as_ref().failed(&HandlerError::panicked(&*panic));
            }
        }))
    }
}

impl ReplyTo<'_> {
    fn value<T: Serialize>(&self, value: &T) {
        let Some(id) = self.ack else {
            // Nobody is told, so an error among the values would be lost.
            if let Some(error) = refused(value) {
                self.hooks.error(self.socket, self.event, &error.into());
            }
            return;
        };
        match acknowledge(self.socket, id, value) {
            Ok(()) => {}
            Err(error @ EmitError::Encode(_)) => self.failed(&error.into()),
            Err(error) => {
                let event = self.event;
                tracing::debug!(target: "stentor::handler", event, %error, "no acknowledgement");
            }
        }
    }

    fn failed(&self, error: &HandlerError) {
        self.hooks.error(self.socket, self.event, error);
        if let Some(id) = self.ack {
            let _ = acknowledge(self.socket, id, &Failure { error: FAILED });
        }
    }
}

/// A function that handles something of kind `K`. Implemented for functions and closures, plain
/// or async, of up to eight extractors; `M` is found by the compiler.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is no handler here",
    label = "not a handler",
    note = "a handler is a function or closure, plain or async, that is `Fn + Send + Sync + \
            'static`, of up to eight arguments that all implement `FromContext`, and that returns \
            something that implements `IntoReply`",
    note = "an async closure that captures lends its captures to its future, which must be \
            'static: write `move |..| {{ let x = x.clone(); async move {{ .. }} }}`, or take \
            `State<Arc<T>>`",
    note = "a handler that never returns needs a type to return: `|| -> () {{ panic!() }}`",
    note = "an error that is both `Serialize` and a standard error is ambiguous: return \
            `Result<T, HandlerError>` or map it to a `String`"
)]
pub trait Handler<K, M>: Send + Sync + 'static {
    #[doc(hidden)]
    fn call(&self, context: &Context<'_>, to: ReplyTo<'_>)
    -> Result<Option<LocalReply>, Rejection>;
}

macro_rules! handler {
    ($($extractor:ident),*) => {
        impl<K, F, R, M, $($extractor,)*> Handler<K, (M, R, $($extractor,)*)> for F
        where
            F: Fn($($extractor),*) -> R + Send + Sync + 'static,
            R: IntoReply<M>,
            $($extractor: FromContext<K>,)*
        {
            #[allow(non_snake_case, unused_variables)]
            fn call(
                &self,
                context: &Context<'_>,
                mut to: ReplyTo<'_>,
            ) -> Result<Option<LocalReply>, Rejection> {
                $(let $extractor = $extractor::from_context(context)?;)*
                context.check()?;
                // An `Ack` among the extractors has taken the acknowledgement.
                to.ack = to.ack.and_then(|_| context.ack.get());
                let reply = self($($extractor),*).into_future(to);
                // Not before: should that have panicked, the client is told that it failed.
                if to.ack.is_some() {
                    context.ack.set(None);
                }
                Ok(reply)
            }
        }
    };
}

handler!();
handler!(A);
handler!(A, B);
handler!(A, B, C);
handler!(A, B, C, D);
handler!(A, B, C, D, E);
handler!(A, B, C, D, E, G);
handler!(A, B, C, D, E, G, H);
handler!(A, B, C, D, E, G, H, I);

/// A handler without its types.
pub(crate) type Erased =
    Arc<dyn Fn(&Context<'_>, ReplyTo<'_>) -> Result<Option<LocalReply>, Rejection> + Send + Sync>;

pub(crate) fn erase<K, M, H: Handler<K, M>>(handler: H) -> Erased {
    Arc::new(move |context, to| handler.call(context, to))
}

/// Calls a handler: its future is polled once at once, and left in `tasks` if it needs more.
/// `acknowledges`: what it returns answers the client.
pub(crate) fn run(
    handler: &Erased,
    context: &Context<'_>,
    hooks: &Hooks,
    acknowledges: bool,
    tasks: &mut Tasks,
) -> Result<(), InvalidPayload> {
    let wanted = context.ack.get().filter(|_| acknowledges);
    let socket = context.socket;
    let mut to = ReplyTo { socket, hooks, event: context.name, ack: wanted };
    match catch_unwind(AssertUnwindSafe(|| handler(context, to))) {
        Ok(Ok(None)) => Ok(()),
        Ok(Ok(Some(mut future))) => {
            if (&mut future).now_or_never().is_none() {
                tasks.push(future);
            }
            Ok(())
        }
        Ok(Err(Rejection::Invalid)) => Err(InvalidPayload),
        Ok(Err(Rejection::BadPayload(error))) => {
            hooks.bad_payload(context.socket, context.name, &error);
            if wanted.is_some()
                && let Some(id) = context.ack.take()
            {
                let text = format!("bad payload: {error}");
                let _ = acknowledge(context.socket, id, &Failure { error: &text });
            }
            Ok(())
        }
        Ok(Err(Rejection::MissingState(name))) => {
            to.ack = wanted.and_then(|_| context.ack.take());
            to.failed(&MissingState(name).into());
            Ok(())
        }
        Err(panic) => {
            to.ack = wanted.and_then(|_| context.ack.take());
            to.failed(&HandlerError::panicked(&*panic));
            Ok(())
        }
    }
}

#[derive(Debug, thiserror::Error)]
#[error("no state of type {0}: ServerBuilder::state was not called with one")]
pub(crate) struct MissingState(pub(crate) &'static str);
