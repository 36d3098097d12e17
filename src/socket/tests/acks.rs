use std::collections::{BTreeMap, HashSet};

use proptest::prelude::*;

use super::super::{Acks, Answered, Expired, Finished};

type Table = Acks<&'static str, u8>;

fn all(sockets: &[u32]) -> HashSet<u32> {
    sockets.iter().copied().collect()
}

/// What a finished broadcast says, in one line.
fn said<W, A: Clone + Ord>(finished: &Finished<W, A>) -> (Vec<A>, usize) {
    let mut answers = finished.answers.clone();
    answers.sort();
    (answers, finished.missing)
}

#[test]
fn a_single_wait_ends_by_its_answer_and_only_once() {
    let mut acks = Table::new();
    acks.wait(3, 7, 100, "w");
    assert_eq!((acks.pending(3), acks.pending(2), acks.pending(4)), (1, 0, 0));
    assert!(matches!(acks.answer(2, 7, 1), Answered::Unknown), "not asked");
    assert!(matches!(acks.answer(3, 8, 1), Answered::Unknown), "invented");
    assert!(matches!(acks.answer(3, 7, 1), Answered::Single("w", 1)));
    assert!(matches!(acks.answer(3, 7, 1), Answered::Unknown), "duplicate");
    assert_eq!((acks.pending(3), acks.next_deadline_ms()), (0, None));
    assert!(acks.expire(u64::MAX).is_none());
}

#[test]
fn a_broadcast_waits_for_all_it_asked() {
    let mut acks = Table::new();
    acks.wait_all(all(&[1, 2, 3]), 7, 100, "w");
    assert_eq!((acks.broadcasts(), acks.pending(1)), (1, 0));
    assert!(matches!(acks.answer(2, 7, 20), Answered::Counted));
    assert!(matches!(acks.answer(2, 7, 21), Answered::Unknown), "duplicate");
    assert!(matches!(acks.answer(9, 7, 90), Answered::Unknown), "not asked");
    assert!(matches!(acks.answer(1, 7, 10), Answered::Counted));
    let Answered::Broadcast(finished) = acks.answer(3, 7, 30) else { panic!("all answered") };
    assert_eq!(finished.waiter, "w");
    assert_eq!(said(&finished), (vec![10, 20, 30], 0));
    assert_eq!((acks.broadcasts(), acks.next_deadline_ms()), (0, None));
    assert!(matches!(acks.answer(3, 7, 30), Answered::Unknown), "late");
}

#[test]
fn waits_expire_in_order_and_not_early() {
    let mut acks = Table::new();
    acks.wait(1, 0, 300, "third");
    acks.wait_all(all(&[1, 2]), 1, 200, "second");
    acks.wait(2, 2, 100, "first");
    assert_eq!(acks.next_deadline_ms(), Some(100));
    assert!(acks.expire(99).is_none());
    assert!(matches!(acks.expire(250), Some(Expired::Single("first"))));
    assert!(matches!(acks.answer(2, 1, 5), Answered::Counted));
    let Some(Expired::Broadcast(finished)) = acks.expire(250) else { panic!("it was due") };
    assert_eq!((finished.waiter, said(&finished)), ("second", (vec![5], 1)));
    assert!(acks.expire(250).is_none());
    assert!(matches!(acks.answer(2, 2, 0), Answered::Unknown), "too late");
    assert!(matches!(acks.answer(1, 1, 0), Answered::Unknown), "too late");
    assert!(matches!(acks.expire(300), Some(Expired::Single("third"))));
    assert_eq!(acks.next_deadline_ms(), None);
}

#[test]
fn a_socket_that_goes_ends_its_own_waits_and_holds_up_no_broadcast() {
    let mut acks = Table::new();
    acks.wait(1, 0, 100, "own");
    acks.wait(1, u64::MAX, 100, "own, last");
    acks.wait(2, 0, 100, "another's");
    acks.wait_all(all(&[1]), 5, 100, "only it");
    acks.wait_all(all(&[1, 2]), 6, 100, "it and another");
    acks.wait_all(all(&[2]), 7, 100, "only another");
    let (alone, finished) = acks.forget(1);
    assert_eq!(alone, ["own", "own, last"]);
    assert_eq!(finished.iter().map(|one| one.waiter).collect::<Vec<_>>(), ["only it"]);
    assert_eq!(said(&finished[0]), (vec![], 1));
    let Answered::Broadcast(finished) = acks.answer(2, 6, 9) else { panic!("nobody else is left") };
    assert_eq!(said(&finished), (vec![9], 1), "who left is missing");
    assert!(acks.forget(1).0.is_empty());
    assert_eq!((acks.pending(2), acks.broadcasts()), (1, 1));
}

#[test]
fn whoever_comes_into_a_slot_answers_nothing_its_predecessor_owed() {
    let mut acks = Table::new();
    acks.wait(1, 0, 100, "single");
    acks.wait_all(all(&[1, 2]), 1, 100, "broadcast");
    acks.forget(1);
    assert!(matches!(acks.answer(1, 0, 9), Answered::Unknown));
    assert!(matches!(acks.answer(1, 1, 9), Answered::Unknown));
}

#[derive(Debug, Clone)]
enum Step {
    Wait {
        socket: u32,
        for_ms: u64,
    },
    WaitAll {
        sockets: HashSet<u32>,
        for_ms: u64,
    },
    /// The wait made this many steps ago, or none.
    Answer {
        socket: u32,
        id: u64,
    },
    Forget(u32),
    Pass(u64),
}

fn step() -> impl Strategy<Value = Step> {
    let socket = || 0..5_u32;
    prop_oneof![
        3 => (socket(), 0..50_u64).prop_map(|(socket, for_ms)| Step::Wait { socket, for_ms }),
        2 => (prop::collection::hash_set(socket(), 1..5), 0..50_u64)
            .prop_map(|(sockets, for_ms)| Step::WaitAll { sockets, for_ms }),
        8 => (socket(), 0..20_u64).prop_map(|(socket, id)| Step::Answer { socket, id }),
        1 => socket().prop_map(Step::Forget),
        2 => (0..30_u64).prop_map(Step::Pass),
    ]
}

/// Which waits go on: whom they ask, how many answers came, when they end.
type Open = BTreeMap<u64, (HashSet<u32>, usize, u64)>;

/// A wait ended: it was open, and what it says adds up.
fn end(open: &mut Open, waiter: u64, answers: Option<(usize, usize)>) {
    let (awaited, answered, _) = open.remove(&waiter).expect("a wait ends once");
    if let Some((answers, missing)) = answers {
        assert_eq!(answers, answered);
        assert!(missing >= awaited.len(), "those who left are missing too");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(192))]

    #[test]
    fn every_wait_ends_exactly_once(steps in prop::collection::vec(step(), 1..60)) {
        let mut acks: Acks<u64, ()> = Acks::new();
        let mut open = Open::new();
        let (mut now_ms, mut next) = (0, 0);
        for step in steps {
            match step {
                Step::Wait { socket, for_ms } => {
                    acks.wait(socket, next, now_ms + for_ms, next);
                    open.insert(next, (all(&[socket]), 0, now_ms + for_ms));
                    next += 1;
                }
                Step::WaitAll { sockets, for_ms } => {
                    acks.wait_all(sockets.clone(), next, now_ms + for_ms, next);
                    open.insert(next, (sockets, 0, now_ms + for_ms));
                    next += 1;
                }
                Step::Answer { socket, id } => {
                    let id = next.wrapping_sub(id);
                    let asked = open
                        .get_mut(&id)
                        .is_some_and(|(awaited, count, _)| {
                            let asked = awaited.remove(&socket);
                            *count += usize::from(asked);
                            asked
                        });
                    match acks.answer(socket, id, ()) {
                        Answered::Unknown => assert!(!asked),
                        Answered::Counted => assert!(asked && !open[&id].0.is_empty()),
                        Answered::Single(waiter, ()) => end(&mut open, waiter, None),
                        Answered::Broadcast(over) => {
                            end(&mut open, over.waiter, Some((over.answers.len(), over.missing)));
                        }
                    }
                }
                Step::Forget(socket) => {
                    let (alone, shared) = acks.forget(socket);
                    for (awaited, ..) in open.values_mut() {
                        awaited.remove(&socket);
                    }
                    alone.into_iter().for_each(|waiter| end(&mut open, waiter, None));
                    for over in shared {
                        end(&mut open, over.waiter, Some((over.answers.len(), over.missing)));
                    }
                    assert!(open.values().all(|(awaited, ..)| !awaited.is_empty()));
                }
                Step::Pass(for_ms) => {
                    now_ms += for_ms;
                    while let Some(expired) = acks.expire(now_ms) {
                        match expired {
                            Expired::Single(waiter) => end(&mut open, waiter, None),
                            Expired::Broadcast(over) => {
                                let said = (over.answers.len(), over.missing);
                                end(&mut open, over.waiter, Some(said));
                            }
                        }
                    }
                    assert!(open.values().all(|&(.., until_ms)| until_ms > now_ms));
                }
            }
            let deadline_ms = open.values().map(|&(.., until_ms)| until_ms).min();
            prop_assert_eq!(acks.next_deadline_ms(), deadline_ms);
        }
    }
}
