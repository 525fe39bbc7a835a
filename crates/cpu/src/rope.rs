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

    #[test]
    fn a_million_positions_keep_their_angle() {
        let (cos, sin) = turns(&[0.1], 1_048_575).next().unwrap();
        let exact = 104_857.5_f64;
        assert!((f64::from(cos) - exact.cos()).abs() < 1e-6);
        assert!((f64::from(sin) - exact.sin()).abs() < 1e-6);
    }
}
