//! What comes back from a round: rows of logits, and shortlists of those that nobody wants whole.

use ds4_engine::{ExecError, Feed, Logits, Shortlist, Want};

use super::CudaExecutor;
use crate::{
    fault::Stage,
    round::{self, Row},
    sample,
};

impl CudaExecutor {
    /// Takes over what a round has given: `wanted` are its rows that give something, and which row of
    /// logits or which shortlist of the batch that is.
    pub fn collect(
        &mut self,
        batch: &[Feed<'_>],
        rows: &[Row],
        wanted: &[(usize, usize)],
        logits: &mut Logits,
        shortlists: &mut [Option<Shortlist>],
    ) -> Result<(), ExecError> {
        let vocab = logits.vocab;
        let not_finite = |row: usize| {
            let head = Stage(2 * self.model.weights.layers.len() + 1);
            head.explain(&self.model, rows[row].token, rows[row].position)
        };
        if !wanted.is_empty() {
            self.listed.clear();
        }
        for (place, (&(row, target), words)) in wanted.iter().zip(self.step.lists()).enumerate() {
            let Row { feed, position, .. } = rows[row];
            if is_short(&batch[feed]) {
                let temperature = round::summed_at(batch[feed].want);
                let list = sample::shortlist(words, vocab, temperature);
                shortlists[target] = Some(list.ok_or_else(|| not_finite(row))?);
                self.listed.push((batch[feed].slot, position + 1, place));
            }
        }
        // Few rounds have rows of both kinds, so what lies between is fetched too.
        let is_whole = |&place: &usize| !is_short(&batch[rows[wanted[place].0].feed]);
        let first = (0..wanted.len()).find(is_whole).unwrap_or(0);
        let end = (0..wanted.len()).rfind(is_whole).map_or(first, |last| last + 1);
        let values = self.step.fetch_logits(&self.device, vocab, first..end)?;
        for (place, values) in (first..end).zip(values.chunks_exact(vocab)) {
            let (row, target) = wanted[place];
            if is_whole(&place)
                && !copy_finite(&mut logits.values[target * vocab..][..vocab], values)
            {
                return Err(not_finite(row));
            }
        }
        Ok(())
    }
}

/// Whether a feed is given no more of its last row than a shortlist.
pub fn is_short(feed: &Feed<'_>) -> bool {
    matches!(feed.want, Want::Shortlist { .. })
}

/// Copies a row of logits and says whether all of them are finite. It is done for every token, so
/// nothing in it keeps the compiler from taking many at once.
fn copy_finite(to: &mut [f32], from: &[f32]) -> bool {
    const EXPONENT: u32 = 0x7f80_0000;
    let mut bad = 0;
    for (to, &from) in to.iter_mut().zip(from) {
        bad |= u32::from(from.to_bits() & EXPONENT == EXPONENT);
        *to = from;
    }
    bad == 0
}

#[cfg(test)]
mod tests {
    use super::copy_finite;

    #[test]
    fn logits_arrive_bit_for_bit_and_bad_ones_are_seen() {
        let fine = [0.0, -0.0, 1.5, f32::MAX, f32::MIN, f32::MIN_POSITIVE / 2.0];
        let row: Vec<f32> = fine.iter().copied().cycle().take(1037).collect();
        let mut arrived = vec![7.0; row.len()];
        assert!(copy_finite(&mut arrived, &row));
        assert!(arrived.iter().zip(&row).all(|(a, b)| a.to_bits() == b.to_bits()));
        for bad in [f32::NAN, -f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            for place in [0, 1, 15, 16, 1035, 1036] {
                let mut row = row.clone();
                row[place] = bad;
                assert!(!copy_finite(&mut arrived, &row), "{bad} at {place}");
                assert_eq!(arrived[place].to_bits(), bad.to_bits());
            }
        }
    }
}
