//! Finds the programs a test drives, runs them, and speaks up when one is missing.
//!
//! Plain `cargo test` leaves out what it has no tools for and says so; `tests/run` installs the
//! tools and sets `STENTOR_TESTS_REQUIRE_CLIENTS=1`, so that nothing is left out unseen. What the
//! kernel refuses is left out in any case, unless `STENTOR_TESTS_REQUIRE_URING=1`.

#![allow(dead_code, reason = "each test binary uses its own part")]

use std::env;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::LazyLock;
use std::thread;
use std::time::{Duration, Instant};

/// The folder `tests/` of this package.
pub(crate) fn tests_dir() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests")
}

/// Says that `what` is not tested. A failure where everything is required.
pub(crate) fn leave_out(what: &str) {
    assert!(
        env::var_os("STENTOR_TESTS_REQUIRE_CLIENTS").is_none(),
        "{what}: tools are missing, and all are required here"
    );
    say(&format!("left out: {what} (run tests/run to install what it needs)\n"));
}

/// Says that `what` is not tested on io_uring. Never a failure: no tool mends a kernel.
pub(crate) fn leave_out_uring(what: &str) {
    say(&format!("left out: {what} on io_uring, which this kernel refuses\n"));
}

fn say(line: &str) {
    // Straight to stderr: the harness keeps what `eprintln` says in a test that passes.
    let _ = std::io::stderr().write_all(line.as_bytes());
}

/// `name` on the `PATH`.
pub(crate) fn program(name: &str) -> Option<PathBuf> {
    env::split_paths(&env::var_os("PATH")?)
        .map(|folder| folder.join(name))
        .find(|candidate| candidate.is_file())
}

/// Node, if the packages of `tests/js` are installed beside it.
pub(crate) fn node() -> Option<PathBuf> {
    let installed = tests_dir().join("js/node_modules/.package-lock.json").is_file();
    program("node").filter(|_| installed)
}

/// The Python of the virtual environment in `tests/python`.
pub(crate) fn python() -> Option<PathBuf> {
    let python = tests_dir().join("python/.venv/bin/python");
    python.is_file().then_some(python)
}

pub(crate) fn chromium() -> Option<PathBuf> {
    if let Some(chosen) = env::var_os("CHROMIUM") {
        return Some(PathBuf::from(chosen));
    }
    ["chromium", "chromium-browser", "google-chrome"].into_iter().find_map(program)
}

/// Whether the server can have an io_uring here: containers often forbid it, and old kernels lack
/// what it needs. Only the server knows, so it is asked. Panics where io_uring is required.
pub(crate) fn has_io_uring() -> bool {
    static THERE: LazyLock<Result<(), String>> = LazyLock::new(|| {
        let builder = stentor::Server::builder().shards(1).driver(stentor::DriverKind::Uring);
        builder.bind("127.0.0.1:0").map(drop).map_err(|error| error.to_string())
    });
    if let Err(error) = &*THERE {
        let required = env::var_os("STENTOR_TESTS_REQUIRE_URING").is_some_and(|one| one == "1");
        assert!(!required, "io_uring is required here, and {error}");
    }
    THERE.is_ok()
}

/// Runs `command` to its end and panics with what it wrote if that was not a success.
pub(crate) fn run(what: &str, command: &mut Command, limit: Duration) {
    let child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("{what}: {error}"));
    let output = wait(what, child, limit);
    assert!(
        output.status.success(),
        "{what}: {}\n{}{}",
        output.status,
        failures(&String::from_utf8_lossy(&output.stdout)),
        String::from_utf8_lossy(&output.stderr),
    );
}

/// Waits for a child, but not for ever.
fn wait(what: &str, child: Child, limit: Duration) -> Output {
    let id = child.id();
    let started = Instant::now();
    let waiter = thread::spawn(move || child.wait_with_output());
    while !waiter.is_finished() {
        if started.elapsed() > limit {
            let _ = Command::new("kill").arg(id.to_string()).status();
            panic!("{what}: still running after {limit:?}");
        }
        thread::sleep(Duration::from_millis(20));
    }
    waiter.join().expect("the waiter only waits").unwrap_or_else(|error| panic!("{what}: {error}"))
}

/// Everything but the lines of the cases that passed.
fn failures(report: &str) -> String {
    report.lines().filter(|line| !line.starts_with("ok ")).map(|line| format!("{line}\n")).collect()
}
