//! AVX-512: one register for one vector.
//!
//! Two levels: with VNNI (Cascade Lake, 2019), and with VBMI and GFNI too (Ice Lake, Zen 4), which
//! look IQ2_XXS grids and FP8 codes up in registers.

use std::arch::x86_64::*;

use super::{codec::part, grid::Grid, isa::Isa, portable};

/// The instructions of the lower level.
#[derive(Clone, Copy)]
pub struct Zmm<const VBMI: bool> {
    grid: &'static Grid,
}

impl<const VBMI: bool> Zmm<VBMI> {
    /// # Safety
    /// The processor must have AVX-512 F, BW, VL, DQ and VNNI; with `VBMI` also VBMI and GFNI.
    pub unsafe fn new() -> Self {
        Zmm { grid: Grid::get() }
    }
}

/// Evaluates an expression of intrinsics.
macro_rules! have {
    ($e:expr) => {
        // SAFETY: a `Zmm` is only made where the processor has the instructions; addresses come from
        // references to arrays of the register's size.
        unsafe { $e }
    };
}

impl<const VBMI: bool> Isa for Zmm<VBMI> {
    type B = __m512i;
    type I = __m512i;
    type F = __m512;

    const BIAS: i32 = 128;

    #[inline(always)]
    fn bytes(self, from: &[u8; 64]) -> __m512i {
        have!(_mm512_loadu_si512(from.as_ptr().cast()))
    }
    #[inline(always)]
    fn signed(self, from: &[i8; 64]) -> __m512i {
        have!(_mm512_loadu_si512(from.as_ptr().cast()))
    }
    #[inline(always)]
    fn words(self, from: &[i16; 32]) -> __m512i {
        have!(_mm512_loadu_si512(from.as_ptr().cast()))
    }
    #[inline(always)]
    fn half_words(self, from: &[i16; 16]) -> __m512i {
        have!(_mm512_zextsi256_si512(_mm256_loadu_si256(from.as_ptr().cast())))
    }
    #[inline(always)]
    fn widen(self, low: &[u8; 16], high: &[u8; 16]) -> __m512i {
        have!({
            let low = _mm256_castsi128_si256(_mm_loadu_si128(low.as_ptr().cast()));
            let high = _mm_loadu_si128(high.as_ptr().cast());
            _mm512_cvtepu8_epi16(_mm256_inserti128_si256::<1>(low, high))
        })
    }
    #[inline(always)]
    fn pair(self, low: &[u8; 32], high: &[u8; 32]) -> __m512i {
        have!({
            let low = _mm512_castsi256_si512(_mm256_loadu_si256(low.as_ptr().cast()));
            _mm512_inserti64x4::<1>(low, _mm256_loadu_si256(high.as_ptr().cast()))
        })
    }
    #[inline(always)]
    fn quad(self, from: [&[u8; 16]; 4]) -> __m512i {
        have!({
            let [a, b, c, d] = from;
            let low = _mm256_castsi128_si256(_mm_loadu_si128(a.as_ptr().cast()));
            let low = _mm256_inserti128_si256::<1>(low, _mm_loadu_si128(b.as_ptr().cast()));
            let high = _mm256_castsi128_si256(_mm_loadu_si128(c.as_ptr().cast()));
            let high = _mm256_inserti128_si256::<1>(high, _mm_loadu_si128(d.as_ptr().cast()));
            _mm512_inserti64x4::<1>(_mm512_castsi256_si512(low), high)
        })
    }
    #[inline(always)]
    fn repeat(self, from: &[u8; 16]) -> __m512i {
        have!(_mm512_broadcast_i32x4(_mm_loadu_si128(from.as_ptr().cast())))
    }
    #[inline(always)]
    fn splat(self, byte: u8) -> __m512i {
        have!(_mm512_set1_epi8(byte as i8))
    }
    #[inline(always)]
    fn splat_word(self, word: i16) -> __m512i {
        have!(_mm512_set1_epi16(word))
    }
    #[inline(always)]
    fn store(self, v: __m512i, to: &mut [u8; 64]) {
        have!(_mm512_storeu_si512(to.as_mut_ptr().cast(), v))
    }
    #[inline(always)]
    fn and(self, a: __m512i, b: __m512i) -> __m512i {
        have!(_mm512_and_si512(a, b))
    }
    #[inline(always)]
    fn or(self, a: __m512i, b: __m512i) -> __m512i {
        have!(_mm512_or_si512(a, b))
    }
    #[inline(always)]
    fn shr<const N: u32>(self, v: __m512i) -> __m512i {
        have!(_mm512_srli_epi16::<N>(v))
    }
    #[inline(always)]
    fn shl<const N: u32>(self, v: __m512i) -> __m512i {
        have!(_mm512_slli_epi16::<N>(v))
    }
    #[inline(always)]
    fn sar8(self, v: __m512i) -> __m512i {
        have!(_mm512_srai_epi16::<8>(v))
    }
    #[inline(always)]
    fn mul_words(self, a: __m512i, b: __m512i) -> __m512i {
        have!(_mm512_mullo_epi16(a, b))
    }
    #[inline(always)]
    fn lookup(self, table: __m512i, index: __m512i) -> __m512i {
        have!(_mm512_shuffle_epi8(table, index))
    }
    #[inline(always)]
    fn lookup_nibbles(self, table: &[u8; 16], codes: __m512i) -> [__m512i; 2] {
        if !VBMI {
            return portable::lookup_nibbles(self, table, codes);
        }
        // The table stands there four times, so the two bits above a nibble do not matter.
        let table = self.repeat(table);
        have!([
            _mm512_permutexvar_epi8(codes, table),
            _mm512_permutexvar_epi8(self.shr::<4>(codes), table),
        ])
    }
    #[inline(always)]
    fn lookup_fields(self, table: &[u8; 4], codes: __m512i) -> [__m512i; 4] {
        if !VBMI {
            return portable::lookup_fields(self, table, codes);
        }
        // The table stands there sixteen times, so the four bits above a field do not matter.
        let table = have!(_mm512_set1_epi32(i32::from_le_bytes(*table)));
        let mut fields = [codes, self.shr::<2>(codes), self.shr::<4>(codes), self.shr::<6>(codes)];
        for field in &mut fields {
            *field = have!(_mm512_permutexvar_epi8(*field, table));
        }
        fields
    }
    #[inline(always)]
    fn flip(self, v: __m512i, bits: __m512i, which: __m512i) -> __m512i {
        have!({
            let minus = _mm512_test_epi8_mask(bits, which);
            _mm512_mask_sub_epi8(v, minus, _mm512_setzero_si512(), v)
        })
    }
    #[inline(always)]
    fn ready(self, v: __m512i) -> __m512i {
        have!(_mm512_xor_si512(v, _mm512_set1_epi8(-128)))
    }

    #[inline(always)]
    fn ints(self, from: &[i32; 16]) -> __m512i {
        have!(_mm512_loadu_si512(from.as_ptr().cast()))
    }
    #[inline(always)]
    fn splat_int(self, x: i32) -> __m512i {
        have!(_mm512_set1_epi32(x))
    }
    #[inline(always)]
    fn as_ints(self, v: __m512i) -> __m512i {
        v
    }
    #[inline(always)]
    fn as_bytes(self, v: __m512i) -> __m512i {
        v
    }
    #[inline(always)]
    fn add(self, a: __m512i, b: __m512i) -> __m512i {
        have!(_mm512_add_epi32(a, b))
    }
    #[inline(always)]
    fn sub(self, a: __m512i, b: __m512i) -> __m512i {
        have!(_mm512_sub_epi32(a, b))
    }
    #[inline(always)]
    fn mul(self, a: __m512i, b: __m512i) -> __m512i {
        have!(_mm512_mullo_epi32(a, b))
    }
    #[inline(always)]
    fn shl_int<const N: u32>(self, v: __m512i) -> __m512i {
        have!(_mm512_slli_epi32::<N>(v))
    }
    #[inline(always)]
    fn shr_int<const N: u32>(self, v: __m512i) -> __m512i {
        have!(_mm512_srli_epi32::<N>(v))
    }
    #[inline(always)]
    fn dup_odd(self, v: __m512i) -> __m512i {
        have!(_mm512_shuffle_epi32::<0b11_11_01_01>(v))
    }
    #[inline(always)]
    fn dot(self, sum: __m512i, weights: __m512i, x: __m512i) -> __m512i {
        have!(_mm512_dpbusd_epi32(sum, weights, x))
    }
    #[inline(always)]
    fn dot_signed(self, sum: __m512i, weights: __m512i, x: __m512i) -> __m512i {
        have!(_mm512_dpbusd_epi32(sum, weights, x))
    }
    #[inline(always)]
    fn dot_words(self, sum: __m512i, a: __m512i, b: __m512i) -> __m512i {
        have!(_mm512_dpwssd_epi32(sum, a, b))
    }
    #[inline(always)]
    fn dot_scaled(self, sum: __m512i, weights: __m512i, x: __m512i, scale: __m512i) -> __m512i {
        have!(_mm512_dpwssd_epi32(sum, _mm512_maddubs_epi16(weights, x), scale))
    }
    #[inline(always)]
    fn halve(self, a: __m512i, b: __m512i) -> __m512i {
        have!(_mm512_add_epi32(
            _mm512_shuffle_i64x2::<0b01_00_01_00>(a, b),
            _mm512_shuffle_i64x2::<0b11_10_11_10>(a, b),
        ))
    }
    #[inline(always)]
    fn sums_of_8(self, v: [__m512i; 8]) -> __m512i {
        let [a, b, c, d, e, f, g, h] = v;
        have!({
            let low = quarter_sums([a, b, c, d]);
            let high = quarter_sums([e, f, g, h]);
            let sums = _mm512_add_epi32(
                _mm512_shuffle_i64x2::<0b10_00_10_00>(low, high),
                _mm512_shuffle_i64x2::<0b11_01_11_01>(low, high),
            );
            let order = _mm512_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7, 8, 12, 9, 13, 10, 14, 11, 15);
            _mm512_permutexvar_epi32(order, sums)
        })
    }
    #[inline(always)]
    fn sums_of_4(self, v: [__m512i; 4]) -> __m512i {
        have!({
            let order = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
            _mm512_permutexvar_epi32(order, quarter_sums(v))
        })
    }

    #[inline(always)]
    fn floats(self, from: &[f32; 16]) -> __m512 {
        have!(_mm512_loadu_ps(from.as_ptr()))
    }
    #[inline(always)]
    fn twice(self, from: &[f32; 8]) -> __m512 {
        have!(_mm512_broadcast_f32x8(_mm256_loadu_ps(from.as_ptr())))
    }
    #[inline(always)]
    fn splat_float(self, x: f32) -> __m512 {
        have!(_mm512_set1_ps(x))
    }
    #[inline(always)]
    fn store_floats(self, v: __m512, to: &mut [f32; 16]) {
        have!(_mm512_storeu_ps(to.as_mut_ptr(), v))
    }
    #[inline(always)]
    fn float(self, v: __m512i) -> __m512 {
        have!(_mm512_cvtepi32_ps(v))
    }
    #[inline(always)]
    fn halves(self, from: [u16; 16]) -> __m512 {
        let [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p] = from;
        have!(_mm512_cvtph_ps(_mm256_setr_epi16(
            a as i16, b as i16, c as i16, d as i16, e as i16, f as i16, g as i16, h as i16,
            i as i16, j as i16, k as i16, l as i16, m as i16, n as i16, o as i16, p as i16,
        )))
    }
    #[inline(always)]
    fn powers(self, from: [u8; 16]) -> __m512 {
        have!({
            let codes = _mm_loadu_si128(from.as_ptr().cast());
            powers(_mm512_cvtepu8_epi32(codes))
        })
    }
    #[inline(always)]
    fn mul_floats(self, a: __m512, b: __m512) -> __m512 {
        have!(_mm512_mul_ps(a, b))
    }
    #[inline(always)]
    fn add_floats(self, a: __m512, b: __m512) -> __m512 {
        have!(_mm512_add_ps(a, b))
    }
    #[inline(always)]
    fn fma(self, a: __m512, b: __m512, c: __m512) -> __m512 {
        have!(_mm512_fmadd_ps(a, b, c))
    }
    #[inline(always)]
    fn total(self, v: __m512) -> f32 {
        have!({
            let v = _mm256_add_ps(_mm512_castps512_ps256(v), _mm512_extractf32x8_ps::<1>(v));
            let v = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps::<1>(v));
            let v = _mm_add_ps(v, _mm_movehl_ps(v, v));
            _mm_cvtss_f32(_mm_add_ss(v, _mm_movehdup_ps(v)))
        })
    }

    #[inline(always)]
    fn q8_scales(self, blocks: &[u8; 544]) -> __m512 {
        // The scales of blocks 2i and 2i + 1 are in the `i`th 64 bytes, two words further each time.
        let mut scales = [self.splat(0); 4];
        for (i, scales) in scales.iter_mut().enumerate() {
            let low = self.bytes(part(blocks, 128 * i));
            let high = self.bytes(part(blocks, 128 * i + 64));
            let places = self.words(&Q8_SCALES[i]);
            *scales = have!(_mm512_maskz_permutex2var_epi16(0xf << (4 * i), low, places, high));
        }
        let [a, b, c, d] = scales;
        let scales = self.or(self.or(a, b), self.or(c, d));
        have!(_mm512_cvtph_ps(_mm512_castsi512_si256(scales)))
    }
    #[inline(always)]
    fn mxfp4(self, blocks: &[u8; 272]) -> ([__m512i; 4], __m512) {
        if !VBMI {
            return portable::mxfp4(self, blocks);
        }
        let mut lines = [self.splat(0); 5];
        for (i, line) in lines[..4].iter_mut().enumerate() {
            *line = self.bytes(part(blocks, 64 * i));
        }
        lines[4] = self.repeat(part(blocks, 256));
        let mut codes = [self.splat(0); 4];
        for (i, codes) in codes.iter_mut().enumerate() {
            let places = self.bytes(&MXFP4_CODES[i]);
            *codes = have!(_mm512_permutex2var_epi8(lines[i], places, lines[i + 1]));
        }
        let mut scales = [self.splat(0); 2];
        for (i, scales) in scales.iter_mut().enumerate() {
            let (low, high) = (lines[2 * i], lines[2 * i + 1]);
            let places = self.bytes(&MXFP4_SCALES[i]);
            *scales = have!(_mm512_maskz_permutex2var_epi8(0xff << (8 * i), low, places, high));
        }
        let scales = self.or(scales[0], scales[1]);
        let scales = have!(_mm512_cvtepu8_epi32(_mm512_castsi512_si128(scales)));
        (codes, have!(powers(scales)))
    }
    #[inline(always)]
    fn iq2xxs(self, groups: &[u8; 64]) -> (__m512i, __m512i) {
        if !VBMI {
            let (codes, signs) = portable::iq2xxs(self.grid, groups);
            return (longs(codes), longs(signs));
        }
        have!({
            let groups = self.bytes(groups);
            let indices = _mm512_maskz_permutexvar_epi8(
                0x5555_5555_5555_5555,
                self.bytes(&INDEX_PLACES),
                groups,
            );
            // Four tables of 64 rows; the upper two bits of an index choose one.
            let tables = self.grid.eighths();
            let mut from = [_mm512_setzero_si512(); 4];
            for (i, from) in from.iter_mut().enumerate() {
                let low = _mm512_loadu_si512(tables[2 * i].as_ptr().cast());
                let high = _mm512_loadu_si512(tables[2 * i + 1].as_ptr().cast());
                *from = _mm512_permutex2var_epi16(low, indices, high);
            }
            let odd = _mm512_test_epi16_mask(indices, _mm512_set1_epi16(64));
            let high = _mm512_test_epi16_mask(indices, _mm512_set1_epi16(128));
            let low_rows = _mm512_mask_mov_epi16(from[0], odd, from[1]);
            let high_rows = _mm512_mask_mov_epi16(from[2], odd, from[3]);
            let codes = _mm512_mask_mov_epi16(low_rows, high, high_rows);

            // The four fields of seven signs of each group, twice each.
            let fields = _mm512_set1_epi64(0x3535_2e2e_2727_2020);
            let fields = _mm512_multishift_epi64_epi8(fields, groups);
            // Bit 7 becomes the parity of the others, which stay.
            let parity = _mm512_set1_epi64(0x0102_0408_1020_407f);
            (codes, _mm512_gf2p8affine_epi64_epi8::<0>(fields, parity))
        })
    }
    #[inline(always)]
    fn dot_e4m3(self, sums: [__m512i; 2], codes: __m512i, x: __m512i) -> [__m512i; 2] {
        if !VBMI {
            return portable::dot_e4m3(self, sums, codes, x);
        }
        let x = self.flip(x, codes, self.splat(128));
        let mut limbs = [codes; 4];
        for (limb, table) in limbs.iter_mut().zip(&E4M3_LIMBS) {
            let (low, high) = (self.bytes(part(table, 0)), self.bytes(part(table, 64)));
            *limb = have!(_mm512_permutex2var_epi8(low, codes, high));
        }
        let mut result = sums;
        for (sum, limbs) in result.iter_mut().zip(limbs.as_chunks::<2>().0) {
            let high = self.dot(self.splat_int(0), limbs[1], x);
            *sum = self.add(self.dot(*sum, limbs[0], x), self.shl_int::<7>(high));
        }
        result
    }
    #[inline(always)]
    fn turn(self, rows: &[[u8; 64]; 16], groups: &mut [[u8; 64]; 16]) {
        have!(turn(rows, groups))
    }
    #[inline(always)]
    fn prefetch(self, at: *const u8) {
        have!(_mm_prefetch::<_MM_HINT_T0>(at.cast()))
    }
}

/// Eight bytes from each integer.
#[inline(always)]
fn longs([a, b, c, d, e, f, g, h]: [u64; 8]) -> __m512i {
    have!(_mm512_setr_epi64(
        a as i64, b as i64, c as i64, d as i64, e as i64, f as i64, g as i64, h as i64
    ))
}

/// The sums of each quarter: of the first quarters of the four vectors, of the second, and so on.
#[inline]
#[target_feature(enable = "avx512f")]
fn quarter_sums([a, b, c, d]: [__m512i; 4]) -> __m512i {
    let ab = _mm512_add_epi32(_mm512_unpacklo_epi32(a, b), _mm512_unpackhi_epi32(a, b));
    let cd = _mm512_add_epi32(_mm512_unpacklo_epi32(c, d), _mm512_unpackhi_epi32(c, d));
    _mm512_add_epi32(_mm512_unpacklo_epi64(ab, cd), _mm512_unpackhi_epi64(ab, cd))
}

/// A matrix of 16 x 16 fours of bytes, turned.
#[inline]
#[target_feature(enable = "avx512f")]
fn turn(rows: &[[u8; 64]; 16], columns: &mut [[u8; 64]; 16]) {
    let mut v = [_mm512_setzero_si512(); 16];
    for (v, row) in v.iter_mut().zip(rows) {
        // SAFETY: the row is as large as the register.
        *v = unsafe { _mm512_loadu_si512(row.as_ptr().cast()) };
    }
    // Fours, eights, sixteens and halves change places between rows 1, 2, 4 and 8 apart.
    let mut t = v;
    for i in (0..16).step_by(2) {
        t[i] = _mm512_unpacklo_epi32(v[i], v[i + 1]);
        t[i + 1] = _mm512_unpackhi_epi32(v[i], v[i + 1]);
    }
    for i in (0..16).step_by(4) {
        v[i] = _mm512_unpacklo_epi64(t[i], t[i + 2]);
        v[i + 1] = _mm512_unpackhi_epi64(t[i], t[i + 2]);
        v[i + 2] = _mm512_unpacklo_epi64(t[i + 1], t[i + 3]);
        v[i + 3] = _mm512_unpackhi_epi64(t[i + 1], t[i + 3]);
    }
    // Row `4 a + b` now has, in each quarter `q`, column `4 q + b` of rows `4 a ..`.
    for i in 0..4 {
        for (half, at) in [(0, i), (8, i + 8)] {
            t[at] = _mm512_shuffle_i32x4::<0b10_00_10_00>(v[half + i], v[half + i + 4]);
            t[at + 4] = _mm512_shuffle_i32x4::<0b11_01_11_01>(v[half + i], v[half + i + 4]);
        }
    }
    for i in 0..4 {
        v[i] = _mm512_shuffle_i32x4::<0b10_00_10_00>(t[i], t[i + 8]);
        v[i + 8] = _mm512_shuffle_i32x4::<0b11_01_11_01>(t[i], t[i + 8]);
        v[i + 4] = _mm512_shuffle_i32x4::<0b10_00_10_00>(t[i + 4], t[i + 12]);
        v[i + 12] = _mm512_shuffle_i32x4::<0b11_01_11_01>(t[i + 4], t[i + 12]);
    }
    for (v, column) in v.into_iter().zip(columns) {
        // SAFETY: the column is as large as the register.
        unsafe { _mm512_storeu_si512(column.as_mut_ptr().cast(), v) };
    }
}

/// The values of E8M0 codes.
#[inline]
#[target_feature(enable = "avx512f")]
fn powers(codes: __m512i) -> __m512 {
    // Code 0 is the subnormal 2^-127.
    let least = _mm512_set1_epi32(0x0040_0000);
    let values = _mm512_max_epu32(_mm512_slli_epi32::<23>(codes), least);
    let nan = _mm512_cmpeq_epi32_mask(codes, _mm512_set1_epi32(255));
    _mm512_castsi512_ps(_mm512_mask_mov_epi32(values, nan, _mm512_set1_epi32(0x7fc0_0000)))
}

/// In each 128 of 512 bytes, the words that are scales of Q8_0 blocks; each four go to their places.
static Q8_SCALES: [[i16; 32]; 4] = {
    let mut places = [[0; 32]; 4];
    let mut block = 0;
    while block < 16 {
        places[block / 4][block] = (17 * block % 64) as i16;
        block += 1;
    }
    places
};

/// The codes of each four MXFP4 blocks, in two lines of 64 bytes.
static MXFP4_CODES: [[u8; 64]; 4] = {
    let mut places = [[0; 64]; 4];
    let mut i = 0;
    while i < 256 {
        places[i / 64][i % 64] = (17 * (i / 16) + 1 + i % 16 - i / 64 * 64) as u8;
        i += 1;
    }
    places
};

/// In each 128 of 256 bytes, the bytes that are scales of MXFP4 blocks; each eight go to their places.
static MXFP4_SCALES: [[u8; 64]; 2] = {
    let mut places = [[0; 64]; 2];
    let mut block = 0;
    while block < 16 {
        places[block / 8][block] = (17 * block % 128) as u8;
        block += 1;
    }
    places
};

/// Where each of the 32 grid indices lies; every other byte is not looked up.
static INDEX_PLACES: [u8; 64] = {
    let mut places = [0; 64];
    let mut i = 0;
    while i < 32 {
        places[2 * i] = (i / 4 * 8 + i % 4) as u8;
        i += 1;
    }
    places
};

/// The magnitudes of the E4M3 codes: the lower seven bits of those in units of 2^-9 and the others,
/// then of those in units of 2^-1.
static E4M3_LIMBS: [[u8; 128]; 4] = {
    let mut limbs = [[0; 128]; 4];
    let mut code = 0;
    while code < 128 {
        let [low, high] = e4m3_parts(code as u8);
        limbs[0][code] = (low & 127) as u8;
        limbs[1][code] = (low >> 7) as u8;
        limbs[2][code] = (high & 127) as u8;
        limbs[3][code] = (high >> 7) as u8;
        code += 1;
    }
    limbs
};

/// The magnitude of an E4M3 code in units of 2^-9, or in units of 2^-1 if it is 4 or more.
const fn e4m3_parts(code: u8) -> [u32; 2] {
    let (exponent, mantissa) = (code >> 3 & 15, (code & 7) as u32);
    match exponent {
        0 => [mantissa, 0],
        1..=8 => [(8 + mantissa) << (exponent - 1), 0],
        _ => [0, (8 + mantissa) << (exponent - 9)],
    }
}
