//! Weighted sums of rows: every column adds its rows in order.

use super::lanes::{Floats, LANES};

/// Rows that are added at a time.
const ROWS: usize = 4;

/// Adds `weights[n][i]` times row `i` to `sums[n]`, whose length is the rows' width.
#[inline(always)]
pub fn accumulate<S: Floats, const N: usize>(
    s: S,
    rows: &[f32],
    weights: [&[f32]; N],
    sums: &mut [&mut [f32]; N],
) {
    let (width, count) = (sums[0].len(), weights[0].len());
    let mut rows = rows;
    let mut done = 0;
    while done + ROWS <= count {
        add::<S, ROWS, N>(s, rows, weights.map(|w| &w[done..done + ROWS]), sums);
        rows = &rows[ROWS * width..];
        done += ROWS;
    }
    for i in done..count {
        add::<S, 1, N>(s, rows, weights.map(|w| &w[i..=i]), sums);
        rows = &rows[width..];
    }
}

#[inline(always)]
fn add<S: Floats, const R: usize, const N: usize>(
    s: S,
    rows: &[f32],
    weights: [&[f32]; N],
    sums: &mut [&mut [f32]; N],
) {
    let width = sums[0].len();
    let row: [&[f32]; R] = std::array::from_fn(|r| &rows[r * width..(r + 1) * width]);
    let factors: [[S::V; R]; N] =
        std::array::from_fn(|n| std::array::from_fn(|r| s.splat(weights[n][r])));
    for i in 0..width / LANES {
        let values: [S::V; R] = std::array::from_fn(|r| s.load(&row[r].as_chunks().0[i]));
        for (sum, factors) in sums.iter_mut().zip(&factors) {
            let lanes = &mut sum.as_chunks_mut().0[i];
            let mut total = s.load(lanes);
            for (&factor, &value) in factors.iter().zip(&values) {
                total = s.fma(factor, value, total);
            }
            s.store(total, lanes);
        }
    }
    for i in width / LANES * LANES..width {
        for (sum, weights) in sums.iter_mut().zip(weights) {
            for (row, weight) in row.iter().zip(weights) {
                sum[i] = weight.mul_add(row[i], sum[i]);
            }
        }
    }
}
