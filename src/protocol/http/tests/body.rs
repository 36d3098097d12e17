//! Request bodies: what is read, what is refused, and that no cut of the input matters.

use proptest::prelude::*;

use super::super::body::Progress;
use super::super::*;

/// Feeds `input` in pieces of these lengths, the last one as often as needed.
fn read(
    kind: BodyKind,
    bytes_max: usize,
    input: &[u8],
    pieces: &[usize],
) -> (Vec<u8>, Result<Progress, BodyError>) {
    let mut out = Vec::new();
    let mut reader = match BodyReader::new(kind, bytes_max) {
        Ok(reader) => reader,
        Err(error) => return (out, Err(error)),
    };
    let mut pieces = pieces.iter().copied().cycle();
    let mut consumed = 0;
    loop {
        let piece = pieces.next().unwrap_or(usize::MAX).min(input.len() - consumed);
        match reader.feed(&input[consumed..consumed + piece], &mut out) {
            Ok(progress) => {
                consumed += progress.consumed;
                assert_eq!(progress.done, reader.is_done());
                assert!(progress.done || progress.consumed == piece);
                if progress.done || consumed == input.len() {
                    return (out, Ok(Progress { consumed, ..progress }));
                }
            }
            Err(error) => {
                assert_eq!(reader.feed(b"", &mut out), Err(error), "errors stay");
                return (out, Err(error));
            }
        }
    }
}

fn chunked(input: &[u8]) -> Result<(Vec<u8>, usize), BodyError> {
    let (out, result) = read(BodyKind::Chunked, 100, input, &[]);
    result.map(|progress| {
        assert!(progress.done, "{input:?}");
        (out, progress.consumed)
    })
}

#[test]
fn sized_bodies_end_where_they_said() {
    let (out, result) = read(BodyKind::Sized(5), 5, b"helloGET /", &[]);
    assert_eq!((&out[..], result), (&b"hello"[..], Ok(Progress { consumed: 5, done: true })));
    for kind in [BodyKind::None, BodyKind::Sized(0)] {
        let (out, result) = read(kind, 0, b"GET /", &[]);
        assert_eq!((&out[..], result), (&b""[..], Ok(Progress { consumed: 0, done: true })));
    }
    let (out, result) = read(BodyKind::Sized(5), 5, b"hel", &[]);
    assert_eq!((&out[..], result), (&b"hel"[..], Ok(Progress { consumed: 3, done: false })));
}

#[test]
fn too_large_bodies_answer_413() {
    let error = BodyReader::new(BodyKind::Sized(6), 5).unwrap_err();
    assert_eq!((error, error.status()), (BodyError::TooLarge, 413));
    assert_eq!(BodyReader::new(BodyKind::Sized(u64::MAX), 5).unwrap_err(), BodyError::TooLarge);

    // Refused by the size, not by the data.
    assert_eq!(chunked(b"65\r\n"), Err(BodyError::TooLarge));
    assert_eq!(chunked(b"ffffffffffffffff\r\n"), Err(BodyError::TooLarge));
    let (out, result) = read(BodyKind::Chunked, 4, b"3\r\nabc\r\n2\r\nde", &[]);
    assert_eq!((&out[..], result), (&b"abc"[..], Err(BodyError::TooLarge)));
}

#[test]
fn chunked_bodies_are_read() {
    let cases: [(&[u8], &[u8]); 7] = [
        (b"0\r\n\r\n", b""),
        (b"5\r\nhello\r\n0\r\n\r\n", b"hello"),
        (b"3\r\nabc\r\n00a\r\n\r\n34567890\r\n0\r\n\r\n", b"abc\r\n34567890"),
        (b"A\r\n0123456789\r\n000\r\n\r\n", b"0123456789"),
        (b"1;name=\"v\";x\r\na\r\n0;last\r\n\r\n", b"a"),
        (b"1 ;x\r\na\r\n0 \t\r\n\r\n", b"a"),
        (b"1\r\na\r\n0\r\nA: b\r\nC: d\r\n\r\n", b"a"),
    ];
    for (input, expected) in cases {
        let followed = [input, b"GET /"].concat();
        assert_eq!(chunked(&followed), Ok((expected.to_vec(), input.len())), "{input:?}");
    }
}

#[test]
fn malformed_chunks_answer_400() {
    let cases: [&[u8]; 17] = [
        b"\r\n",
        b"x\r\n",
        b";x\r\n",
        b" 1\r\n",
        b"-1\r\n",
        b"+1\r\n",
        b"0x1\r\n",
        b"1\na\r\n",
        b"1\r\r\n",
        b"1;x\ny\r\n",
        b"1;x\0\r\n",
        b"1\r\nab\r\n",
        b"1\r\na\n0\r\n\r\n",
        b"1\r\na\rx",
        b"0\r\nA: b\n\r\n",
        b"0\r\n\n",
        b"00000000000000001\r\n",
    ];
    for case in cases {
        assert_eq!(chunked(case), Err(BodyError::Malformed), "{case:?}");
    }
    assert_eq!(BodyError::Malformed.status(), 400);
}

#[test]
fn extensions_and_trailers_are_bounded() {
    let chunk = [b"1;", &[b'x'; 1000][..], b"\r\na\r\n"].concat();
    assert_eq!(chunked(&chunk.repeat(5)), Err(BodyError::Malformed));
    let trailers = [b"0\r\n", &b"A: b\r\n".repeat(3000)[..]].concat();
    assert_eq!(chunked(&trailers), Err(BodyError::Malformed));
}

fn coded(chunks: &[Vec<u8>], last: &[u8]) -> Vec<u8> {
    let mut input = Vec::new();
    for chunk in chunks.iter().filter(|chunk| !chunk.is_empty()) {
        input.extend_from_slice(format!("{:x}\r\n", chunk.len()).as_bytes());
        input.extend_from_slice(chunk);
        input.extend_from_slice(b"\r\n");
    }
    [&input[..], b"0\r\n", last, b"\r\n"].concat()
}

proptest! {
    #[test]
    fn chunks_are_joined_however_they_are_cut(
        chunks in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..40), 0..6),
        pieces in prop::collection::vec(1..20_usize, 1..6),
        last in prop_oneof![Just(&b""[..]), Just(&b"A: b\r\n"[..])],
        follows in prop::collection::vec(any::<u8>(), 0..10),
    ) {
        let input = coded(&chunks, last);
        let followed = [&input[..], &follows].concat();
        let (out, result) = read(BodyKind::Chunked, 1000, &followed, &pieces);
        prop_assert_eq!(out, chunks.concat());
        prop_assert_eq!(result, Ok(Progress { consumed: input.len(), done: true }));
    }

    #[test]
    fn any_input_has_one_outcome_however_it_is_cut(
        input in prop::collection::vec(
            prop_oneof![
                4 => prop::sample::select(&b"0123\r\n;a"[..]),
                1 => any::<u8>(),
            ],
            0..60,
        ),
        pieces in prop::collection::vec(1..5_usize, 1..6),
        kind in prop_oneof![
            4 => Just(BodyKind::Chunked),
            1 => (0..50_u64).prop_map(BodyKind::Sized),
        ],
    ) {
        let whole = read(kind, 40, &input, &[]);
        prop_assert_eq!(&read(kind, 40, &input, &pieces), &whole);
        prop_assert_eq!(&read(kind, 40, &input, &[1]), &whole);
        prop_assert!(whole.0.len() <= 40);
    }

    #[test]
    fn damaged_chunks_have_one_outcome(
        at in any::<prop::sample::Index>(),
        byte in any::<u8>(),
        pieces in prop::collection::vec(1..5_usize, 1..6),
    ) {
        let mut input = coded(&[b"hello".to_vec(), b"you".to_vec()], b"A: b\r\n");
        let at = at.index(input.len());
        input[at] = byte;
        let whole = read(BodyKind::Chunked, 40, &input, &[]);
        prop_assert_eq!(read(BodyKind::Chunked, 40, &input, &pieces), whole);
    }
}
