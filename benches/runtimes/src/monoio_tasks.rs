//! monoio: a reading task, a writing task and a channel per connection; buffers belong to the ring
//! while it uses them.

use std::io;
use std::net::TcpListener;
use std::rc::Rc;

use bytes::Bytes;
use monoio::io::{AsyncReadRent, AsyncWriteRent, AsyncWriteRentExt, Splitable};
use monoio::net::TcpStream;
use monoio::net::tcp::{TcpOwnedReadHalf, TcpOwnedWriteHalf};
use monoio::{IoUringDriver, RuntimeBuilder};
use tokio::sync::mpsc::Receiver;

use crate::Sends;
use crate::channels::{Client, Hub, queued};
use crate::contract::READ_BYTES;

/// Submissions that the ring holds: its makers' default is 1024.
const ENTRIES: u32 = 4096;

pub(crate) fn serve(listener: TcpListener, sends: Sends) -> io::Result<()> {
    // A ring waits by itself; a non-blocking descriptor would only make it fail instead.
    listener.set_nonblocking(false)?;
    let mut runtime = RuntimeBuilder::<IoUringDriver>::new().with_entries(ENTRIES).build()?;
    runtime.block_on(async {
        let listener = monoio::net::TcpListener::from_std(listener)?;
        let hub = Rc::new(Hub::default());
        loop {
            let (stream, _): (TcpStream, _) = listener.accept().await?;
            let (reads, writes) = stream.into_split();
            let (client, queue) = Client::new(&hub);
            monoio::spawn(read(reads, client));
            monoio::spawn(write(writes, queue, sends));
        }
    })
}

async fn read(mut reads: TcpOwnedReadHalf, mut client: Client) {
    let mut buffer = vec![0; READ_BYTES];
    loop {
        let (outcome, back) = reads.read(buffer).await;
        buffer = back;
        let Ok(length @ 1..) = outcome else { return };
        if client.read(&buffer[..length]).is_err() {
            return;
        }
    }
}

/// What fails here fails for the reading task too; an end in order ends the peer's reading.
async fn write(mut writes: TcpOwnedWriteHalf, mut queue: Receiver<Bytes>, sends: Sends) {
    let mut scratch = Vec::new();
    while let Some(bytes) = queued(&mut queue, &mut scratch, sends).await {
        if writes.write_all(bytes).await.0.is_err() {
            return;
        }
    }
    let _ = writes.shutdown().await;
}
