//! One simulated connection: two directions and what stands at either end. Pure state.

use std::collections::VecDeque;
use std::net::SocketAddr;

use crate::io::LinkId;
use crate::io::table::Table;

/// What a client knows of its connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ClientState {
    /// The server's side is open, or was when last heard of.
    Open,
    /// The server ended its side.
    Ended,
    /// The connection broke or was refused.
    Reset,
    /// The client closed it.
    Closed,
}

/// What travels.
#[derive(Debug)]
pub(super) enum Segment {
    Bytes(Vec<u8>),
    End,
    Reset,
}

/// One direction.
#[derive(Debug)]
pub(super) struct Pipe {
    /// Nothing sent later may arrive earlier than this.
    pub(super) last_at_us: u64,
    pub(super) in_flight: usize,
    /// At the reader, not read.
    pub(super) arrived: VecDeque<u8>,
    pub(super) window: usize,
}

impl Pipe {
    const fn new(window: usize) -> Self {
        Self { last_at_us: 0, in_flight: 0, arrived: VecDeque::new(), window }
    }

    /// Bytes the sender may put in.
    pub(super) fn room(&self) -> usize {
        self.window.saturating_sub(self.in_flight + self.arrived.len())
    }
}

#[derive(Debug)]
pub(super) struct Connection {
    pub(super) peer: SocketAddr,
    pub(super) to_server: Pipe,
    pub(super) to_client: Pipe,
    pub(super) server: ServerEnd,
    pub(super) client: ClientEnd,
}

#[derive(Debug)]
pub(super) struct ServerEnd {
    /// Shard and link. `None` in the backlog, between two shards, and after close.
    pub(super) owner: Option<(usize, LinkId)>,
    /// The owner has a notice that there is something to read.
    pub(super) noticed: bool,
    pub(super) ended: bool,
    pub(super) broken: bool,
    pub(super) wants_write: bool,
    /// A notice of room is on its way.
    pub(super) room_coming: bool,
    pub(super) shut: bool,
    pub(super) closed: bool,
}

#[derive(Debug)]
pub(super) struct ClientEnd {
    pub(super) state: ClientState,
    pub(super) reading: bool,
    /// Read and waiting for `client_recv`.
    pub(super) delivered: Vec<u8>,
    /// Sent but not taken by the window.
    pub(super) unsent: VecDeque<u8>,
    pub(super) finishing: bool,
    pub(super) finished: bool,
    /// Told the server that nobody is here any more.
    pub(super) refused: bool,
    /// Stands in the list of clients that have something to look at.
    pub(super) has_news: bool,
}

impl Connection {
    pub(super) fn new(peer: SocketAddr, window: usize) -> Self {
        Self {
            peer,
            to_server: Pipe::new(window),
            to_client: Pipe::new(window),
            server: ServerEnd {
                owner: None,
                noticed: false,
                ended: false,
                broken: false,
                wants_write: false,
                room_coming: false,
                shut: false,
                closed: false,
            },
            client: ClientEnd {
                state: ClientState::Open,
                reading: true,
                delivered: Vec::new(),
                unsent: VecDeque::new(),
                finishing: false,
                finished: false,
                refused: false,
                has_news: false,
            },
        }
    }

    /// Whether the server would find something if it read.
    pub(super) fn is_readable(&self) -> bool {
        !self.to_server.arrived.is_empty() || self.server.ended || self.server.broken
    }

    /// Whether nobody can ask about this connection any more.
    pub(super) fn is_over(&self) -> bool {
        self.server.closed && self.client.state == ClientState::Closed
    }
}

/// All connections, by numbers that are not used again (but after 16 million in one slot). An idle
/// one costs its own size and nothing else, so that a network may hold a million.
#[derive(Debug)]
pub(super) struct Connections(Table<Connection>);

const fn key(id: u64) -> LinkId {
    LinkId { index: id as u32, generation: (id >> 32) as u32 }
}

impl Connections {
    pub(super) const fn new() -> Self {
        Self(Table::new())
    }

    pub(super) fn insert(&mut self, connection: Connection) -> u64 {
        let LinkId { index, generation } = self.0.insert(connection);
        u64::from(generation) << 32 | u64::from(index)
    }

    pub(super) fn get(&self, id: u64) -> Option<&Connection> {
        self.0.get(key(id))
    }

    pub(super) fn get_mut(&mut self, id: u64) -> Option<&mut Connection> {
        self.0.get_mut(key(id))
    }

    pub(super) fn remove(&mut self, id: u64) {
        self.0.remove(key(id));
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }
}

/// Buffers that wait to be used again.
const SPARES_MAX: usize = 64;
/// Larger ones are given back to the allocator.
const SPARE_BYTES_MAX: usize = 4096;

/// Empty buffers for whichever connection has bytes next: an idle one holds none.
#[derive(Debug, Default)]
pub(super) struct Spares(Vec<VecDeque<u8>>);

impl Spares {
    pub(super) fn append(&mut self, queue: &mut VecDeque<u8>, bytes: &[u8]) {
        if queue.capacity() == 0
            && let Some(spare) = self.0.pop()
        {
            *queue = spare;
        }
        queue.extend(bytes);
    }

    /// Takes the buffer of a queue that was read to its end.
    pub(super) fn reclaim(&mut self, queue: &mut VecDeque<u8>) {
        if queue.is_empty() && queue.capacity() > 0 {
            let spare = std::mem::take(queue);
            if self.0.len() < SPARES_MAX && spare.capacity() <= SPARE_BYTES_MAX {
                self.0.push(spare);
            }
        }
    }
}
