//! The choice of the next token from a row of logits.
//!
//! Order: penalties, logit bias, top-k, temperature, min-p and top-p together, draw. A sampler holds
//! options and nothing else: the draw is a function of the seed and the position, so nothing that
//! happens to a session changes what it would have said. It knows nothing of sessions.
//!
//! There is one definition, of a whole row ([`Sampler::sample`]). A shortlist gives the same token or none
//! ([`Sampler::sample_shortlist`]): where what the filters leave is known to lie in the list, the same code
//! goes over the same candidates in the same order. Top-p alone needs a sum over the row, of which a shortlist
//! knows an approximation; then every number of kept candidates that it allows must lead to the same token.

use std::borrow::Cow;

use crate::{
    Want,
    draw::uniform,
    ranking::{Candidate, best, candidates, rank_while},
    shortlist::{Scale, Shortlist},
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

    /// A sampler that takes the most probable token always, of those that are not banned.
    pub fn greedy(banned: impl IntoIterator<Item = u32>) -> Sampler {
        let logit_bias = banned.into_iter().map(|id| (id, f32::NEG_INFINITY)).collect();
        let options = SamplerOptions { temperature: 0.0, logit_bias, ..SamplerOptions::default() };
        Sampler { options }
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
        if self.options.temperature == 0.0 {
            return Some(best.id);
        }
        let scale = self.scale(best);
        let pool = self.filtered(candidates(&logits), logits.len(), scale);
        // Only rounding draws none.
        Some(self.draw(&pool, scale, position).unwrap_or(best.id))
    }

    /// What a step must give of the row that the next token will be drawn from: its shortlist where that
    /// is enough as a rule.
    pub fn want(&self) -> Want {
        let SamplerOptions { temperature, top_k, min_p, ref logit_bias, .. } = self.options;
        let enough = match top_k {
            _ if !self.takes_shortlists() => false,
            _ if temperature == 0.0 => true,
            0 if self.cuts_by_top_p() => logit_bias.is_empty(),
            0 => min_p > 0.0,
            some => some.saturating_add(logit_bias.len()) <= Shortlist::LONGEST,
        };
        if enough { Want::Shortlist { temperature } } else { Want::Last }
    }

    /// The token that [`Sampler::sample`] would give for `position` and the row that this is the
    /// shortlist of. `None` if the list is not enough to know.
    pub fn sample_shortlist(&self, list: &Shortlist, position: u64) -> Option<u32> {
        if !self.takes_shortlists() {
            return None;
        }
        let SamplerOptions { temperature, top_k, ref logit_bias, .. } = self.options;
        let banned = |c: &Candidate| logit_bias.iter().any(|&(id, _)| id == c.id);
        let mut ranked: Vec<Candidate> =
            list.ranked.iter().filter(|c| !banned(c)).copied().collect();
        let best = *ranked.first()?;
        if temperature == 0.0 {
            return Some(best.id);
        }
        let scale = self.scale(best);
        let probable = ranked.partition_point(self.probable(scale));
        let cuts_by_top_k = top_k > 0 && top_k < list.vocab;
        let holds_all_that_count = match cuts_by_top_k {
            _ if list.left_out == 0 => true,
            true => top_k <= ranked.len(),
            false if self.cuts_by_top_p() => {
                return self.draw_by_share(list, &ranked, probable, scale, position);
            }
            false => probable < ranked.len(),
        };
        if !holds_all_that_count {
            return None;
        }
        // The order in which a row is gone through, so that sums have the same bits.
        ranked.sort_unstable_by_key(|candidate| candidate.id);
        let pool = self.filtered(ranked.into_iter(), list.vocab, scale);
        Some(self.draw(&pool, scale, position).unwrap_or(best.id))
    }

    /// Draws where top-p cuts a row of which the sum is known roughly. The cut comes after some number of
    /// candidates; if any number that it may be leads to the same token, that is the one.
    fn draw_by_share(
        &self,
        list: &Shortlist,
        ranked: &[Candidate],
        probable: usize,
        scale: Scale,
        position: u64,
    ) -> Option<u32> {
        // With a ban the sum would be of too many, at another temperature of something else.
        if !self.options.logit_bias.is_empty() || list.temperature != scale.temperature {
            return None;
        }
        let share = f64::from(self.options.top_p);
        let [fewest, most] = [1.0 - Shortlist::SUM_ERROR, 1.0 + Shortlist::SUM_ERROR]
            .map(|off| reaching(&ranked[..probable], share * list.sum * off, scale));
        // Where all are kept, nobody knows whether the next one would be.
        if most == ranked.len() {
            return None;
        }
        let token = |kept: usize| {
            self.draw(&ranked[..kept], scale, position).or(ranked.first().map(|best| best.id))
        };
        let first = token(fewest);
        (fewest..=most).all(|kept| token(kept) == first).then_some(first)?
    }

    /// Whether what it does to logits can be done to those of a shortlist alone: nothing, or bans.
    fn takes_shortlists(&self) -> bool {
        !self.penalises() && self.options.logit_bias.iter().all(|&(_, b)| b == f32::NEG_INFINITY)
    }

    fn penalises(&self) -> bool {
        let o = &self.options;
        o.repetition_penalty != 1.0 || o.frequency_penalty != 0.0 || o.presence_penalty != 0.0
    }

    fn cuts_by_top_p(&self) -> bool {
        self.options.top_p > 0.0 && self.options.top_p < 1.0
    }

    fn scale(&self, best: Candidate) -> Scale {
        Scale { largest: best.logit, temperature: self.options.temperature }
    }

    /// Whether min-p leaves a candidate.
    fn probable(&self, scale: Scale) -> impl Fn(&Candidate) -> bool {
        let lowest = self.options.min_p.ln();
        move |candidate| scale.log_weight(candidate) >= lowest
    }

    /// One of the candidates, by their weights in their order. `None` by rounding only.
    fn draw(&self, pool: &[Candidate], scale: Scale, position: u64) -> Option<u32> {
        let weight = |c: &Candidate| scale.weight(c);
        let mut left = uniform(self.options.seed, position) * pool.iter().map(weight).sum::<f64>();
        for candidate in pool {
            let weight = weight(candidate);
            if left < weight {
                return Some(candidate.id);
            }
            left -= weight;
        }
        None
    }

    /// The candidates that top-k, min-p and top-p leave of all in the order of ids: never none, as the
    /// best passes them all.
    fn filtered(
        &self,
        all: impl Iterator<Item = Candidate>,
        vocab: usize,
        scale: Scale,
    ) -> Vec<Candidate> {
        let SamplerOptions { top_k, top_p, .. } = self.options;
        let probable = self.probable(scale);
        let cut_k = top_k > 0 && top_k < vocab;
        let cut_p = self.cuts_by_top_p();
        if !cut_k && !cut_p {
            return all.filter(probable).collect();
        }
        let mut pool: Vec<Candidate> = all.collect();
        if cut_k {
            let kept = rank_while(&mut pool, |rank, _| rank < top_k);
            pool.truncate(kept);
        }
        if cut_p {
            // The share is of what top-k left, whatever min-p drops.
            let enough = f64::from(top_p) * pool.iter().map(|c| scale.weight(c)).sum::<f64>();
            pool.retain(probable);
            let mut sum = 0.0;
            let kept = rank_while(&mut pool, |_, candidate| {
                let keep = sum < enough;
                sum += scale.weight(&candidate);
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
        let mut logits = Cow::Borrowed(logits);
        if self.penalises() && !history.is_empty() {
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

/// How many of these candidates are kept until their weights reach `enough`.
fn reaching(ranked: &[Candidate], enough: f64, scale: Scale) -> usize {
    let mut sum = 0.0;
    let keep = |candidate: &&Candidate| {
        let keep = sum < enough;
        sum += scale.weight(candidate);
        keep
    };
    ranked.iter().take_while(keep).count()
}
