//! Sixteen index rows at a time, for every processor: the few operations that a scan needs.
//!
//! A value of an implementing type is a proof that the processor has the instructions. Integers are
//! exact and every float operation rounds once, so all of them give the same bits.

/// Rows that are scanned at a time.
pub const ROWS: usize = 16;

/// Four codes, 0 to 24, of each of the rows.
pub type Codes = [u8; 4 * ROWS];

/// Vectors of an integer or a float for each of sixteen rows.
pub trait Lanes: Copy {
    /// Integers.
    type I: Copy;
    /// Floats.
    type F: Copy;

    /// The same integer for every row.
    fn integer(self, x: i32) -> Self::I;
    /// The same float for every row.
    fn float(self, x: f32) -> Self::F;
    /// From memory.
    fn load(self, from: &[f32; ROWS]) -> Self::F;
    /// To memory.
    fn store(self, v: Self::F, to: &mut [f32; ROWS]);
    /// Adds the products of four codes of each row with four signed bytes, none of them above 12.
    fn dot(self, sum: Self::I, codes: &Codes, query: [i8; 4]) -> Self::I;
    /// `sum scale + total`, rounded once; the sum is small enough to be exact as a float.
    fn scaled(self, sum: Self::I, scale: Self::F, total: Self::F) -> Self::F;
    /// Products.
    fn times(self, a: Self::F, b: Self::F) -> Self::F;
    /// `score + weight max(total, 0)`, rounded once; a NaN counts as 0.
    fn weigh(self, score: Self::F, weight: Self::F, total: Self::F) -> Self::F;
}

/// Plain code for every processor.
#[derive(Clone, Copy)]
pub struct Plain;

impl Lanes for Plain {
    type I = [i32; ROWS];
    type F = [f32; ROWS];

    #[inline(always)]
    fn integer(self, x: i32) -> [i32; ROWS] {
        [x; ROWS]
    }

    #[inline(always)]
    fn float(self, x: f32) -> [f32; ROWS] {
        [x; ROWS]
    }

    #[inline(always)]
    fn load(self, from: &[f32; ROWS]) -> [f32; ROWS] {
        *from
    }

    #[inline(always)]
    fn store(self, v: [f32; ROWS], to: &mut [f32; ROWS]) {
        *to = v;
    }

    #[inline(always)]
    fn dot(self, mut sum: [i32; ROWS], codes: &Codes, query: [i8; 4]) -> [i32; ROWS] {
        for (sum, codes) in sum.iter_mut().zip(codes.as_chunks::<4>().0) {
            for (&code, q) in codes.iter().zip(query) {
                *sum += i32::from(code) * i32::from(q);
            }
        }
        sum
    }

    #[inline(always)]
    fn scaled(self, sum: [i32; ROWS], scale: [f32; ROWS], total: [f32; ROWS]) -> [f32; ROWS] {
        std::array::from_fn(|i| (sum[i] as f32).mul_add(scale[i], total[i]))
    }

    #[inline(always)]
    fn times(self, a: [f32; ROWS], b: [f32; ROWS]) -> [f32; ROWS] {
        std::array::from_fn(|i| a[i] * b[i])
    }

    #[inline(always)]
    fn weigh(self, score: [f32; ROWS], weight: [f32; ROWS], total: [f32; ROWS]) -> [f32; ROWS] {
        std::array::from_fn(|i| {
            let positive = if total[i] > 0.0 { total[i] } else { 0.0 };
            weight[i].mul_add(positive, score[i])
        })
    }
}

#[cfg(target_arch = "x86_64")]
pub use x86::{Avx2, Avx512Vnni};

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::{arch::x86_64::*, mem::transmute};

    use super::{Codes, Lanes, ROWS};

    // Registers and arrays of the same size hold the same numbers, in order: `transmute` is a load or
    // a store, without the pointer.

    /// AVX2 and FMA: two registers for sixteen rows.
    #[derive(Clone, Copy)]
    pub struct Avx2(());

    impl Avx2 {
        /// # Safety
        /// The processor must have AVX2 and FMA.
        #[inline(always)]
        pub unsafe fn new() -> Avx2 {
            Avx2(())
        }
    }

    // In all of these: a value of this type exists only where there are AVX2 and FMA.
    impl Lanes for Avx2 {
        type I = [__m256i; 2];
        type F = [__m256; 2];

        #[inline(always)]
        fn integer(self, x: i32) -> [__m256i; 2] {
            // SAFETY: see above.
            unsafe { [_mm256_set1_epi32(x); 2] }
        }

        #[inline(always)]
        fn float(self, x: f32) -> [__m256; 2] {
            // SAFETY: see above.
            unsafe { [_mm256_set1_ps(x); 2] }
        }

        #[inline(always)]
        fn load(self, from: &[f32; ROWS]) -> [__m256; 2] {
            // SAFETY: sixteen floats are sixteen floats.
            unsafe { transmute::<[f32; ROWS], [__m256; 2]>(*from) }
        }

        #[inline(always)]
        fn store(self, v: [__m256; 2], to: &mut [f32; ROWS]) {
            // SAFETY: sixteen floats are sixteen floats.
            *to = unsafe { transmute::<[__m256; 2], [f32; ROWS]>(v) };
        }

        #[inline(always)]
        fn dot(self, sum: [__m256i; 2], codes: &Codes, query: [i8; 4]) -> [__m256i; 2] {
            // SAFETY: see above; 64 bytes are two times 32. Sums of two products are at most 576.
            unsafe {
                let codes = transmute::<Codes, [__m256i; 2]>(*codes);
                let query = _mm256_set1_epi32(i32::from_le_bytes(query.map(|q| q as u8)));
                let ones = _mm256_set1_epi16(1);
                let dot = |sum, codes| {
                    let pairs = _mm256_maddubs_epi16(codes, query);
                    _mm256_add_epi32(sum, _mm256_madd_epi16(pairs, ones))
                };
                [dot(sum[0], codes[0]), dot(sum[1], codes[1])]
            }
        }

        #[inline(always)]
        fn scaled(self, sum: [__m256i; 2], scale: [__m256; 2], total: [__m256; 2]) -> [__m256; 2] {
            // SAFETY: see above.
            unsafe {
                [
                    _mm256_fmadd_ps(_mm256_cvtepi32_ps(sum[0]), scale[0], total[0]),
                    _mm256_fmadd_ps(_mm256_cvtepi32_ps(sum[1]), scale[1], total[1]),
                ]
            }
        }

        #[inline(always)]
        fn times(self, a: [__m256; 2], b: [__m256; 2]) -> [__m256; 2] {
            // SAFETY: see above.
            unsafe { [_mm256_mul_ps(a[0], b[0]), _mm256_mul_ps(a[1], b[1])] }
        }

        #[inline(always)]
        fn weigh(self, score: [__m256; 2], weight: [__m256; 2], total: [__m256; 2]) -> [__m256; 2] {
            // SAFETY: see above. Of a NaN and zero, `max` gives its second operand.
            unsafe {
                let zero = _mm256_setzero_ps();
                [
                    _mm256_fmadd_ps(weight[0], _mm256_max_ps(total[0], zero), score[0]),
                    _mm256_fmadd_ps(weight[1], _mm256_max_ps(total[1], zero), score[1]),
                ]
            }
        }
    }

    /// AVX-512 with byte dot products: one register for sixteen rows.
    #[derive(Clone, Copy)]
    pub struct Avx512Vnni(());

    impl Avx512Vnni {
        /// # Safety
        /// The processor must have AVX-512F and AVX-512 VNNI.
        #[inline(always)]
        pub unsafe fn new() -> Avx512Vnni {
            Avx512Vnni(())
        }
    }

    // In all of these: a value of this type exists only where there are AVX-512F and VNNI.
    impl Lanes for Avx512Vnni {
        type I = __m512i;
        type F = __m512;

        #[inline(always)]
        fn integer(self, x: i32) -> __m512i {
            // SAFETY: see above.
            unsafe { _mm512_set1_epi32(x) }
        }

        #[inline(always)]
        fn float(self, x: f32) -> __m512 {
            // SAFETY: see above.
            unsafe { _mm512_set1_ps(x) }
        }

        #[inline(always)]
        fn load(self, from: &[f32; ROWS]) -> __m512 {
            // SAFETY: sixteen floats are sixteen floats.
            unsafe { transmute::<[f32; ROWS], __m512>(*from) }
        }

        #[inline(always)]
        fn store(self, v: __m512, to: &mut [f32; ROWS]) {
            // SAFETY: sixteen floats are sixteen floats.
            *to = unsafe { transmute::<__m512, [f32; ROWS]>(v) };
        }

        #[inline(always)]
        fn dot(self, sum: __m512i, codes: &Codes, query: [i8; 4]) -> __m512i {
            // SAFETY: see above; 64 bytes are 64 bytes.
            unsafe {
                let query = _mm512_set1_epi32(i32::from_le_bytes(query.map(|q| q as u8)));
                _mm512_dpbusd_epi32(sum, transmute::<Codes, __m512i>(*codes), query)
            }
        }

        #[inline(always)]
        fn scaled(self, sum: __m512i, scale: __m512, total: __m512) -> __m512 {
            // SAFETY: see above.
            unsafe { _mm512_fmadd_ps(_mm512_cvtepi32_ps(sum), scale, total) }
        }

        #[inline(always)]
        fn times(self, a: __m512, b: __m512) -> __m512 {
            // SAFETY: see above.
            unsafe { _mm512_mul_ps(a, b) }
        }

        #[inline(always)]
        fn weigh(self, score: __m512, weight: __m512, total: __m512) -> __m512 {
            // SAFETY: see above. Of a NaN and zero, `max` gives its second operand.
            unsafe {
                let positive = _mm512_max_ps(total, _mm512_setzero_ps());
                _mm512_fmadd_ps(weight, positive, score)
            }
        }
    }
}
