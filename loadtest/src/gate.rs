//! `loadtest gate`: fails when a server has become dearer in relation to the floor.
//!
//! What is kept and compared are ratios to the floor of the same machine and minute, so that a
//! baseline may come from another machine of the same kind. The file is JSON:
//!
//! ```json
//! { "version": 1, "cases": [ { "kind": "fanout", "clients": 1000, "payload": 64, "window": 1,
//!                              "ratio": 1.04 } ] }
//! ```

use std::fs;
use std::path::PathBuf;

use clap::Args;
use serde::{Deserialize, Serialize};

use crate::Failure;
use crate::contest::{self, Case, Contest, Driver, Kind, Line, Rules, Spread};
use crate::load::Pace;
use crate::swarm::Transport;

#[derive(Debug, Args)]
pub(crate) struct Options {
    /// The file with the ratios to hold.
    #[arg(long)]
    baseline: PathBuf,
    /// Write the file instead of comparing with it.
    #[arg(long)]
    write: bool,
    /// By how many percent a ratio may exceed its baseline.
    #[arg(long, default_value = "10%", value_parser = percent)]
    tolerance: f64,
    /// A server that runs already, instead of stentor; needs `--pid`.
    #[arg(long, requires = "pid")]
    url: Option<String>,
    /// The process of that server.
    #[arg(long, requires = "url")]
    pid: Option<u32>,
    /// Driver of stentor.
    #[arg(long, value_enum, default_value_t = Driver::Uring)]
    driver: Driver,
    #[command(flatten)]
    rules: Rules,
}

#[derive(Debug, Serialize, Deserialize)]
struct Baseline {
    version: u32,
    cases: Vec<Kept>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Kept {
    kind: Kind,
    clients: u32,
    payload: usize,
    window: u32,
    ratio: f64,
}

const VERSION: u32 = 1;

/// What a new baseline holds.
const CASES: [(Kind, u32, usize, u32); 5] = [
    (Kind::Fanout, 1_000, 64, 1),
    (Kind::Fanout, 1_000, 64, 16),
    (Kind::Fanout, 1_000, 1_024, 16),
    (Kind::Echo, 100, 64, 1),
    (Kind::Echo, 100, 64, 16),
];

fn percent(text: &str) -> Result<f64, String> {
    let number = text.trim_end_matches('%').parse::<f64>().map_err(|error| error.to_string())?;
    match number {
        number if number.is_finite() && (0.0..=1_000.0).contains(&number) => Ok(number),
        _ => Err("a tolerance between 0 % and 1000 %".to_owned()),
    }
}

pub(crate) fn run(options: &Options) -> Result<(), Failure> {
    if options.write {
        return write(options);
    }
    let text = fs::read_to_string(&options.baseline).map_err(Failure::io("read the baseline"))?;
    let bad = |why: String| Failure::Usage(format!("{}: {why}", options.baseline.display()));
    let baseline: Baseline = serde_json::from_str(&text).map_err(|error| bad(error.to_string()))?;
    if baseline.version != VERSION {
        return Err(bad(format!("version {} is not {VERSION}", baseline.version)));
    }
    if baseline.cases.is_empty() {
        return Err(bad("no cases, nothing to hold".to_owned()));
    }
    if let Some(kept) = baseline.cases.iter().find(|kept| !kept.is_sane()) {
        return Err(bad(format!("{}: counts and ratios are above 0", kept.name())));
    }
    let mut worse = Vec::new();
    for kept in &baseline.cases {
        let (mut line, mut moved) = kept.measure(options, options.rules.rounds)?;
        if verdict(moved, options.tolerance) == WORSE {
            // Noise or regression? Twice as many rounds decide.
            say!("{:55} {moved:+.1} %, measured again", kept.name());
            (line, moved) = kept.measure(options, options.rules.rounds * 2)?;
        }
        let verdict = verdict(moved, options.tolerance);
        let Spread { p10, median, p90 } = line.ratio;
        say!(
            "{:55} {:.3} -> {median:.3} ({p10:.2}..{p90:.2}) {moved:+.1} % {verdict}",
            kept.name(),
            kept.ratio
        );
        if verdict == WORSE {
            worse.push(kept.name());
        }
    }
    if worse.is_empty() { Ok(()) } else { Err(Failure::Regression(worse.join("; "))) }
}

/// Share of a core below which a process cannot have served what was received.
const SERVER_SHARE_LEAST: f64 = 1e-3;

/// Whether there is a cost to judge: nothing would hold every baseline.
fn check_cost(line: &Line) -> Result<(), Failure> {
    let Line { ratio: Spread { median, .. }, server_share, .. } = line;
    let is_cost = median.is_finite() && *median > 0.0 && *server_share >= SERVER_SHARE_LEAST;
    match is_cost {
        true => Ok(()),
        false => Err(Failure::Server(format!(
            "its process used {:.3} % of a core, which cannot be: is it the right --pid, and does \
             the kernel tell CPU times (/proc/PID/schedstat)?",
            server_share * 100.0
        ))),
    }
}

const WORSE: &str = "WORSE";

fn verdict(moved: f64, tolerance: f64) -> &'static str {
    match moved {
        moved if moved > tolerance => WORSE,
        moved if moved < -tolerance => "better: write a new baseline",
        _ => "held",
    }
}

fn write(options: &Options) -> Result<(), Failure> {
    crate::system::check_writable(&options.baseline).map_err(Failure::io("write the baseline"))?;
    let mut cases = Vec::new();
    for (kind, clients, payload, window) in CASES {
        let mut kept = Kept { kind, clients, payload, window, ratio: 1.0 };
        let (line, _) = kept.measure(options, options.rules.rounds)?;
        kept.ratio = (line.ratio.median * 1_000.0).round() / 1_000.0;
        say!("{:55} {:.3}", kept.name(), kept.ratio);
        cases.push(kept);
    }
    let baseline = Baseline { version: VERSION, cases };
    let text = serde_json::to_string_pretty(&baseline).map_err(Failure::server)?;
    fs::write(&options.baseline, text + "\n").map_err(Failure::io("write the baseline"))
}

impl Kept {
    fn is_sane(&self) -> bool {
        let counts = self.clients > 0 && self.payload > 0 && self.window > 0;
        counts && self.ratio.is_finite() && self.ratio > 0.0
    }

    fn case(&self) -> Case {
        Case::websocket(self.kind, self.clients, self.payload)
    }

    fn pace(&self) -> Pace {
        Pace::Window(self.window)
    }

    fn name(&self) -> String {
        self.case().name(self.pace())
    }

    /// The server's line of a contest with the floor, and by how many percent its ratio moved.
    fn measure(&self, options: &Options, rounds: u32) -> Result<(Line, f64), Failure> {
        let rules = Rules { rounds, ..options.rules.clone() };
        let mut contest = Contest::new(&rules, self.case());
        contest.base()?;
        match (&options.url, options.pid) {
            (Some(url), Some(pid)) => contest.running("server", url, pid)?,
            _ => contest.stentor(options.driver, 1, Transport::Websocket)?,
        }
        contest.connect()?;
        let mut lines = contest.measure(self.pace())?;
        if lines.iter().any(|line| line.generator_share > crate::report::SATURATED) {
            contest::print(self.pace(), &rules, &[self.case()], &lines);
        }
        let line = lines.pop().filter(|_| !crate::system::interrupted());
        let line = line.ok_or(Failure::Interrupted)?;
        check_cost(&line)?;
        let moved = (line.ratio.median / self.ratio - 1.0) * 100.0;
        Ok((line, moved))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tolerance_is_a_percentage() {
        assert_eq!(percent("10%"), Ok(10.0));
        assert_eq!(percent("2.5"), Ok(2.5));
        assert!(percent("-1").is_err() && percent("much").is_err());
    }

    #[test]
    fn only_what_exceeds_the_tolerance_is_worse() {
        assert_eq!(verdict(10.1, 10.0), "WORSE");
        assert_eq!(verdict(9.9, 10.0), "held");
        assert_eq!(verdict(-11.0, 10.0), "better: write a new baseline");
    }
}
