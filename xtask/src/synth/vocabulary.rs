//! A tokenizer of the published size: a small trained one, with its markers at their published ids
//! and its merges continued.
//!
//! The small one is the published vocabulary with fewer tokens of each kind, in the same order. What
//! is missing of the markers are numbered placeholders; what is missing of the text tokens is made by
//! joining those that are there, so that ordinary text becomes about as many tokens as it should.

use std::{collections::HashSet, io::Read};

use ds4_gguf::{Gguf, GgufWriter};
use ds4_host::Region;
use flate2::read::GzDecoder;

const SMALL: &[u8] = include_bytes!("../../../fixtures/encoding/small_tokenizer.gguf.gz");
/// The first id after the text tokens of the published vocabulary.
const TEXT_END: usize = 128_000;
/// Placeholders by the text before their number: the numbers they run through, how many digits these
/// have at least, and the text after.
const PLACEHOLDERS: [(&str, std::ops::Range<usize>, usize, &str); 2] =
    [("<｜place▁holder▁no▁", 0..800, 1, "｜>"), ("<|place_holder_mm_span_", 21..436, 4, "|>")];
/// GGUF's number for a token of text.
const TEXT: u64 = 1;
/// How a space is spelled.
const SPACE: char = 'Ġ';

/// The tokens by id with their GGUF types, and the merges by rank.
pub struct Vocabulary {
    tokens: Vec<(String, u64)>,
    merges: Vec<String>,
}

impl Vocabulary {
    /// The small vocabulary of the tests.
    pub fn small() -> Result<Vocabulary, String> {
        let mut bytes = Vec::new();
        GzDecoder::new(SMALL).read_to_end(&mut bytes).map_err(|e| e.to_string())?;
        let gguf = Gguf::from_region(Region::from_vec(bytes), "small_tokenizer.gguf")
            .map_err(|e| e.to_string())?;
        let read = || {
            let array = |key: &str| gguf.meta().need_array(&format!("tokenizer.ggml.{key}"));
            let kinds = array("token_type")?.u64s().collect::<Result<Vec<_>, _>>()?;
            let strings = |key| -> Result<Vec<String>, _> {
                array(key)?.strs().map(|s| s.map(str::to_owned)).collect()
            };
            let tokens = strings("tokens")?.into_iter().zip(kinds).collect();
            Ok(Vocabulary { tokens, merges: strings("merges")? })
        };
        read().map_err(|e: ds4_gguf::Error| e.to_string())
    }

    /// A vocabulary of the published size and order.
    pub fn published() -> Result<Vocabulary, String> {
        let Vocabulary { tokens: small, mut merges } = Vocabulary::small()?;
        let after_text = small.iter().rposition(|(_, kind)| *kind == TEXT).map_or(0, |i| i + 1);
        let (mut tokens, markers) = (small.clone(), small.into_iter().skip(after_text));
        tokens.truncate(after_text);
        lengthen(&mut tokens, &mut merges);
        for (name, kind) in markers {
            let mut runs = PLACEHOLDERS.into_iter();
            match runs.find(|(before, ..)| name.starts_with(before)) {
                None => tokens.push((name, kind)),
                Some((before, numbers, digits, after)) => {
                    let spell = |number| format!("{before}{number:0digits$}{after}");
                    // The first of its run stands for all of it.
                    if name == spell(numbers.start) {
                        tokens.extend(numbers.map(|number| (spell(number), kind)));
                    }
                }
            }
        }
        Ok(Vocabulary { tokens, merges })
    }

    /// How many tokens there are.
    pub fn len(&self) -> usize {
        self.tokens.len()
    }

    /// Puts the keys of a tokenizer.
    pub fn describe(&self, writer: &mut GgufWriter) {
        let key = |name: &str| format!("tokenizer.ggml.{name}");
        writer.put(&key("model"), "gpt2");
        writer.put(&key("pre"), "joyai-llm");
        writer.put_array(&key("tokens"), self.tokens.iter().map(|(spelling, _)| &**spelling));
        writer.put_array(&key("token_type"), self.tokens.iter().map(|(_, kind)| *kind as i32));
        writer.put_array(&key("merges"), self.merges.iter().map(|merge| &**merge));
        writer.put(&key("bos_token_id"), 0u32);
        writer.put(&key("eos_token_id"), 1u32);
        writer.put(&key("padding_token_id"), 1u32);
        writer.put(&key("add_bos_token"), false);
        writer.put(&key("add_eos_token"), false);
    }
}

/// Joins pieces of words, common ones first, until there are as many tokens as there should be.
fn lengthen(tokens: &mut Vec<(String, u64)>, merges: &mut Vec<String>) {
    let inner = |text: &str| text.chars().all(|c| c.is_ascii_alphabetic());
    let words: Vec<String> = tokens.iter().map(|(spelling, _)| spelling.clone()).collect();
    let lefts: Vec<&String> =
        words.iter().filter(|word| inner(word.strip_prefix(SPACE).unwrap_or(word))).collect();
    let rights: Vec<&String> = words.iter().filter(|word| inner(word)).collect();
    let mut known: HashSet<String> = words.iter().cloned().collect();
    // Along the diagonals: both parts get rarer together.
    let pairs = (0..lefts.len() + rights.len())
        .flat_map(|sum| (0..=sum).map(move |left| (left, sum - left)));
    for (left, right) in pairs {
        if tokens.len() == TEXT_END {
            break;
        }
        let (Some(left), Some(right)) = (lefts.get(left), rights.get(right)) else { continue };
        let joined = format!("{left}{right}");
        if known.insert(joined.clone()) {
            merges.push(format!("{left} {right}"));
            tokens.push((joined, TEXT));
        }
    }
}
