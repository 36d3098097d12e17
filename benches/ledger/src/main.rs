//! ledger: what stentor's benches came to before, and whether they still do.
//!
//! ```text
//! cargo run -p ledger -- instructions [--write]     counts against benches/budgets.toml
//! cargo run -p ledger -- timings [--write]          medians against benches/baselines.json
//! ```
//!
//! Instruction counts are judged: they are the same on every run. Times are only shown beside
//! what they were, because a machine of another day is another machine. `../README.md` tells how
//! to read both.

mod book;
mod counts;
mod judge;
mod medians;
mod setting;

use std::env;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::book::Budgets;
use crate::judge::{Verdict, is_broken, judge};
use crate::setting::Setting;

/// Compares stentor's benches with what they came to before.
#[derive(Debug, Parser)]
#[command(version, about)]
struct Options {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Counts the instructions of every case under valgrind and holds them against their budgets.
    Instructions {
        /// Make the counts of this run the budgets.
        #[arg(long)]
        write: bool,
        /// Budgets of this machine's own, where its compiler is another than the repository's.
        #[arg(long, value_name = "FILE", default_value_os_t = root().join("benches/budgets.toml"))]
        budgets: PathBuf,
    },
    /// Times every case with criterion and shows it beside its baseline. Minutes; wants quiet.
    Timings {
        /// Make the medians of this run the baselines.
        #[arg(long)]
        write: bool,
    },
}

/// Why there is nothing to compare.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    #[error("{path}: {error}")]
    File { path: PathBuf, error: std::io::Error },
    #[error("{path}: {reason}")]
    Format { path: PathBuf, reason: String },
    #[error("{command} cannot be run ({error}); {hint}")]
    Start { command: String, error: std::io::Error, hint: &'static str },
    #[error("{command} failed: {status}")]
    Command { command: String, status: std::process::ExitStatus },
    #[error("{0}")]
    Answer(String),
}

/// The package that is measured: that of the checkout `cargo run` was called in. What was true
/// when this was built is asked last, because a target folder may be shared or copied.
pub(crate) fn root() -> PathBuf {
    let own =
        env::var_os("CARGO_MANIFEST_DIR").unwrap_or_else(|| env!("CARGO_MANIFEST_DIR").into());
    let own = PathBuf::from(own);
    own.ancestors().nth(2).unwrap_or(&own).to_owned()
}

fn main() -> ExitCode {
    let outcome = match Options::parse().command {
        Command::Instructions { write, budgets } => instructions(write, &budgets),
        Command::Timings { write } => medians::run(write).map(|()| true),
    };
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(failure) => {
            eprintln!("ledger: {failure}");
            ExitCode::from(2)
        }
    }
}

/// Counts and judges; `false` when the budgets are broken.
fn instructions(write: bool, path: &Path) -> Result<bool, Failure> {
    let here = Setting::of_this_machine()?;
    // Before the minutes that the counting takes.
    let budgets = if write { None } else { Some(Budgets::read(path)?) };
    let counts = counts::of_every_case()?;
    let Some(budgets) = budgets else {
        Budgets::write(path, &here, &counts)?;
        println!("{}: {} budgets written", path.display(), counts.len());
        return Ok(true);
    };
    let verdicts = judge(&budgets.cases, &counts);
    for (case, verdict) in &verdicts {
        println!("{case:36} {verdict}");
    }
    let differences = here.differences(&budgets.made_with);
    if !differences.is_empty() {
        println!("\nNot what the budgets were made with, which moves counts by itself:");
        differences.iter().for_each(|difference| println!("  {difference}"));
        println!("benches/README.md tells how to judge a change here all the same.");
    }
    let all = verdicts.len();
    let lower = verdicts.iter().filter(|(_, verdict)| matches!(verdict, Verdict::Under { .. }));
    let (lower, path) = (lower.count(), path.display());
    if lower > 0 {
        println!("\n{lower} of {all} cases are well below: lower their budgets in {path}");
    }
    let broken = verdicts.iter().filter(|(_, verdict)| is_broken(verdict)).count();
    if broken > 0 {
        println!("\n{broken} of {all} cases break {path}");
        println!("What is meant to cost more gets a new budget, with the reason in the commit.");
    } else {
        println!("\n{all} cases keep to {path}");
    }
    Ok(broken == 0)
}
