//! The official browser client at the server's own path: files kept in memory, or a redirect.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io;
use std::path::Path;
use std::rc::Rc;

use super::Shard;
use super::config::ServeClient;
use crate::io::LinkId;
use crate::protocol::http::{Head, Method};

/// Where the official release lives.
const CDN: &str = "https://cdn.socket.io/4.8.1/";

/// The files that the reference serves.
const NAMES: [&str; 8] = [
    "socket.io.js",
    "socket.io.js.map",
    "socket.io.min.js",
    "socket.io.min.js.map",
    "socket.io.esm.min.js",
    "socket.io.esm.min.js.map",
    "socket.io.msgpack.min.js",
    "socket.io.msgpack.min.js.map",
];

/// A file larger than this is none of the client's.
const FILE_BYTES_MAX: u64 = 4 * 1024 * 1024;

#[derive(Debug, Clone)]
pub(crate) struct File {
    bytes: Vec<u8>,
    etag: String,
}

/// See the module's text.
#[derive(Debug, Clone)]
pub(crate) enum ClientFiles {
    Cdn,
    Memory(HashMap<&'static str, File>),
}

impl ClientFiles {
    /// Reads the files once. A directory without any of them is an error.
    pub(crate) fn load(wish: &ServeClient) -> io::Result<Self> {
        match wish {
            ServeClient::Cdn => Ok(Self::Cdn),
            ServeClient::Directory(directory) => Self::read(directory),
        }
    }

    fn read(directory: &Path) -> io::Result<Self> {
        let mut files = HashMap::new();
        for name in NAMES {
            let path = directory.join(name);
            match std::fs::metadata(&path) {
                Ok(metadata) if metadata.len() <= FILE_BYTES_MAX => {}
                Ok(_) => return Err(io::Error::other(format!("{} is too large", path.display()))),
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => return Err(error),
            }
            let bytes = std::fs::read(&path)?;
            let mut hasher = DefaultHasher::new();
            bytes.hash(&mut hasher);
            files.insert(name, File { etag: format!("\"{:016x}\"", hasher.finish()), bytes });
        }
        if files.is_empty() {
            let text = format!("no client files in {}", directory.display());
            return Err(io::Error::new(io::ErrorKind::NotFound, text));
        }
        Ok(Self::Memory(files))
    }
}

impl Shard {
    /// Answers a request for a file of the client. `false`: it is none.
    pub(super) fn serve_client_file(self: &Rc<Self>, link: LinkId, head: &Head<'_>) -> bool {
        let Some(files) = &self.config.serve_client else { return false };
        let wanted =
            head.path.strip_prefix(&*self.config.path).map(|name| name.trim_start_matches('/'));
        let Some(name) = NAMES.into_iter().find(|name| Some(*name) == wanted) else { return false };
        if !matches!(head.method, Method::Get | Method::Head) {
            // A body that nobody reads would be taken for the next request.
            self.close_after_reply(link);
            self.core.borrow_mut().reply_empty(link, 405);
            return true;
        }
        match files {
            ClientFiles::Cdn => {
                self.add_reply_field(link, "Location", &format!("{CDN}{name}"));
                self.core.borrow_mut().reply_empty(link, 302);
            }
            ClientFiles::Memory(files) => match files.get(name) {
                None => self.core.borrow_mut().reply_empty(link, 404),
                Some(file) => self.send_file(link, head, name, file),
            },
        }
        true
    }

    fn send_file(&self, link: LinkId, head: &Head<'_>, name: &str, file: &File) {
        self.add_reply_field(link, "ETag", &file.etag);
        self.add_reply_field(link, "Cache-Control", "public, max-age=0");
        let known = head.header("if-none-match").is_some_and(|known| {
            known.split(|byte| *byte == b',').any(|tag| {
                let tag = tag.trim_ascii();
                tag.strip_prefix(b"W/").unwrap_or(tag) == file.etag.as_bytes()
            })
        });
        let mut core = self.core.borrow_mut();
        if known {
            core.reply_empty(link, 304);
            return;
        }
        let kind = match name.ends_with(".map") {
            true => "application/json; charset=utf-8",
            false => "application/javascript; charset=utf-8",
        };
        core.reply(link, 200, Some(kind), &file.bytes);
    }

    fn add_reply_field(&self, link: LinkId, name: &str, value: &str) {
        if let Some(http) = self.core.borrow_mut().links.http(link) {
            http.reply.headers.push((name.to_owned(), value.to_owned()));
        }
    }
}
