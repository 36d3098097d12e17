//! What happens between two turns, which no client can see: slices of the flush, and what a
//! connection on its way to another shard may hold.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::{Client, ConnectOptions, Faults, Raw, Sim, Transport};
use crate::protocol::websocket::Opcode;
use crate::protocol::websocket::client::{upgrade_request, write_masked};
use crate::shard::link::LinkKind;
use crate::{Data, Server, ServerBuilder, Value};

fn server() -> ServerBuilder {
    Server::builder().namespace("/", |ns| {
        ns.on("echo", |Data(value): Data<Value>| value);
    })
}

/// Nothing takes time: what is sent in a turn is there before the next.
fn at_once() -> Faults {
    Faults { delay: Duration::ZERO..=Duration::ZERO, ..Faults::kind() }
}

fn settle(sim: &mut Sim) {
    sim.run_for(Duration::from_millis(10));
}

/// Lets what was sent arrive.
fn arrive(sim: &mut Sim) {
    sim.net.advance(sim.net.now_ms());
    while let Some(id) = sim.net.take_news() {
        sim.hear(id);
    }
}

/// One turn of the only shard, and the sends it made.
fn turn(sim: &mut Sim) -> u64 {
    let before = sim.stats().sends;
    arrive(sim);
    assert!(sim.turn(0), "there is something to do");
    arrive(sim);
    sim.stats().sends - before
}

fn crowd(sim: &mut Sim, members: usize) -> Vec<Client> {
    let crowd = (0..members).map(|_| sim.connect(ConnectOptions::default())).collect();
    settle(sim);
    sim.handle().sockets_join("crowd").unwrap();
    settle(sim);
    crowd
}

/// How many of the crowd have heard the news.
fn heard(sim: &Sim, crowd: &[Client]) -> usize {
    crowd.iter().filter(|&&member| !sim.socket(member).events.is_empty()).count()
}

fn websocket(sim: &mut Sim) -> Raw {
    let raw = sim.open(None);
    let target = "/socket.io/?EIO=4&transport=websocket";
    sim.send(raw, &upgrade_request(target, "sim", "dGhlIHNhbXBsZSBub25jZQ=="));
    settle(sim);
    assert!(sim.receive(raw).starts_with(b"HTTP/1.1 101 "));
    raw
}

/// Many slices of any size that makes sense.
const MANY: usize = 5_000;

/// Turns that an answer may take while a broadcast is under way.
const TURNS_MAX: usize = 2;

#[test]
fn answers_do_not_wait_for_a_large_broadcast() {
    let mut sim = Sim::new(server(), 1, at_once()).unwrap();
    let crowd = crowd(&mut sim, MANY);
    let asks = sim.connect(ConnectOptions::default());
    let pings = websocket(&mut sim);
    sim.handle().to("crowd").emit("news", 1).unwrap();
    turn(&mut sim);
    assert!((1..MANY / 10).contains(&heard(&sim, &crowd)), "it is under way");
    let answer = sim.emit_with_ack(asks, "echo", 1);
    let mut ping = Vec::new();
    write_masked(&mut ping, Opcode::Ping, true, [0; 4], b"pp");
    sim.send(pings, &ping);
    let other = sim.open(None);
    sim.send(other, b"GET /nowhere HTTP/1.1\r\nHost: sim\r\n\r\n");
    for _ in 0..TURNS_MAX {
        turn(&mut sim);
    }
    assert!(sim.receive(other).starts_with(b"HTTP/1.1 404 "));
    assert_eq!(sim.receive(pings), b"\x8a\x02pp");
    assert_eq!(sim.answer(answer), Some(vec![1.into()]));
    assert!(heard(&sim, &crowd) < MANY / 2, "and the broadcast still is");
    settle(&mut sim);
    assert_eq!(heard(&sim, &crowd), MANY);
}

#[test]
fn a_recipient_is_answered_before_its_turn_and_hears_all_in_order() {
    let mut sim = Sim::new(server(), 1, at_once()).unwrap();
    let crowd = crowd(&mut sim, MANY);
    let mut longest = 0;
    let rounds = 2 * TURNS_MAX as u64;
    for round in 0..rounds {
        sim.handle().to("crowd").emit("news", round).unwrap();
        turn(&mut sim);
        // Whoever is served now has waited longest: the others all stand in line.
        let few: Vec<Client> = crowd.iter().rev().copied().step_by(50).collect();
        let asked: Vec<_> = few.iter().map(|&it| sim.emit_with_ack(it, "echo", round)).collect();
        for _ in 0..TURNS_MAX {
            turn(&mut sim);
        }
        for ticket in asked {
            assert_eq!(sim.answer(ticket), Some(vec![round.into()]));
        }
        let core = sim.shards[0].as_ref().unwrap().turn.shard.core.borrow();
        longest = longest.max(core.dirty.len() + core.prompt.len());
    }
    assert!(longest < MANY + MANY / 10, "places passed over do not pile up: {longest}");
    settle(&mut sim);
    for member in crowd {
        let news = sim.events(member).into_iter().map(|(_, args)| args[0].clone());
        assert!(news.eq((0..rounds).map(Value::from)), "each once, in order");
    }
}

#[test]
fn answers_of_http_and_sessions_have_half_of_each_slice() {
    let mut sim = Sim::new(server(), 1, at_once()).unwrap();
    let crowd = crowd(&mut sim, MANY);
    let askers: Vec<Raw> = (0..MANY).map(|_| sim.open(None)).collect();
    settle(&mut sim);
    for &asker in &askers {
        sim.send(asker, b"GET /nowhere HTTP/1.1\r\nHost: sim\r\n\r\n");
    }
    sim.handle().to("crowd").emit("news", 1).unwrap();
    let mut before = (0, 0);
    let mut answered = vec![false; MANY];
    while before.0.max(before.1) < MANY {
        let sent = turn(&mut sim) as usize;
        for (answered, &asker) in answered.iter_mut().zip(&askers) {
            *answered |= !sim.receive(asker).is_empty();
        }
        let after = (heard(&sim, &crowd), answered.iter().filter(|&&is| is).count());
        let (events, answers) = (after.0 - before.0, after.1 - before.1);
        assert_eq!(events + answers, sent);
        assert!(sent < MANY / 10, "a slice is small: {sent}");
        assert!(events.abs_diff(answers) <= 1 || after.0.max(after.1) == MANY, "{after:?}");
        before = after;
    }
    settle(&mut sim);
    assert_eq!(heard(&sim, &crowd), MANY);
}

// ---- connections on their way to another shard ----

/// What a connection may leave unread, and what one read may add before reading stops.
const KEPT_MAX: usize = (64 + 16) * 1024;

#[test]
fn a_connection_on_its_way_keeps_little_and_loses_nothing() {
    let window = 8 * 1024;
    let counted = Arc::new(Mutex::new(Vec::new()));
    let counts = counted.clone();
    let server = Server::builder().shards(2).namespace("/", |ns| {
        ns.on("count", move |Data((n, _)): Data<(usize, String)>| counts.lock().unwrap().push(n));
    });
    let mut sim = Sim::new(server, 1, Faults { window, ..at_once() }).unwrap();
    let transport = Transport::Polling;
    let lives = sim.connect(ConnectOptions { shard: Some(1), transport, ..Default::default() });
    settle(&mut sim);
    let sid = sim.sid(lives).unwrap().to_owned();
    let get = |target: &str| format!("GET {target} HTTP/1.1\r\nHost: sim\r\n\r\n").into_bytes();
    let elsewhere = |body: &str| {
        let path = format!("/socket.io/?EIO=4&transport=polling&sid={sid}");
        let len = body.len();
        format!("POST {path} HTTP/1.1\r\nHost: sim\r\nContent-Length: {len}\r\n\r\n{body}")
            .into_bytes()
    };
    // It takes no answers until one is left over, and then asks for a session of the other shard.
    let client = sim.open(Some(0));
    sim.net.client_stop_reading(client.0);
    let answers = 200;
    for _ in 0..answers {
        sim.send(client, &get("/nowhere"));
        settle(&mut sim);
    }
    let leaving = |sim: &Sim| -> Vec<usize> {
        let core = sim.shards[0].as_ref().unwrap().turn.shard.core.borrow();
        let kept = |id| match &core.links.get(id)?.kind {
            LinkKind::Leaving { bytes, .. } => Some(bytes.len()),
            _ => None,
        };
        core.links.ids().into_iter().filter_map(kept).collect()
    };
    assert!(leaving(&sim).is_empty());
    let posts = 400;
    for n in 0..posts {
        sim.send(client, &elsewhere(&format!("42[\"count\",{n},\"{}\"]", "x".repeat(1_000))));
        settle(&mut sim);
    }
    let kept = leaving(&sim);
    assert!(kept.len() == 1 && kept[0] > 64 * 1024 && kept[0] <= KEPT_MAX, "{kept:?}");
    assert!(counted.lock().unwrap().is_empty());
    // It reads: nothing that it has sent was lost.
    let mut told = Vec::new();
    sim.net.client_start_reading(client.0);
    sim.run_until(Duration::from_secs(5), |sim| {
        told.extend(sim.receive(client));
        false
    });
    let told = String::from_utf8(told).unwrap();
    assert_eq!(told.matches("HTTP/1.1 404 ").count(), answers);
    assert_eq!(told.matches("HTTP/1.1 200 ").count(), posts);
    assert!(counted.lock().unwrap().iter().copied().eq(0..posts));
    assert!(leaving(&sim).is_empty());
}
