//! Binary packets on their way in: text first, then the announced number of binary messages.
//!
//! One [`Assembler`] per session, 8 bytes while nothing is pending. Nothing may stand between
//! the text and the last of its attachments, in whatever namespace, so one pending packet is all
//! there can ever be. Tests: `attachments/tests.rs`.

use bytes::Bytes;

#[cfg(test)]
mod tests;

/// How the peer broke the order of text and attachments. The session of such a peer ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum AssemblyError {
    #[error("a text packet came while attachments were due")]
    TextWhilePending,
    #[error("a binary message came while no attachment was due")]
    BinaryWhileIdle,
    #[error("a packet and its attachments exceed {max} bytes")]
    TooLarge { max: usize },
}

/// A binary packet with all its attachments.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Complete {
    /// The whole text, head included.
    pub(crate) text: Vec<u8>,
    pub(crate) attachments: Vec<Bytes>,
}

/// Holds the text of a binary packet until its attachments are there.
#[derive(Debug, Default)]
pub(crate) struct Assembler {
    pending: Option<Box<Pending>>,
}

#[derive(Debug)]
struct Pending {
    packet: Complete,
    due: u32,
    bytes_left: usize,
    bytes_max: usize,
}

impl Assembler {
    /// Whether attachments are due. If so, no text may be taken in: see [`Self::expect_text`].
    pub(crate) fn is_pending(&self) -> bool {
        self.pending.is_some()
    }

    /// To be asked before any text packet is looked at.
    pub(crate) fn expect_text(&self) -> Result<(), AssemblyError> {
        if self.is_pending() { Err(AssemblyError::TextWhilePending) } else { Ok(()) }
    }

    /// Takes the text of a binary packet which announced `count` attachments.
    ///
    /// A packet without any (`50-`) is complete at once. Text and attachments together may take
    /// `bytes_max`; the caller has already bounded `count`.
    pub(crate) fn start(
        &mut self,
        text: Vec<u8>,
        count: u32,
        bytes_max: usize,
    ) -> Result<Option<Complete>, AssemblyError> {
        self.expect_text()?;
        let too_large = AssemblyError::TooLarge { max: bytes_max };
        let bytes_left = bytes_max.checked_sub(text.len()).ok_or(too_large)?;
        let packet = Complete { text, attachments: Vec::new() };
        if count == 0 {
            return Ok(Some(packet));
        }
        self.pending = Some(Box::new(Pending { packet, due: count, bytes_left, bytes_max }));
        Ok(None)
    }

    /// Takes the next attachment, and gives the packet back if it was the last one.
    ///
    /// After an error the pending packet is gone; the session is to end anyway.
    pub(crate) fn add(&mut self, attachment: Bytes) -> Result<Option<Complete>, AssemblyError> {
        let mut pending = self.pending.take().ok_or(AssemblyError::BinaryWhileIdle)?;
        let too_large = AssemblyError::TooLarge { max: pending.bytes_max };
        pending.bytes_left = pending.bytes_left.checked_sub(attachment.len()).ok_or(too_large)?;
        pending.packet.attachments.push(attachment);
        pending.due -= 1;
        if pending.due == 0 {
            return Ok(Some(pending.packet));
        }
        self.pending = Some(pending);
        Ok(None)
    }
}
