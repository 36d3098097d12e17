//! What happens between the ends, and when. One agenda in virtual time drives everything.

use std::collections::{BTreeMap, VecDeque};
use std::io::ErrorKind;
use std::net::SocketAddr;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::SimFaults;
use super::connection::{ClientState, Connection, Connections, Segment, Spares};
use crate::io::LinkId;

/// The most bytes that travel as one.
const SEGMENT_BYTES_MAX: usize = 64 * 1024;

/// What is on the agenda.
#[derive(Debug)]
enum Happening {
    Connect { connection: u64, shard: usize },
    ToServer { connection: u64, segment: Segment },
    ToClient { connection: u64, segment: Segment },
    Room { connection: u64 },
}

/// What a driver is told.
#[derive(Debug, Clone, Copy)]
pub(super) enum Notice {
    Backlog,
    Readable(LinkId),
    Writable(LinkId),
    Leave(LinkId),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Accepting {
    On,
    Suspended,
    Stopped,
}

/// A shard's side of the network.
#[derive(Debug)]
pub(super) struct Port {
    pub(super) inbox: VecDeque<Notice>,
    pub(super) backlog: VecDeque<u64>,
    pub(super) accepting: Accepting,
}

#[derive(Debug)]
pub(super) struct Net {
    pub(super) faults: SimFaults,
    pub(super) now_us: u64,
    pub(super) ports: Vec<Port>,
    pub(super) connections: Connections,
    /// Clients that bytes or an end have reached since somebody last asked.
    pub(super) news: VecDeque<u64>,
    /// Nothing travels; see [`super::SimNet::mute`].
    pub(super) muted: bool,
    spares: Spares,
    rng: StdRng,
    /// By time, then in the order of making.
    agenda: BTreeMap<(u64, u64), Happening>,
    happenings_made: u64,
    connections_made: u64,
}

impl Net {
    pub(super) fn new(seed: u64, faults: SimFaults) -> Self {
        Self {
            faults,
            now_us: 0,
            ports: Vec::new(),
            connections: Connections::new(),
            news: VecDeque::new(),
            muted: false,
            spares: Spares::default(),
            rng: StdRng::seed_from_u64(seed),
            agenda: BTreeMap::new(),
            happenings_made: 0,
            connections_made: 0,
        }
    }

    // Time.

    pub(super) fn next_at_us(&self) -> Option<u64> {
        self.agenda.first_key_value().map(|((at_us, _), _)| *at_us)
    }

    pub(super) fn advance(&mut self, to_us: u64) {
        while self.next_at_us().is_some_and(|at_us| at_us <= to_us) {
            self.step();
        }
        self.now_us = self.now_us.max(to_us);
    }

    pub(super) fn step(&mut self) -> bool {
        let Some(((at_us, _), happening)) = self.agenda.pop_first() else { return false };
        debug_assert!(at_us >= self.now_us, "time goes forward");
        self.now_us = at_us;
        self.happen(happening);
        true
    }

    fn schedule(&mut self, at_us: u64, happening: Happening) {
        self.happenings_made += 1;
        self.agenda.insert((at_us, self.happenings_made), happening);
    }

    fn arrival_us(&mut self) -> u64 {
        self.now_us + self.rng.random_range(self.faults.delay_us.clone())
    }

    /// Rolls the dice. Certain outcomes take none, so that a kind network stays comparable.
    pub(super) fn chance(&mut self, probability: f64) -> bool {
        probability > 0.0 && self.rng.random_bool(probability.min(1.0))
    }

    /// A length from 1 to `len`, shorter than `len` only if the network splits.
    pub(super) fn cut(&mut self, len: usize) -> usize {
        if len > 1 && self.chance(self.faults.split) { self.rng.random_range(1..len) } else { len }
    }

    fn happen(&mut self, happening: Happening) {
        match happening {
            Happening::Connect { connection, shard } => self.reach_backlog(connection, shard),
            Happening::ToServer { connection, segment } => self.reach_server(connection, segment),
            Happening::ToClient { connection, segment } => self.reach_client(connection, segment),
            Happening::Room { connection } => self.announce_room(connection),
        }
    }

    // Connecting.

    pub(super) fn connect(&mut self, shard: Option<usize>) -> u64 {
        self.connections_made += 1;
        // 64 Ki addresses times 60 Ki ports before one repeats.
        let [.., a, b] = (self.connections_made / 60_000).to_be_bytes();
        let port = 1024 + (self.connections_made % 60_000) as u16;
        let peer = SocketAddr::from(([127, 1, a, b], port));
        let mut connection = Connection::new(peer, self.faults.window);
        let open: Vec<usize> = (0..self.ports.len())
            .filter(|at| self.ports[*at].accepting != Accepting::Stopped)
            .filter(|at| shard.is_none_or(|wanted| wanted == *at))
            .collect();
        if open.is_empty() {
            connection.client.state = ClientState::Reset;
            connection.server.closed = true;
            let id = self.connections.insert(connection);
            self.tell_client(id);
            return id;
        }
        let shard = open[self.rng.random_range(0..open.len())];
        if self.muted {
            let id = self.connections.insert(connection);
            self.reach_backlog(id, shard);
            return id;
        }
        let at_us = self.arrival_us();
        connection.to_server.last_at_us = at_us;
        let id = self.connections.insert(connection);
        self.schedule(at_us, Happening::Connect { connection: id, shard });
        id
    }

    fn reach_backlog(&mut self, id: u64, shard: usize) {
        let port = &mut self.ports[shard];
        if port.accepting == Accepting::Stopped {
            self.server_close(id);
        } else {
            port.backlog.push_back(id);
            port.inbox.push_back(Notice::Backlog);
        }
    }

    // Travelling.

    fn send_to_server(&mut self, id: u64, segment: Segment) {
        let segment = self.or_break(id, segment);
        let at_us = self.arrival_us();
        let Some(connection) = self.connections.get_mut(id) else { return };
        let at_us = at_us.max(connection.to_server.last_at_us);
        connection.to_server.last_at_us = at_us;
        self.schedule(at_us, Happening::ToServer { connection: id, segment });
    }

    fn send_to_client(&mut self, id: u64, segment: Segment) {
        let segment = self.or_break(id, segment);
        let at_us = self.arrival_us();
        let Some(connection) = self.connections.get_mut(id) else { return };
        let at_us = at_us.max(connection.to_client.last_at_us);
        connection.to_client.last_at_us = at_us;
        self.schedule(at_us, Happening::ToClient { connection: id, segment });
    }

    /// By chance the connection breaks, for both ends, instead of carrying the segment.
    fn or_break(&mut self, id: u64, segment: Segment) -> Segment {
        if matches!(segment, Segment::Reset) || !self.chance(self.faults.reset) {
            return segment;
        }
        self.send_to_server(id, Segment::Reset);
        self.send_to_client(id, Segment::Reset);
        segment
    }

    fn reach_server(&mut self, id: u64, segment: Segment) {
        let lossy = self.chance(0.5);
        let Some(connection) = self.connections.get_mut(id) else { return };
        if let Segment::Bytes(bytes) = &segment {
            connection.to_server.in_flight -= bytes.len();
        }
        if connection.server.broken {
            return;
        }
        if connection.server.closed {
            if matches!(segment, Segment::Bytes(_)) {
                self.send_to_client(id, Segment::Reset);
            }
            return;
        }
        match segment {
            Segment::Bytes(bytes) => {
                self.spares.append(&mut connection.to_server.arrived, &bytes);
            }
            Segment::End => connection.server.ended = true,
            Segment::Reset => {
                connection.server.broken = true;
                if lossy {
                    connection.to_server.arrived.clear(); // some systems drop unread bytes
                }
            }
        }
        self.notice(id);
    }

    /// Tells the owner, once, that there is something to read.
    pub(super) fn notice(&mut self, id: u64) {
        let Some(connection) = self.connections.get_mut(id) else { return };
        if let Some((shard, link)) = connection.server.owner
            && connection.is_readable()
            && !connection.server.noticed
        {
            connection.server.noticed = true;
            self.ports[shard].inbox.push_back(Notice::Readable(link));
        }
    }

    fn reach_client(&mut self, id: u64, segment: Segment) {
        let Some(connection) = self.connections.get_mut(id) else { return };
        if let Segment::Bytes(bytes) = &segment {
            connection.to_client.in_flight -= bytes.len();
        }
        match (connection.client.state, segment) {
            (ClientState::Reset | ClientState::Ended, Segment::Bytes(_) | Segment::End) => {}
            (ClientState::Closed, Segment::Bytes(_)) => {
                if !connection.client.refused {
                    connection.client.refused = true;
                    self.send_to_server(id, Segment::Reset);
                }
            }
            (ClientState::Closed, _) => {}
            (_, Segment::Bytes(bytes)) => {
                if connection.client.reading {
                    connection.client.delivered.extend(bytes);
                    self.make_room(id);
                } else {
                    connection.to_client.arrived.extend(bytes);
                }
            }
            (_, Segment::End) => connection.client.state = ClientState::Ended,
            (_, Segment::Reset) => {
                connection.client.state = ClientState::Reset;
                connection.client.unsent.clear();
            }
        }
        self.tell_client(id);
    }

    /// Lists the client among those who have something to look at.
    fn tell_client(&mut self, id: u64) {
        if let Some(connection) = self.connections.get_mut(id)
            && !connection.client.has_news
        {
            connection.client.has_news = true;
            self.news.push_back(id);
        }
    }

    pub(super) fn take_news(&mut self) -> Option<u64> {
        let id = self.news.pop_front()?;
        if let Some(connection) = self.connections.get_mut(id) {
            connection.client.has_news = false;
        }
        Some(id)
    }

    // Room.

    /// The client took bytes: a server that waits hears of it, some time later.
    fn make_room(&mut self, id: u64) {
        let at_us = self.arrival_us();
        let Some(connection) = self.connections.get_mut(id) else { return };
        if connection.server.wants_write && !connection.server.room_coming {
            connection.server.room_coming = true;
            self.schedule(at_us, Happening::Room { connection: id });
        }
    }

    fn announce_room(&mut self, id: u64) {
        let Some(connection) = self.connections.get_mut(id) else { return };
        connection.server.room_coming = false;
        if connection.server.wants_write
            && connection.to_client.room() > 0
            && let Some((shard, link)) = connection.server.owner
        {
            connection.server.wants_write = false;
            self.ports[shard].inbox.push_back(Notice::Writable(link));
        }
    }

    // The server's end.

    /// Answers the bytes taken, or why none ever will be.
    pub(super) fn server_send(&mut self, id: u64, bytes: &[u8]) -> Result<usize, ErrorKind> {
        let Some(connection) = self.connections.get(id) else {
            return Err(ErrorKind::NotConnected);
        };
        if connection.server.broken {
            return Err(ErrorKind::ConnectionReset);
        }
        if connection.server.shut {
            return Err(ErrorKind::BrokenPipe);
        }
        let mut taken = bytes.len().min(connection.to_client.room());
        if taken > 0 && self.chance(self.faults.refused_send) {
            taken = 0;
        } else if taken > 1 && self.chance(self.faults.short_send) {
            taken = self.rng.random_range(1..taken);
        }
        let mut rest = &bytes[..taken];
        while !rest.is_empty() {
            let len = self.cut(rest.len().min(SEGMENT_BYTES_MAX));
            let (segment, after) = rest.split_at(len);
            rest = after;
            if let Some(connection) = self.connections.get_mut(id) {
                connection.to_client.in_flight += len;
            }
            self.send_to_client(id, Segment::Bytes(segment.to_vec()));
        }
        if taken < bytes.len()
            && let Some(connection) = self.connections.get_mut(id)
        {
            connection.server.wants_write = true;
            if connection.to_client.room() > 0 {
                self.make_room(id); // refused by chance: nothing else would tell
            }
        }
        Ok(taken)
    }

    /// The server took bytes out of `to_server.arrived`: more may follow.
    pub(super) fn server_took(&mut self, id: u64) {
        if let Some(connection) = self.connections.get_mut(id) {
            self.spares.reclaim(&mut connection.to_server.arrived);
        }
        self.pump(id);
    }

    pub(super) fn server_shut(&mut self, id: u64) {
        let Some(connection) = self.connections.get_mut(id) else { return };
        if !connection.server.shut && !connection.server.broken {
            connection.server.shut = true;
            self.send_to_client(id, Segment::End);
        }
    }

    /// Like close(2): unread bytes turn the end into a reset.
    pub(super) fn server_close(&mut self, id: u64) {
        let Some(connection) = self.connections.get_mut(id) else { return };
        connection.server.owner = None;
        let unread = !connection.to_server.arrived.is_empty();
        let refused = !std::mem::replace(&mut connection.server.closed, true);
        if refused && !connection.server.broken {
            if unread {
                self.send_to_client(id, Segment::Reset);
            } else {
                self.server_shut(id);
            }
        }
        self.forget_if_over(id);
    }

    // The client's end.

    pub(super) fn client_send(&mut self, id: u64, bytes: &[u8]) {
        let Some(connection) = self.connections.get_mut(id) else { return };
        if matches!(connection.client.state, ClientState::Open | ClientState::Ended)
            && !connection.client.finishing
        {
            if self.muted {
                self.spares.append(&mut connection.to_server.arrived, bytes);
                self.notice(id);
                return;
            }
            self.spares.append(&mut connection.client.unsent, bytes);
            self.pump(id);
        }
    }

    /// Puts on its way what the window takes, and the end behind the last byte.
    fn pump(&mut self, id: u64) {
        loop {
            let Some(connection) = self.connections.get(id) else { return };
            let len = connection.client.unsent.len().min(connection.to_server.room());
            if len == 0 {
                break;
            }
            let len = self.cut(len.min(SEGMENT_BYTES_MAX));
            let Some(connection) = self.connections.get_mut(id) else { return };
            let bytes = connection.client.unsent.drain(..len).collect();
            connection.to_server.in_flight += len;
            self.send_to_server(id, Segment::Bytes(bytes));
        }
        let Some(connection) = self.connections.get_mut(id) else { return };
        let client = &mut connection.client;
        self.spares.reclaim(&mut client.unsent);
        if client.finishing && !client.finished && client.unsent.is_empty() {
            client.finished = true;
            self.send_to_server(id, Segment::End);
        }
    }

    pub(super) fn client_recv(&mut self, id: u64) -> Vec<u8> {
        let Some(connection) = self.connections.get_mut(id) else { return Vec::new() };
        let mut bytes = std::mem::take(&mut connection.client.delivered);
        if !connection.to_client.arrived.is_empty() {
            bytes.extend(connection.to_client.arrived.drain(..));
            self.make_room(id);
        }
        bytes
    }

    pub(super) fn client_finish(&mut self, id: u64) {
        let Some(connection) = self.connections.get_mut(id) else { return };
        connection.client.finishing = true;
        self.pump(id);
    }

    pub(super) fn client_close(&mut self, id: u64) {
        let Some(connection) = self.connections.get_mut(id) else { return };
        let unread = !connection.to_client.arrived.is_empty();
        match connection.client.state {
            ClientState::Closed => {}
            ClientState::Reset => connection.client.state = ClientState::Closed,
            ClientState::Open | ClientState::Ended if unread => self.client_reset(id),
            ClientState::Open | ClientState::Ended => {
                self.client_finish(id);
                if let Some(connection) = self.connections.get_mut(id) {
                    connection.client.state = ClientState::Closed;
                }
            }
        }
        self.forget_if_over(id);
    }

    pub(super) fn client_reset(&mut self, id: u64) {
        let Some(connection) = self.connections.get_mut(id) else { return };
        if matches!(connection.client.state, ClientState::Open | ClientState::Ended) {
            connection.client.unsent.clear();
            self.send_to_server(id, Segment::Reset);
        }
        if let Some(connection) = self.connections.get_mut(id) {
            connection.client.state = ClientState::Closed;
        }
        self.forget_if_over(id);
    }

    pub(super) fn client_set_reading(&mut self, id: u64, reading: bool) {
        let Some(connection) = self.connections.get_mut(id) else { return };
        connection.client.reading = reading;
        if reading && !connection.to_client.arrived.is_empty() {
            let arrived = std::mem::take(&mut connection.to_client.arrived);
            connection.client.delivered.extend(arrived);
            self.make_room(id);
            self.tell_client(id);
        }
    }

    pub(super) fn client_window(&mut self, id: u64, bytes: usize) {
        let Some(connection) = self.connections.get_mut(id) else { return };
        connection.to_client.window = bytes;
        self.make_room(id);
    }

    pub(super) fn client_state(&self, id: u64) -> ClientState {
        self.connections.get(id).map_or(ClientState::Closed, |found| found.client.state)
    }

    fn forget_if_over(&mut self, id: u64) {
        if self.connections.get(id).is_some_and(Connection::is_over) {
            self.connections.remove(id);
        }
    }
}
