//! Attention of a layer. Its dense products are done for all rows of a round, but between them a round
//! goes slice by slice: a slice's rows are kept, compressed, and looked back from. Rows of a short round
//! are kept in the rings at once, those of a long one wait until all slices have looked back: then the
//! last of them take the places of what nobody needs any more.

use ds4_model::Compression;

use super::{Launches, choice};
use crate::{
    attend::{self, AttendArgs},
    options::CudaError,
    round::{ROW_BYTES, TURN_COMPRESSED, TURN_CSA, TURN_HCA, TURN_WINDOW},
    rows::{self, CompressorArgs, KeepArgs},
    scratch::ATTEND_ROWS,
    slot::LayerShape,
    stages::Part,
    weights::{Compressor, Layer},
};

/// Consecutive rows of a round, for whose queries there is working memory.
#[derive(Clone, Copy)]
pub struct Slice {
    /// The first of them.
    pub first: usize,
    /// How many.
    pub count: usize,
    /// What the kernels are told of them.
    pub rows: u64,
    /// Their rotations.
    pub turns: u64,
}

impl Slice {
    /// Where the slice begins in a list with so many bytes for each row of the round; 0 where there is
    /// no list.
    pub fn within(&self, list: u64, bytes: usize) -> u64 {
        if list == 0 { 0 } else { list + (self.first * bytes) as u64 }
    }
}

impl Launches<'_> {
    /// The whole of it.
    pub fn attention(&self, layer: &Layer, of: &LayerShape) -> Result<(), CudaError> {
        let rows = self.key.rows;
        self.device.enter(Part::AttentionIn);
        self.multiply(&layer.inputs, rows)?;
        for (slice, queries) in self.slices().zip(&layer.queries) {
            let (kept, compressors) = (self.kept(layer, of, slice), of.compressors());
            if let (1, Some(queries)) = (rows, &layer.alone) {
                self.device.enter(Part::Queries);
                queries.multiply_and_keep(self.device, self.kernels, 1 + compressors, &kept)?;
            } else {
                self.device.enter(Part::Compress);
                rows::keep(self.device, self.kernels, slice.count, compressors, &kept)?;
                self.device.enter(Part::Queries);
                self.multiply(queries, slice.count)?;
            }
            self.look_back(layer, of, slice)?;
        }
        if !self.shape.at_once(rows) {
            self.device.enter(Part::Compress);
            let kept = self.kept(layer, of, self.slice(0, rows));
            rows::settle(self.device, self.kernels, rows, &kept)?;
        }
        self.device.enter(Part::AttentionOut);
        self.multiply(&layer.low, rows)?;
        self.multiply(&layer.output, rows)
    }

    fn slices(&self) -> impl Iterator<Item = Slice> {
        let rows = self.key.rows;
        (0..rows)
            .step_by(self.slice)
            .map(move |first| self.slice(first, rows.min(first + self.slice)))
    }

    fn slice(&self, first: usize, end: usize) -> Slice {
        Slice {
            first,
            count: end - first,
            rows: self.rows + (first * ROW_BYTES) as u64,
            turns: self.turns + (first * self.turn_bytes) as u64,
        }
    }

    /// Where the rows of the window of a slice wait; 0 where all rows are in the rings.
    fn waiting(&self, slice: Slice) -> u64 {
        match self.shape.at_once(self.key.rows) {
            true => 0,
            false => {
                slice.within(self.scratch.waiting, self.shape.formats.attention.bytes as usize)
            }
        }
    }

    /// Lets the rows of a slice choose what they see, and see it: as many rows at a time as there is
    /// working memory for.
    fn look_back(&self, layer: &Layer, of: &LayerShape, slice: Slice) -> Result<(), CudaError> {
        let (device, kernels, rows) = (self.device, self.kernels, slice.count);
        let visible = self.visible(of);
        let whole = self.fast && attend::tensor::is_whole(rows, visible);
        let most = match whole {
            true => choice::together(true, rows, self.key.capacity),
            false => ATTEND_ROWS,
        };
        for first in (0..rows).step_by(most) {
            let count = most.min(rows - first);
            if of.kind == Compression::Csa && self.key.capacity > 0 {
                device.enter(Part::Index);
                self.choose(of, slice, first, count)?;
            }
            device.enter(Part::Attend);
            let args = self.attend_args(layer, of, slice, first);
            match self.fast {
                true => {
                    let seen = (whole, visible);
                    attend::tensor::attend(device, kernels, self.together, count, seen, &args)
                }
                false => attend::attend(device, kernels, count, &args),
            }?;
        }
        Ok(())
    }

    /// The turn of a layer's queries and rows.
    fn turn(of: &LayerShape) -> u32 {
        if of.kind == Compression::None { TURN_WINDOW } else { TURN_COMPRESSED }
    }

    /// What is kept of a slice's rows, and where.
    fn kept(&self, layer: &Layer, of: &LayerShape, slice: Slice) -> KeepArgs {
        let (config, s) = (&self.model.config, self.scratch);
        let formats = &self.shape.formats;
        let windows = of.kind.windows();
        let compressor = |weights: Option<Compressor>, ring: Option<usize>, index: bool| {
            let (Some(weights), Some(ring)) = (weights, ring) else {
                return CompressorArgs::default();
            };
            let ring = self.shape.rings[ring];
            let format = if index { formats.index } else { formats.attention };
            let lists = if index { s.index_pending } else { s.pending };
            let bytes = 4 * windows * format.values as usize;
            let [kv, score] = lists.map(|list| slice.within(list, bytes));
            CompressorArgs {
                kv,
                score,
                ape: weights.ape,
                norm: weights.norm,
                at: ring.at,
                row_at: if index { of.index_at } else { of.compressed_at } as u64,
                format,
                depth: ring.depth,
                index: index.into(),
            }
        };
        let window = self.shape.rings[of.window];
        KeepArgs {
            rows: slice.rows,
            turns: slice.turns,
            qr: slice.within(s.qr, 4 * config.q_rank),
            qr_norm: layer.qr_norm,
            kv: slice.within(s.kv, 4 * config.head_dim),
            kv_norm: layer.kv_norm,
            format: formats.attention,
            compressors: [
                compressor(layer.compressor, of.pending, false),
                compressor(layer.index_compressor, of.index_pending, true),
            ],
            window_at: window.at,
            window_depth: window.depth,
            q_rank: config.q_rank as u32,
            ratio: of.kind.ratio().max(1) as u32,
            windows: windows as u32,
            turn: Launches::turn(of),
            compressed_turn: if of.kind == Compression::Csa { TURN_CSA } else { TURN_HCA },
            eps: config.rms_eps,
            unused: 0,
            half: slice.within(s.halves.qr, 2 * config.q_rank),
            waiting: self.waiting(slice),
        }
    }

    /// What attention of a slice's rows from `first` on wants to know.
    fn attend_args(
        &self,
        layer: &Layer,
        of: &LayerShape,
        slice: Slice,
        first: usize,
    ) -> AttendArgs {
        let (config, s) = (&self.model.config, self.scratch);
        let window = self.shape.rings[of.window];
        AttendArgs {
            rows: slice.rows,
            turns: slice.turns,
            q: s.q,
            chosen: s.chosen,
            sinks: layer.sinks,
            partial: s.parts,
            out: slice.within(s.heads, 4 * config.q_width()),
            format: self.shape.formats.attention,
            window_at: window.at,
            row_at: of.compressed_at as u64,
            heads: config.heads as u32,
            window: config.window as u32,
            window_depth: window.depth,
            ratio: of.kind.ratio() as u32,
            top_k: config.indexer.top_k as u32,
            choose: (of.kind == Compression::Csa).into(),
            turn: Launches::turn(of),
            first: first as u32,
            eps: config.rms_eps,
            scale: 1.0 / (config.head_dim as f32).sqrt(),
            half: slice.within(s.halves.heads, 2 * config.q_width()),
            arrivals: s.arrivals,
            waiting: self.waiting(slice),
        }
    }
}
