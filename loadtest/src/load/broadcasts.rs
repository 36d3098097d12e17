//! Broadcasts under way: who publishes when, who must get it, and the check of each receipt.
//!
//! A broadcast is outstanding until its last recipient has it. In the closed loop `window` of
//! them are; in the open loop they leave when their time has come, whatever happened before, and
//! latency counts from that scheduled time, so a stalled server cannot hide behind a generator
//! that waited for it.

use std::collections::VecDeque;

use super::{Pace, Window};
use crate::swarm::Client;
use crate::wire::{self, Payloads};

/// One broadcast on its way.
#[derive(Debug)]
struct Flight {
    scheduled: u64,
    missing: u32,
}

/// A room with its members and its own sequence.
#[derive(Debug)]
struct Group {
    members: u32,
    /// The oldest flight's number, and the flights from there on.
    oldest: u64,
    flights: VecDeque<Flight>,
}

/// Client 0 publishes; client `n` is a member of group `n % groups`.
pub(super) struct Broadcasts {
    payloads: Payloads,
    groups: Vec<Group>,
    turn: usize,
    pub(super) outstanding: usize,
    /// Publishes that have not been sent yet.
    pub(super) out: Vec<u8>,
}

impl Broadcasts {
    pub(super) fn new(payload: usize, members: u32, groups: u32) -> Self {
        let share = |group: u32| members / groups + u32::from(group < members % groups);
        let group = |group| Group {
            members: share(group),
            oldest: wire::FIRST_SEQUENCE,
            flights: VecDeque::new(),
        };
        Self {
            payloads: Payloads::new(payload),
            groups: (0..groups).map(group).collect(),
            turn: 0,
            outstanding: 0,
            out: Vec::new(),
        }
    }

    /// Schedules what is due by `now`; returns when the next one is.
    pub(super) fn pace(
        &mut self,
        pace: Pace,
        started: u64,
        now: u64,
        sent: &mut u64,
    ) -> Option<u64> {
        match pace {
            Pace::Window(window) => {
                while self.outstanding < window as usize {
                    self.schedule(now);
                }
                None
            }
            Pace::Rate(rate) => loop {
                let due = started + (*sent as f64 / rate * 1e9) as u64;
                if due > now {
                    return Some(due);
                }
                self.schedule(due);
                *sent += 1;
            },
        }
    }

    fn schedule(&mut self, scheduled: u64) {
        let index = self.turn;
        self.turn = (self.turn + 1) % self.groups.len();
        let alone = self.groups.len() == 1;
        let group = &mut self.groups[index];
        let number = group.oldest + group.flights.len() as u64;
        if group.members == 0 {
            return;
        }
        group.flights.push_back(Flight { scheduled, missing: group.members });
        self.outstanding += 1;
        let payload = self.payloads.get(number);
        match alone {
            true => wire::publish(&mut self.out, number, payload),
            false => wire::publish_to(&mut self.out, index, number, payload),
        }
    }

    /// An event that a client got: it must be the next tick of its group, whole.
    #[inline]
    pub(super) fn receipt(
        &mut self,
        who: u32,
        client: &mut Client,
        packet: &[u8],
        now: u64,
        window: &mut Window,
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
        let groups = self.groups.len();
        let group = &mut self.groups[if groups == 1 { 0 } else { who as usize % groups }];
        if client.next == 0 {
            // Everybody was in before the first broadcast, so nobody may miss it.
            client.next = wire::FIRST_SEQUENCE;
        }
        if number != client.next {
            let first = wire::FIRST_SEQUENCE as i64;
            return Err(format!(
                "a gap: broadcast {} came where {} was due",
                number as i64 - first,
                client.next as i64 - first
            ));
        }
        if payload != self.payloads.get(number) {
            return Err(format!("the text of broadcast {number} is damaged"));
        }
        client.next = number + 1;
        let flight = number
            .checked_sub(group.oldest)
            .and_then(|index| group.flights.get_mut(index as usize))
            .ok_or_else(|| format!("broadcast {number} was not under way"))?;
        let latency = now.saturating_sub(flight.scheduled);
        window.latency.record(latency);
        window.operations += 1;
        flight.missing = flight
            .missing
            .checked_sub(1)
            .ok_or_else(|| format!("broadcast {number} came too often"))?;
        if flight.missing == 0 {
            window.broadcasts += 1;
            window.last.record(latency);
            while group.flights.front().is_some_and(|flight| flight.missing == 0) {
                group.flights.pop_front();
                group.oldest += 1;
                self.outstanding -= 1;
            }
        }
        Ok(())
    }

    /// What is still missing, for the report of a run that fell silent.
    pub(super) fn missing(&self) -> Option<String> {
        let (index, group) = self.groups.iter().enumerate().find(|(_, g)| !g.flights.is_empty())?;
        let flight = group.flights.front()?;
        Some(format!(
            "broadcast {} of room {index} still misses {} of {} recipients",
            group.oldest - wire::FIRST_SEQUENCE,
            flight.missing,
            group.members
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Three broadcasts to one room of two clients.
    fn under_way() -> (Broadcasts, Vec<Vec<u8>>) {
        let mut broadcasts = Broadcasts::new(64, 2, 1);
        broadcasts.pace(Pace::Window(3), 0, 0, &mut 0);
        let payloads = Payloads::new(64);
        let tick = |number| wire::tick(number, payloads.get(number))[1..].to_vec();
        (broadcasts, (0..3).map(|index| tick(wire::FIRST_SEQUENCE + index)).collect())
    }

    fn receive(broadcasts: &mut Broadcasts, client: &mut Client, tick: &[u8]) -> Option<String> {
        broadcasts.receipt(0, client, tick, 1, &mut Window::default()).err()
    }

    #[test]
    fn in_order_and_whole_is_right_and_ends_the_flights() {
        let (mut broadcasts, ticks) = under_way();
        let mut clients = [Client::new(), Client::new()];
        for client in &mut clients {
            for tick in &ticks {
                assert_eq!(receive(&mut broadcasts, client, tick), None);
            }
        }
        assert_eq!((broadcasts.outstanding, broadcasts.missing()), (0, None));
    }

    #[test]
    fn a_gap_a_repetition_and_a_damaged_text_are_faults() {
        let (mut broadcasts, ticks) = under_way();
        let mut client = Client::new();
        assert!(receive(&mut broadcasts, &mut client, &ticks[1]).unwrap().contains("a gap"));
        assert_eq!(receive(&mut broadcasts, &mut client, &ticks[0]), None);
        assert!(receive(&mut broadcasts, &mut client, &ticks[0]).unwrap().contains("a gap"));
        let mut damaged = ticks[1].clone();
        damaged[40] ^= 1;
        assert!(receive(&mut broadcasts, &mut client, &damaged).unwrap().contains("damaged"));
        assert!(receive(&mut broadcasts, &mut client, b"2[\"other\"]").is_some());
    }
}
