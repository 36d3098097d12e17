//! Content codings of responses: which one the peer takes, and writing it.
//!
//! Whether a body is worth compressing is the caller's decision. Tests below.

use std::io::Write;

use flate2::Compression;
use flate2::write::{GzEncoder, ZlibEncoder};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Encoding {
    Gzip,
    Deflate,
}

impl Encoding {
    /// The value of Content-Encoding.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Gzip => "gzip",
            Self::Deflate => "deflate",
        }
    }
}

/// The coding the peer likes best by the value of its Accept-Encoding; `None` to send the body as
/// it is. That is also the answer to a peer that refuses the plain body but offers nothing we
/// have: it is better served than not.
pub(crate) fn negotiate(accept_encoding: &[u8]) -> Option<Encoding> {
    let mut offers = Offers::default();
    for item in accept_encoding.split(|&byte| byte == b',') {
        offers.take(item);
    }
    let gzip = offers.gzip.or(offers.wildcard).unwrap_or(0);
    let deflate = offers.deflate.or(offers.wildcard).unwrap_or(0);
    // A peer that does not name the plain body takes it, but only after what it does name.
    let identity = offers.identity.unwrap_or(0);
    let (best, weight) = match gzip >= deflate {
        true => (Encoding::Gzip, gzip),
        false => (Encoding::Deflate, deflate),
    };
    (weight > 0 && weight >= identity).then_some(best)
}

/// Weights in thousandths.
#[derive(Debug, Default)]
struct Offers {
    gzip: Option<u16>,
    deflate: Option<u16>,
    identity: Option<u16>,
    wildcard: Option<u16>,
}

impl Offers {
    fn take(&mut self, item: &[u8]) {
        let mut parts = item.split(|&byte| byte == b';').map(<[u8]>::trim_ascii);
        let name = parts.next().unwrap_or_default();
        let is = |known: &str| name.eq_ignore_ascii_case(known.as_bytes());
        let slot = if is("gzip") || is("x-gzip") {
            &mut self.gzip
        } else if is("deflate") {
            &mut self.deflate
        } else if is("identity") {
            &mut self.identity
        } else if is("*") {
            &mut self.wildcard
        } else {
            return;
        };
        let weight = parts
            .find_map(|part| part.strip_prefix(b"q=").or_else(|| part.strip_prefix(b"Q=")))
            .map_or(1000, parse_weight);
        *slot = Some(weight);
    }
}

/// `0`, `1`, or either with up to three decimals. What is malformed counts as a refusal: the plain
/// body is always understood.
fn parse_weight(text: &[u8]) -> u16 {
    let (whole, decimals) = match text {
        [whole @ (b'0' | b'1')] => (whole, &[][..]),
        [whole @ (b'0' | b'1'), b'.', decimals @ ..] if decimals.len() <= 3 => (whole, decimals),
        _ => return 0,
    };
    if !decimals.iter().all(u8::is_ascii_digit) {
        return 0;
    }
    let digit = |at: usize| u16::from(decimals.get(at).map_or(0, |digit| digit - b'0'));
    let weight = u16::from(whole - b'0') * 1000 + digit(0) * 100 + digit(1) * 10 + digit(2);
    weight.min(1000)
}

/// Appends `body` in the given coding. `deflate` is the zlib format (RFC 9110, 8.4.1.2).
pub(crate) fn compress(encoding: Encoding, body: &[u8], out: &mut Vec<u8>) {
    let level = Compression::default();
    let written = match encoding {
        Encoding::Gzip => {
            let mut encoder = GzEncoder::new(out, level);
            encoder.write_all(body).and_then(|()| encoder.finish().map(drop))
        }
        Encoding::Deflate => {
            let mut encoder = ZlibEncoder::new(out, level);
            encoder.write_all(body).and_then(|()| encoder.finish().map(drop))
        }
    };
    written.expect("invariant: compressing from memory into memory does not fail");
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use flate2::read::{GzDecoder, ZlibDecoder};
    use proptest::prelude::*;

    use super::{Encoding, compress, negotiate};

    #[test]
    fn the_heaviest_known_coding_wins() {
        let cases = [
            ("", None),
            ("br", None),
            ("gzip", Some(Encoding::Gzip)),
            ("x-gzip", Some(Encoding::Gzip)),
            ("GZIP", Some(Encoding::Gzip)),
            ("deflate", Some(Encoding::Deflate)),
            ("gzip, deflate, br, zstd", Some(Encoding::Gzip)),
            ("deflate, gzip", Some(Encoding::Gzip)),
            ("gzip;q=0.5, deflate;q=0.8", Some(Encoding::Deflate)),
            ("gzip;q=0.999 , deflate; q=1.000", Some(Encoding::Deflate)),
            ("gzip;q=0", None),
            ("gzip;q=0, *", Some(Encoding::Deflate)),
            ("*", Some(Encoding::Gzip)),
            ("*;q=0", None),
            ("identity", None),
            ("identity;q=0", None),
            ("identity;q=0, deflate;q=0.1", Some(Encoding::Deflate)),
            ("identity;q=1, gzip;q=0.5", None),
            ("identity;q=0.5, gzip;q=0.5", Some(Encoding::Gzip)),
            ("gzip;q=2", None),
            ("gzip;q=0.1234", None),
            ("gzip;q=", None),
            ("gzip;q=x", None),
            (",,;;q=1,", None),
        ];
        for (value, expected) in cases {
            assert_eq!(negotiate(value.as_bytes()), expected, "{value}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]

        #[test]
        fn any_value_is_read(value in prop::collection::vec(any::<u8>(), 0..60)) {
            negotiate(&value);
        }

        #[test]
        fn bodies_come_back_after_what_was_there(
            body in prop::collection::vec(any::<u8>(), 0..2000),
        ) {
            for encoding in [Encoding::Gzip, Encoding::Deflate] {
                let mut out = b"head".to_vec();
                compress(encoding, &body, &mut out);
                let coded = out.strip_prefix(b"head").unwrap();
                let mut read = Vec::new();
                match encoding {
                    Encoding::Gzip => GzDecoder::new(coded).read_to_end(&mut read).unwrap(),
                    Encoding::Deflate => ZlibDecoder::new(coded).read_to_end(&mut read).unwrap(),
                };
                prop_assert_eq!(&read, &body);
            }
        }
    }
}
