//! tokio as far as it goes: what a server of the engine's design would be without a driver of its
//! own.
//!
//! One reading task per connection, which fills a buffer that all share. Broadcasts are collected
//! until the readers that were ready have run; then every member gets all of them in one
//! `try_write`. What a socket does not take is kept, and only then a task waits to write it.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::io;
use std::net::TcpListener;
use std::pin::Pin;
use std::rc::Rc;

use slab::Slab;
use tokio::io::{AsyncRead, ReadBuf};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::Notify;
use tokio::task::{LocalSet, spawn_local, yield_now};

use crate::contract::{BACKLOG_BYTES_MAX, Peer, READ_BYTES};

struct Server {
    members: RefCell<Slab<Rc<Member>>>,
    /// The broadcasts of this turn.
    batch: RefCell<Vec<u8>>,
    published: Notify,
    buffer: RefCell<Vec<u8>>,
}

struct Member {
    writes: OwnedWriteHalf,
    joined: Cell<bool>,
    /// Lagged too far behind: gets nothing more and is let go when it speaks next.
    lost: Cell<bool>,
    /// What the socket did not take; while it is not empty, everything goes here.
    backlog: RefCell<Vec<u8>>,
}

pub(crate) fn serve(listener: TcpListener) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
    LocalSet::new().block_on(&runtime, async {
        let listener = tokio::net::TcpListener::from_std(listener)?;
        let server = Rc::new(Server {
            members: RefCell::default(),
            batch: RefCell::default(),
            published: Notify::new(),
            buffer: RefCell::new(vec![0; READ_BYTES]),
        });
        spawn_local(flush(server.clone()));
        loop {
            let (stream, _) = listener.accept().await?;
            let (reads, writes) = stream.into_split();
            let (joined, lost, backlog) = Default::default();
            let member = Rc::new(Member { writes, joined, lost, backlog });
            let key = server.members.borrow_mut().insert(member.clone());
            let server = server.clone();
            spawn_local(async move {
                read(&server, reads, &member).await;
                server.members.borrow_mut().remove(key);
            });
        }
    })
}

async fn read(server: &Server, mut reads: OwnedReadHalf, member: &Rc<Member>) {
    let (mut peer, mut replies) = (Peer::default(), Vec::new());
    loop {
        let taken = poll_fn(|cx| {
            let mut buffer = server.buffer.borrow_mut();
            let mut buffer = ReadBuf::new(&mut buffer);
            // Unlike `try_read` it knows from a short read that the socket is empty.
            Pin::new(&mut reads).poll_read(cx, &mut buffer).map(|outcome| {
                let bytes = buffer.filled();
                let publish = |frame: Vec<u8>| server.publish(&frame);
                let taken = peer.read(bytes, &mut replies, publish);
                outcome.is_ok() && !bytes.is_empty() && taken.is_ok()
            })
        })
        .await;
        if !taken || member.lost.get() {
            return;
        }
        member.joined.set(peer.joined);
        if !replies.is_empty() {
            member.send(&replies);
            replies.clear();
        }
    }
}

impl Server {
    fn publish(&self, frame: &[u8]) {
        let mut batch = self.batch.borrow_mut();
        if batch.is_empty() {
            self.published.notify_one();
        }
        batch.extend_from_slice(frame);
    }
}

async fn flush(server: Rc<Server>) {
    loop {
        server.published.notified().await;
        // Readers that are ready have their turn first.
        yield_now().await;
        let mut batch = server.batch.take();
        for (_, member) in &*server.members.borrow() {
            if member.joined.get() {
                member.send(&batch);
            }
        }
        batch.clear();
        server.batch.replace(batch);
    }
}

impl Member {
    /// A connection that fails is noticed when it is read.
    fn send(self: &Rc<Self>, bytes: &[u8]) {
        let mut backlog = self.backlog.borrow_mut();
        if self.lost.get() {
            return;
        }
        if !backlog.is_empty() {
            if backlog.len() + bytes.len() <= BACKLOG_BYTES_MAX {
                backlog.extend_from_slice(bytes);
            } else {
                eprintln!("runtimes: a client is {} bytes behind", backlog.len());
                self.lost.set(true);
            }
            return;
        }
        let sent = match self.writes.try_write(bytes) {
            Ok(sent) => sent,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => 0,
            Err(_) => return,
        };
        if sent < bytes.len() {
            backlog.extend_from_slice(&bytes[sent..]);
            spawn_local(self.clone().drain());
        }
    }

    /// Writes the backlog as the socket takes it.
    async fn drain(self: Rc<Self>) {
        loop {
            let writable = self.writes.writable().await;
            let mut backlog = self.backlog.borrow_mut();
            match writable.and_then(|()| self.writes.try_write(&backlog)) {
                Ok(sent) => drop(backlog.drain(..sent)),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(_) => backlog.clear(),
            }
            if backlog.is_empty() {
                return;
            }
        }
    }
}
