//! What must hold between the tables, whatever was done to them. Looked at by tests only.

use super::{Sockets, UNREACHABLE};
use crate::socket::SocketState;

impl<K> Sockets<K> {
    /// Panics where an index points to something that does not point back.
    pub(in crate::socket) fn assert_consistent(&self) {
        let mut sockets_of = vec![0; self.namespaces.len()];
        for (slot, record) in self.records.iter().enumerate() {
            let Some(record) = record else {
                assert_eq!(self.hot[slot].session, UNREACHABLE, "a vacant slot is unreachable");
                continue;
            };
            sockets_of[record.namespace as usize] += 1;
            assert_eq!(record.generation, self.generations[slot]);
            let members = &self.namespace(record.namespace).members;
            match record.state {
                SocketState::Connected => {
                    assert_eq!(members[record.at as usize] as usize, slot);
                    let reach = self.hot[slot].session;
                    assert!(reach == record.session || reach == UNREACHABLE);
                }
                SocketState::Connecting => {
                    assert!(!members.contains(&(slot as u32)));
                    assert_eq!(self.hot[slot].session, UNREACHABLE);
                }
            }
            for (at, membership) in record.memberships.iter().enumerate() {
                let room = &self.rooms[membership.room as usize];
                let member = room.members[membership.at as usize];
                assert_eq!((member.socket as usize, member.at as usize), (slot, at));
                let rooms = &self.namespace(record.namespace).rooms;
                assert_eq!(rooms.get(&room.name), Some(&membership.room));
            }
        }
        self.assert_rooms(&sockets_of);
        let vacant = self.records.iter().filter(|record| record.is_none()).count();
        assert_eq!(self.free.len(), vacant);
    }

    fn assert_rooms(&self, sockets_of: &[u32]) {
        let mut live_rooms = 0;
        for (index, namespace) in self.namespaces.iter().enumerate() {
            let Some(namespace) = namespace else { continue };
            assert_eq!(namespace.sockets, sockets_of[index]);
            assert_eq!(self.by_name.get(&namespace.name), Some(&(index as u32)));
            live_rooms += namespace.rooms.len();
            for (name, &room) in &namespace.rooms {
                assert_eq!(self.rooms[room as usize].name, *name);
                assert!(!self.rooms[room as usize].members.is_empty(), "a room is not empty");
            }
        }
        assert_eq!(live_rooms + self.free_rooms.len(), self.rooms.len());
        let live = self.namespaces.iter().flatten().count();
        assert_eq!(self.by_name.len(), live);
        assert_eq!(live + self.free_namespaces.len(), self.namespaces.len());
    }

    /// As if as many broadcasts had been made.
    pub(in crate::socket) fn set_stamp(&mut self, stamp: u32) {
        self.stamp = stamp;
    }

    /// How many rooms there is memory for.
    pub(in crate::socket) fn rooms_allocated(&self) -> usize {
        self.rooms.len()
    }

    /// How many namespaces there is memory for.
    pub(in crate::socket) fn namespaces_allocated(&self) -> usize {
        self.namespaces.len()
    }
}
