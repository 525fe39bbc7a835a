//! The state of one timeline, and what it costs to go back in it.
//!
//! Everything that a layer keeps is found by position or by row number, so the length says what is
//! alive and nothing else has to. Going back a little is a change of length: the tails are deep
//! enough for the last `rewind` positions. Going back further needs a boundary: a copy of what the
//! tails held when the timeline passed it. Boundaries are multiples of every compression ratio, where
//! the long windows are just complete and need nothing.

use std::{ops::Range, sync::Arc};

use ds4_engine::first_needed;
use ds4_model::{Compression, Config};

use crate::{options::CpuOptions, rows::RowFormats, segments::Segments, tail::Tail};

/// What decides the sizes of a slot's parts.
#[derive(Clone, Debug)]
pub struct Shape {
    /// Compression of each layer.
    pub layers: Vec<Compression>,
    /// How rows are encoded.
    pub formats: RowFormats,
    /// Rows that a query sees, its own included.
    pub window: usize,
    /// How many of the last positions can be taken back at once.
    pub rewind: usize,
    /// Distance of boundaries; 0 for none.
    pub boundary: usize,
    /// How many boundaries are kept.
    pub boundaries_kept: usize,
}

impl Shape {
    /// The shape of a model's slots.
    pub fn new(config: &Config, formats: RowFormats, options: &CpuOptions) -> Shape {
        Shape {
            layers: config.layers.clone(),
            formats,
            window: config.window,
            rewind: options.rewind,
            boundary: options.boundary,
            boundaries_kept: options.boundaries_kept,
        }
    }

    /// The window rows that the query at position `len` can see besides its own.
    pub fn window_before(&self, len: usize) -> Range<usize> {
        len.saturating_sub(self.window - 1)..len
    }

    /// Bytes that a slot's boundaries take when there are as many as are kept.
    pub fn boundaries_bytes(&self) -> usize {
        if self.boundary == 0 {
            return 0;
        }
        let of_layer = |&kind: &Compression| {
            let index = if kind == Compression::Csa { self.formats.index.values() } else { 0 };
            let values = 2 * kind.windows() * (self.formats.attention.values() + index);
            let pending = pending_positions(kind, self.boundary, self.boundary).len();
            (self.window - 1) * self.formats.attention.bytes() + pending * values * size_of::<f32>()
        };
        self.boundaries_kept * self.layers.iter().map(of_layer).sum::<usize>()
    }
}

/// What a compressor makes and what it makes it from.
#[derive(Clone)]
pub struct Compressed {
    /// The rows.
    pub rows: Segments,
    /// Projections of the last positions: `[windows * dim]` values, then as many scores.
    pub pending: Tail<f32>,
}

/// The state of one layer.
#[derive(Clone)]
pub struct LayerSlot {
    /// Rows of the sliding window.
    pub window: Tail<u8>,
    /// Compressed rows, on CSA and HCA layers.
    pub compressed: Option<Compressed>,
    /// Index rows, on CSA layers.
    pub index: Option<Compressed>,
}

/// What the tails of all layers held at one length.
pub struct Boundary {
    len: usize,
    layers: Vec<Held>,
}

struct Held {
    window: Vec<u8>,
    pending: Vec<f32>,
    index_pending: Vec<f32>,
}

/// The state of one timeline.
#[derive(Clone)]
pub struct Slot {
    /// Tokens evaluated.
    pub len: usize,
    /// The shortest length that the tails can go back to.
    pub floor: usize,
    /// The layers.
    pub layers: Vec<LayerSlot>,
    /// Boundaries passed, in order.
    boundaries: Vec<Arc<Boundary>>,
}

impl Slot {
    /// An empty timeline.
    pub fn new(shape: &Shape) -> Slot {
        let layer = |&compression: &Compression| {
            let compressed = |format: crate::rows::RowFormat| Compressed {
                rows: Segments::new(format.bytes()),
                pending: Tail::new(
                    2 * compression.windows() * format.values(),
                    // From any length that can be gone back to, its own window and those before.
                    shape.rewind + compression.windows() * compression.ratio(),
                ),
            };
            LayerSlot {
                window: Tail::new(
                    shape.formats.attention.bytes(),
                    shape.window - 1 + shape.rewind.max(1),
                ),
                compressed: (compression != Compression::None)
                    .then(|| compressed(shape.formats.attention)),
                index: (compression == Compression::Csa).then(|| compressed(shape.formats.index)),
            }
        };
        Slot {
            len: 0,
            floor: 0,
            layers: shape.layers.iter().map(layer).collect(),
            boundaries: Vec::new(),
        }
    }

    /// Starts a step of `count` tokens.
    pub fn begin(&mut self, count: usize) {
        let from = self.len;
        self.for_each_tail(
            |window| window.begin(from, count),
            |pending| pending.begin(from, count),
        );
    }

    /// Ends a step that has succeeded, with the boundaries that it passed.
    pub fn commit(&mut self, count: usize, passed: Vec<Arc<Boundary>>, shape: &Shape) {
        let len = self.len + count;
        self.for_each_tail(|window| window.commit(len), |pending| pending.commit(len));
        self.len = len;
        self.floor = self.floor.max(len.saturating_sub(shape.rewind));
        for boundary in passed {
            self.boundaries.push(boundary);
            if self.boundaries.len() > shape.boundaries_kept {
                self.forget_a_boundary();
            }
        }
    }

    /// Ends a step that has failed.
    pub fn abandon(&mut self) {
        self.for_each_tail(Tail::abandon, Tail::abandon);
    }

    /// A copy of what the tails hold for going on from `len`, which the running step has just
    /// reached.
    pub fn boundary(&self, len: usize, shape: &Shape) -> Arc<Boundary> {
        let held = |(layer, compression): (&LayerSlot, &Compression)| {
            let pending = |from: &Option<Compressed>| match from {
                Some(from) => from.pending.copy(pending_positions(*compression, len, len)),
                None => Vec::new(),
            };
            Held {
                window: layer.window.copy(shape.window_before(len)),
                pending: pending(&layer.compressed),
                index_pending: pending(&layer.index),
            }
        };
        let layers = self.layers.iter().zip(&shape.layers).map(held).collect();
        Arc::new(Boundary { len, layers })
    }

    /// Shortens the timeline to `len`, or to the nearest length below that can be had.
    pub fn truncate(&mut self, len: usize, shape: &Shape) -> usize {
        if len >= self.len {
            return self.len;
        }
        self.boundaries.retain(|boundary| boundary.len <= len);
        if len >= self.floor {
            self.len = len;
        } else if let Some(boundary) = self.boundaries.last().cloned() {
            self.restore(&boundary);
        } else {
            *self = Slot::new(shape);
        }
        let len = self.len;
        for (layer, compression) in self.layers.iter_mut().zip(&shape.layers) {
            for compressed in layer.compressed.iter_mut().chain(&mut layer.index) {
                compressed.rows.truncate(len / compression.ratio());
            }
        }
        len
    }

    fn restore(&mut self, boundary: &Boundary) {
        self.len = boundary.len;
        self.floor = boundary.len;
        for (layer, held) in self.layers.iter_mut().zip(&boundary.layers) {
            layer.window.restore(&held.window, boundary.len);
            if let Some(compressed) = &mut layer.compressed {
                compressed.pending.restore(&held.pending, boundary.len);
            }
            if let Some(index) = &mut layer.index {
                index.pending.restore(&held.index_pending, boundary.len);
            }
        }
    }

    /// Thins the boundaries so that their distance grows with the distance from the end: forgets the
    /// one whose going leaves the smallest gap, measured by how far back the gap is. The last one
    /// always stays.
    fn forget_a_boundary(&mut self) {
        let len = self.len;
        let at = |i: usize| self.boundaries[i].len;
        let gap = |&i: &usize| {
            let before = if i == 0 { 0 } else { at(i - 1) };
            (at(i + 1) - before) as f64 / (len - before).max(1) as f64
        };
        let candidates = 0..self.boundaries.len().saturating_sub(1);
        let least = candidates.min_by(|a, b| gap(a).total_cmp(&gap(b)));
        self.boundaries.remove(least.unwrap_or(0));
    }

    fn for_each_tail(
        &mut self,
        mut window: impl FnMut(&mut Tail<u8>),
        mut pending: impl FnMut(&mut Tail<f32>),
    ) {
        for layer in &mut self.layers {
            window(&mut layer.window);
            for compressed in layer.compressed.iter_mut().chain(&mut layer.index) {
                pending(&mut compressed.pending);
            }
        }
    }

    /// Bytes of the tails, which no other slot shares.
    pub fn tail_bytes(&self) -> usize {
        let of_layer = |layer: &LayerSlot| {
            let pending = layer.compressed.iter().chain(&layer.index).map(|c| c.pending.bytes());
            layer.window.bytes() + pending.sum::<usize>()
        };
        self.layers.iter().map(of_layer).sum()
    }

    /// The boundaries, which copies share.
    pub fn boundaries(&self) -> &[Arc<Boundary>] {
        &self.boundaries
    }
}

impl Boundary {
    /// Bytes that it takes.
    pub fn bytes(&self) -> usize {
        let of_layer = |held: &Held| {
            held.window.len() + (held.pending.len() + held.index_pending.len()) * size_of::<f32>()
        };
        self.layers.iter().map(of_layer).sum()
    }
}

/// The positions whose projections are needed at length `len` to go on from any length down to `from`.
pub fn pending_positions(compression: Compression, from: usize, len: usize) -> Range<usize> {
    match compression {
        Compression::None => len..len,
        _ => first_needed(from, compression.ratio(), compression.windows())..len,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn boundaries_thin_out_towards_the_past() {
        let mut slot = Slot { len: 0, floor: 0, layers: Vec::new(), boundaries: Vec::new() };
        for len in (100..=10_000).step_by(100) {
            slot.len = len;
            slot.boundaries.push(Arc::new(Boundary { len, layers: Vec::new() }));
            if slot.boundaries.len() > 8 {
                slot.forget_a_boundary();
            }
        }
        let lens: Vec<usize> = slot.boundaries.iter().map(|b| b.len).collect();
        assert_eq!(lens.len(), 8);
        assert_eq!(lens[7], 10_000);
        assert!(10_000 - lens[6] <= 300, "{lens:?}");
        for back in [500, 1000, 2000, 4000, 8000] {
            let nearest = lens.iter().rev().find(|&&len| len <= 10_000 - back).copied();
            let rebuilt = 10_000 - back - nearest.unwrap_or(0);
            assert!(
                rebuilt <= back,
                "{rebuilt} tokens to rebuild after going back {back}: {lens:?}"
            );
        }
    }
}
