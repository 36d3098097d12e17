//! The open packet: the first a client gets, with its session id and the server's intervals.
//!
//! Tests below.

use serde::Serialize;

use super::packet::PacketType;

/// What the open packet says. The order of the fields is the order on the wire.
#[derive(Debug, Clone, Copy, Serialize)]
pub(crate) struct Open<'o> {
    pub(crate) sid: &'o str,
    /// The transports the client may move to.
    pub(crate) upgrades: &'o [&'o str],
    #[serde(rename = "pingInterval")]
    pub(crate) ping_interval_ms: u64,
    #[serde(rename = "pingTimeout")]
    pub(crate) ping_timeout_ms: u64,
    /// Bytes a client may put into one payload.
    #[serde(rename = "maxPayload")]
    pub(crate) payload_bytes_max: u64,
}

impl Open<'_> {
    /// Appends the packet.
    pub(crate) fn write(&self, out: &mut Vec<u8>) {
        out.push(PacketType::Open.digit());
        serde_json::to_writer(out, self)
            .expect("invariant: strings and numbers always serialise into memory");
    }
}

#[cfg(test)]
mod tests {
    use super::Open;

    fn written(open: Open<'_>) -> String {
        let mut out = Vec::new();
        open.write(&mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn the_keys_stand_in_the_order_of_node() {
        let open = Open {
            sid: "lv_VI97HAXpY6yYWAAAC",
            upgrades: &["websocket"],
            ping_interval_ms: 25_000,
            ping_timeout_ms: 20_000,
            payload_bytes_max: 1_000_000,
        };
        assert_eq!(
            written(open),
            "0{\"sid\":\"lv_VI97HAXpY6yYWAAAC\",\"upgrades\":[\"websocket\"],\
             \"pingInterval\":25000,\"pingTimeout\":20000,\"maxPayload\":1000000}"
        );
        assert_eq!(
            written(Open { sid: "a\"\u{1e}b", upgrades: &[], ..open }),
            "0{\"sid\":\"a\\\"\\u001eb\",\"upgrades\":[],\
             \"pingInterval\":25000,\"pingTimeout\":20000,\"maxPayload\":1000000}"
        );
    }
}
