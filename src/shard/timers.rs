//! Deadlines of one shard: a hashed wheel that never cancels.
//!
//! Whoever has a deadline keeps at most one authoritative entry and remembers its tick; when an
//! entry fires, the owner compares ticks, looks at its real deadline and, if that has moved,
//! schedules again. So a pong costs no timer work at all.

/// Resolution of all deadlines.
pub(crate) const TICK_MS: u64 = 8;
const SLOTS: usize = 4096;
/// Entries that an empty slot keeps room for.
const SLOT_ENTRIES_KEPT: usize = 4;
const WORDS: usize = SLOTS / 64;

/// Marks "no entry scheduled" where owners remember their tick.
pub(crate) const UNSCHEDULED: u64 = u64::MAX;

/// Whose deadline it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TimerKey {
    Session {
        slot: u32,
        generation: u32,
    },
    Link {
        index: u32,
        generation: u32,
    },
    /// Accepting is tried again.
    Accept,
}

#[derive(Debug, Clone, Copy)]
struct Entry {
    tick: u64,
    key: TimerKey,
}

/// See the module's text.
#[derive(Debug)]
pub(crate) struct Timers {
    slots: Vec<Vec<Entry>>,
    occupied: [u64; WORDS],
    /// Everything before this tick has fired.
    tick: u64,
    len: usize,
}

impl Timers {
    pub(crate) fn new(now_ms: u64) -> Self {
        Self {
            slots: (0..SLOTS).map(|_| Vec::new()).collect(),
            occupied: [0; WORDS],
            tick: now_ms / TICK_MS,
            len: 0,
        }
    }

    /// Adds an entry and returns its tick.
    pub(crate) fn schedule(&mut self, at_ms: u64, key: TimerKey) -> u64 {
        let tick = Self::tick_of(at_ms).max(self.tick);
        let slot = tick as usize % SLOTS;
        self.slots[slot].push(Entry { tick, key });
        self.occupied[slot / 64] |= 1 << (slot % 64);
        self.len += 1;
        tick
    }

    /// The tick at which a deadline fires: never early.
    pub(crate) fn tick_of(at_ms: u64) -> u64 {
        at_ms.div_ceil(TICK_MS)
    }

    /// Moves what is due into `fired`, as `(key, tick)`.
    pub(crate) fn expire(&mut self, now_ms: u64, fired: &mut Vec<(TimerKey, u64)>) {
        let now = now_ms / TICK_MS;
        while self.tick <= now && self.len > 0 {
            // After a long sleep one round over the wheel is enough.
            if now - self.tick >= SLOTS as u64 {
                self.tick = now - SLOTS as u64 + 1;
            }
            let slot = self.tick as usize % SLOTS;
            if self.occupied[slot / 64] & (1 << (slot % 64)) != 0 {
                self.fire(slot, now, fired);
            }
            self.tick += 1;
        }
        self.tick = self.tick.max(now + 1);
    }

    fn fire(&mut self, slot: usize, now: u64, fired: &mut Vec<(TimerKey, u64)>) {
        let entries = &mut self.slots[slot];
        let before = entries.len();
        entries.retain(|entry| {
            let due = entry.tick <= now;
            if due {
                fired.push((entry.key, entry.tick));
            }
            !due
        });
        self.len -= before - entries.len();
        if entries.is_empty() {
            // Were each slot to keep room for the worst tick it ever had, a busy hour would stay in
            // memory for good.
            if entries.capacity() > SLOT_ENTRIES_KEPT {
                *entries = Vec::new();
            }
            self.occupied[slot / 64] &= !(1 << (slot % 64));
        }
    }

    /// When to look again: not later than the next deadline, possibly earlier.
    pub(crate) fn next_ms(&self) -> Option<u64> {
        if self.len == 0 {
            return None;
        }
        let start = self.tick as usize % SLOTS;
        let mut distance = 0;
        while distance < SLOTS {
            let slot = (start + distance) % SLOTS;
            let word = self.occupied[slot / 64] >> (slot % 64);
            if word != 0 {
                distance += word.trailing_zeros() as usize;
                break;
            }
            distance += 64 - slot % 64;
        }
        Some((self.tick + distance.min(SLOTS) as u64) * TICK_MS)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fired_at(timers: &mut Timers, now_ms: u64) -> Vec<TimerKey> {
        let mut fired = Vec::new();
        timers.expire(now_ms, &mut fired);
        fired.into_iter().map(|(key, _)| key).collect()
    }

    #[test]
    fn a_deadline_fires_once_and_never_early() {
        let mut timers = Timers::new(1_000);
        timers.schedule(1_500, TimerKey::Accept);
        assert_eq!(fired_at(&mut timers, 1_499), []);
        assert_eq!(fired_at(&mut timers, 1_504), [TimerKey::Accept]);
        assert_eq!(fired_at(&mut timers, 9_999), []);
    }

    #[test]
    fn deadlines_beyond_the_wheel_wait_their_rounds() {
        let mut timers = Timers::new(0);
        let far = SLOTS as u64 * TICK_MS * 3 + 100;
        timers.schedule(far, TimerKey::Accept);
        let mut now = 0;
        while let Some(next) = timers.next_ms() {
            assert!(next > now, "time moves on");
            now = next;
            if !fired_at(&mut timers, now).is_empty() {
                break;
            }
        }
        assert!((far..far + TICK_MS).contains(&now), "{now} for {far}");
    }

    #[test]
    fn slots_do_not_remember_their_worst_tick() {
        let mut timers = Timers::new(0);
        for at_ms in 0..SLOTS as u64 * TICK_MS {
            timers.schedule(at_ms, TimerKey::Accept);
        }
        let all = fired_at(&mut timers, SLOTS as u64 * TICK_MS).len();
        assert_eq!(all as u64, SLOTS as u64 * TICK_MS);
        assert!(timers.slots.iter().all(|slot| slot.capacity() <= SLOT_ENTRIES_KEPT));
    }

    #[test]
    fn a_long_sleep_fires_all() {
        let mut timers = Timers::new(0);
        for at in 0..100u64 {
            timers.schedule(at * 1_000, TimerKey::Accept);
        }
        assert_eq!(fired_at(&mut timers, 1_000_000).len(), 100);
        assert_eq!(timers.next_ms(), None);
    }

    #[test]
    fn a_past_deadline_fires_at_the_next_look() {
        let mut timers = Timers::new(80_000);
        fired_at(&mut timers, 80_000);
        timers.schedule(10, TimerKey::Accept);
        assert_eq!(fired_at(&mut timers, 80_016), [TimerKey::Accept]);
    }
}
