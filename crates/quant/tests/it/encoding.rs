//! The encoders: each value comes back within half a step of its block, and the rule's corners
//! hold.

use crate::{bits, row};
use ds4_quant::{
    Format, QuantError, decode_fp4_row, decode_fp8_row, decode_row, encode_fp4_row, encode_fp8,
    encode_row, f16_decode, first_non_finite, first_non_finite_scale, fp4_round_trip,
};
use proptest::prelude::*;

const ENCODED: [Format; 6] =
    [Format::F32, Format::F16, Format::BF16, Format::Q8_0, Format::Q4_0, Format::Mxfp4];

fn encode(format: Format, values: &[f32]) -> Vec<u8> {
    let mut bytes = vec![0xaa; format.row_bytes(values.len()).unwrap()];
    encode_row(format, values, &mut bytes).unwrap();
    bytes
}

fn there_and_back(format: Format, values: &[f32]) -> Vec<f32> {
    let mut decoded = vec![0.0; values.len()];
    decode_row(format, &encode(format, values), &mut decoded).unwrap();
    decoded
}

#[test]
fn lengths_must_fit_and_formats_exist() {
    for format in Format::ALL {
        let values = vec![0.0; format.block_elems()];
        let mut bytes = vec![0; format.block_bytes()];
        let expected = match format {
            _ if ENCODED.contains(&format) => Ok(()),
            _ if format.scale_tile().is_some() => Err(QuantError::ScalesElsewhere(format)),
            _ => Err(QuantError::NoEncoder(format)),
        };
        assert_eq!(encode_row(format, &values, &mut bytes), expected);
        assert!(matches!(encode_row(format, &values, &mut []), Err(QuantError::Bytes { .. })));
    }
}

#[test]
fn zeros_stay_zeros() {
    for format in ENCODED {
        assert!(there_and_back(format, &[0.0; 64]).iter().all(|&x| x == 0.0), "{format}");
    }
}

#[test]
fn numbers_on_the_grid_come_back_as_they_were() {
    let ramp: Vec<f32> = (0..32).map(|i| (i as f32 - 16.0) * 0.5).collect();
    let on_grid: [(Format, Vec<f32>); 4] = [
        (Format::Q8_0, (0..32).map(|i| (i * 8 - 127) as f32 * 0.25).chain([31.75; 32]).collect()),
        (Format::Q4_0, (0..32).map(|i| ((i % 16) as f32 - 8.0) * 0.125).collect()),
        (Format::Q4_0, (0..32).map(|i| (8.0 - (i % 16) as f32) * 4.0).collect()),
        (Format::Mxfp4, [0.5, -3.0, 6.0, -0.0, 2.0, 1.5, 4.0, -1.0].repeat(4)),
    ];
    for (format, values) in on_grid {
        assert_eq!(there_and_back(format, &values), values, "{format}");
    }
    for format in [Format::F32, Format::F16, Format::BF16] {
        assert_eq!(there_and_back(format, &ramp), ramp, "{format}");
    }
}

#[test]
fn halves_round_as_each_rule_says() {
    let mut values = [0.0; 32];
    values[..5].copy_from_slice(&[127.0, 2.5, -2.5, 0.5, 126.5]);
    assert_eq!(there_and_back(Format::Q8_0, &values)[..5], [127.0, 3.0, -3.0, 1.0, 127.0]);
    values[..5].copy_from_slice(&[-8.0, 2.5, -2.5, 0.5, 7.75]);
    assert_eq!(there_and_back(Format::Q4_0, &values)[..5], [-8.0, 3.0, -2.0, 1.0, 7.0]);
    values[..5].copy_from_slice(&[6.0, 2.5, -2.5, 0.25, 5.0]);
    assert_eq!(there_and_back(Format::Mxfp4, &values)[..5], [6.0, 2.0, -2.0, 0.0, 4.0]);
}

#[test]
fn a_number_that_is_not_finite_can_be_found_again() {
    for broken in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        let mut values = [1.0; 96];
        values[40] = broken;
        for format in ENCODED {
            let block = 40 / format.block_elems() * format.block_bytes();
            assert_eq!(first_non_finite(format, &encode(format, &values)), Some(block), "{format}");
        }
        let (mut codes, mut scales) = ([0; 96], [0; 3]);
        encode_fp4_row(&values, &mut codes[..48], &mut scales).unwrap();
        assert_eq!(first_non_finite_scale(Format::Fp4Block, &scales), Some(1));
        encode_fp8(&values, 96, &mut codes, &mut scales[..1]).unwrap();
        assert_eq!(first_non_finite_scale(Format::Fp8Block, &scales[..1]), Some(0));
    }
}

#[test]
fn fp8_tiles_share_their_scale_and_nothing_else() {
    let (rows, cols) = (130, 200);
    let mut values = vec![0.001; rows * cols];
    values[129 * cols + 199] = 448.0; // the last, small tile
    values[5 * cols + 7] = 3.0;
    let mut codes = vec![0; values.len()];
    let mut scales = [0; 4];
    encode_fp8(&values, cols, &mut codes, &mut scales).unwrap();
    // 0.001 = 1.024 * 2^-10 fits under 1.75 * 2^8 at 2^-18; 3 = 1.5 * 2^1 at 2^-7.
    assert_eq!(scales, [127 - 7, 127 - 18, 127 - 18, 127]);
    let mut decoded = vec![0.0; values.len()];
    for (r, (out, codes)) in decoded.chunks_mut(cols).zip(codes.chunks(cols)).enumerate() {
        decode_fp8_row(codes, &scales[2 * (r / 128)..][..2], out).unwrap();
    }
    assert_eq!((decoded[129 * cols + 199], decoded[5 * cols + 7]), (448.0, 3.0));
    assert!((decoded[150] - 0.001).abs() < 0.001 / 16.0);
}

#[test]
fn fp8_matrices_must_be_whole() {
    let (mut codes, mut scales) = ([0; 12], [0; 2]);
    assert_eq!(encode_fp8(&[], 0, &mut [], &mut []), Ok(()));
    assert!(encode_fp8(&[0.0; 12], 0, &mut codes, &mut scales[..1]).is_err());
    assert!(encode_fp8(&[0.0; 12], 5, &mut codes, &mut scales[..1]).is_err());
    assert!(encode_fp8(&[0.0; 12], usize::MAX, &mut codes, &mut scales[..1]).is_err());
    assert!(encode_fp8(&[0.0; 12], 4, &mut codes, &mut scales).is_err());
    assert!(encode_fp8(&[0.0; 12], 4, &mut codes[..11], &mut scales[..1]).is_err());
    assert_eq!(encode_fp8(&[0.0; 12], 4, &mut codes, &mut scales[..1]), Ok(()));
}

proptest! {
    #[test]
    fn values_come_back_within_half_a_step(values in prop::collection::vec(-50.0f32..50.0, 64)) {
        for format in [Format::Q8_0, Format::Q4_0] {
            let bytes = encode(format, &values);
            let decoded = there_and_back(format, &values);
            for ((block, before), after) in
                bytes.chunks(format.block_bytes()).zip(values.chunks(32)).zip(decoded.chunks(32))
            {
                let step = f16_decode(u16::from_le_bytes([block[0], block[1]])).abs();
                for (x, y) in before.iter().zip(after) {
                    // The rounding of the scale to f16 costs up to 2^-11 of the value; Q4_0 has no
                    // step +8.
                    let whole = format == Format::Q4_0 && (x.abs() / step) > 7.4;
                    let slack = if whole { 1.01 } else { 0.5 };
                    prop_assert!((x - y).abs() <= slack * step + x.abs() / 1024.0, "{}: {} {}", format, x, y);
                }
            }
        }
    }

    #[test]
    fn power_of_two_formats_are_the_round_trip(values in row(0..100)) {
        let values = &values[..values.len() / 32 * 32];
        let mut expected = values.to_vec();
        fp4_round_trip(&mut expected);
        prop_assert_eq!(bits(&there_and_back(Format::Mxfp4, values)), bits(&expected));

        let (mut codes, mut scales) = (vec![0; values.len() / 2], vec![0; values.len() / 32]);
        encode_fp4_row(values, &mut codes, &mut scales).unwrap();
        let mut decoded = vec![0.0; values.len()];
        decode_fp4_row(&codes, &scales, &mut decoded).unwrap();
        prop_assert_eq!(bits(&decoded), bits(&expected));
    }
}
