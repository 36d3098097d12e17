//! What a shard's turn costs without a kernel: per inbound event, per recipient of a broadcast.
//!
//! ```text
//! cargo bench --bench turn [-- <part of a name>]
//! ```
//!
//! A whole server over the simulated network in its mute mode: what clients send is there at once,
//! what the server sends is taken whole and thrown away. `inbound/nothing` shows what is left of
//! the network in the other figures of its group: the same bytes, in a frame that ends at the
//! WebSocket. The figures are per element: an event, a recipient, or a delivery (`W` broadcasts to
//! each recipient, which leave in one send).

use std::hint::black_box;
use std::time::Duration;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use stentor::sim::{Client, ConnectOptions, Faults, Sim, State};
use stentor::{Data, Server, Socket};

/// The data of an event: 64 bytes with its head.
const TEXT: &str = "the quick brown fox jumps over the lazy dog..";

/// A server and its clients, of which the tenth part is in the room `tenth`, and half in `half`.
fn served(clients: usize) -> (Sim, Vec<Client>) {
    let server = Server::builder().namespace("/", |ns| {
        ns.on_connect(|socket: Socket| socket.join("all"));
        ns.on("join", |socket: Socket, Data(room): Data<String>| socket.join(room));
        ns.on("echo", |Data(text): Data<String>| text);
        ns.on("note", |Data(text): Data<String>| drop(black_box(text)));
    });
    let mut sim = Sim::new(server, 1, Faults::kind()).expect("a legal configuration");
    let clients: Vec<Client> =
        (0..clients).map(|_| sim.connect(ConnectOptions::default())).collect();
    for (count, &client) in clients.iter().enumerate() {
        if count % 10 == 0 {
            sim.emit(client, "join", "tenth");
        }
        if count % 2 == 0 {
            sim.emit(client, "join", "half");
        }
    }
    sim.run_for(Duration::from_secs(1));
    assert!(clients.iter().all(|&client| sim.state(client) == State::Connected));
    sim.mute(true);
    (sim, clients)
}

/// A whole frame of a client. Its mask is 0, which costs as much to take off as any other.
fn frame(opcode: u8, payload: &str) -> Vec<u8> {
    assert!(payload.len() <= 125, "one byte of length");
    let mut frame = vec![0x80 | opcode, 0x80 | payload.len() as u8, 0, 0, 0, 0];
    frame.extend_from_slice(payload.as_bytes());
    frame
}

fn inbound(c: &mut Criterion) {
    const CLIENTS: usize = 100;
    let cases = [
        ("nothing", frame(10, &format!("421[\"echo\",\"{TEXT}\"]"))),
        ("event", frame(1, &format!("42[\"note\",\"{TEXT}\"]"))),
        ("event with ack", frame(1, &format!("421[\"echo\",\"{TEXT}\"]"))),
        ("event nobody handles", frame(1, &format!("42[\"nobody\",\"{TEXT}\"]"))),
    ];
    let mut group = c.benchmark_group("inbound");
    group.throughput(Throughput::Elements(CLIENTS as u64));
    let (mut sim, clients) = served(CLIENTS);
    for (name, frame) in &cases {
        group.bench_function(*name, |b| {
            b.iter(|| {
                for &client in &clients {
                    sim.send_raw(client, frame);
                }
                sim.run_for(Duration::ZERO);
            });
        });
    }
    group.finish();
}

fn broadcast(c: &mut Criterion) {
    let mut group = c.benchmark_group("broadcast");
    for members in [1_000, 10_000] {
        let (mut sim, _clients) = served(members);
        for outstanding in [1, 16] {
            let id = BenchmarkId::new(format!("{members} members"), format!("W={outstanding}"));
            let all = sim.handle().to("all");
            group.throughput(Throughput::Elements((members * outstanding) as u64));
            group.bench_function(id, |b| {
                b.iter(|| {
                    for _ in 0..outstanding {
                        all.emit("news", TEXT).expect("the mailbox has room");
                    }
                    sim.run_for(Duration::ZERO);
                });
            });
        }
        // Every second member is in both rooms, nine tenths of all get it.
        let union = sim.handle().to(["all", "half"]).except("tenth");
        group.throughput(Throughput::Elements((members - members / 10) as u64));
        group.bench_function(
            BenchmarkId::new(format!("{members} members"), "union, except"),
            |b| {
                b.iter(|| {
                    union.emit("news", TEXT).expect("the mailbox has room");
                    sim.run_for(Duration::ZERO);
                });
            },
        );
        let everyone = sim.handle().everyone();
        group.throughput(Throughput::Elements(members as u64));
        group.bench_function(BenchmarkId::new(format!("{members} members"), "namespace"), |b| {
            b.iter(|| {
                everyone.emit("news", TEXT).expect("the mailbox has room");
                sim.run_for(Duration::ZERO);
            });
        });
    }
    group.finish();
}

criterion_group!(benches, inbound, broadcast);
criterion_main!(benches);
