//! The floor: what the kernel alone costs for the same bytes to the same clients.
//!
//! A bare sender. It answers the clients' handshakes with prebuilt bytes, finds out whether a
//! client's frame is a `join`, a `publish` or an `echo` by nothing but its length, and then sends
//! one prebuilt frame (the number and the text patched in once per broadcast) to every connection
//! that has joined: one send per connection and broadcast, or, coalescing, one send per connection
//! and turn. What a server costs above this is its own doing.

mod epoll;
mod machine;
mod uring;

use std::io::Write;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};

use clap::{Args, ValueEnum};
use socket2::{Domain, Protocol, Socket, Type};

use crate::Failure;
use machine::Machine;

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Io {
    Uring,
    Epoll,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Sends {
    /// One per connection and broadcast.
    Single,
    /// One per connection and turn: pending broadcasts leave together.
    Coalesced,
}

#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Port to listen on; 0 takes a free one.
    #[arg(long, default_value_t = 3001)]
    port: u16,
    #[arg(long, value_enum, default_value_t = Io::Uring)]
    io: Io,
    #[arg(long, value_enum, default_value_t = Sends::Coalesced)]
    sends: Sends,
    /// Bytes of each message's text; must be the generator's.
    #[arg(long, default_value_t = 64)]
    payload: usize,
    /// Pin the process to this core.
    #[arg(long)]
    core: Option<usize>,
}

const PAYLOAD_LEAST: usize = 16;

/// Whether the floor can serve texts of this length.
pub(crate) fn check_payload(payload: usize) -> Result<(), Failure> {
    if payload < PAYLOAD_LEAST {
        // Shorter, a frame could be as long as one of another kind.
        let why = format!("the floor tells frames by their length: at least {PAYLOAD_LEAST} B");
        return Err(Failure::Usage(why));
    }
    crate::load::check_payload(payload)
}

pub(crate) fn run(options: &Options) -> Result<(), Failure> {
    check_payload(options.payload)?;
    if let Some(core) = options.core {
        crate::system::pin(core)?;
    }
    let _ = crate::system::raise_descriptors(1 << 20);
    let listener = listen(options.port).map_err(Failure::io("listen"))?;
    let port = listener.local_addr().map_err(Failure::io("listen"))?.port();
    say!("listening on http://127.0.0.1:{port}");
    std::io::stdout().flush().map_err(Failure::io("write"))?;
    let machine = Machine::new(options.payload);
    let served = match options.io {
        Io::Uring => uring::serve(listener, machine, options.sends),
        Io::Epoll => epoll::serve(listener, machine, options.sends),
    };
    served.map_err(Failure::io("serve the floor"))
}

fn listen(port: u16) -> std::io::Result<TcpListener> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    // Accepted connections inherit it.
    socket.set_tcp_nodelay(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, port)).into())?;
    socket.listen(4096)?;
    Ok(socket.into())
}
