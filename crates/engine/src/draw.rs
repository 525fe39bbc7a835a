//! Random numbers without a generator: a draw is a function of a seed and a position.
//!
//! With no state to carry, a session that was rewound, forked, restored or batched with others draws
//! what it would have drawn otherwise. It knows nothing of logits.

/// The odd constant that splitmix64 steps by: 2^64 divided by the golden ratio.
const STEP: u64 = 0x9e37_79b9_7f4a_7c15;

/// A number in `[0, 1)` with 53 random bits.
///
/// The output of splitmix64 at step `position`, started from the hashed seed: small and
/// neighbouring seeds are as unrelated as any others.
pub(crate) fn uniform(seed: u64, position: u64) -> f64 {
    let start = mix(seed.wrapping_add(STEP));
    let bits = mix(start.wrapping_add(position.wrapping_add(1).wrapping_mul(STEP)));
    (bits >> 11) as f64 / (1u64 << 53) as f64
}

/// The finaliser of splitmix64: a bijection in which every input bit changes half of the output.
fn mix(mut x: u64) -> u64 {
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_finaliser_gives_the_published_sequence() {
        // splitmix64 seeded with 1234567.
        let first: Vec<u64> =
            (1..=3).map(|step| mix(1_234_567u64.wrapping_add(STEP.wrapping_mul(step)))).collect();
        assert_eq!(
            first,
            [6_457_827_717_110_365_317, 3_203_168_211_198_807_973, 9_817_491_932_198_370_423]
        );
    }

    /// Cells of equal probability, filled by `samples` draws; chi-square with 255 degrees of freedom
    /// exceeds 330 once in a thousand.
    fn check_flat(draw: impl Fn(u64) -> f64) {
        let (cells, samples) = (256, 65_536);
        let mut counts = vec![0u32; cells];
        for i in 0..samples {
            let u = draw(i);
            assert!((0.0..1.0).contains(&u));
            counts[(u * cells as f64) as usize] += 1;
        }
        let expected = samples as f64 / cells as f64;
        let chi: f64 = counts.iter().map(|&n| (f64::from(n) - expected).powi(2) / expected).sum();
        assert!(chi < 330.0, "chi-square {chi}");
    }

    #[test]
    fn draws_are_flat_along_positions_and_along_seeds() {
        check_flat(|position| uniform(0, position));
        check_flat(|position| uniform(u64::MAX, position));
        check_flat(|seed| uniform(seed, 0));
        check_flat(|seed| uniform(seed, 100_000));
        check_flat(|i| uniform(i, i));
    }

    #[test]
    fn neighbouring_seeds_are_not_correlated() {
        for position in [0, 1, 77] {
            let n = 20_000;
            let covariance: f64 = (0..n)
                .map(|s| (uniform(s, position) - 0.5) * (uniform(s + 1, position) - 0.5))
                .sum::<f64>()
                / n as f64;
            // Standard deviation of this mean: 1/12 / sqrt(n) = 0.0006.
            assert!(covariance.abs() < 0.0025, "covariance {covariance}");
        }
    }
}
