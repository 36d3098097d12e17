//! The floor on io_uring: multishot accept and receive, sends that end within the enter.
//!
//! `SEND | DONTWAIT | WAITALL | NOSIGNAL` with `CQE_SKIP_SUCCESS`: a whole send posts nothing, a
//! short or refused one posts what it sent. All are over when the enter returns, so the bytes they
//! point to need to live no longer than that.

use std::alloc::{Layout, alloc_zeroed, handle_alloc_error};
use std::io;
use std::net::TcpListener;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU16, Ordering};

use io_uring::types::{BufRingEntry, Fd};
use io_uring::{IoUring, cqueue, opcode, squeue};
use slab::Slab;

use super::Sends;
use super::machine::{Connection, Machine};

const GROUP: u16 = 0;
const BUFFERS: u16 = 1024;
const BUFFER_BYTES: usize = 16 * 1024;
/// Sends of one enter.
const SLICE: usize = 256;

const ACCEPT: u64 = 1 << 32;
const RECEIVE: u64 = 2 << 32;
const SEND: u64 = 3 << 32;
const WRITABLE: u64 = 4 << 32;
const KIND: u64 = 0xff << 32;

struct Link {
    fd: OwnedFd,
    connection: Connection,
    /// The batch of sends that this connection was last part of: it has one send in each at most.
    batch: u64,
}

/// One send: to whom, and which part of the bytes at hand.
struct Planned {
    key: usize,
    start: usize,
    end: usize,
}

struct Floor {
    ring: IoUring,
    buffers: Buffers,
    links: Slab<Link>,
    machine: Machine,
    /// Answers of this turn; each ends where the next begins.
    replies: Vec<u8>,
    reply_ends: Vec<(usize, usize)>,
    /// What completed besides sends, to be handled in the next turn.
    completions: Vec<cqueue::Entry>,
    batch: Vec<Planned>,
    batch_number: u64,
}

pub(super) fn serve(listener: TcpListener, machine: Machine, sends: Sends) -> io::Result<()> {
    let ring = IoUring::builder()
        .setup_single_issuer()
        .setup_defer_taskrun()
        .setup_submit_all()
        .setup_cqsize(65_536)
        .build(4096)?;
    let buffers = Buffers::new();
    // SAFETY: the ring of entries has `BUFFERS` entries and is never freed.
    unsafe {
        ring.submitter().register_buf_ring_with_flags(
            buffers.entries.as_ptr() as u64,
            BUFFERS,
            GROUP,
            0,
        )?;
    }
    let mut floor = Floor {
        ring,
        buffers,
        links: Slab::new(),
        machine,
        replies: Vec::new(),
        reply_ends: Vec::new(),
        completions: Vec::new(),
        batch: Vec::new(),
        batch_number: 1,
    };
    let accept = opcode::AcceptMulti::new(Fd(listener.as_raw_fd())).build().user_data(ACCEPT);
    floor.push(&accept)?;
    loop {
        if floor.completions.is_empty() {
            match floor.ring.submit_and_wait(1) {
                Err(error) if error.raw_os_error() == Some(libc::EINTR) => continue,
                other => other?,
            };
        }
        let mut completions = std::mem::take(&mut floor.completions);
        completions.extend(floor.ring.completion());
        for completion in completions.drain(..) {
            floor.complete(&completion, &accept)?;
        }
        floor.completions = completions;
        floor.answer()?;
        floor.broadcast(sends)?;
    }
}

impl Floor {
    fn push(&mut self, entry: &squeue::Entry) -> io::Result<()> {
        loop {
            // SAFETY: receives write to buffers that are never freed; sends read bytes that
            // `run_batch` borrows until its enter has returned; the others touch no memory.
            if unsafe { self.ring.submission().push(entry) }.is_ok() {
                return Ok(());
            }
            self.ring.submit()?;
        }
    }

    fn complete(&mut self, completion: &cqueue::Entry, accept: &squeue::Entry) -> io::Result<()> {
        let key = (completion.user_data() & 0xffff_ffff) as usize;
        match completion.user_data() & KIND {
            ACCEPT => {
                if completion.result() >= 0 {
                    // SAFETY: the kernel has just made this descriptor for us.
                    let fd = unsafe { OwnedFd::from_raw_fd(completion.result()) };
                    let key =
                        self.links.insert(Link { fd, connection: Connection::default(), batch: 0 });
                    self.receive(key)?;
                }
                if !cqueue::more(completion.flags()) {
                    self.push(accept)?;
                }
            }
            RECEIVE => self.received(key, completion)?,
            WRITABLE => self.drain(key)?,
            _ => {}
        }
        Ok(())
    }

    fn receive(&mut self, key: usize) -> io::Result<()> {
        let fd = Fd(self.links[key].fd.as_raw_fd());
        let entry = opcode::RecvMulti::new(fd, GROUP).build().user_data(RECEIVE | key as u64);
        self.push(&entry)
    }

    fn received(&mut self, key: usize, completion: &cqueue::Entry) -> io::Result<()> {
        let mut alive = completion.result() > 0
            || completion.result() == -libc::ENOBUFS
            || completion.result() == -libc::EINTR;
        if let Some(id) = cqueue::buffer_select(completion.flags()) {
            let bytes = self.buffers.filled(id, completion.result().max(0) as usize);
            if let Some(link) = self.links.get_mut(key) {
                let taken = self.machine.input(&mut link.connection, bytes, &mut self.replies);
                alive &= taken.is_ok();
                if self.replies.len() > self.reply_ends.last().map_or(0, |(_, end)| *end) {
                    match self.reply_ends.last_mut() {
                        Some((last, end)) if *last == key => *end = self.replies.len(),
                        _ => self.reply_ends.push((key, self.replies.len())),
                    }
                }
            }
            self.buffers.give_back(id);
        }
        if !alive {
            // The receive is over; closing the descriptor ends the rest.
            self.links.try_remove(key);
        } else if !cqueue::more(completion.flags()) {
            self.receive(key)?;
        }
        Ok(())
    }

    fn answer(&mut self) -> io::Result<()> {
        let mut ends = std::mem::take(&mut self.reply_ends);
        let mut replies = std::mem::take(&mut self.replies);
        let mut start = 0;
        for (key, end) in ends.drain(..) {
            self.plan(key, start, end, &replies)?;
            start = end;
        }
        self.run_batch(&replies)?;
        replies.clear();
        (self.reply_ends, self.replies) = (ends, replies);
        Ok(())
    }

    fn broadcast(&mut self, sends: Sends) -> io::Result<()> {
        if self.machine.batch.is_empty() {
            return Ok(());
        }
        let mut all = std::mem::take(&mut self.machine.batch);
        let piece = match sends {
            Sends::Single => self.machine.frame_bytes,
            Sends::Coalesced => all.len(),
        };
        for start in (0..all.len()).step_by(piece) {
            for key in 0..self.links.capacity() {
                if self.links.get(key).is_some_and(|link| link.connection.joined) {
                    self.plan(key, start, start + piece, &all)?;
                }
            }
        }
        self.run_batch(&all)?;
        all.clear();
        self.machine.batch = all;
        Ok(())
    }

    /// Plans to send `source[start..end]`, and runs the batch when it is full or has this
    /// connection already: what is behind a refused send must not overtake it.
    #[inline]
    fn plan(&mut self, key: usize, start: usize, end: usize, source: &[u8]) -> io::Result<()> {
        let Some(link) = self.links.get(key) else { return Ok(()) };
        if link.batch == self.batch_number || self.batch.len() == SLICE {
            self.run_batch(source)?;
        }
        let Some(link) = self.links.get_mut(key) else { return Ok(()) };
        if link.connection.backlog.is_empty() {
            link.batch = self.batch_number;
            self.batch.push(Planned { key, start, end });
        } else {
            link.connection.backlog.extend_from_slice(&source[start..end]);
        }
        Ok(())
    }

    /// Sends what is planned, all of it within one enter, and looks after what fell short.
    fn run_batch(&mut self, source: &[u8]) -> io::Result<()> {
        if self.batch.is_empty() {
            return Ok(());
        }
        let batch = std::mem::take(&mut self.batch);
        self.batch_number += 1;
        for (index, planned) in batch.iter().enumerate() {
            let bytes = &source[planned.start..planned.end];
            let fd = Fd(self.links[planned.key].fd.as_raw_fd());
            let entry = opcode::Send::new(fd, bytes.as_ptr(), bytes.len() as u32)
                .flags(libc::MSG_DONTWAIT | libc::MSG_WAITALL | libc::MSG_NOSIGNAL)
                .build()
                .flags(squeue::Flags::SKIP_SUCCESS)
                .user_data(SEND | index as u64);
            self.push(&entry)?;
        }
        self.ring.submit()?;
        loop {
            let Some(completion) = self.ring.completion().next() else { break };
            if completion.user_data() & KIND != SEND {
                self.completions.push(completion);
                continue;
            }
            let planned = &batch[(completion.user_data() & 0xffff_ffff) as usize];
            let start = planned.start + completion.result().max(0) as usize;
            let refused = completion.result() >= 0 || completion.result() == -libc::EAGAIN;
            // What failed otherwise is noticed by its receive.
            if refused && start < planned.end {
                let link = &mut self.links[planned.key];
                link.connection.backlog.extend_from_slice(&source[start..planned.end]);
                self.wait_writable(planned.key)?;
            }
        }
        self.batch = batch;
        self.batch.clear();
        Ok(())
    }

    fn drain(&mut self, key: usize) -> io::Result<()> {
        let Some(link) = self.links.get_mut(key) else { return Ok(()) };
        let backlog = &mut link.connection.backlog;
        let socket = socket2::SockRef::from(&link.fd);
        match socket.send_with_flags(backlog, libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL) {
            Ok(sent) => drop(backlog.drain(..sent)),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(_) => backlog.clear(),
        }
        if backlog.is_empty() { Ok(()) } else { self.wait_writable(key) }
    }

    fn wait_writable(&mut self, key: usize) -> io::Result<()> {
        let fd = Fd(self.links[key].fd.as_raw_fd());
        let events = libc::POLLOUT as u32;
        let entry = opcode::PollAdd::new(fd, events).build().user_data(WRITABLE | key as u64);
        self.push(&entry)
    }
}

/// Receive buffers that the kernel takes from as bytes come. Never freed: the floor runs until its
/// process ends.
struct Buffers {
    entries: NonNull<BufRingEntry>,
    memory: NonNull<u8>,
    tail: u16,
}

impl Buffers {
    fn new() -> Self {
        let entries = allocate(usize::from(BUFFERS) * size_of::<BufRingEntry>()).cast();
        let memory = allocate(usize::from(BUFFERS) * BUFFER_BYTES);
        let mut buffers = Self { entries, memory, tail: 0 };
        for id in 0..BUFFERS {
            buffers.give_back(id);
        }
        buffers
    }

    fn filled<'b>(&self, id: u16, length: usize) -> &'b [u8] {
        assert!(id < BUFFERS && length <= BUFFER_BYTES, "the kernel's promise");
        // SAFETY: inside `memory`, which is never freed. The kernel has given this buffer up and
        // writes to it again only after `give_back`, which the one caller calls last.
        unsafe {
            let at = self.memory.as_ptr().add(usize::from(id) * BUFFER_BYTES);
            std::slice::from_raw_parts(at, length)
        }
    }

    fn give_back(&mut self, id: u16) {
        let slot = usize::from(self.tail & (BUFFERS - 1));
        // SAFETY: the slot lies inside `entries`, the buffer inside `memory`; the kernel reads an
        // entry only when the tail has passed it, hence the release. Entry 0's last field, which
        // the setters leave alone, is the tail.
        unsafe {
            let entry = &mut *self.entries.as_ptr().add(slot);
            entry.set_addr(self.memory.as_ptr().add(usize::from(id) * BUFFER_BYTES) as u64);
            entry.set_len(BUFFER_BYTES as u32);
            entry.set_bid(id);
            self.tail = self.tail.wrapping_add(1);
            let tail = BufRingEntry::tail(self.entries.as_ptr()).cast_mut();
            AtomicU16::from_ptr(tail).store(self.tail, Ordering::Release);
        }
    }
}

fn allocate(bytes: usize) -> NonNull<u8> {
    let layout = Layout::from_size_align(bytes, 4096).expect("invariant: constants of this file");
    // SAFETY: the size is not zero.
    let memory = unsafe { alloc_zeroed(layout) };
    NonNull::new(memory).unwrap_or_else(|| handle_alloc_error(layout))
}
