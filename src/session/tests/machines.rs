use super::super::{Beat, DisconnectReason, Heartbeat, LinkKey, Probe, Upgrade};

const INTERVAL_MS: u64 = 25_000;
const TIMEOUT_MS: u64 = 20_000;

#[test]
fn a_ping_is_due_an_interval_after_the_opening() {
    let mut heartbeat = Heartbeat::opened(1_000, INTERVAL_MS);
    assert_eq!(heartbeat.deadline_ms(), 26_000);
    assert_eq!(heartbeat.beat(25_999, TIMEOUT_MS), Beat::Later);
    assert_eq!(heartbeat.beat(26_000, TIMEOUT_MS), Beat::SendPing);
    assert_eq!(heartbeat.deadline_ms(), 46_000);
}

#[test]
fn a_ping_is_sent_once_and_only_a_pong_counts() {
    let mut heartbeat = Heartbeat::opened(0, INTERVAL_MS);
    assert_eq!(heartbeat.beat(25_000, TIMEOUT_MS), Beat::SendPing);
    assert_eq!(heartbeat.beat(25_001, TIMEOUT_MS), Beat::Later);
    assert_eq!(heartbeat.beat(44_999, TIMEOUT_MS), Beat::Later);
    assert_eq!(heartbeat.beat(45_000, TIMEOUT_MS), Beat::Timeout);
    assert_eq!(heartbeat.beat(45_001, TIMEOUT_MS), Beat::Timeout, "it stays dead");
}

#[test]
fn the_interval_restarts_at_the_pong() {
    let mut heartbeat = Heartbeat::opened(0, INTERVAL_MS);
    assert_eq!(heartbeat.beat(25_000, TIMEOUT_MS), Beat::SendPing);
    heartbeat.pong(30_000, INTERVAL_MS);
    assert_eq!(heartbeat.deadline_ms(), 55_000);
    assert_eq!(heartbeat.beat(54_999, TIMEOUT_MS), Beat::Later);
    assert_eq!(heartbeat.beat(55_000, TIMEOUT_MS), Beat::SendPing);
}

#[test]
fn a_pong_nobody_asked_for_is_one_too() {
    let mut heartbeat = Heartbeat::opened(0, INTERVAL_MS);
    heartbeat.pong(10_000, INTERVAL_MS);
    assert_eq!(heartbeat.deadline_ms(), 35_000);
}

#[test]
fn a_late_look_gives_the_client_its_whole_timeout() {
    let mut heartbeat = Heartbeat::opened(0, INTERVAL_MS);
    assert_eq!(heartbeat.beat(90_000, TIMEOUT_MS), Beat::SendPing);
    assert_eq!(heartbeat.deadline_ms(), 110_000);
}

const LINK: LinkKey = LinkKey { index: 3, generation: 1 };
const UNTIL_MS: u64 = 10_000;

fn probing() -> Upgrade {
    Upgrade::Probing { link: LINK, until_ms: UNTIL_MS }
}

fn probed() -> Upgrade {
    Upgrade::Probed { link: LINK, until_ms: UNTIL_MS }
}

#[test]
fn an_upgrade_is_probe_then_completion() {
    let mut upgrade = probing();
    assert!(!upgrade.is_probed());
    assert_eq!(upgrade.packet(b"2probe"), Probe::Answer);
    assert_eq!(upgrade, probed());
    assert!(upgrade.is_probed());
    assert_eq!((upgrade.link(), upgrade.deadline_ms()), (Some(LINK), Some(UNTIL_MS)));
    assert_eq!(upgrade.packet(b"5"), Probe::Complete);
    assert_eq!((upgrade.link(), upgrade.deadline_ms()), (None, None));
}

#[test]
fn anything_else_refuses_the_candidate() {
    let cases: [(Upgrade, &[&[u8]]); 3] = [
        (Upgrade::None, &[b"2probe", b"5", b""]),
        (probing(), &[b"5", b"2", b"2probe!", b"3probe", b"40", b"", b"1", b"binary"]),
        (probed(), &[b"2probe", b"55", b"5 ", b"2", b"40", b"", b"1", b"6"]),
    ];
    for (state, packets) in cases {
        for packet in packets {
            let mut upgrade = state;
            assert_eq!(upgrade.packet(packet), Probe::Refuse, "{state:?} {packet:?}");
            assert_eq!(upgrade, Upgrade::None, "{state:?} {packet:?}");
        }
    }
}

#[test]
fn reasons_are_spelled_as_the_reference_spells_them() {
    use DisconnectReason as Reason;
    let words = [
        (Reason::TransportError, "transport error"),
        (Reason::TransportClose, "transport close"),
        (Reason::PingTimeout, "ping timeout"),
        (Reason::ParseError, "parse error"),
        (Reason::ForcedClose, "forced close"),
        (Reason::ForcedServerClose, "forced server close"),
        (Reason::ServerShuttingDown, "server shutting down"),
        (Reason::ClientNamespaceDisconnect, "client namespace disconnect"),
        (Reason::ServerNamespaceDisconnect, "server namespace disconnect"),
    ];
    for (reason, word) in words {
        assert_eq!(reason.as_str(), word);
        assert_eq!(reason.to_string(), word);
    }
}

#[test]
fn a_close_code_may_be_sent_and_limits_have_their_own() {
    use DisconnectReason as Reason;
    let codes = [
        (Reason::TransportClose, 1000),
        (Reason::PingTimeout, 1000),
        (Reason::ForcedServerClose, 1000),
        (Reason::ServerNamespaceDisconnect, 1000),
        (Reason::ServerShuttingDown, 1001),
        (Reason::TransportError, 1002),
        (Reason::ParseError, 1002),
        (Reason::ForcedClose, 1002),
        (Reason::LimitOutbox, 1008),
        (Reason::LimitAttachments, 1008),
        (Reason::LimitNamespaces, 1008),
        (Reason::LimitPendingHandlers, 1008),
        (Reason::LimitMessageSize, 1009),
    ];
    for (reason, code) in codes {
        assert_eq!(reason.close_code(), code, "{reason}");
    }
}

#[test]
fn who_broke_a_rule_or_is_gone_gets_no_more_bytes() {
    use DisconnectReason as Reason;
    for reason in [
        Reason::TransportError,
        Reason::TransportClose,
        Reason::PingTimeout,
        Reason::ParseError,
        Reason::ForcedClose,
        Reason::LimitOutbox,
        Reason::LimitMessageSize,
        Reason::LimitAttachments,
    ] {
        assert!(reason.is_abrupt(), "{reason}");
    }
    for reason in [
        Reason::ForcedServerClose,
        Reason::ServerShuttingDown,
        Reason::ServerNamespaceDisconnect,
        Reason::ClientNamespaceDisconnect,
    ] {
        assert!(!reason.is_abrupt(), "{reason}");
    }
}
