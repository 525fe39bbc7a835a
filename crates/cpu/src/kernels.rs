//! The two inner loops of everything: dot products, and weighted sums of rows.
//!
//! Each result is computed in one fixed order: sixteen partial sums over the columns, then a fixed
//! tree, with a multiplication and an addition that round separately. That is so for every
//! instruction set, and for a row alone as in company, so all give the same bits.

use std::sync::OnceLock;

/// Partial sums of a dot product.
const LANES: usize = 16;

type Lanes = [f32; LANES];
type Kernel = unsafe fn(&[f32], &[f32], &mut [f32]);

struct Kernels {
    dots: Kernel,
    accumulate: Kernel,
}

/// `out[i]` becomes the dot product of row `i` of `rows` with `x`, whose length is the rows' width.
pub fn dots(rows: &[f32], x: &[f32], out: &mut [f32]) {
    debug_assert_eq!(rows.len(), x.len() * out.len());
    // SAFETY: the table holds functions whose instructions this processor has been found to have.
    unsafe { (kernels().dots)(rows, x, out) }
}

/// Adds `weights[i]` times row `i` of `rows` to `sum`, whose length is the rows' width.
pub fn accumulate(rows: &[f32], weights: &[f32], sum: &mut [f32]) {
    debug_assert_eq!(rows.len(), weights.len() * sum.len());
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
    CHOSEN.get_or_init(|| available().pop().unwrap_or(PORTABLE))
}

const PORTABLE: Kernels = Kernels { dots: portable_dots, accumulate: portable_accumulate };

/// What this processor can run, the best last.
fn available() -> Vec<Kernels> {
    let portable = std::iter::once(PORTABLE);
    #[cfg(target_arch = "x86_64")]
    let portable = portable.chain(x86::available());
    portable.collect()
}

/// Sixteen partial sums in registers.
trait Sums: Copy {
    const ZERO: Self;

    /// Adds the products of `a` and `b`, lane by lane.
    ///
    /// # Safety
    /// The processor must have the instructions of this type.
    unsafe fn add_products(self, a: &Lanes, b: &Lanes) -> Self;

    /// The sums.
    ///
    /// # Safety
    /// The processor must have the instructions of this type.
    unsafe fn lanes(self) -> Lanes;
}

impl Sums for Lanes {
    const ZERO: Lanes = [0.0; LANES];

    #[inline(always)]
    unsafe fn add_products(self, a: &Lanes, b: &Lanes) -> Lanes {
        std::array::from_fn(|lane| self[lane] + a[lane] * b[lane])
    }

    #[inline(always)]
    unsafe fn lanes(self) -> Lanes {
        self
    }
}

fn portable_dots(rows: &[f32], x: &[f32], out: &mut [f32]) {
    // SAFETY: plain arrays need no special instructions.
    unsafe { dots_with::<Lanes>(rows, x, out) }
}

fn portable_accumulate(rows: &[f32], weights: &[f32], sum: &mut [f32]) {
    accumulate_in_order(rows, weights, sum);
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::{arch::x86_64::*, mem::transmute};

    use super::{Kernels, Lanes, Sums, accumulate_in_order, dots_with};

    pub fn available() -> impl Iterator<Item = Kernels> {
        let avx2 = is_x86_feature_detected!("avx2")
            .then_some(Kernels { dots: dots_avx2, accumulate: accumulate_avx2 });
        let avx512 = is_x86_feature_detected!("avx512f")
            .then_some(Kernels { dots: dots_avx512, accumulate: accumulate_avx512 });
        avx2.into_iter().chain(avx512)
    }

    // Registers and arrays of the same size hold the same numbers, in order: `transmute` is a load or
    // a store, without the pointer.

    impl Sums for __m512 {
        // SAFETY: sixteen zeros.
        const ZERO: __m512 = unsafe { transmute::<Lanes, __m512>([0.0; 16]) };

        #[inline(always)]
        unsafe fn add_products(self, a: &Lanes, b: &Lanes) -> __m512 {
            // SAFETY: the caller promises AVX-512; sixteen numbers are sixteen numbers.
            unsafe {
                let (a, b) = (transmute::<Lanes, __m512>(*a), transmute::<Lanes, __m512>(*b));
                _mm512_add_ps(self, _mm512_mul_ps(a, b))
            }
        }

        #[inline(always)]
        unsafe fn lanes(self) -> Lanes {
            // SAFETY: sixteen numbers are sixteen numbers.
            unsafe { transmute::<__m512, Lanes>(self) }
        }
    }

    impl Sums for [__m256; 2] {
        // SAFETY: sixteen zeros.
        const ZERO: [__m256; 2] = unsafe { transmute::<Lanes, [__m256; 2]>([0.0; 16]) };

        #[inline(always)]
        unsafe fn add_products(self, a: &Lanes, b: &Lanes) -> [__m256; 2] {
            // SAFETY: the caller promises AVX2; sixteen numbers are two times eight numbers.
            unsafe {
                let a = transmute::<Lanes, [__m256; 2]>(*a);
                let b = transmute::<Lanes, [__m256; 2]>(*b);
                let (low, high) = (_mm256_mul_ps(a[0], b[0]), _mm256_mul_ps(a[1], b[1]));
                [_mm256_add_ps(self[0], low), _mm256_add_ps(self[1], high)]
            }
        }

        #[inline(always)]
        unsafe fn lanes(self) -> Lanes {
            // SAFETY: two times eight numbers are sixteen numbers.
            unsafe { transmute::<[__m256; 2], Lanes>(self) }
        }
    }

    #[target_feature(enable = "avx2")]
    fn dots_avx2(rows: &[f32], x: &[f32], out: &mut [f32]) {
        // SAFETY: this function is only called where there is AVX2.
        unsafe { dots_with::<[__m256; 2]>(rows, x, out) }
    }

    #[target_feature(enable = "avx512f")]
    fn dots_avx512(rows: &[f32], x: &[f32], out: &mut [f32]) {
        // SAFETY: this function is only called where there is AVX-512.
        unsafe { dots_with::<__m512>(rows, x, out) }
    }

    #[target_feature(enable = "avx2")]
    fn accumulate_avx2(rows: &[f32], weights: &[f32], sum: &mut [f32]) {
        accumulate_in_order(rows, weights, sum);
    }

    #[target_feature(enable = "avx512f")]
    fn accumulate_avx512(rows: &[f32], weights: &[f32], sum: &mut [f32]) {
        accumulate_in_order(rows, weights, sum);
    }
}

/// A row on its way to a dot product.
struct Row<'a, S> {
    sums: S,
    chunks: &'a [Lanes],
    rest: &'a [f32],
}

impl<'a, S: Sums> Row<'a, S> {
    /// Takes the first row of `rows`.
    #[inline(always)]
    fn take(rows: &mut &'a [f32], width: usize) -> Row<'a, S> {
        let (row, others) = rows.split_at(width);
        *rows = others;
        let (chunks, rest) = row.as_chunks();
        Row { sums: S::ZERO, chunks: &chunks[..width / LANES], rest }
    }

    /// Adds what is left of the row to the first lanes, and the lanes in a tree.
    ///
    /// # Safety
    /// The processor must have the instructions of `S`.
    #[inline(always)]
    unsafe fn total(self, x_rest: &[f32]) -> f32 {
        // SAFETY: the caller's promise.
        let mut sums = unsafe { self.sums.lanes() };
        for ((sum, w), x) in sums.iter_mut().zip(self.rest).zip(x_rest) {
            *sum += w * x;
        }
        for half in [8, 4, 2, 1] {
            for lane in 0..half {
                sums[lane] += sums[lane + half];
            }
        }
        sums[0]
    }
}

/// Defines a function for the dot products of so many rows at once: none of their additions waits
/// for that of another. The rows have names because the compiler keeps what has a name in registers;
/// what has a number, only if it unrolls the loop over it first.
macro_rules! dots_of_rows {
    ($name:ident, $count:literal, $($row:ident)+) => {
        /// # Safety
        /// The processor must have the instructions of `S`.
        #[inline(always)]
        unsafe fn $name<S: Sums>(mut rows: &[f32], x: &[f32]) -> [f32; $count] {
            let (x_chunks, x_rest) = x.as_chunks::<LANES>();
            $(let mut $row = Row::<S>::take(&mut rows, x.len());)+
            for (i, x) in x_chunks.iter().enumerate() {
                // SAFETY: the caller's promise.
                unsafe { $($row.sums = $row.sums.add_products(&$row.chunks[i], x);)+ }
            }
            // SAFETY: the caller's promise.
            unsafe { [$($row.total(x_rest)),+] }
        }
    };
}

dots_of_rows!(one_dot, 1, a);
dots_of_rows!(four_dots, 4, a b c d);

/// # Safety
/// The processor must have the instructions of `S`.
#[inline(always)]
unsafe fn dots_with<S: Sums>(rows: &[f32], x: &[f32], out: &mut [f32]) {
    let width = x.len();
    let (fours, rest) = out.as_chunks_mut::<4>();
    let (head, tail) = rows.split_at(fours.len() * 4 * width);
    for (out, rows) in fours.iter_mut().zip(head.chunks_exact(4 * width)) {
        // SAFETY: the caller's promise.
        *out = unsafe { four_dots::<S>(rows, x) };
    }
    for (out, row) in rest.iter_mut().zip(tail.chunks_exact(width)) {
        // SAFETY: the caller's promise.
        [*out] = unsafe { one_dot::<S>(row, x) };
    }
}

/// The compiler vectorises this one by itself: columns do not depend on each other.
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
        for (count, width) in [(1, 1), (3, 17), (4, 16), (9, 96), (19, 515)] {
            let (rows, x) = (numbers(count * width, 1), numbers(width, 2));
            let alone: Vec<f32> = rows.chunks(width).map(|row| dot(row, &x)).collect();
            for (row, got) in rows.chunks(width).zip(&alone) {
                let want: f64 =
                    row.iter().zip(&x).map(|(&a, &b)| f64::from(a) * f64::from(b)).sum();
                assert!((want - f64::from(*got)).abs() < 1e-4, "{want} {got}");
            }
            let weights = numbers(count, 3);
            let mut one_by_one = x.clone();
            for (row, w) in rows.chunks(width).zip(&weights) {
                one_by_one.iter_mut().zip(row).for_each(|(sum, x)| *sum += w * x);
            }
            for kernels in available() {
                let (mut dots, mut sum) = (vec![0.0; count], x.clone());
                // SAFETY: this processor has the instructions of what is available.
                unsafe {
                    (kernels.dots)(&rows, &x, &mut dots);
                    (kernels.accumulate)(&rows, &weights, &mut sum);
                }
                assert_eq!(bits(&dots), bits(&alone));
                assert_eq!(bits(&sum), bits(&one_by_one));
            }
        }
    }
}
