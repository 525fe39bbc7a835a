//! Files that lie: each is refused in one line that says where, or tolerated as documented.

use ds4_gguf::Gguf;
use ds4_host::Region;
use ds4_tokenizer::{Error, Tokenizer};
use proptest::prelude::*;
use serde_json::{Value, json};

use crate::files::{CONTROL, Miniature, NORMAL, USER_DEFINED, fixture};

fn check_error(loaded: Result<Tokenizer, Error>, expected: &str) {
    let message = loaded.unwrap_err().to_string();
    assert!(message.starts_with(expected), "{message}\nexpected {expected}");
    assert!(!message.contains('\n') && message.len() < 400, "{message}");
}

fn gguf_refused(edit: impl FnOnce(&mut Miniature), expected: &str) {
    let mut file = Miniature::new();
    edit(&mut file);
    check_error(file.load(), expected);
}

#[test]
fn a_miniature_loads_without_most_markers() {
    let tokenizer = Miniature::new().load().unwrap();
    assert_eq!(tokenizer.vocab_size(), 259);
    assert_eq!((tokenizer.bos(), tokenizer.eos()), (Some(257), None));
    assert_eq!(tokenizer.marker("<think>"), Some(258));
    assert_eq!(tokenizer.marker("</think>"), None);
    assert_eq!(tokenizer.token_bytes(259), None);
    assert_eq!(tokenizer.encode("the"), [256, u32::from(b'e')]);
    assert_eq!(tokenizer.decode(&[256, 9999, u32::from(b'e')]), "the");
}

#[test]
fn both_names_of_the_split_are_known() {
    let deepseek = Miniature { split: Some("deepseek-v3"), ..Miniature::new() };
    assert!(deepseek.load().is_ok());
}

#[test]
fn other_tokenizers_are_refused_by_name() {
    gguf_refused(
        |file| file.model = Some("llama"),
        "mini.gguf: tokenizer.ggml.model: `llama` is not supported, only gpt2",
    );
    gguf_refused(
        |file| file.split = Some("qwen\n2"),
        "mini.gguf: tokenizer.ggml.pre: `qwen\\n2` is not supported, only joyai-llm or deepseek-v3",
    );
    gguf_refused(|file| file.split = None, "mini.gguf: key `tokenizer.ggml.pre`: is missing");
}

#[test]
fn tables_that_do_not_fit_together_are_refused() {
    gguf_refused(
        |file| file.types.truncate(9),
        "mini.gguf: tokenizer.ggml.token_type: 9 entries for 259 tokens",
    );
    gguf_refused(
        |file| file.types[3] = -1,
        "mini.gguf: key `tokenizer.ggml.token_type`: element 3 must be a non-negative integer",
    );
    gguf_refused(
        |file| file.bos = Some(259),
        "mini.gguf: tokenizer.ggml.bos_token_id: 259 is no token: there are 259",
    );
    gguf_refused(
        |file| file.tokens[0x20] = "blank".to_owned(),
        "mini.gguf: tokenizer.ggml.tokens: no token for byte 0x20, spelled `Ġ`",
    );
    gguf_refused(
        |file| file.merges.push("th".to_owned()),
        "mini.gguf: tokenizer.ggml.merges[1]: `th` is not two tokens and a space",
    );
}

#[test]
fn merges_without_their_tokens_are_passed_over() {
    let mut file = Miniature::new();
    file.merges.extend(["x y", "xy z", "t h e"].map(str::to_owned));
    let tokenizer = file.load().unwrap();
    assert_eq!((tokenizer.merge_count(), tokenizer.merges_passed_over()), (1, 3));
    assert_eq!(tokenizer.encode("xy"), [u32::from(b'x'), u32::from(b'y')]);
}

#[test]
fn merges_cannot_lead_to_a_marker() {
    let mut file = Miniature::new();
    file.push("<t", CONTROL);
    file.merges.push("< t".to_owned());
    let tokenizer = file.load().unwrap();
    assert_eq!(tokenizer.encode("<t"), [u32::from(b'<'), u32::from(b't')]);
    assert_eq!(tokenizer.encode_with_markers("<t"), [259]);
}

#[test]
fn doubles_are_tolerated() {
    let mut file = Miniature::new();
    file.push("th", NORMAL);
    file.push("<think>", USER_DEFINED);
    file.push("", CONTROL);
    file.merges.push("t h".to_owned());
    let tokenizer = file.load().unwrap();
    assert_eq!(tokenizer.encode("th"), [256]);
    assert_eq!(tokenizer.encode_with_markers("<think>"), [258]);
    assert_eq!(tokenizer.decode(&[259, 260, 261]), "th<think>");
}

fn json_refused(edit: impl FnOnce(&mut Value), expected: &str) {
    let mut file: Value = serde_json::from_slice(&fixture("small_tokenizer.json")).unwrap();
    edit(&mut file);
    check_error(Tokenizer::from_hf_json(file.to_string().as_bytes(), "t.json"), expected);
}

#[test]
fn merges_may_be_pairs() {
    let mut file: Value = serde_json::from_slice(&fixture("small_tokenizer.json")).unwrap();
    for merge in file["model"]["merges"].as_array_mut().unwrap() {
        *merge = merge.as_str().unwrap().split(' ').collect();
    }
    let pairs = Tokenizer::from_hf_json(file.to_string().as_bytes(), "t.json").unwrap();
    let text = "Merges are written in two ways.";
    assert_eq!(pairs.encode(text), crate::files::small_from_json().encode(text));
}

#[test]
fn another_pre_tokenizer_is_refused() {
    let stages = |file: &mut Value| file["pre_tokenizer"]["pretokenizers"].take();
    json_refused(
        |file| file["pre_tokenizer"]["pretokenizers"][0]["pattern"]["Regex"] = json!("\\p{N}"),
        "t.json: pre_tokenizer.pretokenizers[0]: is `{",
    );
    json_refused(
        |file| file["pre_tokenizer"]["pretokenizers"][3]["add_prefix_space"] = json!(true),
        "t.json: pre_tokenizer.pretokenizers[3]: is `{",
    );
    json_refused(
        |file| {
            let mut more = stages(file);
            more.as_array_mut().unwrap().push(json!({ "type": "Digits" }));
            file["pre_tokenizer"]["pretokenizers"] = more;
        },
        "t.json: pre_tokenizer: more than the 4 stages of the official split",
    );
    json_refused(
        |file| file["pre_tokenizer"] = Value::Null,
        "t.json: pre_tokenizer.pretokenizers[0]: is `null`, not the official split",
    );
}

#[test]
fn whatever_else_would_change_the_tokens_is_refused() {
    let nfc = json!({ "type": "NFC" });
    json_refused(|file| file["normalizer"] = nfc, "t.json: normalizer: `{\"type\":\"NFC\"}`");
    json_refused(|file| file["decoder"] = Value::Null, "t.json: decoder: `null` is not supported");
    for (field, value, shown) in [
        ("type", json!("Unigram"), "Unigram"),
        ("dropout", json!(0.1), "0.1"),
        ("byte_fallback", json!(true), "true"),
        ("ignore_merges", json!(true), "true"),
        ("continuing_subword_prefix", json!("##"), "##"),
        ("end_of_word_suffix", json!("</w>"), "</w>"),
    ] {
        let expected = format!("t.json: model.{field}: `{shown}` is not supported");
        json_refused(|file| file["model"][field] = value, &expected);
    }
    json_refused(
        |file| file["added_tokens"][4]["lstrip"] = json!(true),
        "t.json: added_tokens[4]: single_word, lstrip and rstrip are not supported",
    );
}

#[test]
fn broken_json_is_refused() {
    json_refused(|file| file["model"] = json!({}), "t.json: JSON: missing field `type` at line 1");
    json_refused(
        |file| file["model"]["vocab"]["the"] = json!(-1),
        "t.json: JSON: invalid value: integer `-1`, expected u32 at line 1",
    );
    json_refused(
        |file| file["model"]["merges"][0] = json!(7),
        "t.json: JSON: a merge must be \"left right\" or [\"left\", \"right\"] at line 1",
    );
    json_refused(
        |file| file["model"]["vocab"]["zzz"] = json!(4_000_000_000u32),
        "t.json: token `zzz`: id 4000000000 is too high for a table of 3079 tokens",
    );
    json_refused(
        |file| file["added_tokens"][5]["id"] = json!(3),
        "t.json: token `<｜place▁holder▁no▁2｜>`: id 3 is also that of `!`",
    );
    json_refused(
        |file| drop(file["model"]["vocab"].as_object_mut().unwrap().remove("se")),
        "t.json: model.merges: 27 of them need or make what is no text token",
    );
    check_error(Tokenizer::from_hf_json(b"[", "t.json"), "t.json: JSON: ");
    check_error(Tokenizer::from_hf_json(&b"[".repeat(100_000), "t.json"), "t.json: JSON: ");
}

/// Loads damaged bytes; whatever loads must work.
fn survive(loaded: Result<Tokenizer, Error>) {
    if let Ok(tokenizer) = loaded {
        let ids = tokenizer.encode_with_markers("<think>The quick 中文 123</think>");
        assert_eq!(tokenizer.decode(&ids), "<think>The quick 中文 123</think>");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn damaged_files_do_not_panic(
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
        cut in any::<Option<prop::sample::Index>>(),
    ) {
        let harm = |name: &str| {
            let mut bytes = fixture(name);
            for (at, byte) in &damage {
                let at = at.index(bytes.len());
                bytes[at] = *byte;
            }
            if let Some(cut) = &cut {
                bytes.truncate(cut.index(bytes.len()));
            }
            bytes
        };
        let region = Region::from_vec(harm("small_tokenizer.gguf"));
        if let Ok(gguf) = Gguf::from_region(region, "damaged.gguf") {
            survive(Tokenizer::from_gguf(&gguf));
        }
        survive(Tokenizer::from_hf_json(&harm("small_tokenizer.json"), "damaged.json"));
    }
}
