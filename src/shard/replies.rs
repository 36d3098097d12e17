//! Answers to HTTP requests, and what becomes of their links.
//!
//! Knows how an answer looks and whether another request may follow, not what was asked. Tests:
//! `tests/http.rs`.

use smallvec::SmallVec;

use super::core::Core;
use super::link::{HttpPhase, LinkKind};
use crate::io::LinkId;
use crate::protocol::http::{
    BodyError, Connection, ResponseHead, compress, write_empty, write_head, write_poll_head,
    write_post_ok, write_response,
};
use crate::protocol::websocket::HandshakeError;

impl Core {
    /// Answers a waiting GET.
    pub(super) fn answer_poll(&mut self, link: LinkId, body: &[u8]) {
        let threshold = self.config.compression;
        let Some(entry) = self.links.get_mut(link) else { return };
        let LinkKind::Http(http) = &mut entry.kind else { return };
        http.phase = HttpPhase::Head;
        let reply = std::mem::take(&mut http.reply);
        let mut fields: SmallVec<[(&str, &str); 10]> =
            reply.headers.iter().map(|(name, value)| (&**name, &**value)).collect();
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
        // The fields were checked when the server was built.
        if write_poll_head(&mut entry.out, body.len(), reply.connection, &fields).is_ok() {
            entry.out.extend_from_slice(body);
        }
        self.replied(link, reply.connection);
    }

    pub(super) fn reply_post(&mut self, link: LinkId) {
        let Some(entry) = self.links.get_mut(link) else { return };
        let LinkKind::Http(http) = &mut entry.kind else { return };
        let reply = std::mem::take(&mut http.reply);
        let fields: SmallVec<[(&str, &str); 8]> =
            reply.headers.iter().map(|(name, value)| (&**name, &**value)).collect();
        let _ = write_post_ok(&mut entry.out, reply.connection, &fields);
        self.replied(link, reply.connection);
    }

    pub(super) fn reply_empty(&mut self, link: LinkId, status: u16) {
        let Some(entry) = self.links.get_mut(link) else { return };
        let LinkKind::Http(http) = &mut entry.kind else { return };
        let reply = std::mem::take(&mut http.reply);
        let fields: SmallVec<[(&str, &str); 8]> =
            reply.headers.iter().map(|(name, value)| (&**name, &**value)).collect();
        let _ = write_empty(&mut entry.out, status, reply.connection, &fields);
        self.replied(link, reply.connection);
    }

    pub(super) fn reply(
        &mut self,
        link: LinkId,
        status: u16,
        content_type: Option<&str>,
        body: &[u8],
    ) {
        let Some(entry) = self.links.get_mut(link) else { return };
        let LinkKind::Http(http) = &mut entry.kind else { return };
        let reply = std::mem::take(&mut http.reply);
        let fields: SmallVec<[(&str, &str); 8]> =
            reply.headers.iter().map(|(name, value)| (&**name, &**value)).collect();
        let (connection, content_length) = (reply.connection, body.len());
        let head =
            ResponseHead { status, content_type, content_length, connection, extra: &fields };
        // The fields were checked when the server was built.
        let _ = match reply.head_only {
            true => write_head(&mut entry.out, &head),
            false => write_response(&mut entry.out, &head, body),
        };
        self.replied(link, connection);
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
