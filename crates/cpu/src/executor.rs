//! The executor: slots, and batches cut into rounds.

use std::{
    collections::{BTreeMap, HashSet},
    sync::Arc,
};

use ds4_engine::{ExecError, Executor, Feed, Logits, SlotId, SlotState, Stage, StateCost, Want};
use ds4_host::{Core, cores, physical_cores, spread};
use ds4_model::{Compression, Model, Rounding};

use crate::{
    near::Near,
    options::{CpuError, CpuOptions, Numa},
    pool::Pool,
    rope::Frequencies,
    round::{Pass, Round, Span},
    rows::RowFormats,
    segments::SEGMENT,
    slot::{Boundary, Shape, Slot},
    stages::Meter,
    step::Step,
    transfer,
};

/// Executes a model on the processors of this machine.
pub struct CpuExecutor {
    model: Arc<Model>,
    options: CpuOptions,
    shape: Shape,
    frequencies: Frequencies,
    pool: Pool,
    step: Step,
    slots: BTreeMap<SlotId, Slot>,
    opened: u64,
}

impl CpuExecutor {
    /// An executor of `model`, without slots yet.
    pub fn new(model: Arc<Model>, options: CpuOptions) -> Result<CpuExecutor, CpuError> {
        CpuExecutor::on(&cores(), model, options)
    }

    /// An executor on these cores, or on some of them if it is to have fewer threads.
    pub fn on(
        cores: &[Core],
        model: Arc<Model>,
        options: CpuOptions,
    ) -> Result<CpuExecutor, CpuError> {
        options.check()?;
        let config = &model.config;
        let formats = RowFormats::new(config, options.rounding)
            .map_err(|source| CpuError::Rows { model: config.name.clone(), source })?;
        let threads = match (options.threads, cores.len()) {
            (0, 0) => physical_cores(),
            (0, all) => all,
            (some, _) => some,
        };
        let mut cores = spread(cores, threads);
        let nodes = cores.chunk_by(|a, b| a.node == b.node).count();
        let copies = options.numa == Numa::Copy || options.numa == Numa::Auto && nodes > 1;
        // Whoever asks for all cores gets them to stay on. With fewer, the system places the threads,
        // unless there are nodes: what is near to a core is so only if it is always the same one.
        if options.threads != 0 && !copies {
            cores.clear();
        }
        let mut pool =
            Pool::new(threads, &cores).map_err(|source| CpuError::Threads { threads, source })?;
        if copies {
            match Near::copies(&cores, threads, &model.weights) {
                Ok(near) => pool.near = near.into(),
                Err(_) if options.numa == Numa::Auto => {}
                Err(error) => return Err(error),
            }
        }
        Ok(CpuExecutor {
            shape: Shape::new(config, formats, &options),
            frequencies: Frequencies::new(&config.rope),
            pool,
            step: Step::default(),
            slots: BTreeMap::new(),
            opened: 0,
            options,
            model,
        })
    }

    /// How many threads compute.
    pub fn threads(&self) -> usize {
        self.pool.workers()
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

    /// Evaluates the feeds round by round. Returns the boundaries that each slot has passed.
    fn evaluate(
        &mut self,
        batch: &[Feed<'_>],
        slots: &mut [Slot],
        logits: &mut Logits,
    ) -> Result<Vec<Vec<Arc<Boundary>>>, ExecError> {
        let mut passed: Vec<Vec<Arc<Boundary>>> = vec![Vec::new(); batch.len()];
        let mut done = vec![0; batch.len()];
        while let Some(plan) = Plan::next(batch, slots, &done, &self.options) {
            let round = Round::new(plan.tokens, plan.spans, &self.frequencies);
            let pass = Pass {
                config: &self.model.config,
                formats: self.shape.formats,
                activations: self.options.activations,
                frequencies: &self.frequencies,
                round: &round,
            };
            let mut places = plan.logits.into_iter().peekable();
            let outputs = logits
                .values
                .chunks_exact_mut(self.model.config.vocab)
                .enumerate()
                .filter_map(|(i, row)| places.next_if_eq(&i).map(|_| row))
                .collect();
            self.step
                .forward(
                    &mut self.pool,
                    &pass,
                    &self.shape,
                    &self.model,
                    slots,
                    &plan.wanted,
                    outputs,
                )
                .map_err(|fault| fault.explain(&self.model))?;
            for span in &round.spans {
                done[span.slot] += span.rows.len();
                if self.shape.boundaries_kept > 0
                    && self.options.boundary > 0
                    && span.end() % self.options.boundary == 0
                {
                    passed[span.slot].push(slots[span.slot].boundary(span.end(), &self.shape));
                }
            }
        }
        Ok(passed)
    }
}

/// The next round of a batch.
struct Plan {
    tokens: Vec<u32>,
    spans: Vec<Span>,
    /// Rows that give logits.
    wanted: Vec<usize>,
    /// Which row of the batch's logits each of them gives.
    logits: Vec<usize>,
}

impl Plan {
    /// As many rows as may go together, in the order of the feeds; a span ends where its slot passes
    /// a boundary. `None` when everything is done.
    fn next(
        batch: &[Feed<'_>],
        slots: &[Slot],
        done: &[usize],
        options: &CpuOptions,
    ) -> Option<Plan> {
        let (mut tokens, mut spans) = (Vec::new(), Vec::new());
        let (mut wanted, mut logits) = (Vec::new(), Vec::new());
        let mut logits_before = 0;
        for (slot, feed) in batch.iter().enumerate() {
            let start = slots[slot].len + done[slot];
            let to_boundary = match options.boundary {
                0 => usize::MAX,
                distance => distance - start % distance,
            };
            let left = feed.tokens.len() - done[slot];
            let count = left.min(options.rows - tokens.len()).min(to_boundary);
            let rows = tokens.len()..tokens.len() + count;
            match feed.want {
                Want::Nothing => {}
                // A whole row costs no copying here, so there are no shortlists.
                Want::Last | Want::Shortlist { .. } if count == left && count > 0 => {
                    wanted.push(rows.end - 1);
                    logits.push(logits_before);
                }
                Want::Last | Want::Shortlist { .. } => {}
                Want::All => {
                    wanted.extend(rows.clone());
                    logits.extend((done[slot]..done[slot] + count).map(|row| logits_before + row));
                }
            }
            logits_before += feed.want.rows(feed.tokens.len());
            if count > 0 {
                tokens.extend_from_slice(&feed.tokens[done[slot]..done[slot] + count]);
                spans.push(Span { slot, rows, start });
            }
        }
        (!tokens.is_empty()).then_some(Plan { tokens, spans, wanted, logits })
    }
}

impl Executor for CpuExecutor {
    fn name(&self) -> &'static str {
        "cpu"
    }

    fn model(&self) -> &Arc<Model> {
        &self.model
    }

    fn rounding(&self) -> Rounding {
        self.options.rounding
    }

    fn open(&mut self) -> Result<SlotId, ExecError> {
        Ok(self.add(Slot::new(&self.shape)))
    }

    fn close(&mut self, slot: SlotId) {
        self.slots.remove(&slot);
    }

    fn len(&self, slot: SlotId) -> Result<usize, ExecError> {
        Ok(self.slot(slot)?.len)
    }

    fn step(&mut self, batch: &[Feed<'_>], logits: &mut Logits) -> Result<(), ExecError> {
        self.check(batch)?;
        let rows: usize = batch.iter().map(|feed| feed.want.rows(feed.tokens.len())).sum();
        logits.vocab = self.model.config.vocab;
        logits.shortlists.clear();
        logits.values.clear();
        logits.values.resize(rows * logits.vocab, 0.0);

        let mut slots: Vec<Slot> =
            batch.iter().filter_map(|feed| self.slots.remove(&feed.slot)).collect();
        for (slot, feed) in slots.iter_mut().zip(batch) {
            slot.begin(feed.tokens.len());
        }
        let result = self.evaluate(batch, &mut slots, logits);
        self.pool.meter.leave();
        let result = match result {
            Ok(passed) => {
                for ((slot, feed), passed) in slots.iter_mut().zip(batch).zip(passed) {
                    slot.commit(feed.tokens.len(), passed, &self.shape);
                }
                Ok(())
            }
            Err(error) => {
                slots.iter_mut().for_each(Slot::abandon);
                logits.values.clear();
                Err(error)
            }
        };
        self.slots.extend(batch.iter().map(|feed| feed.slot).zip(slots));
        result
    }

    fn truncate(&mut self, slot: SlotId, len: usize) -> Result<usize, ExecError> {
        let slot = self.slots.get_mut(&slot).ok_or(ExecError::NoSuchSlot(slot))?;
        Ok(slot.truncate(len, &self.shape))
    }

    fn fork(&mut self, slot: SlotId) -> Result<SlotId, ExecError> {
        let copy = self.slot(slot)?.clone();
        Ok(self.add(copy))
    }

    fn export(&self, slot: SlotId, rewind: usize) -> Result<SlotState, ExecError> {
        let slot = self.slot(slot)?;
        Ok(transfer::export(slot, &self.shape, self.options.rounding, rewind))
    }

    fn import(&mut self, state: &SlotState) -> Result<SlotId, ExecError> {
        let slot = transfer::import(state, &self.shape, self.options.rounding)?;
        Ok(self.add(slot))
    }

    fn state_cost(&self) -> StateCost {
        let (mut partial, mut per_1k_tokens) = (0, 0);
        for kind in &self.shape.layers {
            let formats = self.shape.formats;
            let bytes = match kind {
                Compression::None => continue,
                Compression::Csa => formats.attention.bytes() + formats.index.bytes(),
                Compression::Hca => formats.attention.bytes(),
            };
            partial += SEGMENT * bytes;
            per_1k_tokens += 1024 / kind.ratio() * bytes;
        }
        let tails = Slot::new(&self.shape).tail_bytes();
        let fixed = tails + partial + self.shape.boundaries_bytes();
        StateCost { fixed: fixed as u64, per_1k_tokens: per_1k_tokens as u64 }
    }

    fn state_bytes(&self) -> usize {
        let mut seen = HashSet::new();
        let mut bytes = 0;
        for slot in self.slots.values() {
            bytes += slot.tail_bytes();
            for layer in &slot.layers {
                for rows in layer.compressed.iter().chain(&layer.index).map(|c| &c.rows) {
                    let new = |segment: &&Arc<[u8]>| seen.insert(segment.as_ptr().addr());
                    bytes += rows.allocations().filter(new).map(|s| s.len()).sum::<usize>();
                }
            }
            for boundary in slot.boundaries() {
                if seen.insert(Arc::as_ptr(boundary).addr()) {
                    bytes += boundary.bytes();
                }
            }
        }
        bytes
    }

    fn stages(&self) -> Vec<Stage> {
        self.pool.meter.stages()
    }

    fn reset_stages(&mut self) {
        self.pool.meter = Meter::default();
    }
}
