//! Every format's product on tensor cores against the plain decode: one row of the batch, a few, many.

use ds4_model::Matrix;
use ds4_quant::Format;

use super::*;
use crate::{
    device::{Buffer, testing::on_the_card},
    matvec::samples::{Noise, expected, matrix},
    weights::testing::to_the_card,
};

/// Two segments and a half.
const COLS: usize = 1280;
/// Neither a multiple of the rows that a block takes for few vectors nor for many.
const ROWS: usize = 168;
/// Several blocks of vectors, the last of them not full.
const BATCH: usize = 300;
/// Vectors that are not those before once more.
const DISTINCT: usize = 75;

/// What the halves of a float are, for numbers that a half can hold.
fn half(x: f32) -> u16 {
    let bits = x.to_bits();
    let exponent = (bits >> 23 & 255) as i32 - 127;
    let sign = (bits >> 16 & 0x8000) as u16;
    match exponent {
        -14..=15 => sign | ((exponent + 15) as u16) << 10 | (bits >> 13 & 0x3ff) as u16,
        _ => sign,
    }
}

/// Vectors whose values are multiples of an eighth; they repeat themselves.
fn vectors(noise: &mut Noise) -> Vec<f32> {
    let distinct: Vec<f32> =
        (0..DISTINCT * COLS).map(|_| f32::from(noise.byte() as i8) / 8.0).collect();
    distinct.into_iter().cycle().take(BATCH * COLS).collect()
}

/// Vectors on the card: as floats, as halves.
fn on_card(device: &Device, x: &[f32]) -> (Buffer, Buffer) {
    let pair = |two: &[f32]| u32::from(half(two[0])) | u32::from(half(two[1])) << 16;
    let pairs: Vec<u32> = x.chunks(2).map(pair).collect();
    (device.upload(x, "x").unwrap(), device.upload(&pairs, "x").unwrap())
}

/// The products of a list for so many rows: floats, halves.
fn run(
    device: &Device,
    kernels: &Kernels,
    list: &HalfProductList,
    rows: usize,
    (y, y_half): (&Buffer, &Buffer),
) -> (Vec<f32>, Vec<u16>) {
    // What a kernel does not write is seen.
    device.write(y, 0, &vec![f32::NAN; BATCH * ROWS]).unwrap();
    device.write(y_half, 0, &vec![0xffff_ffffu32; BATCH * ROWS / 2]).unwrap();
    multiply(device, kernels, list, rows).unwrap();
    let (mut floats, mut halves) = (vec![0.0f32; rows * ROWS], vec![0u32; rows * ROWS / 2]);
    device.read(y, 0, &mut floats).unwrap();
    device.read(y_half, 0, &mut halves).unwrap();
    let halves = halves.into_iter().flat_map(|two| [two as u16, (two >> 16) as u16]).collect();
    (floats, halves)
}

#[track_caller]
fn check(matrix: &Matrix, x: &[f32], found: &[f32]) {
    for (x, found) in x.chunks(COLS).zip(found.chunks(ROWS)) {
        for ((want, size), found) in expected(matrix, x).into_iter().zip(found) {
            let error = (want - f64::from(*found)).abs();
            assert!(error <= 2e-3 * size, "{}: {found} for {want} of {size}", matrix.format());
        }
    }
}

#[test]
fn every_format_multiplies_as_it_decodes_and_company_changes_nothing() {
    on_the_card(|device, kernels| {
        prepare(device, kernels).unwrap();
        let packed = device.alloc(2 * BATCH.next_multiple_of(8) * COLS, "packed vectors").unwrap();
        let mut noise = Noise(8);
        for format in Format::ALL {
            let matrix = matrix(format, (ROWS, COLS), &mut noise);
            let (weights, _memory) = to_the_card(device, kernels, &matrix);
            let x = vectors(&mut noise);
            let (floats, halves) = on_card(device, &x);
            let y = device.alloc(4 * BATCH * ROWS, "y").unwrap();
            let y_half = device.alloc(2 * BATCH * ROWS, "y").unwrap();
            let product = Product::new(weights, floats.address(), y.address());
            let mut product = HalfProduct::new(product, halves.address());
            let here = product.x != 0;
            assert_eq!(here, ![Format::F32, Format::Iq2Xxs].contains(&format), "{format}");
            product.y = if here { y_half.address() } else { 0 };
            let mut memory = Vec::new();
            let list = HalfProductList::new(device.info(), packed.address(), &[product], |list| {
                memory.push(device.upload(list, "products")?);
                Ok(memory[memory.len() - 1].address())
            })
            .unwrap();
            let (all, all_halves) = run(device, kernels, &list, BATCH, (&y, &y_half));
            check(&matrix, &x[..DISTINCT * COLS], &all);
            for (r, row) in all.chunks(ROWS).enumerate() {
                assert_eq!(row, &all[r % DISTINCT * ROWS..][..ROWS], "{format}: row {r}");
            }
            for rows in [1, 7, 8, 11, 16, 17, 64, 65, 75, 96, 97, 127, 128, 129, 192, 200] {
                let (found, found_halves) = run(device, kernels, &list, rows, (&y, &y_half));
                assert_eq!(found, all[..rows * ROWS], "{format}: {rows} rows");
                if here {
                    assert_eq!(found_halves, all_halves[..rows * ROWS], "{format}: {rows} rows");
                }
            }
        }
    });
}

#[test]
fn products_of_a_list_do_not_disturb_each_other() {
    /// Two groups of so many rows, and columns.
    const GROUP: (usize, usize) = (MANY_ROWS, 512);
    on_the_card(|device, kernels| {
        prepare(device, kernels).unwrap();
        let packed = device.alloc(2 * BATCH.next_multiple_of(8) * COLS, "packed vectors").unwrap();
        let mut noise = Noise(9);
        let x = vectors(&mut noise);
        let (floats, halves) = on_card(device, &x);
        let formats = [Format::Q8_0, Format::F32, Format::F16, Format::Q6K, Format::Q8_0];
        let (mut outputs, mut products, mut memory) = (Vec::new(), Vec::new(), Vec::new());
        for (i, format) in formats.into_iter().enumerate() {
            let grouped = i + 1 == formats.len();
            let shape = if grouped { (2 * GROUP.0, GROUP.1) } else { (ROWS + 8 * i, COLS) };
            let matrix = matrix(format, shape, &mut noise);
            let (weights, of) = to_the_card(device, kernels, &matrix);
            let y = device.alloc(4 * BATCH * shape.0, "y").unwrap();
            let product = match grouped {
                true => Product::grouped(weights, floats.address(), y.address(), 2)
                    .strided(COLS, shape.0),
                false => Product::new(weights, floats.address(), y.address()),
            };
            products.push(HalfProduct::new(product, halves.address()));
            // Of each vector and row: what its group's input gives.
            let wanted: Vec<Vec<(f64, f64)>> = x
                .chunks(COLS)
                .take(DISTINCT)
                .map(|x| {
                    let of = |g: usize| expected(&matrix, &x[g * GROUP.1..][..shape.1]);
                    let groups = if grouped { [of(0), of(1)] } else { [of(0), of(0)] };
                    let group = |row| if grouped { row / GROUP.0 } else { 0 };
                    (0..shape.0).map(|row| groups[group(row)][row]).collect()
                })
                .collect();
            outputs.push((format, y, wanted));
            memory.extend(of);
        }
        let list = HalfProductList::new(device.info(), packed.address(), &products, |list| {
            memory.push(device.upload(list, "products")?);
            Ok(memory[memory.len() - 1].address())
        })
        .unwrap();
        for rows in [1, 11, 40, 70, BATCH] {
            for (_, y, wanted) in &outputs {
                device.write(y, 0, &vec![f32::NAN; BATCH * wanted[0].len()]).unwrap();
            }
            multiply(device, kernels, &list, rows).unwrap();
            for (format, y, wanted) in &outputs {
                let mut found = vec![0.0f32; rows * wanted[0].len()];
                device.read(y, 0, &mut found).unwrap();
                for ((want, size), found) in wanted.iter().flatten().zip(found) {
                    let error = (want - f64::from(found)).abs();
                    assert!(error <= 2e-3 * size, "{format}, {rows} rows: {found} for {want}");
                }
            }
        }
    });
}

#[test]
fn one_row_gets_the_bits_that_it_gets_in_company() {
    /// Format, rows, columns, groups: rows that fill no tile, columns that fill no segment, more tiles than blocks.
    const SHAPES: [(Format, usize, usize, usize); 8] = [
        (Format::Q8_0, 168, 1280, 1),
        (Format::F16, 200, 1280, 1),
        (Format::Q8_0, 4 * MANY_ROWS, 512, 4),
        (Format::F16, 24, 256, 1),
        (Format::F16, 3 * MANY_ROWS, 768, 3),
        (Format::Q8_0, 40, 8960, 1),
        (Format::Q8_0, 4600, 256, 1),
        (Format::Q8_0, 360, 8192, 1),
    ];
    on_the_card(|device, kernels| {
        prepare(device, kernels).unwrap();
        let mut noise = Noise(10);
        let x = vectors(&mut noise);
        let (floats, halves) = on_card(device, &x);
        let packed = device.alloc(16 * 16 * 8960, "packed vectors").unwrap();
        let (mut products, mut outputs, mut memory) = (Vec::new(), Vec::new(), Vec::new());
        for (format, rows, cols, groups) in SHAPES {
            let matrix = matrix(format, (rows, cols), &mut noise);
            let (weights, of) = to_the_card(device, kernels, &matrix);
            let y = device.alloc(4 * FEW * rows, "y").unwrap();
            let y_half = device.alloc(2 * FEW * rows, "y").unwrap();
            let product = Product::grouped(weights, floats.address(), y.address(), groups);
            let mut product = HalfProduct::new(product, halves.address());
            product.y = y_half.address();
            products.push(product);
            outputs.push((rows, y, y_half));
            memory.extend(of);
        }
        // One product alone, and lists in which each block takes one tile, or many.
        let lists =
            (0..products.len()).map(|i| &products[i..=i]).chain([&products[..], &products[..4]]);
        for (i, products) in lists.enumerate() {
            for multiprocessors in [1, 3, 40, device.info().multiprocessors] {
                let card = DeviceInfo { multiprocessors, ..device.info().clone() };
                let list = HalfProductList::new(&card, packed.address(), products, |list| {
                    memory.push(device.upload(list, "products")?);
                    Ok(memory[memory.len() - 1].address())
                })
                .unwrap();
                assert!(list.one.is_some());
                // Products of the first so many rows.
                let of = |list: &HalfProductList, count: usize| -> Vec<(Vec<f32>, Vec<u32>)> {
                    for (rows, y, y_half) in &outputs {
                        device.write(y, 0, &vec![f32::NAN; FEW * rows]).unwrap();
                        device.write(y_half, 0, &vec![0xffff_ffffu32; FEW * rows / 2]).unwrap();
                    }
                    multiply(device, kernels, list, count).unwrap();
                    outputs
                        .iter()
                        .map(|(rows, y, y_half)| {
                            let (mut floats, mut halves) =
                                (vec![0.0; count * rows], vec![0u32; count * rows / 2]);
                            device.read(y, 0, &mut floats).unwrap();
                            device.read(y_half, 0, &mut halves).unwrap();
                            (floats, halves)
                        })
                        .collect()
                };
                let bits = |y: &[f32]| y.iter().map(|y| y.to_bits()).collect::<Vec<_>>();
                let check = |found: &[(Vec<f32>, Vec<u32>)], wanted: &[(Vec<f32>, Vec<u32>)]| {
                    for (p, (found, wanted)) in found.iter().zip(wanted).enumerate() {
                        let of = format!("list {i}, {multiprocessors} multiprocessors, output {p}");
                        let rows = found.0.len().min(wanted.0.len());
                        assert_eq!(bits(&found.0[..rows]), bits(&wanted.0[..rows]), "{of}");
                        assert_eq!(found.1[..rows / 2], wanted.1[..rows / 2], "{of}");
                    }
                };
                let apart = HalfProductList { together: None, ..list };
                let alone = of(&list, 1);
                for count in [5, 7, 16] {
                    let company = of(&list, count);
                    check(&alone, &company);
                    check(&company, &of(&apart, count));
                }
            }
        }
    });
}
