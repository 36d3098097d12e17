//! The rules of the house that a machine can check, by reading the source.
//!
//! Layers import only what stands below them, pure layers stay pure, files keep a size that one
//! can read, names mean something, and the documents name what is there. A rule that is in the
//! way may be changed, here, with a reason.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};

use regex::Regex;

/// A ratchet: the longest file there is, rounded up. It may be lowered.
const FILE_LINES_MAX: usize = 900;
const COLUMNS_MAX: usize = 100;
/// How far above an `unsafe` its reason may begin.
const SAFETY_LINES_MAX: usize = 12;

/// What each layer may import, besides itself.
const LAYERS: [(&str, &[&str]); 8] = [
    ("memory", &[]),
    ("protocol", &[]),
    ("wire", &["protocol"]),
    ("session", &["memory", "protocol", "wire"]),
    ("socket", &["memory", "protocol", "wire"]),
    ("io", &[]),
    ("shard", &["memory", "protocol", "wire", "session", "socket", "io"]),
    ("server", &["memory", "protocol", "wire", "session", "socket", "io", "shard"]),
];

/// Layers that read no clock, open no descriptor, spawn, lock and await nothing.
const PURE: [&str; 5] = ["memory", "protocol", "wire", "session", "socket"];
const IMPURE: [&str; 4] = [
    r"\b(tokio|mio|io_uring|libc|socket2|Instant|SystemTime)\b",
    r"\b(Mutex|RwLock|Condvar|mpsc|oneshot)\b",
    r"\basync\b|\.await\b",
    r"\bstd::(net|fs|thread|os|process)\b",
];

/// Names that say nothing.
const BANNED_NAMES: [&str; 8] =
    ["manager", "util", "utils", "helper", "helpers", "common", "misc", "handler2"];

struct Source {
    /// From the package's folder, with `/`.
    path: String,
    text: String,
    /// The text without comments and the contents of strings, line by line.
    code: Vec<String>,
    /// The first line of an inline test module, or the number of lines.
    tests_at: usize,
    is_test: bool,
}

impl Source {
    fn layer(&self) -> Option<&str> {
        self.path.strip_prefix("src/")?.split_once('/').map(|(layer, _)| layer)
    }

    /// Lines that are no test's, numbered from 1.
    fn product(&self) -> impl Iterator<Item = (usize, &str)> {
        let end = if self.is_test { 0 } else { self.tests_at };
        self.code[..end].iter().enumerate().map(|(at, line)| (at + 1, line.as_str()))
    }

    /// How many modules deep the file is below the crate's root.
    fn depth(&self) -> usize {
        let below = self.path.trim_start_matches("src/").trim_end_matches(".rs");
        let names = below.split('/').filter(|name| !["mod", "lib"].contains(name));
        names.count()
    }
}

fn package() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn collect(folder: &Path, found: &mut Vec<PathBuf>) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    for entry in entries {
        let path = entry.expect("a readable entry").path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        if path.is_dir() {
            if !name.starts_with('.') && !["node_modules", "target", "out"].contains(&name) {
                collect(&path, found);
            }
        } else if name.ends_with(".rs") {
            found.push(path);
        }
    }
}

fn sources(folders: &[&str]) -> Vec<Source> {
    let mut paths = Vec::new();
    folders.iter().for_each(|folder| collect(&package().join(folder), &mut paths));
    paths.sort();
    let read = |path: PathBuf| {
        let text = fs::read_to_string(&path).expect("a source is text");
        let path = path.strip_prefix(package()).expect("below the package").to_string_lossy();
        let path = path.replace('\\', "/");
        let code: Vec<String> = strip(&text).lines().map(str::to_owned).collect();
        let inline = code
            .windows(2)
            .position(|two| two[0].trim() == "#[cfg(test)]" && two[1].starts_with("mod tests {"));
        let is_test = !path.starts_with("src/");
        Source { tests_at: inline.unwrap_or(code.len()), path, text, code, is_test }
    };
    let mut all: Vec<Source> = paths.into_iter().map(read).collect();
    let tests = test_modules(&all);
    for source in &mut all {
        source.is_test |= tests.iter().any(|module| {
            let rest = source.path.strip_prefix(module.as_str());
            rest.is_some_and(|rest| rest == ".rs" || rest.starts_with('/'))
        });
    }
    all
}

/// Where a module's own modules live.
fn folder_of(path: &str) -> &str {
    let folder = path.trim_end_matches("/mod.rs").trim_end_matches("/lib.rs");
    folder.trim_end_matches(".rs")
}

/// Modules that are compiled for tests only.
fn test_modules(all: &[Source]) -> Vec<String> {
    let declared = r"#\[cfg\(test\)\]\s*(?:#\[[^\]]*\]\s*)*(?:pub(?:\(\w+\))? )?mod (\w+);";
    let declared = Regex::new(declared).expect("valid");
    let mut modules = Vec::new();
    for source in all {
        for found in declared.captures_iter(&source.code.join("\n")) {
            modules.push(format!("{}/{}", folder_of(&source.path), &found[1]));
        }
    }
    modules
}

/// Removes comments and the contents of strings; lines stay where they are.
fn strip(text: &str) -> String {
    let mut code = String::with_capacity(text.len());
    let bytes: Vec<char> = text.chars().collect();
    let mut at = 0;
    while at < bytes.len() {
        let rest = &bytes[at..];
        if rest.starts_with(&['/', '/']) {
            at += rest.iter().position(|&c| c == '\n').unwrap_or(rest.len());
        } else if let Some(len) = raw_string(&bytes, at).or_else(|| string(rest)) {
            code.push('"');
            code.extend(rest[..len].iter().filter(|&&c| c == '\n'));
            code.push('"');
            at += len;
        } else if let Some(len) = character(rest) {
            code.push_str("' '");
            at += len;
        } else {
            code.push(rest[0]);
            at += 1;
        }
    }
    code
}

fn string(rest: &[char]) -> Option<usize> {
    (rest[0] == '"').then_some(())?;
    let mut at = 1;
    while at < rest.len() && rest[at] != '"' {
        at += if rest[at] == '\\' { 2 } else { 1 };
    }
    Some((at + 1).min(rest.len()))
}

fn raw_string(all: &[char], at: usize) -> Option<usize> {
    let rest = &all[at..];
    let after_word = at > 0 && (all[at - 1].is_alphanumeric() && all[at - 1] != 'b');
    (rest[0] == 'r' && !after_word).then_some(())?;
    let hashes = rest[1..].iter().take_while(|&&c| c == '#').count();
    (rest.get(1 + hashes) == Some(&'"')).then_some(())?;
    let end: Vec<char> = std::iter::once('"').chain(std::iter::repeat_n('#', hashes)).collect();
    let body = &rest[2 + hashes..];
    let len = body.windows(end.len()).position(|window| window == end)?;
    Some(2 + hashes + len + end.len())
}

/// A character literal, which a lifetime is not.
fn character(rest: &[char]) -> Option<usize> {
    match rest {
        ['\'', '\\', tail @ ..] => tail.iter().skip(1).position(|&c| c == '\'').map(|len| len + 4),
        ['\'', _, '\'', ..] => Some(3),
        _ => None,
    }
}

/// Fails with everything that was found.
fn verdict(rule: &str, findings: &[String]) {
    let mut report = String::new();
    for finding in findings {
        let _ = write!(report, "\n  {finding}");
    }
    assert!(findings.is_empty(), "{rule}:{report}");
}

/// Names that `lib.rs` re-exports, by the layer they come from.
fn re_exports() -> BTreeMap<String, String> {
    let lib = fs::read_to_string(package().join("src/lib.rs")).expect("the crate's root");
    let line = Regex::new(r"(?m)^pub use (\w+)(?:::\w+)*?::(?:\{([^}]*)\}|(\w+));").expect("valid");
    let mut names = BTreeMap::new();
    for found in line.captures_iter(&lib) {
        let listed = found.get(2).or(found.get(3)).map_or("", |names| names.as_str());
        for name in listed.split(',').map(str::trim).filter(|name| !name.is_empty()) {
            names.insert(name.to_owned(), found[1].to_owned());
        }
    }
    names
}

#[test]
fn layers_import_only_what_stands_below_them() {
    let re_exports = re_exports();
    let path = Regex::new(r"\bcrate::(\w+)").expect("valid");
    let up = Regex::new(r"\b(?:super::)+").expect("valid");
    let mut findings = Vec::new();
    for source in sources(&["src"]) {
        let Some(layer) = source.layer().map(str::to_owned) else { continue };
        let rule = LAYERS.iter().find(|(name, _)| *name == layer);
        let (_, below) =
            rule.unwrap_or_else(|| panic!("src/{layer} has no place among the layers"));
        for (at, line) in source.code.iter().enumerate() {
            for found in path.captures_iter(line) {
                let name = &found[1];
                let from = match LAYERS.iter().any(|(layer, _)| *layer == name) {
                    true => name,
                    // What is re-exported by a glob is the public face's.
                    false => re_exports.get(name).map_or("server", String::as_str),
                };
                if from != layer && !below.contains(&from) {
                    findings.push(format!("{}:{}: {layer} imports {from}", source.path, at + 1));
                }
            }
            let inline = usize::from(at >= source.tests_at);
            let climbed = up
                .find_iter(line)
                .any(|found| found.as_str().matches("super::").count() >= source.depth() + inline);
            if climbed {
                findings.push(format!("{}:{}: `super` leaves the layer", source.path, at + 1));
            }
        }
    }
    verdict("a module imports only what stands below it", &findings);
}

#[test]
fn pure_layers_read_no_clock_and_open_lock_spawn_await_nothing() {
    let impure = Regex::new(&IMPURE.join("|")).expect("valid");
    let mut findings = Vec::new();
    for source in sources(&["src"]) {
        if !source.layer().is_some_and(|layer| PURE.contains(&layer)) {
            continue;
        }
        for (at, line) in source.product().filter(|(_, line)| impure.is_match(line)) {
            findings.push(format!("{}:{at}: {}", source.path, line.trim()));
        }
    }
    verdict("bytes and `now` go in, values come out", &findings);
}

#[test]
fn io_holds_no_word_of_a_protocol() {
    let word = Regex::new(r"(?i)websocket|socket_?io|engine_?io|namespace|http|packet|outbox")
        .expect("valid");
    let mut findings = Vec::new();
    for source in sources(&["src"]).iter().filter(|source| source.layer() == Some("io")) {
        for (at, line) in source.product().filter(|(_, line)| word.is_match(line)) {
            findings.push(format!("{}:{at}: {}", source.path, line.trim()));
        }
    }
    verdict("a driver does not know what bytes mean", &findings);
}

#[test]
fn every_file_says_what_it_is() {
    let all = sources(&["src", "tests", "examples", "benches", "loadtest"]);
    let bare = |source: &&Source| !source.text.starts_with("//!");
    // Test files beside their product are told by its docs.
    let told = |source: &&Source| source.path.starts_with("src/") && source.is_test;
    let findings: Vec<String> = all
        .iter()
        .filter(bare)
        .filter(|source| !told(source))
        .map(|source| source.path.clone())
        .collect();
    verdict("a file opens with `//!`: what it is, what it must not know", &findings);
}

#[test]
fn files_and_lines_stay_readable() {
    let mut findings = Vec::new();
    for source in sources(&["src", "tests", "examples", "benches", "loadtest"]) {
        let lines = source.text.lines().count();
        if lines > FILE_LINES_MAX {
            findings.push(format!("{}: {lines} lines, {FILE_LINES_MAX} at most", source.path));
        }
        for (at, line) in source.text.lines().enumerate() {
            let columns = line.chars().count();
            // A text that stands alone is not torn apart.
            let is_text = line.trim_start().starts_with('"');
            if columns > COLUMNS_MAX && !is_text {
                findings.push(format!("{}:{}: {columns} columns", source.path, at + 1));
            }
        }
    }
    verdict("files and lines have an end", &findings);
}

#[test]
fn nothing_is_left_for_later() {
    // In two parts, so that this file is none of them.
    let later = Regex::new(concat!(r"\b(TO", r"DO|FIX", r"ME|XX", r"X)\b")).expect("valid");
    let mut findings = Vec::new();
    for source in sources(&["src", "tests", "examples", "benches", "loadtest"]) {
        for (at, line) in source.text.lines().enumerate().filter(|(_, line)| later.is_match(line)) {
            findings.push(format!("{}:{}: {}", source.path, at + 1, line.trim()));
        }
    }
    verdict("an issue, or nothing", &findings);
}

#[test]
fn the_product_unwraps_nothing_and_expects_only_invariants() {
    let unwrap = Regex::new(r"\.unwrap\(\)").expect("valid");
    let expect = Regex::new(r#"\.expect\(\s*"([^"]*)"#).expect("valid");
    let mut findings = Vec::new();
    for source in sources(&["src"]) {
        for (at, _) in source.product().filter(|(_, line)| unwrap.is_match(line)) {
            findings.push(format!("{}:{at}: unwrap", source.path));
        }
        let lines: Vec<&str> = source.text.lines().collect();
        let end = if source.is_test { 0 } else { source.tests_at.min(lines.len()) };
        let product = lines[..end].join("\n");
        for found in expect.captures_iter(&product) {
            if !found[1].starts_with("invariant: ") {
                findings.push(format!("{}: expects {:?}", source.path, &found[1]));
            }
        }
    }
    verdict("no input panics the server", &findings);
}

#[test]
fn unsafe_stands_in_io_and_gives_its_reason() {
    let word = Regex::new(r"\bunsafe\b").expect("valid");
    let mut findings = Vec::new();
    for source in sources(&["src", "examples"]) {
        let lines: Vec<&str> = source.text.lines().collect();
        for at in (0..source.code.len()).filter(|&at| word.is_match(&source.code[at])) {
            let place = format!("{}:{}", source.path, at + 1);
            if source.layer() != Some("io") {
                findings.push(format!("{place}: unsafe outside of src/io"));
            }
            let above = &lines[at.saturating_sub(SAFETY_LINES_MAX)..=at];
            let told = |line: &&str| line.contains("SAFETY:") || line.contains("# Safety");
            if !above.iter().any(told) {
                findings.push(format!("{place}: unsafe without its reason"));
            }
        }
    }
    verdict("unsafe is rare and explained", &findings);
}

#[test]
fn imports_name_what_they_bring() {
    let glob = Regex::new(r"\buse\b.*::\*").expect("valid");
    let mut findings = Vec::new();
    for source in sources(&["src", "examples"]) {
        for (at, line) in source.product().filter(|(_, line)| glob.is_match(line)) {
            if (source.path.as_str(), line) != ("src/lib.rs", "pub use server::*;") {
                findings.push(format!("{}:{at}: {}", source.path, line.trim()));
            }
        }
    }
    verdict("no glob imports", &findings);
}

#[test]
fn names_mean_something() {
    let module = Regex::new(r"\bmod (\w+)").expect("valid");
    let mut findings = Vec::new();
    for source in sources(&["src", "tests", "examples"]) {
        let own = source.path.trim_end_matches(".rs").split('/').map(str::to_owned);
        let declared = source.code.iter().flat_map(|line| module.captures_iter(line));
        let names: BTreeSet<String> =
            own.chain(declared.map(|found| found[1].to_owned())).collect();
        for name in names.iter().filter(|name| BANNED_NAMES.contains(&name.as_str())) {
            findings.push(format!("{}: {name}", source.path));
        }
    }
    verdict("a module is named for what it holds", &findings);
}

#[test]
fn every_file_is_part_of_the_crate() {
    let module = Regex::new(r"\bmod (\w+)\s*;").expect("valid");
    let all = sources(&["src"]);
    let mut known = BTreeSet::from(["src/lib.rs".to_owned()]);
    for source in &all {
        let folder = folder_of(&source.path);
        for found in source.code.iter().flat_map(|line| module.captures_iter(line)) {
            known.insert(format!("{folder}/{}.rs", &found[1]));
            known.insert(format!("{folder}/{}/mod.rs", &found[1]));
        }
    }
    let dead = all.iter().map(|source| source.path.clone()).filter(|path| !known.contains(path));
    verdict("a file that nobody declares is dead", &dead.collect::<Vec<_>>());
}

#[test]
fn the_map_names_what_is_there() {
    let map = fs::read_to_string(package().join("ARCHITECTURE.md")).expect("the map");
    let named = Regex::new(r"`((?:src|tests|examples|benches|loadtest)/[\w./-]*)`").expect("valid");
    let mut findings = Vec::new();
    for found in named.captures_iter(&map) {
        if !package().join(&found[1]).exists() {
            findings.push(format!("{} is on the map and not in the house", &found[1]));
        }
    }
    for source in sources(&["src"]) {
        // A file of a layer by its name, those of its folders by their folder.
        let Some((layer, below)) = source.path[4..].split_once('/') else { continue };
        let name = match below.split_once('/') {
            Some((folder, _)) => format!("{folder}/"),
            None => below.trim_end_matches(".rs").to_owned(),
        };
        let section = map.split("\n### ").find(|part| part.starts_with(&format!("`src/{layer}/`")));
        let told = section.is_some_and(|section| section.contains(&format!("`{name}`")));
        if !told && !source.is_test && name != "mod" {
            findings.push(format!("{} is not on the map (`{name}`, in {layer})", source.path));
        }
    }
    verdict("ARCHITECTURE.md is true", &findings);
}

#[test]
fn the_readme_tells_every_option_and_the_first_program() {
    let readme = fs::read_to_string(package().join("README.md")).expect("the README");
    let builder = fs::read_to_string(package().join("src/server/builder.rs")).expect("options");
    let setter = Regex::new(r"(?m)^        (\w+): .* => [\w.]+ = ").expect("valid");
    let method = Regex::new(r"(?s)pub fn (\w+)(?:<\w+>)?\(\s*(?:mut )?self,").expect("valid");
    let options = setter.captures_iter(&builder).chain(method.captures_iter(&builder));
    let mut findings: Vec<String> = options
        .map(|found| found[1].to_owned())
        .filter(|name| name != "bind" && !readme.contains(&format!("`{name}`")))
        .collect();
    let lib = fs::read_to_string(package().join("src/lib.rs")).expect("the crate's root");
    let program = |text: &str, from: &str| {
        let (_, rest) = text.split_once(from)?;
        rest.split_once("\n```").map(|(program, _)| program.to_owned())
    };
    let docs: Vec<&str> = lib
        .lines()
        .filter_map(|line| line.strip_prefix("//!"))
        .map(|line| line.strip_prefix(' ').unwrap_or(line))
        .collect();
    let told = program(&docs.join("\n"), "```no_run\n");
    if told.is_none() || told != program(&readme, "```rust,no_run\n") {
        findings.push("the first program differs from that of src/lib.rs".to_owned());
    }
    verdict("README.md is true", &findings);
}
