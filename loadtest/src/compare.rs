//! `loadtest compare-floor` and `loadtest compare`: contests with the floor, and with peers.

use std::path::PathBuf;
use std::process::Command;

use clap::{Args, ValueEnum};

use crate::Failure;
use crate::contest::{self, Case, Contest, Driver, Kind, Line, Rules};
use crate::floor::Io;
use crate::load::Pace;
use crate::swarm::Transport;

#[derive(Debug, Args)]
pub(crate) struct Options {
    /// What is measured.
    #[arg(long, value_enum, default_value_t = Kind::Fanout)]
    kind: Kind,
    /// Clients of each server; several values are measured one after the other.
    #[arg(long, value_delimiter = ',', default_values_t = [1_000])]
    clients: Vec<u32>,
    /// Bytes of each message's text; several values are measured one after the other.
    #[arg(long, value_delimiter = ',', default_values_t = [64])]
    payload: Vec<usize>,
    /// Measures all sizes in the same rounds, and compares each server with itself at the first.
    #[arg(long)]
    together: bool,
    /// Closed loop: messages outstanding; several values are measured one after the other.
    #[arg(long, value_delimiter = ',', default_values_t = [1, 16])]
    window: Vec<u32>,
    /// Open loop: broadcasts (or echoes) a second, the same for every server.
    #[arg(long, conflicts_with = "window")]
    rate: Option<f64>,
    /// Open loop at this share of what the slowest of the servers sustains, 16 outstanding.
    #[arg(long, conflicts_with_all = ["window", "rate"])]
    load: Option<f64>,
    /// Drivers of stentor to measure.
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = [Driver::Uring])]
    driver: Vec<Driver>,
    /// How stentor's clients connect; the floor's always by WebSocket.
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = [Transport::Websocket])]
    transport: Vec<Transport>,
    /// Shards of stentor, all of them on the servers' core.
    #[arg(long, value_delimiter = ',', default_values_t = [1])]
    shards: Vec<usize>,
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

/// Adds further servers to a size of a contest.
type More<'m> = dyn Fn(&mut Contest<'_>) -> Result<(), Failure> + 'm;

fn run(
    options: &Options,
    more: impl Fn(&mut Contest<'_>) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let (sizes, paces) = (options.sizes()?, options.paces()?);
    let contests: Vec<&[Case]> =
        if options.together { vec![&sizes] } else { sizes.chunks(1).collect() };
    for sizes in contests {
        hold(options, sizes, &paces, &more)?;
        if crate::system::interrupted() {
            break;
        }
    }
    Ok(())
}

/// One contest of the floor, stentor and whoever else, at some sizes.
fn hold(options: &Options, sizes: &[Case], paces: &[Pace], more: &More<'_>) -> Result<(), Failure> {
    let [first, others @ ..] = sizes else { return Ok(()) };
    let mut contest = Contest::new(&options.rules, *first);
    enter(options, &mut contest, more)?;
    for &case in others {
        contest.size(case);
        enter(options, &mut contest, more)?;
    }
    contest.connect()?;
    if let Some(share) = options.load {
        let rate = share * contest.sustained(SATURATING_WINDOW)?;
        let pace = Pace::Rate(rate);
        return tell(options, pace, sizes, &contest.measure(pace)?);
    }
    for &pace in paces {
        let lines = contest.measure(pace)?;
        tell(options, pace, sizes, &lines)?;
        if crate::system::interrupted() {
            break;
        }
    }
    Ok(())
}

/// What saturates a server without making it wait for the slowest client.
const SATURATING_WINDOW: u32 = 16;

fn enter(options: &Options, contest: &mut Contest<'_>, more: &More<'_>) -> Result<(), Failure> {
    contest.base()?;
    if options.all_floors {
        contest.floor("floor io_uring, single sends", "uring", "single")?;
        match options.rules.floor {
            Io::Uring => contest.floor("floor epoll", "epoll", "coalesced")?,
            Io::Epoll => contest.floor("floor io_uring", "uring", "coalesced")?,
        }
        contest.floor("floor epoll, single sends", "epoll", "single")?;
    }
    for &transport in &options.transport {
        for &shards in &options.shards {
            for &driver in &options.driver {
                contest.stentor(driver, shards, transport)?;
            }
        }
    }
    more(contest)
}

impl Options {
    fn sizes(&self) -> Result<Vec<Case>, Failure> {
        if self.clients.contains(&0) || self.shards.contains(&0) {
            return Err(Failure::Usage("at least one client and one shard".to_owned()));
        }
        let of = |&clients| {
            let payloads = self.payload.iter();
            payloads.map(move |&payload| Case::websocket(self.kind, clients, payload))
        };
        Ok(self.clients.iter().flat_map(of).collect())
    }

    fn paces(&self) -> Result<Vec<Pace>, Failure> {
        let positive = |value: f64| value.is_finite() && value > 0.0;
        match (self.rate, self.load) {
            (Some(rate), _) if !positive(rate) => {
                Err(Failure::Usage(format!("{rate} messages a second are no rate")))
            }
            (_, Some(load)) if !positive(load) || load > 1.0 => {
                Err(Failure::Usage(format!("{load} is no share between 0 and 1")))
            }
            (Some(rate), _) => Ok(vec![Pace::Rate(rate)]),
            _ if self.window.contains(&0) => {
                Err(Failure::Usage("at least one message outstanding".to_owned()))
            }
            _ => Ok(self.window.iter().map(|&window| Pace::Window(window)).collect()),
        }
    }
}

fn tell(options: &Options, pace: Pace, sizes: &[Case], lines: &[Line]) -> Result<(), Failure> {
    if !options.json {
        contest::print(pace, &options.rules, sizes, lines);
        return Ok(());
    }
    for line in lines {
        let object = serde_json::json!({ "case": sizes[line.group], "pace": pace, "result": line });
        say!("{object}");
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
