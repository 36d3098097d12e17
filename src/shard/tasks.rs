//! Unfinished handlers: who drives them, and how many there may be.
//!
//! A handler runs to its end, whether or not its client is still there. Two bounds hold that in:
//! a session may have so many, gone or not, and so may a shard. Past the session's the session
//! ends. Past the shard's those go first whose clients have left, the longest gone before the
//! others; only when there are none does the session end whose handler is one too many. So whoever
//! connects, leaves work behind and comes back loses his own work and nobody else's.
//!
//! What is done about a client's end is no such work: it is waited for, counts for a session that
//! goes on, and has the shard's bound once more, for itself. Tests: `tests/bounds.rs`.

use std::cell::Cell;
use std::collections::VecDeque;
use std::pin::pin;
use std::rc::Rc;

use futures_util::FutureExt;
use futures_util::future::select;
use tokio::sync::Notify;

use super::Shard;
use super::app::{LocalFuture, Step, Tasks};
use crate::DisconnectReason;
use crate::session::SessionId;

/// Whose a future is.
#[derive(Debug, Clone)]
pub(super) enum TaskOf {
    /// A handler of a session's, or a middleware for one of its sockets.
    Session(SessionId),
    /// A decision about a request.
    Request(Rc<Pending>),
    /// What is done about the end of a socket or its session: a shutdown waits for it.
    End(SessionId),
    /// A connection of the router: bounded as one, and waited for too.
    Guest,
}

/// The unfinished handlers of one client, also when it is gone.
#[derive(Debug, Default)]
pub(crate) struct Pending {
    count: Cell<u32>,
    /// What is not done yet about sockets that it left.
    ends: Cell<u32>,
    is_cancelled: Cell<bool>,
    cancelled: Notify,
}

impl Pending {
    /// Drops the handlers where they stand, in the next turn. Returns how many.
    fn cancel(&self) -> u32 {
        self.is_cancelled.set(true);
        self.cancelled.notify_waiters();
        self.count.replace(0)
    }
}

/// Clients that have left with handlers unfinished, the longest gone first.
#[derive(Debug, Default)]
pub(crate) struct Orphans {
    clients: VecDeque<Rc<Pending>>,
    /// From so many on, those whose handlers have ended since are looked for.
    crowded: usize,
}

/// Below this it does not matter who of the orphans is done.
const CROWDED_MIN: usize = 64;

impl Orphans {
    /// A client leaves.
    pub(super) fn push(&mut self, pending: Rc<Pending>) {
        if pending.count.get() == 0 {
            return;
        }
        if self.clients.len() >= self.crowded {
            self.clients.retain(|pending| pending.count.get() > 0);
            self.crowded = CROWDED_MIN.max(self.clients.len() * 2);
        }
        self.clients.push_back(pending);
    }
}

/// Futures of a shard that live.
#[derive(Debug, Default)]
pub(super) struct Counts {
    handlers: Cell<u32>,
    ends: Cell<u32>,
    guests: Cell<u32>,
}

impl Counts {
    /// Whether a shutdown has nothing to wait for.
    pub(super) fn all_is_said(&self) -> bool {
        self.ends.get() == 0 && self.guests.get() == 0
    }
}

fn add(count: &Cell<u32>) {
    count.set(count.get() + 1);
}

fn subtract(count: &Cell<u32>) {
    count.set(count.get() - 1);
}

/// Counts a future while it lives.
struct CountedTask {
    shard: Rc<Shard>,
    of: TaskOf,
    /// Counted with the others of its client.
    pending: Rc<Pending>,
}

impl CountedTask {
    fn new(shard: Rc<Shard>, of: TaskOf, pending: Rc<Pending>) -> Self {
        let counts = &shard.counts;
        match of {
            TaskOf::Session(_) | TaskOf::Request(_) => {
                add(&counts.handlers);
                add(&pending.count);
            }
            TaskOf::End(_) => {
                add(&counts.ends);
                add(&pending.ends);
            }
            TaskOf::Guest => add(&counts.guests),
        }
        Self { shard, of, pending }
    }
}

impl Drop for CountedTask {
    fn drop(&mut self) {
        let (counts, pending) = (&self.shard.counts, &self.pending);
        match self.of {
            // Counted off when it was cancelled.
            TaskOf::Session(_) | TaskOf::Request(_) if pending.is_cancelled.get() => {}
            TaskOf::Session(_) | TaskOf::Request(_) => {
                subtract(&counts.handlers);
                subtract(&pending.count);
            }
            TaskOf::End(_) => {
                subtract(&counts.ends);
                subtract(&pending.ends);
            }
            TaskOf::Guest => subtract(&counts.guests),
        }
    }
}

/// Drives a handler until it ends or is cancelled.
async fn cancellable(future: LocalFuture<()>, pending: Rc<Pending>) {
    // Made before the look: then no cancellation falls between the two.
    let cancelled = pin!(pending.cancelled.notified());
    if !pending.is_cancelled.get() {
        select(cancelled, future).await;
    }
}

impl Shard {
    /// Whether one handler more may be kept; those of clients that have left make room.
    fn has_room(&self) -> bool {
        let handlers = &self.counts.handlers;
        while handlers.get() >= self.config.limits.tasks {
            let orphan = self.core.borrow_mut().orphans.clients.pop_front();
            let Some(orphan) = orphan else {
                tracing::error!(target: "stentor::handler", "too many handlers are unfinished");
                return false;
            };
            let cancelled = orphan.cancel();
            handlers.set(handlers.get() - cancelled);
            if cancelled > 0 {
                tracing::warn!(
                    target: "stentor::handler",
                    cancelled,
                    "too many handlers are unfinished: those of a client that left are cancelled"
                );
            }
        }
        true
    }

    /// Leaves a future to the turn.
    fn spawn(self: &Rc<Self>, future: LocalFuture<()>, of: TaskOf, pending: Rc<Pending>) {
        let is_cancellable = matches!(of, TaskOf::Session(_) | TaskOf::Request(_));
        let counted = CountedTask::new(self.clone(), of, pending.clone());
        self.spawned.borrow_mut().push(Box::pin(async move {
            let _counted = counted;
            match is_cancellable {
                true => cancellable(future, pending).await,
                false => future.await,
            }
        }));
        if let Ok(mut core) = self.core.try_borrow_mut() {
            core.touch();
        }
    }

    /// Runs a step to its end: now if it can, else as a task. `then` gets its outcome, or `busy`
    /// when no more futures are taken.
    pub(super) fn finish<T: 'static>(
        self: &Rc<Self>,
        of: TaskOf,
        step: Step<T>,
        busy: impl FnOnce() -> T,
        then: impl FnOnce(&Rc<Self>, T) + 'static,
    ) {
        match step {
            Step::Ready(value) => then(self, value),
            Step::Pending(mut future) => match (&mut future).now_or_never() {
                Some(value) => then(self, value),
                None if !self.has_room() => then(self, busy()),
                None => {
                    let shard = self.clone();
                    let rest: LocalFuture<()> = Box::pin(async move {
                        let value = future.await;
                        then(&shard, value);
                    });
                    self.adopt(&of, vec![rest]);
                }
            },
        }
    }

    /// Takes over unfinished handlers, within the bounds.
    pub(super) fn adopt(self: &Rc<Self>, of: &TaskOf, tasks: Tasks) {
        if tasks.is_empty() {
            return;
        }
        let pending = match of {
            TaskOf::Session(session) | TaskOf::End(session) => {
                self.core.borrow_mut().pending_of(*session)
            }
            TaskOf::Request(pending) => pending.clone(),
            TaskOf::Guest => Rc::default(),
        };
        let limits = &self.config.limits;
        for task in tasks {
            let has_many = pending.count.get() + pending.ends.get() >= limits.pending_handlers;
            let is_kept = match of {
                TaskOf::Session(_) | TaskOf::Request(_) => !has_many && self.has_room(),
                TaskOf::End(_) => self.counts.ends.get() < limits.tasks,
                TaskOf::Guest => true,
            };
            if let TaskOf::Session(session) | TaskOf::End(session) = *of
                && (has_many || !is_kept)
            {
                self.close(session, DisconnectReason::LimitPendingHandlers);
            }
            match is_kept {
                true => self.spawn(task, of.clone(), pending.clone()),
                // No table is borrowed while it goes.
                false => drop(task),
            }
            if !is_kept && matches!(of, TaskOf::Session(_)) {
                // Its session has just ended: what else the event began ends with it.
                break;
            }
        }
        // A session that went while its handler ran: nobody else will say so.
        if let TaskOf::Session(session) = *of {
            let mut core = self.core.borrow_mut();
            if core.sessions.get_open(session).is_none() {
                core.orphans.push(pending);
            }
        }
    }
}

impl super::Core {
    /// The unfinished handlers of a session; of one that is gone, nobody's yet.
    fn pending_of(&mut self, session: SessionId) -> Rc<Pending> {
        let Some(cold) = self.sessions.get_mut(session) else { return Rc::default() };
        let pending = &mut cold.owner.pending;
        if pending.as_ref().is_some_and(|pending| pending.is_cancelled.get()) {
            *pending = None;
        }
        pending.get_or_insert_default().clone()
    }
}
