//! Packing a row loses nothing but what the model's own rounding loses.

use crate::{bits, row};
use ds4_quant::{
    IndexRow, KvRow, QuantError, f16_decode, f16_encode, fp4_round_trip, fp8_round_trip,
};
use proptest::prelude::*;

#[test]
fn sizes() {
    for (head_dim, rope, rope_at, bytes) in [
        (512, 64, 456, 584),
        (128, 64, 72, 200),
        (96, 32, 72, 136),
        (64, 0, 72, 72),
        (64, 64, 0, 128),
    ] {
        let layout = KvRow::new(head_dim, rope).unwrap();
        assert_eq!((layout.rope_at(), layout.bytes()), (rope_at, bytes), "{head_dim}/{rope}");
        assert_eq!((layout.values(), layout.nope()), (head_dim, head_dim - rope));
    }
    for (dim, bytes) in [(128, 68), (64, 34), (48, 26), (2, 2)] {
        let layout = IndexRow::new(dim).unwrap();
        assert_eq!((layout.values(), layout.scales_at(), layout.bytes()), (dim, dim / 2, bytes));
    }
}

#[test]
fn impossible_shapes_are_refused() {
    for (head_dim, rope) in [(0, 0), (64, 65), (usize::MAX, 0), (usize::MAX, usize::MAX)] {
        assert_eq!(KvRow::new(head_dim, rope), Err(QuantError::RowShape { dim: head_dim, rope }));
    }
    for dim in [0, 1, 127] {
        assert_eq!(IndexRow::new(dim), Err(QuantError::RowShape { dim, rope: 0 }));
    }
}

#[test]
fn wrong_lengths_are_refused() {
    let layout = KvRow::new(512, 64).unwrap();
    let (mut values, mut packed) = ([0.0; 513], [0; 585]);
    assert!(layout.pack(&values[..511], &mut packed[..584]).is_err());
    assert!(layout.pack(&values[..512], &mut packed).is_err());
    assert!(layout.unpack(&packed[..583], &mut values[..512]).is_err());
    assert!(layout.unpack(&packed[..584], &mut values).is_err());
    let layout = IndexRow::new(128).unwrap();
    assert!(layout.pack(&values[..127], &mut packed[..68]).is_err());
    assert!(layout.unpack(&packed[..69], &mut values[..128]).is_err());
    let error = layout.pack(&values[..128], &mut packed[..67]).unwrap_err();
    assert_eq!(error.to_string(), "an index row must be 68 bytes long, but it is 67");
}

#[test]
fn the_bytes_lie_where_the_layout_says() {
    let layout = KvRow::new(72, 2).unwrap();
    let mut values = vec![448.0; 64];
    values.extend([1.0, -224.0, 0.0, 0.0, 0.0, 0.0]); // a last group of six, its scale 2^-1
    values.extend([1.0, -2.0]);
    let mut packed = vec![0xaa; layout.bytes()];
    layout.pack(&values, &mut packed).unwrap();
    assert_eq!(packed[..64], [0x7e; 64]);
    assert_eq!(packed[64..70], [0x40, 0xfe, 0, 0, 0, 0]);
    assert_eq!(packed[70..72], [127, 126]);
    assert_eq!(packed[72..], [0, 0x3c, 0, 0xc0]);

    let layout = IndexRow::new(34).unwrap();
    let mut values = vec![0.5, -6.0];
    values.resize(32, 1.0);
    values.extend([12.0, 4.0]);
    let mut packed = vec![0xaa; layout.bytes()];
    layout.pack(&values, &mut packed).unwrap();
    assert_eq!(packed[..2], [0xf1, 0x22]);
    assert_eq!(packed[16..], [0x47, 127, 128]);
}

#[test]
fn padding_is_zero() {
    let layout = KvRow::new(512, 64).unwrap();
    let mut packed = vec![0xff; layout.bytes()];
    layout.pack(&[1.0; 512], &mut packed).unwrap();
    assert_eq!(packed[455], 0);
}

fn check_kv(values: &[f32], rope: usize) {
    let layout = KvRow::new(values.len(), rope).unwrap();
    let mut packed = vec![0xaa; layout.bytes()];
    layout.pack(values, &mut packed).unwrap();
    let mut unpacked = vec![7.0; values.len()];
    layout.unpack(&packed, &mut unpacked).unwrap();

    let mut expected = values.to_vec();
    let (nope, rotary) = expected.split_at_mut(values.len() - rope);
    fp8_round_trip(nope);
    rotary.iter_mut().for_each(|x| *x = f16_decode(f16_encode(*x)));
    assert_eq!(bits(&unpacked), bits(&expected));

    let mut again = vec![0xbb; layout.bytes()];
    layout.pack(&unpacked, &mut again).unwrap();
    let mut twice = vec![7.0; values.len()];
    layout.unpack(&again, &mut twice).unwrap();
    assert_eq!(bits(&twice), bits(&unpacked), "packing what was unpacked");
}

fn check_index(values: &[f32]) {
    let layout = IndexRow::new(values.len()).unwrap();
    let mut packed = vec![0xaa; layout.bytes()];
    layout.pack(values, &mut packed).unwrap();
    let mut unpacked = vec![7.0; values.len()];
    layout.unpack(&packed, &mut unpacked).unwrap();
    let mut expected = values.to_vec();
    fp4_round_trip(&mut expected);
    assert_eq!(bits(&unpacked), bits(&expected));
}

#[test]
fn rows_of_zeros_and_of_the_floor() {
    for x in [0.0, -0.0, 1e-4, -1e-4, 1e-12, 448.0, 1e30] {
        check_kv(&[x; 512], 64);
        check_index(&[x; 128]);
    }
}

#[test]
fn a_row_with_nan_stays_nan_in_its_group() {
    let layout = KvRow::new(512, 64).unwrap();
    let mut values = [1.0; 512];
    values[70] = f32::NAN;
    let mut packed = vec![0; layout.bytes()];
    layout.pack(&values, &mut packed).unwrap();
    layout.unpack(&packed, &mut values).unwrap();
    assert!(values[64..128].iter().all(|x| x.is_nan()));
    assert!(values[..64].iter().chain(&values[128..]).all(|&x| x == 1.0));
}

proptest! {
    #[test]
    fn unpacking_gives_the_round_trip_bit_for_bit(values in row(1..600), rope in 0usize..128) {
        check_kv(&values, rope.min(values.len()));
    }

    #[test]
    fn unpacking_gives_the_index_round_trip_bit_for_bit(values in row(2..200)) {
        check_index(&values[..values.len() / 2 * 2]);
    }

    #[test]
    fn any_bytes_unpack_without_a_panic(packed in prop::collection::vec(any::<u8>(), 584)) {
        KvRow::new(512, 64).unwrap().unpack(&packed, &mut [0.0; 512]).unwrap();
        IndexRow::new(128).unwrap().unpack(&packed[..68], &mut [0.0; 128]).unwrap();
    }
}
