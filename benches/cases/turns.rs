//! Whole turns of a server without a kernel.
//!
//! The simulated network is in its mute mode: what clients send is there at once, what the server
//! sends is taken whole and thrown away. `inbound/nothing` shows what is left of the network in
//! the other figures of its group: the same bytes, in a frame that ends at the WebSocket.

use std::hint::black_box;
use std::time::Duration;

use stentor::sim::{Client, ConnectOptions, Faults, Sim, State, Transport};
use stentor::{Data, Server, Socket};

use super::codecs::UPGRADE;

/// The data of an event: 64 bytes with its head.
const TEXT: &str = "the quick brown fox jumps over the lazy dog..";

/// Clients of every inbound case.
const CLIENTS: usize = 100;

/// A server that nobody has come to yet.
fn deserted() -> Sim {
    let server = Server::builder().namespace("/", |ns| {
        ns.on_connect(|socket: Socket| socket.join("all"));
        ns.on("join", |socket: Socket, Data(room): Data<String>| socket.join(room));
        ns.on("echo", |Data(text): Data<String>| text);
        ns.on("note", |Data(text): Data<String>| drop(black_box(text)));
    });
    Sim::new(server, 1, Faults::kind()).expect("a legal configuration")
}

/// A server and its clients, of which the tenth part is in the room `tenth`, and half in `half`.
fn served(clients: usize, transport: Transport) -> (Sim, Vec<Client>) {
    let mut sim = deserted();
    let options = ConnectOptions { transport, ..ConnectOptions::default() };
    let clients: Vec<Client> = (0..clients).map(|_| sim.connect(options.clone())).collect();
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
fn frame(opcode: u8, payload: &[u8]) -> Vec<u8> {
    assert!(payload.len() <= 125, "one byte of length");
    let mut frame = vec![0x80 | opcode, 0x80 | payload.len() as u8, 0, 0, 0, 0];
    frame.extend_from_slice(payload);
    frame
}

fn text_frame(packet: &str) -> Vec<u8> {
    frame(1, packet.as_bytes())
}

/// `outstanding` broadcasts to each of a room, which leave in one send.
pub(crate) fn room(members: usize, outstanding: usize) -> impl FnMut() {
    let (mut sim, _) = served(members, Transport::WebSocket);
    let room = sim.handle().to("all");
    move || {
        for _ in 0..outstanding {
            room.emit("news", TEXT).expect("the mailbox has room");
        }
        sim.run_for(Duration::ZERO);
    }
}

/// Every second member is in both rooms; nine tenths of all get it.
pub(crate) fn union_except(members: usize) -> impl FnMut() {
    let (mut sim, _) = served(members, Transport::WebSocket);
    let union = sim.handle().to(["all", "half"]).except("tenth");
    move || {
        union.emit("news", TEXT).expect("the mailbox has room");
        sim.run_for(Duration::ZERO);
    }
}

pub(crate) fn namespace(members: usize) -> impl FnMut() {
    let (mut sim, _) = served(members, Transport::WebSocket);
    let everyone = sim.handle().everyone();
    move || {
        everyone.emit("news", TEXT).expect("the mailbox has room");
        sim.run_for(Duration::ZERO);
    }
}

fn target(sim: &Sim, client: Client) -> String {
    let sid = sim.sid(client).expect("a session that is open");
    format!("/socket.io/?EIO=4&transport=polling&sid={sid}")
}

/// A broadcast that answers everybody's poll, and everybody's next poll.
pub(crate) fn polling(members: usize) -> impl FnMut() {
    let (mut sim, clients) = served(members, Transport::Polling);
    let polls: Vec<(Client, String)> = clients
        .into_iter()
        .map(|client| {
            let target = target(&sim, client);
            (client, format!("GET {target} HTTP/1.1\r\nHost: chat.example\r\n\r\n"))
        })
        .collect();
    let room = sim.handle().to("all");
    let before = sim.stats().sends;
    let mut once = move || {
        room.emit("news", TEXT).expect("the mailbox has room");
        sim.run_for(Duration::ZERO);
        for (client, poll) in &polls {
            sim.send_raw(*client, poll.as_bytes());
        }
        sim.run_for(Duration::ZERO);
        sim.stats().sends
    };
    assert_eq!(once() - before, members as u64, "every poll was answered");
    assert_eq!(once() - before, 2 * members as u64, "and so was the next");
    move || {
        black_box(once());
    }
}

/// A pong that nobody asked for ends at the WebSocket.
pub(crate) fn nothing() -> Vec<u8> {
    frame(10, format!("421[\"echo\",\"{TEXT}\"]").as_bytes())
}

pub(crate) fn event() -> Vec<u8> {
    text_frame(&format!("42[\"note\",\"{TEXT}\"]"))
}

pub(crate) fn event_ack() -> Vec<u8> {
    text_frame(&format!("421[\"echo\",\"{TEXT}\"]"))
}

/// An event without a handler.
pub(crate) fn event_nobody() -> Vec<u8> {
    text_frame(&format!("42[\"nobody\",\"{TEXT}\"]"))
}

/// Each client sends a frame, all of them before the turn.
pub(crate) fn inbound(frame: Vec<u8>) -> impl FnMut() {
    let (mut sim, clients) = served(CLIENTS, Transport::WebSocket);
    move || {
        for &client in &clients {
            sim.send_raw(client, black_box(&frame));
        }
        sim.run_for(Duration::ZERO);
    }
}

/// Each client posts an event, while its poll waits.
pub(crate) fn posted() -> impl FnMut() {
    let (mut sim, clients) = served(CLIENTS, Transport::Polling);
    let body = format!("42[\"note\",\"{TEXT}\"]");
    let posts: Vec<(Client, String)> = clients
        .into_iter()
        .map(|client| {
            let (target, len) = (target(&sim, client), body.len());
            let head = format!("POST {target} HTTP/1.1\r\nHost: chat.example\r\n");
            let head = format!("{head}Content-Type: text/plain;charset=UTF-8\r\n");
            (client, format!("{head}Content-Length: {len}\r\n\r\n{body}"))
        })
        .collect();
    let before = sim.stats().sends;
    let mut once = move || {
        for (client, post) in &posts {
            sim.send_raw(*client, post.as_bytes());
        }
        sim.run_for(Duration::ZERO);
        sim.stats().sends
    };
    assert_eq!(once() - before, CLIENTS as u64, "every request was answered");
    move || {
        black_box(once());
    }
}

/// A connection with its handshakes, a socket that joins a room, and the end of both.
pub(crate) fn made_gone() -> impl FnMut() {
    let mut sim = deserted();
    sim.mute(true);
    let (connect, close) = (text_frame("40"), frame(8, &1000u16.to_be_bytes()));
    let travel = Duration::from_millis(1);
    let mut once = move || {
        let raw = sim.open(None);
        sim.send(raw, UPGRADE.as_bytes());
        sim.run_for(travel);
        sim.send(raw, &connect);
        sim.run_for(Duration::ZERO);
        sim.send(raw, &close);
        sim.run_for(Duration::ZERO);
        sim.hang_up(raw);
        sim.run_for(travel);
        (sim.stats().sends, sim.open_connections())
    };
    let (sends, open) = once();
    assert_eq!(sends, 3, "101 with the open packet, the answer to CONNECT, the close frame");
    assert_eq!(open, 0, "nothing is left of the connection");
    move || {
        black_box(once());
    }
}
