//! Rotary embedding: pairs of neighbouring dimensions turn with the position.
//!
//! Angles are computed in `f64`: at a million positions an `f32` angle is off by hundredths.

use ds4_model::{Compression, Rope};

/// A rotation: cosine and sine.
pub type Turn = (f32, f32);

/// The frequencies of the two kinds of layer.
pub struct Frequencies {
    window_only: Vec<f64>,
    compressed: Vec<f64>,
}

impl Frequencies {
    /// Those of a model.
    pub fn new(rope: &Rope) -> Frequencies {
        Frequencies {
            window_only: rope.frequencies(Compression::None),
            compressed: rope.frequencies(Compression::Csa),
        }
    }

    /// The frequencies of a layer.
    pub fn of(&self, compression: Compression) -> &[f64] {
        match compression {
            Compression::None => &self.window_only,
            Compression::Csa | Compression::Hca => &self.compressed,
        }
    }
}

/// The rotation of each pair at a position.
pub fn turns(frequencies: &[f64], position: usize) -> impl Iterator<Item = Turn> {
    frequencies.iter().map(move |f| {
        let (sin, cos) = (position as f64 * f).sin_cos();
        (cos as f32, sin as f32)
    })
}

/// Rotates the trailing dimensions of a head.
pub fn rotate(head: &mut [f32], turns: &[Turn]) {
    turn_pairs(head, turns.iter().copied());
}

/// Rotates them back.
pub fn rotate_back(head: &mut [f32], turns: &[Turn]) {
    turn_pairs(head, turns.iter().map(|&(cos, sin)| (cos, -sin)));
}

fn turn_pairs(head: &mut [f32], turns: impl ExactSizeIterator<Item = Turn>) {
    let start = head.len() - 2 * turns.len();
    for ([a, b], (cos, sin)) in head[start..].as_chunks_mut::<2>().0.iter_mut().zip(turns) {
        (*a, *b) = (*a * cos - *b * sin, *a * sin + *b * cos);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn turning_back_undoes_turning_and_leaves_the_leading_dimensions() {
        let turns: Vec<Turn> = turns(&[1.0, 0.01], 1_048_575).collect();
        let start = [3.0, -1.0, 0.5, 2.0, -4.0];
        let mut head = start;
        rotate(&mut head, &turns);
        assert_eq!(head[0], 3.0);
        assert!((head[1] - start[1]).abs() > 0.01);
        rotate_back(&mut head, &turns);
        assert!(head.iter().zip(start).all(|(a, b)| (a - b).abs() < 1e-5));
    }

    /// Cosines and sines from the oracle's table, computed in `f64` by another implementation.
    #[test]
    fn the_last_of_a_million_positions_keeps_its_angle() {
        let frequencies = Frequencies::new(&Rope {
            dims: 64,
            base: 10_000.0,
            compressed_base: 160_000.0,
            factor: 16.0,
            original_context: 65_536.0,
            beta_fast: 32.0,
            beta_slow: 1.0,
        });
        let check = |kind, pair: usize, cos: f64, sin: f64| {
            let turns: Vec<Turn> = turns(frequencies.of(kind), 1_048_575).collect();
            let (got_cos, got_sin) = turns[pair];
            assert!((f64::from(got_cos) - cos).abs() < 1e-6, "{kind} {pair}: {got_cos} {cos}");
            assert!((f64::from(got_sin) - sin).abs() < 1e-6, "{kind} {pair}: {got_sin} {sin}");
        };
        for kind in [Compression::None, Compression::Csa, Compression::Hca] {
            check(kind, 0, 0.7880422395289275, -0.6156211730587509);
        }
        check(Compression::None, 9, -0.44508389753704564, -0.8954888743883046);
        check(Compression::None, 17, -0.9794245220214899, 0.20181081651630103);
        check(Compression::None, 31, -0.02884648619925366, 0.999583853528035);
        check(Compression::Csa, 9, 0.9995976735247458, 0.02836355203276944);
        check(Compression::Csa, 17, 0.7846029509204681, 0.6199985559716197);
        check(Compression::Hca, 24, -0.05959289176273365, 0.9982227643423862);
        check(Compression::Hca, 31, 0.8277861961797078, 0.5610436822693312);
    }
}
