//! Scores on tensor cores against `f64`, the same row alone and in company, the choice of rows against a
//! sort, and both in one launch against both in two.

use ds4_quant::{IndexRow, fp4_round_trip, hadamard};

use super::{ScoreArgs, TopArgs, choose, tensor::score, together};
use crate::{
    device::{Buffer, Device, Kernels, testing::on_the_card},
    pages::PAGE_TOKENS,
    rows::RowFormat,
};

/// Rows of a round.
const ROWS: usize = 17;
const SCALE: f32 = 0.01;

/// Numbers without a pattern, between -1 and 1.
fn noise(state: &mut u64, count: usize) -> Vec<f32> {
    let mut next = || {
        *state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (*state >> 33) as f32 / (1u64 << 30) as f32 - 1.0
    };
    (0..count).map(|_| next()).collect()
}

fn bytes(floats: &[f32]) -> Vec<u8> {
    floats.iter().flat_map(|x| x.to_le_bytes()).collect()
}

/// The round's rows as the kernels read them.
fn told(first: usize, table: u64) -> Vec<u8> {
    let row = |position: usize| {
        let words = [0, position as u32, u32::MAX, u32::MAX, 0, 0, 0, 0].map(u32::to_le_bytes);
        [[0; 8], table.to_le_bytes()].concat().into_iter().chain(words.concat())
    };
    (first..first + ROWS).flat_map(row).collect()
}

/// Queries and index rows on the card, and what scoring kernels are told of them.
struct Laid {
    /// What is left of the index rows' values.
    rows: Vec<Vec<f32>>,
    queries: Vec<f32>,
    weights: Vec<f32>,
    turns: Vec<f32>,
    args: ScoreArgs,
    scores: Buffer,
    /// What else lies on the card.
    _kept: Vec<Buffer>,
}

impl Laid {
    /// For `ROWS` rows from position `first` on. `spoil` may change what lies on the card: each packed index
    /// row, and the queries.
    fn new(
        device: &Device,
        (dim, rope, heads): (usize, usize, usize),
        (first, top_k): (usize, usize),
        spoil: impl Fn(&mut [Vec<u8>], &mut [f32]),
    ) -> Laid {
        let mut state = dim as u64;
        let visible = (first + ROWS) / 4;
        let layout = IndexRow::new(dim).unwrap();
        let stride = layout.bytes().next_multiple_of(4);
        let (mut packed, mut rows) = (Vec::new(), Vec::new());
        for _ in 0..visible {
            let (mut row, mut left) = (vec![0; layout.bytes()], vec![0.0f32; dim]);
            layout.pack(&noise(&mut state, dim), &mut row).unwrap();
            layout.unpack(&row, &mut left).unwrap();
            row.resize(stride, 0);
            packed.push(row);
            rows.push(left);
        }
        let mut queries = noise(&mut state, ROWS * heads * dim);
        let weights = noise(&mut state, ROWS * heads);
        let angles = noise(&mut state, ROWS * 4 * rope / 2);
        let turns: Vec<f32> =
            angles.iter().flat_map(|x| [(3.0 * x).cos(), (3.0 * x).sin()]).collect();
        spoil(&mut packed, &mut queries);
        let mut kept: Vec<_> = packed
            .chunks(PAGE_TOKENS / 4)
            .map(|rows| device.upload(&rows.concat(), "a page").unwrap())
            .collect();
        let addresses: Vec<u64> =
            (0..64).map(|i| kept.get(i).map_or(0, |page| page.address())).collect();
        let table = device.upload(&addresses, "pages").unwrap();
        let lists = [told(first, table.address()), bytes(&turns), bytes(&queries), bytes(&weights)]
            .map(|bytes| device.upload(&bytes, "a test").unwrap());
        let [on_rows, on_turns, on_queries, on_weights] = [0, 1, 2, 3].map(|i| lists[i].address());
        let capacity = visible.next_power_of_two().max(32);
        let scores = device.alloc(4 * ROWS * capacity, "scores").unwrap();
        let args = ScoreArgs {
            rows: on_rows,
            turns: on_turns,
            queries: on_queries,
            codes: 0,
            scales: 0,
            weights: on_weights,
            scores: scores.address(),
            format: RowFormat {
                plain: 0,
                values: dim as u32,
                rope: rope as u32,
                bytes: stride as u32,
                ..RowFormat::default()
            },
            row_at: 0,
            heads: heads as u32,
            capacity: capacity as u32,
            top_k: top_k as u32,
            first: 0,
            turn: 1,
            scale: SCALE,
            lines: 0,
            unused: 0,
        };
        kept.extend(lists);
        kept.push(table);
        Laid { rows, queries, weights, turns, args, scores, _kept: kept }
    }
}

fn check_scores(device: &Device, kernels: &Kernels, dim: usize, rope: usize, heads: usize) {
    let first = 3000;
    let laid = Laid::new(device, (dim, rope, heads), (first, 8), |_, _| ());
    let Laid { rows, queries, weights, turns, scores, .. } = &laid;
    let args = laid.args;
    let capacity = args.capacity as usize;
    score(device, kernels, ROWS, &args).unwrap();
    let mut found = vec![0.0f32; ROWS * capacity];
    device.read(scores, 0, &mut found).unwrap();
    for (r, found) in found.chunks(capacity).enumerate() {
        let turns = &turns[(4 * r + 1) * rope..][..rope];
        let heads: Vec<(Vec<f32>, f64)> = (0..heads)
            .map(|head| {
                let mut q = queries[(r * heads + head) * dim..][..dim].to_vec();
                for (pair, turn) in q[dim - rope..].chunks_exact_mut(2).zip(turns.chunks(2)) {
                    let (x, y) = (pair[0], pair[1]);
                    pair[0] = (-y).mul_add(turn[1], x * turn[0]);
                    pair[1] = y.mul_add(turn[0], x * turn[1]);
                }
                hadamard(&mut q).unwrap();
                fp4_round_trip(&mut q);
                (q, f64::from(weights[r * heads + head] * SCALE))
            })
            .collect();
        for (row, &found) in rows[..(first + r + 1) / 4].iter().zip(found) {
            let dot = |q: &[f32]| -> f64 {
                q.iter().zip(row).map(|(&a, &b)| f64::from(a) * f64::from(b)).sum()
            };
            let terms = heads.iter().map(|(q, weight)| dot(q).max(0.0) * weight);
            let (sum, size) = terms.fold((0.0, 0.0), |(s, z), term| (s + term, z + term.abs()));
            let error = (sum - f64::from(found)).abs();
            assert!(error <= 3e-6 * size, "{dim}: {found} for {sum}");
        }
    }
    for r in 0..ROWS {
        let alone = ScoreArgs { first: r as u32, ..args };
        score(device, kernels, 1, &alone).unwrap();
        let seen = (first + r + 1) / 4;
        let mut again = vec![0.0f32; seen];
        device.read(scores, 0, &mut again).unwrap();
        assert_eq!(again, found[r * capacity..][..seen], "{dim}: company changes a score");
    }
}

#[test]
fn scores_are_exact_products_summed_in_one_order() {
    on_the_card(|device, kernels| {
        for (dim, rope, heads) in [(128, 64, 64), (32, 8, 3), (64, 16, 12)] {
            check_scores(device, kernels, dim, rope, heads);
        }
    });
}

fn check_choice(device: &Device, kernels: &Kernels, visible: usize, top_k: usize, kind: usize) {
    let mut state = 5;
    let capacity = visible.next_power_of_two();
    let scores: Vec<f32> = noise(&mut state, capacity)
        .into_iter()
        .map(|x| match kind {
            0 => x,
            1 => (x * 1.5).max(0.0),
            2 => 1.5,
            _ => (x * 4.0).round() + 0.0,
        })
        .collect();
    let on_scores = device.upload(&scores, "scores").unwrap();
    let rows = device.upload(&told(4 * visible - 1, 0), "rows").unwrap();
    let chosen = device.alloc(4 * top_k, "chosen").unwrap();
    let args = TopArgs {
        rows: rows.address(),
        scores: on_scores.address(),
        chosen: chosen.address(),
        capacity: capacity as u32,
        top_k: top_k as u32,
        first: 0,
        unused: 0,
    };
    choose(device, kernels, 1, &args).unwrap();
    let mut found = vec![0u32; top_k];
    device.read(&chosen, 0, &mut found).unwrap();
    let mut best: Vec<u32> = (0..visible as u32).collect();
    best.sort_by(|&a, &b| scores[b as usize].partial_cmp(&scores[a as usize]).unwrap());
    best.truncate(top_k);
    best.sort_unstable();
    assert_eq!(found, best, "{top_k} of {visible}, kind {kind}");
}

#[test]
fn the_best_rows_are_chosen_and_of_equals_the_first() {
    on_the_card(|device, kernels| {
        for (visible, top_k) in [(9, 8), (600, 512), (8193, 512), (32768, 1024), (40000, 512)] {
            (0..4).for_each(|kind| check_choice(device, kernels, visible, top_k, kind));
        }
    });
}

/// What is in place of what nobody has chosen.
const NOT_CHOSEN: u32 = 0xabcd_ef01;

/// Lets `rows` rows choose in one launch and in two; whether there was such a launch.
fn check_together(device: &Device, kernels: &Kernels, laid: &Laid, rows: usize) -> bool {
    let (args, top_k) = (laid.args, laid.args.top_k as usize);
    let way = together::prepare(device, kernels, args.heads as usize).unwrap();
    let nothing = vec![NOT_CHOSEN; ROWS * top_k];
    let [one, two] = [(); 2].map(|()| device.upload(&nothing, "chosen").unwrap());
    if !together::choose(device, kernels, way, rows, &args, one.address()).unwrap() {
        return false;
    }
    let top = TopArgs {
        rows: args.rows,
        scores: args.scores,
        chosen: two.address(),
        capacity: args.capacity,
        top_k: args.top_k,
        first: args.first,
        unused: 0,
    };
    score(device, kernels, rows, &args).unwrap();
    choose(device, kernels, rows, &top).unwrap();
    let [mut found, mut sought] = [(); 2].map(|()| nothing.clone());
    device.read(&one, 0, &mut found).unwrap();
    device.read(&two, 0, &mut sought).unwrap();
    for (r, (found, sought)) in found.chunks(top_k).zip(sought.chunks(top_k)).enumerate() {
        assert!(found == sought, "row {r} of {rows}, {} scores, {top_k} wanted", args.capacity);
    }
    true
}

const HEADS: (usize, usize, usize) = (128, 64, 64);

/// Changes index rows and queries before they go to the card.
type Spoil = fn(&mut [Vec<u8>], &mut [f32]);

#[test]
fn one_launch_chooses_what_two_do() {
    on_the_card(|device, kernels| {
        // At the edges of what there is to choose from, of instructions, warps, blocks, clusters and pages.
        let sizes = [
            9, 16, 17, 18, 128, 129, 513, 544, 1023, 1024, 1025, 2048, 2049, 3001, 4095, 4096, 4097,
        ];
        for visible in sizes {
            let top_k = if visible > 512 { 512 } else { 8 };
            // The first two rows see one less.
            let laid = Laid::new(device, HEADS, (4 * visible - 3, top_k), |_, _| ());
            for rows in [1, 2, 3, 4, 16] {
                let done = check_together(device, kernels, &laid, rows);
                // Clusters of eight blocks there are wherever there are clusters.
                assert!(done || visible > 2048 || device.info().capability < 90, "{visible}");
            }
            assert!(!check_together(device, kernels, &laid, ROWS), "rows are too many");
        }
    });
}

#[test]
fn one_launch_keeps_the_order_of_equals_and_of_what_is_no_number() {
    on_the_card(|device, kernels| {
        let spoil: [Spoil; 4] = [
            // All rows are one of three.
            |rows, _| (3..rows.len()).for_each(|i| rows[i] = rows[i * i % 7 % 3].clone()),
            // Some rows have scales that are no numbers.
            |rows, _| rows.iter_mut().step_by(5).for_each(|row| row[66] = 255),
            // So have the first row's queries of some heads, and all of the second's.
            |_, queries| {
                queries[..20 * 128].iter_mut().step_by(7).for_each(|x| *x = f32::INFINITY);
                queries[64 * 128..2 * 64 * 128].fill(f32::NAN);
            },
            |_, queries| queries.fill(0.0),
        ];
        for spoil in spoil {
            for visible in [40, 600, 3000] {
                let laid = Laid::new(device, HEADS, (4 * visible - 1, visible / 2), spoil);
                check_together(device, kernels, &laid, 2);
            }
        }
    });
}

#[test]
fn one_launch_writes_nothing_where_there_is_nothing_to_choose() {
    on_the_card(|device, kernels| {
        // The first rows see no more than they may attend to, the last ones one more.
        for first in [4 * 512, 4 * 512 + 2] {
            let laid = Laid::new(device, HEADS, (first, 512), |_, _| ());
            check_together(device, kernels, &laid, 4);
        }
    });
}

#[test]
fn other_shapes_choose_in_two_launches() {
    on_the_card(|device, kernels| {
        let laid = Laid::new(device, (64, 16, 12), (3000, 8), |_, _| ());
        assert!(!check_together(device, kernels, &laid, 1));
    });
}
