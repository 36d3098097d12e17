//! Requests with acknowledgements under way: the answers of a client must come in order, carry
//! the id that was asked for and the text that was sent.

use std::collections::VecDeque;

use super::{Pace, Window};
use crate::wire::{self, Payloads};

/// Ids have six digits.
const ACKS: u64 = 9 * wire::FIRST_ACK;

pub(super) struct Echoes {
    payloads: Payloads,
    /// Per client: the next id, and the scheduled times of what is not answered.
    clients: Vec<(u64, VecDeque<u64>)>,
    turn: usize,
    pub(super) outstanding: usize,
    /// While set, every answer is followed by the next request.
    pub(super) again: bool,
}

impl Echoes {
    pub(super) fn new(payload: usize, clients: u32) -> Self {
        Self {
            payloads: Payloads::new(payload),
            clients: vec![(0, VecDeque::new()); clients as usize],
            turn: 0,
            outstanding: 0,
            again: false,
        }
    }

    pub(super) fn clients(&self) -> u32 {
        self.clients.len() as u32
    }

    /// Appends the next request of a client.
    pub(super) fn ask(&mut self, who: u32, scheduled: u64, out: &mut Vec<u8>) {
        let (next, waiting) = &mut self.clients[who as usize];
        let id = wire::FIRST_ACK + *next % ACKS;
        *next += 1;
        waiting.push_back(scheduled);
        self.outstanding += 1;
        wire::echo(out, id, self.payloads.get(id));
    }

    /// In the open loop the clients ask in turn. Whose turn it is, and when.
    pub(super) fn due(&mut self, rate: f64, started: u64, now: u64, sent: &mut u64) -> Due {
        let due = started.saturating_add(Pace::due_ns(rate, *sent));
        if due > now {
            return Due::Later(due);
        }
        *sent += 1;
        let who = self.turn;
        self.turn = (self.turn + 1) % self.clients.len();
        Due::Now { who: who as u32, scheduled: due }
    }

    /// An acknowledgement that a client got.
    #[inline]
    pub(super) fn answer(
        &mut self,
        who: u32,
        packet: &[u8],
        now: u64,
        window: &mut Window,
        reply: &mut Vec<u8>,
    ) -> Result<(), String> {
        let broken = || {
            let text = String::from_utf8_lossy(&packet[..packet.len().min(80)]);
            format!("not an answer of the contract: {text:?}")
        };
        let rest = packet.strip_prefix(b"3").ok_or_else(broken)?;
        let (id, rest) = wire::number(rest).ok_or_else(broken)?;
        let payload = rest
            .strip_prefix(b"[\"")
            .and_then(|rest| rest.strip_suffix(b"\"]"))
            .ok_or_else(broken)?;
        let (next, waiting) = self.clients.get_mut(who as usize).ok_or_else(broken)?;
        let due = *next - waiting.len() as u64;
        let scheduled = waiting.pop_front().ok_or("an answer that nobody asked for")?;
        if id != wire::FIRST_ACK + due % ACKS {
            return Err(format!("answer {id} came where {} was due", wire::FIRST_ACK + due % ACKS));
        }
        if payload != self.payloads.get(id) {
            return Err(format!("the text of answer {id} is damaged"));
        }
        self.outstanding -= 1;
        window.echoes += 1;
        window.echo.record(now.saturating_sub(scheduled));
        if self.again {
            self.ask(who, now, reply);
        }
        Ok(())
    }
}

/// The next request of an open loop.
pub(super) enum Due {
    Now { who: u32, scheduled: u64 },
    Later(u64),
}

/// Whether answers are followed by requests at once.
pub(super) fn is_closed_loop(pace: Option<Pace>) -> bool {
    matches!(pace, Some(Pace::Window(_)))
}
