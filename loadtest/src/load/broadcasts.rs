//! Broadcasts under way: who publishes when, who must get it, and the check of each receipt.
//!
//! A broadcast is outstanding until its last recipient has it. In the closed loop `window` of
//! them are; in the open loop they leave when their time has come, whatever happened before, and
//! latency counts from that scheduled time, so a stalled server cannot hide behind a generator
//! that waited for it.
//!
//! In a run of several processes one of them leads: it schedules and publishes, announces each
//! broadcast to the others, and counts each of them as one recipient that has it when all of its
//! clients do. The others follow: their broadcasts are those they were told of.

use std::collections::VecDeque;

use super::link::Sighting;
use super::{Pace, Plan, Share, Window};
use crate::swarm::Client;
use crate::wire::{self, Payloads};

/// One broadcast on its way.
#[derive(Debug)]
struct Flight {
    scheduled: u64,
    /// Recipients that do not have it yet; other processes count as one each.
    missing: u32,
    /// When the last of those had it that do.
    last: u64,
}

/// A room with its members and its own sequence.
#[derive(Debug)]
struct Group {
    members: u32,
    /// Other processes with members.
    others: u32,
    /// The oldest flight's number, and the flights from there on.
    oldest: u64,
    flights: VecDeque<Flight>,
}

pub(super) struct Broadcasts {
    payloads: Payloads,
    groups: Vec<Group>,
    share: Share,
    turn: usize,
    pub(super) outstanding: usize,
    /// Publishes that have not been sent yet.
    pub(super) out: Vec<u8>,
    /// Scheduled, and not yet announced to the other processes.
    pub(super) unannounced: Vec<Sighting>,
    /// Whoever follows collects here what all of its clients have.
    pub(super) landed: Option<Vec<Sighting>>,
}

/// What became of an event.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Receipt {
    Counted,
    /// Nobody has announced this number so far.
    Unknown,
}

impl Broadcasts {
    pub(super) fn new(plan: &Plan, share: Share) -> Self {
        let group = || Group {
            members: 0,
            others: 0,
            oldest: wire::FIRST_SEQUENCE,
            flights: VecDeque::new(),
        };
        let groups = if plan.broadcast.is_some() { plan.rooms } else { 0 };
        let mut broadcasts = Self {
            payloads: Payloads::new(plan.payload),
            groups: (0..groups).map(|_| group()).collect(),
            share,
            turn: 0,
            outstanding: 0,
            out: Vec::new(),
            unannounced: Vec::new(),
            landed: None,
        };
        for who in (0..share.clients).filter(|_| groups > 0) {
            broadcasts.groups[share.group_of(who) as usize].members += 1;
        }
        broadcasts
    }

    /// Other processes receive, too: so many of them in each group.
    pub(super) fn lead(&mut self, others: impl Fn(u32) -> u32) {
        for (index, group) in self.groups.iter_mut().enumerate() {
            group.others = others(index as u32);
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
                let due = started.saturating_add(Pace::due_ns(rate, *sent));
                // Where more is outstanding than may be, the run ends.
                if due > now || self.outstanding > self.share.plan.outstanding_max() {
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
        let missing = group.members + group.others;
        if missing == 0 {
            return;
        }
        group.flights.push_back(Flight { scheduled, missing, last: 0 });
        self.outstanding += 1;
        if group.others > 0 {
            self.unannounced.push((index as u32, number, scheduled));
        }
        let payload = self.payloads.of_room(index as u32, number);
        match alone {
            true => wire::publish(&mut self.out, number, payload),
            false => wire::publish_to(&mut self.out, index, number, payload),
        }
    }

    /// Another process is about to publish this.
    pub(super) fn announced(&mut self, (group, number, scheduled): Sighting) -> Result<(), String> {
        let strange = || format!("broadcast {number} of room {group} was announced out of turn");
        let group = self.groups.get_mut(group as usize).ok_or_else(strange)?;
        if number != group.oldest + group.flights.len() as u64 || group.members == 0 {
            return Err(strange());
        }
        group.flights.push_back(Flight { scheduled, missing: group.members, last: 0 });
        self.outstanding += 1;
        Ok(())
    }

    /// All clients of another process have this.
    pub(super) fn landed_elsewhere(
        &mut self,
        (index, number, last): Sighting,
        window: &mut Window,
    ) -> Result<(), String> {
        let strange = || format!("broadcast {number} of room {index} landed and was not under way");
        let group = self.groups.get_mut(index as usize).ok_or_else(strange)?;
        let flight = group.flight(number).ok_or_else(strange)?;
        flight.missing = flight.missing.checked_sub(1).ok_or_else(strange)?;
        flight.last = flight.last.max(last);
        if flight.missing == 0 {
            self.finish(index as usize, number, window);
        }
        Ok(())
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
    ) -> Result<Receipt, String> {
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
            if who >= self.share.clients || self.groups.is_empty() {
                return Err(format!("broadcast {number} came to a client in no room"));
            }
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
        let index = match self.groups.len() {
            1 => 0,
            _ => self.share.group_of(who) as usize,
        };
        if payload != self.payloads.of_room(index as u32, number) {
            return Err(format!("the text of broadcast {number} is damaged, or another room's"));
        }
        let Some(flight) = self.groups[index].flight(number) else { return Ok(Receipt::Unknown) };
        client.next = number + 1;
        window.latency.record(now.saturating_sub(flight.scheduled));
        window.operations += 1;
        flight.missing = flight
            .missing
            .checked_sub(1)
            .ok_or_else(|| format!("broadcast {number} came too often"))?;
        if flight.missing == 0 {
            flight.last = flight.last.max(now);
            self.finish(index, number, window);
        }
        Ok(Receipt::Counted)
    }

    /// The last recipient has it.
    fn finish(&mut self, index: usize, number: u64, window: &mut Window) {
        let group = &mut self.groups[index];
        let Some(flight) = group.flight(number) else { return };
        match &mut self.landed {
            Some(landed) => landed.push((index as u32, number, flight.last)),
            None => {
                window.broadcasts += 1;
                window.last.record(flight.last.saturating_sub(flight.scheduled));
            }
        }
        while group.flights.front().is_some_and(|flight| flight.missing == 0) {
            group.flights.pop_front();
            group.oldest += 1;
            self.outstanding -= 1;
        }
    }

    /// What is still missing, for the report of a run that fell silent.
    pub(super) fn missing(&self) -> Option<String> {
        let (index, group) = self.groups.iter().enumerate().find(|(_, g)| !g.flights.is_empty())?;
        let flight = group.flights.front()?;
        Some(format!(
            "broadcast {} of room {index} still misses {} of {} recipients{}",
            group.oldest - wire::FIRST_SEQUENCE,
            flight.missing,
            group.members + group.others,
            if group.others > 0 { ", each worker counted as one" } else { "" }
        ))
    }
}

impl Group {
    #[inline]
    fn flight(&mut self, number: u64) -> Option<&mut Flight> {
        self.flights.get_mut(number.checked_sub(self.oldest)? as usize)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn share(clients: u32) -> Share {
        Share { clients, ..Share::whole(&Plan::fanout(clients, 64, Pace::Window(3))) }
    }

    fn broadcasts(clients: u32) -> Broadcasts {
        Broadcasts::new(&Plan::fanout(clients, 64, Pace::Window(3)), share(clients))
    }

    fn ticks() -> Vec<Vec<u8>> {
        let payloads = Payloads::new(64);
        let tick = |number| wire::tick(number, payloads.get(number))[1..].to_vec();
        (0..3).map(|index| tick(wire::FIRST_SEQUENCE + index)).collect()
    }

    /// Three broadcasts to one room of two clients.
    fn under_way() -> (Broadcasts, Vec<Vec<u8>>) {
        let mut broadcasts = broadcasts(2);
        broadcasts.pace(Pace::Window(3), 0, 0, &mut 0);
        (broadcasts, ticks())
    }

    fn receive(
        broadcasts: &mut Broadcasts,
        client: &mut Client,
        tick: &[u8],
    ) -> Result<Receipt, String> {
        broadcasts.receipt(0, client, tick, 1, &mut Window::default())
    }

    #[test]
    fn in_order_and_whole_is_right_and_ends_the_flights() {
        let (mut broadcasts, ticks) = under_way();
        let mut clients = [Client::new(), Client::new()];
        for client in &mut clients {
            for tick in &ticks {
                assert_eq!(receive(&mut broadcasts, client, tick), Ok(Receipt::Counted));
            }
        }
        assert_eq!((broadcasts.outstanding, broadcasts.missing()), (0, None));
    }

    #[test]
    fn a_gap_a_repetition_and_a_damaged_text_are_faults() {
        let (mut broadcasts, ticks) = under_way();
        let mut client = Client::new();
        assert!(receive(&mut broadcasts, &mut client, &ticks[1]).unwrap_err().contains("a gap"));
        assert_eq!(receive(&mut broadcasts, &mut client, &ticks[0]), Ok(Receipt::Counted));
        assert!(receive(&mut broadcasts, &mut client, &ticks[0]).unwrap_err().contains("a gap"));
        let mut damaged = ticks[1].clone();
        damaged[40] ^= 1;
        assert!(receive(&mut broadcasts, &mut client, &damaged).unwrap_err().contains("damaged"));
        assert!(receive(&mut broadcasts, &mut client, b"2[\"other\"]").is_err());
    }

    #[test]
    fn a_client_of_no_room_gets_nothing() {
        let (mut broadcasts, ticks) = under_way();
        let mut window = Window::default();
        let fault = broadcasts.receipt(2, &mut Client::new(), &ticks[0], 1, &mut window);
        assert!(fault.unwrap_err().contains("in no room"));
    }

    #[test]
    fn who_follows_knows_what_was_announced_and_tells_what_has_landed() {
        let mut broadcasts = broadcasts(1);
        broadcasts.landed = Some(Vec::new());
        let (first, ticks) = (wire::FIRST_SEQUENCE, ticks());
        let mut client = Client::new();
        assert_eq!(receive(&mut broadcasts, &mut client, &ticks[0]), Ok(Receipt::Unknown));
        assert!(broadcasts.announced((0, first + 1, 0)).is_err());
        broadcasts.announced((0, first, 0)).unwrap();
        assert_eq!(receive(&mut broadcasts, &mut client, &ticks[0]), Ok(Receipt::Counted));
        assert_eq!(broadcasts.landed, Some(vec![(0, first, 1)]));
        assert_eq!(broadcasts.outstanding, 0);
    }

    #[test]
    fn who_leads_waits_for_the_last_of_all_processes() {
        let mut broadcasts = broadcasts(1);
        broadcasts.lead(|_| 2);
        broadcasts.pace(Pace::Window(1), 0, 5_000, &mut 0);
        let (first, mut window) = (wire::FIRST_SEQUENCE, Window::default());
        assert_eq!(broadcasts.unannounced, [(0, first, 5_000)]);
        broadcasts.landed_elsewhere((0, first, 2_005_000), &mut window).unwrap();
        let mut client = Client::new();
        let got = broadcasts.receipt(0, &mut client, &ticks()[0], 9_000, &mut window);
        assert_eq!((got, broadcasts.outstanding), (Ok(Receipt::Counted), 1));
        broadcasts.landed_elsewhere((0, first, 1_005_000), &mut window).unwrap();
        assert_eq!((broadcasts.outstanding, window.broadcasts), (0, 1));
        assert_eq!(window.last.percentiles().max_us / 10, 200, "the latest, not the last told");
        assert!(broadcasts.landed_elsewhere((0, first, 0), &mut window).is_err());
    }
}
