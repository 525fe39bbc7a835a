//! The two inner loops of everything: dot products, and weighted sums of rows.
//!
//! Each result is computed in one fixed order: sixteen partial sums over the columns, then a fixed
//! tree, with a multiplication and an addition that round separately. The same source is compiled
//! for several instruction sets, and since none of them may reorder or fuse, all give the same bits.

use std::sync::OnceLock;

/// Partial sums of a dot product.
const LANES: usize = 16;

type Dots = unsafe fn(&[f32], &[f32], &mut [f32]);
type Accumulate = unsafe fn(&[f32], &[f32], &mut [f32]);

struct Kernels {
    dots: Dots,
    accumulate: Accumulate,
}

/// `out[i]` becomes the dot product of row `i` of `rows` with `x`, whose length is the rows' width.
pub fn dots(rows: &[f32], x: &[f32], out: &mut [f32]) {
    // SAFETY: the table holds functions whose instructions this processor has been found to have.
    unsafe { (kernels().dots)(rows, x, out) }
}

/// Adds `weights[i]` times row `i` of `rows` to `sum`, whose length is the rows' width.
pub fn accumulate(rows: &[f32], weights: &[f32], sum: &mut [f32]) {
    // SAFETY: as in `dots`.
    unsafe { (kernels().accumulate)(rows, weights, sum) }
}

/// The dot product of two vectors of one length.
pub fn dot(a: &[f32], b: &[f32]) -> f32 {
    let mut out = [0.0];
    dots(a, b, &mut out);
    out[0]
}

fn kernels() -> &'static Kernels {
    static CHOSEN: OnceLock<Kernels> = OnceLock::new();
    CHOSEN.get_or_init(choose)
}

#[cfg(target_arch = "x86_64")]
fn choose() -> Kernels {
    if is_x86_feature_detected!("avx512f") {
        Kernels { dots: x86::dots_avx512, accumulate: x86::accumulate_avx512 }
    } else if is_x86_feature_detected!("avx2") {
        Kernels { dots: x86::dots_avx2, accumulate: x86::accumulate_avx2 }
    } else {
        Kernels { dots: dots_in_order, accumulate: accumulate_in_order }
    }
}

#[cfg(not(target_arch = "x86_64"))]
fn choose() -> Kernels {
    Kernels { dots: dots_in_order, accumulate: accumulate_in_order }
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use super::{accumulate_in_order, dots_in_order};

    #[target_feature(enable = "avx2")]
    pub fn dots_avx2(rows: &[f32], x: &[f32], out: &mut [f32]) {
        dots_in_order(rows, x, out);
    }

    #[target_feature(enable = "avx512f")]
    pub fn dots_avx512(rows: &[f32], x: &[f32], out: &mut [f32]) {
        dots_in_order(rows, x, out);
    }

    #[target_feature(enable = "avx2")]
    pub fn accumulate_avx2(rows: &[f32], weights: &[f32], sum: &mut [f32]) {
        accumulate_in_order(rows, weights, sum);
    }

    #[target_feature(enable = "avx512f")]
    pub fn accumulate_avx512(rows: &[f32], weights: &[f32], sum: &mut [f32]) {
        accumulate_in_order(rows, weights, sum);
    }
}

#[inline(always)]
fn dots_in_order(rows: &[f32], x: &[f32], out: &mut [f32]) {
    let width = x.len();
    let (fours, rest) = out.as_chunks_mut::<4>();
    let (head, tail) = rows.split_at(fours.len() * 4 * width);
    for (out, rows) in fours.iter_mut().zip(head.chunks_exact(4 * width)) {
        *out = some_dots(rows, x);
    }
    for (out, row) in rest.iter_mut().zip(tail.chunks_exact(width)) {
        [*out] = some_dots(row, x);
    }
}

/// The dot products of `R` rows at once: independent sums, so that additions need not wait.
#[inline(always)]
fn some_dots<const R: usize>(rows: &[f32], x: &[f32]) -> [f32; R] {
    let width = x.len();
    let (x_chunks, x_rest) = x.as_chunks::<LANES>();
    let rows: [&[f32]; R] = std::array::from_fn(|r| &rows[r * width..(r + 1) * width]);
    let chunks = rows.map(|row| &row.as_chunks::<LANES>().0[..x_chunks.len()]);
    let mut sums = [[0.0; LANES]; R];
    for (i, x) in x_chunks.iter().enumerate() {
        for (sums, chunks) in sums.iter_mut().zip(&chunks) {
            for ((sum, w), x) in sums.iter_mut().zip(&chunks[i]).zip(x) {
                *sum += w * x;
            }
        }
    }
    for (sums, row) in sums.iter_mut().zip(rows) {
        let rest = &row[width - x_rest.len()..];
        for ((sum, w), x) in sums.iter_mut().zip(rest).zip(x_rest) {
            *sum += w * x;
        }
    }
    sums.map(|sums| {
        let eight: [f32; 8] = std::array::from_fn(|i| sums[i] + sums[i + 8]);
        let four: [f32; 4] = std::array::from_fn(|i| eight[i] + eight[i + 4]);
        (four[0] + four[2]) + (four[1] + four[3])
    })
}

#[inline(always)]
fn accumulate_in_order(rows: &[f32], weights: &[f32], sum: &mut [f32]) {
    let width = sum.len();
    let (fours, rest) = weights.as_chunks::<4>();
    let (head, tail) = rows.split_at(fours.len() * 4 * width);
    for (w, rows) in fours.iter().zip(head.chunks_exact(4 * width)) {
        let (a, rows) = rows.split_at(width);
        let (b, rows) = rows.split_at(width);
        let (c, d) = rows.split_at(width);
        for ((((sum, a), b), c), d) in sum.iter_mut().zip(a).zip(b).zip(c).zip(d) {
            *sum = (((*sum + w[0] * a) + w[1] * b) + w[2] * c) + w[3] * d;
        }
    }
    for (w, row) in rest.iter().zip(tail.chunks_exact(width)) {
        for (sum, x) in sum.iter_mut().zip(row) {
            *sum += w * x;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbers(count: usize, seed: u32) -> Vec<f32> {
        let mut state = seed;
        let mut next = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 8) as f32 / (1 << 23) as f32 - 1.0
        };
        (0..count).map(|_| next()).collect()
    }

    fn bits(values: &[f32]) -> Vec<u32> {
        values.iter().map(|x| x.to_bits()).collect()
    }

    #[test]
    fn instruction_sets_and_company_do_not_change_a_bit() {
        for (count, width) in [(1, 1), (3, 17), (4, 16), (9, 96), (6, 515)] {
            let (rows, x) = (numbers(count * width, 1), numbers(width, 2));
            let mut together = vec![0.0; count];
            dots(&rows, &x, &mut together);
            let alone: Vec<f32> = rows.chunks(width).map(|row| dot(row, &x)).collect();
            assert_eq!(bits(&together), bits(&alone));
            let mut plain = vec![0.0; count];
            dots_in_order(&rows, &x, &mut plain);
            assert_eq!(bits(&together), bits(&plain));
            for (row, got) in rows.chunks(width).zip(&together) {
                let want: f64 =
                    row.iter().zip(&x).map(|(&a, &b)| f64::from(a) * f64::from(b)).sum();
                assert!((want - f64::from(*got)).abs() < 1e-4, "{want} {got}");
            }

            let weights = numbers(count, 3);
            let (mut together, mut one_by_one) = (x.clone(), x);
            accumulate(&rows, &weights, &mut together);
            for (row, w) in rows.chunks(width).zip(&weights) {
                one_by_one.iter_mut().zip(row).for_each(|(sum, x)| *sum += w * x);
            }
            assert_eq!(bits(&together), bits(&one_by_one));
        }
    }
}
