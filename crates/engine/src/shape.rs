//! How many bytes each part of a slot's state has, from the model's numbers alone.
//!
//! Plans are made from it, and a state that comes from outside is held against it before a backend
//! sees one byte.

use ds4_model::{Compression, Config, Rounding};
use ds4_quant::{IndexRow, KvRow, QuantError};

use crate::{LayerState, Pending, SlotState, first_needed};

/// The parts of a layer's state, in the order that they are saved in.
pub(crate) const PARTS: [&str; 7] = [
    "window rows",
    "compressed rows",
    "index rows",
    "pending values",
    "pending scores",
    "pending index values",
    "pending index scores",
];

/// The sizes of one model's rows.
pub(crate) struct StateShape<'a> {
    config: &'a Config,
    /// Of a window row or a compressed row.
    row: u64,
    index_row: u64,
}

impl<'a> StateShape<'a> {
    /// The sizes for a model, or which of its numbers make no row.
    pub(crate) fn new(
        config: &'a Config,
        rounding: Rounding,
    ) -> Result<StateShape<'a>, QuantError> {
        let has_index = config.layers.contains(&Compression::Csa);
        let floats = |n: usize| (n as u64).saturating_mul(4);
        let (row, index_row) = match rounding {
            Rounding::Plain => (floats(config.head_dim), floats(config.indexer.dim)),
            Rounding::Official => {
                let row = KvRow::new(config.head_dim, config.rope.dims)?.bytes();
                // Without CSA layers there is no indexer, and nothing need be said of its rows.
                let index_row =
                    if has_index { IndexRow::new(config.indexer.dim)?.bytes() } else { 0 };
                (row as u64, index_row as u64)
            }
        };
        Ok(StateShape { config, row, index_row })
    }

    /// Bytes of each of [`PARTS`] for a layer at length `len` that can be truncated by `rewind`.
    pub(crate) fn layer(&self, kind: Compression, len: usize, rewind: usize) -> [u64; 7] {
        let window = len.min(self.window_rows(rewind));
        let window = (window as u64).saturating_mul(self.row);
        let (ratio, windows) = (kind.ratio(), kind.windows());
        if ratio == 0 {
            return [window, 0, 0, 0, 0, 0, 0];
        }
        let rows = (len / ratio) as u64;
        let positions = len - first_needed(len.saturating_sub(rewind), ratio, windows);
        let pending = Self::pending(positions, windows, self.config.head_dim);
        let (index_rows, index_pending) = match kind {
            Compression::Csa => (rows, Self::pending(positions, windows, self.config.indexer.dim)),
            _ => (0, 0),
        };
        [
            window,
            rows.saturating_mul(self.row),
            index_rows.saturating_mul(self.index_row),
            pending,
            pending,
            index_pending,
            index_pending,
        ]
    }

    /// Bytes that a layer keeps whatever the length, if it is to be truncated by `rewind` from any.
    pub(crate) fn fixed(&self, kind: Compression, rewind: usize) -> u64 {
        let window = (self.window_rows(rewind) as u64).saturating_mul(self.row);
        let windows = kind.windows();
        let positions = rewind.saturating_add(kind.ratio() * windows);
        let width = match kind {
            Compression::None => 0,
            Compression::Csa => self.config.head_dim.saturating_add(self.config.indexer.dim),
            Compression::Hca => self.config.head_dim,
        };
        let values_and_scores = Self::pending(positions, windows, width).saturating_mul(2);
        window.saturating_add(values_and_scores)
    }

    /// Bytes that a layer adds for every 1024 tokens.
    pub(crate) fn per_1k_tokens(&self, kind: Compression) -> u64 {
        let row = match kind {
            Compression::None => return 0,
            Compression::Csa => self.row.saturating_add(self.index_row),
            Compression::Hca => self.row,
        };
        row.saturating_mul((1024 / kind.ratio()) as u64)
    }

    /// Whether every part of a state has the size that its length demands.
    pub(crate) fn check(&self, state: &SlotState) -> Result<(), String> {
        if state.rewind > state.len {
            return Err(rewind_beyond(state.rewind, state.len));
        }
        let kinds = &self.config.layers;
        if state.layers.len() != kinds.len() {
            return Err(layer_count(state.layers.len(), kinds.len()));
        }
        for (index, (layer, &kind)) in state.layers.iter().zip(kinds).enumerate() {
            let wanted = self.layer(kind, state.len, state.rewind);
            for ((part, found), wanted) in PARTS.iter().zip(part_bytes(layer)).zip(wanted) {
                if found != wanted {
                    return Err(part_size(index, part, found, wanted));
                }
            }
        }
        Ok(())
    }

    /// Rows that queries can see after a truncation by `rewind`.
    fn window_rows(&self, rewind: usize) -> usize {
        self.config.window.saturating_sub(1).saturating_add(rewind)
    }

    fn pending(positions: usize, windows: usize, dim: usize) -> u64 {
        (positions as u64)
            .saturating_mul(windows as u64)
            .saturating_mul(dim as u64)
            .saturating_mul(4)
    }
}

pub(crate) fn rewind_beyond(rewind: usize, len: usize) -> String {
    format!("{len} tokens cannot be rewound by {rewind}")
}

pub(crate) fn layer_count(found: usize, wanted: usize) -> String {
    format!("it has {found} layers, the model {wanted}")
}

pub(crate) fn part_size(layer: usize, part: &str, found: u64, wanted: u64) -> String {
    format!("layer {layer}: {found} bytes of {part}, {wanted} wanted")
}

fn part_bytes(layer: &LayerState) -> [u64; 7] {
    let LayerState { window, compressed, index, pending, index_pending } = layer;
    let floats = |values: &[f32]| 4 * values.len() as u64;
    let Pending { kv, score } = pending;
    let Pending { kv: index_kv, score: index_score } = index_pending;
    [
        window.len() as u64,
        compressed.len() as u64,
        index.len() as u64,
        floats(kv),
        floats(score),
        floats(index_kv),
        floats(index_score),
    ]
}
