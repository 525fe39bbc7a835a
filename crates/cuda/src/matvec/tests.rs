//! Every format's product against the plain decode, one row of the batch and many.

use ds4_host::Region;
use ds4_model::Matrix;
use ds4_quant::Format;

use super::*;
use crate::{
    device::{Buffer, testing::on_the_card},
    int8::{self, Product8, Quantised},
    weights::testing::to_the_card,
};

const COLS: usize = 512;
const ROWS: usize = 160;

/// Numbers without a pattern.
struct Noise(u64);

impl Noise {
    fn byte(&mut self) -> u8 {
        self.0 = self.0.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (self.0 >> 56) as u8
    }

    fn float(&mut self) -> f32 {
        (f32::from(self.byte()) + f32::from(self.byte()) / 256.0) / 128.0 - 1.0
    }
}

/// A matrix of random codes under sane scales.
fn matrix(format: Format, noise: &mut Noise) -> Matrix {
    let row_bytes = format.row_bytes(COLS).unwrap();
    let mut bytes: Vec<u8> = (0..ROWS * row_bytes).map(|_| noise.byte()).collect();
    let halves: &[usize] = match format {
        Format::Q8_0 | Format::Q4_0 | Format::Iq2Xxs => &[0],
        Format::Q2K => &[80, 82],
        Format::Q4K | Format::Q5K => &[0, 2],
        Format::Q6K => &[208],
        _ => &[],
    };
    for block in bytes.chunks_exact_mut(format.block_bytes()) {
        for &at in halves {
            block[at + 1] = 0x28;
        }
        match (format, block) {
            (Format::F32, block) => block.copy_from_slice(&noise.float().to_le_bytes()),
            (Format::F16, [_, high]) => *high = *high & 0x80 | 0x30,
            (Format::BF16, [_, high]) => *high = *high & 0x80 | 0x3e,
            (Format::Mxfp4, [scale, ..]) => *scale = 120 + *scale % 8,
            // The last code of either sign is no number.
            (Format::Fp8Block, [code]) if *code & 0x7f == 0x7f => *code = 0,
            _ => {}
        }
    }
    let scales = format.scale_tile().map(|(rows, cols)| ROWS.div_ceil(rows) * COLS.div_ceil(cols));
    let scales = scales.map(|n| Region::from_vec((0..n).map(|_| 118 + noise.byte() % 8).collect()));
    Matrix::new("w".into(), format, (ROWS, COLS), Region::from_vec(bytes), scales).unwrap()
}

/// Exact products, and the sum of magnitudes that an error is held against.
fn expected(matrix: &Matrix, x: &[f32]) -> Vec<(f64, f64)> {
    let mut row = vec![0.0; COLS];
    (0..ROWS)
        .map(|r| {
            matrix.decode_row(r, &mut row);
            let terms = row.iter().zip(x).map(|(&w, &x)| f64::from(w) * f64::from(x));
            terms.fold((0.0, 0.0), |(sum, size), term| (sum + term, size + term.abs()))
        })
        .collect()
}

#[test]
fn every_format_multiplies_as_it_decodes() {
    on_the_card(|device, kernels| {
        let mut noise = Noise(7);
        for format in Format::ALL {
            let matrix = matrix(format, &mut noise);
            let (weights, _memory) = to_the_card(device, kernels, &matrix);
            let x: Vec<f32> = (0..11 * COLS).map(|_| noise.float()).collect();
            let on_card = device.upload(&x, "x").unwrap();
            let y = device.alloc(4 * 11 * ROWS, "y").unwrap();
            let product = Product::new(weights, on_card.address(), y.address());
            let mut memory = Vec::new();
            let list = ProductList::new(vec![product], |list| {
                memory.push(device.upload(list, "products")?);
                Ok(memory[0].address())
            })
            .unwrap();
            let mut results = Vec::new();
            for rows in [1, 11] {
                multiply(device, kernels, &list, rows).unwrap();
                let mut found = vec![0.0f32; rows * ROWS];
                device.read(&y, 0, &mut found).unwrap();
                for (x, found) in x.chunks(COLS).zip(found.chunks(ROWS)) {
                    for ((want, size), found) in expected(&matrix, x).into_iter().zip(found) {
                        let error = (want - f64::from(*found)).abs();
                        assert!(error <= 1e-6 * size, "{format}: {found} for {want}");
                    }
                }
                results.push(found);
            }
            assert_eq!(results[0], results[1][..ROWS], "{format}: company changes a row");
        }
    });
}

#[test]
fn eight_bits_are_close_and_company_changes_nothing() {
    on_the_card(|device, kernels| {
        let mut noise = Noise(8);
        let matrix = matrix(Format::Q8_0, &mut noise);
        let (weights, _memory) = to_the_card(device, kernels, &matrix);
        // Inputs that eight bits hold exactly: whole numbers with 127 among each 32.
        let mut codes: Vec<i8> = (0..11 * COLS).map(|_| (noise.byte() as i8).max(-127)).collect();
        codes.chunks_mut(32).for_each(|group| group[0] = 127);
        let bytes: Vec<u8> = codes.iter().map(|&c| c as u8).collect();
        let scales = vec![0.5f32; 11 * COLS / 32];
        let (codes_on, scales_on) =
            (device.upload(&bytes, "codes").unwrap(), device.upload(&scales, "scales").unwrap());
        let y = device.alloc(4 * 11 * ROWS, "y").unwrap();
        let made = device.alloc(11 * ROWS * 2, "y in eight bits").unwrap();
        let (made_scales, made_sums) = (
            device.alloc(4 * 11 * ROWS / 32, "scales").unwrap(),
            device.alloc(4 * 11 * ROWS / 16, "sums").unwrap(),
        );
        let x8 = Quantised { codes: codes_on.address(), scales: scales_on.address(), sums: 0 };
        let y8 = Quantised {
            codes: made.address(),
            scales: made_scales.address(),
            sums: made_sums.address(),
        };
        let product = Product8::new(Product::new(weights, 0, y.address()), x8);
        for product in [product, product.quantising(y8)] {
            let mut products = [product];
            let blocks = products[0].place(0);
            let list = device.upload(&products, "products").unwrap();
            let list = ProductList { address: list.address(), count: 1, blocks };
            let mut first = Vec::new();
            for rows in [1, 11] {
                int8::multiply(device, kernels, &list, rows).unwrap();
                let mut found = vec![0.0f32; rows * ROWS];
                device.read(&y, 0, &mut found).unwrap();
                for (codes, found) in codes.chunks(COLS).zip(found.chunks(ROWS)) {
                    let x: Vec<f32> = codes.iter().map(|&c| 0.5 * f32::from(c)).collect();
                    for ((want, size), found) in expected(&matrix, &x).into_iter().zip(found) {
                        let error = (want - f64::from(*found)).abs();
                        assert!(error <= 1e-6 * size, "{found} for {want}");
                    }
                }
                if product.quantises() {
                    check_quantised(device, &found, [&made, &made_scales, &made_sums]);
                }
                if rows == 1 {
                    first = found;
                } else {
                    assert_eq!(first, found[..ROWS]);
                }
            }
        }
    });
}

fn check_quantised(device: &Device, values: &[f32], [codes, scales, sums]: [&Buffer; 3]) {
    let mut found = vec![0u8; values.len()];
    device.read(codes, 0, &mut found).unwrap();
    let mut found_scales = vec![0.0f32; values.len() / 32];
    device.read(scales, 0, &mut found_scales).unwrap();
    let mut found_sums = vec![0u32; values.len() / 16];
    device.read(sums, 0, &mut found_sums).unwrap();
    for ((values, codes), scale) in values.chunks(32).zip(found.chunks(32)).zip(&found_scales) {
        let largest = values.iter().fold(0.0f32, |m, x| m.max(x.abs()));
        assert!((scale * 127.0 - largest).abs() <= 1e-6 * largest);
        for (x, &code) in values.iter().zip(codes) {
            assert!((x - scale * f32::from(code as i8)).abs() <= 0.5001 * scale);
        }
    }
    for (codes, &sum) in found.chunks(16).zip(&found_sums) {
        assert_eq!(codes.iter().map(|&c| i32::from(c as i8)).sum::<i32>(), sum as i32);
    }
}
