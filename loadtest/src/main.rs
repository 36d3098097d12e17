//! loadtest: what one delivered Socket.IO message really costs.
//!
//! A load generator for any Socket.IO server, the floor that the kernel sets under it, and a gate
//! that keeps what was reached. `CONTRACT.md` says which events a server must handle.

#[cfg(not(target_os = "linux"))]
compile_error!("loadtest reads /proc and speaks epoll and io_uring: it runs on Linux only");

mod broadcasts;
mod compare;
mod fanout;
mod floor;
mod latency;
mod measure;
mod serve;
mod server;
mod swarm;
mod system;
mod target;
mod wire;

use std::io;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

// The servers started from here are measured: they get the allocator that the examples have.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Load generator for Socket.IO servers, and the floor beneath them.
#[derive(Debug, Parser)]
#[command(version, about)]
struct Options {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run stentor with the contract.
    Serve(serve::Serve),
    /// Run the floor: a bare sender without a protocol, with the contract's outside.
    Floor(floor::Options),
    /// One publisher, everybody receives.
    Fanout(fanout::Options),
    /// Stentor and the floor in turns: what stentor adds to the kernel's own cost.
    CompareFloor(compare::Options),
}

/// Why a run did not end well.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error("{0}")]
    Usage(String),
    #[error("cannot {0}: {1}")]
    Io(&'static str, #[source] io::Error),
    #[error("the server: {0}")]
    Server(String),
    #[error("the server broke the contract: {0}")]
    Protocol(String),
    #[error("messages were lost: {0}")]
    Lost(String),
    #[error(
        "no descriptors are left after {0} clients: raise the limit (ulimit -n) or use more workers"
    )]
    Descriptors(u32),
    #[error("interrupted")]
    Interrupted,
}

impl Failure {
    fn io(what: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |error| Self::Io(what, error)
    }

    fn server(error: impl std::fmt::Display) -> Self {
        Self::Server(error.to_string())
    }
}

fn main() -> ExitCode {
    let options = Options::parse();
    let outcome = match &options.command {
        Command::Serve(serve) => {
            tracing_subscriber::fmt().with_writer(io::stderr).init();
            serve::run(serve)
        }
        Command::Floor(floor) => floor::run(floor),
        Command::Fanout(fanout) => fanout::run(fanout),
        Command::CompareFloor(compare) => compare::run(compare),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("loadtest: {failure}");
            ExitCode::FAILURE
        }
    }
}
