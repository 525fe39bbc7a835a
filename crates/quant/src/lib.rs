//! Block formats of weights and of cached rows: sizes, decode, encode; scalar and readable.
//!
//! These functions define what each byte means. The executors have faster twins of some of them,
//! and every twin is checked against the one here. The crate knows nothing of files, tensors or
//! models: it is given the bytes of a row and a place for its values.
//!
//! | format | values | bytes | one block is |
//! |---|---|---|---|
//! | F32, F16, BF16 | 1 | 4, 2, 2 | the number, little-endian |
//! | Q8_0 | 32 | 34 | f16 scale, 32 signed bytes |
//! | Q4_0 | 32 | 18 | f16 scale, 16 bytes of two nibbles |
//! | Q2_K | 256 | 84 | 16 bytes of 4-bit scale and minimum, 64 bytes of quarters, f16 scale, f16 minimum |
//! | Q4_K | 256 | 144 | f16 scale, f16 minimum, 12 bytes of 6-bit scales and minima, 128 bytes of nibbles |
//! | Q5_K | 256 | 176 | as Q4_K, with 32 bytes of fifth bits before the nibbles |
//! | Q6_K | 256 | 210 | 128 bytes of low nibbles, 64 bytes of high pairs, 16 signed byte scales, f16 scale |
//! | IQ2_XXS | 256 | 66 | f16 scale, 8 groups of four grid indices and a word of signs and scale |
//! | MXFP4 | 32 | 17 | e8m0 scale, 16 bytes of two e2m1 codes |
//! | FP8 | 1 | 1 | an e4m3 code; one e8m0 scale per 128 x 128 tile in a second tensor |
//! | FP4 | 2 | 1 | two e2m1 codes; one e8m0 scale per 32 columns in a second tensor |
//!
//! [`encode_row`] writes a format by its simple rule, [`quantise_row`] by search where that leaves
//! less error; the formats with scales within scales have only the search. Q5_K and Q6_K are read
//! only.
//!
//! Cached rows: a key/value row of 512 values with 64 rotary ones is 584 bytes ([`KvRow`]), an
//! index row of 128 values 68 bytes ([`IndexRow`]).

mod checkpoint;
mod decode;
mod encode;
mod error;
mod finite;
mod format;
mod iq2xxs;
mod iq2xxs_grid;
mod layout;
mod minifloat;
mod round;
mod rows;
mod scaled;
mod search;
mod superblock;

pub use checkpoint::{decode_fp4_row, decode_fp8_row, encode_fp4_row, encode_fp8};
pub use decode::decode_row;
pub use encode::encode_row;
pub use error::QuantError;
pub use finite::{first_non_finite, first_non_finite_scale};
pub use format::Format;
pub use layout::Layout;
pub use minifloat::{
    bf16_decode, bf16_encode, e2m1_decode, e2m1_encode, e4m3_decode, e4m3_encode, e8m0_decode,
    f16_decode, f16_encode,
};
pub use round::{Real, fp4_round_trip, fp8_round_trip, hadamard};
pub use rows::{IndexRow, KvRow};
pub use scaled::{FP4_GROUP, FP8_GROUP};
pub use search::quantise_row;
