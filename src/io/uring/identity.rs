//! What a completion belongs to, packed into the 64 bits that the kernel hands back unread.
//!
//! ```text
//!  63      56 55              32 31                0
//! +----------+------------------+------------------+
//! |    op    |    generation    |      index       |
//! +----------+------------------+------------------+
//! ```
//!
//! Integers only: no pointer and no lifetime crosses the kernel, and a completion for a link that
//! is gone is a lookup that misses.

use crate::io::LinkId;
use crate::io::table::GENERATION_BITS;

const INDEX_BITS: u32 = u32::BITS;

// The three fields fill the word exactly.
const _: () = assert!(u8::BITS + GENERATION_BITS + INDEX_BITS == u64::BITS);

/// What was asked of the kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Op {
    /// Multishot accept on the listener. There is one, so link and index say nothing.
    Accept = 1,
    /// Multishot receive of a link.
    Receive = 2,
    /// A poll for room after a short send.
    Writable = 3,
    /// A send that failed or fell short. Its index is that of the op in its batch.
    Send = 4,
    /// A cancellation that found nothing to cancel.
    Cancel = 5,
    /// Asked of nobody: the driver's own note that a link with nothing in flight is to be given up.
    Depart = 6,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Identity {
    pub(super) op: Op,
    pub(super) link: LinkId,
}

impl Identity {
    pub(super) const fn of(op: Op, link: LinkId) -> Self {
        Self { op, link }
    }

    /// For the ops that concern no link.
    pub(super) const fn indexed(op: Op, index: u32) -> Self {
        Self { op, link: LinkId { index, generation: 0 } }
    }

    pub(super) fn pack(self) -> u64 {
        debug_assert!(self.link.generation < 1 << GENERATION_BITS);
        u64::from(self.op as u8) << (GENERATION_BITS + INDEX_BITS)
            | u64::from(self.link.generation) << INDEX_BITS
            | u64::from(self.link.index)
    }

    /// `None` for a word that [`Self::pack`] never made.
    pub(super) const fn unpack(word: u64) -> Option<Self> {
        let op = match word >> (GENERATION_BITS + INDEX_BITS) {
            1 => Op::Accept,
            2 => Op::Receive,
            3 => Op::Writable,
            4 => Op::Send,
            5 => Op::Cancel,
            6 => Op::Depart,
            _ => return None,
        };
        let generation = (word >> INDEX_BITS) as u32 & ((1 << GENERATION_BITS) - 1);
        Some(Self { op, link: LinkId { index: word as u32, generation } })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_identity_survives_the_kernel() {
        let ops = [Op::Accept, Op::Receive, Op::Writable, Op::Send, Op::Cancel, Op::Depart];
        for op in ops {
            for index in [0, 1, 77, u32::MAX] {
                for generation in [0, 1, 0x00ab_cdef, (1 << GENERATION_BITS) - 1] {
                    let identity = Identity::of(op, LinkId { index, generation });
                    assert_eq!(Identity::unpack(identity.pack()), Some(identity));
                }
            }
        }
        assert_eq!(Identity::unpack(0), None);
        assert_eq!(Identity::unpack(u64::MAX), None);
    }
}
