//! What a run found, and the forms in which it is told: text, JSON, a page, a plot.

mod html;
mod plot;

use std::path::PathBuf;

use clap::Args;
use serde::Serialize;

use crate::Failure;
use crate::latency::{Latency, Percentiles};
use crate::load::{Pace, Plan, Window};
use crate::measure::Cpu;

/// How results are told.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct Output {
    /// Print one JSON object.
    #[arg(long)]
    pub(crate) json: bool,
    /// Write a page with plots to this file.
    #[arg(long)]
    pub(crate) html: Option<PathBuf>,
    /// Draw the latencies in the terminal.
    #[arg(long)]
    pub(crate) plot: bool,
}

impl Output {
    /// Whether the page can be written: better asked before a run than after it.
    pub(crate) fn check(&self) -> Result<(), Failure> {
        match &self.html {
            Some(path) => {
                crate::system::check_writable(path).map_err(Failure::io("write the page"))
            }
            None => Ok(()),
        }
    }
}

#[derive(Debug, Serialize)]
pub(crate) struct Report {
    pub(crate) command: &'static str,
    /// Of all servers, with commas.
    pub(crate) url: String,
    pub(crate) clients: u32,
    pub(crate) payload_bytes: usize,
    pub(crate) transport: &'static str,
    pub(crate) pace: String,
    /// Measured, until the last message was there.
    pub(crate) seconds: f64,
    /// Ended by Ctrl-C: results so far.
    pub(crate) interrupted: bool,
    pub(crate) broadcasts: u64,
    pub(crate) deliveries: u64,
    pub(crate) deliveries_per_second: f64,
    pub(crate) echoes: u64,
    pub(crate) echoes_per_second: f64,
    /// Made by clients that come and go.
    pub(crate) connections: u64,
    /// The most messages that were outstanding at once.
    pub(crate) backlog: u64,
    pub(crate) latencies: Vec<Named>,
    /// Until all clients were in.
    pub(crate) ramp_seconds: f64,
    #[serde(flatten)]
    pub(crate) generator: Generator,
    pub(crate) server: Option<ServerCost>,
    pub(crate) series: Vec<Sample>,
}

/// What the generator itself used.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Generator {
    /// Cores that its busiest process used.
    pub(crate) generator_share: f64,
    /// Cores that each of its processes used, this one first.
    pub(crate) generator_shares: Vec<f64>,
    /// Cores that it may use.
    pub(crate) generator_cores: usize,
    /// Private memory of all its processes, and the part of it that came with the clients.
    pub(crate) generator_bytes: u64,
    pub(crate) generator_bytes_per_client: f64,
}

impl Generator {
    pub(crate) fn new(shares: Vec<f64>, bytes: u64, more: u64, clients: u32) -> Self {
        Self {
            generator_share: shares.iter().copied().fold(0.0, f64::max),
            generator_shares: shares,
            generator_cores: std::thread::available_parallelism().map_or(1, usize::from),
            generator_bytes: bytes,
            generator_bytes_per_client: more as f64 / f64::from(clients.max(1)),
        }
    }

    /// Whether one of its processes, or all together, had no time to spare: such a generator
    /// measures itself.
    pub(crate) fn is_saturated(&self) -> bool {
        let together: f64 = self.generator_shares.iter().sum();
        self.generator_share > SATURATED || together > SATURATED * self.generator_cores as f64
    }

    /// One line of text.
    pub(crate) fn line(&self) -> String {
        let shares = &self.generator_shares;
        let percent = |share: f64| format!("{:.0} %", share * 100.0);
        let mut line = format!("{} of a core", percent(self.generator_share));
        if shares.len() > 1 {
            let each: Vec<_> = shares[1..].iter().map(|share| percent(*share)).collect();
            let together: f64 = shares.iter().sum();
            line = format!(
                "{} workers, {} of a core, {together:.2} cores with the leader",
                each.len(),
                each.join(", ")
            );
        }
        if self.is_saturated() {
            line.push_str(": saturated, the server may be faster");
        }
        line
    }

    /// One line of text.
    pub(crate) fn memory(&self) -> String {
        format!(
            "{:.0} B per client, {:.1} MiB in all",
            self.generator_bytes_per_client,
            self.generator_bytes as f64 / f64::from(1 << 20)
        )
    }
}

/// A histogram with its name and its curve.
#[derive(Debug, Serialize)]
pub(crate) struct Named {
    pub(crate) name: &'static str,
    #[serde(flatten)]
    pub(crate) percentiles: Percentiles,
    /// Share of the messages, and the latency (us) that they did not exceed.
    pub(crate) curve: Vec<(f64, u64)>,
}

/// What the server paid.
#[derive(Debug, Serialize)]
pub(crate) struct ServerCost {
    /// Per delivery, or per echo where nothing is broadcast; `ksoftirqd` of its cores included.
    pub(crate) ns_per_operation: f64,
    pub(crate) user_ns_per_operation: f64,
    pub(crate) system_ns_per_operation: f64,
    pub(crate) softirq_ns_per_operation: f64,
    /// Cores that all servers used together.
    pub(crate) cores: f64,
    /// Private memory at the end.
    pub(crate) memory_bytes: u64,
}

/// One look at a running measurement.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Sample {
    /// Seconds since the run began.
    pub(crate) at: f64,
    /// Deliveries and echoes since the last look.
    pub(crate) per_second: f64,
    /// Cores that all servers used, and the busiest process of the generator.
    pub(crate) server_share: f64,
    pub(crate) generator_share: f64,
}

impl Sample {
    pub(crate) fn line(&self) -> String {
        let server = match self.server_share {
            0.0 => String::new(),
            share => format!("server {:.0} %, ", share * 100.0),
        };
        let generator = self.generator_share * 100.0;
        format!("{:.0}/s, {server}generator {generator:.0} % of a core", self.per_second)
    }
}

impl ServerCost {
    pub(crate) fn new(used: &Cpu, operations: u64, seconds: f64, memory_bytes: u64) -> Self {
        let each = |ns: u64| ns as f64 / operations.max(1) as f64;
        Self {
            ns_per_operation: each(used.total_ns()),
            user_ns_per_operation: each(used.user_ns),
            system_ns_per_operation: each(used.system_ns),
            softirq_ns_per_operation: each(used.softirq_ns),
            cores: used.total_ns() as f64 / 1e9 / seconds,
            memory_bytes,
        }
    }
}

impl Report {
    pub(crate) fn new(
        command: &'static str,
        url: &str,
        plan: &Plan,
        seconds: f64,
        window: &Window,
    ) -> Self {
        let named = |name, latency: &Latency| {
            (!latency.is_empty()).then(|| Named {
                name,
                percentiles: latency.percentiles(),
                curve: latency.curve(),
            })
        };
        let latencies = [
            named("to each recipient", &window.latency),
            named("to the last recipient", &window.last),
            named("echo", &window.echo),
            named("to come in", &window.connect),
        ];
        Self {
            command,
            url: url.to_owned(),
            clients: plan.clients,
            payload_bytes: plan.payload,
            transport: "websocket",
            pace: pace(plan),
            seconds,
            interrupted: false,
            broadcasts: window.broadcasts,
            deliveries: window.operations,
            deliveries_per_second: window.operations as f64 / seconds,
            echoes: window.echoes,
            echoes_per_second: window.echoes as f64 / seconds,
            connections: window.connections,
            backlog: window.backlog,
            latencies: latencies.into_iter().flatten().collect(),
            ramp_seconds: 0.0,
            generator: Generator::default(),
            server: None,
            series: Vec::new(),
        }
    }
}

/// Share of a core from which on the generator is suspected to be the bottleneck.
pub(crate) const SATURATED: f64 = 0.95;

fn pace(plan: &Plan) -> String {
    let one = |name: &str, pace: Option<Pace>| match pace {
        Some(Pace::Window(window)) => format!("{name}: {window} outstanding"),
        Some(Pace::Rate(rate)) => format!("{name}: {rate} a second"),
        None => String::new(),
    };
    let mut parts = vec![one("broadcasts", plan.broadcast), one("echoes", plan.echo)];
    if plan.rooms > 1 {
        parts.push(format!("{} rooms", plan.rooms));
    }
    if plan.servers > 1 {
        parts.push(format!("{} servers", plan.servers));
    }
    if plan.churn > 0.0 {
        parts.push(format!("{} clients a second come and go", plan.churn));
    }
    parts.retain(|part| !part.is_empty());
    parts.join(", ")
}

/// Tells a report in every form that was asked for.
pub(crate) fn publish(report: &Report, output: &Output) -> Result<(), Failure> {
    if output.json {
        say!("{}", serde_json::to_string(report).map_err(Failure::server)?);
    } else {
        print(report);
    }
    if output.plot {
        // Beside JSON the plot must not stand in the way.
        let drawn = plot::draw(report);
        if output.json { eprint!("{drawn}") } else { say_some!("{drawn}") }
    }
    if let Some(path) = &output.html {
        let page = html::page(report).map_err(Failure::server)?;
        std::fs::write(path, page).map_err(Failure::io("write the page"))?;
        eprintln!("wrote {}", path.display());
    }
    Ok(())
}

fn print(report: &Report) {
    let ended = if report.interrupted { ", interrupted" } else { "" };
    say!(
        "{}: {} clients by {}, {} B, {}; {:.2} s{ended}",
        report.command,
        report.clients,
        report.transport,
        report.payload_bytes,
        report.pace,
        report.seconds
    );
    if report.deliveries > 0 {
        say!(
            "  {} broadcasts, {} deliveries = {:.0}/s, all in order and intact",
            report.broadcasts,
            report.deliveries,
            report.deliveries_per_second
        );
    }
    if report.echoes > 0 {
        let (echoes, rate) = (report.echoes, report.echoes_per_second);
        say!("  {echoes} echoes = {rate:.0}/s, all in order and intact");
    }
    if report.connections > 0 {
        say!("  {} clients came and went", report.connections);
    }
    for latency in &report.latencies {
        let Percentiles { p50_us, p90_us, p99_us, p999_us, max_us } = latency.percentiles;
        say!(
            "  {:22} p50 {p50_us} us, p90 {p90_us}, p99 {p99_us}, p99.9 {p999_us}, max {max_us}",
            latency.name
        );
    }
    if let Some(server) = &report.server {
        say!(
            "  server: {:.0} ns each (user {:.0}, system {:.0}, ksoftirqd {:.0}), {:.2} cores, {:.1} MiB",
            server.ns_per_operation,
            server.user_ns_per_operation,
            server.system_ns_per_operation,
            server.softirq_ns_per_operation,
            server.cores,
            server.memory_bytes as f64 / f64::from(1 << 20)
        );
    }
    say!("  generator: {}", report.generator.line());
    let (clients, seconds) = (f64::from(report.clients), report.ramp_seconds);
    let memory = report.generator.memory();
    say!("  generator memory: {memory}; ramp {seconds:.1} s, {:.0}/s", clients / seconds);
}
