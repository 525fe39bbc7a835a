//! Logits in order: the best, the best few, and what they mean as log probabilities.
//!
//! Logits that are not finite are no candidates, and among equals the lower id comes first, so every
//! order here is total. It knows nothing of chance.

/// A token that may be chosen.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Candidate {
    pub(crate) id: u32,
    pub(crate) logit: f32,
}

/// A token with its logarithm of probability, before any sampling option.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TokenLogprob {
    /// The token.
    pub id: u32,
    /// Its logit.
    pub logit: f32,
    /// `ln p`.
    pub logprob: f64,
}

/// The token with the largest logit, the lowest id among equals; `None` if no logit is finite.
pub fn argmax(logits: &[f32]) -> Option<u32> {
    best(logits).map(|candidate| candidate.id)
}

/// `ln p` of one token; `None` if it is not in the vocabulary or its logit is not finite.
pub fn logprob(logits: &[f32], id: u32) -> Option<f64> {
    let logit = *logits.get(id as usize)?;
    let (max, log_sum) = normaliser(logits)?;
    logit.is_finite().then(|| f64::from(logit) - max - log_sum)
}

/// The `k` most probable tokens, best first.
pub fn top_logprobs(logits: &[f32], k: usize) -> Vec<TokenLogprob> {
    let Some((max, log_sum)) = normaliser(logits) else { return Vec::new() };
    let mut pool: Vec<Candidate> = candidates(logits).collect();
    let kept = rank_while(&mut pool, |rank, _| rank < k);
    let with_logprob = |&Candidate { id, logit }: &Candidate| TokenLogprob {
        id,
        logit,
        logprob: f64::from(logit) - max - log_sum,
    };
    pool[..kept].iter().map(with_logprob).collect()
}

/// Every finite logit, in the order of ids.
pub(crate) fn candidates(logits: &[f32]) -> impl Iterator<Item = Candidate> {
    (0u32..).zip(logits).filter(|(_, l)| l.is_finite()).map(|(id, &logit)| Candidate { id, logit })
}

/// The first candidate in rank order. Looked for after every token, so each block gives its largest
/// logit first, and only the block that has the largest of all is searched for it.
pub(crate) fn best(logits: &[f32]) -> Option<Candidate> {
    const BLOCK: usize = 1024;
    let (mut start, mut logit) = (0, f32::NEG_INFINITY);
    for (number, block) in logits.chunks(BLOCK).enumerate() {
        let found = largest(block);
        if found > logit {
            (start, logit) = (number * BLOCK, found);
        }
    }
    if logit == f32::NEG_INFINITY {
        return None;
    }
    let id = start + logits[start..].iter().position(|&x| x == logit)?;
    Some(Candidate { id: id as u32, logit: logits[id] })
}

/// The largest finite value, in lanes that do not wait for one another; minus infinity if there is none.
fn largest(values: &[f32]) -> f32 {
    const LANES: usize = 16;
    let larger = |most: f32, x: f32| {
        let x = if x.abs() < f32::INFINITY { x } else { f32::NEG_INFINITY };
        if x > most { x } else { most }
    };
    let mut lanes = [f32::NEG_INFINITY; LANES];
    let (blocks, rest) = values.as_chunks::<LANES>();
    for block in blocks {
        for (lane, &x) in lanes.iter_mut().zip(block) {
            *lane = larger(*lane, x);
        }
    }
    lanes.iter().chain(rest).fold(f32::NEG_INFINITY, |most, &x| larger(most, x))
}

/// Ranks candidates from the best on for as long as `keep(rank, candidate)` holds, and returns how
/// many that are. They are the start of `pool`, in order; what follows is in no order.
///
/// Few are kept of many as a rule, so it orders a small block first and eight times more each time
/// that was not enough, instead of sorting a vocabulary.
pub(crate) fn rank_while(
    pool: &mut [Candidate],
    mut keep: impl FnMut(usize, Candidate) -> bool,
) -> usize {
    let mut rank = 0;
    let mut block = 64;
    while rank < pool.len() {
        let rest = &mut pool[rank..];
        let ordered = block.min(rest.len());
        if ordered < rest.len() {
            rest.select_nth_unstable_by_key(ordered, rank_key);
        }
        rest[..ordered].sort_unstable_by_key(rank_key);
        for &candidate in &rest[..ordered] {
            if !keep(rank, candidate) {
                return rank;
            }
            rank += 1;
        }
        block *= 8;
    }
    rank
}

/// Ascending in rank order: the logit's bits, turned so that larger logits have smaller keys, then
/// the id. Integers compare faster than floats with a tie rule.
fn rank_key(candidate: &Candidate) -> u64 {
    // Adding zero makes the two zeros one.
    let bits = (candidate.logit + 0.0).to_bits();
    let descending = if bits >> 31 == 0 { !bits & 0x7fff_ffff } else { bits };
    u64::from(descending) << 32 | u64::from(candidate.id)
}

/// The largest finite logit, and `ln` of the sum of `exp(logit - largest)`: apart, as their sum would
/// round away what tells large logits from each other.
fn normaliser(logits: &[f32]) -> Option<(f64, f64)> {
    let max = f64::from(best(logits)?.logit);
    let sum: f64 = candidates(logits).map(|c| (f64::from(c.logit) - max).exp()).sum();
    Some((max, sum.ln()))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const NAN: f32 = f32::NAN;
    const INF: f32 = f32::INFINITY;

    #[test]
    fn argmax_is_the_lowest_id_among_finite_equals() {
        for (logits, wanted) in [
            (&[1.0, 3.0, 3.0, 2.0][..], Some(1)),
            (&[NAN, -5.0, INF, -5.0, -INF], Some(1)),
            (&[0.0, -0.0], Some(0)),
            (&[-0.0, 0.0], Some(0)),
            (&[NAN, INF, -INF], None),
            (&[], None),
        ] {
            assert_eq!(argmax(logits), wanted, "{logits:?}");
            // The same among enough others to fill lanes and blocks.
            for others in [35, 1022, 2000] {
                let low = vec![f32::MIN; others];
                let long = [&low[..], logits, &low[..]].concat();
                let wanted = wanted.map_or(0, |id| others as u32 + id);
                assert_eq!(argmax(&long), Some(wanted), "{logits:?}");
            }
        }
    }

    #[test]
    fn logprobs_of_a_known_distribution() {
        let logits = [1f32.ln(), 3f32.ln(), -INF, 4f32.ln(), NAN];
        let close = |got: f64, p: f64| assert!((got.exp() - p).abs() < 1e-7, "{got} is not ln {p}");
        close(logprob(&logits, 0).unwrap(), 0.125);
        close(logprob(&logits, 3).unwrap(), 0.5);
        for id in [2, 4, 5, u32::MAX] {
            assert_eq!(logprob(&logits, id), None);
        }
        let top = top_logprobs(&logits, 2);
        assert_eq!(top.iter().map(|t| t.id).collect::<Vec<_>>(), [3, 1]);
        close(top[1].logprob, 0.375);
        assert_eq!(top_logprobs(&logits, 99).len(), 3);
        assert_eq!(top_logprobs(&logits, 0), []);
        assert_eq!(top_logprobs(&[NAN], 3), []);
    }

    #[test]
    fn logprobs_of_extreme_logits_are_finite() {
        let logits = [f32::MAX, f32::MIN, f32::MAX];
        assert!((logprob(&logits, 0).unwrap() - 0.5f64.ln()).abs() < 1e-12);
        assert!(logprob(&logits, 1).unwrap() < -1e38);
    }

    proptest! {
        #[test]
        fn ranking_a_part_is_the_start_of_ranking_all(
            // Few distinct values, so that ties cross every block border.
            logits in prop::collection::vec(
                prop_oneof![(-8i8..8).prop_map(f32::from), Just(-0.0), Just(f32::MIN), Just(f32::MAX)],
                0..2000,
            ),
            kept in 0usize..2100,
        ) {
            let mut all: Vec<Candidate> = candidates(&logits).collect();
            all.sort_by(|a, b| b.logit.partial_cmp(&a.logit).unwrap().then(a.id.cmp(&b.id)));
            let mut pool: Vec<Candidate> = candidates(&logits).collect();
            let n = rank_while(&mut pool, |rank, _| rank < kept);
            prop_assert_eq!(n, kept.min(logits.len()));
            prop_assert_eq!(&pool[..n], &all[..n]);
        }
    }
}
