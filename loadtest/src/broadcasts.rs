//! The fan-out as work of a swarm: one client publishes, everybody checks what arrives.
//!
//! A broadcast is outstanding until its last recipient has it. In the closed loop `window` of
//! them are; in the open loop they leave when their time has come, whatever happened before, and
//! latency counts from that scheduled time, so a stalled server cannot hide behind a generator
//! that waited for it.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::Failure;
use crate::latency::Latency;
use crate::swarm::{Client, Swarm, Work};
use crate::wire::{self, Payloads};

/// How broadcasts are paced.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Pace {
    /// Closed loop: this many outstanding.
    Window(u32),
    /// Open loop: this many a second.
    Rate(f64),
}

/// One broadcast on its way.
#[derive(Debug)]
struct Flight {
    scheduled: Instant,
    missing: u32,
}

/// Publishes and checks. The publisher is client 0.
pub(crate) struct Broadcasts {
    payloads: Payloads,
    recipients: u32,
    /// The oldest flight's number, and the flights from there on.
    oldest: u64,
    flights: VecDeque<Flight>,
    now: Instant,
    out: Vec<u8>,
    pub(crate) window: Window,
}

/// What one measured window has seen.
#[derive(Default)]
pub(crate) struct Window {
    pub(crate) broadcasts: u64,
    pub(crate) deliveries: u64,
    /// Reads they took: how much the server merged.
    pub(crate) reads: u64,
    /// Scheduled send to each receipt.
    pub(crate) latency: Latency,
    /// Scheduled send to the last receipt.
    pub(crate) last: Latency,
    /// The most broadcasts that an open loop had outstanding.
    pub(crate) backlog: u64,
}

impl Broadcasts {
    pub(crate) fn new(payload: usize) -> Self {
        Self {
            payloads: Payloads::new(payload),
            recipients: 0,
            oldest: wire::FIRST_SEQUENCE,
            flights: VecDeque::new(),
            now: Instant::now(),
            out: Vec::new(),
            window: Window::default(),
        }
    }

    pub(crate) fn outstanding(&self) -> usize {
        self.flights.len()
    }

    fn schedule(&mut self, scheduled: Instant) {
        let number = self.oldest + self.flights.len() as u64;
        self.flights.push_back(Flight { scheduled, missing: self.recipients });
        wire::publish(&mut self.out, number, self.payloads.get(number));
    }

    fn flush(&mut self, swarm: &mut Swarm) -> Result<(), Failure> {
        if self.out.is_empty() {
            return Ok(());
        }
        let mut out = std::mem::take(&mut self.out);
        let sent = swarm.send(0, &out);
        out.clear();
        self.out = out;
        sent
    }

    /// Publishes for `length` at this pace and waits until everything has arrived. What was
    /// measured lies in `self.window`; `tick` is called now and then.
    pub(crate) fn run(
        &mut self,
        swarm: &mut Swarm,
        pace: Pace,
        length: Duration,
        mut tick: impl FnMut(&Window),
    ) -> Result<(), Failure> {
        self.recipients = swarm.ready;
        self.window = Window::default();
        let started = Instant::now();
        let mut published = 0_u64;
        let mut told = started;
        let mut last_progress = (0, started);
        loop {
            let now = Instant::now();
            let over = now.duration_since(started) >= length || crate::system::interrupted();
            let mut wait = None;
            match pace {
                _ if over => {}
                Pace::Window(window) => {
                    while self.outstanding() < window as usize {
                        self.schedule(now);
                    }
                }
                Pace::Rate(rate) => loop {
                    let due = started + Duration::from_secs_f64(published as f64 / rate);
                    if due > now {
                        wait = Some(due - now);
                        break;
                    }
                    self.schedule(due);
                    published += 1;
                },
            }
            self.window.backlog = self.window.backlog.max(self.outstanding() as u64);
            self.flush(swarm)?;
            if over && self.flights.is_empty() {
                return Ok(());
            }
            if let Some(wait) = wait {
                swarm.wake_in(wait)?;
            }
            swarm.turn(Some(Duration::from_millis(100)), self)?;
            if now.duration_since(told) > Duration::from_millis(200) {
                told = now;
                tick(&self.window);
            }
            if self.window.deliveries != last_progress.0 || self.flights.is_empty() {
                last_progress = (self.window.deliveries, now);
            } else if now.duration_since(last_progress.1) > Duration::from_secs(10) {
                return Err(self.stalled());
            }
        }
    }

    fn stalled(&self) -> Failure {
        let missing = self.flights.front().map_or(0, |flight| flight.missing);
        Failure::Lost(format!(
            "broadcast {} still misses {missing} of {} recipients after 10 s of silence",
            self.oldest - wire::FIRST_SEQUENCE,
            self.recipients
        ))
    }
}

impl Work for Broadcasts {
    #[inline]
    fn packet(
        &mut self,
        who: u32,
        client: &mut Client,
        packet: &[u8],
        _reply: &mut Vec<u8>,
    ) -> Result<(), String> {
        let broken = || {
            let text = String::from_utf8_lossy(&packet[..packet.len().min(80)]);
            format!("not a tick of the contract: {text:?}")
        };
        let rest = packet.strip_prefix(b"2[\"tick\",").ok_or_else(broken)?;
        let (number, rest) = wire::number(rest).ok_or_else(broken)?;
        let payload = rest
            .strip_prefix(b",\"")
            .and_then(|rest| rest.strip_suffix(b"\"]"))
            .ok_or_else(broken)?;
        if client.next == 0 {
            client.next = number;
        }
        if number != client.next {
            let (got, expected) = (number as i64, client.next as i64);
            return Err(format!(
                "a gap: broadcast {} came where {} was due (client {who})",
                got - wire::FIRST_SEQUENCE as i64,
                expected - wire::FIRST_SEQUENCE as i64
            ));
        }
        if payload != self.payloads.get(number) {
            return Err(format!("the payload of broadcast {number} is damaged (client {who})"));
        }
        client.next = number + 1;
        let flight = number
            .checked_sub(self.oldest)
            .and_then(|index| self.flights.get_mut(index as usize))
            .ok_or_else(|| format!("broadcast {number} was not under way (client {who})"))?;
        let latency = self.now.saturating_duration_since(flight.scheduled);
        self.window.latency.record(latency);
        self.window.deliveries += 1;
        flight.missing = flight
            .missing
            .checked_sub(1)
            .ok_or_else(|| format!("broadcast {number} came too often (client {who})"))?;
        if flight.missing == 0 {
            self.window.broadcasts += 1;
            self.window.last.record(latency);
            while self.flights.front().is_some_and(|flight| flight.missing == 0) {
                self.flights.pop_front();
                self.oldest += 1;
            }
        }
        Ok(())
    }

    fn received(&mut self, now: Instant) {
        self.now = now;
        self.window.reads += 1;
    }
}
