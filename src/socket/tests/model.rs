//! The tables against sets that are searched from end to end.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use proptest::prelude::*;

use super::super::{SocketId, SocketState, Sockets};

const NAMESPACES: [(&str, bool); 3] = [("/", true), ("/chat", true), ("/dynamic", false)];
const ROOMS: [&str; 4] = ["a", "b", "c", "d"];

/// One step. Sockets are named by the order they were made in, those long gone included.
#[derive(Debug, Clone)]
enum Step {
    Insert(usize),
    Connect(usize),
    Join(usize, usize),
    Leave(usize, usize),
    Silence(usize),
    Detach(usize),
    Remove(usize),
    Broadcast { namespace: usize, to: Vec<Name>, except: Vec<Name> },
}

#[derive(Debug, Clone, Copy)]
enum Name {
    Room(usize),
    Socket(usize),
}

fn step() -> impl Strategy<Value = Step> {
    let socket = || 0..24_usize;
    let name = || {
        prop_oneof![
            4 => (0..ROOMS.len()).prop_map(Name::Room),
            1 => (0..24_usize).prop_map(Name::Socket),
        ]
    };
    let names = move || prop::collection::vec(name(), 0..4);
    prop_oneof![
        4 => (0..NAMESPACES.len()).prop_map(Step::Insert),
        4 => socket().prop_map(Step::Connect),
        8 => (socket(), 0..ROOMS.len()).prop_map(|(socket, room)| Step::Join(socket, room)),
        3 => (socket(), 0..ROOMS.len()).prop_map(|(socket, room)| Step::Leave(socket, room)),
        1 => socket().prop_map(Step::Silence),
        1 => socket().prop_map(Step::Detach),
        2 => socket().prop_map(Step::Remove),
        8 => (0..NAMESPACES.len(), names(), names())
            .prop_map(|(namespace, to, except)| Step::Broadcast { namespace, to, except }),
    ]
}

#[derive(Debug)]
struct Naive {
    namespace: usize,
    session: u32,
    connected: bool,
    silenced: bool,
    /// Left its rooms for good; it never connects again.
    over: bool,
    rooms: BTreeSet<&'static str>,
}

/// Both sides of the comparison.
struct Pair {
    sockets: Sockets<String>,
    naive: BTreeMap<usize, Naive>,
    /// All ids ever given, by the order of their making.
    ids: Vec<SocketId>,
}

fn key(socket: usize) -> String {
    format!("id-{socket}")
}

impl Pair {
    fn new() -> Self {
        let mut sockets = Sockets::new(0);
        for (index, (name, permanent)) in NAMESPACES.into_iter().enumerate() {
            if permanent {
                assert_eq!(sockets.namespace_or_new(name, permanent), index as u32);
            }
        }
        Self { sockets, naive: BTreeMap::new(), ids: Vec::new() }
    }

    fn insert(&mut self, namespace: usize) {
        let (name, permanent) = NAMESPACES[namespace];
        let socket = self.ids.len();
        let session = 1000 + socket as u32;
        let index = self.sockets.namespace_or_new(name, permanent);
        let id = self.sockets.reserve();
        self.sockets.insert(id, session, index, key(socket));
        self.ids.push(id);
        let rooms = BTreeSet::new();
        let (connected, silenced, over) = (false, false, false);
        self.naive.insert(socket, Naive { namespace, session, connected, silenced, over, rooms });
    }

    fn apply(&mut self, step: &Step) {
        let id = |socket: &usize| self.ids.get(*socket).copied();
        match step {
            Step::Insert(namespace) if self.ids.len() < 24 => self.insert(*namespace),
            Step::Insert(_) => {}
            Step::Connect(socket) => {
                let naive = self.naive.get_mut(socket);
                // A socket connects once: only a stale id may ask again.
                if naive.as_ref().is_some_and(|naive| naive.connected || naive.over) {
                    return;
                }
                if let Some(naive) = naive {
                    naive.connected = true;
                }
                if let Some(id) = id(socket) {
                    self.sockets.connect(id);
                }
            }
            Step::Join(socket, room) => {
                if let Some(id) = id(socket) {
                    self.sockets.join(id, ROOMS[*room]);
                }
                if let Some(naive) = self.naive.get_mut(socket) {
                    naive.rooms.insert(ROOMS[*room]);
                }
            }
            Step::Leave(socket, room) => {
                if let Some(id) = id(socket) {
                    self.sockets.leave(id, ROOMS[*room]);
                }
                if let Some(naive) = self.naive.get_mut(socket) {
                    naive.rooms.remove(ROOMS[*room]);
                }
            }
            Step::Silence(socket) => {
                if let Some(id) = id(socket) {
                    self.sockets.silence(id);
                }
                if let Some(naive) = self.naive.get_mut(socket) {
                    naive.silenced = true;
                }
            }
            Step::Detach(socket) => {
                if let Some(id) = id(socket) {
                    self.sockets.detach(id);
                }
                if let Some(naive) = self.naive.get_mut(socket) {
                    naive.over |= naive.connected;
                    naive.connected = false;
                    naive.rooms.clear();
                }
            }
            Step::Remove(socket) => {
                let removed = id(socket).and_then(|id| self.sockets.remove(id));
                let expected = self.naive.remove(socket).map(|_| key(*socket));
                assert_eq!(removed, expected);
            }
            Step::Broadcast { namespace, to, except } => self.broadcast(*namespace, to, except),
        }
    }

    fn broadcast(&mut self, namespace: usize, to: &[Name], except: &[Name]) {
        let is_in = |socket: usize, naive: &Naive, names: &[Name]| {
            names.iter().any(|name| match name {
                Name::Room(room) => naive.rooms.contains(ROOMS[*room]),
                Name::Socket(other) => *other == socket,
            })
        };
        let expected: BTreeSet<(u32, u32)> = self
            .naive
            .iter()
            .filter(|(_, naive)| naive.namespace == namespace)
            .filter(|(_, naive)| naive.connected && !naive.silenced)
            .filter(|&(&socket, naive)| to.is_empty() || is_in(socket, naive, to))
            .filter(|&(&socket, naive)| !is_in(socket, naive, except))
            .map(|(&socket, naive)| (self.ids[socket].slot, naive.session))
            .collect();
        let Some(index) = self.sockets.find_namespace(NAMESPACES[namespace].0) else {
            assert_eq!(expected, BTreeSet::new());
            return;
        };
        let named = |names: &[Name]| -> Vec<Box<str>> {
            names
                .iter()
                .map(|name| match name {
                    Name::Room(room) => ROOMS[*room].into(),
                    Name::Socket(socket) => key(*socket).into(),
                })
                .collect()
        };
        let slots: HashMap<String, u32> =
            self.naive.keys().map(|&socket| (key(socket), self.ids[socket].slot)).collect();
        let mut reached = Vec::new();
        self.sockets.for_each(
            index,
            &named(to),
            &named(except),
            |name, _| slots.get(name).copied(),
            |slot, session| reached.push((slot, session)),
        );
        let distinct: BTreeSet<(u32, u32)> = reached.iter().copied().collect();
        assert_eq!(distinct.len(), reached.len(), "each socket is reached once");
        assert_eq!(distinct, expected);
    }

    fn check(&self) {
        self.sockets.assert_consistent();
        for (index, (name, permanent)) in NAMESPACES.into_iter().enumerate() {
            let inhabited = self.naive.values().any(|naive| naive.namespace == index);
            assert_eq!(self.sockets.find_namespace(name).is_some(), permanent || inhabited);
        }
        for (socket, id) in self.ids.iter().enumerate() {
            let naive = self.naive.get(&socket);
            assert_eq!(self.sockets.key(*id).is_some(), naive.is_some());
            let state = naive.map(|naive| match naive.connected {
                true => SocketState::Connected,
                false => SocketState::Connecting,
            });
            assert_eq!(self.sockets.state(*id), state);
            let rooms = self.sockets.rooms_of(*id);
            assert_eq!(rooms.len(), self.sockets.room_count(*id));
            let rooms: BTreeSet<&str> = rooms.iter().map(|room| &**room).collect();
            assert_eq!(rooms, naive.map(|naive| naive.rooms.clone()).unwrap_or_default());
            let session = naive.filter(|naive| !naive.silenced).map(|naive| naive.session);
            assert_eq!(self.sockets.session_of(*id), session);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn the_tables_do_what_sets_would(steps in prop::collection::vec(step(), 1..120)) {
        let mut pair = Pair::new();
        for step in &steps {
            pair.apply(step);
            pair.check();
        }
    }
}
