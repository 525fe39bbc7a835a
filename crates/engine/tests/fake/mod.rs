//! An executor without a model: its state is a hash chain over the tokens, so a session that ever
//! lost, repeated or misplaced one gives other logits for good.

// Each test file uses its part of it.
#![allow(dead_code)]

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
};

use ds4_engine::{
    Engine, ExecError, Executor, Feed, LayerState, Logits, Pending, Shortlist, SlotId, SlotState,
    StateCost, Want, first_needed,
};
use ds4_host::Region;
use ds4_model::{
    Compression, Config, Fingerprint, HyperWeights, Indexer, Matrix, Model, Rope, Rounding, Weights,
};
use ds4_quant::{Format, IndexRow, KvRow};

pub const VOCAB: usize = 50;
pub const WINDOW: usize = 5;

/// How the fake behaves.
#[derive(Clone, Copy, Debug)]
pub struct Behaviour {
    pub rounding: Rounding,
    /// How many of the last positions can be taken back.
    pub reach: usize,
    /// Lengths that are multiples of this can be gone back to from anywhere; 0 is none.
    pub boundary: usize,
    /// Tokens of a shortlist; 0 is a backend that makes none.
    pub shortlist: usize,
    /// Whether a row that a shortlist was given of is still at hand until the next step.
    pub recalls: bool,
}

impl Default for Behaviour {
    fn default() -> Self {
        Behaviour {
            rounding: Rounding::Official,
            reach: 4,
            boundary: 0,
            shortlist: 0,
            recalls: false,
        }
    }
}

/// What goes wrong on purpose.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Fault {
    None,
    /// The step after this many fails.
    StepAfter(usize),
    Panic,
    ShortLogits,
    LongTruncate,
    TruncateFails,
    WrongExport,
}

/// What a test sees of the fake from outside.
pub struct Watch {
    pub evaluated: AtomicUsize,
    pub open: AtomicUsize,
    fault: Mutex<Fault>,
}

impl Watch {
    pub fn inject(&self, fault: Fault) {
        *self.fault.lock().unwrap() = fault;
    }

    fn fault(&self) -> Fault {
        *self.fault.lock().unwrap()
    }

    fn step_fails(&self) -> bool {
        let mut fault = self.fault.lock().unwrap();
        match *fault {
            Fault::StepAfter(0) => true,
            Fault::StepAfter(n) => {
                *fault = Fault::StepAfter(n - 1);
                false
            }
            _ => false,
        }
    }
}

pub fn config() -> Config {
    Config {
        name: "fake".into(),
        hidden: 1,
        vocab: VOCAB,
        heads: 1,
        head_dim: 8,
        rope: Rope {
            dims: 4,
            base: 1e4,
            compressed_base: 1.6e5,
            factor: 16.0,
            original_context: 65_536.0,
            beta_fast: 32.0,
            beta_slow: 1.0,
        },
        q_rank: 1,
        o_groups: 1,
        o_rank: 1,
        window: WINDOW,
        layers: vec![Compression::None, Compression::Csa, Compression::Hca],
        indexer: Indexer { heads: 1, dim: 4, top_k: 2 },
        experts: 1,
        experts_used: 1,
        expert_hidden: 1,
        hash_layers: 0,
        routed_scale: 1.0,
        swiglu_limit: vec![10.0; 3],
        swiglu_limit_shared: vec![10.0; 3],
        streams: 1,
        sinkhorn_iterations: 1,
        hc_eps: 1e-6,
        rms_eps: 1e-6,
        max_context: 1000,
    }
}

pub fn fingerprint() -> Fingerprint {
    Fingerprint([7; 32])
}

fn model() -> Model {
    let matrix = || {
        let data = Region::from_vec(vec![0; 4]);
        Matrix::new("m".into(), Format::F32, (1, 1), data, None).unwrap()
    };
    let weights = Weights {
        embedding: matrix(),
        layers: Vec::new(),
        head_hc: HyperWeights { function: matrix(), base: vec![0.0], scale: vec![0.0] },
        head_norm: vec![0.0],
        output: matrix(),
    };
    Model { config: config(), weights, fingerprint: fingerprint() }
}

/// An engine on a fake, and the watch on it.
pub fn engine(behaviour: Behaviour) -> (Arc<Engine>, Arc<Watch>) {
    let watch = Arc::new(Watch {
        evaluated: AtomicUsize::new(0),
        open: AtomicUsize::new(0),
        fault: Mutex::new(Fault::None),
    });
    let fake = Fake {
        behaviour,
        model: Arc::new(model()),
        watch: Arc::clone(&watch),
        slots: BTreeMap::new(),
        latest: BTreeMap::new(),
        next: 0,
    };
    (Engine::new(Box::new(fake)), watch)
}

/// The logits after `tokens`, by the definition and nothing else.
pub fn logits_after(tokens: &[u32]) -> Vec<f32> {
    logits_of(tokens.iter().fold(0, |chain, &token| link(chain, token)))
}

fn link(chain: u64, token: u32) -> u64 {
    (chain ^ (u64::from(token) + 1)).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29)
}

fn logits_of(chain: u64) -> Vec<f32> {
    (0..VOCAB as u64).map(|id| (link(chain, id as u32) >> 40) as f32 / 1e6).collect()
}

/// What a backend tells of a row, its sum as far off as it may be.
fn shortlist_of(row: &[f32], longest: usize, temperature: f32) -> Shortlist {
    let list = Shortlist::of(row, longest, temperature);
    let (ids, values): (Vec<u32>, Vec<f32>) = list.tokens().unzip();
    let sum = list.sum() * (1.0 - 0.99 * Shortlist::SUM_ERROR);
    Shortlist::new(&ids, &values, VOCAB, temperature, sum as f32)
}

struct Fake {
    behaviour: Behaviour,
    model: Arc<Model>,
    watch: Arc<Watch>,
    slots: BTreeMap<SlotId, Slot>,
    /// Rows of the last step, if it is to be remembered.
    latest: BTreeMap<SlotId, Vec<f32>>,
    next: u64,
}

#[derive(Clone)]
struct Slot {
    len: usize,
    /// The chain at each length that can be gone back to.
    chain: BTreeMap<usize, u64>,
}

impl Slot {
    fn empty() -> Slot {
        Slot { len: 0, chain: BTreeMap::from([(0, 0)]) }
    }
}

impl Fake {
    fn add(&mut self, slot: Slot) -> SlotId {
        self.next += 1;
        self.watch.open.fetch_add(1, SeqCst);
        self.slots.insert(SlotId(self.next), slot);
        SlotId(self.next)
    }

    fn slot(&self, slot: SlotId) -> Result<&Slot, ExecError> {
        self.slots.get(&slot).ok_or(ExecError::NoSuchSlot(slot))
    }

    fn slot_mut(&mut self, slot: SlotId) -> Result<&mut Slot, ExecError> {
        self.slots.get_mut(&slot).ok_or(ExecError::NoSuchSlot(slot))
    }

    fn row_bytes(&self) -> (usize, usize) {
        match self.behaviour.rounding {
            Rounding::Official => {
                (KvRow::new(8, 4).unwrap().bytes(), IndexRow::new(4).unwrap().bytes())
            }
            Rounding::Plain => (32, 16),
        }
    }
}

impl Executor for Fake {
    fn name(&self) -> &'static str {
        "fake"
    }

    fn model(&self) -> &Arc<Model> {
        &self.model
    }

    fn rounding(&self) -> Rounding {
        self.behaviour.rounding
    }

    fn open(&mut self) -> Result<SlotId, ExecError> {
        Ok(self.add(Slot::empty()))
    }

    fn close(&mut self, slot: SlotId) {
        if self.slots.remove(&slot).is_some() {
            self.watch.open.fetch_sub(1, SeqCst);
        }
    }

    fn len(&self, slot: SlotId) -> Result<usize, ExecError> {
        Ok(self.slot(slot)?.len)
    }

    fn step(&mut self, batch: &[Feed<'_>], logits: &mut Logits) -> Result<(), ExecError> {
        let Behaviour { reach, boundary, shortlist, recalls, .. } = self.behaviour;
        self.latest.clear();
        // Whatever a failed step leaves here must not be taken for logits.
        *logits = Logits { vocab: VOCAB, values: vec![f32::NAN; VOCAB], ..Logits::default() };
        if self.watch.step_fails() {
            return Err(ExecError::Machine("out of luck".into()));
        }
        assert_ne!(self.watch.fault(), Fault::Panic, "the fake was told to panic");
        logits.values.clear();
        let watch = Arc::clone(&self.watch);
        let mut latest = BTreeMap::new();
        for feed in batch {
            assert!(!feed.tokens.is_empty(), "feeds are never empty");
            let slot = self.slot_mut(feed.slot)?;
            for (i, &token) in feed.tokens.iter().enumerate() {
                let next = link(slot.chain[&slot.len], token);
                slot.len += 1;
                slot.chain.insert(slot.len, next);
                let last = i + 1 == feed.tokens.len();
                let row = logits_of(next);
                match feed.want {
                    Want::Shortlist { temperature } if last && shortlist > 0 => {
                        logits.shortlists.push(shortlist_of(&row, shortlist, temperature));
                        if recalls {
                            latest.insert(feed.slot, row);
                        }
                    }
                    Want::All => logits.values.extend(row),
                    Want::Last | Want::Shortlist { .. } if last => logits.values.extend(row),
                    _ => {}
                }
            }
            let len = slot.len;
            slot.chain.retain(|&at, _| {
                at == 0 || at + reach >= len || (boundary > 0 && at.is_multiple_of(boundary))
            });
            watch.evaluated.fetch_add(feed.tokens.len(), SeqCst);
        }
        if self.watch.fault() == Fault::ShortLogits {
            logits.values.pop();
            logits.shortlists.pop();
        }
        self.latest = latest;
        Ok(())
    }

    fn recall(&mut self, slot: SlotId) -> Result<Option<Vec<f32>>, ExecError> {
        Ok(self.latest.get(&slot).cloned())
    }

    fn truncate(&mut self, slot: SlotId, len: usize) -> Result<usize, ExecError> {
        match self.watch.fault() {
            Fault::TruncateFails => return Err(ExecError::Machine("stuck".into())),
            Fault::LongTruncate => return Ok(len + 1),
            _ => {}
        }
        self.latest.remove(&slot);
        let slot = self.slot_mut(slot)?;
        slot.chain.retain(|&at, _| at <= len);
        slot.len = slot.chain.keys().last().copied().unwrap();
        Ok(slot.len)
    }

    fn fork(&mut self, slot: SlotId) -> Result<SlotId, ExecError> {
        let copy = self.slot(slot)?.clone();
        Ok(self.add(copy))
    }

    fn export(&self, slot: SlotId, rewind: usize) -> Result<SlotState, ExecError> {
        let slot = self.slot(slot)?;
        let len = slot.len;
        assert!(rewind <= len, "nobody can go back further than the start");
        let reachable = (0..=len).rev().take_while(|at| slot.chain.contains_key(at)).count() - 1;
        let rewind = rewind.min(reachable);
        let (row, index_row) = self.row_bytes();
        let window_rows = len.min(WINDOW - 1 + rewind);
        // The chain travels in the first bytes of the window rows, as far as one may go back.
        let mut window = vec![0; window_rows * row];
        for (bytes, position) in window.chunks_exact_mut(row).zip(len - window_rows..) {
            if position + 1 >= len - rewind {
                bytes[..8].copy_from_slice(&slot.chain[&(position + 1)].to_le_bytes());
            }
        }
        let pending = |ratio: usize, windows: usize, dim: usize| {
            let positions = len - first_needed(len - rewind, ratio, windows);
            let values = (0..positions * windows * dim).map(|i| i as f32);
            Pending { kv: values.clone().collect(), score: values.map(|x| -x).collect() }
        };
        let mut layers = vec![
            LayerState { window, ..LayerState::default() },
            LayerState {
                window: vec![1; window_rows * row],
                compressed: vec![2; len / 4 * row],
                index: vec![3; len / 4 * index_row],
                pending: pending(4, 2, 8),
                index_pending: pending(4, 2, 4),
            },
            LayerState {
                window: vec![4; window_rows * row],
                compressed: vec![5; len / 128 * row],
                pending: pending(128, 1, 8),
                ..LayerState::default()
            },
        ];
        if self.watch.fault() == Fault::WrongExport {
            layers[1].index.push(0);
        }
        Ok(SlotState { len, rounding: self.behaviour.rounding, rewind, layers })
    }

    fn import(&mut self, state: &SlotState) -> Result<SlotId, ExecError> {
        let (row, _) = self.row_bytes();
        let mut slot = Slot { len: state.len, ..Slot::empty() };
        let rows = state.layers[0].window.chunks_exact(row).rev();
        for (back, bytes) in rows.enumerate().take(state.rewind + 1) {
            let chain = u64::from_le_bytes(*bytes.first_chunk().unwrap());
            slot.chain.insert(state.len - back, chain);
        }
        Ok(self.add(slot))
    }

    fn state_cost(&self) -> StateCost {
        StateCost { fixed: 1, per_1k_tokens: 2 }
    }

    fn state_bytes(&self) -> usize {
        self.slots.values().map(|slot| slot.chain.len() * 8).sum()
    }
}
