//! The tokenizer that a GGUF file carries in its metadata.

use ds4_gguf::{Gguf, Meta, shown};

use crate::{Tokenizer, error::Error, markers::NOT_SPECIAL, tokenizer::Tables, vocabulary::Kind};

const MODEL: &str = "tokenizer.ggml.model";
const SPLIT: &str = "tokenizer.ggml.pre";
const TOKENS: &str = "tokenizer.ggml.tokens";
const TYPES: &str = "tokenizer.ggml.token_type";
const MERGES: &str = "tokenizer.ggml.merges";
const BOS: &str = "tokenizer.ggml.bos_token_id";
const EOS: &str = "tokenizer.ggml.eos_token_id";

/// Names by which converters know the split that is implemented here.
const SPLITS: [&str; 2] = ["joyai-llm", "deepseek-v3"];

const CONTROL: u64 = 3;
const USER_DEFINED: u64 = 4;

impl Tokenizer {
    /// Loads the tokenizer of a model file.
    ///
    /// Markers are the tokens that the file calls control or user-defined. It may lack some: ask with
    /// [`Tokenizer::marker`]. A token whose spelling occurs twice is made by its lowest id only; the
    /// other one still decodes. A merge listed twice counts where it stands first, and one whose tokens
    /// are missing is passed over: miniature models list such.
    pub fn from_gguf(gguf: &Gguf) -> Result<Tokenizer, Error> {
        let (meta, file) = (gguf.meta(), &*gguf.path().to_string_lossy());
        expect(meta, file, MODEL, &["gpt2"])?;
        expect(meta, file, SPLIT, &SPLITS)?;
        let tokens = tokens(meta, file)?;
        let tables = Tables {
            file,
            tokens_field: TOKENS,
            bos: id(meta, file, BOS, tokens.len())?,
            eos: id(meta, file, EOS, tokens.len())?,
            tokens,
        };
        let merges = meta.need_array(MERGES)?;
        let merges = merges.strs().enumerate().map(|(index, merge)| {
            let merge = merge?;
            merge.split_once(' ').ok_or_else(|| {
                let reason = format!("`{}` is not two tokens and a space", shown(merge));
                Error::field(file, format!("{MERGES}[{index}]"), reason)
            })
        });
        Tokenizer::new(&tables, merges)
    }
}

fn tokens<'a>(meta: &'a Meta, file: &str) -> Result<Vec<Option<(&'a str, Kind)>>, Error> {
    let (spellings, types) = (meta.need_array(TOKENS)?, meta.need_array(TYPES)?);
    if spellings.len() != types.len() {
        let reason = format!("{} entries for {} tokens", types.len(), spellings.len());
        return Err(Error::field(file, TYPES, reason));
    }
    let mut tokens = Vec::new();
    for (spelling, token_type) in spellings.strs().zip(types.u64s()) {
        let spelling = spelling?;
        let kind = match token_type? {
            CONTROL | USER_DEFINED if NOT_SPECIAL.contains(&spelling) => {
                Kind::Marker { special: false, normalized: true }
            }
            CONTROL => Kind::Marker { special: true, normalized: false },
            USER_DEFINED => Kind::Marker { special: false, normalized: true },
            _ => Kind::Text,
        };
        tokens.push(Some((spelling, kind)));
    }
    Ok(tokens)
}

fn expect(meta: &Meta, file: &str, key: &str, known: &[&str]) -> Result<(), Error> {
    let found = meta.need_str(key)?;
    if known.contains(&found) {
        return Ok(());
    }
    let reason = format!("`{}` is not supported, only {}", shown(found), known.join(" or "));
    Err(Error::field(file, key, reason))
}

fn id(meta: &Meta, file: &str, key: &str, tokens: usize) -> Result<Option<u32>, Error> {
    let Some(id) = meta.get_u64(key)? else { return Ok(None) };
    match u32::try_from(id) {
        Ok(id) if (id as usize) < tokens => Ok(Some(id)),
        _ => Err(Error::field(file, key, format!("{id} is no token: there are {tokens}"))),
    }
}
