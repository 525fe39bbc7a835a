//! Attention on tensor cores against `f64`, and the same row alone, with a few, and among many.

use ds4_quant::{Format, KvRow, decode_row};

use super::{
    AttendArgs,
    tensor::{self, Together},
};
use crate::{
    device::{Buffer, Device, Kernels, testing::on_the_card},
    pages::PAGE_TOKENS,
    rows::RowFormat,
};

/// Rows of a round that a block each takes whole, where it may.
const ROWS: usize = 70;
const EPS: f32 = 1e-6;
/// Bytes before the rows of a page and of the arena.
const BEFORE: usize = 256;

/// Numbers without a pattern, between -1 and 1.
struct Noise(u64);

impl Noise {
    fn word(&mut self) -> u32 {
        self.0 = self.0.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (self.0 >> 33) as u32
    }

    fn floats(&mut self, count: usize) -> Vec<f32> {
        (0..count).map(|_| self.word() as f32 / (1u32 << 30) as f32 - 1.0).collect()
    }
}

/// What a round looks like.
#[derive(Clone, Copy, Debug)]
struct Case {
    dim: usize,
    rope: usize,
    plain: bool,
    heads: usize,
    /// Position of the first row; the others follow.
    first: usize,
    window: usize,
    ratio: usize,
    top_k: usize,
    choose: bool,
}

const FLASH: Case = Case {
    dim: 512,
    rope: 64,
    plain: false,
    heads: 64,
    first: 0,
    window: 128,
    ratio: 0,
    top_k: 512,
    choose: false,
};
const SMALL: Case = Case { dim: 32, rope: 8, heads: 4, window: 24, top_k: 16, ..FLASH };

/// A row encoded, and what is left of it.
fn encode(case: &Case, values: Vec<f32>) -> (Vec<u8>, Vec<f32>) {
    if case.plain {
        return (values.iter().flat_map(|x| x.to_le_bytes()).collect(), values);
    }
    let format = KvRow::new(case.dim, case.rope).unwrap();
    let (mut bytes, mut left) = (vec![0; format.bytes()], vec![0.0; case.dim]);
    format.pack(&values, &mut bytes).unwrap();
    format.unpack(&bytes, &mut left).unwrap();
    (bytes, left)
}

fn format(case: &Case) -> RowFormat {
    let mut format = RowFormat {
        plain: case.plain.into(),
        values: case.dim as u32,
        rope: case.rope as u32,
        bytes: 4 * case.dim as u32,
        ..RowFormat::default()
    };
    if !case.plain {
        let row = KvRow::new(case.dim, case.rope).unwrap();
        format.bytes = row.bytes() as u32;
        format.nope = row.nope() as u32;
        format.rope_at = row.rope_at() as u32;
    }
    format
}

/// Everything that the rows of a round see.
struct Round {
    case: Case,
    window: Vec<Vec<f32>>,
    compressed: Vec<Vec<f32>>,
    q: Vec<f32>,
    turns: Vec<f32>,
    sinks: Vec<f32>,
    chosen: Vec<u32>,
}

impl Round {
    /// What a row gives, by the definition.
    fn expected(&self, row: usize) -> Vec<f64> {
        let Case { dim, rope, heads, window, ratio, top_k, choose, first, .. } = self.case;
        let position = first + row;
        let mut seen: Vec<&[f32]> = (position.saturating_sub(window - 1)..=position)
            .map(|at| &self.window[at % self.window.len()][..])
            .collect();
        let complete = (position + 1).checked_div(ratio).unwrap_or(0);
        if choose && complete > top_k {
            let chosen = &self.chosen[row * top_k..][..top_k];
            seen.extend(chosen.iter().map(|&c| &self.compressed[c as usize][..]));
        } else {
            seen.extend(self.compressed[..complete].iter().map(|row| &row[..]));
        }
        // The second of the four rotations.
        let turns = &self.turns[(4 * row + 1) * rope..][..rope];
        let turn = |values: &mut [f64], sign: f64| {
            for (pair, turn) in values[dim - rope..].chunks_exact_mut(2).zip(turns.chunks(2)) {
                let (x, y) = (pair[0], pair[1]);
                let (cos, sin) = (f64::from(turn[0]), sign * f64::from(turn[1]));
                (pair[0], pair[1]) = (x * cos - y * sin, x * sin + y * cos);
            }
        };
        let mut all = Vec::new();
        for head in 0..heads {
            let q = &self.q[(row * heads + head) * dim..][..dim];
            let mut q: Vec<f64> = q.iter().map(|&x| f64::from(x)).collect();
            let squares: f64 = q.iter().map(|x| x * x).sum();
            let inverse = 1.0 / (squares / dim as f64 + f64::from(EPS)).sqrt();
            q.iter_mut().for_each(|x| *x *= inverse);
            turn(&mut q, 1.0);
            let scores: Vec<f64> = seen
                .iter()
                .map(|k| k.iter().zip(&q).map(|(&k, q)| f64::from(k) * q).sum::<f64>())
                .map(|sum| sum / (dim as f64).sqrt())
                .collect();
            let sink = f64::from(self.sinks[head]);
            let total = sink.exp() + scores.iter().map(|s| s.exp()).sum::<f64>();
            let mut out = vec![0.0; dim];
            for (row, score) in seen.iter().zip(&scores) {
                let weight = score.exp() / total;
                out.iter_mut().zip(*row).for_each(|(out, &v)| *out += weight * f64::from(v));
            }
            turn(&mut out, -1.0);
            all.append(&mut out);
        }
        all
    }
}

/// What must stay alive on the card.
struct OnTheCard {
    /// With the round's own rows of the window in the ring, and with a list of them and nothing there.
    args: [AttendArgs; 2],
    out: Buffer,
    half: Buffer,
    arrivals: Buffer,
    _memory: Vec<Buffer>,
}

fn bring(device: &Device, round: &Round, packed: [Vec<Vec<u8>>; 2]) -> OnTheCard {
    let case = &round.case;
    let mut memory = Vec::new();
    let mut upload = |bytes: &[u8]| {
        let buffer = device.upload(bytes, "a test").unwrap();
        let address = buffer.address();
        memory.push(buffer);
        address
    };
    let bytes = |floats: &[f32]| floats.iter().flat_map(|x| x.to_le_bytes()).collect::<Vec<u8>>();
    let [window, compressed] = packed;
    let mut ring = window.clone();
    let waiting: Vec<u8> = (case.first..case.first + ROWS)
        .flat_map(|position| {
            let row = position % ring.len();
            let bytes = ring[row].len();
            std::mem::replace(&mut ring[row], vec![0xff; bytes])
        })
        .collect();
    let arenas = [window, ring].map(|rows| upload(&[vec![0; BEFORE], rows.concat()].concat()));
    let per_page = PAGE_TOKENS.checked_div(case.ratio).unwrap_or(1);
    let pages: Vec<u64> = compressed
        .chunks(per_page)
        .map(|rows| upload(&[vec![0; BEFORE], rows.concat()].concat()))
        .collect();
    let table: Vec<u8> =
        (0..64).flat_map(|i| pages.get(i).copied().unwrap_or(0).to_le_bytes()).collect();
    let table = upload(&table);
    let rows = arenas.map(|arena| {
        let told = (0..ROWS).flat_map(|row| {
            let none = u32::MAX;
            let words = [0, (case.first + row) as u32, none, none, row as u32, 0, 0, 0];
            let places = [arena, table].into_iter().flat_map(u64::to_le_bytes);
            places.chain(words.into_iter().flat_map(u32::to_le_bytes)).collect::<Vec<u8>>()
        });
        upload(&told.collect::<Vec<u8>>())
    });
    let chosen: Vec<u8> = round.chosen.iter().flat_map(|c| c.to_le_bytes()).collect();
    let values = ROWS * case.heads * case.dim;
    let out = device.alloc(4 * values, "out").unwrap();
    let half = device.alloc(2 * values, "half").unwrap();
    let none = vec![0u8; ROWS * tensor::arrival_bytes(case.heads)];
    let arrivals = device.upload(&none, "arrivals").unwrap();
    let parts = 32 * tensor::partial_bytes(case.heads, case.dim);
    let partial = device.alloc(parts, "parts").unwrap();
    let args = AttendArgs {
        rows: rows[0],
        turns: upload(&bytes(&round.turns)),
        q: upload(&bytes(&round.q)),
        chosen: upload(&chosen),
        sinks: upload(&bytes(&round.sinks)),
        partial: partial.address(),
        out: out.address(),
        format: format(case),
        window_at: BEFORE as u64,
        row_at: BEFORE as u64,
        heads: case.heads as u32,
        window: case.window as u32,
        window_depth: round.window.len() as u32,
        ratio: case.ratio as u32,
        top_k: case.top_k as u32,
        choose: case.choose.into(),
        turn: 1,
        first: 0,
        eps: EPS,
        scale: 1.0 / (case.dim as f32).sqrt(),
        half: half.address(),
        arrivals: arrivals.address(),
        waiting: 0,
    };
    let apart = AttendArgs { rows: rows[1], waiting: upload(&waiting), ..args };
    memory.push(partial);
    OnTheCard { args: [args, apart], out, half, arrivals, _memory: memory }
}

fn check(device: &Device, kernels: &Kernels, together: Together, case: Case) {
    let mut noise = Noise(case.first as u64 + case.dim as u64);
    let mut rows = |count: usize| -> (Vec<Vec<u8>>, Vec<Vec<f32>>) {
        (0..count).map(|_| encode(&case, noise.floats(case.dim))).unzip()
    };
    let (window_bytes, window) = rows(case.window - 1 + ROWS);
    let complete = (case.first + ROWS).checked_div(case.ratio).unwrap_or(0);
    let (compressed_bytes, compressed) = rows(complete);
    let turns = noise.floats(ROWS * 4 * case.rope / 2);
    let chosen = (0..ROWS).flat_map(|row| {
        let visible = (case.first + row + 1).checked_div(case.ratio).unwrap_or(0);
        let spare = visible.saturating_sub(case.top_k);
        (0..case.top_k).map(move |i| (i + (i * 7 + row) % (spare + 1) / 8) as u32)
    });
    let round = Round {
        case,
        window,
        compressed,
        q: noise.floats(ROWS * case.heads * case.dim),
        turns: turns.iter().flat_map(|x| [(3.0 * x).cos(), (3.0 * x).sin()]).collect(),
        sinks: noise.floats(case.heads),
        chosen: chosen.collect(),
    };
    let card = bring(device, &round, [window_bytes, compressed_bytes]);
    let complete = if case.choose { complete.min(case.top_k) } else { complete };
    let visible = case.window + complete;
    let whole = tensor::is_whole(ROWS, visible);

    let width = case.heads * case.dim;
    let mut before: Option<(Vec<f32>, Vec<u8>)> = None;
    let ways = [(1, together), (4, together), (1, Together(0)), (7, together), (16, together)];
    let ways = ways.into_iter().chain([(ROWS, together)]);
    for ((slice, together), args) in ways.flat_map(|way| card.args.map(|args| (way, args))) {
        let most = if slice == ROWS && !whole { 32 } else { slice };
        for first in (0..ROWS).step_by(most) {
            let args = AttendArgs { first: first as u32, ..args };
            let count = most.min(ROWS - first);
            let seen = (whole && slice == ROWS, visible);
            tensor::attend(device, kernels, together, count, seen, &args).unwrap();
        }
        let (mut out, mut half) = (vec![0.0f32; ROWS * width], vec![0u8; 2 * ROWS * width]);
        device.read(&card.out, 0, &mut out).unwrap();
        device.read(&card.half, 0, &mut half).unwrap();
        let mut arrivals = vec![0u8; card.arrivals.len()];
        device.read(&card.arrivals, 0, &mut arrivals).unwrap();
        assert!(arrivals.iter().all(|&count| count == 0), "{case:?}: a count is left");
        let mut halves = vec![0.0; out.len()];
        decode_row(Format::F16, &half, &mut halves).unwrap();
        for (x, near) in out.iter().zip(halves) {
            assert!((x - near).abs() <= x.abs() / 2048.0 + 1e-7, "{case:?}: {x} as {near}");
        }
        for row in [0, ROWS / 2, ROWS - 1] {
            let expected = round.expected(row);
            let largest = expected.iter().fold(0.0f64, |most, x| most.max(x.abs()));
            for (want, &got) in expected.iter().zip(&out[row * width..]) {
                let error = (want - f64::from(got)).abs();
                assert!(error <= 2e-3 * largest, "{case:?}, slices of {slice}: {got} for {want}");
            }
        }
        match &before {
            None => before = Some((out, half)),
            Some((first, first_half)) => {
                let differ = first.iter().zip(&out).position(|(a, b)| a.to_bits() != b.to_bits());
                assert_eq!(differ.map(|i| (i / width, i % width)), None, "{case:?}: company");
                assert_eq!(*first_half, half, "{case:?}: company");
            }
        }
    }
}

#[test]
fn rows_see_what_they_should_and_company_changes_nothing() {
    on_the_card(|device, kernels| {
        let together = tensor::prepare(device, kernels).unwrap();
        for case in [
            FLASH,
            Case { first: 8000, ratio: 128, ..FLASH },
            Case { first: 4000, ratio: 4, choose: true, ..FLASH },
            Case { first: 8000, ratio: 4, heads: 16, ..FLASH },
            Case { first: 300, ratio: 4, plain: true, heads: 12, ..FLASH },
            SMALL,
            Case { first: 200, ratio: 4, choose: true, ..SMALL },
            Case { first: 6000, ratio: 4, ..SMALL },
            Case { first: 500, ratio: 128, plain: true, dim: 36, rope: 4, heads: 9, ..SMALL },
            Case { first: 90, ratio: 4, dim: 128, heads: 20, ..SMALL },
        ] {
            check(device, kernels, together, case);
        }
    });
}
