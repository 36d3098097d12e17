//! The completion driver: one io_uring per shard, made on the shard's own thread.
//!
//! Reads are multishot receives into buffers of the driver's, so an idle link costs a slot here and
//! a request in the kernel, no buffer and no call. Writes finish inside the call that submits them
//! (see [`ring`]), so nothing that the shard owns is ever lent to the kernel beyond a call.
//!
//! A link whose receive is in flight cannot simply go: its request is cancelled, and only the
//! request's last completion frees the slot. Until then the link leaves:
//!
//! ```text
//!            close                       last completion
//!  Stays ───────────────▶ Closes ─────────────────────────▶ descriptor closed, slot free
//!    │                      ▲
//!    │ detach               │ close
//!    └──────▶ Detaches ─────┘
//!                 │ last completion
//!                 └──────────────────▶ Detached, slot free
//! ```
//!
//! Tests: the contract suite in `io::tests`; identities, buffers and set-up have their own.

mod buffers;
mod digest;
mod identity;
mod life;
mod ring;
mod send;
mod setup;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::io;
use std::net::{Shutdown, TcpListener};
use std::os::fd::{BorrowedFd, OwnedFd};

use socket2::SockRef;

use self::buffers::Buffers;
use self::digest::Step;
use self::identity::{Identity, Op};
use self::ring::Ring;
pub(crate) use self::setup::{Mode, Unsupported};
use super::table::Table;
use super::{Driver, Event, Handoff, LinkId, SendOp, Short, clock};

/// Completions taken into one turn. More wait in the queue, and `has_more` says so.
const COMPLETIONS_PER_TURN: usize = 1024;

/// Sizes of the ring. Memory per shard: 4 MiB of buffers (touched as needed), 64 B per submission,
/// 16 B per completion.
#[derive(Debug, Clone)]
pub(crate) struct Config {
    /// Requests handed over in one call, at most: the slice in which a batch is sent.
    pub(crate) submissions: u32,
    /// Completions the kernel can queue; at least as many as submissions.
    pub(crate) completions: u32,
    /// Receive buffers; a power of two.
    pub(crate) buffers: u16,
    /// Smaller ones cut bursts apart that would be answered as one.
    pub(crate) buffer_bytes: u32,
    /// Only this mode, or the best there is.
    pub(crate) mode: Option<Mode>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            submissions: 512,
            completions: 16 * 1024,
            buffers: 256,
            buffer_bytes: 16 * 1024,
            mode: None,
        }
    }
}

/// The driver over io_uring.
pub(crate) struct Uring {
    ring: Ring,
    mode: Mode,
    buffers: Buffers,
    /// The buffer that `next` has lent.
    lent: Option<u16>,
    links: Table<Link>,
    /// Links whose receive found no buffer, in the order in which they will be served again.
    starved: VecDeque<LinkId>,
    acceptor: Option<Acceptor>,
}

struct Acceptor {
    listener: TcpListener,
    armed: bool,
    suspended: bool,
    stopping: bool,
}

struct Link {
    fd: OwnedFd,
    reading: Reading,
    receive: Request,
    writable: Request,
    fate: Fate,
    /// Stands in `Uring::starved`.
    starved: bool,
}

// An idle link's user memory, its generation included.
const _: () = assert!(size_of::<Option<Link>>() + size_of::<u32>() <= 32);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reading {
    On,
    Paused,
    Ended,
    Failed,
}

/// A request that the kernel may have of a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Request {
    None,
    InFlight,
    /// In flight until its last completion.
    Cancelled,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Stays,
    Detaches,
    Closes,
}

/// Whether io_uring works here, found out by using it, and how. For the server to choose a driver
/// before it starts its shards.
pub(crate) fn supported() -> Result<Mode, Unsupported> {
    Uring::new(None, &Config::default()).map(|driver| driver.mode)
}

impl Uring {
    /// A driver that accepts from `listener`, or only serves attached links without one. Must be
    /// called on the thread that will use it.
    pub(crate) fn new(listener: Option<TcpListener>, config: &Config) -> Result<Self, Unsupported> {
        let (ring, buffers, mode) = setup::set_up(config)?;
        let mut driver = Self {
            ring,
            mode,
            buffers,
            lent: None,
            links: Table::new(),
            starved: VecDeque::new(),
            acceptor: None,
        };
        if let Some(listener) = listener {
            // Some kernels answer EAGAIN for a listener that must not block, instead of waiting.
            listener.set_nonblocking(false).map_err(Unsupported::Listener)?;
            driver.acceptor =
                Some(Acceptor { listener, armed: false, suspended: false, stopping: false });
            driver.arm_accept();
        }
        Ok(driver)
    }

    fn take_back(&mut self) {
        if let Some(buffer) = self.lent.take() {
            self.buffers.give_back(buffer);
        }
    }
}

impl Driver for Uring {
    fn name(&self) -> &'static str {
        match self.mode {
            Mode::Deferred => "io_uring",
            Mode::Cooperative => "io_uring (cooperative)",
        }
    }

    fn now_ms(&self) -> u64 {
        clock::monotonic_ms()
    }

    fn poll(&mut self) -> io::Result<()> {
        self.take_back();
        self.ring.collect(COMPLETIONS_PER_TURN)
    }

    fn next(&mut self) -> Option<Event<'_>> {
        self.take_back();
        let step = loop {
            let Some(done) = self.ring.pop() else {
                self.feed_starved();
                return None;
            };
            if let Some(step) = self.digest(done) {
                break step;
            }
        };
        Some(match step {
            Step::Received { link, buffer, len } => {
                self.lent = Some(buffer);
                match self.buffers.filled(buffer, len) {
                    Some(bytes) => Event::Received { link, bytes },
                    None => Event::Failed { link, error: io::ErrorKind::InvalidData.into() },
                }
            }
            Step::Accepted { link, peer } => Event::Accepted { link, peer },
            Step::AcceptFailed { error } => Event::AcceptFailed { error },
            Step::Ended { link } => Event::Ended { link },
            Step::Failed { link, error } => Event::Failed { link, error },
            Step::Writable { link } => Event::Writable { link },
            Step::Detached { link, fd } => Event::Detached { link, handoff: Handoff::Fd(fd) },
        })
    }

    fn has_more(&mut self) -> bool {
        // Starved links that were not fed yet have nothing in flight that could wake the host.
        self.ring.has_more() || !self.starved.is_empty()
    }

    fn prepare_wait(&mut self) -> io::Result<()> {
        self.take_back();
        self.ring.submit()
    }

    fn wake_descriptor(&self) -> Option<BorrowedFd<'_>> {
        Some(self.ring.wake())
    }

    fn send(&mut self, batch: &[SendOp<'_>], short: &mut Vec<Short>) {
        self.take_back();
        self.send_batch(batch, short);
    }

    fn set_reading(&mut self, link: LinkId, reading: bool) {
        let Some(state) = self.open_link(link) else { return };
        match (state.reading, reading) {
            (Reading::On, false) => {
                state.reading = Reading::Paused;
                self.cancel_receive(link);
            }
            (Reading::Paused, true) => {
                state.reading = Reading::On;
                // If the old receive is still being cancelled, its end arms the new one.
                self.arm_receive(link);
            }
            _ => {}
        }
    }

    fn shutdown_write(&mut self, link: LinkId) {
        if let Some(state) = self.open_link(link) {
            // Fails when the peer is gone, which a receive or a send will tell.
            let _ = SockRef::from(&state.fd).shutdown(Shutdown::Write);
        }
    }

    fn close(&mut self, link: LinkId) {
        if self.open_link(link).is_some() {
            self.leave(link, Fate::Closes);
            self.let_go(link);
        }
    }

    fn detach(&mut self, link: LinkId) {
        let Some(state) = self.open_link(link) else { return };
        if state.fate == Fate::Stays && state.reading != Reading::Failed {
            let idle = (state.receive, state.writable) == (Request::None, Request::None);
            self.leave(link, Fate::Detaches);
            if idle {
                // Behind bytes that were copied out but not yielded yet.
                self.ring.note(Identity::of(Op::Depart, link), false);
            }
        }
    }

    fn attach(&mut self, handoff: Handoff) -> io::Result<LinkId> {
        let Handoff::Fd(fd) = handoff else {
            return Err(io::ErrorKind::InvalidInput.into());
        };
        // No matter here, but the next owner may count on it.
        SockRef::from(&fd).set_nonblocking(true)?;
        Ok(self.insert(fd))
    }

    fn stop_accepting(&mut self) {
        let Some(acceptor) = &mut self.acceptor else { return };
        if !acceptor.armed {
            self.acceptor = None;
        } else if !acceptor.stopping {
            acceptor.stopping = true;
            self.ring.cancel(Identity::indexed(Op::Accept, 0));
        }
    }

    fn resume_accepting(&mut self) {
        if let Some(acceptor) = &mut self.acceptor {
            acceptor.suspended = false;
            self.arm_accept();
        }
    }
}

impl Drop for Uring {
    /// Stop, wait for what is in flight, free. The kernel writes to our buffers until the last
    /// receive has ended, even after the ring was closed.
    fn drop(&mut self) {
        self.take_back();
        let links: Vec<LinkId> = self.links.iter().map(|(id, _)| id).collect();
        for id in links {
            self.close(id);
        }
        self.stop_accepting();
        // Each wait yields something or times out; only time-outs count against the kernel.
        let mut timeouts = 0;
        loop {
            while let Some(done) = self.ring.pop() {
                drop(self.digest(done));
            }
            if self.links.len() == 0 && self.acceptor.is_none() {
                return;
            }
            if !self.ring.wait_briefly() {
                timeouts += 1;
                if timeouts == DROP_TIMEOUTS {
                    break;
                }
            }
        }
        self.buffers.leak();
    }
}

/// How often the end waits in vain before it gives the buffers up as lost.
const DROP_TIMEOUTS: u32 = 50;

impl std::fmt::Debug for Uring {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Uring").field("mode", &self.mode).finish_non_exhaustive()
    }
}
