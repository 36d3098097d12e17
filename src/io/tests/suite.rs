//! The claims of the contract, one test each, over any [`World`].

use std::io::IoSlice;
use std::time::{Duration, Instant};

use super::{Found, PATIENCE, Peer, Seen, World, has_received, pattern, received};
use crate::io::{Bytes, Driver, LinkId, SEND_PARTS_MAX, SendOp};

/// Instantiates every claim for one world.
macro_rules! contract {
    ($module:ident, $world:expr) => {
        mod $module {
            $crate::io::tests::suite::contract!(@ $world,
                a_connection_is_accepted_with_its_address,
                bytes_come_back_whole_at_every_size,
                a_slow_peer_gets_every_byte_and_one_writable_per_short_send,
                a_batch_reports_exactly_the_ops_that_fell_short,
                parts_leave_as_one_and_fall_short_as_one,
                more_parts_than_agreed_are_refused,
                a_peer_that_ends_its_side_can_still_be_sent_to,
                a_reset_is_reported_as_failure,
                a_closed_link_ends_at_the_peer_and_yields_nothing,
                closing_between_events_of_one_turn_silences_the_link,
                stale_names_do_nothing,
                a_paused_link_keeps_its_bytes_in_the_kernel,
                pausing_and_resuming_at_once_loses_nothing,
                a_detached_connection_keeps_every_byte,
                detaching_a_paused_link_works,
                detaching_an_ended_link_hands_over_the_end,
                closing_a_leaving_link_yields_no_detached,
                shutting_down_delivers_what_was_sent_first,
                a_writable_wait_dies_with_its_link,
                room_that_shows_while_a_link_leaves_is_not_reported,
                resuming_while_accepting_changes_nothing,
                links_come_and_go_by_the_hundred,
            );
        }
    };
    (@ $world:expr, $($claim:ident,)*) => {
        $(#[test]
        fn $claim() {
            let Some(world) = $world else { return };
            crate::io::tests::suite::$claim(world);
        })*
    };
}
pub(in crate::io) use contract;

/// Sends all of `bytes`, waiting for `Writable` when short. The peer reads meanwhile.
fn send_whole<W: World>(world: &mut W, link: LinkId, peer: &mut W::Peer, bytes: &[u8]) -> Vec<u8> {
    let begun = Instant::now();
    let (mut at, mut blocked, mut got) = (0, false, Vec::new());
    while got.len() < bytes.len() {
        assert!(begun.elapsed() < PATIENCE, "{at} of {} sent, {} read", bytes.len(), got.len());
        if !blocked && at < bytes.len() {
            match world.send(link, &bytes[at..]) {
                None => at = bytes.len(),
                Some(short) => {
                    assert!(short.error.is_none(), "{short:?}");
                    assert!(short.sent < bytes.len() - at);
                    at += short.sent;
                    blocked = true;
                }
            }
        }
        match peer.read() {
            Found::Bytes(more) => got.extend(more),
            Found::Nothing => world.wait(Duration::from_millis(1)),
            end => panic!("{end:?}"),
        }
        for event in world.turn() {
            match event {
                Seen::Writable(of) if of == link => {
                    assert!(blocked, "a Writable nobody waits for");
                    blocked = false;
                }
                other => panic!("{other:?}"),
            }
        }
    }
    got
}

/// More than the kernel's buffers on both sides of a link may ever hold.
const SURELY_TOO_MUCH: usize = 32 << 20;

/// Fills the link until a send falls short. Answers the bytes taken.
fn fill<W: World>(world: &mut W, link: LinkId) -> Vec<u8> {
    let mut sent = Vec::new();
    for salt in 0..10_000 {
        let chunk = pattern(64 * 1024, salt);
        match world.send(link, &chunk) {
            None => sent.extend(chunk),
            Some(short) => {
                assert!(short.error.is_none(), "{short:?}");
                assert_eq!(short.op, 0);
                assert!(short.sent < chunk.len());
                sent.extend(&chunk[..short.sent]);
                return sent;
            }
        }
    }
    panic!("a peer that does not read took 640 MB");
}

/// The peer writes all of `bytes` while the driver reads. Answers what was seen.
fn peer_writes<W: World>(
    world: &mut W,
    peer: &mut W::Peer,
    link: LinkId,
    bytes: &[u8],
) -> Vec<Seen> {
    let begun = Instant::now();
    let (mut at, mut heard, mut seen) = (0, 0, Vec::new());
    while heard < bytes.len() {
        assert!(begun.elapsed() < PATIENCE, "{heard} of {at} heard, {} to write", bytes.len() - at);
        at += peer.write(&bytes[at..]);
        world.wait(Duration::from_millis(1));
        let new = world.turn();
        heard += received(&new, link).len();
        seen.extend(new);
    }
    seen
}

/// Proves that `quiet` yields nothing by making a link that was active later yield something.
fn assert_silent<W: World>(world: &mut W, quiet: LinkId) {
    let (link, mut peer) = world.link();
    for byte in 0..3u8 {
        assert_eq!(peer.write(&[byte]), 1);
        let seen = world.until(|seen| has_received(seen, link, 1));
        assert!(seen.iter().all(|s| s.link() != Some(quiet)), "{seen:?}");
    }
    world.driver().close(link);
}

pub(in crate::io) fn a_connection_is_accepted_with_its_address<W: World>(mut world: W) {
    let _peer = world.connect();
    let seen = world.until(|seen| !seen.is_empty());
    let [Seen::Accepted(_, peer)] = seen.as_slice() else { panic!("{seen:?}") };
    assert!(peer.ip().is_loopback() && peer.port() != 0, "{peer}");
}

pub(in crate::io) fn bytes_come_back_whole_at_every_size<W: World>(mut world: W) {
    let (link, mut peer) = world.link();
    let sizes = [1, 2, 125, 126, 4096, 16_383, 16_384, 16_385, 65_536, 65_537, 1 << 20];
    for (salt, size) in (1..).zip(sizes) {
        let bytes = pattern(size, salt);
        let seen = peer_writes(&mut world, &mut peer, link, &bytes);
        assert!(seen.iter().all(|s| matches!(s, Seen::Received(..))));
        assert!(received(&seen, link) == bytes, "{size} bytes came in changed");
        assert!(
            send_whole(&mut world, link, &mut peer, &bytes) == bytes,
            "{size} bytes went out changed"
        );
    }
}

pub(in crate::io) fn a_slow_peer_gets_every_byte_and_one_writable_per_short_send<W: World>(
    mut world: W,
) {
    let (link, mut peer) = world.link();
    let more = vec![7; SURELY_TOO_MUCH];
    for _ in 0..3 {
        let mut expected = fill(&mut world, link);
        // Another try falls short as well, and the link still owes one Writable only.
        let again = world.send(link, &more).expect("the link is full");
        assert!(again.error.is_none() && again.sent < more.len(), "{again:?}");
        expected.extend(&more[..again.sent]);

        let all = expected.len();
        let (got, mut seen) = world.peer_reads(&mut peer, |got| got.len() == all);
        assert!(got == expected, "the bytes differ");
        if seen.is_empty() {
            seen = world.until(|seen| !seen.is_empty());
        }
        assert!(matches!(seen.as_slice(), [Seen::Writable(of)] if *of == link), "{seen:?}");
        assert!(world.send(link, b"!").is_none());
        let (got, seen) = world.peer_reads(&mut peer, |got| !got.is_empty());
        assert_eq!(got, b"!");
        assert!(seen.is_empty(), "{seen:?}");
    }
}

pub(in crate::io) fn a_batch_reports_exactly_the_ops_that_fell_short<W: World>(mut world: W) {
    const LINKS: usize = 40;
    let mut links: Vec<_> = (0..LINKS).map(|_| world.link()).collect();
    let full = 17;
    let filled = fill(&mut world, links[full].0).len();
    let (gone, _) = links.remove(23);
    world.driver().close(gone);

    // A kernel finds room in a full link now and then, but never this much.
    let payloads: Vec<_> = (0..LINKS)
        .map(|at| if at == full { vec![7; SURELY_TOO_MUCH] } else { pattern(700, at as u32) })
        .collect();
    let mut batch: Vec<SendOp<'_>> = links
        .iter()
        .zip(&payloads)
        .map(|((link, _), bytes)| SendOp { link: *link, bytes: Bytes::One(bytes) })
        .collect();
    batch.push(SendOp { link: gone, bytes: Bytes::One(b"nobody") });
    let mut short = Vec::new();
    world.driver().send(&batch, &mut short);

    short.sort_by_key(|s| s.op);
    let [refused, unknown] = short.as_slice() else { panic!("{short:?}") };
    assert_eq!((refused.op, refused.error.is_none()), (full, true));
    assert!(refused.sent < SURELY_TOO_MUCH);
    assert_eq!((unknown.op, unknown.sent), (batch.len() - 1, 0));
    let error = unknown.error.as_ref().expect("an unknown link is broken");
    assert_eq!(error.kind(), std::io::ErrorKind::NotConnected);

    let refused = refused.sent;
    for (at, (_, peer)) in links.iter_mut().enumerate() {
        let expected = if at == full { filled + refused } else { 700 };
        let (got, _) = world.peer_reads(peer, |got| got.len() == expected);
        let tail = if at == full { refused } else { 700 };
        assert!(got[expected - tail..] == payloads[at][..tail], "link {at}");
    }
}

pub(in crate::io) fn parts_leave_as_one_and_fall_short_as_one<W: World>(mut world: W) {
    let (link, mut peer) = world.link();
    const SHORTS: usize = 3;
    // Sums that end inside of parts, and parts with nothing in them.
    let sizes = [1, 0, 700, 3, 0, 70_000, 200_000];
    let mut parts: Vec<Vec<u8>> =
        sizes.iter().enumerate().map(|(at, &size)| pattern(size, at as u32)).collect();
    parts.push(vec![7; SURELY_TOO_MUCH]);
    let whole: Vec<u8> = parts.concat();
    let mut slices: Vec<IoSlice<'_>> = parts.iter().map(|part| IoSlice::new(part)).collect();
    let (mut left, mut got) = (&mut slices[..], Vec::new());
    for _ in 0..SHORTS {
        let mut short = Vec::new();
        world.driver().send(&[SendOp { link, bytes: Bytes::Parts(left) }], &mut short);
        let short = short.pop().expect("more than fits was offered");
        assert!(short.error.is_none(), "{short:?}");
        IoSlice::advance_slices(&mut left, short.sent);
        let (more, mut seen) = world.peer_reads(&mut peer, |more| more.len() >= short.sent);
        got.extend(more);
        if seen.is_empty() {
            seen = world.until(|seen| !seen.is_empty());
        }
        assert!(matches!(seen.as_slice(), [Seen::Writable(of)] if *of == link), "{seen:?}");
    }
    assert!(got == whole[..got.len()], "the bytes differ");
}

pub(in crate::io) fn more_parts_than_agreed_are_refused<W: World>(mut world: W) {
    let (link, mut peer) = world.link();
    let parts = vec![IoSlice::new(b"x"); SEND_PARTS_MAX + 1];
    for (count, refused) in [(SEND_PARTS_MAX + 1, true), (SEND_PARTS_MAX, false)] {
        let mut short = Vec::new();
        let bytes = Bytes::Parts(&parts[..count]);
        world.driver().send(&[SendOp { link, bytes }], &mut short);
        let kind = short.pop().and_then(|short| short.error).map(|error| error.kind());
        assert_eq!(kind, refused.then_some(std::io::ErrorKind::InvalidInput));
    }
    let (got, _) = world.peer_reads(&mut peer, |got| got.len() >= SEND_PARTS_MAX);
    assert_eq!(got, [b'x'; SEND_PARTS_MAX]);
}

pub(in crate::io) fn a_peer_that_ends_its_side_can_still_be_sent_to<W: World>(mut world: W) {
    let (link, mut peer) = world.link();
    peer.write(b"last words");
    peer.finish();
    let seen = world.until(|seen| matches!(seen.last(), Some(Seen::Ended(_))));
    assert_eq!(received(&seen, link), b"last words");
    assert_eq!(seen.iter().filter(|s| matches!(s, Seen::Ended(_))).count(), 1);

    assert!(world.send(link, b"heard").is_none());
    let (got, seen) = world.peer_reads(&mut peer, |got| got.len() == 5);
    assert_eq!(got, b"heard");
    assert!(seen.is_empty(), "the end is reported once: {seen:?}");
    assert_silent(&mut world, link);
    world.driver().close(link);
    assert_eq!(world.peer_ends(&mut peer), (Vec::new(), Found::End));
}

pub(in crate::io) fn a_reset_is_reported_as_failure<W: World>(mut world: W) {
    let (link, peer) = world.link();
    peer.reset();
    let seen = world.until(|seen| !seen.is_empty());
    let [Seen::Failed(of, error)] = seen.as_slice() else { panic!("{seen:?}") };
    assert_eq!((*of, error.kind()), (link, std::io::ErrorKind::ConnectionReset));

    let short = world.send(link, b"too late").expect("the link is broken");
    assert!(short.error.is_some() && short.sent == 0, "{short:?}");
    world.driver().detach(link); // a broken link is not handed over
    assert_silent(&mut world, link);
    world.driver().close(link);
}

pub(in crate::io) fn a_closed_link_ends_at_the_peer_and_yields_nothing<W: World>(mut world: W) {
    let (link, mut peer) = world.link();
    assert!(world.send(link, b"goodbye").is_none());
    world.driver().close(link);
    assert_eq!(world.peer_ends(&mut peer), (b"goodbye".to_vec(), Found::End));
    peer.write(b"anyone there?");
    assert_silent(&mut world, link);
}

pub(in crate::io) fn closing_between_events_of_one_turn_silences_the_link<W: World>(mut world: W) {
    let mut links: Vec<_> = (0..8).map(|_| world.link()).collect();
    for (_, peer) in &mut links {
        assert_eq!(peer.write(&pattern(900, 3)), 900);
        peer.finish();
    }
    // Close whatever shows first, at its first event.
    let mut closed: Vec<LinkId> = Vec::new();
    let begun = Instant::now();
    while closed.len() < links.len() {
        let left = PATIENCE.checked_sub(begun.elapsed()).expect("all links yield something");
        world.wait(left);
        let driver = world.driver();
        driver.poll().unwrap();
        while let Some(event) = driver.next() {
            let crate::io::Event::Received { link, .. } = event else { panic!("{event:?}") };
            assert!(!closed.contains(&link), "an event after close");
            driver.close(link);
            closed.push(link);
        }
    }
    for link in closed {
        assert_silent(&mut world, link);
    }
}

pub(in crate::io) fn stale_names_do_nothing<W: World>(mut world: W) {
    let (old, mut old_peer) = world.link();
    world.driver().close(old);
    assert_eq!(world.peer_ends(&mut old_peer).1, Found::End);
    let (new, mut peer) = world.link();
    assert_ne!(old, new);

    let driver = world.driver();
    driver.set_reading(old, false);
    driver.shutdown_write(old);
    driver.detach(old);
    driver.close(old);
    let never = LinkId { index: 999_999, generation: 0 };
    driver.close(never);
    driver.detach(never);
    assert!(world.send(old, b"x").is_some_and(|short| short.error.is_some()));

    peer.write(b"still here");
    let seen = world.until(|seen| has_received(seen, new, 10));
    assert!(seen.iter().all(|s| s.link() == Some(new)), "{seen:?}");
    assert!(world.send(new, b"and here").is_none());
    assert_eq!(world.peer_reads(&mut peer, |got| got.len() == 8).0, b"and here");
}

pub(in crate::io) fn a_paused_link_keeps_its_bytes_in_the_kernel<W: World>(mut world: W) {
    let (link, mut peer) = world.link();
    world.driver().set_reading(link, false);
    assert_silent(&mut world, link); // the pause has surely taken effect now
    let bytes = pattern(50_000, 7);
    assert_eq!(peer.write(&bytes), bytes.len());
    peer.finish();
    assert_silent(&mut world, link);

    world.driver().set_reading(link, true);
    let seen = world.until(|seen| matches!(seen.last(), Some(Seen::Ended(_))));
    assert!(received(&seen, link) == bytes, "bytes differ");
}

pub(in crate::io) fn pausing_and_resuming_at_once_loses_nothing<W: World>(mut world: W) {
    let (link, mut peer) = world.link();
    let mut seen = Vec::new();
    for salt in 0..30 {
        let bytes = pattern(3000, salt);
        assert_eq!(peer.write(&bytes), bytes.len());
        world.driver().set_reading(link, false);
        if salt % 3 == 0 {
            seen.extend(world.turn());
        }
        world.driver().set_reading(link, true);
        let missing = bytes.len() * (salt as usize + 1) - received(&seen, link).len();
        seen.extend(world.until(|new| has_received(new, link, missing)));
    }
    let expected: Vec<u8> = (0..30).flat_map(|salt| pattern(3000, salt)).collect();
    assert!(received(&seen, link) == expected, "bytes differ");
}

/// Detaches, waits, and answers the bytes that came before and the connection's new name.
fn detach_and_attach<W: World>(world: &mut W, link: LinkId) -> (Vec<u8>, LinkId) {
    world.driver().detach(link);
    let mut seen = world.until(|seen| seen.iter().any(|s| matches!(s, Seen::Detached(..))));
    let bytes = received(&seen, link);
    let Some(Seen::Detached(of, handoff)) = seen.pop() else { panic!("{seen:?}") };
    assert_eq!(of, link);
    assert!(seen.iter().all(|s| matches!(s, Seen::Received(..))), "{seen:?}");
    world.driver().close(link); // gone already
    (bytes, world.driver().attach(handoff).unwrap())
}

pub(in crate::io) fn a_detached_connection_keeps_every_byte<W: World>(mut world: W) {
    let (mut link, mut peer) = world.link();
    let bytes = pattern(200_000, 11);
    let (mut at, mut got) = (0, Vec::new());
    let mut moves = 0;
    let begun = Instant::now();
    while got.len() < bytes.len() {
        assert!(begun.elapsed() < PATIENCE);
        let chunk = bytes.len().min(at + 4000);
        at += peer.write(&bytes[at..chunk]);
        if moves % 2 == 0 {
            got.extend(received(&world.turn(), link));
        }
        let (before, next) = detach_and_attach(&mut world, link);
        got.extend(before);
        link = next;
        world.wait(Duration::from_millis(1));
        got.extend(received(&world.turn(), link));
        moves += 1;
    }
    assert!(got == bytes, "bytes differ after {moves} moves");
    assert!(world.send(link, b"done").is_none());
    assert_eq!(world.peer_reads(&mut peer, |got| got.len() == 4).0, b"done");
}

pub(in crate::io) fn detaching_a_paused_link_works<W: World>(mut world: W) {
    let (link, mut peer) = world.link();
    world.driver().set_reading(link, false);
    assert_silent(&mut world, link);
    peer.write(b"waiting");
    let (before, next) = detach_and_attach(&mut world, link);
    assert_eq!(before, b"");
    let seen = world.until(|seen| has_received(seen, next, 7));
    assert_eq!(received(&seen, next), b"waiting");
}

pub(in crate::io) fn detaching_an_ended_link_hands_over_the_end<W: World>(mut world: W) {
    let (link, mut peer) = world.link();
    peer.write(b"GET");
    peer.finish();
    world.until(|seen| matches!(seen.last(), Some(Seen::Ended(_))));
    let (before, next) = detach_and_attach(&mut world, link);
    assert_eq!(before, b"");
    let seen = world.until(|seen| !seen.is_empty());
    assert!(matches!(seen.as_slice(), [Seen::Ended(of)] if *of == next), "{seen:?}");
    assert!(world.send(next, b"200").is_none());
    assert_eq!(world.peer_reads(&mut peer, |got| got.len() == 3).0, b"200");
}

pub(in crate::io) fn closing_a_leaving_link_yields_no_detached<W: World>(mut world: W) {
    let (link, mut peer) = world.link();
    world.driver().detach(link);
    world.driver().close(link);
    assert_eq!(world.peer_ends(&mut peer), (Vec::new(), Found::End));
    assert_silent(&mut world, link);
}

pub(in crate::io) fn shutting_down_delivers_what_was_sent_first<W: World>(mut world: W) {
    let (link, mut peer) = world.link();
    let bytes = pattern(30_000, 5);
    assert!(world.send(link, &bytes).is_none());
    world.driver().shutdown_write(link);
    assert!(world.peer_ends(&mut peer) == (bytes, Found::End));
    let short = world.send(link, b"more").expect("our side is ended");
    assert!(short.error.is_some() && short.sent == 0, "{short:?}");

    peer.write(b"I still talk");
    let seen = world.until(|seen| has_received(seen, link, 12));
    assert_eq!(received(&seen, link), b"I still talk");
    peer.finish();
    let seen = world.until(|seen| !seen.is_empty());
    assert!(matches!(seen.as_slice(), [Seen::Ended(_)]), "{seen:?}");
}

pub(in crate::io) fn a_writable_wait_dies_with_its_link<W: World>(mut world: W) {
    for detach in [false, true] {
        let (link, mut peer) = world.link();
        let expected = fill(&mut world, link);
        if detach {
            let (_, next) = detach_and_attach(&mut world, link);
            let len = expected.len();
            assert!(world.peer_reads(&mut peer, |got| got.len() == len).0 == expected);
            assert!(world.send(next, b"on").is_none(), "the new name owes nothing to the old");
            world.driver().close(next);
        } else {
            world.driver().close(link);
        }
        let (_, end) = world.peer_ends(&mut peer);
        assert_eq!(end, Found::End);
        assert_silent(&mut world, link);
    }
}

pub(in crate::io) fn room_that_shows_while_a_link_leaves_is_not_reported<W: World>(mut world: W) {
    let (link, mut peer) = world.link();
    let expected = fill(&mut world, link);
    world.driver().prepare_wait().unwrap();
    let begun = Instant::now();
    let mut got = Vec::new();
    while got.len() < expected.len() {
        assert!(begun.elapsed() < PATIENCE);
        match peer.read() {
            Found::Bytes(more) => got.extend(more),
            _ => world.wait(Duration::from_millis(1)),
        }
    }
    world.driver().poll().unwrap(); // knows of the room now
    world.driver().detach(link);
    let seen = world.until(|seen| !seen.is_empty());
    assert!(matches!(seen.as_slice(), [Seen::Detached(of, _)] if *of == link), "{seen:?}");
}

pub(in crate::io) fn resuming_while_accepting_changes_nothing<W: World>(mut world: W) {
    world.driver().resume_accepting(); // harmless while accepting
    let (first, _first_peer) = world.link();
    world.driver().resume_accepting();
    let (second, _second_peer) = world.link();
    assert_ne!(first, second);
}

pub(in crate::io) fn links_come_and_go_by_the_hundred<W: World>(mut world: W) {
    for round in 0..4u8 {
        let mut peers: Vec<_> = (0..50).map(|_| world.connect()).collect();
        for peer in &mut peers {
            assert_eq!(peer.write(&[round; 10]), 10);
        }
        let seen = world.until(|seen| {
            seen.iter()
                .map(|s| if let Seen::Received(_, b) = s { b.len() } else { 0 })
                .sum::<usize>()
                >= 500
        });
        let links: Vec<LinkId> = seen
            .iter()
            .filter_map(|s| if let Seen::Accepted(link, _) = s { Some(*link) } else { None })
            .collect();
        assert_eq!(links.len(), 50);
        for (at, link) in links.iter().enumerate() {
            assert_eq!(received(&seen, *link), [round; 10]);
            if at % 2 == 0 {
                world.driver().close(*link);
            }
        }
        drop(peers);
        let seen = world.until(|seen| seen.len() == 25);
        for (link, event) in links.iter().skip(1).step_by(2).zip(&seen) {
            assert!(matches!(event, Seen::Ended(_)), "{event:?}");
            world.driver().close(*link);
        }
    }
}
