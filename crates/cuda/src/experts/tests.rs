//! Experts of the formats whose vectors are whole numbers, and of mixes with others, against the same in double
//! precision; and a row's outputs are the same bits however many rows come with it.

use ds4_model::Matrix;
use ds4_quant::{Format, f16_decode, f16_encode};

use super::{
    ExpertsArgs, RouteArgs,
    tensor::{Beside, ITEM_BYTES, prepare, run, suits, takes_few},
};
use crate::{
    device::{Buffer, Device, Kernels, testing::on_the_card},
    matvec::{
        Product,
        samples::{Noise, expected, matrix},
    },
    scratch::Halves,
    tensor::{
        self, HalfProduct, HalfProductList,
        bytes::{InnerNumbers, Numbers},
        wide,
    },
    weights::testing::{stack_to_the_card, to_the_card},
};

/// Columns that have a unit.
const BLOCK: usize = 256;
/// The most rows.
const ROWS: usize = 300;
/// Words of a row of the round, and which of them is the token.
const ROW: (usize, usize) = (12, 4);
const LIMITS: [f32; 2] = [2.5, 1.5];
const SCALE: f32 = 1.5;

struct Case {
    /// Of gate and up, of outputs, of the shared expert.
    formats: [Format; 3],
    hidden: usize,
    inner: usize,
    experts: usize,
    used: usize,
}

/// What is multiplied.
struct Model {
    router: Matrix,
    gates: Vec<Matrix>,
    ups: Vec<Matrix>,
    downs: Vec<Matrix>,
    /// Gate, up and output.
    shared: [Matrix; 3],
}

impl Model {
    fn new(case: &Case, noise: &mut Noise) -> Model {
        let Case { formats: [input, output, shared], hidden, inner, experts, .. } = *case;
        let mut some = |format, shape, count: usize| -> Vec<Matrix> {
            (0..count).map(|_| matrix(format, shape, noise)).collect()
        };
        Model {
            router: some(Format::F16, (experts, hidden), 1).remove(0),
            gates: some(input, (inner, hidden), experts),
            ups: some(input, (inner, hidden), experts),
            downs: some(output, (hidden, inner), experts),
            shared: [(inner, hidden), (inner, hidden), (hidden, inner)]
                .map(|shape| some(shared, shape, 1).remove(0)),
        }
    }

    /// A row's outputs, and what an error is held against.
    fn outputs(&self, case: &Case, x: &[f32], picks: &[usize]) -> Vec<(f64, f64)> {
        let [input, output, _] = case.formats;
        let whole = if Numbers::wanted_by(input as u32) { rounded(x, true) } else { x.to_vec() };
        let score = |logit: f64| logit.exp().ln_1p().sqrt();
        let logits = expected(&self.router, x);
        let sum: f64 = picks.iter().map(|&e| score(logits[e].0)).sum();
        let inner = |gate: &Matrix, up: &Matrix, x: &[f32], limit: f32, weight: f64| {
            let limit = f64::from(limit);
            let values =
                expected(gate, x).into_iter().zip(expected(up, x)).map(|((g, _), (u, _))| {
                    let (g, u) = (g.min(limit), u.clamp(-limit, limit));
                    f16_decode(f16_encode((g / (1.0 + (-g).exp()) * u * weight) as f32))
                });
            values.collect::<Vec<f32>>()
        };
        let [gate, up, down] = &self.shared;
        let mut total = expected(down, &inner(gate, up, x, LIMITS[1], 1.0));
        for &e in picks {
            let weight = score(logits[e].0) / sum * f64::from(SCALE);
            let mut middle = inner(&self.gates[e], &self.ups[e], &whole, LIMITS[0], weight);
            if InnerNumbers::wanted_by(output as u32) {
                middle = rounded(&middle, false);
            }
            for ((sum, size), (more, larger)) in
                total.iter_mut().zip(expected(&self.downs[e], &middle))
            {
                (*sum, *size) = (*sum + more, *size + larger);
            }
        }
        total
    }
}

/// The unit of a block; of those that go into IQ2_XXS it is such that their sum is small enough.
fn unit_of(block: &[f32], summed: bool) -> f32 {
    let largest = block.iter().fold(0.0f32, |largest, x| largest.max(x.abs())) / 127.0;
    let sum = block.iter().map(|x| x.abs()).sum::<f32>() / 12_400.0;
    if summed { largest.max(sum) } else { largest }
}

/// What is left of a vector that is made whole numbers.
fn rounded(x: &[f32], summed: bool) -> Vec<f32> {
    let block = |block: &[f32]| {
        let unit = unit_of(block, summed);
        block.iter().map(|x| (x / unit).round_ties_even() * unit).collect::<Vec<f32>>()
    };
    x.chunks(BLOCK).flat_map(block).collect()
}

/// Vectors as the kernels for few rows take them, and for many: halves, units.
fn numbers(x: &[f32]) -> (Vec<u8>, Vec<u16>, Vec<f32>) {
    let (mut lines, mut halves, mut units) = (Vec::new(), vec![0; x.len()], Vec::new());
    for (b, block) in x.chunks(BLOCK).enumerate() {
        let unit = unit_of(block, true);
        let mut line = vec![0u8; Numbers::LINE];
        for (i, x) in block.iter().enumerate() {
            let number = (x / unit).round_ties_even();
            line[i] = number as i8 as u8;
            halves[b * BLOCK + i / 8 * 8 + i % 4 * 2 + i % 8 / 4] = f16_encode(number);
        }
        line[BLOCK..BLOCK + 4].copy_from_slice(&unit.to_le_bytes());
        lines.extend(line);
        units.push(unit);
    }
    (lines, halves, units)
}

fn check(device: &Device, kernels: &Kernels, case: &Case) {
    let Case { formats, hidden, inner, experts, used } = *case;
    let what = format!("{formats:?}, {hidden} by {inner}");
    let mut noise = Noise(31);
    let model = Model::new(case, &mut noise);
    let x: Vec<f32> = (0..ROWS * hidden).map(|_| f16_decode(f16_encode(noise.float()))).collect();
    let mut memory: Vec<Buffer> = Vec::new();
    let mut stack = |matrices: &[Matrix]| {
        let (stack, of) = stack_to_the_card(device, kernels, matrices);
        memory.extend(of);
        stack
    };
    let [gate, up, down] = [&model.gates, &model.ups, &model.downs].map(|of| stack(of));
    let mut place = |matrix: &Matrix| {
        let (on_card, of) = to_the_card(device, kernels, matrix);
        memory.extend(of);
        on_card
    };
    let router = place(&model.router);
    let [shared_gate, shared_up, shared_down] = [0, 1, 2].map(|i| place(&model.shared[i]));

    let pairs = ROWS * (used + 1);
    let buffer = |bytes: usize| device.alloc(bytes, "a result").unwrap();
    let (lines, halves, units) = numbers(&x);
    let halves_of = |x: &[f32]| x.iter().map(|&x| f16_encode(x)).collect::<Vec<u16>>();
    let words = |halves: &[u16]| {
        let two = |two: &[u16]| u32::from(two[0]) | u32::from(two[1]) << 16;
        halves.chunks(2).map(two).collect::<Vec<u32>>()
    };
    let x_half = device.upload(&words(&halves_of(&x)), "x").unwrap();
    let [lines, halves] = [
        device.upload(&lines, "lines").unwrap(),
        device.upload(&words(&halves), "numbers").unwrap(),
    ];
    let units = device.upload(&units, "units").unwrap();
    let [sums, inner_units] = InnerNumbers::pair_bytes(inner).map(|bytes| buffer(pairs * bytes));
    let (middle, parts) = (buffer(2 * pairs * inner), buffer(4 * pairs * hidden));
    let (order, items) = (buffer(4 * pairs), buffer(2 * pairs * ITEM_BYTES));
    let (logits, picked, weights) =
        (buffer(4 * ROWS * experts), buffer(4 * ROWS * used), buffer(4 * ROWS * used));
    let out = buffer(4 * ROWS * hidden);
    let arrived = device.upload(&[0u32; 64], "counts").unwrap();
    let width = hidden.max(inner);
    let packed = buffer(wide::packed_bytes(ROWS, width, (used + 1, experts, width)).max(16));
    let mut lists = Vec::new();
    let mut list = |product: HalfProduct| {
        HalfProductList::new(device.info(), packed.address(), &[product], |list| {
            lists.push(device.upload(list, "products")?);
            Ok(lists[lists.len() - 1].address())
        })
        .unwrap()
    };
    let router_list =
        list(HalfProduct::new(Product::new(router, 0, logits.address()), x_half.address()));
    let of_shared = Product::new(shared_down, 0, parts.address() + (4 * used * hidden) as u64)
        .strided((used + 1) * inner, (used + 1) * hidden);
    let shared_list =
        list(HalfProduct::new(of_shared, middle.address() + (2 * used * inner) as u64));

    let table: Vec<u32> = (0..ROWS)
        .flat_map(|r| {
            (0..used).map(move |k| ((r * r + r / 3 + k * (1 + r % 2 * 2)) % experts) as u32)
        })
        .collect();
    let mut rows = vec![0u32; ROWS * ROW.0];
    (0..ROWS).for_each(|r| rows[r * ROW.0 + ROW.1] = r as u32);
    let picks = |r: usize| -> Vec<usize> {
        table[r * used..(r + 1) * used].iter().map(|&e| e as usize).collect()
    };
    let (on_card_table, rows) =
        (device.upload(&table, "a table").unwrap(), device.upload(&rows, "rows").unwrap());
    let args = ExpertsArgs {
        gate,
        up,
        down,
        shared_gate,
        shared_up,
        shared_down,
        picked: picked.address(),
        weights: weights.address(),
        out: out.address(),
        used: used as u32,
        inner: inner as u32,
        hidden: hidden as u32,
        limit: LIMITS[0],
        shared_limit: LIMITS[1],
        ..ExpertsArgs::default()
    };
    assert!(suits(&args), "{what}");
    let route = RouteArgs {
        rows: rows.address(),
        logits: logits.address(),
        table: on_card_table.address(),
        bias: 0,
        picked: picked.address(),
        weights: weights.address(),
        experts: experts as u32,
        used: used as u32,
        scale: SCALE,
        unused: 0,
    };
    let done = |count: usize| {
        let few = takes_few(&args, count);
        let numbers =
            Numbers { lines: lines.address(), halves: halves.address(), units: units.address() };
        let places = Halves {
            x: x_half.address(),
            numbers: numbers.of(few),
            inner_numbers: InnerNumbers { sums: sums.address(), units: inner_units.address() },
            middle: middle.address(),
            parts: parts.address(),
            order: order.address(),
            items: items.address(),
            packed: packed.address(),
            ..Halves::default()
        };
        let beside = Beside {
            router: &router_list,
            router_format: Format::F16 as u32,
            down: &shared_list,
            arrived: arrived.address(),
            adds_parts: false,
        };
        // What was there before helps nobody.
        device.write(&out, 0, &vec![f32::NAN; ROWS * hidden]).unwrap();
        device.write(&picked, 0, &vec![experts as u32 - 1; ROWS * used]).unwrap();
        device.write(&weights, 0, &vec![f32::NAN; ROWS * used]).unwrap();
        run(device, kernels, count, &args, &route, &places, beside).unwrap();
        let mut found = vec![0.0f32; count * hidden];
        device.read(&out, 0, &mut found).unwrap();
        found
    };
    let all = done(ROWS);
    for row in [0, 7, ROWS - 1] {
        let want = model.outputs(case, &x[row * hidden..][..hidden], &picks(row));
        for (found, (want, size)) in all[row * hidden..].iter().zip(want) {
            let error = (f64::from(*found) - want).abs();
            assert!(error <= 4e-3 * size, "{what}: {found} for {want} of {size} in row {row}");
        }
    }
    for count in [1, 2, 3, 8, 9, 16, 17, 60, 100, 170, 250] {
        let found = done(count);
        for (r, (found, want)) in found.chunks(hidden).zip(all.chunks(hidden)).enumerate() {
            assert!(found == want, "{what}: row {r} of {count}");
        }
    }
}

#[test]
fn experts_are_right_and_company_changes_nothing() {
    on_the_card(|device, kernels| {
        tensor::prepare(device, kernels).unwrap();
        prepare(device, kernels).unwrap();
        let (iq2, q2, q8) = (Format::Iq2Xxs, Format::Q2K, Format::Q8_0);
        // One row in kernels of its own, which the sums have no room for in the second; then mixes with other formats.
        for (formats, hidden, inner, used) in [
            ([iq2, q2, q8], 1280, 768, 3),
            ([iq2, q2, Format::F16], 512, 512, 6),
            ([iq2, Format::Q4K, q8], 768, 256, 2),
            ([q8, q2, q2], 256, 1280, 2),
            ([iq2, q2, q2], 1024, 256, 4),
        ] {
            check(device, kernels, &Case { formats, hidden, inner, experts: 8, used });
        }
    });
}
