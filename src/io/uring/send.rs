//! Sends that finish inside the call that submits them.

use std::io::{self, IoSlice};
use std::os::fd::AsFd;

use super::identity::{Identity, Op};
use super::{Fate, Request, Uring};
use crate::io::{Bytes, LinkId, SEND_BYTES_MAX, SendOp, Short};

// A send's length must fit the kernel's 32 bits.
const _: () = assert!(SEND_BYTES_MAX <= u32::MAX as usize);

impl Uring {
    /// Sends the batch in slices of what the ring holds.
    pub(super) fn send_batch(&mut self, batch: &[SendOp<'_>], short: &mut Vec<Short>) {
        let in_parts = batch.iter().filter(|op| matches!(op.bytes, Bytes::Parts(_))).count();
        // The kernel reads the headers when the requests are submitted; until then none may move.
        let mut headers = Vec::with_capacity(in_parts);
        let mut from = 0;
        while from < batch.len() {
            let begin = short.len();
            let to = self.queue_sends(batch, from, &mut headers, short);
            match self.ring.submit().and_then(|()| self.ring.take_sends()) {
                Ok(sends) => short.extend(sends.filter_map(|(op, result)| {
                    let op = op as usize;
                    fell_short(op, batch.get(op)?.bytes.len(), result)
                })),
                Err(_) => {
                    // The ring is broken, which the next `poll` tells.
                    short.truncate(begin);
                    short.extend((from..batch.len()).map(|op| Short {
                        op,
                        sent: 0,
                        error: Some(io::ErrorKind::BrokenPipe.into()),
                    }));
                    return;
                }
            }
            for one in &short[begin..] {
                if one.error.is_none() {
                    self.await_writable(batch[one.op].link);
                }
            }
            from = to;
        }
    }

    /// Queues sends from `from` on until the ring is full. Answers where it stopped.
    fn queue_sends(
        &mut self,
        batch: &[SendOp<'_>],
        from: usize,
        headers: &mut Vec<libc::msghdr>,
        short: &mut Vec<Short>,
    ) -> usize {
        headers.clear();
        for (op, SendOp { link, bytes }) in batch.iter().enumerate().skip(from) {
            let refusal = match self.links.get(*link).filter(|link| link.fate == Fate::Stays) {
                _ if bytes.is_too_much() => io::ErrorKind::InvalidInput,
                Some(_) if bytes.len() == 0 => continue,
                Some(state) => {
                    let (fd, index) = (state.fd.as_fd(), op as u32);
                    let queued = match bytes {
                        // SAFETY: `batch` is borrowed by `send`, which submits before it returns.
                        Bytes::One(bytes) => unsafe { self.ring.try_send(fd, bytes, index) },
                        Bytes::Parts(parts) => {
                            debug_assert!(headers.len() < headers.capacity(), "one per op");
                            headers.push(header(parts));
                            let header = &headers[headers.len() - 1];
                            // SAFETY: as above, and so are the parts; the header stays where it
                            // is, because all of them have had room from the beginning.
                            unsafe { self.ring.try_send_parts(fd, header, index) }
                        }
                    };
                    if !queued {
                        return op;
                    }
                    continue;
                }
                None => io::ErrorKind::NotConnected,
            };
            short.push(Short { op, sent: 0, error: Some(refusal.into()) });
        }
        batch.len()
    }

    /// After a short send: ask once to be told of room.
    fn await_writable(&mut self, id: LinkId) {
        if let Some(link) = self.links.get_mut(id)
            && (link.fate, link.writable) == (Fate::Stays, Request::None)
        {
            link.writable = Request::InFlight;
            self.ring.poll_writable(link.fd.as_fd(), Identity::of(Op::Writable, id));
        }
    }
}

/// A message of nothing but these parts.
pub(super) fn header(parts: &[IoSlice<'_>]) -> libc::msghdr {
    // SAFETY: all zeros is a header without address, parts and control data.
    let mut header: libc::msghdr = unsafe { std::mem::zeroed() };
    // An `IoSlice` is an `iovec` by its documented layout; the kernel only reads a send's parts.
    header.msg_iov = parts.as_ptr().cast_mut().cast();
    header.msg_iovlen = parts.len() as _;
    header
}

fn fell_short(op: usize, len: usize, result: i32) -> Option<Short> {
    let Ok(sent) = usize::try_from(result) else {
        let error = match -result {
            libc::EAGAIN | libc::EINTR => None,
            code => Some(io::Error::from_raw_os_error(code)),
        };
        return Some(Short { op, sent: 0, error });
    };
    (sent < len).then_some(Short { op, sent, error: None })
}
