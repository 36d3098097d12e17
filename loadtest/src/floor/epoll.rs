//! The floor on epoll: read what is ready, then one `send()` per connection.

use std::io::{self, Read, Write};
use std::net::TcpListener;

use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token};
use slab::Slab;

use super::Sends;
use super::machine::{Connection, Machine};

const LISTENER: Token = Token(usize::MAX);

struct Link {
    stream: TcpStream,
    connection: Connection,
}

pub(super) fn serve(listener: TcpListener, mut machine: Machine, sends: Sends) -> io::Result<()> {
    let mut listener = mio::net::TcpListener::from_std(listener);
    let mut poll = Poll::new()?;
    poll.registry().register(&mut listener, LISTENER, Interest::READABLE)?;
    let mut events = Events::with_capacity(1024);
    let mut links: Slab<Link> = Slab::new();
    let mut buffer = vec![0_u8; 64 * 1024];
    let mut reply = Vec::new();
    loop {
        match poll.poll(&mut events, None) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            other => other?,
        }
        for event in &events {
            if event.token() == LISTENER {
                accept(&listener, &poll, &mut links)?;
                continue;
            }
            let Token(key) = event.token();
            let Some(link) = links.get_mut(key) else { continue };
            let mut alive = true;
            if event.is_writable() && !link.connection.backlog.is_empty() {
                let backlog = std::mem::take(&mut link.connection.backlog);
                alive = send(link, &backlog);
            }
            if alive && event.is_readable() {
                reply.clear();
                alive = read(link, &mut buffer, &mut machine, &mut reply)
                    && (reply.is_empty() || send(link, &reply));
            }
            if !alive {
                links.remove(key);
            }
        }
        broadcast(&mut machine, &mut links, sends);
    }
}

fn accept(listener: &mio::net::TcpListener, poll: &Poll, links: &mut Slab<Link>) -> io::Result<()> {
    loop {
        let (mut stream, _) = match listener.accept() {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
            other => other?,
        };
        let entry = links.vacant_entry();
        let interest = Interest::READABLE | Interest::WRITABLE;
        poll.registry().register(&mut stream, Token(entry.key()), interest)?;
        entry.insert(Link { stream, connection: Connection::default() });
    }
}

fn read(link: &mut Link, buffer: &mut [u8], machine: &mut Machine, reply: &mut Vec<u8>) -> bool {
    loop {
        match link.stream.read(buffer) {
            Ok(0) => return false,
            Ok(length) => {
                if machine.input(&mut link.connection, &buffer[..length], reply).is_err() {
                    return false;
                }
                if length < buffer.len() {
                    return true;
                }
            }
            Err(error) => return error.kind() == io::ErrorKind::WouldBlock,
        }
    }
}

fn broadcast(machine: &mut Machine, links: &mut Slab<Link>, sends: Sends) {
    if machine.batch.is_empty() {
        return;
    }
    let piece = match sends {
        Sends::Single => machine.frame_bytes,
        Sends::Coalesced => machine.batch.len(),
    };
    for bytes in machine.batch.chunks(piece) {
        for (_, link) in links.iter_mut().filter(|(_, link)| link.connection.joined) {
            // A connection that failed is noticed when it is read.
            send(link, bytes);
        }
    }
    machine.batch.clear();
}

#[inline]
fn send(link: &mut Link, bytes: &[u8]) -> bool {
    let backlog = &mut link.connection.backlog;
    if !backlog.is_empty() {
        backlog.extend_from_slice(bytes);
        return true;
    }
    match link.stream.write(bytes) {
        Ok(sent) => backlog.extend_from_slice(&bytes[sent..]),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
            backlog.extend_from_slice(bytes);
        }
        Err(_) => return false,
    }
    true
}
