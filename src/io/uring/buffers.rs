//! Receive buffers that belong to the ring, not to links.
//!
//! The kernel takes a buffer from this ring only when bytes are there, so an idle link holds none.
//! The driver puts it back once the shard is done with the bytes. When none is left a receive ends
//! with `ENOBUFS`, which is a state with a plan: see `Uring::feed_starved`.
//!
//! The memory is touched lazily: buffers that were never used cost address space only.

use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU16, Ordering};

use io_uring::types::BufRingEntry;

/// The kernel wants the ring of entries on a page of its own.
const PAGE_BYTES: usize = 4096;

/// A fixed number of equal buffers and the ring of entries that offers them to the kernel.
#[derive(Debug)]
pub(super) struct Buffers {
    entries: NonNull<BufRingEntry>,
    memory: NonNull<u8>,
    count: u16,
    size: u32,
    /// Entries offered so far, wrapping. Only we write it; the kernel reads the shared copy.
    tail: u16,
    leaked: bool,
}

impl Buffers {
    /// All buffers are on offer from the start. `count` must be a power of two.
    pub(super) fn new(count: u16, size: u32) -> Self {
        assert!(count.is_power_of_two() && count <= 1 << 15 && size > 0, "caller's constants");
        let entries = allocate(Self::entries_layout(count)).cast();
        let memory = allocate(Self::memory_layout(count, size));
        let mut buffers = Self { entries, memory, count, size, tail: 0, leaked: false };
        for id in 0..count {
            buffers.give_back(id);
        }
        buffers
    }

    fn entries_layout(count: u16) -> Layout {
        let len = usize::from(count) * size_of::<BufRingEntry>();
        Layout::from_size_align(len, PAGE_BYTES).expect("invariant: 512 KiB at the most")
    }

    fn memory_layout(count: u16, size: u32) -> Layout {
        let len = usize::from(count) * size as usize;
        Layout::from_size_align(len, PAGE_BYTES).expect("invariant: constants of the caller")
    }

    pub(super) const fn count(&self) -> u16 {
        self.count
    }

    /// Where the entries are, for registration.
    pub(super) fn address(&self) -> u64 {
        self.entries.as_ptr() as u64
    }

    /// The first `len` bytes of a buffer the kernel has filled, or `None` when there is no such
    /// buffer or it is not that long.
    pub(super) fn filled(&mut self, id: u16, len: usize) -> Option<&mut [u8]> {
        if id >= self.count || len > self.size as usize {
            return None;
        }
        let offset = usize::from(id) * self.size as usize;
        // SAFETY: `id` and `len` were checked, so the range lies inside `memory`, which lives as
        // long as `self` and was zeroed when allocated. The kernel has given this buffer up by
        // completing a receive with its id and writes to it again only after `give_back`, which
        // needs the `&mut self` that the answer holds.
        Some(unsafe { std::slice::from_raw_parts_mut(self.memory.as_ptr().add(offset), len) })
    }

    /// Never frees the memory: the kernel may write to it yet.
    pub(super) const fn leak(&mut self) {
        self.leaked = true;
    }

    /// Offers a buffer to the kernel again. The caller must have got `id` from a completion, and
    /// gives it back once.
    pub(super) fn give_back(&mut self, id: u16) {
        if id >= self.count {
            debug_assert!(false, "the kernel named buffer {id} of {}", self.count);
            return;
        }
        let slot = usize::from(self.tail & (self.count - 1));
        let offset = usize::from(id) * self.size as usize;
        // SAFETY: `slot < count`, so the entry lies inside `entries`; `offset` lies inside
        // `memory`. The kernel does not read an entry before the tail has passed it. The tail sits
        // in a reserved field of entry 0, aligned for u16, which the setters leave alone.
        unsafe {
            let entry = &mut *self.entries.as_ptr().add(slot);
            entry.set_addr(self.memory.as_ptr().add(offset) as u64);
            entry.set_len(self.size);
            entry.set_bid(id);
            self.tail = self.tail.wrapping_add(1);
            let tail = BufRingEntry::tail(self.entries.as_ptr()).cast_mut();
            // Release: the kernel must see the entry before it sees that there is one.
            AtomicU16::from_ptr(tail).store(self.tail, Ordering::Release);
        }
    }
}

impl Drop for Buffers {
    fn drop(&mut self) {
        if self.leaked {
            return;
        }
        // SAFETY: both were allocated with these layouts. The kernel has no receive in flight that
        // could still write here, for the owner says `leak` when it cannot be sure of that.
        unsafe {
            dealloc(self.entries.as_ptr().cast(), Self::entries_layout(self.count));
            dealloc(self.memory.as_ptr(), Self::memory_layout(self.count, self.size));
        }
    }
}

fn allocate(layout: Layout) -> NonNull<u8> {
    // SAFETY: no layout of ours has size zero: `count` and `size` are not.
    let memory = unsafe { alloc_zeroed(layout) };
    NonNull::new(memory).unwrap_or_else(|| handle_alloc_error(layout))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_do_not_overlap_and_lengths_are_checked() {
        let mut buffers = Buffers::new(4, 32);
        for id in 0..4 {
            buffers.filled(id, 32).unwrap().fill(id as u8 + 1);
        }
        for id in 0..4 {
            assert!(buffers.filled(id, 32).unwrap().iter().all(|byte| *byte == id as u8 + 1));
        }
        assert!(buffers.filled(4, 1).is_none());
        assert!(buffers.filled(0, 33).is_none());
    }
}
