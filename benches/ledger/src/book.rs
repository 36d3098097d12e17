//! The file of budgets: one line per case, in tables by group, for eyes and hands.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::fs;
use std::path::Path;

use serde::Deserialize;

use crate::Failure;
use crate::judge::{SLACK_PERCENT, TOLERANCE_PERCENT};
use crate::setting::Setting;

/// What the file says.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Budgets {
    pub(crate) made_with: Setting,
    /// By `group/case`.
    pub(crate) cases: BTreeMap<String, u64>,
}

#[derive(Debug, Deserialize)]
struct Written {
    made_with: Setting,
    #[serde(flatten)]
    groups: BTreeMap<String, BTreeMap<String, u64>>,
}

impl Budgets {
    pub(crate) fn read(path: &Path) -> Result<Self, Failure> {
        let text = fs::read_to_string(path)
            .map_err(|error| Failure::File { path: path.to_owned(), error })?;
        Self::parse(&text).map_err(|reason| Failure::Format { path: path.to_owned(), reason })
    }

    fn parse(text: &str) -> Result<Self, String> {
        let written: Written = toml::from_str(text).map_err(|error| error.to_string())?;
        let mut cases = BTreeMap::new();
        for (group, budgets) in written.groups {
            for (case, budget) in budgets {
                cases.insert(format!("{group}/{case}"), budget);
            }
        }
        Ok(Self { made_with: written.made_with, cases })
    }

    pub(crate) fn write(
        path: &Path,
        made_with: &Setting,
        counts: &[(String, u64)],
    ) -> Result<(), Failure> {
        fs::write(path, text(made_with, counts))
            .map_err(|error| Failure::File { path: path.to_owned(), error })
    }
}

fn text(made_with: &Setting, counts: &[(String, u64)]) -> String {
    let mut text = format!(
        "# How many instructions each case of benches/cases takes. {TOLERANCE_PERCENT} % more fails \
         tests/run, {SLACK_PERCENT} % less is told.\n\
         #\n\
         #     cargo run -p ledger -- instructions            compares\n\
         #     cargo run -p ledger -- instructions --write    makes this file anew\n\
         #\n\
         # Lines may be changed by hand. A budget that goes up wants its reason in the commit.\n\
         #\n\
         # The counts are of the code that this compiler makes for this target, with this C\n\
         # library's memcpy, as this valgrind runs them on a CPU with AVX2. With others they\n\
         # differ, mostly by less than is tolerated, sometimes by more: every case is judged all\n\
         # the same, and what differs is told. What to do then: benches/README.md.\n\n"
    );
    let Setting { rustc, target, valgrind, libc } = made_with;
    let _ = writeln!(text, "[made_with]");
    for (name, value) in
        [("rustc", rustc), ("target", target), ("valgrind", valgrind), ("libc", libc)]
    {
        let _ = writeln!(text, "{name} = {value:?}");
    }
    let mut last = "";
    for (name, count) in counts {
        let (group, case) = name.split_once('/').unwrap_or(("other", name));
        if group != last {
            let _ = writeln!(text, "\n[{group}]");
            last = group;
        }
        let _ = writeln!(text, "{case} = {count}");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn setting() -> Setting {
        Setting {
            rustc: "rustc 1.95.0 (59807616e 2026-04-14)".to_owned(),
            target: "x86_64-unknown-linux-gnu".to_owned(),
            valgrind: "valgrind-3.19.0".to_owned(),
            libc: "ldd (Debian GLIBC 2.36-9) 2.36".to_owned(),
        }
    }

    #[test]
    fn what_is_written_is_read_again() {
        let counts = [("b/second", 20), ("b/first", 10), ("a/only", 3)];
        let counts = counts.map(|(case, count)| (case.to_owned(), count));
        let text = text(&setting(), &counts);
        let read = Budgets::parse(&text).expect("our own file");
        assert_eq!(read.made_with, setting());
        assert_eq!(read.cases, BTreeMap::from(counts));
    }

    #[test]
    fn groups_and_cases_keep_their_order() {
        let counts = [("b/z", 1), ("b/a", 2), ("a/c", 3)];
        let counts = counts.map(|(case, count)| (case.to_owned(), count));
        let text = text(&setting(), &counts);
        assert!(text.ends_with("\n[b]\nz = 1\na = 2\n\n[a]\nc = 3\n"), "{text}");
    }

    #[test]
    fn a_file_that_is_not_one_is_refused() {
        let text = text(&setting(), &[("a/b".to_owned(), 1)]);
        assert!(Budgets::parse(&text.replace("b = 1", "b = -1")).is_err(), "a negative budget");
        assert!(Budgets::parse(&text.replace("b = 1", "b = 1\nb = 2")).is_err(), "given twice");
        assert!(
            Budgets::parse(&text.replace("[made_with]", "[other]")).is_err(),
            "made with what?"
        );
        assert!(Budgets::parse("").is_err(), "nothing");
    }
}
