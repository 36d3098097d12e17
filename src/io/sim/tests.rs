//! The contract over a kind and an unkind network, then the unkindness itself.

use std::io::ErrorKind;
use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::io::tests::suite::contract;
use crate::io::tests::{Found, Peer, World, pattern};
use crate::io::{Bytes, Driver, Event, Handoff, LinkId, SendOp};

/// A driver and its network, in which waiting moves the clock.
struct Sim {
    net: SimNet,
    driver: SimDriver,
    /// Waits in a row in which nothing could happen any more.
    futile: u32,
}

struct SimPeer {
    net: SimNet,
    client: ClientId,
}

impl Sim {
    fn new(seed: u64, faults: SimFaults) -> Option<Self> {
        let net = SimNet::new(seed, faults);
        let driver = net.driver(true);
        Some(Self { net, driver, futile: 0 })
    }
}

impl World for Sim {
    type Kernel = SimDriver;
    type Peer = SimPeer;

    fn driver(&mut self) -> &mut SimDriver {
        &mut self.driver
    }

    fn connect(&mut self) -> SimPeer {
        let client = self.net.connect();
        self.net.client_stop_reading(client); // a peer reads when it is told to
        SimPeer { net: self.net.clone(), client }
    }

    fn wait(&mut self, _limit: Duration) {
        if self.net.step() || self.driver.has_more() {
            self.futile = 0;
            return;
        }
        self.futile += 1;
        assert!(self.futile < 100, "everything has happened");
    }
}

impl Peer for SimPeer {
    fn write(&mut self, bytes: &[u8]) -> usize {
        self.net.client_send(self.client, bytes);
        bytes.len()
    }

    fn read(&mut self) -> Found {
        let bytes = self.net.client_recv(self.client);
        match self.net.client_state(self.client) {
            _ if !bytes.is_empty() => Found::Bytes(bytes),
            ClientState::Open => Found::Nothing,
            ClientState::Ended => Found::End,
            ClientState::Reset | ClientState::Closed => Found::Broken,
        }
    }

    fn finish(&mut self) {
        self.net.client_finish(self.client);
    }

    fn reset(self) {
        self.net.client_reset(self.client);
    }
}

impl Drop for SimPeer {
    fn drop(&mut self) {
        self.net.client_close(self.client);
    }
}

/// Unkind, but only in ways that a test which knows nothing of them must survive.
fn jumble() -> SimFaults {
    SimFaults { delay_us: 0..=5000, split: 0.5, ..SimFaults::default() }
}

contract!(kind_contract, super::Sim::new(1, super::SimFaults::default()));
contract!(jumbled_contract, super::Sim::new(2, super::jumble()));
contract!(another_jumbled_contract, super::Sim::new(3, super::jumble()));

/// Everything at once, connections break too.
fn storm() -> SimFaults {
    SimFaults {
        delay_us: 0..=3000,
        split: 0.3,
        short_send: 0.3,
        refused_send: 0.2,
        reset: 0.01,
        accept_failure: 0.2,
        window: 3000,
    }
}

const CLIENT_BYTES: usize = 6_000;

/// Two shards echo to 30 clients and pass connections to each other. Answers everything that
/// happened, in order, and checks every byte on the way.
fn echo_run(seed: u64, faults: SimFaults) -> String {
    let net = SimNet::new(seed, faults.clone());
    let mut drivers = [net.driver(true), net.driver(true)];
    let mut pending: [Vec<(LinkId, Vec<u8>)>; 2] = [Vec::new(), Vec::new()];
    let clients: Vec<ClientId> = (0..30).map(|_| net.connect()).collect();
    let mut got: Vec<Vec<u8>> = vec![Vec::new(); clients.len()];
    for (salt, client) in (0..).zip(&clients) {
        net.client_send(*client, &pattern(CLIENT_BYTES, salt));
    }
    let mut trace = String::new();
    let mut log = |line: String| {
        trace.push_str(&line);
        trace.push('\n');
    };
    let mut moves = 0;
    loop {
        for shard in 0..2 {
            let mut handoffs = Vec::new();
            let driver = &mut drivers[shard];
            driver.poll().unwrap();
            while let Some(event) = driver.next() {
                log(format!("{} {shard} {event:?}", net.now_ms()));
                match event {
                    Event::Received { link, bytes } => {
                        match pending[shard].iter_mut().find(|(of, _)| *of == link) {
                            Some((_, rest)) => rest.extend_from_slice(bytes),
                            None => pending[shard].push((link, bytes.to_vec())),
                        }
                    }
                    Event::Failed { link, .. } => {
                        pending[shard].retain(|(of, _)| *of != link);
                        driver.close(link);
                    }
                    Event::Detached { handoff, .. } => handoffs.push(handoff),
                    Event::AcceptFailed { .. } => driver.resume_accepting(),
                    Event::Ended { .. } => panic!("no client ends its side"),
                    Event::Accepted { .. } | Event::Writable { .. } => {}
                }
            }
            // Sends again at every chance, Writable or not: the network must keep count.
            pending[shard].retain_mut(|(link, rest)| {
                let mut short = Vec::new();
                driver.send(&[SendOp { link: *link, bytes: Bytes::One(rest) }], &mut short);
                match short.pop() {
                    None => {
                        moves += 1;
                        if moves % 7 == 0 {
                            driver.detach(*link);
                        }
                        false
                    }
                    Some(short) => {
                        rest.drain(..short.sent);
                        short.error.is_none()
                    }
                }
            });
            for handoff in handoffs {
                let link = drivers[1 - shard].attach(handoff).unwrap();
                log(format!("moved to {} as {link:?}", 1 - shard));
            }
        }
        for (bytes, client) in got.iter_mut().zip(&clients) {
            bytes.extend(net.client_recv(*client));
        }
        if drivers.iter_mut().any(Driver::has_more) {
            continue;
        }
        match net.next_event_at() {
            Some(at_ms) => net.advance(at_ms),
            None => break,
        }
    }
    for ((salt, client), got) in (0..).zip(&clients).zip(&got) {
        let expected = pattern(CLIENT_BYTES, salt);
        match net.client_state(*client) {
            ClientState::Open => assert!(*got == expected, "client {salt}: {}", got.len()),
            ClientState::Reset => assert!(expected.starts_with(got), "client {salt}"),
            other => panic!("client {salt}: {other:?}"),
        }
        log(format!("client {salt} got {}", got.len()));
    }
    if faults.reset == 0.0 {
        assert!(clients.iter().all(|client| net.client_state(*client) == ClientState::Open));
    }
    trace
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 8, ..ProptestConfig::default() })]

    #[test]
    fn a_seed_is_a_repeatable_run(seed: u64) {
        let first = echo_run(seed, storm());
        prop_assert_eq!(&first, &echo_run(seed, storm()));
        prop_assert_ne!(&first, &echo_run(!seed, storm()));
    }

    #[test]
    fn nothing_is_lost_while_nothing_breaks(seed: u64) {
        echo_run(seed, SimFaults { reset: 0.0, ..storm() });
    }
}

#[test]
fn every_fault_shows() {
    let trace: String = (0..5).map(|seed| echo_run(seed, storm())).collect();
    for word in ["AcceptFailed", "ConnectionReset", "Writable", "Detached", "moved to 1"] {
        assert!(trace.contains(word), "{word} never happened");
    }
}

#[test]
fn time_moves_only_when_told_to() {
    let net = SimNet::new(0, SimFaults { delay_us: 2500..=2500, ..SimFaults::default() });
    let mut driver = net.driver(true);
    assert_eq!((net.now_ms(), net.next_event_at()), (0, None));
    net.advance(10);
    net.connect();
    assert_eq!((net.now_ms(), net.next_event_at()), (10, Some(13)));
    net.advance(12);
    driver.poll().unwrap();
    assert!(driver.next().is_none());
    net.advance(13);
    driver.poll().unwrap();
    assert!(matches!(driver.next(), Some(Event::Accepted { .. })));
    assert_eq!((driver.now_ms(), driver.wake_descriptor().is_none()), (13, true));
}

#[test]
fn clients_spread_over_listeners_and_are_refused_without() {
    let net = SimNet::new(5, SimFaults::default());
    assert_eq!(net.client_state(net.connect()), ClientState::Reset);
    let mut drivers = [net.driver(true), net.driver(false), net.driver(true)];
    for _ in 0..40 {
        net.connect();
    }
    net.connect_to(2);
    assert_eq!(net.client_state(net.connect_to(1)), ClientState::Reset);
    net.advance(1);
    let accepted = drivers.each_mut().map(|driver| {
        driver.poll().unwrap();
        std::iter::from_fn(|| driver.next().map(drop)).count()
    });
    assert_eq!(accepted.iter().sum::<usize>(), 41);
    assert!(accepted[0] > 5 && accepted[1] == 0 && accepted[2] > 5, "{accepted:?}");

    // Who is on the way when a listener stops is reset, and so is who waits behind it.
    let late = net.connect_to(0);
    drivers[0].stop_accepting();
    net.advance(10);
    assert_eq!(net.client_state(late), ClientState::Ended);
}

#[test]
fn a_window_holds_no_more_than_it_is_wide() {
    let net = SimNet::new(5, SimFaults::default());
    let mut driver = net.driver(true);
    let client = net.connect();
    net.client_stop_reading(client);
    net.client_window(client, 100);
    net.advance(1);
    driver.poll().unwrap();
    let Some(Event::Accepted { link, .. }) = driver.next() else { panic!() };
    let mut short = Vec::new();
    driver.send(&[SendOp { link, bytes: Bytes::One(&[1; 300]) }], &mut short);
    assert_eq!((short[0].sent, short[0].error.is_none()), (100, true));
    net.advance(5);
    assert!(!driver.has_more(), "a client that does not read makes no room");
    net.client_start_reading(client);
    net.advance(10);
    driver.poll().unwrap();
    assert!(matches!(driver.next(), Some(Event::Writable { .. })));
    assert_eq!(net.client_recv(client), [1; 100]);
}

#[test]
fn a_closed_client_answers_bytes_with_a_reset() {
    let net = SimNet::new(5, SimFaults::default());
    let mut driver = net.driver(true);
    let client = net.connect();
    net.client_close(client);
    net.advance(1);
    driver.poll().unwrap();
    let Some(Event::Accepted { link, .. }) = driver.next() else { panic!() };
    net.advance(2);
    driver.poll().unwrap();
    assert!(matches!(driver.next(), Some(Event::Ended { .. })));
    let mut short = Vec::new();
    driver.send(&[SendOp { link, bytes: Bytes::One(b"hello?") }], &mut short);
    assert!(short.is_empty());
    net.advance(3);
    driver.send(&[SendOp { link, bytes: Bytes::One(b"hello?") }], &mut short);
    assert_eq!(short[0].error.as_ref().unwrap().kind(), ErrorKind::ConnectionReset);
    driver.close(link);
    net.advance(4);
    assert_eq!(net.connections(), 0, "both ends are gone");
}

#[test]
fn only_a_connection_between_two_owners_can_be_attached() {
    let net = SimNet::new(5, SimFaults::default());
    let mut driver = net.driver(true);
    let client = net.connect();
    net.advance(1);
    driver.poll().unwrap();
    driver.next().unwrap();
    for handoff in [Handoff::Sim(client.0), Handoff::Sim(99)] {
        assert_eq!(driver.attach(handoff).unwrap_err().kind(), ErrorKind::InvalidInput);
    }
}

#[test]
fn clients_of_a_muted_network_are_there_at_once_and_hear_nothing() {
    let net = SimNet::new(5, SimFaults::default());
    let mut driver = net.driver(true);
    net.mute(true);
    let client = net.connect();
    net.client_send(client, b"hello");
    driver.poll().unwrap();
    let Some(Event::Accepted { link, .. }) = driver.next() else { panic!() };
    driver.poll().unwrap();
    let Some(Event::Received { bytes, .. }) = driver.next() else { panic!() };
    assert_eq!(bytes, b"hello");
    let mut short = Vec::new();
    driver.send(&[SendOp { link, bytes: Bytes::One(&[0; 1000]) }], &mut short);
    assert!(short.is_empty());
    assert_eq!(net.next_event_at(), None);
    assert!(net.client_recv(client).is_empty());
}

#[test]
fn a_connection_whose_bytes_were_read_holds_no_buffer() {
    let net = SimNet::new(5, SimFaults::default());
    let mut driver = net.driver(true);
    let clients: Vec<ClientId> = (0..100).map(|_| net.connect()).collect();
    clients.iter().for_each(|&client| net.client_send(client, &[7; 100]));
    for time in 1..4 {
        net.advance(time);
        driver.poll().unwrap();
        while driver.next().is_some() {}
    }
    let net = net.net.borrow();
    for client in clients {
        let connection = net.connections.get(client.0).unwrap();
        assert_eq!(connection.to_server.arrived.capacity(), 0);
        assert_eq!(connection.client.unsent.capacity(), 0);
    }
}
