//! The context lengths at which a benchmark stops to decode.

/// How one frontier leads to the next.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Stride {
    /// So many tokens further.
    Add(usize),
    /// So many times as far, rounded up.
    Multiply(f64),
}

/// From `start` by `stride` up to `most`, which is always the last, whatever the stride.
pub fn frontiers(start: usize, most: usize, stride: Stride) -> Vec<usize> {
    let mut all = Vec::new();
    let mut next = start;
    while next < most {
        all.push(next);
        let further = match stride {
            Stride::Add(tokens) => next.saturating_add(tokens),
            Stride::Multiply(factor) => (next as f64 * factor).ceil() as usize,
        };
        // A stride that leads nowhere must not take forever to get there.
        next = if further > next { further } else { most };
    }
    all.push(most);
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frontiers_end_where_they_were_told_to() {
        for (start, most, stride, wanted) in [
            (2, 8, Stride::Add(2), &[2, 4, 6, 8][..]),
            (2, 7, Stride::Add(2), &[2, 4, 6, 7]),
            (2, 20, Stride::Multiply(2.0), &[2, 4, 8, 16, 20]),
            (3, 10, Stride::Multiply(1.5), &[3, 5, 8, 10]),
            (5, 5, Stride::Add(1), &[5]),
            (9, 5, Stride::Add(1), &[5]),
            (2, 9, Stride::Add(0), &[2, 9]),
            (2, 9, Stride::Multiply(0.5), &[2, 9]),
            (2, usize::MAX, Stride::Add(usize::MAX), &[2, usize::MAX]),
        ] {
            assert_eq!(frontiers(start, most, stride), wanted, "{start} {most} {stride:?}");
        }
    }
}
