//! The rows that go through the layers together, and where each belongs.

use std::ops::Range;

use ds4_model::{Compression, Config};

use crate::{
    options::Activations,
    rope::{Frequencies, Turn, turns},
    rows::RowFormats,
};

/// Neighbouring rows of one slot.
#[derive(Clone, Debug)]
pub struct Span {
    /// Index of the slot among those of the step.
    pub slot: usize,
    /// Its rows in the round.
    pub rows: Range<usize>,
    /// Position of the first of them.
    pub start: usize,
}

impl Span {
    /// The length of the timeline after this span.
    pub fn end(&self) -> usize {
        self.start + self.rows.len()
    }
}

/// The rows of a round.
pub struct Round {
    /// Token of each row.
    pub tokens: Vec<u32>,
    /// Position of each row.
    pub positions: Vec<usize>,
    /// Whose they are.
    pub spans: Vec<Span>,
    pairs: usize,
    window_only: Vec<Turn>,
    compressed: Vec<Turn>,
}

impl Round {
    /// A round of these tokens; `spans` cover them in order.
    pub fn new(tokens: Vec<u32>, spans: Vec<Span>, frequencies: &Frequencies) -> Round {
        let positions: Vec<usize> = spans.iter().flat_map(|span| span.start..span.end()).collect();
        let table = |compression| {
            let frequencies = frequencies.of(compression);
            positions.iter().flat_map(|&position| turns(frequencies, position)).collect()
        };
        let (window_only, compressed) = (table(Compression::None), table(Compression::Csa));
        let pairs = frequencies.of(Compression::None).len();
        Round { tokens, spans, pairs, window_only, compressed, positions }
    }

    /// How many rows there are.
    pub fn rows(&self) -> usize {
        self.tokens.len()
    }

    /// The rotation of a row in a layer of this kind.
    pub fn turns(&self, compression: Compression, row: usize) -> &[Turn] {
        let table = match compression {
            Compression::None => &self.window_only,
            Compression::Csa | Compression::Hca => &self.compressed,
        };
        &table[row * self.pairs..][..self.pairs]
    }
}

/// What every layer needs to know of the round and the model.
pub struct Pass<'a> {
    /// The model's numbers.
    pub config: &'a Config,
    /// How cached rows are encoded.
    pub formats: RowFormats,
    /// What matrices are multiplied with.
    pub activations: Activations,
    /// Rotary frequencies, for rows at positions that are not in the round.
    pub frequencies: &'a Frequencies,
    /// The rows.
    pub round: &'a Round,
}

/// `buffer`, made `len` long.
pub fn fit(buffer: &mut Vec<f32>, len: usize) -> &mut [f32] {
    buffer.resize(len, 0.0);
    buffer
}
