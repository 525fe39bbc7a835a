//! Every level against the plain code, bit for bit, and the plain code against the decoder.

use ds4_quant::{Format, decode_fp4_row, decode_fp8_row, decode_row};

use super::{Activations, Form, Kernels, Level, Panel, Weights};

const FORMATS: [Format; 9] = [
    Format::Q8_0,
    Format::Mxfp4,
    Format::Fp4Block,
    Format::Fp8Block,
    Format::Q2K,
    Format::Q4K,
    Format::Q5K,
    Format::Q6K,
    Format::Iq2Xxs,
];

/// A deterministic source of test data.
struct Noise(u64);

impl Noise {
    fn next(&mut self) -> u32 {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as u32
    }

    fn byte(&mut self) -> u8 {
        (self.next() >> 7) as u8
    }

    fn float(&mut self) -> f32 {
        self.next() as f32 / (1u32 << 30) as f32 - 1.0
    }
}

/// What to fill a matrix with.
#[derive(Clone, Copy, Debug)]
enum Fill {
    /// Any bytes, with scales of sane size.
    Any,
    /// One byte everywhere, with scales of sane size.
    Byte(u8),
    /// Any bytes at all: scales may be huge, NaN or subnormal.
    Wild,
}

struct Case {
    format: Format,
    shape: (usize, usize),
    bytes: Vec<u8>,
    scales: Vec<u8>,
}

impl Case {
    fn new(format: Format, shape: (usize, usize), fill: Fill, noise: &mut Noise) -> Case {
        let (rows, cols) = shape;
        let row_bytes = format.row_bytes(cols).unwrap();
        let mut bytes = vec![0; rows * row_bytes];
        bytes.iter_mut().for_each(|byte| {
            *byte = match fill {
                Fill::Any | Fill::Wild => noise.byte(),
                Fill::Byte(byte) => byte,
            }
        });
        let count = match format {
            Format::Fp8Block => rows.div_ceil(128) * cols.div_ceil(128),
            Format::Fp4Block => rows * cols.div_ceil(32),
            _ => 0,
        };
        let mut scales = vec![0; count];
        scales.iter_mut().for_each(|scale| *scale = noise.byte());
        if !matches!(fill, Fill::Wild) {
            scales.iter_mut().for_each(|scale| *scale = 120 + *scale % 8);
            for block in bytes.chunks_exact_mut(format.block_bytes()) {
                tame(format, block, noise);
            }
        }
        Case { format, shape, bytes, scales }
    }

    fn weights(&self) -> Weights<'_> {
        Weights::new(self.format, self.shape, &self.bytes, &self.scales).unwrap()
    }

    fn decoded(&self, row: usize) -> Vec<f32> {
        let mut out = vec![0.0; self.shape.1];
        let weights = self.weights();
        let (bytes, scales) = (weights.row(row), weights.row_scales(row));
        match self.format {
            Format::Fp8Block => decode_fp8_row(bytes, scales, &mut out),
            Format::Fp4Block => decode_fp4_row(bytes, scales, &mut out),
            format => decode_row(format, bytes, &mut out),
        }
        .unwrap();
        out
    }
}

/// Gives a block scales of sane size.
fn tame(format: Format, block: &mut [u8], noise: &mut Noise) {
    let mut half = |at: usize| {
        let bits = 0x2000 + (noise.next() % 0x0800) as u16 + ((noise.next() & 1) << 15) as u16;
        block[at..at + 2].copy_from_slice(&bits.to_le_bytes());
    };
    match format {
        Format::Q8_0 | Format::Iq2Xxs => half(0),
        Format::Q2K => [80, 82].into_iter().for_each(half),
        Format::Q4K | Format::Q5K => [0, 2].into_iter().for_each(half),
        Format::Q6K => half(208),
        Format::Mxfp4 => block[0] = 120 + block[0] % 8,
        // Not a NaN, which the integer kernels do not know.
        Format::Fp8Block if block[0] & 127 == 127 => block[0] -= 1,
        _ => (),
    }
}

fn activations(format: Format, x: &[f32], cols: usize) -> Activations {
    let mut activations = Activations::new(Form::of(format).unwrap());
    activations.quantise(x, cols);
    activations
}

fn multiply(kernels: &Kernels, case: &Case, x: &Activations) -> Vec<Vec<f32>> {
    let rows = case.shape.0;
    let mut out = vec![vec![0.0; rows]; x.rows()];
    let mut outs: Vec<&mut [f32]> = out.iter_mut().map(Vec::as_mut_slice).collect();
    let tokens: Vec<_> = x.tokens().collect();
    kernels.multiply(&case.weights(), 0..rows, &tokens, &mut outs, &mut Panel::default());
    out
}

/// All NaNs are one.
fn bits(x: f32) -> u32 {
    if x.is_nan() { f32::NAN.to_bits() } else { x.to_bits() }
}

fn check(case: &Case, fill: Fill, x: &[f32], tokens: usize) {
    let quantised = activations(case.format, x, case.shape.1);
    assert_eq!(quantised.rows(), tokens);
    let scalar = multiply(&Kernels::of(Level::Scalar).unwrap(), case, &quantised);
    for level in Level::ALL {
        let Some(kernels) = Kernels::of(level) else { continue };
        let got = multiply(&kernels, case, &quantised);
        for (token, (want, got)) in scalar.iter().zip(&got).enumerate() {
            for (row, (&want, &got)) in want.iter().zip(got).enumerate() {
                assert!(
                    bits(want) == bits(got),
                    "{level:?} {} {:?} {fill:?}: row {row}, token {token} of {tokens}: \
                     {got:e}, not {want:e}",
                    case.format,
                    case.shape
                );
            }
        }
    }
}

#[test]
fn levels_give_the_same_bits() {
    let mut noise = Noise(1);
    for format in FORMATS {
        for cols in [2, 32, 200, 256, 512, 768, 1024, 2048, 3072, 4096, 4864] {
            if format.row_bytes(cols).is_none() {
                continue;
            }
            for fill in
                [Fill::Any, Fill::Wild, Fill::Byte(0x00), Fill::Byte(0xff), Fill::Byte(0x80)]
            {
                let tokens = 1 + noise.next() as usize % 6;
                let case = Case::new(format, (5, cols), fill, &mut noise);
                let x: Vec<f32> = (0..tokens * cols).map(|_| noise.float()).collect();
                check(&case, fill, &x, tokens);
            }
        }
    }
}

#[test]
fn extreme_activations() {
    let mut noise = Noise(2);
    for format in FORMATS {
        for fill in [Fill::Any, Fill::Byte(0x80), Fill::Byte(0x7f), Fill::Byte(0xff)] {
            let cols = 2048;
            let case = Case::new(format, (3, cols), fill, &mut noise);
            let alternating = |i: usize| if i.is_multiple_of(2) { 1.0 } else { -1.0 };
            for x in [0.0, -0.0, 1.0, -1.0, 1e-44, 1e30, f32::NAN, f32::INFINITY] {
                check(&case, fill, &vec![x; cols], 1);
            }
            check(&case, fill, &(0..cols).map(alternating).collect::<Vec<_>>(), 1);
        }
    }
}

#[test]
fn a_row_does_not_depend_on_its_company() {
    let mut noise = Noise(3);
    for format in FORMATS {
        let (rows, cols, tokens) = (37, 2048, 40);
        let case = Case::new(format, (rows, cols), Fill::Any, &mut noise);
        let x: Vec<f32> = (0..tokens * cols).map(|_| noise.float()).collect();
        for level in Level::ALL {
            let Some(kernels) = Kernels::of(level) else { continue };
            if level == Level::Scalar {
                continue;
            }
            let alone = multiply(&kernels, &case, &activations(format, &x, cols));
            for count in 1..=tokens {
                let quantised = activations(format, &x[..count * cols], cols);
                let got = multiply(&kernels, &case, &quantised);
                assert!(
                    alone.iter().zip(&got).all(|(a, b)| a == b),
                    "{level:?} {format}: {count} tokens"
                );
            }
        }
    }
}

/// The plain code is off by the rounding of the activations, evenly spread over a step, and by what
/// sixteen sums in single precision lose.
#[test]
fn the_plain_code_multiplies_what_the_decoder_decodes() {
    let mut noise = Noise(4);
    for format in FORMATS {
        for cols in [256, 2048, 4864] {
            let case = Case::new(format, (4, cols), Fill::Any, &mut noise);
            let x: Vec<f32> = (0..cols).map(|_| noise.float()).collect();
            let quantised = activations(format, &x, cols);
            let got = multiply(&Kernels::of(Level::Scalar).unwrap(), &case, &quantised);
            let block = Form::of(format).unwrap().block;
            for row in 0..4 {
                let weights = case.decoded(row);
                let (mut want, mut size, mut variance) = (0.0, 0.0, 0.0);
                for (w, x) in weights.chunks(block).zip(x.chunks(block)) {
                    let step = f64::from(x.iter().fold(0.0f32, |a, x| a.max(x.abs()))) / 127.0;
                    for (w, x) in w.iter().zip(x) {
                        let (w, x) = (f64::from(*w), f64::from(*x));
                        want += w * x;
                        size += (w * x).abs();
                        variance += w * w * step * step / 12.0;
                    }
                }
                let error = (want - f64::from(got[0][row])).abs();
                let allowed = 5.0 * variance.sqrt() + size * 1e-6;
                assert!(error <= allowed, "{format} {cols}: {error:e} > {allowed:e} ({want:e})");
            }
        }
    }
}
