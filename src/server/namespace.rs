//! The handlers of one namespace, registered once before the server starts.

use std::collections::HashMap;
use std::fmt;
use std::future::Future;
use std::sync::Arc;

use serde::de::DeserializeOwned;

use super::context::{Connect, Context, Disconnect, Event, FromContext, Rejection};
use super::error::{BadPayload, BoxError, HandlerError};
use super::handler::{Erased, Handler, Hooks, MissingState, erase};
use super::socket::Socket;
use crate::shard::Step;
use crate::shard::app::{ConnectError, LocalFuture};

/// Why a middleware lets nobody in.
#[derive(Debug)]
pub(crate) enum Refusal {
    /// It says so: the client is told.
    Refused(ConnectError),
    /// It failed: `on_error` is told.
    Failed(HandlerError),
}

impl Refusal {
    /// An error of a middleware: a refusal if that is what was given to `?`, else a failure.
    fn of(error: HandlerError) -> Self {
        match error.get_ref().downcast_ref::<ConnectError>() {
            Some(refusal) => Self::Refused(refusal.clone()),
            None => Self::Failed(error),
        }
    }
}

/// What a middleware gives: now, or later.
pub(crate) type Verdict = Result<(), Refusal>;
pub(crate) type Middleware = Arc<dyn Fn(&Context<'_>) -> Step<Verdict> + Send + Sync>;

/// Markers that tell middlewares apart. Never named by users.
#[doc(hidden)]
pub mod verdict {
    /// A plain result.
    #[derive(Debug)]
    pub struct Plain;
    /// A result whose error is any standard error.
    #[derive(Debug)]
    pub struct Fallible;
    /// A result whose error is a boxed standard error.
    #[derive(Debug)]
    pub struct Boxed;
    /// A future of one of the others.
    #[derive(Debug)]
    pub struct Async<M>(std::marker::PhantomData<M>);
}

/// What a middleware may return: `Result<(), E>` or a future of it.
///
/// `E` is a [`ConnectError`] or becomes one (a `String` or `&str` does): the client is told. Or it
/// is a [`HandlerError`] or a `Box<dyn Error + Send + Sync>`, which `?` makes of standard errors:
/// it goes to `on_error`, and the client is told `internal error`; a [`ConnectError`] in it refuses
/// as ever.
///
/// `M` is found by the compiler.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is nothing a middleware can return",
    label = "no verdict",
    note = "a middleware returns `Result<(), E>` or a future of it, where `E` is a `ConnectError`, \
            a `String` or `&str`, a `HandlerError` or a `Box<dyn Error + Send + Sync>`"
)]
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
        StepOf(Step::Ready(self.map_err(|error| Refusal::Refused(error.into()))))
    }
}

impl IntoVerdict<verdict::Fallible> for Result<(), HandlerError> {
    fn into_step(self) -> StepOf {
        StepOf(Step::Ready(self.map_err(Refusal::of)))
    }
}

impl IntoVerdict<verdict::Boxed> for Result<(), BoxError> {
    fn into_step(self) -> StepOf {
        self.map_err(HandlerError::new).into_step()
    }
}

impl<F, M> IntoVerdict<verdict::Async<M>> for F
where
    F: Future + 'static,
    F::Output: IntoVerdict<M>,
{
    fn into_step(self) -> StepOf {
        let future: LocalFuture<Verdict> = Box::pin(async move {
            match self.await.into_step().0 {
                Step::Ready(verdict) => verdict,
                Step::Pending(later) => later.await,
            }
        });
        StepOf(Step::Pending(future))
    }
}

/// A function that lets sockets in or refuses them. Implemented for functions and closures, plain
/// or async, of up to four extractors; `M` is found by the compiler.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is no middleware",
    label = "not a middleware",
    note = "a middleware is a function or closure, plain or async, that is `Fn + Send + Sync + \
            'static`, of up to four arguments that all implement `FromContext<Connect>`, and that \
            returns something that implements `IntoVerdict`",
    note = "an async closure that captures lends its captures to its future, which must be \
            'static: write `move |..| {{ let x = x.clone(); async move {{ .. }} }}`, or take \
            `State<Arc<T>>`"
)]
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
                Rejection::BadPayload(error) => {
                    Refusal::Refused(ConnectError::new(error.to_string()))
                }
                Rejection::Invalid => Refusal::Refused(ConnectError::new("bad payload")),
                Rejection::MissingState(name) => Refusal::Failed(MissingState(name).into()),
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
    /// Three things the compiler refuses at first:
    ///
    /// - An async closure that captures: its future borrows from the closure, and a handler's
    ///   future must stand alone. Take what it needs as [`State`](crate::State), or clone it
    ///   into the future.
    /// - A handler that never returns, whose type would be `!`: write `-> ()`.
    /// - An error that both serialises and is a standard error, which could go to the client or to
    ///   `on_error`: return `Result<T, HandlerError>` (`?` makes one) to keep it to yourself, map
    ///   it to a `String` to tell the client. [`HandlerError::new`] also takes errors that are no
    ///   standard errors themselves, as `anyhow`'s.
    ///
    /// ```
    /// use std::sync::Arc;
    /// use stentor::{Data, HandlerError, Namespace, State};
    ///
    /// struct Store;
    /// # impl Store { async fn find(&self, id: u64) -> Result<String, std::io::Error> {
    /// #     Ok(id.to_string())
    /// # } }
    ///
    /// fn fill(ns: &mut Namespace, store: Arc<Store>) {
    ///     ns.on("find", async |State(store): State<Arc<Store>>, Data(id): Data<u64>| {
    ///         store.find(id).await
    ///     });
    ///     ns.on("find-too", move |Data(id): Data<u64>| {
    ///         let store = store.clone();
    ///         async move { Ok::<_, HandlerError>(store.find(id).await?) }
    ///     });
    ///     ns.on("never", || -> () { unimplemented!() });
    /// }
    /// ```
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

    /// Hears of handlers that returned a standard error, returned what does not encode, or
    /// panicked (with the event's name; of connecting sockets it is `connection`, of ending ones
    /// `disconnecting` or `disconnect`), and of errors for a client that waits for none. Without a
    /// hook they are logged. A client that asked for an acknowledgement is answered
    /// `{"error": "handler failed"}`.
    pub fn on_error(
        &mut self,
        hook: impl Fn(&Socket, &str, &HandlerError) + Send + Sync + 'static,
    ) -> &mut Self {
        self.hooks.error = Some(Arc::new(hook));
        self
    }
}
