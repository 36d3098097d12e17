//! The readiness driver: epoll on Linux, kqueue on macOS and the BSDs, both through mio.
//!
//! It runs wherever io_uring is missing or forbidden, which in containers is the rule, so it is a
//! main path and not an emergency. It registers each link once, edge-triggered, for both
//! directions: an idle link costs no call, nor does a link that waits until it can be written.
//!
//! Edge-triggered means: a link stays readable until a read says that the kernel's buffer is empty,
//! whether we read it in this turn or not. `Link::readable` remembers that. What has to be read
//! waits in `ready`, each link once, and gets one read per turn, so that a fast sender delays its
//! neighbours by one buffer and no more.
//!
//! Tests: the contract suite in `tests`.

use std::collections::VecDeque;
use std::io::{self, IoSlice, Read};
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use mio::event::Event as Readiness;
use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token};
use smallvec::SmallVec;
use socket2::SockRef;

use super::table::Table;
use super::{Bytes, Driver, Event, Handoff, LinkId, SEND_PARTS_MAX, SendOp, Short, clock, listen};

/// The shared read buffer. One read takes at most this much, so it is also what one link may have
/// of a turn.
const READ_BUFFER_BYTES: usize = 64 * 1024;

/// Readiness notices taken from the kernel in one turn.
const EVENTS_PER_TURN: usize = 1024;

/// Connections accepted in one turn, so that a connection storm starves nobody.
const ACCEPTS_PER_TURN: u32 = 128;

const LISTENER: Token = Token(usize::MAX);

#[cfg(target_vendor = "apple")]
const SEND_FLAGS: libc::c_int = libc::MSG_DONTWAIT; // SO_NOSIGPIPE is set on each socket instead
#[cfg(not(target_vendor = "apple"))]
const SEND_FLAGS: libc::c_int = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;

/// The driver over mio.
#[derive(Debug)]
pub(crate) struct Mio {
    poll: Poll,
    events: Events,
    acceptor: Option<Acceptor>,
    links: Table<Link>,
    /// Links with something to read, each at most once.
    ready: VecDeque<LinkId>,
    /// Links that take bytes again after a short send.
    writable: VecDeque<LinkId>,
    /// Links to be given up.
    leaving: VecDeque<LinkId>,
    buffer: Box<[u8]>,
    /// What of `ready` this turn may still read.
    reads_left: usize,
    accepts_left: u32,
    /// The last poll filled `events`, so the kernel may hold more.
    events_were_full: bool,
}

#[derive(Debug)]
struct Acceptor {
    listener: mio::net::TcpListener,
    /// Accept until the kernel says that nobody waits.
    readable: bool,
    /// After a failure, until the shard asks again.
    suspended: bool,
}

#[derive(Debug)]
struct Link {
    fd: OwnedFd,
    reading: Reading,
    /// An edge came and the kernel's buffer was not seen empty since.
    readable: bool,
    /// Stands in `Mio::ready`.
    queued: bool,
    /// The peer ended its side: read on until zero, whatever a short read suggests.
    hung_up: bool,
    /// A send was short and `Writable` is owed.
    wants_write: bool,
    /// Stands in `Mio::leaving`.
    leaving: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reading {
    On,
    Paused,
    /// The peer ended its side, and this was reported.
    Ended,
    /// The link broke, and this was reported.
    Failed,
}

/// What `next` found, before the buffer is lent.
enum Step {
    Received { link: LinkId, len: usize },
    Ended { link: LinkId },
    Failed { link: LinkId, error: io::Error },
}

impl Mio {
    /// A driver that accepts from `listener`, or only serves attached links without one.
    pub(crate) fn new(listener: Option<TcpListener>) -> io::Result<Self> {
        let poll = Poll::new()?;
        let acceptor = match listener {
            Some(listener) => {
                listener.set_nonblocking(true)?;
                let mut listener = mio::net::TcpListener::from_std(listener);
                poll.registry().register(&mut listener, LISTENER, Interest::READABLE)?;
                Some(Acceptor { listener, readable: true, suspended: false })
            }
            None => None,
        };
        Ok(Self {
            poll,
            events: Events::with_capacity(EVENTS_PER_TURN),
            acceptor,
            links: Table::new(),
            ready: VecDeque::new(),
            writable: VecDeque::new(),
            leaving: VecDeque::new(),
            buffer: vec![0; READ_BUFFER_BYTES].into_boxed_slice(),
            reads_left: 0,
            accepts_left: ACCEPTS_PER_TURN,
            events_were_full: false,
        })
    }

    fn insert(&mut self, fd: OwnedFd) -> io::Result<LinkId> {
        let raw = fd.as_raw_fd();
        let link = self.links.insert(Link {
            fd,
            reading: Reading::On,
            readable: false,
            queued: false,
            hung_up: false,
            wants_write: false,
            leaving: false,
        });
        // A token needs no generation: notices are used up inside `poll`, in which no link dies.
        let token = Token(link.index as usize);
        let both = Interest::READABLE | Interest::WRITABLE;
        if let Err(error) = self.poll.registry().register(&mut SourceFd(&raw), token, both) {
            self.links.remove(link);
            return Err(error);
        }
        Ok(link)
    }

    /// Removes the link and hands its descriptor over, no longer watched.
    fn take(&mut self, link: LinkId) -> Option<OwnedFd> {
        let state = self.links.remove(link)?;
        // Fails only for a descriptor that was never registered; there is nothing to mend then.
        let _ = self.poll.registry().deregister(&mut SourceFd(&state.fd.as_raw_fd()));
        Some(state.fd)
    }

    fn next_writable(&mut self) -> Option<LinkId> {
        while let Some(id) = self.writable.pop_front() {
            let Some(link) = self.links.get(id) else { continue };
            if link.reading != Reading::Failed && !link.leaving {
                return Some(id);
            }
        }
        None
    }

    fn next_leaving(&mut self) -> Option<(LinkId, OwnedFd)> {
        while let Some(id) = self.leaving.pop_front() {
            if let Some(fd) = self.take(id) {
                return Some((id, fd));
            }
        }
        None
    }

    fn next_accepted(&mut self) -> Option<Result<(LinkId, SocketAddr), io::Error>> {
        loop {
            let acceptor = self.acceptor.as_mut()?;
            if self.accepts_left == 0 || !acceptor.readable || acceptor.suspended {
                return None;
            }
            self.accepts_left -= 1;
            let failure = match acceptor.listener.accept() {
                Ok((stream, peer)) => {
                    let fd = OwnedFd::from(stream);
                    adopt(&fd);
                    match self.insert(fd) {
                        Ok(link) => return Some(Ok((link, peer))),
                        Err(error) => error,
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    acceptor.readable = false;
                    return None;
                }
                Err(error) if listen::accept_error_is_passing(&error) => continue,
                Err(error) => error,
            };
            if let Some(acceptor) = &mut self.acceptor {
                acceptor.suspended = true;
            }
            return Some(Err(failure));
        }
    }

    fn next_read(&mut self) -> Option<Step> {
        while self.reads_left > 0 {
            self.reads_left -= 1;
            let id = self.ready.pop_front()?;
            let Some(link) = self.links.get_mut(id) else { continue };
            link.queued = false;
            if link.reading != Reading::On || link.leaving {
                continue; // `readable` stays noted for when reading resumes
            }
            match (&*SockRef::from(&link.fd)).read(&mut self.buffer) {
                Ok(0) => {
                    link.reading = Reading::Ended;
                    return Some(Step::Ended { link: id });
                }
                Ok(len) => {
                    // A short read emptied the kernel's buffer, and whatever comes later raises a
                    // new edge. Only the end may have come with an edge that is used up already.
                    if len == self.buffer.len() || link.hung_up {
                        link.queued = true;
                        self.ready.push_back(id);
                    } else {
                        link.readable = false;
                    }
                    return Some(Step::Received { link: id, len });
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => link.readable = false,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {
                    link.queued = true;
                    self.ready.push_back(id);
                }
                Err(error) => {
                    link.reading = Reading::Failed;
                    return Some(Step::Failed { link: id, error });
                }
            }
        }
        None
    }
}

impl Driver for Mio {
    fn name(&self) -> &'static str {
        "mio"
    }

    fn now_ms(&self) -> u64 {
        clock::monotonic_ms()
    }

    fn poll(&mut self) -> io::Result<()> {
        match self.poll.poll(&mut self.events, Some(Duration::ZERO)) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::Interrupted => self.events.clear(),
            Err(error) => return Err(error),
        }
        let mut noticed = 0;
        for notice in &self.events {
            noticed += 1;
            if notice.token() == LISTENER {
                if let Some(acceptor) = &mut self.acceptor {
                    acceptor.readable = true;
                }
            } else if let Some(id) = self.links.occupant(notice.token().0)
                && let Some(link) = self.links.get_mut(id)
            {
                link.note(notice);
                if link.readable && !link.queued && link.reading == Reading::On {
                    link.queued = true;
                    self.ready.push_back(id);
                }
                if link.wants_write && is_writable(notice) {
                    link.wants_write = false;
                    self.writable.push_back(id);
                }
            }
        }
        self.events_were_full = noticed == EVENTS_PER_TURN;
        self.reads_left = self.ready.len();
        self.accepts_left = ACCEPTS_PER_TURN;
        Ok(())
    }

    fn next(&mut self) -> Option<Event<'_>> {
        if let Some(link) = self.next_writable() {
            return Some(Event::Writable { link });
        }
        if let Some((link, fd)) = self.next_leaving() {
            return Some(Event::Detached { link, handoff: Handoff::Fd(fd) });
        }
        match self.next_accepted() {
            Some(Ok((link, peer))) => return Some(Event::Accepted { link, peer }),
            Some(Err(error)) => return Some(Event::AcceptFailed { error }),
            None => {}
        }
        Some(match self.next_read()? {
            Step::Received { link, len } => {
                Event::Received { link, bytes: &mut self.buffer[..len] }
            }
            Step::Ended { link } => Event::Ended { link },
            Step::Failed { link, error } => Event::Failed { link, error },
        })
    }

    fn has_more(&mut self) -> bool {
        self.events_were_full
            || !self.ready.is_empty()
            || !self.writable.is_empty()
            || !self.leaving.is_empty()
            || self.acceptor.as_ref().is_some_and(|a| a.readable && !a.suspended)
    }

    fn prepare_wait(&mut self) -> io::Result<()> {
        Ok(()) // nothing is ever queued towards the kernel
    }

    fn wake_descriptor(&self) -> Option<BorrowedFd<'_>> {
        // SAFETY: the descriptor is the poll's own, open for as long as `self` is borrowed.
        Some(unsafe { BorrowedFd::borrow_raw(self.poll.as_raw_fd()) })
    }

    fn send(&mut self, batch: &[SendOp<'_>], short: &mut Vec<Short>) {
        for (op, SendOp { link, bytes }) in batch.iter().enumerate() {
            let Some(state) = self.links.get_mut(*link).filter(|state| !state.leaving) else {
                let error = Some(io::ErrorKind::NotConnected.into());
                short.push(Short { op, sent: 0, error });
                continue;
            };
            if bytes.is_too_much() {
                let error = Some(io::ErrorKind::InvalidInput.into());
                short.push(Short { op, sent: 0, error });
                continue;
            }
            let (sent, refusal) = match *bytes {
                Bytes::One(bytes) => send_all(&state.fd, bytes),
                Bytes::Parts(parts) => send_parts(&state.fd, parts),
            };
            match refusal {
                None => {}
                Some(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    state.wants_write = true;
                    short.push(Short { op, sent, error: None });
                }
                Some(error) => short.push(Short { op, sent, error: Some(error) }),
            }
        }
    }

    fn set_reading(&mut self, link: LinkId, reading: bool) {
        let Some(state) = self.links.get_mut(link) else { return };
        match (state.reading, reading) {
            (Reading::On, false) => state.reading = Reading::Paused,
            (Reading::Paused, true) => {
                state.reading = Reading::On;
                if state.readable && !state.queued {
                    state.queued = true;
                    self.ready.push_back(link);
                }
            }
            _ => {}
        }
    }

    fn shutdown_write(&mut self, link: LinkId) {
        if let Some(state) = self.links.get(link) {
            // Fails when the peer is gone, which a read or a send will tell.
            let _ = SockRef::from(&state.fd).shutdown(std::net::Shutdown::Write);
        }
    }

    fn close(&mut self, link: LinkId) {
        drop(self.take(link));
    }

    fn detach(&mut self, link: LinkId) {
        let Some(state) = self.links.get_mut(link) else { return };
        if state.reading != Reading::Failed && !state.leaving {
            state.leaving = true;
            self.leaving.push_back(link);
        }
    }

    fn attach(&mut self, handoff: Handoff) -> io::Result<LinkId> {
        let Handoff::Fd(fd) = handoff else {
            return Err(io::ErrorKind::InvalidInput.into());
        };
        SockRef::from(&fd).set_nonblocking(true)?;
        adopt(&fd);
        self.insert(fd)
    }

    fn stop_accepting(&mut self) {
        if let Some(mut acceptor) = self.acceptor.take() {
            // Closing it right after unregisters it anyway.
            let _ = self.poll.registry().deregister(&mut acceptor.listener);
        }
    }

    fn resume_accepting(&mut self) {
        if let Some(acceptor) = &mut self.acceptor {
            acceptor.suspended = false;
            // What came meanwhile raised its edge already.
            acceptor.readable = true;
        }
    }
}

impl Link {
    fn note(&mut self, notice: &Readiness) {
        let hung_up = notice.is_read_closed() || notice.is_error();
        self.hung_up |= hung_up;
        self.readable |= hung_up || notice.is_readable();
    }
}

/// A broken link counts as writable: the send that follows learns the reason.
fn is_writable(notice: &Readiness) -> bool {
    notice.is_writable() || notice.is_write_closed() || notice.is_error()
}

/// Sends until everything is taken or the kernel refuses. Trying again after a partial send is what
/// makes the kernel promise an edge. Answers the bytes taken and the refusal, if any.
fn send_all(fd: &OwnedFd, bytes: &[u8]) -> (usize, Option<io::Error>) {
    let socket = SockRef::from(fd);
    let mut sent = 0;
    while sent < bytes.len() {
        match socket.send_with_flags(&bytes[sent..], SEND_FLAGS) {
            Ok(taken) => sent += taken,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return (sent, Some(error)),
        }
    }
    (sent, None)
}

/// [`send_all`] of several parts.
fn send_parts(fd: &OwnedFd, parts: &[IoSlice<'_>]) -> (usize, Option<io::Error>) {
    let socket = SockRef::from(fd);
    let mut parts: SmallVec<[IoSlice<'_>; SEND_PARTS_MAX]> = parts.iter().copied().collect();
    let mut left = &mut parts[..];
    // Empty parts in front would make a send of nothing look like no progress.
    IoSlice::advance_slices(&mut left, 0);
    let mut sent = 0;
    while !left.is_empty() {
        match socket.send_vectored_with_flags(left, SEND_FLAGS) {
            Ok(taken) => {
                sent += taken;
                IoSlice::advance_slices(&mut left, taken);
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return (sent, Some(error)),
        }
    }
    (sent, None)
}

/// Sets on a new socket what Linux has already: it inherits no-delay from the listener, and its
/// sends carry `MSG_NOSIGNAL`. Failures leave a slower but working link.
fn adopt(fd: &OwnedFd) {
    #[cfg(not(target_os = "linux"))]
    let _ = SockRef::from(fd).set_tcp_nodelay(true);
    #[cfg(target_vendor = "apple")]
    let _ = SockRef::from(fd).set_nosigpipe(true);
    let _ = fd;
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::os::unix::net::UnixStream;

    use super::*;

    #[test]
    fn notices_beyond_one_turn_are_announced() {
        let links = EVENTS_PER_TURN + 50;
        if listen::raise_descriptor_limit().0 < 4 * links as u64 {
            return; // no room for this many here
        }
        let mut driver = Mio::new(None).unwrap();
        let mut peers = Vec::new();
        for _ in 0..links {
            let (ours, mut theirs) = UnixStream::pair().unwrap();
            theirs.write_all(b"x").unwrap();
            driver.attach(Handoff::Fd(ours.into())).unwrap();
            peers.push(theirs);
        }
        let mut heard = 0;
        loop {
            driver.poll().unwrap();
            while let Some(Event::Received { .. }) = driver.next() {
                heard += 1;
            }
            if !driver.has_more() {
                break; // a host would sleep now
            }
        }
        assert_eq!(heard, links);
    }
}
