//! The executor: slots, and batches cut into rounds.

use std::{
    collections::{BTreeMap, HashSet},
    sync::Arc,
};

use ds4_engine::{ExecError, Executor, Feed, Logits, SlotId, SlotState, StateCost};
use ds4_model::{Compression, ExpertWeights, Matrix, Model, Rounding, Routing};

use crate::{
    attend,
    device::{Device, DeviceInfo, Kernels},
    experts,
    fault::Stage,
    hyper, indexer,
    options::{CudaError, CudaOptions},
    pages::PAGE_TOKENS,
    round::{self, Frequencies, Place},
    rows::{RingCopy, RowFormats},
    slot::{Boundary, Shape, Slot, Tools},
    step::{Key, Setting, Step},
    transfer, weights,
};

/// Executes a model on one card.
pub struct CudaExecutor {
    model: Arc<Model>,
    options: CudaOptions,
    shape: Shape,
    frequencies: Frequencies,
    // In the order in which they must go: memory before the kernels, the card's stream last.
    slots: BTreeMap<SlotId, Slot>,
    step: Step,
    kernels: Kernels,
    device: Device,
    opened: u64,
}

impl CudaExecutor {
    /// Brings a model to the card. There are no slots yet.
    pub fn new(model: Arc<Model>, options: CudaOptions) -> Result<CudaExecutor, CudaError> {
        options.check()?;
        let config = &model.config;
        let formats = RowFormats::new(config, options.rounding)
            .map_err(|source| CudaError::Rows { model: config.name.clone(), source })?;
        check_shape(&model)?;
        let shape = Shape::new(config, formats, &options);
        let frequencies = Frequencies::new(&config.rope);

        let device = Device::open(options.gpu)?;
        let needed = model.weights.matrices().map(weights::bytes).sum::<u64>();
        let free = device.free_memory()?;
        if needed > free {
            return Err(CudaError::OutOfMemory { what: "the weights", wanted: needed, free });
        }
        let kernels = Kernels::load(&device)?;
        let setting = Setting {
            device: &device,
            kernels: &kernels,
            model: &model,
            shape: &shape,
            frequencies: &frequencies,
        };
        let step = Step::new(setting, options.rows, options.fast)?;
        Ok(CudaExecutor {
            slots: BTreeMap::new(),
            step,
            kernels,
            device,
            opened: 0,
            shape,
            frequencies,
            options,
            model,
        })
    }

    /// The card.
    pub fn device(&self) -> &DeviceInfo {
        self.device.info()
    }

    /// Starts or stops measuring how long each kernel takes in rounds that are recorded from now on.
    pub fn time_kernels(&mut self, on: bool) {
        self.step.forget_recordings();
        self.device.time_kernels(on);
    }

    /// For each kernel of the last recorded round: its name, how often it ran, the seconds it took in
    /// all. A mark between two launches costs about a microsecond.
    pub fn kernel_times(&self) -> Result<Vec<(&'static str, usize, f64)>, CudaError> {
        self.device.bind()?;
        self.device.kernel_times()
    }

    fn tools(&self) -> Tools<'_> {
        Tools {
            device: &self.device,
            kernels: &self.kernels,
            rings: self.step.rings(),
            shape: &self.shape,
        }
    }

    fn add(&mut self, slot: Slot) -> SlotId {
        let id = SlotId(self.opened);
        self.opened += 1;
        self.slots.insert(id, slot);
        id
    }

    fn slot(&self, id: SlotId) -> Result<&Slot, ExecError> {
        self.slots.get(&id).ok_or(ExecError::NoSuchSlot(id))
    }

    fn check(&self, batch: &[Feed<'_>]) -> Result<(), ExecError> {
        let mut named = HashSet::new();
        for feed in batch {
            self.slot(feed.slot)?;
            if feed.tokens.is_empty() {
                return Err(ExecError::InvalidBatch("a feed without tokens"));
            }
            if !named.insert(feed.slot) {
                return Err(ExecError::InvalidBatch("a slot is fed twice"));
            }
            let vocab = self.model.config.vocab;
            if let Some(&id) = feed.tokens.iter().find(|&&id| id as usize >= vocab) {
                return Err(ExecError::TokenOutOfRange { id, vocab });
            }
        }
        Ok(())
    }

    /// Sees to it that everything that the batch will write has its place.
    fn prepare(&mut self, batch: &[Feed<'_>], slots: &mut [Slot]) -> Result<Vec<Place>, CudaError> {
        let mut places = Vec::with_capacity(batch.len());
        let mut undo = 0;
        for (slot, feed) in slots.iter_mut().zip(batch) {
            let len = slot.len;
            slot.pages.reserve(&self.device, len, len + feed.tokens.len())?;
            let (arena, pages) = (slot.arena.address(), slot.pages.table());
            places.push(Place { len, arena, pages, undo });
            undo += feed.tokens.len().min(self.shape.deepest());
        }
        let setting = Setting {
            device: &self.device,
            kernels: &self.kernels,
            model: &self.model,
            shape: &self.shape,
            frequencies: &self.frequencies,
        };
        self.step.reserve_undo(setting, undo)?;
        Ok(places)
    }

    /// Evaluates the feeds round by round; `done` says how far each has come.
    fn evaluate(
        &mut self,
        batch: &[Feed<'_>],
        slots: &[Slot],
        places: &[Place],
        done: &mut [usize],
        logits: &mut Logits,
    ) -> Result<Vec<Vec<Arc<Boundary>>>, ExecError> {
        let mut passed: Vec<Vec<Arc<Boundary>>> = vec![Vec::new(); batch.len()];
        let deepest = self.shape.deepest();
        loop {
            let CudaOptions { rows: most, boundary, .. } = self.options;
            let rows = round::next(batch, places, done, most, boundary, deepest);
            let Some(longest) = rows.iter().map(|row| row.position + 1).max() else {
                return Ok(passed);
            };
            let setting = Setting {
                device: &self.device,
                kernels: &self.kernels,
                model: &self.model,
                shape: &self.shape,
                frequencies: &self.frequencies,
            };
            let capacity = self.step.reserve_scores(setting, longest)?;
            let bytes = round::upload_bytes(rows.len(), &self.frequencies);
            round::write(&rows, places, &self.frequencies, &mut self.step.tell()[..bytes]);
            let wanted: Vec<(usize, usize)> =
                rows.iter().enumerate().filter_map(|(i, row)| Some((i, row.logits?))).collect();
            rows.iter().for_each(|row| done[row.feed] += 1);
            let key = Key { rows: rows.len(), wanted: wanted.len(), capacity };
            self.step.run(setting, key)?;

            let vocab = logits.vocab;
            let (fault, values) = self.step.results();
            if let Some((stage, row)) = Stage::reported(fault) {
                let row = rows.get(row).map_or((0, 0), |row| (row.token, row.position));
                return Err(stage.explain(&self.model, row.0, row.1));
            }
            for ((row, target), values) in wanted.into_iter().zip(values.chunks_exact(vocab)) {
                let target = &mut logits.values[target * vocab..][..vocab];
                let mut largest = 0;
                for (to, &from) in target.iter_mut().zip(values) {
                    *to = f32::from_le_bytes(from);
                    largest = largest.max(to.abs().to_bits());
                }
                if largest >= f32::INFINITY.to_bits() {
                    let head = Stage(2 * self.model.weights.layers.len() + 1);
                    return Err(head.explain(&self.model, rows[row].token, rows[row].position));
                }
            }
            for (feed, slot) in slots.iter().enumerate() {
                let len = places[feed].len + done[feed];
                let moved = rows.iter().any(|row| row.feed == feed);
                let kept = self.shape.boundaries_kept > 0 && boundary > 0;
                if moved && kept && len.is_multiple_of(boundary) {
                    passed[feed].push(slot.boundary(self.tools(), len)?);
                }
            }
        }
    }

    /// Puts back what a failed step has overwritten.
    fn go_back(
        &self,
        slots: &mut [Slot],
        places: &[Place],
        done: &[usize],
    ) -> Result<(), CudaError> {
        let (saved, capacity) = self.step.undo();
        for ((slot, place), &done) in slots.iter_mut().zip(places).zip(done) {
            let copies: Vec<RingCopy> = self
                .shape
                .rings
                .iter()
                .map(|ring| RingCopy {
                    at: ring.before * capacity as u64
                        + place.undo as u64 * u64::from(ring.row_bytes),
                    from: place.len as u32,
                    count: done.min(ring.depth as usize) as u32,
                })
                .collect();
            if done > 0 {
                self.tools().copy(slot, &copies, saved, true)?;
            }
            slot.pages.truncate(slot.len);
        }
        Ok(())
    }
}

/// The kernels' limits. A real model is far from them; a file may say anything.
fn check_shape(model: &Model) -> Result<(), CudaError> {
    let c = &model.config;
    let refuse = |what: String| Err(CudaError::Shape { model: c.name.clone(), what });
    if ![1, 2, 4].contains(&c.streams) || c.streams > hyper::MOST_STREAMS {
        return refuse(format!("{} residual streams; the kernels know 1, 2 and 4", c.streams));
    }
    if !c.hidden.is_multiple_of(8) || c.hidden > hyper::WIDEST {
        let widest = hyper::WIDEST;
        return refuse(format!(
            "hidden width {}; multiples of 8 up to {widest} are known",
            c.hidden
        ));
    }
    if c.head_dim > attend::WIDEST
        || !c.head_dim.is_multiple_of(4)
        || !c.rope.dims.is_multiple_of(4)
    {
        let widest = attend::WIDEST;
        return refuse(format!(
            "heads of {} with {} rotary; multiples of 4 up to {widest} are known",
            c.head_dim, c.rope.dims
        ));
    }
    let dim = c.indexer.dim;
    let indexed = c.layers.contains(&Compression::Csa);
    if indexed && (dim > indexer::WIDEST || !dim.is_multiple_of(indexer::GROUP)) {
        return refuse(format!("index rows of {dim}; multiples of 32 up to 128 are known"));
    }
    if c.window == 0 || c.experts_used > c.experts || c.experts > experts::MOST {
        return refuse(format!(
            "a window of {}, {} of {} experts",
            c.window, c.experts_used, c.experts
        ));
    }
    if let Some(matrix) = model.weights.matrices().find(|m| !m.cols().is_multiple_of(4)) {
        return refuse(format!(
            "tensor {} has {} columns, no multiple of 4",
            matrix.name(),
            matrix.cols()
        ));
    }
    let part: [fn(&ExpertWeights) -> &Matrix; 3] = [|e| &e.gate, |e| &e.up, |e| &e.down];
    for layer in &model.weights.layers {
        for of in part {
            let mut formats = layer.moe.experts.iter().map(|e| of(e).format());
            let first = formats.next();
            if formats.any(|format| Some(format) != first) {
                return refuse("experts of one layer in several formats".to_owned());
            }
        }
        if let Routing::Hash(table) = &layer.moe.routing
            && table.iter().any(|&expert| expert as usize >= c.experts)
        {
            return refuse(format!("a token is routed beyond its {} experts", c.experts));
        }
    }
    Ok(())
}

impl Executor for CudaExecutor {
    fn name(&self) -> &'static str {
        "cuda"
    }

    fn model(&self) -> &Arc<Model> {
        &self.model
    }

    fn rounding(&self) -> Rounding {
        self.options.rounding
    }

    fn open(&mut self) -> Result<SlotId, ExecError> {
        self.device.bind()?;
        let slot = Slot::new(self.tools())?;
        Ok(self.add(slot))
    }

    fn close(&mut self, slot: SlotId) {
        self.slots.remove(&slot);
    }

    fn len(&self, slot: SlotId) -> Result<usize, ExecError> {
        Ok(self.slot(slot)?.len)
    }

    fn step(&mut self, batch: &[Feed<'_>], logits: &mut Logits) -> Result<(), ExecError> {
        self.check(batch)?;
        self.device.bind()?;
        let rows: usize = batch.iter().map(|feed| feed.want.rows(feed.tokens.len())).sum();
        logits.vocab = self.model.config.vocab;
        logits.values.clear();
        logits.values.resize(rows * logits.vocab, 0.0);

        let mut slots: Vec<Slot> =
            batch.iter().filter_map(|feed| self.slots.remove(&feed.slot)).collect();
        let mut done = vec![0; batch.len()];
        let result = match self.prepare(batch, &mut slots) {
            Err(error) => {
                slots.iter_mut().for_each(|slot| slot.pages.truncate(slot.len));
                Err(error.into())
            }
            Ok(places) => match self.evaluate(batch, &slots, &places, &mut done, logits) {
                Ok(passed) => {
                    for ((slot, feed), passed) in slots.iter_mut().zip(batch).zip(passed) {
                        slot.commit(feed.tokens.len(), passed, &self.shape);
                    }
                    Ok(())
                }
                Err(error) => self
                    .go_back(&mut slots, &places, &done)
                    .map_err(ExecError::from)
                    .and(Err(error)),
            },
        };
        if result.is_err() {
            logits.values.clear();
        }
        self.slots.extend(batch.iter().map(|feed| feed.slot).zip(slots));
        result
    }

    fn truncate(&mut self, slot: SlotId, len: usize) -> Result<usize, ExecError> {
        self.device.bind()?;
        let mut state = self.slots.remove(&slot).ok_or(ExecError::NoSuchSlot(slot))?;
        let truncated = state.truncate(self.tools(), len);
        self.slots.insert(slot, state);
        Ok(truncated?)
    }

    fn fork(&mut self, slot: SlotId) -> Result<SlotId, ExecError> {
        self.device.bind()?;
        let copy = self.slot(slot)?.fork(self.tools())?;
        Ok(self.add(copy))
    }

    fn export(&self, slot: SlotId, rewind: usize) -> Result<SlotState, ExecError> {
        self.device.bind()?;
        Ok(transfer::export(self.slot(slot)?, self.tools(), self.options.rounding, rewind)?)
    }

    fn import(&mut self, state: &SlotState) -> Result<SlotId, ExecError> {
        self.device.bind()?;
        let slot = transfer::import(state, self.tools(), self.options.rounding)?;
        Ok(self.add(slot))
    }

    fn state_cost(&self) -> StateCost {
        let boundaries = match self.options.boundary {
            0 => 0,
            boundary => self.options.boundaries_kept * self.shape.copies(boundary, 0).1,
        };
        StateCost {
            fixed: (self.shape.arena_bytes + boundaries) as u64,
            per_1k_tokens: (self.shape.page_bytes * 1024 / PAGE_TOKENS) as u64,
        }
    }

    fn state_bytes(&self) -> usize {
        let mut seen = HashSet::new();
        let mut bytes = 0;
        for slot in self.slots.values() {
            bytes += slot.arena.len();
            let pages = slot.pages.pages().iter();
            bytes += pages.filter(|p| seen.insert(p.address())).map(|p| p.len()).sum::<usize>();
            for boundary in slot.boundaries() {
                if seen.insert(boundary.address()) {
                    bytes += boundary.bytes();
                }
            }
        }
        bytes
    }
}
