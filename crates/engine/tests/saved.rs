//! Saved sessions: what was saved comes back, and nothing else is taken.

mod fake;

use std::ops::ControlFlow::Continue;

use ds4_engine::{EngineError, SavedError, SavedSession, Session, SessionOptions};
use ds4_model::{Fingerprint, Rounding};
use fake::{Behaviour, VOCAB, config, engine, fingerprint, logits_after};
use proptest::prelude::*;

const OPTIONS: SessionOptions = SessionOptions { context: 200, chunk: 16 };

fn session(rounding: Rounding, len: usize) -> Session {
    let (engine, _) = engine(Behaviour { rounding, reach: 10, ..Behaviour::default() });
    let mut session = engine.session(OPTIONS).unwrap();
    let tokens: Vec<u32> = (0..len as u32).map(|i| i * 11 % VOCAB as u32).collect();
    session.sync(&tokens, &mut |_| Continue(())).unwrap();
    session
}

fn saved(len: usize, rewind: usize) -> Vec<u8> {
    session(Rounding::Official, len).export(rewind).unwrap()
}

fn decode(bytes: &[u8]) -> Result<SavedSession, SavedError> {
    SavedSession::decode(bytes, &config(), fingerprint(), Rounding::Official)
}

/// Makes length and checksum right again after a change.
fn reseal(bytes: &mut [u8]) {
    let content = bytes.len() - 32;
    let total = bytes.len() as u64;
    bytes[16..24].copy_from_slice(&total.to_le_bytes());
    let checksum = blake3::hash(&bytes[..content]);
    bytes[content..].copy_from_slice(checksum.as_bytes());
}

#[test]
fn a_session_comes_back_and_can_still_go_back() {
    for rounding in [Rounding::Official, Rounding::Plain] {
        for len in [0, 1, 3, 4, 5, 127, 128, 131] {
            for rewind in [0, 1, 9, 1000] {
                let original = session(rounding, len);
                let bytes = original.export(rewind).unwrap();
                let mut copy = original.engine().import(&bytes, OPTIONS).unwrap();
                assert_eq!(copy.tokens(), original.tokens());
                assert_eq!(copy.logits(), original.logits());
                assert!(copy.export(rewind).unwrap() == bytes, "{rounding:?} {len} {rewind}");
                // The last kept position is evaluated again for its logits: one less to go back.
                let back = rewind.min(len).min(10).saturating_sub(1);
                let gone = copy.truncate(len - back).unwrap();
                assert_eq!(gone.rebuilt, usize::from(back > 0));
                if len > 0 {
                    assert_eq!(
                        copy.logits().unwrap(),
                        logits_after(&original.tokens()[..len - back])
                    );
                }
            }
        }
    }
}

#[test]
fn every_shorter_input_is_refused_by_length() {
    let bytes = saved(9, 2);
    for len in 1..bytes.len() {
        let SavedError::Length { found, wanted } = decode(&bytes[..len]).unwrap_err() else {
            panic!("{len} bytes: not refused by length");
        };
        assert_eq!(found, len as u64);
        assert!(wanted > found);
    }
    assert_eq!(decode(&[]), Err(SavedError::NotASession));
    let longer = [&bytes[..], b"x"].concat();
    let message =
        format!("saved session is {} bytes long and should be {}", longer.len(), bytes.len());
    assert_eq!(decode(&longer).unwrap_err().to_string(), message);
}

#[test]
fn every_flipped_bit_is_found() {
    let bytes = saved(9, 2);
    for at in 0..bytes.len() {
        for bit in 0..8 {
            let mut damaged = bytes.clone();
            damaged[at] ^= 1 << bit;
            let error = decode(&damaged).unwrap_err();
            let expected = match at {
                0..8 => error == SavedError::NotASession,
                8..12 => matches!(error, SavedError::Version { .. }),
                16..24 => matches!(error, SavedError::Length { .. }),
                _ => error == SavedError::Checksum,
            };
            assert!(expected, "bit {bit} of byte {at}: {error}");
        }
    }
}

#[test]
fn other_things_are_refused_by_what_they_are() {
    let bytes = saved(9, 2);
    let refusal = |bytes: &[u8], model, rounding| {
        SavedSession::decode(bytes, &config(), model, rounding).unwrap_err().to_string()
    };
    let check = |bytes: &[u8], message: &str| {
        assert_eq!(refusal(bytes, fingerprint(), Rounding::Official), message);
    };
    check(b"GGUF\x03\0\0\0", "not a saved session: it does not begin with DS4STATE");
    let mut newer = bytes.clone();
    newer[8] = 2;
    check(&newer, "saved session of version 2; this program takes version 1 only");
    let mut damaged = bytes.clone();
    damaged[200] ^= 1;
    check(&damaged, "saved session is damaged: its checksum does not match");
    assert_eq!(
        refusal(&bytes, Fingerprint([9; 32]), Rounding::Official),
        "saved session belongs to model 0707070707070707, the model loaded is 0909090909090909"
    );
    assert_eq!(
        refusal(&bytes, fingerprint(), Rounding::Plain),
        "saved session is of the official rounding, the model runs in the plain one"
    );
}

#[test]
fn a_session_longer_than_the_context_is_refused() {
    let session = session(Rounding::Official, 9);
    let bytes = session.export(0).unwrap();
    let import = |context| session.engine().import(&bytes, SessionOptions { context, ..OPTIONS });
    let error = import(8).unwrap_err();
    assert!(matches!(error, EngineError::ContextFull { wanted: 9, context: 8 }), "{error}");
    import(9).unwrap();
    let error = session.engine().import(&bytes[1..], OPTIONS).unwrap_err();
    assert!(matches!(error, EngineError::Saved(SavedError::NotASession)), "{error}");
}

/// What a lie in the content is told, when length and checksum were made right for it.
fn check_lie(lie: impl FnOnce(&mut Vec<u8>), message: &str) {
    let mut bytes = saved(9, 2);
    lie(&mut bytes);
    reseal(&mut bytes);
    assert_eq!(decode(&bytes).unwrap_err().to_string(), message);
}

fn put_u64(at: usize, value: u64) -> impl FnOnce(&mut Vec<u8>) {
    move |bytes| bytes[at..at + 8].copy_from_slice(&value.to_le_bytes())
}

fn put_u32(at: usize, value: u32) -> impl FnOnce(&mut Vec<u8>) {
    move |bytes| bytes[at..at + 4].copy_from_slice(&value.to_le_bytes())
}

#[test]
fn counts_that_lie_are_refused_before_they_are_believed() {
    // 9 tokens from byte 80, 50 logits from 116, the first layer from 316.
    let room = (saved(9, 2).len() - 32) / 4;
    let invalid =
        |at: usize, reason: &str| format!("saved session is invalid at byte {at}: {reason}");
    check_lie(put_u32(12, 2), &invalid(12, "no rounding has the number 2"));
    for huge in [u64::MAX, 1 << 40, room as u64 + 1] {
        let reason = format!("{huge} tokens, there is room for {room} at most");
        check_lie(put_u64(56, huge), &invalid(56, &reason));
        check_lie(put_u64(64, huge), &invalid(64, &reason));
    }
    check_lie(put_u64(64, 10), &invalid(64, "9 tokens cannot be rewound by 10"));
    check_lie(put_u32(72, u32::MAX), &invalid(72, "it has 4294967295 layers, the model 3"));
    check_lie(
        put_u32(76, u32::MAX),
        &invalid(76, "4294967295 logits after 9 tokens, of a vocabulary of 50"),
    );
    check_lie(put_u32(76, 49), &invalid(76, "49 logits after 9 tokens, of a vocabulary of 50"));
    check_lie(put_u32(84, 50), &invalid(84, "token id 50, the vocabulary has 50"));
    // 6 rows of 16 bytes.
    check_lie(
        put_u64(316, u64::MAX),
        &invalid(316, "layer 0: 18446744073709551615 bytes of window rows, 96 wanted"),
    );
    check_lie(put_u64(316, 95), &invalid(316, "layer 0: 95 bytes of window rows, 96 wanted"));
    check_lie(put_u64(420, 16), &invalid(420, "layer 0: 16 bytes of compressed rows, 0 wanted"));
    // One row less can be taken back, so one window row less would do.
    check_lie(put_u64(64, 1), &invalid(316, "layer 0: 96 bytes of window rows, 80 wanted"));
    check_lie(
        |bytes| bytes.extend([0; 5]),
        &invalid(saved(9, 2).len() - 32, "5 bytes after the last layer"),
    );
    check_lie(
        |bytes| bytes.truncate(bytes.len() - 8),
        &invalid(saved(9, 2).len() - 40, "8 bytes are needed and 0 are left"),
    );
}

#[test]
fn a_state_without_tokens_has_no_logits() {
    let mut bytes = saved(0, 0);
    put_u32(76, VOCAB as u32)(&mut bytes);
    bytes.splice(80..80, [0; 4 * VOCAB]);
    reseal(&mut bytes);
    let message =
        "saved session is invalid at byte 76: 50 logits after 0 tokens, of a vocabulary of 50";
    assert_eq!(decode(&bytes).unwrap_err().to_string(), message);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn arbitrary_bytes_are_refused(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        decode(&bytes).unwrap_err();
        let mut magic = b"DS4STATE\x01\0\0\0".to_vec();
        magic.extend(&bytes);
        decode(&magic).unwrap_err();
        if magic.len() >= 80 {
            magic.extend([0; 32]);
            reseal(&mut magic);
            decode(&magic).unwrap_err();
        }
    }

    /// Whoever can make checksums still gets only sessions through that can be saved again as they
    /// came.
    #[test]
    fn sealed_changes_are_refused_or_make_another_valid_session(
        len in 0usize..140,
        rewind in 0usize..10,
        edits in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
        cut in prop_oneof![3 => Just(None), 1 => any::<prop::sample::Index>().prop_map(Some)],
    ) {
        let mut bytes = saved(len, rewind);
        if let Some(cut) = cut {
            bytes.truncate(112 + cut.index(bytes.len() - 111));
        }
        for (at, value) in edits {
            // Half of the edits hit the header.
            let end = if value % 2 == 0 { 80 } else { bytes.len() };
            let at = at.index(end);
            bytes[at] = value;
        }
        reseal(&mut bytes);
        if let Ok(session) = decode(&bytes) {
            prop_assert_eq!(session.state.len, session.tokens.len());
            prop_assert!(session.state.rewind <= session.state.len);
            prop_assert_eq!(session.encode(fingerprint()), bytes);
        }
    }
}
