//! How tables of a shard grow. Nothing here knows what they hold.
//!
//! A table is one plain vector: its entries are reached by one look-up, side by side. What doubling
//! costs at half a million entries (a pause of tens of milliseconds while they are copied) is
//! avoided by taking the address space for all there may ever be, early and once. Address space
//! is not memory: that comes page by page as entries are written.

/// Tables of up to this many entries double, so that a small server stays small.
const DOUBLED_MAX: usize = 16 * 1024;

/// The most that room is made for ahead of time.
const ROOM_MAX: usize = 4 * 1024 * 1024;

/// Pushes to a table that will not hold more than `most` entries, as far as is known.
pub(crate) fn push<T>(table: &mut Vec<T>, value: T, most: usize) {
    if table.len() == table.capacity() && table.len() >= DOUBLED_MAX {
        let more = most.min(ROOM_MAX).saturating_sub(table.len());
        // Where address space is short, the table goes on doubling.
        let _ = table.try_reserve_exact(more);
    }
    table.push(value);
}

#[cfg(test)]
mod tests {
    use super::{DOUBLED_MAX, ROOM_MAX, push};

    fn filled(len: usize, most: usize) -> Vec<u8> {
        let mut table = Vec::new();
        (0..len).for_each(|_| push(&mut table, 0, most));
        table
    }

    #[test]
    fn a_small_table_has_little_to_spare() {
        assert!(filled(1000, 1_000_000).capacity() <= 2000);
        assert!(filled(DOUBLED_MAX, 1_000_000).capacity() < 2 * DOUBLED_MAX);
    }

    #[test]
    fn a_large_one_moves_once_and_no_more() {
        let mut table = filled(DOUBLED_MAX + 1, 1_000_000);
        let place = table.as_ptr();
        (table.len()..1_000_000).for_each(|_| push(&mut table, 1, 1_000_000));
        assert_eq!(table.as_ptr(), place);
        assert_eq!(table.capacity(), 1_000_000);
    }

    #[test]
    fn one_that_grows_beyond_what_was_known_doubles() {
        assert!(filled(100_001, 50_000).capacity() >= 100_001);
        assert!(filled(DOUBLED_MAX + 1, usize::MAX).capacity() <= ROOM_MAX);
    }
}
