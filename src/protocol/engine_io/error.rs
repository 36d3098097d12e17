//! Why a request is refused: the codes and texts that clients know.
//!
//! Leaves only: how a refusal is written to a link is decided above. Tests below.

/// A refused request. The peer's fault, or (forbidden) the user's decision.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}", self.message())]
pub(crate) enum RequestError {
    UnknownTransport,
    UnknownSid,
    BadHandshakeMethod,
    BadRequest,
    /// With the user's own words, if he has any.
    Forbidden(Option<String>),
    UnsupportedVersion,
}

impl RequestError {
    /// The number in the reply.
    pub(crate) fn code(&self) -> u8 {
        match self {
            Self::UnknownTransport => 0,
            Self::UnknownSid => 1,
            Self::BadHandshakeMethod => 2,
            Self::BadRequest => 3,
            Self::Forbidden(_) => 4,
            Self::UnsupportedVersion => 5,
        }
    }

    /// The text in the reply; the whole body of the reply to an upgrade.
    pub(crate) fn message(&self) -> &str {
        match self {
            Self::UnknownTransport => "Transport unknown",
            Self::UnknownSid => "Session ID unknown",
            Self::BadHandshakeMethod => "Bad handshake method",
            Self::BadRequest => "Bad request",
            Self::Forbidden(None) => "Forbidden",
            Self::Forbidden(Some(message)) => message,
            Self::UnsupportedVersion => "Unsupported protocol version",
        }
    }

    /// The status of a plain reply. (A refused upgrade is 400, whatever the reason.)
    pub(crate) fn status(&self) -> u16 {
        match self {
            Self::Forbidden(_) => 403,
            _ => 400,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::RequestError;

    #[test]
    fn codes_texts_and_statuses_are_those_of_node() {
        let cases = [
            (RequestError::UnknownTransport, 0, "Transport unknown", 400),
            (RequestError::UnknownSid, 1, "Session ID unknown", 400),
            (RequestError::BadHandshakeMethod, 2, "Bad handshake method", 400),
            (RequestError::BadRequest, 3, "Bad request", 400),
            (RequestError::Forbidden(None), 4, "Forbidden", 403),
            (RequestError::Forbidden(Some("no token".into())), 4, "no token", 403),
            (RequestError::UnsupportedVersion, 5, "Unsupported protocol version", 400),
        ];
        for (error, code, message, status) in cases {
            assert_eq!((error.code(), error.message(), error.status()), (code, message, status));
            assert_eq!(error.to_string(), message);
        }
    }
}
