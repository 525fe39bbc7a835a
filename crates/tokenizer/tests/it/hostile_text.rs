//! Any text encodes, decodes to itself, never becomes a marker, and takes time by its length only.

use std::{
    sync::LazyLock,
    time::{Duration, Instant},
};

use ds4_tokenizer::{Decoder, Tokenizer, pieces};
use proptest::prelude::*;

use crate::files::small_from_gguf;

static SMALL: LazyLock<Tokenizer> = LazyLock::new(small_from_gguf);

/// Text in which the things that the split looks at meet often.
fn text() -> impl Strategy<Value = String> {
    let part = prop_oneof![
        3 => "[a-c \n\r\t0-9.!é中カ・\u{301}\u{A0}\u{1}—🙂²]{1,6}",
        1 => any::<String>(),
        1 => Just("<｜User｜>".to_owned()),
        1 => Just("<think>".to_owned()),
        1 => Just("｜DSML｜".to_owned()),
    ];
    prop::collection::vec(part, 0..8).prop_map(|parts| parts.concat())
}

proptest! {
    #[test]
    fn pieces_make_up_the_text(text in text()) {
        prop_assert!(pieces(&text).all(|piece| !piece.is_empty()));
        prop_assert_eq!(pieces(&text).collect::<String>(), text);
    }

    #[test]
    fn text_survives_and_never_becomes_a_marker(text in text()) {
        let ids = SMALL.encode(&text);
        prop_assert!(ids.iter().all(|&id| !SMALL.is_marker(id)));
        prop_assert_eq!(SMALL.decode(&ids), text.as_str());
        prop_assert_eq!(SMALL.decode(&SMALL.encode_with_markers(&text)), text);
    }

    #[test]
    fn tokens_one_by_one_are_the_text_at_once(ids in prop::collection::vec(0..3100u32, 0..40)) {
        let bytes: Vec<u8> =
            ids.iter().flat_map(|&id| SMALL.token_bytes(id).unwrap_or_default()).copied().collect();
        let (mut decoder, mut text) = (Decoder::new(), String::new());
        for &id in &ids {
            decoder.push(&SMALL, id, &mut text);
        }
        decoder.finish(&mut text);
        prop_assert_eq!(&text, &String::from_utf8_lossy(&bytes));
        prop_assert_eq!(SMALL.decode(&ids), text);
    }
}

/// Each text is one that some shortcut would take quadratic time for: at 200 KB that is minutes,
/// where linear time is a fraction of a second.
#[test]
fn no_text_is_slow() {
    let repeated = [
        "a", "ab", "e\u{301}", "\u{301}", " ", "\n", "\n ", " \n", "\t ", "1", "²", "!", " !",
        "。", "中", "中文", "カ・", "<", "<think", "<｜", "\u{1}", "\u{1} ", "🙂", "\u{A0}", "a ",
        "Ã",
    ];
    for unit in repeated {
        for ending in ["", "x", "!", "\n", "1", "中"] {
            let text = unit.repeat(200_000 / unit.len()) + ending;
            let start = Instant::now();
            let ids = SMALL.encode_with_markers(&text);
            assert_eq!(SMALL.decode(&ids), text);
            assert!(start.elapsed() < Duration::from_secs(5), "{unit:?} then {ending:?}");
        }
    }
}
