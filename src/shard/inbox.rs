//! Mail, read: in which order, how much of it at once, and what each letter does to the tables.
//!
//! Whatever was posted before something is sent here is read before it: the mailbox keeps the order
//! of posting, [`Core::catch_up`] stands before everything that user code does to the tables, and a
//! broadcast is read by nobody before all shards have it. So of two messages that a client gets,
//! the one whose sending had ended when the other's began comes first, whoever sent them where; and
//! so does the one that the other's sender had seen. A shard that is more than
//! [`LETTERS_PER_TURN`] letters or [`DELIVERIES_PER_TURN`] behind reads on in its next turns and
//! does not keep this promise.
//!
//! Letters for the turn (connections, a shutdown) are set aside; who posts mail and how, the
//! [`port`](super::port) knows. Tests: below and `tests/order.rs`.

use std::collections::VecDeque;

use super::core::{Core, Weight};
use super::port::{Change, Mail, Port};
use crate::DisconnectReason;
use crate::socket::{SocketId, Target};

/// Letters read in one turn; the rest waits until what they caused has begun to be sent.
const LETTERS_PER_TURN: usize = 1024;

/// Deliveries of broadcasts after which a turn reads no more letters: some ten milliseconds, which
/// is long enough for everybody else. Fewer would have the same clients sent to more often.
const DELIVERIES_PER_TURN: u64 = 1 << 20;

/// Mail that the shard has in its hands.
#[derive(Debug, Default)]
pub(crate) struct Inbox {
    /// Taken in and not read yet.
    letters: VecDeque<Mail>,
    /// Broadcasts that some other shard does not have yet: one per thread that is just posting.
    held: VecDeque<Mail>,
    /// What only the turn can do.
    for_turn: VecDeque<Mail>,
    /// How many may still be read in this turn.
    left: usize,
    /// Deliveries that letters may still cause in this turn.
    deliveries_left: u64,
}

impl Inbox {
    /// Whether there is anything to be read or done.
    pub(super) fn is_empty(&self) -> bool {
        self.letters.is_empty() && self.held.is_empty() && self.for_turn.is_empty()
    }

    /// Connections and shutdowns, in the order of their coming.
    pub(super) fn take_for_turn(&mut self) -> VecDeque<Mail> {
        std::mem::take(&mut self.for_turn)
    }

    #[inline]
    fn waits(&self, port: &Port) -> bool {
        port.has_mail() || !self.letters.is_empty() || !self.held.is_empty()
    }

    /// The next letter. A broadcast that is still being posted is passed over: whatever follows it
    /// here was sent by somebody who cannot know of it, for its sender is not done with it. What
    /// its sender, or whoever saw it, posts later is taken in later, and by then it may be read.
    fn next(&mut self, port: &Port) -> Option<Mail> {
        while self.left > 0 {
            if let Some(at) = self.held.iter().position(Mail::is_posted) {
                self.left -= 1;
                return self.held.remove(at);
            }
            match self.letters.pop_front() {
                Some(letter) if letter.is_posted() => {
                    self.left -= 1;
                    return Some(letter);
                }
                Some(letter) => self.held.push_back(letter),
                None => {
                    port.take(&mut self.letters);
                    if self.letters.is_empty() {
                        return None;
                    }
                }
            }
        }
        None
    }
}

impl Core {
    /// Reads the mail that waits, as a new turn may.
    pub(super) fn open_mail(&mut self) {
        self.inbox.left = LETTERS_PER_TURN;
        self.inbox.deliveries_left = DELIVERIES_PER_TURN;
        self.catch_up();
    }

    /// Reads what was posted until now, within the turn's bound.
    #[inline]
    pub(super) fn catch_up(&mut self) {
        if self.inbox.waits(&self.port) {
            self.read_mail();
        }
    }

    fn read_mail(&mut self) {
        while let Some(letter) = self.inbox.next(&self.port) {
            // Only what letters cause: what this shard's own clients have sent is no backlog.
            let before = self.counters.deliveries;
            match letter {
                Mail::Connection { .. } | Mail::Shutdown { .. } => {
                    self.inbox.for_turn.push_back(letter);
                    self.touch();
                }
                letter => self.read(letter),
            }
            let caused = self.counters.deliveries - before;
            self.inbox.deliveries_left = self.inbox.deliveries_left.saturating_sub(caused);
            if self.inbox.deliveries_left == 0 {
                self.inbox.left = 0;
            }
        }
    }

    /// Mail that concerns the tables only.
    fn read(&mut self, letter: Mail) {
        match letter {
            Mail::Broadcast { broadcast, frames, answers } => {
                self.broadcast(&broadcast.told, &frames, answers);
            }
            Mail::Emit { socket, frames, volatile, is_event } => {
                let weight = if is_event { Weight::Event } else { Weight::Control };
                // A socket that has left in the meantime needs no event.
                self.emit(socket, &frames, volatile, weight);
            }
            Mail::EmitWithAck { socket, frames, id, timeout_ms, waiter } => {
                self.emit_with_ack(socket, &frames, id, timeout_ms, waiter);
            }
            Mail::Change { change } => self.change_all(&change.told.target, &change.told.change),
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

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::super::port::{Broadcast, Changed, Ports, Posted, Posting};
    use super::*;

    fn posting() -> Posting<Broadcast> {
        Posting::new(Broadcast { target: Target::all("/".into()), volatile: false, ack: None })
    }

    fn post(port: &Port, posting: &Posting<Broadcast>) {
        let (broadcast, frames) = (posting.0.clone(), Bytes::new());
        assert_eq!(port.post(Mail::Broadcast { broadcast, frames, answers: None }), Ok(()));
    }

    fn read(inbox: &mut Inbox, port: &Port) -> Vec<*const Posted<Broadcast>> {
        let mut read = Vec::new();
        while let Some(letter) = inbox.next(port) {
            let Mail::Broadcast { broadcast, .. } = letter else { panic!("only broadcasts") };
            read.push(std::sync::Arc::as_ptr(&broadcast));
        }
        read
    }

    fn name(posting: &Posting<Broadcast>) -> *const Posted<Broadcast> {
        std::sync::Arc::as_ptr(&posting.0)
    }

    #[test]
    fn a_broadcast_is_read_once_all_shards_have_it() {
        let ports = Ports::new(2, 100, 1024);
        let (early, late) = (&ports.all()[0], &ports.all()[1]);
        let mut inboxes = [(); 2].map(|()| Inbox { left: 100, ..Inbox::default() });
        // Its sender has come as far as the first mailbox.
        let said = posting();
        let said_name = name(&said);
        post(early, &said);
        assert_eq!(read(&mut inboxes[0], early), []);
        assert!(!inboxes[0].is_empty(), "it is looked at again at once");
        // Somebody else's does not wait for it.
        let other = posting();
        let other_name = name(&other);
        post(early, &other);
        post(late, &other);
        drop(other);
        assert_eq!(read(&mut inboxes[0], early), [other_name]);
        // Now it is everywhere, and only now can somebody answer it.
        post(late, &said);
        drop(said);
        let answer = posting();
        let answer_name = name(&answer);
        post(early, &answer);
        post(late, &answer);
        drop(answer);
        assert_eq!(read(&mut inboxes[0], early), [said_name, answer_name]);
        assert_eq!(read(&mut inboxes[1], late), [other_name, said_name, answer_name]);
        assert!(inboxes.iter().all(Inbox::is_empty));
    }

    #[test]
    fn a_change_of_rooms_is_read_once_all_shards_have_it() {
        let ports = Ports::new(2, 100, 1024);
        let port = &ports.all()[0];
        let mut inbox = Inbox { left: 100, ..Inbox::default() };
        let change = Change::Join(vec!["room".into()]);
        let posting = Posting::new(Changed { target: Target::all("/".into()), change });
        let letter = || Mail::Change { change: posting.0.clone() };
        assert_eq!(port.post(letter()), Ok(()));
        assert!(inbox.next(port).is_none(), "the other shard does not have it");
        assert_eq!(ports.all()[1].post(letter()), Ok(()));
        drop(posting);
        assert!(matches!(inbox.next(port), Some(Mail::Change { .. })));
    }

    #[test]
    fn a_turn_reads_so_many_letters_and_no_more() {
        let ports = Ports::new(1, 100, 1024);
        let port = &ports.all()[0];
        let mut inbox = Inbox { left: 3, ..Inbox::default() };
        for _ in 0..5 {
            post(port, &posting());
        }
        assert_eq!(read(&mut inbox, port).len(), 3);
        assert!(inbox.waits(port) && !inbox.is_empty());
        inbox.left = 3;
        assert_eq!(read(&mut inbox, port).len(), 2);
        assert!(!inbox.waits(port) && inbox.is_empty());
    }
}
