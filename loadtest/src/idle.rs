//! `loadtest idle`: what a client costs that does nothing.

use std::time::{Duration, Instant};

use clap::Args;
use serde::Serialize;

use crate::Failure;
use crate::measure::Process;
use crate::runner::{self, Common};
use crate::swarm::{Client, Swarm, Work};
use crate::target::Target;

#[derive(Debug, Args)]
pub(crate) struct Options {
    #[arg(long, default_value_t = 10_000)]
    clients: u32,
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
    /// The generator's own memory per client.
    pub(crate) generator_bytes_per_client: f64,
}

/// Clients that are connected before the first look, so that what exists once is not counted.
const FIRST: u32 = 16;
/// Until the server has put away what it needed for the handshakes.
const SETTLE: Duration = Duration::from_millis(1_500);

/// Whatever arrives is a fault: nobody has asked for anything.
struct Quiet;

impl Work for Quiet {
    fn packet(
        &mut self,
        _: u32,
        _: &mut Client,
        packet: &[u8],
        _: &mut Vec<u8>,
    ) -> Result<(), String> {
        Err(format!("an idle client got {:?}", String::from_utf8_lossy(packet)))
    }
}

pub(crate) fn run(options: &Options) -> Result<(), Failure> {
    if options.clients <= FIRST {
        return Err(Failure::Usage(format!("more than {FIRST} clients are needed")));
    }
    let (target, server) = options.common.prepare(options.clients)?;
    let (_, hold) = options.common.length()?;
    let idle = measure(target, server.as_ref(), options.clients, hold)?;
    if options.common.output.json {
        println!("{}", serde_json::to_string(&idle).map_err(Failure::server)?);
        return Ok(());
    }
    println!("idle: {} clients", idle.clients);
    if let (Some(each), Some(base), Some(cpu)) =
        (idle.bytes_per_client, idle.base_bytes, idle.cpu_per_thousand)
    {
        println!("  server: {each:.0} B per client above {} KiB", base / 1024);
        println!("  server: {:.3} % of a core for 1000 clients", cpu * 100.0);
    }
    println!("  generator: {:.0} B per client", idle.generator_bytes_per_client);
    Ok(())
}

/// Connects, waits, looks.
pub(crate) fn measure(
    target: Target,
    server: Option<&Process>,
    clients: u32,
    hold: Duration,
) -> Result<Idle, Failure> {
    let proc_failed = "read the memory of a process";
    let memory = |process: &Process| process.memory().map_err(Failure::io(proc_failed));
    let own = Process::itself().map_err(Failure::io(proc_failed))?;
    let mut swarm = Swarm::new(target, |_| None)?;
    swarm.grow(FIRST, &mut Quiet, |_| {})?;
    wait(&mut swarm, SETTLE)?;
    let (own_base, base) = (memory(&own)?, server.map(memory).transpose()?);
    runner::ramp(&mut swarm, clients, &mut Quiet)?;
    wait(&mut swarm, SETTLE)?;
    let more = f64::from(clients - FIRST);
    let (own_full, full) = (memory(&own)?, server.map(memory).transpose()?);
    let before = runner::cpu(server)?;
    wait(&mut swarm, hold)?;
    let used = runner::cpu(server)?.since(&before);
    let seconds = hold.as_secs_f64().max(1e-3);
    Ok(Idle {
        clients,
        bytes_per_client: base
            .zip(full)
            .map(|(base, full)| full.saturating_sub(base) as f64 / more),
        base_bytes: base,
        cpu_per_thousand: server
            .map(|_| used.process_ns as f64 / 1e9 / seconds * 1e3 / f64::from(clients)),
        generator_bytes_per_client: own_full.saturating_sub(own_base) as f64 / more,
    })
}

/// Answers heartbeats for a while.
fn wait(swarm: &mut Swarm, length: Duration) -> Result<(), Failure> {
    let started = Instant::now();
    while started.elapsed() < length && !crate::system::interrupted() {
        swarm.turn(Some(Duration::from_millis(50)), &mut Quiet)?;
    }
    Ok(())
}
