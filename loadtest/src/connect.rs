//! `loadtest connect`: what a connection costs, from the TCP handshake to the namespace.

use std::time::{Duration, Instant};

use clap::Args;
use serde::Serialize;

use crate::Failure;
use crate::contest::Spread;
use crate::latency::{Latency, Percentiles};
use crate::measure::Process;
use crate::runner::{self, Common};
use crate::swarm::{Client, Swarm, Work};
use crate::system::now;
use crate::target::Target;

#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Clients of one round; they connect, some hundred at a time, and leave.
    #[arg(long, default_value_t = 1_000)]
    clients: u32,
    #[command(flatten)]
    common: Common,
}

/// What was found.
#[derive(Debug, Serialize)]
pub(crate) struct Connects {
    pub(crate) connections: u64,
    pub(crate) per_second: f64,
    /// Server CPU per connection made, over the rounds.
    pub(crate) ns: Option<Spread>,
    /// Server CPU per connection lost, over the rounds.
    pub(crate) close_ns: Option<Spread>,
    /// From the first SYN to the answer of the namespace.
    pub(crate) latency: Percentiles,
    pub(crate) generator_share: f64,
}

/// Until the server has noticed that its clients have left.
const LEAVE: Duration = Duration::from_millis(300);

#[derive(Default)]
struct Arrivals {
    begun: Vec<u64>,
    latency: Latency,
}

impl Work for Arrivals {
    fn packet(
        &mut self,
        _: u32,
        _: &mut Client,
        packet: &[u8],
        _: &mut Vec<u8>,
    ) -> Result<(), String> {
        Err(format!("a new client got {:?}", String::from_utf8_lossy(packet)))
    }

    fn connecting(&mut self, who: u32) {
        self.begun.resize(self.begun.len().max(who as usize + 1), 0);
        self.begun[who as usize] = now();
    }

    fn ready(&mut self, who: u32) {
        self.latency.record(now() - self.begun[who as usize]);
    }
}

pub(crate) fn run(options: &Options) -> Result<(), Failure> {
    if options.clients == 0 {
        return Err(Failure::Usage("at least one client".to_owned()));
    }
    let (target, server) = options.common.prepare(options.clients)?;
    let (_, length) = options.common.length()?;
    let found = measure(target, server.as_ref(), options.clients, length)?;
    if options.common.output.json {
        println!("{}", serde_json::to_string(&found).map_err(Failure::server)?);
        return Ok(());
    }
    println!("connect: {} connections, {:.0}/s", found.connections, found.per_second);
    let Percentiles { p50_us, p90_us, p99_us, p999_us, max_us } = found.latency;
    println!("  p50 {p50_us} us, p90 {p90_us}, p99 {p99_us}, p99.9 {p999_us}, max {max_us}");
    if let (Some(made), Some(lost)) = (found.ns, found.close_ns) {
        let us = |ns: f64| ns / 1e3;
        println!(
            "  server: {:.1} us each ({:.1}..{:.1}), and {:.1} us when it leaves",
            us(made.median),
            us(made.p10),
            us(made.p90),
            us(lost.median)
        );
    }
    println!("  generator: {:.0} % of a core", found.generator_share * 100.0);
    Ok(())
}

pub(crate) fn measure(
    target: Target,
    server: Option<&Process>,
    clients: u32,
    length: Duration,
) -> Result<Connects, Failure> {
    let own = Process::itself().map_err(Failure::io("read /proc"))?;
    let mut arrivals = Arrivals::default();
    let mut swarm = Swarm::new(target, |_| None)?;
    // The first round warms up.
    round(&mut swarm, &mut arrivals, clients, server)?;
    arrivals.latency = Latency::default();
    let live = runner::live_line();
    let (mut made, mut lost, mut connecting) = (Vec::new(), Vec::new(), Duration::ZERO);
    let (started, own_before) = (Instant::now(), runner::cpu(Some(&own))?);
    let mut own_idle = Duration::ZERO;
    while made.is_empty() || started.elapsed() < length && !crate::system::interrupted() {
        let round = round(&mut swarm, &mut arrivals, clients, server)?;
        made.push(round.made_ns / f64::from(clients));
        lost.push(round.lost_ns / f64::from(clients));
        connecting += round.connecting;
        own_idle += LEAVE;
        live.set_message(format!("{} connections", made.len() as u64 * u64::from(clients)));
    }
    live.finish_and_clear();
    let busy = started.elapsed().saturating_sub(own_idle).as_secs_f64().max(1e-6);
    let own_used = runner::cpu(Some(&own))?.since(&own_before);
    let connections = made.len() as u64 * u64::from(clients);
    Ok(Connects {
        connections,
        per_second: connections as f64 / connecting.as_secs_f64().max(1e-6),
        ns: server.map(|_| Spread::of(made)),
        close_ns: server.map(|_| Spread::of(lost)),
        latency: arrivals.latency.percentiles(),
        generator_share: own_used.process_ns as f64 / 1e9 / busy,
    })
}

struct Round {
    made_ns: f64,
    lost_ns: f64,
    connecting: Duration,
}

fn round(
    swarm: &mut Swarm,
    arrivals: &mut Arrivals,
    clients: u32,
    server: Option<&Process>,
) -> Result<Round, Failure> {
    let before = runner::cpu(server)?;
    let started = Instant::now();
    swarm.grow(clients, arrivals, |_| {})?;
    let connecting = started.elapsed();
    let full = runner::cpu(server)?;
    swarm.clear();
    std::thread::sleep(LEAVE);
    let empty = runner::cpu(server)?;
    Ok(Round {
        made_ns: full.since(&before).total_ns() as f64,
        lost_ns: empty.since(&full).total_ns() as f64,
        connecting,
    })
}
