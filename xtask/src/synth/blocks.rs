//! Random blocks of the quantised formats: every code at random, every scale near one value.

use ds4_quant::{Format, decode_row, f16_encode};

use super::random::Random;

/// Values that a format's natural size is measured on.
const SAMPLE: usize = 1 << 16;
/// The exponent of an E8M0 code of 0.
const E8M0_BIAS: i32 = 127;

/// Blocks of one format whose values have one root mean square.
pub struct Blocks {
    format: Format,
    /// What is stored as the scale of a block, and its minimum where there is one. A random byte
    /// chooses among them.
    scales: Box<[[u8; 4]; 256]>,
}

impl Blocks {
    /// Blocks with this root mean square, about zero.
    pub fn new(format: Format, rms: f32) -> Result<Blocks, String> {
        // The decoder knows how large the codes are.
        let plain = Blocks { format, scales: Box::new([scale(format, 1.0)?; 256]) };
        let unit = rms / plain.measure()?;
        let mut scales = Box::new([[0; 4]; 256]);
        for (i, stored) in scales.iter_mut().enumerate() {
            *stored = scale(format, unit * spread(format, unit, i as f32 / 256.0))?;
        }
        Ok(Blocks { format, scales })
    }

    /// Bytes that belong together.
    pub fn block_bytes(&self) -> usize {
        self.format.block_bytes()
    }

    /// Fills whole blocks.
    pub fn fill(&self, random: &mut Random, bytes: &mut [u8]) {
        random.fill(bytes);
        match self.format {
            Format::Q8_0 => each(bytes, |block: &mut [u8; 34]| {
                self.store_scale(&mut block[..2]);
                for code in &mut block[2..] {
                    // Encoders keep to 127 on either side, and kernels may rely on it.
                    *code = if *code == 0x80 { 0x81 } else { *code };
                }
            }),
            Format::Q2K => each(bytes, |block: &mut [u8; 84]| {
                self.store_scale(&mut block[80..]);
                block[..16].iter_mut().for_each(twice);
            }),
            Format::Q4K => each(bytes, |block: &mut [u8; 144]| {
                self.store_scale(&mut block[..4]);
                block.copy_within(4..8, 8);
                block[12..16].iter_mut().for_each(twice);
            }),
            Format::Iq2Xxs => each(bytes, |block: &mut [u8; 66]| self.store_scale(&mut block[..2])),
            _ => each(bytes, |block: &mut [u8; 17]| self.store_scale(&mut block[..1])),
        }
    }

    /// Turns random bytes into a scale.
    fn store_scale(&self, place: &mut [u8]) {
        let scale = &self.scales[usize::from(place[0])];
        place.copy_from_slice(&scale[..place.len()]);
    }

    /// The root mean square of what the blocks decode to.
    pub fn measure(&self) -> Result<f32, String> {
        let mut bytes = vec![0; SAMPLE / self.format.block_elems() * self.block_bytes()];
        self.fill(&mut Random::new(0), &mut bytes);
        let mut values = vec![0.0; SAMPLE];
        decode_row(self.format, &bytes, &mut values).map_err(|e| e.to_string())?;
        let squares: f64 = values.iter().map(|&v| f64::from(v) * f64::from(v)).sum();
        Ok((squares / SAMPLE as f64).sqrt() as f32)
    }
}

fn each<const N: usize>(bytes: &mut [u8], finish: impl FnMut(&mut [u8; N])) {
    bytes.as_chunks_mut().0.iter_mut().for_each(finish);
}

/// Makes the scale and the minimum of a sub-block, which share a byte, the same number: then the
/// values lie about zero.
fn twice(byte: &mut u8) {
    *byte = (*byte & 15) * 17;
}

/// How a scale is stored. The minimum that goes with it puts the middle of the codes at zero.
fn scale(format: Format, scale: f32) -> Result<[u8; 4], String> {
    let pair = |middle: f32| {
        let ([a, b], [c, d]) =
            (f16_encode(scale).to_le_bytes(), f16_encode(scale * middle).to_le_bytes());
        [a, b, c, d]
    };
    match format {
        Format::Q8_0 | Format::Iq2Xxs => Ok(pair(0.0)),
        Format::Q2K => Ok(pair(1.5)),
        Format::Q4K => Ok(pair(7.5)),
        Format::Mxfp4 => Ok([(scale.log2().floor() as i32 + E8M0_BIAS) as u8, 0, 0, 0]),
        _ => Err(format!("no random blocks of {format}")),
    }
}

/// What the scale is multiplied by in blocks at `share` of all, 0 to 1.
fn spread(format: Format, scale: f32, share: f32) -> f32 {
    if format != Format::Mxfp4 {
        return 0.8 + 0.4 * share;
    }
    // The scale is a power of two: a mixture of the two that `scale` lies between has its square.
    let above = scale / scale.log2().floor().exp2();
    let doubled = (above * above - 1.0) / 3.0;
    if share < doubled { 2.0 } else { 1.0 }
}
