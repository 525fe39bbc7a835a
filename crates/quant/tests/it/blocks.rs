//! Rows of blocks: lengths, independence of the blocks, and blocks worked out by hand. That every
//! format is decoded rightly is for the oracle to say.

use crate::bits;
use ds4_quant::{Format, QuantError, decode_fp4_row, decode_fp8_row, decode_row};
use proptest::prelude::*;

fn self_contained() -> impl Iterator<Item = Format> {
    Format::ALL.into_iter().filter(|format| format.scale_tile().is_none())
}

fn decode(format: Format, bytes: &[u8]) -> Vec<f32> {
    let mut values = vec![0.0; bytes.len() / format.block_bytes() * format.block_elems()];
    decode_row(format, bytes, &mut values).unwrap();
    values
}

#[test]
fn lengths_must_fit() {
    for format in self_contained() {
        let (elems, bytes) = (format.block_elems(), format.block_bytes());
        let mut values = vec![0.0; 2 * elems];
        let row = vec![0; 2 * bytes + 1];
        assert_eq!(decode_row(format, &[], &mut []), Ok(()), "{format}");
        assert_eq!(decode_row(format, &row[1..], &mut values), Ok(()), "{format}");
        for found in [0, bytes, 2 * bytes - 1, 2 * bytes + 1] {
            let expected =
                QuantError::Bytes { format, values: 2 * elems, expected: 2 * bytes, found };
            assert_eq!(decode_row(format, &row[..found], &mut values), Err(expected));
        }
        if elems > 1 {
            let expected = QuantError::PartialBlock { format, values: elems + 1 };
            assert_eq!(decode_row(format, &row[..bytes], &mut values[..elems + 1]), Err(expected));
        }
    }
}

#[test]
fn messages_are_one_line_that_says_what_is_wrong() {
    let short = decode_row(Format::Q4K, &[0; 100], &mut [0.0; 256]).unwrap_err();
    assert_eq!(short.to_string(), "256 values of Q4_K are 144 bytes, but there are 100");
    let ragged = decode_row(Format::Q4K, &[0; 144], &mut [0.0; 200]).unwrap_err();
    assert_eq!(
        ragged.to_string(),
        "a row of 200 values is not a whole number of Q4_K blocks of 256"
    );
}

#[test]
fn checkpoint_formats_need_their_scales() {
    let mut values = [0.0; 130];
    assert_eq!(
        decode_row(Format::Fp8Block, &[0; 130], &mut values),
        Err(QuantError::ScalesElsewhere(Format::Fp8Block))
    );
    assert_eq!(decode_fp8_row(&[0x38; 130], &[127, 128], &mut values), Ok(()));
    assert_eq!((values[127], values[128]), (1.0, 2.0));
    assert!(decode_fp8_row(&[0x38; 130], &[127], &mut values).is_err());
    assert!(decode_fp8_row(&[0x38; 129], &[127, 127], &mut values).is_err());

    assert_eq!(decode_fp4_row(&[0x62; 17], &[127, 126], &mut values[..34]), Ok(()));
    assert_eq!(values[30..34], [1.0, 4.0, 0.5, 2.0]);
    assert!(decode_fp4_row(&[0x62; 17], &[127], &mut values[..34]).is_err());
    assert!(decode_fp4_row(&[0x62; 17], &[127, 127], &mut values[..33]).is_err());
}

#[test]
fn small_blocks_by_hand() {
    let mut q8 = vec![0x00, 0x40, 0x80, 0x7f]; // scale 2
    q8.resize(34, 0xff);
    assert_eq!(decode(Format::Q8_0, &q8)[..3], [-256.0, 254.0, -2.0]);

    let mut q4 = vec![0x00, 0xb8, 0xf0]; // scale -1/2
    q4.resize(18, 0x88);
    let values = decode(Format::Q4_0, &q4);
    assert_eq!((values[0], values[16], values[1]), (4.0, -3.5, 0.0));

    let mut mx = vec![128, 0x9f];
    mx.resize(17, 0);
    let values = decode(Format::Mxfp4, &mx);
    assert_eq!((values[0], values[16], values[1]), (-12.0, -1.0, 0.0));
}

#[test]
fn the_last_sign_of_an_iq2_xxs_octet_is_the_parity_of_the_others() {
    let mut block = vec![0x00, 0x48]; // scale 8: the smallest step is then 8 * 0.5 * 0.25 = 1
    block.extend([0, 0, 0, 0]);
    block.extend((0b000_0011 << 7 | 0b000_0001u32).to_le_bytes());
    block.resize(66, 0);
    let values = decode(Format::Iq2Xxs, &block);
    assert_eq!(values[..8], [-8.0, 8.0, 8.0, 8.0, 8.0, 8.0, 8.0, -8.0], "one minus brings another");
    assert_eq!(values[8..16], [-8.0, -8.0, 8.0, 8.0, 8.0, 8.0, 8.0, 8.0], "two stay two");
    assert_eq!(values[16..24], [8.0; 8]);
}

proptest! {
    #[test]
    fn a_row_is_its_blocks_one_after_another(
        blocks in 0usize..5,
        noise in prop::collection::vec(any::<u8>(), 5 * 210),
    ) {
        for format in self_contained() {
            let row = &noise[..blocks * format.block_bytes()];
            let one_by_one = row.chunks(format.block_bytes()).flat_map(|one| decode(format, one));
            let apart: Vec<f32> = one_by_one.collect();
            prop_assert_eq!(bits(&decode(format, row)), bits(&apart), "{}", format);
        }
    }
}
