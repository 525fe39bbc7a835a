//! The scanners find exactly the blocks that would spoil a forward pass.

use ds4_quant::{
    Format, decode_fp4_row, decode_fp8_row, decode_row, first_non_finite, first_non_finite_scale,
};
use proptest::prelude::*;

fn is_finite(format: Format, block: &[u8]) -> bool {
    let mut values = vec![0.0; format.block_elems()];
    decode_row(format, block, &mut values).unwrap();
    values.iter().all(|x| x.is_finite())
}

fn check(format: Format, row: &[u8]) {
    let blocks = row.chunks_exact(format.block_bytes());
    let broken = first_non_finite(format, row);
    let decodes_broken = blocks.clone().position(|block| !is_finite(format, block));
    let decodes_broken = decodes_broken.map(|block| block * format.block_bytes());
    if format != Format::Mxfp4 {
        assert_eq!(broken, decodes_broken, "{format}");
        return;
    }
    // An MXFP4 scale that is too large is reported even if no code of its block is large enough to
    // show it.
    let suspect =
        blocks.map(|block| block[0]).position(|scale| scale > 252).map(|block| block * 17);
    assert_eq!(broken, suspect);
    assert!(decodes_broken.is_none() || suspect <= decodes_broken);
}

#[test]
fn an_infinite_scale_is_found_in_each_format() {
    for format in Format::ALL.into_iter().filter(|format| format.scale_tile().is_none()) {
        let bytes = format.block_bytes();
        let mut row = vec![0; 3 * bytes];
        assert_eq!(first_non_finite(format, &row), None, "{format}");
        row[bytes..2 * bytes].fill(0xff);
        assert_eq!(first_non_finite(format, &row), Some(bytes), "{format}");
        check(format, &row);
    }
}

#[test]
fn codes_and_scales_of_the_checkpoint() {
    assert_eq!(first_non_finite(Format::Fp8Block, &[0, 0x7e, 0xff, 0x7f]), Some(2));
    assert_eq!(first_non_finite(Format::Fp8Block, &[0, 0x7e, 0xfe]), None);
    assert_eq!(first_non_finite(Format::Fp4Block, &[0xff; 9]), None);
    assert_eq!(first_non_finite_scale(Format::Fp4Block, &[0, 127, 252, 255]), Some(3));
    assert_eq!(first_non_finite_scale(Format::Mxfp4, &[255]), None);
}

#[test]
fn a_scale_is_reported_from_where_the_largest_code_overflows() {
    let mut value = [0.0; 2];
    for scale in 0..=255 {
        decode_fp8_row(&[0x7e], &[scale], &mut value[..1]).unwrap();
        let broken = first_non_finite_scale(Format::Fp8Block, &[scale]).is_some();
        assert_eq!(broken, !value[0].is_finite(), "FP8 {scale}");
        decode_fp4_row(&[0x77], &[scale], &mut value).unwrap();
        let broken = first_non_finite_scale(Format::Fp4Block, &[scale]).is_some();
        assert_eq!(broken, !value[0].is_finite(), "FP4 {scale}");
    }
}

proptest! {
    #[test]
    fn a_row_is_reported_where_it_decodes_to_something_not_finite(
        mut noise in prop::collection::vec(any::<u8>(), 4 * 210),
        calm in any::<bool>(),
    ) {
        if calm {
            noise.iter_mut().for_each(|byte| *byte &= 0x7b);
        }
        for format in Format::ALL.into_iter().filter(|format| format.scale_tile().is_none()) {
            check(format, &noise);
        }
    }
}
