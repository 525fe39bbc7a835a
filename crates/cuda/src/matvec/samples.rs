//! Matrices of every format, and what their products should be: for tests.

use ds4_host::Region;
use ds4_model::Matrix;
use ds4_quant::Format;

/// Numbers without a pattern.
pub struct Noise(pub u64);

impl Noise {
    /// A byte.
    pub fn byte(&mut self) -> u8 {
        self.0 = self.0.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (self.0 >> 56) as u8
    }

    /// A number from -1 to 1.
    pub fn float(&mut self) -> f32 {
        (f32::from(self.byte()) + f32::from(self.byte()) / 256.0) / 128.0 - 1.0
    }
}

/// A matrix of random codes under sane scales.
pub fn matrix(format: Format, (rows, cols): (usize, usize), noise: &mut Noise) -> Matrix {
    let row_bytes = format.row_bytes(cols).unwrap();
    let mut bytes: Vec<u8> = (0..rows * row_bytes).map(|_| noise.byte()).collect();
    let halves: &[usize] = match format {
        Format::Q8_0 | Format::Q4_0 | Format::Iq2Xxs => &[0],
        Format::Q2K => &[80, 82],
        Format::Q4K | Format::Q5K => &[0, 2],
        Format::Q6K => &[208],
        _ => &[],
    };
    for block in bytes.chunks_exact_mut(format.block_bytes()) {
        for &at in halves {
            block[at + 1] = 0x28;
        }
        match (format, block) {
            (Format::F32, block) => block.copy_from_slice(&noise.float().to_le_bytes()),
            (Format::F16, [_, high]) => *high = *high & 0x80 | 0x30,
            (Format::BF16, [_, high]) => *high = *high & 0x80 | 0x3e,
            (Format::Mxfp4, [scale, ..]) => *scale = 120 + *scale % 8,
            // The last code of either sign is no number.
            (Format::Fp8Block, [code]) if *code & 0x7f == 0x7f => *code = 0,
            _ => {}
        }
    }
    let scales = format.scale_tile().map(|(r, c)| rows.div_ceil(r) * cols.div_ceil(c));
    let scales = scales.map(|n| Region::from_vec((0..n).map(|_| 118 + noise.byte() % 8).collect()));
    Matrix::new("w".into(), format, (rows, cols), Region::from_vec(bytes), scales).unwrap()
}

/// Exact products, and the sum of magnitudes that an error is held against.
pub fn expected(matrix: &Matrix, x: &[f32]) -> Vec<(f64, f64)> {
    let mut row = vec![0.0; matrix.cols()];
    (0..matrix.rows())
        .map(|r| {
            matrix.decode_row(r, &mut row);
            let terms = row.iter().zip(x).map(|(&w, &x)| f64::from(w) * f64::from(x));
            terms.fold((0.0, 0.0), |(sum, size), term| (sum + term, size + term.abs()))
        })
        .collect()
}
