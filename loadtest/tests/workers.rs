//! Runs whose clients live in several processes, by every transport, against several servers:
//! that they work, that no fault of a server and no loss of a worker goes unnoticed, and that
//! they end in order.

#![allow(clippy::unwrap_used, reason = "a failed expectation is the verdict")]

mod support;

use std::fs;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use support::{Server, complaint, loadtest, run};

fn count(report: &serde_json::Value, field: &str) -> u64 {
    report[field].as_u64().unwrap_or_else(|| panic!("no {field} in {report}"))
}

/// Every command against two servers.
fn every_command(transport: &str, workers: &str) {
    let servers = [Server::stentor(), Server::stentor()];
    let servers = [&servers[0], &servers[1]];
    let run = |command: &[&str]| {
        let how = ["--transport", transport, "--workers", workers];
        run(&servers, &[command, &how].concat())
    };
    let fanout = run(&["fanout", "--clients", "21", "--window", "4"]);
    assert_eq!(fanout["transport"], transport);
    assert_eq!(count(&fanout, "deliveries"), 21 * count(&fanout, "broadcasts"));
    assert!(count(&fanout, "broadcasts") > 3);
    let shares = fanout["generator_shares"].as_array().unwrap().len();
    assert_eq!(shares, if workers == "1" { 1 } else { 4 });
    let rate = run(&["fanout", "--clients", "21", "--rate", "40"]);
    assert_eq!(count(&rate, "deliveries"), 21 * count(&rate, "broadcasts"));
    let rooms = run(&["rooms", "--clients", "24", "--rooms", "3", "--window", "3"]);
    assert_eq!(count(&rooms, "deliveries"), 8 * count(&rooms, "broadcasts"));
    let echo = run(&["echo", "--clients", "9", "--window", "4"]);
    assert!(count(&echo, "echoes") > 50);
    let rate = run(&["echo", "--clients", "9", "--rate", "200"]);
    assert_eq!(count(&rate, "echoes"), 60, "{rate}");
    let churn = run(&["churn", "--clients", "12", "--rate", "40", "--churn", "60"]);
    assert!(count(&churn, "deliveries") > 0 && count(&churn, "connections") > 5);
    let mixed = run(&["mixed", "--clients", "12", "--rooms", "2"]);
    assert!(count(&mixed, "deliveries") > 0 && count(&mixed, "echoes") > 100);
    let connect = run(&["connect", "--clients", "20"]);
    assert!(count(&connect, "connections") >= 20);
    let idle = run(&["idle", "--clients", "50"]);
    assert!(idle["bytes_per_client"].is_number());
}

#[test]
fn every_command_by_websocket_in_one_process() {
    every_command("websocket", "1");
}

#[test]
fn every_command_by_websocket_with_three_workers() {
    every_command("websocket", "3");
}

#[test]
fn every_command_by_polling_in_one_process() {
    every_command("polling", "1");
}

#[test]
fn every_command_by_polling_with_three_workers() {
    every_command("polling", "3");
}

#[test]
fn a_cluster_is_published_to_once_and_strangers_once_each() {
    // One server by two names: a cluster of sorts.
    let server = Server::stentor();
    let twice = [&server, &server];
    for workers in ["1", "2"] {
        let fanout = ["fanout", "--clients", "10", "--window", "2", "--workers", workers];
        let report = run(&twice, &[&fanout[..], &["--cluster"]].concat());
        assert_eq!(count(&report, "deliveries"), 10 * count(&report, "broadcasts"));
        let urls = ["--url", &server.url, "--url", &server.url];
        let output = loadtest().args(fanout).args(urls).output().unwrap();
        assert!(complaint(&output).contains("a gap: broadcast"));
    }
}

#[test]
fn a_client_costs_less_than_a_kibibyte() {
    for transport in ["websocket", "polling"] {
        for workers in ["1", "2"] {
            let server = Server::stentor();
            let idle = ["idle", "--clients", "3000", "--transport", transport];
            let report = run(&[&server], &[&idle[..], &["--workers", workers]].concat());
            let each = report["generator_bytes_per_client"].as_f64().unwrap();
            assert!((1.0..1_024.0).contains(&each), "{transport}, {workers} workers: {each} B");
        }
    }
}

#[test]
fn few_descriptors_make_workers_necessary() {
    let server = Server::stentor();
    let limited = |arguments: &str| {
        let program = env!("CARGO_BIN_EXE_loadtest");
        let fanout = format!("{program} fanout --clients 200 --url {} --json", server.url);
        let script = format!("ulimit -n 100 && exec {fanout} --duration 0.3 {arguments}");
        Command::new("sh").args(["-c", &script]).output().unwrap()
    };
    let output = limited("");
    let said = String::from_utf8_lossy(&output.stderr);
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).expect(&said);
    assert_eq!(count(&report, "deliveries"), 200 * count(&report, "broadcasts"));
    // Who is privileged raises the limit instead.
    let processes = report["generator_shares"].as_array().unwrap().len();
    assert!([1, 7].contains(&processes), "{processes}");
    if processes > 1 {
        let said = complaint(&limited("--workers 2"));
        assert!(said.contains("200 clients do not fit into 2 processes"), "{said}");
        assert!(said.contains("about 72 clients are possible"), "{said}");
    }
}

/// A long run in a process group of its own, as a terminal has it, with two workers at work.
#[allow(clippy::zombie_processes, reason = "whoever asks for it waits for it")]
fn long_run(url: &str) -> (Child, Vec<u32>) {
    let mut child = loadtest()
        .args(["fanout", "--clients", "20", "--workers", "2", "--window", "4", "--json"])
        .args(["--duration", "60", "--warmup", "0.1", "--url", url])
        .process_group(0)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let started = Instant::now();
    loop {
        let workers = children(child.id());
        if workers.len() == 2 && started.elapsed() > Duration::from_secs(3) {
            return (child, workers);
        }
        if started.elapsed() > Duration::from_secs(20) {
            child.kill().unwrap();
            child.wait().unwrap();
            panic!("no workers");
        }
        thread::sleep(Duration::from_millis(50));
    }
}

/// Processes whose parent is `pid`.
fn children(pid: u32) -> Vec<u32> {
    let parent = |process: u32| {
        let stat = fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
        stat.rsplit_once(')')?.1.split_ascii_whitespace().nth(1)?.parse::<u32>().ok()
    };
    let all = fs::read_dir("/proc").unwrap();
    let all = all.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    all.filter(|process| parent(*process) == Some(pid)).collect()
}

fn signal(name: &str, whom: &str) {
    assert!(Command::new("kill").args([name, "--", whom]).status().unwrap().success());
}

#[test]
fn ctrl_c_brings_the_results_so_far() {
    let server = Server::stentor();
    let (child, _) = long_run(&server.url);
    // To the whole group, as a terminal does.
    signal("-INT", &format!("-{}", child.id()));
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(report["interrupted"], true);
    assert!(count(&report, "broadcasts") > 0);
    assert_eq!(count(&report, "deliveries"), 20 * count(&report, "broadcasts"));
}

#[test]
fn a_lost_worker_fails_the_run() {
    let server = Server::stentor();
    let (child, workers) = long_run(&server.url);
    signal("-KILL", &workers[0].to_string());
    let said = complaint(&child.wait_with_output().unwrap());
    let expected = format!("(process {}) has failed: it has ended: signal: 9", workers[0]);
    assert!(said.contains(&expected), "{said}");
    assert!(!fs::exists(format!("/proc/{}", workers[1])).unwrap(), "the other one is ended");
}

#[test]
fn workers_leave_with_their_command() {
    let server = Server::stentor();
    let (mut child, workers) = long_run(&server.url);
    child.kill().unwrap();
    child.wait().unwrap();
    let started = Instant::now();
    while workers.iter().any(|worker| fs::exists(format!("/proc/{worker}")).unwrap()) {
        assert!(started.elapsed() < Duration::from_secs(10), "{workers:?} are still there");
        thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn a_server_that_is_not_there_is_named() {
    let nowhere = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap();
    for workers in ["1", "2"] {
        let echo = ["echo", "--clients", "4", "--workers", workers];
        let output = loadtest().args(echo).args(["--url", &format!("http://{nowhere}")]).output();
        let said = complaint(&output.unwrap());
        assert!(said.contains(&format!("cannot reach {nowhere}: Connection refused")), "{said}");
    }
}

#[test]
fn a_lost_server_fails_the_run() {
    let server = Server::stentor();
    let (child, _) = long_run(&server.url);
    drop(server);
    let said = complaint(&child.wait_with_output().unwrap());
    assert!(said.contains("closed the connection of client"), "{said}");
}

/// What stands between a server and its clients does to one tick of one worker's client.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Harm {
    Drop,
    Alter,
    Repeat,
    RepeatLate,
    Invent,
}

/// A way to a server that does harm, once. It ends with the test's process.
fn harmful_way(server: &Server, harm: Harm) -> String {
    let upstream: SocketAddr = server.url.strip_prefix("http://").unwrap().parse().unwrap();
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    thread::spawn(move || {
        let mut chosen = false;
        while let Ok((client, from)) = listener.accept() {
            let server = TcpStream::connect(upstream).unwrap();
            // The publisher comes from the usual address, workers' clients do not.
            let harm = (!chosen && from.ip() != Ipv4Addr::LOCALHOST).then_some(harm);
            chosen |= harm.is_some();
            let (c, s) = (client.try_clone().unwrap(), server.try_clone().unwrap());
            thread::spawn(move || pass(c, s, None));
            thread::spawn(move || pass(server, client, harm));
        }
    });
    url
}

fn pass(mut from: TcpStream, mut to: TcpStream, mut harm: Option<Harm>) {
    let mut chunk = vec![0; 64 * 1024];
    let mut ticks = 0;
    while let Ok(length @ 1..) = from.read(&mut chunk) {
        let mut bytes = chunk[..length].to_vec();
        let begin = bytes.windows(10).position(|window| window == b"42[\"tick\",");
        if let (Some(kind), Some(at)) = (harm, begin) {
            // A head of two bytes, and 88 for a text of 64.
            let (start, end) = (at - 2, at + 88);
            ticks += 1;
            if harm == Some(Harm::RepeatLate) && ticks == 2 && end <= bytes.len() {
                harm = None;
                let frame = bytes[start..end].to_vec();
                if to.write_all(&bytes).is_err() {
                    break;
                }
                thread::sleep(Duration::from_millis(15));
                bytes = frame;
            } else if ticks > 3 && end <= bytes.len() {
                harm = None;
                let frame = bytes[start..end].to_vec();
                match kind {
                    Harm::Drop => drop(bytes.drain(start..end)),
                    Harm::Alter => bytes[end - 10] ^= 1,
                    Harm::Repeat | Harm::RepeatLate => drop(bytes.splice(end..end, frame)),
                    Harm::Invent => bytes[at + 10] = b'2',
                }
            }
        }
        if to.write_all(&bytes).is_err() {
            break;
        }
    }
    let _ = to.shutdown(Shutdown::Both);
}

fn harmed(harm: Harm, how: &[&str]) -> String {
    let server = Server::stentor();
    let url = harmful_way(&server, harm);
    let output = loadtest()
        .args(["fanout", "--clients", "12", "--workers", "3", "--url", &url])
        .args(how)
        .output()
        .unwrap();
    let said = complaint(&output);
    let told = (1..=3).any(|worker| said.contains(&format!("worker {worker}")));
    assert!(told, "{said}");
    said
}

#[test]
fn whatever_happens_to_one_delivery_of_one_worker_fails_the_run() {
    let cases = [
        (Harm::Drop, "a gap"),
        (Harm::Alter, "damaged"),
        (Harm::Repeat, "a gap"),
        (Harm::Invent, "a gap"),
    ];
    for (harm, expected) in cases {
        let said = harmed(harm, &["--window", "4", "--duration", "60"]);
        assert!(said.contains(expected), "{harm:?}: {said}");
    }
}

#[test]
fn a_repetition_after_the_end_fails_the_run() {
    // One broadcast in the warm-up and one in the run, which is over when everybody has it.
    let run = ["--rate", "1", "--warmup", "0.001", "--duration", "0.001"];
    let said = harmed(Harm::RepeatLate, &run);
    assert!(said.contains("a gap: broadcast 1 came where 2 was due"), "{said}");
}

#[test]
fn a_delivery_that_never_comes_is_missed() {
    // With one broadcast under way there is no next one that could show the gap.
    let said = harmed(Harm::Drop, &["--window", "1", "--duration", "60"]);
    assert!(said.contains("messages were lost") && said.contains("still misses 1 of"), "{said}");
}
