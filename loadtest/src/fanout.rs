//! `loadtest fanout`: one publisher, everybody receives, against any server.

use std::time::{Duration, Instant};

use clap::Args;
use serde::Serialize;

use crate::Failure;
use crate::broadcasts::{Broadcasts, Pace};
use crate::latency::Percentiles;
use crate::measure::{Cpu, Process};
use crate::swarm::Swarm;
use crate::target::Target;

#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Where the server is.
    #[arg(long, default_value = "http://127.0.0.1:3000")]
    url: String,
    #[arg(long, default_value_t = 1_000)]
    clients: u32,
    /// Bytes of each message's text.
    #[arg(long, default_value_t = 64)]
    payload: usize,
    /// Closed loop: broadcasts outstanding.
    #[arg(long, conflicts_with = "rate", default_value_t = 1)]
    window: u32,
    /// Open loop: broadcasts a second, latency counted from the scheduled send.
    #[arg(long)]
    rate: Option<f64>,
    /// Seconds measured.
    #[arg(long, default_value_t = 5.0)]
    duration: f64,
    /// Seconds before, not measured.
    #[arg(long, default_value_t = 1.0)]
    warmup: f64,
    /// The server's process, for its CPU and memory.
    #[arg(long)]
    pid: Option<u32>,
    /// Pin the generator to this core.
    #[arg(long)]
    core: Option<usize>,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

/// What a run found.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    pub(crate) clients: u32,
    pub(crate) payload: usize,
    pub(crate) seconds: f64,
    pub(crate) broadcasts: u64,
    pub(crate) deliveries: u64,
    pub(crate) deliveries_per_second: f64,
    pub(crate) latency: Percentiles,
    pub(crate) last_recipient: Percentiles,
    pub(crate) generator_cpu_share: f64,
    pub(crate) server: Option<ServerCost>,
}

/// What the server paid.
#[derive(Debug, Serialize)]
pub(crate) struct ServerCost {
    pub(crate) ns_per_delivery: f64,
    pub(crate) user_ns_per_delivery: f64,
    pub(crate) system_ns_per_delivery: f64,
    pub(crate) softirq_ns_per_delivery: f64,
    pub(crate) cpu_share: f64,
    pub(crate) memory_bytes: u64,
}

pub(crate) fn run(options: &Options) -> Result<(), Failure> {
    let target = Target::parse(&options.url)?;
    let pace = options.rate.map_or(Pace::Window(options.window.max(1)), Pace::Rate);
    if options.clients == 0 || matches!(pace, Pace::Rate(rate) if rate <= 0.0) {
        return Err(Failure::Usage("nothing to do".to_owned()));
    }
    if let Some(core) = options.core {
        crate::system::pin(core)?;
    }
    crate::system::catch_interrupts().map_err(Failure::io("catch Ctrl-C"))?;
    let _ = crate::system::raise_descriptors(u64::from(options.clients) + 64);
    let server = options.pid.map(Process::new).transpose().map_err(Failure::io("read /proc"))?;
    let mut swarm = Swarm::new(target, |_| Some("[\"all\"]".to_owned()))?;
    let mut work = Broadcasts::new(options.payload);
    swarm.grow(options.clients, &mut work, |_| {})?;
    work.run(&mut swarm, pace, Duration::from_secs_f64(options.warmup), |_| {})?;

    let own = Process::itself().map_err(Failure::io("read /proc"))?;
    let (own_before, before) = (cpu(Some(&own))?, cpu(server.as_ref())?);
    let started = Instant::now();
    work.run(&mut swarm, pace, Duration::from_secs_f64(options.duration), |_| {})?;
    let seconds = started.elapsed().as_secs_f64();
    let used = cpu(server.as_ref())?.since(&before);
    let own_used = cpu(Some(&own))?.since(&own_before);

    let window = &work.window;
    let each = |ns: u64| ns as f64 / window.deliveries.max(1) as f64;
    let report = Report {
        clients: options.clients,
        payload: options.payload,
        seconds,
        broadcasts: window.broadcasts,
        deliveries: window.deliveries,
        deliveries_per_second: window.deliveries as f64 / seconds,
        latency: window.latency.percentiles(),
        last_recipient: window.last.percentiles(),
        generator_cpu_share: own_used.process_ns as f64 / 1e9 / seconds,
        server: match &server {
            None => None,
            Some(server) => Some(ServerCost {
                ns_per_delivery: each(used.total_ns()),
                user_ns_per_delivery: each(used.user_ns),
                system_ns_per_delivery: each(used.system_ns),
                softirq_ns_per_delivery: each(used.softirq_ns),
                cpu_share: used.process_ns as f64 / 1e9 / seconds,
                memory_bytes: server.memory().map_err(Failure::io("read /proc"))?,
            }),
        },
    };
    if options.json {
        println!("{}", serde_json::to_string(&report).map_err(Failure::server)?);
    } else {
        print(&report);
    }
    Ok(())
}

fn cpu(process: Option<&Process>) -> Result<Cpu, Failure> {
    process.map_or(Ok(Cpu::default()), |process| {
        process.cpu().map_err(Failure::io("read the CPU time of a process"))
    })
}

fn print(report: &Report) {
    println!(
        "{} clients, {} B: {} broadcasts, {} deliveries in {:.2} s = {:.0}/s, all in order and intact",
        report.clients,
        report.payload,
        report.broadcasts,
        report.deliveries,
        report.seconds,
        report.deliveries_per_second
    );
    for (name, times) in [("each", report.latency), ("last", report.last_recipient)] {
        println!(
            "  to {name} recipient: p50 {} us, p90 {}, p99 {}, p99.9 {}, max {}",
            times.p50_us, times.p90_us, times.p99_us, times.p999_us, times.max_us
        );
    }
    if let Some(server) = &report.server {
        println!(
            "  server: {:.0} ns per delivery (user {:.0}, system {:.0}, ksoftirqd {:.0}), {:.0} % of a core, {:.1} MiB",
            server.ns_per_delivery,
            server.user_ns_per_delivery,
            server.system_ns_per_delivery,
            server.softirq_ns_per_delivery,
            server.cpu_share * 100.0,
            server.memory_bytes as f64 / 1048576.0
        );
    }
    println!("  generator: {:.0} % of a core", report.generator_cpu_share * 100.0);
}
