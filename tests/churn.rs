//! Thousands of connections that come and go in every way there is, and nothing left of them.
//!
//! The clients are another process (this test binary again, told so by an environment variable), so
//! that memory and descriptors here are the server's alone. By default a thousand clients churn for
//! a second or two; with `STENTOR_TESTS_LONG=1`, as `tests/run` sets it, ten thousand for a minute.

#[path = "support/raw.rs"]
mod raw;
#[path = "support/tools.rs"]
mod tools;

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use raw::{
    CLOSE, Client, FIN, Polling, Raw, TestServer, WEBSOCKET, frame, on_both_drivers,
    resident_bytes, text, until, upgrade,
};
use stentor::{Data, DriverKind, Socket};

/// One after the other: memory is measured.
static ALONE: Mutex<()> = Mutex::new(());

/// Where the clients find their server, how many they are, and for how many milliseconds.
const ORDERS: &str = "STENTOR_TESTS_CHURN";

struct Plan {
    clients: usize,
    warm_up: Duration,
    churn: Duration,
    /// How long a client that vanished is pinged, and then waited for.
    ping: Duration,
}

fn plan() -> Plan {
    if std::env::var_os("STENTOR_TESTS_LONG").is_none() {
        let line = "left out: ten thousand clients for a minute (STENTOR_TESTS_LONG=1 has them)\n";
        let _ = std::io::stderr().write_all(line.as_bytes());
        let warm_up = Duration::from_millis(500);
        let (churn, ping) = (Duration::from_secs(1), Duration::from_millis(700));
        return Plan { clients: 1_000, warm_up, churn, ping };
    }
    // Each process holds one end of every connection.
    let clients = descriptors_max().saturating_sub(500).min(10_000);
    if clients < 10_000 {
        let line = format!("left out: all but {clients} clients, for want of descriptors\n");
        let _ = std::io::stderr().write_all(line.as_bytes());
    }
    let (warm_up, churn) = (Duration::from_secs(10), Duration::from_secs(60));
    Plan { clients, warm_up, churn, ping: Duration::from_secs(4) }
}

/// The hard limit of this process.
fn descriptors_max() -> usize {
    let limits = std::fs::read_to_string("/proc/self/limits").unwrap_or_default();
    let line = limits.lines().find(|line| line.starts_with("Max open files"));
    let hard = line.and_then(|line| line.split_whitespace().nth(4)?.parse().ok());
    hard.unwrap_or(1_024)
}

fn descriptors_open() -> Option<usize> {
    Some(std::fs::read_dir("/proc/self/fd").ok()?.count())
}

/// Runs the clients until they have all gone.
fn run_clients(addr: SocketAddr, clients: usize, time: Duration) {
    let this = std::env::current_exe().expect("a running test has a path");
    // Clients need as many descriptors as the server, which sees to that itself.
    let script = "ulimit -n $(ulimit -Hn) && exec \"$0\" \"$@\"";
    let status = Command::new("sh")
        .args(["-c", script])
        .arg(this)
        .args(["--exact", "the_clients", "--nocapture"])
        .env(ORDERS, format!("{addr} {clients} {}", time.as_millis()))
        .status()
        .expect("a shell");
    assert!(status.success(), "the clients: {status}");
}

fn nothing_is_left_of_clients_that_come_and_go(driver: DriverKind) {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let plan = plan();
    let server = TestServer::start_on(driver, 2, |builder| {
        builder
            .ping_interval(plan.ping)
            .ping_timeout(plan.ping)
            .upgrade_timeout(Duration::from_secs(2))
            .namespace("/", |ns| {
                ns.on("join", |socket: Socket, Data(room): Data<String>| socket.join(room));
                ns.on("leave", |socket: Socket, Data(room): Data<String>| socket.leave(room));
                ns.on("later", async || tokio::time::sleep(Duration::from_secs(1)).await);
            })
            .namespace("/other", |_| {})
    });
    let over = Arc::new(AtomicBool::new(false));
    let publisher = thread::spawn({
        let (over, handle) = (over.clone(), server.handle.clone());
        move || {
            for round in 0_u32.. {
                if over.load(Ordering::Acquire) {
                    break;
                }
                handle.to(format!("room-{}", round % ROOMS)).emit("news", round).expect("mail");
                if round % 10 == 0 {
                    handle.emit("tick", round).expect("mail");
                }
                thread::sleep(Duration::from_millis(100));
            }
        }
    });
    let everybody_is_gone = || server.handle.sessions() == 0 && server.handle.connections() == 0;

    run_clients(server.addr, plan.clients, plan.warm_up);
    until("everybody is gone after the first round", everybody_is_gone);
    let (warm, descriptors) = (resident_bytes(), descriptors_open());
    run_clients(server.addr, plan.clients, plan.churn);
    until("everybody is gone", everybody_is_gone);
    until("descriptors are closed", || descriptors_open() <= descriptors);
    if let (Some(warm), Some(after)) = (warm, resident_bytes()) {
        // Of a small process, a tenth is less than what the allocator keeps at hand.
        let allowed = warm + (warm / 10).max(2 * 1024 * 1024);
        assert!(after <= allowed, "{warm} bytes after the first round, {after} after the last");
    }
    over.store(true, Ordering::Release);
    publisher.join().expect("no panic");
}

on_both_drivers! {
    nothing_is_left_of_clients_that_come_and_go,
}

// ---- the clients ----

const ROOMS: u32 = 50;

/// No test of its own: what the test above runs in another process.
#[test]
fn the_clients() {
    let Some(orders) = std::env::var_os(ORDERS) else { return };
    let orders = orders.into_string().expect("text");
    let [addr, clients, millis] = orders.split(' ').collect::<Vec<_>>()[..] else {
        panic!("three orders: {orders}");
    };
    let clients: usize = clients.parse().expect("a number");
    let time = Duration::from_millis(millis.parse().expect("a number"));
    Churn::new(addr.parse().expect("an address"), clients).run(time);
}

/// The clients, and dice that fall the same way each time.
struct Churn {
    addr: SocketAddr,
    dice: u64,
    clients: Vec<Option<Guest>>,
    /// Whose turn it is to be looked after.
    next: usize,
}

enum Guest {
    WebSocket(Raw),
    /// A poll waits.
    Polling(Polling),
}

impl Churn {
    fn new(addr: SocketAddr, clients: usize) -> Self {
        let clients = (0..clients).map(|_| None).collect();
        Self { addr, dice: 0x9e37_79b9_7f4a_7c15, clients, next: 0 }
    }

    fn roll(&mut self, sides: u32) -> u32 {
        self.dice ^= self.dice << 13;
        self.dice ^= self.dice >> 7;
        self.dice ^= self.dice << 17;
        (self.dice >> 33) as u32 % sides
    }

    /// Fills every place, then lets guests change places until the time is up, then sends all away.
    fn run(mut self, time: Duration) {
        for place in 0..self.clients.len() {
            self.clients[place] = Some(self.come());
            self.look_after(20);
        }
        let (started, mut changes) = (Instant::now(), 0);
        while started.elapsed() < time {
            let place = self.roll(self.clients.len() as u32) as usize;
            if let Some(guest) = self.clients[place].take() {
                self.go(guest);
            }
            self.clients[place] = Some(self.come());
            self.look_after(50);
            changes += 1;
        }
        let line = format!("{} clients, {changes} changes of place\n", self.clients.len());
        let _ = std::io::stderr().write_all(line.as_bytes());
        for place in 0..self.clients.len() {
            if let Some(guest) = self.clients[place].take() {
                self.go(guest);
            }
            self.look_after(20);
        }
    }

    /// A source address per few connections: no port is wanted twice.
    fn connect(&mut self) -> Raw {
        let source = [127, 0, 0, 2 + self.roll(200) as u8];
        Raw::connect_from(source.into(), self.addr)
    }

    fn come(&mut self) -> Guest {
        let room = self.roll(ROOMS);
        match self.roll(10) {
            0 => {
                let mut polling = Polling::connect_on(self.connect());
                polling.post(&format!(r#"42["join","room-{room}"]"#));
                polling.begin_poll();
                Guest::Polling(polling)
            }
            1 => {
                let polling = Polling::connect_on(self.connect());
                let mut raw = self.connect();
                raw.send(upgrade(&polling.upgrade_target()));
                raw.send([text("2probe"), text("5")].concat());
                raw.expect_switch();
                assert_eq!(raw.text(), "3probe");
                raw.send(text(&format!(r#"42["join","room-{room}"]"#)));
                Guest::WebSocket(raw)
            }
            kind => {
                let mut client = Client::connect_over(self.connect(), WEBSOCKET, "");
                client.send(&format!(r#"42["join","room-{room}"]"#));
                if kind == 2 {
                    client.send("40/other,");
                    client.send(r#"42["later"]"#);
                }
                if kind == 3 {
                    client.send(&format!(r#"42["leave","room-{room}"]"#));
                }
                Guest::WebSocket(client.raw)
            }
        }
    }

    fn go(&mut self, guest: Guest) {
        match guest {
            Guest::WebSocket(mut raw) => {
                let last = match self.roll(9) {
                    0 => frame(FIN | CLOSE, &[3, 232]),
                    1 => text("1"),
                    2 => text("41"),
                    3 => vec![0xff; 20],
                    4 => text("not a packet"),
                    5 => frame(FIN | CLOSE, &[3, 232])[..3].to_vec(),
                    6 => return raw.reset(),
                    7 => {
                        // Unless the server was first.
                        if raw.stream.shutdown(Shutdown::Write).is_ok() {
                            raw.rest();
                        }
                        return;
                    }
                    _ => return,
                };
                // The server may have closed it already.
                let _ = raw.stream.write_all(&last);
            }
            Guest::Polling(polling) => match self.roll(4) {
                0 => {
                    let mut raw = self.connect();
                    raw.send(raw::post(polling.target(), "1"));
                    raw.response();
                }
                1 => {
                    // A candidate that never makes up its mind.
                    let mut raw = self.connect();
                    raw.send([upgrade(&polling.upgrade_target()), "x".to_owned()].concat());
                    raw.head();
                    polling.raw.reset();
                }
                2 => polling.raw.reset(),
                _ => {}
            },
        }
    }

    /// Reads what has come for the next few guests, and answers pings.
    fn look_after(&mut self, few: usize) {
        for _ in 0..few {
            self.next = (self.next + 1) % self.clients.len();
            let place = &mut self.clients[self.next];
            if place.as_mut().is_some_and(|guest| !guest.is_well()) {
                *place = None;
            }
        }
    }
}

impl Guest {
    /// `false`: the server has ended it.
    fn is_well(&mut self) -> bool {
        let raw = match self {
            Self::WebSocket(raw) => raw,
            Self::Polling(polling) => &mut polling.raw,
        };
        let mut bytes = [0; 16 * 1024];
        let _ = raw.stream.set_nonblocking(true);
        let read = raw.stream.read(&mut bytes);
        let _ = raw.stream.set_nonblocking(false);
        let bytes = match read {
            Ok(0) => return false,
            Ok(len) => &bytes[..len],
            Err(error) => return error.kind() == ErrorKind::WouldBlock,
        };
        match self {
            // The frame of a ping; a chance hit in other bytes does no harm.
            Self::WebSocket(raw) => {
                let pinged = bytes.windows(3).any(|three| three == [0x81, 1, b'2']);
                !pinged || raw.stream.write_all(&text("3")).is_ok()
            }
            Self::Polling(polling) => {
                // Answers to what is written here come back to here: only polls are asked again.
                let polls = bytes.windows(10).filter(|ten| ten == b"text/plain").count();
                let pinged = bytes.ends_with(b"2") || bytes.windows(2).any(|two| two == b"\n2");
                let target = polling.target();
                let mut requests = String::new();
                if pinged && polls > 0 {
                    requests += &raw::post(target, "3");
                }
                for _ in 0..polls {
                    requests += &format!("GET {target} HTTP/1.1\r\nHost: here\r\n\r\n");
                }
                polling.raw.stream.write_all(requests.as_bytes()).is_ok()
            }
        }
    }
}
