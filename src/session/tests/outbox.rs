use super::super::log::{CHUNK_BYTES, OWN_CHUNK_BYTES};
use super::super::{Log, Outbox, Range};

/// Writes `bytes` for one outbox alone.
fn push(log: &mut Log, outbox: &mut Outbox, bytes: &[u8]) -> Range {
    let range = log.append(bytes);
    if outbox.push(range, &mut log.queues) {
        log.retain(range, 1);
    }
    range
}

/// Writes frames until another chunk is current, and holds on to none of them.
fn rotate(log: &mut Log) {
    let before = log.rotations();
    let mut holder = Outbox::default();
    while log.rotations() == before {
        push(log, &mut holder, &[0; 10_000]);
    }
    holder.clear(log);
}

fn content(log: &Log, outbox: &Outbox) -> String {
    String::from_utf8(outbox.to_vec(log)).unwrap()
}

#[test]
fn a_new_outbox_is_empty() {
    let (mut log, mut outbox) = (Log::new(), Outbox::default());
    assert!(outbox.is_empty());
    assert_eq!((outbox.len(), outbox.pinned()), (0, 0));
    assert_eq!((outbox.single(), outbox.ranges().count()), (None, 0));
    assert!(Range::EMPTY.is_empty());
    outbox.clear(&mut log);
    outbox.advance(&mut log, 0, 0);
    outbox.copy_out(&mut log);
    outbox.replace(&mut log, Vec::new(), 0);
    assert_eq!(log.capacity_bytes(), 0, "a log that wrote nothing holds nothing");
}

#[test]
fn frames_that_follow_each_other_are_one_range_and_one_reference() {
    let (mut log, mut outbox) = (Log::new(), Outbox::default());
    let fresh = ["a", "bc", "def"].map(|frame| {
        let range = log.append(frame.as_bytes());
        let fresh = outbox.push(range, &mut log.queues);
        log.retain(range, u32::from(fresh));
        fresh
    });
    assert_eq!(fresh, [true, false, false]);
    assert_eq!(outbox.single(), Some(Range { chunk: 0, start: 0, end: 6 }));
    assert_eq!(content(&log, &outbox), "abcdef");
    outbox.clear(&mut log);
    assert_eq!(log.append(b"x").start, 0, "one release gave the chunk back");
}

#[test]
fn what_somebody_else_got_in_between_makes_a_range_of_its_own() {
    let (mut log, mut outbox, mut other) = (Log::new(), Outbox::default(), Outbox::default());
    push(&mut log, &mut outbox, b"one");
    push(&mut log, &mut other, b"two");
    push(&mut log, &mut outbox, b"three");
    push(&mut log, &mut outbox, b"four");
    assert_eq!((outbox.single(), outbox.ranges().count()), (None, 2));
    assert_eq!(content(&log, &outbox), "onethreefour");
    assert_eq!(outbox.ranges().next().unwrap(), Range { chunk: 0, start: 0, end: 3 });
    outbox.clear(&mut log);
    assert_eq!(content(&log, &other), "two", "another's bytes stay");
    other.clear(&mut log);
    assert_eq!(log.append(b"x").start, 0);
}

#[test]
fn the_current_chunk_is_rewound_only_when_nobody_refers_to_it() {
    let (mut log, mut a, mut b) = (Log::new(), Outbox::default(), Outbox::default());
    let range = log.append(b"shared");
    let fresh =
        u32::from(a.push(range, &mut log.queues)) + u32::from(b.push(range, &mut log.queues));
    log.retain(range, fresh);
    a.clear(&mut log);
    let next = push(&mut log, &mut a, b"next");
    assert_eq!(next.start, 6);
    a.clear(&mut log);
    assert_eq!(content(&log, &b), "shared");
    b.clear(&mut log);
    assert_eq!(log.append(b"x"), Range { chunk: 0, start: 0, end: 1 });
}

#[test]
fn a_held_range_outlives_the_release_of_everything_else() {
    let (mut log, mut slow) = (Log::new(), Outbox::default());
    push(&mut log, &mut slow, b"old");
    let range = log.append(b"new");
    log.retain(range, 1);
    slow.clear(&mut log);
    assert_eq!(log.bytes(range), b"new");
    push(&mut log, &mut slow, b"after");
    assert_eq!(log.bytes(range), b"new");
    log.release(range.chunk);
    assert_eq!(content(&log, &slow), "after");
}

#[test]
#[should_panic(expected = "every release follows one retain")]
fn a_reference_is_not_given_back_twice() {
    let mut log = Log::new();
    let range = log.append(b"x");
    log.retain(range, 1);
    log.release(range.chunk);
    log.release(range.chunk);
}

#[test]
fn sent_bytes_leave_at_any_byte() {
    let frames: [&[u8]; 4] = [b"one", b"two", b"three", b"four"];
    let total: usize = 3 + 5 + 4;
    for cut in 0..=total {
        for again in 0..=total - cut {
            let (mut log, mut outbox, mut other) =
                (Log::new(), Outbox::default(), Outbox::default());
            push(&mut log, &mut outbox, frames[0]);
            push(&mut log, &mut other, frames[1]);
            push(&mut log, &mut outbox, frames[2]);
            rotate(&mut log);
            push(&mut log, &mut outbox, frames[3]);
            outbox.advance(&mut log, cut, 7);
            assert_eq!((outbox.len(), outbox.pinned()), (total - cut, 7));
            assert_eq!(content(&log, &outbox), "onethreefour"[cut..]);
            outbox.advance(&mut log, again, 0);
            assert_eq!(content(&log, &outbox), "onethreefour"[cut + again..]);
            assert!(outbox.ranges().all(|range| !range.is_empty()));
            push(&mut log, &mut outbox, b"!");
            assert!(content(&log, &outbox).ends_with('!'));
            outbox.clear(&mut log);
            other.clear(&mut log);
            assert_eq!(log.append(b"x").start, 0, "all references came back");
        }
    }
}

#[test]
#[should_panic(expected = "cannot take more than was offered")]
fn more_than_waits_was_never_sent() {
    let (mut log, mut outbox) = (Log::new(), Outbox::default());
    push(&mut log, &mut outbox, b"abc");
    outbox.advance(&mut log, 4, 0);
}

#[test]
fn pinned_bytes_are_those_that_wait_when_it_is_said() {
    let (mut log, mut outbox) = (Log::new(), Outbox::default());
    push(&mut log, &mut outbox, b"head");
    outbox.pin();
    push(&mut log, &mut outbox, b"frame");
    assert_eq!(outbox.pinned(), 4);
    outbox.copy_out(&mut log);
    assert_eq!((outbox.pinned(), outbox.len()), (4, 9));
    outbox.clear(&mut log);
    assert_eq!(outbox.pinned(), 0);
}

#[test]
fn replaced_bytes_are_the_outboxs_own() {
    let (mut log, mut outbox) = (Log::new(), Outbox::default());
    push(&mut log, &mut outbox, b"dropped");
    push(&mut log, &mut outbox, b"kept");
    outbox.replace(&mut log, b"kept".to_vec(), 2);
    assert_eq!((content(&log, &outbox).as_str(), outbox.pinned()), ("kept", 2));
    assert!(!log.is_shared(outbox.single().unwrap().chunk));
    assert_eq!(log.append(b"x").start, 0, "what was shared came back");
    push(&mut log, &mut outbox, b"more");
    assert_eq!((content(&log, &outbox).as_str(), outbox.pinned()), ("keptmore", 2));
    outbox.replace(&mut log, Vec::new(), 0);
    assert!(outbox.is_empty() && outbox.pinned() == 0);
}

#[test]
fn a_copied_out_session_pins_nobodys_chunk() {
    let (mut log, mut slow, mut other) = (Log::new(), Outbox::default(), Outbox::default());
    for word in ["a", "b", "c"] {
        push(&mut log, &mut slow, word.as_bytes());
        push(&mut log, &mut other, b"-");
    }
    slow.copy_out(&mut log);
    other.clear(&mut log);
    assert_eq!(log.append(b"x").start, 0);
    let own = slow.single().expect("ranges side by side become one");
    assert!(!log.is_shared(own.chunk));
    assert_eq!(content(&log, &slow), "abc");
    let chunk = own.chunk;
    slow.copy_out(&mut log);
    assert_eq!(slow.single().map(|range| range.chunk), Some(chunk), "nothing left to copy");
}

#[test]
fn bytes_pushed_after_copying_out_follow_what_was_copied() {
    let (mut log, mut slow) = (Log::new(), Outbox::default());
    push(&mut log, &mut slow, b"a");
    slow.copy_out(&mut log);
    push(&mut log, &mut slow, b"b");
    push(&mut log, &mut slow, b"c");
    assert_eq!(slow.ranges().count(), 2);
    let large = vec![b'd'; OWN_CHUNK_BYTES + 1];
    push(&mut log, &mut slow, &large);
    push(&mut log, &mut slow, b"e");
    slow.copy_out(&mut log);
    assert!(slow.ranges().all(|range| !log.is_shared(range.chunk)));
    assert_eq!(slow.ranges().count(), 4);
    assert_eq!(slow.to_vec(&log), [&b"abc"[..], &large, b"e"].concat());
    slow.advance(&mut log, 2, 0);
    assert_eq!(slow.to_vec(&log), [&b"c"[..], &large, b"e"].concat());
    slow.clear(&mut log);
    assert_eq!(log.capacity_bytes(), CHUNK_BYTES);
}

#[test]
fn a_long_run_is_a_chunk_of_its_own_and_freed_when_sent() {
    let (mut log, mut outbox) = (Log::new(), Outbox::default());
    let shared = log.append(&vec![0; OWN_CHUNK_BYTES]);
    assert!(log.is_shared(shared.chunk));
    let own = push(&mut log, &mut outbox, &vec![0; OWN_CHUNK_BYTES + 1]);
    assert!(!log.is_shared(own.chunk));
    assert_eq!(log.capacity_bytes(), CHUNK_BYTES + OWN_CHUNK_BYTES + 1);
    outbox.clear(&mut log);
    assert_eq!(log.capacity_bytes(), CHUNK_BYTES);
    let again = push(&mut log, &mut outbox, &vec![0; OWN_CHUNK_BYTES + 1]);
    assert_eq!(again.chunk, own.chunk, "its place serves the next one");
}

#[test]
fn a_chunk_of_its_own_takes_no_more_memory_than_its_bytes() {
    let (mut log, mut outbox) = (Log::new(), Outbox::default());
    let mut kept = Vec::with_capacity(1024 * 1024);
    kept.extend_from_slice(b"the rest was dropped");
    outbox.replace(&mut log, kept, 0);
    assert_eq!(log.capacity_bytes(), outbox.len());
}

#[test]
fn frames_do_not_straddle_chunks() {
    let (mut log, mut outbox) = (Log::new(), Outbox::default());
    let frame = vec![7; OWN_CHUNK_BYTES - 1];
    for _ in 0..9 {
        push(&mut log, &mut outbox, &frame);
    }
    assert_eq!(log.rotations(), 2);
    assert_eq!(outbox.ranges().count(), 3);
    for range in outbox.ranges() {
        assert_eq!(range.len() as usize % frame.len(), 0);
    }
    outbox.clear(&mut log);
}

/// One session never drains while others are sent 32 MiB: it costs its own bytes.
#[test]
fn a_stalled_session_keeps_the_log_bounded_if_it_is_copied_out() {
    let (mut log, mut stalled, mut busy) = (Log::new(), Outbox::default(), Outbox::default());
    let (mut copied_at, mut most) = (log.rotations(), 0);
    for turn in 0..4096_usize {
        let range = log.append(&[b'x'; 8192]);
        log.retain(range, 1);
        let mut fresh = u32::from(busy.push(range, &mut log.queues));
        if turn.is_multiple_of(64) {
            fresh += u32::from(stalled.push(range, &mut log.queues));
        }
        log.retain(range, fresh);
        log.release(range.chunk);
        busy.clear(&mut log);
        if log.rotations() != copied_at {
            copied_at = log.rotations();
            stalled.copy_out(&mut log);
        }
        most = most.max(log.capacity_bytes() - stalled.len().min(log.capacity_bytes()));
    }
    assert_eq!(stalled.len(), 64 * 8192);
    assert!(log.rotations() > 10, "{}", log.rotations());
    assert!(most <= 3 * CHUNK_BYTES, "{most}");
    stalled.clear(&mut log);
    assert!(log.capacity_bytes() <= 3 * CHUNK_BYTES);
}

/// A burst that held many chunks at once gives most of them back.
#[test]
fn a_burst_leaves_few_spare_chunks() {
    let (mut log, mut outbox) = (Log::new(), Outbox::default());
    let mut other = Outbox::default();
    for _ in 0..40 {
        while !log.rotations().is_multiple_of(2) {
            push(&mut log, &mut outbox, &[1; 32 * 1024]);
        }
        while log.rotations().is_multiple_of(2) {
            push(&mut log, &mut other, &[2; 32 * 1024]);
        }
    }
    assert!(log.capacity_bytes() > 70 * CHUNK_BYTES);
    outbox.clear(&mut log);
    other.clear(&mut log);
    assert!(log.capacity_bytes() <= 9 * CHUNK_BYTES, "{}", log.capacity_bytes() / CHUNK_BYTES);
    let before = log.capacity_bytes();
    for _ in 0..100 {
        push(&mut log, &mut outbox, &[3; 32 * 1024]);
    }
    assert!(log.capacity_bytes() <= before.max(13 * CHUNK_BYTES));
    outbox.clear(&mut log);
}
