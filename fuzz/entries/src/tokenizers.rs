//! Tokenizers: a file that loads makes tokens that spell the text again, and text never becomes a
//! marker.

use std::{io::Read, ops::Range, sync::OnceLock};

use ds4_gguf::{Gguf, GgufWriter};
use ds4_host::Region;
use ds4_tokenizer::{Decoder, Tokenizer, pieces};
use flate2::read::GzDecoder;
use serde_json::{Value, json};

use crate::refusal::accepted;

const SAMPLE: &str = "the  thé 日本 ｜DSML｜<think>12345\r\n\t</think>\u{1f600}\u{301}<｜User｜>";
const MARKERS: [&str; 5] = ["<think>", "</think>", "｜DSML｜", "<｜User｜>", "<｜Assistant｜>"];
const PACKED: &[u8] = include_bytes!("../../../fixtures/encoding/small_tokenizer.gguf.gz");

/// The tokenizer of a GGUF, or a `tokenizer.json`.
pub fn file(data: &[u8]) -> bool {
    let tokenizer = if data.starts_with(b"GGUF") {
        let gguf = Gguf::from_region(Region::from_vec(data.to_vec()), "fuzz.gguf");
        accepted(gguf).and_then(|gguf| accepted(Tokenizer::from_gguf(&gguf)))
    } else {
        accepted(Tokenizer::from_hf_json(data, "tokenizer.json"))
    };
    tokenizer.map(|tokenizer| spell(&tokenizer, SAMPLE)).is_some()
}

/// Text for the small tokenizer. The first byte says which of the markers in it are meant.
pub fn text(data: &[u8]) -> bool {
    static SMALL: OnceLock<Tokenizer> = OnceLock::new();
    let tokenizer = SMALL.get_or_init(|| {
        let mut bytes = Vec::new();
        GzDecoder::new(PACKED).read_to_end(&mut bytes).expect("the fixture unpacks");
        let gguf = Gguf::from_region(Region::from_vec(bytes), "small").expect("a GGUF");
        Tokenizer::from_gguf(&gguf).expect("a tokenizer")
    });
    let Some((&meant, text)) = data.split_first() else { return false };
    let text = String::from_utf8_lossy(text);
    spell(tokenizer, &text);

    let found = markers_in(&text);
    let specials: Vec<Range<usize>> = found
        .into_iter()
        .enumerate()
        .filter(|(i, _)| meant >> (i % 8) & 1 == 1)
        .map(|(_, range)| range)
        .collect();
    let ids = tokenizer.encode_prompt(&text, &specials).expect("markers that it has");
    let markers: Vec<u32> = ids.iter().copied().filter(|&id| tokenizer.is_marker(id)).collect();
    let meant: Vec<Option<u32>> =
        specials.iter().map(|range| tokenizer.marker(&text[range.clone()])).collect();
    assert!(markers.iter().map(|&id| Some(id)).eq(meant), "markers that were not meant");
    assert_eq!(tokenizer.decode(&ids), text);
    true
}

fn markers_in(text: &str) -> Vec<Range<usize>> {
    let mut found = Vec::new();
    let mut at = 0;
    while let Some(rest) = text.get(at..).filter(|rest| !rest.is_empty()) {
        match MARKERS.iter().find(|marker| rest.starts_with(**marker)) {
            Some(marker) => {
                found.push(at..at + marker.len());
                at += marker.len();
            }
            None => at += rest.chars().next().map_or(1, char::len_utf8),
        }
    }
    found
}

fn spell(tokenizer: &Tokenizer, text: &str) {
    assert_eq!(pieces(text).collect::<String>(), text);
    let ids = tokenizer.encode(text);
    assert!(ids.iter().all(|&id| (id as usize) < tokenizer.vocab_size()));
    assert!(!ids.iter().any(|&id| tokenizer.is_marker(id)), "text became a marker");
    assert_eq!(tokenizer.decode(&ids), text);
    assert_eq!(tokenizer.decode(&tokenizer.encode_with_markers(text)), text);

    let (mut decoder, mut streamed) = (Decoder::skipping_special(), String::new());
    for &id in &ids {
        decoder.push(tokenizer, id, &mut streamed);
        assert!(text.starts_with(&streamed), "{streamed:?} was given out of {text:?}");
    }
    assert_eq!(streamed, text);
}

pub fn file_seeds() -> Vec<Vec<u8>> {
    let mut seeds = json_seeds();
    seeds.push(gguf_seed());
    seeds
}

fn json_seeds() -> Vec<Vec<u8>> {
    let mut vocab: serde_json::Map<String, Value> =
        byte_spellings().into_iter().zip(0..256).map(|(token, id)| (token, json!(id))).collect();
    vocab.insert("th".into(), json!(256));
    vocab.insert("the".into(), json!(257));
    let stages: Vec<Value> = SPLIT
        .iter()
        .map(|pattern| {
            let pattern = json!({ "Regex": pattern });
            json!({ "type": "Split", "pattern": pattern, "behavior": "Isolated", "invert": false })
        })
        .chain([json!({ "type": "ByteLevel", "add_prefix_space": false, "use_regex": false })])
        .collect();
    let marker = |id: u32, content: &str, special: bool, normalized: bool| {
        json!({ "id": id, "content": content, "special": special, "normalized": normalized,
                "single_word": false, "lstrip": false, "rstrip": false })
    };
    let file = |merges: Value, added: &[Value]| {
        let model = json!({ "type": "BPE", "vocab": vocab, "merges": merges });
        let file = json!({
            "added_tokens": added,
            "pre_tokenizer": { "type": "Sequence", "pretokenizers": stages },
            "decoder": { "type": "ByteLevel" },
            "model": model,
        });
        file.to_string().into_bytes()
    };
    let added =
        [marker(258, "<｜begin▁of▁sentence｜>", true, false), marker(259, "<think>", false, true)];
    vec![file(json!(["t h", "th e"]), &added), file(json!([["t", "h"], ["th", "e"]]), &[])]
}

/// The patterns of the official split, which a `tokenizer.json` states.
const SPLIT: [&str; 3] = [
    r"\p{N}{1,3}",
    "[一-龥぀-ゟ゠-ヿ]+",
    "[!\"#$%&'()*+,\\-./:;<=>?@\\[\\\\\\]^_`{|}~][A-Za-z]+|[^\r\n\\p{L}\\p{P}\\p{S}]?[\\p{L}\\p{M}]+| ?[\\p{P}\\p{S}]+[\r\n]*|\\s*[\r\n]+|\\s+(?!\\S)|\\s+",
];

/// How a byte-level vocabulary spells each byte: those that print stand for themselves, the others
/// follow from U+0100 on.
fn byte_spellings() -> Vec<String> {
    let prints = |byte: u8| matches!(byte, b'!'..=b'~' | 0xa1..=0xac | 0xae..=0xff);
    let mut next = 0x100;
    let spelling = |byte: u8| {
        if prints(byte) {
            return String::from(char::from(byte));
        }
        next += 1;
        char::from_u32(next - 1).map(String::from).expect("a character")
    };
    (0..=255).map(spelling).collect()
}

fn gguf_seed() -> Vec<u8> {
    let mut tokens = byte_spellings();
    tokens.extend(["th", "the", "<｜begin▁of▁sentence｜>", "<think>"].map(str::to_owned));
    let types: Vec<i32> = (0..tokens.len())
        .map(|id| match id {
            258 => 3,
            259 => 4,
            _ => 1,
        })
        .collect();
    let mut writer = GgufWriter::new("seed");
    writer.put("tokenizer.ggml.model", "gpt2");
    writer.put("tokenizer.ggml.pre", "joyai-llm");
    writer.put_array("tokenizer.ggml.tokens", tokens.iter().map(String::as_str));
    writer.put_array("tokenizer.ggml.token_type", types);
    writer.put_array("tokenizer.ggml.merges", ["t h", "th e"]);
    writer.put("tokenizer.ggml.bos_token_id", 258u32);
    let file = writer.begin(Vec::new()).and_then(|stream| stream.finish());
    file.expect("a file")
}

pub fn text_seeds() -> Vec<Vec<u8>> {
    let plain =
        "\u{7}Hello, wörld! I'm 1234 years old.\r\n\r\n  fn main() { 東京タワー }\t\u{1f600}";
    vec![[&[0x55], SAMPLE.as_bytes()].concat(), plain.as_bytes().to_vec()]
}
