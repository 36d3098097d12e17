//! Messages that never change, as ready frames.

/// Engine.IO ping.
pub(crate) const PING: &[u8] = &[0x81, 1, b'2'];
/// Engine.IO answer to the upgrade probe.
pub(crate) const PROBE_PONG: &[u8] = b"\x81\x063probe";

/// Polling bodies that are not made of queued frames.
pub(crate) mod body {
    /// Engine.IO noop: ends a poll without news.
    pub(crate) const NOOP: &[u8] = b"6";
    /// Engine.IO close.
    pub(crate) const CLOSE: &[u8] = b"1";
    /// A poll that finds the session closed.
    pub(crate) const NOOP_CLOSE: &[u8] = b"6\x1e1";
}
