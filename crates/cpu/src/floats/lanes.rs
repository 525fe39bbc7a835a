//! Sixteen floats at a time, for every processor: the few operations that the float kernels need.
//!
//! A value of an implementing type is a proof that the processor has the instructions. Every operation
//! rounds once, as IEEE says, so all of them give the same bits.

/// How many floats are taken at a time.
pub const LANES: usize = 16;

/// Sixteen floats in memory.
pub type Lanes = [f32; LANES];

/// Vectors of sixteen floats.
pub trait Floats: Copy {
    /// Sixteen floats.
    type V: Copy;

    /// From memory.
    fn load(self, from: &Lanes) -> Self::V;
    /// To memory.
    fn store(self, v: Self::V, to: &mut Lanes);
    /// One float everywhere.
    fn splat(self, x: f32) -> Self::V;
    /// From IEEE halves, little-endian.
    fn halves(self, from: &[u8; 2 * LANES]) -> Self::V;
    /// From the upper halves of floats, little-endian.
    fn bfloats(self, from: &[u8; 2 * LANES]) -> Self::V;
    /// `a b + c`, rounded once.
    fn fma(self, a: Self::V, b: Self::V, c: Self::V) -> Self::V;
    /// The sum of all: `i` and `i + 8`, then `i` and `i + 4`, then 2, then 1.
    fn total(self, v: Self::V) -> f32;
}

/// Plain code for every processor.
#[derive(Clone, Copy)]
pub struct Plain;

impl Floats for Plain {
    type V = Lanes;

    #[inline(always)]
    fn load(self, from: &Lanes) -> Lanes {
        *from
    }

    #[inline(always)]
    fn store(self, v: Lanes, to: &mut Lanes) {
        *to = v;
    }

    #[inline(always)]
    fn splat(self, x: f32) -> Lanes {
        [x; LANES]
    }

    #[inline(always)]
    fn halves(self, from: &[u8; 2 * LANES]) -> Lanes {
        let (halves, _) = from.as_chunks();
        std::array::from_fn(|i| ds4_quant::f16_decode(u16::from_le_bytes(halves[i])))
    }

    #[inline(always)]
    fn bfloats(self, from: &[u8; 2 * LANES]) -> Lanes {
        let (halves, _) = from.as_chunks();
        std::array::from_fn(|i| ds4_quant::bf16_decode(u16::from_le_bytes(halves[i])))
    }

    #[inline(always)]
    fn fma(self, a: Lanes, b: Lanes, c: Lanes) -> Lanes {
        std::array::from_fn(|i| a[i].mul_add(b[i], c[i]))
    }

    #[inline(always)]
    fn total(self, mut v: Lanes) -> f32 {
        for half in [8, 4, 2, 1] {
            for lane in 0..half {
                v[lane] += v[lane + half];
            }
        }
        v[0]
    }
}

#[cfg(target_arch = "x86_64")]
pub use x86::{Avx2, Avx512};

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::{arch::x86_64::*, mem::transmute};

    use super::{Floats, LANES, Lanes};

    // Registers and arrays of the same size hold the same numbers, in order: `transmute` is a load or
    // a store, without the pointer.

    /// AVX2, FMA and F16C: two registers for sixteen floats.
    #[derive(Clone, Copy)]
    pub struct Avx2(());

    impl Avx2 {
        /// # Safety
        /// The processor must have AVX2, FMA and F16C.
        #[inline(always)]
        pub unsafe fn new() -> Avx2 {
            Avx2(())
        }
    }

    impl Floats for Avx2 {
        type V = [__m256; 2];

        #[inline(always)]
        fn load(self, from: &Lanes) -> [__m256; 2] {
            // SAFETY: sixteen floats are sixteen floats.
            unsafe { transmute::<Lanes, [__m256; 2]>(*from) }
        }

        #[inline(always)]
        fn store(self, v: [__m256; 2], to: &mut Lanes) {
            // SAFETY: sixteen floats are sixteen floats.
            *to = unsafe { transmute::<[__m256; 2], Lanes>(v) };
        }

        #[inline(always)]
        fn splat(self, x: f32) -> [__m256; 2] {
            // SAFETY: a value of this type exists only where there is AVX2.
            unsafe { [_mm256_set1_ps(x); 2] }
        }

        #[inline(always)]
        fn halves(self, from: &[u8; 2 * LANES]) -> [__m256; 2] {
            // SAFETY: 32 bytes are two times 16; the instructions are there, as above.
            unsafe { transmute::<[u8; 32], [__m128i; 2]>(*from).map(|v| _mm256_cvtph_ps(v)) }
        }

        #[inline(always)]
        fn bfloats(self, from: &[u8; 2 * LANES]) -> [__m256; 2] {
            // SAFETY: 32 bytes are two times 16; the instructions are there, as above.
            unsafe {
                transmute::<[u8; 32], [__m128i; 2]>(*from)
                    .map(|v| _mm256_castsi256_ps(_mm256_slli_epi32::<16>(_mm256_cvtepu16_epi32(v))))
            }
        }

        #[inline(always)]
        fn fma(self, a: [__m256; 2], b: [__m256; 2], c: [__m256; 2]) -> [__m256; 2] {
            // SAFETY: a value of this type exists only where there is FMA.
            unsafe { [_mm256_fmadd_ps(a[0], b[0], c[0]), _mm256_fmadd_ps(a[1], b[1], c[1])] }
        }

        #[inline(always)]
        fn total(self, v: [__m256; 2]) -> f32 {
            // SAFETY: a value of this type exists only where there is AVX2.
            unsafe { total_of_8(_mm256_add_ps(v[0], v[1])) }
        }
    }

    /// # Safety
    /// The processor must have AVX2.
    #[inline(always)]
    unsafe fn total_of_8(v: __m256) -> f32 {
        // SAFETY: the caller's promise.
        unsafe {
            let v = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps::<1>(v));
            let v = _mm_add_ps(v, _mm_movehl_ps(v, v));
            _mm_cvtss_f32(_mm_add_ss(v, _mm_movehdup_ps(v)))
        }
    }

    /// AVX-512: one register for sixteen floats.
    #[derive(Clone, Copy)]
    pub struct Avx512(());

    impl Avx512 {
        /// # Safety
        /// The processor must have AVX-512F.
        #[inline(always)]
        pub unsafe fn new() -> Avx512 {
            Avx512(())
        }
    }

    impl Floats for Avx512 {
        type V = __m512;

        #[inline(always)]
        fn load(self, from: &Lanes) -> __m512 {
            // SAFETY: sixteen floats are sixteen floats.
            unsafe { transmute::<Lanes, __m512>(*from) }
        }

        #[inline(always)]
        fn store(self, v: __m512, to: &mut Lanes) {
            // SAFETY: sixteen floats are sixteen floats.
            *to = unsafe { transmute::<__m512, Lanes>(v) };
        }

        #[inline(always)]
        fn splat(self, x: f32) -> __m512 {
            // SAFETY: a value of this type exists only where there is AVX-512.
            unsafe { _mm512_set1_ps(x) }
        }

        #[inline(always)]
        fn halves(self, from: &[u8; 2 * LANES]) -> __m512 {
            // SAFETY: 32 bytes are 32 bytes; the instructions are there, as above.
            unsafe { _mm512_cvtph_ps(transmute::<[u8; 32], __m256i>(*from)) }
        }

        #[inline(always)]
        fn bfloats(self, from: &[u8; 2 * LANES]) -> __m512 {
            // SAFETY: 32 bytes are 32 bytes; the instructions are there, as above.
            unsafe {
                let wide = _mm512_cvtepu16_epi32(transmute::<[u8; 32], __m256i>(*from));
                _mm512_castsi512_ps(_mm512_slli_epi32::<16>(wide))
            }
        }

        #[inline(always)]
        fn fma(self, a: __m512, b: __m512, c: __m512) -> __m512 {
            // SAFETY: a value of this type exists only where there is AVX-512.
            unsafe { _mm512_fmadd_ps(a, b, c) }
        }

        #[inline(always)]
        fn total(self, v: __m512) -> f32 {
            // SAFETY: a value of this type exists only where there is AVX-512, and so AVX2.
            unsafe {
                let high = _mm512_castpd_ps(_mm512_shuffle_f64x2::<0b1110>(
                    _mm512_castps_pd(v),
                    _mm512_castps_pd(v),
                ));
                total_of_8(_mm512_castps512_ps256(_mm512_add_ps(v, high)))
            }
        }
    }
}
