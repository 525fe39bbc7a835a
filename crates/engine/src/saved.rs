//! A session as bytes: what `export` gives and `import` takes.
//!
//! Little-endian, no padding:
//!
//! | at | | |
//! |---|---|---|
//! | 0 | 8 bytes | `DS4STATE` |
//! | 8 | u32 | version, 1 |
//! | 12 | u32 | rounding: 0 plain, 1 official |
//! | 16 | u64 | bytes of it all, checksum included |
//! | 24 | 32 bytes | fingerprint of the model |
//! | 56 | u64 | tokens |
//! | 64 | u64 | how many of the last tokens can be taken back |
//! | 72 | u32 | layers |
//! | 76 | u32 | logits: the vocabulary, or 0 if there are none |
//! | 80 | u32 each | token ids |
//! | | f32 each | logits after the last token |
//! | | | for each layer its seven parts, each a u64 count of bytes and the bytes |
//! | end - 32 | 32 bytes | BLAKE3 of all before it |
//!
//! Nothing in it is trusted: the checksum finds damage, and whoever can make a checksum still only
//! gets counts through that the model's numbers demand.

use ds4_model::{Config, Fingerprint, Rounding};

use crate::{
    LayerState, Pending, SlotState,
    shape::{PARTS, StateShape, layer_count, part_size, rewind_beyond},
};

const MAGIC: &[u8; 8] = b"DS4STATE";
const VERSION: u32 = 1;
const HEADER: usize = 80;
const CHECKSUM: usize = 32;

/// What a saved session holds.
#[derive(Clone, Debug, PartialEq)]
pub struct SavedSession {
    /// Its tokens.
    pub tokens: Vec<u32>,
    /// Logits after the last token; empty if there are none.
    pub logits: Vec<f32>,
    /// The state after the last token.
    pub state: SlotState,
}

/// Why bytes are not a session that can be taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SavedError {
    /// Something else altogether.
    #[error("not a saved session: it does not begin with DS4STATE")]
    NotASession,
    /// From another version of this program.
    #[error("saved session of version {found}; this program takes version {VERSION} only")]
    Version {
        /// Its version.
        found: u32,
    },
    /// Cut short, or with something behind it.
    #[error("saved session is {found} bytes long and should be {wanted}")]
    Length {
        /// Bytes there are.
        found: u64,
        /// Bytes that it says it has, or at least needs.
        wanted: u64,
    },
    /// Changed since it was written.
    #[error("saved session is damaged: its checksum does not match")]
    Checksum,
    /// Another model's, or another quantisation's.
    #[error("saved session belongs to model {found}, the model loaded is {loaded}")]
    OtherModel {
        /// Its model.
        found: Fingerprint,
        /// The model here.
        loaded: Fingerprint,
    },
    /// Made with other roundings than the executor applies.
    #[error("saved session is of the {} rounding, the model runs in the {} one", name(*.found), name(*.running))]
    OtherRounding {
        /// Its rounding.
        found: Rounding,
        /// The rounding here.
        running: Rounding,
    },
    /// Intact, and yet nothing that this model's session can be.
    #[error("saved session is invalid at byte {at}: {reason}")]
    Invalid {
        /// Where.
        at: usize,
        /// What is wrong.
        reason: String,
    },
}

impl SavedSession {
    /// The session as bytes.
    pub fn encode(&self, model: Fingerprint) -> Vec<u8> {
        let SavedSession { tokens, logits, state } = self;
        let mut out = Vec::with_capacity(self.encoded_len());
        out.extend_from_slice(MAGIC);
        out.extend_from_slice(&VERSION.to_le_bytes());
        out.extend_from_slice(&rounding_code(state.rounding).to_le_bytes());
        out.extend_from_slice(&(self.encoded_len() as u64).to_le_bytes());
        out.extend_from_slice(&model.0);
        out.extend_from_slice(&(tokens.len() as u64).to_le_bytes());
        out.extend_from_slice(&(state.rewind as u64).to_le_bytes());
        out.extend_from_slice(&(state.layers.len() as u32).to_le_bytes());
        out.extend_from_slice(&(logits.len() as u32).to_le_bytes());
        out.extend(tokens.iter().flat_map(|id| id.to_le_bytes()));
        put_floats(&mut out, logits);
        for LayerState { window, compressed, index, pending, index_pending } in &state.layers {
            for rows in [window, compressed, index] {
                out.extend_from_slice(&(rows.len() as u64).to_le_bytes());
                out.extend_from_slice(rows);
            }
            for Pending { kv, score } in [pending, index_pending] {
                for values in [kv, score] {
                    out.extend_from_slice(&(4 * values.len() as u64).to_le_bytes());
                    put_floats(&mut out, values);
                }
            }
        }
        let checksum = blake3::hash(&out);
        out.extend_from_slice(checksum.as_bytes());
        out
    }

    /// The session in `bytes`, if it is intact and belongs to this model in this rounding.
    pub fn decode(
        bytes: &[u8],
        config: &Config,
        model: Fingerprint,
        rounding: Rounding,
    ) -> Result<SavedSession, SavedError> {
        let mut reader = Reader { bytes: checked(bytes)?, at: MAGIC.len() + 4 };
        let found = match reader.u32()? {
            0 => Rounding::Plain,
            1 => Rounding::Official,
            code => return Err(reader.invalid(12, format!("no rounding has the number {code}"))),
        };
        reader.u64()?;
        let fingerprint = Fingerprint(reader.array()?);
        if fingerprint != model {
            return Err(SavedError::OtherModel { found: fingerprint, loaded: model });
        }
        if found != rounding {
            return Err(SavedError::OtherRounding { found, running: rounding });
        }
        let len = reader.length()?;
        let rewind = reader.length()?;
        let (layers, logits) = (reader.u32()? as usize, reader.u32()? as usize);
        if rewind > len {
            return Err(reader.invalid(64, rewind_beyond(rewind, len)));
        }
        if layers != config.layers.len() {
            return Err(reader.invalid(72, layer_count(layers, config.layers.len())));
        }
        // None is what a session has before its first token, and after an interrupted rewind.
        if logits != 0 && (logits != config.vocab || len == 0) {
            let vocab = config.vocab;
            let reason = format!("{logits} logits after {len} tokens, of a vocabulary of {vocab}");
            return Err(reader.invalid(76, reason));
        }
        let tokens = reader.tokens(len, config.vocab)?;
        let logits = reader.floats(4 * logits as u64)?;
        let shape = StateShape::new(config, rounding)
            .map_err(|error| reader.invalid(HEADER, error.to_string()))?;
        let layers = config.layers.iter().enumerate().map(|(layer, &kind)| {
            let sizes = shape.layer(kind, len, rewind);
            let mut part = |which: usize| reader.part(layer, PARTS[which], sizes[which]);
            Ok(LayerState {
                window: part(0)?.to_vec(),
                compressed: part(1)?.to_vec(),
                index: part(2)?.to_vec(),
                pending: Pending { kv: floats_of(part(3)?), score: floats_of(part(4)?) },
                index_pending: Pending { kv: floats_of(part(5)?), score: floats_of(part(6)?) },
            })
        });
        let layers = layers.collect::<Result<Vec<_>, SavedError>>()?;
        if reader.at != reader.bytes.len() {
            let left = reader.bytes.len() - reader.at;
            return Err(reader.invalid(reader.at, format!("{left} bytes after the last layer")));
        }
        Ok(SavedSession { tokens, logits, state: SlotState { len, rounding, rewind, layers } })
    }

    fn encoded_len(&self) -> usize {
        let layer = |layer: &LayerState| {
            let LayerState { window, compressed, index, pending, index_pending } = layer;
            let rows = window.len() + compressed.len() + index.len();
            let floats = |p: &Pending| 4 * (p.kv.len() + p.score.len());
            8 * PARTS.len() + rows + floats(pending) + floats(index_pending)
        };
        let layers: usize = self.state.layers.iter().map(layer).sum();
        HEADER + 4 * self.tokens.len() + 4 * self.logits.len() + layers + CHECKSUM
    }
}

/// The bytes without their checksum, once kind, version, length and checksum are right.
fn checked(bytes: &[u8]) -> Result<&[u8], SavedError> {
    if !bytes.starts_with(&MAGIC[..bytes.len().min(MAGIC.len())]) || bytes.is_empty() {
        return Err(SavedError::NotASession);
    }
    let found = bytes.len() as u64;
    let short = SavedError::Length { found, wanted: (HEADER + CHECKSUM) as u64 };
    if let Some(version) = bytes.get(8..).and_then(|b| b.first_chunk()) {
        let found = u32::from_le_bytes(*version);
        if found != VERSION {
            return Err(SavedError::Version { found });
        }
    }
    if bytes.len() < HEADER + CHECKSUM {
        return Err(short);
    }
    let wanted =
        bytes.get(16..).and_then(|b| b.first_chunk()).map_or(0, |b| u64::from_le_bytes(*b));
    if found != wanted {
        return Err(SavedError::Length { found, wanted });
    }
    let (content, checksum) = bytes.split_last_chunk::<CHECKSUM>().ok_or(short)?;
    if blake3::hash(content) != blake3::Hash::from_bytes(*checksum) {
        return Err(SavedError::Checksum);
    }
    Ok(content)
}

/// Reads on from `at`; whatever it hands out is part of `bytes`.
struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    fn take(&mut self, count: u64) -> Result<&'a [u8], SavedError> {
        let left = self.bytes.get(self.at..).unwrap_or_default();
        let taken = usize::try_from(count).ok().and_then(|count| left.get(..count));
        let Some(taken) = taken else {
            let reason = format!("{count} bytes are needed and {} are left", left.len());
            return Err(self.invalid(self.at, reason));
        };
        self.at += taken.len();
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], SavedError> {
        let at = self.at;
        let taken = self.take(N as u64)?;
        taken.try_into().map_err(|_| self.invalid(at, format!("{N} bytes are needed")))
    }

    fn u32(&mut self) -> Result<u32, SavedError> {
        self.array().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Result<u64, SavedError> {
        self.array().map(u64::from_le_bytes)
    }

    /// A count of tokens. It takes four bytes to hold one, which bounds it.
    fn length(&mut self) -> Result<usize, SavedError> {
        let at = self.at;
        let count = self.u64()?;
        let most = self.bytes.len() / 4;
        match usize::try_from(count) {
            Ok(count) if count <= most => Ok(count),
            _ => Err(self.invalid(at, format!("{count} tokens, there is room for {most} at most"))),
        }
    }

    fn tokens(&mut self, len: usize, vocab: usize) -> Result<Vec<u32>, SavedError> {
        let start = self.at;
        let bytes = self.take(4 * len as u64)?;
        let ids: Vec<u32> =
            bytes.as_chunks().0.iter().map(|bytes| u32::from_le_bytes(*bytes)).collect();
        match (0..).zip(&ids).find(|(_, id)| **id as usize >= vocab) {
            Some((index, id)) => {
                let at = start + 4 * index;
                Err(self.invalid(at, format!("token id {id}, the vocabulary has {vocab}")))
            }
            None => Ok(ids),
        }
    }

    fn floats(&mut self, bytes: u64) -> Result<Vec<f32>, SavedError> {
        self.take(bytes).map(floats_of)
    }

    /// A part of a layer, which must have the size that the model's numbers demand.
    fn part(&mut self, layer: usize, part: &str, wanted: u64) -> Result<&'a [u8], SavedError> {
        let at = self.at;
        let found = self.u64()?;
        if found != wanted {
            return Err(self.invalid(at, part_size(layer, part, found, wanted)));
        }
        self.take(found)
    }

    fn invalid(&self, at: usize, reason: String) -> SavedError {
        SavedError::Invalid { at, reason }
    }
}

fn put_floats(out: &mut Vec<u8>, values: &[f32]) {
    out.extend(values.iter().flat_map(|value| value.to_le_bytes()));
}

fn floats_of(bytes: &[u8]) -> Vec<f32> {
    bytes.as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect()
}

fn rounding_code(rounding: Rounding) -> u32 {
    match rounding {
        Rounding::Plain => 0,
        Rounding::Official => 1,
    }
}

fn name(rounding: Rounding) -> &'static str {
    match rounding {
        Rounding::Plain => "plain",
        Rounding::Official => "official",
    }
}
