//! tokio-uring: a reading task, a writing task and a channel per connection; buffers belong to the
//! ring while it uses them.

use std::io;
use std::net::{Shutdown, TcpListener};
use std::rc::Rc;

use bytes::Bytes;
use tokio::sync::mpsc::Receiver;
use tokio_uring::net::TcpStream;

use crate::Sends;
use crate::channels::{Client, Hub, queued};
use crate::contract::READ_BYTES;

/// Submissions that the ring holds: its makers' default is 256.
const ENTRIES: u32 = 4096;

pub(crate) fn serve(listener: TcpListener, sends: Sends) -> io::Result<()> {
    // A ring waits by itself; a non-blocking descriptor would only make it fail instead.
    listener.set_nonblocking(false)?;
    tokio_uring::builder().entries(ENTRIES).start(async {
        let listener = tokio_uring::net::TcpListener::from_std(listener);
        let hub = Rc::new(Hub::default());
        loop {
            let (stream, _) = listener.accept().await?;
            let stream = Rc::new(stream);
            let (client, queue) = Client::new(&hub);
            tokio_uring::spawn(read(stream.clone(), client));
            tokio_uring::spawn(write(stream, queue, sends));
        }
    })
}

async fn read(stream: Rc<TcpStream>, mut client: Client) {
    let mut buffer = vec![0; READ_BYTES];
    loop {
        let (outcome, back) = stream.read(buffer).await;
        buffer = back;
        let Ok(length @ 1..) = outcome else { return };
        if client.read(&buffer[..length]).is_err() {
            return;
        }
    }
}

/// What fails here fails for the reading task too; an end in order ends the peer's reading.
async fn write(stream: Rc<TcpStream>, mut queue: Receiver<Bytes>, sends: Sends) {
    let mut scratch = Vec::new();
    while let Some(bytes) = queued(&mut queue, &mut scratch, sends).await {
        if stream.write_all(bytes).await.0.is_err() {
            return;
        }
    }
    let _ = stream.shutdown(Shutdown::Write);
}
