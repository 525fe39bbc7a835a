//! Tokenizer files for the tests: the trained small one, and miniatures built in place.

use std::{fs, io::Read};

use ds4_gguf::{Gguf, GgufWriter};
use ds4_host::Region;
use ds4_tokenizer::{Error, Tokenizer};

/// Unpacks a file of the repository's `fixtures/encoding`.
pub fn fixture(name: &str) -> Vec<u8> {
    let path = format!("{}/../../fixtures/encoding/{name}.gz", env!("CARGO_MANIFEST_DIR"));
    let packed = fs::read(&path).unwrap_or_else(|error| panic!("{path}: {error}"));
    let mut bytes = Vec::new();
    flate2::read::GzDecoder::new(&packed[..]).read_to_end(&mut bytes).unwrap();
    bytes
}

pub fn small_from_gguf() -> Tokenizer {
    let region = Region::from_vec(fixture("small_tokenizer.gguf"));
    Tokenizer::from_gguf(&Gguf::from_region(region, "small.gguf").unwrap()).unwrap()
}

pub fn small_from_json() -> Tokenizer {
    Tokenizer::from_hf_json(&fixture("small_tokenizer.json"), "small.json").unwrap()
}

/// A GGUF file with the 256 byte tokens at 0..256, then `th` and two markers.
pub struct Miniature {
    pub model: Option<&'static str>,
    pub split: Option<&'static str>,
    pub tokens: Vec<String>,
    pub types: Vec<i32>,
    pub merges: Vec<String>,
    pub bos: Option<u32>,
}

pub const NORMAL: i32 = 1;
pub const CONTROL: i32 = 3;
pub const USER_DEFINED: i32 = 4;

impl Miniature {
    pub fn new() -> Miniature {
        let mut file = Miniature {
            model: Some("gpt2"),
            split: Some("joyai-llm"),
            tokens: byte_spellings(),
            types: vec![NORMAL; 256],
            merges: vec!["t h".to_owned()],
            bos: Some(257),
        };
        file.push("th", NORMAL);
        file.push("<｜begin▁of▁sentence｜>", CONTROL);
        file.push("<think>", USER_DEFINED);
        file
    }

    pub fn push(&mut self, token: &str, token_type: i32) {
        self.tokens.push(token.to_owned());
        self.types.push(token_type);
    }

    pub fn load(&self) -> Result<Tokenizer, Error> {
        let mut writer = GgufWriter::new("mini.gguf");
        for (key, value) in [("model", self.model), ("pre", self.split)] {
            if let Some(value) = value {
                writer.put(&format!("tokenizer.ggml.{key}"), value);
            }
        }
        if let Some(bos) = self.bos {
            writer.put("tokenizer.ggml.bos_token_id", bos);
        }
        writer.put_array("tokenizer.ggml.tokens", self.tokens.iter().map(String::as_str));
        writer.put_array("tokenizer.ggml.token_type", self.types.iter().copied());
        writer.put_array("tokenizer.ggml.merges", self.merges.iter().map(String::as_str));
        let bytes = writer.begin(Vec::new()).unwrap().finish().unwrap();
        Tokenizer::from_gguf(&Gguf::from_region(Region::from_vec(bytes), "mini.gguf").unwrap())
    }
}

/// The byte-level alphabet, by byte.
fn byte_spellings() -> Vec<String> {
    let mut others = '\u{100}'..;
    let printable = |byte: &u8| matches!(byte, b'!'..=b'~' | 0xA1..=0xAC | 0xAE..);
    (0..=255u8)
        .map(|byte| if printable(&byte) { char::from(byte) } else { others.next().unwrap() })
        .map(String::from)
        .collect()
}
