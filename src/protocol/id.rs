//! 20-character ids of sessions and sockets.
//!
//! An id is 15 bytes in base64url: shard (2), slot (4), random (9). Length 20 is what other nodes
//! of a cluster test for; the slot makes a look-up an index and a comparison; 72 random bits make
//! it unguessable. Whether an id is still valid only its owner knows.

use std::fmt;

/// Length of an id in characters.
pub(crate) const ID_CHARS: usize = 20;
const ID_BYTES: usize = 15;
/// Random bytes of an id.
pub(crate) const ID_RANDOM_BYTES: usize = 9;

/// The text of an id. ASCII by construction.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Id([u8; ID_CHARS]);

impl Id {
    pub(crate) fn new(shard: u16, slot: u32, random: [u8; ID_RANDOM_BYTES]) -> Self {
        let mut raw = [0; ID_BYTES];
        raw[..2].copy_from_slice(&shard.to_be_bytes());
        raw[2..6].copy_from_slice(&slot.to_be_bytes());
        raw[6..].copy_from_slice(&random);
        let mut text = [0; ID_CHARS];
        let alphabet = base64_simd::URL_SAFE_NO_PAD;
        let _ = alphabet.encode(&raw, base64_simd::Out::from_slice(&mut text));
        Self(text)
    }

    /// Where an id of this form points to: shard and slot. `None` for any other text.
    pub(crate) fn place(text: &str) -> Option<(u16, u32)> {
        if text.len() != ID_CHARS {
            return None;
        }
        let mut raw = [0; ID_BYTES];
        let out = base64_simd::Out::from_slice(&mut raw);
        base64_simd::URL_SAFE_NO_PAD.decode(text.as_bytes(), out).ok()?;
        Some((
            u16::from_be_bytes([raw[0], raw[1]]),
            u32::from_be_bytes([raw[2], raw[3], raw[4], raw[5]]),
        ))
    }

    pub(crate) fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).unwrap_or_default()
    }
}

impl fmt::Debug for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_20_characters_and_tells_its_place() {
        for (shard, slot) in [(0, 0), (1, 77), (u16::MAX, u32::MAX)] {
            let id = Id::new(shard, slot, [0xA5; ID_RANDOM_BYTES]);
            assert_eq!(id.as_str().len(), 20);
            assert_eq!(Id::place(id.as_str()), Some((shard, slot)));
        }
    }

    #[test]
    fn other_texts_have_no_place() {
        for text in ["", "lobby", "not/base64url/chars!", "twenty-one-characters"] {
            assert_eq!(Id::place(text), None, "{text}");
        }
    }
}
