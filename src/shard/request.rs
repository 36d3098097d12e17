//! The request that opened a session, kept as its bytes and parsed on demand.

use std::borrow::Cow;
use std::net::SocketAddr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::protocol::http::{HEADERS_MAX, Head, HeadLimits, parse_head};

/// The HTTP request that opens a session: what `allow_request`, `generate_id`, middlewares and
/// [`Socket::request`](crate::Socket::request) see.
///
/// It keeps the head as it came (a few hundred bytes) and parses it when asked.
#[derive(Debug)]
pub struct Request {
    head: Box<[u8]>,
    peer: SocketAddr,
    /// Microseconds since 1970: half the size of a [`SystemTime`].
    time_us: u64,
}

impl Request {
    pub(crate) fn new(head: &[u8], peer: SocketAddr) -> Self {
        let time = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let time_us = u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        Self { head: head.into(), peer, time_us }
    }

    pub(crate) fn head(&self) -> Option<Head<'_>> {
        let limits = HeadLimits { bytes_max: self.head.len(), headers_max: HEADERS_MAX };
        parse_head(&self.head, &limits).ok().flatten()
    }

    /// The request target as sent: path and query.
    #[must_use]
    pub fn url(&self) -> &str {
        self.head().map_or("", |head| head.target)
    }

    /// The first value of a query parameter, decoded.
    #[must_use]
    pub fn query(&self, name: &str) -> Option<Cow<'_, str>> {
        self.head()?.query.get(name)
    }

    /// All query parameters in order, decoded.
    #[must_use]
    pub fn query_pairs(&self) -> Vec<(Cow<'_, str>, Cow<'_, str>)> {
        self.head().map(|head| head.query.pairs().collect()).unwrap_or_default()
    }

    /// The first value of a header, if it is text. Names are case-insensitive.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        std::str::from_utf8(self.head()?.header(name)?).ok()
    }

    /// All headers in order, as sent.
    #[must_use]
    pub fn headers(&self) -> Vec<(&str, &[u8])> {
        self.head().map(|head| head.headers().collect()).unwrap_or_default()
    }

    /// The address of the peer of the first connection. Proxy headers are not trusted; read them
    /// with [`header`](Self::header) if a proxy of yours sets them.
    #[must_use]
    pub fn peer_addr(&self) -> SocketAddr {
        self.peer
    }

    /// When the session was opened.
    #[must_use]
    pub fn time(&self) -> SystemTime {
        UNIX_EPOCH + Duration::from_micros(self.time_us)
    }

    /// Whether the page that opened the session is of another origin: an `Origin` header is there.
    #[must_use]
    pub fn is_cross_origin(&self) -> bool {
        self.header("origin").is_some()
    }
}
