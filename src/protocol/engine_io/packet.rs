//! The packet: a digit for its type, then its data.
//!
//! On WebSocket a packet is a text message; a binary message is the data of a [`Message`] packet
//! without its digit. Tests below.
//!
//! [`Message`]: PacketType::Message

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PacketType {
    Open,
    Close,
    Ping,
    Pong,
    Message,
    Upgrade,
    Noop,
}

impl PacketType {
    pub(crate) fn digit(self) -> u8 {
        match self {
            Self::Open => b'0',
            Self::Close => b'1',
            Self::Ping => b'2',
            Self::Pong => b'3',
            Self::Message => b'4',
            Self::Upgrade => b'5',
            Self::Noop => b'6',
        }
    }

    pub(crate) fn from_digit(digit: u8) -> Option<Self> {
        Some(match digit {
            b'0' => Self::Open,
            b'1' => Self::Close,
            b'2' => Self::Ping,
            b'3' => Self::Pong,
            b'4' => Self::Message,
            b'5' => Self::Upgrade,
            b'6' => Self::Noop,
            _ => return None,
        })
    }
}

/// Why something is not a packet. The peer's fault: the session ends with a parse error.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum PacketError {
    #[error("an Engine.IO packet is empty")]
    Empty,
    #[error("an Engine.IO packet has no type {0:#04x}")]
    UnknownType(u8),
}

/// The type and the data of a packet; the data is lent for parsing in place.
pub(crate) fn decode_mut(packet: &mut [u8]) -> Result<(PacketType, &mut [u8]), PacketError> {
    let (&mut digit, data) = packet.split_first_mut().ok_or(PacketError::Empty)?;
    let kind = PacketType::from_digit(digit).ok_or(PacketError::UnknownType(digit))?;
    Ok((kind, data))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digits_and_types_are_one_to_one() {
        for byte in 0..=u8::MAX {
            match PacketType::from_digit(byte) {
                Some(kind) => assert_eq!(kind.digit(), byte),
                None => assert!(!(b'0'..=b'6').contains(&byte)),
            }
        }
    }

    #[test]
    fn packets_are_a_type_and_data() {
        let cases: [(&[u8], PacketType, &[u8]); 8] = [
            (b"1", PacketType::Close, b""),
            (b"2", PacketType::Ping, b""),
            (b"3", PacketType::Pong, b""),
            (b"5", PacketType::Upgrade, b""),
            (b"6", PacketType::Noop, b""),
            (b"2probe", PacketType::Ping, b"probe"),
            (b"3probe", PacketType::Pong, b"probe"),
            (b"42[\"hi\"]", PacketType::Message, b"2[\"hi\"]"),
        ];
        for (packet, kind, data) in cases {
            assert_eq!(decode_mut(&mut packet.to_vec()), Ok((kind, &mut data.to_vec()[..])));
        }
    }

    #[test]
    fn what_is_no_packet_is_an_error() {
        let cases: [(&[u8], PacketError); 4] = [
            (b"", PacketError::Empty),
            (b"7", PacketError::UnknownType(b'7')),
            (b"abc", PacketError::UnknownType(b'a')),
            ("é".as_bytes(), PacketError::UnknownType(0xc3)),
        ];
        for (packet, error) in cases {
            assert_eq!(decode_mut(&mut packet.to_vec()), Err(error));
        }
    }
}
