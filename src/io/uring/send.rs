//! Sends that finish inside the call that submits them.

use std::io;
use std::os::fd::AsFd;

use super::identity::{Identity, Op};
use super::{Fate, Request, Uring};
use crate::io::{LinkId, SEND_BYTES_MAX, SendOp, Short};

// A send's length must fit the kernel's 32 bits.
const _: () = assert!(SEND_BYTES_MAX <= u32::MAX as usize);

impl Uring {
    /// Sends the batch in slices of what the ring holds.
    pub(super) fn send_batch(&mut self, batch: &[SendOp<'_>], short: &mut Vec<Short>) {
        let mut from = 0;
        while from < batch.len() {
            let begin = short.len();
            let to = self.queue_sends(batch, from, short);
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
    fn queue_sends(&mut self, batch: &[SendOp<'_>], from: usize, short: &mut Vec<Short>) -> usize {
        for (op, SendOp { link, bytes }) in batch.iter().enumerate().skip(from) {
            let refusal = match self.links.get(*link).filter(|link| link.fate == Fate::Stays) {
                _ if bytes.len() > SEND_BYTES_MAX => io::ErrorKind::InvalidInput,
                Some(_) if bytes.is_empty() => continue,
                Some(state) => {
                    // SAFETY: `batch` is borrowed by `send`, which submits before it returns.
                    if !unsafe { self.ring.try_send(state.fd.as_fd(), bytes, op as u32) } {
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
