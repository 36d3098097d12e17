//! The kernel, behind one contract: [`Driver`].
//!
//! A driver owns descriptors and buffers and knows nothing of what the bytes mean: no protocol
//! word stands in this directory, and nothing of ours outside it is imported. Three drivers meet
//! the contract: `uring` (Linux), `mio` (epoll, kqueue) and `sim` (virtual time, from a seed).
//!
//! The shard calls, once per turn: [`Driver::poll`], then [`Driver::next`] until it is empty, then
//! [`Driver::send`] once per slice. A send never stays in flight: when the call returns every byte
//! was taken by the kernel or is reported short, so the lent slices are free again.
//!
//! To sleep: [`Driver::prepare_wait`], then [`Driver::has_more`]; only when that says no, wait for
//! an edge of [`Driver::wake_descriptor`], and forget that edge before the next [`Driver::poll`].
//! Then nothing that arrives in between is slept through.

mod clock;
#[allow(unsafe_code)] // the descriptor limit is a libc call
pub(crate) mod listen;
#[allow(unsafe_code)] // mio lends its own descriptor as a number only
pub(crate) mod mio;
pub(crate) mod sim;
mod table;
#[cfg(test)]
mod tests;
#[cfg(target_os = "linux")]
#[allow(unsafe_code)] // shares memory with the kernel
pub(crate) mod uring;
#[allow(unsafe_code)] // tokio registers descriptors on trust
pub(crate) mod wake;

use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::os::fd::{BorrowedFd, OwnedFd};

/// Names one link (one connection) of one driver. The generation makes a stale name miss.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct LinkId {
    pub(crate) index: u32,
    pub(crate) generation: u32,
}

/// What happened on the kernel's side.
#[derive(Debug)]
pub(crate) enum Event<'d> {
    /// A connection was accepted and is being read.
    Accepted { link: LinkId, peer: SocketAddr },
    /// Bytes arrived. The slice is the driver's, may be changed in place, and is lent until the
    /// next call of any method of the driver.
    Received { link: LinkId, bytes: &'d mut [u8] },
    /// The peer ended its side in order. The other direction may still be open. Nothing is read
    /// any more, so that a connection that breaks later shows in a send only.
    Ended { link: LinkId },
    /// The connection broke. Nothing more comes for it; [`Driver::close`] frees it.
    Failed { link: LinkId, error: io::Error },
    /// After a short send: the link takes bytes again, or broke, which the next send tells. Comes
    /// once, however many sends fell short before it.
    Writable { link: LinkId },
    /// [`Driver::detach`] is done: the link is gone, its descriptor and nothing else remains. All
    /// bytes read before were delivered as [`Event::Received`].
    Detached { link: LinkId, handoff: Handoff },
    /// Accepting failed (descriptors exhausted, say) and is suspended until
    /// [`Driver::resume_accepting`].
    AcceptFailed { error: io::Error },
}

/// A connection on its way to another shard or to another server on this thread.
#[derive(Debug)]
pub(crate) enum Handoff {
    /// A kernel descriptor.
    Fd(OwnedFd),
    /// A connection of the simulated network.
    #[cfg_attr(not(test), allow(dead_code, reason = "simulations are tests"))]
    Sim(u64),
}

/// The most that one [`SendOp`] may carry: far above any sane batch, below the kernel's own limit
/// (it would cut a send at 2 GiB without calling it short).
pub(crate) const SEND_BYTES_MAX: usize = 1 << 30;

/// One send of a batch.
#[derive(Debug, Clone, Copy)]
pub(crate) struct SendOp<'b> {
    pub(crate) link: LinkId,
    pub(crate) bytes: Bytes<'b>,
}

/// What one send carries.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Bytes<'b> {
    One(&'b [u8]),
    /// Parts that leave as if they were one, at most [`SEND_PARTS_MAX`].
    Parts(&'b [IoSlice<'b>]),
}

impl Bytes<'_> {
    /// Beyond what the contract allows.
    fn is_too_much(&self) -> bool {
        let parts = if let Self::Parts(parts) = self { parts.len() } else { 1 };
        parts > SEND_PARTS_MAX || self.len() > SEND_BYTES_MAX
    }

    fn len(&self) -> usize {
        match self {
            Self::One(bytes) => bytes.len(),
            Self::Parts(parts) => parts.iter().map(|part| part.len()).sum(),
        }
    }
}

/// Parts of one send: well below the kernel's 1 024.
pub(crate) const SEND_PARTS_MAX: usize = 64;

/// A send that did not take all its bytes.
#[derive(Debug)]
pub(crate) struct Short {
    /// Index of the [`SendOp`] in its batch.
    pub(crate) op: usize,
    /// Bytes taken, from the front.
    pub(crate) sent: usize,
    /// `None`: the link is full, and [`Event::Writable`] will follow. `Some`: the link is broken
    /// for writing; no event follows from this send.
    pub(crate) error: Option<io::Error>,
}

/// The contract between a shard and the kernel. See the module's text for the order of calls.
///
/// Calls that name a link which is gone (a stale generation) do nothing.
pub(crate) trait Driver {
    /// For the log line and for metrics.
    fn name(&self) -> &'static str;

    /// Milliseconds of a clock that never goes back. Its origin is arbitrary but the same for all
    /// drivers of one process (or of one simulation).
    fn now_ms(&self) -> u64;

    /// Collects what happened since the last call. Never blocks. An error here is fatal to the
    /// shard.
    fn poll(&mut self) -> io::Result<()>;

    /// The next collected event, or `None` when this turn's are used up. A driver limits what one
    /// turn may yield; [`Driver::has_more`] says whether it held something back.
    fn next(&mut self) -> Option<Event<'_>>;

    /// Whether [`Driver::poll`] would find something now, without waiting on
    /// [`Driver::wake_descriptor`].
    fn has_more(&mut self) -> bool;

    /// Hands everything still queued in the driver to the kernel, so that the thread may sleep.
    fn prepare_wait(&mut self) -> io::Result<()>;

    /// A descriptor that becomes readable (edge-triggered, never to be read by the host) when
    /// [`Driver::poll`] has something to collect. `None` for a driver without a kernel. A tokio
    /// host waits for it through [`wake::WakeEdge`].
    fn wake_descriptor(&self) -> Option<BorrowedFd<'_>>;

    /// Sends each op's bytes, at most one op per link in a batch. Ops that were not taken whole
    /// are pushed to `short`, in no particular order. Unknown links count as broken
    /// (`ErrorKind::NotConnected`). One op carries at most [`SEND_BYTES_MAX`] bytes in
    /// [`SEND_PARTS_MAX`] parts (`ErrorKind::InvalidInput`).
    fn send(&mut self, batch: &[SendOp<'_>], short: &mut Vec<Short>);

    /// Suspends (`false`) or resumes (`true`) reading. Bytes the driver has already taken from the
    /// kernel may still arrive after a suspension.
    fn set_reading(&mut self, link: LinkId, reading: bool);

    /// Ends our side in order: what was sent before is delivered, then end of stream.
    fn shutdown_write(&mut self, link: LinkId);

    /// Frees the link at once. No event for it follows.
    fn close(&mut self, link: LinkId);

    /// Gives the connection up without closing it; [`Event::Detached`] follows (or
    /// [`Event::Failed`] first, and then no `Detached`; a link that failed before stays). An end of
    /// the peer's side is not reported here but by the next owner. No send is owed a `Writable`
    /// any more, and none is taken between the call and the event.
    fn detach(&mut self, link: LinkId);

    /// Takes over a connection that another driver gave up, and reads it. Any stream socket will
    /// do, a half of a socket pair too.
    fn attach(&mut self, handoff: Handoff) -> io::Result<LinkId>;

    /// Stops accepting for good and closes the listener. Connections that the kernel accepted
    /// meanwhile are closed.
    fn stop_accepting(&mut self);

    /// Accepts again after [`Event::AcceptFailed`].
    fn resume_accepting(&mut self);
}
