//! The token table: what bytes each id stands for, and which ids are markers.

use crate::{alphabet, error::Error, tokenizer::Tables};

/// What a token is for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Made of bytes by merging; the only kind that plain text becomes.
    #[default]
    Text,
    /// Part of the protocol, from the added vocabulary.
    Marker {
        /// Left out when special tokens are skipped: begin, end, padding, placeholders.
        special: bool,
        /// Looked for only in what the markers that are not `normalized` have left.
        normalized: bool,
    },
}

/// All tokens in one run of bytes.
pub(crate) struct Vocabulary {
    bytes: Box<[u8]>,
    /// Where each token ends; it begins where the one before it ends.
    ends: Box<[u32]>,
    kinds: Box<[Kind]>,
}

impl Vocabulary {
    pub(crate) fn new(tables: &Tables) -> Result<Vocabulary, Error> {
        let too_large = || Error::field(tables.file, tables.tokens_field, "over 4 GiB of tokens");
        u32::try_from(tables.tokens.len()).map_err(|_| too_large())?;
        let (mut bytes, mut ends, mut kinds) = (Vec::new(), Vec::new(), Vec::new());
        for token in &tables.tokens {
            match token {
                Some((spelling, Kind::Text)) => alphabet::push_bytes(spelling, &mut bytes),
                Some((spelling, Kind::Marker { .. })) => {
                    bytes.extend_from_slice(spelling.as_bytes())
                }
                None => {}
            }
            ends.push(u32::try_from(bytes.len()).map_err(|_| too_large())?);
            kinds.push(token.map(|(_, kind)| kind).unwrap_or_default());
        }
        Ok(Vocabulary { bytes: bytes.into(), ends: ends.into(), kinds: kinds.into() })
    }

    pub(crate) fn len(&self) -> usize {
        self.ends.len()
    }

    pub(crate) fn bytes(&self, id: u32) -> Option<&[u8]> {
        let id = id as usize;
        let end = *self.ends.get(id)? as usize;
        let start = id.checked_sub(1).map_or(0, |before| self.ends[before] as usize);
        self.bytes.get(start..end)
    }

    pub(crate) fn kind(&self, id: u32) -> Option<Kind> {
        self.kinds.get(id as usize).copied()
    }
}
