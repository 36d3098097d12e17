//! The program against its own servers: every driver and every floor, small and short.

#![allow(clippy::unwrap_used, reason = "a failed expectation is the verdict")]

mod support;

use std::process::Command;

use support::Server;

const FANOUT: [&str; 5] = ["fanout", "--clients", "20", "--window", "4"];
const ECHO: [&str; 5] = ["echo", "--clients", "5", "--window", "4"];

fn is_allowed(io: &str) -> bool {
    // Containers forbid io_uring; the floor then has nothing to stand on.
    io != "uring" || io_uring::IoUring::new(8).is_ok()
}

#[test]
fn every_floor_keeps_the_contract() {
    for io in ["uring", "epoll"].into_iter().filter(|io| is_allowed(io)) {
        for sends in ["coalesced", "single"] {
            let floor = Server::start(&["floor", "--io", io, "--sends", sends]);
            assert!(floor.run(&FANOUT)["deliveries"].as_u64().unwrap() > 100);
            assert!(floor.run(&ECHO)["echoes"].as_u64().unwrap() > 100);
        }
    }
}

#[test]
fn stentor_keeps_the_contract_on_every_driver() {
    for driver in ["uring", "mio"].into_iter().filter(|driver| is_allowed(driver)) {
        let server = Server::start(&["serve", "--quiet", "--shards", "2", "--driver", driver]);
        assert!(server.run(&FANOUT)["deliveries"].as_u64().unwrap() > 100);
        assert!(server.run(&ECHO)["echoes"].as_u64().unwrap() > 100);
        let large = ["fanout", "--clients", "8", "--payload", "300000", "--window", "4"];
        assert!(server.run(&large)["deliveries"].as_u64().unwrap() > 0);
        let polling = ["fanout", "--clients", "20", "--transport", "polling", "--window", "4"];
        assert!(server.run(&polling)["deliveries"].as_u64().unwrap() > 100);
        let rooms = ["rooms", "--clients", "20", "--rooms", "3", "--rate", "100"];
        assert!(server.run(&rooms)["deliveries"].as_u64().unwrap() > 0);
        let churn = ["churn", "--clients", "10", "--rate", "50", "--churn", "100"];
        assert!(server.run(&churn)["connections"].as_u64().unwrap() > 10);
        let mixed = ["mixed", "--clients", "10", "--rooms", "2"];
        assert!(server.run(&mixed)["echoes"].as_u64().unwrap() > 100);
        let connect = ["connect", "--clients", "20"];
        assert!(server.run(&connect)["connections"].as_u64().unwrap() >= 20);
        assert!(server.run(&["idle", "--clients", "50"])["bytes_per_client"].is_number());
    }
}

/// Runs a command to its end; how it ended and what it said.
fn end(arguments: &[&str]) -> (Option<i32>, String, String) {
    let program = env!("CARGO_BIN_EXE_loadtest");
    let output = Command::new(program).args(arguments).output().unwrap();
    let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code(), text(&output.stdout), text(&output.stderr))
}

/// Contests among servers that run everywhere.
const EPOLL: [&str; 6] = ["--floor", "epoll", "--driver", "mio", "--slice", "40"];

fn contest(arguments: &[&str]) -> Vec<serde_json::Value> {
    let (code, out, error) = end(&[arguments, &EPOLL, &["--json"]].concat());
    assert_eq!(code, Some(0), "{arguments:?}: {error}");
    out.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn sizes_measured_together_are_compared_with_the_first() {
    let sizes = ["--clients", "5,20", "--payload", "16,70000", "--together"];
    let rest = ["--window", "2", "--rounds", "2", "--transport", "websocket,polling"];
    let lines = contest(&[&["compare-floor"], &sizes[..], &rest].concat());
    // Four sizes, each with a floor and stentor by two transports.
    assert_eq!(lines.len(), 12);
    for (index, line) in lines.iter().enumerate() {
        let result = &line["result"];
        assert_eq!(result["group"], index / 3);
        assert!(result["ns"]["median"].as_f64().unwrap() > 0.0);
        assert_eq!(result["growth"].is_null(), index < 3, "{line}");
        let floor = result["ratio"]["median"].as_f64() == Some(1.0);
        assert!(floor || index % 3 > 0, "the first of a size is its own measure: {line}");
    }
    assert_eq!(lines[11]["case"]["payload"], 70_000);
    assert_eq!(lines[11]["result"]["name"], "stentor epoll, polling");
}

#[test]
fn an_open_loop_compares_the_time_to_the_last_recipient() {
    let lines = contest(&["compare-floor", "--clients", "10", "--load", "0.3", "--rounds", "2"]);
    let rate = lines[0]["pace"]["Rate"].as_f64().unwrap();
    assert!(rate > 0.0 && lines[1]["pace"]["Rate"].as_f64() == Some(rate));
    assert!(lines[1]["result"]["last_recipient"]["p99_us"].as_u64().unwrap() > 0);
    assert!(lines[1]["result"]["last_ratio"]["median"].as_f64().unwrap() > 0.0);
}

#[test]
fn a_gate_holds_fails_with_1_and_refuses_nonsense_with_2() {
    let dir = std::env::temp_dir().join(format!("loadtest-gate-{}", std::process::id()));
    std::fs::create_dir_all(&dir).unwrap();
    let gate = |text: &str| {
        let file = dir.join("baseline.json");
        std::fs::write(&file, text).unwrap();
        let gate = ["gate", "--rounds", "2", "--tolerance", "50%", "--baseline"];
        end(&[&gate[..], &[file.to_str().unwrap()], &EPOLL].concat())
    };
    let case = |ratio| {
        let case = r#"{"kind":"echo","clients":3,"payload":64,"window":2,"ratio":"#;
        format!(r#"{{"version":1,"cases":[{case}{ratio}}}]}}"#)
    };
    let (code, out, error) = gate(&case("1000.0"));
    assert_eq!(code, Some(0), "{error}");
    assert!(out.contains("better: write a new baseline"), "{out}");
    let (code, out, error) = gate(&case("0.0001"));
    assert_eq!(code, Some(1), "{error}");
    assert!(out.contains("measured again") && out.contains("WORSE"), "{out}");
    assert!(error.contains("worse than the baseline: echo, 3 clients"), "{error}");
    let none = r#"{"version":1,"cases":[]}"#.to_owned();
    let version = r#"{"version":7,"cases":[]}"#.to_owned();
    for nonsense in [String::new(), "{}".to_owned(), none, version, case("0")] {
        let (code, _, error) = gate(&nonsense);
        assert_eq!(code, Some(2));
        assert!(error.contains("baseline.json"), "{error}");
    }
    std::fs::remove_dir_all(&dir).unwrap();
}
