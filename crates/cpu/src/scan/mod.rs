//! The indexer's scan: query heads against packed index rows, as exact integer dot products.
//!
//! Both sides are E2M1 codes with a scale per 32 columns. Twice a code is an integer, so the products
//! of a group are summed exactly; what rounds is the sum over the groups and the sum over the heads,
//! each in order. Sixteen rows are taken at a time, and every query of a chunk meets them unpacked.

mod lanes;

use std::sync::{LazyLock, OnceLock};

use ds4_quant::{FP4_GROUP, e2m1_decode, e8m0_decode};

pub use lanes::ROWS;
use lanes::{Codes, Lanes, Plain};

/// Columns that one integer of a dot product takes.
const WORD: usize = 4;
/// Words under one scale.
const WORDS: usize = FP4_GROUP / WORD;
/// What is added to twice a code of a row, so that none is negative.
const BIAS: i32 = 12;

/// Query heads of `dim` columns, ready to be scanned with.
pub struct Queries {
    words: usize,
    groups: usize,
    codes: Vec<[i8; WORD]>,
    scales: Vec<f32>,
    /// What the bias of the rows' codes adds to the sum of each group, negated.
    corrections: Vec<i32>,
}

/// Unpacked rows.
pub struct Tile {
    codes: Vec<Codes>,
    scales: Vec<[f32; ROWS]>,
}

impl Queries {
    /// No heads yet. `None` if heads of so many columns have no kernel.
    pub fn new(dim: usize) -> Option<Queries> {
        let (codes, scales, corrections) = Default::default();
        let (words, groups) = (dim / WORD, dim.div_ceil(FP4_GROUP));
        dim.is_multiple_of(WORD).then_some(Queries { words, groups, codes, scales, corrections })
    }

    /// Replaces the heads by packed ones, each as an index row is packed.
    pub fn replace<'a>(&mut self, packed: impl Iterator<Item = &'a [u8]>) {
        let Queries { words, groups, codes, scales, corrections } = self;
        codes.clear();
        scales.clear();
        corrections.clear();
        for head in packed {
            let (bytes, powers) = head.split_at(*words * WORD / 2);
            let start = codes.len();
            codes.extend(
                bytes.as_chunks().0.iter().map(|&[a, b]| {
                    [a, a >> 4, b, b >> 4].map(|code| (2.0 * e2m1_decode(code)) as i8)
                }),
            );
            // Both sides are twice the codes.
            scales.extend(powers[..*groups].iter().map(|&power| e8m0_decode(power) * 0.25));
            corrections.extend(
                codes[start..].chunks(WORDS).map(|codes| {
                    -BIAS * codes.iter().flatten().map(|&q| i32::from(q)).sum::<i32>()
                }),
            );
        }
    }
}

impl Tile {
    /// Room for rows that go with such queries.
    pub fn new(queries: &Queries) -> Tile {
        Tile {
            codes: vec![[0; WORD * ROWS]; queries.words],
            scales: vec![[0.0; ROWS]; queries.groups],
        }
    }

    /// Unpacks at most as many rows as there is room for.
    pub fn unpack<'a>(&mut self, rows: impl Iterator<Item = &'a [u8]>) {
        static DOUBLED: LazyLock<[[u8; 2]; 256]> = LazyLock::new(|| {
            let doubled = |code: usize| (2.0 * e2m1_decode(code as u8) + BIAS as f32) as u8;
            std::array::from_fn(|byte| [doubled(byte), doubled(byte >> 4)])
        });
        let table = &*DOUBLED;
        for (i, row) in rows.take(ROWS).enumerate() {
            let (bytes, powers) = row.split_at(self.codes.len() * WORD / 2);
            for (codes, &[a, b]) in self.codes.iter_mut().zip(bytes.as_chunks().0) {
                let ([c0, c1], [c2, c3]) = (table[usize::from(a)], table[usize::from(b)]);
                codes.as_chunks_mut::<WORD>().0[i] = [c0, c1, c2, c3];
            }
            for (scales, &power) in self.scales.iter_mut().zip(powers) {
                scales[i] = e8m0_decode(power);
            }
        }
    }
}

type Scan = unsafe fn(&Queries, usize, &[f32], &Tile, &mut [f32; ROWS]);

/// The scores of a tile's rows for the heads from `first` on, one for each weight: the sum over the
/// heads of their weight times what is positive of the product of query and row.
pub fn scan(queries: &Queries, first: usize, weights: &[f32], tile: &Tile) -> [f32; ROWS] {
    static CHOSEN: OnceLock<Scan> = OnceLock::new();
    let mut scores = [0.0; ROWS];
    let scan = CHOSEN.get_or_init(|| available().pop().unwrap_or(plain));
    // SAFETY: what is available are functions whose instructions this processor has.
    unsafe { scan(queries, first, weights, tile, &mut scores) };
    scores
}

/// What this processor can run, the best last.
fn available() -> Vec<Scan> {
    let mut known: Vec<Scan> = vec![plain];
    #[cfg(target_arch = "x86_64")]
    {
        if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
            known.push(avx2);
        }
        if is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512vnni") {
            known.push(avx512);
        }
    }
    known
}

fn plain(queries: &Queries, first: usize, weights: &[f32], tile: &Tile, out: &mut [f32; ROWS]) {
    scan_with(Plain, queries, first, weights, tile, out);
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
fn avx2(queries: &Queries, first: usize, weights: &[f32], tile: &Tile, out: &mut [f32; ROWS]) {
    // SAFETY: this function is compiled for these instructions, and only called where they are.
    let lanes = unsafe { lanes::Avx2::new() };
    scan_with(lanes, queries, first, weights, tile, out);
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512vnni")]
fn avx512(queries: &Queries, first: usize, weights: &[f32], tile: &Tile, out: &mut [f32; ROWS]) {
    // SAFETY: this function is compiled for these instructions, and only called where they are.
    let lanes = unsafe { lanes::Avx512Vnni::new() };
    scan_with(lanes, queries, first, weights, tile, out);
}

#[inline(always)]
fn scan_with<L: Lanes>(
    lanes: L,
    queries: &Queries,
    first: usize,
    weights: &[f32],
    tile: &Tile,
    out: &mut [f32; ROWS],
) {
    let Queries { words, groups, .. } = *queries;
    let mut score = lanes.float(0.0);
    for (head, &weight) in (first..).zip(weights) {
        let query = queries.codes[head * words..][..words].chunks(WORDS);
        let scales = &queries.scales[head * groups..][..groups];
        let corrections = &queries.corrections[head * groups..][..groups];
        let mut total = lanes.float(0.0);
        let rows = tile.codes.chunks(WORDS).zip(&tile.scales);
        for (((query, scale), correction), (codes, row_scales)) in
            query.zip(scales).zip(corrections).zip(rows)
        {
            let mut sum = lanes.integer(*correction);
            for (codes, &query) in codes.iter().zip(query) {
                sum = lanes.dot(sum, codes, query);
            }
            let scale = lanes.times(lanes.load(row_scales), lanes.float(*scale));
            total = lanes.scaled(sum, scale, total);
        }
        score = lanes.weigh(score, lanes.float(weight), total);
    }
    lanes.store(score, out);
}

#[cfg(test)]
mod tests {
    use super::*;
    use ds4_quant::IndexRow;

    fn packed(count: usize, dim: usize, seed: usize) -> Vec<Vec<u8>> {
        let format = IndexRow::new(dim).unwrap();
        let value = |i: usize| ((i * i * 31 + i * 17 + seed * 101) % 257) as f32 - 128.0;
        (0..count)
            .map(|row| {
                let values: Vec<f32> = (0..dim).map(|i| value(row * dim + i) * 0.01).collect();
                let mut packed = vec![0; format.bytes()];
                format.pack(&values, &mut packed).unwrap();
                packed
            })
            .collect()
    }

    fn unpacked(dim: usize, row: &[u8]) -> Vec<f64> {
        let mut values = vec![0.0; dim];
        IndexRow::new(dim).unwrap().unpack(row, &mut values).unwrap();
        values.into_iter().map(f64::from).collect()
    }

    #[test]
    fn scores_are_right_and_the_same_on_every_instruction_set() {
        for (dim, heads, rows) in [(128, 64, 16), (128, 3, 5), (32, 2, 1), (16, 4, 7), (48, 5, 16)]
        {
            let (heads, rows) = (packed(heads, dim, 1), packed(rows, dim, 2));
            let weights: Vec<f32> =
                (0..heads.len() - 1).map(|h| (h as f32 - 1.5) * 0.125).collect();
            let mut queries = Queries::new(dim).unwrap();
            queries.replace(heads.iter().map(|head| &head[..]));
            let mut tile = Tile::new(&queries);
            tile.unpack(rows.iter().map(|row| &row[..]));
            let got = scan(&queries, 1, &weights, &tile);
            for (row, got) in rows.iter().zip(got) {
                let row = unpacked(dim, row);
                let mut want = 0.0;
                for (head, &weight) in heads[1..].iter().zip(&weights) {
                    let head = unpacked(dim, head);
                    let product: f64 = head.iter().zip(&row).map(|(a, b)| a * b).sum();
                    want += product.max(0.0) * f64::from(weight);
                }
                assert!(
                    (f64::from(got) - want).abs() <= 1e-5 * want.abs().max(1.0),
                    "{got} {want}"
                );
            }
            for scan in available() {
                let mut out = [0.0; ROWS];
                // SAFETY: this processor has the instructions of what is available.
                unsafe { scan(&queries, 1, &weights, &tile, &mut out) };
                assert_eq!(out.map(f32::to_bits), got.map(f32::to_bits));
            }
        }
        assert!(Queries::new(30).is_none());
    }
}
