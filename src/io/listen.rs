//! Listening sockets and the process's room for descriptors.
//!
//! Knows nothing of drivers: it makes a listener, which a driver then owns.

use std::io;
use std::net::{SocketAddr, TcpListener};

use socket2::{Domain, Protocol, Socket, Type};

/// Binds and listens. With `reuse_port` several listeners share one address and the kernel spreads
/// connections over them, which is how every shard gets its own.
pub(crate) fn listen(addr: SocketAddr, reuse_port: bool, backlog: u32) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(addr), Type::STREAM, Some(Protocol::TCP))?;
    // A restarted server must not wait for the old one's TIME_WAIT connections.
    socket.set_reuse_address(true)?;
    if reuse_port {
        socket.set_reuse_port(true)?;
    }
    if addr.is_ipv6() && addr.ip().is_unspecified() {
        // "[::]" means every address, IPv4 too. Systems that cannot do this keep to IPv6.
        let _ = socket.set_only_v6(false);
    }
    // Linux hands this on to every accepted socket, which saves a call for each.
    socket.set_tcp_nodelay(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&addr.into())?;
    socket.listen(i32::try_from(backlog).unwrap_or(i32::MAX))?;
    Ok(socket.into())
}

/// Raises the soft limit of open descriptors to the hard one, and answers (soft, hard) as they are
/// afterwards. Failing to raise it is no error: the server then simply holds fewer connections.
pub(crate) fn raise_descriptor_limit() -> (u64, u64) {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: `limit` is a valid, writable rlimit for the whole call.
    if unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) } != 0 {
        return (0, 0);
    }
    // macOS names no finite hard limit but refuses more than this constant.
    #[cfg(target_vendor = "apple")]
    let target = limit.rlim_max.min(APPLE_OPEN_MAX);
    #[cfg(not(target_vendor = "apple"))]
    let target = limit.rlim_max;
    if limit.rlim_cur < target {
        let raised = libc::rlimit { rlim_cur: target, rlim_max: limit.rlim_max };
        // SAFETY: `raised` is a valid rlimit that the call only reads.
        if unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const raised) } == 0 {
            limit.rlim_cur = target;
        }
    }
    (limit.rlim_cur, limit.rlim_max)
}

/// `OPEN_MAX` of macOS's sys/syslimits.h.
#[cfg(target_vendor = "apple")]
const APPLE_OPEN_MAX: libc::rlim_t = 10_240;

/// Whether a failed accept concerns one connection that is gone already, so that the next accept
/// may be tried at once. Everything else (no descriptors, no memory) would only fail again.
pub(super) fn accept_error_is_passing(error: &io::Error) -> bool {
    let passing = [
        libc::ECONNABORTED,
        libc::EINTR,
        libc::EAGAIN,
        // Linux reports what is wrong with the new connection's network here.
        libc::EPROTO,
        libc::ENETDOWN,
        libc::ENOPROTOOPT,
        libc::EHOSTDOWN,
        libc::EHOSTUNREACH,
        libc::EOPNOTSUPP,
        libc::ENETUNREACH,
    ];
    error.raw_os_error().is_some_and(|code| passing.contains(&code))
}

#[cfg(test)]
mod tests {
    use std::net::TcpStream;

    use super::*;

    #[test]
    fn listeners_share_a_port_only_when_asked() {
        let first = listen("127.0.0.1:0".parse().unwrap(), true, 16).unwrap();
        let addr = first.local_addr().unwrap();
        let second = listen(addr, true, 16).unwrap();
        assert_eq!(second.local_addr().unwrap(), addr);
        assert_eq!(listen(addr, false, 16).unwrap_err().kind(), io::ErrorKind::AddrInUse);
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn accepted_sockets_inherit_nodelay() {
        let listener = listen("127.0.0.1:0".parse().unwrap(), false, 16).unwrap();
        listener.set_nonblocking(false).unwrap();
        let _client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        assert!(listener.accept().unwrap().0.nodelay().unwrap());
    }

    #[test]
    fn the_unspecified_ipv6_address_takes_ipv4_too() {
        let Ok(listener) = listen("[::]:0".parse().unwrap(), false, 16) else {
            return; // no IPv6 here
        };
        let port = listener.local_addr().unwrap().port();
        TcpStream::connect(("127.0.0.1", port)).unwrap();
    }

    #[test]
    fn the_descriptor_limit_is_raised_to_the_hard_one() {
        let (soft, hard) = raise_descriptor_limit();
        assert!(soft > 0 && soft <= hard);
        assert_eq!(raise_descriptor_limit(), (soft, hard));
    }
}
