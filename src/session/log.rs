//! The chunk log: where every outgoing frame of a shard is written once.
//!
//! Frames are appended to the current chunk; outboxes hold [`Range`]s of chunks and count as
//! references. A chunk is recycled when nothing refers to it any more. All counts are plain
//! integers: a log belongs to one shard. The log does not know what the bytes mean.
//!
//! Tests: `session/tests.rs`.

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

#[derive(Debug)]
struct Chunk {
    bytes: Vec<u8>,
    /// Outbox entries that point here.
    references: u32,
    /// Written for one holder (a large message, or a slow session's copy), never appended to.
    own: bool,
}

/// See the module's text.
#[derive(Debug)]
pub(crate) struct Log {
    chunks: Vec<Chunk>,
    /// Indices of chunks without bytes and references.
    free: Vec<u32>,
    /// Buffers for reuse, all of [`CHUNK_BYTES`] capacity.
    spare: Vec<Vec<u8>>,
    current: u32,
    /// How often the current chunk was replaced; outboxes that still wait then are copied out.
    rotations: u64,
}

impl Log {
    pub(crate) fn new() -> Self {
        let first = Chunk { bytes: Vec::new(), references: 0, own: false };
        Self { chunks: vec![first], free: Vec::new(), spare: Vec::new(), current: 0, rotations: 0 }
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

    /// Makes `bytes` a chunk of their own.
    pub(crate) fn append_own(&mut self, mut bytes: Vec<u8>) -> Range {
        assert!(bytes.len() <= u32::MAX as usize, "message limits keep frames below 4 GiB");
        // It may stay for as long as a slow session does, and bounds count bytes, not capacity.
        bytes.shrink_to_fit();
        let end = bytes.len() as u32;
        let chunk = self.place(Chunk { bytes, references: 0, own: true });
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

    /// Bytes of memory the log holds, for metrics and tests.
    pub(crate) fn capacity_bytes(&self) -> usize {
        self.chunks.iter().map(|chunk| chunk.bytes.capacity()).sum::<usize>()
            + self.spare.iter().map(Vec::capacity).sum::<usize>()
    }

    fn rotate(&mut self) {
        let old = self.current;
        self.current = self.place(Chunk { bytes: Vec::new(), references: 0, own: false });
        self.rotations += 1;
        if self.chunks[old as usize].references == 0 {
            self.collect(old);
        }
    }

    fn place(&mut self, chunk: Chunk) -> u32 {
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
