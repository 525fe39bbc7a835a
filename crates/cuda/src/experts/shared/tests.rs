//! The router's product and the shared expert of several rows against the same by the kernels that do other
//! products, bit for bit; what comes out of the input against its definition; choices against those made alone.

use ds4_quant::Format;

use super::*;
use crate::{
    device::{Buffer, testing::on_the_card},
    experts::route,
    matvec::{
        MatrixRef,
        samples::{Noise, matrix},
    },
    tensor,
    weights::testing::to_the_card,
};

/// Experts that a row uses.
const USED: usize = 6;
/// The most rows.
const ROWS: usize = 16;
/// Words of a row of the round, and which of them is the token.
const ROW: (usize, usize) = (12, 4);
const LIMIT: f32 = 1.5;

/// The value of a half.
fn float(half: u32) -> f32 {
    let (sign, exponent, fraction) = (half >> 15, half >> 10 & 31, half & 1023);
    let magnitude = match exponent {
        0 => fraction as f32 * (-24f32).exp2(),
        _ => (1024 + fraction) as f32 * (exponent as f32 - 25.0).exp2(),
    };
    if sign == 1 { -magnitude } else { magnitude }
}

/// Halves in pairs, from -2 to 2.
fn halves(noise: &mut Noise, count: usize) -> Vec<u32> {
    let mut one = || u32::from(noise.byte() & 0xbf) << 8 | u32::from(noise.byte());
    (0..count / 2).map(|_| one() | one() << 16).collect()
}

/// What is read of a buffer, as bits.
fn bits(device: &Device, buffer: &Buffer, words: usize) -> Vec<u32> {
    let mut bits = vec![0u32; words];
    device.read(buffer, 0, &mut bits).unwrap();
    bits
}

struct Case {
    /// Of the router, and of the shared expert.
    formats: (Format, Format),
    hidden: usize,
    inner: usize,
    experts: usize,
}

fn check(device: &Device, kernels: &Kernels, case: &Case, multiprocessors: usize) {
    let Case { formats: (of_router, of_shared), hidden, inner, experts } = *case;
    let what =
        format!("{of_router}, {of_shared}, {hidden} wide, {multiprocessors} multiprocessors");
    let card = DeviceInfo { multiprocessors, ..device.info().clone() };
    let mut noise = Noise(21);
    let mut memory = Vec::new();
    let mut place = |format, shape| {
        let (on_card, of) = to_the_card(device, kernels, &matrix(format, shape, &mut noise));
        memory.extend(of);
        on_card
    };
    let router = place(of_router, (experts, hidden));
    let [gate, up] = [(); 2].map(|()| place(of_shared, (inner, hidden)));
    let down = place(of_shared, (hidden, inner));
    let x = device.upload(&halves(&mut noise, ROWS * hidden), "x").unwrap();
    let pairs = ROWS * (USED + 1);
    let buffer = |words: usize| device.alloc(4 * words, "a result").unwrap();
    let [logits, logits_alone] = [(); 2].map(|()| buffer(ROWS * experts));
    let [gates, ups] = [(); 2].map(|()| buffer(ROWS * inner));
    let middle = buffer(pairs * inner / 2);
    let [parts, parts_alone] = [(); 2].map(|()| buffer(pairs * hidden));
    let mut lists = Vec::new();
    let mut list = |products: &[HalfProduct]| {
        HalfProductList::new(&card, 0, products, |list| {
            lists.push(device.upload(list, "products")?);
            Ok(lists[lists.len() - 1].address())
        })
        .unwrap()
    };
    let of = |matrix: MatrixRef, y: &Buffer| {
        HalfProduct::new(Product::new(matrix, 0, y.address()), x.address())
    };
    let of_down = |y: &Buffer| {
        let product = Product::new(down, 0, y.address() + (4 * USED * hidden) as u64)
            .strided((USED + 1) * inner, (USED + 1) * hidden);
        HalfProduct::new(product, middle.address() + (2 * USED * inner) as u64)
    };
    let (routed, routed_alone) = (list(&[of(router, &logits)]), list(&[of(router, &logits_alone)]));
    let sides = list(&[of(gate, &gates), of(up, &ups)]);
    let (output, output_alone) = (list(&[of_down(&parts)]), list(&[of_down(&parts_alone)]));
    let args = ExpertsArgs {
        shared_gate: gate,
        shared_up: up,
        shared_down: down,
        used: USED as u32,
        inner: inner as u32,
        hidden: hidden as u32,
        shared_limit: LIMIT,
        ..ExpertsArgs::default()
    };
    let places = Halves { x: x.address(), middle: middle.address(), ..Halves::default() };
    let shared = Shared::new(&card, &routed, &args, &places, &output).unwrap();

    let bias: Vec<f32> = (0..experts).map(|_| noise.float()).collect();
    let table: Vec<u32> = (0..ROWS * USED).map(|i| (i * 7 % experts) as u32).collect();
    let mut rows = vec![0u32; ROWS * ROW.0];
    (0..ROWS).for_each(|r| rows[r * ROW.0 + ROW.1] = (ROWS - 1 - r) as u32);
    let bias = device.upload(&bias, "bias").unwrap();
    let table = device.upload(&table, "a table").unwrap();
    let rows = device.upload(&rows, "rows").unwrap();
    let [picked, picked_alone, weights, weights_alone] = [(); 4].map(|()| buffer(ROWS * USED));

    for count in [1, 2, 7, 8, 9, 15, 16] {
        for (to, words) in [(&logits, ROWS * experts), (&middle, pairs * inner / 2)] {
            device.write(to, 0, &vec![0xffff_ffffu32; words]).unwrap();
        }
        shared.input(device, kernels, count).unwrap();
        tensor::multiply(device, kernels, &routed_alone, count).unwrap();
        tensor::multiply(device, kernels, &sides, count).unwrap();
        let found = bits(device, &logits, ROWS * experts);
        let wanted = bits(device, &logits_alone, count * experts);
        assert_eq!(found[..count * experts], wanted, "{what}: logits of {count} rows");
        assert!(found[count * experts..].iter().all(|&bits| bits == u32::MAX), "{what}: too many");
        let found = bits(device, &middle, pairs * inner / 2);
        let [gates, ups] = [&gates, &ups].map(|side| bits(device, side, count * inner));
        for (at, two) in found.iter().enumerate() {
            for (at, half) in [(2 * at, two & 0xffff), (2 * at + 1, two >> 16)] {
                let (pair, i) = (at / inner, at % inner);
                let (r, k) = (pair / (USED + 1), pair % (USED + 1));
                if r >= count || k < USED {
                    assert_eq!(half, 0xffff, "{what}: something at {i} of pair {pair}");
                    continue;
                }
                let side = |of: &[u32]| f64::from(f32::from_bits(of[r * inner + i]));
                let limit = f64::from(LIMIT);
                let (gate, up) = (side(&gates).min(limit), side(&ups).clamp(-limit, limit));
                let want = gate / (1.0 + (-gate).exp()) * up;
                let error = (f64::from(float(half)) - want).abs();
                assert!(error <= 6e-4 * want.abs() + 1e-7, "{what}: {half:#x} for {want}");
            }
        }
        for (table, bias) in [(0, bias.address()), (table.address(), 0)] {
            let by_shared = RouteArgs {
                rows: rows.address(),
                logits: logits.address(),
                table,
                bias,
                picked: picked.address(),
                weights: weights.address(),
                experts: experts as u32,
                used: USED as u32,
                scale: 1.5,
                unused: 0,
            };
            let alone = RouteArgs {
                picked: picked_alone.address(),
                weights: weights_alone.address(),
                ..by_shared
            };
            for to in [&parts, &parts_alone] {
                device.write(to, 0, &vec![0xffff_ffffu32; pairs * hidden]).unwrap();
            }
            for to in [&picked, &picked_alone, &weights, &weights_alone] {
                device.write(to, 0, &vec![0xffff_ffffu32; ROWS * USED]).unwrap();
            }
            shared.output(device, kernels, count, &by_shared).unwrap();
            tensor::multiply(device, kernels, &output_alone, count).unwrap();
            route(device, kernels, count, &alone).unwrap();
            for (found, wanted, words, of) in [
                (&parts, &parts_alone, pairs * hidden, "outputs"),
                (&picked, &picked_alone, ROWS * USED, "choices"),
                (&weights, &weights_alone, ROWS * USED, "weights"),
            ] {
                let (found, wanted) = (bits(device, found, words), bits(device, wanted, words));
                assert!(found == wanted, "{what}: {of} of {count} rows");
            }
        }
    }
}

#[test]
fn the_shared_expert_is_what_its_products_are_and_rows_choose_as_they_do_alone() {
    on_the_card(|device, kernels| {
        if !device.info().has_much_shared() {
            return;
        }
        tensor::prepare(device, kernels).unwrap();
        prepare(kernels).unwrap();
        for case in [
            Case { formats: (Format::F16, Format::Q8_0), hidden: 4096, inner: 512, experts: 256 },
            Case { formats: (Format::Q8_0, Format::F16), hidden: 1280, inner: 768, experts: 40 },
            Case { formats: (Format::F16, Format::F16), hidden: 512, inner: 256, experts: 8 },
            Case { formats: (Format::F16, Format::Q8_0), hidden: 7168, inner: 3072, experts: 384 },
        ] {
            for multiprocessors in [3, 20, device.info().multiprocessors] {
                check(device, kernels, &case, multiprocessors);
            }
        }
    });
}
