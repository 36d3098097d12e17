//! `loadtest compare-floor` and `loadtest compare`: contests with the floor, and with peers.

use std::path::PathBuf;
use std::process::Command;

use clap::{Args, ValueEnum};

use crate::Failure;
use crate::contest::{self, Case, Contest, Driver, Kind, Line, Rules};

#[derive(Debug, Args)]
pub(crate) struct Options {
    /// What is measured.
    #[arg(long, value_enum, default_value_t = Kind::Fanout)]
    kind: Kind,
    #[arg(long, default_value_t = 1_000)]
    clients: u32,
    /// Bytes of each message's text.
    #[arg(long, default_value_t = 64)]
    payload: usize,
    /// Messages outstanding; several values are measured one after the other.
    #[arg(long, value_delimiter = ',', default_values_t = [1, 16])]
    window: Vec<u32>,
    /// Drivers of stentor to measure.
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = [Driver::Uring])]
    driver: Vec<Driver>,
    /// Also measure the floor without coalescing and on epoll.
    #[arg(long)]
    all_floors: bool,
    #[command(flatten)]
    rules: Rules,
    /// Print one JSON object per line of the table.
    #[arg(long)]
    json: bool,
}

/// Servers that others have built, with the same contract.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Peer {
    /// socket.io on Node, with ws.
    Node,
    /// socketioxide on tokio and hyper.
    Socketioxide,
}

const PEERS: [Peer; 2] = [Peer::Node, Peer::Socketioxide];

#[derive(Debug, Args)]
pub(crate) struct PeerOptions {
    /// Peers to measure.
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = PEERS)]
    peers: Vec<Peer>,
    /// Where `peers/` of this crate is; they must have been built (see its README).
    #[arg(long, default_value = concat!(env!("CARGO_MANIFEST_DIR"), "/peers"))]
    peers_dir: PathBuf,
    #[command(flatten)]
    options: Options,
}

pub(crate) fn floor(options: &Options) -> Result<(), Failure> {
    run(options, |_| Ok(()))
}

pub(crate) fn peers(options: &PeerOptions) -> Result<(), Failure> {
    run(&options.options, |contest| {
        for peer in &options.peers {
            let (name, command) = peer.command(&options.peers_dir)?;
            contest.program(name, command)?;
        }
        Ok(())
    })
}

fn run(
    options: &Options,
    more: impl Fn(&mut Contest<'_>) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let Options { kind, clients, payload, .. } = *options;
    let first = options.window.first().copied().unwrap_or(1);
    if clients == 0 || options.window.contains(&0) {
        return Err(Failure::Usage("at least one client and one message outstanding".to_owned()));
    }
    let case = Case { kind, clients, payload, window: first };
    let mut contest = Contest::new(case, &options.rules);
    contest.floor("floor io_uring", "uring", "coalesced")?;
    if options.all_floors {
        contest.floor("floor io_uring, single sends", "uring", "single")?;
        contest.floor("floor epoll", "epoll", "coalesced")?;
        contest.floor("floor epoll, single sends", "epoll", "single")?;
    }
    for driver in &options.driver {
        contest.stentor(*driver)?;
    }
    more(&mut contest)?;
    contest.connect()?;
    for &window in &options.window {
        let lines = contest.measure(window)?;
        tell(options, &contest.case(), &lines)?;
        if crate::system::interrupted() {
            break;
        }
    }
    Ok(())
}

fn tell(options: &Options, case: &Case, lines: &[Line]) -> Result<(), Failure> {
    if !options.json {
        contest::print(case, &options.rules, lines);
        return Ok(());
    }
    for line in lines {
        let object = serde_json::json!({ "case": case, "result": line });
        println!("{object}");
    }
    Ok(())
}

impl Peer {
    fn command(self, dir: &std::path::Path) -> Result<(&'static str, Command), Failure> {
        let (name, program, arguments) = match self {
            Self::Node => {
                ("socket.io on Node", PathBuf::from("node"), vec![dir.join("node/server.mjs")])
            }
            Self::Socketioxide => {
                let built = dir.join("socketioxide/target/release/peer-socketioxide");
                ("socketioxide", built, Vec::new())
            }
        };
        let there = match self {
            Self::Node => dir.join("node/node_modules").exists(),
            Self::Socketioxide => program.exists(),
        };
        if !there {
            let how = dir.join("README.md");
            return Err(Failure::Usage(format!("{name} is not built: see {}", how.display())));
        }
        let mut command = Command::new(program);
        command.args(arguments).env("PORT", "0");
        Ok((name, command))
    }
}
