//! Panics of user code end where they began: the shard and everybody else on it go on.

use std::panic::{AssertUnwindSafe, catch_unwind};

use futures_util::FutureExt;

use crate::shard::Step;
use crate::shard::app::LocalFuture;

/// Calls user code; `None` when it panicked, which is logged.
pub(crate) fn contained<T>(what: &'static str, call: impl FnOnce() -> T) -> Option<T> {
    match catch_unwind(AssertUnwindSafe(call)) {
        Ok(value) => Some(value),
        Err(_) => {
            tracing::error!(target: "stentor::handler", what, "panicked");
            None
        }
    }
}

/// [`contained`] for an answer that may need time; a panic answers `instead`.
pub(crate) fn contained_step<T: 'static>(
    what: &'static str,
    call: impl FnOnce() -> Step<T>,
    instead: impl FnOnce() -> T + Clone + 'static,
) -> Step<T> {
    match contained(what, call) {
        None => Step::Ready(instead()),
        Some(Step::Ready(value)) => Step::Ready(value),
        Some(Step::Pending(future)) => Step::Pending(contained_future(what, future, instead)),
    }
}

/// [`contained`] for a future.
pub(crate) fn contained_future<T: 'static>(
    what: &'static str,
    future: LocalFuture<T>,
    instead: impl FnOnce() -> T + 'static,
) -> LocalFuture<T> {
    Box::pin(async move {
        match AssertUnwindSafe(future).catch_unwind().await {
            Ok(value) => value,
            Err(_) => {
                tracing::error!(target: "stentor::handler", what, "panicked");
                instead()
            }
        }
    })
}
