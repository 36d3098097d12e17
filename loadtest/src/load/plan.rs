//! What a run does, and which part of it one process has. Pure: numbers in, numbers out.

use std::ops::RangeInclusive;

use serde::{Deserialize, Serialize};

use crate::Failure;

/// How messages are paced.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub(crate) enum Pace {
    /// Closed loop: this many outstanding (for echoes: per client).
    Window(u32),
    /// Open loop: this many a second.
    Rate(f64),
}

/// Messages a second. What is slower has no place in a run, what is faster none on a machine.
const RATES: RangeInclusive<f64> = 1e-3..=1e7;
/// Bytes of a message's text.
const PAYLOAD_BYTES_MAX: usize = 16 << 20;
/// An open loop does not wait; a server that falls behind must not fill the memory.
const OUTSTANDING_MAX: usize = 1 << 20;
const OUTSTANDING_BYTES_MAX: usize = 1 << 30;

/// Whether texts may be so long.
pub(crate) fn check_payload(bytes: usize) -> Result<(), Failure> {
    match bytes {
        0..=PAYLOAD_BYTES_MAX => Ok(()),
        _ => Err(Failure::Usage(format!("a text has {PAYLOAD_BYTES_MAX} B at most"))),
    }
}

impl Pace {
    /// When the message comes that follows `sent` others, in nanoseconds after the first.
    pub(super) fn due_ns(rate: f64, sent: u64) -> u64 {
        (sent as f64 / rate * 1e9) as u64
    }
}

/// What a run does.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(crate) struct Plan {
    pub(crate) clients: u32,
    pub(crate) payload: usize,
    pub(crate) broadcast: Option<Pace>,
    /// Rooms over which the clients are spread.
    pub(crate) rooms: u32,
    pub(crate) echo: Option<Pace>,
    /// Clients besides the others that come and go, per second.
    pub(crate) churn: f64,
    /// Servers over which the clients are spread.
    pub(crate) servers: u32,
    /// So many clients, one of each server, publish every broadcast.
    pub(crate) publishers: u32,
}

impl Plan {
    /// Clients that connect and do nothing.
    pub(crate) const fn quiet(clients: u32) -> Self {
        Self {
            clients,
            payload: 0,
            broadcast: None,
            rooms: 1,
            echo: None,
            churn: 0.0,
            servers: 1,
            publishers: 0,
        }
    }

    /// A plan of one kind of work.
    pub(crate) const fn fanout(clients: u32, payload: usize, pace: Pace) -> Self {
        Self { payload, broadcast: Some(pace), publishers: 1, ..Self::quiet(clients) }
    }

    pub(crate) const fn echo(clients: u32, payload: usize, pace: Pace) -> Self {
        Self { payload, echo: Some(pace), ..Self::quiet(clients) }
    }

    /// The same against several servers, which are one `cluster` or know nothing of each other.
    pub(crate) const fn among(self, servers: u32, cluster: bool) -> Self {
        let publishers = match self.broadcast {
            None => 0,
            Some(_) if cluster => 1,
            Some(_) => servers,
        };
        Self { servers, publishers, ..self }
    }

    /// Messages that may be outstanding at once, all clients together.
    pub(super) fn outstanding_max(&self) -> usize {
        (OUTSTANDING_BYTES_MAX / self.payload.max(1)).clamp(1, OUTSTANDING_MAX)
    }

    /// Whether somebody can run this: nothing in it is beyond its bound.
    pub(crate) fn check(&self) -> Result<(), Failure> {
        let wrong = |why: String| Err(Failure::Usage(why));
        if self.clients == 0 || self.publishers > self.clients {
            return wrong("at least one client for each server".to_owned());
        }
        check_payload(self.payload)?;
        let most_rooms = (self.clients - 1) / self.servers + 1;
        if !(1..=most_rooms).contains(&self.rooms) {
            let why = format!("between 1 and {most_rooms} rooms, or some have no clients");
            return wrong(why);
        }
        let all = u64::from(self.clients);
        for (pace, times) in [(self.broadcast, 1), (self.echo, all)] {
            match pace {
                Some(Pace::Rate(rate)) if !RATES.contains(&rate) => {
                    let (least, most) = (RATES.start(), RATES.end());
                    return wrong(format!(
                        "{rate} is no rate: between {least} and {most} a second"
                    ));
                }
                Some(Pace::Window(0)) => {
                    return wrong("at least one message outstanding".to_owned());
                }
                Some(Pace::Window(window)) => {
                    let (wanted, most) = (u64::from(window) * times, self.outstanding_max());
                    if wanted > most as u64 {
                        let why = format!("{wanted} messages outstanding: {most} are possible");
                        return wrong(why);
                    }
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// The argument of client `who`'s `join`, if it joins.
    pub(crate) fn rooms_of(&self, who: u32) -> Option<String> {
        self.broadcast?;
        match self.rooms {
            _ if who >= self.clients => None,
            1 => Some("[\"all\"]".to_owned()),
            _ => Some(format!("[\"r{}\"]", self.room_of(who))),
        }
    }

    /// Neighbours are clients of different servers, so that each room has clients of each.
    fn room_of(&self, who: u32) -> u32 {
        who / self.servers % self.rooms
    }
}

/// The part of a run's clients that lives in one process.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(crate) struct Share {
    pub(crate) plan: Plan,
    /// The number of the first among all clients, and how many there are.
    pub(crate) first: u32,
    pub(crate) clients: u32,
    /// Clients besides these that come and go, per second.
    pub(crate) churn: f64,
    /// Which of how many processes that pace messages: they do not all begin at once.
    pub(crate) process: u32,
    pub(crate) processes: u32,
}

impl Share {
    /// All clients.
    pub(crate) const fn whole(plan: &Plan) -> Self {
        let (clients, churn) = (plan.clients, plan.churn);
        Self { plan: *plan, first: 0, clients, churn, process: 0, processes: 1 }
    }

    /// What client `who` of this process joins.
    pub(crate) fn rooms_of(&self, who: u32) -> Option<String> {
        if who < self.clients { self.plan.rooms_of(self.first + who) } else { None }
    }

    #[inline]
    pub(super) fn group_of(&self, who: u32) -> u32 {
        self.plan.room_of(self.first + who)
    }

    pub(super) fn has_members(&self, group: u32) -> bool {
        let Plan { servers, rooms, .. } = self.plan;
        if self.clients == 0 {
            return false;
        }
        // Rooms follow each other, one per round of the servers.
        let (from, to) = (self.first / servers, (self.first + self.clients - 1) / servers);
        (group + rooms - from % rooms) % rooms <= to - from
    }

    /// Clients that come and go live for about a second.
    pub(crate) fn churners(&self) -> u32 {
        self.churn.ceil() as u32
    }

    /// Echoes a second of this process, of a run's.
    pub(super) fn echo_rate(&self, rate: f64) -> f64 {
        rate * f64::from(self.clients) / f64::from(self.plan.clients.max(1))
    }

    /// How far into the first interval of `rate` this process begins.
    pub(super) fn phase_ns(&self, rate: f64) -> u64 {
        let phase = f64::from(self.process) / f64::from(self.processes.max(1));
        (phase / rate * 1e9) as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_knows_its_groups_without_looking_at_each_client() {
        for (servers, rooms, clients) in [(1, 1, 5), (1, 3, 10), (2, 3, 20), (3, 7, 20)] {
            let pace = Pace::Window(1);
            let plan = Plan { rooms, ..Plan::fanout(clients, 64, pace).among(servers, false) };
            for first in 0..clients {
                for count in 0..=clients - first {
                    let share = Share { first, clients: count, ..Share::whole(&plan) };
                    for group in 0..rooms {
                        let seen = (0..count).any(|who| share.group_of(who) == group);
                        assert_eq!(share.has_members(group), seen, "{share:?} {group}");
                    }
                }
            }
        }
    }

    #[test]
    fn what_is_beyond_its_bound_is_refused() {
        let refused = |plan: Plan| plan.check().unwrap_err().to_string();
        for rate in [0.0, -1.0, 1e-12, 1e30, f64::NAN, f64::INFINITY] {
            let why = refused(Plan::fanout(5, 64, Pace::Rate(rate)));
            assert!(why.contains("is no rate"), "{why}");
            assert_eq!(refused(Plan::echo(5, 64, Pace::Rate(rate))), why);
        }
        let window = |payload, window| refused(Plan::echo(5, payload, Pace::Window(window)));
        assert!(window(64, 0).contains("at least one message"));
        assert!(window(64, u32::MAX).contains("1048576 are possible"));
        assert!(window(16 << 20, 13).contains("65 messages outstanding: 64 are possible"));
        assert!(window(usize::MAX, 1).contains("16777216 B at most"));
        assert!(refused(Plan::quiet(0)).contains("at least one client"));
        let rooms = |rooms| Plan { rooms, ..Plan::fanout(9, 64, Pace::Window(1)).among(2, false) };
        assert!(rooms(5).check().is_ok());
        assert!(refused(rooms(6)).contains("between 1 and 5 rooms"));
    }

    #[test]
    fn rooms_have_clients_of_every_server() {
        let plan = Plan { rooms: 2, ..Plan::fanout(8, 64, Pace::Window(1)).among(2, false) };
        let rooms: Vec<_> = (0..4).map(|who| (who % 2, plan.room_of(who))).collect();
        assert_eq!(rooms, [(0, 0), (1, 0), (0, 1), (1, 1)]);
    }
}
