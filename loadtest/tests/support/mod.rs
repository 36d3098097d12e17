//! Servers for tests, and runs of the program against them.

#![allow(dead_code, reason = "no test file uses all of it")]

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Output, Stdio};

/// A server of this program, on a free port.
pub(crate) struct Server {
    pub(crate) child: Child,
    pub(crate) url: String,
}

impl Server {
    pub(crate) fn start(arguments: &[&str]) -> Self {
        let mut command = loadtest();
        command.args(arguments).args(["--port", "0"]).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let url = line.trim().strip_prefix("listening on ").unwrap().to_owned();
        Self { child, url }
    }

    /// Stentor with the contract, small.
    pub(crate) fn stentor() -> Self {
        Self::start(&["serve", "--quiet", "--shards", "1", "--driver", "mio"])
    }

    /// Runs a command against it and returns its JSON.
    pub(crate) fn run(&self, command: &[&str]) -> serde_json::Value {
        run(&[self], command)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

pub(crate) fn loadtest() -> Command {
    Command::new(env!("CARGO_BIN_EXE_loadtest"))
}

/// A short run of a command against some servers, and its JSON.
pub(crate) fn run(servers: &[&Server], command: &[&str]) -> serde_json::Value {
    let pids: Vec<_> = servers.iter().map(|server| server.child.id().to_string()).collect();
    let whom = servers.iter().zip(&pids);
    // These have no warm-up of that kind.
    let has_none = ["connect", "idle"].contains(&command[0]);
    let warmup = if has_none { &[][..] } else { &["--warmup", "0.05"] };
    let whom = whom.flat_map(|(server, pid)| ["--url", &server.url, "--pid", pid]);
    let output = loadtest()
        .args(command)
        .args(["--duration", "0.3", "--json"])
        .args(warmup)
        .args(whom)
        .output()
        .unwrap();
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {error}");
    serde_json::from_slice(&output.stdout).unwrap()
}

/// What a run that must fail says.
pub(crate) fn complaint(output: &Output) -> String {
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success(), "{said} {}", String::from_utf8_lossy(&output.stdout));
    said
}
