//! `loadtest idle`: what a client costs that does nothing.

use std::time::{Duration, Instant};

use clap::Args;
use serde::Serialize;

use crate::Failure;
use crate::crew::Crew;
use crate::load::Plan;
use crate::measure::Process;
use crate::runner::{self, Common, Setup};
use crate::target::Target;

#[derive(Debug, Args)]
pub(crate) struct Options {
    #[arg(long, default_value_t = 10_000)]
    clients: u32,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    common: Common,
}

/// What was found.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Idle {
    pub(crate) clients: u32,
    /// Growth of the server's private memory per client.
    pub(crate) bytes_per_client: Option<f64>,
    /// The server's private memory with hardly any client.
    pub(crate) base_bytes: Option<u64>,
    /// Server CPU for a thousand clients, share of a core.
    pub(crate) cpu_per_thousand: Option<f64>,
    /// The generator's own memory per client, and in all.
    pub(crate) generator_bytes_per_client: f64,
    pub(crate) generator_bytes: u64,
    /// Until all clients were in.
    pub(crate) ramp_seconds: f64,
    /// Processes of the generator.
    pub(crate) processes: usize,
    pub(crate) interrupted: bool,
}

/// Clients that are connected before the first look, so that what exists once is not counted.
const FIRST: u32 = 16;
/// Until the server has put away what it needed for the handshakes.
const SETTLE: Duration = Duration::from_millis(1_500);

pub(crate) fn run(options: &Options) -> Result<(), Failure> {
    let Setup { mut crew, servers, duration, .. } =
        options.common.muster(Plan::quiet(options.clients))?;
    let idle = hold(&mut crew, &servers, options.clients, duration)?;
    if options.json {
        say!("{}", serde_json::to_string(&idle).map_err(Failure::server)?);
        return Ok(());
    }
    let ended = if idle.interrupted { ", interrupted" } else { "" };
    let transport = options.common.transport.name();
    say!("idle: {} clients by {transport}{ended}", idle.clients);
    if let (Some(each), Some(base), Some(cpu)) =
        (idle.bytes_per_client, idle.base_bytes, idle.cpu_per_thousand)
    {
        say!("  server: {each:.0} B per client above {} KiB", base / 1024);
        say!("  server: {:.3} % of a core for 1000 clients", cpu * 100.0);
    }
    say!(
        "  generator memory: {:.0} B per client, {:.1} MiB in {} processes; ramp {:.1} s",
        idle.generator_bytes_per_client,
        idle.generator_bytes as f64 / f64::from(1 << 20),
        idle.processes,
        idle.ramp_seconds
    );
    Ok(())
}

/// Clients of one server, all in this process.
pub(crate) fn measure(
    target: Target,
    server: Option<&Process>,
    clients: u32,
    length: Duration,
) -> Result<Idle, Failure> {
    let servers = server.map_or(&[][..], std::slice::from_ref);
    hold(&mut Crew::alone(target, Plan::quiet(clients))?, servers, clients, length)
}

/// Connects, waits, looks. Whatever the clients get is a fault: nobody has asked for anything.
fn hold(
    crew: &mut Crew,
    servers: &[Process],
    clients: u32,
    length: Duration,
) -> Result<Idle, Failure> {
    if clients <= FIRST {
        return Err(Failure::Usage(format!("more than {FIRST} clients are needed")));
    }
    crew.grow(FIRST, |_| {})?;
    let first = crew.ready();
    crew.hold(SETTLE)?;
    let (own_base, base) = (runner::memory_of(crew.processes())?, runner::memory_of(servers)?);
    let started = Instant::now();
    crew.ramp()?;
    let ramp_seconds = started.elapsed().as_secs_f64();
    crew.hold(SETTLE)?;
    let more = f64::from(clients.saturating_sub(first).max(1));
    let (own_full, full) = (runner::memory_of(crew.processes())?, runner::memory_of(servers)?);
    let (before, started) = (runner::cpu_of(servers)?, Instant::now());
    crew.hold(length)?;
    let used = runner::cpu_of(servers)?.since(&before);
    let seconds = started.elapsed().as_secs_f64().max(1e-3);
    let watched = !servers.is_empty();
    Ok(Idle {
        clients,
        bytes_per_client: watched.then(|| full.saturating_sub(base) as f64 / more),
        base_bytes: watched.then_some(base),
        cpu_per_thousand: watched
            .then(|| used.process_ns as f64 / 1e9 / seconds * 1e3 / f64::from(clients)),
        generator_bytes_per_client: own_full.saturating_sub(own_base) as f64 / more,
        generator_bytes: own_full,
        ramp_seconds,
        processes: crew.processes().len(),
        interrupted: crate::system::interrupted(),
    })
}
