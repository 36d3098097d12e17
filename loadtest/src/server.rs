//! Servers that a command starts for itself, each on its own core, ended with the command.

use std::io::{BufRead, BufReader};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};

use crate::Failure;
use crate::measure::Process;
use crate::target::Target;

/// A server process and where it listens.
pub(crate) struct Server {
    /// None: somebody else has started it, and ends it.
    child: Option<Child>,
    pub(crate) target: Target,
    pub(crate) process: Process,
}

impl Server {
    /// Starts this very program with other arguments.
    pub(crate) fn ourselves(arguments: &[&str]) -> Result<Self, Failure> {
        let program = std::env::current_exe().map_err(Failure::io("find this program"))?;
        let mut command = Command::new(program);
        command.args(arguments);
        Self::start(command)
    }

    /// Starts a program that says `listening on URL` on its first line.
    pub(crate) fn start(mut command: Command) -> Result<Self, Failure> {
        command.stdin(Stdio::null()).stdout(Stdio::piped());
        crate::system::leave_with_us(&mut command);
        let mut child = command.spawn().map_err(Failure::io("start a server"))?;
        let mut line = String::new();
        let output = child.stdout.take().expect("invariant: piped above");
        let read = BufReader::new(output).read_line(&mut line);
        let url = line.trim().strip_prefix("listening on ");
        let started = match (read, url) {
            (Ok(_), Some(url)) => Target::parse(url).and_then(|target| {
                let process = Process::new(child.id()).map_err(Failure::io("read /proc"))?;
                Ok((target, process))
            }),
            (Err(error), _) => Err(Failure::io("hear from a server")(error)),
            (Ok(_), None) => Err(Failure::Server(format!("said {line:?} instead of its address"))),
        };
        match started {
            Ok((target, process)) => Ok(Self { child: Some(child), target, process }),
            Err(failure) => {
                let _ = child.kill();
                let _ = child.wait();
                Err(failure)
            }
        }
    }

    /// A server that runs already.
    pub(crate) fn running(url: &str, pid: u32) -> Result<Self, Failure> {
        let process = Process::new(pid).map_err(Failure::io("read /proc of the server"))?;
        Ok(Self { child: None, target: Target::parse(url)?, process })
    }
}

/// Lets a program start on one core.
pub(crate) fn on_core(command: &mut Command, core: usize) {
    // SAFETY: the closure makes one system call that is safe after fork.
    unsafe {
        command.pre_exec(move || {
            crate::system::pin(core).map_err(|_| std::io::Error::other("cannot pin"))
        });
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let Some(child) = &mut self.child else { return };
        // Servers of a measurement have nothing to save.
        let _ = child.kill();
        let _ = child.wait();
    }
}
