//! Unfinished handlers: who drives them, and how many there may be.

use std::rc::Rc;

use futures_util::FutureExt;

use super::Shard;
use super::app::{LocalFuture, Step, Tasks};
use crate::DisconnectReason;
use crate::session::SessionId;

/// What a shutdown does about an unfinished future.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum TaskKind {
    /// A handler of an event or a decision about a client: ends with the server.
    Handler,
    /// What is done about a client's end, and connections of the router: waited for.
    LastWord,
}

/// Counts a future while it lives.
struct CountedTask {
    shard: Rc<Shard>,
    kind: TaskKind,
}

impl CountedTask {
    fn new(shard: Rc<Shard>, kind: TaskKind) -> Self {
        shard.tasks.set(shard.tasks.get() + 1);
        if kind == TaskKind::LastWord {
            shard.last_words.set(shard.last_words.get() + 1);
        }
        Self { shard, kind }
    }
}

impl Drop for CountedTask {
    fn drop(&mut self) {
        self.shard.tasks.set(self.shard.tasks.get() - 1);
        if self.kind == TaskKind::LastWord {
            self.shard.last_words.set(self.shard.last_words.get() - 1);
        }
    }
}

impl Shard {
    /// Whether the shard's bound for unfinished futures is reached.
    fn is_busy(&self) -> bool {
        self.tasks.get() >= self.config.limits.tasks
    }

    /// Leaves a future to the turn.
    fn spawn(self: &Rc<Self>, future: LocalFuture<()>, kind: TaskKind) {
        let counted = CountedTask::new(self.clone(), kind);
        self.spawned.borrow_mut().push(Box::pin(async move {
            let _counted = counted;
            future.await;
        }));
        if let Ok(mut core) = self.core.try_borrow_mut() {
            core.touch();
        }
    }

    /// Runs a step to its end: now if it can, else as a task, one of the session's unfinished
    /// handlers. `then` gets its outcome, or `busy` when no more futures are taken.
    pub(super) fn finish<T: 'static>(
        self: &Rc<Self>,
        session: Option<SessionId>,
        step: Step<T>,
        busy: impl FnOnce() -> T,
        then: impl FnOnce(&Rc<Self>, T) + 'static,
    ) {
        match step {
            Step::Ready(value) => then(self, value),
            Step::Pending(mut future) => match (&mut future).now_or_never() {
                Some(value) => then(self, value),
                None if self.is_busy() => then(self, busy()),
                None => {
                    let shard = self.clone();
                    let rest: LocalFuture<()> = Box::pin(async move {
                        let value = future.await;
                        then(&shard, value);
                    });
                    self.adopt(session, vec![rest], TaskKind::Handler);
                }
            },
        }
    }

    /// Takes over unfinished handlers: of a session within its bound, while it is there.
    pub(super) fn adopt(self: &Rc<Self>, session: Option<SessionId>, tasks: Tasks, kind: TaskKind) {
        for task in tasks {
            let mut core = self.core.borrow_mut();
            // Last words are bounded by the clients they are about.
            if kind == TaskKind::Handler && self.is_busy() {
                tracing::error!(target: "stentor::handler", "too many handlers are unfinished");
                if let Some(session) = session {
                    core.close_session(session, DisconnectReason::LimitPendingHandlers);
                }
                drop(core);
                drop(task);
                continue;
            }
            let limit = self.config.limits.pending_handlers;
            let owner = session.and_then(|id| Some((id, core.sessions.get_mut(id)?)));
            let Some((session, cold)) = owner else {
                drop(core);
                self.spawn(task, kind);
                continue;
            };
            cold.owner.pending_handlers += 1;
            if cold.owner.pending_handlers > limit {
                core.close_session(session, DisconnectReason::LimitPendingHandlers);
            }
            drop(core);
            let shard = self.clone();
            let counted: LocalFuture<()> = Box::pin(async move {
                task.await;
                if let Some(cold) = shard.core.borrow_mut().sessions.get_mut(session) {
                    cold.owner.pending_handlers -= 1;
                }
            });
            self.spawn(counted, kind);
        }
    }
}
