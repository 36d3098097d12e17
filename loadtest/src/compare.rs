//! `loadtest compare-floor`: the server and the floor in turns.
//!
//! A machine's speed drifts by tens of percent over minutes, so a cost alone says little. Here all
//! servers are up at once, each with its own idle clients, and short windows go round among them;
//! what counts is the ratio of a server's cost to the floor's in the same round.

use std::time::{Duration, Instant};

use clap::{Args, ValueEnum};
use serde::Serialize;

use crate::Failure;
use crate::broadcasts::{Broadcasts, Pace, Window};
use crate::latency::{Latency, Percentiles};
use crate::measure::{Cpu, Process};
use crate::server::Server;
use crate::swarm::Swarm;

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Driver {
    Uring,
    Mio,
}

#[derive(Debug, Args)]
pub(crate) struct Options {
    #[arg(long, default_value_t = 1_000)]
    clients: u32,
    /// Bytes of each message's text.
    #[arg(long, default_value_t = 64)]
    payload: usize,
    /// Broadcasts outstanding; several values are measured one after the other.
    #[arg(long, value_delimiter = ',', default_values_t = [1, 16])]
    window: Vec<u32>,
    /// Drivers of stentor to measure.
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = [Driver::Uring])]
    driver: Vec<Driver>,
    /// Rounds; each measures every server once.
    #[arg(long, default_value_t = 12)]
    rounds: u32,
    /// Milliseconds of one measurement.
    #[arg(long, default_value_t = 500)]
    slice: u64,
    /// Core of the servers.
    #[arg(long, default_value_t = 0)]
    server_core: usize,
    /// Core of the generator.
    #[arg(long, default_value_t = 1)]
    core: usize,
    /// Also measure the floor without coalescing and on epoll.
    #[arg(long)]
    all_floors: bool,
    /// Print one JSON object per line of the table.
    #[arg(long)]
    json: bool,
}

/// One server under comparison.
struct Contestant {
    name: &'static str,
    server: Server,
    swarm: Swarm,
    work: Broadcasts,
    rounds: Vec<Round>,
    latency: Latency,
    last: Latency,
}

/// One measured slice.
struct Round {
    cost: Cpu,
    deliveries: u64,
    reads: u64,
    seconds: f64,
    generator_ns: u64,
}

impl Round {
    fn ns(&self) -> f64 {
        self.cost.total_ns() as f64 / self.deliveries.max(1) as f64
    }
}

/// One line of the table.
#[derive(Debug, Serialize)]
pub(crate) struct Line {
    name: &'static str,
    window: u32,
    ns_per_delivery: Spread,
    ratio_to_floor: Spread,
    user_ns: f64,
    system_ns: f64,
    softirq_ns: f64,
    deliveries_per_second: f64,
    deliveries_per_read: f64,
    latency: Percentiles,
    last_recipient: Percentiles,
    generator_share: f64,
    server_share: f64,
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

pub(crate) fn run(options: &Options) -> Result<(), Failure> {
    crate::system::catch_interrupts().map_err(Failure::io("catch Ctrl-C"))?;
    let _ = crate::system::raise_descriptors(1 << 20);
    let mut contestants = contestants(options)?;
    crate::system::pin(options.core)?;
    for contestant in &mut contestants {
        contestant.swarm.grow(options.clients, &mut contestant.work, |_| {})?;
    }
    for &window in &options.window {
        measure(&mut contestants, options, window)?;
        let lines = lines(&contestants, window);
        if options.json {
            for line in &lines {
                println!("{}", serde_json::to_string(line).map_err(Failure::server)?);
            }
        } else {
            print(options, &lines);
        }
        if crate::system::interrupted() {
            break;
        }
    }
    Ok(())
}

fn contestants(options: &Options) -> Result<Vec<Contestant>, Failure> {
    let core = options.server_core.to_string();
    let payload = options.payload.to_string();
    let mut all = Vec::new();
    let mut floors = vec![("floor io_uring", "uring", "coalesced")];
    if options.all_floors {
        floors.push(("floor io_uring, single sends", "uring", "single"));
        floors.push(("floor epoll", "epoll", "coalesced"));
        floors.push(("floor epoll, single sends", "epoll", "single"));
    }
    for (name, io, sends) in floors {
        let floor = ["floor", "--port", "0", "--io", io, "--sends", sends];
        let rest = ["--core", &core, "--payload", &payload];
        all.push(Contestant::new(name, &[&floor[..], &rest].concat(), options.payload)?);
    }
    for driver in &options.driver {
        let (name, driver) = match driver {
            Driver::Uring => ("stentor io_uring", "uring"),
            Driver::Mio => ("stentor epoll", "mio"),
        };
        let serve = ["serve", "--port", "0", "--shards", "1", "--driver", driver, "--core", &core];
        all.push(Contestant::new(name, &serve, options.payload)?);
    }
    Ok(all)
}

impl Contestant {
    fn new(name: &'static str, arguments: &[&str], payload: usize) -> Result<Self, Failure> {
        let server = Server::ourselves(arguments)?;
        let swarm = Swarm::new(server.target.clone(), |_| Some("[\"all\"]".to_owned()))?;
        Ok(Self {
            name,
            server,
            swarm,
            work: Broadcasts::new(payload),
            rounds: Vec::new(),
            latency: Latency::default(),
            last: Latency::default(),
        })
    }

    /// One slice: a short warm-up, then the measurement.
    fn round(&mut self, own: &Process, pace: Pace, slice: Duration) -> Result<Round, Failure> {
        self.work.run(&mut self.swarm, pace, slice / 8, |_| {})?;
        let (before, own_before) = (cpu(&self.server.process)?, cpu(own)?);
        let started = Instant::now();
        self.work.run(&mut self.swarm, pace, slice, |_| {})?;
        let seconds = started.elapsed().as_secs_f64();
        let cost = cpu(&self.server.process)?.since(&before);
        let generator_ns = cpu(own)?.since(&own_before).process_ns;
        self.latency.add(&self.work.window.latency);
        self.last.add(&self.work.window.last);
        let Window { deliveries, reads, .. } = self.work.window;
        Ok(Round { cost, deliveries, reads, seconds, generator_ns })
    }
}

fn cpu(process: &Process) -> Result<Cpu, Failure> {
    process.cpu().map_err(Failure::io("read the CPU time of a process"))
}

fn measure(all: &mut [Contestant], options: &Options, window: u32) -> Result<(), Failure> {
    let own = Process::itself().map_err(Failure::io("read /proc"))?;
    let slice = Duration::from_millis(options.slice);
    for contestant in all.iter_mut() {
        contestant.rounds.clear();
        (contestant.latency, contestant.last) = (Latency::default(), Latency::default());
    }
    for number in 0..options.rounds as usize {
        // Each round begins with another one, so that no one always runs after the same one.
        let count = all.len();
        for index in 0..count {
            let contestant = &mut all[(number + index) % count];
            let round = contestant.round(&own, Pace::Window(window), slice)?;
            contestant.rounds.push(round);
        }
        if crate::system::interrupted() {
            break;
        }
    }
    Ok(())
}

fn lines(all: &[Contestant], window: u32) -> Vec<Line> {
    let Some(floor) = all.first() else { return Vec::new() };
    let line = |contestant: &Contestant| {
        let rounds = &contestant.rounds;
        let sum = |pick: fn(&Round) -> u64| rounds.iter().map(pick).sum::<u64>() as f64;
        let deliveries = sum(|round| round.deliveries).max(1.0);
        let seconds: f64 = rounds.iter().map(|round| round.seconds).sum();
        let pairs = rounds.iter().zip(&floor.rounds);
        Line {
            name: contestant.name,
            window,
            ns_per_delivery: Spread::of(rounds.iter().map(Round::ns).collect()),
            ratio_to_floor: Spread::of(pairs.map(|(it, base)| it.ns() / base.ns()).collect()),
            user_ns: sum(|round| round.cost.user_ns) / deliveries,
            system_ns: sum(|round| round.cost.system_ns) / deliveries,
            softirq_ns: sum(|round| round.cost.softirq_ns) / deliveries,
            deliveries_per_second: deliveries / seconds,
            deliveries_per_read: deliveries / sum(|round| round.reads).max(1.0),
            latency: contestant.latency.percentiles(),
            last_recipient: contestant.last.percentiles(),
            generator_share: sum(|round| round.generator_ns) / 1e9 / seconds,
            server_share: sum(|round| round.cost.process_ns) / 1e9 / seconds,
        }
    };
    all.iter().map(line).collect()
}

fn print(options: &Options, lines: &[Line]) {
    let Some(first) = lines.first() else { return };
    println!(
        "{} clients, {} B, {} outstanding, {} rounds of {} ms; CPU of the server per delivery, ns",
        options.clients, options.payload, first.window, options.rounds, options.slice
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
        let (cost, ratio) = (line.ns_per_delivery, line.ratio_to_floor);
        println!(
            "{:30} {:>7.0} {:>15} {:>20} {:>6.0} {:>6.0} {:>6.0} {:>10.0} {:>6.1} {:>15} {:>11} {:>5.0} {:>5.0}",
            line.name,
            cost.median,
            format!("({:.0}..{:.0})", cost.p10, cost.p90),
            format!("{:.3} ({:.2}..{:.2})", ratio.median, ratio.p10, ratio.p90),
            line.user_ns,
            line.system_ns,
            line.softirq_ns,
            line.deliveries_per_second,
            line.deliveries_per_read,
            format!("{}/{}", line.latency.p50_us, line.latency.p99_us),
            line.last_recipient.p99_us,
            line.server_share * 100.0,
            line.generator_share * 100.0,
        );
    }
    println!();
}
