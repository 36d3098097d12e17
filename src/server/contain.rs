//! Keeps a panic of user code from ending its shard, and with it everybody's connections.
//!
//! Handlers of events tell their own panics to `on_error`; what is here is for everything else that
//! users give us to call. A panic is logged, and the caller goes on with what a refusal would be.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};

use futures_util::FutureExt;

use crate::shard::Step;
use crate::shard::app::LocalFuture;

/// What a panic said.
pub(crate) fn words(panic: &(dyn Any + Send)) -> &str {
    match panic.downcast_ref::<&str>() {
        Some(text) => text,
        None => panic.downcast_ref::<String>().map_or("", String::as_str),
    }
}

fn report(what: &'static str, panic: &(dyn Any + Send)) {
    tracing::error!(target: "stentor::handler", what, panic = words(panic), "user code panicked");
}

/// Calls `code`; `None` when it panicked.
pub(crate) fn contain<R>(what: &'static str, code: impl FnOnce() -> R) -> Option<R> {
    catch_unwind(AssertUnwindSafe(code)).map_err(|panic| report(what, &*panic)).ok()
}

/// Calls `code` and lets its future, if it returns one, be driven; a panic of either gives
/// `otherwise`.
pub(crate) fn contain_step<T: 'static>(
    what: &'static str,
    otherwise: fn() -> T,
    code: impl FnOnce() -> Step<T>,
) -> Step<T> {
    match contain(what, code) {
        None => Step::Ready(otherwise()),
        Some(Step::Ready(value)) => Step::Ready(value),
        Some(Step::Pending(future)) => Step::Pending(contain_future(what, otherwise, future)),
    }
}

/// Drives `future`; a panic gives `otherwise`.
pub(crate) fn contain_future<T: 'static>(
    what: &'static str,
    otherwise: fn() -> T,
    future: LocalFuture<T>,
) -> LocalFuture<T> {
    Box::pin(AssertUnwindSafe(future).catch_unwind().map(move |outcome| {
        outcome.unwrap_or_else(|panic| {
            report(what, &*panic);
            otherwise()
        })
    }))
}
