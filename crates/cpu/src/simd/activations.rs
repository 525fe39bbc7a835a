//! Activations as signed bytes: quantised once, read by every matrix that they multiply.
//!
//! A block of activations has one scale, its largest magnitude over 127; each value is the nearest
//! multiple, halves to even, so codes are in -127..=127. How long a block is, and in which order its
//! codes lie, follows from the format of the weights. Sums of 16 neighbours are kept too: a format
//! with minima or offsets needs nothing else from them.

use ds4_quant::Format;

use super::order::Order;

/// Columns of a superblock; orders are permutations of so many.
const SUPERBLOCK: usize = 256;
/// Neighbours that are summed.
pub(super) const SUMMED: usize = 16;

/// How activations must be quantised to meet weights of a format. Formats of one form share them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Form {
    /// Columns under one scale.
    pub(super) block: usize,
    /// Columns that a kernel takes at once; a row is padded with zeros to a multiple.
    pub(super) step: usize,
    pub(super) order: Order,
}

impl Form {
    /// The form for a format; `None` for the formats that are multiplied as floats.
    pub fn of(format: Format) -> Option<Form> {
        let (block, step, order) = match format {
            Format::Q8_0 => (32, 512, Order::Natural),
            Format::Mxfp4 => (32, 512, Order::Halves),
            Format::Fp4Block => (32, 512, Order::EvenOdd),
            Format::Fp8Block => (128, 1024, Order::Natural),
            Format::Q2K => (256, 2048, Order::Quarters),
            Format::Q4K | Format::Q5K => (256, 2048, Order::Nibbles),
            Format::Q6K => (256, 2048, Order::Natural),
            Format::Iq2Xxs => (256, 2048, Order::Fours),
            Format::F32 | Format::F16 | Format::BF16 | Format::Q4_0 => return None,
        };
        Some(Form { block, step, order })
    }
}

/// Quantised rows of activations.
#[derive(Clone, Debug)]
pub struct Activations {
    form: Form,
    cols: usize,
    padded: usize,
    codes: Vec<i8>,
    scales: Vec<f32>,
    sums: Vec<i16>,
}

/// One row of [`Activations`].
#[derive(Clone, Copy, Debug)]
pub struct Token<'a> {
    pub(super) form: Form,
    pub(super) cols: usize,
    /// In the form's order, padded.
    pub(super) codes: &'a [i8],
    /// One per block.
    pub(super) scales: &'a [f32],
    /// One per 16 columns of the row's own order.
    pub(super) sums: &'a [i16],
}

impl Activations {
    /// No rows yet.
    pub fn new(form: Form) -> Activations {
        let (codes, scales, sums) = Default::default();
        Activations { form, cols: 0, padded: 0, codes, scales, sums }
    }

    /// Quantises rows of `cols` values, in place of what was here.
    pub fn quantise(&mut self, x: &[f32], cols: usize) {
        let rows = x.len().checked_div(cols).unwrap_or(0);
        self.cols = cols;
        self.padded = cols.next_multiple_of(self.form.step);
        self.codes.resize(rows * self.padded, 0);
        self.scales.resize(rows * self.padded / self.form.block, 0.0);
        self.sums.resize(rows * self.padded / SUMMED, 0);
        let codes = self.codes.chunks_exact_mut(self.padded.max(1));
        let scales = self.scales.chunks_exact_mut((self.padded / self.form.block).max(1));
        let sums = self.sums.chunks_exact_mut((self.padded / SUMMED).max(1));
        for (((x, codes), scales), sums) in
            x.chunks_exact(cols.max(1)).zip(codes).zip(scales).zip(sums)
        {
            quantise_row(self.form, x, codes, scales, sums);
        }
    }

    /// How many rows there are.
    pub fn rows(&self) -> usize {
        self.codes.len().checked_div(self.padded).unwrap_or(0)
    }

    /// One row.
    pub fn token(&self, row: usize) -> Token<'_> {
        let Activations { form, cols, padded, .. } = *self;
        let (scales, sums) = (padded / form.block, padded / SUMMED);
        Token {
            form,
            cols,
            codes: &self.codes[row * padded..][..padded],
            scales: &self.scales[row * scales..][..scales],
            sums: &self.sums[row * sums..][..sums],
        }
    }

    /// All rows.
    pub fn tokens(&self) -> impl Iterator<Item = Token<'_>> {
        (0..self.rows()).map(|row| self.token(row))
    }
}

fn quantise_row(form: Form, x: &[f32], codes: &mut [i8], scales: &mut [f32], sums: &mut [i16]) {
    let columns = form.order.columns();
    let (superblocks, _) = codes.as_chunks_mut::<SUPERBLOCK>();
    let scales = scales.chunks_exact_mut(SUPERBLOCK / form.block.min(SUPERBLOCK));
    let (sums, _) = sums.as_chunks_mut::<{ SUPERBLOCK / SUMMED }>();
    let mut padded = [0.0; SUPERBLOCK];
    for (i, ((codes, scales), sums)) in superblocks.iter_mut().zip(scales).zip(sums).enumerate() {
        let rest = x.get(i * SUPERBLOCK..).unwrap_or(&[]);
        let x = rest.first_chunk::<SUPERBLOCK>().unwrap_or_else(|| {
            padded.fill(0.0);
            padded[..rest.len()].copy_from_slice(rest);
            &padded
        });
        let mut natural = [0; SUPERBLOCK];
        let blocks = x.chunks_exact(form.block).zip(natural.chunks_exact_mut(form.block));
        for ((x, codes), scale) in blocks.zip(scales) {
            *scale = quantise_block(x, codes);
        }
        for (sum, codes) in sums.iter_mut().zip(natural.as_chunks::<SUMMED>().0) {
            *sum = codes.iter().map(|&q| i16::from(q)).sum();
        }
        for (code, &column) in codes.iter_mut().zip(columns) {
            *code = natural[usize::from(column)];
        }
    }
}

/// Writes the codes of one block and gives its scale. A block that is too small to be scaled becomes
/// zeros; one with a number that is not finite becomes NaN.
fn quantise_block(x: &[f32], codes: &mut [i8]) -> f32 {
    // Adding 1.5 x 2^23 leaves no bits for a fraction: the sum is rounded to an integer, ties to
    // even, and its low bits are that integer.
    const INTEGERS: f32 = 12_582_912.0;
    let magnitude = x.iter().fold(0, |largest: u32, x| x.abs().to_bits().max(largest));
    let largest = f32::from_bits(magnitude);
    let inverse = 127.0 / largest;
    if !largest.is_finite() || !inverse.is_finite() {
        codes.fill(0);
        return if largest.is_finite() { 0.0 } else { f32::NAN };
    }
    for (code, x) in codes.iter_mut().zip(x) {
        *code = (x * inverse + INTEGERS).to_bits() as i8;
    }
    largest / 127.0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn quantised(format: Format, x: &[f32]) -> Activations {
        let mut activations = Activations::new(Form::of(format).unwrap());
        activations.quantise(x, x.len());
        activations
    }

    #[test]
    fn codes_are_the_nearest_multiples_halves_to_even() {
        let mut x = vec![0.0; 32];
        x[..7].copy_from_slice(&[127.0, -127.0, 0.5, 1.5, -2.5, 0.49, -0.0]);
        let activations = quantised(Format::Q8_0, &x);
        let token = activations.token(0);
        assert_eq!(token.codes[..7], [127, -127, 0, 2, -2, 0, 0]);
        assert_eq!(token.scales[0], 1.0);
        assert_eq!(token.sums[0], 0);
    }

    #[test]
    fn codes_stay_within_127() {
        for seed in 1..2000u32 {
            let x: Vec<f32> = (0..32)
                .map(|i| f32::from_bits(seed.wrapping_mul(2_654_435_761 + i) >> 2))
                .collect();
            let activations = quantised(Format::Q8_0, &x);
            assert!(activations.token(0).codes.iter().all(|&q| q >= -127));
        }
    }

    #[test]
    fn blocks_that_cannot_be_scaled() {
        for (value, scale) in [(0.0, 0.0), (1e-40, 0.0), (3e-37, 0.0)] {
            let activations = quantised(Format::Q2K, &[value; 256]);
            assert_eq!(activations.token(0).scales[0], scale);
            assert!(activations.token(0).codes.iter().all(|&q| q == 0));
        }
        for value in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let mut x = [1.0; 512];
            x[300] = value;
            let activations = quantised(Format::Q2K, &x);
            assert_eq!(activations.token(0).scales[0], 1.0 / 127.0);
            assert!(activations.token(0).scales[1].is_nan());
        }
    }

    #[test]
    fn rows_are_padded_and_apart() {
        let x: Vec<f32> = (0..2 * 40).map(|i| i as f32 - 40.0).collect();
        let mut activations = Activations::new(Form::of(Format::Mxfp4).unwrap());
        activations.quantise(&x, 40);
        assert_eq!(activations.rows(), 2);
        let (a, b) = (activations.token(0), activations.token(1));
        assert_eq!((a.codes.len(), a.scales.len(), a.sums.len()), (512, 16, 32));
        assert_eq!(a.scales[..3], [40.0 / 127.0, 8.0 / 127.0, 0.0]);
        assert_eq!(b.scales[..3], [31.0 / 127.0, 39.0 / 127.0, 0.0]);
        assert_eq!(a.codes[0], -127);
        assert_eq!(a.codes[16], -127, "the second block follows the first half of the first");
    }
}
