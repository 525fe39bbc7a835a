//! Timing changes how long a step takes, and nothing else. Without a GPU this says so and passes.

mod card;

use std::sync::Arc;

use ds4_cuda::{CudaExecutor, CudaOptions};
use ds4_engine::{Executor, Feed, Logits, SlotId, Want};

fn decode(cuda: &mut CudaExecutor, slot: SlotId, tokens: &[u32]) -> Vec<u32> {
    let (mut all, mut logits) = (Vec::new(), Logits::default());
    for token in tokens.chunks(1) {
        cuda.step(&[Feed { slot, tokens: token, want: Want::Last }], &mut logits).unwrap();
        all.extend(logits.values.iter().map(|x| x.to_bits()));
    }
    all
}

#[test]
fn stages_are_timed_when_they_are_asked_for() {
    if !card::is_here() {
        return;
    }
    let model = card::model("kquant_a-ds4_iq2.gguf");
    let mut cuda = CudaExecutor::new(Arc::clone(&model), CudaOptions::default()).unwrap();
    let tokens: Vec<u32> = (0..12).map(|i| i * 37 % model.config.vocab as u32).collect();
    let slot = cuda.open().unwrap();
    let want = decode(&mut cuda, slot, &tokens);
    assert!(cuda.stages().is_empty(), "nobody asked");

    assert!(cuda.time_stages(true));
    let slot = cuda.open().unwrap();
    let mut got = decode(&mut cuda, slot, &tokens[..2]);
    cuda.reset_stages();
    got.extend(decode(&mut cuda, slot, &tokens[2..]));
    assert_eq!(got, want, "not a bit differs");
    let stages = cuda.stages();
    for name in ["copies", "attention in", "queries", "attend", "experts in", "experts out", "head"]
    {
        let stage = stages.iter().find(|stage| stage.name == name).unwrap();
        assert!(stage.nanoseconds > 0, "{stages:?}");
    }
    let head = stages.iter().find(|stage| stage.name == "head").unwrap();
    assert_eq!(head.bytes, 10 * model.weights.output.data().len() as u64, "once a step");
    let kernels = cuda.kernel_times();
    let embeds = kernels.iter().find(|(name, ..)| *name == "embed").unwrap().1;
    assert_eq!(embeds, 10);

    cuda.time_stages(false);
    assert!(cuda.stages().is_empty());
    let rate = cuda.read_rate().unwrap().unwrap();
    assert!(rate.sample_bytes > 0 && rate.bytes_per_second > 1e9, "{rate:?}");
}
