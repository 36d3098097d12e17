//! The log and its outboxes against one plain vector per outbox.

use proptest::prelude::*;

use super::super::log::{CHUNK_BYTES, OWN_CHUNK_BYTES};
use super::super::{Log, Outbox, Tail};

const OUTBOXES: usize = 4;
const AUDIENCES: usize = 5;

#[derive(Debug, Clone)]
enum Step {
    /// A frame for the outboxes whose bits are set, perhaps for none.
    Broadcast {
        to: u8,
        len: usize,
    },
    /// The same, written beside the last frame of an audience. Its members come and go.
    Room {
        room: usize,
        to: u8,
        len: usize,
    },
    /// The send took this part (of 100) of all that waits.
    Advance {
        of: usize,
        percent: usize,
    },
    Clear {
        of: usize,
    },
    CopyOut {
        of: usize,
    },
    Pin {
        of: usize,
    },
    /// Only what follows this part (of 100) is kept.
    Replace {
        of: usize,
        percent: usize,
    },
}

fn step() -> impl Strategy<Value = Step> {
    let of = || 0..OUTBOXES;
    let len = || {
        prop_oneof![
            12 => 1..64_usize,
            4 => 1_000..8_000_usize,
            4 => 40_000..=OWN_CHUNK_BYTES,
            1 => OWN_CHUNK_BYTES + 1..OWN_CHUNK_BYTES + 3_000,
        ]
    };
    prop_oneof![
        10 => (0..16_u8, len()).prop_map(|(to, len)| Step::Broadcast { to, len }),
        20 => (0..AUDIENCES, 0..16_u8, len())
            .prop_map(|(room, to, len)| Step::Room { room, to, len }),
        4 => (of(), 0..=100_usize).prop_map(|(of, percent)| Step::Advance { of, percent }),
        3 => of().prop_map(|of| Step::Clear { of }),
        3 => of().prop_map(|of| Step::CopyOut { of }),
        1 => of().prop_map(|of| Step::Pin { of }),
        1 => (of(), 0..=100_usize).prop_map(|(of, percent)| Step::Replace { of, percent }),
    ]
}

#[derive(Default)]
struct Pair {
    outbox: Outbox,
    naive: Vec<u8>,
    pinned: usize,
}

struct World {
    log: Log,
    pairs: [Pair; OUTBOXES],
    tails: [Tail; AUDIENCES],
    /// Tells frames apart.
    next: u8,
}

impl World {
    fn broadcast(&mut self, room: Option<usize>, to: u8, len: usize) {
        self.next = self.next.wrapping_add(1);
        let frame = vec![self.next; len];
        let range = match room {
            Some(room) => self.log.append_for(&mut self.tails[room], &frame),
            None => self.log.append(&frame),
        };
        self.log.retain(range, 1);
        let mut fresh = 0;
        for (index, pair) in self.pairs.iter_mut().enumerate() {
            if to & 1 << index != 0 {
                fresh += u32::from(pair.outbox.push(range, &mut self.log.queues));
                pair.naive.extend_from_slice(&frame);
            }
        }
        self.log.retain(range, fresh);
        self.log.release(range.chunk);
    }

    fn apply(&mut self, step: &Step) {
        let Self { log, pairs, .. } = self;
        match *step {
            Step::Broadcast { to, len } => self.broadcast(None, to, len),
            Step::Room { room, to, len } => self.broadcast(Some(room), to, len),
            Step::Advance { of, percent } => {
                let Pair { outbox, naive, pinned } = &mut pairs[of];
                let count = naive.len() * percent / 100;
                naive.drain(..count);
                *pinned = pinned.saturating_sub(count);
                outbox.advance(log, count, *pinned);
            }
            Step::Clear { of } => {
                pairs[of].outbox.clear(log);
                (pairs[of].naive, pairs[of].pinned) = (Vec::new(), 0);
            }
            Step::CopyOut { of } => {
                let outbox = &mut pairs[of].outbox;
                outbox.copy_out(log);
                assert!(outbox.ranges().all(|range| !log.is_shared(range.chunk)));
            }
            Step::Pin { of } => {
                pairs[of].outbox.pin();
                pairs[of].pinned = pairs[of].naive.len();
            }
            Step::Replace { of, percent } => {
                let Pair { outbox, naive, pinned } = &mut pairs[of];
                naive.drain(..naive.len() * percent / 100);
                *pinned = naive.len().min(*pinned);
                outbox.replace(log, naive.clone(), *pinned);
            }
        }
    }

    fn check(&self) {
        let mut held = std::collections::BTreeSet::new();
        for Pair { outbox, naive, pinned } in &self.pairs {
            assert_eq!((outbox.len(), outbox.pinned()), (naive.len(), *pinned));
            assert_eq!(outbox.is_empty(), naive.is_empty());
            assert!(outbox.to_vec(&self.log) == *naive, "the bytes in their order");
            let ranges: Vec<_> = outbox.ranges().collect();
            assert!(ranges.iter().all(|range| !range.is_empty()));
            for pair in ranges.windows(2) {
                let adjoin = pair[0].chunk == pair[1].chunk && pair[0].end == pair[1].start;
                assert!(!adjoin, "what adjoins is one range");
            }
            let single = (ranges.len() == 1).then(|| ranges[0]);
            assert_eq!(outbox.single(), single);
            held.extend(ranges.iter().map(|range| range.chunk));
        }
        // Own chunks are at most the bytes written; each other one is a whole chunk. Besides those
        // held there are the current one and the spare ones.
        let most = held.len() + 1 + 8;
        let own = self.log.capacity_bytes() % CHUNK_BYTES;
        let shared = (self.log.capacity_bytes() - own) / CHUNK_BYTES;
        assert!(shared <= most, "{shared} chunks for {} held", held.len());
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn outboxes_hold_what_vectors_would(steps in prop::collection::vec(step(), 1..100)) {
        let tails = [Tail::NONE; AUDIENCES];
        let mut world = World { log: Log::new(), pairs: Default::default(), tails, next: 0 };
        for step in &steps {
            world.apply(step);
            world.check();
        }
        for of in 0..OUTBOXES {
            world.apply(&Step::Clear { of });
        }
        // No reference is left anywhere: no chunk of one's own, and the current one is rewound.
        prop_assert_eq!(world.log.capacity_bytes() % CHUNK_BYTES, 0);
        prop_assert!(world.log.capacity_bytes() <= 9 * CHUNK_BYTES);
        prop_assert_eq!(world.log.append(b"x").start, 0);
    }
}
