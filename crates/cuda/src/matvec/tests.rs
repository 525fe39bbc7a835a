//! Every format's product against the plain decode, one row of the batch and many.

use ds4_quant::Format;

use super::{
    samples::{Noise, expected, matrix},
    *,
};
use crate::{device::testing::on_the_card, weights::testing::to_the_card};

const COLS: usize = 512;
const ROWS: usize = 160;

#[test]
fn every_format_multiplies_as_it_decodes() {
    on_the_card(|device, kernels| {
        let mut noise = Noise(7);
        for format in Format::ALL {
            let matrix = matrix(format, (ROWS, COLS), &mut noise);
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
