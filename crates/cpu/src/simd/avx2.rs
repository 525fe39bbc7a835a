//! AVX2: two registers for one vector.
//!
//! Two levels: alone (Haswell, Zen), and with AVX-VNNI (Alder Lake), whose byte dot products take one
//! instruction, not three.

use std::arch::x86_64::*;

use super::{grid::Grid, isa::Isa, portable};

/// The instructions of either level.
#[derive(Clone, Copy)]
pub struct Ymm<const VNNI: bool> {
    grid: &'static Grid,
}

impl<const VNNI: bool> Ymm<VNNI> {
    /// # Safety
    /// The processor must have AVX2, FMA and F16C; with `VNNI` also AVX-VNNI.
    pub unsafe fn new() -> Self {
        Ymm { grid: Grid::get() }
    }
}

/// Evaluates an expression of intrinsics.
macro_rules! have {
    ($e:expr) => {
        // SAFETY: a `Ymm` is only made where the processor has the instructions; addresses come from
        // references to arrays of the vector's size.
        unsafe { $e }
    };
}

/// The same intrinsic on both registers.
macro_rules! both {
    ($f:ident($a:expr)) => {
        have!([$f($a[0]), $f($a[1])])
    };
    ($f:ident($a:expr, $b:expr)) => {
        have!([$f($a[0], $b[0]), $f($a[1], $b[1])])
    };
}

impl<const VNNI: bool> Isa for Ymm<VNNI> {
    type B = [__m256i; 2];
    type I = [__m256i; 2];
    type F = [__m256; 2];

    const BIAS: i32 = if VNNI { 128 } else { 0 };

    #[inline(always)]
    fn bytes(self, from: &[u8; 64]) -> Self::B {
        let at: *const __m256i = from.as_ptr().cast();
        have!([_mm256_loadu_si256(at), _mm256_loadu_si256(at.add(1))])
    }
    #[inline(always)]
    fn signed(self, from: &[i8; 64]) -> Self::B {
        let at: *const __m256i = from.as_ptr().cast();
        have!([_mm256_loadu_si256(at), _mm256_loadu_si256(at.add(1))])
    }
    #[inline(always)]
    fn words(self, from: &[i16; 32]) -> Self::B {
        let at: *const __m256i = from.as_ptr().cast();
        have!([_mm256_loadu_si256(at), _mm256_loadu_si256(at.add(1))])
    }
    #[inline(always)]
    fn half_words(self, from: &[i16; 16]) -> Self::B {
        have!([_mm256_loadu_si256(from.as_ptr().cast()), _mm256_setzero_si256()])
    }
    #[inline(always)]
    fn widen(self, low: &[u8; 16], high: &[u8; 16]) -> Self::B {
        have!([
            _mm256_cvtepu8_epi16(_mm_loadu_si128(low.as_ptr().cast())),
            _mm256_cvtepu8_epi16(_mm_loadu_si128(high.as_ptr().cast())),
        ])
    }
    #[inline(always)]
    fn pair(self, low: &[u8; 32], high: &[u8; 32]) -> Self::B {
        have!([_mm256_loadu_si256(low.as_ptr().cast()), _mm256_loadu_si256(high.as_ptr().cast()),])
    }
    #[inline(always)]
    fn quad(self, from: [&[u8; 16]; 4]) -> Self::B {
        let [a, b, c, d] = from;
        have!([
            _mm256_loadu2_m128i(b.as_ptr().cast(), a.as_ptr().cast()),
            _mm256_loadu2_m128i(d.as_ptr().cast(), c.as_ptr().cast()),
        ])
    }
    #[inline(always)]
    fn repeat(self, from: &[u8; 16]) -> Self::B {
        have!([_mm256_broadcastsi128_si256(_mm_loadu_si128(from.as_ptr().cast())); 2])
    }
    #[inline(always)]
    fn splat(self, byte: u8) -> Self::B {
        have!([_mm256_set1_epi8(byte as i8); 2])
    }
    #[inline(always)]
    fn splat_word(self, word: i16) -> Self::B {
        have!([_mm256_set1_epi16(word); 2])
    }
    #[inline(always)]
    fn store(self, v: Self::B, to: &mut [u8; 64]) {
        let at: *mut __m256i = to.as_mut_ptr().cast();
        have!({
            _mm256_storeu_si256(at, v[0]);
            _mm256_storeu_si256(at.add(1), v[1]);
        })
    }
    #[inline(always)]
    fn and(self, a: Self::B, b: Self::B) -> Self::B {
        both!(_mm256_and_si256(a, b))
    }
    #[inline(always)]
    fn or(self, a: Self::B, b: Self::B) -> Self::B {
        both!(_mm256_or_si256(a, b))
    }
    #[inline(always)]
    fn shr<const N: u32>(self, v: Self::B) -> Self::B {
        let count = have!(_mm_cvtsi32_si128(N as i32));
        have!([_mm256_srl_epi16(v[0], count), _mm256_srl_epi16(v[1], count)])
    }
    #[inline(always)]
    fn shl<const N: u32>(self, v: Self::B) -> Self::B {
        let count = have!(_mm_cvtsi32_si128(N as i32));
        have!([_mm256_sll_epi16(v[0], count), _mm256_sll_epi16(v[1], count)])
    }
    #[inline(always)]
    fn sar8(self, v: Self::B) -> Self::B {
        have!([_mm256_srai_epi16::<8>(v[0]), _mm256_srai_epi16::<8>(v[1])])
    }
    #[inline(always)]
    fn mul_words(self, a: Self::B, b: Self::B) -> Self::B {
        both!(_mm256_mullo_epi16(a, b))
    }
    #[inline(always)]
    fn lookup(self, table: Self::B, index: Self::B) -> Self::B {
        both!(_mm256_shuffle_epi8(table, index))
    }
    #[inline(always)]
    fn lookup_nibbles(self, table: &[u8; 16], codes: Self::B) -> [Self::B; 2] {
        portable::lookup_nibbles(self, table, codes)
    }
    #[inline(always)]
    fn lookup_fields(self, table: &[u8; 4], codes: Self::B) -> [Self::B; 4] {
        portable::lookup_fields(self, table, codes)
    }
    #[inline(always)]
    fn flip(self, v: Self::B, bits: Self::B, which: Self::B) -> Self::B {
        // -1 where the sign changes, and 1 elsewhere, for zero would make zero.
        let minus = both!(_mm256_cmpeq_epi8(self.and(bits, which), which));
        both!(_mm256_sign_epi8(v, self.or(minus, self.splat(1))))
    }
    #[inline(always)]
    fn ready(self, v: Self::B) -> Self::B {
        if VNNI { both!(_mm256_xor_si256(v, self.splat(128))) } else { v }
    }

    #[inline(always)]
    fn ints(self, from: &[i32; 16]) -> Self::I {
        let at: *const __m256i = from.as_ptr().cast();
        have!([_mm256_loadu_si256(at), _mm256_loadu_si256(at.add(1))])
    }
    #[inline(always)]
    fn splat_int(self, x: i32) -> Self::I {
        have!([_mm256_set1_epi32(x); 2])
    }
    #[inline(always)]
    fn as_ints(self, v: Self::B) -> Self::I {
        v
    }
    #[inline(always)]
    fn as_bytes(self, v: Self::I) -> Self::B {
        v
    }
    #[inline(always)]
    fn add(self, a: Self::I, b: Self::I) -> Self::I {
        both!(_mm256_add_epi32(a, b))
    }
    #[inline(always)]
    fn sub(self, a: Self::I, b: Self::I) -> Self::I {
        both!(_mm256_sub_epi32(a, b))
    }
    #[inline(always)]
    fn mul(self, a: Self::I, b: Self::I) -> Self::I {
        both!(_mm256_mullo_epi32(a, b))
    }
    #[inline(always)]
    fn shl_int<const N: u32>(self, v: Self::I) -> Self::I {
        let count = have!(_mm_cvtsi32_si128(N as i32));
        have!([_mm256_sll_epi32(v[0], count), _mm256_sll_epi32(v[1], count)])
    }
    #[inline(always)]
    fn shr_int<const N: u32>(self, v: Self::I) -> Self::I {
        let count = have!(_mm_cvtsi32_si128(N as i32));
        have!([_mm256_srl_epi32(v[0], count), _mm256_srl_epi32(v[1], count)])
    }
    #[inline(always)]
    fn dup_odd(self, v: Self::I) -> Self::I {
        have!([
            _mm256_shuffle_epi32::<0b11_11_01_01>(v[0]),
            _mm256_shuffle_epi32::<0b11_11_01_01>(v[1]),
        ])
    }
    #[inline(always)]
    fn dot(self, sum: Self::I, weights: Self::B, x: Self::B) -> Self::I {
        if VNNI {
            return have!([
                _mm256_dpbusd_avx_epi32(sum[0], weights[0], x[0]),
                _mm256_dpbusd_avx_epi32(sum[1], weights[1], x[1]),
            ]);
        }
        // Weights up to 127 cannot overflow a word: 2 x 127 x 127.
        let words = both!(_mm256_maddubs_epi16(weights, x));
        self.dot_words(sum, words, self.splat_word(1))
    }
    #[inline(always)]
    fn dot_signed(self, sum: Self::I, weights: Self::B, x: Self::B) -> Self::I {
        if VNNI {
            return self.dot(sum, weights, x);
        }
        // The sign goes from the weight to the activation: 2 x 128 x 127 is still a word.
        let x = both!(_mm256_sign_epi8(x, weights));
        let weights = both!(_mm256_abs_epi8(weights));
        let words = both!(_mm256_maddubs_epi16(weights, x));
        self.dot_words(sum, words, self.splat_word(1))
    }
    #[inline(always)]
    fn dot_words(self, sum: Self::I, a: Self::B, b: Self::B) -> Self::I {
        if VNNI {
            return have!([
                _mm256_dpwssd_avx_epi32(sum[0], a[0], b[0]),
                _mm256_dpwssd_avx_epi32(sum[1], a[1], b[1]),
            ]);
        }
        self.add(sum, both!(_mm256_madd_epi16(a, b)))
    }
    #[inline(always)]
    fn dot_scaled(self, sum: Self::I, weights: Self::B, x: Self::B, scale: Self::B) -> Self::I {
        self.dot_words(sum, both!(_mm256_maddubs_epi16(weights, x)), scale)
    }
    #[inline(always)]
    fn halve(self, a: Self::I, b: Self::I) -> Self::I {
        have!([_mm256_add_epi32(a[0], a[1]), _mm256_add_epi32(b[0], b[1])])
    }
    #[inline(always)]
    fn sums_of_8(self, v: [Self::I; 8]) -> Self::I {
        let [a, b, c, d, e, f, g, h] = v;
        have!([
            eight_sums([a[0], a[1], b[0], b[1], c[0], c[1], d[0], d[1]]),
            eight_sums([e[0], e[1], f[0], f[1], g[0], g[1], h[0], h[1]]),
        ])
    }
    #[inline(always)]
    fn sums_of_4(self, v: [Self::I; 4]) -> Self::I {
        let [a, b, c, d] = v;
        have!({
            // Quarters 0 and 1 of the four vectors, and quarters 2 and 3.
            let low = quarter_sums([a[0], b[0], c[0], d[0]]);
            let high = quarter_sums([a[1], b[1], c[1], d[1]]);
            // `[a0 b0 c0 d0 | a1 ...]` and `[a2 ... | a3 ...]` to `[a0 a1 a2 a3 | b0 ...]`.
            let turned = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7);
            let low = _mm256_permutevar8x32_epi32(low, turned);
            let high = _mm256_permutevar8x32_epi32(high, turned);
            let (ac, bd) = (_mm256_unpacklo_epi64(low, high), _mm256_unpackhi_epi64(low, high));
            [_mm256_permute2x128_si256::<0x20>(ac, bd), _mm256_permute2x128_si256::<0x31>(ac, bd)]
        })
    }

    #[inline(always)]
    fn floats(self, from: &[f32; 16]) -> Self::F {
        let at = from.as_ptr();
        have!([_mm256_loadu_ps(at), _mm256_loadu_ps(at.add(8))])
    }
    #[inline(always)]
    fn twice(self, from: &[f32; 8]) -> Self::F {
        have!([_mm256_loadu_ps(from.as_ptr()); 2])
    }
    #[inline(always)]
    fn splat_float(self, x: f32) -> Self::F {
        have!([_mm256_set1_ps(x); 2])
    }
    #[inline(always)]
    fn store_floats(self, v: Self::F, to: &mut [f32; 16]) {
        let at = to.as_mut_ptr();
        have!({
            _mm256_storeu_ps(at, v[0]);
            _mm256_storeu_ps(at.add(8), v[1]);
        })
    }
    #[inline(always)]
    fn float(self, v: Self::I) -> Self::F {
        both!(_mm256_cvtepi32_ps(v))
    }
    #[inline(always)]
    fn halves(self, from: [u16; 16]) -> Self::F {
        let [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p] = from;
        have!([
            _mm256_cvtph_ps(_mm_setr_epi16(
                a as i16, b as i16, c as i16, d as i16, e as i16, f as i16, g as i16, h as i16,
            )),
            _mm256_cvtph_ps(_mm_setr_epi16(
                i as i16, j as i16, k as i16, l as i16, m as i16, n as i16, o as i16, p as i16,
            )),
        ])
    }
    #[inline(always)]
    fn powers(self, from: [u8; 16]) -> Self::F {
        have!({
            let codes = _mm_loadu_si128(from.as_ptr().cast());
            [
                powers(_mm256_cvtepu8_epi32(codes)),
                powers(_mm256_cvtepu8_epi32(_mm_srli_si128::<8>(codes))),
            ]
        })
    }
    #[inline(always)]
    fn mul_floats(self, a: Self::F, b: Self::F) -> Self::F {
        both!(_mm256_mul_ps(a, b))
    }
    #[inline(always)]
    fn add_floats(self, a: Self::F, b: Self::F) -> Self::F {
        both!(_mm256_add_ps(a, b))
    }
    #[inline(always)]
    fn fma(self, a: Self::F, b: Self::F, c: Self::F) -> Self::F {
        have!([_mm256_fmadd_ps(a[0], b[0], c[0]), _mm256_fmadd_ps(a[1], b[1], c[1])])
    }
    #[inline(always)]
    fn total(self, v: Self::F) -> f32 {
        have!({
            let v = _mm256_add_ps(v[0], v[1]);
            let v = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps::<1>(v));
            let v = _mm_add_ps(v, _mm_movehl_ps(v, v));
            _mm_cvtss_f32(_mm_add_ss(v, _mm_movehdup_ps(v)))
        })
    }

    #[inline(always)]
    fn q8_scales(self, blocks: &[u8; 544]) -> Self::F {
        portable::q8_scales(self, blocks)
    }
    #[inline(always)]
    fn mxfp4(self, blocks: &[u8; 272]) -> ([Self::B; 4], Self::F) {
        portable::mxfp4(self, blocks)
    }
    #[inline(always)]
    fn iq2xxs(self, groups: &[u8; 64]) -> (Self::B, Self::B) {
        let (codes, signs) = portable::iq2xxs(self.grid, groups);
        (longs(codes), longs(signs))
    }
    #[inline(always)]
    fn dot_e4m3(self, sums: [Self::I; 2], codes: Self::B, x: Self::B) -> [Self::I; 2] {
        portable::dot_e4m3(self, sums, codes, x)
    }
    #[inline(always)]
    fn turn(self, rows: &[[u8; 64]; 16], groups: &mut [[u8; 64]; 16]) {
        portable::turn(rows, groups)
    }
    #[inline(always)]
    fn prefetch(self, at: *const u8) {
        have!(_mm_prefetch::<_MM_HINT_T0>(at.cast()))
    }
}

/// Eight bytes from each integer.
#[inline(always)]
fn longs([a, b, c, d, e, f, g, h]: [u64; 8]) -> [__m256i; 2] {
    have!([
        _mm256_setr_epi64x(a as i64, b as i64, c as i64, d as i64),
        _mm256_setr_epi64x(e as i64, f as i64, g as i64, h as i64),
    ])
}

/// The values of E8M0 codes.
#[inline]
#[target_feature(enable = "avx2")]
fn powers(codes: __m256i) -> __m256 {
    // Code 0 is the subnormal 2^-127.
    let least = _mm256_set1_epi32(0x0040_0000);
    let values = _mm256_max_epu32(_mm256_slli_epi32::<23>(codes), least);
    let nan = _mm256_cmpeq_epi32(codes, _mm256_set1_epi32(255));
    let nan = _mm256_and_si256(nan, _mm256_set1_epi32(0x7fc0_0000));
    _mm256_castsi256_ps(_mm256_or_si256(values, nan))
}

/// The sums of each half: of the first halves of the four registers, then of the second.
#[inline]
#[target_feature(enable = "avx2")]
fn quarter_sums([a, b, c, d]: [__m256i; 4]) -> __m256i {
    let ab = _mm256_add_epi32(_mm256_unpacklo_epi32(a, b), _mm256_unpackhi_epi32(a, b));
    let cd = _mm256_add_epi32(_mm256_unpacklo_epi32(c, d), _mm256_unpackhi_epi32(c, d));
    _mm256_add_epi32(_mm256_unpacklo_epi64(ab, cd), _mm256_unpackhi_epi64(ab, cd))
}

/// The sum of each of eight registers.
#[inline]
#[target_feature(enable = "avx2")]
fn eight_sums([a, b, c, d, e, f, g, h]: [__m256i; 8]) -> __m256i {
    let (low, high) = (quarter_sums([a, b, c, d]), quarter_sums([e, f, g, h]));
    _mm256_add_epi32(
        _mm256_permute2x128_si256::<0x20>(low, high),
        _mm256_permute2x128_si256::<0x31>(low, high),
    )
}
