//! Acknowledgements the server waits for: of one socket, or of a whole broadcast under one id.
//!
//! Every wait ends: by the answers, by the deadline, or because the socket is gone. The table
//! never answers itself; it hands the waiter back to its owner. Time is given.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

/// Marks a wait of a broadcast in the deadline index.
const BROADCAST: u32 = u32::MAX;

#[derive(Debug)]
struct Single<W> {
    waiter: W,
    deadline_ms: u64,
}

#[derive(Debug)]
struct Shared<W, A> {
    awaited: HashSet<u32>,
    /// How many were asked.
    asked: usize,
    answers: Vec<A>,
    waiter: W,
    deadline_ms: u64,
}

/// What an arriving acknowledgement completes.
#[derive(Debug)]
pub(crate) enum Answered<W, A> {
    /// Nobody waits for it (late, duplicate or invented): to be ignored.
    Unknown,
    /// One more answer of a broadcast that still waits for others.
    Counted,
    Single(W, A),
    Broadcast(Finished<W, A>),
}

/// A broadcast's wait that is over.
#[derive(Debug)]
pub(crate) struct Finished<W, A> {
    pub(crate) waiter: W,
    pub(crate) answers: Vec<A>,
    /// Sockets that did not answer.
    pub(crate) missing: usize,
}

/// All waits of one shard. `W` is whom to tell, `A` an answer.
#[derive(Debug)]
pub(crate) struct Acks<W, A> {
    singles: BTreeMap<(u32, u64), Single<W>>,
    shared: HashMap<u64, Shared<W, A>>,
    deadlines: BTreeSet<(u64, u32, u64)>,
}

impl<W, A> Acks<W, A> {
    pub(crate) fn new() -> Self {
        Self { singles: BTreeMap::new(), shared: HashMap::new(), deadlines: BTreeSet::new() }
    }

    /// Waits of one socket, broadcasts not counted.
    pub(crate) fn pending(&self, socket: u32) -> usize {
        self.singles.range((socket, 0)..=(socket, u64::MAX)).count()
    }

    /// Broadcasts that wait.
    pub(crate) fn broadcasts(&self) -> usize {
        self.shared.len()
    }

    pub(crate) fn wait(&mut self, socket: u32, id: u64, deadline_ms: u64, waiter: W) {
        assert_ne!(socket, BROADCAST, "slots stay below the mark");
        self.deadlines.insert((deadline_ms, socket, id));
        self.singles.insert((socket, id), Single { waiter, deadline_ms });
    }

    /// A wait for all of `awaited`, which must not be empty.
    pub(crate) fn wait_all(&mut self, awaited: HashSet<u32>, id: u64, deadline_ms: u64, waiter: W) {
        debug_assert!(!awaited.is_empty(), "a wait for nobody is answered by its owner");
        self.deadlines.insert((deadline_ms, BROADCAST, id));
        let asked = awaited.len();
        self.shared.insert(id, Shared { awaited, asked, answers: Vec::new(), waiter, deadline_ms });
    }

    /// An acknowledgement came in.
    pub(crate) fn answer(&mut self, socket: u32, id: u64, answer: A) -> Answered<W, A> {
        if let Some(single) = self.singles.remove(&(socket, id)) {
            self.deadlines.remove(&(single.deadline_ms, socket, id));
            return Answered::Single(single.waiter, answer);
        }
        let Some(shared) = self.shared.get_mut(&id) else { return Answered::Unknown };
        if !shared.awaited.remove(&socket) {
            return Answered::Unknown;
        }
        shared.answers.push(answer);
        if shared.awaited.is_empty() {
            return self.finish(id).map_or(Answered::Unknown, Answered::Broadcast);
        }
        Answered::Counted
    }

    /// The socket is gone: its own waits end, and no broadcast waits for it any more.
    pub(crate) fn forget(&mut self, socket: u32) -> (Vec<W>, Vec<Finished<W, A>>) {
        let ids: Vec<u64> =
            self.singles.range((socket, 0)..=(socket, u64::MAX)).map(|(&(_, id), _)| id).collect();
        let mut alone = Vec::with_capacity(ids.len());
        for id in ids {
            if let Some(single) = self.singles.remove(&(socket, id)) {
                self.deadlines.remove(&(single.deadline_ms, socket, id));
                alone.push(single.waiter);
            }
        }
        if self.shared.is_empty() {
            return (alone, Vec::new());
        }
        let mut over = Vec::new();
        for (&id, shared) in &mut self.shared {
            if shared.awaited.remove(&socket) && shared.awaited.is_empty() {
                over.push(id);
            }
        }
        over.sort_unstable();
        let finished = over.into_iter().filter_map(|id| self.finish(id)).collect();
        (alone, finished)
    }

    /// The earliest deadline.
    pub(crate) fn next_deadline_ms(&self) -> Option<u64> {
        self.deadlines.first().map(|&(deadline_ms, ..)| deadline_ms)
    }

    /// The next wait whose deadline has passed.
    pub(crate) fn expire(&mut self, now_ms: u64) -> Option<Expired<W, A>> {
        let &(deadline_ms, socket, id) = self.deadlines.first()?;
        if deadline_ms > now_ms {
            return None;
        }
        self.deadlines.remove(&(deadline_ms, socket, id));
        if socket == BROADCAST {
            return self.finish(id).map(Expired::Broadcast);
        }
        self.singles.remove(&(socket, id)).map(|single| Expired::Single(single.waiter))
    }

    fn finish(&mut self, id: u64) -> Option<Finished<W, A>> {
        let shared = self.shared.remove(&id)?;
        self.deadlines.remove(&(shared.deadline_ms, BROADCAST, id));
        Some(Finished {
            missing: shared.asked - shared.answers.len(),
            waiter: shared.waiter,
            answers: shared.answers,
        })
    }
}

/// A wait that ran out of time.
#[derive(Debug)]
pub(crate) enum Expired<W, A> {
    Single(W),
    Broadcast(Finished<W, A>),
}
