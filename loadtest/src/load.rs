//! What the clients of a run do: publish and receive, ask and be answered, come and go; alone or
//! all at once. Everything that arrives is checked, and a fault ends the run.
//!
//! The clients of a run may live in several processes. One leads, the others follow; each has its
//! share of the clients and this loop to itself.

mod broadcasts;
mod echoes;
pub(crate) mod link;
mod plan;
pub(crate) mod workers;

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::Failure;
use crate::latency::Latency;
use crate::swarm::{Client, Phase, Swarm, Work};
use crate::system::{interrupted, now};
use broadcasts::{Broadcasts, Receipt};
use echoes::{Due, Echoes};
use link::{Heard, Link, Order, Report, Sight};
pub(crate) use plan::{Pace, Plan, Share, check_payload};
use workers::Workers;

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
    /// From the first SYN to the answer of the namespace, or of `join`.
    pub(crate) connect: Latency,
    /// The most that was outstanding; of several processes the sum of the most of each.
    pub(crate) backlog: u64,
}

impl Window {
    /// Begins anew in the same memory: histograms are large, and a run is to need no more of it
    /// than was there before its clients.
    pub(crate) fn clear(&mut self) {
        let counts = [
            &mut self.broadcasts,
            &mut self.operations,
            &mut self.echoes,
            &mut self.connections,
            &mut self.reads,
            &mut self.backlog,
        ];
        counts.into_iter().for_each(|count| *count = 0);
        let latencies = [&mut self.latency, &mut self.last, &mut self.echo, &mut self.connect];
        latencies.into_iter().for_each(Latency::clear);
    }

    pub(crate) fn add(&mut self, other: &Self) {
        self.broadcasts += other.broadcasts;
        self.operations += other.operations;
        self.echoes += other.echoes;
        self.connections += other.connections;
        self.reads += other.reads;
        self.latency.add(&other.latency);
        self.last.add(&other.last);
        self.echo.add(&other.echo);
        self.connect.add(&other.connect);
        self.backlog += other.backlog;
    }

    /// Messages that have come.
    fn arrived(&self) -> u64 {
        self.operations + self.echoes
    }
}

/// What a process is in its run.
pub(crate) enum Role {
    /// All clients live here.
    Alone,
    /// Paces the broadcasts; most clients live elsewhere.
    Leader(Box<Workers>),
    Follower(Follower),
}

/// The worker's side of a link.
pub(crate) struct Follower {
    pub(crate) link: Link,
    /// Heard and not yet carried out. The leader waits for answers, so these are a few.
    orders: VecDeque<Order>,
    /// From this moment on nothing new is to be begun.
    over: Option<u64>,
}

impl Follower {
    pub(crate) fn new(link: Link) -> Self {
        Self { link, orders: VecDeque::new(), over: None }
    }
}

/// The clients' work.
pub(crate) struct Load {
    plan: Plan,
    share: Share,
    broadcasts: Broadcasts,
    echoes: Echoes,
    pub(crate) role: Role,
    /// When those clients began that are on their way in.
    begun: HashMap<u32, u64>,
    now: u64,
    churned: u64,
    pub(crate) window: Window,
}

/// How long a run waits for what is outstanding while nothing at all arrives.
const PATIENCE_NS: u64 = 10_000_000_000;
/// Who leads waits longer: workers know better what is missing.
const PATIENCE_OF_LEADER_NS: u64 = 13_000_000_000;
const TELL_NS: u64 = 200_000_000;
/// Workers tell more often, so that what the leader hears is not as old as what it asks for.
const TELL_OF_FOLLOWER_NS: u64 = 40_000_000;

/// When the run began, and what has been sent since.
struct Progress {
    started: u64,
    published: u64,
    asked: u64,
    churned: u64,
}

impl Load {
    /// All of a plan's clients.
    pub(crate) fn new(plan: Plan) -> Self {
        Self::of(Share::whole(&plan), Role::Alone)
    }

    /// A share of them.
    pub(crate) fn of(share: Share, role: Role) -> Self {
        let plan = share.plan;
        let asking = if plan.echo.is_some() { share.clients } else { 0 };
        let mut broadcasts = Broadcasts::new(&plan, share);
        match &role {
            Role::Alone => {}
            Role::Leader(workers) => broadcasts.lead(|group| workers.members(group)),
            Role::Follower(_) => broadcasts.landed = Some(Vec::new()),
        }
        Self {
            broadcasts,
            echoes: Echoes::new(plan.payload, asking),
            plan,
            share,
            role,
            begun: HashMap::new(),
            now: 0,
            churned: 0,
            window: Window::default(),
        }
    }

    pub(crate) fn share(&self) -> &Share {
        &self.share
    }

    /// Uses another pace from the next run on.
    pub(crate) fn set_pace(&mut self, broadcast: Option<Pace>, echo: Option<Pace>) {
        (self.plan.broadcast, self.plan.echo) = (broadcast, echo);
    }

    /// Works for `length` and waits until everything has arrived. What was measured lies in
    /// `self.window`, that of workers too; `tell` is called now and then with the number of
    /// messages so far.
    pub(crate) fn run(
        &mut self,
        swarm: &mut Swarm,
        length: Duration,
        tell: impl FnMut(u64),
    ) -> Result<(), Failure> {
        self.window.clear();
        self.order(swarm, |_| Order::Prepare, |_| Ok(()))?;
        let started = now();
        if let Role::Leader(workers) = &mut self.role {
            workers.go(started)?;
        }
        self.work(swarm, started, started + length.as_nanos() as u64, tell)?;
        self.collect();
        Ok(())
    }

    /// Works as the leader says, which began at `started`. What was counted since the last run is
    /// part of it: messages may come before the order to begin.
    pub(crate) fn follow(&mut self, swarm: &mut Swarm, started: u64) -> Result<(), Failure> {
        self.work(swarm, started, u64::MAX, |_| {})
    }

    fn work(
        &mut self,
        swarm: &mut Swarm,
        started: u64,
        end: u64,
        mut tell: impl FnMut(u64),
    ) -> Result<(), Failure> {
        let mut progress = Progress { started, published: 0, asked: 0, churned: 0 };
        let (mut told, mut silent) = (now(), (0, now()));
        let (mut ended, patience) = (false, self.patience_ns());
        let follows = matches!(self.role, Role::Follower(_));
        let tell_ns = if follows { TELL_OF_FOLLOWER_NS } else { TELL_NS };
        self.begin(swarm)?;
        loop {
            let time = now();
            if swarm.has_rung() {
                self.hear()?;
            }
            let over = match &self.role {
                Role::Follower(follower) => follower.over,
                _ => (time >= end || interrupted()).then_some(end.min(time)),
            };
            if let Some(end) = over.filter(|_| !std::mem::replace(&mut ended, true)) {
                // However late we are: what was due before the end is part of the run.
                self.pace_to_end(swarm, end, &mut progress)?;
                // Its announcements go before the end's.
                self.publish(swarm)?;
                self.end(end)?;
            }
            let over = over.is_some();
            let next = if over { None } else { self.pace(swarm, time, &mut progress)? };
            self.echoes.again = !over && echoes::is_closed_loop(self.plan.echo);
            self.publish(swarm)?;
            self.tell_landed()?;
            // Whoever was to come has to come in.
            let coming = if over { swarm.connecting as usize } else { 0 };
            let outstanding = self.broadcasts.outstanding + self.echoes.outstanding + coming;
            self.check_backlog()?;
            if over && outstanding == 0 && self.is_answered() {
                return Ok(());
            }
            let wake = next.unwrap_or(u64::MAX).min(if over { u64::MAX } else { end });
            if wake != u64::MAX {
                swarm.wake_in(Duration::from_nanos(wake.saturating_sub(now())))?;
            }
            swarm.turn(Some(Duration::from_millis(100)), self)?;
            if time.saturating_sub(told) > tell_ns {
                told = time;
                tell(self.sample()?);
            }
            let arrived = self.window.arrived() + self.window.connections + self.signs();
            if arrived != silent.0 || outstanding == 0 {
                silent = (arrived, time);
            } else if time.saturating_sub(silent.1) > patience {
                let what = self.broadcasts.missing().unwrap_or_else(|| match coming {
                    0 => "requests are not answered".to_owned(),
                    _ => format!("{coming} clients that came are not let in"),
                });
                let seconds = patience / 1_000_000_000;
                return Err(Failure::Lost(format!("{what}, after {seconds} s of silence")));
            }
        }
    }

    fn patience_ns(&self) -> u64 {
        if matches!(self.role, Role::Leader(_)) { PATIENCE_OF_LEADER_NS } else { PATIENCE_NS }
    }

    fn check_backlog(&mut self) -> Result<(), Failure> {
        let (broadcasts, echoes) = (self.broadcasts.outstanding, self.echoes.outstanding);
        // Who leads counts the broadcasts of all.
        let mine = if matches!(self.role, Role::Follower(_)) { 0 } else { broadcasts };
        self.window.backlog = self.window.backlog.max((mine + echoes) as u64);
        match mine + echoes > self.plan.outstanding_max() {
            true => Err(Failure::Behind(mine + echoes)),
            false => Ok(()),
        }
    }

    /// The first requests of a closed loop; answers bring the next ones.
    fn begin(&mut self, swarm: &mut Swarm) -> Result<(), Failure> {
        let Some(Pace::Window(window)) = self.plan.echo else { return Ok(()) };
        let mut out = Vec::new();
        if self.is_over() {
            return Ok(());
        }
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
        let follows = matches!(self.role, Role::Follower(_));
        if let Some(pace) = self.plan.broadcast.filter(|_| !follows) {
            next = self.broadcasts.pace(pace, progress.started, time, &mut progress.published);
        }
        if let Some(Pace::Rate(rate)) = self.plan.echo.filter(|_| self.echoes.clients() > 0) {
            let rate = self.share.echo_rate(rate);
            let started = progress.started.saturating_add(self.share.phase_ns(rate));
            let mut out = Vec::new();
            // Where more is outstanding than may be, the run ends.
            while self.echoes.outstanding <= self.plan.outstanding_max() {
                match self.echoes.due(rate, started, time, &mut progress.asked) {
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
        if self.share.churn > 0.0 {
            let at = self.churn(swarm, time, progress)?;
            next = Some(next.unwrap_or(at).min(at));
        }
        Ok(next)
    }

    /// The last messages of an open loop, those that were due before `end`.
    fn pace_to_end(
        &mut self,
        swarm: &mut Swarm,
        end: u64,
        progress: &mut Progress,
    ) -> Result<(), Failure> {
        let broadcast = self.plan.broadcast;
        self.plan.broadcast = broadcast.filter(|pace| matches!(pace, Pace::Rate(_)));
        let paced = self.pace(swarm, end.saturating_sub(1), progress);
        self.plan.broadcast = broadcast;
        paced.map(drop)
    }

    /// One client after the other leaves and comes back.
    fn churn(
        &mut self,
        swarm: &mut Swarm,
        time: u64,
        progress: &mut Progress,
    ) -> Result<u64, Failure> {
        let Share { clients, churn, .. } = self.share;
        let started = progress.started.saturating_add(self.share.phase_ns(churn));
        loop {
            let due = started.saturating_add(Pace::due_ns(churn, progress.churned));
            if due > time {
                return Ok(due);
            }
            progress.churned += 1;
            let who = clients + (self.churned % u64::from(self.share.churners())) as u32;
            self.churned += 1;
            if who == swarm.len() {
                swarm.add();
            }
            match swarm.client(who).phase {
                Phase::Ready => swarm.close(who),
                Phase::Closed => {}
                // Still on its way in after a second: it gets its turn again.
                _ => continue,
            }
            self.connecting(who);
            swarm.connect(who)?;
        }
    }

    fn publish(&mut self, swarm: &mut Swarm) -> Result<(), Failure> {
        if self.broadcasts.out.is_empty() {
            return Ok(());
        }
        if let Role::Leader(workers) = &mut self.role {
            // Before the frames: whoever receives one finds its announcement in the link.
            workers.announce(&self.broadcasts.unannounced)?;
            self.broadcasts.unannounced.clear();
            if !workers.flush()? {
                return Ok(());
            }
        }
        for publisher in 0..self.plan.publishers {
            swarm.send(publisher, &self.broadcasts.out)?;
        }
        self.broadcasts.out.clear();
        Ok(())
    }
}

/// What the processes of a run have to do with each other.
impl Load {
    /// Has workers carry out an order, and waits until they have; `progress` gets the clients that
    /// are in.
    pub(crate) fn order(
        &mut self,
        swarm: &mut Swarm,
        order: impl Fn(&Share) -> Order,
        mut progress: impl FnMut(u32) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        let Role::Leader(workers) = &mut self.role else { return Ok(()) };
        workers.order(order)?;
        loop {
            self.hear()?;
            let Role::Leader(workers) = &self.role else { return Ok(()) };
            workers.check()?;
            progress(swarm.ready + workers.ready())?;
            if workers.have_answered() {
                return Ok(());
            }
            // Our own clients have heartbeats to answer.
            swarm.turn(Some(Duration::from_millis(100)), self)?;
        }
    }

    /// Adds what workers have told since the last time.
    pub(crate) fn collect(&mut self) {
        if let Role::Leader(workers) = &mut self.role {
            self.window.add(&workers.window);
            workers.window.clear();
        }
    }

    /// Takes what other processes have said.
    pub(crate) fn hear(&mut self) -> Result<(), Failure> {
        match &mut self.role {
            Role::Alone => Ok(()),
            Role::Leader(workers) => workers.hear(|sighting| {
                let landed = self.broadcasts.landed_elsewhere(sighting, &mut self.window);
                landed.map_err(Failure::Protocol)
            }),
            Role::Follower(follower) => {
                follower.link.flush()?;
                loop {
                    match follower.link.hear()? {
                        Heard::Message(Order::Flights(flights)) => {
                            for flight in flights {
                                let announced = self.broadcasts.announced(flight);
                                announced.map_err(Failure::Protocol)?;
                            }
                        }
                        Heard::Message(Order::Over(end)) => follower.over = Some(end),
                        Heard::Message(order) => follower.orders.push_back(order),
                        Heard::Nothing => return Ok(()),
                        Heard::Ended => return Err(Failure::Leaderless),
                    }
                }
            }
        }
    }

    /// The next order to carry out.
    pub(crate) fn next_order(&mut self) -> Result<Option<Order>, Failure> {
        self.hear()?;
        let Role::Follower(follower) = &mut self.role else { return Ok(None) };
        Ok(follower.orders.pop_front())
    }

    /// Tells the leader.
    pub(crate) fn report(&mut self, report: &Report) -> Result<(), Failure> {
        let Role::Follower(follower) = &mut self.role else { return Ok(()) };
        follower.link.say(report)
    }

    /// Hands over what was counted, and begins anew.
    pub(crate) fn hand_over(&mut self) -> Result<(), Failure> {
        if let Role::Follower(follower) = &mut self.role {
            follower.link.say(&Sight::Window(&self.window))?;
        }
        self.window.clear();
        Ok(())
    }

    /// Forgets what was counted, before a run.
    pub(crate) fn prepare(&mut self) {
        self.window.clear();
        if let Role::Follower(follower) = &mut self.role {
            follower.over = None;
        }
    }

    fn is_over(&self) -> bool {
        matches!(&self.role, Role::Follower(follower) if follower.over.is_some())
    }

    fn end(&mut self, end: u64) -> Result<(), Failure> {
        match &mut self.role {
            Role::Leader(workers) => workers.order(|_| Order::Over(end)),
            Role::Alone | Role::Follower(_) => Ok(()),
        }
    }

    fn is_answered(&self) -> bool {
        match &self.role {
            Role::Leader(workers) => workers.have_answered(),
            Role::Alone | Role::Follower(_) => true,
        }
    }

    fn signs(&self) -> u64 {
        match &self.role {
            Role::Leader(workers) => workers.signs,
            Role::Alone | Role::Follower(_) => 0,
        }
    }

    fn tell_landed(&mut self) -> Result<(), Failure> {
        match &mut self.broadcasts.landed {
            Some(landed) if !landed.is_empty() => {
                let report = Report::Landed(std::mem::take(landed));
                self.report(&report)
            }
            _ => Ok(()),
        }
    }

    /// Messages so far, of all processes.
    fn sample(&mut self) -> Result<u64, Failure> {
        let own = self.window.arrived();
        match &mut self.role {
            Role::Alone => Ok(own),
            Role::Leader(workers) => {
                workers.check()?;
                Ok(own + workers.operations())
            }
            Role::Follower(follower) => {
                follower.link.say(&Report::Sample(own))?;
                Ok(own)
            }
        }
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
            _ => {
                let (now, window) = (self.now, &mut self.window);
                match self.broadcasts.receipt(who, client, packet, now, window)? {
                    Receipt::Counted => Ok(()),
                    Receipt::Unknown => self.unannounced(who, client, packet),
                }
            }
        }
    }

    fn received(&mut self) {
        self.now = now();
        self.window.reads += 1;
    }

    fn connecting(&mut self, who: u32) {
        self.begun.insert(who, now());
    }

    fn ready(&mut self, who: u32) {
        self.window.connections += u64::from(who >= self.share.clients);
        if let Some(begun) = self.begun.remove(&who) {
            self.window.connect.record(now() - begun);
        }
    }
}

impl Load {
    /// A broadcast that is not under way, as far as we know: its announcement lies in the link
    /// if there was one.
    #[cold]
    fn unannounced(&mut self, who: u32, client: &mut Client, packet: &[u8]) -> Result<(), String> {
        self.hear().map_err(|failure| failure.to_string())?;
        let (now, window) = (self.now, &mut self.window);
        match self.broadcasts.receipt(who, client, packet, now, window)? {
            Receipt::Counted => Ok(()),
            Receipt::Unknown => Err("a broadcast that nobody has published".to_owned()),
        }
    }
}
