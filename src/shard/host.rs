//! A thread that runs one shard: a tokio current_thread runtime hosting the driver's ring.
//!
//! Handlers may therefore await any tokio library on their client's own core. The shard is one
//! future of that runtime; it takes turns while there is something to do, gives the runtime a
//! chance in between, and sleeps until the driver, mail, a task or a deadline wakes it.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::{Instant, Sleep};

use super::turn::{Outcome, Turn};
use crate::io::Driver;
use crate::io::wake::WakeEdge;

/// Turns taken in a row before the runtime's other tasks get a chance.
const TURNS_MAX: usize = 16;

/// A shard as a future; it ends when the shard has shut down.
struct Host<D> {
    turn: Turn<D>,
    edge: Option<WakeEdge>,
    sleep: Pin<Box<Sleep>>,
}

// The future is never pinned by its fields: the one that is, is boxed.
impl<D> Unpin for Host<D> {}

impl<D: Driver> Future for Host<D> {
    type Output = io::Result<()>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        for _ in 0..TURNS_MAX {
            // An edge that came is forgotten before the driver is polled.
            if let Some(edge) = &this.edge
                && let Poll::Ready(edge) = edge.poll_wait(cx)
            {
                edge?;
            }
            match this.turn.turn(cx)? {
                Outcome::Over => return Poll::Ready(Ok(())),
                Outcome::More => continue,
                Outcome::Idle { until_ms } => {
                    if this.rest(cx, until_ms)? {
                        return Poll::Pending;
                    }
                }
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}

impl<D: Driver> Host<D> {
    /// Prepares to sleep. `false`: something came up.
    fn rest(&mut self, cx: &mut Context<'_>, until_ms: Option<u64>) -> io::Result<bool> {
        self.turn.driver.prepare_wait()?;
        if self.turn.driver.has_more() || self.turn.shard.port.has_mail() {
            return Ok(false);
        }
        if let Some(until_ms) = until_ms {
            let wait = until_ms.saturating_sub(self.turn.driver.now_ms());
            // Deadlines are looked at a tick late rather than early.
            self.sleep.as_mut().reset(Instant::now() + Duration::from_millis(wait + 1));
            if self.sleep.as_mut().poll(cx).is_ready() {
                return Ok(false);
            }
        }
        if let Some(edge) = &self.edge
            && let Poll::Ready(edge) = edge.poll_wait(cx)
        {
            edge?;
            return Ok(false);
        }
        Ok(true)
    }
}

/// Runs a shard on this thread until it has shut down. `start` makes the turn inside the runtime.
pub(crate) fn run<D: Driver>(start: impl FnOnce() -> io::Result<Turn<D>>) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let local = tokio::task::LocalSet::new();
    runtime.block_on(local.run_until(async move {
        let turn = start()?;
        let _entered = turn.shard.enter();
        let edge = WakeEdge::new(&turn.driver)?;
        let sleep = Box::pin(tokio::time::sleep(Duration::ZERO));
        Host { turn, edge, sleep }.await
    }))
}
