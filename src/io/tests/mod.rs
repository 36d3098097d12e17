//! One contract, tested on every driver.
//!
//! `suite` holds the claims, written once over [`World`]: a driver and the peers at the other end
//! of its links. `kernel` makes worlds of the real drivers and adds what only a kernel can show.
//! No test sleeps in the hope that something will have happened: all wait for a condition, and for
//! a kernel driver by sleeping on its wake descriptor, so that a lost wake-up fails the test.

mod kernel;
pub(super) mod suite;

use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::{Bytes, Driver, Event, Handoff, LinkId, SendOp, Short};

/// A wait this long has failed.
const PATIENCE: Duration = Duration::from_secs(60);

/// An event that owns its bytes.
#[derive(Debug)]
pub(super) enum Seen {
    Accepted(LinkId, SocketAddr),
    Received(LinkId, Vec<u8>),
    Ended(LinkId),
    Failed(LinkId, io::Error),
    Writable(LinkId),
    Detached(LinkId, Handoff),
    AcceptFailed,
}

impl Seen {
    fn link(&self) -> Option<LinkId> {
        match self {
            Self::Accepted(link, _)
            | Self::Received(link, _)
            | Self::Ended(link)
            | Self::Failed(link, _)
            | Self::Writable(link)
            | Self::Detached(link, _) => Some(*link),
            Self::AcceptFailed => None,
        }
    }
}

/// What a peer finds when it looks for bytes.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Found {
    Bytes(Vec<u8>),
    Nothing,
    End,
    Broken,
}

/// The other end of a link. No call blocks.
pub(super) trait Peer {
    /// Answers how many bytes were taken.
    fn write(&mut self, bytes: &[u8]) -> usize;
    fn read(&mut self) -> Found;
    /// Ends this side in order.
    fn finish(&mut self);
    /// Breaks the connection.
    fn reset(self);
}

/// A driver and those who connect to it.
pub(super) trait World {
    type Kernel: Driver;
    type Peer: Peer;

    fn driver(&mut self) -> &mut Self::Kernel;
    fn connect(&mut self) -> Self::Peer;
    /// Sleeps until the driver has something to collect, `limit` at the longest.
    fn wait(&mut self, limit: Duration);

    /// One turn: everything the driver yields.
    fn turn(&mut self) -> Vec<Seen> {
        let driver = self.driver();
        driver.poll().unwrap();
        let mut seen = Vec::new();
        while let Some(event) = driver.next() {
            seen.push(match event {
                Event::Accepted { link, peer } => Seen::Accepted(link, peer),
                Event::Received { link, bytes } => Seen::Received(link, bytes.to_vec()),
                Event::Ended { link } => Seen::Ended(link),
                Event::Failed { link, error } => Seen::Failed(link, error),
                Event::Writable { link } => Seen::Writable(link),
                Event::Detached { link, handoff } => Seen::Detached(link, handoff),
                Event::AcceptFailed { .. } => Seen::AcceptFailed,
            });
        }
        seen
    }

    /// Turns until `enough` says so of everything seen, sleeping in between.
    fn until(&mut self, mut enough: impl FnMut(&[Seen]) -> bool) -> Vec<Seen> {
        let begun = Instant::now();
        let mut seen = self.turn();
        while !enough(&seen) {
            let left = PATIENCE.checked_sub(begun.elapsed());
            self.wait(left.unwrap_or_else(|| panic!("never came; seen: {seen:?}")));
            seen.extend(self.turn());
        }
        seen
    }

    /// Connects and waits for the accept.
    fn link(&mut self) -> (LinkId, Self::Peer) {
        let peer = self.connect();
        let seen = self.until(|seen| seen.iter().any(|s| matches!(s, Seen::Accepted(..))));
        match seen.as_slice() {
            [Seen::Accepted(link, _)] => (*link, peer),
            other => panic!("expected one accept: {other:?}"),
        }
    }

    fn send(&mut self, link: LinkId, bytes: &[u8]) -> Option<Short> {
        let mut short = Vec::new();
        self.driver().send(&[SendOp { link, bytes: Bytes::One(bytes) }], &mut short);
        assert!(short.len() <= 1, "{short:?}");
        short.pop()
    }

    /// Reads at the peer until `enough`, turning the driver meanwhile.
    fn peer_reads(
        &mut self,
        peer: &mut Self::Peer,
        mut enough: impl FnMut(&[u8]) -> bool,
    ) -> (Vec<u8>, Vec<Seen>) {
        let begun = Instant::now();
        let (mut bytes, mut seen) = (Vec::new(), Vec::new());
        while !enough(&bytes) {
            assert!(begun.elapsed() < PATIENCE, "peer has {} bytes, seen {seen:?}", bytes.len());
            match peer.read() {
                Found::Bytes(more) => bytes.extend(more),
                Found::Nothing => {
                    seen.extend(self.turn());
                    self.wait(Duration::from_millis(1));
                }
                end => panic!("{end:?} after {} bytes, seen {seen:?}", bytes.len()),
            }
        }
        (bytes, seen)
    }

    /// Waits for the peer to find no more bytes, and answers what it found instead.
    fn peer_ends(&mut self, peer: &mut Self::Peer) -> (Vec<u8>, Found) {
        let begun = Instant::now();
        let mut bytes = Vec::new();
        loop {
            assert!(begun.elapsed() < PATIENCE, "peer never saw the end");
            match peer.read() {
                Found::Bytes(more) => bytes.extend(more),
                Found::Nothing => {
                    self.turn();
                    self.wait(Duration::from_millis(1));
                }
                end => return (bytes, end),
            }
        }
    }
}

/// All bytes received on `link`, in order.
fn received(seen: &[Seen], link: LinkId) -> Vec<u8> {
    let mut all = Vec::new();
    for event in seen {
        if let Seen::Received(of, bytes) = event
            && *of == link
        {
            all.extend_from_slice(bytes);
        }
    }
    all
}

fn has_received(seen: &[Seen], link: LinkId, len: usize) -> bool {
    received(seen, link).len() >= len
}

/// Bytes in which every displacement shows.
pub(super) fn pattern(len: usize, salt: u32) -> Vec<u8> {
    let mut state = u64::from(salt).wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut bytes = vec![0; len];
    for chunk in bytes.chunks_mut(8) {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963);
        chunk.copy_from_slice(&state.to_be_bytes()[..chunk.len()]);
    }
    bytes
}
