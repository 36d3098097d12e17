//! Servers that a command starts for itself, each on its own core, ended with the command.

use std::io::{BufRead, BufReader, Read};
use std::os::unix::process::CommandExt;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::mpsc::sync_channel;
use std::time::Duration;

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
        let output = child.stdout.take().expect("invariant: piped above");
        let started = address(output).and_then(|target| {
            let process = Process::new(child.id()).map_err(Failure::io("read /proc"))?;
            Ok((target, process))
        });
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
        let process = Process::new(pid).map_err(|error| Failure::Process(pid, error))?;
        Ok(Self { child: None, target: Target::parse(url)?, process })
    }
}

/// How long a server may take until it listens.
const PATIENCE: Duration = Duration::from_secs(30);
/// A first line is not longer.
const LINE_BYTES_MAX: u64 = 4_096;

/// What a server says on its first line. A thread reads on until the server's end: a program may
/// say more, and must not fail because nobody listens.
fn address(output: ChildStdout) -> Result<Target, Failure> {
    let (send, receive) = sync_channel(1);
    std::thread::spawn(move || {
        let mut output = BufReader::new(output);
        let mut line = String::new();
        let read = (&mut output).take(LINE_BYTES_MAX).read_line(&mut line);
        // Whoever asked may have lost its patience; what comes then is for nobody.
        let _ = send.send(read.map(|_| line));
        let _ = std::io::copy(&mut output, &mut std::io::sink());
    });
    let line = receive.recv_timeout(PATIENCE).map_err(|_| {
        Failure::Server(format!("has not said its address for {} s", PATIENCE.as_secs()))
    })?;
    let line = line.map_err(Failure::io("hear from a server"))?;
    match line.trim().strip_prefix("listening on ") {
        Some(url) => Target::parse(url),
        None => Err(Failure::Server(format!("said {line:?} instead of its address"))),
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

#[cfg(test)]
mod tests {
    use super::*;

    fn start(script: &str) -> Result<Server, Failure> {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        Server::start(command)
    }

    #[test]
    fn a_server_may_go_on_talking() {
        // It ends when it cannot say everything.
        let talk = "head -c 200000 /dev/zero && exec sleep 60";
        let script = format!("echo listening on http://127.0.0.1:1; {talk}");
        let mut server = start(&script).unwrap_or_else(|failure| panic!("{failure}"));
        assert_eq!(server.target.address.port(), 1);
        let name = format!("/proc/{}/comm", server.process.pid());
        let started = std::time::Instant::now();
        while std::fs::read_to_string(&name).is_ok_and(|name| name.trim() != "sleep") {
            assert!(started.elapsed() < Duration::from_secs(20), "it waits for a reader");
            std::thread::sleep(Duration::from_millis(10));
        }
        let child = server.child.as_mut().map(|child| child.try_wait());
        assert!(matches!(child, Some(Ok(None))), "it goes on: {child:?}");
    }

    #[test]
    fn a_server_that_says_something_else_is_none() {
        for script in ["echo hello; exec sleep 60", "true", "head -c 100000 /dev/zero"] {
            let failure = start(script).err().map(|failure| failure.to_string());
            assert!(failure.is_some_and(|why| why.contains("instead of its address")), "{script}");
        }
    }
}
