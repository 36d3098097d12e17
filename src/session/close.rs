//! Why a session or socket ended: the reference's words, and ours where it has none.

use std::fmt;

/// Why a socket (or a raw Engine.IO session) ended.
///
/// [`as_str`](Self::as_str) gives the strings of the Node reference where it has one, so that
/// logs and handlers read the same on both. The `Limit*` variants name the bound that was
/// exceeded; the reference has no word for most of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum DisconnectReason {
    /// The connection broke, or the peer broke the transport's rules.
    TransportError,
    /// The peer closed the connection.
    TransportClose,
    /// No pong came within `ping_timeout`.
    PingTimeout,
    /// The peer sent something that is not an Engine.IO packet.
    ParseError,
    /// The peer sent something that is not a valid Socket.IO packet.
    ForcedClose,
    /// The peer joined no namespace within `connect_timeout`, or sent a packet that is not allowed
    /// in its state.
    ForcedServerClose,
    /// The server is shutting down.
    ServerShuttingDown,
    /// The client left the namespace.
    ClientNamespaceDisconnect,
    /// The server disconnected the socket.
    ServerNamespaceDisconnect,
    /// The outbox exceeded its bound: the client reads too slowly.
    LimitOutbox,
    /// A message was larger than `max_http_buffer_size`.
    LimitMessageSize,
    /// More binary attachments than `max_attachments`.
    LimitAttachments,
    /// More namespaces on one session than allowed.
    LimitNamespaces,
    /// More handlers of this session were unfinished than allowed.
    LimitPendingHandlers,
}

impl DisconnectReason {
    /// The reason as the reference spells it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::TransportError => "transport error",
            Self::TransportClose => "transport close",
            Self::PingTimeout => "ping timeout",
            Self::ParseError => "parse error",
            Self::ForcedClose => "forced close",
            Self::ForcedServerClose => "forced server close",
            Self::ServerShuttingDown => "server shutting down",
            Self::ClientNamespaceDisconnect => "client namespace disconnect",
            Self::ServerNamespaceDisconnect => "server namespace disconnect",
            Self::LimitOutbox => "outbox limit",
            Self::LimitMessageSize => "message size limit",
            Self::LimitAttachments => "attachment limit",
            Self::LimitNamespaces => "namespace limit",
            Self::LimitPendingHandlers => "pending handler limit",
        }
    }

    /// Whether what still waits for the peer is thrown away: it broke the rules, is gone or does
    /// not read.
    pub(crate) const fn is_abrupt(self) -> bool {
        !matches!(
            self,
            Self::ServerShuttingDown
                | Self::ForcedServerClose
                | Self::ServerNamespaceDisconnect
                | Self::ClientNamespaceDisconnect
                | Self::LimitNamespaces
                | Self::LimitPendingHandlers
        )
    }

    /// The RFC 6455 close code that tells the peer.
    #[must_use]
    pub const fn close_code(self) -> u16 {
        match self {
            Self::ServerShuttingDown => 1001,
            Self::ForcedClose | Self::ParseError | Self::TransportError => 1002,
            Self::LimitMessageSize => 1009,
            Self::LimitOutbox
            | Self::LimitAttachments
            | Self::LimitNamespaces
            | Self::LimitPendingHandlers => 1008,
            _ => 1000,
        }
    }
}

impl fmt::Display for DisconnectReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
