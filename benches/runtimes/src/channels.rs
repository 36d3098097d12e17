//! A channel per connection: what servers with a task per connection share, on any runtime.
//!
//! The hub owns the sending ends. A client that leaves, or lags too far behind, is taken out of it:
//! that ends its channel, which ends its writing task, which ends the connection. The channel is
//! tokio's, which needs no runtime of tokio's.

use std::cell::RefCell;
use std::rc::Rc;

use bytes::Bytes;
use slab::Slab;
use tokio::sync::mpsc::{self, Receiver, Sender};

use crate::Sends;
use crate::contract::{Peer, Unknown};

/// Frames that may wait for one connection.
const QUEUE: usize = 65_536;
/// Frames that one write takes together, at most.
const GATHERED: usize = 64;

#[derive(Debug, Default)]
pub(crate) struct Hub {
    members: RefCell<Slab<Member>>,
}

#[derive(Debug)]
struct Member {
    queue: Sender<Bytes>,
    joined: bool,
}

/// The reading side of one connection.
#[derive(Debug)]
pub(crate) struct Client {
    hub: Rc<Hub>,
    key: usize,
    peer: Peer,
    replies: Vec<u8>,
}

impl Client {
    /// A client of the hub, and what is to be written to it.
    pub(crate) fn new(hub: &Rc<Hub>) -> (Self, Receiver<Bytes>) {
        let (queue, queued) = mpsc::channel(QUEUE);
        let key = hub.members.borrow_mut().insert(Member { queue, joined: false });
        let hub = hub.clone();
        (Self { hub, key, peer: Peer::default(), replies: Vec::new() }, queued)
    }

    /// Takes what came from it.
    pub(crate) fn read(&mut self, bytes: &[u8]) -> Result<(), Unknown> {
        let hub = &self.hub;
        self.peer.read(bytes, &mut self.replies, |frame| hub.publish(&Bytes::from(frame)))?;
        if !self.replies.is_empty() {
            let mut members = hub.members.borrow_mut();
            let member = members.get_mut(self.key).ok_or(Unknown)?;
            member.joined = self.peer.joined;
            let replies = Bytes::copy_from_slice(&self.replies);
            member.queue.try_send(replies).map_err(|_| Unknown)?;
            self.replies.clear();
        }
        Ok(())
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        self.hub.members.borrow_mut().try_remove(self.key);
    }
}

impl Hub {
    fn publish(&self, frame: &Bytes) {
        self.members
            .borrow_mut()
            .retain(|_, member| !member.joined || member.queue.try_send(frame.clone()).is_ok());
    }
}

/// The next bytes to write; `None` when the connection is to end.
pub(crate) async fn queued(
    queue: &mut Receiver<Bytes>,
    scratch: &mut Vec<Bytes>,
    sends: Sends,
) -> Option<Bytes> {
    if sends == Sends::Single {
        return queue.recv().await;
    }
    match queue.recv_many(scratch, GATHERED).await {
        0 => None,
        1 => scratch.pop(),
        _ => {
            let gathered = Bytes::from(scratch.concat());
            scratch.clear();
            Some(gathered)
        }
    }
}
