//! The registered handlers, as a shard calls them.

use std::cell::Cell;
use std::fmt;
use std::future::Future;
use std::sync::Arc;

use futures_util::FutureExt;
use regex::Regex;

use super::contain::{contained, contained_step};
use super::context::{Context, States};
use super::engine::{EngineHandler, EngineSocket, Message};
use super::handler::{Erased, Hooks, run};
use super::namespace::{AuthPayload, Middleware, Namespace, Refusal, Verdict};
use crate::DisconnectReason;
use crate::shard::app::{
    App, ConnectError, Definition, EngineMessage, Guest, Incoming, InvalidPayload, LocalFuture,
    Tasks,
};
use crate::shard::port::EngineCell;
use crate::shard::request::Request;
use crate::shard::{SocketKey, Step};

/// `ServerBuilder::dynamic_namespace_where`.
pub(crate) type Matches = Box<dyn Fn(&str, AuthPayload<'_>) -> bool + Send + Sync>;

/// Which names a dynamic namespace takes.
pub(crate) enum Matcher {
    Pattern(Regex),
    Function(Matches),
}

impl Matcher {
    fn matches(&self, name: &str, auth: Option<&str>) -> bool {
        match self {
            Self::Pattern(pattern) => pattern.is_match(name),
            Self::Function(function) => function(name, AuthPayload(auth)),
        }
    }
}

/// `ServerBuilder::allow_request`, plain or async.
pub(crate) type AllowRequest = Box<dyn Fn(Arc<Request>) -> Step<Result<(), String>> + Send + Sync>;

/// `ServerBuilder::generate_id`.
pub(crate) type GenerateId = Box<dyn Fn(&Request) -> String + Send + Sync>;

/// Everything the user registered.
#[derive(Default)]
pub(crate) struct Registered {
    /// In the order of their definition indices.
    pub(crate) namespaces: Vec<Namespace>,
    pub(crate) names: Vec<(String, u32)>,
    pub(crate) matchers: Vec<(Matcher, u32)>,
    pub(crate) states: States,
    pub(crate) allow_request: Option<AllowRequest>,
    pub(crate) generate_id: Option<GenerateId>,
    pub(crate) engines: Vec<Box<dyn EngineHandler>>,
    #[cfg(feature = "axum")]
    pub(crate) router: Option<super::fallback::Fallback>,
}

impl fmt::Debug for Registered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Registered").field("namespaces", &self.namespaces).finish_non_exhaustive()
    }
}

impl Registered {
    fn namespace(&self, definition: u32) -> &Namespace {
        &self.namespaces[definition as usize]
    }

    /// Calls handlers that are not of an event.
    fn call_all(
        &self,
        handlers: &[Erased],
        name: &'static str,
        socket: &SocketKey,
        reason: Option<DisconnectReason>,
        tasks: &mut Tasks,
    ) {
        if handlers.is_empty() {
            return;
        }
        let ack = Cell::new(None);
        let (states, attachments, payload) = (&self.states, &[][..], &b"[]"[..]);
        let checked = Cell::new(true);
        let context =
            Context { socket, states, name, payload, attachments, ack: &ack, reason, checked };
        let hooks = &self.namespace(socket.definition).hooks;
        for handler in handlers {
            // Only events carry a payload that could be invalid.
            let _ = run(handler, &context, hooks, false, tasks);
        }
    }
}

impl App for Registered {
    fn allow_request(&self, request: &Arc<Request>) -> Step<Result<(), String>> {
        match &self.allow_request {
            Some(allow) => contained_step("allow_request", || allow(request.clone()), refusal),
            None => Step::Ready(Ok(())),
        }
    }

    fn generate_id(&self, request: &Request) -> Option<String> {
        contained("generate_id", || self.generate_id.as_ref().map(|generate| generate(request)))?
    }

    fn definition_of(&self, namespace: &str, auth: Option<&str>) -> Option<Definition> {
        let named = self.names.iter().find(|(name, _)| name == namespace);
        if let Some(&(_, index)) = named {
            return Some(Definition { index, permanent: true });
        }
        let matched = self.matchers.iter().find(|(matcher, _)| {
            contained("dynamic_namespace_where", || matcher.matches(namespace, auth)) == Some(true)
        });
        matched.map(|&(_, index)| Definition { index, permanent: false })
    }

    fn admit(&self, socket: &SocketKey) -> Step<Result<(), ConnectError>> {
        let ack = Cell::new(None);
        let states = &self.states;
        let context = Context {
            socket,
            states,
            name: "connection",
            payload: b"[]",
            attachments: &[],
            ack: &ack,
            reason: None,
            checked: Cell::new(true),
        };
        let Namespace { middlewares, hooks, .. } = self.namespace(socket.definition);
        for (index, middleware) in middlewares.iter().enumerate() {
            match contained_step("middleware", || middleware(&context), internal_error) {
                Step::Ready(Ok(())) => {}
                Step::Ready(Err(refusal)) => {
                    return Step::Ready(Err(told(refusal, socket, hooks)));
                }
                Step::Pending(mut future) => match (&mut future).now_or_never() {
                    Some(Ok(())) => {}
                    Some(Err(refusal)) => {
                        return Step::Ready(Err(told(refusal, socket, hooks)));
                    }
                    None => {
                        let rest = middlewares[index + 1..].to_vec();
                        let (socket, hooks) = (socket.clone(), hooks.clone());
                        let verdict = admit_rest(future, rest, socket.clone(), states.clone());
                        return Step::Pending(Box::pin(async move {
                            verdict.await.map_err(|refusal| told(refusal, &socket, &hooks))
                        }));
                    }
                },
            }
        }
        Step::Ready(Ok(()))
    }

    fn connected(&self, socket: &SocketKey, tasks: &mut Tasks) {
        let handlers = &self.namespace(socket.definition).connected;
        self.call_all(handlers, "connection", socket, None, tasks);
    }

    fn event(
        &self,
        socket: &SocketKey,
        event: Incoming<'_>,
        tasks: &mut Tasks,
    ) -> Result<(), InvalidPayload> {
        let namespace = self.namespace(socket.definition);
        let handlers = match namespace.events.get(event.name) {
            Some(handlers) => handlers,
            None => &namespace.fallback,
        };
        let ack = Cell::new(event.ack);
        let context = Context {
            socket,
            states: &self.states,
            name: event.name,
            payload: event.payload,
            attachments: event.attachments,
            ack: &ack,
            reason: None,
            checked: Cell::new(false),
        };
        for handler in &namespace.any {
            run(handler, &context, &namespace.hooks, false, tasks)?;
        }
        for handler in handlers {
            run(handler, &context, &namespace.hooks, true, tasks)?;
        }
        // What nobody read must be valid all the same.
        context.check().map_err(|_| InvalidPayload)
    }

    fn disconnecting(&self, socket: &SocketKey, reason: DisconnectReason, tasks: &mut Tasks) {
        let handlers = &self.namespace(socket.definition).disconnecting;
        self.call_all(handlers, "disconnecting", socket, Some(reason), tasks);
    }

    fn disconnected(&self, socket: &SocketKey, reason: DisconnectReason, tasks: &mut Tasks) {
        let handlers = &self.namespace(socket.definition).disconnected;
        self.call_all(handlers, "disconnect", socket, Some(reason), tasks);
    }

    fn engine_opened(&self, endpoint: u16, session: &Arc<EngineCell>, _tasks: &mut Tasks) {
        if let Some(engine) = self.engines.get(usize::from(endpoint)) {
            contained("on_open", || engine.on_open(EngineSocket::new(session.clone())));
        }
    }

    fn engine_message(
        &self,
        endpoint: u16,
        session: &Arc<EngineCell>,
        message: EngineMessage<'_>,
        _tasks: &mut Tasks,
    ) {
        let Some(engine) = self.engines.get(usize::from(endpoint)) else { return };
        let message = match message {
            EngineMessage::Text(text) => Message::Text(text.to_owned()),
            EngineMessage::Binary(bytes) => Message::Binary(bytes::Bytes::copy_from_slice(bytes)),
        };
        let socket = EngineSocket::new(session.clone());
        contained("on_message", || engine.on_message(socket, message));
    }

    fn engine_closed(
        &self,
        endpoint: u16,
        session: &Arc<EngineCell>,
        reason: DisconnectReason,
        _tasks: &mut Tasks,
    ) {
        if let Some(engine) = self.engines.get(usize::from(endpoint)) {
            let socket = EngineSocket::new(session.clone());
            contained("on_close", || engine.on_close(socket, reason));
        }
    }

    #[cfg(feature = "axum")]
    fn fallback(&self, guest: Guest, tasks: &mut Tasks) {
        if let Some(router) = &self.router {
            tasks.push(router.serve(guest));
        }
    }

    #[cfg(not(feature = "axum"))]
    fn fallback(&self, guest: Guest, _tasks: &mut Tasks) {
        drop(guest);
    }
}

/// What a client is told when the program itself is at fault.
fn refusal() -> Result<(), String> {
    Err("internal error".to_owned())
}

/// [`refusal`] for middlewares.
fn internal_error() -> Verdict {
    Err(Refusal::Refused(ConnectError::new("internal error")))
}

/// What the client is told of a refusal; of a failure the program hears.
fn told(refusal: Refusal, socket: &SocketKey, hooks: &Hooks) -> ConnectError {
    match refusal {
        Refusal::Refused(refusal) => refusal,
        Refusal::Failed(error) => {
            hooks.error(socket, "connection", &error);
            ConnectError::new("internal error")
        }
    }
}

/// The middlewares after one that needed time.
fn admit_rest(
    first: LocalFuture<Verdict>,
    rest: Vec<Middleware>,
    socket: SocketKey,
    states: States,
) -> LocalFuture<Verdict> {
    Box::pin(async move {
        first.await?;
        for middleware in rest {
            let step = {
                let ack = Cell::new(None);
                let context = Context {
                    socket: &socket,
                    states: &states,
                    name: "connection",
                    payload: b"[]",
                    attachments: &[],
                    ack: &ack,
                    reason: None,
                    checked: Cell::new(true),
                };
                contained_step("middleware", || middleware(&context), internal_error)
            };
            match step {
                Step::Ready(verdict) => verdict?,
                Step::Pending(future) => future.await?,
            }
        }
        Ok(())
    })
}

/// Makes an `allow_request` of a plain function.
pub(crate) fn allow_plain(
    allow: impl Fn(&Request) -> Result<(), String> + Send + Sync + 'static,
) -> AllowRequest {
    Box::new(move |request| Step::Ready(allow(&request)))
}

/// Makes an `allow_request` of an async function.
pub(crate) fn allow_async<F>(
    allow: impl Fn(Arc<Request>) -> F + Send + Sync + 'static,
) -> AllowRequest
where
    F: Future<Output = Result<(), String>> + 'static,
{
    Box::new(move |request| Step::Pending(Box::pin(allow(request))))
}
