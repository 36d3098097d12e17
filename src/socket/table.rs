//! Namespaces, sockets and rooms of one shard.
//!
//! Members are dense `u32` slots. A socket remembers its index in each of its rooms and a room
//! remembers which of the socket's memberships that is, so join, leave and disconnect are O(1)
//! per room. Rooms and dynamic namespaces exist while somebody is in them.

use std::collections::HashMap;
use std::sync::Arc;

use smallvec::SmallVec;

use crate::memory;

#[cfg(test)]
mod invariants;

/// Names a socket of one shard; the generation makes a stale name miss.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct SocketId {
    pub(crate) slot: u32,
    pub(crate) generation: u32,
}

/// Where a socket stands between CONNECT and its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SocketState {
    /// Its middlewares run; it may join rooms but no broadcast reaches it.
    Connecting,
    Connected,
}

/// One room of one socket.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Membership {
    pub(crate) room: u32,
    /// Index in the room's members.
    at: u32,
}

#[derive(Debug, Clone, Copy)]
struct Member {
    socket: u32,
    /// Index in the socket's memberships.
    at: u32,
}

#[derive(Debug)]
struct Room {
    name: Arc<str>,
    members: Vec<Member>,
}

/// One namespace as this shard sees it.
#[derive(Debug)]
pub(crate) struct Namespace {
    pub(crate) name: Arc<str>,
    /// Connected sockets.
    members: Vec<u32>,
    rooms: HashMap<Arc<str>, u32>,
    /// Sockets of any state: a dynamic namespace lives while this is not 0.
    sockets: u32,
    permanent: bool,
}

#[derive(Debug)]
struct Record<K> {
    generation: u32,
    state: SocketState,
    session: u32,
    namespace: u32,
    /// Index in the namespace's members while connected.
    at: u32,
    memberships: SmallVec<[Membership; 2]>,
    key: K,
}

/// In place of a session: no broadcast reaches this socket (not connected yet, or no more).
const UNREACHABLE: u32 = u32::MAX;

/// The part of a socket that a broadcast touches.
#[derive(Debug, Clone, Copy)]
struct Hot {
    /// The session to reach, or [`UNREACHABLE`].
    session: u32,
    /// The number of the last broadcast that reached or excluded this socket.
    stamp: u32,
}

/// All sockets, rooms and namespaces of one shard. `K` is what the owner keeps per socket.
#[derive(Debug)]
pub(crate) struct Sockets<K> {
    records: Vec<Option<Record<K>>>,
    generations: Vec<u32>,
    hot: Vec<Hot>,
    free: Vec<u32>,
    /// Sockets there will be at most, as far as is known.
    most: usize,
    rooms: Vec<Room>,
    free_rooms: Vec<u32>,
    namespaces: Vec<Option<Namespace>>,
    free_namespaces: Vec<u32>,
    by_name: HashMap<Arc<str>, u32>,
    stamp: u32,
}

/// A room or a single socket addressed by its id.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Audience {
    Room(u32),
    Socket(u32),
}

impl<K> Sockets<K> {
    /// `most`: sockets there will be at most, as far as is known; see [`memory`].
    pub(crate) fn new(most: usize) -> Self {
        Self {
            records: Vec::new(),
            generations: Vec::new(),
            hot: Vec::new(),
            free: Vec::new(),
            most,
            rooms: Vec::new(),
            free_rooms: Vec::new(),
            namespaces: Vec::new(),
            free_namespaces: Vec::new(),
            by_name: HashMap::new(),
            stamp: 0,
        }
    }

    /// The namespace's index, made when it does not exist yet.
    pub(crate) fn namespace_or_new(&mut self, name: &str, permanent: bool) -> u32 {
        if let Some(&index) = self.by_name.get(name) {
            return index;
        }
        let name: Arc<str> = name.into();
        let namespace = Namespace {
            name: name.clone(),
            members: Vec::new(),
            rooms: HashMap::new(),
            sockets: 0,
            permanent,
        };
        let index = match self.free_namespaces.pop() {
            Some(index) => {
                self.namespaces[index as usize] = Some(namespace);
                index
            }
            None => {
                self.namespaces.push(Some(namespace));
                (self.namespaces.len() - 1) as u32
            }
        };
        self.by_name.insert(name, index);
        index
    }

    pub(crate) fn find_namespace(&self, name: &str) -> Option<u32> {
        self.by_name.get(name).copied()
    }

    /// The namespace at an index that a live socket or a look-up gave.
    pub(crate) fn namespace(&self, index: u32) -> &Namespace {
        self.namespaces[index as usize]
            .as_ref()
            .expect("invariant: a namespace outlives its sockets")
    }

    fn namespace_mut(&mut self, index: u32) -> &mut Namespace {
        self.namespaces[index as usize]
            .as_mut()
            .expect("invariant: a namespace outlives its sockets")
    }

    /// Reserves a slot: the id a key can be made of before [`Sockets::insert`].
    pub(crate) fn reserve(&mut self) -> SocketId {
        let slot = self.free.pop().unwrap_or_else(|| {
            memory::push(&mut self.records, None, self.most);
            memory::push(&mut self.generations, 0, self.most);
            memory::push(&mut self.hot, Hot { session: UNREACHABLE, stamp: 0 }, self.most);
            (self.records.len() - 1) as u32
        });
        SocketId { slot, generation: self.generations[slot as usize] }
    }

    /// Fills a reserved slot with a socket that is connecting.
    pub(crate) fn insert(&mut self, id: SocketId, session: u32, namespace: u32, key: K) {
        let slot = id.slot as usize;
        assert!(self.records[slot].is_none(), "a slot is filled once after its reservation");
        self.records[slot] = Some(Record {
            generation: id.generation,
            state: SocketState::Connecting,
            session,
            namespace,
            at: 0,
            memberships: SmallVec::new(),
            key,
        });
        self.namespace_mut(namespace).sockets += 1;
    }

    /// From now on broadcasts reach the socket.
    pub(crate) fn connect(&mut self, id: SocketId) {
        let Some(namespace) = self.record(id).map(|record| record.namespace) else { return };
        let members = &mut self.namespace_mut(namespace).members;
        let at = members.len() as u32;
        members.push(id.slot);
        if let Some(record) = self.record_mut(id) {
            assert_eq!(record.state, SocketState::Connecting, "a socket connects once");
            record.state = SocketState::Connected;
            record.at = at;
            let session = record.session;
            self.hot[id.slot as usize].session = session;
        }
    }

    fn record(&self, id: SocketId) -> Option<&Record<K>> {
        self.records
            .get(id.slot as usize)?
            .as_ref()
            .filter(|record| record.generation == id.generation)
    }

    fn record_mut(&mut self, id: SocketId) -> Option<&mut Record<K>> {
        self.records
            .get_mut(id.slot as usize)?
            .as_mut()
            .filter(|record| record.generation == id.generation)
    }

    pub(crate) fn key(&self, id: SocketId) -> Option<&K> {
        self.record(id).map(|record| &record.key)
    }

    pub(crate) fn key_at(&self, slot: u32) -> Option<&K> {
        self.records.get(slot as usize)?.as_ref().map(|record| &record.key)
    }

    pub(crate) fn id_at(&self, slot: u32) -> Option<SocketId> {
        let record = self.records.get(slot as usize)?.as_ref()?;
        Some(SocketId { slot, generation: record.generation })
    }

    pub(crate) fn state(&self, id: SocketId) -> Option<SocketState> {
        self.record(id).map(|record| record.state)
    }

    pub(crate) fn namespace_of(&self, id: SocketId) -> Option<u32> {
        self.record(id).map(|record| record.namespace)
    }

    /// The session (its slot) the socket belongs to; none once it was silenced.
    pub(crate) fn session_of(&self, id: SocketId) -> Option<u32> {
        let session = self.record(id)?.session;
        (session != UNREACHABLE).then_some(session)
    }

    /// Number of rooms the socket joined (its own id not counted).
    pub(crate) fn room_count(&self, id: SocketId) -> usize {
        self.record(id).map_or(0, |record| record.memberships.len())
    }

    /// Names of the rooms the socket joined, in no order.
    pub(crate) fn rooms_of(&self, id: SocketId) -> Vec<Arc<str>> {
        let rooms = self.record(id).map(|record| record.memberships.as_slice());
        rooms
            .unwrap_or_default()
            .iter()
            .map(|membership| self.rooms[membership.room as usize].name.clone())
            .collect()
    }

    /// Joins a room; joining twice changes nothing.
    pub(crate) fn join(&mut self, id: SocketId, name: &str) {
        let Some(namespace) = self.namespace_of(id) else { return };
        let room = self.room_or_new(namespace, name);
        let record = self.records[id.slot as usize].as_mut().expect("invariant: just looked up");
        if record.memberships.iter().any(|membership| membership.room == room) {
            return;
        }
        let members = &mut self.rooms[room as usize].members;
        members.push(Member { socket: id.slot, at: record.memberships.len() as u32 });
        record.memberships.push(Membership { room, at: (members.len() - 1) as u32 });
    }

    /// Leaves a room; leaving one it is not in changes nothing.
    pub(crate) fn leave(&mut self, id: SocketId, name: &str) {
        let Some(record) = self.record(id) else { return };
        let namespace = record.namespace;
        let Some(&room) = self.namespace(namespace).rooms.get(name) else { return };
        let at = record.memberships.iter().position(|membership| membership.room == room);
        if let Some(at) = at {
            self.leave_at(namespace, id.slot, at);
        }
    }

    fn leave_at(&mut self, namespace: u32, slot: u32, at: usize) {
        let record = self.records[slot as usize].as_mut().expect("invariant: the socket is live");
        let gone = record.memberships.swap_remove(at);
        // Whoever moved into a freed place is told its new index, on both sides.
        if let Some(moved) = record.memberships.get(at) {
            self.rooms[moved.room as usize].members[moved.at as usize].at = at as u32;
        }
        let room = &mut self.rooms[gone.room as usize];
        room.members.swap_remove(gone.at as usize);
        if let Some(moved) = room.members.get(gone.at as usize).copied() {
            let other = self.records[moved.socket as usize]
                .as_mut()
                .expect("invariant: members are live sockets");
            other.memberships[moved.at as usize].at = gone.at;
        }
        if self.rooms[gone.room as usize].members.is_empty() {
            self.free_room(namespace, gone.room);
        }
    }

    fn room_or_new(&mut self, namespace: u32, name: &str) -> u32 {
        if let Some(&room) = self.namespace(namespace).rooms.get(name) {
            return room;
        }
        let name: Arc<str> = name.into();
        let room = Room { name: name.clone(), members: Vec::new() };
        let index = match self.free_rooms.pop() {
            Some(index) => {
                self.rooms[index as usize] = room;
                index
            }
            None => {
                self.rooms.push(room);
                (self.rooms.len() - 1) as u32
            }
        };
        self.namespace_mut(namespace).rooms.insert(name, index);
        index
    }

    fn free_room(&mut self, namespace: u32, room: u32) {
        let name = self.rooms[room as usize].name.clone();
        self.rooms[room as usize].members = Vec::new();
        self.namespace_mut(namespace).rooms.remove(&name);
        self.free_rooms.push(room);
    }

    /// Parts the socket from its session, whose slot may be another's soon: nothing reaches it
    /// from now on. Its rooms stay until [`Sockets::detach`].
    pub(crate) fn silence(&mut self, id: SocketId) {
        if let Some(record) = self.record_mut(id) {
            record.session = UNREACHABLE;
            self.hot[id.slot as usize].session = UNREACHABLE;
        }
    }

    /// Leaves every room and the namespace's members: no broadcast reaches the socket any more.
    /// The slot stays until [`Sockets::remove`].
    pub(crate) fn detach(&mut self, id: SocketId) {
        let Some(record) = self.record(id) else { return };
        let (namespace, state, at) = (record.namespace, record.state, record.at);
        for membership in (0..record.memberships.len()).rev() {
            self.leave_at(namespace, id.slot, membership);
        }
        if state == SocketState::Connected {
            let members = &mut self.namespace_mut(namespace).members;
            members.swap_remove(at as usize);
            if let Some(&moved) = members.get(at as usize) {
                self.records[moved as usize]
                    .as_mut()
                    .expect("invariant: members are live sockets")
                    .at = at;
            }
            self.hot[id.slot as usize].session = UNREACHABLE;
            if let Some(record) = self.record_mut(id) {
                record.state = SocketState::Connecting;
            }
        }
    }

    /// Frees the slot. A dynamic namespace goes with its last socket.
    pub(crate) fn remove(&mut self, id: SocketId) -> Option<K> {
        self.detach(id);
        self.record(id)?;
        let record = self.records[id.slot as usize].take()?;
        self.generations[id.slot as usize] = id.generation.wrapping_add(1);
        self.free.push(id.slot);
        let namespace = self.namespace_mut(record.namespace);
        namespace.sockets -= 1;
        if namespace.sockets == 0 && !namespace.permanent {
            let name = namespace.name.clone();
            self.by_name.remove(&name);
            self.namespaces[record.namespace as usize] = None;
            self.free_namespaces.push(record.namespace);
        }
        Some(record.key)
    }

    /// Connected sockets of a namespace.
    #[cfg(test)]
    pub(crate) fn members(&self, namespace: u32) -> &[u32] {
        &self.namespace(namespace).members
    }

    /// The room that is the whole audience of `rooms`, if it is one room; the index stays the
    /// room's while it exists.
    pub(crate) fn only_room(&self, namespace: u32, rooms: &[Box<str>]) -> Option<u32> {
        let [room] = rooms else { return None };
        self.namespace(namespace).rooms.get(&**room).copied()
    }

    /// Calls `reach` once for every connected socket that `rooms` (all when empty) names and
    /// `except` does not. `resolve` finds the socket that has a name as its id, which is a room of
    /// its own that nobody stores.
    pub(crate) fn for_each(
        &mut self,
        namespace: u32,
        rooms: &[Box<str>],
        except: &[Box<str>],
        resolve: impl Fn(&str, &Self) -> Option<u32>,
        mut reach: impl FnMut(u32, u32),
    ) {
        if except.is_empty() && rooms.is_empty() {
            for &slot in &self.namespace(namespace).members {
                let session = self.hot[slot as usize].session;
                // Whoever was silenced is a member until it is detached.
                if session != UNREACHABLE {
                    reach(slot, session);
                }
            }
            return;
        }
        let wanted = self.audiences(namespace, rooms, &resolve);
        if except.is_empty() && wanted.len() == 1 {
            self.visit(wanted[0], |slot, hot| reach(slot, hot.session));
            return;
        }
        let excluded = self.audiences(namespace, except, &resolve);
        let stamp = self.next_stamp();
        for audience in excluded {
            self.visit_mut(audience, |_, hot| hot.stamp = stamp);
        }
        let mut once = |slot: u32, hot: &mut Hot| {
            if hot.stamp != stamp && hot.session != UNREACHABLE {
                hot.stamp = stamp;
                reach(slot, hot.session);
            }
        };
        if rooms.is_empty() {
            let namespace = self.namespaces[namespace as usize].as_ref();
            let members = namespace.map(|namespace| namespace.members.as_slice());
            for &slot in members.unwrap_or_default() {
                once(slot, &mut self.hot[slot as usize]);
            }
            return;
        }
        for audience in wanted {
            self.visit_mut(audience, &mut once);
        }
    }

    fn audiences(
        &self,
        namespace: u32,
        names: &[Box<str>],
        resolve: &impl Fn(&str, &Self) -> Option<u32>,
    ) -> SmallVec<[Audience; 4]> {
        let known = &self.namespace(namespace).rooms;
        let mut found = SmallVec::new();
        for name in names {
            if let Some(&room) = known.get(&**name) {
                found.push(Audience::Room(room));
            }
            if let Some(slot) = resolve(name, self)
                && self.is_member(slot, namespace)
            {
                found.push(Audience::Socket(slot));
            }
        }
        found
    }

    fn is_member(&self, slot: u32, namespace: u32) -> bool {
        self.records[slot as usize].as_ref().is_some_and(|record| record.namespace == namespace)
    }

    fn visit(&self, audience: Audience, mut reach: impl FnMut(u32, Hot)) {
        let mut connected = |slot: u32| {
            let hot = self.hot[slot as usize];
            if hot.session != UNREACHABLE {
                reach(slot, hot);
            }
        };
        match audience {
            Audience::Socket(slot) => connected(slot),
            Audience::Room(room) => {
                self.rooms[room as usize]
                    .members
                    .iter()
                    .for_each(|member| connected(member.socket));
            }
        }
    }

    fn visit_mut(&mut self, audience: Audience, mut reach: impl FnMut(u32, &mut Hot)) {
        match audience {
            Audience::Socket(slot) => reach(slot, &mut self.hot[slot as usize]),
            Audience::Room(room) => {
                for member in &self.rooms[room as usize].members {
                    reach(member.socket, &mut self.hot[member.socket as usize]);
                }
            }
        }
    }

    fn next_stamp(&mut self) -> u32 {
        self.stamp = self.stamp.wrapping_add(1);
        if self.stamp == 0 {
            // After 2^32 broadcasts an old stamp could look fresh: start over.
            self.hot.iter_mut().for_each(|hot| hot.stamp = 0);
            self.stamp = 1;
        }
        self.stamp
    }
}

#[cfg(test)]
mod tests {
    use super::{SocketId, Sockets};

    fn reached(sockets: &mut Sockets<()>, rooms: &[Box<str>], except: &[Box<str>]) -> Vec<u32> {
        let mut sessions = Vec::new();
        sockets.for_each(0, rooms, except, |_, _| None, |_, session| sessions.push(session));
        sessions
    }

    #[test]
    fn a_silenced_member_is_reached_by_no_kind_of_broadcast() {
        let mut sockets = Sockets::new(0);
        let namespace = sockets.namespace_or_new("/", true);
        let ids: Vec<SocketId> = (40..42)
            .map(|session| {
                let id = sockets.reserve();
                sockets.insert(id, session, namespace, ());
                sockets.connect(id);
                sockets.join(id, "lobby");
                id
            })
            .collect();
        sockets.silence(ids[0]);
        let (lobby, nobody) = (["lobby".into()], ["nobody".into()]);
        for (rooms, except) in
            [(&[][..], &[][..]), (&lobby, &[]), (&[], &nobody), (&lobby, &nobody)]
        {
            assert_eq!(reached(&mut sockets, rooms, except), [41], "{rooms:?} but {except:?}");
        }
    }
}
