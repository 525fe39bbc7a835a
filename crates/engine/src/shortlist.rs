//! The start of a row of logits in rank order: what drawing a token takes, as a rule.
//!
//! A card can rank a row where it lies, and copying these few candidates to the host costs nothing, while a
//! whole row is half a megabyte. [`Sampler::sample_shortlist`](crate::Sampler::sample_shortlist) draws from
//! one the token that it would draw from the row, or says that it cannot know.

use crate::ranking::{Candidate, best, candidates, rank_while};

/// The best tokens of a row of logits.
#[derive(Clone, Debug, PartialEq)]
pub struct Shortlist {
    /// In rank order.
    pub(crate) ranked: Vec<Candidate>,
    /// Logits of the row.
    pub(crate) vocab: usize,
    /// Finite logits that rank behind the last one listed.
    pub(crate) left_out: usize,
    /// At which the row was summed.
    pub(crate) temperature: f32,
    pub(crate) sum: f64,
}

impl Shortlist {
    /// How many tokens one holds where a row has so many finite logits. More than 256 tokens with a
    /// twentieth of the best one's probability, or in 95 % of it, are seldom; two KiB are copied in no time.
    pub const LONGEST: usize = 256;

    /// How far the sum may be off, relative to it. A backend may take its own exponential, and add in any
    /// order.
    pub const SUM_ERROR: f64 = 1.0 / 65536.0;

    /// The shortlist of a row of `vocab` logits of which all are finite: `ids` and `logits` in rank order,
    /// which is from the largest logit on, lower ids first among equals, and the sum over the whole row of
    /// `exp((logit - largest) / temperature)`, which is of no account if the temperature is 0.
    pub fn new(ids: &[u32], logits: &[f32], vocab: usize, temperature: f32, sum: f32) -> Shortlist {
        let ranked: Vec<Candidate> =
            ids.iter().zip(logits).map(|(&id, &logit)| Candidate { id, logit }).collect();
        let left_out = vocab.saturating_sub(ranked.len());
        Shortlist { ranked, vocab, left_out, temperature, sum: f64::from(sum) }
    }

    /// The shortlist of a row, of `longest` tokens at most: what every other way to one must lead to.
    pub fn of(logits: &[f32], longest: usize, temperature: f32) -> Shortlist {
        let mut pool: Vec<Candidate> = candidates(logits).collect();
        let kept = rank_while(&mut pool, |rank, _| rank < longest);
        let scale = best(logits).map(|best| Scale { largest: best.logit, temperature });
        let sum = scale.map_or(0.0, |scale| pool.iter().map(|c| scale.weight(c)).sum());
        let left_out = pool.len() - kept;
        pool.truncate(kept);
        Shortlist { ranked: pool, vocab: logits.len(), left_out, temperature, sum }
    }

    /// Its tokens with their logits, in rank order.
    pub fn tokens(&self) -> impl ExactSizeIterator<Item = (u32, f32)> {
        self.ranked.iter().map(|candidate| (candidate.id, candidate.logit))
    }

    /// The sum of all weights of the row, relative to the largest.
    pub fn sum(&self) -> f64 {
        self.sum
    }
}

/// What logits weigh: the largest 1, the others less.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Scale {
    pub(crate) largest: f32,
    /// Not 0, or nothing is weighed.
    pub(crate) temperature: f32,
}

impl Scale {
    /// `ln` of a candidate's weight.
    pub(crate) fn log_weight(self, candidate: &Candidate) -> f32 {
        (candidate.logit - self.largest) / self.temperature
    }

    pub(crate) fn weight(self, candidate: &Candidate) -> f64 {
        f64::from(self.log_weight(candidate).exp())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shortlist_is_ranked_and_knows_what_it_leaves_out() {
        let logits = [1.0, f32::NAN, 3.0, 3.0, f32::INFINITY, -0.0, 0.0, f32::NEG_INFINITY];
        let list = Shortlist::of(&logits, 4, 2.0);
        assert_eq!(list.tokens().collect::<Vec<_>>(), [(2, 3.0), (3, 3.0), (0, 1.0), (5, -0.0)]);
        assert_eq!((list.vocab, list.left_out), (8, 1));
        let sum = 2.0 + (-1f64).exp() + 2.0 * (-1.5f64).exp();
        assert!((list.sum() - sum).abs() < 1e-6);
        let all = Shortlist::of(&logits, 9, 2.0);
        assert_eq!((all.tokens().len(), all.left_out), (5, 0));
        let none = Shortlist::of(&[f32::NAN], 4, 1.0);
        assert_eq!((none.tokens().len(), none.left_out, none.sum()), (0, 0, 0.0));
    }

    #[test]
    fn a_backend_says_the_same_in_other_words() {
        let logits: Vec<f32> = (0..300).map(|i| (i as f32 * 0.7).sin() * 9.0).collect();
        let list = Shortlist::of(&logits, Shortlist::LONGEST, 1.0);
        let (ids, values): (Vec<u32>, Vec<f32>) = list.tokens().unzip();
        let told = Shortlist::new(&ids, &values, 300, 1.0, list.sum() as f32);
        assert!((told.sum() / list.sum() - 1.0).abs() < 1e-6);
        assert_eq!(Shortlist { sum: list.sum, ..told }, list);
    }
}
