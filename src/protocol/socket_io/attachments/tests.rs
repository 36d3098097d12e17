use super::*;

const BYTES_MAX: usize = 100;

fn bytes(text: &'static str) -> Bytes {
    Bytes::from_static(text.as_bytes())
}

#[test]
fn a_packet_is_complete_with_its_last_attachment() {
    let mut assembler = Assembler::default();
    assert_eq!(assembler.start(b"52-".to_vec(), 2, BYTES_MAX), Ok(None));
    assert!(assembler.is_pending());
    assert_eq!(assembler.add(bytes("a")), Ok(None));
    assert!(assembler.is_pending());
    let complete = Complete { text: b"52-".to_vec(), attachments: vec![bytes("a"), bytes("b")] };
    assert_eq!(assembler.add(bytes("b")), Ok(Some(complete)));
    assert!(!assembler.is_pending());
    assert_eq!(assembler.start(b"51-".to_vec(), 1, BYTES_MAX), Ok(None));
}

#[test]
fn a_packet_without_attachments_is_complete_at_once() {
    let mut assembler = Assembler::default();
    let complete = Complete { text: b"50-".to_vec(), attachments: Vec::new() };
    assert_eq!(assembler.start(b"50-".to_vec(), 0, BYTES_MAX), Ok(Some(complete)));
    assert!(!assembler.is_pending());
    assert_eq!(assembler.expect_text(), Ok(()));
}

#[test]
fn text_and_binary_out_of_turn_are_refused() {
    let mut assembler = Assembler::default();
    assert_eq!(assembler.add(bytes("a")), Err(AssemblyError::BinaryWhileIdle));
    assert_eq!(assembler.start(b"51-".to_vec(), 1, BYTES_MAX), Ok(None));
    assert_eq!(assembler.expect_text(), Err(AssemblyError::TextWhilePending));
    let second = assembler.start(b"51-".to_vec(), 1, BYTES_MAX);
    assert_eq!(second, Err(AssemblyError::TextWhilePending));
}

#[test]
fn text_and_attachments_share_one_bound() {
    let too_large = AssemblyError::TooLarge { max: 5 };
    let mut assembler = Assembler::default();
    assert_eq!(assembler.start(b"51-[\"a\"]".to_vec(), 1, 5), Err(too_large));
    assert_eq!(assembler.start(b"52-".to_vec(), 2, 5), Ok(None));
    assert_eq!(assembler.add(bytes("ab")), Ok(None));
    assert_eq!(assembler.add(bytes("c")), Err(too_large));
}

#[test]
fn an_idle_assembler_is_one_pointer() {
    assert_eq!(size_of::<Assembler>(), size_of::<usize>());
}
