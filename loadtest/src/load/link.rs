//! What the processes of a run say to each other: JSON, a line each, over a pair of sockets.
//!
//! Neither end ever waits in a write: what the other one does not take stays here, up to a bound.

use std::io::{self, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::{Plan, Share, Window};
use crate::Failure;
use crate::swarm::{Seat, Transport};
use crate::target::Target;

/// What a worker is there for: the first line it reads.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Job {
    pub(crate) targets: Vec<Target>,
    pub(crate) plan: Plan,
    pub(crate) transport: Transport,
    pub(crate) share: Share,
    pub(crate) seat: Seat,
}

/// A broadcast: its group, its number, and when it was scheduled or had arrived.
pub(crate) type Sighting = (u32, u64, u64);

/// To a worker.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Order {
    /// Connect until so many clients are in; answered when they are.
    Grow(u32),
    /// Close all connections; answered.
    Clear,
    /// Forget what was counted; answered, so that nothing is sent before everybody has.
    Prepare,
    /// Work, from this moment on.
    Go(u64),
    /// These broadcasts are about to be sent.
    Flights(Vec<Sighting>),
    /// Begin nothing that is due from this moment on; answered by the window once everything
    /// has arrived.
    Over(u64),
    /// Tell the window now.
    Tell,
}

/// From a worker.
#[derive(Serialize, Deserialize)]
pub(crate) enum Report {
    /// Clients that are in so far.
    Ready(u32),
    /// The order was carried out.
    Answer,
    /// Messages received so far.
    Sample(u64),
    /// All clients of the worker have these.
    Landed(Vec<Sighting>),
    Window(Box<Window>),
    /// The run has failed, and why.
    Fault(String),
}

/// A [`Report::Window`] that need not be owned to be told.
#[derive(Serialize)]
pub(crate) enum Sight<'w> {
    Window(&'w Window),
}

/// One end.
pub(crate) struct Link {
    stream: UnixStream,
    inbox: Vec<u8>,
    /// How much of the inbox has been taken.
    taken: usize,
    outbox: Vec<u8>,
}

/// What a look into a link brings.
pub(crate) enum Heard<T> {
    Message(T),
    Nothing,
    /// The other end is gone.
    Ended,
}

/// A window with four full histograms has some megabytes.
const LINE_BYTES_MAX: usize = 32 << 20;
const OUTBOX_BYTES_MAX: usize = 64 << 20;
const READ_BYTES: usize = 8 * 1024;

impl Link {
    pub(crate) fn new(stream: UnixStream) -> Result<Self, Failure> {
        stream.set_nonblocking(true).map_err(Failure::io("use a link between processes"))?;
        Ok(Self { stream, inbox: Vec::new(), taken: 0, outbox: Vec::new() })
    }

    pub(crate) fn fd(&self) -> i32 {
        self.stream.as_raw_fd()
    }

    /// Says something, as far as the other end takes it at once.
    pub(crate) fn say(&mut self, message: &impl Serialize) -> Result<(), Failure> {
        let written = serde_json::to_writer(&mut self.outbox, message);
        written.map_err(|error| Failure::io("talk to another process")(error.into()))?;
        self.outbox.push(b'\n');
        if self.outbox.len() > OUTBOX_BYTES_MAX {
            let full = io::Error::other("the other process does not read");
            return Err(Failure::io("talk to another process")(full));
        }
        self.flush().map(drop)
    }

    /// Whether everything that was said lies with the other end.
    pub(crate) fn flush(&mut self) -> Result<bool, Failure> {
        let mut sent = 0;
        while sent < self.outbox.len() {
            match self.stream.write(&self.outbox[sent..]) {
                Ok(more) => sent += more,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // Why it is gone is found out by reading.
                Err(error) if is_gone(&error) => sent = self.outbox.len(),
                Err(error) => return Err(Failure::io("talk to another process")(error)),
            }
        }
        self.outbox.drain(..sent);
        // Large messages are rare; between them nothing is kept.
        if self.outbox.is_empty() && self.outbox.capacity() > READ_BYTES {
            self.outbox = Vec::new();
        }
        Ok(self.outbox.is_empty())
    }

    /// Says the last word, however long the other end takes to read it.
    pub(crate) fn say_last(&mut self, message: &impl Serialize) -> Result<(), Failure> {
        let failed = "talk to another process";
        self.stream.set_nonblocking(false).map_err(Failure::io(failed))?;
        self.say(message)
    }

    /// Waits for a message.
    pub(crate) fn wait<T: DeserializeOwned>(&mut self) -> Result<Heard<T>, Failure> {
        let failed = "talk to another process";
        self.stream.set_nonblocking(false).map_err(Failure::io(failed))?;
        let heard = self.hear();
        self.stream.set_nonblocking(true).map_err(Failure::io(failed))?;
        heard
    }

    /// The next message that has come whole.
    pub(crate) fn hear<T: DeserializeOwned>(&mut self) -> Result<Heard<T>, Failure> {
        let mut looked = self.taken;
        loop {
            if let Some(length) = memchr::memchr(b'\n', &self.inbox[looked..]) {
                let line = &self.inbox[self.taken..looked + length];
                let message = serde_json::from_slice(line);
                let message = message
                    .map_err(|error| Failure::io("understand another process")(error.into()))?;
                self.taken = looked + length + 1;
                return Ok(Heard::Message(message));
            }
            if self.taken > 0 {
                self.inbox.drain(..self.taken);
                self.taken = 0;
            }
            looked = self.inbox.len();
            if looked > LINE_BYTES_MAX {
                let long = io::Error::other("a line without an end");
                return Err(Failure::io("hear from another process")(long));
            }
            self.inbox.resize(looked + READ_BYTES, 0);
            let read = self.stream.read(&mut self.inbox[looked..]);
            self.inbox.truncate(looked + *read.as_ref().unwrap_or(&0));
            match read {
                Ok(0) => return Ok(Heard::Ended),
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    if self.inbox.is_empty() && self.inbox.capacity() > READ_BYTES {
                        self.inbox = Vec::new();
                    }
                    return Ok(Heard::Nothing);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if is_gone(&error) => return Ok(Heard::Ended),
                Err(error) => return Err(Failure::io("hear from another process")(error)),
            }
        }
    }
}

fn is_gone(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair() -> (Link, Link) {
        let (one, other) = UnixStream::pair().unwrap();
        (Link::new(one).unwrap(), Link::new(other).unwrap())
    }

    fn heard(link: &mut Link) -> Option<u64> {
        match link.hear().unwrap() {
            Heard::Message(number) => Some(number),
            Heard::Nothing | Heard::Ended => None,
        }
    }

    #[test]
    fn messages_come_whole_and_in_order_through_a_full_socket() {
        let (mut one, mut other) = pair();
        for number in 0..200_000_u64 {
            one.say(&number).unwrap();
        }
        assert!(!one.flush().unwrap(), "more than a socket takes");
        for number in 0..200_000 {
            let next = heard(&mut other).or_else(|| {
                one.flush().unwrap();
                heard(&mut other)
            });
            assert_eq!(next, Some(number));
        }
        assert!(one.flush().unwrap());
    }

    #[test]
    fn a_window_arrives_as_it_was() {
        let (mut one, mut other) = pair();
        let mut window = Window { operations: 7, ..Window::default() };
        (0..5_000).for_each(|us| window.last.record(us * 997_000));
        one.say(&Sight::Window(&window)).unwrap();
        let heard = loop {
            match other.hear().unwrap() {
                Heard::Message(Report::Window(heard)) => break heard,
                Heard::Nothing => drop(one.flush().unwrap()),
                Heard::Message(_) | Heard::Ended => panic!("no window"),
            }
        };
        assert_eq!(heard.operations, 7);
        assert_eq!(heard.last.percentiles().p90_us, window.last.percentiles().p90_us);
    }

    #[test]
    fn the_end_is_heard_after_the_last_word() {
        let (mut one, mut other) = pair();
        one.say(&7_u64).unwrap();
        drop(one);
        assert!(matches!(other.hear::<u64>().unwrap(), Heard::Message(7)));
        assert!(matches!(other.hear::<u64>().unwrap(), Heard::Ended));
        other.say(&8_u64).unwrap();
    }
}
