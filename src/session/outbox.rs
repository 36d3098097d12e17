//! What waits to be sent on one session: ranges of the chunk log, in order.
//!
//! A frame that follows the last one in the same chunk only lengthens the last range, so a
//! thousand pending broadcasts are one range and one send. The outbox knows bytes and counts; what
//! a frame means (and so, what may be dropped) is told to it by the caller.
//!
//! Tests: `session/tests.rs`.

use std::collections::VecDeque;

use super::log::{Log, Queues, Range};

/// Pending bytes of one session. 32 bytes; allocates only when ranges do not adjoin.
#[derive(Debug)]
pub(crate) struct Outbox {
    first: Range,
    /// Bytes at the front that must leave before anything may be dropped: the rest of a frame
    /// that was sent in part, or the response head of an upgrade.
    pinned: u32,
    bytes: u32,
    #[expect(clippy::box_collection, reason = "8 bytes in the hot record; almost always None")]
    rest: Option<Box<VecDeque<Range>>>,
}

impl Default for Outbox {
    fn default() -> Self {
        Self { first: Range::EMPTY, pinned: 0, bytes: 0, rest: None }
    }
}

impl Outbox {
    /// Pending bytes.
    #[inline]
    pub(crate) fn len(&self) -> usize {
        self.bytes as usize
    }

    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.bytes == 0
    }

    /// Bytes at the front that belong to a frame already begun.
    pub(crate) fn pinned(&self) -> usize {
        self.pinned as usize
    }

    /// Declares the whole present content undroppable.
    pub(crate) fn pin(&mut self) {
        self.pinned = self.bytes;
    }

    /// Adds a range. Returns whether it became an entry of its own, which then owes the log one
    /// reference; the caller counts those and retains them together.
    #[inline]
    #[must_use = "a new entry must be retained in the log"]
    pub(crate) fn push(&mut self, range: Range, queues: &mut Queues) -> bool {
        self.bytes += range.len();
        if self.first.is_empty() {
            self.first = range;
            return true;
        }
        if self.rest.is_none() && self.first.chunk == range.chunk && self.first.end == range.start {
            self.first.end = range.end;
            return false;
        }
        self.push_rest(range, queues)
    }

    fn push_rest(&mut self, range: Range, queues: &mut Queues) -> bool {
        let rest = self.rest.get_or_insert_with(|| queues.take());
        if let Some(last) = rest.back_mut()
            && last.chunk == range.chunk
            && last.end == range.start
        {
            last.end = range.end;
            return false;
        }
        rest.push_back(range);
        true
    }

    /// All pending ranges in order.
    pub(crate) fn ranges(&self) -> impl Iterator<Item = Range> + '_ {
        let first = (!self.first.is_empty()).then_some(self.first);
        first.into_iter().chain(self.rest.iter().flat_map(|rest| rest.iter().copied()))
    }

    /// The only range, when there is just one.
    #[inline]
    pub(crate) fn single(&self) -> Option<Range> {
        (self.rest.is_none() && !self.first.is_empty()).then_some(self.first)
    }

    /// Everything was sent.
    #[inline]
    pub(crate) fn clear(&mut self, log: &mut Log) {
        if !self.first.is_empty() {
            log.release(self.first.chunk);
        }
        if let Some(rest) = self.rest.take() {
            rest.iter().for_each(|range| log.release(range.chunk));
            log.queues.keep(rest);
        }
        *self = Self::default();
    }

    /// Takes `count` bytes off the front: they were sent. `pinned` is what remains of the frame
    /// that the cut went through.
    pub(crate) fn advance(&mut self, log: &mut Log, mut count: usize, pinned: usize) {
        assert!(count <= self.len(), "a send cannot take more than was offered");
        self.bytes -= count as u32;
        self.pinned = pinned as u32;
        while count > 0 {
            let len = self.first.len() as usize;
            if count < len {
                self.first.start += count as u32;
                return;
            }
            count -= len;
            log.release(self.first.chunk);
            self.first = self.pop_rest(&mut log.queues).unwrap_or(Range::EMPTY);
        }
    }

    fn pop_rest(&mut self, queues: &mut Queues) -> Option<Range> {
        let next = self.rest.as_mut()?.pop_front();
        if let Some(rest) = self.rest.take_if(|rest| rest.is_empty()) {
            queues.keep(rest);
        }
        next
    }

    /// Replaces the content: `kept` (whole frames after the pinned bytes) becomes a chunk of its
    /// own. Used when old frames are dropped.
    pub(crate) fn replace(&mut self, log: &mut Log, kept: Vec<u8>, pinned: usize) {
        self.clear(log);
        if !kept.is_empty() {
            let range = log.append_own(kept);
            let fresh = self.push(range, &mut log.queues);
            debug_assert!(fresh, "the outbox was just cleared");
            log.retain(range, 1);
        }
        self.pinned = pinned as u32;
    }

    /// Copies what lies in shared chunks into one of its own, so that a session that does not
    /// drain pins no chunk of everybody's.
    pub(crate) fn copy_out(&mut self, log: &mut Log) {
        if self.ranges().all(|range| !log.is_shared(range.chunk)) {
            return;
        }
        let ranges: Vec<Range> = self.ranges().collect();
        let pinned = self.pinned;
        *self = Self::default();
        let mut shared = Vec::new();
        let place = |own: Vec<u8>, outbox: &mut Self, log: &mut Log| {
            if !own.is_empty() {
                let range = log.append_own(own);
                if outbox.push(range, &mut log.queues) {
                    log.retain(range, 1);
                }
            }
        };
        for range in ranges {
            if log.is_shared(range.chunk) {
                shared.extend_from_slice(log.bytes(range));
                log.release(range.chunk);
            } else {
                place(std::mem::take(&mut shared), self, log);
                // The entry moves with the reference it already holds.
                let fresh = self.push(range, &mut log.queues);
                debug_assert!(fresh, "chunks of one's own never adjoin");
            }
        }
        place(shared, self, log);
        self.pinned = pinned;
    }

    /// All pending bytes, copied.
    pub(crate) fn to_vec(&self, log: &Log) -> Vec<u8> {
        let mut all = Vec::with_capacity(self.len());
        self.ranges().for_each(|range| all.extend_from_slice(log.bytes(range)));
        all
    }
}
