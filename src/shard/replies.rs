//! Answers to HTTP requests, and what becomes of their links.
//!
//! Knows how an answer looks and whether another request may follow, not what was asked. Tests:
//! `tests/http.rs`.

use smallvec::SmallVec;

use super::core::Core;
use super::link::{HttpPhase, LinkKind, Reply};
use crate::io::LinkId;
use crate::protocol::http::{
    BodyError, Connection, ResponseHead, compress, write_empty, write_head, write_poll_head,
    write_post_ok, write_response,
};
use crate::protocol::websocket::HandshakeError;

/// Header fields of an answer: those of CORS, a cookie, and what the answer adds.
type Fields<'r> = SmallVec<[(&'r str, &'r str); 10]>;

impl Core {
    /// Answers the request in work. `write` gets where to, how the request wants to be answered,
    /// and the fields that every answer of it carries; they were checked when the server was built.
    fn answer(&mut self, link: LinkId, write: impl FnOnce(&mut Vec<u8>, &Reply, Fields<'_>)) {
        let Some(entry) = self.links.get_mut(link) else { return };
        let LinkKind::Http(http) = &mut entry.kind else { return };
        let reply = std::mem::take(&mut http.reply);
        let fields = reply.headers.iter().map(|(name, value)| (&**name, &**value)).collect();
        write(&mut entry.out, &reply, fields);
        self.replied(link, reply.connection);
    }

    /// Answers a waiting GET.
    pub(super) fn answer_poll(&mut self, link: LinkId, body: &[u8]) {
        let threshold = self.config.compression;
        let Some(http) = self.links.http(link) else { return };
        http.phase = HttpPhase::Head;
        self.answer(link, |out, reply, mut fields| {
            let mut compressed = Vec::new();
            let body = match (reply.encoding, threshold) {
                (Some(encoding), Some(threshold)) if body.len() >= threshold => {
                    compress(encoding, body, &mut compressed);
                    fields.push(("Content-Encoding", encoding.name()));
                    fields.push(("Vary", "Accept-Encoding"));
                    &compressed[..]
                }
                _ => body,
            };
            if write_poll_head(out, body.len(), reply.connection, &fields).is_ok() {
                out.extend_from_slice(body);
            }
        });
    }

    pub(super) fn reply_post(&mut self, link: LinkId) {
        self.answer(link, |out, reply, fields| {
            let _ = write_post_ok(out, reply.connection, &fields);
        });
    }

    pub(super) fn reply_empty(&mut self, link: LinkId, status: u16) {
        self.answer(link, |out, reply, fields| {
            let _ = write_empty(out, status, reply.connection, &fields);
        });
    }

    pub(super) fn reply(
        &mut self,
        link: LinkId,
        status: u16,
        content_type: Option<&str>,
        body: &[u8],
    ) {
        self.answer(link, |out, reply, fields| {
            let (connection, content_length) = (reply.connection, body.len());
            let head =
                ResponseHead { status, content_type, content_length, connection, extra: &fields };
            let _ = match reply.head_only {
                true => write_head(out, &head),
                false => write_response(out, &head, body),
            };
        });
    }

    /// The next request may come, or the link ends.
    fn replied(&mut self, link: LinkId, connection: Connection) {
        self.queue_link(link);
        if connection == Connection::Close {
            self.end_link(link);
            return;
        }
        let timings = &self.config.timings;
        let began = self.links.http(link).is_some_and(|http| !http.unread.is_empty());
        let wait_ms = match began {
            _ if self.is_draining() => timings.linger,
            true => timings.head_timeout,
            false => timings.keep_alive_timeout,
        };
        let until_ms = self.now_ms + wait_ms;
        self.set_link_deadline(link, until_ms);
        self.resumed.push(link);
    }

    pub(super) fn refuse_handshake(&mut self, link: LinkId, error: HandshakeError) {
        if let Some(http) = self.links.http(link) {
            let field = error.header().map(|(name, value)| (name.to_owned(), value.to_owned()));
            http.phase = HttpPhase::Head;
            http.reply.headers.extend(field);
            http.reply.connection = Connection::Close;
        }
        self.reply_empty(link, error.status());
    }

    /// The body is too large or malformed; the session stays, the link does not.
    pub(super) fn refuse_body(&mut self, link: LinkId, error: BodyError) {
        if let Some(http) = self.links.http(link) {
            http.phase = HttpPhase::Head;
            http.reply.connection = Connection::Close;
        }
        self.reply_empty(link, error.status());
    }
}
