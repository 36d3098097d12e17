//! What the clients of a run do: publish and receive, ask and be answered, come and go; alone or
//! all at once. Everything that arrives is checked, and a fault ends the run.

mod broadcasts;
mod echoes;

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::Failure;
use crate::latency::Latency;
use crate::swarm::{Client, Phase, Swarm, Work};
use crate::system::{interrupted, now};
use broadcasts::Broadcasts;
use echoes::{Due, Echoes};

/// How messages are paced.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub(crate) enum Pace {
    /// Closed loop: this many outstanding (for echoes: per client).
    Window(u32),
    /// Open loop: this many a second.
    Rate(f64),
}

/// What a run does.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Plan {
    pub(crate) clients: u32,
    pub(crate) payload: usize,
    pub(crate) broadcast: Option<Pace>,
    /// Rooms over which the clients are spread.
    pub(crate) rooms: u32,
    pub(crate) echo: Option<Pace>,
    /// Clients besides the others that come and go, per second.
    pub(crate) churn: f64,
}

impl Plan {
    /// A plan of one kind of work.
    pub(crate) const fn fanout(clients: u32, payload: usize, pace: Pace) -> Self {
        Self { clients, payload, broadcast: Some(pace), rooms: 1, echo: None, churn: 0.0 }
    }

    pub(crate) const fn echo(clients: u32, payload: usize, pace: Pace) -> Self {
        Self { clients, payload, broadcast: None, rooms: 1, echo: Some(pace), churn: 0.0 }
    }

    /// The argument of client `who`'s `join`, if it joins.
    pub(crate) fn rooms_of(&self, who: u32) -> Option<String> {
        self.broadcast?;
        match self.rooms {
            _ if who >= self.clients => None,
            1 => Some("[\"all\"]".to_owned()),
            rooms => Some(format!("[\"r{}\"]", who % rooms)),
        }
    }

    /// Clients that come and go live for about a second.
    fn churners(&self) -> u32 {
        self.churn.ceil() as u32
    }
}

/// What one measured window has seen.
#[derive(Default, Serialize, Deserialize)]
pub(crate) struct Window {
    pub(crate) broadcasts: u64,
    /// Deliveries.
    pub(crate) operations: u64,
    pub(crate) echoes: u64,
    /// Connections made by clients that come and go.
    pub(crate) connections: u64,
    /// Reads: how much the server merged.
    pub(crate) reads: u64,
    /// Scheduled send to each receipt.
    pub(crate) latency: Latency,
    /// Scheduled send to the last receipt.
    pub(crate) last: Latency,
    /// Scheduled request to its answer.
    pub(crate) echo: Latency,
    /// The most that an open loop had outstanding.
    pub(crate) backlog: u64,
}

/// The clients' work.
pub(crate) struct Load {
    plan: Plan,
    broadcasts: Broadcasts,
    echoes: Echoes,
    now: u64,
    churned: u64,
    pub(crate) window: Window,
}

/// How long a run waits for what is outstanding while nothing at all arrives.
const PATIENCE_NS: u64 = 10_000_000_000;
const TELL_NS: u64 = 200_000_000;

/// When the run began, and what has been sent since.
struct Progress {
    started: u64,
    published: u64,
    asked: u64,
    churned: u64,
}

impl Load {
    pub(crate) fn new(plan: Plan) -> Self {
        let asking = if plan.echo.is_some() { plan.clients } else { 0 };
        Self {
            broadcasts: Broadcasts::new(plan.payload, plan.clients, plan.rooms),
            echoes: Echoes::new(plan.payload, asking),
            plan,
            now: 0,
            churned: 0,
            window: Window::default(),
        }
    }

    /// Uses another pace from the next run on.
    pub(crate) fn set_pace(&mut self, broadcast: Option<Pace>, echo: Option<Pace>) {
        (self.plan.broadcast, self.plan.echo) = (broadcast, echo);
    }

    /// Works for `length` and waits until everything has arrived. What was measured lies in
    /// `self.window`; `tell` is called now and then.
    pub(crate) fn run(
        &mut self,
        swarm: &mut Swarm,
        length: Duration,
        mut tell: impl FnMut(&Window),
    ) -> Result<(), Failure> {
        self.window = Window::default();
        let started = now();
        let end = started + length.as_nanos() as u64;
        let mut progress = Progress { started, published: 0, asked: 0, churned: 0 };
        let (mut told, mut silent) = (started, (0, started));
        self.begin(swarm)?;
        loop {
            let time = now();
            let over = time >= end || interrupted();
            let next = if over { None } else { self.pace(swarm, time, &mut progress)? };
            self.echoes.again = !over && echoes::is_closed_loop(self.plan.echo);
            self.publish(swarm)?;
            let outstanding = self.broadcasts.outstanding + self.echoes.outstanding;
            self.window.backlog = self.window.backlog.max(outstanding as u64);
            if over && outstanding == 0 {
                return Ok(());
            }
            let wake = next.unwrap_or(u64::MAX).min(if over { u64::MAX } else { end });
            if wake != u64::MAX {
                swarm.wake_in(Duration::from_nanos(wake.saturating_sub(now())))?;
            }
            swarm.turn(Some(Duration::from_millis(100)), self)?;
            if time - told > TELL_NS {
                told = time;
                tell(&self.window);
            }
            let arrived = self.window.operations + self.window.echoes;
            if arrived != silent.0 || outstanding == 0 {
                silent = (arrived, time);
            } else if time - silent.1 > PATIENCE_NS {
                let what = self.broadcasts.missing();
                let what = what.unwrap_or_else(|| "requests are not answered".to_owned());
                return Err(Failure::Lost(format!("{what}, after 10 s of silence")));
            }
        }
    }

    /// The first requests of a closed loop; answers bring the next ones.
    fn begin(&mut self, swarm: &mut Swarm) -> Result<(), Failure> {
        let Some(Pace::Window(window)) = self.plan.echo else { return Ok(()) };
        let mut out = Vec::new();
        for who in 0..self.echoes.clients() {
            for _ in 0..window {
                self.echoes.ask(who, now(), &mut out);
            }
            swarm.send(who, &out)?;
            out.clear();
        }
        Ok(())
    }

    /// Does what is due; returns when there is more.
    fn pace(
        &mut self,
        swarm: &mut Swarm,
        time: u64,
        progress: &mut Progress,
    ) -> Result<Option<u64>, Failure> {
        let mut next = None;
        if let Some(pace) = self.plan.broadcast {
            next = self.broadcasts.pace(pace, progress.started, time, &mut progress.published);
        }
        if let Some(Pace::Rate(rate)) = self.plan.echo {
            let mut out = Vec::new();
            loop {
                match self.echoes.due(rate, progress.started, time, &mut progress.asked) {
                    Due::Later(at) => {
                        next = Some(next.unwrap_or(at).min(at));
                        break;
                    }
                    Due::Now { who, scheduled } => {
                        self.echoes.ask(who, scheduled, &mut out);
                        swarm.send(who, &out)?;
                        out.clear();
                    }
                }
            }
        }
        if self.plan.churn > 0.0 {
            let at = self.churn(swarm, time, progress)?;
            next = Some(next.unwrap_or(at).min(at));
        }
        Ok(next)
    }

    /// One client after the other leaves and comes back.
    fn churn(
        &mut self,
        swarm: &mut Swarm,
        time: u64,
        progress: &mut Progress,
    ) -> Result<u64, Failure> {
        loop {
            let due = progress.started + (progress.churned as f64 / self.plan.churn * 1e9) as u64;
            if due > time {
                return Ok(due);
            }
            progress.churned += 1;
            let who = self.plan.clients + (self.churned % u64::from(self.plan.churners())) as u32;
            self.churned += 1;
            if who == swarm.len() {
                swarm.add();
            }
            match swarm.client(who).phase {
                Phase::Ready => {
                    swarm.close(who);
                    swarm.connect(who)?;
                }
                Phase::Closed => swarm.connect(who)?,
                // Still on its way in after a second: it gets its turn again.
                _ => {}
            }
        }
    }

    fn publish(&mut self, swarm: &mut Swarm) -> Result<(), Failure> {
        if self.broadcasts.out.is_empty() {
            return Ok(());
        }
        let sent = swarm.send(0, &self.broadcasts.out);
        self.broadcasts.out.clear();
        sent
    }
}

impl Work for Load {
    #[inline]
    fn packet(
        &mut self,
        who: u32,
        client: &mut Client,
        packet: &[u8],
        reply: &mut Vec<u8>,
    ) -> Result<(), String> {
        match packet {
            [b'3', ..] => self.echoes.answer(who, packet, self.now, &mut self.window, reply),
            _ => self.broadcasts.receipt(who, client, packet, self.now, &mut self.window),
        }
    }

    fn received(&mut self) {
        self.now = now();
        self.window.reads += 1;
    }

    fn ready(&mut self, who: u32) {
        self.window.connections += u64::from(who >= self.plan.clients);
    }
}
