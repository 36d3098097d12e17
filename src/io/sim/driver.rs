//! The driver over the simulated network.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::io;
use std::os::fd::BorrowedFd;
use std::rc::Rc;

use super::net::{Accepting, Net, Notice, Port};
use crate::io::table::Table;
use crate::io::{Bytes, Driver, Event, Handoff, LinkId, SendOp, Short};

/// The most that one read yields.
const READ_BYTES_MAX: usize = 16 * 1024;

/// One shard's driver.
#[derive(Debug)]
pub(crate) struct SimDriver {
    net: Rc<RefCell<Net>>,
    shard: usize,
    links: Table<Link>,
    /// What `next` lends.
    buffer: Vec<u8>,
    /// Notices that this turn may still look at.
    notices_left: usize,
}

#[derive(Debug)]
struct Link {
    connection: u64,
    reading: Reading,
    leaving: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reading {
    On,
    Paused,
    Ended,
    Failed,
}

impl SimDriver {
    pub(super) fn new(net: Rc<RefCell<Net>>, listens: bool) -> Self {
        let accepting = if listens { Accepting::On } else { Accepting::Stopped };
        let port = Port { inbox: VecDeque::new(), backlog: VecDeque::new(), accepting };
        let shard = net.borrow().ports.len();
        net.borrow_mut().ports.push(port);
        Self { net, shard, links: Table::new(), buffer: Vec::new(), notices_left: 0 }
    }

    fn adopt(&mut self, connection: u64) -> LinkId {
        let link = self.links.insert(Link { connection, reading: Reading::On, leaving: false });
        let mut net = self.net.borrow_mut();
        if let Some(state) = net.connections.get_mut(connection) {
            state.server.owner = Some((self.shard, link));
            state.server.noticed = false;
            state.server.wants_write = false;
        }
        net.notice(connection);
        link
    }

    /// What becomes of a notice. Received bytes are left in `buffer`.
    fn digest(&mut self, notice: Notice) -> Option<Event<'static>> {
        match notice {
            Notice::Backlog => self.accept(),
            Notice::Readable(link) => self.read(link),
            Notice::Writable(link) => {
                let state = self.links.get(link)?;
                let wanted = !state.leaving && state.reading != Reading::Failed;
                wanted.then_some(Event::Writable { link })
            }
            Notice::Leave(link) => self.leave(link),
        }
    }

    fn accept(&mut self) -> Option<Event<'static>> {
        let mut net = self.net.borrow_mut();
        let faults = net.faults.accept_failure;
        let port = &net.ports[self.shard];
        if port.accepting != Accepting::On || port.backlog.is_empty() {
            return None;
        }
        if net.chance(faults) {
            net.ports[self.shard].accepting = Accepting::Suspended;
            return Some(Event::AcceptFailed { error: io::Error::from_raw_os_error(libc::EMFILE) });
        }
        let connection = net.ports[self.shard].backlog.pop_front()?;
        let peer = net.connections.get(connection)?.peer;
        drop(net);
        Some(Event::Accepted { link: self.adopt(connection), peer })
    }

    fn read(&mut self, link: LinkId) -> Option<Event<'static>> {
        let state = self.links.get_mut(link)?;
        let mut net = self.net.borrow_mut();
        let connection = net.connections.get_mut(state.connection)?;
        connection.server.noticed = false;
        if state.reading != Reading::On || state.leaving {
            return None;
        }
        let available = connection.to_server.arrived.len().min(READ_BYTES_MAX);
        if available > 0 {
            let len = net.cut(available);
            let connection = net.connections.get_mut(state.connection)?;
            self.buffer.clear();
            let arrived = &mut connection.to_server.arrived;
            let (front, back) = arrived.as_slices();
            let from_front = front.len().min(len);
            self.buffer.extend_from_slice(&front[..from_front]);
            self.buffer.extend_from_slice(&back[..len - from_front]);
            arrived.drain(..len);
            net.server_took(state.connection);
            net.notice(state.connection);
            return Some(Event::Received { link, bytes: &mut [] });
        }
        if connection.server.broken {
            state.reading = Reading::Failed;
            return Some(Event::Failed { link, error: io::ErrorKind::ConnectionReset.into() });
        }
        if connection.server.ended {
            state.reading = Reading::Ended;
            return Some(Event::Ended { link });
        }
        None
    }

    fn leave(&mut self, link: LinkId) -> Option<Event<'static>> {
        let state = self.links.get_mut(link)?;
        let mut net = self.net.borrow_mut();
        let connection = net.connections.get_mut(state.connection)?;
        if connection.server.broken {
            state.leaving = false;
            state.reading = Reading::Failed;
            return Some(Event::Failed { link, error: io::ErrorKind::ConnectionReset.into() });
        }
        connection.server.owner = None;
        let handoff = Handoff::Sim(self.links.remove(link)?.connection);
        Some(Event::Detached { link, handoff })
    }

    fn reset_backlog(&mut self) {
        let mut net = self.net.borrow_mut();
        net.ports[self.shard].accepting = Accepting::Stopped;
        while let Some(connection) = net.ports[self.shard].backlog.pop_front() {
            net.server_close(connection);
        }
    }
}

impl Driver for SimDriver {
    fn name(&self) -> &'static str {
        "sim"
    }

    fn now_ms(&self) -> u64 {
        self.net.borrow().now_us / 1000
    }

    fn poll(&mut self) -> io::Result<()> {
        self.notices_left = self.net.borrow().ports[self.shard].inbox.len();
        Ok(())
    }

    fn next(&mut self) -> Option<Event<'_>> {
        let event = loop {
            if self.notices_left == 0 {
                return None;
            }
            self.notices_left -= 1;
            let notice = self.net.borrow_mut().ports[self.shard].inbox.pop_front()?;
            if let Some(event) = self.digest(notice) {
                break event;
            }
        };
        Some(match event {
            Event::Received { link, .. } => Event::Received { link, bytes: &mut self.buffer },
            other => other,
        })
    }

    fn has_more(&mut self) -> bool {
        !self.net.borrow().ports[self.shard].inbox.is_empty()
    }

    fn prepare_wait(&mut self) -> io::Result<()> {
        Ok(())
    }

    fn wake_descriptor(&self) -> Option<BorrowedFd<'_>> {
        None
    }

    fn send(&mut self, batch: &[SendOp<'_>], short: &mut Vec<Short>) {
        if self.net.borrow().muted {
            return;
        }
        for (op, SendOp { link, bytes }) in batch.iter().enumerate() {
            let taken = match self.links.get(*link).filter(|state| !state.leaving) {
                _ if bytes.is_too_much() => Err(io::ErrorKind::InvalidInput),
                Some(state) => {
                    let mut net = self.net.borrow_mut();
                    match *bytes {
                        Bytes::One(bytes) => net.server_send(state.connection, bytes),
                        Bytes::Parts(parts) => {
                            let whole: Vec<u8> =
                                parts.iter().flat_map(|p| p.iter().copied()).collect();
                            net.server_send(state.connection, &whole)
                        }
                    }
                }
                None => Err(io::ErrorKind::NotConnected),
            };
            match taken {
                Ok(sent) if sent == bytes.len() => {}
                Ok(sent) => short.push(Short { op, sent, error: None }),
                Err(kind) => short.push(Short { op, sent: 0, error: Some(kind.into()) }),
            }
        }
    }

    fn set_reading(&mut self, link: LinkId, reading: bool) {
        let Some(state) = self.links.get_mut(link) else { return };
        match (state.reading, reading) {
            (Reading::On, false) => state.reading = Reading::Paused,
            (Reading::Paused, true) => {
                state.reading = Reading::On;
                self.net.borrow_mut().notice(state.connection);
            }
            _ => {}
        }
    }

    fn shutdown_write(&mut self, link: LinkId) {
        if let Some(state) = self.links.get(link) {
            self.net.borrow_mut().server_shut(state.connection);
        }
    }

    fn close(&mut self, link: LinkId) {
        if let Some(state) = self.links.remove(link) {
            self.net.borrow_mut().server_close(state.connection);
        }
    }

    fn detach(&mut self, link: LinkId) {
        let Some(state) = self.links.get_mut(link) else { return };
        if state.reading != Reading::Failed && !state.leaving {
            state.leaving = true;
            self.net.borrow_mut().ports[self.shard].inbox.push_back(Notice::Leave(link));
        }
    }

    fn attach(&mut self, handoff: Handoff) -> io::Result<LinkId> {
        let Handoff::Sim(connection) = handoff else {
            return Err(io::ErrorKind::InvalidInput.into());
        };
        match self.net.borrow().connections.get(connection) {
            Some(state) if state.server.owner.is_none() && !state.server.closed => {}
            _ => return Err(io::ErrorKind::InvalidInput.into()),
        }
        Ok(self.adopt(connection))
    }

    fn stop_accepting(&mut self) {
        self.reset_backlog();
    }

    fn resume_accepting(&mut self) {
        let mut net = self.net.borrow_mut();
        let port = &mut net.ports[self.shard];
        if port.accepting == Accepting::Suspended {
            port.accepting = Accepting::On;
            port.inbox.extend(port.backlog.iter().map(|_| Notice::Backlog));
        }
    }
}

impl Drop for SimDriver {
    fn drop(&mut self) {
        self.reset_backlog();
        let links: Vec<LinkId> = self.links.iter().map(|(link, _)| link).collect();
        for link in links {
            self.close(link);
        }
    }
}
