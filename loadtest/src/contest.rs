//! Servers in turns, so that a noisy machine is noisy to all of them alike.
//!
//! A machine's speed drifts by tens of percent over minutes, so a cost alone says little. Here all
//! servers are up at once, each with its own clients, and short slices go round among them; what
//! counts is the ratio of a server's cost to the floor's in the same round. Several sizes may take
//! part together: then each server's cost is also compared with its own at the first size.

pub(crate) mod clients;
mod table;

use std::process::Command;

use clap::{Args, ValueEnum};
use serde::{Deserialize, Serialize};

use crate::Failure;
use crate::floor::Io;
use crate::latency::{Latency, Percentiles};
use crate::load::{Pace, Plan};
use crate::measure::Cpu;
use crate::server::Server;
use crate::swarm::Transport;
use clients::{Clients, Order};
pub(crate) use table::print;

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
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub(crate) rounds: u32,
    /// Milliseconds of one measurement.
    #[arg(long, default_value_t = 500, value_parser = clap::value_parser!(u64).range(1..=60_000))]
    pub(crate) slice: u64,
    /// Core of the servers.
    #[arg(long, default_value_t = 0)]
    pub(crate) server_core: usize,
    /// Core of the generator.
    #[arg(long, default_value_t = 1)]
    pub(crate) core: usize,
    /// What the floor stands on; epoll where io_uring is forbidden.
    #[arg(long, value_enum, default_value_t = Io::Uring)]
    pub(crate) floor: Io,
}

/// What is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Kind {
    Fanout,
    Echo,
}

/// One size: how many clients of which kind, and how much text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub(crate) struct Case {
    pub(crate) kind: Kind,
    pub(crate) clients: u32,
    pub(crate) payload: usize,
    pub(crate) transport: Transport,
}

impl Case {
    pub(crate) const fn websocket(kind: Kind, clients: u32, payload: usize) -> Self {
        Self { kind, clients, payload, transport: Transport::Websocket }
    }

    fn plan(&self, pace: Pace) -> Plan {
        match self.kind {
            Kind::Fanout => Plan::fanout(self.clients, self.payload, pace),
            Kind::Echo => Plan::echo(self.clients, self.payload, pace),
        }
    }

    pub(crate) fn name(&self, pace: Pace) -> String {
        let kind = match self.kind {
            Kind::Fanout => "fan-out",
            Kind::Echo => "echo",
        };
        let pace = match pace {
            Pace::Window(window) => format!("{window} outstanding"),
            Pace::Rate(rate) => format!("{rate:.0} a second"),
        };
        let Self { clients, payload, .. } = self;
        format!("{kind}, {clients} clients, {payload} B, {pace}")
    }
}

/// One server under comparison, with clients once they are connected.
struct Contestant {
    name: String,
    /// Before the server: they end first, or they would complain of its end.
    clients: Option<Clients>,
    server: Server,
    case: Case,
    /// Sizes are numbered; the first contestant of a size is its floor.
    group: usize,
    rounds: Vec<Round>,
}

/// One measured slice.
#[derive(Debug, Serialize, Deserialize)]
struct Round {
    cost: Cpu,
    operations: u64,
    reads: u64,
    seconds: f64,
    generator_ns: u64,
    latency: Latency,
    last: Latency,
}

impl Round {
    fn ns(&self) -> f64 {
        self.cost.total_ns() as f64 / self.operations.max(1) as f64
    }

    fn last_p99(&self) -> f64 {
        self.last.percentiles().p99_us as f64
    }
}

/// One line of the table.
#[derive(Debug, Serialize)]
pub(crate) struct Line {
    pub(crate) name: String,
    /// Which size, counted from 0.
    pub(crate) group: usize,
    /// How many were measured; fewer than asked for after Ctrl-C.
    pub(crate) rounds: usize,
    /// Server CPU per delivery or echo.
    pub(crate) ns: Spread,
    /// To the floor of the same size and round.
    pub(crate) ratio: Spread,
    /// To the same server at the first size, in the same round.
    pub(crate) growth: Option<Spread>,
    /// Server CPU per delivery or echo, over all rounds.
    pub(crate) user_ns: f64,
    pub(crate) system_ns: f64,
    pub(crate) softirq_ns: f64,
    /// Deliveries or echoes a second, and per read of the generator.
    pub(crate) per_second: f64,
    pub(crate) per_read: f64,
    /// To each recipient, or of each echo.
    pub(crate) latency: Percentiles,
    pub(crate) last_recipient: Option<Percentiles>,
    /// The 99th percentile of the time to the last recipient, to the floor's of the same round.
    pub(crate) last_ratio: Option<Spread>,
    /// Cores that the server used, and its clients.
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

    /// Of what one has in relation to another in the same round.
    fn of_pairs(ours: &[Round], theirs: &[Round], value: fn(&Round) -> f64) -> Self {
        Self::of(ours.iter().zip(theirs).map(|(it, base)| value(it) / value(base)).collect())
    }
}

/// A contest. Sizes are begun with [`Contest::size`]; the first server added to a size is the one
/// that the others of that size are compared with.
pub(crate) struct Contest<'r> {
    rules: &'r Rules,
    sizes: Vec<Case>,
    all: Vec<Contestant>,
}

impl<'r> Contest<'r> {
    pub(crate) fn new(rules: &'r Rules, first: Case) -> Self {
        Self { rules, sizes: vec![first], all: Vec::new() }
    }

    /// Begins another size: servers added from now on have clients as `case` says.
    pub(crate) fn size(&mut self, case: Case) {
        self.sizes.push(case);
    }

    fn case(&self) -> Case {
        *self.sizes.last().expect("invariant: begun with one")
    }

    /// Adds the floor that the others are compared with.
    pub(crate) fn base(&mut self) -> Result<(), Failure> {
        let case = self.case();
        crate::floor::check_payload(case.payload)?;
        // Any pace: that of the rounds is looked at when it is known.
        case.plan(Pace::Window(1)).check()?;
        match self.rules.floor {
            Io::Uring => self.floor("floor io_uring", "uring", "coalesced"),
            Io::Epoll => self.floor("floor epoll", "epoll", "coalesced"),
        }
    }

    /// Adds a floor, on `uring` or `epoll`, with `coalesced` or `single` sends.
    pub(crate) fn floor(&mut self, name: &str, io: &str, sends: &str) -> Result<(), Failure> {
        let (core, payload) = (self.rules.server_core.to_string(), self.case().payload.to_string());
        let floor = ["floor", "--port", "0", "--io", io, "--sends", sends];
        let rest = ["--core", &core, "--payload", &payload];
        let server = Server::ourselves(&[&floor[..], &rest].concat())?;
        // It knows one transport; a server that polls is compared with it all the same.
        let case = Case { transport: Transport::Websocket, ..self.case() };
        self.add(name, case, server)
    }

    /// Adds stentor, its clients by WebSocket or polling; all shards share the servers' core.
    pub(crate) fn stentor(
        &mut self,
        driver: Driver,
        shards: usize,
        transport: Transport,
    ) -> Result<(), Failure> {
        let (mut name, driver) = (driver.names().0.to_owned(), driver.names().1);
        if shards > 1 {
            name += &format!(", {shards} shards");
        }
        if transport == Transport::Polling {
            name += ", polling";
        }
        let (core, shards) = (self.rules.server_core.to_string(), shards.to_string());
        let server = Server::ourselves(&stentor_arguments(driver, &shards, &core))?;
        self.add(&name, Case { transport, ..self.case() }, server)
    }

    /// Adds a program that serves the contract, on the servers' core.
    pub(crate) fn program(&mut self, name: &str, mut command: Command) -> Result<(), Failure> {
        crate::server::on_core(&mut command, self.rules.server_core);
        let server = Server::start(command)?;
        self.add(name, self.case(), server)
    }

    /// Adds a server that runs already.
    pub(crate) fn running(&mut self, name: &str, url: &str, pid: u32) -> Result<(), Failure> {
        let server = Server::running(url, pid)?;
        self.add(name, self.case(), server)
    }

    fn add(&mut self, name: &str, case: Case, server: Server) -> Result<(), Failure> {
        if self.all.len() == CONTESTANTS_MAX {
            let why = format!("more than {CONTESTANTS_MAX} servers at once: take fewer sizes");
            return Err(Failure::Usage(why));
        }
        self.all.push(Contestant {
            name: name.to_owned(),
            server,
            case,
            group: self.sizes.len() - 1,
            clients: None,
            rounds: Vec::new(),
        });
        Ok(())
    }

    /// Connects everybody, once.
    pub(crate) fn connect(&mut self) -> Result<(), Failure> {
        crate::runner::prepare(0)?;
        for contestant in &mut self.all {
            let Contestant { server, case, .. } = contestant;
            contestant.clients = Some(Clients::connect(server, case, self.rules.core)?);
        }
        Ok(())
    }

    /// Holds the rounds at one pace.
    pub(crate) fn measure(&mut self, pace: Pace) -> Result<Vec<Line>, Failure> {
        self.rounds(pace, self.rules.rounds)?;
        Ok(self.all.iter().map(|contestant| self.line(contestant)).collect())
    }

    /// How many broadcasts or echoes a second the slowest of all sustains, `window` outstanding.
    pub(crate) fn sustained(&mut self, window: u32) -> Result<f64, Failure> {
        self.rounds(Pace::Window(window), SATURATING_ROUNDS)?;
        if crate::system::interrupted() {
            return Err(Failure::Interrupted);
        }
        let slowest = self.all.iter().map(|contestant| {
            let count: u64 = contestant.rounds.iter().map(|round| round.operations).sum();
            let seconds: f64 = contestant.rounds.iter().map(|round| round.seconds).sum();
            let each = match contestant.case.kind {
                Kind::Fanout => contestant.case.clients,
                Kind::Echo => 1,
            };
            count as f64 / seconds / f64::from(each)
        });
        Ok(slowest.fold(f64::INFINITY, f64::min))
    }

    fn rounds(&mut self, pace: Pace, rounds: u32) -> Result<(), Failure> {
        self.sizes.iter().try_for_each(|case| case.plan(pace).check())?;
        let slice = self.rules.slice;
        let order = Order { pace, warmup_ms: slice / 8, slice_ms: slice };
        self.all.iter_mut().for_each(|contestant| contestant.rounds.clear());
        let live = crate::runner::live_line();
        let count = self.all.len();
        for number in 0..rounds as usize {
            // Each round begins with another one, so that no one always runs after the same one.
            for index in 0..count {
                let contestant = &mut self.all[(number + index) % count];
                let Contestant { name, case, .. } = contestant;
                live.set_message(format!("{}: round {}, {name}", case.name(pace), number + 1));
                let clients = contestant.clients.as_mut().expect("invariant: connected before");
                match clients.measure(order) {
                    Ok(round) => contestant.rounds.push(round),
                    Err(Failure::Interrupted) => {
                        live.finish_and_clear();
                        return self.rounds_so_far();
                    }
                    Err(failure) => return Err(failure),
                }
            }
        }
        live.finish_and_clear();
        Ok(())
    }

    /// After Ctrl-C: the rounds in which everybody had its turn to the end.
    fn rounds_so_far(&mut self) -> Result<(), Failure> {
        let whole = self.all.iter().map(|it| it.rounds.len()).min().unwrap_or(0);
        self.all.iter_mut().for_each(|contestant| contestant.rounds.truncate(whole));
        if whole == 0 { Err(Failure::Interrupted) } else { Ok(()) }
    }

    fn line(&self, contestant: &Contestant) -> Line {
        let Contestant { name, group, rounds, .. } = contestant;
        let floor = self.all.iter().find(|it| it.group == *group).unwrap_or(contestant);
        let first = self.all.iter().find(|it| it.group < *group && it.name == *name);
        let sum = |pick: fn(&Round) -> u64| rounds.iter().map(pick).sum::<u64>() as f64;
        let operations = sum(|round| round.operations).max(1.0);
        let seconds: f64 = rounds.iter().map(|round| round.seconds).sum();
        let (mut latency, mut last) = (Latency::default(), Latency::default());
        for round in rounds {
            latency.add(&round.latency);
            last.add(&round.last);
        }
        let to_last = !last.is_empty();
        Line {
            name: name.clone(),
            group: *group,
            rounds: rounds.len(),
            ns: Spread::of(rounds.iter().map(Round::ns).collect()),
            ratio: Spread::of_pairs(rounds, &floor.rounds, Round::ns),
            growth: first.map(|first| Spread::of_pairs(rounds, &first.rounds, Round::ns)),
            user_ns: sum(|round| round.cost.user_ns) / operations,
            system_ns: sum(|round| round.cost.system_ns) / operations,
            softirq_ns: sum(|round| round.cost.softirq_ns) / operations,
            per_second: operations / seconds,
            per_read: operations / sum(|round| round.reads).max(1.0),
            latency: latency.percentiles(),
            last_recipient: to_last.then(|| last.percentiles()),
            last_ratio: to_last.then(|| Spread::of_pairs(rounds, &floor.rounds, Round::last_p99)),
            server_share: sum(|round| round.cost.process_ns) / 1e9 / seconds,
            generator_share: sum(|round| round.generator_ns) / 1e9 / seconds,
        }
    }
}

/// Servers in one contest, each with a process of clients beside it.
const CONTESTANTS_MAX: usize = 64;
/// Rounds that find out what everybody sustains.
const SATURATING_ROUNDS: u32 = 3;

/// The arguments of `loadtest serve` for shards on one core.
pub(crate) fn stentor_arguments<'a>(
    driver: &'a str,
    shards: &'a str,
    core: &'a str,
) -> [&'a str; 10] {
    ["serve", "--quiet", "--port", "0", "--shards", shards, "--driver", driver, "--core", core]
}
