//! Properties: any split of any stream says the same, nothing panics, the fast paths agree with
//! their definitions.

use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::sample::Index;

use super::super::client::write_masked;
use super::super::frame::{head_len, unmask};
use super::super::*;
use super::{KEY, MAX, Said, read, read_whole};

/// A message in fragments, each with the control frame that comes before it.
type Fragments = Vec<(Vec<u8>, Option<Said>)>;

fn control() -> impl Strategy<Value = Said> {
    let payload = || vec(any::<u8>(), 0..=125);
    prop_oneof![payload().prop_map(Said::Ping), payload().prop_map(Said::Pong)]
}

/// A message and a way to cut it.
fn message() -> impl Strategy<Value = (bool, Fragments)> {
    let bytes = prop_oneof![
        ".{0,60}".prop_map(|text| (true, text.into_bytes())),
        vec(any::<u8>(), 0..300).prop_map(|bytes| (false, bytes)),
    ];
    let cuts = vec((any::<Index>(), option::of(control())), 1..4);
    (bytes, cuts).prop_map(|((is_text, bytes), cuts)| {
        let mut rest = &bytes[..];
        let (last, cuts) = cuts.split_last().unwrap();
        let mut fragments = Vec::new();
        for (cut, control) in cuts {
            let (fragment, tail) = rest.split_at(cut.index(rest.len() + 1));
            fragments.push((fragment.to_vec(), control.clone()));
            rest = tail;
        }
        fragments.push((rest.to_vec(), last.1.clone()));
        (is_text, fragments)
    })
}

/// The bytes a client sends for these messages, and what they say.
fn stream(messages: &[(bool, Fragments)], key: [u8; 4]) -> (Vec<u8>, Vec<Said>) {
    let (mut bytes, mut said) = (Vec::new(), Vec::new());
    for (is_text, fragments) in messages {
        let mut opcode = if *is_text { Opcode::Text } else { Opcode::Binary };
        for (index, (fragment, control)) in fragments.iter().enumerate() {
            match control {
                Some(Said::Ping(payload)) => {
                    write_masked(&mut bytes, Opcode::Ping, true, key, payload)
                }
                Some(Said::Pong(payload)) => {
                    write_masked(&mut bytes, Opcode::Pong, true, key, payload)
                }
                _ => {}
            }
            said.extend(control.clone());
            write_masked(&mut bytes, opcode, index + 1 == fragments.len(), key, fragment);
            opcode = Opcode::Continuation;
        }
        let whole: Vec<u8> = fragments.iter().flat_map(|(fragment, _)| fragment.clone()).collect();
        said.push(match is_text {
            true => Said::Text(String::from_utf8(whole).unwrap()),
            false => Said::Binary(whole),
        });
    }
    (bytes, said)
}

/// Cuts `bytes` into chunks of these lengths, over and over.
fn chunks<'b>(mut bytes: &'b [u8], lens: &'b [usize]) -> Vec<&'b [u8]> {
    let mut chunks = Vec::new();
    for &len in lens.iter().cycle() {
        let (chunk, tail) = bytes.split_at(len.min(bytes.len()));
        chunks.push(chunk);
        bytes = tail;
        if bytes.is_empty() {
            break;
        }
    }
    chunks
}

proptest! {
    #[test]
    fn unmask_agrees_with_the_definition(
        bytes in vec(any::<u8>(), 0..300),
        skip in 0usize..16,
        key: [u8; 4],
        offset in prop_oneof![0usize..9, Just(usize::MAX)],
    ) {
        let mut fast = bytes.clone();
        let skip = skip.min(bytes.len());
        unmask(&mut fast[skip..], key, offset);
        let mut naive = bytes;
        for (index, byte) in naive[skip..].iter_mut().enumerate() {
            *byte ^= key[(offset % 4 + index) % 4];
        }
        prop_assert_eq!(fast, naive);
    }

    #[test]
    fn any_split_of_a_stream_says_the_same(
        messages in vec(message(), 1..5),
        key: [u8; 4],
        lens in vec(1usize..40, 1..8),
    ) {
        let (bytes, said) = stream(&messages, key);
        prop_assert_eq!(read_whole(&bytes), (said.clone(), None));
        let split = read(&mut Decoder::server(), chunks(&bytes, &lens), MAX);
        prop_assert_eq!(split, (said, None));
    }

    #[test]
    fn damaged_streams_fail_alike_however_split(
        messages in vec(message(), 1..4),
        damage in vec((any::<Index>(), any::<u8>()), 1..4),
        lens in vec(1usize..40, 1..8),
    ) {
        let (mut bytes, _) = stream(&messages, KEY);
        for (index, byte) in damage {
            *index.get_mut(&mut bytes) = byte;
        }
        let split = read(&mut Decoder::server(), chunks(&bytes, &lens), 400);
        prop_assert_eq!(read(&mut Decoder::server(), [&bytes[..]], 400), split);
    }

    #[test]
    fn arbitrary_bytes_never_panic(bytes in vec(any::<u8>(), 0..200), max in 0usize..100) {
        for mut decoder in [Decoder::server(), Decoder::client()] {
            read(&mut decoder, [&bytes[..]], max);
            read(&mut decoder, bytes.chunks(3), max);
        }
        let walked: usize = frames(&bytes).map(|frame| frame.len).sum();
        prop_assert!(walked <= bytes.len());
    }

    #[test]
    fn whole_frames_are_walked(
        payload_lens in vec(prop_oneof![0usize..200, 65530usize..65540], 0..6),
        cut in 0usize..3,
    ) {
        let mut bytes = Vec::new();
        for &len in &payload_lens {
            push_head(&mut bytes, true, Opcode::Binary, len);
            bytes.resize(bytes.len() + len, 9);
        }
        let whole = payload_lens.len().saturating_sub(usize::from(cut > 0));
        bytes.truncate(bytes.len().saturating_sub(cut));
        let walked: Vec<_> = frames(&bytes).map(|frame| {
            assert_eq!((frame.opcode, frame.fin), (Opcode::Binary, true));
            assert_eq!(frame.len, head_len(frame.payload.len()) + frame.payload.len());
            frame.payload.len()
        }).collect();
        prop_assert_eq!(&walked[..], &payload_lens[..whole]);
    }
}
