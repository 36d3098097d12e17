//! loadtest: what one delivered Socket.IO message really costs.
//!
//! A load generator for any Socket.IO server, the floor that the kernel sets under it, and a gate
//! that keeps what was reached. `CONTRACT.md` says which events a server must handle.

#[cfg(not(target_os = "linux"))]
compile_error!("loadtest reads /proc and speaks epoll and io_uring: it runs on Linux only");

/// As `println!`, which would panic when nobody reads any more.
macro_rules! say {
    ($($text:tt)+) => {{
        $crate::system::print(format_args!($($text)+));
        $crate::system::print(format_args!("\n"));
    }};
}

/// As `print!`.
macro_rules! say_some {
    ($($text:tt)+) => { $crate::system::print(format_args!($($text)+)) };
}

mod commands;
mod compare;
mod connect;
mod contest;
mod crew;
mod floor;
mod gate;
mod idle;
mod latency;
mod load;
mod measure;
mod report;
mod runner;
mod serve;
mod server;
mod swarm;
mod system;
mod target;
mod tour;
mod wire;
mod worker;

use std::io;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Load generator for Socket.IO servers, and the floor beneath them.
#[derive(Debug, Parser)]
#[command(version, about)]
struct Options {
    /// Without a command: a short tour on this machine.
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// One publisher, everybody receives.
    Fanout(commands::Fanout),
    /// Requests with acknowledgements.
    Echo(commands::Echo),
    /// Broadcasts to many rooms.
    Rooms(commands::Rooms),
    /// Broadcasts while clients come and go.
    Churn(commands::Churn),
    /// Broadcasts, requests, and clients that come and go, all at once.
    Mixed(commands::Mixed),
    /// What a connection costs, Socket.IO handshake included.
    Connect(connect::Options),
    /// What a client costs that does nothing: memory, and CPU for heartbeats.
    Idle(idle::Options),
    /// Stentor and the floor in turns: what stentor adds to the kernel's own cost.
    CompareFloor(compare::Options),
    /// The same with other Socket.IO servers (see peers/README.md).
    Compare(compare::PeerOptions),
    /// Compares with a baseline and fails on a regression.
    Gate(gate::Options),
    /// The clients of one server in a contest, told what to do on standard input.
    #[command(hide = true)]
    ContestClients(contest::clients::Options),
    /// Run stentor with the contract.
    Serve(serve::Serve),
    /// Run the floor: a bare sender without a protocol, with the contract's outside.
    Floor(floor::Options),
    /// Some of the clients of a run; started by the other commands.
    #[command(hide = true)]
    Worker,
}

/// Why a run did not end well.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error("{0}")]
    Usage(String),
    #[error("cannot {0}: {1}")]
    Io(&'static str, #[source] io::Error),
    #[error("cannot reach {0}: {1}")]
    Unreachable(std::net::SocketAddr, #[source] io::Error),
    #[error("cannot read /proc of process {0}, the server's: {1}")]
    Process(u32, #[source] io::Error),
    #[error("the server: {0}")]
    Server(String),
    #[error("the server broke the contract: {0}")]
    Protocol(String),
    #[error("messages were lost: {0}")]
    Lost(String),
    #[error(
        "{clients} clients need as many descriptors, and this process may open {limit}: \
         raise the hard limit (ulimit -Hn, or LimitNOFILE of the service)"
    )]
    Descriptors { clients: u32, limit: u64 },
    #[error("no descriptors are left after {0} clients: raise the limit (ulimit -n)")]
    DescriptorsAt(u32),
    #[error("the whole system has no descriptors left after {0} clients: raise fs.file-max")]
    SystemDescriptorsAt(u32),
    #[error(
        "{clients} clients do not fit into {workers} processes that may open {limit} descriptors \
         each, {needed} in all are needed and about {possible} clients are possible: raise the \
         hard limit (ulimit -Hn, or LimitNOFILE of the service){hint}"
    )]
    Workers { clients: u32, workers: u32, limit: u64, needed: u64, possible: u64, hint: String },
    #[error(
        "{clients} clients of {server} need as many source ports, and there are {ports}: only a \
         server on 127.0.0.0/8 is reached from more than one address. About {possible} clients \
         are possible: widen net.ipv4.ip_local_port_range, or give more servers (--url)"
    )]
    Ports { clients: u64, server: std::net::SocketAddr, ports: u32, possible: u64 },
    #[error(
        "no source port is left after {0} connections: those that were closed stay taken for a \
         minute, so wait, or widen net.ipv4.ip_local_port_range"
    )]
    PortsAt(u32),
    #[error("worker {number} (process {pid}) has failed: {why}")]
    Worker { number: usize, pid: u32, why: String },
    #[error("the command that this worker belongs to is gone")]
    Leaderless,
    #[error("the server falls behind the rate: {0} messages are outstanding")]
    Behind(usize),
    #[error("worse than the baseline: {0}")]
    Regression(String),
    #[error("interrupted")]
    Interrupted,
    #[error("interrupted when {ready} of {clients} clients were in: there are no results yet")]
    InterruptedAt { ready: u32, clients: u32 },
    #[error("interrupted in the warm-up: there are no results yet")]
    InterruptedWarming,
}

impl Failure {
    fn io(what: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |error| Self::Io(what, error)
    }

    /// 1 is a gate's verdict; whatever kept a run from ending well is 2, as wrong options are.
    fn exit_code(&self) -> ExitCode {
        match self {
            Self::Regression(_) => ExitCode::from(1),
            _ => ExitCode::from(2),
        }
    }

    fn server(error: impl std::fmt::Display) -> Self {
        Self::Server(error.to_string())
    }
}

fn main() -> ExitCode {
    let options = Options::parse();
    let outcome = match &options.command {
        None => tour::run(),
        Some(command) => run(command),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("loadtest: {failure}");
            failure.exit_code()
        }
    }
}

fn run(command: &Command) -> Result<(), Failure> {
    match command {
        Command::Fanout(options) => commands::fanout(options),
        Command::Echo(options) => commands::echo(options),
        Command::Rooms(options) => commands::rooms(options),
        Command::Churn(options) => commands::churn(options),
        Command::Mixed(options) => commands::mixed(options),
        Command::Connect(options) => connect::run(options),
        Command::Idle(options) => idle::run(options),
        Command::CompareFloor(options) => compare::floor(options),
        Command::Compare(options) => compare::peers(options),
        Command::Gate(options) => gate::run(options),
        Command::ContestClients(options) => contest::clients::run(options),
        Command::Serve(options) => serve::run(options),
        Command::Floor(options) => floor::run(options),
        Command::Worker => worker::run(),
    }
}
