//! One publisher, any number of readers: the fan-out in thirty lines.
//!
//! Readers connect with any Socket.IO client and hear `tick` ten times a second. Each tick is
//! encoded once, however many there are. `PORT` chooses the port (default 3000).

use std::thread;
use std::time::{Duration, Instant};

use stentor::{EmitError, Handle, Server, Socket};

#[allow(clippy::print_stderr, reason = "an example has no log")]
/// The publisher is a plain thread; `Handle` works from any thread or runtime.
fn publish(handle: &Handle) -> stentor::Result<()> {
    let started = Instant::now();
    for tick in 0_u64.. {
        match handle.to("readers").emit("tick", (tick, started.elapsed().as_millis() as u64)) {
            // A shard that is behind misses this tick; the next one is a new chance.
            Err(EmitError::MailboxFull) => eprintln!("a shard is busy: it missed tick {tick}"),
            outcome => outcome?,
        }
        thread::sleep(Duration::from_millis(100));
    }
    Ok(())
}

#[allow(clippy::print_stdout, reason = "an example says where it listens")]
fn main() -> stentor::Result<()> {
    let port = std::env::var("PORT").unwrap_or_else(|_| "3000".to_owned());
    let bound = Server::builder()
        .namespace("/", |ns| {
            ns.on_connect(|socket: Socket| socket.join("readers"));
        })
        .bind(format!("0.0.0.0:{port}"))?;
    println!("ticking on http://localhost:{}", bound.local_addr().port());
    let handle = bound.handle();
    thread::spawn(move || publish(&handle));
    bound.run()
}
