//! stentor: a Socket.IO server engine for very large fan-out.

// The unsafe parts of the crate are the kernel drivers in `io`; nothing else may.
#![deny(unsafe_code)]

pub(crate) mod io;
pub(crate) mod protocol;
