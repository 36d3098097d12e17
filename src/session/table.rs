//! The sessions of one shard, split by how often they are touched: a broadcast reads and writes
//! one cache line per recipient ([`Hot`]); everything else is [`Cold`].

use super::{DisconnectReason, Heartbeat, Outbox, Upgrade};
use crate::memory;
use crate::protocol::id::Id;

/// A link as the session layer sees it: an opaque name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct LinkKey {
    pub(crate) index: u32,
    pub(crate) generation: u32,
}

/// Names a session of one shard; the generation makes a stale name miss.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct SessionId {
    pub(crate) slot: u32,
    pub(crate) generation: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Transport {
    Polling,
    WebSocket,
}

/// What a broadcast touches of a session.
#[derive(Debug)]
#[repr(align(64))]
pub(crate) struct Hot {
    pub(crate) outbox: Outbox,
    /// WebSocket: the link. Polling: the link of the pending GET.
    pub(crate) link: Option<LinkKey>,
    pub(crate) transport: Transport,
    /// Stands in the ring of sessions to flush.
    pub(crate) dirty: bool,
    /// Stands in the ring of those that do not wait for a broadcast's recipients.
    pub(crate) prompt: bool,
    /// The link took a send only in part; it will say when it takes more.
    pub(crate) blocked: bool,
    /// Waits in vain (blocked, or polling without a GET) and is listed for copying out.
    pub(crate) stalled: bool,
}

const _: () = assert!(size_of::<Hot>() == 64, "one cache line per recipient");

impl Hot {
    fn vacant() -> Self {
        Self {
            outbox: Outbox::default(),
            link: None,
            transport: Transport::Polling,
            dirty: false,
            prompt: false,
            blocked: false,
            stalled: false,
        }
    }

    /// Whether a packet sent now would leave now: what a volatile packet needs.
    #[inline]
    pub(crate) fn is_writable(&self) -> bool {
        self.link.is_some() && !self.blocked
    }
}

/// Where a session stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    Open,
    /// Over for its user; a polling client is told by its next GET.
    Closing {
        until_ms: u64,
        reason: DisconnectReason,
    },
}

/// The rest of a session.
#[derive(Debug)]
pub(crate) struct Cold<R> {
    pub(crate) generation: u32,
    pub(crate) sid: Sid,
    pub(crate) phase: Phase,
    pub(crate) heartbeat: Heartbeat,
    pub(crate) upgrade: Upgrade,
    /// The link whose POST is being read.
    pub(crate) post: Option<LinkKey>,
    /// What the owner keeps per session.
    pub(crate) owner: R,
}

/// A session id: ours, or whatever the user's `generate_id` made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Sid {
    Own(Id),
    Custom(Box<str>),
}

impl Sid {
    pub(crate) fn as_str(&self) -> &str {
        match self {
            Self::Own(id) => id.as_str(),
            Self::Custom(text) => text,
        }
    }
}

/// See the module's text.
#[derive(Debug)]
pub(crate) struct Sessions<R> {
    pub(crate) hot: Vec<Hot>,
    cold: Vec<Option<Cold<R>>>,
    generations: Vec<u32>,
    free: Vec<u32>,
    /// Sessions there will be at most, as far as is known.
    most: usize,
}

impl<R> Sessions<R> {
    /// `most`: sessions there will be at most, as far as is known; see [`memory`].
    pub(crate) fn new(most: usize) -> Self {
        let (hot, cold) = (Vec::new(), Vec::new());
        Self { hot, cold, generations: Vec::new(), free: Vec::new(), most }
    }

    /// Reserves a slot: the id that names of the session can be made of before it is filled.
    pub(crate) fn reserve(&mut self) -> SessionId {
        let slot = self.free.pop().unwrap_or_else(|| {
            memory::push(&mut self.hot, Hot::vacant(), self.most);
            memory::push(&mut self.cold, None, self.most);
            memory::push(&mut self.generations, 0, self.most);
            (self.hot.len() - 1) as u32
        });
        SessionId { slot, generation: self.generations[slot as usize] }
    }

    /// Gives an unfilled reservation back.
    pub(crate) fn unreserve(&mut self, id: SessionId) {
        assert!(self.cold[id.slot as usize].is_none(), "only an unfilled slot is given back");
        self.free.push(id.slot);
    }

    pub(crate) fn insert(&mut self, id: SessionId, cold: Cold<R>) {
        let slot = id.slot as usize;
        assert!(self.cold[slot].is_none(), "a slot is filled once after its reservation");
        debug_assert!(self.hot[slot].outbox.is_empty());
        debug_assert_eq!(id.generation, self.generations[slot], "the reservation of this slot");
        debug_assert_eq!(cold.generation, id.generation);
        self.cold[slot] = Some(cold);
    }

    #[inline]
    pub(crate) fn get(&self, id: SessionId) -> Option<&Cold<R>> {
        self.cold.get(id.slot as usize)?.as_ref().filter(|cold| cold.generation == id.generation)
    }

    #[inline]
    pub(crate) fn get_mut(&mut self, id: SessionId) -> Option<&mut Cold<R>> {
        self.cold
            .get_mut(id.slot as usize)?
            .as_mut()
            .filter(|cold| cold.generation == id.generation)
    }

    /// The session, unless it is over: a closing one takes no packets and makes no sockets.
    #[inline]
    pub(crate) fn get_open(&mut self, id: SessionId) -> Option<&mut Cold<R>> {
        self.get_mut(id).filter(|cold| cold.phase == Phase::Open)
    }

    pub(crate) fn at(&self, slot: u32) -> Option<&Cold<R>> {
        self.cold.get(slot as usize)?.as_ref()
    }

    pub(crate) fn id_at(&self, slot: u32) -> Option<SessionId> {
        self.at(slot).map(|cold| SessionId { slot, generation: cold.generation })
    }

    /// Frees the slot; its outbox must be empty.
    pub(crate) fn remove(&mut self, id: SessionId) -> Option<Cold<R>> {
        self.get(id)?;
        let slot = id.slot as usize;
        assert!(self.hot[slot].outbox.is_empty(), "the outbox gives its references back first");
        let cold = self.cold[slot].take();
        // These marks may outlive the session in a list: the walker clears them.
        let Hot { dirty, prompt, stalled, .. } = self.hot[slot];
        self.hot[slot] = Hot { dirty, prompt, stalled, ..Hot::vacant() };
        self.generations[slot] = id.generation.wrapping_add(1);
        self.free.push(id.slot);
        cold
    }

    pub(crate) fn ids(&self) -> impl Iterator<Item = SessionId> + '_ {
        self.cold.iter().enumerate().filter_map(|(slot, cold)| {
            cold.as_ref().map(|cold| SessionId { slot: slot as u32, generation: cold.generation })
        })
    }
}
