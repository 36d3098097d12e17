//! One run against a server somebody else has started: connect, warm up, measure, tell.

use std::time::{Duration, Instant};

use clap::Args;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::Failure;
use crate::load::{Load, Plan, Window};
use crate::measure::{Cpu, Process};
use crate::report::{self, Output, Report, Sample, ServerCost};
use crate::swarm::{Swarm, Transport, Work};
use crate::target::Target;

/// What every command against a server takes.
#[derive(Debug, Clone, Args)]
pub(crate) struct Common {
    /// Where the server is.
    #[arg(long, default_value = "http://127.0.0.1:3000")]
    pub(crate) url: String,
    /// Seconds measured.
    #[arg(long, default_value_t = 5.0)]
    pub(crate) duration: f64,
    /// Seconds before, not measured.
    #[arg(long, default_value_t = 1.0)]
    pub(crate) warmup: f64,
    /// The server's process on this machine, for its CPU and memory.
    #[arg(long)]
    pub(crate) pid: Option<u32>,
    /// Pin the generator to this core.
    #[arg(long)]
    pub(crate) core: Option<usize>,
    #[command(flatten)]
    pub(crate) output: Output,
}

impl Common {
    pub(crate) fn length(&self) -> Result<(Duration, Duration), Failure> {
        let seconds = |value: f64| {
            Duration::try_from_secs_f64(value)
                .map_err(|_| Failure::Usage(format!("{value} is no number of seconds")))
        };
        Ok((seconds(self.warmup)?, seconds(self.duration)?))
    }

    /// What must be in place before clients connect.
    pub(crate) fn prepare(&self, clients: u32) -> Result<(Target, Option<Process>), Failure> {
        let target = Target::parse(&self.url)?;
        if let Some(core) = self.core {
            crate::system::pin(core)?;
        }
        prepare(clients)?;
        let process = self.pid.map(Process::new).transpose();
        Ok((target, process.map_err(Failure::io("read /proc of the server"))?))
    }
}

/// Room for the descriptors, and an ear for Ctrl-C.
pub(crate) fn prepare(clients: u32) -> Result<(), Failure> {
    crate::system::catch_interrupts().map_err(Failure::io("catch Ctrl-C"))?;
    let wanted = u64::from(clients) + 64;
    let limit = crate::system::raise_descriptors(wanted).map_err(Failure::io("read limits"))?;
    if limit < wanted {
        return Err(Failure::Descriptors { clients, limit });
    }
    Ok(())
}

/// Connects with a progress bar.
pub(crate) fn ramp(swarm: &mut Swarm, clients: u32, work: &mut impl Work) -> Result<(), Failure> {
    let bar =
        ProgressBar::with_draw_target(Some(clients.into()), ProgressDrawTarget::stderr_with_hz(10));
    let style = ProgressStyle::with_template("connecting {bar:40} {pos}/{len} {per_sec}");
    bar.set_style(style.expect("invariant: a valid template"));
    let grown = swarm.grow(clients, work, |ready| bar.set_position(ready.into()));
    bar.finish_and_clear();
    grown
}

/// CPU time now, of a process or of none.
pub(crate) fn cpu(process: Option<&Process>) -> Result<Cpu, Failure> {
    process.map_or(Ok(Cpu::default()), |process| {
        process.cpu().map_err(Failure::io("read the CPU time of a process"))
    })
}

/// Runs a plan against the server of `common`.
pub(crate) fn run(
    command: &'static str,
    plan: Plan,
    transport: Transport,
    common: &Common,
) -> Result<(), Failure> {
    let (warmup, duration) = common.length()?;
    let (target, server) = common.prepare(plan.clients + plan.churn.ceil() as u32)?;
    let url = common.url.clone();
    let mut swarm = Swarm::new(target, move |who| plan.rooms_of(who))?;
    swarm.transport = transport;
    let mut load = Load::new(plan);
    ramp(&mut swarm, plan.clients, &mut load)?;
    load.run(&mut swarm, warmup, |_| {})?;

    let own = Process::itself().map_err(Failure::io("read /proc"))?;
    let mut watch = Watch::new(&own, server.as_ref())?;
    let live = live_line();
    load.run(&mut swarm, duration, |window| {
        if let Some(sample) = watch.sample(window) {
            live.set_message(sample.line());
        }
    })?;
    live.finish_and_clear();
    let (seconds, own_used, used) = watch.totals()?;

    let window = std::mem::take(&mut load.window);
    let operations = if plan.broadcast.is_some() { window.operations } else { window.echoes };
    let cost = match &server {
        Some(server) => {
            let memory = server.memory().map_err(Failure::io("read the server's memory"))?;
            Some(ServerCost::new(&used, operations, seconds, memory))
        }
        None => None,
    };
    let report = Report {
        interrupted: crate::system::interrupted(),
        generator_share: own_used.process_ns as f64 / 1e9 / seconds,
        transport: transport.name(),
        server: cost,
        series: watch.samples,
        ..Report::new(command, &url, &plan, seconds, &window)
    };
    report::publish(&report, &common.output)
}

/// The one line that lives while a run does.
pub(crate) fn live_line() -> ProgressBar {
    let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr_with_hz(5));
    let style = ProgressStyle::with_template("{spinner} {elapsed} {msg}");
    bar.set_style(style.expect("invariant: a valid template"));
    bar
}

/// Looks at both processes while a run goes on.
struct Watch<'p> {
    own: &'p Process,
    server: Option<&'p Process>,
    started: Instant,
    first: (Cpu, Cpu),
    last: (f64, Cpu, Cpu, u64),
    samples: Vec<Sample>,
}

impl<'p> Watch<'p> {
    fn new(own: &'p Process, server: Option<&'p Process>) -> Result<Self, Failure> {
        let first = (cpu(Some(own))?, cpu(server)?);
        let last = (0.0, first.0, first.1, 0);
        Ok(Self { own, server, started: Instant::now(), first, last, samples: Vec::new() })
    }

    /// What happened since the last look. A process that is gone is noticed by its clients.
    fn sample(&mut self, window: &Window) -> Option<&Sample> {
        let (own, server) = (cpu(Some(self.own)).ok()?, cpu(self.server).ok()?);
        let at = self.started.elapsed().as_secs_f64();
        let operations = window.operations + window.echoes;
        let (before, own_before, server_before, operations_before) = self.last;
        let seconds = (at - before).max(1e-6);
        self.last = (at, own, server, operations);
        self.samples.push(Sample {
            at,
            per_second: (operations - operations_before) as f64 / seconds,
            server_share: server.since(&server_before).total_ns() as f64 / 1e9 / seconds,
            generator_share: own.since(&own_before).total_ns() as f64 / 1e9 / seconds,
        });
        self.samples.last()
    }

    fn totals(&self) -> Result<(f64, Cpu, Cpu), Failure> {
        let seconds = self.started.elapsed().as_secs_f64();
        let own = cpu(Some(self.own))?.since(&self.first.0);
        Ok((seconds, own, cpu(self.server)?.since(&self.first.1)))
    }
}
