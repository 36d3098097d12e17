//! socketioxide with the contract of loadtest/CONTRACT.md, on as many threads as it has cores.

use std::net::Ipv4Addr;

use socketioxide::SocketIo;
use socketioxide::extract::{AckSender, Data, SocketRef};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

async fn connected(socket: SocketRef, io: SocketIo) {
    socket.on("join", async |socket: SocketRef, Data(rooms): Data<Vec<String>>, ack: AckSender| {
        socket.join(rooms);
        let _ = ack.send(&());
    });
    socket.on(
        "leave",
        async |socket: SocketRef, Data(rooms): Data<Vec<String>>, ack: AckSender| {
            socket.leave(rooms);
            let _ = ack.send(&());
        },
    );
    let everyone = io.clone();
    socket.on("publish", async move |Data((number, text)): Data<(u64, String)>| {
        let _ = everyone.to("all").emit("tick", &(number, text)).await;
    });
    socket.on(
        "publish_to",
        async move |Data((room, number, text)): Data<(String, u64, String)>| {
            let _ = io.to(room).emit("tick", &(number, text)).await;
        },
    );
    socket.on("echo", async |Data(value): Data<String>, ack: AckSender| {
        let _ = ack.send(&value);
    });
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    // One thread on the one core that a measurement gives it: a work-stealing runtime of one
    // worker only pays for what it cannot use.
    let runtime = match std::thread::available_parallelism()?.get() {
        1 => tokio::runtime::Builder::new_current_thread().enable_all().build()?,
        _ => tokio::runtime::Builder::new_multi_thread().enable_all().build()?,
    };
    runtime.block_on(async {
        let (layer, io) =
            SocketIo::builder().max_buffer_size(4_096).max_payload(16 << 20).build_layer();
        io.ns("/", connected);
        let port = std::env::var("PORT").ok().and_then(|port| port.parse().ok()).unwrap_or(3000);
        let listener = tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await?;
        println!("listening on http://{}", listener.local_addr()?);
        axum::serve(
            axum::serve::ListenerExt::tap_io(listener, |stream| {
                let _ = stream.set_nodelay(true);
            }),
            axum::Router::new().layer(layer),
        )
        .await?;
        Ok(())
    })
}
