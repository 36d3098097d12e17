//! What a link has in the kernel: armed while it stays, cancelled when it leaves.

use std::os::fd::{AsFd, OwnedFd};

use super::digest::Step;
use super::identity::{Identity, Op};
use super::{Fate, Link, Reading, Request, Uring};
use crate::io::LinkId;

impl Uring {
    pub(super) fn arm_accept(&mut self) {
        if let Some(acceptor) = &mut self.acceptor
            && !(acceptor.armed || acceptor.suspended || acceptor.stopping)
        {
            acceptor.armed = true;
            self.ring.accept(acceptor.listener.as_fd());
        }
    }

    pub(super) fn insert(&mut self, fd: OwnedFd) -> LinkId {
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
    pub(super) fn open_link(&mut self, id: LinkId) -> Option<&mut Link> {
        self.links.get_mut(id).filter(|link| link.fate != Fate::Closes)
    }

    /// Receives again if the link is to be read and nothing stands against it.
    pub(super) fn arm_receive(&mut self, id: LinkId) {
        if let Some(link) = self.links.get_mut(id)
            && (link.fate, link.reading, link.receive) == (Fate::Stays, Reading::On, Request::None)
            && !link.starved
        {
            link.receive = Request::InFlight;
            self.ring.receive(link.fd.as_fd(), Identity::of(Op::Receive, id));
        }
    }

    pub(super) fn cancel_receive(&mut self, id: LinkId) {
        if let Some(link) = self.links.get_mut(id)
            && link.receive == Request::InFlight
        {
            link.receive = Request::Cancelled;
            self.ring.cancel(Identity::of(Op::Receive, id));
        }
    }

    /// Starts to take the link out of the kernel's hands.
    pub(super) fn leave(&mut self, id: LinkId, fate: Fate) {
        let Some(link) = self.links.get_mut(id) else { return };
        link.fate = fate;
        if link.writable == Request::InFlight {
            link.writable = Request::Cancelled;
            self.ring.cancel(Identity::of(Op::Writable, id));
        }
        self.cancel_receive(id);
    }

    /// Lets a leaving link go if the kernel has nothing of it any more.
    pub(super) fn let_go(&mut self, id: LinkId) -> Option<Step> {
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

    /// Lets starved links receive again, now that this turn's buffers are back. Not more links than
    /// there are buffers, or the last would starve again at once, and behind the others.
    pub(super) fn feed_starved(&mut self) {
        for _ in 0..self.buffers.count() {
            let Some(id) = self.starved.pop_front() else { break };
            if let Some(link) = self.links.get_mut(id) {
                link.starved = false;
                self.arm_receive(id);
            }
        }
    }
}
