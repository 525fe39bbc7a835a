//! The executor boundary: what a backend must do, and all that the engine knows of it.
//!
//! A backend executes the whole model for a batch of rows, and owns the state of its slots. How it
//! fuses, captures graphs or splits threads is its own affair. It sees no text, no JSON, no HTTP.

use std::sync::Arc;

use ds4_model::{Model, Rounding};

use crate::{DEFAULT_CHUNK, plan::StateCost, shortlist::Shortlist, state::SlotState};

/// A timeline inside an executor. Ids are not reused while a slot is open.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SlotId(pub u64);

/// Which rows of a feed give logits.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Want {
    /// None: only the state is wanted.
    Nothing,
    /// The last row.
    Last,
    /// The last row, and no more of it than its shortlist, if the backend makes any.
    Shortlist {
        /// At which the row is summed.
        temperature: f32,
    },
    /// Every row.
    All,
}

impl Want {
    /// How many rows of logits a feed of `tokens` tokens gives.
    pub fn rows(self, tokens: usize) -> usize {
        match self {
            Want::Nothing => 0,
            Want::Last | Want::Shortlist { .. } => tokens.min(1),
            Want::All => tokens,
        }
    }
}

/// Tokens that extend one slot: a chunk of a prompt, or the one token of a decode step.
#[derive(Clone, Copy, Debug)]
pub struct Feed<'a> {
    /// The slot. A batch names a slot at most once.
    pub slot: SlotId,
    /// The tokens, evaluated at the positions that follow the slot's length. Never empty.
    pub tokens: &'a [u32],
    /// Which of them give logits.
    pub want: Want,
}

/// Rows of logits in the order of the feeds that asked for them.
#[derive(Clone, Debug, Default)]
pub struct Logits {
    /// Width of a row.
    pub vocab: usize,
    /// All rows, one after another.
    pub values: Vec<f32>,
    /// In the order of the feeds that asked for one. A backend that makes none leaves this empty, and
    /// gives the whole rows among the others.
    pub shortlists: Vec<Shortlist>,
}

/// What a feed that wanted one row has got.
pub(crate) enum Given<'a> {
    Row(&'a [f32]),
    Shortlist(&'a Shortlist),
}

impl Logits {
    /// The rows.
    pub fn rows(&self) -> impl ExactSizeIterator<Item = &[f32]> {
        self.values.chunks_exact(self.vocab.max(1))
    }

    /// Whether so many rows are there of which so many may be shortlists, and nothing else.
    pub(crate) fn are(&self, vocab: usize, rows: usize, shortlists: usize) -> bool {
        let got = self.shortlists.len();
        let whole = rows - got.min(rows);
        self.vocab == vocab
            && (got == 0 || got == shortlists)
            && self.values.len() == whole.saturating_mul(vocab)
    }

    /// What feeds have got that wanted one row each; `None` if it is not what they wanted.
    pub(crate) fn given(&self, vocab: usize, wants: &[Want]) -> Option<Vec<Given<'_>>> {
        let is_short = |want: &&Want| matches!(want, Want::Shortlist { .. });
        if !self.are(vocab, wants.len(), wants.iter().filter(is_short).count()) {
            return None;
        }
        let (mut rows, mut shortlists) = (self.rows(), self.shortlists.iter());
        let short = !self.shortlists.is_empty();
        wants
            .iter()
            .map(|want| match is_short(&want) && short {
                true => shortlists.next().map(Given::Shortlist),
                false => rows.next().map(Given::Row),
            })
            .collect()
    }
}

/// What one part of a step has cost since the last reset, summed over all layers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stage {
    /// What it does.
    pub name: &'static str,
    /// Time that it took.
    pub nanoseconds: u64,
    /// Bytes of weights and cached rows that it read.
    pub bytes: u64,
    /// Multiplications and additions.
    pub operations: u64,
}

/// How fast memory was read.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ReadRate {
    /// Bytes of weights that it was measured on.
    pub sample_bytes: usize,
    /// Bytes per second.
    pub bytes_per_second: f64,
}

/// Why an executor could not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum ExecError {
    /// The slot was never opened, or is closed.
    #[error("slot {} is not open", .0.0)]
    NoSuchSlot(SlotId),
    /// A feed that breaks the contract: no tokens, or a slot named twice.
    #[error("invalid batch: {0}")]
    InvalidBatch(&'static str),
    /// A token id outside the vocabulary.
    #[error("token id {id} is outside the vocabulary of {vocab}")]
    TokenOutOfRange {
        /// The id.
        id: u32,
        /// Ids are below this.
        vocab: usize,
    },
    /// The weights or the state led to a number that is not finite.
    #[error("the forward pass gave a value that is not finite {place}; {cause}")]
    NotFinite {
        /// Where it was first seen.
        place: String,
        /// The tensor to blame, or what to do to find it.
        cause: String,
    },
    /// A state that this executor cannot take.
    #[error("the saved state does not fit this model: {0}")]
    StateMismatch(String),
    /// The machine refused: memory, a lost device, a bad driver.
    #[error("{0}")]
    Machine(String),
}

/// A backend: a whole-model executor with slots.
///
/// The state of a slot at length `n` is a function of its first `n` tokens, whatever the chunks,
/// the company in the batch, rewinds or restores that led there (invariant 5).
pub trait Executor: Send {
    /// A short name for people: `cpu`, `cuda`.
    fn name(&self) -> &'static str;

    /// The model it executes.
    fn model(&self) -> &Arc<Model>;

    /// Which of the model's own roundings are applied.
    fn rounding(&self) -> Rounding;

    /// Opens an empty slot.
    fn open(&mut self) -> Result<SlotId, ExecError>;

    /// Closes a slot and frees its state. Closing one that is not open does nothing.
    fn close(&mut self, slot: SlotId);

    /// How many tokens the slot has evaluated.
    fn len(&self, slot: SlotId) -> Result<usize, ExecError>;

    /// Evaluates a batch and leaves the wanted logits, or shortlists, in `logits`, replacing what was there.
    /// When it fails, every slot of the batch has the length it had before.
    fn step(&mut self, batch: &[Feed<'_>], logits: &mut Logits) -> Result<(), ExecError>;

    /// All logits of the row that the slot's last step gave a shortlist of, if they are still at hand:
    /// any other step may overwrite them.
    fn recall(&mut self, _slot: SlotId) -> Result<Option<Vec<f32>>, ExecError> {
        Ok(None)
    }

    /// Shortens a slot to `len` tokens or, where the state for that length is gone, to the longest
    /// shorter length that is still there. Returns the length it has now.
    fn truncate(&mut self, slot: SlotId, len: usize) -> Result<usize, ExecError>;

    /// Opens a slot that starts as a copy of another. Full rows are shared, not copied.
    fn fork(&mut self, slot: SlotId) -> Result<SlotId, ExecError>;

    /// The state of a slot in the form that every backend shares. `rewind` is how many of the last
    /// positions the copy should still be able to truncate to.
    fn export(&self, slot: SlotId, rewind: usize) -> Result<SlotState, ExecError>;

    /// Opens a slot with an exported state.
    fn import(&mut self, state: &SlotState) -> Result<SlotId, ExecError>;

    /// Tokens of a prompt that are best fed at a time: with fewer a prompt takes longer, and with more
    /// it is no faster, but longer before it can be broken off.
    fn chunk(&self) -> usize {
        DEFAULT_CHUNK
    }

    /// What the state of a slot costs, for plans.
    fn state_cost(&self) -> StateCost;

    /// Bytes that the state of all open slots takes now.
    fn state_bytes(&self) -> usize;

    /// Where the time of all steps since the last reset went, in the order of a step. Empty if the
    /// executor does not measure it.
    fn stages(&self) -> Vec<Stage> {
        Vec::new()
    }

    /// Starts measuring stages anew.
    fn reset_stages(&mut self) {}

    /// Starts or stops measuring stages where that slows a step down. Returns whether this executor is
    /// such a one; others measure always, or never.
    fn time_stages(&mut self, _on: bool) -> bool {
        false
    }

    /// The card that computes, for people; `None` where it is the processor.
    fn card(&self) -> Option<String> {
        None
    }

    /// How fast the card reads its weights if it does nothing else; `None` where they lie in the
    /// machine's own memory, which anybody can measure.
    fn read_rate(&mut self) -> Result<Option<ReadRate>, ExecError> {
        Ok(None)
    }
}
