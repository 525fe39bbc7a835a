//! The K-quants: 256 values under one or two f16 scales, in sub-blocks with small integer scales of
//! their own.

use crate::minifloat::f16_decode;

/// Q2_K: `[scales: 16 bytes][q: 64 bytes][d: f16][dmin: f16]`, sub-blocks of 16,
/// `x = d scale q - dmin min`.
///
/// The low nibble of `scales[s]` is the scale of sub-block `s`, the high nibble its minimum. Each
/// half of 128 values has 32 bytes: their lowest two bits are its first 32 values, the next two
/// bits the next 32, and so on.
pub(crate) fn q2_k(block: &[u8; 84], out: &mut [f32; 256]) {
    let d = half_at(block, 80);
    let dmin = half_at(block, 82);
    let scales = block[..16].as_chunks::<2>().0;
    let halves = block[16..80].as_chunks::<32>().0;
    let (quarters, _) = out.as_chunks_mut::<32>();
    for (i, (quarter, pair)) in quarters.iter_mut().zip(scales).enumerate() {
        let codes = &halves[i / 4];
        let shift = 2 * (i % 4);
        for (part, (out, &s)) in quarter.as_chunks_mut::<16>().0.iter_mut().zip(pair).enumerate() {
            let scale = d * f32::from(s & 15);
            let min = dmin * f32::from(s >> 4);
            for (x, &q) in out.iter_mut().zip(&codes[16 * part..16 * part + 16]) {
                *x = scale * f32::from(q >> shift & 3) - min;
            }
        }
    }
}

/// Q4_K: `[d: f16][dmin: f16][scales: 12 bytes][q: 128 bytes]`, sub-blocks of 32,
/// `x = d scale q - dmin min`.
///
/// Sub-blocks `2p` and `2p + 1` share 32 bytes: low nibbles are the first, high nibbles the second.
pub(crate) fn q4_k(block: &[u8; 144], out: &mut [f32; 256]) {
    let steps = scale_and_min(block);
    let codes = block[16..].as_chunks::<32>().0;
    for (i, (out, (scale, min))) in out.as_chunks_mut::<32>().0.iter_mut().zip(steps).enumerate() {
        let nibble = 4 * (i % 2);
        for (x, &q) in out.iter_mut().zip(&codes[i / 2]) {
            *x = scale * f32::from(q >> nibble & 15) - min;
        }
    }
}

/// Q5_K: as Q4_K, with 32 bytes of fifth bits before the nibbles: bit `j` of byte `i` belongs to
/// value `i` of sub-block `j`.
pub(crate) fn q5_k(block: &[u8; 176], out: &mut [f32; 256]) {
    let steps = scale_and_min(block);
    let fifths = &block[16..48];
    let codes = block[48..].as_chunks::<32>().0;
    for (i, (out, (scale, min))) in out.as_chunks_mut::<32>().0.iter_mut().zip(steps).enumerate() {
        let nibble = 4 * (i % 2);
        for ((x, &q), &fifth) in out.iter_mut().zip(&codes[i / 2]).zip(fifths) {
            *x = scale * f32::from(q >> nibble & 15 | (fifth >> i & 1) << 4) - min;
        }
    }
}

/// Q6_K: `[low: 128 bytes][high: 64 bytes][scales: i8 x 16][d: f16]`, sub-blocks of 16,
/// `x = d scale (q - 32)`.
///
/// Each half of 128 values has 64 low bytes and 32 high bytes. Its four runs of 32 take the low
/// nibbles of the first and second 32 low bytes, then the high nibbles of the same; the upper two
/// bits of run `r` are bits `2r` and `2r + 1` of the high bytes.
pub(crate) fn q6_k(block: &[u8; 210], out: &mut [f32; 256]) {
    let d = half_at(block, 208);
    let lows = block[..128].as_chunks::<32>().0;
    let highs = block[128..192].as_chunks::<32>().0;
    let scales = block[192..208].as_chunks::<2>().0;
    for (i, (run, pair)) in out.as_chunks_mut::<32>().0.iter_mut().zip(scales).enumerate() {
        let (half, r) = (i / 4, i % 4);
        let low = &lows[2 * half + r % 2];
        let high = &highs[half];
        for (part, (out, &scale)) in run.as_chunks_mut::<16>().0.iter_mut().zip(pair).enumerate() {
            let scale = d * f32::from(scale as i8);
            let bytes = 16 * part..16 * part + 16;
            for ((x, &low), &high) in out.iter_mut().zip(&low[bytes.clone()]).zip(&high[bytes]) {
                let q = low >> (4 * (r / 2)) & 15 | (high >> (2 * r) & 3) << 4;
                *x = scale * (f32::from(q) - 32.0);
            }
        }
    }
}

/// The scale and minimum of the eight sub-blocks of Q4_K and Q5_K, whose blocks begin alike.
///
/// Six bits each: the first four are the low bits of bytes 0..4 and 4..8; of the last four, bytes
/// 8..12 hold the lower four bits, and the top two are those that the first eight bytes have left.
fn scale_and_min(block: &[u8]) -> [(f32, f32); 8] {
    let d = half_at(block, 0);
    let dmin = half_at(block, 2);
    let s = &block[4..16];
    std::array::from_fn(|j| {
        let (scale, min) = if j < 4 {
            (s[j] & 63, s[j + 4] & 63)
        } else {
            (s[j + 4] & 15 | s[j - 4] >> 6 << 4, s[j + 4] >> 4 | s[j] >> 6 << 4)
        };
        (d * f32::from(scale), dmin * f32::from(min))
    })
}

#[inline(always)]
fn half_at(block: &[u8], at: usize) -> f32 {
    f16_decode(u16::from_le_bytes([block[at], block[at + 1]]))
}
