//! tokio as it is written everywhere: a reading task, a writing task and a channel per connection.

use std::io;
use std::net::TcpListener;
use std::rc::Rc;

use bytes::Bytes;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::mpsc::Receiver;
use tokio::task::{LocalSet, spawn_local};

use crate::Sends;
use crate::channels::{Client, Hub, queued};
use crate::contract::READ_BYTES;

pub(crate) fn serve(listener: TcpListener, sends: Sends) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
    LocalSet::new().block_on(&runtime, async {
        let listener = tokio::net::TcpListener::from_std(listener)?;
        let hub = Rc::new(Hub::default());
        loop {
            let (stream, _) = listener.accept().await?;
            let (reads, writes) = stream.into_split();
            let (client, queue) = Client::new(&hub);
            spawn_local(read(reads, client));
            spawn_local(write(writes, queue, sends));
        }
    })
}

async fn read(mut reads: OwnedReadHalf, mut client: Client) {
    let mut buffer = vec![0; READ_BYTES];
    while let Ok(length @ 1..) = reads.read(&mut buffer).await {
        if client.read(&buffer[..length]).is_err() {
            return;
        }
    }
}

/// What fails here fails for the reading task too.
async fn write(mut writes: OwnedWriteHalf, mut queue: Receiver<Bytes>, sends: Sends) {
    let mut scratch = Vec::new();
    while let Some(bytes) = queued(&mut queue, &mut scratch, sends).await {
        if writes.write_all(&bytes).await.is_err() {
            return;
        }
    }
}
