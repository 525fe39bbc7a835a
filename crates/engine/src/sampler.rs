//! The choice of the next token from a row of logits.
//!
//! Order: penalties, logit bias, top-k, temperature, min-p and top-p together, draw. A sampler holds
//! options and nothing else: the draw is a function of the seed and the position, so nothing that
//! happens to a session changes what it would have said. It knows nothing of sessions.

use std::borrow::Cow;

use crate::{
    draw::uniform,
    ranking::{Candidate, best, candidates, rank_while},
};

/// How to choose.
#[derive(Clone, Debug, PartialEq)]
pub struct SamplerOptions {
    /// 0 takes the most probable token; 1 samples what the model says; more is more even.
    pub temperature: f32,
    /// Only this many of the most probable tokens; 0 is off.
    pub top_k: usize,
    /// Only the most probable tokens that together reach this probability; 1 is off, and so is 0.
    pub top_p: f32,
    /// Only tokens at least this probable relative to the most probable one; 0 is off.
    pub min_p: f32,
    /// Divides positive logits and multiplies negative ones of tokens in the history; 1 is off.
    pub repetition_penalty: f32,
    /// Subtracted once for each time that a token is in the history; 0 is off.
    pub frequency_penalty: f32,
    /// Subtracted if a token is in the history; 0 is off.
    pub presence_penalty: f32,
    /// How many of the last tokens are the history of the penalties; 0 is all.
    pub penalty_window: usize,
    /// Added to the logits of these tokens; negative infinity bans one.
    pub logit_bias: Vec<(u32, f32)>,
    /// Together with the position, it fixes the draw.
    pub seed: u64,
}

impl Default for SamplerOptions {
    fn default() -> Self {
        SamplerOptions {
            temperature: 1.0,
            top_k: 0,
            top_p: 1.0,
            min_p: 0.05,
            repetition_penalty: 1.0,
            frequency_penalty: 0.0,
            presence_penalty: 0.0,
            penalty_window: 0,
            logit_bias: Vec::new(),
            seed: 0,
        }
    }
}

/// An option that makes no sense.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum SamplerError {
    /// Outside its range, or not a number.
    #[error("{field} is {value}, it must be {wanted}")]
    OutOfRange {
        /// The field of [`SamplerOptions`].
        field: &'static str,
        /// What was given.
        value: f32,
        /// The range.
        wanted: &'static str,
    },
    /// A bias that is not a number, or infinitely large.
    #[error(
        "logit_bias of token {id} is {value}, it must be finite, or negative infinity for never"
    )]
    Bias {
        /// The token.
        id: u32,
        /// What was given.
        value: f32,
    },
}

/// Chooses tokens.
#[derive(Clone, Debug)]
pub struct Sampler {
    options: SamplerOptions,
}

impl Sampler {
    /// A sampler, if its options make sense.
    pub fn new(options: SamplerOptions) -> Result<Sampler, SamplerError> {
        let check = |field, value: f32, ok: bool, wanted| {
            if ok { Ok(()) } else { Err(SamplerError::OutOfRange { field, value, wanted }) }
        };
        // Comparisons with a NaN are false, so every test says what is wanted.
        let at_least_0 = |x: f32| x.is_finite() && x >= 0.0;
        let share = |x: f32| (0.0..=1.0).contains(&x);
        let o = &options;
        check("temperature", o.temperature, at_least_0(o.temperature), "0 or more")?;
        check("top_p", o.top_p, share(o.top_p), "between 0 and 1")?;
        check("min_p", o.min_p, share(o.min_p), "between 0 and 1")?;
        let repetition = o.repetition_penalty;
        check(
            "repetition_penalty",
            repetition,
            repetition.is_normal() && repetition > 0.0,
            "above 0",
        )?;
        let (frequency, presence) = (o.frequency_penalty, o.presence_penalty);
        check("frequency_penalty", frequency, frequency.is_finite(), "finite")?;
        check("presence_penalty", presence, presence.is_finite(), "finite")?;
        for &(id, value) in &o.logit_bias {
            if value.is_nan() || value == f32::INFINITY {
                return Err(SamplerError::Bias { id, value });
            }
        }
        Ok(Sampler { options })
    }

    /// The options.
    pub fn options(&self) -> &SamplerOptions {
        &self.options
    }

    /// The token for `position`, given the logits of the position before and the tokens so far.
    /// `None` if no logit is finite after penalties and bias.
    pub fn sample(&self, logits: &[f32], history: &[u32], position: u64) -> Option<u32> {
        let logits = self.adjusted(logits, history);
        let best = best(&logits)?;
        let temperature = self.options.temperature;
        if temperature == 0.0 {
            return Some(best.id);
        }
        // ln of a candidate's weight, which is 1 for the best.
        let log_weight = |c: &Candidate| (c.logit - best.logit) / temperature;
        let pool = self.filtered(&logits, log_weight);
        let weight = |c: &Candidate| f64::from(log_weight(c).exp());
        let mut left = uniform(self.options.seed, position) * pool.iter().map(weight).sum::<f64>();
        for candidate in &pool {
            let weight = weight(candidate);
            if left < weight {
                return Some(candidate.id);
            }
            left -= weight;
        }
        // Only rounding gets here.
        Some(best.id)
    }

    /// The candidates that top-k, min-p and top-p leave: never none, as the best passes them all.
    fn filtered(&self, logits: &[f32], log_weight: impl Fn(&Candidate) -> f32) -> Vec<Candidate> {
        let SamplerOptions { top_k, top_p, min_p, .. } = self.options;
        let lowest = min_p.ln();
        let probable = |c: &Candidate| log_weight(c) >= lowest;
        let cut_k = top_k > 0 && top_k < logits.len();
        let cut_p = top_p > 0.0 && top_p < 1.0;
        if !cut_k && !cut_p {
            return candidates(logits).filter(probable).collect();
        }
        let mut pool: Vec<Candidate> = candidates(logits).collect();
        if cut_k {
            let kept = rank_while(&mut pool, |rank, _| rank < top_k);
            pool.truncate(kept);
        }
        if cut_p {
            // The share is of what top-k left, whatever min-p drops.
            let weight = |c: &Candidate| f64::from(log_weight(c).exp());
            let enough = f64::from(top_p) * pool.iter().map(weight).sum::<f64>();
            pool.retain(probable);
            let mut sum = 0.0;
            let kept = rank_while(&mut pool, |_, candidate| {
                let keep = sum < enough;
                sum += weight(&candidate);
                keep
            });
            pool.truncate(kept);
        } else {
            pool.retain(probable);
        }
        pool
    }

    /// The logits after penalties, then bias: a bias is exactly what the caller asked for.
    fn adjusted<'a>(&self, logits: &'a [f32], history: &[u32]) -> Cow<'a, [f32]> {
        let o = &self.options;
        let penalised =
            o.repetition_penalty != 1.0 || o.frequency_penalty != 0.0 || o.presence_penalty != 0.0;
        let mut logits = Cow::Borrowed(logits);
        if penalised && !history.is_empty() {
            let window = if o.penalty_window == 0 { history.len() } else { o.penalty_window };
            let recent = &history[history.len().saturating_sub(window)..];
            let mut counts = vec![0u32; logits.len()];
            for &id in recent {
                if let Some(count) = counts.get_mut(id as usize) {
                    *count += 1;
                }
            }
            for (logit, &count) in logits.to_mut().iter_mut().zip(&counts) {
                if count > 0 {
                    *logit = self.penalised(*logit, count);
                }
            }
        }
        for &(id, bias) in &o.logit_bias {
            if let Some(logit) = logits.to_mut().get_mut(id as usize) {
                *logit += bias;
            }
        }
        logits
    }

    fn penalised(&self, logit: f32, count: u32) -> f32 {
        let o = &self.options;
        let repeated =
            if logit > 0.0 { logit / o.repetition_penalty } else { logit * o.repetition_penalty };
        repeated - count as f32 * o.frequency_penalty - o.presence_penalty
    }
}
