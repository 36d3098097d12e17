//! What the handlers saw, and what follows from it for every receiver.
//!
//! Shards do not share a clock finer than the moment: what happens at one moment (an epoch) on two
//! shards has no order. So the model says for every message who must get it, and who may.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};

use bytes::Bytes;
use stentor::{BroadcastOperator, Data, DisconnectReason, Namespace, Socket};

/// What a client asks its handler to send.
#[derive(Debug, Clone, serde::Serialize, serde::Deserialize)]
pub(crate) struct Order {
    pub(crate) rooms: Vec<String>,
    pub(crate) except: Vec<String>,
    pub(crate) volatile: bool,
    /// To the client itself instead.
    pub(crate) alone: bool,
    pub(crate) size: usize,
    pub(crate) binary: bool,
}

/// One message, by its sender's count.
#[derive(Debug)]
pub(crate) struct Message {
    pub(crate) sender: String,
    pub(crate) seq: u64,
    pub(crate) namespace: String,
    pub(crate) epoch: u64,
    pub(crate) order: Order,
}

/// A socket as its handlers saw it.
#[derive(Debug)]
pub(crate) struct Member {
    pub(crate) namespace: String,
    pub(crate) connected: u64,
    pub(crate) gone: Option<(u64, DisconnectReason)>,
    disconnecting: u32,
    /// The last count of its client's events.
    last: u64,
    /// Rooms joined (`true`) and left, in order.
    changes: Vec<(u64, String, bool)>,
}

/// How certain something is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Sure {
    No,
    Perhaps,
    Yes,
}

impl Member {
    fn is_connected(&self, epoch: u64) -> Sure {
        let began = self.connected.cmp(&epoch);
        let gone = self.gone.map_or(std::cmp::Ordering::Greater, |(gone, _)| gone.cmp(&epoch));
        match (began, gone) {
            (std::cmp::Ordering::Less, std::cmp::Ordering::Greater) => Sure::Yes,
            (std::cmp::Ordering::Greater, _) | (_, std::cmp::Ordering::Less) => Sure::No,
            _ => Sure::Perhaps,
        }
    }

    fn is_in(&self, own_id: &str, room: &str, epoch: u64) -> Sure {
        if room == own_id {
            return Sure::Yes;
        }
        let mut before = false;
        let mut meanwhile = false;
        for (at, _, joined) in self.changes.iter().filter(|(_, name, _)| name == room) {
            if *at < epoch {
                before = *joined;
            } else if *at == epoch {
                meanwhile = true;
            }
        }
        match (meanwhile, before) {
            (true, _) => Sure::Perhaps,
            (false, true) => Sure::Yes,
            (false, false) => Sure::No,
        }
    }

    /// Whether the socket is in a room when all is settled.
    pub(crate) fn is_now_in(&self, room: &str) -> bool {
        self.is_in("", room, u64::MAX) == Sure::Yes
    }

    /// Whether a message was meant for this socket.
    pub(crate) fn gets(&self, id: &str, message: &Message) -> Sure {
        let order = &message.order;
        if self.namespace != message.namespace || order.alone != (message.sender == id) {
            return Sure::No;
        }
        let epoch = message.epoch;
        if order.alone {
            return self.is_connected(epoch);
        }
        let any = |rooms: &[String]| {
            rooms.iter().map(|room| self.is_in(id, room, epoch)).max().unwrap_or(Sure::No)
        };
        let wanted = if order.rooms.is_empty() { Sure::Yes } else { any(&order.rooms) };
        let allowed = match any(&order.except) {
            Sure::No => Sure::Yes,
            Sure::Perhaps => Sure::Perhaps,
            Sure::Yes => Sure::No,
        };
        wanted.min(allowed).min(self.is_connected(epoch))
    }
}

#[derive(Debug, Default)]
pub(crate) struct World {
    pub(crate) epoch: u64,
    pub(crate) members: BTreeMap<String, Member>,
    pub(crate) messages: Vec<Message>,
    sent: BTreeMap<String, u64>,
    /// Broadcasts that asked, and how many they were found to have asked.
    pub(crate) polls: Vec<(Message, usize)>,
    pub(crate) asked: u64,
    pub(crate) answered: u64,
    pub(crate) unanswered: u64,
    /// What should not have happened.
    pub(crate) faults: Vec<String>,
}

impl World {
    /// Takes note of a message; its number.
    pub(crate) fn send(&mut self, sender: &str, namespace: &str, order: &Order) -> u64 {
        let seq = self.sent.entry(sender.to_owned()).or_default();
        *seq += 1;
        self.messages.push(Message {
            sender: sender.to_owned(),
            seq: *seq,
            namespace: namespace.to_owned(),
            epoch: self.epoch,
            order: order.clone(),
        });
        *seq
    }

    pub(crate) fn change(&mut self, id: &str, room: &str, joined: bool) {
        let epoch = self.epoch;
        if let Some(member) = self.members.get_mut(id) {
            member.changes.push((epoch, room.to_owned(), joined));
        }
    }

    fn count(&mut self, id: &str, n: u64) {
        let Some(member) = self.members.get_mut(id) else {
            self.faults.push(format!("{id} says something before it connects"));
            return;
        };
        if member.last + 1 != n || member.gone.is_some() {
            let fault = format!("{id} says {n} after {}, gone: {:?}", member.last, member.gone);
            self.faults.push(fault);
        }
        member.last = n;
    }
}

/// The world, as handlers and the test share it.
#[derive(Clone, Default)]
pub(crate) struct Shared(Arc<Mutex<World>>);

impl Shared {
    pub(crate) fn lock(&self) -> MutexGuard<'_, World> {
        self.0.lock().unwrap()
    }
}

/// What is sent: who, which, and so many bytes.
pub(crate) fn emit(operator: &BroadcastOperator, sender: &str, seq: u64, order: &Order) {
    let text = (!order.binary).then(|| "x".repeat(order.size));
    let bytes = order.binary.then(|| Bytes::from(vec![7; order.size]));
    let operator = match order.volatile {
        true => operator.clone().volatile(),
        false => operator.clone(),
    };
    operator.emit("said", (sender, seq, text, bytes)).unwrap();
}

pub(crate) fn addressed(everyone: BroadcastOperator, order: &Order) -> BroadcastOperator {
    everyone.to(&order.rooms[..]).except(&order.except[..])
}

/// The handlers of every namespace.
pub(crate) fn fill(ns: &mut Namespace, world: &Shared) {
    let w = world.clone();
    ns.on_connect(move |socket: Socket| {
        let mut world = w.lock();
        let member = Member {
            namespace: socket.namespace().to_owned(),
            connected: world.epoch,
            gone: None,
            disconnecting: 0,
            last: 0,
            changes: Vec::new(),
        };
        let known = world.members.insert(socket.id().to_owned(), member).is_some();
        if known {
            world.faults.push(format!("{} connects twice", socket.id()));
        }
        world.change(socket.id(), "lobby", true);
        socket.join("lobby");
    });
    let w = world.clone();
    ns.on_disconnecting(move |socket: Socket| {
        let mut world = w.lock();
        if let Some(member) = world.members.get_mut(socket.id()) {
            member.disconnecting += 1;
        }
        if socket.emit("late", ()).is_ok() {
            world.faults.push(format!("{} ends, and is sent to", socket.id()));
        }
    });
    let w = world.clone();
    ns.on_disconnect(move |socket: Socket, why: DisconnectReason| {
        let mut world = w.lock();
        let epoch = world.epoch;
        let once = world.members.get_mut(socket.id()).is_some_and(|member| {
            member.disconnecting == 1 && member.gone.replace((epoch, why)).is_none()
        });
        if !once {
            world.faults.push(format!("{} disconnects, but not once: {why}", socket.id()));
        }
    });
    let w = world.clone();
    ns.on("join", move |socket: Socket, Data((n, room)): Data<(u64, String)>| {
        let mut world = w.lock();
        world.count(socket.id(), n);
        world.change(socket.id(), &room, true);
        socket.join(room);
        n
    });
    let w = world.clone();
    ns.on("leave", move |socket: Socket, Data((n, room)): Data<(u64, String)>| {
        let mut world = w.lock();
        world.count(socket.id(), n);
        world.change(socket.id(), &room, false);
        socket.leave(room);
        n
    });
    let w = world.clone();
    ns.on("say", move |socket: Socket, Data((n, order)): Data<(u64, Order)>| {
        let seq = {
            let mut world = w.lock();
            world.count(socket.id(), n);
            world.send(socket.id(), socket.namespace(), &order)
        };
        if order.alone {
            let text = "x".repeat(order.size);
            socket.emit("said", (socket.id(), seq, text)).unwrap();
        } else {
            emit(&addressed(socket.broadcast(), &order), socket.id(), seq, &order);
        }
        n
    });
    let w = world.clone();
    ns.on("ask", move |socket: Socket, Data((n, millis)): Data<(u64, u64)>| {
        let w = w.clone();
        w.lock().count(socket.id(), n);
        w.lock().asked += 1;
        // Asked while the handler runs, not when its future does.
        let timeout = std::time::Duration::from_millis(millis);
        let answer = socket.emit_with_ack::<u64>("question", n).timeout(timeout).into_future();
        async move {
            let answer = answer.await;
            let mut world = w.lock();
            match answer {
                Ok(answer) if answer == n + 1 => world.answered += 1,
                Ok(answer) => world.faults.push(format!("{answer} is no answer to {n}")),
                Err(_) => world.unanswered += 1,
            }
            n
        }
    });
    let w = world.clone();
    ns.on("ask_all", move |socket: Socket, Data((n, order)): Data<(u64, Order)>| {
        let w = w.clone();
        let message = {
            let mut world = w.lock();
            world.count(socket.id(), n);
            world.asked += 1;
            Message {
                sender: socket.id().to_owned(),
                seq: 0,
                namespace: socket.namespace().to_owned(),
                epoch: world.epoch,
                order: order.clone(),
            }
        };
        let operator = addressed(socket.broadcast(), &order);
        let answers = operator.emit_with_ack::<u64>("question", n).into_future();
        async move {
            let answers = answers.await;
            let mut world = w.lock();
            match answers {
                Ok(all) => {
                    world.answered += 1;
                    if all.answers.iter().any(|answer| *answer != n + 1) {
                        world.faults.push(format!("{all:?} to {n}"));
                    }
                    let count = all.answers.len() + all.missing + all.undecodable;
                    world.polls.push((message, count));
                }
                Err(_) => world.unanswered += 1,
            }
            n
        }
    });
    let w = world.clone();
    ns.on("kick", move |socket: Socket, Data((n, close)): Data<(u64, bool)>| {
        w.lock().count(socket.id(), n);
        match close {
            true => socket.close(),
            false => socket.disconnect(),
        }
    });
}
