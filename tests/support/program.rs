//! What the servers of the tests are made of: a log of what happened, an echo, sockets to hold.

#![allow(dead_code, reason = "each test binary uses its own part")]

use std::sync::{Arc, Mutex, mpsc};

use stentor::{Args, Data, DriverKind, Namespace, ServerBuilder, Socket};

use crate::raw::{TestServer, until};

/// As many clients as it takes to be sure that both shards have some.
pub(crate) const CROWD: usize = 24;

/// What happened, in order.
#[derive(Clone, Default)]
pub(crate) struct Log(pub(crate) Arc<Mutex<Vec<String>>>);

impl Log {
    pub(crate) fn note(&self, line: impl Into<String>) {
        self.0.lock().expect("no panics").push(line.into());
    }

    pub(crate) fn lines(&self) -> Vec<String> {
        self.0.lock().expect("no panics").clone()
    }

    #[track_caller]
    pub(crate) fn expect(&self, lines: &[&str]) {
        until(&format!("{lines:?}, not {:?}", self.lines()), || self.lines().len() >= lines.len());
        assert_eq!(self.lines(), lines);
    }
}

pub(crate) fn echo(ns: &mut Namespace) {
    ns.on("echo", |socket: Socket, Data(args): Data<Args>| socket.emit("echo", &args));
}

pub(crate) fn with_echo(builder: ServerBuilder) -> ServerBuilder {
    builder.namespace("/", echo)
}

/// Drives a future on a runtime that is none of the server's.
pub(crate) fn wait_for<T>(future: impl IntoFuture<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.expect("a runtime").block_on(async { future.await })
}

/// Sockets as they connected.
pub(crate) fn keeping_sockets(
    driver: DriverKind,
    shards: usize,
    fill: impl FnOnce(&mut Namespace),
) -> (TestServer, mpsc::Receiver<Socket>) {
    let (keep, sockets) = mpsc::channel();
    let server = TestServer::start_on(driver, shards, |builder| {
        builder.namespace("/", move |ns| {
            ns.on_connect(move |socket: Socket| keep.send(socket).expect("the test waits"));
            echo(ns);
            fill(ns);
        })
    });
    (server, sockets)
}
