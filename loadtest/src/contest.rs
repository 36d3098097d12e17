//! Servers in turns, so that a noisy machine is noisy to all of them alike.
//!
//! A machine's speed drifts by tens of percent over minutes, so a cost alone says little. Here all
//! servers are up at once, each with its own clients, and short slices go round among them; what
//! counts is the ratio of a server's cost to the first one's (the floor's) in the same round.

use std::process::Command;
use std::time::{Duration, Instant};

use clap::{Args, ValueEnum};
use serde::{Deserialize, Serialize};

use crate::Failure;
use crate::latency::{Latency, Percentiles};
use crate::load::{Load, Pace, Plan};
use crate::measure::{Cpu, Process};
use crate::runner::{cpu, ramp};
use crate::server::Server;
use crate::swarm::Swarm;

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Driver {
    Uring,
    Mio,
}

impl Driver {
    const fn names(self) -> (&'static str, &'static str) {
        match self {
            Self::Uring => ("stentor io_uring", "uring"),
            Self::Mio => ("stentor epoll", "mio"),
        }
    }
}

/// How contests are held.
#[derive(Debug, Clone, Args)]
pub(crate) struct Rules {
    /// Rounds; each measures every server once.
    #[arg(long, default_value_t = 10)]
    pub(crate) rounds: u32,
    /// Milliseconds of one measurement.
    #[arg(long, default_value_t = 500)]
    pub(crate) slice: u64,
    /// Core of the servers.
    #[arg(long, default_value_t = 0)]
    pub(crate) server_core: usize,
    /// Core of the generator.
    #[arg(long, default_value_t = 1)]
    pub(crate) core: usize,
}

/// What is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Kind {
    Fanout,
    Echo,
}

/// One measurement: a kind, a size, a window.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub(crate) struct Case {
    pub(crate) kind: Kind,
    pub(crate) clients: u32,
    pub(crate) payload: usize,
    pub(crate) window: u32,
}

impl Case {
    pub(crate) fn plan(&self) -> Plan {
        let pace = Pace::Window(self.window);
        match self.kind {
            Kind::Fanout => Plan::fanout(self.clients, self.payload, pace),
            Kind::Echo => Plan::echo(self.clients, self.payload, pace),
        }
    }

    pub(crate) fn name(&self) -> String {
        let kind = match self.kind {
            Kind::Fanout => "fan-out",
            Kind::Echo => "echo",
        };
        let Self { clients, payload, window, .. } = self;
        format!("{kind}, {clients} clients, {payload} B, {window} outstanding")
    }
}

/// One server under comparison.
pub(crate) struct Contestant {
    name: String,
    server: Server,
    swarm: Swarm,
    load: Load,
    rounds: Vec<Round>,
    latency: Latency,
    last: Latency,
}

/// One measured slice.
struct Round {
    cost: Cpu,
    operations: u64,
    reads: u64,
    seconds: f64,
    generator_ns: u64,
}

impl Round {
    fn ns(&self) -> f64 {
        self.cost.total_ns() as f64 / self.operations.max(1) as f64
    }
}

/// One line of the table.
#[derive(Debug, Serialize)]
pub(crate) struct Line {
    pub(crate) name: String,
    /// Server CPU per delivery or echo.
    pub(crate) ns: Spread,
    /// To the floor of the same round.
    pub(crate) ratio: Spread,
    pub(crate) user_ns: f64,
    pub(crate) system_ns: f64,
    pub(crate) softirq_ns: f64,
    pub(crate) per_second: f64,
    pub(crate) per_read: f64,
    pub(crate) latency: Percentiles,
    pub(crate) last_recipient: Option<Percentiles>,
    pub(crate) server_share: f64,
    pub(crate) generator_share: f64,
}

/// Median and the middle 80 %.
#[derive(Debug, Clone, Copy, Serialize)]
pub(crate) struct Spread {
    pub(crate) p10: f64,
    pub(crate) median: f64,
    pub(crate) p90: f64,
}

impl Spread {
    pub(crate) fn of(mut values: Vec<f64>) -> Self {
        values.sort_by(f64::total_cmp);
        let at = |quantile: f64| {
            let index = (values.len().saturating_sub(1)) as f64 * quantile;
            values.get(index.round() as usize).copied().unwrap_or(f64::NAN)
        };
        Self { p10: at(0.1), median: at(0.5), p90: at(0.9) }
    }
}

/// A contest: the first contestant is the one the others are compared with.
pub(crate) struct Contest<'r> {
    case: Case,
    rules: &'r Rules,
    all: Vec<Contestant>,
}

impl<'r> Contest<'r> {
    pub(crate) fn new(case: Case, rules: &'r Rules) -> Self {
        Self { case, rules, all: Vec::new() }
    }

    /// Adds a floor, on `uring` or `epoll`, with `coalesced` or `single` sends.
    pub(crate) fn floor(&mut self, name: &str, io: &str, sends: &str) -> Result<(), Failure> {
        let (core, payload) = (self.rules.server_core.to_string(), self.case.payload.to_string());
        let floor = ["floor", "--port", "0", "--io", io, "--sends", sends];
        let rest = ["--core", &core, "--payload", &payload];
        self.add(name, Server::ourselves(&[&floor[..], &rest].concat())?)
    }

    /// Adds stentor.
    pub(crate) fn stentor(&mut self, driver: Driver) -> Result<(), Failure> {
        let (name, driver) = driver.names();
        let core = self.rules.server_core.to_string();
        self.add(name, Server::ourselves(&stentor_arguments(driver, &core))?)
    }

    /// Adds a program that serves the contract, on the servers' core.
    pub(crate) fn program(&mut self, name: &str, mut command: Command) -> Result<(), Failure> {
        crate::server::on_core(&mut command, self.rules.server_core);
        self.add(name, Server::start(command)?)
    }

    /// Adds a server that runs already.
    pub(crate) fn running(&mut self, name: &str, url: &str, pid: u32) -> Result<(), Failure> {
        self.add(name, Server::running(url, pid)?)
    }

    fn add(&mut self, name: &str, server: Server) -> Result<(), Failure> {
        let plan = self.case.plan();
        let swarm = Swarm::new(server.target.clone(), move |who| plan.rooms_of(who))?;
        self.all.push(Contestant {
            name: name.to_owned(),
            server,
            swarm,
            load: Load::new(plan),
            rounds: Vec::new(),
            latency: Latency::default(),
            last: Latency::default(),
        });
        Ok(())
    }

    /// Connects everybody, once.
    pub(crate) fn connect(&mut self) -> Result<(), Failure> {
        crate::system::pin(self.rules.core)?;
        crate::runner::prepare(self.case.clients * self.all.len() as u32)?;
        for contestant in &mut self.all {
            ramp(&mut contestant.swarm, self.case.clients, &mut contestant.load)?;
        }
        Ok(())
    }

    /// Holds the rounds with a window.
    pub(crate) fn measure(&mut self, window: u32) -> Result<Vec<Line>, Failure> {
        let own = Process::itself().map_err(Failure::io("read /proc"))?;
        let slice = Duration::from_millis(self.rules.slice);
        self.case.window = window;
        let plan = self.case.plan();
        for contestant in &mut self.all {
            contestant.load.set_pace(plan.broadcast, plan.echo);
            contestant.rounds.clear();
            (contestant.latency, contestant.last) = (Latency::default(), Latency::default());
        }
        let live = crate::runner::live_line();
        for number in 0..self.rules.rounds as usize {
            // Each round begins with another one, so that no one always runs after the same one.
            let count = self.all.len();
            for index in 0..count {
                let contestant = &mut self.all[(number + index) % count];
                let name = &contestant.name;
                live.set_message(format!("{}: round {}, {name}", self.case.name(), number + 1));
                let round = contestant.round(&own, slice)?;
                contestant.rounds.push(round);
            }
            if crate::system::interrupted() {
                break;
            }
        }
        live.finish_and_clear();
        let Some(base) = self.all.first() else { return Ok(Vec::new()) };
        Ok(self.all.iter().map(|contestant| contestant.line(base)).collect())
    }

    pub(crate) fn case(&self) -> Case {
        self.case
    }
}

/// The arguments of `loadtest serve` for one shard on one core.
pub(crate) fn stentor_arguments<'a>(driver: &'a str, core: &'a str) -> [&'a str; 10] {
    ["serve", "--quiet", "--port", "0", "--shards", "1", "--driver", driver, "--core", core]
}

impl Contestant {
    /// One slice: a short warm-up, then the measurement.
    fn round(&mut self, own: &Process, slice: Duration) -> Result<Round, Failure> {
        self.load.run(&mut self.swarm, slice / 8, |_| {})?;
        let server = Some(&self.server.process);
        let (before, own_before) = (cpu(server)?, cpu(Some(own))?);
        let started = Instant::now();
        self.load.run(&mut self.swarm, slice, |_| {})?;
        let seconds = started.elapsed().as_secs_f64();
        let cost = cpu(server)?.since(&before);
        let generator_ns = cpu(Some(own))?.since(&own_before).process_ns;
        let window = &self.load.window;
        self.latency.add(if window.echo.is_empty() { &window.latency } else { &window.echo });
        self.last.add(&window.last);
        let operations = window.operations + window.echoes;
        Ok(Round { cost, operations, reads: window.reads, seconds, generator_ns })
    }

    fn line(&self, base: &Self) -> Line {
        let rounds = &self.rounds;
        let sum = |pick: fn(&Round) -> u64| rounds.iter().map(pick).sum::<u64>() as f64;
        let operations = sum(|round| round.operations).max(1.0);
        let seconds: f64 = rounds.iter().map(|round| round.seconds).sum();
        let pairs = rounds.iter().zip(&base.rounds);
        Line {
            name: self.name.clone(),
            ns: Spread::of(rounds.iter().map(Round::ns).collect()),
            ratio: Spread::of(pairs.map(|(it, base)| it.ns() / base.ns()).collect()),
            user_ns: sum(|round| round.cost.user_ns) / operations,
            system_ns: sum(|round| round.cost.system_ns) / operations,
            softirq_ns: sum(|round| round.cost.softirq_ns) / operations,
            per_second: operations / seconds,
            per_read: operations / sum(|round| round.reads).max(1.0),
            latency: self.latency.percentiles(),
            last_recipient: (!self.last.is_empty()).then(|| self.last.percentiles()),
            server_share: sum(|round| round.cost.process_ns) / 1e9 / seconds,
            generator_share: sum(|round| round.generator_ns) / 1e9 / seconds,
        }
    }
}

/// Prints the table of one case.
pub(crate) fn print(case: &Case, rules: &Rules, lines: &[Line]) {
    println!(
        "{}; {} rounds of {} ms; CPU of the server, ns each",
        case.name(),
        rules.rounds,
        rules.slice
    );
    println!(
        "{:30} {:>7} {:>15} {:>20} {:>6} {:>6} {:>6} {:>10} {:>6} {:>15} {:>11} {:>5} {:>5}",
        "",
        "median",
        "(p10..p90)",
        "ratio to the floor",
        "user",
        "system",
        "ksoft",
        "per second",
        "/read",
        "p50/p99 us",
        "last p99",
        "srv%",
        "gen%"
    );
    for line in lines {
        let (ns, ratio) = (line.ns, line.ratio);
        println!(
            "{:30} {:>7.0} {:>15} {:>20} {:>6.0} {:>6.0} {:>6.0} {:>10.0} {:>6.1} {:>15} {:>11} {:>5.0} {:>5.0}",
            line.name,
            ns.median,
            format!("({:.0}..{:.0})", ns.p10, ns.p90),
            format!("{:.3} ({:.2}..{:.2})", ratio.median, ratio.p10, ratio.p90),
            line.user_ns,
            line.system_ns,
            line.softirq_ns,
            line.per_second,
            line.per_read,
            format!("{}/{}", line.latency.p50_us, line.latency.p99_us),
            line.last_recipient.map_or_else(|| "-".to_owned(), |last| last.p99_us.to_string()),
            line.server_share * 100.0,
            line.generator_share * 100.0,
        );
    }
    if lines.iter().any(|line| line.generator_share > crate::report::SATURATED) {
        println!("  the generator was saturated: rates and latencies are its own");
    }
    println!();
}
