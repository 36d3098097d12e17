//! Worlds of the real drivers, and what only a kernel can show.

use std::cell::RefCell;
use std::collections::HashSet;
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::rc::Rc;
use std::time::Duration;

use ::mio::unix::SourceFd;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::suite::contract;
use super::{Found, Peer, Seen, World, has_received, pattern, received};
use crate::io::mio::Mio;
#[cfg(target_os = "linux")]
use crate::io::uring::{self, Uring};
use crate::io::wake::WakeEdge;
use crate::io::{Bytes, Driver, Event, Handoff, LinkId, SendOp, listen};

/// A driver with a host that sleeps on its wake descriptor as an edge, like tokio does.
pub(super) struct Kernel<D> {
    driver: D,
    addr: SocketAddr,
    host: ::mio::Poll,
    notices: ::mio::Events,
}

impl<D: Driver> Kernel<D> {
    fn new(make: impl FnOnce(std::net::TcpListener) -> D) -> Self {
        let listener = listen::listen("127.0.0.1:0".parse().unwrap(), true, 1024).unwrap();
        let addr = listener.local_addr().unwrap();
        let driver = make(listener);
        let host = ::mio::Poll::new().unwrap();
        let wake = driver.wake_descriptor().unwrap().as_raw_fd();
        host.registry()
            .register(&mut SourceFd(&wake), ::mio::Token(0), ::mio::Interest::READABLE)
            .unwrap();
        Self { driver, addr, host, notices: ::mio::Events::with_capacity(4) }
    }
}

impl<D: Driver> World for Kernel<D> {
    type Kernel = D;
    type Peer = TcpStream;

    fn driver(&mut self) -> &mut D {
        &mut self.driver
    }

    fn connect(&mut self) -> TcpStream {
        let stream = TcpStream::connect(self.addr).unwrap();
        stream.set_nodelay(true).unwrap();
        stream.set_nonblocking(true).unwrap();
        stream
    }

    fn wait(&mut self, limit: Duration) {
        self.driver.prepare_wait().unwrap();
        if self.driver.has_more() {
            return;
        }
        match self.host.poll(&mut self.notices, Some(limit)) {
            Err(error) if error.kind() != ErrorKind::Interrupted => panic!("{error}"),
            _ => {}
        }
    }
}

impl Peer for TcpStream {
    fn write(&mut self, bytes: &[u8]) -> usize {
        match Write::write(self, bytes) {
            Ok(len) => len,
            Err(error) if error.kind() == ErrorKind::WouldBlock => 0,
            Err(error) if error.kind() == ErrorKind::BrokenPipe => 0, // the other end is gone
            Err(error) => panic!("{error}"),
        }
    }

    fn read(&mut self) -> Found {
        let mut buffer = vec![0; 64 * 1024];
        match Read::read(self, &mut buffer) {
            Ok(0) => Found::End,
            Ok(len) => {
                buffer.truncate(len);
                Found::Bytes(buffer)
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => Found::Nothing,
            Err(error) if error.kind() == ErrorKind::ConnectionReset => Found::Broken,
            Err(error) => panic!("{error}"),
        }
    }

    fn finish(&mut self) {
        self.shutdown(Shutdown::Write).unwrap();
    }

    fn reset(self) {
        socket2::SockRef::from(&self).set_linger(Some(Duration::ZERO)).unwrap();
    }
}

fn mio_world() -> Option<Kernel<Mio>> {
    Some(Kernel::new(|listener| Mio::new(Some(listener)).unwrap()))
}

contract!(mio_contract, crate::io::tests::kernel::mio_world());

/// `None` where the kernel has no io_uring for us, with which its claims are void.
#[cfg(target_os = "linux")]
fn uring_world(config: &uring::Config) -> Option<Kernel<Uring>> {
    match Uring::new(None, config) {
        Ok(_) => Some(Kernel::new(|listener| Uring::new(Some(listener), config).unwrap())),
        Err(uring::Unsupported::Forbidden | uring::Unsupported::Missing) => None,
        Err(why) => panic!("{why}"),
    }
}

#[cfg(target_os = "linux")]
fn deferred_world() -> Option<Kernel<Uring>> {
    uring_world(&uring::Config::default())
}

#[cfg(target_os = "linux")]
fn cooperative_world() -> Option<Kernel<Uring>> {
    let mode = Some(uring::Mode::Cooperative);
    uring_world(&uring::Config { mode, ..uring::Config::default() })
}

/// Every queue overflows here and every buffer is in use.
#[cfg(target_os = "linux")]
fn tiny_world() -> Option<Kernel<Uring>> {
    uring_world(&uring::Config {
        submissions: 4,
        completions: 8,
        buffers: 4,
        buffer_bytes: 1000,
        mode: None,
    })
}

#[cfg(target_os = "linux")]
contract!(deferred_contract, crate::io::tests::kernel::deferred_world());
#[cfg(target_os = "linux")]
contract!(cooperative_contract, crate::io::tests::kernel::cooperative_world());
#[cfg(target_os = "linux")]
contract!(tiny_contract, crate::io::tests::kernel::tiny_world());

/// Instantiates what is below for one driver.
macro_rules! kernel_claims {
    ($module:ident, $world:expr) => {
        mod $module {
            kernel_claims!(@ $world,
                a_socket_pair_can_be_attached,
                a_thousand_connections_leave_no_descriptor_behind,
                many_senders_at_once_are_all_heard,
                a_sleeping_tokio_host_is_woken_for_accepts_and_bytes,
                no_connection_is_taken_after_accepting_stopped,
                a_simulated_connection_is_refused,
                running_out_of_descriptors_suspends_accepting,
                dropping_the_driver_closes_every_connection,
            );
        }
    };
    (@ $world:expr, $($claim:ident,)*) => {
        $(#[test]
        fn $claim() {
            let Some(world) = $world else { return };
            crate::io::tests::kernel::$claim(world);
        })*
    };
}

kernel_claims!(mio_kernel, crate::io::tests::kernel::mio_world());
#[cfg(target_os = "linux")]
kernel_claims!(deferred_kernel, crate::io::tests::kernel::deferred_world());
#[cfg(target_os = "linux")]
kernel_claims!(cooperative_kernel, crate::io::tests::kernel::cooperative_world());
#[cfg(target_os = "linux")]
kernel_claims!(tiny_kernel, crate::io::tests::kernel::tiny_world());

fn a_socket_pair_can_be_attached<D: Driver>(mut world: Kernel<D>) {
    let (ours, mut theirs) = UnixStream::pair().unwrap();
    theirs.write_all(b"hello").unwrap();
    let link = world.driver().attach(Handoff::Fd(OwnedFd::from(ours))).unwrap();
    let seen = world.until(|seen| has_received(seen, link, 5));
    assert_eq!(received(&seen, link), b"hello");

    // A full pair behaves like a full connection.
    let mut expected: Vec<u8> = Vec::new();
    let chunk = pattern(50_000, 1);
    loop {
        let short = world.send(link, &chunk);
        let taken = short.as_ref().map_or(chunk.len(), |short| short.sent);
        expected.extend(&chunk[..taken]);
        if let Some(short) = short {
            assert!(short.error.is_none(), "{short:?}");
            break;
        }
    }
    let mut got = vec![0; expected.len()];
    theirs.read_exact(&mut got).unwrap();
    assert!(got == expected, "bytes differ");
    let seen = world.until(|seen| !seen.is_empty());
    assert!(matches!(seen.as_slice(), [Seen::Writable(of)] if *of == link), "{seen:?}");

    drop(theirs);
    let seen = world.until(|seen| !seen.is_empty());
    assert!(matches!(seen.as_slice(), [Seen::Ended(of)] if *of == link), "{seen:?}");
    let short = world.send(link, b"x").expect("nobody is there");
    assert!(short.error.is_some(), "{short:?}");
}

/// Sockets on our side of `port` that some descriptor still holds open, the listener apart.
#[cfg(target_os = "linux")]
fn open_sockets(port: u16) -> usize {
    const LISTEN: &str = "0A";
    let table = std::fs::read_to_string("/proc/net/tcp").unwrap();
    let ours = format!(":{port:04X}");
    table
        .lines()
        .filter(|line| {
            let fields: Vec<&str> = line.split_whitespace().collect();
            fields.len() > 9
                && fields[1].ends_with(&ours)
                && fields[3] != LISTEN
                && fields[9] != "0"
        })
        .count()
}

#[cfg(not(target_os = "linux"))]
fn open_sockets(_port: u16) -> usize {
    0
}

fn a_thousand_connections_leave_no_descriptor_behind<D: Driver>(mut world: Kernel<D>) {
    for round in 0..20 {
        let mut peers = Vec::new();
        for at in 0..50 {
            let (link, mut peer) = world.link();
            match (at + round) % 5 {
                0 => peer.reset(),
                1 => {
                    peer.finish();
                    peers.push(peer);
                }
                2 => {
                    Peer::write(&mut peer, b"unread");
                    world.driver().close(link);
                }
                3 => {
                    world.driver().detach(link);
                    let seen = world.until(|seen| !seen.is_empty());
                    assert!(matches!(seen.as_slice(), [Seen::Detached(..)]), "{seen:?}");
                }
                _ => {
                    world.driver().close(link);
                    peers.push(peer);
                }
            }
            if (at + round) % 5 < 2 {
                let seen = world.until(|seen| !seen.is_empty());
                assert_eq!(seen[0].link(), Some(link), "{seen:?}");
                world.driver().close(link);
            }
        }
    }
    let begun = std::time::Instant::now();
    while open_sockets(world.addr.port()) > 0 {
        assert!(begun.elapsed() < super::PATIENCE, "{} leaked", open_sockets(world.addr.port()));
        world.turn();
        world.wait(Duration::from_millis(1));
    }
}

/// More links send at once than a driver has buffers, each more than one buffer holds.
fn many_senders_at_once_are_all_heard<D: Driver>(mut world: Kernel<D>) {
    const SENDERS: u32 = 400;
    const LEN: usize = 40_000;
    let mut links: Vec<(LinkId, TcpStream)> = (0..SENDERS).map(|_| world.link()).collect();
    for (salt, (_, peer)) in (0..).zip(&mut links) {
        assert_eq!(Peer::write(peer, &pattern(LEN, salt)), LEN);
        if salt % 2 == 0 {
            peer.finish();
        }
    }
    let mut total = 0;
    let mut ends = 0;
    let mut counted = 0;
    let seen = world.until(|seen| {
        for event in &seen[counted..] {
            match event {
                Seen::Received(_, bytes) => total += bytes.len(),
                Seen::Ended(_) => ends += 1,
                other => panic!("{other:?}"),
            }
        }
        counted = seen.len();
        total == LEN * SENDERS as usize && ends == SENDERS / 2
    });
    for (salt, (link, _)) in (0..).zip(&links) {
        assert!(received(&seen, *link) == pattern(LEN, salt), "link {salt} differs");
    }
}

/// The loop a shard will run, as small as it can be: it echoes.
async fn host<D: Driver>(driver: Rc<RefCell<D>>, turns: Rc<RefCell<u32>>) {
    let wake = WakeEdge::new(&*driver.borrow()).unwrap().unwrap();
    loop {
        {
            let mut driver = driver.borrow_mut();
            *turns.borrow_mut() += 1;
            driver.poll().unwrap();
            let mut echo: Vec<(LinkId, Vec<u8>)> = Vec::new();
            while let Some(event) = driver.next() {
                if let Event::Received { link, bytes } = event {
                    echo.push((link, bytes.to_vec()));
                }
            }
            for (link, bytes) in &echo {
                let mut short = Vec::new();
                driver.send(&[SendOp { link: *link, bytes: Bytes::One(bytes) }], &mut short);
                assert!(short.is_empty());
            }
            driver.prepare_wait().unwrap();
            if driver.has_more() {
                continue;
            }
        }
        wake.wait().await.unwrap();
    }
}

fn a_sleeping_tokio_host_is_woken_for_accepts_and_bytes<D: Driver + 'static>(world: Kernel<D>) {
    let Kernel { driver, addr, .. } = world;
    // The peer lives on another thread, so that the host's thread really sleeps in between.
    let peer = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let talk = async {
                for _ in 0..20 {
                    let mut stream = tokio::net::TcpStream::connect(addr).await.unwrap();
                    for round in 0..50u32 {
                        let bytes = pattern(1 + round as usize * 17, round);
                        // Gives the host time to fall asleep in some rounds and not in others.
                        tokio::time::sleep(Duration::from_micros(u64::from(round % 5) * 60)).await;
                        stream.write_all(&bytes).await.unwrap();
                        let mut back = vec![0; bytes.len()];
                        stream.read_exact(&mut back).await.unwrap();
                        assert_eq!(back, bytes);
                    }
                }
            };
            tokio::time::timeout(super::PATIENCE, talk).await.expect("a wake-up was lost");
        });
    });
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let local = tokio::task::LocalSet::new();
    let turns = Rc::new(RefCell::new(0));
    local.block_on(&runtime, async {
        let hosted =
            tokio::task::spawn_local(host(Rc::new(RefCell::new(driver)), Rc::clone(&turns)));
        let joined = tokio::task::spawn_blocking(move || peer.join());
        joined.await.unwrap().unwrap();
        hosted.abort();
        assert!(hosted.await.unwrap_err().is_cancelled());
    });
    // A host that spins instead of sleeping would make these millions.
    let turns = *turns.borrow();
    assert!(turns < 20_000, "{turns} turns for 1000 round trips");
}

fn no_connection_is_taken_after_accepting_stopped<D: Driver>(mut world: Kernel<D>) {
    let (link, mut peer) = world.link();
    world.driver().stop_accepting();
    world.driver().resume_accepting();
    let begun = std::time::Instant::now();
    // A ring closes its listener when the accept in flight was cancelled.
    while let Ok(late) = TcpStream::connect(world.addr) {
        assert!(begun.elapsed() < super::PATIENCE, "still accepting");
        drop(late);
        world.wait(Duration::from_millis(1));
        let seen = world.turn();
        assert!(seen.is_empty(), "{seen:?}");
    }
    Peer::write(&mut peer, b"old links live on");
    let seen = world.until(|seen| has_received(seen, link, 17));
    assert_eq!(received(&seen, link), b"old links live on");
}

fn a_simulated_connection_is_refused<D: Driver>(mut world: Kernel<D>) {
    let error = world.driver().attach(Handoff::Sim(1)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
}

fn dropping_the_driver_closes_every_connection<D: Driver>(mut world: Kernel<D>) {
    let mut links: Vec<_> = (0..12).map(|_| world.link()).collect();
    for (at, (link, peer)) in links.iter_mut().enumerate() {
        match at % 4 {
            0 => world.driver().set_reading(*link, false),
            1 => assert!(Peer::write(peer, b"unheard") > 0),
            2 => world.driver().detach(*link),
            _ => while world.send(*link, &[0; 1 << 20]).is_none() {},
        }
    }
    let Kernel { driver, addr, .. } = world;
    drop(driver);
    // The ring's own references go a moment after its descriptor.
    let begun = std::time::Instant::now();
    while open_sockets(addr.port()) > 0 {
        assert!(begun.elapsed() < super::PATIENCE, "{} left", open_sockets(addr.port()));
        std::thread::yield_now();
    }
    let left = TcpStream::connect(addr).expect_err("the listener is closed");
    assert_eq!(left.kind(), ErrorKind::ConnectionRefused);
}

/// The limit belongs to the whole process, so a child process runs this test alone.
fn running_out_of_descriptors_suspends_accepting<D: Driver>(mut world: Kernel<D>) {
    const CHILD: &str = "STENTOR_TEST_DESCRIPTORS";
    if std::env::var_os(CHILD).is_none() {
        let name = std::thread::current().name().unwrap().to_owned();
        let status = std::process::Command::new(std::env::current_exe().unwrap())
            .args([&name, "--exact", "--test-threads=1"])
            .env(CHILD, "1")
            .stdout(std::process::Stdio::null())
            .status()
            .unwrap();
        assert!(status.success(), "the child failed");
        return;
    }
    let (link, mut peer) = world.link();
    let tcp = socket2::Type::STREAM;
    let waiting: Vec<_> =
        (0..3).map(|_| socket2::Socket::new(socket2::Domain::IPV4, tcp, None).unwrap()).collect();
    let mut hoard = Vec::new();
    while let Ok(file) = std::fs::File::open("/dev/null") {
        hoard.push(file);
        if hoard.len() > 100_000 {
            return; // no limit to reach here
        }
    }
    for socket in &waiting {
        socket.connect(&world.addr.into()).unwrap();
    }
    let seen = world.until(|seen| seen.iter().any(|s| matches!(s, Seen::AcceptFailed)));
    let failures = seen.iter().filter(|s| matches!(s, Seen::AcceptFailed)).count();
    assert_eq!(failures, 1, "{seen:?}");
    Peer::write(&mut peer, b"others are served");
    let seen = world.until(|seen| has_received(seen, link, 17));
    assert!(seen.iter().all(|s| matches!(s, Seen::Received(..))), "suspended: {seen:?}");

    drop(hoard);
    world.driver().resume_accepting();
    let mut links = HashSet::new();
    world.until(|seen| {
        links.extend(seen.iter().filter_map(Seen::link));
        links.len() == waiting.len()
    });
}
