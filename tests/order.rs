//! Order between senders, in virtual time: what was sent after something else was, on whichever
//! core and however its sender came to know of it, arrives after it.

#![allow(clippy::unwrap_used)] // a failed expectation is the verdict

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use stentor::sim::{Client, ConnectOptions, Faults, Sim, State, Transport};
use stentor::{Data, Handle, Server, ServerBuilder, Socket};
use tokio::sync::mpsc;

const SHARDS: usize = 3;
const SEEDS: u64 = 100;

/// Hands out numbers in the order of sending: whoever draws the next one knows of all before it.
#[derive(Clone, Default)]
struct Numbers(Arc<AtomicU64>);

impl Numbers {
    fn next(&self) -> u64 {
        self.0.fetch_add(1, Ordering::Relaxed)
    }

    fn drawn(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// The server from outside, for handlers that want it.
#[derive(Clone, Default)]
struct Outside(Arc<Mutex<Option<Handle>>>);

impl Outside {
    fn handle(&self) -> Handle {
        self.0.lock().unwrap().clone().unwrap()
    }
}

/// Room for whatever a test sends: nobody is too slow here.
fn server() -> ServerBuilder {
    Server::builder().shards(SHARDS).outbox_limit(64 * 1024 * 1024)
}

/// Two clients on each shard, over both transports.
fn connect(sim: &mut Sim) -> Vec<Client> {
    let transports = [Transport::WebSocket, Transport::Polling];
    let clients: Vec<Client> = (0..SHARDS)
        .flat_map(|shard| transports.map(|transport| (shard, transport)))
        .map(|(shard, transport)| {
            let shard = Some(shard);
            sim.connect(ConnectOptions { transport, shard, ..ConnectOptions::default() })
        })
        .collect();
    assert!(sim.run_until(Duration::from_secs(5), |sim| {
        clients.iter().all(|&client| sim.state(client) == State::Connected)
    }));
    clients
}

/// The numbers each client was told, in the order of their coming.
fn told(sim: &mut Sim, clients: &[Client]) -> Vec<Vec<u64>> {
    let of = |sim: &mut Sim, client| {
        let events = sim.events(client).into_iter();
        events.map(|(_, args)| args[0].as_u64().unwrap()).collect()
    };
    clients.iter().map(|&client| of(sim, client)).collect()
}

#[track_caller]
fn expect_all_in_order(sim: &mut Sim, clients: &[Client], numbers: &Numbers, seed: u64) {
    for told in told(sim, clients) {
        assert!(told.iter().copied().eq(0..numbers.drawn()), "seed {seed}: {told:?}");
    }
}

#[test]
fn whoever_sends_later_on_another_core_is_heard_later() {
    for seed in 0..SEEDS {
        let (numbers, outside) = (Numbers::default(), Outside::default());
        let (drawn, known) = (numbers.clone(), outside.clone());
        let server = server().namespace("/", move |ns| {
            ns.on("say", move |socket: Socket, Data(how): Data<u64>| {
                let number = drawn.next();
                match how % 3 {
                    0 => known.handle().emit("said", number).unwrap(),
                    1 => {
                        socket.broadcast().emit("said", number).unwrap();
                        socket.emit("said", number).unwrap();
                    }
                    _ => known.handle().to(["odd", "even"]).emit("said", number).unwrap(),
                }
            });
            ns.on_connect(|socket: Socket| socket.join(["odd", "even"]));
        });
        let faults = Faults { reset: 0.0, ..Faults::kind() };
        let mut sim = Sim::new(server, seed, faults).unwrap();
        *outside.0.lock().unwrap() = Some(sim.handle());
        let clients = connect(&mut sim);
        for round in 0..30 {
            for (count, &client) in (0..).zip(&clients) {
                sim.emit(client, "say", round + count);
            }
            sim.run_for(Duration::from_millis(round % 4));
            outside.handle().emit("said", numbers.next()).unwrap();
        }
        sim.run_for(Duration::from_secs(5));
        assert_eq!(numbers.drawn(), 30 * (clients.len() as u64 + 1));
        expect_all_in_order(&mut sim, &clients, &numbers, seed);
    }
}

#[test]
fn what_is_sent_upon_a_word_of_another_core_is_heard_after_what_it_follows() {
    for seed in 0..SEEDS {
        let numbers = Numbers::default();
        let drawn = numbers.clone();
        // From core to core, within one moment: each handler says its number and wakes the next.
        let (words, heard): (Vec<_>, Vec<_>) = (0..SHARDS).map(|_| mpsc::channel(1)).unzip();
        let heard: Arc<Vec<_>> =
            Arc::new(heard.into_iter().map(|heard| Mutex::new(Some(heard))).collect());
        let first = words[0].clone();
        let server = server().namespace("/", move |ns| {
            ns.on("relay", move |socket: Socket, Data(place): Data<usize>| {
                let mut heard: mpsc::Receiver<()> = heard[place].lock().unwrap().take().unwrap();
                let (next, drawn) = (words[(place + 1) % SHARDS].clone(), drawn.clone());
                async move {
                    while heard.recv().await.is_some() {
                        let number = drawn.next();
                        if number >= 20 {
                            break;
                        }
                        socket.broadcast().emit("said", number).unwrap();
                        socket.emit("said", number).unwrap();
                        next.send(()).await.unwrap();
                    }
                }
            });
        });
        let mut sim = Sim::new(server, seed, Faults::kind()).unwrap();
        let clients = connect(&mut sim);
        for (place, pair) in clients.chunks(2).enumerate() {
            sim.emit(pair[0], "relay", place);
        }
        sim.run_for(Duration::from_secs(1));
        first.try_send(()).unwrap();
        sim.run_for(Duration::from_secs(1));
        for told in told(&mut sim, &clients) {
            assert!(told.iter().copied().eq(0..20), "seed {seed}: {told:?}");
        }
    }
}

#[test]
fn a_room_joined_from_elsewhere_is_joined_for_whatever_follows() {
    for seed in 0..SEEDS {
        let outside = Outside::default();
        let known = outside.clone();
        let opened = Arc::new(AtomicU64::new(0));
        let (open, is_open) = (opened.clone(), opened);
        let server = server().namespace("/", move |ns| {
            let handle = known.clone();
            ns.on("open", move || {
                handle.handle().sockets_join("room").unwrap();
                open.store(1, Ordering::Relaxed);
            });
            // Whoever comes later in the same moment, on whichever core, finds everybody in it.
            ns.on("knock", move |socket: Socket| {
                if is_open.load(Ordering::Relaxed) == 1 {
                    known.handle().to("room").emit("said", 0).unwrap();
                    assert!(socket.try_rooms().unwrap().contains(&"room".to_owned()));
                }
                is_open.load(Ordering::Relaxed)
            });
        });
        let mut sim = Sim::new(server, seed, Faults::kind()).unwrap();
        *outside.0.lock().unwrap() = Some(sim.handle());
        let clients = connect(&mut sim);
        let mut knocks = Vec::new();
        for &client in &clients {
            knocks.push(sim.emit_with_ack(client, "knock", ()));
        }
        sim.emit(clients[0], "open", ());
        for &client in &clients {
            knocks.push(sim.emit_with_ack(client, "knock", ()));
        }
        sim.run_for(Duration::from_secs(1));
        let open = knocks.into_iter().filter(|&knock| sim.answer(knock) == Some(vec![1.into()]));
        let open = open.count();
        for told in told(&mut sim, &clients) {
            assert_eq!(told.len(), open, "seed {seed}");
        }
    }
}

/// A million deliveries of a handler's own are no backlog of mail.
#[test]
fn what_a_handler_has_broadcast_itself_puts_off_no_letters() {
    const CLIENTS: usize = 1_100;
    const BROADCASTS: usize = 960;
    let outside = Outside::default();
    let known = outside.clone();
    let server = Server::builder().outbox_limit(64 * 1024 * 1024).namespace("/", move |ns| {
        let outside = known.clone();
        ns.on_connect(|socket: Socket| socket.join("all"));
        ns.on("go", move |socket: Socket| {
            let handle = outside.handle();
            (0..BROADCASTS)
                .for_each(|_| handle.to("all").except(socket.id()).emit("x", ()).unwrap());
            let letters = outside.handle();
            let sender = std::thread::spawn(move || {
                (0..3).for_each(|number| letters.emit("said", number).unwrap());
            });
            sender.join().unwrap();
            handle.emit("said", 99).unwrap();
        });
    });
    let mut sim = Sim::new(server, 1, Faults::kind()).unwrap();
    *outside.0.lock().unwrap() = Some(sim.handle());
    let clients: Vec<Client> =
        (0..CLIENTS).map(|_| sim.connect(ConnectOptions::default())).collect();
    sim.run_for(Duration::from_secs(1));
    assert!(clients.iter().all(|&client| sim.state(client) == State::Connected));
    sim.emit(clients[0], "go", ());
    sim.run_for(Duration::from_secs(1));
    let events = sim.events(clients[1]).into_iter();
    let said = events.filter(|(name, _)| name == "said").map(|(_, args)| args[0].as_u64().unwrap());
    assert_eq!(said.collect::<Vec<_>>(), [0, 1, 2, 99]);
}
