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
mod identity;
mod ring;
mod setup;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::io;
use std::net::{Shutdown, SocketAddr, TcpListener};
use std::os::fd::{AsFd, BorrowedFd, FromRawFd, OwnedFd};

use socket2::SockRef;

use self::buffers::Buffers;
use self::identity::{Identity, Op};
use self::ring::{Completion, Ring};
pub(crate) use self::setup::{Mode, Unsupported};
use super::table::Table;
use super::{Driver, Event, Handoff, LinkId, SEND_BYTES_MAX, SendOp, Short, clock, listen};

/// Completions taken into one turn. More wait in the queue, and `has_more` says so.
const COMPLETIONS_PER_TURN: usize = 1024;

// A send's length must fit the kernel's 32 bits.
const _: () = assert!(SEND_BYTES_MAX <= u32::MAX as usize);

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

/// What `next` found, before the buffer is lent.
enum Step {
    Accepted { link: LinkId, peer: SocketAddr },
    AcceptFailed { error: io::Error },
    Received { link: LinkId, buffer: u16, len: usize },
    Ended { link: LinkId },
    Failed { link: LinkId, error: io::Error },
    Writable { link: LinkId },
    Detached { link: LinkId, fd: OwnedFd },
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

    fn arm_accept(&mut self) {
        if let Some(acceptor) = &mut self.acceptor
            && !(acceptor.armed || acceptor.suspended || acceptor.stopping)
        {
            acceptor.armed = true;
            self.ring.accept(acceptor.listener.as_fd());
        }
    }

    fn insert(&mut self, fd: OwnedFd) -> LinkId {
        let id = self.links.insert(Link {
            fd,
            reading: Reading::On,
            receive: Request::None,
            writable: Request::None,
            fate: Fate::Stays,
            starved: false,
        });
        self.arm_receive(id);
        id
    }

    /// The link, unless it was closed.
    fn open_link(&mut self, id: LinkId) -> Option<&mut Link> {
        self.links.get_mut(id).filter(|link| link.fate != Fate::Closes)
    }

    /// Receives again if the link is to be read and nothing stands against it.
    fn arm_receive(&mut self, id: LinkId) {
        if let Some(link) = self.links.get_mut(id)
            && (link.fate, link.reading, link.receive) == (Fate::Stays, Reading::On, Request::None)
            && !link.starved
        {
            link.receive = Request::InFlight;
            self.ring.receive(link.fd.as_fd(), Identity::of(Op::Receive, id));
        }
    }

    fn cancel_receive(&mut self, id: LinkId) {
        if let Some(link) = self.links.get_mut(id)
            && link.receive == Request::InFlight
        {
            link.receive = Request::Cancelled;
            self.ring.cancel(Identity::of(Op::Receive, id));
        }
    }

    /// Starts to take the link out of the kernel's hands.
    fn leave(&mut self, id: LinkId, fate: Fate) {
        let Some(link) = self.links.get_mut(id) else { return };
        link.fate = fate;
        if link.writable == Request::InFlight {
            link.writable = Request::Cancelled;
            self.ring.cancel(Identity::of(Op::Writable, id));
        }
        self.cancel_receive(id);
    }

    /// Lets a leaving link go if the kernel has nothing of it any more.
    fn let_go(&mut self, id: LinkId) -> Option<Step> {
        let link = self.links.get(id)?;
        if (link.receive, link.writable) != (Request::None, Request::None) {
            return None;
        }
        match link.fate {
            Fate::Stays => None,
            Fate::Closes => {
                self.links.remove(id);
                None
            }
            Fate::Detaches => {
                let fd = self.links.remove(id)?.fd;
                Some(Step::Detached { link: id, fd })
            }
        }
    }

    /// What follows from a completion.
    fn digest(&mut self, done: Completion) -> Option<Step> {
        let id = done.identity.link;
        match done.identity.op {
            Op::Accept => self.digest_accept(done),
            Op::Receive => self.digest_receive(id, done),
            Op::Writable => {
                let link = self.links.get_mut(id)?;
                link.writable = Request::None;
                match link.fate {
                    Fate::Stays if link.reading != Reading::Failed => {
                        Some(Step::Writable { link: id })
                    }
                    _ => self.let_go(id),
                }
            }
            Op::Depart => self.let_go(id),
            // `send` takes its completions itself, and a cancellation only ever says that its
            // request had ended already.
            Op::Send | Op::Cancel => None,
        }
    }

    fn digest_accept(&mut self, done: Completion) -> Option<Step> {
        // SAFETY: a successful accept gives us a descriptor that nobody else knows.
        let accepted = (done.result >= 0).then(|| unsafe { OwnedFd::from_raw_fd(done.result) });
        let acceptor = self.acceptor.as_mut()?;
        acceptor.armed = done.goes_on();
        if acceptor.stopping {
            if !acceptor.armed {
                self.acceptor = None; // closes the listener
            }
            return None;
        }
        let step = match accepted {
            // No address: it was reset before we came to it.
            Some(fd) => {
                peer_address(&fd).map(|peer| Step::Accepted { link: self.insert(fd), peer })
            }
            None => {
                let error = io::Error::from_raw_os_error(-done.result);
                if listen::accept_error_is_passing(&error) {
                    None
                } else {
                    acceptor.suspended = true;
                    Some(Step::AcceptFailed { error })
                }
            }
        };
        self.arm_accept();
        step
    }

    fn digest_receive(&mut self, id: LinkId, done: Completion) -> Option<Step> {
        let Some(link) = self.links.get_mut(id) else {
            debug_assert!(false, "a slot was freed with its receive in flight");
            return None;
        };
        if !done.goes_on() {
            link.receive = Request::None;
        }
        if let Some(buffer) = done.buffer() {
            match usize::try_from(done.result) {
                Ok(len) if len > 0 && link.fate != Fate::Closes => {
                    if !done.goes_on() {
                        self.after_last_receive(id);
                    }
                    return Some(Step::Received { link: id, buffer, len });
                }
                _ => self.buffers.give_back(buffer),
            }
        }
        if done.goes_on() {
            return None;
        }
        let Some(link) = self.links.get_mut(id).filter(|link| link.fate == Fate::Stays) else {
            return self.end_leaving_receive(id, done.result);
        };
        match -done.result {
            0 => {
                link.reading = Reading::Ended;
                return Some(Step::Ended { link: id });
            }
            libc::ENOBUFS => {
                link.starved = true;
                self.starved.push_back(id);
            }
            libc::ECANCELED | libc::EAGAIN | libc::EINTR => self.arm_receive(id),
            code => {
                link.reading = Reading::Failed;
                return Some(Step::Failed { link: id, error: receive_error(code) });
            }
        }
        None
    }

    /// The receive of a link that leaves has ended. An end of stream stays in the kernel for the
    /// next owner; an error would not, and keeps the link here.
    fn end_leaving_receive(&mut self, id: LinkId, result: i32) -> Option<Step> {
        let link = self.links.get_mut(id)?;
        let passing = [0, libc::ENOBUFS, libc::ECANCELED, libc::EAGAIN, libc::EINTR];
        if link.fate == Fate::Detaches && !passing.contains(&-result) {
            link.fate = Fate::Stays;
            link.reading = Reading::Failed;
            return Some(Step::Failed { link: id, error: receive_error(-result) });
        }
        self.let_go(id)
    }

    /// The last completion of a receive brought bytes. What follows comes after these.
    fn after_last_receive(&mut self, id: LinkId) {
        match self.links.get(id).map(|link| link.fate) {
            Some(Fate::Stays) => self.arm_receive(id),
            Some(_) => self.ring.note(Identity::of(Op::Depart, id), true),
            None => {}
        }
    }

    /// Lets starved links receive again, now that this turn's buffers are back. Not more links than
    /// there are buffers, or the last would starve again at once, and behind the others.
    fn feed_starved(&mut self) {
        for _ in 0..self.buffers.count() {
            let Some(id) = self.starved.pop_front() else { break };
            if let Some(link) = self.links.get_mut(id) {
                link.starved = false;
                self.arm_receive(id);
            }
        }
    }

    fn take_back(&mut self) {
        if let Some(buffer) = self.lent.take() {
            self.buffers.give_back(buffer);
        }
    }

    /// Queues sends from `from` on until the ring is full. Answers where it stopped.
    fn queue_sends(&mut self, batch: &[SendOp<'_>], from: usize, short: &mut Vec<Short>) -> usize {
        for (op, SendOp { link, bytes }) in batch.iter().enumerate().skip(from) {
            let refusal = match self.links.get(*link).filter(|link| link.fate == Fate::Stays) {
                _ if bytes.len() > SEND_BYTES_MAX => io::ErrorKind::InvalidInput,
                Some(_) if bytes.is_empty() => continue,
                Some(state) => {
                    // SAFETY: `batch` is borrowed by `send`, which submits before it returns.
                    if !unsafe { self.ring.try_send(state.fd.as_fd(), bytes, op as u32) } {
                        return op;
                    }
                    continue;
                }
                None => io::ErrorKind::NotConnected,
            };
            short.push(Short { op, sent: 0, error: Some(refusal.into()) });
        }
        batch.len()
    }

    /// After a short send: ask once to be told of room.
    fn await_writable(&mut self, id: LinkId) {
        if let Some(link) = self.open_link(id)
            && link.writable == Request::None
        {
            link.writable = Request::InFlight;
            let link = self.links.get(id);
            if let Some(link) = link {
                self.ring.poll_writable(link.fd.as_fd(), Identity::of(Op::Writable, id));
            }
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
                    None => Event::Failed { link, error: receive_error(libc::EIO) },
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
        let mut from = 0;
        while from < batch.len() {
            let to = self.queue_sends(batch, from, short);
            let begin = short.len();
            match self.ring.submit().and_then(|()| self.ring.take_sends()) {
                Ok(sends) => short.extend(sends.filter_map(|(op, result)| {
                    let op = op as usize;
                    fell_short(op, batch.get(op)?.bytes.len(), result)
                })),
                Err(_) => {
                    // The ring is broken, which the next `poll` tells.
                    short.extend((from..batch.len()).map(|op| Short {
                        op,
                        sent: 0,
                        error: Some(io::ErrorKind::BrokenPipe.into()),
                    }));
                    return;
                }
            }
            for one in &short[begin..] {
                if one.error.is_none() {
                    self.await_writable(batch[one.op].link);
                }
            }
            from = to;
        }
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

fn fell_short(op: usize, len: usize, result: i32) -> Option<Short> {
    let Ok(sent) = usize::try_from(result) else {
        let error = match -result {
            libc::EAGAIN | libc::EINTR => None,
            code => Some(io::Error::from_raw_os_error(code)),
        };
        return Some(Short { op, sent: 0, error });
    };
    (sent < len).then_some(Short { op, sent, error: None })
}

fn receive_error(code: i32) -> io::Error {
    io::Error::from_raw_os_error(code)
}

fn peer_address(fd: &OwnedFd) -> Option<SocketAddr> {
    SockRef::from(fd).peer_addr().ok()?.as_socket()
}

impl std::fmt::Debug for Uring {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Uring").field("mode", &self.mode).finish_non_exhaustive()
    }
}
