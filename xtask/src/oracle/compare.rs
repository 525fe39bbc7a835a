//! The verdict on a candidate's logits, by the rule of the oracle sets: relative L2 per position, its
//! median and 85th percentile held to the case's tolerance, and the greedy continuation equal as far as
//! the expected choices are clear.

use crate::oracle::set::{Expected, Tolerance};

/// What came of a comparison.
pub struct Verdict {
    pub pass: bool,
    pub line: String,
}

impl Verdict {
    pub fn word(&self) -> &'static str {
        if self.pass { "PASS" } else { "FAIL" }
    }
}

pub fn compare(
    logits: &[Vec<f32>],
    greedy: Option<&[u32]>,
    expected: &Expected,
    tolerance: Tolerance,
) -> Verdict {
    let same_shape = logits.len() == expected.logits.len()
        && logits.iter().zip(&expected.logits).all(|(a, b)| a.len() == b.len());
    if !same_shape || logits.iter().flatten().any(|x| !x.is_finite()) {
        return Verdict { pass: false, line: "wrong shape, or a value that is not finite".into() };
    }
    let mut distances: Vec<f64> = logits
        .iter()
        .zip(&expected.logits)
        .map(|(found, expected)| {
            let off = found.iter().zip(expected).map(|(a, b)| f64::from(*a) - f64::from(*b));
            norm(off) / norm(expected.iter().map(|x| f64::from(*x)))
        })
        .collect();
    distances.sort_by(f64::total_cmp);
    let median = median(&distances);
    let p85 = percentile_85(&distances);
    let mut pass = median <= tolerance.median && p85 <= tolerance.p85;
    let mut line = format!(
        "relative L2 median {median:.2e} of {:.1e}, p85 {p85:.2e} of {:.1e}",
        tolerance.median, tolerance.p85
    );

    if let (Some(greedy), Some((wanted, margins))) = (greedy, &expected.greedy)
        && let Some(last) = expected.logits.last()
    {
        let rms = norm(last.iter().map(|x| f64::from(*x))) / (last.len() as f64).sqrt();
        let clear = tolerance.p85.max(1e-3) * rms * 4.0;
        let required = margins.iter().take_while(|&&margin| f64::from(margin) > clear).count();
        let same = greedy.iter().zip(wanted).take_while(|(a, b)| a == b).count();
        pass &= same >= required.min(greedy.len());
        line += &format!(", greedy {same}/{} (required {required})", wanted.len());
    }
    Verdict { pass, line }
}

fn norm(values: impl Iterator<Item = f64>) -> f64 {
    values.map(|x| x * x).sum::<f64>().sqrt()
}

fn median(sorted: &[f64]) -> f64 {
    let n = sorted.len();
    if n.is_multiple_of(2) { (sorted[n / 2 - 1] + sorted[n / 2]) / 2.0 } else { sorted[n / 2] }
}

/// With few positions the next higher one, with ten or more the next lower one.
fn percentile_85(sorted: &[f64]) -> f64 {
    let place = 0.85 * (sorted.len() - 1) as f64;
    let index = if sorted.len() >= 10 { place.floor() } else { place.ceil() };
    sorted[index as usize]
}
