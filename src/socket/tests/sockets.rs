use super::super::{SocketId, SocketState, Sockets};

const NOBODY: [u32; 0] = [];

/// Rooms and exceptions as a target holds them.
fn names(names: &[&str]) -> Vec<Box<str>> {
    names.iter().map(|name| (*name).into()).collect()
}

/// The sessions that a broadcast reaches, in order. A socket's key is its id.
fn reached(sockets: &mut Sockets<&'static str>, to: &[&str], except: &[&str]) -> Vec<u32> {
    let namespace = sockets.find_namespace("/").unwrap();
    let resolve = |name: &str, sockets: &Sockets<&'static str>| {
        (0..16).find(|&slot| sockets.key_at(slot).is_some_and(|key| *key == name))
    };
    let mut found = Vec::new();
    sockets.for_each(namespace, &names(to), &names(except), resolve, |_, session| {
        found.push(session);
    });
    found.sort_unstable();
    found
}

fn connecting(sockets: &mut Sockets<&'static str>, session: u32, key: &'static str) -> SocketId {
    let namespace = sockets.namespace_or_new("/", true);
    let id = sockets.reserve();
    sockets.insert(id, session, namespace, key);
    id
}

fn connected(sockets: &mut Sockets<&'static str>, session: u32, key: &'static str) -> SocketId {
    let id = connecting(sockets, session, key);
    sockets.connect(id);
    id
}

#[test]
fn a_connecting_socket_keeps_rooms_but_nothing_reaches_it() {
    let mut sockets = Sockets::new(0);
    let id = connecting(&mut sockets, 10, "a");
    sockets.join(id, "lobby");
    assert_eq!(sockets.state(id), Some(SocketState::Connecting));
    for rooms in [&[][..], &["lobby"], &["a"], &["lobby", "a"]] {
        assert_eq!(reached(&mut sockets, rooms, &[]), NOBODY, "{rooms:?}");
        assert_eq!(reached(&mut sockets, rooms, &["elsewhere"]), NOBODY, "{rooms:?}");
    }
    sockets.connect(id);
    for rooms in [&[][..], &["lobby"], &["a"], &["lobby", "a"]] {
        assert_eq!(reached(&mut sockets, rooms, &[]), [10], "{rooms:?}");
        assert_eq!(reached(&mut sockets, rooms, &["elsewhere"]), [10], "{rooms:?}");
    }
}

#[test]
fn nothing_reaches_a_silenced_socket_by_any_target() {
    let mut sockets = Sockets::new(0);
    let leaving = connected(&mut sockets, 10, "a");
    let staying = connected(&mut sockets, 11, "b");
    sockets.join(leaving, "lobby");
    sockets.join(staying, "lobby");
    sockets.silence(leaving);
    for rooms in [&[][..], &["lobby"], &["lobby", "b"], &["lobby", "a"]] {
        assert_eq!(reached(&mut sockets, rooms, &[]), [11], "{rooms:?}");
        assert_eq!(reached(&mut sockets, rooms, &["elsewhere"]), [11], "{rooms:?}");
    }
    assert_eq!(reached(&mut sockets, &["a"], &[]), NOBODY);
    assert_eq!(sockets.rooms_of(leaving).len(), 1, "its rooms stay");
    sockets.remove(leaving);
    assert_eq!(reached(&mut sockets, &[], &[]), [11]);
    sockets.assert_consistent();
}

#[test]
fn a_silenced_socket_names_no_session() {
    let mut sockets = Sockets::new(0);
    for id in [connected(&mut sockets, 10, "a"), connecting(&mut sockets, 11, "b")] {
        assert!(sockets.session_of(id).is_some());
        sockets.silence(id);
        assert_eq!(sockets.session_of(id), None, "its session's slot may be another's by now");
        assert_eq!(sockets.namespace_of(id), Some(0));
        sockets.remove(id);
    }
}

#[test]
fn a_socket_silenced_while_it_connects_stays_silent() {
    let mut sockets = Sockets::new(0);
    let id = connecting(&mut sockets, 10, "a");
    sockets.silence(id);
    sockets.connect(id);
    assert_eq!(reached(&mut sockets, &[], &[]), NOBODY);
    assert_eq!(reached(&mut sockets, &["a"], &[]), NOBODY);
    sockets.assert_consistent();
    assert_eq!(sockets.remove(id), Some("a"));
    sockets.assert_consistent();
}

#[test]
fn each_socket_is_reached_once_and_exceptions_win() {
    let mut sockets = Sockets::new(0);
    let ids = [(10, "a"), (11, "b"), (12, "c")]
        .map(|(session, key)| connected(&mut sockets, session, key));
    for id in ids {
        sockets.join(id, "everybody");
    }
    sockets.join(ids[0], "some");
    sockets.join(ids[1], "some");
    let cases: [(&[&str], &[&str], &[u32]); 10] = [
        (&[], &[], &[10, 11, 12]),
        (&["some", "everybody"], &[], &[10, 11, 12]),
        (&["some", "some"], &[], &[10, 11]),
        (&["some", "a"], &[], &[10, 11]),
        (&["some", "c"], &[], &[10, 11, 12]),
        (&["everybody"], &["some"], &[12]),
        (&["everybody"], &["a", "nobody"], &[11, 12]),
        (&["a"], &["a"], &[]),
        (&["nobody"], &[], &[]),
        (&[], &["everybody"], &[]),
    ];
    for (rooms, except, sessions) in cases {
        assert_eq!(reached(&mut sockets, rooms, except), sessions, "{rooms:?} - {except:?}");
    }
}

#[test]
fn an_id_of_another_namespace_names_nobody() {
    let mut sockets = Sockets::new(0);
    let elsewhere = sockets.namespace_or_new("/chat", true);
    let other = sockets.reserve();
    sockets.insert(other, 20, elsewhere, "other");
    sockets.connect(other);
    connected(&mut sockets, 10, "a");
    assert_eq!(reached(&mut sockets, &["other"], &[]), NOBODY);
    assert_eq!(reached(&mut sockets, &[], &["other"]), [10]);
}

#[test]
fn the_stamp_starts_over_after_its_last_value() {
    let mut sockets = Sockets::new(0);
    let first = connected(&mut sockets, 10, "a");
    let second = connected(&mut sockets, 11, "b");
    sockets.join(first, "x");
    // The first broadcast of all leaves its stamp, 1, on one socket only.
    assert_eq!(reached(&mut sockets, &["x"], &["b"]), [10]);
    sockets.set_stamp(u32::MAX - 1);
    sockets.join(second, "x");
    for _ in 0..4 {
        assert_eq!(reached(&mut sockets, &["x", "a"], &[]), [10, 11]);
        assert_eq!(reached(&mut sockets, &[], &["a"]), [11]);
    }
}

#[test]
fn a_stale_id_misses() {
    let mut sockets = Sockets::new(0);
    let stale = connected(&mut sockets, 10, "a");
    assert_eq!(sockets.remove(stale), Some("a"));
    let fresh = connected(&mut sockets, 11, "b");
    assert_eq!(fresh.slot, stale.slot);
    assert_ne!(fresh.generation, stale.generation);
    sockets.join(stale, "x");
    sockets.silence(stale);
    sockets.detach(stale);
    sockets.connect(stale);
    assert_eq!(sockets.remove(stale), None);
    assert_eq!((sockets.key(stale), sockets.state(stale)), (None, None));
    assert_eq!((sockets.session_of(stale), sockets.namespace_of(stale)), (None, None));
    assert_eq!(sockets.id_at(fresh.slot), Some(fresh));
    assert_eq!(sockets.room_count(fresh), 0);
    assert_eq!(reached(&mut sockets, &[], &[]), [11]);
    sockets.assert_consistent();
}

#[test]
fn a_reserved_slot_is_nobody_yet() {
    let mut sockets = Sockets::new(0);
    let namespace = sockets.namespace_or_new("/", true);
    let id = sockets.reserve();
    sockets.connect(id);
    sockets.join(id, "x");
    assert_eq!((sockets.key_at(id.slot), sockets.id_at(id.slot)), (None, None));
    assert_eq!(sockets.remove(id), None);
    assert_eq!(reached(&mut sockets, &[], &[]), NOBODY);
    assert_ne!(sockets.reserve().slot, id.slot);
    sockets.insert(id, 1, namespace, "a");
    assert_eq!(sockets.id_at(id.slot), Some(id));
}

#[test]
fn rooms_are_made_by_the_first_and_freed_by_the_last() {
    let mut sockets = Sockets::new(0);
    let a = connected(&mut sockets, 10, "a");
    let b = connected(&mut sockets, 11, "b");
    for round in 0..100 {
        let name = format!("room {round}");
        sockets.join(a, &name);
        sockets.join(a, &name);
        sockets.join(b, &name);
        assert_eq!(sockets.room_count(a), 1);
        assert_eq!(reached(&mut sockets, &[&name], &[]), [10, 11]);
        sockets.leave(a, &name);
        sockets.leave(a, &name);
        sockets.leave(a, "never joined");
        assert_eq!(reached(&mut sockets, &[&name], &[]), [11]);
        sockets.leave(b, &name);
        assert_eq!(reached(&mut sockets, &[&name], &[]), NOBODY);
    }
    assert_eq!(sockets.rooms_allocated(), 1);
    sockets.assert_consistent();
}

#[test]
fn a_dynamic_namespace_goes_with_its_last_socket() {
    let mut sockets = Sockets::new(0);
    let fixed = sockets.namespace_or_new("/", true);
    for round in 0..100 {
        let name = format!("/room-{round}");
        let index = sockets.namespace_or_new(&name, false);
        assert_eq!(sockets.namespace_or_new(&name, true), index);
        let refused = sockets.reserve();
        sockets.insert(refused, 1, index, "refused");
        let socket = sockets.reserve();
        sockets.insert(socket, 2, index, "in");
        sockets.connect(socket);
        sockets.join(socket, "x");
        sockets.remove(refused);
        assert_eq!(sockets.find_namespace(&name), Some(index));
        assert_eq!(sockets.members(index), [socket.slot]);
        sockets.detach(socket);
        assert_eq!(sockets.find_namespace(&name), Some(index), "until the slot is free");
        sockets.remove(socket);
        assert_eq!(sockets.find_namespace(&name), None);
        sockets.assert_consistent();
    }
    assert_eq!(sockets.find_namespace("/"), Some(fixed));
    assert_eq!(sockets.namespaces_allocated(), 2);
}
