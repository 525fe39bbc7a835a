//! What an instruction set can do without: the same results in plain code, or in fewer instructions.

use super::{codec::part, grid::Grid, isa::Isa};

/// As `Isa::lookup_nibbles`.
#[inline(always)]
pub fn lookup_nibbles<S: Isa>(s: S, table: &[u8; 16], codes: S::B) -> [S::B; 2] {
    let (table, nibble) = (s.repeat(table), s.splat(15));
    [s.lookup(table, s.and(codes, nibble)), s.lookup(table, s.and(s.shr::<4>(codes), nibble))]
}

/// As `Isa::lookup_fields`.
#[inline(always)]
pub fn lookup_fields<S: Isa>(s: S, &[a, b, c, d]: &[u8; 4], codes: S::B) -> [S::B; 4] {
    let table = s.repeat(&[a, b, c, d, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    let mut fields = [codes, s.shr::<2>(codes), s.shr::<4>(codes), s.shr::<6>(codes)];
    for field in &mut fields {
        *field = s.lookup(table, s.and(*field, s.splat(3)));
    }
    fields
}

/// As `Isa::q8_scales`.
#[inline(always)]
pub fn q8_scales<S: Isa>(s: S, blocks: &[u8; 544]) -> S::F {
    let mut scales = [0; 16];
    for (i, scale) in scales.iter_mut().enumerate() {
        *scale = u16::from_le_bytes(*part(blocks, 34 * i));
    }
    s.halves(scales)
}

/// As `Isa::mxfp4`.
#[inline(always)]
pub fn mxfp4<S: Isa>(s: S, blocks: &[u8; 272]) -> ([S::B; 4], S::F) {
    let mut codes = [s.splat(0); 4];
    for (i, codes) in codes.iter_mut().enumerate() {
        let at = 68 * i + 1;
        let [a, b, c, d] = [at, at + 17, at + 34, at + 51];
        *codes = s.quad([part(blocks, a), part(blocks, b), part(blocks, c), part(blocks, d)]);
    }
    let mut scales = [0; 16];
    for (i, scale) in scales.iter_mut().enumerate() {
        *scale = blocks[17 * i];
    }
    (codes, s.powers(scales))
}

/// As `Isa::iq2xxs`, eight bytes at a time.
#[inline(always)]
pub fn iq2xxs(grid: &Grid, groups: &[u8; 64]) -> ([u64; 8], [u64; 8]) {
    let (mut codes, mut signs) = ([0; 8], [0; 8]);
    for (i, codes) in codes.iter_mut().enumerate() {
        let [a, b, c, d] = *part(groups, 8 * i);
        *codes = u64::from(grid.row(a))
            | u64::from(grid.row(b)) << 16
            | u64::from(grid.row(c)) << 32
            | u64::from(grid.row(d)) << 48;
    }
    for (i, signs) in signs.iter_mut().enumerate() {
        let word = u64::from_le_bytes(*part(groups, 8 * i)) >> 32;
        // Each seven signs in a word of 16 bits.
        let fields = word & 0x7f
            | (word & 0x3f80) << 9
            | (word & 0x1f_c000) << 18
            | (word & 0x0fe0_0000) << 27;
        let parity = fields ^ fields >> 4;
        let parity = parity ^ parity >> 2;
        let parity = (parity ^ parity >> 1) & 0x0001_0001_0001_0001;
        let eight = fields | parity << 7;
        *signs = eight | eight << 8;
    }
    (codes, signs)
}

/// Powers of two by exponent, for the products in units of 2^-9 and for those in units of 2^-1.
static POWERS: [[u8; 16]; 2] = [
    [1, 1, 2, 4, 8, 16, 32, 64, 128, 0, 0, 0, 0, 0, 0, 0],
    [0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 2, 4, 8, 16, 32, 64],
];
/// What the mantissa lacks by exponent.
static HIDDEN: [u8; 16] = [0, 8, 8, 8, 8, 8, 8, 8, 8, 8, 8, 8, 8, 8, 8, 8];

/// As `Isa::dot_e4m3`, in words of 16 bits: a mantissa times a power of two has at most 11.
#[inline(always)]
pub fn dot_e4m3<S: Isa>(s: S, sums: [S::I; 2], codes: S::B, x: S::B) -> [S::I; 2] {
    let x = s.flip(x, codes, s.splat(128));
    let [mut low, mut high] = sums;
    for (codes, x) in [(codes, s.sar8(s.shl::<8>(x))), (s.shr::<8>(codes), s.sar8(x))] {
        let mantissa = s.and(codes, s.splat_word(7));
        // Indices whose high bytes look up nothing.
        let exponent = s.or(s.and(s.shr::<3>(codes), s.splat_word(15)), s.splat_word(i16::MIN));
        let mantissa = s.or(mantissa, s.lookup(s.repeat(&HIDDEN), exponent));
        let powers = s.lookup(s.repeat(&POWERS[0]), exponent);
        low = s.dot_words(low, s.mul_words(mantissa, powers), x);
        let powers = s.lookup(s.repeat(&POWERS[1]), exponent);
        high = s.dot_words(high, s.mul_words(mantissa, powers), x);
    }
    [low, high]
}

/// As `Isa::turn`.
#[inline(always)]
pub fn turn(rows: &[[u8; 64]; 16], groups: &mut [[u8; 64]; 16]) {
    for (r, row) in rows.iter().enumerate() {
        for (four, group) in row.as_chunks::<4>().0.iter().zip(&mut *groups) {
            group[4 * r..4 * r + 4].copy_from_slice(four);
        }
    }
}
