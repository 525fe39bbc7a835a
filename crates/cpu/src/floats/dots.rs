//! Dot products of rows with vectors.
//!
//! Each result is computed in one fixed order: sixteen partial sums over the columns, then a fixed
//! tree. How many rows and vectors are taken together changes speed only.

use super::lanes::{Floats, LANES, Lanes};

/// Rows in some encoding, one after another.
pub trait Rows: Copy {
    /// The first `at` values, and the others.
    fn split(self, at: usize) -> (Self, Self);
    /// Values `16 i ..`.
    fn lanes<S: Floats>(self, s: S, i: usize) -> S::V;
    /// One value.
    fn value(self, i: usize) -> f32;
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
    fn value(self, i: usize) -> f32 {
        self[i]
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
    fn value(self, i: usize) -> f32 {
        ds4_quant::f16_decode(u16::from_le_bytes([self.0[2 * i], self.0[2 * i + 1]]))
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
    fn value(self, i: usize) -> f32 {
        ds4_quant::bf16_decode(u16::from_le_bytes([self.0[2 * i], self.0[2 * i + 1]]))
    }
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
    let mut totals = [[0.0; R]; N];
    for ((totals, sums), x) in totals.iter_mut().zip(sums).zip(x) {
        for ((total, sums), row) in totals.iter_mut().zip(sums).zip(row) {
            let mut lanes = [0.0; LANES];
            s.store(sums, &mut lanes);
            // What is left of the row goes to the first lanes.
            for (i, sum) in (width / LANES * LANES..width).zip(&mut lanes) {
                *sum = row.value(i).mul_add(x[i], *sum);
            }
            *total = tree(lanes);
        }
    }
    totals
}

/// The sum of all: `i` and `i + 8`, then `i` and `i + 4`, then 2, then 1.
#[inline(always)]
fn tree(mut lanes: Lanes) -> f32 {
    for half in [8, 4, 2, 1] {
        for lane in 0..half {
            lanes[lane] += lanes[lane + half];
        }
    }
    lanes[0]
}
