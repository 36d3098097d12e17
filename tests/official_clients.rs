//! Unmodified clients against the engine: three releases of socket.io-client, python-socketio,
//! and the wire byte by byte; on each driver, with one shard and with two.
//!
//! The cases are in `tests/js/clients.mjs`, `tests/js/protocol.mjs` and
//! `tests/python/clients.py`; the server they talk to is in `tests/support/contract.rs`.

mod support;

use std::process::Command;
use std::time::Duration;

use stentor::DriverKind;
use support::{contract, tools};

/// Far more than a run takes: a debug build on a busy machine still fits.
const LIMIT: Duration = Duration::from_secs(240);

fn node_clients(url: &str) {
    let Some(node) = tools::node() else {
        return tools::leave_out("official clients");
    };
    let mut command = Command::new(node);
    command.arg("clients.mjs").arg(url).current_dir(tools::tests_dir().join("js"));
    tools::run("socket.io-client", &mut command, LIMIT);
}

fn python_clients(url: &str) {
    let Some(python) = tools::python() else {
        return tools::leave_out("python-socketio");
    };
    let mut command = Command::new(python);
    command.arg("clients.py").arg(url).current_dir(tools::tests_dir().join("python"));
    tools::run("python-socketio", &mut command, LIMIT);
}

fn wire(url: &str, options_url: &str) {
    let Some(node) = tools::node() else {
        return tools::leave_out("protocol checks");
    };
    let mut command = Command::new(node);
    command
        .args(["protocol.mjs", url, "--options-url", options_url])
        .current_dir(tools::tests_dir().join("js"));
    tools::run("protocol checks", &mut command, LIMIT);
}

fn all_clients(driver: DriverKind, shards: usize) {
    if driver == DriverKind::Uring && !tools::has_io_uring() {
        return tools::leave_out_uring("official clients");
    }
    let server = contract::start(driver, shards);
    let with_options = contract::start_with_options(driver);
    wire(&server.url, &with_options.url);
    node_clients(&server.url);
    python_clients(&server.url);
}

#[test]
fn clients_on_io_uring_with_one_shard() {
    all_clients(DriverKind::Uring, 1);
}

#[test]
fn clients_on_io_uring_with_two_shards() {
    all_clients(DriverKind::Uring, 2);
}

#[test]
fn clients_on_mio_with_one_shard() {
    all_clients(DriverKind::Mio, 1);
}

#[test]
fn clients_on_mio_with_two_shards() {
    all_clients(DriverKind::Mio, 2);
}
