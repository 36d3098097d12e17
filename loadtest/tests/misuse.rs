//! What strangers do to the program: options without sense, pages that cannot be written, readers
//! that have had enough, Ctrl-C at every moment, servers that are not what they seem. It must say
//! what is wrong, in time, and never report what it did not measure.

#![allow(clippy::unwrap_used, reason = "a failed expectation is the verdict")]

mod support;

use std::fs;
use std::io::Read;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use support::{Server, complaint, loadtest};

const SHORT: [&str; 4] = ["--duration", "0.2", "--warmup", "0.05"];
const EPOLL: [&str; 4] = ["--floor", "epoll", "--driver", "mio"];

/// What a command that must be refused says.
fn refused(arguments: &[&str]) -> String {
    let output = loadtest().args(arguments).output().unwrap();
    assert_eq!(output.status.code(), Some(2), "{arguments:?}");
    complaint(&output)
}

#[test]
fn options_without_sense_are_refused_before_anything_is_done() {
    let cases: [(&[&str], &str); 15] = [
        (&["fanout", "--rate", "0"], "0 is no rate"),
        (&["fanout", "--rate", "nan"], "NaN is no rate"),
        (&["echo", "--rate", "1e-12"], "is no rate"),
        (&["fanout", "--rate", "1e30"], "is no rate"),
        (&["fanout", "--window", "0"], "at least one message outstanding"),
        (&["fanout", "--window", "4000000000"], "1048576 are possible"),
        (&["fanout", "--payload", "18446744073709551615"], "16777216 B at most"),
        (&["fanout", "--clients", "0"], "at least one client"),
        (&["fanout", "--duration", "1e300"], "between 0 and 86400 seconds"),
        (&["fanout", "--warmup", "1e12"], "between 0 and 86400 seconds"),
        (&["rooms", "--clients", "5", "--rooms", "6"], "between 1 and 5 rooms"),
        (&["fanout", "--pid", "999999999"], "/proc of process 999999999"),
        (&["churn", "--churn", "1e-300"], "cannot come and go"),
        (&["compare-floor", "--payload", "4"], "at least 16 B"),
        (&["compare-floor", "--payload", "17000000"], "16777216 B at most"),
    ];
    for (arguments, expected) in cases {
        let said = refused(arguments);
        assert!(said.contains(expected), "{arguments:?}: {said}");
    }
    let urls = ["--url", "http://127.0.0.1:1", "--url", "http://127.0.0.1:2"];
    let said = refused(&[&["rooms", "--clients", "10", "--rooms", "10"], &urls[..]].concat());
    assert!(said.contains("between 1 and 5 rooms"), "some would have nobody: {said}");
}

#[test]
fn a_page_is_written_asked_for_or_refused() {
    let server = Server::stentor();
    // Commands without a page do not take the option.
    for command in ["connect", "idle"] {
        assert!(refused(&[command, "--html", "x.html"]).contains("--html"));
    }
    let fanout = ["fanout", "--clients", "3", "--url", &server.url];
    let started = Instant::now();
    let nowhere = ["--duration", "60", "--html", "/nonexistent/x.html"];
    let said = refused(&[&fanout[..], &nowhere].concat());
    assert!(said.contains("cannot write the page"), "{said}");
    assert!(started.elapsed() < Duration::from_secs(20), "it is said before the run");
    let page = std::env::temp_dir().join(format!("loadtest-page-{}.html", std::process::id()));
    let html = ["--html", page.to_str().unwrap()];
    let output = loadtest().args(fanout).args(SHORT).args(html).output().unwrap();
    assert!(output.status.success());
    assert!(fs::read_to_string(&page).unwrap().contains("<polyline"));
    fs::remove_file(&page).unwrap();
}

#[test]
fn a_reader_may_have_had_enough() {
    let server = Server::stentor();
    let fanout = ["fanout", "--clients", "3", "--plot", "--url", &server.url];
    let contest = ["compare-floor", "--clients", "3", "--rounds", "1", "--slice", "40"];
    for arguments in [[&fanout[..], &SHORT].concat(), [&contest[..], &EPOLL].concat()] {
        let mut child =
            loadtest().args(&arguments).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
        let child = child.as_mut().unwrap();
        drop(child.stdout.take());
        let mut said = String::new();
        child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
        assert!(child.wait().unwrap().success(), "{said}");
        assert!(!said.contains("panicked"), "{said}");
    }
}

/// Sends Ctrl-C after a while, and waits for the end.
fn interrupt(mut child: Child, after: Duration) -> (Option<i32>, String, String) {
    thread::sleep(after);
    let pid = child.id().to_string();
    let sent = Command::new("kill").args(["-INT", "--", &pid]).status().unwrap();
    assert!(sent.success(), "it has ended: {:?}", child.try_wait());
    let started = Instant::now();
    let output = child.wait_with_output().unwrap();
    assert!(started.elapsed() < Duration::from_secs(20));
    let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code(), text(&output.stdout), text(&output.stderr))
}

#[test]
fn an_interrupted_contest_tells_of_whole_rounds_or_nothing() {
    let start = |slice: &str, more: &[&str]| {
        loadtest()
            .args(["compare-floor", "--clients", "5", "--rounds", "9000", "--json"])
            .args(["--slice", slice])
            .args(EPOLL)
            .args(more)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap()
    };
    let (code, out, error) = interrupt(start("30", &["--window", "2"]), Duration::from_secs(4));
    assert_eq!(code, Some(0), "{error}");
    let lines: Vec<serde_json::Value> =
        out.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.len(), 2);
    for line in &lines {
        assert!(line["result"]["ratio"]["median"].as_f64().unwrap() > 0.0, "{line}");
    }
    // In the first round, and while it is found out what everybody sustains.
    for more in [["--window", "2"], ["--load", "0.3"]] {
        let (code, out, error) = interrupt(start("20000", &more), Duration::from_secs(3));
        assert_eq!((code, out.as_str()), (Some(2), ""), "{more:?}: {error}");
        assert!(error.contains("interrupted"), "{error}");
    }
}

#[test]
fn a_gate_does_not_hold_what_it_cannot_measure() {
    let server = Server::stentor();
    // Somebody who does nothing, and so is cheap.
    let mut other = Command::new("sleep").arg("60").spawn().unwrap();
    let file = std::env::temp_dir().join(format!("loadtest-idle-{}.json", std::process::id()));
    let case = r#"{"kind":"echo","clients":3,"payload":64,"window":2,"ratio":1.0}"#;
    fs::write(&file, format!(r#"{{"version":1,"cases":[{case}]}}"#)).unwrap();
    let pid = other.id().to_string();
    let gate = ["gate", "--rounds", "2", "--slice", "40", "--baseline", file.to_str().unwrap()];
    let whom = ["--url", &server.url, "--pid", &pid];
    let said = refused(&[&gate[..], &EPOLL, &whom].concat());
    assert!(said.contains("is it the right --pid"), "{said}");
    fs::remove_file(&file).unwrap();
    let write = ["gate", "--write", "--baseline", "/nonexistent/perf.json"];
    let started = Instant::now();
    assert!(refused(&write).contains("cannot write the baseline"));
    assert!(started.elapsed() < Duration::from_secs(5), "it is said before the measurement");
    other.kill().unwrap();
    other.wait().unwrap();
}

#[test]
fn an_open_loop_sends_what_was_due_whatever_its_processes_do() {
    let server = Server::stentor();
    for workers in ["1", "2"] {
        let mixed = ["mixed", "--clients", "9", "--broadcasts", "40", "--echoes", "300"];
        let count = |field: &str| {
            let report = server.run(&[&mixed[..], &["--workers", workers]].concat());
            report[field].as_u64().unwrap()
        };
        // What is due within 0.3 s: no more and no fewer, however busy the machine is.
        assert_eq!(count("broadcasts"), 12, "{workers} workers");
        assert_eq!(count("echoes"), 90, "{workers} workers");
    }
}
