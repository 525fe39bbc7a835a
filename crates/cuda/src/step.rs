//! One round through the model: embedding, every layer, head. What is launched depends on a few sizes
//! alone, so the sequence can be recorded and replayed.

mod attention;
mod choice;

use std::{mem, ops::Range};

use ds4_model::{Compression, Model};

pub use choice::most_scores;

use crate::{
    attend,
    device::{Buffer, Device, Kernel, Kernels, Pinned, Times},
    embed::{self, EmbedArgs},
    experts::{self, ExpertsArgs, RouteArgs, tensor::Beside},
    hyper, indexer,
    options::{CudaError, CudaOptions},
    recording::{Key, Recordings},
    round::{self, Frequencies, HEAD_BYTES, ROW_BYTES, most_wanted},
    rows::{self, SaveArgs},
    sample,
    scratch::{Room, Scratch},
    slot::Shape,
    stages::Part,
    tensor::{self, bytes::Numbers},
    weights::{Hyper, Layer, Products, Weights, forms},
};

/// How many rows of every ring there is room for when `rows` have to be saved, of which one slot never
/// needs more than `deepest`.
pub fn undo_room(rows: usize, deepest: usize) -> usize {
    match rows {
        few if few < deepest => few.next_power_of_two().min(deepest),
        many => many.next_multiple_of(deepest.max(1)),
    }
}

/// What a step works with, at fixed addresses.
pub struct Step {
    weights: Weights,
    scratch: Scratch,
    rings: Buffer,
    /// What the kernels are told of a round, and the word in which they report a fault.
    told: Buffer,
    tell: Pinned,
    /// The fault word, then lists of the best tokens, then the logits that somebody wants.
    results: Pinned,
    logits_at: usize,
    undo: Buffer,
    undo_rows: usize,
    scores: Buffer,
    capacity: usize,
    recordings: Recordings,
    way: hyper::Way,
    together: attend::tensor::Together,
    choose_together: indexer::together::Together,
    /// Rows of the longest slice of a round.
    slice: usize,
    fast: bool,
}

/// What never changes from one step to the next.
#[derive(Clone, Copy)]
pub struct Setting<'a> {
    /// The card.
    pub device: &'a Device,
    /// Its kernels.
    pub kernels: &'a Kernels,
    /// The model.
    pub model: &'a Model,
    /// The shape of its slots.
    pub shape: &'a Shape,
    /// Rotary frequencies.
    pub frequencies: &'a Frequencies,
}

impl Step {
    /// Brings the weights to the card and takes the working memory for the longest rounds.
    pub fn new(setting: Setting<'_>, options: &CudaOptions) -> Result<Step, CudaError> {
        let Setting { device, kernels, model, shape, frequencies } = setting;
        let config = &model.config;
        let index = &config.indexer;
        kernels.allow_shared(Kernel::AttendParts, attend::shared(config.head_dim) as u32)?;
        kernels.allow_shared(
            Kernel::IndexScores,
            indexer::score_shared(index.heads, index.dim) as u32,
        )?;
        tensor::prepare(device, kernels)?;
        experts::tensor::prepare(device, kernels)?;
        let together = attend::tensor::prepare(device, kernels)?;
        let fast = options.fast;
        let room = Room::new(device.info(), options, shape, forms(model, fast));
        let scratch = Scratch::new(device, config, room)?;
        let told = round::upload_bytes(room.rows, frequencies);
        let wanted = most_wanted(room.rows);
        let logits_at = HEAD_BYTES + wanted * sample::LIST_BYTES;
        Ok(Step {
            weights: Weights::load(device, kernels, model, &scratch, room)?,
            scratch,
            rings: device.upload(&shape.rings, "a list of rings")?,
            told: device.alloc(told, "a round's rows")?,
            tell: device.pinned(told)?,
            results: device.pinned(logits_at + 4 * wanted * config.vocab)?,
            logits_at,
            undo: device.alloc(0, "rows to go back to")?,
            undo_rows: 0,
            scores: device.alloc(0, "scores of index rows")?,
            capacity: 0,
            recordings: Recordings::default(),
            way: hyper::prepare(device, kernels, config.hidden)?,
            together,
            choose_together: indexer::together::prepare(device, kernels, index.heads)?,
            slice: room.slice,
            fast,
        })
    }

    /// The places of the rings, on the card.
    pub fn rings(&self) -> &Buffer {
        &self.rings
    }

    /// What the rings held before the step, and how many rows of each there is room for.
    pub fn undo(&self) -> (&Buffer, usize) {
        (&self.undo, self.undo_rows)
    }

    /// Room to save `rows` rows of every ring.
    pub fn reserve_undo(&mut self, setting: Setting<'_>, rows: usize) -> Result<(), CudaError> {
        if rows > self.undo_rows {
            let room = undo_room(rows, setting.shape.deepest());
            // What was recorded names the old addresses. The old memory goes first, so that there is
            // never room needed for both.
            self.recordings.clear();
            self.undo_rows = 0;
            self.undo = setting.device.alloc(0, "rows to go back to")?;
            self.undo = setting
                .device
                .alloc(room * setting.shape.ring_row_bytes(), "rows to go back to")?;
            self.undo_rows = room;
        }
        Ok(())
    }

    /// How many scores a row must have room for when the longest timeline of the round ends at
    /// `longest`, and the memory for it.
    pub fn reserve_scores(
        &mut self,
        setting: Setting<'_>,
        longest: usize,
    ) -> Result<usize, CudaError> {
        let config = &setting.model.config;
        let visible = longest / Compression::Csa.ratio();
        if visible <= config.indexer.top_k || !config.layers.contains(&Compression::Csa) {
            return Ok(0);
        }
        let capacity = choice::capacity(longest);
        if capacity > self.capacity {
            let what = "scores of index rows";
            let rows = choice::together(self.fast, self.slice, capacity);
            // As with what is saved, never the old and the new at once.
            self.recordings.clear();
            self.capacity = 0;
            self.scores = setting.device.alloc(0, what)?;
            self.scores = setting.device.alloc(4 * rows * capacity, what)?;
            self.capacity = capacity;
        }
        Ok(capacity)
    }

    /// Where what the kernels are told is written before a round.
    pub fn tell(&mut self) -> &mut [u8] {
        self.tell.bytes_mut()
    }

    /// The word in which the kernels reported a fault, after a round.
    pub fn fault(&self) -> u32 {
        self.results.values(0).first().copied().unwrap_or(u32::MAX)
    }

    /// The lists of the best tokens, after a round.
    pub fn lists(&self) -> impl Iterator<Item = &[u32]> {
        sample::lists(self.results.values(HEAD_BYTES))
    }

    /// Rows of logits of the last round that had any, which lie on the card until the next one.
    pub fn fetch_logits(
        &mut self,
        device: &Device,
        vocab: usize,
        rows: Range<usize>,
    ) -> Result<&[f32], CudaError> {
        let row = 4 * vocab;
        let bytes = self.logits_at..self.logits_at + rows.len() * row;
        if !rows.is_empty() {
            let from = self.scratch.logits + (rows.start * row) as u64;
            device.fetch(from, &mut self.results, bytes)?;
            device.finish()?;
        }
        Ok(&self.results.values(self.logits_at)[..rows.len() * vocab])
    }

    /// Forgets all recordings: what is recorded next may be marked for times.
    pub fn forget_recordings(&mut self) {
        self.recordings.clear();
    }

    /// The model on the card.
    pub fn weights(&self) -> &Weights {
        &self.weights
    }

    /// Runs a round to its end. Times are those of its launches, if they are wanted.
    pub fn run(&mut self, setting: Setting<'_>, key: Key) -> Result<Times, CudaError> {
        let mut recordings = mem::take(&mut self.recordings);
        let times = recordings.run(setting.device, key, || self.enqueue(setting, key));
        self.recordings = recordings;
        times
    }

    fn enqueue(&mut self, setting: Setting<'_>, key: Key) -> Result<(), CudaError> {
        let Setting { device, kernels, model, shape, frequencies } = setting;
        let told = self.told.address();
        let bytes = round::upload_bytes(key.rows, frequencies);
        // What a round before has marked and not taken is of no use.
        device.take_marks();
        device.enter(Part::Copies);
        device.mark(None)?;
        // SAFETY: the target has room for the longest round, and the bytes are written again only after
        // the round has been waited for.
        unsafe { device.send(&self.tell, 0..bytes, told) }?;
        let launches = Launches {
            device,
            kernels,
            model,
            shape,
            scratch: &self.scratch,
            key,
            rows: told + HEAD_BYTES as u64,
            turns: told + (HEAD_BYTES + key.rows * ROW_BYTES) as u64,
            turn_bytes: frequencies.turn_bytes(),
            temperatures: told + round::temperatures_at(key.rows, frequencies) as u64,
            slice: self.slice,
            fault: told,
            scores: self.scores.address(),
            way: self.way,
            together: self.together,
            choose_together: self.choose_together,
            fast: self.fast,
        };
        let save = SaveArgs {
            rings: self.rings.address(),
            rows: launches.rows,
            buffer: self.undo.address(),
            capacity: self.undo_rows as u64,
        };
        rows::save(device, kernels, shape.rings.len(), key.rows, &save)?;
        launches.forward(&self.weights)?;
        device.enter(Part::Copies);
        device.fetch(told, &mut self.results, 0..4)?;
        if key.wanted > 0 {
            let lists = HEAD_BYTES..HEAD_BYTES + key.wanted * sample::LIST_BYTES;
            device.fetch(self.scratch.lists, &mut self.results, lists)?;
        }
        device.mark(None)
    }
}

/// Who reads the streams next.
#[derive(Clone, Copy)]
enum For<'a> {
    Attention,
    Experts(usize, &'a Layer),
    Head,
}

/// The launches of one round.
struct Launches<'a> {
    device: &'a Device,
    kernels: &'a Kernels,
    model: &'a Model,
    shape: &'a Shape,
    scratch: &'a Scratch,
    key: Key,
    rows: u64,
    turns: u64,
    /// Bytes of a row's turns.
    turn_bytes: usize,
    /// At which weights are summed.
    temperatures: u64,
    /// Rows of a slice at most.
    slice: usize,
    fault: u64,
    scores: u64,
    way: hyper::Way,
    together: attend::tensor::Together,
    choose_together: indexer::together::Together,
    fast: bool,
}

impl Launches<'_> {
    fn forward(&self, weights: &Weights) -> Result<(), CudaError> {
        let (config, s) = (&self.model.config, self.scratch);
        let args = EmbedArgs {
            matrix: weights.embedding,
            rows: self.rows,
            streams: s.streams,
            count: config.streams as u32,
            unused: 0,
        };
        self.device.enter(Part::Embedding);
        embed::embed(self.device, self.kernels, self.key.rows, &args)?;
        let mut in_parts = false;
        for (l, (layer, of)) in weights.layers.iter().zip(&self.shape.layers).enumerate() {
            self.read(&layer.attn_hc, 2 * l, in_parts, For::Attention)?;
            self.attention(layer, of)?;
            self.read(&layer.ffn_hc, 2 * l + 1, false, For::Experts(l, layer))?;
            in_parts = self.experts(l, layer)?;
        }
        self.read(&weights.head_hc, 2 * weights.layers.len(), in_parts, For::Head)?;
        if self.key.wanted > 0 {
            self.device.enter(Part::Head);
            self.multiply(&weights.output, self.key.wanted)?;
            self.list()?;
        }
        Ok(())
    }

    /// Lists the best tokens of all rows that give logits, whoever wants what of them.
    fn list(&self) -> Result<(), CudaError> {
        let s = self.scratch;
        let places = sample::Places {
            logits: s.logits,
            temperatures: self.temperatures,
            largest: s.largest,
            sums: s.sums,
            lists: s.lists,
        };
        self.device.enter(Part::Copies);
        let vocab = self.model.config.vocab;
        sample::list(self.device, self.kernels, self.key.wanted, vocab, places)
    }

    fn multiply(&self, products: &Products, rows: usize) -> Result<(), CudaError> {
        products.multiply(self.device, self.kernels, rows)
    }

    /// Ends the block before, `stage`, whose outputs may be left in parts, and makes the input of the next.
    fn read(
        &self,
        next: &Hyper,
        stage: usize,
        in_parts: bool,
        whose: For<'_>,
    ) -> Result<(), CudaError> {
        self.device.enter(Part::Streams);
        let (config, s) = (&self.model.config, self.scratch);
        let head = matches!(whose, For::Head);
        let numbers = match whose {
            For::Experts(number, layer) if Numbers::wanted_by(layer.experts[0].first.format) => {
                let few =
                    experts::tensor::takes_few(&self.experts_of(number, layer), self.key.rows);
                s.halves.numbers.of(few)
            }
            _ => Numbers::default(),
        };
        let (out, parts) = match in_parts {
            true => (s.halves.parts, config.experts_used as u32 + 1),
            false => (s.out, 0),
        };
        let args = hyper::HyperArgs {
            function: next.function,
            out,
            mix: s.mix,
            streams: s.streams,
            partial: s.partial,
            base: next.base,
            scale: next.scale,
            norm: next.norm,
            x: if head { s.head } else { s.x },
            half: if head { s.halves.head } else { s.halves.x },
            numbers,
            rows: self.rows,
            fault: self.fault,
            count: self.key.rows as u32,
            per_block: 0,
            hidden: config.hidden as u32,
            n: config.streams as u32,
            mix_rows: config.mix_rows() as u32,
            chunks: 0,
            write: (stage > 0).into(),
            iterations: config.sinkhorn_iterations as u32,
            head: head.into(),
            stage: stage as u32,
            hc_eps: config.hc_eps,
            rms_eps: config.rms_eps,
            parts,
            unused: 0,
        };
        hyper::run(self.device, self.kernels, self.way, args)
    }

    /// A layer's experts, and what they take and give.
    fn experts_of(&self, number: usize, layer: &Layer) -> ExpertsArgs {
        let (config, s) = (&self.model.config, self.scratch);
        let [gate, up, down] = layer.experts;
        let [shared_gate, shared_up, shared_down] = layer.shared;
        ExpertsArgs {
            gate,
            up,
            down,
            shared_gate,
            shared_up,
            shared_down,
            x: s.x,
            picked: s.picked,
            weights: s.weights,
            middle: s.middle,
            out: s.out,
            used: config.experts_used as u32,
            inner: config.expert_hidden as u32,
            hidden: config.hidden as u32,
            unused: 0,
            limit: config.swiglu_limit[number],
            shared_limit: config.swiglu_limit_shared[number],
        }
    }

    /// Says whether the outputs are left in parts.
    fn experts(&self, number: usize, layer: &Layer) -> Result<bool, CudaError> {
        let (config, s, rows) = (&self.model.config, self.scratch, self.key.rows);
        self.device.enter(Part::Route);
        let route = RouteArgs {
            rows: self.rows,
            logits: s.router,
            table: layer.table,
            bias: layer.bias,
            picked: s.picked,
            weights: s.weights,
            experts: config.experts as u32,
            used: config.experts_used as u32,
            scale: config.routed_scale,
            unused: 0,
        };
        self.device.enter(Part::ExpertsIn);
        let args = self.experts_of(number, layer);
        if let (Products::Halves(router), Products::Halves(down)) =
            (&layer.router, &layer.shared_output)
            && experts::tensor::suits(&args)
        {
            let (halves, router_format) = (&s.halves, layer.router_format);
            let adds_parts = hyper::adds_parts(self.way, rows, config.experts_used + 1);
            let beside = Beside { router, router_format, down, arrived: s.arrivals, adds_parts };
            return experts::tensor::run(
                self.device,
                self.kernels,
                rows,
                &args,
                &route,
                halves,
                beside,
            );
        }
        self.multiply(&layer.router, rows)?;
        experts::route(self.device, self.kernels, rows, &route)?;
        experts::run(self.device, self.kernels, rows, &args)?;
        Ok(false)
    }
}
