//! The tokenizer of an original checkpoint: its `tokenizer.json`.
//!
//! The format can describe many tokenizers. This one is implemented; a file that asks for anything
//! else is refused, because a prompt that is split differently is answered worse, silently.

use std::{collections::HashMap, fmt::Display};

use ds4_gguf::shown;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::{Tokenizer, error::Error, split::PATTERNS, tokenizer::Tables, vocabulary::Kind};

const BOS: &str = "<｜begin▁of▁sentence｜>";
const EOS: &str = "<｜end▁of▁sentence｜>";

#[derive(Deserialize)]
struct File {
    #[serde(default)]
    added_tokens: Vec<AddedToken>,
    #[serde(default)]
    normalizer: Value,
    #[serde(default)]
    pre_tokenizer: Value,
    #[serde(default)]
    decoder: Value,
    model: Model,
}

#[derive(Deserialize)]
struct AddedToken {
    id: u32,
    content: String,
    #[serde(default)]
    special: bool,
    #[serde(default)]
    normalized: bool,
    #[serde(default)]
    single_word: bool,
    #[serde(default)]
    lstrip: bool,
    #[serde(default)]
    rstrip: bool,
}

#[derive(Deserialize)]
struct Model {
    r#type: String,
    vocab: HashMap<String, u32>,
    merges: Vec<Merge>,
    #[serde(default)]
    dropout: Option<f64>,
    #[serde(default)]
    byte_fallback: bool,
    #[serde(default)]
    ignore_merges: bool,
    #[serde(default)]
    continuing_subword_prefix: Option<String>,
    #[serde(default)]
    end_of_word_suffix: Option<String>,
}

#[derive(Deserialize)]
#[serde(untagged, expecting = "a merge must be \"left right\" or [\"left\", \"right\"]")]
enum Merge {
    Joined(String),
    Pair(String, String),
}

impl Tokenizer {
    /// Loads a `tokenizer.json`. `name` stands for it in messages.
    pub fn from_hf_json(json: &[u8], name: &str) -> Result<Tokenizer, Error> {
        let file: File = serde_json::from_slice(json)
            .map_err(|error| Error::field(name, "JSON", shown(error)))?;
        file.check(name)?;
        let tokens = file.tokens(name)?;
        let marker = |content: &str| {
            file.added_tokens.iter().find(|token| token.content == content).map(|token| token.id)
        };
        let tables = Tables {
            file: name,
            tokens_field: "model.vocab",
            tokens,
            bos: marker(BOS),
            eos: marker(EOS),
        };
        let merges = file.model.merges.iter().enumerate().map(|(index, merge)| match merge {
            Merge::Pair(left, right) => Ok((left.as_str(), right.as_str())),
            Merge::Joined(both) => both.split_once(' ').ok_or_else(|| {
                let reason = format!("`{}` is not two tokens and a space", shown(both));
                Error::field(name, format!("model.merges[{index}]"), reason)
            }),
        });
        let tokenizer = Tokenizer::new(&tables, merges)?;
        match tokenizer.merges_passed_over() {
            0 => Ok(tokenizer),
            count => {
                let reason = format!("{count} of them need or make what is no text token");
                Err(Error::field(name, "model.merges", reason))
            }
        }
    }
}

impl File {
    /// Refuses whatever would make other tokens than ours.
    fn check(&self, name: &str) -> Result<(), Error> {
        let unsupported = |field: &str, found: &dyn Display| {
            let reason = format!("`{}` is not supported", shown(found));
            Err(Error::field(name, field, reason))
        };
        let no_normalizer = json!({ "type": "Sequence", "normalizers": [] });
        if !self.normalizer.is_null() && self.normalizer != no_normalizer {
            return unsupported("normalizer", &self.normalizer);
        }
        self.check_split(name)?;
        if self.decoder["type"] != "ByteLevel" {
            return unsupported("decoder", &self.decoder);
        }
        let model = &self.model;
        if model.r#type != "BPE" {
            return unsupported("model.type", &model.r#type);
        }
        if let Some(dropout) = model.dropout.filter(|&dropout| dropout != 0.0) {
            return unsupported("model.dropout", &dropout);
        }
        for (field, set) in
            [("byte_fallback", model.byte_fallback), ("ignore_merges", model.ignore_merges)]
        {
            if set {
                return unsupported(&format!("model.{field}"), &set);
            }
        }
        for (field, affix) in [
            ("continuing_subword_prefix", &model.continuing_subword_prefix),
            ("end_of_word_suffix", &model.end_of_word_suffix),
        ] {
            if let Some(affix) = affix.as_ref().filter(|affix| !affix.is_empty()) {
                return unsupported(&format!("model.{field}"), affix);
            }
        }
        for (index, token) in self.added_tokens.iter().enumerate() {
            if token.single_word || token.lstrip || token.rstrip {
                let reason = "single_word, lstrip and rstrip are not supported";
                return Err(Error::field(name, format!("added_tokens[{index}]"), reason));
            }
        }
        Ok(())
    }

    fn check_split(&self, name: &str) -> Result<(), Error> {
        let stages = &self.pre_tokenizer["pretokenizers"];
        let mut expected: Vec<Value> = PATTERNS
            .iter()
            .map(|pattern| {
                json!({
                    "type": "Split",
                    "pattern": { "Regex": pattern },
                    "behavior": "Isolated",
                    "invert": false,
                })
            })
            .collect();
        expected
            .push(json!({ "type": "ByteLevel", "add_prefix_space": false, "use_regex": false }));
        for (index, expected) in expected.iter().enumerate() {
            let found = &stages[index];
            let differs = |(key, value): (&String, &Value)| found[key] != *value;
            if expected.as_object().is_some_and(|fields| fields.iter().any(differs)) {
                let field = format!("pre_tokenizer.pretokenizers[{index}]");
                let reason = format!("is `{}`, not the official split", shown(found));
                return Err(Error::field(name, field, reason));
            }
        }
        if stages.as_array().is_some_and(|stages| stages.len() != expected.len()) {
            let reason = format!("more than the {} stages of the official split", expected.len());
            return Err(Error::field(name, "pre_tokenizer", reason));
        }
        Ok(())
    }

    /// The tokens by id. An added token may repeat one of the model's tokens, and makes it a marker.
    fn tokens(&self, name: &str) -> Result<Vec<Option<(&str, Kind)>>, Error> {
        // Ids may have holes, but a table is not sized by one id out of the blue.
        let entries = self.model.vocab.len() + self.added_tokens.len();
        let plain = self.model.vocab.iter().map(|(spelling, &id)| (id, spelling, Kind::Text));
        let added = self.added_tokens.iter().map(|token| {
            let &AddedToken { id, special, normalized, .. } = token;
            (id, &token.content, Kind::Marker { special, normalized })
        });
        let mut tokens: Vec<Option<(&str, Kind)>> = Vec::new();
        for (id, spelling, kind) in plain.chain(added) {
            let field = || format!("token `{}`", shown(spelling));
            let row = id as usize;
            if row / 4 >= entries {
                let reason = format!("id {id} is too high for a table of {entries} tokens");
                return Err(Error::field(name, field(), reason));
            }
            if tokens.len() <= row {
                tokens.resize(row + 1, None);
            }
            let taken = &mut tokens[row];
            match taken {
                Some((other, _)) if other != spelling => {
                    let reason = format!("id {id} is also that of `{}`", shown(other));
                    return Err(Error::field(name, field(), reason));
                }
                _ => *taken = Some((spelling, kind)),
            }
        }
        Ok(tokens)
    }
}
