//! What every kernel must compute, bit for bit, in the plainest code.
//!
//! A block of weights meets a block of codes in exact integers; each integer becomes the nearest
//! float, is multiplied by the product of the two scales and added to one of sixteen sums, rounding
//! once. Formats with a scale per 32 columns take the sums in turn. Superblocks have two integers
//! each: the first goes to one of the sums 0..8 in turn, the second to the same of 8..16.

use ds4_quant::{Format, e2m1_decode, e4m3_decode, e8m0_decode, f16_decode};

use super::{
    activations::{SUMMED, Token},
    grid::Grid,
};

/// One block's share: exact integers, and the weights' scale of each.
type Shares = [(i32, f32); 2];

/// One row of weights times one row of activations.
pub fn row(grid: &Grid, format: Format, bytes: &[u8], scales: &[u8], x: &Token<'_>) -> f32 {
    let columns = x.form.order.columns();
    let mut natural = vec![0; x.codes.len()];
    for (natural, codes) in natural.chunks_exact_mut(256).zip(x.codes.chunks_exact(256)) {
        for (&code, &column) in codes.iter().zip(columns) {
            natural[usize::from(column)] = code;
        }
    }
    let block = x.form.block;
    let turns = if block == 32 { 16 } else { 8 };
    let row_bytes = |cols: usize| cols / format.block_elems() * format.block_bytes();
    let mut sums = [0.0f32; 16];
    for (i, (x, &scale)) in natural.chunks_exact(block).zip(x.scales).enumerate() {
        let block_bytes =
            row_bytes(i * block).min(bytes.len())..row_bytes((i + 1) * block).min(bytes.len());
        let shares = shares(grid, format, &bytes[block_bytes], scales.get(i), x);
        for ((integer, weight), sum) in
            shares.into_iter().zip(sums[i % turns..].iter_mut().step_by(8))
        {
            *sum = (integer as f32).mul_add(weight * scale, *sum);
            if turns == 16 {
                break;
            }
        }
    }
    for half in [8, 4, 2, 1] {
        for i in 0..half {
            sums[i] += sums[i + half];
        }
    }
    sums[0]
}

fn shares(grid: &Grid, format: Format, block: &[u8], scale: Option<&u8>, x: &[i8]) -> Shares {
    const NONE: (i32, f32) = (0, 0.0);
    if block.is_empty() {
        return if has_minima(format) { [NONE, (0, -0.0)] } else { [NONE; 2] };
    }
    let half = |at: usize| f16_decode(u16::from_le_bytes([block[at], block[at + 1]]));
    let power = scale.map_or(f32::NAN, |&scale| e8m0_decode(scale));
    match format {
        Format::Q8_0 => [(dot(&block[2..], |&q| i32::from(q as i8), x), half(0)), NONE],
        Format::Mxfp4 => {
            let low = dot(&block[1..], |&q| doubled(q), &x[..16]);
            let high = dot(&block[1..], |&q| doubled(q >> 4), &x[16..]);
            [(low + high, e8m0_decode(block[0]) * 0.5), NONE]
        }
        Format::Fp4Block => {
            let codes = block.iter().flat_map(|&q| [doubled(q), doubled(q >> 4)]);
            [(codes.zip(x).map(|(w, &x)| w * i32::from(x)).sum(), power * 0.5), NONE]
        }
        Format::Fp8Block => {
            let low = dot(block, |&q| e4m3_parts(q)[0], x);
            let high = dot(block, |&q| e4m3_parts(q)[1], x);
            [(low, power / 512.0), (high, power / 2.0)]
        }
        Format::Q2K => {
            let mut sums = [0, 0];
            for (s, (x, &scale)) in x.chunks_exact(16).zip(block).enumerate() {
                let codes = &block[16 + s / 8 * 32 + s % 2 * 16..];
                let shift = s % 8 / 2 * 2;
                sums[0] += i32::from(scale & 15) * dot(codes, |&q| i32::from(q >> shift & 3), x);
                sums[1] += i32::from(scale >> 4) * sum(x);
            }
            [(sums[0], half(80)), (sums[1], -half(82))]
        }
        Format::Q4K => with_minima(x, block, &block[16..], |_, _| 0),
        Format::Q5K => {
            with_minima(x, block, &block[48..], |s, i| i32::from(block[16 + i] >> s & 1) << 4)
        }
        Format::Q6K => {
            let mut total = 0;
            for (s, x) in x.chunks_exact(16).enumerate() {
                let scale = i32::from(block[192 + s] as i8);
                let (run, first) = (s / 2, s % 2 * 16);
                let low = &block[run / 4 * 64 + run % 2 * 32 + first..];
                let high = &block[128 + run / 4 * 32 + first..];
                let codes = low.iter().zip(high).map(|(&low, &high)| {
                    let low = low >> (run % 4 / 2 * 4) & 15;
                    i32::from(low | (high >> (run % 4 * 2) & 3) << 4) - 32
                });
                total += scale * codes.zip(x).map(|(w, &x)| w * i32::from(x)).sum::<i32>();
            }
            [(total, half(208)), NONE]
        }
        Format::Iq2Xxs => {
            let mut total = 0;
            for (group, x) in block[2..].chunks_exact(8).zip(x.chunks_exact(32)) {
                let word = u32::from_le_bytes([group[4], group[5], group[6], group[7]]);
                let mut sum = 0;
                for (l, x) in x.chunks_exact(8).enumerate() {
                    let seven = word >> (7 * l) & 127;
                    let signs = seven | (seven.count_ones() & 1) << 7;
                    for (j, &x) in x.iter().enumerate() {
                        let magnitude = i32::from(grid.magnitude(group[l], j));
                        let sign = 1 - 2 * (signs >> j & 1) as i32;
                        sum += sign * magnitude * i32::from(x);
                    }
                }
                total += (2 * (word >> 28) as i32 + 1) * sum;
            }
            [(total, half(0) * 0.125), NONE]
        }
        Format::F32 | Format::F16 | Format::BF16 | Format::Q4_0 => [NONE; 2],
    }
}

fn has_minima(format: Format) -> bool {
    matches!(format, Format::Q2K | Format::Q4K | Format::Q5K)
}

fn dot(codes: &[u8], value: impl Fn(&u8) -> i32, x: &[i8]) -> i32 {
    codes.iter().map(value).zip(x).map(|(w, &x)| w * i32::from(x)).sum()
}

fn sum(x: &[i8]) -> i32 {
    debug_assert_eq!(x.len(), SUMMED);
    x.iter().map(|&x| i32::from(x)).sum()
}

/// Twice the value of an E2M1 code, an integer.
fn doubled(code: u8) -> i32 {
    (2.0 * e2m1_decode(code)) as i32
}

/// An E4M3 value in units of 2^-9, or in units of 2^-1 if that has no fraction. There is no NaN: its
/// code stands for what comes after 448.
fn e4m3_parts(code: u8) -> [i32; 2] {
    let magnitude = if code & 127 == 127 { 480.0 } else { e4m3_decode(code & 127) };
    let sign = if code > 127 { -1.0 } else { 1.0 };
    if magnitude < 4.0 {
        [(sign * magnitude * 512.0) as i32, 0]
    } else {
        [0, (sign * magnitude * 2.0) as i32]
    }
}

fn with_minima(x: &[i8], block: &[u8], codes: &[u8], more: impl Fn(usize, usize) -> i32) -> Shares {
    let half = |at: usize| f16_decode(u16::from_le_bytes([block[at], block[at + 1]]));
    let s = &block[4..16];
    let mut sums = [0, 0];
    for (j, x) in x.chunks_exact(32).enumerate() {
        let (scale, min) = if j < 4 {
            (s[j] & 63, s[j + 4] & 63)
        } else {
            (s[j + 4] & 15 | s[j - 4] >> 6 << 4, s[j + 4] >> 4 | s[j] >> 6 << 4)
        };
        for (i, (&q, &x)) in codes[j / 2 * 32..].iter().zip(x).enumerate() {
            let code = i32::from(q >> (j % 2 * 4) & 15) + more(j, i);
            sums[0] += i32::from(scale) * code * i32::from(x);
            sums[1] += i32::from(min) * i32::from(x);
        }
    }
    [(sums[0], half(0)), (sums[1], -half(2))]
}
