//! Slots addressed by index and generation.
//!
//! A name that outlived its link misses here, so stale completions and stale calls fall out as a
//! lookup that finds nothing. A slot costs its state plus four bytes.

use super::LinkId;

/// Generations are 24 bits wide, so that one fits into a completion's identity next to an
/// operation and an index. A slot must be reused 16 million times before a name repeats.
pub(super) const GENERATION_BITS: u32 = 24;

const GENERATION_MASK: u32 = (1 << GENERATION_BITS) - 1;

#[derive(Debug)]
struct Slot<T> {
    generation: u32,
    state: Option<T>,
}

/// The links of one driver.
#[derive(Debug)]
pub(super) struct Table<T> {
    slots: Vec<Slot<T>>,
    /// Indices of empty slots; the last freed is the first reused, for its cache lines are warm.
    free: Vec<u32>,
}

impl<T> Table<T> {
    pub(super) const fn new() -> Self {
        Self { slots: Vec::new(), free: Vec::new() }
    }

    pub(super) fn insert(&mut self, state: T) -> LinkId {
        if let Some(index) = self.free.pop() {
            let slot = &mut self.slots[index as usize];
            debug_assert!(slot.state.is_none());
            slot.state = Some(state);
            return LinkId { index, generation: slot.generation };
        }
        let index =
            u32::try_from(self.slots.len()).expect("invariant: fewer links than descriptors");
        self.slots.push(Slot { generation: 0, state: Some(state) });
        LinkId { index, generation: 0 }
    }

    pub(super) fn get(&self, id: LinkId) -> Option<&T> {
        let slot = self.slots.get(id.index as usize)?;
        if slot.generation == id.generation { slot.state.as_ref() } else { None }
    }

    pub(super) fn get_mut(&mut self, id: LinkId) -> Option<&mut T> {
        let slot = self.slots.get_mut(id.index as usize)?;
        if slot.generation == id.generation { slot.state.as_mut() } else { None }
    }

    /// The present owner of a slot, for callers whose source cannot be stale.
    pub(super) fn occupant(&self, index: usize) -> Option<LinkId> {
        let slot = self.slots.get(index)?;
        slot.state.as_ref()?;
        let index = u32::try_from(index).ok()?;
        Some(LinkId { index, generation: slot.generation })
    }

    pub(super) fn remove(&mut self, id: LinkId) -> Option<T> {
        let slot = self.slots.get_mut(id.index as usize)?;
        if slot.generation != id.generation {
            return None;
        }
        let state = slot.state.take()?;
        slot.generation = (slot.generation + 1) & GENERATION_MASK;
        self.free.push(id.index);
        Some(state)
    }

    pub(super) fn len(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    /// Every occupied slot, in index order.
    pub(super) fn iter(&self) -> impl Iterator<Item = (LinkId, &T)> {
        self.slots.iter().zip(0u32..).filter_map(|(slot, index)| {
            let state = slot.state.as_ref()?;
            Some((LinkId { index, generation: slot.generation }, state))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::Table;

    #[test]
    fn a_stale_name_misses_after_its_slot_was_reused() {
        let mut table = Table::new();
        let first = table.insert('a');
        assert_eq!(table.remove(first), Some('a'));
        let second = table.insert('b');
        assert_eq!(first.index, second.index);
        assert_eq!(table.get(first), None);
        assert_eq!(table.remove(first), None);
        assert_eq!(table.get(second), Some(&'b'));
        assert_eq!(table.len(), 1);
        assert_eq!(table.iter().collect::<Vec<_>>(), [(second, &'b')]);
    }

    #[test]
    fn generations_wrap_inside_their_bits() {
        let mut table = Table::new();
        table.insert(());
        table.slots[0].generation = super::GENERATION_MASK;
        let last = table.occupant(0).unwrap();
        table.remove(last).unwrap();
        assert_eq!(table.insert(()).generation, 0);
    }
}
