//! Dot products of rows with vectors.
//!
//! Each result is computed in one fixed order: sixteen partial sums over the columns, then a fixed
//! tree. How many rows and vectors are taken together changes speed only.

use super::lanes::{Floats, LANES};

/// Rows in some encoding, one after another.
pub trait Rows: Copy {
    /// The first `at` values, and the others.
    fn split(self, at: usize) -> (Self, Self);
    /// Values `16 i ..`.
    fn lanes<S: Floats>(self, s: S, i: usize) -> S::V;
    /// What is left after all whole sixteens, and zeros.
    fn last_lanes<S: Floats>(self, s: S) -> S::V;
}

impl Rows for &[f32] {
    #[inline(always)]
    fn split(self, at: usize) -> (Self, Self) {
        self.split_at(at)
    }

    #[inline(always)]
    fn lanes<S: Floats>(self, s: S, i: usize) -> S::V {
        s.load(&self.as_chunks().0[i])
    }

    #[inline(always)]
    fn last_lanes<S: Floats>(self, s: S) -> S::V {
        s.load(&padded(self.as_chunks::<LANES>().1))
    }
}

/// IEEE halves, little-endian.
#[derive(Clone, Copy)]
pub struct Halves<'a>(pub &'a [u8]);

impl Rows for Halves<'_> {
    #[inline(always)]
    fn split(self, at: usize) -> (Self, Self) {
        let (head, tail) = self.0.split_at(2 * at);
        (Halves(head), Halves(tail))
    }

    #[inline(always)]
    fn lanes<S: Floats>(self, s: S, i: usize) -> S::V {
        s.halves(&self.0.as_chunks().0[i])
    }

    #[inline(always)]
    fn last_lanes<S: Floats>(self, s: S) -> S::V {
        s.halves(&padded(self.0.as_chunks::<{ 2 * LANES }>().1))
    }
}

/// Upper halves of floats, little-endian.
#[derive(Clone, Copy)]
pub struct Bfloats<'a>(pub &'a [u8]);

impl Rows for Bfloats<'_> {
    #[inline(always)]
    fn split(self, at: usize) -> (Self, Self) {
        let (head, tail) = self.0.split_at(2 * at);
        (Bfloats(head), Bfloats(tail))
    }

    #[inline(always)]
    fn lanes<S: Floats>(self, s: S, i: usize) -> S::V {
        s.bfloats(&self.0.as_chunks().0[i])
    }

    #[inline(always)]
    fn last_lanes<S: Floats>(self, s: S) -> S::V {
        s.bfloats(&padded(self.0.as_chunks::<{ 2 * LANES }>().1))
    }
}

fn padded<T: Copy + Default, const N: usize>(rest: &[T]) -> [T; N] {
    let mut padded = [T::default(); N];
    padded[..rest.len()].copy_from_slice(rest);
    padded
}

/// `out[n][i]` becomes the product of row `i` with `x[n]`, whose length is the rows' width. `R` rows
/// are taken at a time.
#[inline(always)]
pub fn dots<S: Floats, W: Rows, const R: usize, const N: usize>(
    s: S,
    mut rows: W,
    x: [&[f32]; N],
    out: &mut [&mut [f32]; N],
) {
    let (width, count) = (x[0].len(), out[0].len());
    let mut done = 0;
    while done + R <= count {
        let sums = block::<S, W, R, N>(s, rows, x);
        for (out, sums) in out.iter_mut().zip(sums) {
            out[done..done + R].copy_from_slice(&sums);
        }
        rows = rows.split(R * width).1;
        done += R;
    }
    for i in done..count {
        let sums = block::<S, W, 1, N>(s, rows, x);
        for (out, [sum]) in out.iter_mut().zip(sums) {
            out[i] = sum;
        }
        rows = rows.split(width).1;
    }
}

/// The products of the first `R` rows with `N` vectors.
#[inline(always)]
fn block<S: Floats, W: Rows, const R: usize, const N: usize>(
    s: S,
    rows: W,
    x: [&[f32]; N],
) -> [[f32; R]; N] {
    let width = x[0].len();
    let mut row = [rows; R];
    for (r, row) in row.iter_mut().enumerate() {
        *row = rows.split(r * width).1.split(width).0;
    }
    let mut sums = [[s.splat(0.0); R]; N];
    for i in 0..width / LANES {
        let weights: [S::V; R] = std::array::from_fn(|r| row[r].lanes(s, i));
        for (x, sums) in x.iter().zip(&mut sums) {
            let x = s.load(&x.as_chunks().0[i]);
            for (sum, weights) in sums.iter_mut().zip(weights) {
                *sum = s.fma(weights, x, *sum);
            }
        }
    }
    if !width.is_multiple_of(LANES) {
        let weights: [S::V; R] = std::array::from_fn(|r| row[r].last_lanes(s));
        for (x, sums) in x.iter().zip(&mut sums) {
            let x = x.last_lanes(s);
            for (sum, weights) in sums.iter_mut().zip(weights) {
                *sum = s.fma(weights, x, *sum);
            }
        }
    }
    let mut totals = [[0.0; R]; N];
    for (totals, sums) in totals.iter_mut().zip(sums) {
        for (total, sum) in totals.iter_mut().zip(sums) {
            *total = s.total(sum);
        }
    }
    totals
}
