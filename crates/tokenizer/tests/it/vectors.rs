//! Against an independent tokenizer: every case of the fixture, through both loaders.

use std::{env, fs};

use ds4_tokenizer::{Decoder, Tokenizer, pieces};
use serde_json::Value;

use crate::files::{fixture, small_from_gguf, small_from_json};

fn cases() -> Vec<Value> {
    let lines = String::from_utf8(fixture("tok_dev.jsonl")).unwrap();
    lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn ids(value: &Value) -> Option<Vec<u32>> {
    value.as_array()?.iter().map(|id| id.as_u64()?.try_into().ok()).collect()
}

/// Checks all cases; `which` is the vocabulary whose ids are expected.
fn check(tokenizer: &Tokenizer, which: &str) {
    let cases = cases();
    assert_eq!(cases.len(), 423);
    for case in &cases {
        let (id, text, expected) = (&case["id"], case["text"].as_str().unwrap(), &case[which]);
        let with_markers = ids(&expected["ids"]).unwrap();
        let plain = ids(&expected["ids_plain"]).unwrap_or_else(|| with_markers.clone());
        let decoded = expected["decode"].as_str().unwrap_or(text);
        let skipped = expected["decode_skip_special"].as_str().unwrap_or(decoded);
        assert_eq!(tokenizer.encode_with_markers(text), with_markers, "{id}");
        assert_eq!(tokenizer.encode(text), plain, "{id}");
        assert_eq!(tokenizer.decode(&with_markers), decoded, "{id}");
        assert_eq!(tokenizer.decode_skip_special(&with_markers), skipped, "{id}");
        assert_eq!(tokenizer.decode(&plain), text, "{id}");
    }
}

#[test]
fn small_tokenizer_of_a_gguf() {
    check(&small_from_gguf(), "small");
}

#[test]
fn small_tokenizer_of_a_json() {
    check(&small_from_json(), "small");
}

/// The model's own tokenizer is 6 MB that this repository does not carry. Where
/// `DS4_REAL_TOKENIZER` names its `tokenizer.json`, it is checked too.
#[test]
fn real_tokenizer_where_there_is_one() {
    let Some(path) = env::var_os("DS4_REAL_TOKENIZER") else { return };
    let tokenizer = Tokenizer::from_hf_json(&fs::read(path).unwrap(), "tokenizer.json").unwrap();
    assert_eq!(tokenizer.vocab_size(), 129_280);
    assert_eq!(tokenizer.marker("<think>"), Some(128_821));
    check(&tokenizer, "real");
}

#[test]
fn pieces_of_every_case() {
    for case in &cases() {
        let (id, text) = (&case["id"], case["text"].as_str().unwrap());
        assert_eq!(pieces(text).count() as u64, case["n_pieces"], "{id}");
        if let Some(expected) = case["pieces"].as_array() {
            assert!(pieces(text).eq(expected.iter().map(|piece| piece.as_str().unwrap())), "{id}");
        }
    }
}

#[test]
fn both_loaders_agree_on_the_table() {
    let (gguf, json) = (small_from_gguf(), small_from_json());
    assert_eq!(gguf.vocab_size(), json.vocab_size());
    assert_eq!(gguf.merge_count(), json.merge_count());
    assert_eq!((gguf.bos(), gguf.eos()), (Some(0), Some(1)));
    assert_eq!((json.bos(), json.eos()), (Some(0), Some(1)));
    for id in 0..gguf.vocab_size() as u32 {
        assert_eq!(gguf.token_bytes(id), json.token_bytes(id), "{id}");
        assert_eq!(gguf.is_marker(id), json.is_marker(id), "{id}");
        assert_eq!(gguf.is_special(id), json.is_special(id), "{id}");
    }
}

#[test]
fn a_prompt_has_the_markers_that_its_writer_put_there() {
    let tokenizer = small_from_gguf();
    let [user, assistant] = ["<｜User｜>", "<｜Assistant｜>"].map(|m| tokenizer.marker(m).unwrap());
    let text = "<｜User｜>I am <｜User｜><｜Assistant｜>";
    let spans = [0..12, text.len() - 17..text.len()];

    let mut expected = vec![user];
    expected.extend(tokenizer.encode("I am <｜User｜>"));
    expected.push(assistant);
    assert_eq!(tokenizer.encode_prompt(text, &spans).unwrap(), expected);
    assert_eq!(expected.iter().filter(|&&id| id == user).count(), 1);
    assert_eq!(tokenizer.encode_with_markers(text).iter().filter(|&&id| id == user).count(), 2);
}

#[test]
fn markers_of_a_prompt_must_be_markers() {
    let tokenizer = small_from_gguf();
    let check = |text: &str, spans: &[(usize, usize)], expected: &str| {
        let spans: Vec<_> = spans.iter().map(|&(start, end)| start..end).collect();
        let error = tokenizer.encode_prompt(text, &spans).unwrap_err();
        assert_eq!(error.to_string(), expected);
    };
    let misplaced = "out of order, or not on the text's characters";
    check("hi", &[(0, 2)], "prompt: bytes 0..2: the tokenizer has no marker `hi`");
    check("<think>", &[(0, 8)], &format!("prompt: bytes 0..8: {misplaced}"));
    check("<think>", &[(3, 1)], &format!("prompt: bytes 3..1: {misplaced}"));
    check("｜", &[(1, 3)], &format!("prompt: bytes 1..3: {misplaced}"));
    check("<think>", &[(0, 7), (0, 7)], &format!("prompt: bytes 0..7: {misplaced}"));
}

#[test]
fn a_decoder_holds_back_half_a_character() {
    let tokenizer = small_from_gguf();
    let (mut decoder, mut text) = (Decoder::new(), String::new());
    let ids = tokenizer.encode("é🙂");
    let mut seen = vec![];
    for &id in &ids {
        decoder.push(&tokenizer, id, &mut text);
        assert!(!text.contains(char::REPLACEMENT_CHARACTER));
        seen.push(text.clone());
    }
    assert_eq!(text, "é🙂");
    assert!(seen.iter().any(|text| text == "é"), "{seen:?}");

    let cut = &ids[..ids.len() - 1];
    assert_eq!(tokenizer.decode(cut), "é\u{FFFD}");
}
