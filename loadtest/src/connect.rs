//! `loadtest connect`: what a connection costs, from the TCP handshake to the namespace.

use std::time::{Duration, Instant};

use clap::Args;
use serde::Serialize;

use crate::Failure;
use crate::contest::Spread;
use crate::crew::Crew;
use crate::latency::Percentiles;
use crate::load::{Plan, Window};
use crate::measure::Process;
use crate::report::Generator;
use crate::runner::{self, Common, Setup};
use crate::target::Target;

#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Clients of one round; they connect, some hundred at a time, and leave.
    #[arg(long, default_value_t = 1_000)]
    clients: u32,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    common: Common,
}

/// What was found.
#[derive(Debug, Serialize)]
pub(crate) struct Connects {
    pub(crate) connections: u64,
    /// While clients connected; the time in which they left is not counted.
    pub(crate) per_second: f64,
    /// Server CPU per connection made, over the rounds.
    pub(crate) ns: Option<Spread>,
    /// Server CPU per connection lost, over the rounds.
    pub(crate) close_ns: Option<Spread>,
    /// From the first SYN to the answer of the namespace.
    pub(crate) latency: Percentiles,
    pub(crate) interrupted: bool,
    #[serde(flatten)]
    pub(crate) generator: Generator,
}

/// Until the server has noticed that its clients have left.
const LEAVE: Duration = Duration::from_millis(300);

pub(crate) fn run(options: &Options) -> Result<(), Failure> {
    let Setup { mut crew, servers, duration, .. } =
        options.common.muster(Plan::quiet(options.clients))?;
    let found = rounds(&mut crew, &servers, options.clients, duration)?;
    if options.json {
        say!("{}", serde_json::to_string(&found).map_err(Failure::server)?);
        return Ok(());
    }
    let ended = if found.interrupted { ", interrupted" } else { "" };
    say!(
        "connect: {} connections by {}, {:.0}/s{ended}",
        found.connections,
        options.common.transport.name(),
        found.per_second
    );
    let Percentiles { p50_us, p90_us, p99_us, p999_us, max_us } = found.latency;
    say!("  p50 {p50_us} us, p90 {p90_us}, p99 {p99_us}, p99.9 {p999_us}, max {max_us}");
    if let (Some(made), Some(lost)) = (found.ns, found.close_ns) {
        let us = |ns: f64| ns / 1e3;
        say!(
            "  server: {:.1} us each ({:.1}..{:.1}), and {:.1} us when it leaves",
            us(made.median),
            us(made.p10),
            us(made.p90),
            us(lost.median)
        );
    }
    say!("  generator: {}", found.generator.line());
    say!("  generator memory: {}", found.generator.memory());
    Ok(())
}

/// Connections to one server, all from this process.
pub(crate) fn measure(
    target: Target,
    server: Option<&Process>,
    clients: u32,
    length: Duration,
) -> Result<Connects, Failure> {
    let servers = server.map_or(&[][..], std::slice::from_ref);
    rounds(&mut Crew::alone(target, Plan::quiet(clients))?, servers, clients, length)
}

fn rounds(
    crew: &mut Crew,
    servers: &[Process],
    clients: u32,
    length: Duration,
) -> Result<Connects, Failure> {
    let mut seen = Window::default();
    let base = runner::memory_of(crew.processes())?;
    // The first round warms up.
    round(crew, servers, clients)?;
    crew.collect(&mut seen)?;
    seen.clear();
    let live = runner::live_line();
    let (mut made, mut lost, mut connecting) = (Vec::new(), Vec::new(), Duration::ZERO);
    let (started, own_before) = (Instant::now(), runner::each(crew.processes())?);
    let (mut own_idle, mut memory) = (Duration::ZERO, base);
    while made.is_empty() || started.elapsed() < length && !crate::system::interrupted() {
        let round = match round(crew, servers, clients) {
            // The rounds so far are the result.
            Err(Failure::InterruptedAt { .. }) if !made.is_empty() => break,
            round => round?,
        };
        crew.collect(&mut seen)?;
        made.push(round.made_ns / f64::from(clients));
        lost.push(round.lost_ns / f64::from(clients));
        memory = memory.max(round.memory);
        connecting += round.connecting;
        own_idle += LEAVE;
        live.set_message(format!("{} connections", made.len() as u64 * u64::from(clients)));
    }
    live.finish_and_clear();
    let busy = started.elapsed().saturating_sub(own_idle).as_secs_f64().max(1e-6);
    let shares = runner::shares(&runner::each(crew.processes())?, &own_before, busy);
    let connections = made.len() as u64 * u64::from(clients);
    Ok(Connects {
        connections,
        per_second: connections as f64 / connecting.as_secs_f64().max(1e-6),
        ns: (!servers.is_empty()).then(|| Spread::of(made)),
        close_ns: (!servers.is_empty()).then(|| Spread::of(lost)),
        latency: seen.connect.percentiles(),
        interrupted: crate::system::interrupted(),
        generator: Generator::new(shares, memory, memory.saturating_sub(base), clients),
    })
}

struct Round {
    made_ns: f64,
    lost_ns: f64,
    connecting: Duration,
    /// Of the generator, with all clients there.
    memory: u64,
}

fn round(crew: &mut Crew, servers: &[Process], clients: u32) -> Result<Round, Failure> {
    let before = runner::cpu_of(servers)?;
    let started = Instant::now();
    crew.grow(clients, |_| {})?;
    let connecting = started.elapsed();
    let full = runner::cpu_of(servers)?;
    let memory = runner::memory_of(crew.processes())?;
    crew.clear()?;
    std::thread::sleep(LEAVE);
    let empty = runner::cpu_of(servers)?;
    Ok(Round {
        made_ns: full.since(&before).total_ns() as f64,
        lost_ns: empty.since(&full).total_ns() as f64,
        connecting,
        memory,
    })
}
