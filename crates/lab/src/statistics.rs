//! Few numbers said honestly: the middle one, the extremes, and all of them.

/// What several runs of one measurement gave.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Summary {
    /// Every run, in the order they were made.
    pub runs: Vec<f64>,
}

impl Summary {
    /// A summary of these runs.
    pub fn of(runs: impl IntoIterator<Item = f64>) -> Summary {
        Summary { runs: runs.into_iter().collect() }
    }

    /// The middle run, or the mean of the middle two; 0 if there were none.
    pub fn median(&self) -> f64 {
        let sorted = self.sorted();
        let middle = sorted.len() / 2;
        let upper = sorted.get(middle).copied().unwrap_or(0.0);
        match sorted.len() % 2 {
            1 => upper,
            _ => sorted.get(middle.wrapping_sub(1)).map_or(upper, |lower| (lower + upper) / 2.0),
        }
    }

    /// The smallest; 0 if there were none.
    pub fn min(&self) -> f64 {
        self.sorted().first().copied().unwrap_or(0.0)
    }

    /// The largest; 0 if there were none.
    pub fn max(&self) -> f64 {
        self.sorted().last().copied().unwrap_or(0.0)
    }

    /// From the smallest to the largest, as a part of the median.
    pub fn spread(&self) -> f64 {
        ratio(self.max() - self.min(), self.median())
    }

    fn sorted(&self) -> Vec<f64> {
        sorted(&self.runs)
    }
}

/// The value that `percent` of all values do not exceed; 0 if there are none.
pub fn percentile(values: &[f64], percent: f64) -> f64 {
    let sorted = sorted(values);
    let rank = (percent / 100.0 * sorted.len() as f64).ceil() as usize;
    let last = sorted.len().saturating_sub(1);
    sorted.get(rank.saturating_sub(1).min(last)).copied().unwrap_or(0.0)
}

/// `a / b`, and 0 where there is nothing to divide by.
pub(crate) fn ratio(a: f64, b: f64) -> f64 {
    if b > 0.0 { a / b } else { 0.0 }
}

fn sorted(values: &[f64]) -> Vec<f64> {
    let mut values = values.to_vec();
    values.sort_by(f64::total_cmp);
    values
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians_are_in_the_middle() {
        for (runs, median, min, max) in [
            (&[][..], 0.0, 0.0, 0.0),
            (&[3.0], 3.0, 3.0, 3.0),
            (&[4.0, 1.0], 2.5, 1.0, 4.0),
            (&[9.0, 1.0, 5.0], 5.0, 1.0, 9.0),
            (&[1.0, 100.0, 2.0, 4.0], 3.0, 1.0, 100.0),
        ] {
            let summary = Summary::of(runs.iter().copied());
            assert_eq!((summary.median(), summary.min(), summary.max()), (median, min, max));
            assert_eq!(summary.runs, runs, "the order of the runs is kept");
        }
    }

    #[test]
    fn spread_is_a_part_of_the_median() {
        assert_eq!(Summary::of([9.0, 10.0, 12.0]).spread(), 0.3);
        assert_eq!(Summary::of([7.0]).spread(), 0.0);
        assert_eq!(Summary::default().spread(), 0.0);
    }

    #[test]
    fn percentiles_are_values_that_were_measured() {
        let values: Vec<f64> = (1..=100).rev().map(f64::from).collect();
        for (percent, value) in [(0.0, 1.0), (50.0, 50.0), (99.0, 99.0), (100.0, 100.0)] {
            assert_eq!(percentile(&values, percent), value);
        }
        assert_eq!(percentile(&[5.0, 3.0], 99.0), 5.0);
        assert_eq!(percentile(&[5.0, 3.0], 50.0), 3.0);
        assert_eq!(percentile(&[], 50.0), 0.0);
    }
}
