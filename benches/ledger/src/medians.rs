//! Runs `benches/timings.rs` and sets criterion's medians beside those in the repository.
//!
//! criterion keeps its own baselines below `target/`, where nobody else sees them.

use std::collections::BTreeMap;
use std::env;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde::{Deserialize, Serialize};

use crate::setting::answer;
use crate::{Failure, root};

/// The file in the repository.
#[derive(Debug, Serialize, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
struct Baselines {
    date: String,
    machine: String,
    rustc: String,
    /// Nanoseconds per element, by `group/case`: per packet, event, member or delivery.
    median_ns: BTreeMap<String, f64>,
}

/// What of criterion's `benchmark.json` is of interest.
#[derive(Debug, Deserialize)]
struct Benchmark {
    full_id: String,
    throughput: Throughput,
}

#[derive(Debug, Deserialize)]
enum Throughput {
    Elements(u64),
}

/// What of its `estimates.json`.
#[derive(Debug, Deserialize)]
struct Estimates {
    median: Estimate,
}

#[derive(Debug, Deserialize)]
struct Estimate {
    point_estimate: f64,
}

pub(crate) fn run(write: bool) -> Result<(), Failure> {
    let path = root().join("benches/baselines.json");
    let before: Option<Baselines> = if write { None } else { Some(read_json(&path)?) };
    let median_ns = measure()?;
    let Some(before) = before else {
        let now = Baselines {
            date: answer("date", &["-u", "+%F"], "a date is wanted")?.trim().to_owned(),
            machine: machine()?,
            rustc: answer("rustc", &["-V"], "install Rust")?.trim().to_owned(),
            median_ns,
        };
        let count = now.median_ns.len();
        let text = serde_json::to_string_pretty(&now)
            .map_err(|error| Failure::Answer(error.to_string()))?;
        fs::write(&path, text + "\n")
            .map_err(|error| Failure::File { path: path.clone(), error })?;
        println!("{}: {count} baselines written", path.display());
        return Ok(());
    };
    println!("baselines of {}, {}, {}\n", before.date, before.machine, before.rustc);
    compare(&before.median_ns, &median_ns).iter().for_each(|line| println!("{line}"));
    Ok(())
}

/// Times every case, with nothing left of an earlier run.
fn measure() -> Result<BTreeMap<String, f64>, Failure> {
    let home = root().join("target/ledger/criterion");
    if home.exists() {
        fs::remove_dir_all(&home).map_err(|error| Failure::File { path: home.clone(), error })?;
    }
    let cargo = env::var_os("CARGO").unwrap_or_else(|| OsString::from("cargo"));
    let command = "cargo bench --bench timings";
    let status = Command::new(cargo)
        .current_dir(root())
        .env("CRITERION_HOME", &home)
        .args(["bench", "--locked", "--package", "stentor", "--features", "bench-internals"])
        .args(["--bench", "timings"])
        .status()
        .map_err(|error| Failure::Start {
            command: command.to_owned(),
            error,
            hint: "install Rust from https://rustup.rs",
        })?;
    if !status.success() {
        return Err(Failure::Command { command: command.to_owned(), status });
    }
    let mut medians = BTreeMap::new();
    for group in folders(&home)? {
        for case in folders(&group)? {
            let estimates = case.join("new/estimates.json");
            if !estimates.exists() {
                continue;
            }
            let Benchmark { full_id, throughput: Throughput::Elements(elements) } =
                read_json(&case.join("new/benchmark.json"))?;
            let Estimates { median } = read_json(&estimates)?;
            let ns = median.point_estimate / elements as f64;
            // More digits than a run can repeat would only move with each run.
            medians.insert(full_id, (ns * 100.0).round() / 100.0);
        }
    }
    match medians.is_empty() {
        true => Err(Failure::Answer(format!("{command}: measured nothing"))),
        false => Ok(medians),
    }
}

fn folders(path: &Path) -> Result<Vec<PathBuf>, Failure> {
    let failed = |error| Failure::File { path: path.to_owned(), error };
    let mut folders = Vec::new();
    for entry in fs::read_dir(path).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        if entry.file_type().map_err(failed)?.is_dir() {
            folders.push(entry.path());
        }
    }
    folders.sort();
    Ok(folders)
}

fn read_json<T: for<'de> Deserialize<'de>>(path: &Path) -> Result<T, Failure> {
    let text =
        fs::read_to_string(path).map_err(|error| Failure::File { path: path.to_owned(), error })?;
    serde_json::from_str(&text)
        .map_err(|error| Failure::Format { path: path.to_owned(), reason: error.to_string() })
}

/// The processor's name, how many of them, and the kernel.
fn machine() -> Result<String, Failure> {
    let path = PathBuf::from("/proc/cpuinfo");
    let text = fs::read_to_string(&path).map_err(|error| Failure::File { path, error })?;
    let value = |line: &str| line.split_once(':').map(|(_, value)| value.trim().to_owned());
    let name = text.lines().find(|line| line.starts_with("model name")).and_then(value);
    let cores = text.lines().filter(|line| line.starts_with("processor")).count();
    let kernel = answer("uname", &["-sr"], "a kernel is wanted")?;
    // Its release without what the distributor added.
    let kernel = kernel.split('-').next().unwrap_or_default();
    let name = name.unwrap_or_else(|| "a processor without a name".to_owned());
    Ok(format!("{name}, {cores} cores, {}", kernel.trim()))
}

/// One line per case of either list.
fn compare(before: &BTreeMap<String, f64>, now: &BTreeMap<String, f64>) -> Vec<String> {
    let mut lines = vec![format!("{:36} {:>12} {:>12} {:>7}", "ns", "baseline", "now", "ratio")];
    for (case, now) in now {
        lines.push(match before.get(case) {
            Some(before) => format!("{case:36} {before:12.2} {now:12.2} {:7.2}", now / before),
            None => format!("{case:36} {:>12} {now:12.2}     new", ""),
        });
    }
    for (case, before) in before.iter().filter(|(case, _)| !now.contains_key(*case)) {
        lines.push(format!("{case:36} {before:12.2} {:>12}    gone", ""));
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cases_stand_beside_their_baselines() {
        let before = BTreeMap::from([("a/kept".to_owned(), 10.0), ("a/old".to_owned(), 5.0)]);
        let now = BTreeMap::from([("a/kept".to_owned(), 15.0), ("a/new".to_owned(), 1.0)]);
        let lines = compare(&before, &now);
        assert_eq!(lines.len(), 4, "a head and three cases: {lines:?}");
        assert!(lines[1].starts_with("a/kept") && lines[1].ends_with("1.50"), "{lines:?}");
        assert!(lines[2].starts_with("a/new") && lines[2].ends_with("new"), "{lines:?}");
        assert!(lines[3].starts_with("a/old") && lines[3].ends_with("gone"), "{lines:?}");
    }

    #[test]
    fn criterion_s_files_are_understood() {
        let benchmark: Benchmark = serde_json::from_str(
            "{\"group_id\":\"fanout\",\"full_id\":\"fanout/room\",\"throughput\":{\"Elements\":1000}}",
        )
        .expect("as criterion writes it");
        let Throughput::Elements(elements) = benchmark.throughput;
        assert_eq!((benchmark.full_id.as_str(), elements), ("fanout/room", 1000));
        let estimates: Estimates = serde_json::from_str(
            "{\"mean\":{\"point_estimate\":3.0},\"median\":{\"point_estimate\":2.5}}",
        )
        .expect("as criterion writes it");
        assert!((estimates.median.point_estimate - 2.5).abs() < f64::EPSILON);
    }
}
