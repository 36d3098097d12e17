//! A bound server and a running one: listeners, threads, their start and end.

use std::fmt;
use std::net::{SocketAddr, TcpListener};
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;

use rand::TryRng;
use tokio::sync::watch;

use super::app::Registered;
use super::builder::{DriverKind, ServerBuilder};
use super::error::{Error, Result};
use super::handle::Handle;
use crate::io::{Driver, listen, mio::Mio};
use crate::shard::config::Config;
use crate::shard::port::Ports;
use crate::shard::turn::Turn;
use crate::shard::{Shard, host};

/// Connections that the kernel may hold for us before they are accepted.
const BACKLOG: u32 = 4096;

/// A server whose address is bound; clients wait until it runs.
pub struct Bound {
    app: Arc<Registered>,
    config: Arc<Config>,
    ports: Arc<Ports>,
    listeners: Vec<TcpListener>,
    addr: SocketAddr,
    driver: DriverKind,
    /// How the driver was chosen, for the log.
    why: String,
    pin: bool,
    running: watch::Sender<usize>,
}

impl fmt::Debug for Bound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Bound").field("addr", &self.addr).finish_non_exhaustive()
    }
}

impl Bound {
    pub(crate) fn new(builder: ServerBuilder, addr: SocketAddr) -> Result<Self> {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let shards = builder.shards.unwrap_or(cores).min(usize::from(u16::MAX));
        let (driver, why) = choose(builder.driver)?;
        let reuse_port = shards > 1;
        if reuse_port && addr.port() != 0 {
            // A port that is shared would hide another server on it: see that there is none.
            drop(listen::listen(addr, false, BACKLOG).map_err(Error::io("bind"))?);
        }
        let first = listen::listen(addr, reuse_port, BACKLOG).map_err(Error::io("bind"))?;
        // A port of 0 is chosen once and shared.
        let addr = first.local_addr().map_err(Error::io("read the bound address"))?;
        let mut listeners = vec![first];
        for _ in 1..shards {
            listeners.push(listen::listen(addr, reuse_port, BACKLOG).map_err(Error::io("bind"))?);
        }
        let ports = Arc::new(Ports::new(
            shards,
            builder.config.limits.mail,
            builder.config.limits.mail_bytes,
        ));
        Ok(Self {
            app: Arc::new(builder.registered),
            config: Arc::new(builder.config),
            ports,
            listeners,
            addr,
            driver,
            why,
            pin: builder.pin,
            running: watch::Sender::new(shards),
        })
    }

    /// The address that is bound; its port is the real one.
    #[must_use]
    pub fn local_addr(&self) -> SocketAddr {
        self.addr
    }

    /// The server from outside, for any thread.
    #[must_use]
    pub fn handle(&self) -> Handle {
        let timeout_ms = self.config.timings.ack_timeout;
        Handle::new(self.ports.clone(), timeout_ms, self.running.subscribe())
    }

    /// Runs until [`Handle::shutdown`]; the calling thread waits.
    ///
    /// # Errors
    /// As [`spawn`](Self::spawn) and [`Running::join`].
    pub fn run(self) -> Result<()> {
        self.spawn()?.join()
    }

    /// Starts the shards, each on a thread of its own, and returns when all accept.
    ///
    /// # Errors
    /// [`Error::Io`] when a thread or its ring cannot be made.
    pub fn spawn(self) -> Result<Running> {
        let handle = self.handle();
        let (hard, _) = listen::raise_descriptor_limit();
        tracing::debug!(target: "stentor", descriptors = hard, "descriptor limit");
        let cores = match self.pin {
            true => core_affinity::get_core_ids().unwrap_or_default(),
            false => Vec::new(),
        };
        let shards = self.listeners.len();
        let (started, starts) = mpsc::channel();
        let mut threads = Vec::new();
        for (index, listener) in self.listeners.into_iter().enumerate() {
            let start = Start {
                app: self.app.clone(),
                config: self.config.clone(),
                ports: self.ports.clone(),
                index: index as u16,
                driver: self.driver,
                core: (!cores.is_empty()).then(|| cores[index % cores.len()]),
                started: started.clone(),
                running: Departure { running: self.running.clone(), ports: self.ports.clone() },
            };
            let thread = std::thread::Builder::new()
                .name(format!("stentor-{index}"))
                .spawn(move || start.run(listener));
            match thread {
                Ok(thread) => threads.push(thread),
                Err(error) => {
                    // The shard that never was is told to the starter like one that failed.
                    let _ = started.send(Err(error));
                    break;
                }
            }
        }
        drop(started);
        let running = Running { threads, handle, addr: self.addr };
        for _ in 0..shards {
            let outcome = starts
                .recv()
                .unwrap_or_else(|_| Err(std::io::Error::other("a shard ended before it began")));
            if let Err(error) = outcome {
                drop(running.handle.shutdown(std::time::Duration::ZERO));
                // The others end; the first error is the one to tell.
                let _ = running.join();
                return Err(Error::Io { what: "start a shard", source: error });
            }
        }
        tracing::info!(
            target: "stentor",
            addr = %self.addr,
            shards = running.threads.len(),
            driver = %self.why,
            "listening"
        );
        Ok(running)
    }
}

/// When a shard is gone although nobody shut it down, the rest of the server follows within this
/// time: a server that serves only some of its clients helps nobody, one that ends is restarted.
const FOLLOW_WITHIN_MS: u64 = 10_000;

/// Counts a shard off when its thread ends, however it ends.
struct Departure {
    running: watch::Sender<usize>,
    ports: Arc<Ports>,
}

impl Drop for Departure {
    fn drop(&mut self) {
        self.running.send_modify(|running| *running = running.saturating_sub(1));
        if !*self.ports.draining().borrow() {
            tracing::error!(target: "stentor", "a shard ended by itself; the server shuts down");
            self.ports.shut_down(FOLLOW_WITHIN_MS);
        }
    }
}

/// What a shard's thread begins with.
struct Start {
    app: Arc<Registered>,
    config: Arc<Config>,
    ports: Arc<Ports>,
    index: u16,
    driver: DriverKind,
    core: Option<core_affinity::CoreId>,
    started: mpsc::Sender<std::io::Result<()>>,
    running: Departure,
}

impl Start {
    fn run(self, listener: TcpListener) -> std::io::Result<()> {
        if let Some(core) = self.core
            && !core_affinity::set_for_current(core)
        {
            tracing::warn!(target: "stentor", shard = self.index, "could not pin the thread");
        }
        match self.driver {
            #[cfg(target_os = "linux")]
            DriverKind::Uring => self.host(move || uring(Some(listener))),
            _ => self.host(move || Mio::new(Some(listener))),
        }
    }

    fn host<D: Driver>(self, driver: impl FnOnce() -> std::io::Result<D>) -> std::io::Result<()> {
        let Self { app, config, ports, index, started, running, .. } = self;
        let _running = running;
        let tell = started.clone();
        drop(started);
        host::run(move || {
            let driver = match driver() {
                Ok(driver) => driver,
                Err(error) => {
                    let _ = tell.send(Err(std::io::Error::new(error.kind(), error.to_string())));
                    return Err(error);
                }
            };
            let mut seed = [0; 32];
            rand::rngs::SysRng.try_fill_bytes(&mut seed).map_err(std::io::Error::other)?;
            let name = driver.name();
            tracing::debug!(target: "stentor", shard = index, driver = name, "shard starts");
            let shard = Shard::new(app, config, ports, index, driver.now_ms(), seed);
            let _ = tell.send(Ok(()));
            Ok(Turn::new(shard, driver))
        })
    }
}

/// The driver that will be used: the one asked for, or what the machine has.
fn choose(wish: DriverKind) -> Result<(DriverKind, String)> {
    let wish = match std::env::var("STENTOR_DRIVER").ok().as_deref() {
        None | Some("") => wish,
        Some("auto") => DriverKind::Auto,
        Some("uring") => DriverKind::Uring,
        Some("mio") => DriverKind::Mio,
        Some(other) => {
            let text = format!("STENTOR_DRIVER is {other:?}; it may be uring, mio or auto");
            return Err(Error::Config(text));
        }
    };
    if wish == DriverKind::Mio {
        return Ok((wish, "readiness, as asked".to_owned()));
    }
    match probe_uring() {
        Ok(mode) => Ok((DriverKind::Uring, format!("io_uring, {mode}"))),
        Err(error) if wish == DriverKind::Auto => {
            Ok((DriverKind::Mio, format!("readiness, for {error}")))
        }
        Err(source) => Err(Error::Io { what: "set up io_uring", source }),
    }
}

#[cfg(target_os = "linux")]
fn probe_uring() -> std::io::Result<String> {
    // On a thread of its own: a ring that goes may interrupt a system call of the thread it was
    // made on, and that should not be the user's.
    let probe = std::thread::spawn(crate::io::uring::supported).join();
    let mode = probe
        .map_err(|_| std::io::Error::other("the probe panicked"))?
        .map_err(std::io::Error::other)?;
    Ok(format!("{mode:?} task work").to_lowercase())
}

#[cfg(target_os = "linux")]
fn uring(listener: Option<TcpListener>) -> std::io::Result<crate::io::uring::Uring> {
    let config = crate::io::uring::Config::default();
    crate::io::uring::Uring::new(listener, &config).map_err(std::io::Error::other)
}

#[cfg(not(target_os = "linux"))]
fn probe_uring() -> std::io::Result<String> {
    Err(std::io::Error::new(std::io::ErrorKind::Unsupported, "io_uring is Linux only"))
}

/// A running server.
#[derive(Debug)]
pub struct Running {
    threads: Vec<JoinHandle<std::io::Result<()>>>,
    handle: Handle,
    addr: SocketAddr,
}

impl Running {
    /// The server from outside, for any thread.
    #[must_use]
    pub fn handle(&self) -> Handle {
        self.handle.clone()
    }

    /// The address that is bound.
    #[must_use]
    pub fn local_addr(&self) -> SocketAddr {
        self.addr
    }

    /// Waits until every shard has ended, which [`Handle::shutdown`] makes them.
    ///
    /// # Errors
    /// [`Error::ShardPanicked`] or [`Error::Io`], the first there was.
    pub fn join(self) -> Result<()> {
        let mut outcome = Ok(());
        for (index, thread) in self.threads.into_iter().enumerate() {
            let ended = match thread.join() {
                Ok(ended) => ended.map_err(Error::io("run a shard")),
                Err(_) => Err(Error::ShardPanicked(index)),
            };
            outcome = outcome.and(ended);
        }
        outcome
    }
}
