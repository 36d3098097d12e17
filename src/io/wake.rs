//! The wake descriptor of a driver, as a tokio host waits for it.

use std::io;
use std::os::fd::OwnedFd;
use std::task::{Context, Poll, ready};

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use super::Driver;

/// Edges of a driver's wake descriptor. Each edge is reported once and forgotten by reporting it,
/// so that what arrives during the poll that follows makes a new one.
#[derive(Debug)]
pub(crate) struct WakeEdge {
    descriptor: AsyncFd<OwnedFd>,
}

impl WakeEdge {
    /// `None` for a driver without a kernel. Must be called inside a tokio runtime.
    pub(crate) fn new(driver: &impl Driver) -> io::Result<Option<Self>> {
        let Some(descriptor) = driver.wake_descriptor() else { return Ok(None) };
        // A duplicate of its own, so that it stays open even if the driver is dropped first.
        let descriptor = descriptor.try_clone_to_owned()?;
        // SAFETY: the descriptor is open and owned by the `AsyncFd`, which nothing ever replaces.
        let descriptor =
            unsafe { AsyncFd::register_with_interest(descriptor, Interest::READABLE) }?;
        Ok(Some(Self { descriptor }))
    }

    /// Waits for an edge.
    #[cfg(test)]
    pub(crate) async fn wait(&self) -> io::Result<()> {
        std::future::poll_fn(|cx| self.poll_wait(cx)).await
    }

    /// Waits for an edge in a hand-written future. Only the last task that asked is woken.
    pub(crate) fn poll_wait(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.descriptor.poll_read_ready(cx))?.clear_ready();
        Poll::Ready(Ok(()))
    }
}
