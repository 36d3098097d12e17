//! `loadtest` without a command: a tour of two minutes, and a table that a person understands.

use std::time::Duration;

use crate::Failure;
use crate::contest::{Case, Contest, Driver, Kind, Rules, stentor_arguments};
use crate::floor::Io;
use crate::load::Pace;
use crate::server::Server;
use crate::swarm::Transport;
use crate::{connect, idle, runner};

/// Sizes, and how many messages are outstanding.
const CASES: [(Case, u32); 6] = [
    (Case::websocket(Kind::Fanout, 100, 64), 1),
    (Case::websocket(Kind::Fanout, 1_000, 64), 1),
    (Case::websocket(Kind::Fanout, 1_000, 64), 16),
    (Case::websocket(Kind::Fanout, 1_000, 1_024), 16),
    (Case::websocket(Kind::Echo, 100, 64), 1),
    (Case::websocket(Kind::Echo, 100, 64), 16),
];

const IDLE_CLIENTS: u32 = 10_000;

pub(crate) fn run() -> Result<(), Failure> {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    if cores < 2 {
        return Err(Failure::Usage("a tour needs two cores: one for each side".to_owned()));
    }
    runner::prepare(64)?;
    let rules = Rules { rounds: 8, slice: 500, server_core: 0, core: 1, floor: Io::Uring };
    say!("stentor on core 0, the generator on core 1, over loopback.");
    say!("floor: a bare io_uring sender of the same bytes to the same clients, in turns with");
    say!("stentor; the ratio is what holds on a noisy machine. CPU is the server's.\n");
    say!(
        "{:47} {:>10} {:>10} {:>18} {:>11} {:>10}",
        "",
        "stentor us",
        "floor us",
        "ratio (p10..p90)",
        "per second",
        "p99 ms"
    );
    let mut saturated = false;
    for (case, window) in CASES {
        saturated |= show(case, Pace::Window(window), &rules)?;
        if crate::system::interrupted() {
            return Ok(());
        }
    }
    say!("");
    let server = Server::ourselves(&stentor_arguments("uring", "1", "0"))?;
    let connects = connect::measure(
        server.target.clone(),
        Some(&server.process),
        1_000,
        Duration::from_secs(5),
    )?;
    if let Some(ns) = connects.ns {
        say!(
            "{:47} {:>7.1} us of CPU, {:.0} a second",
            "a connection made, Socket.IO handshake included",
            ns.median / 1e3,
            connects.per_second
        );
    }
    drop(server);
    let limit = crate::system::raise_descriptors(u64::from(IDLE_CLIENTS) + 64);
    let clients = IDLE_CLIENTS.min(limit.unwrap_or(1_024).saturating_sub(64) as u32);
    let server = Server::ourselves(&stentor_arguments("uring", "1", "0"))?;
    let process = Some(&server.process);
    let idle = idle::measure(server.target.clone(), process, clients, Duration::from_secs(3))?;
    if let Some(bytes) = idle.bytes_per_client {
        say!("{:47} {bytes:>7.0} B", format!("memory of an idle client, {clients} of them"));
    }
    if saturated {
        say!("\nThe generator was saturated in some rows: rates there are its own.");
    }
    say!("\nEvery delivery was in order and intact. `loadtest --help` shows what else there is.");
    Ok(())
}

/// One row; whether the generator was saturated.
fn show(case: Case, pace: Pace, rules: &Rules) -> Result<bool, Failure> {
    let mut contest = Contest::new(rules, case);
    contest.base()?;
    contest.stentor(Driver::Uring, 1, Transport::Websocket)?;
    contest.connect()?;
    let lines = contest.measure(pace)?;
    let [floor, stentor] = &lines[..] else { return Ok(false) };
    let (us, ratio) = (|ns: f64| ns / 1e3, stentor.ratio);
    say!(
        "{:47} {:>10.2} {:>10.2} {:>18} {:>11.0} {:>10.1}",
        case.name(pace),
        us(stentor.ns.median),
        us(floor.ns.median),
        format!("{:.2} ({:.2}..{:.2})", ratio.median, ratio.p10, ratio.p90),
        stentor.per_second,
        stentor.latency.p99_us as f64 / 1e3
    );
    Ok(stentor.generator_share > crate::report::SATURATED)
}
