//! What the kernels ask of a processor: a vector of 64 bytes, or of 16 integers, or of 16 floats.
//!
//! Kernels are written once over this trait; a processor with shorter registers uses several for one
//! vector. A value of an implementing type is a proof that the processor has the instructions.
//! Everything is exact but the float operations, each of which rounds once as IEEE says: so all
//! implementations give the same bits.

/// An instruction set.
pub trait Isa: Copy {
    /// 64 bytes, or 32 words of 16 bits.
    type B: Copy;
    /// 16 integers of 32 bits.
    type I: Copy;
    /// 16 floats.
    type F: Copy;

    /// What `ready` adds to signed weights. Some processors multiply unsigned by signed bytes only.
    const BIAS: i32;

    /// 64 bytes as they lie.
    fn bytes(self, from: &[u8; 64]) -> Self::B;
    /// 64 signed bytes as they lie.
    fn signed(self, from: &[i8; 64]) -> Self::B;
    /// 32 words as they lie.
    fn words(self, from: &[i16; 32]) -> Self::B;
    /// 16 words as they lie, and zeros.
    fn half_words(self, from: &[i16; 16]) -> Self::B;
    /// 16 bytes as words, and 16 more.
    fn widen(self, low: &[u8; 16], high: &[u8; 16]) -> Self::B;
    /// Two halves.
    fn pair(self, low: &[u8; 32], high: &[u8; 32]) -> Self::B;
    /// Four quarters.
    fn quad(self, from: [&[u8; 16]; 4]) -> Self::B;
    /// The same quarter four times.
    fn repeat(self, from: &[u8; 16]) -> Self::B;
    /// One byte everywhere.
    fn splat(self, byte: u8) -> Self::B;
    /// One word everywhere.
    fn splat_word(self, word: i16) -> Self::B;
    /// The bytes in memory order.
    fn store(self, v: Self::B, to: &mut [u8; 64]);
    /// Bitwise and.
    fn and(self, a: Self::B, b: Self::B) -> Self::B;
    /// Bitwise or.
    fn or(self, a: Self::B, b: Self::B) -> Self::B;
    /// Words shifted right, zeros coming in.
    fn shr<const N: u32>(self, v: Self::B) -> Self::B;
    /// Words shifted left.
    fn shl<const N: u32>(self, v: Self::B) -> Self::B;
    /// Words shifted right by 8, copies of the sign coming in.
    fn sar8(self, v: Self::B) -> Self::B;
    /// Low halves of the products of words.
    fn mul_words(self, a: Self::B, b: Self::B) -> Self::B;
    /// In each quarter, the table's byte for every index below 16, zero for every index above 127.
    fn lookup(self, table: Self::B, index: Self::B) -> Self::B;
    /// What the low nibbles stand for, and the high ones.
    fn lookup_nibbles(self, table: &[u8; 16], codes: Self::B) -> [Self::B; 2];
    /// What the four fields of two bits in each byte stand for, the lowest first.
    fn lookup_fields(self, table: &[u8; 4], codes: Self::B) -> [Self::B; 4];
    /// Negates the signed bytes of `v` at which `bits` has the one bit that `which` has.
    fn flip(self, v: Self::B, bits: Self::B, which: Self::B) -> Self::B;
    /// Makes signed weights fit for `dot_signed`, by adding `BIAS` to each.
    fn ready(self, v: Self::B) -> Self::B;

    /// 16 integers as they lie.
    fn ints(self, from: &[i32; 16]) -> Self::I;
    /// One integer everywhere.
    fn splat_int(self, x: i32) -> Self::I;
    /// The same bits as integers.
    fn as_ints(self, v: Self::B) -> Self::I;
    /// The same bits as bytes.
    fn as_bytes(self, v: Self::I) -> Self::B;
    /// Sums.
    fn add(self, a: Self::I, b: Self::I) -> Self::I;
    /// Differences.
    fn sub(self, a: Self::I, b: Self::I) -> Self::I;
    /// Low halves of the products.
    fn mul(self, a: Self::I, b: Self::I) -> Self::I;
    /// Shifted left.
    fn shl_int<const N: u32>(self, v: Self::I) -> Self::I;
    /// Shifted right, zeros coming in.
    fn shr_int<const N: u32>(self, v: Self::I) -> Self::I;
    /// Every odd element also in the place before it.
    fn dup_odd(self, v: Self::I) -> Self::I;
    /// Adds to each integer the four products of weights 0..=127 with signed bytes.
    fn dot(self, sum: Self::I, weights: Self::B, x: Self::B) -> Self::I;
    /// Adds to each integer the four products of what `ready` made with signed bytes but -128.
    fn dot_signed(self, sum: Self::I, weights: Self::B, x: Self::B) -> Self::I;
    /// Adds to each integer the two products of signed words.
    fn dot_words(self, sum: Self::I, a: Self::B, b: Self::B) -> Self::I;
    /// As `dot`, each product times the word of `scale` at its place. Both words of an integer's
    /// place are equal, and no product of a pair of weights leaves the signed words.
    fn dot_scaled(self, sum: Self::I, weights: Self::B, x: Self::B, scale: Self::B) -> Self::I;
    /// `[a's halves added | b's halves added]`.
    fn halve(self, a: Self::I, b: Self::I) -> Self::I;
    /// The sum of each half of each of eight vectors, in order.
    fn sums_of_8(self, v: [Self::I; 8]) -> Self::I;
    /// The sum of each quarter of each of four vectors, in order.
    fn sums_of_4(self, v: [Self::I; 4]) -> Self::I;

    /// 16 floats as they lie.
    fn floats(self, from: &[f32; 16]) -> Self::F;
    /// The same eight floats twice.
    fn twice(self, from: &[f32; 8]) -> Self::F;
    /// One float everywhere.
    fn splat_float(self, x: f32) -> Self::F;
    /// In memory order.
    fn store_floats(self, v: Self::F, to: &mut [f32; 16]);
    /// The nearest floats.
    fn float(self, v: Self::I) -> Self::F;
    /// The values of 16 IEEE halves.
    fn halves(self, from: [u16; 16]) -> Self::F;
    /// The values of 16 E8M0 codes.
    fn powers(self, from: [u8; 16]) -> Self::F;
    /// Products.
    fn mul_floats(self, a: Self::F, b: Self::F) -> Self::F;
    /// Sums.
    fn add_floats(self, a: Self::F, b: Self::F) -> Self::F;
    /// `a b + c`, rounded once.
    fn fma(self, a: Self::F, b: Self::F, c: Self::F) -> Self::F;
    /// The sum of all 16: element `i` and `i + 8`, then `i` and `i + 4`, then 2, then 1.
    fn total(self, v: Self::F) -> f32;

    /// The scales of sixteen Q8_0 blocks.
    fn q8_scales(self, blocks: &[u8; 544]) -> Self::F;
    /// The codes of sixteen MXFP4 blocks, four by four, and their scales.
    fn mxfp4(self, blocks: &[u8; 272]) -> ([Self::B; 4], Self::F);
    /// The magnitudes and signs of an IQ2_XXS block without its scale: the byte `2i + h` of the first
    /// has two bits for each of the entries `4h..4h + 4` of the block's grid row `i`, the same byte of
    /// the second all signs of that row.
    fn iq2xxs(self, groups: &[u8; 64]) -> (Self::B, Self::B);
    /// Adds the products of E4M3 codes with signed bytes: to `sums[0]` those of the codes below 4 in
    /// units of 2^-9, to `sums[1]` those of the others in units of 2^-1.
    fn dot_e4m3(self, sums: [Self::I; 2], codes: Self::B, x: Self::B) -> [Self::I; 2];
    /// Turns 16 rows of 16 groups of four bytes into 16 groups of 16 rows.
    fn turn(self, rows: &[[u8; 64]; 16], groups: &mut [[u8; 64]; 16]);
    /// Asks for a line of memory that will be needed soon.
    fn prefetch(self, at: *const u8);
}
