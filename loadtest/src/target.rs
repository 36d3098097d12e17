//! Where the server is: the `--url` of every command.

use std::net::{SocketAddr, ToSocketAddrs};

use serde::{Deserialize, Serialize};

use crate::Failure;

/// A server, resolved.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Target {
    pub(crate) address: SocketAddr,
    /// What the `Host` header says.
    pub(crate) host: String,
    /// Ends with a slash.
    pub(crate) path: String,
}

impl Target {
    /// What [`parse`](Self::parse) reads.
    pub(crate) fn url(&self) -> String {
        format!("http://{}{}", self.host, self.path)
    }

    /// `http://host:port`, with a path when the server's is not `/socket.io/`.
    pub(crate) fn parse(url: &str) -> Result<Self, Failure> {
        let bad = |why: &str| Failure::Usage(format!("{url:?}: {why}"));
        let rest = url
            .strip_prefix("http://")
            .or_else(|| url.strip_prefix("ws://"))
            .ok_or_else(|| bad("a URL here begins with http:// (TLS is not measured)"))?;
        if rest.contains(|it: char| it == '?' || it == '#' || it == '@' || it.is_whitespace()) {
            return Err(bad("only a host, a port and a path can stand here"));
        }
        let (host, path) = match rest.split_once('/') {
            Some((host, path)) if !path.is_empty() => {
                (host, format!("/{}/", path.trim_end_matches('/')))
            }
            Some((host, _)) => (host, "/socket.io/".to_owned()),
            None => (rest, "/socket.io/".to_owned()),
        };
        let with_port = if host.contains(':') { host.to_owned() } else { format!("{host}:80") };
        let mut found = with_port.to_socket_addrs().map_err(|error| bad(&error.to_string()))?;
        let address = found
            .find(SocketAddr::is_ipv4)
            .or_else(|| with_port.to_socket_addrs().ok()?.next())
            .ok_or_else(|| bad("no such host"))?;
        Ok(Self { address, host: host.to_owned(), path })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_with_and_without_a_path() {
        let plain = Target::parse("http://127.0.0.1:3000").unwrap();
        assert_eq!((plain.path.as_str(), plain.address.port()), ("/socket.io/", 3000));
        let slash = Target::parse("http://127.0.0.1:3000/").unwrap();
        assert_eq!(slash.path, "/socket.io/");
        let other = Target::parse("ws://127.0.0.1:3000/rt").unwrap();
        assert_eq!(other.path, "/rt/");
        assert_eq!(Target::parse(&other.url()).unwrap().path, "/rt/");
        for wrong in ["https://127.0.0.1", "http://127.0.0.1/rt/?EIO=4", "http://a b", "http://a@b"]
        {
            assert!(Target::parse(wrong).is_err(), "{wrong}");
        }
    }
}
