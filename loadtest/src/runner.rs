//! One run against a server somebody else has started: connect, warm up, measure, tell.

use std::time::{Duration, Instant};

use clap::Args;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::Failure;
use crate::crew::{self, Crew};
use crate::load::Plan;
use crate::measure::{Cpu, Process};
use crate::report::{self, Generator, Output, Report, Sample, ServerCost};
use crate::swarm::{Swarm, Transport, Work};
use crate::target::Target;

/// What every command against a server takes.
#[derive(Debug, Clone, Args)]
pub(crate) struct Common {
    /// Where the server is. Repeated: several servers, clients go round among them, and each
    /// broadcast is published once to each.
    #[arg(long, default_value = "http://127.0.0.1:3000")]
    pub(crate) url: Vec<String>,
    /// The servers are one: what is published to the first reaches the clients of all.
    #[arg(long)]
    pub(crate) cluster: bool,
    /// How clients connect; those that publish always do by WebSocket.
    #[arg(long, value_enum, default_value_t = Transport::Websocket)]
    pub(crate) transport: Transport,
    /// Processes to divide the clients among; default as many as the descriptor limit needs.
    #[arg(long)]
    pub(crate) workers: Option<u32>,
    /// Seconds measured.
    #[arg(long, default_value_t = 5.0)]
    pub(crate) duration: f64,
    /// The server's process on this machine, for its CPU and memory. Repeated: their sum.
    #[arg(long)]
    pub(crate) pid: Vec<u32>,
    /// Pin the generator to this core.
    #[arg(long)]
    pub(crate) core: Option<usize>,
}

/// What every command takes besides that is one measured run.
#[derive(Debug, Clone, Args)]
pub(crate) struct Measured {
    #[command(flatten)]
    common: Common,
    /// Seconds before, not measured.
    #[arg(long, default_value_t = 1.0)]
    warmup: f64,
    #[command(flatten)]
    output: Output,
}

/// What stands ready before clients connect.
pub(crate) struct Setup {
    pub(crate) plan: Plan,
    pub(crate) crew: Crew,
    pub(crate) servers: Vec<Process>,
    pub(crate) duration: Duration,
}

const SERVERS_MAX: usize = 64;
/// A day: a run keeps a few samples of each second.
const SECONDS_MAX: f64 = 86_400.0;

fn seconds(value: f64) -> Result<Duration, Failure> {
    match Duration::try_from_secs_f64(value) {
        Ok(length) if value <= SECONDS_MAX => Ok(length),
        _ => Err(Failure::Usage(format!("between 0 and {SECONDS_MAX} seconds, not {value:e}"))),
    }
}

impl Common {
    /// Everything that is needed for a plan, checked and started.
    pub(crate) fn muster(&self, plan: Plan) -> Result<Setup, Failure> {
        let duration = seconds(self.duration)?;
        if self.url.len() > SERVERS_MAX {
            return Err(Failure::Usage(format!("more than {SERVERS_MAX} servers")));
        }
        let targets = self.url.iter().map(|url| Target::parse(url));
        let targets = targets.collect::<Result<Vec<_>, _>>()?;
        let plan = plan.among(targets.len() as u32, self.cluster);
        plan.check()?;
        if let Some(core) = self.core {
            crate::system::pin(core)?;
        }
        crate::system::catch_interrupts().map_err(Failure::io("catch Ctrl-C"))?;
        crew::check_ports(&targets, &plan, self.transport)?;
        let workers = crew::workers(&plan, self.transport, self.workers)?;
        let servers = watch_all(&self.pid)?;
        let crew = Crew::muster(targets, plan, self.transport, workers)?;
        Ok(Setup { plan, crew, servers, duration })
    }
}

/// Server processes that are looked at together. Kernel threads that work for several of them are
/// counted once.
fn watch_all(pids: &[u32]) -> Result<Vec<Process>, Failure> {
    let mut seen = Vec::new();
    let mut processes = Vec::new();
    for (index, &pid) in pids.iter().enumerate() {
        // One server by two names.
        if pids[..index].contains(&pid) {
            continue;
        }
        let mut process = Process::new(pid).map_err(|error| Failure::Process(pid, error))?;
        process.softirq.retain(|thread| !seen.contains(thread));
        seen.extend(&process.softirq);
        processes.push(process);
    }
    Ok(processes)
}

/// Room for the descriptors, and an ear for Ctrl-C.
pub(crate) fn prepare(clients: u32) -> Result<(), Failure> {
    crate::system::catch_interrupts().map_err(Failure::io("catch Ctrl-C"))?;
    make_room(clients)
}

/// Room for the descriptors.
pub(crate) fn make_room(clients: u32) -> Result<(), Failure> {
    let wanted = u64::from(clients) + 64;
    let limit = crate::system::raise_descriptors(wanted).map_err(Failure::io("read limits"))?;
    if limit < wanted {
        return Err(Failure::Descriptors { clients, limit });
    }
    Ok(())
}

/// Connects with a progress bar.
pub(crate) fn ramp(swarm: &mut Swarm, clients: u32, work: &mut impl Work) -> Result<(), Failure> {
    let bar = crew::progress_bar(clients);
    let grown = swarm.grow(clients, work, |ready| bar.set_position(ready.into()));
    bar.finish_and_clear();
    grown
}

/// CPU time now, of a process or of none.
pub(crate) fn cpu(process: Option<&Process>) -> Result<Cpu, Failure> {
    cpu_of(process.map_or(&[], std::slice::from_ref))
}

/// CPU time now, of all these together.
pub(crate) fn cpu_of(processes: &[Process]) -> Result<Cpu, Failure> {
    let mut sum = Cpu::default();
    for process in processes {
        let cpu = process.cpu().map_err(Failure::io("read the CPU time of a process"))?;
        sum.process_ns += cpu.process_ns;
        sum.softirq_ns += cpu.softirq_ns;
        sum.user_ns += cpu.user_ns;
        sum.system_ns += cpu.system_ns;
    }
    Ok(sum)
}

/// Private memory of all these together.
pub(crate) fn memory_of(processes: &[Process]) -> Result<u64, Failure> {
    let memory = |it: &Process| it.memory().map_err(Failure::io("read the memory of a process"));
    processes.iter().map(memory).sum()
}

/// How long clients listen after a run, when nothing may come any more.
const LATE: Duration = Duration::from_millis(50);

/// Runs a plan against the servers of `common`.
pub(crate) fn run(command: &'static str, plan: Plan, how: &Measured) -> Result<(), Failure> {
    let Measured { common, warmup, output } = how;
    let warmup = seconds(*warmup)?;
    output.check()?;
    let Setup { plan, mut crew, servers, duration } = common.muster(plan)?;
    let (base, ramping) = (memory_of(crew.processes())?, Instant::now());
    crew.ramp()?;
    let ramp_seconds = ramping.elapsed().as_secs_f64();
    crew.run(warmup, |_| {})?;
    if crate::system::interrupted() {
        return Err(Failure::InterruptedWarming);
    }

    let own = crew.processes().to_vec();
    let mut watch = Watch::new(&own, &servers)?;
    let live = live_line();
    crew.run(duration, |operations| {
        if let Some(sample) = watch.sample(operations) {
            live.set_message(sample.line());
        }
    })?;
    live.finish_and_clear();
    let (totals, memory) = (watch.totals(), memory_of(&own));
    // What came once too often may come late. A worker that saw it knows more than `/proc`, which
    // has lost that worker.
    crew.hold(LATE)?;
    let (Totals { seconds, used, shares }, memory) = (totals?, memory?);
    let window = crew.window();

    let operations = if plan.broadcast.is_some() { window.operations } else { window.echoes };
    let cost = match servers.is_empty() {
        true => None,
        false => Some(ServerCost::new(&used, operations, seconds, memory_of(&servers)?)),
    };
    let report = Report {
        interrupted: crate::system::interrupted(),
        transport: common.transport.name(),
        ramp_seconds,
        generator: Generator::new(shares, memory, memory.saturating_sub(base), plan.clients),
        server: cost,
        series: watch.samples,
        ..Report::new(command, &common.url.join(", "), &plan, seconds, window)
    };
    report::publish(&report, output)
}

/// The one line that lives while a run does.
pub(crate) fn live_line() -> ProgressBar {
    let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr_with_hz(5));
    let style = ProgressStyle::with_template("{spinner} {elapsed} {msg}");
    bar.set_style(style.expect("invariant: a valid template"));
    bar
}

/// Looks at the processes of both sides while a run goes on.
struct Watch<'p> {
    own: &'p [Process],
    servers: &'p [Process],
    started: Instant,
    first: (Vec<Cpu>, Cpu),
    last: (f64, Vec<Cpu>, Cpu, u64),
    samples: Vec<Sample>,
}

/// What a run took.
struct Totals {
    seconds: f64,
    /// CPU of the servers.
    used: Cpu,
    /// Cores that each process of the generator was busy on.
    shares: Vec<f64>,
}

impl<'p> Watch<'p> {
    fn new(own: &'p [Process], servers: &'p [Process]) -> Result<Self, Failure> {
        let first = (each(own)?, cpu_of(servers)?);
        let last = (0.0, first.0.clone(), first.1, 0);
        Ok(Self { own, servers, started: Instant::now(), first, last, samples: Vec::new() })
    }

    /// What happened since the last look. A process that is gone is noticed by its clients.
    fn sample(&mut self, operations: u64) -> Option<&Sample> {
        let (own, servers) = (each(self.own).ok()?, cpu_of(self.servers).ok()?);
        let at = self.started.elapsed().as_secs_f64();
        let (before, own_before, servers_before, operations_before) = &self.last;
        let seconds = (at - before).max(1e-6);
        self.samples.push(Sample {
            at,
            per_second: operations.saturating_sub(*operations_before) as f64 / seconds,
            server_share: servers.since(servers_before).total_ns() as f64 / 1e9 / seconds,
            generator_share: most(&shares(&own, own_before, seconds)),
        });
        self.last = (at, own, servers, operations);
        self.samples.last()
    }

    fn totals(&self) -> Result<Totals, Failure> {
        let seconds = self.started.elapsed().as_secs_f64();
        let shares = shares(&each(self.own)?, &self.first.0, seconds);
        Ok(Totals { seconds, used: cpu_of(self.servers)?.since(&self.first.1), shares })
    }
}

/// CPU time now, of each of these.
pub(crate) fn each(processes: &[Process]) -> Result<Vec<Cpu>, Failure> {
    processes.iter().map(|process| cpu(Some(process))).collect()
}

/// Cores that each process was busy on since an earlier look.
pub(crate) fn shares(now: &[Cpu], before: &[Cpu], seconds: f64) -> Vec<f64> {
    let pairs = now.iter().zip(before);
    pairs.map(|(now, before)| now.since(before).process_ns as f64 / 1e9 / seconds).collect()
}

fn most(shares: &[f64]) -> f64 {
    shares.iter().copied().fold(0.0, f64::max)
}
