//! Runs `benches/instructions.rs` under valgrind and reads what gungraun says.

use std::env;
use std::ffi::OsString;
use std::process::{Command, Stdio};

use serde::Deserialize;

use crate::setting::answer;
use crate::{Failure, root};

/// Release code without link-time optimisation: see the root's Cargo.toml.
const PROFILE: &str = "counted";
/// Where tests/run installs gungraun's runner.
const RUNNER: &str = "target/tools/bin/gungraun-runner";

/// Every case, `group/case`, and its instructions, in the order of the bench.
pub(crate) fn of_every_case() -> Result<Vec<(String, u64)>, Failure> {
    let cargo = env::var_os("CARGO").unwrap_or_else(|| OsString::from("cargo"));
    let mut command = Command::new(cargo);
    command
        .current_dir(root())
        .args(["bench", "--locked", "--package", "stentor", "--features", "bench-internals"])
        .args(["--profile", PROFILE, "--bench", "instructions", "--"])
        .args(["--output-format=json", "--parallel=auto", "--callgrind-args=--cache-sim=no"])
        // Counts do not depend on addresses, and some containers forbid to fix them.
        .arg("--allow-aslr=yes")
        .stdout(Stdio::piped());
    // The runner refuses a bench of another version than its own.
    let installed = root().join(RUNNER);
    if env::var_os("GUNGRAUN_RUNNER").is_none() {
        if installed.exists() {
            command.env("GUNGRAUN_RUNNER", installed);
        } else {
            answer("gungraun-runner", &["--version"], "`tests/run setup` installs it")?;
        }
    }
    let name = "cargo bench --bench instructions";
    let output = command.output().map_err(|error| Failure::Start {
        command: name.to_owned(),
        error,
        hint: "install Rust from https://rustup.rs",
    })?;
    eprint!("{}", String::from_utf8_lossy(&output.stderr));
    if !output.status.success() {
        return Err(Failure::Command { command: name.to_owned(), status: output.status });
    }
    let counts = read(&String::from_utf8_lossy(&output.stdout))?;
    match counts.is_empty() {
        true => Err(Failure::Answer(format!("{name}: counted nothing"))),
        false => Ok(counts),
    }
}

/// The parts of gungraun's summary that hold the count. One summary per line and case.
#[derive(Debug, Deserialize)]
struct Summary {
    function_name: String,
    id: String,
    profiles: Vec<Profile>,
}

#[derive(Debug, Deserialize)]
struct Profile {
    data: Data,
}

#[derive(Debug, Deserialize)]
struct Data {
    total: Total,
}

#[derive(Debug, Deserialize)]
struct Total {
    metrics: Metrics,
}

#[derive(Debug, Deserialize)]
struct Metrics {
    /// Instructions read.
    #[serde(rename = "Ir")]
    instructions: Metric,
}

#[derive(Debug, Deserialize)]
struct Metric {
    values: Values,
}

/// `old` is of whatever run came before; it says nothing here.
#[derive(Debug, Deserialize)]
struct Values {
    new: u64,
}

fn read(output: &str) -> Result<Vec<(String, u64)>, Failure> {
    // gungraun tells other things on lines of their own.
    let lines = output.lines().filter(|line| line.starts_with('{'));
    let mut counts: Vec<(String, u64)> = Vec::new();
    for line in lines {
        let summary: Summary = serde_json::from_str(line)
            .map_err(|error| Failure::Answer(format!("gungraun's summary: {error}: {line}")))?;
        let case = format!("{}/{}", summary.function_name, summary.id);
        let [profile] = &summary.profiles[..] else {
            return Err(Failure::Answer(format!("{case}: one profile is expected")));
        };
        if counts.iter().any(|(counted, _)| *counted == case) {
            return Err(Failure::Answer(format!("{case}: counted twice")));
        }
        counts.push((case, profile.data.total.metrics.instructions.values.new));
    }
    Ok(counts)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(case: &str, values: &str) -> String {
        format!(
            "{{\"version\":\"7\",\"function_name\":\"websocket\",\"id\":\"{case}\",\
             \"profiles\":[{{\"tool\":\"Callgrind\",\"data\":{{\"parts\":[],\"total\":{{\
             \"metrics\":{{\"Ir\":{{\"values\":{values}}}}}}}}}}}]}}"
        )
    }

    #[test]
    fn a_count_is_that_of_the_new_run() {
        let first = line("decode", "{\"new\":388}");
        let second = line("encode", "{\"new\":114,\"old\":120}");
        let counts = read(&format!("{first}\nchatter\n{second}\n")).expect("two summaries");
        assert_eq!(
            counts,
            [("websocket/decode".to_owned(), 388), ("websocket/encode".to_owned(), 114)]
        );
    }

    #[test]
    fn what_cannot_be_read_is_no_pass() {
        assert!(read("{\"version\":\"8\"}").is_err(), "another format");
        assert!(read(&line("decode", "{\"old\":388}")).is_err(), "no new count");
        let once = line("decode", "{\"new\":388}");
        assert!(read(&format!("{once}\n{once}")).is_err(), "counted twice");
    }
}
