//! What is not Socket.IO on the port goes to the user's `axum::Router`, served by hyper on the
//! same core, with the bytes already read.
//!
//! A browser may send a long-polling request on a connection that first asked for a page. Such a
//! request comes out of hyper again and goes back to the shard through a socket pair, upgrade
//! included; the client notices nothing.

use std::cell::RefCell;
use std::convert::Infallible;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::ConnectInfo;
use futures_util::future::{Either, select};
use hyper::body::Incoming;
use hyper::client::conn::http1::SendRequest;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tower_service::Service;

use super::contain::contained_future;
use crate::io::Handoff;
use crate::shard::app::{Guest, LocalFuture};
use crate::shard::port::{Counted, Mail, Port};

/// The router and the paths that are not its own.
#[derive(Clone)]
pub(crate) struct Fallback {
    router: Router,
    /// Paths of the engine: they go back to the shard.
    ours: Arc<[Box<str>]>,
    /// How long a connection may take to bring its next request.
    keep_alive: Duration,
}

impl fmt::Debug for Fallback {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Fallback").field("ours", &self.ours).finish_non_exhaustive()
    }
}

impl Fallback {
    pub(crate) fn new(
        router: Router,
        ours: impl IntoIterator<Item = Box<str>>,
        keep_alive: Duration,
    ) -> Self {
        Self { router, ours: ours.into_iter().collect(), keep_alive }
    }

    /// Serves one connection until it ends.
    pub(crate) fn serve(&self, guest: Guest) -> LocalFuture<()> {
        let fallback = self.clone();
        let served = async move {
            if let Err(error) = fallback.run(guest).await {
                tracing::debug!(target: "stentor::fallback", %error, "connection ends");
            }
        };
        contained_future("router", Box::pin(served), || ())
    }

    async fn run(self, guest: Guest) -> io::Result<()> {
        let Guest { handoff, bytes, peer, counted } = guest;
        let Handoff::Fd(descriptor) = handoff else {
            return Err(io::Error::other("a simulated connection has no router"));
        };
        let stream = std::net::TcpStream::from(descriptor);
        stream.set_nonblocking(true)?;
        let stream = TcpStream::from_std(stream)?;
        let stream = Rewound { bytes, at: 0, stream, _counted: counted };
        let shard = crate::shard::current();
        let port = shard.as_ref().map(|shard| shard.port.clone());
        let mut draining = shard.map(|shard| shard.ports.draining());
        let back = Rc::new(RefCell::new(None));
        let keep_alive = self.keep_alive;
        let service = hyper::service::service_fn(move |request: Request<Incoming>| {
            let (this, port, back) = (self.clone(), port.clone(), back.clone());
            async move { Ok::<_, Infallible>(this.answer(request, peer, port, back).await) }
        });
        let mut connection = hyper::server::conn::http1::Builder::new()
            .timer(TokioTimer::new())
            // From one answer to the end of the next head; the first head is here already.
            .header_read_timeout(keep_alive)
            .serve_connection(TokioIo::new(stream), service)
            .with_upgrades();
        if let Some(draining) = &mut draining {
            let shutdown = std::pin::pin!(draining.wait_for(|draining| *draining));
            match select(&mut connection, shutdown).await {
                Either::Left((ended, _)) => return ended.map_err(io::Error::other),
                // The request in work is answered, no further one is taken.
                Either::Right(_) => Pin::new(&mut connection).graceful_shutdown(),
            }
        }
        connection.await.map_err(io::Error::other)
    }

    async fn answer(
        mut self,
        mut request: Request<Incoming>,
        peer: SocketAddr,
        port: Option<Arc<Port>>,
        back: Rc<RefCell<Option<SendRequest<Incoming>>>>,
    ) -> Response<Body> {
        let path = request.uri().path();
        if self.ours.iter().any(|prefix| path.starts_with(&**prefix)) {
            let answer = match port {
                Some(port) => send_back(request, peer, &port, &back).await,
                None => Err(io::Error::other("no shard on this thread")),
            };
            return answer.unwrap_or_else(|error| {
                tracing::debug!(target: "stentor::fallback", %error, "request lost");
                let mut answer = Response::new(Body::empty());
                *answer.status_mut() = StatusCode::BAD_GATEWAY;
                answer
            });
        }
        request.extensions_mut().insert(ConnectInfo(peer));
        match self.router.call(request).await {
            Ok(answer) => answer,
            Err(never) => match never {},
        }
    }
}

/// Gives a request of the engine back to the shard and brings its answer.
async fn send_back(
    mut request: Request<Incoming>,
    peer: SocketAddr,
    port: &Port,
    back: &RefCell<Option<SendRequest<Incoming>>>,
) -> io::Result<Response<Body>> {
    let kept = back.borrow_mut().take().filter(SendRequest::is_ready);
    let mut sender = match kept {
        Some(sender) => sender,
        None => connect_back(peer, port).await?,
    };
    let client_side = hyper::upgrade::on(&mut request);
    let mut answer = sender.send_request(request).await.map_err(io::Error::other)?;
    if answer.status() == StatusCode::SWITCHING_PROTOCOLS {
        let shard_side = hyper::upgrade::on(&mut answer);
        tokio::task::spawn_local(async move {
            let both = futures_util::future::try_join(client_side, shard_side).await;
            if let Ok((client, shard)) = both {
                let (mut client, mut shard) = (TokioIo::new(client), TokioIo::new(shard));
                // Either end closes the other; how it ended is told to the shard by its link.
                let _ = tokio::io::copy_bidirectional(&mut client, &mut shard).await;
            }
        });
    } else {
        *back.borrow_mut() = Some(sender);
    }
    Ok(answer.map(Body::new))
}

async fn connect_back(peer: SocketAddr, port: &Port) -> io::Result<SendRequest<Incoming>> {
    let (ours, theirs) = UnixStream::pair()?;
    let handoff = Handoff::Fd(theirs.into_std()?.into());
    // A connection always finds room.
    let _ = port.post(Mail::Connection { handoff, bytes: Vec::new(), peer, counted: false });
    let (sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(ours))
        .await
        .map_err(io::Error::other)?;
    tokio::task::spawn_local(async move {
        if let Err(error) = connection.with_upgrades().await {
            tracing::debug!(target: "stentor::fallback", %error, "way back ends");
        }
    });
    Ok(sender)
}

/// A stream that first gives back what was read from it before. It goes where the connection
/// goes, through upgrades too, and the connection counts as long as it lives.
struct Rewound {
    bytes: Vec<u8>,
    at: usize,
    stream: TcpStream,
    _counted: Option<Counted>,
}

impl AsyncRead for Rewound {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let rest = &self.bytes[self.at..];
        if rest.is_empty() {
            return Pin::new(&mut self.stream).poll_read(cx, into);
        }
        let taken = rest.len().min(into.remaining());
        into.put_slice(&rest[..taken]);
        self.at += taken;
        if self.at == self.bytes.len() {
            self.bytes = Vec::new();
            self.at = 0;
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Rewound {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bytes)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
