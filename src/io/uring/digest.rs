//! From a completion to what the shard is told of it, if anything.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{FromRawFd, OwnedFd};

use socket2::SockRef;

use super::identity::{Identity, Op};
use super::ring::Completion;
use super::{Fate, Reading, Request, Uring};
use crate::io::{LinkId, listen};

/// What `next` found, before the buffer is lent.
pub(super) enum Step {
    Accepted { link: LinkId, peer: SocketAddr },
    AcceptFailed { error: io::Error },
    Received { link: LinkId, buffer: u16, len: usize },
    Ended { link: LinkId },
    Failed { link: LinkId, error: io::Error },
    Writable { link: LinkId },
    Detached { link: LinkId, fd: OwnedFd },
}

impl Uring {
    /// What follows from a completion.
    pub(super) fn digest(&mut self, done: Completion) -> Option<Step> {
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
            self.buffers.give_back(done.buffer()?);
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
                return Some(Step::Failed { link: id, error: io::Error::from_raw_os_error(code) });
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
            return Some(Step::Failed { link: id, error: io::Error::from_raw_os_error(-result) });
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
}

fn peer_address(fd: &OwnedFd) -> Option<SocketAddr> {
    SockRef::from(fd).peer_addr().ok()?.as_socket()
}
