use proptest::prelude::*;

use super::super::{Encoder, Speaks, fixed, keep_undroppable, pinned_after};
use crate::protocol::websocket::{Opcode, push_head};

/// What a session may be sent.
#[derive(Debug, Clone)]
enum Message {
    Event {
        len: usize,
        attachments: Vec<usize>,
    },
    Ack {
        len: usize,
        attachments: Vec<usize>,
    },
    Connect,
    Disconnect,
    Ping,
    /// A control frame of WebSocket itself.
    Pong,
}

impl Message {
    fn is_event(&self) -> bool {
        matches!(self, Self::Event { .. })
    }

    fn frames(&self, tag: u8) -> Vec<u8> {
        let mut out = Vec::new();
        let mut frame = |opcode, payload: &[u8]| {
            push_head(&mut out, true, opcode, payload.len());
            out.extend_from_slice(payload);
        };
        // What follows the type is not looked at: the tag tells messages apart.
        let filled = |start: &str, len: usize| [start.as_bytes(), &vec![tag; len]].concat();
        match self {
            Self::Event { len, attachments } | Self::Ack { len, attachments } => {
                let start = match (self.is_event(), attachments.len()) {
                    (true, 0) => "42".to_owned(),
                    (true, count) => format!("45{count}-"),
                    (false, 0) => "43".to_owned(),
                    (false, count) => format!("46{count}-"),
                };
                frame(Opcode::Text, &filled(&start, *len));
                for len in attachments {
                    frame(Opcode::Binary, &filled("42", *len));
                }
            }
            Self::Connect => frame(Opcode::Text, &filled("40", 20)),
            Self::Disconnect => frame(Opcode::Text, b"41/x,"),
            Self::Ping => out.extend_from_slice(fixed::PING),
            Self::Pong => frame(Opcode::Pong, &[tag; 4]),
        }
        out
    }
}

fn message() -> impl Strategy<Value = Message> {
    let len = || prop_oneof![4 => 0..40_usize, 1 => 120..140_usize];
    let attachments = move || prop::collection::vec(len(), 0..4);
    prop_oneof![
        6 => (len(), attachments())
            .prop_map(|(len, attachments)| Message::Event { len, attachments }),
        2 => (len(), attachments())
            .prop_map(|(len, attachments)| Message::Ack { len, attachments }),
        1 => Just(Message::Connect),
        1 => Just(Message::Disconnect),
        1 => Just(Message::Ping),
        1 => Just(Message::Pong),
    ]
}

/// What waits on a session: bytes that are no frame (the head of a response), then messages, each
/// as its bytes and whether it may be dropped.
#[derive(Debug, Clone)]
struct Waiting {
    head: Vec<u8>,
    messages: Vec<(Vec<u8>, bool)>,
}

impl Waiting {
    fn bytes(&self) -> Vec<u8> {
        let messages = self.messages.iter().flat_map(|(bytes, _)| bytes);
        self.head.iter().chain(messages).copied().collect()
    }

    /// The end of the message that a cut at `sent` goes through, or `sent` between messages.
    fn settled_after(&self, sent: usize) -> usize {
        let mut at = self.head.len();
        if sent <= at {
            return at;
        }
        for (bytes, _) in &self.messages {
            if sent <= at {
                break;
            }
            at += bytes.len();
        }
        at
    }
}

fn waiting() -> impl Strategy<Value = Waiting> {
    let head = prop_oneof![Just(0), 1..30_usize].prop_map(|len| vec![b'H'; len]);
    (head, prop::collection::vec(message(), 0..12)).prop_map(|(head, messages)| {
        let tagged = messages.iter().zip(b'a'..);
        let messages =
            tagged.map(|(message, tag)| (message.frames(tag), message.is_event())).collect();
        Waiting { head, messages }
    })
}

fn event(len: usize, attachments: &[usize]) -> Vec<u8> {
    Message::Event { len, attachments: attachments.to_vec() }.frames(b'e')
}

fn ack(len: usize) -> Vec<u8> {
    Message::Ack { len, attachments: Vec::new() }.frames(b'a')
}

#[test]
fn a_cut_event_pins_its_attachments() {
    let bytes = [event(3, &[1, 2]), event(1, &[])].concat();
    let message = bytes.len() - event(1, &[]).len();
    for sent in 1..=message {
        assert_eq!(pinned_after(&bytes, 0, sent), message - sent, "{sent}");
    }
    assert_eq!(pinned_after(&bytes, 0, 0), 0, "nothing has begun");
    assert_eq!(pinned_after(&bytes, 0, bytes.len()), 0);
}

#[test]
fn the_oldest_events_go_first_and_no_more_than_needed() {
    let (a, b, c) = (event(10, &[]), event(20, &[5]), event(30, &[]));
    let between = [fixed::PING.to_vec(), ack(2)].concat();
    let all = [&a[..], &between, &b, &c].concat();
    let keep = |excess| {
        let (kept, dropped) = keep_undroppable(&all, 0, excess, Speaks::SocketIo);
        (kept, dropped)
    };
    assert_eq!(keep(0), (all.clone(), 0));
    assert_eq!(keep(1), ([&between[..], &b, &c].concat(), 1));
    assert_eq!(keep(a.len()), ([&between[..], &b, &c].concat(), 1));
    assert_eq!(keep(a.len() + 1), ([&between[..], &c].concat(), 2));
    assert_eq!(keep(usize::MAX), (between, 3));
}

#[test]
fn an_event_that_asks_for_an_acknowledgement_is_an_event() {
    let mut packet = Vec::new();
    push_head(&mut packet, true, Opcode::Text, 13);
    packet.extend_from_slice(br#"42/a,17["e"] "#);
    assert_eq!(keep_undroppable(&packet, 0, 1, Speaks::SocketIo), (Vec::new(), 1));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    /// However sends cut the bytes, what is pinned afterwards ends where a message ends.
    #[test]
    fn pinned_bytes_are_the_rest_of_one_message(
        waiting in waiting(),
        cuts in prop::collection::vec(0..=1000_usize, 1..6),
    ) {
        let bytes = waiting.bytes();
        let (mut sent, mut pinned) = (0, waiting.head.len());
        for cut in cuts {
            let rest = &bytes[sent..];
            let now = rest.len() * cut / 1000;
            pinned = pinned_after(rest, pinned, now);
            sent += now;
            let settled = waiting.settled_after(sent);
            prop_assert_eq!(sent + pinned, settled.max(sent));
        }
    }

    /// After any cut: whole messages are dropped, only events, the oldest, as few as are needed;
    /// all else stays in its order and the pinned bytes stay at the front.
    #[test]
    fn what_is_kept_is_what_a_list_would_keep(
        waiting in waiting(),
        cut in 0..=1000_usize,
        excess in prop_oneof![0..400_usize, Just(usize::MAX)],
    ) {
        let bytes = waiting.bytes();
        let sent = bytes.len() * cut / 1000;
        let rest = &bytes[sent..];
        let pinned = pinned_after(&bytes, waiting.head.len(), sent);
        let (kept, dropped) = keep_undroppable(rest, pinned, excess, Speaks::SocketIo);

        let settled = sent + pinned;
        let mut expected = bytes[sent..settled].to_vec();
        let (mut at, mut freed, mut events) = (waiting.head.len(), 0, 0);
        for (message, droppable) in &waiting.messages {
            let begins = at;
            at += message.len();
            if begins < settled {
                continue;
            }
            if *droppable && freed < excess {
                freed += message.len();
                events += 1;
            } else {
                expected.extend_from_slice(message);
            }
        }
        prop_assert_eq!(dropped, events);
        prop_assert!(kept == expected);
        prop_assert_eq!(kept.len() + freed, rest.len());
    }

    /// Cutting, dropping and adding in any order leaves a stream that a client can read: the
    /// messages that were sent or wait are a subsequence of those written, whole, and only events
    /// are missing.
    #[test]
    fn a_client_reads_whole_messages_whatever_is_dropped(
        rounds in prop::collection::vec((waiting(), 0..=1000_usize, 0..300_usize), 1..6),
    ) {
        let (mut stream, mut queue, mut pinned) = (Vec::new(), Vec::new(), 0);
        let mut written = Vec::new();
        for (waiting, cut, excess) in rounds {
            for (bytes, droppable) in waiting.messages {
                queue.extend_from_slice(&bytes);
                written.push((bytes, droppable));
            }
            let sent = queue.len() * cut / 1000;
            pinned = pinned_after(&queue, pinned, sent);
            stream.extend(queue.drain(..sent));
            (queue, _) = keep_undroppable(&queue, pinned, excess, Speaks::SocketIo);
        }
        stream.extend(queue);
        let mut rest = &stream[..];
        for (bytes, droppable) in &written {
            match rest.strip_prefix(&bytes[..]) {
                Some(after) => rest = after,
                None => prop_assert!(droppable, "only events are missing"),
            }
        }
        prop_assert!(rest.is_empty(), "nothing is torn or out of order");
    }
}

#[test]
fn of_the_users_own_messages_each_is_dropped_for_itself() {
    let mut encoder = Encoder::default();
    let mut all = fixed::PING.to_vec();
    all.extend_from_slice(encoder.packet(|out| out.extend_from_slice(b"2 of them")));
    let first = all.len();
    all.extend_from_slice(encoder.engine_binary(b"binary"));
    let (kept, dropped) = keep_undroppable(&all, 0, 1, Speaks::EngineIo);
    assert_eq!(dropped, 1);
    assert_eq!(kept, [fixed::PING, &all[first..]].concat());
    assert_eq!(keep_undroppable(&all, 0, usize::MAX, Speaks::EngineIo), (fixed::PING.to_vec(), 2));
}
