//! The chunk log: where every outgoing frame of a shard is written once.
//!
//! Frames are appended to the current chunk; outboxes hold [`Range`]s of chunks and count as
//! references. A chunk is recycled when nothing refers to it any more. All counts are plain
//! integers: a log belongs to one shard. The log does not know what the bytes mean.
//!
//! Tests: `session/tests.rs`.

use std::collections::VecDeque;

/// Size of a shared chunk. Larger than any burst that one turn usually writes, small enough that
/// a chunk pinned by one slow session costs little until it is copied out.
pub(crate) const CHUNK_BYTES: usize = 256 * 1024;

/// A run of frames longer than this gets a chunk of its own, freed as soon as it is sent.
pub(crate) const OWN_CHUNK_BYTES: usize = 64 * 1024;

/// Free chunks kept for reuse; more than this go back to the allocator.
const SPARE_CHUNKS_MAX: usize = 8;

const _: () = assert!(OWN_CHUNK_BYTES < CHUNK_BYTES);
const _: () = assert!(CHUNK_BYTES <= u32::MAX as usize);

/// Bytes `start..end` of one chunk. Empty only in [`Range::EMPTY`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Range {
    pub(crate) chunk: u32,
    pub(crate) start: u32,
    pub(crate) end: u32,
}

impl Range {
    pub(crate) const EMPTY: Self = Self { chunk: u32::MAX, start: 0, end: 0 };

    #[inline]
    pub(crate) fn len(self) -> u32 {
        self.end - self.start
    }

    #[inline]
    pub(crate) fn is_empty(self) -> bool {
        self.start == self.end
    }
}

/// Where an audience's frames ended last, and how far they may go on right there.
///
/// Several audiences that are written to in turn would tear each other's ranges apart; each keeps
/// a region of its own instead, so that its members' ranges only lengthen.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Tail {
    chunk: u32,
    /// [`Chunk::life`] when this was written.
    life: u64,
    at: u32,
    /// End of the reserved region; `at` when nothing is reserved.
    limit: u32,
    /// Size of the last region.
    region: u32,
}

impl Tail {
    pub(crate) const NONE: Self = Self { chunk: 0, life: u64::MAX, at: 0, limit: 0, region: 0 };
}

/// A region reserved for one audience: this many times the frame that tore, then doubling.
const REGION_FRAMES: usize = 8;

/// A region never takes more of the chunk than this.
const REGION_BYTES_MAX: usize = 16 * 1024;

#[derive(Debug)]
struct Chunk {
    bytes: Vec<u8>,
    /// A number that changes whenever the bytes are given up.
    life: u64,
    /// Outbox entries that point here.
    references: u32,
    /// Written for one holder (a large message, or a slow session's copy), never appended to.
    own: bool,
}

/// Empty queues for outboxes whose ranges do not adjoin, so that such a one allocates nothing.
#[derive(Debug, Default)]
#[expect(clippy::vec_box, reason = "the boxes themselves are what is reused")]
pub(crate) struct Queues(Vec<Box<VecDeque<Range>>>);

/// Queues kept for reuse, and the longest that is kept.
const SPARE_QUEUES_MAX: usize = 4096;
const SPARE_QUEUE_RANGES_MAX: usize = 64;

#[expect(clippy::box_collection, reason = "as in the outbox: 8 bytes where there is none")]
impl Queues {
    pub(crate) fn take(&mut self) -> Box<VecDeque<Range>> {
        self.0.pop().unwrap_or_default()
    }

    pub(crate) fn keep(&mut self, mut queue: Box<VecDeque<Range>>) {
        if self.0.len() < SPARE_QUEUES_MAX && queue.capacity() <= SPARE_QUEUE_RANGES_MAX {
            queue.clear();
            self.0.push(queue);
        }
    }
}

/// See the module's text.
#[derive(Debug)]
pub(crate) struct Log {
    pub(crate) queues: Queues,
    chunks: Vec<Chunk>,
    /// Indices of chunks without bytes and references.
    free: Vec<u32>,
    /// Buffers for reuse, all of [`CHUNK_BYTES`] capacity.
    spare: Vec<Vec<u8>>,
    current: u32,
    /// The next [`Chunk::life`].
    life: u64,
    /// How often the current chunk was replaced; outboxes that still wait then are copied out.
    rotations: u64,
}

impl Log {
    pub(crate) fn new() -> Self {
        let first = Chunk { bytes: Vec::new(), life: 0, references: 0, own: false };
        Self {
            queues: Queues::default(),
            chunks: vec![first],
            free: Vec::new(),
            spare: Vec::new(),
            current: 0,
            life: 1,
            rotations: 0,
        }
    }

    /// Writes `bytes` (whole frames) once. The range holds no reference yet.
    pub(crate) fn append(&mut self, bytes: &[u8]) -> Range {
        debug_assert!(!bytes.is_empty(), "an empty append would look like Range::EMPTY");
        if bytes.len() > OWN_CHUNK_BYTES {
            return self.append_own(bytes.to_vec());
        }
        let mut chunk = &mut self.chunks[self.current as usize];
        if chunk.bytes.len() + bytes.len() > CHUNK_BYTES {
            self.rotate();
            chunk = &mut self.chunks[self.current as usize];
        }
        if chunk.bytes.capacity() == 0 {
            chunk.bytes = self.spare.pop().unwrap_or_else(|| Vec::with_capacity(CHUNK_BYTES));
        }
        let start = chunk.bytes.len() as u32;
        chunk.bytes.extend_from_slice(bytes);
        Range { chunk: self.current, start, end: chunk.bytes.len() as u32 }
    }

    /// [`Log::append`] for one audience: right behind its last frame where possible.
    pub(crate) fn append_for(&mut self, tail: &mut Tail, bytes: &[u8]) -> Range {
        let current = self.current;
        let known = tail.chunk == current
            && self.chunks[current as usize].life == tail.life
            && bytes.len() <= OWN_CHUNK_BYTES;
        let chunk = &mut self.chunks[current as usize];
        if known && tail.at as usize != chunk.bytes.len() {
            if let Some(range) = Self::append_at(chunk, current, tail, bytes) {
                return range;
            }
            // Torn: from here on the audience has a region, twice the last one.
            let twice = tail.region as usize * 2;
            let region = (bytes.len() * REGION_FRAMES).max(twice).min(REGION_BYTES_MAX);
            let region = region.max(bytes.len());
            if chunk.bytes.len() + region <= CHUNK_BYTES {
                let start = chunk.bytes.len();
                chunk.bytes.resize(start + region, 0);
                tail.at = start as u32;
                tail.limit = (start + region) as u32;
                tail.region = region as u32;
                if let Some(range) = Self::append_at(chunk, current, tail, bytes) {
                    return range;
                }
            }
        }
        let range = self.append(bytes);
        let life = self.chunks[range.chunk as usize].life;
        let (at, limit) = (range.end, range.end);
        *tail = Tail { chunk: range.chunk, life, at, limit, region: 0 };
        range
    }

    /// Writes into the audience's reserved region, if it has room.
    fn append_at(chunk: &mut Chunk, index: u32, tail: &mut Tail, bytes: &[u8]) -> Option<Range> {
        let (start, end) = (tail.at as usize, tail.at as usize + bytes.len());
        if end > tail.limit as usize {
            return None;
        }
        chunk.bytes[start..end].copy_from_slice(bytes);
        tail.at = end as u32;
        Some(Range { chunk: index, start: start as u32, end: end as u32 })
    }

    /// Makes `bytes` a chunk of their own.
    pub(crate) fn append_own(&mut self, mut bytes: Vec<u8>) -> Range {
        assert!(bytes.len() <= u32::MAX as usize, "message limits keep frames below 4 GiB");
        // It may stay for as long as a slow session does, and bounds count bytes, not capacity.
        bytes.shrink_to_fit();
        let end = bytes.len() as u32;
        let chunk = self.place(bytes, true);
        Range { chunk, start: 0, end }
    }

    #[inline]
    pub(crate) fn bytes(&self, range: Range) -> &[u8] {
        &self.chunks[range.chunk as usize].bytes[range.start as usize..range.end as usize]
    }

    /// Adds `count` references to the range's chunk at once. Whoever appends retains before
    /// anything may be released: a chunk without references is rewound.
    #[inline]
    pub(crate) fn retain(&mut self, range: Range, count: u32) {
        self.chunks[range.chunk as usize].references += count;
    }

    /// Gives one reference back; the last one frees the chunk.
    #[inline]
    pub(crate) fn release(&mut self, chunk: u32) {
        let references = &mut self.chunks[chunk as usize].references;
        assert!(*references > 0, "invariant: every release follows one retain");
        *references -= 1;
        if *references == 0 {
            self.collect(chunk);
        }
    }

    /// Whether the chunk is shared, so that a slow holder should copy its part out.
    pub(crate) fn is_shared(&self, chunk: u32) -> bool {
        !self.chunks[chunk as usize].own
    }

    pub(crate) fn rotations(&self) -> u64 {
        self.rotations
    }

    /// Bytes of memory the log holds.
    #[cfg(test)]
    pub(crate) fn capacity_bytes(&self) -> usize {
        self.chunks.iter().map(|chunk| chunk.bytes.capacity()).sum::<usize>()
            + self.spare.iter().map(Vec::capacity).sum::<usize>()
    }

    fn rotate(&mut self) {
        let old = self.current;
        self.current = self.place(Vec::new(), false);
        self.rotations += 1;
        if self.chunks[old as usize].references == 0 {
            self.collect(old);
        }
    }

    fn place(&mut self, bytes: Vec<u8>, own: bool) -> u32 {
        let chunk = Chunk { bytes, life: self.life, references: 0, own };
        self.life += 1;
        match self.free.pop() {
            Some(index) => {
                self.chunks[index as usize] = chunk;
                index
            }
            None => {
                self.chunks.push(chunk);
                (self.chunks.len() - 1) as u32
            }
        }
    }

    /// Nothing refers to the chunk: rewind the current one, recycle any other.
    fn collect(&mut self, index: u32) {
        let chunk = &mut self.chunks[index as usize];
        if chunk.references > 0 {
            return;
        }
        if index == self.current {
            // The same cache-warm bytes serve the next turn.
            chunk.bytes.clear();
            chunk.life = self.life;
            self.life += 1;
            return;
        }
        let mut bytes = std::mem::take(&mut chunk.bytes);
        if !chunk.own && self.spare.len() < SPARE_CHUNKS_MAX && bytes.capacity() >= CHUNK_BYTES {
            bytes.clear();
            self.spare.push(bytes);
        }
        self.free.push(index);
    }
}
