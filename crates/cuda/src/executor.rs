//! The executor: slots, and batches cut into rounds.

mod collect;

use std::{
    collections::{BTreeMap, HashSet},
    sync::Arc,
};

use ds4_engine::{ExecError, Executor, Feed, Logits, ReadRate, SlotId, SlotState, StateCost};
use ds4_model::{Model, Rounding};

use collect::is_short;

use crate::{
    costs::Costs,
    device::{Device, DeviceInfo, Kernels},
    fault::Stage,
    health::Health,
    limits,
    options::{CudaError, CudaOptions},
    plan::{Card, memory_plan},
    read_rate,
    recording::Key,
    round::{self, Frequencies, Limits, Place},
    rows::{RingCopy, RowFormats},
    slot::{Boundary, Shape, Slot, Tools},
    stages::Meter,
    step::{Setting, Step},
    transfer,
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
    /// What shortlists were last made of: slots at these lengths, and where their rows lie.
    listed: Vec<(SlotId, usize, usize)>,
    health: Health,
    /// While stages are timed.
    meter: Option<(Meter, Costs)>,
}

impl CudaExecutor {
    /// Brings a model to the card. There are no slots yet.
    pub fn new(model: Arc<Model>, options: CudaOptions) -> Result<CudaExecutor, CudaError> {
        CudaExecutor::on(Card::open(options.gpu)?, model, options)
    }

    /// Brings a model to a card that was opened to plan for it.
    pub fn on(
        card: Card,
        model: Arc<Model>,
        options: CudaOptions,
    ) -> Result<CudaExecutor, CudaError> {
        options.check()?;
        let config = &model.config;
        let formats = RowFormats::new(config, options.rounding)
            .map_err(|source| CudaError::Rows { model: config.name.clone(), source })?;
        limits::check(&model)?;
        let shape = Shape::new(config, formats, &options);
        let frequencies = Frequencies::new(&config.rope);

        let plan = memory_plan(card.info(), &model, &options, options.rows)?;
        let (wanted, free) = (plan.bytes(0, 0), card.free_memory()?);
        if wanted > free {
            return Err(CudaError::OutOfMemory { what: "the model", wanted, free });
        }
        let device = card.into_device();
        let kernels = Kernels::load(&device)?;
        let setting = Setting {
            device: &device,
            kernels: &kernels,
            model: &model,
            shape: &shape,
            frequencies: &frequencies,
        };
        let step = Step::new(setting, &options)?;
        Ok(CudaExecutor {
            slots: BTreeMap::new(),
            step,
            kernels,
            device,
            opened: 0,
            listed: Vec::new(),
            health: Health::default(),
            meter: None,
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
        self.meter = on.then(|| (Meter::default(), Costs::of(&self.model, &self.shape.formats)));
    }

    /// For each kernel of all rounds since the last reset of the stages: its name, how often it ran,
    /// the seconds it took in all. A mark between two launches costs some microseconds.
    pub fn kernel_times(&self) -> Vec<(&'static str, usize, f64)> {
        self.meter.as_ref().map_or_else(Vec::new, |(meter, _)| meter.kernels())
    }

    /// Does something on the card, unless it is lost, and finds out whether that has lost it.
    fn on_the_card<T>(
        &mut self,
        work: impl FnOnce(&mut CudaExecutor) -> Result<T, ExecError>,
    ) -> Result<T, ExecError> {
        self.health.check()?;
        let result = match self.device.bind() {
            Ok(()) => work(self),
            Err(error) => Err(error.into()),
        };
        self.health.judge(result, || self.device.finish())
    }

    fn tools(&self) -> Tools<'_> {
        Tools {
            device: &self.device,
            kernels: &self.kernels,
            rings: self.step.rings(),
            shape: &self.shape,
        }
    }

    /// The step, and what it works with.
    fn at_work(&mut self) -> (&mut Step, Setting<'_>) {
        let CudaExecutor { step, device, kernels, model, shape, frequencies, .. } = self;
        (step, Setting { device, kernels, model, shape, frequencies })
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

    /// Takes the slots of a checked batch forward, or leaves them as they were.
    fn advance(&mut self, batch: &[Feed<'_>], logits: &mut Logits) -> Result<(), ExecError> {
        let mut slots: Vec<Slot> =
            batch.iter().filter_map(|feed| self.slots.remove(&feed.slot)).collect();
        let mut done = vec![0; batch.len()];
        self.listed.clear();
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
                Err(error) => {
                    self.listed.clear();
                    // Slots that cannot be put back hold nobody knows what.
                    if self.go_back(&mut slots, &places, &done).is_err() {
                        self.health.lose(&error);
                    }
                    Err(error)
                }
            },
        };
        self.slots.extend(batch.iter().map(|feed| feed.slot).zip(slots));
        result
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
        let (step, setting) = self.at_work();
        step.reserve_undo(setting, undo)?;
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
        let CudaOptions { rows: most, boundary, .. } = self.options;
        let (wanted, deepest) = (round::most_wanted(most), self.shape.deepest());
        let limits = Limits { rows: most, wanted, boundary, deepest };
        let mut shortlists = vec![None; batch.iter().filter(|feed| is_short(feed)).count()];
        loop {
            let rows = round::next(batch, places, done, limits);
            let Some(longest) = rows.iter().map(|row| row.position + 1).max() else {
                logits.shortlists.extend(shortlists.into_iter().flatten());
                return Ok(passed);
            };
            let (step, setting) = self.at_work();
            let capacity = step.reserve_scores(setting, longest)?;
            let bytes = round::upload_bytes(rows.len(), setting.frequencies);
            let tell = &mut step.tell()[..bytes];
            round::write(&rows, batch, places, setting.frequencies, tell);
            let wanted: Vec<(usize, usize)> =
                rows.iter().enumerate().filter_map(|(i, row)| Some((i, row.logits?))).collect();
            rows.iter().for_each(|row| done[row.feed] += 1);
            let key = Key { rows: rows.len(), wanted: wanted.len(), capacity };
            let times = step.run(setting, key)?;
            if let Some((meter, costs)) = &mut self.meter {
                let positions = rows.iter().map(|row| row.position);
                meter.add(&times, &costs.round(positions, wanted.len()));
            }

            if let Some((stage, row)) = Stage::reported(self.step.fault()) {
                let row = rows.get(row).map_or((0, 0), |row| (row.token, row.position));
                return Err(stage.explain(&self.model, row.0, row.1));
            }
            self.collect(batch, &rows, &wanted, logits, &mut shortlists)?;
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
        self.on_the_card(|cuda| {
            let slot = Slot::new(cuda.tools())?;
            Ok(cuda.add(slot))
        })
    }

    fn close(&mut self, slot: SlotId) {
        self.slots.remove(&slot);
    }

    fn len(&self, slot: SlotId) -> Result<usize, ExecError> {
        Ok(self.slot(slot)?.len)
    }

    fn step(&mut self, batch: &[Feed<'_>], logits: &mut Logits) -> Result<(), ExecError> {
        let result = self.check(batch).and_then(|()| {
            let whole = batch.iter().filter(|feed| !is_short(feed));
            let rows: usize = whole.map(|feed| feed.want.rows(feed.tokens.len())).sum();
            logits.vocab = self.model.config.vocab;
            logits.shortlists.clear();
            logits.values.resize(rows * logits.vocab, 0.0);
            self.on_the_card(|cuda| cuda.advance(batch, logits))
        });
        if result.is_err() {
            logits.values.clear();
        }
        result
    }

    fn recall(&mut self, slot: SlotId) -> Result<Option<Vec<f32>>, ExecError> {
        let len = self.len(slot)?;
        let found = self.listed.iter().find(|listed| (listed.0, listed.1) == (slot, len));
        let Some(&(.., place)) = found else { return Ok(None) };
        let vocab = self.model.config.vocab;
        self.on_the_card(|cuda| {
            Ok(Some(cuda.step.fetch_logits(&cuda.device, vocab, place..place + 1)?.to_vec()))
        })
    }

    fn truncate(&mut self, slot: SlotId, len: usize) -> Result<usize, ExecError> {
        self.on_the_card(|cuda| {
            let mut state = cuda.slots.remove(&slot).ok_or(ExecError::NoSuchSlot(slot))?;
            let truncated = state.truncate(cuda.tools(), len);
            cuda.slots.insert(slot, state);
            Ok(truncated?)
        })
    }

    fn fork(&mut self, slot: SlotId) -> Result<SlotId, ExecError> {
        self.on_the_card(|cuda| {
            let copy = cuda.slot(slot)?.fork(cuda.tools())?;
            Ok(cuda.add(copy))
        })
    }

    fn export(&self, slot: SlotId, rewind: usize) -> Result<SlotState, ExecError> {
        self.health.check()?;
        let exported = self.slot(slot).and_then(|slot| {
            self.device.bind()?;
            Ok(transfer::export(slot, self.tools(), self.options.rounding, rewind)?)
        });
        self.health.judge(exported, || self.device.finish())
    }

    fn import(&mut self, state: &SlotState) -> Result<SlotId, ExecError> {
        self.on_the_card(|cuda| {
            let slot = transfer::import(state, cuda.tools(), cuda.options.rounding)?;
            Ok(cuda.add(slot))
        })
    }

    fn chunk(&self) -> usize {
        self.options.chunk()
    }

    fn state_cost(&self) -> StateCost {
        self.shape.cost()
    }

    fn state_bytes(&self) -> usize {
        let mut seen = HashSet::new();
        let mut bytes = 0;
        for slot in self.slots.values() {
            bytes += slot.arena.len();
            let pages = slot.pages.pages().iter();
            bytes += pages.filter(|p| seen.insert(p.address())).map(|p| p.len()).sum::<usize>();
        }
        bytes
    }

    fn stages(&self) -> Vec<ds4_engine::Stage> {
        self.meter.as_ref().map_or_else(Vec::new, |(meter, _)| meter.stages())
    }

    fn reset_stages(&mut self) {
        if let Some((meter, _)) = &mut self.meter {
            *meter = Meter::default();
        }
    }

    fn time_stages(&mut self, on: bool) -> bool {
        self.time_kernels(on);
        true
    }

    fn card(&self) -> Option<String> {
        Some(self.device.info().name.clone())
    }

    fn read_rate(&mut self) -> Result<Option<ReadRate>, ExecError> {
        self.on_the_card(|cuda| {
            Ok(Some(read_rate::measure(&cuda.device, &cuda.kernels, cuda.step.weights().memory())?))
        })
    }
}
