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

/// A server that the user names.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Program {
    name: String,
    command: String,
}

impl Program {
    fn parse(text: &str) -> Result<Self, String> {
        match text.split_once('=') {
            Some((name, command)) if !name.is_empty() && !command.trim().is_empty() => {
                Ok(Self { name: name.to_owned(), command: command.to_owned() })
            }
            _ => Err("expected NAME=COMMAND".to_owned()),
        }
    }

    /// `exec`: the process that is measured, pinned and ended is the program, not its shell.
    fn command(&self) -> Command {
        let mut command = Command::new("sh");
        command.arg("-c").arg(format!("exec {}", self.command)).env("PORT", "0");
        command
    }
}

#[derive(Debug, Args)]
pub(crate) struct PeerOptions {
    /// Peers to measure; without this, all of them, or none if there is a --program.
    #[arg(long, value_enum, value_delimiter = ',')]
    peers: Option<Vec<Peer>>,
    /// A server of the contract to measure beside them, as NAME=COMMAND; may be given repeatedly.
    /// A shell splits the command, which takes its port from PORT.
    #[arg(long, value_name = "NAME=COMMAND", value_parser = Program::parse)]
    program: Vec<Program>,
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
        let peers = match &options.peers {
            Some(peers) => peers.as_slice(),
            None if options.program.is_empty() => &PEERS,
            None => &[],
        };
        for peer in peers {
            let (name, command) = peer.command(&options.peers_dir)?;
            contest.program(name, command)?;
        }
        for program in &options.program {
            contest.program(&program.name, program.command())?;
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_is_a_name_and_a_command() {
        let program = Program::parse("mine=./server --mode=fast 'a b'").unwrap();
        assert_eq!(program.name, "mine");
        assert_eq!(program.command, "./server --mode=fast 'a b'");
        for wrong in ["", "mine", "=server", "mine=", "mine= "] {
            assert!(Program::parse(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn a_program_gets_its_arguments_and_a_port_and_keeps_no_shell_around_it() {
        let command = "sh -c 'echo $$ $PORT $1' sh \"a b\"".to_owned();
        let mut command = Program { name: "mine".to_owned(), command }.command();
        let child = command.stdout(std::process::Stdio::piped()).spawn().unwrap();
        let id = child.id();
        let output = child.wait_with_output().unwrap();
        assert_eq!(String::from_utf8(output.stdout).unwrap(), format!("{id} 0 a b\n"));
    }
}
