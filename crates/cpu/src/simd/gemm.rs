//! Many tokens: sixteen rows are unpacked once, side by side, and then meet all tokens.
//!
//! In the panel four columns of sixteen rows are one vector, so four activations, repeated, give
//! sixteen rows' products at once and nothing is ever added across a vector. Every sum is the one
//! that `gemv` makes: exact integers over the same columns, and the same sixteen sums of floats.

use std::ops::Range;

use super::{
    activations::Token,
    codec::{Array, Chunks, FOURS, Kind, part},
    isa::Isa,
    weights::Weights,
};

/// Rows side by side.
pub const ROWS: usize = 16;
/// Columns of a chunk.
const COLS: usize = 256;
/// The longest step of any format, in bytes.
const LONGEST: usize = 8 * 210;

/// Tokens that are multiplied together at most.
const TOKENS: usize = 12;

/// Sixteen unpacked rows, and the activations that they meet; memory that is kept from one call to
/// the next.
#[derive(Default)]
pub struct Panel {
    chunks: Vec<Chunk>,
    tiles: Vec<Tile>,
}

/// 256 columns of sixteen rows.
#[derive(Clone)]
struct Chunk {
    /// Group after group.
    fours: [[u8; 64]; FOURS],
    /// Scales of groups.
    integers: [[i32; ROWS]; 16],
    /// Minima, two and two of each row.
    minima: [[i16; 2 * ROWS]; 8],
    floats: [[f32; ROWS]; 8],
}

/// 256 columns of some tokens.
#[derive(Clone)]
struct Tile {
    /// Codes, four in an integer, group after group.
    fours: [[i32; TOKENS]; FOURS],
    /// What the bias of the weights adds to each group, taken away.
    starts: [[i32; TOKENS]; 16],
    /// Sums of 16 columns, two in an integer.
    sums: [[i32; TOKENS]; 8],
    scales: [[f32; TOKENS]; 8],
}

/// Rows of weights times tokens, `MANY` at once, and at the end as few as there are.
#[inline(always)]
pub fn multiply<S: Isa, C: Chunks, const MANY: usize>(
    s: S,
    weights: &Weights<'_>,
    rows: Range<usize>,
    x: &[Token<'_>],
    out: &mut [&mut [f32]],
    panel: &mut Panel,
) {
    let Panel { chunks, tiles } = panel;
    let count = weights.cols().div_ceil(C::Codes::LEN) * (C::Codes::LEN / COLS);
    // What is left over from earlier is written over, or adds to products that nobody asks for.
    let chunks = at_least(chunks, count, &Chunk::ZERO);
    let tiles = at_least(tiles, count * x.len().div_ceil(MANY), &Tile::ZERO);
    for (x, tiles) in x.chunks(MANY).zip(tiles.chunks_exact_mut(count)) {
        gather::<S, C>(x, tiles);
    }
    for first in rows.clone().step_by(ROWS) {
        let end = rows.end.min(first + ROWS);
        pack::<S, C>(s, weights, first..end, chunks);
        let rows = first - rows.start..end - rows.start;
        for (tiles, out) in tiles.chunks_exact(count).zip(out.chunks_mut(MANY)) {
            match out.len() {
                0..=2 => tile::<S, C, 2>(s, chunks, tiles, out, rows.clone()),
                3..=4 => tile::<S, C, 4>(s, chunks, tiles, out, rows.clone()),
                5..=8 if MANY > 8 => tile::<S, C, 8>(s, chunks, tiles, out, rows.clone()),
                _ => tile::<S, C, MANY>(s, chunks, tiles, out, rows.clone()),
            }
        }
    }
}

/// The first `count`; more are made if there are not so many.
fn at_least<'a, T: Clone>(kept: &'a mut Vec<T>, count: usize, new: &T) -> &'a mut [T] {
    if kept.len() < count {
        kept.resize(count, new.clone());
    }
    &mut kept[..count]
}

/// Puts tokens side by side.
fn gather<S: Isa, C: Chunks>(x: &[Token<'_>], tiles: &mut [Tile]) {
    let bias = C::bias(S::BIAS);
    let (fours, sums) = (FOURS / C::GROUPS, 16 / C::GROUPS);
    for (i, tile) in tiles.iter_mut().enumerate() {
        for (n, x) in x.iter().enumerate() {
            let codes = part::<_, COLS>(x.codes, COLS * i).as_chunks::<4>().0;
            let all_sums = part::<_, 16>(x.sums, 16 * i);
            for group in 0..C::GROUPS {
                for four in 0..fours {
                    let [a, b, c, d] = codes[C::four(group, four)];
                    let four = &mut tile.fours[group * fours + four][n];
                    *four = i32::from_le_bytes([a as u8, b as u8, c as u8, d as u8]);
                }
                let sum: i32 =
                    all_sums[group * sums..][..sums].iter().map(|&sum| i32::from(sum)).sum();
                tile.starts[group][n] = -bias * sum;
            }
            for (sums, [a, b]) in tile.sums.iter_mut().zip(all_sums.as_chunks().0) {
                sums[n] = i32::from(*a) & 0xffff | i32::from(*b) << 16;
            }
            match C::KIND {
                Kind::Floats => {
                    let scales = part::<_, 8>(x.scales, 8 * i);
                    for (tile, scale) in tile.scales.iter_mut().zip(scales) {
                        tile[n] = *scale;
                    }
                }
                Kind::Integers | Kind::Minima => tile.scales[0][n] = x.scales[i],
            }
        }
    }
}

/// Unpacks up to sixteen rows; those that are missing become the last one again.
#[inline(always)]
fn pack<S: Isa, C: Chunks>(s: S, weights: &Weights<'_>, rows: Range<usize>, chunks: &mut [Chunk]) {
    let step_chunks = C::Codes::LEN / COLS;
    let (mut padded, mut padded_powers) = ([0; LONGEST], [0; 16]);
    let mut vectors = [[[0; 64]; ROWS]; 4];
    let mut floats = [[0; ROWS]; 8];
    let mut fours = [[0; 64]; FOURS];
    for (i, chunk) in chunks.iter_mut().enumerate() {
        let step = i / step_chunks;
        for r in 0..ROWS {
            let row = (rows.start + r).min(rows.end - 1);
            let mut bytes = &weights.row(row)[step * C::Bytes::LEN..];
            let mut powers = &weights.row_scales(row)[step * C::Powers::LEN..];
            if bytes.len() < C::Bytes::LEN {
                padded.fill(0);
                padded[..bytes.len()].copy_from_slice(bytes);
                padded_powers.fill(0);
                padded_powers[..powers.len()].copy_from_slice(powers);
                (bytes, powers) = (&padded, &padded_powers);
            }
            let bytes: &C::Bytes = Array::nth(bytes, 0);
            let unpacked = C::weights(s, bytes, i % step_chunks);
            for v in 0..4 {
                s.store(unpacked[v], &mut vectors[v][r]);
            }
            let scales = C::scales(bytes, Array::nth(powers, 0), i % step_chunks);
            for (floats, float) in floats.iter_mut().zip(scales.floats) {
                floats[r] = float;
            }
            if C::GROUPS > 1 && C::KIND != Kind::Floats {
                for (integers, integer) in
                    chunk.integers[..C::GROUPS].iter_mut().zip(scales.integers)
                {
                    integers[r] = i32::from(integer);
                }
            }
            if C::KIND == Kind::Minima {
                for (minima, pair) in chunk.minima.iter_mut().zip(scales.minima.as_chunks().0) {
                    [minima[2 * r], minima[2 * r + 1]] = *pair;
                }
            }
        }
        for group in 0..C::KIND.floats() {
            s.store_floats(C::floats(s, group, floats[group]), &mut chunk.floats[group]);
        }
        for (vectors, fours) in vectors.iter().zip(fours.as_chunks_mut().0) {
            s.turn(vectors, fours);
        }
        for group in 0..C::GROUPS {
            for four in 0..FOURS / C::GROUPS {
                let fours = s.bytes(&fours[C::four(group, four)]);
                s.store(fours, &mut chunk.fours[group * (FOURS / C::GROUPS) + four]);
            }
        }
    }
}

impl Tile {
    const ZERO: Tile = Tile {
        fours: [[0; TOKENS]; FOURS],
        starts: [[0; TOKENS]; 16],
        sums: [[0; TOKENS]; 8],
        scales: [[0.0; TOKENS]; 8],
    };
}

impl Chunk {
    const ZERO: Chunk = Chunk {
        fours: [[0; 64]; FOURS],
        integers: [[0; ROWS]; 16],
        minima: [[0; 2 * ROWS]; 8],
        floats: [[0.0; ROWS]; 8],
    };
}

/// The panel times the first `N` tokens of a tile; the products of those that are missing are left.
#[inline(always)]
fn tile<S: Isa, C: Chunks, const N: usize>(
    s: S,
    chunks: &[Chunk],
    tiles: &[Tile],
    out: &mut [&mut [f32]],
    rows: Range<usize>,
) {
    let mut sums = [[s.splat_float(0.0); N]; 16];
    for (i, (chunk, tile)) in chunks.iter().zip(tiles).enumerate() {
        if C::KIND == Kind::Floats {
            float_groups::<S, C, N>(s, chunk, tile, i, &mut sums);
        } else {
            integer_groups::<S, C, N>(s, chunk, tile, i, &mut sums);
        }
    }
    for half in [8, 4, 2, 1] {
        for lane in 0..half {
            for n in 0..N {
                sums[lane][n] = s.add_floats(sums[lane][n], sums[lane + half][n]);
            }
        }
    }
    for (n, out) in out.iter_mut().take(N).enumerate() {
        let mut products = [0.0; ROWS];
        s.store_floats(sums[0][n], &mut products);
        out[rows.clone()].copy_from_slice(&products[..rows.len()]);
    }
}

/// A chunk whose groups each go to a sum of their own.
#[inline(always)]
fn float_groups<S: Isa, C: Chunks, const N: usize>(
    s: S,
    chunk: &Chunk,
    tile: &Tile,
    i: usize,
    sums: &mut [[S::F; N]; 16],
) {
    for group in 0..C::GROUPS {
        let dots = dots::<S, C, N>(s, chunk, tile, group);
        let scale = s.floats(&chunk.floats[group]);
        let sums = &mut sums[i % 2 * 8 + group];
        for n in 0..N {
            let scale = s.mul_floats(scale, s.splat_float(tile.scales[group][n]));
            sums[n] = s.fma(s.float(dots[n]), scale, sums[n]);
        }
    }
}

/// A chunk that is a superblock.
#[inline(always)]
fn integer_groups<S: Isa, C: Chunks, const N: usize>(
    s: S,
    chunk: &Chunk,
    tile: &Tile,
    i: usize,
    sums: &mut [[S::F; N]; 16],
) {
    let mut totals = [s.splat_int(0); N];
    for group in 0..C::GROUPS {
        let dots = dots::<S, C, N>(s, chunk, tile, group);
        if C::GROUPS == 1 {
            totals = dots;
            continue;
        }
        let scale = s.ints(&chunk.integers[group]);
        for n in 0..N {
            totals[n] = s.add(totals[n], s.mul(dots[n], scale));
        }
    }
    add_products(s, &totals, &chunk.floats[0], tile, &mut sums[i % 8]);
    if C::KIND != Kind::Minima {
        return;
    }
    let mut totals = [s.splat_int(0); N];
    for (minima, x) in chunk.minima.iter().zip(&tile.sums) {
        let minima = s.words(minima);
        for n in 0..N {
            totals[n] = s.dot_words(totals[n], minima, s.as_bytes(s.splat_int(x[n])));
        }
    }
    add_products(s, &totals, &chunk.floats[1], tile, &mut sums[8 + i % 8]);
}

/// Adds integers times the scales of a superblock.
#[inline(always)]
fn add_products<S: Isa, const N: usize>(
    s: S,
    integers: &[S::I; N],
    scale: &[f32; ROWS],
    tile: &Tile,
    sums: &mut [S::F; N],
) {
    let scale = s.floats(scale);
    for n in 0..N {
        let scale = s.mul_floats(scale, s.splat_float(tile.scales[0][n]));
        sums[n] = s.fma(s.float(integers[n]), scale, sums[n]);
    }
}

/// The exact products of one group of a chunk.
#[inline(always)]
fn dots<S: Isa, C: Chunks, const N: usize>(
    s: S,
    chunk: &Chunk,
    tile: &Tile,
    group: usize,
) -> [S::I; N] {
    let mut dots = [s.splat_int(0); N];
    for n in 0..N {
        dots[n] = s.splat_int(tile.starts[group][n]);
    }
    for four in 0..FOURS / C::GROUPS {
        let four = group * (FOURS / C::GROUPS) + four;
        let weights = s.bytes(&chunk.fours[four]);
        for n in 0..N {
            let x = s.as_bytes(s.splat_int(tile.fours[four][n]));
            dots[n] = if C::SIGNED {
                s.dot_signed(dots[n], weights, x)
            } else {
                s.dot(dots[n], weights, x)
            };
        }
    }
    dots
}
