//! The state of one timeline, and what it costs to go back in it.
//!
//! Everything that a layer keeps is found by position or by row number, so the length says what is
//! alive. What is needed of the last positions lies in rings, all of them in one arena on the card. They
//! hold what may be taken back and what is looked back at from there, whatever the length of a round.
//! Going back a little is a change of length; going back further needs a boundary: a copy of what the
//! rings held when the timeline passed it. It is seldom needed, so the host keeps it.

use std::sync::Arc;

use ds4_engine::{StateCost, first_needed};
use ds4_model::{Compression, Config};

use crate::{
    device::{Buffer, Device, Kernels},
    options::{CudaError, CudaOptions},
    pages::{PAGE_TOKENS, Pages},
    rows::{self, CopyArgs, Ring, RingCopy, RowFormats},
};

/// Where the parts of a layer lie.
#[derive(Clone, Copy, Debug)]
pub struct LayerShape {
    /// Its compression.
    pub kind: Compression,
    /// The ring of its window.
    pub window: usize,
    /// The ring of its compressor's projections.
    pub pending: Option<usize>,
    /// The ring of its indexer's.
    pub index_pending: Option<usize>,
    /// Its compressed rows, in a page.
    pub compressed_at: usize,
    /// Its index rows, in a page.
    pub index_at: usize,
}

/// What decides the sizes of a slot's parts.
pub struct Shape {
    /// The layers.
    pub layers: Vec<LayerShape>,
    /// How rows are encoded.
    pub formats: RowFormats,
    /// The rings of a slot.
    pub rings: Vec<Ring>,
    /// Bytes of all rings.
    pub arena_bytes: usize,
    /// Bytes of a page.
    pub page_bytes: usize,
    /// Rows that a query sees, its own included.
    pub window: usize,
    /// How many of the last positions can be taken back at once.
    pub rewind: usize,
    /// How many boundaries are kept.
    pub boundaries_kept: usize,
}

impl Shape {
    /// The shape of a model's slots.
    pub fn new(config: &Config, formats: RowFormats, options: &CudaOptions) -> Shape {
        // A ring holds the `reach` positions that are looked at from one, itself included, and as many as
        // may be taken back.
        let depth = |reach: usize| reach + options.rewind;
        let mut rings = Vec::new();
        let (mut arena_bytes, mut before) = (0usize, 0u64);
        let mut ring = |row_bytes: usize, depth: usize| {
            rings.push(Ring {
                at: arena_bytes as u64,
                before,
                row_bytes: row_bytes as u32,
                depth: depth as u32,
            });
            arena_bytes = (arena_bytes + row_bytes * depth).next_multiple_of(256);
            before += row_bytes as u64;
            rings.len() - 1
        };
        let mut page_bytes = 0usize;
        let mut layers = Vec::new();
        for &kind in &config.layers {
            let mut pending = |values: usize| {
                ring(8 * kind.windows() * values, depth(kind.windows() * kind.ratio()))
            };
            let rows = PAGE_TOKENS.checked_div(kind.ratio()).unwrap_or(0);
            let mut in_page = |row_bytes: u32| {
                let at = page_bytes;
                page_bytes = (page_bytes + rows * row_bytes as usize).next_multiple_of(256);
                at
            };
            let compressed = kind != Compression::None;
            let indexed = kind == Compression::Csa;
            layers.push(LayerShape {
                kind,
                pending: compressed.then(|| pending(config.head_dim)),
                index_pending: indexed.then(|| pending(config.indexer.dim)),
                compressed_at: if compressed { in_page(formats.attention.bytes) } else { 0 },
                index_at: if indexed { in_page(formats.index.bytes) } else { 0 },
                window: ring(formats.attention.bytes as usize, depth(config.window)),
            });
        }
        Shape {
            layers,
            formats,
            rings,
            arena_bytes,
            page_bytes,
            window: config.window,
            rewind: options.rewind,
            boundaries_kept: options.boundaries_kept,
        }
    }

    /// Whether a round of so many rows goes into the rings row by row: no place that it takes is one
    /// that it looks at, for even a slot whose rows are all of them finds one more position free than
    /// may be taken back. The rows of other rounds wait until nobody looks any more.
    pub fn at_once(&self, rows: usize) -> bool {
        rows <= self.rewind + 1
    }

    /// The deepest ring: further positions of one step overwrite only rows of the step itself.
    pub fn deepest(&self) -> usize {
        self.rings.iter().map(|ring| ring.depth as usize).max().unwrap_or(0)
    }

    /// Bytes of a row of every ring.
    pub fn ring_row_bytes(&self) -> usize {
        self.rings.iter().map(|ring| ring.row_bytes as usize).sum()
    }

    /// What the state of a slot costs on the card.
    pub fn cost(&self) -> StateCost {
        StateCost {
            fixed: self.arena_bytes as u64,
            per_1k_tokens: (self.page_bytes * 1024 / PAGE_TOKENS) as u64,
        }
    }

    /// What has to be copied so that a slot of length `len` can go on from any length down to
    /// `len - rewind`: the positions of every ring, laid one behind the other. Also their bytes.
    pub fn copies(&self, len: usize, rewind: usize) -> (Vec<RingCopy>, usize) {
        let mut copies = vec![RingCopy::default(); self.rings.len()];
        let mut bytes = 0;
        let mut copy = |ring: usize, from: usize| {
            let count = len - from;
            copies[ring] = RingCopy { at: bytes as u64, from: from as u32, count: count as u32 };
            bytes += count * self.rings[ring].row_bytes as usize;
        };
        for layer in &self.layers {
            copy(layer.window, len.saturating_sub(self.window - 1 + rewind));
            for ring in layer.pending.iter().chain(&layer.index_pending) {
                copy(*ring, first_needed(len - rewind, layer.kind.ratio(), layer.kind.windows()));
            }
        }
        (copies, bytes)
    }
}

/// What copies need besides the slot.
#[derive(Clone, Copy)]
pub struct Tools<'a> {
    /// The card.
    pub device: &'a Device,
    /// Its kernels.
    pub kernels: &'a Kernels,
    /// The rings' places, on the card.
    pub rings: &'a Buffer,
    /// The shape of every slot.
    pub shape: &'a Shape,
}

impl Tools<'_> {
    /// Copies positions of a slot's rings to `buffer`, or back, and waits for it.
    pub fn copy(
        &self,
        slot: &Slot,
        copies: &[RingCopy],
        buffer: &Buffer,
        restore: bool,
    ) -> Result<(), CudaError> {
        let list = self.device.upload(copies, "a list of copies")?;
        let args = CopyArgs {
            rings: self.rings.address(),
            copies: list.address(),
            arena: slot.arena.address(),
            buffer: buffer.address(),
            restore: restore.into(),
            unused: 0,
        };
        rows::copy(self.device, self.kernels, copies.len(), &args)?;
        self.device.finish()
    }

    /// Positions of a slot's rings, which are `bytes` in all, for the host.
    pub fn bring(
        &self,
        slot: &Slot,
        copies: &[RingCopy],
        bytes: usize,
    ) -> Result<Vec<u8>, CudaError> {
        let buffer = self.device.alloc(bytes, "a copy of a session's last rows")?;
        self.copy(slot, copies, &buffer, false)?;
        let mut held = vec![0u8; bytes];
        self.device.read(&buffer, 0, &mut held)?;
        Ok(held)
    }

    /// Puts them back.
    pub fn put(&self, slot: &Slot, copies: &[RingCopy], held: &[u8]) -> Result<(), CudaError> {
        let buffer = self.device.upload(held, "a copy of a session's last rows")?;
        self.copy(slot, copies, &buffer, true)
    }
}

/// What the rings held at one length.
pub struct Boundary {
    len: usize,
    held: Vec<u8>,
}

/// The state of one timeline.
pub struct Slot {
    /// Tokens evaluated.
    pub len: usize,
    /// The shortest length that the rings can go back to.
    pub floor: usize,
    /// The rings.
    pub arena: Buffer,
    /// The compressed rows.
    pub pages: Pages,
    boundaries: Vec<Arc<Boundary>>,
}

impl Slot {
    /// An empty timeline.
    pub fn new(tools: Tools<'_>) -> Result<Slot, CudaError> {
        Ok(Slot {
            len: 0,
            floor: 0,
            arena: tools.device.alloc(tools.shape.arena_bytes, "the state of a session")?,
            pages: Pages::new(tools.device, tools.shape.page_bytes)?,
            boundaries: Vec::new(),
        })
    }

    /// A timeline that goes on from the same state.
    pub fn fork(&self, tools: Tools<'_>) -> Result<Slot, CudaError> {
        Ok(Slot {
            len: self.len,
            floor: self.floor,
            arena: tools.device.duplicate(&self.arena, "the state of a session")?,
            pages: self.pages.share(tools.device)?,
            boundaries: self.boundaries.clone(),
        })
    }

    /// Ends a step that has succeeded, with the boundaries that it passed.
    pub fn commit(&mut self, count: usize, passed: Vec<Arc<Boundary>>, shape: &Shape) {
        self.len += count;
        self.floor = self.floor.max(self.len.saturating_sub(shape.rewind));
        for boundary in passed {
            self.boundaries.push(boundary);
            if self.boundaries.len() > shape.boundaries_kept {
                self.forget_a_boundary();
            }
        }
    }

    /// A copy of what is needed to go on from `len`, which the running step has just reached.
    pub fn boundary(&self, tools: Tools<'_>, len: usize) -> Result<Arc<Boundary>, CudaError> {
        let (copies, bytes) = tools.shape.copies(len, 0);
        let held = tools.bring(self, &copies, bytes)?;
        Ok(Arc::new(Boundary { len, held }))
    }

    /// Shortens the timeline to `len`, or to the nearest length below that can be had.
    pub fn truncate(&mut self, tools: Tools<'_>, len: usize) -> Result<usize, CudaError> {
        if len >= self.len {
            return Ok(self.len);
        }
        if len >= self.floor {
            self.len = len;
        } else if let Some(boundary) = self.boundaries.iter().rfind(|b| b.len <= len).cloned() {
            let (copies, _) = tools.shape.copies(boundary.len, 0);
            tools.put(self, &copies, &boundary.held)?;
            self.len = boundary.len;
            self.floor = boundary.len;
        } else {
            self.len = 0;
            self.floor = 0;
        }
        self.boundaries.retain(|boundary| boundary.len <= len);
        self.pages.truncate(self.len);
        Ok(self.len)
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
}

impl LayerShape {
    /// How many compressors the layer has.
    pub fn compressors(&self) -> usize {
        usize::from(self.pending.is_some()) + usize::from(self.index_pending.is_some())
    }
}

#[cfg(test)]
mod tests {
    use std::{ops::Range, path::PathBuf};

    use ds4_engine::{Feed, SlotId, Want};
    use ds4_model::{Model, Rounding};

    use super::*;
    use crate::round::{self, Limits, Place};

    /// Rings as rounds leave them: which position each place holds.
    struct Rings<'a>(&'a Shape, Vec<Vec<Option<usize>>>);

    impl Rings<'_> {
        fn new(shape: &Shape) -> Rings<'_> {
            let rings = shape.rings.iter().map(|ring| vec![None; ring.depth as usize]).collect();
            Rings(shape, rings)
        }

        /// Keeps a position where it is one of the last that a ring holds.
        fn keep(&mut self, position: usize, after: usize) {
            for ring in self.1.iter_mut().filter(|ring| after < ring.len()) {
                let depth = ring.len();
                ring[position % depth] = Some(position);
            }
        }

        #[track_caller]
        fn check(&self, ring: usize, positions: Range<usize>) {
            let held = &self.1[ring];
            for position in positions {
                assert_eq!(held[position % held.len()], Some(position), "ring {ring}");
            }
        }

        /// What compressors look at in the rings for a row whose round began at `start`.
        fn check_compressors(&self, position: usize, start: usize) {
            for layer in &self.0.layers {
                let (ratio, windows) = (layer.kind.ratio(), layer.kind.windows());
                if ratio > 0 && (position + 1).is_multiple_of(ratio) {
                    let first = (position + 1).saturating_sub(ratio * windows);
                    for ring in layer.pending.iter().chain(&layer.index_pending) {
                        self.check(*ring, first..start.max(first));
                    }
                }
            }
        }

        /// What a query looks at in the rings, of positions before `end`.
        fn check_window(&self, position: usize, end: usize) {
            let first = (position + 1).saturating_sub(self.0.window);
            for layer in &self.0.layers {
                self.check(layer.window, first..end.max(first));
            }
        }
    }

    fn shape(options: &CudaOptions, change: impl FnOnce(&mut Config)) -> Shape {
        let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/oracle");
        let mut config = Model::open(&folder.join("kquant_a-ds4_iq2.gguf")).unwrap().config;
        change(&mut config);
        Shape::new(&config, RowFormats::new(&config, Rounding::Official).unwrap(), options)
    }

    /// Goes through rounds as the kernels do: within a launch every row looks before and after every
    /// other has been kept.
    #[test]
    fn rings_hold_what_rounds_see_and_what_is_taken_back() {
        let tokens = vec![0; 1500];
        for (rows, slice, rewind) in [
            (512, 32, 20),
            (1000, 96, 128),
            (129, 50, 128),
            (130, 130, 128),
            (64, 64, 0),
            (1, 1, 0),
            (300, 7, 300),
        ] {
            let options = CudaOptions { rows, slice, rewind, ..CudaOptions::default() };
            let shape = shape(&options, |_| ());
            let ratio = |layer: &LayerShape| layer.kind.ratio() * layer.kind.windows();
            assert_eq!(shape.deepest(), rewind + shape.layers.iter().map(ratio).max().unwrap());
            for (starts, fed) in [
                ([3, 900, 0], [1500, 1, 700]),
                ([127, 255, 130], [1, 1, 1]),
                ([510, 7, 129], [2, 133, 127]),
                ([1022, 385, 250], [131, 259, 3]),
            ] {
                let mut slots = starts.map(|start| {
                    let mut rings = Rings::new(&shape);
                    (0..start).for_each(|position| rings.keep(position, 0));
                    rings
                });
                let places = starts.map(|len| Place { len, arena: 0, pages: 0, undo: 0 });
                let batch: Vec<Feed<'_>> = (0..)
                    .zip(fed.map(|len| &tokens[..len]))
                    .map(|(slot, tokens)| Feed { slot: SlotId(slot), tokens, want: Want::Last })
                    .collect();
                let mut done = [0; 3];
                let limits = Limits { rows, wanted: 64, boundary: 0, deepest: shape.deepest() };
                loop {
                    let round = round::next(&batch, &places, &done, limits);
                    if round.is_empty() {
                        break;
                    }
                    let at_once = shape.at_once(round.len());
                    for slice in round.chunks(options.longest_slice()) {
                        let compress = |slots: &[Rings<'_>]| {
                            for row in slice {
                                let start = row.position - row.before;
                                slots[row.feed].check_compressors(row.position, start);
                            }
                        };
                        compress(&slots);
                        if at_once {
                            slice.iter().for_each(|row| slots[row.feed].keep(row.position, 0));
                            compress(&slots);
                        }
                        for row in slice {
                            let start = row.position - row.before;
                            let end = if at_once { row.position + 1 } else { start };
                            slots[row.feed].check_window(row.position, end);
                        }
                    }
                    if !at_once {
                        round.iter().for_each(|row| slots[row.feed].keep(row.position, row.after));
                    }
                    round.iter().for_each(|row| done[row.feed] += 1);
                }
                for ((rings, start), done) in slots.iter().zip(starts).zip(done) {
                    let len = start + done;
                    let (copies, _) = shape.copies(len, rewind.min(len));
                    for (ring, copy) in copies.iter().enumerate() {
                        assert_eq!((copy.from + copy.count) as usize, len);
                        rings.check(ring, copy.from as usize..len);
                    }
                }
            }
        }
    }

    /// What a session takes on the card, of the shapes of the two published models.
    #[test]
    fn sessions_of_published_shapes_are_small() {
        use Compression::{Csa, Hca, None};
        let alternating = |first: [Compression; 2], layers: usize| -> Vec<Compression> {
            let rest = (2..layers).map(|layer| if layer % 2 == 0 { Csa } else { Hca });
            first.into_iter().chain(rest).collect()
        };
        let (flash, pro) = (alternating([None; 2], 43), alternating([Hca; 2], 61));
        // Whole MiB: the rings, and with them rows of 64K, 256K and 1M tokens.
        for (layers, mib) in [(flash, [54, 273, 933, 3572]), (pro, [79, 394, 1338, 5116])] {
            let options = CudaOptions::default();
            let shape = shape(&options, |config| {
                (config.layers, config.head_dim, config.window) = (layers, 512, 128);
                (config.rope.dims, config.indexer.dim) = (64, 128);
            });
            let cost = shape.cost();
            let bytes = [0, 1 << 16, 1 << 18, 1 << 20].map(|tokens| cost.bytes(tokens));
            assert_eq!(bytes.map(|bytes| bytes >> 20), mib);
        }
    }
}
