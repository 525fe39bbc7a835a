//! A benchmark of a backend with a memory of its own, which times its stages only when it is told to,
//! because that slows it down.

use std::{
    collections::BTreeMap,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
    },
};

use ds4_engine::{
    Engine, ExecError, Executor, Feed, Logits, ReadRate, SessionOptions, SlotId, SlotState, Stage,
    StateCost,
};
use ds4_lab::bench::{BenchOptions, Report, Subject, bench, json, roofline, table};
use ds4_model::{Model, Rounding};

/// What the test sees of the card.
#[derive(Default)]
struct Watch {
    opened: AtomicUsize,
    timing: AtomicBool,
    timed_steps: AtomicUsize,
}

/// Computes nothing. A step takes a microsecond and reads ten bytes, or so it says.
struct Card {
    model: Arc<Model>,
    slots: BTreeMap<SlotId, usize>,
    steps: u64,
    watch: Arc<Watch>,
}

impl Card {
    fn add(&mut self, len: usize) -> SlotId {
        let id = SlotId(self.slots.keys().last().map_or(0, |last| last.0 + 1));
        self.slots.insert(id, len);
        id
    }
}

impl Executor for Card {
    fn name(&self) -> &'static str {
        "card"
    }

    fn model(&self) -> &Arc<Model> {
        &self.model
    }

    fn rounding(&self) -> Rounding {
        Rounding::Official
    }

    fn open(&mut self) -> Result<SlotId, ExecError> {
        self.watch.opened.fetch_add(1, SeqCst);
        Ok(self.add(0))
    }

    fn close(&mut self, slot: SlotId) {
        self.slots.remove(&slot);
    }

    fn len(&self, slot: SlotId) -> Result<usize, ExecError> {
        self.slots.get(&slot).copied().ok_or(ExecError::NoSuchSlot(slot))
    }

    fn step(&mut self, batch: &[Feed<'_>], logits: &mut Logits) -> Result<(), ExecError> {
        let vocab = self.model.config.vocab;
        let rows: usize = batch.iter().map(|feed| feed.want.rows(feed.tokens.len())).sum();
        *logits = Logits { vocab, values: vec![0.0; rows * vocab], ..Logits::default() };
        for feed in batch {
            *self.slots.get_mut(&feed.slot).unwrap() += feed.tokens.len();
        }
        self.steps += 1;
        if self.watch.timing.load(SeqCst) {
            self.watch.timed_steps.fetch_add(1, SeqCst);
        }
        Ok(())
    }

    fn truncate(&mut self, slot: SlotId, len: usize) -> Result<usize, ExecError> {
        self.slots.insert(slot, len);
        Ok(len)
    }

    fn fork(&mut self, slot: SlotId) -> Result<SlotId, ExecError> {
        let len = self.len(slot)?;
        Ok(self.add(len))
    }

    fn export(&self, _: SlotId, _: usize) -> Result<SlotState, ExecError> {
        Err(ExecError::Machine("there is no state".into()))
    }

    fn import(&mut self, _: &SlotState) -> Result<SlotId, ExecError> {
        Err(ExecError::Machine("there is no state".into()))
    }

    fn state_cost(&self) -> StateCost {
        StateCost { fixed: 0, per_1k_tokens: 0 }
    }

    fn state_bytes(&self) -> usize {
        0
    }

    fn stages(&self) -> Vec<Stage> {
        let (nanoseconds, bytes) = (1000 * self.steps, 10 * self.steps);
        match self.watch.timing.load(SeqCst) {
            true => vec![Stage { name: "everything", nanoseconds, bytes, operations: 0 }],
            false => Vec::new(),
        }
    }

    fn reset_stages(&mut self) {
        self.steps = 0;
    }

    fn time_stages(&mut self, on: bool) -> bool {
        self.watch.timing.store(on, SeqCst);
        true
    }

    fn card(&self) -> Option<String> {
        Some("Example GPU".into())
    }

    fn read_rate(&mut self) -> Result<Option<ReadRate>, ExecError> {
        Ok(Some(ReadRate { sample_bytes: 1 << 30, bytes_per_second: 5e12 }))
    }
}

fn measure(stages: bool, decode: usize) -> (Report, Arc<Watch>) {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/oracle");
    let model = Arc::new(Model::open(&folder.join("sparse_a-f32.gguf")).unwrap());
    let watch = Arc::new(Watch::default());
    let (slots, steps) = (BTreeMap::new(), 0);
    let card = Card { model, slots, steps, watch: Arc::clone(&watch) };
    let options = BenchOptions {
        frontiers: vec![8, 24],
        decode,
        batches: vec![1, 4],
        runs: 3,
        warm_up: 1,
        session: SessionOptions { context: 24 + decode + 1, chunk: 4 },
        never: None,
        stages,
    };
    let engine = Engine::new(Box::new(card));
    let subject = Subject { backend: "card".into(), ..Subject::default() };
    (bench(&engine, subject, &[1; 24], options, &mut |_| {}).unwrap(), watch)
}

#[test]
fn stages_are_timed_in_a_run_of_their_own() {
    let (report, watch) = measure(true, 20);
    assert_eq!(watch.opened.load(SeqCst), 5, "one to warm up, three that count, one for stages");
    assert!(!watch.timing.load(SeqCst), "and no more");
    // Six chunks of prompt; at two lengths, for two batch sizes, 2 steps to get going and 8 that count.
    assert_eq!(watch.timed_steps.load(SeqCst), 6 + 2 * 2 * 10);
    for frontier in &report.frontiers {
        let [prompt] = &frontier.prefill_stages[..] else { panic!() };
        assert!((prompt.seconds.median() - 1e-6 / 4.0).abs() < 1e-12, "4 tokens a step");
        for decode in &frontier.decode {
            let [stage] = &decode.stages[..] else { panic!() };
            assert!((stage.seconds.median() - 1e-6).abs() < 1e-12, "for each step");
            assert_eq!(stage.bytes, 10.0);
            assert_eq!(decode.rate.runs.len(), 3, "the run for stages does not count");
        }
    }
    let text = table(&report) + &roofline(&report);
    for part in ["Example GPU, which reads 5000.0", "a run of their own", "everything"] {
        assert!(text.contains(part), "{part}: {text}");
    }
    let json = json(&report);
    assert_eq!(json["limits"]["card"], "Example GPU");
    assert_eq!(json["limits"]["read_bytes_per_second"]["median"], 5e12);
    assert!(json["limits"]["integer_peak"].is_null());
    assert!(json["decode_bandwidth_share"].as_f64().unwrap() > 0.0);
}

#[test]
fn nobody_who_does_not_ask_pays_for_stages() {
    let (report, watch) = measure(false, 20);
    assert_eq!((watch.opened.load(SeqCst), watch.timed_steps.load(SeqCst)), (4, 0));
    assert!(roofline(&report).contains("measures no stages"));
}

/// There must be room for the steps that get it going.
#[test]
fn a_short_decode_is_long_enough() {
    for (decode, steps) in [(0, 0), (1, 1), (2, 2), (5, 5), (9, 9), (10, 10), (11, 10)] {
        let (_, watch) = measure(true, decode);
        assert_eq!(watch.timed_steps.load(SeqCst), 6 + 2 * 2 * steps, "{decode}");
    }
}
