//! The links of one shard: what each connection is doing right now.

use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;

use bytes::BytesMut;

use super::request::Request;
use super::tasks::Pending;
use super::timers::UNSCHEDULED;
use crate::io::LinkId;
use crate::memory;
use crate::protocol::http::{BodyReader, Connection, Encoding};
use crate::protocol::websocket::Decoder;
use crate::session::{LinkKey, SessionId};

impl From<LinkId> for LinkKey {
    fn from(id: LinkId) -> Self {
        Self { index: id.index, generation: id.generation }
    }
}

impl From<LinkKey> for LinkId {
    fn from(key: LinkKey) -> Self {
        Self { index: key.index, generation: key.generation }
    }
}

/// Whom a link is given to once its last bytes are out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Destination {
    /// Another shard, which owns the session asked for.
    Shard(u16),
    /// The user's router.
    Fallback,
}

/// What follows when [`Link::out`] is empty.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum After {
    #[default]
    Nothing,
    /// End our side, wait for the peer's end, free the link.
    Close,
    Detach(Destination),
}

/// An HTTP connection between its requests, or in one.
#[derive(Debug)]
pub(crate) struct HttpLink {
    pub(crate) peer: SocketAddr,
    /// Bytes of requests not yet processed.
    pub(crate) unread: BytesMut,
    pub(crate) phase: HttpPhase,
    pub(crate) reply: Reply,
    /// Reading is suspended: too much is unread.
    pub(crate) paused: bool,
}

/// How the request in work wants to be answered.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) connection: Connection,
    /// Header fields that the answer must carry (CORS, cookie).
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) encoding: Option<Encoding>,
    /// A HEAD asked: the answer has the length of its body, and no body.
    pub(crate) head_only: bool,
}

impl Default for Reply {
    fn default() -> Self {
        Self {
            connection: Connection::Implied,
            headers: Vec::new(),
            encoding: None,
            head_only: false,
        }
    }
}

#[derive(Debug)]
pub(crate) enum HttpPhase {
    /// Before or in a head.
    Head,
    /// In the body of a POST.
    Body { session: SessionId, reader: BodyReader, body: Vec<u8> },
    /// `allow_request` is deciding.
    Deciding(Rc<Pending>),
    /// A GET waits for packets of this session.
    Polling(SessionId),
}

/// A WebSocket link's reading side, taken out while its messages are handled.
#[derive(Debug)]
pub(crate) struct Reader {
    pub(crate) decoder: Decoder,
    /// The beginning of a frame whose rest has not come yet.
    pub(crate) unread: Vec<u8>,
}

impl Default for Reader {
    fn default() -> Self {
        Self { decoder: Decoder::server(), unread: Vec::new() }
    }
}

#[derive(Debug)]
pub(crate) struct WebSocketLink {
    pub(crate) session: SessionId,
    /// The session does not use this link yet: it probes an upgrade.
    pub(crate) candidate: bool,
    pub(crate) reader: Reader,
}

#[derive(Debug, Default)]
pub(crate) enum LinkKind {
    #[default]
    Vacant,
    Http(Box<HttpLink>),
    WebSocket(WebSocketLink),
    /// Has said its last; what still comes is thrown away.
    Draining,
    /// On its way elsewhere; keeps what comes until it is gone.
    Leaving {
        destination: Destination,
        bytes: Vec<u8>,
        peer: SocketAddr,
    },
}

/// One connection. What a send looks at stands together, in front. (Not aligned to cache lines: a
/// table of aligned entries is copied whenever it grows, where others are only mapped anew.)
#[derive(Debug)]
#[repr(C)]
pub(crate) struct Link {
    /// A driver's generation, or [`VACANT`].
    pub(crate) generation: u32,
    /// The kernel refused bytes and will say when it takes more.
    pub(crate) blocked: bool,
    /// Stands in the list of links to send.
    pub(crate) queued: bool,
    /// The peer has ended its side.
    pub(crate) ended: bool,
    /// Stands in the shard's count of connections.
    pub(crate) counted: bool,
    pub(crate) after: After,
    /// Bytes to be sent that are no session's: HTTP answers, last words.
    pub(crate) out: Vec<u8>,
    pub(crate) deadline_ms: u64,
    pub(crate) timer_tick: u64,
    pub(crate) kind: LinkKind,
}

const _: () = assert!(size_of::<Link>() <= 128, "two cache lines per connection");
const _: () = assert!(std::mem::offset_of!(Link, deadline_ms) <= 48, "a send looks at one of them");

/// The generation of a slot without a link. A driver's have 24 bits.
const VACANT: u32 = u32::MAX;

impl Link {
    pub(crate) fn new(generation: u32, kind: LinkKind) -> Self {
        Self {
            generation,
            kind,
            out: Vec::new(),
            blocked: false,
            queued: false,
            ended: false,
            counted: true,
            after: After::Nothing,
            deadline_ms: u64::MAX,
            timer_tick: UNSCHEDULED,
        }
    }
}

/// Links by the driver's indices.
#[derive(Debug)]
pub(crate) struct Links {
    links: Vec<Link>,
    live: usize,
    /// Links there will be at most, as far as is known.
    most: usize,
}

impl Links {
    /// `most`: links there will be at most, as far as is known; see [`memory`].
    pub(crate) fn new(most: usize) -> Self {
        Self { links: Vec::new(), live: 0, most }
    }

    pub(crate) fn insert(&mut self, id: LinkId, kind: LinkKind) {
        let index = id.index as usize;
        while self.links.len() <= index {
            memory::push(&mut self.links, Link::new(VACANT, LinkKind::Vacant), self.most);
        }
        debug_assert!(matches!(self.links[index].kind, LinkKind::Vacant), "links are not reused");
        debug_assert_ne!(id.generation, VACANT);
        self.links[index] = Link::new(id.generation, kind);
        self.live += 1;
    }

    #[inline]
    pub(crate) fn get(&self, id: LinkId) -> Option<&Link> {
        self.links.get(id.index as usize).filter(|link| link.generation == id.generation)
    }

    #[inline]
    pub(crate) fn get_mut(&mut self, id: LinkId) -> Option<&mut Link> {
        self.links.get_mut(id.index as usize).filter(|link| link.generation == id.generation)
    }

    pub(crate) fn http(&mut self, id: LinkId) -> Option<&mut HttpLink> {
        match &mut self.get_mut(id)?.kind {
            LinkKind::Http(http) => Some(http),
            _ => None,
        }
    }

    pub(crate) fn websocket(&mut self, id: LinkId) -> Option<&mut WebSocketLink> {
        match &mut self.get_mut(id)?.kind {
            LinkKind::WebSocket(websocket) => Some(websocket),
            _ => None,
        }
    }

    pub(crate) fn remove(&mut self, id: LinkId) -> Option<Link> {
        self.get(id)?;
        self.live -= 1;
        let vacant = Link::new(VACANT, LinkKind::Vacant);
        Some(std::mem::replace(&mut self.links[id.index as usize], vacant))
    }

    pub(crate) fn len(&self) -> usize {
        self.live
    }

    pub(crate) fn ids(&self) -> Vec<LinkId> {
        let live = |(index, link): (usize, &Link)| {
            (link.generation != VACANT)
                .then_some(LinkId { index: index as u32, generation: link.generation })
        };
        self.links.iter().enumerate().filter_map(live).collect()
    }
}

/// A request that may open a session, on the link that asks.
#[derive(Debug, Clone)]
pub(crate) struct Opening {
    pub(crate) link: LinkId,
    pub(crate) request: Arc<Request>,
    /// `None`: Socket.IO; else the index of a raw Engine.IO endpoint.
    pub(crate) endpoint: Option<u16>,
    pub(crate) websocket: bool,
}
