//! What a tensor is filled with.

use ds4_quant::{Format, f16_encode};

use super::{blocks::Blocks, random::Random};

pub enum Content {
    /// `f32`s, each at most `spread` from its centre; the centres are repeated.
    Numbers { centres: Vec<f32>, spread: f32 },
    /// `f16`s out of a table.
    Halves(Box<[[u8; 2]; 256]>),
    /// Quantised blocks.
    Blocks(Blocks),
    /// Rows of expert ids, none twice in a row of `used`.
    Experts { used: usize, of: usize },
}

impl Content {
    /// A matrix whose values have this root mean square, about zero.
    pub fn matrix(format: Format, rms: f32) -> Result<Content, String> {
        if format != Format::F16 {
            return Ok(Content::Blocks(Blocks::new(format, rms)?));
        }
        let most = rms * 3f32.sqrt();
        let mut table = Box::new([[0; 2]; 256]);
        for (i, half) in table.iter_mut().enumerate() {
            *half = f16_encode(most * ((i as f32 + 0.5) / 128.0 - 1.0)).to_le_bytes();
        }
        Ok(Content::Halves(table))
    }

    /// Bytes that cannot be made apart.
    pub fn unit(&self) -> usize {
        match self {
            Content::Numbers { centres, .. } => 4 * centres.len(),
            Content::Halves(_) => 2,
            Content::Blocks(blocks) => blocks.block_bytes(),
            Content::Experts { used, .. } => 4 * used,
        }
    }

    /// Fills whole units.
    pub fn fill(&self, random: &mut Random, bytes: &mut [u8]) {
        match self {
            Content::Numbers { centres, spread } => {
                let places = bytes.as_chunks_mut().0.iter_mut();
                for (place, centre) in places.zip(centres.iter().cycle()) {
                    *place = (centre + spread * random.unit()).to_le_bytes();
                }
            }
            Content::Halves(table) => {
                random.fill(bytes);
                for half in bytes.as_chunks_mut::<2>().0 {
                    *half = table[usize::from(half[0])];
                }
            }
            Content::Blocks(blocks) => blocks.fill(random, bytes),
            Content::Experts { used, of } => {
                for row in bytes.chunks_exact_mut(4 * used) {
                    // Steps too short to come round: no expert is met twice.
                    let first = random.next() as usize % of;
                    let step = 1 + random.next() as usize % (of / used);
                    for (i, id) in row.as_chunks_mut().0.iter_mut().enumerate() {
                        *id = (((first + i * step) % of) as i32).to_le_bytes();
                    }
                }
            }
        }
    }
}
