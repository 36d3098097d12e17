//! What counts depend on besides the source: compiler, target, valgrind, C library.

use std::process::Command;

use serde::{Deserialize, Serialize};

use crate::Failure;

/// Versions as their programs tell them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Setting {
    pub(crate) rustc: String,
    pub(crate) target: String,
    pub(crate) valgrind: String,
    pub(crate) libc: String,
}

impl Setting {
    pub(crate) fn of_this_machine() -> Result<Self, Failure> {
        let rustc = answer("rustc", &["-vV"], "install Rust from https://rustup.rs")?;
        let field = |name: &str| {
            let value = rustc.lines().find_map(|line| line.strip_prefix(name));
            value.map(str::to_owned).ok_or_else(|| Failure::Answer(format!("rustc -vV: no {name}")))
        };
        let valgrind = answer("valgrind", &["--version"], "install the package valgrind")?;
        let libc = answer("ldd", &["--version"], "it belongs to the C library")?;
        Ok(Self {
            rustc: rustc.lines().next().unwrap_or_default().to_owned(),
            target: field("host: ")?,
            valgrind: valgrind.trim().to_owned(),
            libc: libc.lines().next().unwrap_or_default().to_owned(),
        })
    }

    /// In what this setting is another than `other`, one line each.
    pub(crate) fn differences(&self, other: &Self) -> Vec<String> {
        let pairs = [
            ("rustc", &self.rustc, &other.rustc),
            ("target", &self.target, &other.target),
            ("valgrind", &self.valgrind, &other.valgrind),
            ("libc", &self.libc, &other.libc),
        ];
        pairs
            .into_iter()
            .filter(|(_, here, there)| here != there)
            .map(|(name, here, there)| format!("{name}: {here}, the budgets {there}"))
            .collect()
    }
}

/// What a program prints.
pub(crate) fn answer(program: &str, args: &[&str], hint: &'static str) -> Result<String, Failure> {
    let command = || format!("{program} {}", args.join(" "));
    let output = Command::new(program).args(args).output().map_err(|error| Failure::Start {
        command: command(),
        error,
        hint,
    })?;
    if !output.status.success() {
        return Err(Failure::Command { command: command(), status: output.status });
    }
    String::from_utf8(output.stdout).map_err(|error| Failure::Answer(format!("{program}: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_differs_is_told() {
        let setting = Setting {
            rustc: "rustc 1.95.0".to_owned(),
            target: "x86_64-unknown-linux-gnu".to_owned(),
            valgrind: "valgrind-3.19.0".to_owned(),
            libc: "ldd 2.36".to_owned(),
        };
        assert_eq!(setting.differences(&setting), Vec::<String>::new());
        let other = Setting { rustc: "rustc 1.96.0".to_owned(), ..setting.clone() };
        assert_eq!(other.differences(&setting), ["rustc: rustc 1.96.0, the budgets rustc 1.95.0"]);
    }
}
