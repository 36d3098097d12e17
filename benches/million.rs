//! What a million sessions cost one server: memory of each, time of every kind of turn.
//!
//! ```text
//! cargo bench --bench million -- --sessions 1000000 --shards 2 --transport polling
//! ```
//!
//! The whole server runs over the simulated network, muted: what clients send is there at once,
//! what the server sends is taken whole and thrown away. So the figures are those of user code
//! alone; a kernel's part comes on top. All shards run on one thread: their costs are summed, the
//! mail between them included.
//!
//! The clients are bare connections (a few hundred bytes of the network's own, measured apart and
//! not counted as the server's), scripted here byte by byte. Each has one socket in the room
//! `all`; some are in one small room more. Sessions come evenly over one ping interval, and have
//! lived through one heartbeat when their memory is measured.
//!
//! Times are the thread's CPU time; of repeated measurements the median. In the time of an event,
//! a connection or a poll is the simulated network's part, and the counting of every allocation.

#![allow(clippy::print_stdout, reason = "it prints its table")]

use std::alloc::System;
use std::time::Duration;

use clap::{Parser, ValueEnum};
use cpu_time::ThreadTime;
use stats_alloc::{INSTRUMENTED_SYSTEM, StatsAlloc};
use stentor::sim::{Faults, Raw, Sim};
use stentor::{Data, Server, Socket};

#[global_allocator]
static HEAP: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// The data of an event: 64 bytes with its head.
const TEXT: &str = "the quick brown fox jumps over the lazy dog..";
const PING_INTERVAL: Duration = Duration::from_secs(25);
/// The resolution of the server's deadlines.
const TICK: Duration = Duration::from_millis(8);
/// Ticks over which the sessions come.
const TICKS: usize = (PING_INTERVAL.as_millis() / TICK.as_millis()) as usize - 2;
/// Clients whose bytes are handed over at once where nothing is said of a turn.
const AT_ONCE: usize = 320;
const SMALL_ROOM: usize = 10;
const SMALL_ROOMS_MAX: usize = 1000;
/// Sessions that are picked, evenly, for what one session does.
const PICKED_MAX: usize = 2000;
/// What a small measurement is repeated.
const ROUNDS: usize = 200;
/// How often everybody is reached.
const BROADCASTS: usize = 7;
/// Deliveries on one shard from which on a burst of broadcasts may take more than one turn. Clients
/// that the first of them sent to then have more to come.
const ONE_TURN: usize = 1 << 20;
/// So many of them at most.
const SENT_EARLY: usize = 16 * 256;

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Transport {
    Websocket,
    Polling,
}

/// Memory and time per turn of a server with many sessions, over the simulated network.
#[derive(Debug, Parser)]
struct Options {
    /// Sessions, each with one socket.
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(100..))]
    sessions: u32,
    /// Shards; all run on this thread.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=64))]
    shards: u16,
    /// How the clients travel.
    #[arg(long, value_enum, default_value_t = Transport::Websocket)]
    transport: Transport,
    /// All sessions come in one tick of the clock, so that all are pinged in one turn.
    #[arg(long)]
    together: bool,
    /// What cargo says to every bench.
    #[arg(long, hide = true)]
    bench: bool,
}

/// Bytes of the heap that are in use.
fn live() -> usize {
    let stats = HEAP.stats();
    stats.bytes_allocated - stats.bytes_deallocated
}

/// Bytes of the process that are in memory; 0 where the system does not say.
fn resident() -> usize {
    let text = std::fs::read_to_string("/proc/self/smaps_rollup").unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("Rss:"));
    let kib = line.and_then(|line| line.trim().trim_end_matches("kB").trim().parse().ok());
    kib.unwrap_or(0usize) * 1024
}

fn timed(act: impl FnOnce()) -> Duration {
    let start = ThreadTime::now();
    act();
    start.elapsed()
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times.get(times.len() / 2).copied().unwrap_or_default()
}

/// A whole frame of a client. Its mask is 0, which costs as much to take off as any other.
fn frame(payload: &str) -> Vec<u8> {
    assert!(payload.len() <= 125, "one byte of length");
    let mut frame = vec![0x81, 0x80 | payload.len() as u8, 0, 0, 0, 0];
    frame.extend_from_slice(payload.as_bytes());
    frame
}

/// A request as a small client makes it; browsers say three times as much.
fn request(method: &str, transport: &str, sid: &str, rest: &str) -> Vec<u8> {
    let sid = if sid.is_empty() { String::new() } else { format!("&sid={sid}") };
    format!(
        "{method} /socket.io/?EIO=4&transport={transport}{sid} HTTP/1.1\r\n\
         Host: 127.0.0.1:3000\r\nUser-Agent: million\r\n{rest}\r\n"
    )
    .into_bytes()
}

fn upgrade() -> Vec<u8> {
    let fields = "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n\
                  Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
    request("GET", "websocket", "", fields)
}

fn poll(sid: &str) -> Vec<u8> {
    request("GET", "polling", sid, "")
}

fn post(sid: &str, packet: &str) -> Vec<u8> {
    let fields = format!("Content-Type: text/plain\r\nContent-Length: {}\r\n", packet.len());
    let mut bytes = request("POST", "polling", sid, &fields);
    bytes.extend_from_slice(packet.as_bytes());
    bytes
}

#[derive(Debug, Clone, Copy)]
struct Client {
    link: Raw,
    /// Polling only. Ours are always 20 characters long.
    sid: [u8; 20],
}

impl Client {
    fn sid(&self) -> &str {
        std::str::from_utf8(&self.sid).expect("ids are ASCII")
    }
}

/// The server, its clients, and what of the heap is theirs.
struct World {
    sim: Sim,
    transport: Transport,
    shards: usize,
    clients: Vec<Client>,
    network_bytes: usize,
    connecting: Duration,
}

impl World {
    fn new(options: &Options) -> Self {
        let sessions = options.sessions as usize;
        let server = Server::builder()
            .shards(usize::from(options.shards))
            .ping_interval(PING_INTERVAL)
            .max_connections(sessions + PICKED_MAX + 1)
            .namespace("/", |ns| {
                ns.on_connect(|socket: Socket| socket.join("all"));
                ns.on("join", |socket: Socket, Data(room): Data<String>| socket.join(room));
                ns.on("echo", |Data(text): Data<String>| text);
            });
        let at_once = Faults { delay: Duration::ZERO..=Duration::ZERO, ..Faults::kind() };
        let mut sim = Sim::new(server, 1, at_once).expect("a legal configuration");
        sim.mute(true);
        Self {
            sim,
            transport: options.transport,
            shards: usize::from(options.shards),
            clients: Vec::with_capacity(sessions),
            network_bytes: 0,
            connecting: Duration::ZERO,
        }
    }

    /// Everything that can happen now does.
    fn settle(&mut self) {
        self.sim.run_for(Duration::ZERO);
    }

    /// Makes sessions with a socket each, and counts what it costs the server.
    fn connect(&mut self, count: usize) -> Duration {
        let before = live();
        let shards = self.shards;
        let links: Vec<Raw> = (0..count).map(|at| self.sim.open(Some(at % shards))).collect();
        self.network_bytes += live() - before - links.capacity() * size_of::<Raw>();
        let start = ThreadTime::now();
        let first = self.clients.len();
        match self.transport {
            Transport::Websocket => {
                let (upgrade, join) = (upgrade(), frame("40"));
                links.iter().for_each(|&link| self.sim.send(link, &upgrade));
                self.settle();
                links.iter().for_each(|&link| self.sim.send(link, &join));
                self.settle();
                self.clients.extend(links.into_iter().map(|link| Client { link, sid: [0; 20] }));
            }
            Transport::Polling => {
                // Only the server knows the ids: its answers are needed.
                self.sim.mute(false);
                links.iter().for_each(|&link| self.sim.send(link, &poll("")));
                self.settle();
                for link in links {
                    let answer = self.sim.receive(link);
                    let text = std::str::from_utf8(&answer).expect("text");
                    let (_, rest) = text.split_once("\"sid\":\"").expect("an open packet");
                    let sid = rest.as_bytes()[..20].try_into().expect("20 bytes");
                    self.clients.push(Client { link, sid });
                }
                self.answered(first, |client| post(client.sid(), "40"), "ok");
                self.answered(first, |client| poll(client.sid()), "40{");
                self.sim.mute(true);
                self.poll_again(first..self.clients.len());
            }
        }
        start.elapsed()
    }

    /// One request of every client from `first` on, and its answer.
    fn answered(&mut self, first: usize, request: impl Fn(&Client) -> Vec<u8>, holds: &str) {
        for client in &self.clients[first..] {
            self.sim.send(client.link, &request(client));
        }
        self.settle();
        for client in &self.clients[first..] {
            let answer = self.sim.receive(client.link);
            let text = std::str::from_utf8(&answer).expect("text");
            assert!(text.starts_with("HTTP/1.1 200") && text.contains(holds), "{text}");
        }
    }

    /// What polling clients do when their poll was answered.
    fn poll_again(&mut self, clients: std::ops::Range<usize>) {
        if self.transport == Transport::Polling {
            for clients in self.clients[clients].chunks(AT_ONCE) {
                for client in clients {
                    self.sim.send(client.link, &poll(client.sid()));
                }
                self.sim.run_for(Duration::ZERO);
            }
        }
    }

    /// The first clients poll until nothing more comes.
    fn poll_until_quiet(&mut self, clients: usize) {
        if self.transport == Transport::Polling {
            for at in 0..clients {
                let (link, poll) = (self.clients[at].link, poll(self.clients[at].sid()));
                let answered = |world: &mut Self| {
                    let sends = world.sends();
                    world.sim.send(link, &poll);
                    world.settle();
                    world.sends() > sends
                };
                while answered(self) {}
            }
        }
    }

    fn say(&mut self, link: Raw, client: Client, packet: &str) {
        match self.transport {
            Transport::Websocket => self.sim.send(link, &frame(packet)),
            Transport::Polling => self.sim.send(link, &post(client.sid(), packet)),
        }
    }

    fn sends(&self) -> u64 {
        self.sim.stats().sends
    }

    /// Sessions at even distances.
    fn picked(&self, count: usize) -> Vec<Client> {
        let step = (self.clients.len() / count).max(1);
        self.clients.iter().step_by(step).take(count).copied().collect()
    }
}

fn row(name: &str, value: f64, unit: &str) {
    let decimals = if value < 100.0 { 1 } else { 0 };
    println!("{name:<52} {value:>12.decimals$} {unit}");
}

fn row_time(name: &str, time: Duration, per: usize, unit: &str) {
    row(name, time.as_nanos() as f64 / per as f64, unit);
}

fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

/// All sessions come; a batch in each tick.
fn arrive(world: &mut World, sessions: usize, together: bool) -> Vec<usize> {
    let batch = if together { AT_ONCE } else { sessions.div_ceil(TICKS) };
    let (mut ends, mut slowest) = (Vec::new(), Duration::ZERO);
    while world.clients.len() < sessions {
        let count = batch.min(sessions - world.clients.len());
        let time = world.connect(count);
        world.connecting += time;
        slowest = slowest.max(time);
        ends.push(world.clients.len());
        if !together {
            world.sim.run_for(TICK);
        }
    }
    row_time("a connection made, on the way there", world.connecting, sessions, "ns");
    row(&format!("the slowest {batch} in a row, together"), millis(slowest), "ms");
    assert_eq!(world.sim.handle().sessions(), sessions);
    ends
}

/// One ping and its answer of every session. `ends`: where the batches end.
fn heartbeats(world: &mut World, ends: &[usize], together: bool) {
    let now = world.sim.now();
    world.sim.run_for((PING_INTERVAL - TICK).saturating_sub(now));
    let (mut pings, mut pongs, mut longest) = (Duration::ZERO, Duration::ZERO, Duration::ZERO);
    let sends = world.sends();
    let mut answer = |world: &mut World, clients: std::ops::Range<usize>| {
        pongs += timed(|| {
            for start in clients.clone().step_by(AT_ONCE) {
                let clients = start..(start + AT_ONCE).min(clients.end);
                for at in clients.clone() {
                    let client = world.clients[at];
                    world.say(client.link, client, "3");
                }
                world.settle();
                world.poll_again(clients);
            }
        });
    };
    if together {
        pings = timed(|| world.sim.run_for(TICK));
        longest = pings;
        answer(world, 0..world.clients.len());
    } else {
        let mut first = 0;
        for &end in ends {
            let time = timed(|| world.sim.run_for(TICK));
            pings += time;
            longest = longest.max(time);
            answer(world, first..end);
            first = end;
        }
    }
    let sessions = world.clients.len();
    // By polling the POST and the GET after it have answers of their own.
    let requests = if world.transport == Transport::Polling { 1 } else { 0 };
    let expected = (1 + requests) * sessions as u64;
    assert_eq!(world.sends() - sends, expected, "everybody was pinged once");
    assert_eq!(world.sim.handle().sessions(), sessions, "and nobody was lost");
    row_time("heartbeat: one session's ping", pings, sessions, "ns");
    row_time("heartbeat: its pong (polling: and its next poll)", pongs, sessions, "ns");
    row("heartbeat: all pings of a round", millis(pings), "ms");
    row("heartbeat: the longest tick", millis(longest), "ms");
    let share = (pings + pongs).as_secs_f64() / PING_INTERVAL.as_secs_f64() * 100.0;
    row("heartbeat: share of one core", share, "%");
}

/// `before`: heap and resident bytes of a server without clients.
fn memory(world: &World, before: (usize, usize)) {
    let sessions = world.clients.len();
    let server = live() - before.0 - world.network_bytes;
    let resident = resident().saturating_sub(before.1 + world.network_bytes);
    row("heap of the server without clients", before.0 as f64 / 1024.0, "KiB");
    row("heap of a session, room to grow included", server as f64 / sessions as f64, "B");
    row("resident, of a session", resident as f64 / sessions as f64, "B");
    row("heap of the simulated network, per session", per(world.network_bytes, sessions), "B");
    println!();
}

fn per(bytes: usize, sessions: usize) -> f64 {
    bytes as f64 / sessions as f64
}

fn broadcasts(world: &mut World) {
    let sessions = world.clients.len();
    let all = world.sim.handle().to("all");
    for outstanding in [1, 16] {
        let (mut times, mut polls) = (Vec::new(), Vec::new());
        for _ in 0..BROADCASTS {
            let sends = world.sends();
            times.push(timed(|| {
                for _ in 0..outstanding {
                    all.emit("news", TEXT).expect("the mailbox has room");
                }
                world.settle();
            }));
            // Many broadcasts take more than one turn, and some clients are sent to twice.
            let sent = (world.sends() - sends) as usize;
            assert!((sessions..sessions + sessions / 4).contains(&sent), "one send to each");
            let one_turn = sessions / world.shards * outstanding < ONE_TURN;
            let early = if one_turn { 0 } else { (SENT_EARLY * world.shards).min(sessions) };
            world.poll_until_quiet(early);
            polls.push(timed(|| world.poll_again(early..sessions)));
        }
        let name = format!("broadcast to all, W={outstanding}");
        let time = median(times);
        row_time(&format!("{name}: a delivery"), time, sessions * outstanding, "ns");
        row(&format!("{name}: all of it"), millis(time), "ms");
        if world.transport == Transport::Polling {
            row_time(&format!("{name}: a poll after it"), median(polls), sessions, "ns");
        }
    }
}

fn quiet_turns(world: &mut World) {
    let nobody = world.sim.handle().to("nobody");
    let turns = world.sim.stats().turns;
    let mut times = Vec::new();
    for _ in 0..ROUNDS {
        times.push(timed(|| {
            nobody.emit("news", TEXT).expect("the mailbox has room");
            world.settle();
        }));
    }
    let turns = (world.sim.stats().turns - turns) as usize / ROUNDS;
    row_time("a turn with nothing to send (a letter to nobody)", median(times), turns, "ns");
}

fn small_rooms(world: &mut World) {
    let rooms = (world.clients.len() / SMALL_ROOM / 10).clamp(1, SMALL_ROOMS_MAX);
    let members = world.picked(rooms * SMALL_ROOM);
    for (at, client) in members.iter().enumerate() {
        // Members of one room are far from each other.
        let packet = format!("42[\"join\",\"few {}\"]", at % rooms);
        // A polling client's connection has a poll pending: it takes another one to speak.
        let link = match world.transport {
            Transport::Websocket => client.link,
            Transport::Polling => world.sim.open(Some(at % world.shards)),
        };
        world.say(link, *client, &packet);
        world.settle();
        if world.transport == Transport::Polling {
            world.sim.hang_up(link);
        }
    }
    world.settle();
    let (sends, handle) = (world.sends(), world.sim.handle());
    let names: Vec<String> = (0..rooms).map(|room| format!("few {room}")).collect();
    let times = names.iter().map(|name| {
        timed(|| {
            handle.to(name.as_str()).emit("news", TEXT).expect("the mailbox has room");
            world.sim.run_for(Duration::ZERO);
        })
    });
    let time = median(times.collect());
    assert_eq!(world.sends() - sends, (rooms * SMALL_ROOM) as u64, "one send to each member");
    row_time("broadcast to a room of 10", time, 1, "ns");
    row_time("broadcast to a room of 10: a delivery", time, SMALL_ROOM, "ns");
    for client in members {
        if world.transport == Transport::Polling {
            world.sim.send(client.link, &poll(client.sid()));
        }
    }
    world.settle();
}

fn echoes(world: &mut World) {
    let clients = world.picked(PICKED_MAX.min(world.clients.len() / 10));
    let packet = format!("421[\"echo\",\"{TEXT}\"]");
    let links: Vec<Raw> = match world.transport {
        Transport::Websocket => clients.iter().map(|client| client.link).collect(),
        Transport::Polling => {
            (0..clients.len()).map(|at| world.sim.open(Some(at % world.shards))).collect()
        }
    };
    world.settle();
    // The first round may find connections on another shard than their session: it moves them.
    for round in 0..2 {
        let sends = world.sends();
        let mut times = Vec::new();
        for (&client, &link) in clients.iter().zip(&links) {
            times.push(timed(|| {
                world.say(link, client, &packet);
                world.settle();
            }));
            if world.transport == Transport::Polling {
                world.sim.send(client.link, &poll(client.sid()));
                world.settle();
            }
        }
        let answers = if world.transport == Transport::Polling { 2 } else { 1 };
        assert_eq!(world.sends() - sends, answers * clients.len() as u64, "all are answered");
        if round == 1 {
            row_time("echo, alone in its turn", median(times), 1, "ns");
        }
    }
    let mut times = Vec::new();
    for _ in 0..BROADCASTS {
        times.push(timed(|| {
            for (&client, &link) in clients.iter().zip(&links) {
                world.say(link, client, &packet);
            }
            world.settle();
        }));
        if world.transport == Transport::Polling {
            clients.iter().for_each(|client| world.sim.send(client.link, &poll(client.sid())));
            world.settle();
        }
    }
    row_time(&format!("echo, {} at once", clients.len()), median(times), clients.len(), "ns");
    if world.transport == Transport::Polling {
        links.into_iter().for_each(|link| world.sim.hang_up(link));
        world.settle();
    }
}

fn comings_and_goings(world: &mut World) {
    let sessions = world.clients.len();
    let (mut made, mut closed) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        made.push(world.connect(1));
        let client = world.clients.pop().expect("just connected");
        closed.push(timed(|| {
            match world.transport {
                Transport::Websocket => world.sim.hang_up(client.link),
                Transport::Polling => {
                    let link = world.sim.open(Some(0));
                    world.say(link, client, "1");
                    world.settle();
                    world.sim.hang_up(link);
                    world.sim.hang_up(client.link);
                }
            }
            world.settle();
        }));
        assert_eq!(world.sim.handle().sessions(), sessions);
    }
    row_time("one connection made among them", median(made), 1, "ns");
    row_time("one connection closed among them", median(closed), 1, "ns");
}

fn main() {
    let options = Options::parse();
    let sessions = options.sessions as usize;
    let transport = format!("{:?}", options.transport).to_lowercase();
    println!("{sessions} sessions, {} shards, {transport}\n", options.shards);
    let nothing = live();
    let mut world = World::new(&options);
    world.settle();
    let clients = world.clients.capacity() * size_of::<Client>();
    row("heap of an empty server", (live() - nothing - clients) as f64 / 1024.0, "KiB");
    // The clients' own list is written to, and so in memory, before it is filled.
    let filler = Client { link: world.sim.open(None), sid: [0; 20] };
    world.clients.resize(sessions, filler);
    world.clients.clear();
    world.sim.hang_up(filler.link);
    world.settle();
    let before = (live(), resident());
    let ends = arrive(&mut world, sessions, options.together);
    heartbeats(&mut world, &ends, options.together);
    println!();
    memory(&world, before);
    quiet_turns(&mut world);
    broadcasts(&mut world);
    small_rooms(&mut world);
    echoes(&mut world);
    comings_and_goings(&mut world);
}
