use super::super::log::{CHUNK_BYTES, OWN_CHUNK_BYTES};
use super::super::{Log, Outbox, Range, Tail};

/// Writes `bytes` for one audience, which is one outbox here.
fn push(log: &mut Log, tail: &mut Tail, outbox: &mut Outbox, bytes: &[u8]) -> Range {
    let range = log.append_for(tail, bytes);
    if outbox.push(range, &mut log.queues) {
        log.retain(range, 1);
    }
    range
}

#[test]
fn an_audience_alone_is_written_to_side_by_side() {
    let (mut log, mut tail, mut outbox) = (Log::new(), Tail::NONE, Outbox::default());
    for frame in [&b"one"[..], b"two", b"three"] {
        push(&mut log, &mut tail, &mut outbox, frame);
    }
    assert_eq!(outbox.single(), Some(Range { chunk: 0, start: 0, end: 11 }));
    assert_eq!(outbox.to_vec(&log), b"onetwothree");
}

#[test]
fn audiences_in_turn_do_not_tear_each_others_ranges_apart() {
    let mut log = Log::new();
    let mut rooms: Vec<(Tail, Outbox, Vec<u8>)> =
        (0..20).map(|_| (Tail::NONE, Outbox::default(), Vec::new())).collect();
    for round in 0..50_u8 {
        for (tail, outbox, written) in &mut rooms {
            let frame = [round; 30];
            push(&mut log, tail, outbox, &frame);
            written.extend_from_slice(&frame);
        }
    }
    for (_, outbox, written) in &mut rooms {
        assert!(outbox.to_vec(&log) == *written);
        // 50 frames: the first, then regions of 8, 16 and 32.
        assert!(outbox.ranges().count() <= 4, "{}", outbox.ranges().count());
        outbox.clear(&mut log);
    }
    assert_eq!(log.append(b"x").start, 0, "reserved bytes hold no reference");
}

#[test]
fn a_tail_of_bytes_given_up_is_not_written_to() {
    let (mut log, mut stale, mut outbox) = (Log::new(), Tail::NONE, Outbox::default());
    let mut between = Outbox::default();
    for _ in 0..3 {
        push(&mut log, &mut stale, &mut outbox, b"room");
        push(&mut log, &mut { Tail::NONE }, &mut between, b"-");
    }
    outbox.clear(&mut log);
    between.clear(&mut log);
    // The chunk is rewound and written to by others, past where the region was.
    let mut other = Outbox::default();
    for _ in 0..50 {
        push(&mut log, &mut { Tail::NONE }, &mut other, b"0123456789");
    }
    push(&mut log, &mut stale, &mut outbox, b"room");
    assert!(other.to_vec(&log) == b"0123456789".repeat(50));
    assert_eq!(outbox.to_vec(&log), b"room");
}

#[test]
fn a_tail_of_another_chunk_is_not_written_to() {
    let (mut log, mut tail, mut outbox) = (Log::new(), Tail::NONE, Outbox::default());
    let (mut filler, mut written) = (Outbox::default(), Vec::new());
    for round in 0..100_u8 {
        let frame = vec![round; 700];
        push(&mut log, &mut tail, &mut outbox, &frame);
        written.extend_from_slice(&frame);
        push(&mut log, &mut { Tail::NONE }, &mut filler, &[0; 20_000]);
    }
    assert!(log.rotations() > 5);
    assert!(outbox.to_vec(&log) == written);
    assert!(filler.to_vec(&log).iter().all(|&byte| byte == 0));
    assert!(outbox.ranges().all(|range| range.end as usize <= CHUNK_BYTES));
}

#[test]
fn a_long_run_keeps_to_a_chunk_of_its_own() {
    let (mut log, mut tail, mut outbox) = (Log::new(), Tail::NONE, Outbox::default());
    let large = vec![7; OWN_CHUNK_BYTES + 1];
    push(&mut log, &mut tail, &mut outbox, b"small");
    let own = push(&mut log, &mut tail, &mut outbox, &large);
    assert!(!log.is_shared(own.chunk));
    push(&mut log, &mut tail, &mut outbox, b"after");
    assert!(outbox.to_vec(&log) == [&b"small"[..], &large, b"after"].concat());
    // The place of the freed chunk may be the current one some day.
    outbox.clear(&mut log);
    push(&mut log, &mut tail, &mut outbox, &large);
    outbox.clear(&mut log);
    let mut other = Outbox::default();
    while log.rotations() == 0 {
        push(&mut log, &mut { Tail::NONE }, &mut other, &[1; 10_000]);
    }
    push(&mut log, &mut tail, &mut outbox, b"again");
    assert_eq!(outbox.to_vec(&log), b"again");
    assert!(other.to_vec(&log).iter().all(|&byte| byte == 1));
}
