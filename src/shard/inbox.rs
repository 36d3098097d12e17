//! Mail, read: what each letter does to the tables.
//!
//! Letters for the turn (connections, a shutdown) are not read here; who posts them and how, the
//! [`port`](super::port) knows.

use super::core::{Core, Weight};
use super::port::{Change, Mail};
use crate::DisconnectReason;
use crate::socket::{SocketId, Target};

impl Core {
    /// Mail that concerns the tables only.
    pub(super) fn read(&mut self, letter: Mail) {
        match letter {
            Mail::Broadcast { broadcast, frames, answers } => {
                self.broadcast(&broadcast, &frames, answers);
            }
            Mail::Emit { socket, frames, volatile, is_event } => {
                let weight = if is_event { Weight::Event } else { Weight::Control };
                // A socket that has left in the meantime needs no event.
                self.emit(socket, &frames, volatile, weight);
            }
            Mail::EmitWithAck { socket, frames, id, timeout_ms, waiter } => {
                self.emit_with_ack(socket, &frames, id, timeout_ms, waiter);
            }
            Mail::Change { target, change } => self.change_all(&target, &change),
            Mail::ChangeSocket { socket, change } => {
                self.change(socket, &change);
            }
            // Whoever asked and no longer waits needs no answer.
            Mail::Rooms { socket, reply } => drop(reply.send(self.sockets.rooms_of(socket))),
            Mail::Fetch { target, reply } => {
                let slots = self.select(&target);
                let keys = slots.iter().filter_map(|&slot| self.sockets.key_at(slot).cloned());
                let _ = reply.send(keys.collect());
            }
            Mail::EngineSend { session, frames } => {
                if self.sessions.get(session).is_some() {
                    self.send_frames(session.slot, &frames, Weight::Event);
                }
            }
            Mail::EngineClose { session } => {
                self.close_session(session, DisconnectReason::ForcedServerClose);
            }
            Mail::Connection { .. } | Mail::Shutdown { .. } => {
                debug_assert!(false, "mail for the turn, not for the tables");
            }
        }
    }

    /// Changes every connected socket of a target.
    pub(crate) fn change_all(&mut self, target: &Target, change: &Change) {
        for slot in self.select(target) {
            if let Some(socket) = self.sockets.id_at(slot) {
                self.change(socket, change);
            }
        }
    }

    /// Changes one socket. Joining stops at the bound; the caller on the shard is told.
    pub(crate) fn change(&mut self, socket: SocketId, change: &Change) -> bool {
        match change {
            Change::Join(rooms) => {
                for room in rooms {
                    if self.sockets.room_count(socket) >= self.config.limits.rooms {
                        tracing::warn!(target: "stentor::socket", "room limit reached");
                        return false;
                    }
                    self.sockets.join(socket, room);
                }
            }
            Change::Leave(rooms) => {
                rooms.iter().for_each(|room| self.sockets.leave(socket, room));
            }
            Change::Disconnect { close } => self.disconnect_socket(socket, *close),
        }
        true
    }
}
