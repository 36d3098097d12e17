//! The handlers of one namespace, registered once before the server starts.

use std::collections::HashMap;
use std::fmt;
use std::future::Future;
use std::sync::Arc;

use serde::de::DeserializeOwned;

use super::context::{Connect, Context, Disconnect, Event, FromContext, Rejection};
use super::error::{BadPayload, HandlerError};
use super::handler::{Erased, Handler, Hooks, erase};
use super::socket::Socket;
use crate::shard::Step;
use crate::shard::app::{ConnectError, LocalFuture};

/// What a middleware gives: now, or later.
type Verdict = Result<(), ConnectError>;
pub(crate) type Middleware = Arc<dyn Fn(&Context<'_>) -> Step<Verdict> + Send + Sync>;

/// Markers that tell middlewares apart. Never named by users.
#[doc(hidden)]
pub mod verdict {
    /// A plain result.
    #[derive(Debug)]
    pub struct Plain;
    /// A future of one.
    #[derive(Debug)]
    pub struct Async;
}

/// What a middleware may return: `Result<(), E>` where `E` becomes a [`ConnectError`] (a `String`
/// or `&str` does), or a future of it.
///
/// `M` is found by the compiler.
pub trait IntoVerdict<M> {
    #[doc(hidden)]
    fn into_step(self) -> StepOf;
}

/// A step without the shard's type in public.
#[doc(hidden)]
#[derive(Debug)]
pub struct StepOf(pub(crate) Step<Verdict>);

impl<E: Into<ConnectError> + 'static> IntoVerdict<verdict::Plain> for Result<(), E> {
    fn into_step(self) -> StepOf {
        StepOf(Step::Ready(self.map_err(Into::into)))
    }
}

impl<F, E> IntoVerdict<verdict::Async> for F
where
    F: Future<Output = Result<(), E>> + 'static,
    E: Into<ConnectError>,
{
    fn into_step(self) -> StepOf {
        let future: LocalFuture<Verdict> = Box::pin(async move { self.await.map_err(Into::into) });
        StepOf(Step::Pending(future))
    }
}

/// A function that lets sockets in or refuses them. Implemented for functions and closures, plain
/// or async, of up to four extractors; `M` is found by the compiler.
pub trait MiddlewareFn<M>: Send + Sync + 'static {
    #[doc(hidden)]
    fn check(&self, context: &Context<'_>) -> Result<StepOf, Rejection>;
}

macro_rules! middleware {
    ($($extractor:ident),*) => {
        impl<F, R, M, $($extractor,)*> MiddlewareFn<(M, R, $($extractor,)*)> for F
        where
            F: Fn($($extractor),*) -> R + Send + Sync + 'static,
            R: IntoVerdict<M>,
            $($extractor: FromContext<Connect>,)*
        {
            #[allow(non_snake_case, unused_variables)]
            fn check(&self, context: &Context<'_>) -> Result<StepOf, Rejection> {
                $(let $extractor = $extractor::from_context(context)?;)*
                Ok(self($($extractor),*).into_step())
            }
        }
    };
}

middleware!();
middleware!(A);
middleware!(A, B);
middleware!(A, B, C);
middleware!(A, B, C, D);

/// The `auth` of a CONNECT, before anybody has said what type it is.
#[derive(Debug, Clone, Copy)]
pub struct AuthPayload<'a>(pub(crate) Option<&'a str>);

impl AuthPayload<'_> {
    /// The payload as `T`; `None` when the client sent none or another shape.
    #[must_use]
    pub fn to<T: DeserializeOwned>(&self) -> Option<T> {
        serde_json::from_str(self.0?).ok()
    }
}

/// The handlers of a namespace: what `ServerBuilder::namespace` lets you fill in.
#[derive(Default)]
pub struct Namespace {
    pub(crate) middlewares: Vec<Middleware>,
    pub(crate) connected: Vec<Erased>,
    pub(crate) any: Vec<Erased>,
    pub(crate) events: HashMap<String, Vec<Erased>>,
    pub(crate) fallback: Vec<Erased>,
    pub(crate) disconnecting: Vec<Erased>,
    pub(crate) disconnected: Vec<Erased>,
    pub(crate) hooks: Hooks,
}

impl fmt::Debug for Namespace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Namespace").field("events", &self.events.keys()).finish_non_exhaustive()
    }
}

impl Namespace {
    /// Adds a middleware: it runs before a socket connects, after those added before it. The
    /// first refusal ends the row and reaches the client as `connect_error`.
    ///
    /// ```
    /// use stentor::{Auth, ConnectError, Namespace, Socket};
    ///
    /// #[derive(serde::Deserialize)]
    /// struct Credentials { token: String }
    ///
    /// fn secure(ns: &mut Namespace) {
    ///     ns.middleware(|socket: Socket, Auth(auth): Auth<Option<Credentials>>| {
    ///         match auth {
    ///             Some(auth) if auth.token == "secret" => Ok(()),
    ///             _ => Err(ConnectError::new("not authorised")),
    ///         }
    ///     });
    /// }
    /// ```
    pub fn middleware<M>(&mut self, middleware: impl MiddlewareFn<M>) -> &mut Self {
        self.middlewares.push(Arc::new(move |context| match middleware.check(context) {
            Ok(StepOf(step)) => step,
            Err(rejection) => Step::Ready(Err(match rejection {
                Rejection::BadPayload(error) => ConnectError::new(error.to_string()),
                Rejection::Invalid => ConnectError::new("bad payload"),
                Rejection::MissingState(name) => {
                    tracing::error!(target: "stentor::handler", name, "no such state");
                    ConnectError::new("internal error")
                }
            })),
        }));
        self
    }

    /// Adds a handler that runs when a socket has connected, right after its CONNECT reply was
    /// queued.
    pub fn on_connect<M>(&mut self, handler: impl Handler<Connect, M>) -> &mut Self {
        self.connected.push(erase(handler));
        self
    }

    /// Adds a handler of an event. Several handlers of one event run in the order of their
    /// registration; the first one's return value acknowledges.
    ///
    /// # Panics
    /// When the name is one of the protocol's own (`connect`, `disconnect`, ...): no client can
    /// send it.
    pub fn on<M>(&mut self, event: &str, handler: impl Handler<Event, M>) -> &mut Self {
        assert!(!crate::protocol::socket_io::is_reserved(event), "{event:?} is a reserved name");
        self.events.entry(event.to_owned()).or_default().push(erase(handler));
        self
    }

    /// Adds a handler that sees every event before its own handlers do. What it returns does not
    /// acknowledge; an [`Ack`](crate::Ack) it takes does.
    pub fn on_any<M>(&mut self, handler: impl Handler<Event, M>) -> &mut Self {
        self.any.push(erase(handler));
        self
    }

    /// Adds a handler of events that nobody else handles.
    pub fn on_unhandled<M>(&mut self, handler: impl Handler<Event, M>) -> &mut Self {
        self.fallback.push(erase(handler));
        self
    }

    /// Adds a handler that runs when a socket is about to end: its rooms are still there.
    pub fn on_disconnecting<M>(&mut self, handler: impl Handler<Disconnect, M>) -> &mut Self {
        self.disconnecting.push(erase(handler));
        self
    }

    /// Adds a handler that runs once when a socket has ended and left its rooms.
    pub fn on_disconnect<M>(&mut self, handler: impl Handler<Disconnect, M>) -> &mut Self {
        self.disconnected.push(erase(handler));
        self
    }

    /// Hears of payloads that are not what a handler asks for (with the event's name). Without a
    /// hook they are logged. A client that asked for an acknowledgement is answered
    /// `{"error": "..."}` in any case.
    pub fn on_bad_payload(
        &mut self,
        hook: impl Fn(&Socket, &str, &BadPayload) + Send + Sync + 'static,
    ) -> &mut Self {
        self.hooks.bad_payload = Some(Arc::new(hook));
        self
    }

    /// Hears of handlers that returned a standard error or panicked (with the event's name).
    /// Without a hook they are logged. A client that asked for an acknowledgement is answered
    /// `{"error": "handler failed"}`.
    pub fn on_error(
        &mut self,
        hook: impl Fn(&Socket, &str, &HandlerError) + Send + Sync + 'static,
    ) -> &mut Self {
        self.hooks.error = Some(Arc::new(hook));
        self
    }
}
