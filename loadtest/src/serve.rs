//! `loadtest serve`: stentor with the contract of `CONTRACT.md`.

use std::io::Write;
use std::sync::{Arc, OnceLock};

use clap::{Args, ValueEnum};
use stentor::{Data, DriverKind, Handle, Namespace, RawJson, Server, Socket, State};

use crate::Failure;

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Driver {
    Auto,
    Uring,
    Mio,
}

#[derive(Debug, Args)]
pub(crate) struct Serve {
    /// Port to listen on; 0 takes a free one.
    #[arg(long, default_value_t = 3000)]
    port: u16,
    /// How the kernel is asked.
    #[arg(long, value_enum, default_value_t = Driver::Auto)]
    driver: Driver,
    /// Cores to use; default all.
    #[arg(long)]
    shards: Option<usize>,
    /// Pin each shard to a core of its own.
    #[arg(long)]
    pin: bool,
    /// Pin the whole process to this core.
    #[arg(long)]
    core: Option<usize>,
    /// Log warnings only.
    #[arg(long)]
    quiet: bool,
}

pub(crate) fn run(options: &Serve) -> Result<(), Failure> {
    // A measured server says on its first line where it listens; its log goes elsewhere.
    let level = if options.quiet { "warn" } else { "info" };
    tracing_subscriber::fmt().with_writer(std::io::stderr).with_env_filter(level).init();
    if let Some(core) = options.core {
        crate::system::pin(core)?;
    }
    let driver = match options.driver {
        Driver::Auto => DriverKind::Auto,
        Driver::Uring => DriverKind::Uring,
        Driver::Mio => DriverKind::Mio,
    };
    let mut builder = Server::builder().driver(driver).pin_cores(options.pin);
    if let Some(shards) = options.shards {
        builder = builder.shards(shards);
    }
    let everyone = Everyone::default();
    let bound = builder
        // Far above what a tour sends: a run measures the engine, not its limits.
        .max_http_buffer_size(16 << 20)
        .outbox_limit(64 << 20)
        .state(everyone.clone())
        .namespace("/", contract)
        .bind(("127.0.0.1", options.port))
        .map_err(Failure::server)?;
    assert!(everyone.0.set(bound.handle()).is_ok(), "set here only");
    let port = bound.local_addr().port();
    say!("listening on http://127.0.0.1:{port}");
    std::io::stdout().flush().map_err(Failure::io("write"))?;
    bound.run().map_err(Failure::server)
}

/// The whole namespace, for handlers: `Socket::to` leaves the sender out, the contract does not.
#[derive(Clone, Default)]
struct Everyone(Arc<OnceLock<Handle>>);

impl Everyone {
    fn tick(&self, room: &str, number: u64, text: &str) {
        let handle = self.0.get().expect("invariant: set before the first client is accepted");
        // The value serialises, and a full mailbox shows as a gap at the clients.
        let _ = handle.to(room).emit("tick", (number, text));
    }
}

fn contract(ns: &mut Namespace) {
    ns.on("join", |socket: Socket, Data(rooms): Data<Vec<String>>| socket.join(rooms));
    ns.on("leave", |socket: Socket, Data(rooms): Data<Vec<String>>| socket.leave(rooms));
    ns.on(
        "publish",
        |State(everyone): State<Everyone>, Data((number, text)): Data<(u64, String)>| {
            everyone.tick("all", number, &text);
        },
    );
    ns.on(
        "publish_to",
        |State(everyone): State<Everyone>,
         Data((room, number, text)): Data<(String, u64, String)>| {
            everyone.tick(&room, number, &text);
        },
    );
    // Handed back without a look inside, as the reference's handler would.
    ns.on("echo", |Data(value): Data<RawJson>| value);
}
