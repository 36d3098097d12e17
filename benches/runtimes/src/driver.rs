//! Stentor's own drivers, hosted as a shard hosts them, with nothing of stentor above.
//!
//! Turns: what came is read, then everybody gets what is pending for him in one send, many sends
//! to a batch. What the kernel did not take stays with its link until it is writable again.

use std::io;
use std::net::TcpListener;

use stentor::bench::{Batch, Kernel, KernelEvent, Link};

use crate::contract::{BACKLOG_BYTES_MAX, Peer};

/// Sends of one batch: a shard's slice.
const SLICE: usize = 256;

#[derive(Debug, Clone, Copy)]
pub(crate) enum Kind {
    Uring,
    Readiness,
}

struct Member {
    link: Link,
    peer: Peer,
    /// Its answers, and what the kernel did not take.
    own: Vec<u8>,
    /// Stands in `Server::dirty`.
    dirty: bool,
    /// Waits until the link is writable.
    blocked: bool,
}

struct Server {
    kernel: Kernel,
    /// By the index of their link.
    members: Vec<Option<Member>>,
    /// Whose own bytes are to be sent.
    dirty: Vec<usize>,
    /// The broadcasts of this turn.
    batch: Vec<u8>,
}

pub(crate) fn serve(listener: TcpListener, kind: Kind) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
    runtime.block_on(async {
        let kernel = match kind {
            Kind::Uring => Kernel::uring(listener)?,
            Kind::Readiness => Kernel::readiness(listener)?,
        };
        let (members, dirty, batch) = (Vec::new(), Vec::new(), Vec::new());
        let mut server = Server { kernel, members, dirty, batch };
        loop {
            server.collect()?;
            server.broadcast();
            server.answer();
            server.kernel.wait().await?;
        }
    })
}

impl Server {
    fn collect(&mut self) -> io::Result<()> {
        self.kernel.poll()?;
        while let Some(event) = self.kernel.next()? {
            match event {
                KernelEvent::Accepted(link) => {
                    let index = link.index();
                    if self.members.len() <= index {
                        self.members.resize_with(index + 1, || None);
                    }
                    let (peer, own) = (Peer::default(), Vec::new());
                    let member = Member { link, peer, own, dirty: false, blocked: false };
                    self.members[index] = Some(member);
                }
                KernelEvent::Received(link, bytes) => {
                    let Some(member) = of(&mut self.members, link) else { continue };
                    let batch = &mut self.batch;
                    let publish = |frame: Vec<u8>| batch.extend_from_slice(&frame);
                    let taken = member.peer.read(bytes, &mut member.own, publish);
                    if taken.is_err() || member.own.len() > BACKLOG_BYTES_MAX {
                        self.close(link);
                    } else if !member.own.is_empty() && !member.dirty {
                        member.dirty = true;
                        self.dirty.push(link.index());
                    }
                }
                KernelEvent::Writable(link) => {
                    let Some(member) = of(&mut self.members, link) else { continue };
                    member.blocked = false;
                    if !member.dirty {
                        member.dirty = true;
                        self.dirty.push(link.index());
                    }
                }
                KernelEvent::Gone(link) => self.close(link),
            }
        }
        Ok(())
    }

    fn close(&mut self, link: Link) {
        self.kernel.close(link);
        if of(&mut self.members, link).is_some() {
            self.members[link.index()] = None;
        }
    }

    /// Sends the broadcasts to everybody who has nothing else before them.
    fn broadcast(&mut self) {
        if self.batch.is_empty() {
            return;
        }
        let all = std::mem::take(&mut self.batch);
        let mut at = 0;
        let (mut slice, mut lost) = (Vec::with_capacity(SLICE), Vec::new());
        while at < self.members.len() {
            slice.clear();
            let mut sends = Batch::default();
            while at < self.members.len() && slice.len() < SLICE {
                if let Some(member) = &mut self.members[at]
                    && member.peer.joined
                {
                    if member.own.is_empty() {
                        slice.push(member.link);
                        sends.push(member.link, &all);
                    } else if member.own.len() + all.len() <= BACKLOG_BYTES_MAX {
                        member.own.extend_from_slice(&all);
                    } else {
                        eprintln!("runtimes: a client is {} bytes behind", member.own.len());
                        lost.push(member.link);
                    }
                }
                at += 1;
            }
            let members = &mut self.members;
            self.kernel.send(&sends, |op, sent, error| match of(members, slice[op]) {
                Some(member) if error.is_none() => {
                    member.own.extend_from_slice(&all[sent..]);
                    member.blocked = true;
                }
                _ => lost.push(slice[op]),
            });
        }
        lost.into_iter().for_each(|link| self.close(link));
        self.batch = all;
        self.batch.clear();
    }

    /// Sends everybody's own bytes.
    fn answer(&mut self) {
        let dirty = std::mem::take(&mut self.dirty);
        for keys in dirty.chunks(SLICE) {
            let mut slice = Vec::with_capacity(SLICE);
            let mut taken = Vec::with_capacity(SLICE);
            let mut sends = Batch::default();
            for &key in keys {
                let Some(Some(member)) = self.members.get(key) else { continue };
                if !member.blocked && !member.own.is_empty() {
                    slice.push(member.link);
                    taken.push((member.own.len(), false, false));
                    sends.push(member.link, &member.own);
                }
            }
            self.kernel.send(&sends, |op, sent, error| taken[op] = (sent, true, error.is_some()));
            for &key in keys {
                let Some(Some(member)) = self.members.get_mut(key) else { continue };
                member.dirty = false;
            }
            for (link, (sent, short, broken)) in slice.into_iter().zip(taken) {
                let Some(member) = of(&mut self.members, link) else { continue };
                member.own.drain(..sent);
                member.blocked = short;
                if broken {
                    self.close(link);
                }
            }
        }
        self.dirty = dirty;
        self.dirty.clear();
    }
}

/// The member of a link, unless another one has its place by now.
fn of(members: &mut [Option<Member>], link: Link) -> Option<&mut Member> {
    members.get_mut(link.index())?.as_mut().filter(|member| member.link == link)
}
