use proptest::prelude::*;

use super::super::log::Log;
use super::super::{Cold, Heartbeat, LinkKey, Phase, SessionId, Sessions, Sid, Transport, Upgrade};

fn cold(id: SessionId, owner: u32) -> Cold<u32> {
    Cold {
        generation: id.generation,
        sid: Sid::Custom(format!("sid-{owner}").into()),
        phase: Phase::Open,
        heartbeat: Heartbeat::opened(0, 1),
        upgrade: Upgrade::None,
        post: None,
        owner,
    }
}

fn open(sessions: &mut Sessions<u32>, owner: u32) -> SessionId {
    let id = sessions.reserve();
    sessions.insert(id, cold(id, owner));
    id
}

#[test]
fn a_session_is_found_by_its_id_until_it_is_removed() {
    let mut sessions = Sessions::new(0);
    let id = open(&mut sessions, 7);
    assert_eq!(sessions.ids().count(), 1);
    assert_eq!(sessions.get(id).unwrap().owner, 7);
    assert_eq!(sessions.get(id).unwrap().sid.as_str(), "sid-7");
    assert_eq!(sessions.id_at(id.slot), Some(id));
    assert_eq!(sessions.remove(id).unwrap().owner, 7);
    assert_eq!(sessions.ids().count(), 0);
    assert!(sessions.get(id).is_none());
    assert!(sessions.at(id.slot).is_none());
    assert!(sessions.remove(id).is_none());
    assert_eq!(sessions.ids().count(), 0);
}

#[test]
fn a_stale_id_misses_whoever_has_its_slot() {
    let mut sessions = Sessions::new(0);
    let stale = open(&mut sessions, 1);
    sessions.remove(stale);
    let fresh = open(&mut sessions, 2);
    assert_eq!(fresh.slot, stale.slot);
    assert!(sessions.get(stale).is_none());
    assert!(sessions.get_mut(stale).is_none());
    assert!(sessions.remove(stale).is_none());
    assert_eq!(sessions.get(fresh).unwrap().owner, 2);
    assert_eq!(sessions.ids().collect::<Vec<_>>(), [fresh]);
}

#[test]
fn an_unknown_slot_is_nobody() {
    let mut sessions = Sessions::<u32>::new(0);
    let id = SessionId { slot: 5, generation: 0 };
    assert!(sessions.get(id).is_none() && sessions.get_mut(id).is_none());
    assert!(sessions.at(5).is_none() && sessions.id_at(5).is_none());
    assert!(sessions.remove(id).is_none());
}

#[test]
fn a_reserved_slot_is_nobodys_and_can_be_given_back() {
    let mut sessions = Sessions::<u32>::new(0);
    let id = sessions.reserve();
    assert!(sessions.get(id).is_none());
    assert_eq!((sessions.ids().count(), sessions.ids().count()), (0, 0));
    let other = sessions.reserve();
    assert_ne!(other.slot, id.slot);
    sessions.unreserve(id);
    assert_eq!(sessions.reserve().slot, id.slot);
    assert_eq!(sessions.ids().count(), 0);
}

#[test]
#[should_panic(expected = "filled once")]
fn a_slot_is_not_filled_twice() {
    let mut sessions = Sessions::new(0);
    let id = open(&mut sessions, 1);
    sessions.insert(id, cold(id, 2));
}

#[test]
#[should_panic(expected = "only an unfilled slot")]
fn a_filled_slot_is_not_given_back() {
    let mut sessions = Sessions::new(0);
    let id = open(&mut sessions, 1);
    sessions.unreserve(id);
}

#[test]
#[should_panic(expected = "gives its references back first")]
fn a_session_with_pending_bytes_is_not_removed() {
    let mut sessions = Sessions::new(0);
    let mut log = Log::new();
    let id = open(&mut sessions, 1);
    let range = log.append(b"pending");
    assert!(sessions.hot[id.slot as usize].outbox.push(range, &mut log.queues));
    sessions.remove(id);
}

#[test]
fn a_removed_session_leaves_a_clean_slot_but_its_places_in_lists() {
    let mut sessions = Sessions::new(0);
    let id = open(&mut sessions, 1);
    let hot = &mut sessions.hot[id.slot as usize];
    hot.link = Some(LinkKey { index: 1, generation: 1 });
    hot.transport = Transport::WebSocket;
    (hot.dirty, hot.prompt, hot.stalled) = (true, true, true);
    assert!(hot.is_writable());
    hot.blocked = true;
    assert!(!hot.is_writable());
    sessions.remove(id);
    let hot = &sessions.hot[id.slot as usize];
    assert_eq!((hot.link, hot.transport, hot.blocked), (None, Transport::Polling, false));
    assert!(hot.dirty && hot.prompt && hot.stalled, "the lists still hold the slot");
    assert!(!hot.is_writable());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    /// Reserve (and keep, fill or give back) and remove in any order: every id ever given finds
    /// its own session or none.
    #[test]
    fn an_id_finds_its_own_session_or_none(
        steps in prop::collection::vec((0..5_u8, 0..40_usize), 1..150),
    ) {
        let mut sessions = Sessions::new(0);
        // The ids ever filled with their owners; the living are `true`.
        let mut filled: Vec<(SessionId, u32, bool)> = Vec::new();
        let mut reserved: Vec<SessionId> = Vec::new();
        for (step, pick) in steps {
            match step {
                0 => reserved.push(sessions.reserve()),
                1 if !reserved.is_empty() => {
                    sessions.unreserve(reserved.swap_remove(pick % reserved.len()));
                }
                2 if !reserved.is_empty() => {
                    let id = reserved.swap_remove(pick % reserved.len());
                    let owner = filled.len() as u32;
                    sessions.insert(id, cold(id, owner));
                    filled.push((id, owner, true));
                }
                3 | 4 if !filled.is_empty() => {
                    let index = pick % filled.len();
                    let (id, owner, live) = &mut filled[index];
                    let removed = sessions.remove(*id).map(|cold| cold.owner);
                    prop_assert_eq!(removed, live.then_some(*owner));
                    *live = false;
                }
                _ => {}
            }
            let live = filled.iter().filter(|(.., live)| *live).count();
            prop_assert_eq!((sessions.ids().count(), sessions.ids().count()), (live, live));
            for (id, owner, live) in &filled {
                let found = sessions.get(*id).map(|cold| cold.owner);
                prop_assert_eq!(found, live.then_some(*owner));
            }
        }
    }
}
