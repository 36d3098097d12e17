//! The moment between a socket's end and the notice to its handlers: nothing may be sent to it, nor
//! in its name to whoever gets its place.

#[path = "support/raw.rs"]
mod raw;
#[path = "support/tools.rs"]
mod tools;

use std::sync::{Arc, OnceLock, mpsc};

use raw::{TestServer, on_both_drivers};
use stentor::{DriverKind, EmitError, Handle, Socket};

fn a_broadcast_after_a_disconnect_reaches_those_who_stay(driver: DriverKind) {
    let everybody = Arc::new(OnceLock::<Handle>::new());
    let emit = everybody.clone();
    let server = TestServer::start(driver, |builder| {
        builder.namespace("/", move |ns| {
            ns.on("leave", move |socket: Socket| {
                socket.disconnect();
                emit.get().expect("set before clients come").emit("left", ()).expect("it is sent");
            });
        })
    });
    assert!(everybody.set(server.handle.clone()).is_ok());
    let (mut leaves, mut stays) = (server.client(), server.client());
    leaves.send("42[\"leave\"]");
    leaves.expect("41");
    stays.expect("42[\"left\"]");
    leaves.send("40");
    assert!(leaves.next().starts_with("40{"), "its connection stays");
}

fn last_words_to_a_lost_client_reach_nobody(driver: DriverKind) {
    let (tell, told) = mpsc::channel();
    let server = TestServer::start(driver, |builder| {
        builder.namespace("/", |ns| {
            ns.on("echo", |socket: Socket, args: stentor::Data<stentor::Args>| {
                socket.emit("echo", &args.0)
            });
            // What panics in a handler is no failure of the test: the outcome is told.
            ns.on_disconnecting(move |socket: Socket| {
                let farewell = socket.emit("farewell", ());
                socket.disconnect();
                socket.close();
                tell.send(farewell).expect("the test listens");
            });
        })
    });
    let mut stays = server.client();
    for _ in 0..4 {
        let mut client = server.client();
        client.echoes();
        client.raw.reset();
        let farewell = told.recv_timeout(raw::LIMIT).expect("the handler came to its end");
        assert!(matches!(farewell, Err(EmitError::Disconnected)), "{farewell:?}");
        stays.echoes();
    }
    // Each of these has the place of one who left, and hears nothing but its own.
    for _ in 0..4 {
        server.client().echoes();
    }
}

on_both_drivers!(
    a_broadcast_after_a_disconnect_reaches_those_who_stay,
    last_words_to_a_lost_client_reach_nobody,
);
