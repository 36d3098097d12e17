//! All clients of a run, whether they live in this process or in several.
//!
//! A process may open only so many descriptors, so as many workers are started as that makes
//! necessary. This process then keeps the publishers, leads, and adds up what the others saw.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::Failure;
use crate::load::link::{Job, Order};
use crate::load::workers::{WORKERS_MAX, Workers};
use crate::load::{Load, Plan, Role, Share, Window};
use crate::measure::Process;
use crate::swarm::{Seat, Swarm, Transport};
use crate::system::{interrupted, raise_descriptors, source_ports};
use crate::target::Target;

/// Descriptors of a process that are no client's.
const DESCRIPTORS_SPARE: u64 = 64;

pub(crate) struct Crew {
    swarm: Swarm,
    load: Load,
    /// This process and its workers.
    processes: Vec<Process>,
}

impl Crew {
    /// All clients in this process, by WebSocket, against one server.
    pub(crate) fn alone(target: Target, plan: Plan) -> Result<Self, Failure> {
        Self::muster(vec![target], plan, Transport::Websocket, 1)
    }

    /// Divides the clients of a plan among `workers` processes.
    pub(crate) fn muster(
        targets: Vec<Target>,
        plan: Plan,
        transport: Transport,
        workers: u32,
    ) -> Result<Self, Failure> {
        let (own, theirs) = divide(&plan, workers);
        let seat = |share: &Share, worker: u32| Seat {
            first: share.first,
            publishers: plan.publishers.saturating_sub(share.first).min(share.clients),
            worker: worker as u8,
        };
        let jobs = theirs.iter().zip(1..).map(|(share, number)| Job {
            targets: targets.clone(),
            plan,
            transport,
            share: *share,
            seat: seat(share, number),
        });
        let role = match theirs.len() {
            0 => Role::Alone,
            _ => Role::Leader(Box::new(Workers::start(&jobs.collect::<Vec<_>>())?)),
        };
        let mut swarm = Swarm::new(targets, seat(&own, 0), move |who| own.rooms_of(who))?;
        swarm.transport = transport;
        let mut processes = vec![Process::itself().map_err(Failure::io("read /proc"))?];
        if let Role::Leader(workers) = &role {
            workers.fds().try_for_each(|fd| swarm.watch(fd))?;
            processes.extend(workers.processes().cloned());
        }
        let mut crew = Self { swarm, load: Load::of(own, role), processes };
        // Workers are up when they have answered once: what they need for themselves is there.
        crew.load.order(&mut crew.swarm, |_| Order::Prepare, |_| Ok(()))?;
        Ok(crew)
    }

    /// The processes of the crew; the first one is this.
    pub(crate) fn processes(&self) -> &[Process] {
        &self.processes
    }

    /// Clients that are in.
    pub(crate) fn ready(&self) -> u32 {
        match &self.load.role {
            Role::Leader(workers) => self.swarm.ready + workers.ready(),
            Role::Alone | Role::Follower(_) => self.swarm.ready,
        }
    }

    /// Connects until about `count` clients are in, each process its part; all of them for all.
    pub(crate) fn grow(
        &mut self,
        count: u32,
        mut progress: impl FnMut(u32),
    ) -> Result<(), Failure> {
        let all = self.load.share().plan.clients.max(1);
        let part = |share: &Share| {
            let part = u64::from(share.clients) * u64::from(count);
            part.div_ceil(u64::from(all)) as u32
        };
        let own = part(self.load.share());
        self.swarm.grow(own, &mut self.load, &mut progress)?;
        let order = |share: &Share| Order::Grow(part(share));
        self.load.order(&mut self.swarm, order, |ready| {
            progress(ready);
            match interrupted() {
                true => Err(Failure::InterruptedAt { ready, clients: count }),
                false => Ok(()),
            }
        })
    }

    /// Connects everybody, with a progress bar.
    pub(crate) fn ramp(&mut self) -> Result<(), Failure> {
        let clients = self.load.share().plan.clients;
        let bar = progress_bar(clients);
        let grown = self.grow(clients, |ready| bar.set_position(ready.into()));
        bar.finish_and_clear();
        grown
    }

    /// Closes all connections.
    pub(crate) fn clear(&mut self) -> Result<(), Failure> {
        self.swarm.clear();
        self.load.order(&mut self.swarm, |_| Order::Clear, |_| Ok(()))
    }

    /// Works for `length`.
    pub(crate) fn run(&mut self, length: Duration, tell: impl FnMut(u64)) -> Result<(), Failure> {
        self.load.run(&mut self.swarm, length, tell)
    }

    /// What was seen by everybody in the last run.
    pub(crate) fn window(&self) -> &Window {
        &self.load.window
    }

    /// Adds what was seen outside of a run, since the last call, to `seen`.
    pub(crate) fn collect(&mut self, seen: &mut Window) -> Result<(), Failure> {
        self.load.order(&mut self.swarm, |_| Order::Tell, |_| Ok(()))?;
        self.load.collect();
        seen.add(&self.load.window);
        self.load.window.clear();
        Ok(())
    }

    /// Answers heartbeats for a while, and nothing else.
    pub(crate) fn hold(&mut self, length: Duration) -> Result<(), Failure> {
        let started = Instant::now();
        while started.elapsed() < length && !interrupted() {
            self.swarm.turn(Some(Duration::from_millis(50)), &mut self.load)?;
            self.load.hear()?;
        }
        Ok(())
    }
}

/// A bar for clients that connect.
pub(crate) fn progress_bar(clients: u32) -> ProgressBar {
    let target = ProgressDrawTarget::stderr_with_hz(10);
    let bar = ProgressBar::with_draw_target(Some(clients.into()), target);
    let style = ProgressStyle::with_template("connecting {bar:30} {pos}/{len} {per_sec}");
    bar.set_style(style.expect("invariant: a valid template"));
    bar
}

/// What this process keeps, and what the workers get: all or, with workers, the publishers only.
fn divide(plan: &Plan, workers: u32) -> (Share, Vec<Share>) {
    if workers <= 1 {
        return (Share::whole(plan), Vec::new());
    }
    let own = Share {
        clients: plan.publishers,
        churn: 0.0,
        processes: workers + 1,
        ..Share::whole(plan)
    };
    let rest = plan.clients - plan.publishers;
    let end = |worker: u32| u64::from(rest) * u64::from(worker) / u64::from(workers);
    let share = |worker: u32| Share {
        plan: *plan,
        first: plan.publishers + end(worker) as u32,
        clients: (end(worker + 1) - end(worker)) as u32,
        churn: plan.churn / f64::from(workers),
        process: worker + 1,
        processes: workers + 1,
    };
    (own, (0..workers).map(share).collect())
}

/// Room for the descriptors of a plan: how many processes it takes.
///
/// `asked` is how many the user wants; by default as few as possible.
pub(crate) fn workers(
    plan: &Plan,
    transport: Transport,
    asked: Option<u32>,
) -> Result<u32, Failure> {
    let whole = descriptors(&Share::whole(plan), transport);
    let limit = raise_descriptors(whole).map_err(Failure::io("read limits"))?;
    fit(plan, transport, asked, limit)
}

fn fit(plan: &Plan, transport: Transport, asked: Option<u32>, limit: u64) -> Result<u32, Failure> {
    let most = WORKERS_MAX.min(plan.clients.saturating_sub(plan.publishers));
    if asked.is_some_and(|asked| asked == 0 || asked > most.max(1)) {
        let why = format!("between 1 and {} workers are possible here", most.max(1));
        return Err(Failure::Usage(why));
    }
    let fits = |workers: u32| {
        let (own, theirs) = divide(plan, workers);
        theirs.iter().chain([&own]).all(|share| descriptors(share, transport) <= limit)
    };
    let found = match asked {
        Some(workers) => Some(workers).filter(|workers| fits(*workers)),
        None => (1..=most.max(1)).find(|workers| fits(*workers)),
    };
    found.ok_or_else(|| {
        let workers = asked.unwrap_or(most.max(1));
        let whole = Share::whole(plan);
        let needed = descriptors(&whole, transport);
        let room = limit.saturating_sub(DESCRIPTORS_SPARE) / each(plan, transport);
        let possible = (room * u64::from(workers)).saturating_sub(plan.churn.ceil() as u64);
        let hint = match workers < most {
            true => format!(", or take more --workers ({most} at most)"),
            false => String::new(),
        };
        Failure::Workers { clients: plan.clients, workers, limit, needed, possible, hint }
    })
}

/// Descriptors of a client: who polls and has something to say takes a second connection.
fn each(plan: &Plan, transport: Transport) -> u64 {
    if transport == Transport::Polling && plan.echo.is_some() { 2 } else { 1 }
}

fn descriptors(share: &Share, transport: Transport) -> u64 {
    let clients = u64::from(share.clients) + u64::from(share.churners());
    clients * each(&share.plan, transport) + DESCRIPTORS_SPARE
}

/// Whether there are source ports for the clients of every server.
pub(crate) fn check_ports(
    targets: &[Target],
    plan: &Plan,
    transport: Transport,
) -> Result<(), Failure> {
    let mut servers: BTreeMap<SocketAddr, u64> = BTreeMap::new();
    for target in targets {
        *servers.entry(target.address).or_default() += 1;
    }
    let ports = source_ports();
    let connections = (u64::from(plan.clients) + plan.churn.ceil() as u64) * each(plan, transport);
    for (server, times) in &servers {
        let has_more = matches!(server, SocketAddr::V4(it) if it.ip().is_loopback());
        let clients = (connections * times).div_ceil(targets.len() as u64);
        if !has_more && clients > u64::from(ports) {
            let possible = u64::from(ports) * targets.len() as u64 / times / each(plan, transport);
            return Err(Failure::Ports { clients, server: *server, ports, possible });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::Pace;

    const WEBSOCKET: Transport = Transport::Websocket;
    const PACE: Pace = Pace::Window(1);

    #[test]
    fn every_client_lives_in_one_process() {
        for (clients, servers, workers) in [(10, 1, 3), (100, 6, 7), (5, 2, 3), (7, 1, 1)] {
            let plan = Plan::fanout(clients, 64, PACE).among(servers, false);
            let (own, theirs) = divide(&plan, workers);
            let mut next = 0;
            for share in [&own].into_iter().chain(&theirs) {
                assert_eq!(share.first, next);
                assert!(share.clients > 0);
                next += share.clients;
            }
            assert_eq!(next, clients);
        }
        let (own, theirs) = divide(&Plan::echo(10, 64, PACE), 2);
        assert_eq!((own.clients, theirs[0].clients, theirs[1].clients), (0, 5, 5));
    }

    #[test]
    fn there_are_as_many_workers_as_the_limit_makes_necessary() {
        let plan = Plan::fanout(100_000, 64, PACE).among(6, false);
        assert_eq!(fit(&plan, WEBSOCKET, None, 200_000).unwrap(), 1);
        assert_eq!(fit(&plan, WEBSOCKET, None, 20_000).unwrap(), 6);
        assert_eq!(fit(&plan, WEBSOCKET, Some(9), 20_000).unwrap(), 9);
        let echo = Plan::echo(10_000, 64, PACE);
        assert_eq!(fit(&echo, WEBSOCKET, None, 10_064).unwrap(), 1);
        assert_eq!(fit(&echo, Transport::Polling, None, 10_064).unwrap(), 2);
    }

    #[test]
    fn what_does_not_fit_is_said_with_what_would() {
        let plan = Plan::quiet(100_000);
        let why = |asked, limit| fit(&plan, WEBSOCKET, asked, limit).unwrap_err().to_string();
        let few = why(Some(2), 20_000);
        assert!(few.contains("2 processes") && few.contains("about 39872 clients"), "{few}");
        assert!(few.contains("more --workers (64 at most)"), "{few}");
        let most = why(None, 1_064);
        assert!(most.contains("64 processes") && most.contains("about 64000 clients"), "{most}");
        assert!(!most.contains("--workers"), "{most}");
        assert!(why(Some(65), 20_000).contains("between 1 and 64"));
    }

    #[test]
    fn one_source_address_has_so_many_ports() {
        let target = |url| Target::parse(url).unwrap();
        let plan = Plan::quiet(1_000_000);
        let check = |targets: &[Target]| check_ports(targets, &plan, WEBSOCKET);
        assert!(check(&[target("http://127.0.0.1:1")]).is_ok());
        let far = check(&[target("http://10.0.0.1:1"), target("http://10.0.0.1:2")]);
        let far = far.unwrap_err().to_string();
        let possible = format!("About {} clients", source_ports() * 2);
        assert!(far.contains("10.0.0.1:1 need") && far.contains(&possible), "{far}");
    }
}
