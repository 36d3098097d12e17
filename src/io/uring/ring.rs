//! The two queues shared with the kernel, and the few requests the driver makes of it.
//!
//! Requests are queued and handed over in batches; completions are copied out before anything acts
//! on them. Knows descriptors and identities, not links.
//!
//! A ring whose submission fails for good is `broken`: it never enters the kernel again, so that
//! requests left in its queue, which may name memory that is gone, are never read.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};

use io_uring::squeue::{Entry, Flags};
use io_uring::types::{Fd, SubmitArgs, Timespec};
use io_uring::{EnterFlags, IoUring, cqueue, opcode};

use super::identity::{Identity, Op};

/// The buffer group of the driver's one provided-buffer ring.
pub(super) const BUFFER_GROUP: u16 = 0;

/// How often a refused submission is tried again. Each try first makes the room that the kernel
/// may have lacked, so the second one should do.
const SUBMIT_TRIES: u32 = 64;

/// A send that finishes inside the call that submits it:
/// - `DONTWAIT`: do not wait for room, in the kernel neither, so nothing stays in flight;
/// - `WAITALL`: a short send counts as failed, so that it posts its completion although successes
///   are skipped;
/// - `NOSIGNAL`: no SIGPIPE for a peer that left.
const SEND_FLAGS: i32 = libc::MSG_DONTWAIT | libc::MSG_WAITALL | libc::MSG_NOSIGNAL;

/// A completion, copied out of the kernel's queue.
#[derive(Debug, Clone, Copy)]
pub(super) struct Completion {
    pub(super) identity: Identity,
    pub(super) result: i32,
    flags: u32,
}

impl Completion {
    /// Whether the request goes on and will complete again.
    pub(super) fn goes_on(&self) -> bool {
        cqueue::more(self.flags)
    }

    /// The provided buffer that holds the bytes.
    pub(super) fn buffer(&self) -> Option<u16> {
        cqueue::buffer_select(self.flags)
    }
}

pub(super) struct Ring {
    ring: IoUring,
    /// Signalled by the kernel when there is something to collect.
    wake: OwnedFd,
    /// Copied out and not acted upon yet.
    done: VecDeque<Completion>,
    /// Sends that failed or fell short, by index and result. Empty between batches.
    sends: Vec<(u32, i32)>,
    broken: Option<i32>,
}

impl Ring {
    pub(super) fn new(ring: IoUring, wake: OwnedFd) -> Self {
        Self { ring, wake, done: VecDeque::new(), sends: Vec::new(), broken: None }
    }

    pub(super) fn wake(&self) -> BorrowedFd<'_> {
        use std::os::fd::AsFd;
        self.wake.as_fd()
    }

    pub(super) fn pop(&mut self) -> Option<Completion> {
        self.done.pop_front()
    }

    /// Notes something for the driver itself, behind (or before) all that was copied out.
    pub(super) fn note(&mut self, identity: Identity, at_once: bool) {
        let completion = Completion { identity, result: 0, flags: 0 };
        if at_once {
            self.done.push_front(completion);
        } else {
            self.done.push_back(completion);
        }
    }

    /// The error that broke the ring.
    pub(super) fn health(&self) -> io::Result<()> {
        match self.broken {
            Some(code) => Err(io::Error::from_raw_os_error(code)),
            None => Ok(()),
        }
    }

    // Requests.

    pub(super) fn accept(&mut self, listener: BorrowedFd<'_>) {
        let entry = opcode::AcceptMulti::new(Fd(listener.as_raw_fd()))
            .flags(libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK)
            .build();
        // SAFETY: a multishot accept names no memory.
        unsafe { self.push(entry, Identity::indexed(Op::Accept, 0)) }
    }

    pub(super) fn receive(&mut self, fd: BorrowedFd<'_>, identity: Identity) {
        let entry = opcode::RecvMulti::new(Fd(fd.as_raw_fd()), BUFFER_GROUP).build();
        // SAFETY: the request writes to the registered buffers only. `Uring` frees those after the
        // last receive has ended, and otherwise never.
        unsafe { self.push(entry, identity) }
    }

    pub(super) fn poll_writable(&mut self, fd: BorrowedFd<'_>, identity: Identity) {
        let entry = opcode::PollAdd::new(Fd(fd.as_raw_fd()), libc::POLLOUT as u32).build();
        // SAFETY: a poll names no memory.
        unsafe { self.push(entry, identity) }
    }

    /// Ends the request that was made under `identity`. Posts nothing of its own unless there is no
    /// such request, which then has ended already.
    pub(super) fn cancel(&mut self, identity: Identity) {
        let entry = opcode::AsyncCancel::new(identity.pack()).build().flags(Flags::SKIP_SUCCESS);
        // SAFETY: a cancellation names no memory.
        unsafe { self.push(entry, Identity::indexed(Op::Cancel, 0)) }
    }

    /// Queues a send if there is room in the queue, and says whether there was.
    ///
    /// # Safety
    ///
    /// `bytes` must stay as it is until [`Self::submit`] has returned.
    pub(super) unsafe fn try_send(&mut self, fd: BorrowedFd<'_>, bytes: &[u8], index: u32) -> bool {
        let len = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
        let entry = opcode::Send::new(Fd(fd.as_raw_fd()), bytes.as_ptr(), len)
            .flags(SEND_FLAGS)
            .build()
            .flags(Flags::SKIP_SUCCESS)
            .user_data(Identity::indexed(Op::Send, index).pack());
        // SAFETY: the caller keeps the bytes in place until they were submitted, and a send with
        // these flags is finished by then. Should submission fail, nothing is read ever.
        unsafe { self.ring.submission().push(&entry) }.is_ok()
    }

    /// [`Self::try_send`] for bytes in several parts.
    ///
    /// # Safety
    ///
    /// The header, and all that it points to, must stay as they are until [`Self::submit`] has
    /// returned.
    pub(super) unsafe fn try_send_parts(
        &mut self,
        fd: BorrowedFd<'_>,
        header: &libc::msghdr,
        index: u32,
    ) -> bool {
        let entry = opcode::SendMsg::new(Fd(fd.as_raw_fd()), header)
            .flags(SEND_FLAGS as u32)
            .build()
            .flags(Flags::SKIP_SUCCESS)
            .user_data(Identity::indexed(Op::Send, index).pack());
        // SAFETY: as in `try_send`; the caller keeps the header and its parts in place.
        unsafe { self.ring.submission().push(&entry) }.is_ok()
    }

    /// Queues a request, after handing over those before it if there is no room.
    ///
    /// # Safety
    ///
    /// Memory that the entry names must outlive the request.
    unsafe fn push(&mut self, entry: Entry, identity: Identity) {
        let entry = entry.user_data(identity.pack());
        // SAFETY: passed on to the caller.
        if unsafe { self.ring.submission().push(&entry) }.is_ok() {
            return;
        }
        // On failure the ring is broken, and what is lost with it does not matter any more.
        if self.submit().is_ok() {
            // SAFETY: as above.
            let pushed = unsafe { self.ring.submission().push(&entry) };
            debug_assert!(pushed.is_ok(), "the queue was just emptied");
        }
    }

    // The kernel's side.

    /// Hands every queued request over. When this answers `Ok`, the kernel has taken them all.
    pub(super) fn submit(&mut self) -> io::Result<()> {
        self.health()?;
        let mut refused = libc::EBUSY;
        for _ in 0..SUBMIT_TRIES {
            let queued = self.ring.submission().len();
            if queued == 0 {
                return Ok(());
            }
            match self.enter(queued, EnterFlags::empty()) {
                Ok(_) => {}
                Err(libc::EINTR) => {}
                // The completion queue overflowed, or memory is short: make room on our side.
                Err(code @ (libc::EBUSY | libc::EAGAIN)) => {
                    refused = code;
                    self.copy_out(usize::MAX);
                    let _ = self.enter(0, EnterFlags::GETEVENTS);
                }
                Err(code) => {
                    refused = code;
                    break;
                }
            }
        }
        if self.ring.submission().is_empty() {
            return Ok(());
        }
        self.broken = Some(refused);
        self.health()
    }

    /// Hands queued requests over, lets the kernel finish what became ready, and copies completions
    /// out, about `limit` in all. Enters the kernel only if there is cause.
    pub(super) fn collect(&mut self, limit: usize) -> io::Result<()> {
        self.health()?;
        let mut enter = !self.ring.submission().is_empty() || self.is_work_pending();
        // The kernel runs a few dozen pieces of deferred work per call, then says that there is
        // more. Each round yields something, so the limit also bounds the rounds.
        for _ in 0..limit.max(1) {
            if enter {
                let queued = self.ring.submission().len();
                match self.enter(queued, EnterFlags::GETEVENTS) {
                    Ok(_) | Err(libc::EINTR) => {}
                    Err(libc::EBUSY | libc::EAGAIN) => {
                        self.copy_out(usize::MAX);
                        self.submit()?;
                    }
                    Err(code) => {
                        self.broken = Some(code);
                        return self.health();
                    }
                }
            }
            self.copy_out(limit);
            enter = self.is_work_pending();
            if !enter || self.done.len() >= limit {
                break;
            }
        }
        Ok(())
    }

    /// Whether something waits to be collected or acted upon. No system call.
    pub(super) fn has_more(&mut self) -> bool {
        !self.done.is_empty() || !self.ring.completion().is_empty() || self.is_work_pending()
    }

    /// The sends of the last `submit` that failed or fell short, by index and result.
    pub(super) fn take_sends(&mut self) -> io::Result<std::vec::Drain<'_, (u32, i32)>> {
        self.health()?;
        loop {
            let overflowed = self.ring.submission().cq_overflow();
            self.copy_out(usize::MAX);
            // A short send that the kernel parked outside the full queue must not go unnoticed: it
            // would pass for a whole one.
            if !overflowed {
                return Ok(self.sends.drain(..));
            }
            match self.enter(0, EnterFlags::GETEVENTS) {
                Ok(_) | Err(libc::EINTR) => {}
                Err(code) => {
                    self.broken = Some(code);
                    self.health()?;
                }
            }
        }
    }

    /// Waits for a completion, briefly, on the way out. Answers whether there is one.
    pub(super) fn wait_briefly(&mut self) -> bool {
        if self.submit().is_err() {
            return false;
        }
        let patience = Timespec::new().nsec(20_000_000);
        let args = SubmitArgs::new().timespec(&patience);
        // Timed out or interrupted is for the caller to count.
        let _ = self.ring.submitter().submit_with_args(1, &args);
        self.copy_out(usize::MAX);
        !self.done.is_empty()
    }

    fn copy_out(&mut self, limit: usize) {
        let mut queue = self.ring.completion();
        while self.done.len() < limit
            && let Some(entry) = queue.next()
        {
            // A word we never packed cannot be acted upon; there is none but by a kernel's error.
            let Some(identity) = Identity::unpack(entry.user_data()) else { continue };
            let result = entry.result();
            if identity.op == Op::Send {
                self.sends.push((identity.link.index, result));
            } else {
                self.done.push_back(Completion { identity, result, flags: entry.flags() });
            }
        }
    }

    /// Whether the kernel has deferred work for us, or completions it could not queue.
    fn is_work_pending(&mut self) -> bool {
        let submission = self.ring.submission();
        submission.taskrun() || submission.cq_overflow()
    }

    fn enter(&mut self, queued: usize, flags: EnterFlags) -> Result<usize, i32> {
        // SAFETY: `queued` is the number of entries pushed, and there is no argument to point to.
        let entered = unsafe {
            self.ring.submitter().enter::<libc::sigset_t>(queued as u32, 0, flags.bits(), None)
        };
        entered.map_err(|error| error.raw_os_error().unwrap_or(libc::EIO))
    }
}
