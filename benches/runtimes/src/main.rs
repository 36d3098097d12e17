//! One minimal fan-out server, on one runtime or another.
//!
//! ```text
//! runtimes tokio | tokio-lean | monoio | tokio-uring | driver-uring | driver-mio
//! ```
//!
//! All of them run on one thread and look the same from outside (`contract`), which is how the
//! floor of loadtest looks too; `loadtest compare --program` measures them beside it. So what
//! differs is the core: how bytes come from the kernel and how they go back. None knows more of
//! Socket.IO than that takes. README.md says what each of them is for.

#[cfg(not(target_os = "linux"))]
compile_error!("monoio's and tokio-uring's rings are Linux's");

mod channels;
mod contract;
mod driver;
mod monoio_tasks;
mod tokio_lean;
mod tokio_tasks;
mod tokio_uring_tasks;

use std::io::{self, Write};
use std::process::ExitCode;

use clap::{Parser, ValueEnum};

/// Connections that the kernel may hold for us before they are accepted.
const BACKLOG: u32 = 4096;

#[derive(Debug, Parser)]
#[command(about = "A minimal fan-out server on one runtime or another")]
struct Options {
    #[arg(value_enum)]
    runtime: Runtime,
    /// Port to listen on; 0 takes a free one.
    #[arg(long, env = "PORT", default_value_t = 3002)]
    port: u16,
    /// Pin the server to this core.
    #[arg(long)]
    core: Option<usize>,
    /// How a connection's task writes what is queued for it.
    #[arg(long, value_enum, default_value_t = Sends::Coalesced)]
    sends: Sends,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Runtime {
    /// tokio as it is written everywhere: two tasks and a channel per connection.
    Tokio,
    /// tokio as far as it goes: readiness, one shared buffer, try_write in a loop once per turn.
    TokioLean,
    /// monoio: two tasks and a channel per connection.
    Monoio,
    /// tokio-uring: two tasks and a channel per connection.
    TokioUring,
    /// Stentor's driver over io_uring.
    DriverUring,
    /// Stentor's driver over readiness.
    DriverMio,
}

/// What the writing tasks do; the lean server and the drivers always coalesce.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Sends {
    /// One write for each broadcast.
    Single,
    /// One write for all that is queued.
    Coalesced,
}

fn main() -> ExitCode {
    let options = Options::parse();
    match serve(&options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("runtimes: {error}");
            ExitCode::FAILURE
        }
    }
}

fn serve(options: &Options) -> io::Result<()> {
    if let Some(id) = options.core
        && !core_affinity::set_for_current(core_affinity::CoreId { id })
    {
        return Err(io::Error::other(format!("cannot run on core {id}")));
    }
    stentor::bench::raise_descriptor_limit();
    let listener = stentor::bench::listen(options.port, BACKLOG)?;
    println!("listening on http://{}", listener.local_addr()?);
    io::stdout().flush()?;
    match options.runtime {
        Runtime::Tokio => tokio_tasks::serve(listener, options.sends),
        Runtime::TokioLean => tokio_lean::serve(listener),
        Runtime::Monoio => monoio_tasks::serve(listener, options.sends),
        Runtime::TokioUring => tokio_uring_tasks::serve(listener, options.sends),
        Runtime::DriverUring => driver::serve(listener, driver::Kind::Uring),
        Runtime::DriverMio => driver::serve(listener, driver::Kind::Readiness),
    }
}
