//! What memory a model and its sessions need, before any of it is taken.

use std::fmt;

use ds4_model::{Config, Rounding};
use ds4_quant::QuantError;

use crate::shape::StateShape;

/// What the state of one slot costs, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StateCost {
    /// For a slot of any length: windows, rings, what pending rows need.
    pub fixed: u64,
    /// For every 1024 tokens.
    pub per_1k_tokens: u64,
}

impl StateCost {
    /// What a slot costs whose last `rewind` positions can be taken back without rebuilding, by the
    /// model's numbers: an executor may round up.
    pub fn of(config: &Config, rounding: Rounding, rewind: usize) -> Result<StateCost, QuantError> {
        let shape = StateShape::new(config, rounding)?;
        let layers = config.layers.iter();
        let fixed = layers.clone().map(|&kind| shape.fixed(kind, rewind));
        let per_1k_tokens = layers.map(|&kind| shape.per_1k_tokens(kind));
        Ok(StateCost {
            fixed: fixed.fold(0, u64::saturating_add),
            per_1k_tokens: per_1k_tokens.fold(0, u64::saturating_add),
        })
    }

    /// What a slot of `tokens` tokens costs.
    pub fn bytes(&self, tokens: u64) -> u64 {
        self.fixed.saturating_add(self.per_1k_tokens.saturating_mul(tokens.div_ceil(1024)))
    }
}

/// What a loaded model and its sessions take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemoryPlan {
    /// The weights.
    pub weights: u64,
    /// What one step works in. Sessions take turns, so it is there once.
    pub scratch: u64,
    /// Each session: its state, its tokens and its logits.
    pub session: StateCost,
}

impl MemoryPlan {
    /// The plan for a model with `weights` bytes of weights, whose sessions cost `state` and are read
    /// `chunk` tokens at a time.
    pub fn new(config: &Config, weights: u64, state: StateCost, chunk: usize) -> MemoryPlan {
        let logits = 4 * config.vocab as u64;
        let session = StateCost {
            // The current row, and the one that the next step writes.
            fixed: state.fixed.saturating_add(2 * logits),
            per_1k_tokens: state.per_1k_tokens.saturating_add(4 * 1024),
        };
        MemoryPlan { weights, scratch: scratch(config, chunk), session }
    }

    /// Bytes for this many sessions of this many tokens each.
    pub fn bytes(&self, sessions: u64, context: u64) -> u64 {
        self.loaded().saturating_add(sessions.saturating_mul(self.session.bytes(context)))
    }

    /// The longest context, in whole 1024s of tokens, that this many sessions can have in `memory`
    /// bytes; `None` if not even an empty session fits.
    pub fn largest_context(&self, memory: u64, sessions: u64) -> Option<u64> {
        let each = memory.checked_sub(self.loaded())?.checked_div(sessions).unwrap_or(u64::MAX);
        let room = each.checked_sub(self.session.fixed)?;
        let blocks = room.checked_div(self.session.per_1k_tokens).unwrap_or(u64::MAX);
        Some(blocks.saturating_mul(1024))
    }

    /// How many sessions of this many tokens fit in `memory` bytes.
    pub fn most_sessions(&self, memory: u64, context: u64) -> u64 {
        let room = memory.saturating_sub(self.loaded());
        room.checked_div(self.session.bytes(context)).unwrap_or(u64::MAX)
    }

    /// Refuses what does not fit in `memory` bytes, with the numbers and with what would fit.
    pub fn check(&self, memory: u64, sessions: u64, context: u64) -> Result<(), DoesNotFit> {
        if self.bytes(sessions, context) <= memory {
            return Ok(());
        }
        Err(DoesNotFit { plan: *self, memory, sessions, context })
    }

    /// The plan for people, before anything is taken: what each part costs, and what fits in `memory`
    /// bytes, of sessions of `context` tokens and of one as long as the model allows, `most` tokens.
    pub fn describe(&self, memory: u64, context: u64, most: u64) -> String {
        let longest = self.largest_context(memory, 1).map_or(0, |tokens| tokens.min(most));
        format!(
            "weights {}, working space {}, each session {} and {} for every 1024 tokens; \
             in {} fit {} of {context} tokens, or 1 of {longest}",
            Size(self.weights),
            Size(self.scratch),
            Size(self.session.fixed),
            Size(self.session.per_1k_tokens),
            Size(memory),
            Sessions(self.most_sessions(memory, context)),
        )
    }

    fn loaded(&self) -> u64 {
        self.weights.saturating_add(self.scratch)
    }
}

/// A plan that does not fit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DoesNotFit {
    /// The plan.
    pub plan: MemoryPlan,
    /// The bytes there are.
    pub memory: u64,
    /// Sessions asked for.
    pub sessions: u64,
    /// Tokens asked for in each.
    pub context: u64,
}

impl std::error::Error for DoesNotFit {}

impl fmt::Display for DoesNotFit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let DoesNotFit { plan, memory, sessions, context } = *self;
        write!(
            f,
            "{} of {context} tokens: {} needed (weights {}, working space {}, sessions {}), {} available; ",
            Sessions(sessions),
            Size(plan.bytes(sessions, context)),
            Size(plan.weights),
            Size(plan.scratch),
            Size(sessions.saturating_mul(plan.session.bytes(context))),
            Size(memory),
        )?;
        let fewer = plan.most_sessions(memory, context);
        let shorter = plan.largest_context(memory, sessions).filter(|&tokens| tokens > 0);
        let alone = plan.largest_context(memory, 1).filter(|&tokens| tokens > 0);
        match (fewer, shorter, alone) {
            (0, None, None) if plan.loaded() > memory => write!(f, "the model alone does not fit"),
            (0, None, None) => write!(f, "not even a session of 1024 tokens fits"),
            (0, None, Some(tokens)) => write!(f, "1 session of {tokens} tokens would fit"),
            (0, Some(tokens), _) => {
                write!(f, "{} of {tokens} tokens would fit", Sessions(sessions))
            }
            (n, None, _) => write!(f, "{} of {context} tokens would fit", Sessions(n)),
            (n, Some(tokens), _) => {
                write!(
                    f,
                    "{} of {context} tokens would fit, or {sessions} of {tokens}",
                    Sessions(n)
                )
            }
        }
    }
}

/// Bytes that one step needs beyond weights and state: every activation of the widest moment of a
/// layer, in `f32`, for a whole chunk. Scores over compressed rows are not in it: they are made and
/// used block by block.
fn scratch(config: &Config, chunk: usize) -> u64 {
    let streams = 2 * config.stream_width() + config.mix_rows();
    let attention = 2 * config.q_width() + config.q_rank + config.o_low_width() + config.head_dim;
    let compressor = 4 * (config.head_dim + config.indexer.dim);
    let indexer = config.indexer.heads * (config.indexer.dim + 1) + config.indexer.top_k;
    let experts = config.experts + (config.experts_used + 1) * 2 * config.expert_hidden;
    let block = (attention + compressor + indexer).max(experts);
    let width = streams + 2 * config.hidden + block;
    4 * (width as u64).saturating_mul(chunk as u64)
}

struct Sessions(u64);

impl fmt::Display for Sessions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} session{}", self.0, if self.0 == 1 { "" } else { "s" })
    }
}

/// Bytes as people read them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Size(pub u64);

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const MIB: f64 = (1 << 20) as f64;
        match self.0 as f64 / MIB {
            mib if mib < 1.0 => write!(f, "{:.1} KiB", mib * 1024.0),
            mib if mib < 1024.0 => write!(f, "{mib:.1} MiB"),
            mib => write!(f, "{:.1} GiB", mib / 1024.0),
        }
    }
}

#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;
