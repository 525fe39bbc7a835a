//! The searching encoders: what they leave of ordinary rows, that they find again what a block can
//! say exactly, and that no row makes them do harm.

use crate::{bits, row};
use ds4_quant::{Format, QuantError, decode_row, encode_row, f16_decode, f16_encode, quantise_row};
use proptest::prelude::*;

const SEARCHED: [Format; 3] = [Format::Q2K, Format::Q4K, Format::Iq2Xxs];

fn quantise(format: Format, values: &[f32], importance: Option<&[f32]>) -> Vec<u8> {
    let mut bytes = vec![0xaa; format.row_bytes(values.len()).unwrap()];
    quantise_row(format, values, importance, &mut bytes).unwrap();
    bytes
}

fn decode(format: Format, bytes: &[u8]) -> Vec<f32> {
    let mut values = vec![0.0; bytes.len() / format.block_bytes() * format.block_elems()];
    decode_row(format, bytes, &mut values).unwrap();
    values
}

fn there_and_back(format: Format, values: &[f32]) -> Vec<f32> {
    decode(format, &quantise(format, values, None))
}

/// The sum of weighted squares of the differences.
fn error(found: &[f32], values: &[f32], weights: Option<&[f32]>) -> f64 {
    let square = |(i, (a, b)): (usize, (&f32, &f32))| {
        let weight = weights.map_or(1.0, |weights| f64::from(weights[i]));
        weight * (f64::from(*a) - f64::from(*b)).powi(2)
    };
    found.iter().zip(values).enumerate().map(square).sum()
}

/// The error as a share of the values, both as roots of their mean squares.
fn relative(found: &[f32], values: &[f32]) -> f64 {
    (error(found, values, None) / error(&vec![0.0; values.len()], values, None)).sqrt()
}

/// Numbers with no pattern that matters here.
struct Noise(u64);

impl Noise {
    fn bits(&mut self) -> u64 {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        self.0 >> 33
    }

    fn below(&mut self, end: u64) -> u8 {
        (self.bits() % end) as u8
    }

    /// Nearly normal, with a deviation of 1.
    fn normal(&mut self) -> f32 {
        let sum: u64 = (0..12).map(|_| self.bits() & 0xffff).sum();
        sum as f32 / 65536.0 - 6.0
    }

    fn normals(&mut self, count: usize) -> Vec<f32> {
        (0..count).map(|_| self.normal()).collect()
    }
}

/// What plain rounding leaves: each part between its extremes, whose scale and minimum are rounded
/// to the block's largest.
fn plain_affine(values: &[f32], part: usize, top: f32, top_scale: f32) -> Vec<f32> {
    let mut out = Vec::new();
    for block in values.chunks(256) {
        let lines: Vec<(f32, f32)> = block
            .chunks(part)
            .map(|x| {
                let low = x.iter().fold(0f32, |a, &b| a.min(b));
                let high = x.iter().fold(0f32, |a, &b| a.max(b));
                ((high - low) / top, -low)
            })
            .collect();
        let step = |of: fn(&(f32, f32)) -> f32| {
            let largest = lines.iter().map(of).fold(0f32, f32::max);
            f16_decode(f16_encode(largest / top_scale))
        };
        let (d, dmin) = (step(|line| line.0), step(|line| line.1));
        for (x, (scale, min)) in block.chunks(part).zip(&lines) {
            let (scale, min) = (d * (scale / d).round(), dmin * (min / dmin).round());
            out.extend(x.iter().map(|x| scale * ((x + min) / scale).round().clamp(0.0, top) - min));
        }
    }
    out
}

#[test]
fn ordinary_rows_lose_less_than_by_plain_rounding() {
    let values = Noise(1).normals(256 * 40);
    let check = |format: Format, plain: f64, most: f64| {
        let found = relative(&there_and_back(format, &values), &values);
        assert!(found < most, "{format}: {found:.4}");
        assert!(found < 0.9 * plain, "{format}: {found:.4}, plain rounding {plain:.4}");
    };
    check(Format::Q4K, relative(&plain_affine(&values, 32, 15.0, 63.0), &values), 0.07);
    check(Format::Q2K, relative(&plain_affine(&values, 16, 3.0, 15.0), &values), 0.26);
    check(Format::Iq2Xxs, relative(&signs_alone(&values), &values), 0.335);
}

/// What two bits cost at the least: a sign, and one magnitude for each 32.
fn signs_alone(values: &[f32]) -> Vec<f32> {
    let group = |x: &[f32]| -> Vec<f32> {
        let mean = x.iter().map(|x| x.abs()).sum::<f32>() / x.len() as f32;
        x.iter().map(|x| mean.copysign(*x)).collect()
    };
    values.chunks(32).flat_map(group).collect()
}

/// A block in which every sub-block uses its first and its last code, so that nothing else says the
/// same.
fn affine_block(format: Format, noise: &mut Noise) -> Vec<u8> {
    let mut bytes: Vec<u8> = (0..format.block_bytes()).map(|_| noise.below(256)).collect();
    let d = f16_encode(0.2 + f32::from(noise.below(200)) * 0.01).to_le_bytes();
    let dmin = f16_encode(0.2 + f32::from(noise.below(200)) * 0.01).to_le_bytes();
    let (scales, codes) = match format {
        Format::Q2K => {
            bytes[80..82].copy_from_slice(&d);
            bytes[82..84].copy_from_slice(&dmin);
            (0..16, 16..80)
        }
        _ => {
            bytes[0..2].copy_from_slice(&d);
            bytes[2..4].copy_from_slice(&dmin);
            (4..16, 16..144)
        }
    };
    for scale in &mut bytes[scales] {
        // No scale is 0: what lies under it would have no code.
        *scale |= 0x11;
    }
    for (i, code) in bytes[codes].iter_mut().enumerate() {
        match i % 16 {
            3 => *code = 0x00,
            9 => *code = 0xff,
            _ => {}
        }
    }
    bytes
}

#[test]
fn what_a_block_can_say_is_found_again() {
    let mut noise = Noise(2);
    for round in 0..200 {
        for format in [Format::Q2K, Format::Q4K] {
            let values = decode(format, &affine_block(format, &mut noise));
            assert_eq!(there_and_back(format, &values), values, "{format}, round {round}");
        }
        let mut block: Vec<u8> = (0..66).map(|_| noise.below(256)).collect();
        block[..2].copy_from_slice(&f16_encode(0.01 + noise.normal().abs()).to_le_bytes());
        let values = decode(Format::Iq2Xxs, &block);
        assert_eq!(there_and_back(Format::Iq2Xxs, &values), values, "IQ2_XXS, round {round}");
    }
}

/// Every choice of row and signs for an octet of IQ2_XXS under a scale of 1, from the decoder itself.
fn octets() -> Vec<[f32; 8]> {
    let mut all = Vec::new();
    for row in 0..=255u8 {
        for signs in 0..128u32 {
            let mut block = [0; 66];
            block[..2].copy_from_slice(&f16_encode(8.0).to_le_bytes());
            block[2] = row;
            block[6..10].copy_from_slice(&signs.to_le_bytes());
            all.push(decode(Format::Iq2Xxs, &block)[..8].try_into().unwrap());
        }
    }
    all
}

#[test]
fn no_other_row_or_sign_of_an_octet_would_be_nearer() {
    let octets = octets();
    let mut noise = Noise(3);
    let values = noise.normals(256);
    let weights: Vec<f32> = (0..256).map(|_| noise.normal().abs()).collect();
    let bytes = quantise(Format::Iq2Xxs, &values, Some(&weights));
    let found = decode(Format::Iq2Xxs, &bytes);
    let d = f16_decode(u16::from_le_bytes([bytes[0], bytes[1]]));
    for (at, (x, found)) in values.chunks(8).zip(found.chunks(8)).enumerate() {
        let scale = d * (f32::from(bytes[2 + 8 * (at / 4) + 7] >> 4) + 0.5) * 0.25;
        let weights = &weights[8 * at..][..8];
        let taken = error(found, x, Some(weights));
        for octet in &octets {
            let other = error(&octet.map(|g| g * scale), x, Some(weights));
            assert!(taken <= other * 1.0001, "octet {at}: {taken} is more than {other}");
        }
    }
}

#[test]
fn zeros_and_constants() {
    for format in SEARCHED {
        assert!(there_and_back(format, &[0.0; 512]).iter().all(|&x| x == 0.0), "{format}");
        for value in [1.0, -1.0, 3.7e-3, -4.2e4, 1e-5] {
            let found = there_and_back(format, &[value; 256]);
            // The steps are stored as f16, in coarse steps of 2^-24 when small.
            assert!(relative(&found, &[value; 256]) < 0.02, "{format} {value}: {:?}", &found[..4]);
        }
        // Nothing of so small a number is left, and nothing else comes of it.
        assert!(there_and_back(format, &[1e-30; 256]).iter().all(|&x| x == 0.0), "{format}");
    }
}

#[test]
fn what_has_no_code_is_refused() {
    for format in SEARCHED {
        let mut bytes = vec![0; 2 * format.block_bytes()];
        for broken in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let mut values = [1.0; 512];
            values[300] = broken;
            let refused = quantise_row(format, &values, None, &mut bytes);
            assert_eq!(refused, Err(QuantError::NotFinite { index: 300 }));
        }
        let mut values = [1.0; 512];
        values[300] = 1e30;
        let refused = quantise_row(format, &values, None, &mut bytes);
        assert_eq!(refused, Err(QuantError::TooLarge { format, index: 256 }));
        for index in [0, 511] {
            let mut weights = [1.0; 512];
            weights[index] = -1.0;
            let refused = quantise_row(format, &[1.0; 512], Some(&weights), &mut bytes);
            assert_eq!(refused, Err(QuantError::Importance { index }));
        }
        let refused = quantise_row(format, &[1.0; 512], Some(&[1.0; 5]), &mut bytes);
        assert!(matches!(refused, Err(QuantError::Values { expected: 512, found: 5, .. })));
        assert!(matches!(
            quantise_row(format, &[1.0; 512], None, &mut bytes[1..]),
            Err(QuantError::Bytes { .. })
        ));
    }
    assert!(quantise_row(Format::Q6K, &[0.0; 256], None, &mut [0; 210]).is_err());
}

#[test]
fn formats_without_a_search_follow_their_rule() {
    let values = Noise(4).normals(64);
    for format in [Format::F16, Format::Q8_0, Format::Mxfp4] {
        let mut expected = vec![0; format.row_bytes(64).unwrap()];
        encode_row(format, &values, &mut expected).unwrap();
        assert_eq!(quantise(format, &values, None), expected, "{format}");
    }
}

#[test]
fn importance_moves_the_error_to_where_it_costs_less() {
    let mut noise = Noise(5);
    let values = noise.normals(256 * 8);
    let weights: Vec<f32> =
        (0..values.len()).map(|i| if i % 5 == 0 { 20.0 } else { 1.0 }).collect();
    for format in SEARCHED {
        let even = quantise(format, &values, None);
        assert_eq!(quantise(format, &values, Some(&vec![3.0; values.len()])), even, "{format}");
        assert_eq!(quantise(format, &values, Some(&vec![0.0; values.len()])), even, "{format}");
        let heeded = decode(format, &quantise(format, &values, Some(&weights)));
        let cost = error(&heeded, &values, Some(&weights));
        let before = error(&decode(format, &even), &values, Some(&weights));
        assert!(cost < 0.85 * before, "{format}: {cost} of {before}");
    }
}

proptest! {
    #[test]
    fn never_worse_than_zeros(values in row(256..257), spike in 0usize..256, size in -1e4f32..1e4) {
        let mut values: Vec<f32> = values.iter().map(|x| x.clamp(-5e4, 5e4)).collect();
        values[spike] = size;
        for format in SEARCHED {
            let found = there_and_back(format, &values);
            prop_assert!(relative(&found, &values) < 1.001, "{}", format);
        }
    }

    #[test]
    fn twice_the_row_is_twice_the_result(values in prop::collection::vec(-8.0f32..8.0, 256)) {
        let twice: Vec<f32> = values.iter().map(|x| 2.0 * x).collect();
        for format in SEARCHED {
            let found: Vec<f32> = there_and_back(format, &values).iter().map(|x| 2.0 * x).collect();
            prop_assert_eq!(bits(&there_and_back(format, &twice)), bits(&found), "{}", format);
        }
    }
}
