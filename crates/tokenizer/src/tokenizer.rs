//! The tokenizer itself: text to ids and back.

use std::{collections::HashMap, fmt, ops::Range};

use ds4_gguf::shown;

use crate::{
    Decoder, alphabet,
    error::Error,
    markers::{MarkerSet, Span},
    merges::{Merges, Row},
    split,
    vocabulary::{Kind, Vocabulary},
};

/// A loaded tokenizer: the vocabulary, its merges and its markers.
///
/// Text and markers are different things. [`Tokenizer::encode`] makes text tokens only, whatever the
/// text spells; a marker is put into a prompt by [`Tokenizer::encode_prompt`], where the caller says
/// which bytes are markers.
pub struct Tokenizer {
    vocabulary: Vocabulary,
    merges: Merges,
    literal: MarkerSet,
    normalized: MarkerSet,
    bos: Option<u32>,
    eos: Option<u32>,
    merges_passed_over: usize,
}

/// What a file says, before it is checked.
pub(crate) struct Tables<'a> {
    pub(crate) file: &'a str,
    /// Where the file keeps its tokens, for messages.
    pub(crate) tokens_field: &'a str,
    /// By id, spelled as in the file. `None` is an id that no token has.
    pub(crate) tokens: Vec<Option<(&'a str, Kind)>>,
    pub(crate) bos: Option<u32>,
    pub(crate) eos: Option<u32>,
}

impl Tokenizer {
    pub(crate) fn new<'a>(
        tables: &Tables<'a>,
        merges: impl Iterator<Item = Result<(&'a str, &'a str), Error>>,
    ) -> Result<Tokenizer, Error> {
        let vocabulary = Vocabulary::new(tables)?;
        let texts = TextTokens::new(tables);
        let mut table = Merges::new(texts.single_bytes()?);
        table.reserve(merges.size_hint().0);
        let mut merges_passed_over = 0;
        for merge in merges {
            match texts.merge(merge?) {
                Some((left, right, product)) => table.push(left, right, product),
                None => merges_passed_over += 1,
            }
        }
        let markers = |wanted: bool| {
            let tokens = tables.tokens.iter().zip(0..);
            MarkerSet::new(tokens.filter_map(move |(token, id)| match *token {
                Some((name, Kind::Marker { normalized, .. })) if normalized == wanted => {
                    Some((name, id))
                }
                _ => None,
            }))
        };
        Ok(Tokenizer {
            merges: table,
            literal: markers(false),
            normalized: markers(true),
            bos: tables.bos,
            eos: tables.eos,
            vocabulary,
            merges_passed_over,
        })
    }

    /// How many rows the token table has: ids are below it.
    pub fn vocab_size(&self) -> usize {
        self.vocabulary.len()
    }

    /// How many merges text is encoded with.
    pub fn merge_count(&self) -> usize {
        self.merges.len()
    }

    /// How many merges of the file are of no use, because a token that they need or make is missing
    /// or is a marker. None in a file that is whole.
    pub fn merges_passed_over(&self) -> usize {
        self.merges_passed_over
    }

    /// The bytes that a token stands for. They need not be whole characters.
    pub fn token_bytes(&self, id: u32) -> Option<&[u8]> {
        self.vocabulary.bytes(id)
    }

    /// Whether the token belongs to the added vocabulary: something that text never becomes.
    pub fn is_marker(&self, id: u32) -> bool {
        matches!(self.vocabulary.kind(id), Some(Kind::Marker { .. }))
    }

    /// Whether the token is a marker that readers do not care about: begin, end, padding,
    /// placeholders. `<think>` or `<｜User｜>` are markers, but not special.
    pub fn is_special(&self, id: u32) -> bool {
        matches!(self.vocabulary.kind(id), Some(Kind::Marker { special: true, .. }))
    }

    /// The id of a marker, by its full spelling. Small vocabularies do not have every marker.
    pub fn marker(&self, name: &str) -> Option<u32> {
        self.literal.id(name).or_else(|| self.normalized.id(name))
    }

    /// The token that begins a text.
    pub fn bos(&self) -> Option<u32> {
        self.bos
    }

    /// The token that ends a text.
    pub fn eos(&self) -> Option<u32> {
        self.eos
    }

    /// Encodes text from outside. What spells a marker in it stays text.
    pub fn encode(&self, text: &str) -> Vec<u32> {
        let mut encoder = Encoder::new(self);
        encoder.text(text);
        encoder.ids
    }

    /// Encodes text in which every marker that it spells counts as one. Only for text that holds
    /// nothing from outside.
    pub fn encode_with_markers(&self, text: &str) -> Vec<u32> {
        let mut encoder = Encoder::new(self);
        for span in self.literal.spans(text) {
            match span {
                Span::Marker(id) => encoder.ids.push(id),
                Span::Text(text) => {
                    for span in self.normalized.spans(text) {
                        match span {
                            Span::Marker(id) => encoder.ids.push(id),
                            Span::Text(text) => encoder.text(text),
                        }
                    }
                }
            }
        }
        encoder.ids
    }

    /// Encodes a rendered prompt. `specials` are the byte ranges that are markers, in order; all the
    /// rest is text, whatever it spells.
    pub fn encode_prompt(&self, text: &str, specials: &[Range<usize>]) -> Result<Vec<u32>, Error> {
        let mut encoder = Encoder::new(self);
        let mut done = 0;
        for range in specials {
            let error = |reason: String| Error::Prompt { range: range.clone(), reason };
            let (Some(before), Some(name)) = (text.get(done..range.start), text.get(range.clone()))
            else {
                return Err(error("out of order, or not on the text's characters".to_owned()));
            };
            let Some(id) = self.marker(name) else {
                return Err(error(format!("the tokenizer has no marker `{}`", shown(name))));
            };
            encoder.text(before);
            encoder.ids.push(id);
            done = range.end;
        }
        encoder.text(text.get(done..).unwrap_or_default());
        Ok(encoder.ids)
    }

    /// The text of all `ids`, markers included. Bytes that are no UTF-8 become U+FFFD.
    pub fn decode(&self, ids: &[u32]) -> String {
        self.decode_with(Decoder::new(), ids)
    }

    /// The text of all `ids` but the special ones.
    pub fn decode_skip_special(&self, ids: &[u32]) -> String {
        self.decode_with(Decoder::skipping_special(), ids)
    }

    fn decode_with(&self, mut decoder: Decoder, ids: &[u32]) -> String {
        let mut text = String::new();
        for &id in ids {
            decoder.push(self, id, &mut text);
        }
        decoder.finish(&mut text);
        text
    }
}

impl fmt::Debug for Tokenizer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tokenizer")
            .field("vocab_size", &self.vocab_size())
            .field("merge_count", &self.merge_count())
            .finish_non_exhaustive()
    }
}

/// Collects ids, and keeps the scratch memory of merging between pieces.
struct Encoder<'t> {
    tokenizer: &'t Tokenizer,
    row: Row,
    ids: Vec<u32>,
}

impl<'t> Encoder<'t> {
    fn new(tokenizer: &'t Tokenizer) -> Encoder<'t> {
        Encoder { tokenizer, row: Row::default(), ids: Vec::new() }
    }

    fn text(&mut self, text: &str) {
        for piece in split::pieces(text) {
            self.tokenizer.merges.encode(piece.as_bytes(), &mut self.row, &mut self.ids);
        }
    }
}

/// The tokens that merging may make, by spelling. Markers are not among them: that is what keeps
/// text from ever becoming one, even in a file whose merges would lead there.
struct TextTokens<'t, 'a> {
    tables: &'t Tables<'a>,
    ids: HashMap<&'a str, u32>,
}

impl<'t, 'a> TextTokens<'t, 'a> {
    /// A spelling that occurs twice is known by its lowest id.
    fn new(tables: &'t Tables<'a>) -> TextTokens<'t, 'a> {
        let mut ids = HashMap::with_capacity(tables.tokens.len());
        for (token, id) in tables.tokens.iter().zip(0..) {
            if let Some((spelling, Kind::Text)) = token {
                ids.entry(*spelling).or_insert(id);
            }
        }
        TextTokens { tables, ids }
    }

    fn single_bytes(&self) -> Result<Box<[u32; 256]>, Error> {
        let mut bytes = Box::new([0; 256]);
        for (byte, spelling) in alphabet::spellings() {
            let Some(&id) = self.ids.get(spelling.encode_utf8(&mut [0; 4]) as &str) else {
                let reason = format!("no token for byte 0x{byte:02x}, spelled `{spelling}`");
                return Err(Error::field(self.tables.file, self.tables.tokens_field, reason));
            };
            bytes[usize::from(byte)] = id;
        }
        Ok(bytes)
    }

    fn merge(&self, (left, right): (&str, &str)) -> Option<(u32, u32, u32)> {
        let id = |spelling: &str| self.ids.get(spelling).copied();
        Some((id(left)?, id(right)?, id(&[left, right].concat())?))
    }
}
