//! One core: its tables, its turn, its mail.
//!
//! A [`Shard`] is everything of one core but the driver, which the [`turn::Turn`] holds. It lives
//! on one thread. Keys find it through [`with_current`]; from any other thread they post mail.
//! No code here holds the tables borrowed while user code runs.
//!
//! ```text
//! turn     poll the driver, mail, dispatch, tasks, timers, notices, flush one slice
//! http     requests: classification, handshake, GET, POST, hand-over
//! websocket, packets   frames -> Engine.IO packets -> Socket.IO packets -> App
//! flush    outboxes and answers -> one batch of sends
//! core     the tables: emit, broadcast, close
//! port     keys and mailboxes: how the outside reaches a shard
//! inbox    mail, read: order, and what each letter does
//! tasks    unfinished handlers and their bounds
//! host     a thread with a tokio runtime that runs turns when something happened
//! ```

pub(crate) mod app;
pub(crate) mod client_files;
pub(crate) mod config;
pub(crate) mod core;
mod flush;
pub(crate) mod host;
mod http;
mod inbox;
pub(crate) mod link;
mod packets;
pub(crate) mod port;
mod replies;
pub(crate) mod request;
mod tasks;
mod timers;
pub(crate) mod turn;
mod websocket;

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use self::app::{App, LocalFuture, Tasks};
use self::config::Config;
use self::core::{Core, Notice};
use self::port::{Port, Ports, SocketCell};
use self::tasks::{Counts, TaskOf};
use crate::protocol::id::Id;
use crate::session::SessionId;

pub(crate) use self::app::Step;

/// See the module's text.
pub(crate) struct Shard {
    pub(crate) core: RefCell<Core>,
    pub(crate) app: Arc<dyn App>,
    pub(crate) config: Arc<Config>,
    pub(crate) port: Arc<Port>,
    pub(crate) ports: Arc<Ports>,
    /// Futures on their way to the turn's set.
    spawned: RefCell<Vec<LocalFuture<()>>>,
    /// Unfinished futures.
    counts: Counts,
}

impl std::fmt::Debug for Shard {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shard").field("port", &self.port).finish_non_exhaustive()
    }
}

thread_local! {
    /// The shard this thread runs, if any.
    static CURRENT: RefCell<Option<Rc<Shard>>> = const { RefCell::new(None) };
}

/// Makes a shard the thread's current one until dropped.
#[derive(Debug)]
pub(crate) struct Entered(Option<Rc<Shard>>);

impl Drop for Entered {
    fn drop(&mut self) {
        let previous = self.0.take();
        CURRENT.with(|current| *current.borrow_mut() = previous);
    }
}

/// Calls `act` with the tables of the port's shard if that is this thread's. `None`: it is not.
pub(crate) fn with_current<R>(port: &Arc<Port>, act: impl FnOnce(&mut Core) -> R) -> Option<R> {
    CURRENT.with(|current| {
        let current = current.borrow();
        let shard = current.as_ref().filter(|shard| Arc::ptr_eq(&shard.port, port))?;
        // The tables are never borrowed while user code runs; user code that runs inside of an
        // encoding holds none of them either.
        let mut core = shard.core.try_borrow_mut().ok()?;
        // What others have sent before comes before what this is about to send.
        core.catch_up();
        Some(act(&mut core))
    })
}

/// The shard this thread runs.
#[cfg(feature = "axum")]
pub(crate) fn current() -> Option<Rc<Shard>> {
    CURRENT.with(|current| current.borrow().clone())
}

impl Shard {
    pub(crate) fn new(
        app: Arc<dyn App>,
        config: Arc<Config>,
        ports: Arc<Ports>,
        index: u16,
        now_ms: u64,
        seed: [u8; 32],
    ) -> Rc<Self> {
        let port = ports.all()[usize::from(index)].clone();
        let most = config.limits.connections_of(ports.all().len());
        let core = Core::new(config.clone(), port.clone(), most, now_ms, seed);
        let (core, spawned) = (RefCell::new(core), RefCell::default());
        let counts = Counts::default();
        Rc::new(Self { core, app, config, port, ports, spawned, counts })
    }

    /// Makes this the thread's current shard.
    pub(crate) fn enter(self: &Rc<Self>) -> Entered {
        CURRENT.with(|current| Entered(current.borrow_mut().replace(self.clone())))
    }

    /// Tells user code what it must hear of. Handlers may cause more; all is told.
    fn run_notices(self: &Rc<Self>) {
        loop {
            let notice = self.core.borrow_mut().notices.pop_front();
            match notice {
                None => break,
                Some(Notice::SocketGone { socket, session, reason }) => {
                    self.socket_gone(socket, session, reason);
                }
                Some(Notice::EngineGone { endpoint, key, reason }) => {
                    let mut tasks = Tasks::new();
                    self.app.engine_closed(endpoint, &key, reason, &mut tasks);
                    self.adopt(&TaskOf::End(key.session), tasks);
                }
            }
        }
        let freed = std::mem::take(&mut self.core.borrow_mut().freed_sids);
        freed.iter().for_each(|sid| self.ports.release_sid(sid));
    }

    fn socket_gone(
        self: &Rc<Self>,
        socket: crate::socket::SocketId,
        session: SessionId,
        reason: crate::DisconnectReason,
    ) {
        let (key, was_connected) = {
            let core = self.core.borrow();
            let Some(key) = core.sockets.key(socket) else { return };
            (key.clone(), key.connected.load(Ordering::Acquire))
        };
        let mut tasks = Tasks::new();
        if was_connected {
            self.app.disconnecting(&key, reason, &mut tasks);
        }
        let (alone, shared) = {
            let mut core = self.core.borrow_mut();
            core.sockets.detach(socket);
            core.acks.forget(socket.slot)
        };
        alone.into_iter().for_each(|waiter| Core::tell(waiter, Err(port::NoAnswer::Disconnected)));
        shared.into_iter().for_each(Core::tell_all);
        key.connected.store(false, Ordering::Release);
        if was_connected {
            self.app.disconnected(&key, reason, &mut tasks);
        }
        self.core.borrow_mut().sockets.remove(socket);
        self.adopt(&TaskOf::End(session), tasks);
    }

    /// Where a session id points to: its shard and, if that is this one, the session.
    fn locate(&self, sid: &str) -> Option<(u16, Option<SessionId>)> {
        if self.config.custom_ids {
            let (shard, session) = self.ports.find_sid(sid)?;
            return Some((shard, (shard == self.port.index()).then_some(session)));
        }
        let (shard, slot) = Id::place(sid)?;
        self.ports.get(shard)?;
        if shard != self.port.index() {
            return Some((shard, None));
        }
        let core = self.core.borrow();
        let cold = core.sessions.at(slot).filter(|cold| cold.sid.as_str() == sid)?;
        Some((shard, Some(SessionId { slot, generation: cold.generation })))
    }
}

/// The key of a socket, as the layers above hold it.
pub(crate) type SocketKey = Arc<SocketCell>;
