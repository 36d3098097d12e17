//! Request bodies, read as they arrive: sized or chunked.
//!
//! A [`BodyReader`] is fed whatever came and appends what belongs to the body to the caller's
//! buffer. However the same bytes are cut, the outcome is the same. Chunked bodies are read
//! strictly (CR LF and nothing else ends a line), because a lenient reader behind a different
//! lenient reader is how requests are smuggled. Extensions and trailers are skipped, and bounded.
//!
//! ```text
//! Sized(left) ---------------------------------------------------------> Done
//! Size -> Extension -> SizeEnd -> Data(left) -> DataCr -> DataLf -+       ^
//!   ^          size > 0                                           |       |
//!   +-------------------------------------------------------------+       |
//!               size = 0 : SizeEnd -> TrailerStart <-> Trailer            |
//!                                          +--> LastLf -------------------+
//! ```
//!
//! Tests: `tests/body.rs`.

use super::request::BodyKind;

/// Bytes of chunk extensions in one body. Nobody sends any; the bound is for those who would.
const EXTENSION_BYTES_MAX: usize = 4 * 1024;
/// Bytes of trailer fields after one body.
const TRAILER_BYTES_MAX: usize = 8 * 1024;
/// Hex digits of a chunk size; more could not be held in 64 bits.
const SIZE_DIGITS_MAX: u8 = 16;

/// Why a body is refused: the peer broke the format, or its limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum BodyError {
    #[error("the request body is larger than allowed")]
    TooLarge,
    #[error("the chunked coding of the request body is malformed")]
    Malformed,
}

impl BodyError {
    pub(crate) fn status(self) -> u16 {
        match self {
            Self::TooLarge => 413,
            Self::Malformed => 400,
        }
    }
}

/// What one call of [`BodyReader::feed`] did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Progress {
    /// Input bytes that belong to this request. What follows is the next one's.
    pub(crate) consumed: usize,
    /// The body is complete.
    pub(crate) done: bool,
}

/// The state of one body. After an error it stays failed, with the same error.
#[derive(Debug, Clone)]
pub(crate) struct BodyReader {
    state: State,
    /// Body bytes that may still come.
    budget: u64,
    extension_bytes: usize,
    trailer_bytes: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Sized { left: u64 },
    Size { value: u64, digits: u8 },
    Extension { size: u64 },
    SizeEnd { size: u64 },
    Data { left: u64 },
    DataCr,
    DataLf,
    TrailerStart,
    Trailer,
    TrailerLf,
    LastLf,
    Done,
    Failed(BodyError),
}

impl BodyReader {
    /// A body that announces more than `bytes_max` is refused before a byte of it is read.
    pub(crate) fn new(kind: BodyKind, bytes_max: usize) -> Result<Self, BodyError> {
        let budget = bytes_max as u64;
        let state = match kind {
            BodyKind::None | BodyKind::Sized(0) => State::Done,
            BodyKind::Sized(size) if size > budget => return Err(BodyError::TooLarge),
            BodyKind::Sized(size) => State::Sized { left: size },
            BodyKind::Chunked => State::Size { value: 0, digits: 0 },
        };
        Ok(Self { state, budget, extension_bytes: 0, trailer_bytes: 0 })
    }

    pub(crate) fn is_done(&self) -> bool {
        self.state == State::Done
    }

    /// Reads on. Takes all of `input`, unless the body ends in it.
    pub(crate) fn feed(&mut self, input: &[u8], out: &mut Vec<u8>) -> Result<Progress, BodyError> {
        let mut consumed = 0;
        while consumed < input.len() && !self.is_done() {
            let rest = &input[consumed..];
            let step = match self.state {
                State::Failed(error) => Err(error),
                State::Sized { left } => Ok(self.take_sized(rest, left, out)),
                State::Data { left } => Ok(self.take_data(rest, left, out)),
                _ => self.step(rest[0]).map(|()| 1),
            };
            match step {
                Ok(taken) => consumed += taken,
                Err(error) => {
                    self.state = State::Failed(error);
                    return Err(error);
                }
            }
        }
        match self.state {
            State::Failed(error) => Err(error),
            state => Ok(Progress { consumed, done: state == State::Done }),
        }
    }

    fn take_sized(&mut self, rest: &[u8], left: u64, out: &mut Vec<u8>) -> usize {
        let taken = copy_up_to(rest, left, out);
        self.state = match left - taken as u64 {
            0 => State::Done,
            left => State::Sized { left },
        };
        taken
    }

    fn take_data(&mut self, rest: &[u8], left: u64, out: &mut Vec<u8>) -> usize {
        let taken = copy_up_to(rest, left, out);
        self.state = match left - taken as u64 {
            0 => State::DataCr,
            left => State::Data { left },
        };
        taken
    }

    /// One byte of what surrounds the data of a chunked body.
    fn step(&mut self, byte: u8) -> Result<(), BodyError> {
        self.state = match (self.state, byte) {
            (State::Size { value, digits }, _) => self.step_size(value, digits, byte)?,
            (State::Extension { size }, b'\r') => State::SizeEnd { size },
            (State::Extension { .. }, byte) => {
                count(byte, &mut self.extension_bytes, EXTENSION_BYTES_MAX)?;
                self.state
            }
            (State::SizeEnd { size: 0 }, b'\n') => State::TrailerStart,
            (State::SizeEnd { size }, b'\n') => State::Data { left: size },
            (State::DataCr, b'\r') => State::DataLf,
            (State::DataLf, b'\n') => State::Size { value: 0, digits: 0 },
            (State::TrailerStart, b'\r') => State::LastLf,
            (State::Trailer, b'\r') => State::TrailerLf,
            (State::TrailerStart | State::Trailer, byte) => {
                count(byte, &mut self.trailer_bytes, TRAILER_BYTES_MAX)?;
                State::Trailer
            }
            (State::TrailerLf, b'\n') => State::TrailerStart,
            (State::LastLf, b'\n') => State::Done,
            _ => return Err(BodyError::Malformed),
        };
        Ok(())
    }

    /// A byte of a chunk's size, or the one that ends it. The budget is charged with the size, so
    /// that a chunk too large is refused before its data arrives.
    fn step_size(&mut self, value: u64, digits: u8, byte: u8) -> Result<State, BodyError> {
        if let Some(digit) = (byte as char).to_digit(16) {
            if digits == SIZE_DIGITS_MAX {
                return Err(BodyError::Malformed);
            }
            return Ok(State::Size { value: value << 4 | u64::from(digit), digits: digits + 1 });
        }
        let next = match byte {
            b'\r' => State::SizeEnd { size: value },
            // Blanks stand before an extension in old clients (RFC 9112, 7.1.1).
            b';' | b' ' | b'\t' => State::Extension { size: value },
            _ => return Err(BodyError::Malformed),
        };
        if digits == 0 {
            return Err(BodyError::Malformed);
        }
        self.budget = self.budget.checked_sub(value).ok_or(BodyError::TooLarge)?;
        Ok(next)
    }
}

fn copy_up_to(rest: &[u8], left: u64, out: &mut Vec<u8>) -> usize {
    let taken = usize::try_from(left).unwrap_or(usize::MAX).min(rest.len());
    out.extend_from_slice(&rest[..taken]);
    taken
}

/// One skipped byte of a line: counted, and never a line end on its own.
fn count(byte: u8, counter: &mut usize, max: usize) -> Result<(), BodyError> {
    *counter += 1;
    if byte == b'\n' || byte == 0 || *counter > max {
        return Err(BodyError::Malformed);
    }
    Ok(())
}
