//! One step of the streams against the same in double precision, and the same bits whichever way it goes
//! and whoever else is in the round.

use ds4_quant::Format;

use super::*;
use crate::{
    device::{Buffer, testing::on_the_card},
    matvec::samples::{Noise, expected, matrix},
    weights::testing::rows_to_the_card,
};

/// Columns that have a unit.
const BLOCK: usize = 256;
const N: usize = 4;
const MIX: usize = 2 * N + N * N;
const EPS: f64 = 1e-6;
const ITERATIONS: u32 = 20;
const PARTS: usize = 7;

/// What a step reads.
struct Given {
    streams: Vec<f32>,
    mix: Vec<f32>,
    /// Of a row's output the last comes first in its sum.
    parts: Vec<f32>,
    out: Vec<f32>,
    base: Vec<f32>,
    scale: Vec<f32>,
    norm: Vec<f32>,
}

/// What it gives.
#[derive(PartialEq, Debug)]
struct Made {
    streams: Vec<f32>,
    mix: Vec<f32>,
    x: Vec<f32>,
    /// Two halves in a word.
    half: Vec<u32>,
    /// As whole numbers, and the units of each 256.
    numbers: Vec<i16>,
    units: Vec<f32>,
}

fn sigmoid(x: f64) -> f64 {
    1.0 / (1.0 + (-x).exp())
}

fn balanced(logits: &[f64]) -> Vec<f64> {
    let mut z: Vec<f64> = logits
        .chunks(N)
        .flat_map(|row| {
            let sum: f64 = row.iter().map(|x| x.exp()).sum();
            row.iter().map(move |x| x.exp() / sum + EPS)
        })
        .collect();
    let divide = |z: &mut [f64], at: &dyn Fn(usize, usize) -> usize| {
        for i in 0..N {
            let sum: f64 = (0..N).map(|j| z[at(i, j)]).sum::<f64>() + EPS;
            (0..N).for_each(|j| z[at(i, j)] /= sum);
        }
    };
    for iteration in 0..ITERATIONS {
        if iteration > 0 {
            divide(&mut z, &|row, column| row * N + column);
        }
        divide(&mut z, &|column, row| row * N + column);
    }
    z
}

impl Given {
    fn new(noise: &mut Noise, rows: usize, hidden: usize) -> Given {
        let mut some = |count: usize| (0..count).map(|_| noise.float()).collect::<Vec<f32>>();
        let parts = some(rows * PARTS * hidden);
        let sum = |row: &[f32]| -> Vec<f32> {
            let part = |k: usize, d: usize| row[k * hidden + d];
            let others = |d: usize| (0..PARTS - 1).fold(part(PARTS - 1, d), |y, k| y + part(k, d));
            (0..hidden).map(others).collect()
        };
        Given {
            out: parts.chunks(PARTS * hidden).flat_map(sum).collect(),
            parts,
            streams: some(rows * N * hidden),
            mix: some(rows * MIX),
            base: some(MIX),
            // Small, that no gate is wide open or shut.
            scale: some(3).into_iter().map(|x| x / 50.0).collect(),
            norm: some(hidden),
        }
    }

    /// Rows `from..from + count` by themselves.
    fn run(
        &self,
        (device, kernels): (&Device, &Kernels),
        function: MatrixRef,
        (way, in_parts): (Way, bool),
        (from, count): (usize, usize),
    ) -> Made {
        let hidden = self.norm.len();
        let put = |values: &[f32]| device.upload(values, "values").unwrap();
        let rows = |values: &[f32], each: usize| put(&values[from * each..(from + count) * each]);
        let take = |buffer: &Buffer| {
            let mut values = vec![0.0f32; buffer.len() / 4];
            device.read(buffer, 0, &mut values).unwrap();
            values
        };
        let (streams, mix) = (rows(&self.streams, N * hidden), rows(&self.mix, MIX));
        let out = match in_parts {
            true => rows(&self.parts, PARTS * hidden),
            false => rows(&self.out, hidden),
        };
        let (base, scale, norm) = (put(&self.base), put(&self.scale), put(&self.norm));
        let partial = device.alloc(count * partial_bytes(hidden), "sums").unwrap();
        let x = device.alloc(4 * count * hidden, "x").unwrap();
        let half = device.alloc(2 * count * hidden, "x").unwrap();
        let fault = device.upload(&[u32::MAX], "a fault").unwrap();
        let wanted = hidden.is_multiple_of(BLOCK);
        let [lines, halves, units] = Numbers::row_bytes(hidden)
            .map(|each| device.alloc(if wanted { count * each } else { 0 }, "numbers").unwrap());
        // Both forms, though a round needs one.
        let numbers = match wanted {
            true => {
                Numbers { lines: lines.address(), halves: halves.address(), units: units.address() }
            }
            false => Numbers::default(),
        };
        let args = HyperArgs {
            function,
            out: out.address(),
            mix: mix.address(),
            streams: streams.address(),
            partial: partial.address(),
            base: base.address(),
            scale: scale.address(),
            norm: norm.address(),
            x: x.address(),
            half: half.address(),
            numbers,
            rows: 0,
            fault: fault.address(),
            count: count as u32,
            per_block: 0,
            hidden: hidden as u32,
            n: N as u32,
            mix_rows: MIX as u32,
            chunks: 0,
            write: 1,
            iterations: ITERATIONS,
            head: 0,
            stage: 1,
            hc_eps: EPS as f32,
            rms_eps: EPS as f32,
            parts: if in_parts { PARTS as u32 } else { 0 },
            unused: 0,
        };
        run(device, kernels, way, args).unwrap();
        let half_on_card = half;
        let mut half = vec![0u32; count * hidden / 2];
        device.read(&half_on_card, 0, &mut half).unwrap();
        let mut reported = [0u32];
        device.read(&fault, 0, &mut reported).unwrap();
        assert_eq!(reported, [u32::MAX]);
        let (numbers, units) = numbers_of(&take(&lines), &take(&halves), take(&units));
        Made { streams: take(&streams), mix: take(&mix), x: take(&x), half, numbers, units }
    }

    /// Checks one row against double precision. The sums go over the streams that were made.
    fn check(&self, function: &ds4_model::Matrix, made: &Made, row: usize) {
        let hidden = self.norm.len();
        let near = |found: f32, want: f64, what: &str| {
            let error = (f64::from(found) - want).abs();
            assert!(error <= 2e-5, "{what} of row {row}, {hidden} wide: {found} for {want}");
        };
        let wide = |values: &[f32]| values.iter().map(|&x| f64::from(x)).collect::<Vec<f64>>();
        let (old, mix) = (
            wide(&self.streams[row * N * hidden..][..N * hidden]),
            wide(&self.mix[row * MIX..][..MIX]),
        );
        let new = &made.streams[row * N * hidden..][..N * hidden];
        for (at, &found) in new.iter().enumerate() {
            let (stream, d) = (at / hidden, at % hidden);
            let kept: f64 = (0..N).map(|i| mix[2 * N + i * N + stream] * old[i * hidden + d]).sum();
            let written = mix[N + stream] * f64::from(self.out[row * hidden + d]);
            near(found, written + kept, "a stream");
        }
        let streams = wide(new);
        let mean = |values: &[f64]| values.iter().map(|x| x * x).sum::<f64>() / values.len() as f64;
        let inverse = 1.0 / (mean(&streams) + EPS).sqrt();
        let said: Vec<f64> = expected(function, new)
            .into_iter()
            .enumerate()
            .map(|(r, (sum, _))| {
                let scale = self.scale[(r / N).min(2)];
                sum * inverse * f64::from(scale) + f64::from(self.base[r])
            })
            .collect();
        let found = &made.mix[row * MIX..][..MIX];
        for (i, want) in said[N..2 * N].iter().map(|&x| 2.0 * sigmoid(x)).enumerate() {
            near(found[N + i], want, "a weight of the output");
        }
        for (i, want) in balanced(&said[2 * N..]).into_iter().enumerate() {
            near(found[2 * N + i], want, "a weight of the mix");
        }
        let y: Vec<f64> = (0..hidden)
            .map(|d| (0..N).map(|i| (sigmoid(said[i]) + EPS) * streams[i * hidden + d]).sum())
            .collect();
        let scale = 1.0 / (mean(&y) + EPS).sqrt();
        for (d, y) in y.iter().enumerate() {
            near(made.x[row * hidden + d], y * scale * f64::from(self.norm[d]), "the input");
        }
    }
}

/// The numbers of lines of bytes, which must be those that lie as halves, and have the same units.
fn numbers_of(lines: &[f32], halves: &[f32], units: Vec<f32>) -> (Vec<i16>, Vec<f32>) {
    let lines: Vec<u8> = lines.iter().flat_map(|word| word.to_le_bytes()).collect();
    let halves: Vec<u8> = halves.iter().flat_map(|word| word.to_le_bytes()).collect();
    let half =
        |at: usize| ds4_quant::f16_decode(u16::from_le_bytes([halves[2 * at], halves[2 * at + 1]]));
    let mut numbers = Vec::new();
    for (block, (line, unit)) in lines.chunks(Numbers::LINE).zip(&units).enumerate() {
        assert_eq!(line[BLOCK..BLOCK + 4], unit.to_le_bytes());
        for (column, byte) in line[..BLOCK].iter().enumerate() {
            // Of eight columns those four apart are neighbours.
            let place = column / 8 * 8 + column % 4 * 2 + column % 8 / 4;
            let number = *byte as i8;
            assert_eq!(f32::from(number), half(block * BLOCK + place), "{column} of {block}");
            numbers.push(number.into());
        }
    }
    (numbers, units)
}

/// Numbers are as near as their units allow, which are no larger than need be, and their sums are exact.
fn check_numbers(x: &[f32], numbers: &[i16], unit: f32) {
    const LARGEST_WEIGHT: u32 = 31 * 43;
    let sum = |of: &dyn Fn(usize) -> f32| (0..BLOCK).map(|i| of(i).abs()).sum::<f32>();
    let largest = x.iter().fold(0.0f32, |largest, x| largest.max(x.abs()));
    let want = (largest / 127.0).max(sum(&|i| x[i]) / 12_400.0);
    assert!((unit / want - 1.0).abs() < 1e-5, "{unit} instead of {want}");
    assert!(sum(&|i| f32::from(numbers[i])) as u32 * LARGEST_WEIGHT < 1 << 24);
    for (x, &number) in x.iter().zip(numbers) {
        assert!((x / unit - f32::from(number)).abs() <= 0.501, "{number} for {x} of {unit}");
    }
}

#[test]
fn a_step_is_right_and_neither_its_way_nor_company_changes_a_bit() {
    on_the_card(|device, kernels| {
        let mut noise = Noise(5);
        let shapes = [
            (Format::F16, 4096),
            (Format::F16, 520),
            (Format::BF16, 7168),
            (Format::F32, 1024),
            (Format::F32, 64),
        ];
        for (format, hidden) in shapes {
            const ROWS: usize = 150;
            let function = matrix(format, (MIX, N * hidden), &mut noise);
            let (on_card, _memory) = rows_to_the_card(device, kernels, &function);
            let given = Given::new(&mut noise, ROWS, hidden);
            let cards = (device, kernels);
            let all = given.run(cards, on_card, (Way::Apart, false), (0, ROWS));
            for row in [0, 3, ROWS - 1] {
                given.check(&function, &all, row);
            }
            assert_eq!(
                all.units.len(),
                if hidden.is_multiple_of(BLOCK) { ROWS * hidden / BLOCK } else { 0 }
            );
            for ((x, numbers), unit) in
                all.x.chunks(BLOCK).zip(all.numbers.chunks(BLOCK)).zip(&all.units)
            {
                check_numbers(x, numbers, *unit);
            }
            let way = prepare(device, kernels, hidden).unwrap();
            // Up to 17 all, because they go to clusters alone or in pairs; then more.
            let few = (1..=17).map(|count| (7 * count - 7, count));
            for (from, count) in few.chain([(50, 100), (9, 141)]) {
                let in_parts = adds_parts(way, count, PARTS).then_some((way, true));
                for way in [(way, false), (Way::Apart, false)].into_iter().chain(in_parts) {
                    let some = given.run(cards, on_card, way, (from, count));
                    let part = |values: &[f32], each: usize| {
                        values[from * each..(from + count) * each].to_vec()
                    };
                    let blocks = all.units.len() / ROWS;
                    let want = Made {
                        numbers: all.numbers
                            [from * blocks * BLOCK..(from + count) * blocks * BLOCK]
                            .to_vec(),
                        units: part(&all.units, blocks),
                        streams: part(&all.streams, N * hidden),
                        mix: part(&all.mix, MIX),
                        x: part(&all.x, hidden),
                        half: all.half[from * hidden / 2..(from + count) * hidden / 2].to_vec(),
                    };
                    assert!(
                        some == want,
                        "{format}, {hidden} wide, {way:?}, {count} rows at {from}"
                    );
                }
            }
        }
    });
}
