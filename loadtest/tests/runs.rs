//! The program against its own servers: every driver and every floor, small and short.

#![allow(clippy::unwrap_used, reason = "a failed expectation is the verdict")]

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

struct Server {
    child: Child,
    url: String,
}

impl Server {
    fn start(arguments: &[&str]) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_loadtest"));
        command.args(arguments).args(["--port", "0"]).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let url = line.trim().strip_prefix("listening on ").unwrap().to_owned();
        Self { child, url }
    }

    /// Runs a command against it and returns its JSON.
    fn run(&self, command: &[&str]) -> serde_json::Value {
        let pid = self.child.id().to_string();
        let short = ["--duration", "0.3", "--warmup", "0.05", "--json", "--pid", &pid];
        let output = Command::new(env!("CARGO_BIN_EXE_loadtest"))
            .args(command)
            .args(short)
            .args(["--url", &self.url])
            .output()
            .unwrap();
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{command:?} on {}: {error}", self.url);
        serde_json::from_slice(&output.stdout).unwrap()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

const FANOUT: [&str; 5] = ["fanout", "--clients", "20", "--window", "4"];
const ECHO: [&str; 5] = ["echo", "--clients", "5", "--window", "4"];

fn is_allowed(io: &str) -> bool {
    // Containers forbid io_uring; the floor then has nothing to stand on.
    io != "uring" || io_uring::IoUring::new(8).is_ok()
}

#[test]
fn every_floor_keeps_the_contract() {
    for io in ["uring", "epoll"].into_iter().filter(|io| is_allowed(io)) {
        for sends in ["coalesced", "single"] {
            let floor = Server::start(&["floor", "--io", io, "--sends", sends]);
            assert!(floor.run(&FANOUT)["deliveries"].as_u64().unwrap() > 100);
            assert!(floor.run(&ECHO)["echoes"].as_u64().unwrap() > 100);
        }
    }
}

#[test]
fn stentor_keeps_the_contract_on_every_driver() {
    for driver in ["uring", "mio"].into_iter().filter(|driver| is_allowed(driver)) {
        let server = Server::start(&["serve", "--quiet", "--shards", "2", "--driver", driver]);
        assert!(server.run(&FANOUT)["deliveries"].as_u64().unwrap() > 100);
        assert!(server.run(&ECHO)["echoes"].as_u64().unwrap() > 100);
        let large = ["fanout", "--clients", "8", "--payload", "300000", "--window", "4"];
        assert!(server.run(&large)["deliveries"].as_u64().unwrap() > 0);
        let polling = ["fanout", "--clients", "20", "--transport", "polling", "--window", "4"];
        assert!(server.run(&polling)["deliveries"].as_u64().unwrap() > 100);
        let rooms = ["rooms", "--clients", "20", "--rooms", "3", "--rate", "100"];
        assert!(server.run(&rooms)["deliveries"].as_u64().unwrap() > 0);
        let churn = ["churn", "--clients", "10", "--rate", "50", "--churn", "100"];
        assert!(server.run(&churn)["connections"].as_u64().unwrap() > 10);
        let mixed = ["mixed", "--clients", "10", "--rooms", "2"];
        assert!(server.run(&mixed)["echoes"].as_u64().unwrap() > 100);
        let connect = ["connect", "--clients", "20"];
        assert!(server.run(&connect)["connections"].as_u64().unwrap() >= 20);
        assert!(server.run(&["idle", "--clients", "50"])["bytes_per_client"].is_number());
    }
}
