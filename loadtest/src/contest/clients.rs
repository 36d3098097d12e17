//! The clients of one contestant, in a process of their own.
//!
//! So each contestant may have as many clients as one process has descriptors, and none of them
//! is slower because another one's clients fill the same heap and the same caches. The contest
//! holds [`Clients`]; the process behind it is this program as `contest-clients`. They speak lines
//! of JSON: `null` when everybody is in, then a [`Round`] for each [`Order`].

use std::io::{self, BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::mpsc::{Receiver, TryRecvError, sync_channel};
use std::time::{Duration, Instant};

use clap::{Args, ValueEnum};
use serde::{Deserialize, Serialize};

use super::{Case, Kind, Round};
use crate::Failure;
use crate::load::{Load, Pace};
use crate::measure::Process;
use crate::runner::{cpu, ramp};
use crate::server::Server;
use crate::swarm::{Seat, Swarm, Transport};
use crate::system::leave_with_us;
use crate::target::Target;

/// What is to be measured next.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(super) struct Order {
    pub(super) pace: Pace,
    /// Before, not measured.
    pub(super) warmup_ms: u64,
    pub(super) slice_ms: u64,
}

/// The process, seen from the contest. It ends when this is dropped.
pub(super) struct Clients {
    child: Child,
    orders: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl Clients {
    /// Connects them, and returns when all are in.
    pub(super) fn connect(server: &Server, case: &Case, core: usize) -> Result<Self, Failure> {
        let program = std::env::current_exe().map_err(Failure::io("find this program"))?;
        let mut command = Command::new(program);
        command.arg("contest-clients").args(arguments(server, case, core));
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        leave_with_us(&mut command);
        let mut child = command.spawn().map_err(Failure::io("start the clients"))?;
        let orders = child.stdin.take().expect("invariant: piped above");
        let answers = BufReader::new(child.stdout.take().expect("invariant: piped above"));
        let mut clients = Self { child, orders, answers };
        clients.answer::<()>()?;
        Ok(clients)
    }

    pub(super) fn measure(&mut self, order: Order) -> Result<Round, Failure> {
        let line = serde_json::to_string(&order).map_err(Failure::server)? + "\n";
        // A process that is gone says why on its own; here its answer is missing.
        let _ = self.orders.write_all(line.as_bytes());
        self.answer()
    }

    fn answer<T: for<'a> Deserialize<'a>>(&mut self) -> Result<T, Failure> {
        let mut line = Vec::new();
        loop {
            // Ctrl-C interrupts the wait, too.
            let read = match self.answers.fill_buf() {
                _ if crate::system::interrupted() => return Err(Failure::Interrupted),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                read => read.map_err(Failure::io("hear from the clients"))?,
            };
            if read.is_empty() {
                let why = "its clients gave up (their reason stands above)";
                return Err(Failure::Server(why.to_owned()));
            }
            let (length, whole) = match memchr::memchr(b'\n', read) {
                Some(end) => (end + 1, true),
                None => (read.len(), false),
            };
            line.extend_from_slice(&read[..length]);
            self.answers.consume(length);
            if whole {
                return serde_json::from_slice(&line).map_err(Failure::server);
            }
        }
    }
}

impl Drop for Clients {
    fn drop(&mut self) {
        // Clients have nothing to save.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What the contest tells the process on its command line.
#[derive(Debug, Args)]
pub(crate) struct Options {
    #[arg(long)]
    url: String,
    #[arg(long)]
    pid: u32,
    #[arg(long)]
    core: usize,
    #[arg(long, value_enum)]
    kind: Kind,
    #[arg(long)]
    clients: u32,
    #[arg(long)]
    payload: usize,
    #[arg(long, value_enum)]
    transport: Transport,
}

fn arguments(server: &Server, case: &Case, core: usize) -> Vec<String> {
    let value = |value: &dyn std::fmt::Display| value.to_string();
    let name = |value: Option<clap::builder::PossibleValue>| {
        value.map_or_else(String::new, |value| value.get_name().to_owned())
    };
    [
        ("--url", server.target.url()),
        ("--pid", value(&server.process.pid())),
        ("--core", value(&core)),
        ("--kind", name(case.kind.to_possible_value())),
        ("--clients", value(&case.clients)),
        ("--payload", value(&case.payload)),
        ("--transport", name(case.transport.to_possible_value())),
    ]
    .into_iter()
    .flat_map(|(option, value)| [option.to_owned(), value])
    .collect()
}

/// The process itself.
pub(crate) fn run(options: &Options) -> Result<(), Failure> {
    let Options { clients, payload, .. } = *options;
    crate::system::pin(options.core)?;
    // Ctrl-C is for the contest to answer, which ends us.
    crate::runner::make_room(clients)?;
    // Any pace: each order brings its own.
    let plan = Case::websocket(options.kind, clients, payload).plan(Pace::Window(1));
    let seat = Seat { publishers: plan.publishers, ..Seat::default() };
    let targets = vec![Target::parse(&options.url)?];
    let mut swarm = Swarm::new(targets, seat, move |who| plan.rooms_of(who))?;
    swarm.transport = options.transport;
    let mut load = Load::new(plan);
    ramp(&mut swarm, clients, &mut load)?;
    let server = Process::new(options.pid).map_err(Failure::io("read /proc of the server"))?;
    let own = Process::itself().map_err(Failure::io("read /proc"))?;
    tell(&())?;
    let orders = orders();
    while let Some(order) = next_order(&orders, &mut swarm, &mut load)? {
        let round = measure(order, options.kind, &mut swarm, &mut load, (&server, &own))?;
        tell(&round)?;
    }
    Ok(())
}

/// One slice: a short warm-up, then the measurement.
fn measure(
    order: Order,
    kind: Kind,
    swarm: &mut Swarm,
    load: &mut Load,
    (server, own): (&Process, &Process),
) -> Result<Round, Failure> {
    match kind {
        Kind::Fanout => load.set_pace(Some(order.pace), None),
        Kind::Echo => load.set_pace(None, Some(order.pace)),
    }
    load.run(swarm, Duration::from_millis(order.warmup_ms), |_| {})?;
    let (before, own_before) = (cpu(Some(server))?, cpu(Some(own))?);
    let started = Instant::now();
    load.run(swarm, Duration::from_millis(order.slice_ms), |_| {})?;
    let seconds = started.elapsed().as_secs_f64();
    let cost = cpu(Some(server))?.since(&before);
    let generator_ns = cpu(Some(own))?.since(&own_before).process_ns;
    let window = std::mem::take(&mut load.window);
    Ok(Round {
        cost,
        operations: window.operations + window.echoes,
        reads: window.reads,
        seconds,
        generator_ns,
        latency: if window.echo.is_empty() { window.latency } else { window.echo },
        last: window.last,
    })
}

/// How often clients that wait for their turn look whether it has come.
const LOOK: Duration = Duration::from_millis(10);

/// The next order; meanwhile the clients answer heartbeats. None: there will be no more.
fn next_order(
    orders: &Receiver<Order>,
    swarm: &mut Swarm,
    load: &mut Load,
) -> Result<Option<Order>, Failure> {
    loop {
        match orders.try_recv() {
            Ok(order) => return Ok(Some(order)),
            Err(TryRecvError::Disconnected) => return Ok(None),
            Err(TryRecvError::Empty) => swarm.turn(Some(LOOK), load)?,
        }
    }
}

/// Reads orders on a thread, which ends with its input or at a line that is none.
fn orders() -> Receiver<Order> {
    let (send, receive) = sync_channel(1);
    std::thread::spawn(move || {
        let orders = io::stdin().lines().map_while(Result::ok);
        for order in orders.map_while(|line| serde_json::from_str(&line).ok()) {
            if send.send(order).is_err() {
                return;
            }
        }
    });
    receive
}

fn tell(answer: &impl Serialize) -> Result<(), Failure> {
    let line = serde_json::to_string(answer).map_err(Failure::server)?;
    let mut out = io::stdout().lock();
    writeln!(out, "{line}").and_then(|()| out.flush()).map_err(Failure::io("answer the contest"))
}
