//! Whom a broadcast addresses.

use std::sync::Arc;

use smallvec::SmallVec;

/// A union of rooms (all of the namespace when empty) less the excluded ones. A socket's id names
/// the room that only it is in.
#[derive(Debug, Clone)]
pub(crate) struct Target {
    pub(crate) namespace: Arc<str>,
    pub(crate) rooms: SmallVec<[Box<str>; 1]>,
    pub(crate) except: SmallVec<[Box<str>; 1]>,
}

impl Target {
    pub(crate) fn all(namespace: Arc<str>) -> Self {
        Self { namespace, rooms: SmallVec::new(), except: SmallVec::new() }
    }
}
