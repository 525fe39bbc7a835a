//! Models: whatever binds can be audited, planned for, checked for damage and run.

use std::{ops::ControlFlow, path::PathBuf, sync::Arc};

use ds4_cpu::{Activations, CpuExecutor, CpuOptions};
use ds4_engine::{DEFAULT_CHUNK, Engine, MemoryPlan, SessionOptions, StateCost};
use ds4_gguf::{Gguf, Safetensors};
use ds4_host::Region;
use ds4_model::{Model, Rounding, Source, reference::Reference};
use ds4_quant::Format;

use crate::{
    refusal::accepted,
    tiny::{self, Published},
};

/// What ends the `config.json` in an input; the safetensors follow.
const SEPARATOR: u8 = 0;
/// Enough for a compressed row, and for a query that sees one.
const TOKENS: u32 = 6;

/// A GGUF, or a `config.json`, a zero byte and a safetensors file.
pub fn bind(data: &[u8]) -> bool {
    let source = if data.starts_with(b"GGUF") {
        let gguf = Gguf::from_region(Region::from_vec(data.to_vec()), "fuzz.gguf");
        gguf.ok().and_then(|gguf| accepted(Source::from_gguf(gguf)))
    } else {
        checkpoint(data)
    };
    source.is_some_and(|source| use_source(&source))
}

fn checkpoint(data: &[u8]) -> Option<Source> {
    let mut parts = data.splitn(2, |&byte| byte == SEPARATOR);
    let config = serde_json::from_slice(parts.next()?).ok()?;
    let tensors = Region::from_vec(parts.next()?.to_vec());
    let tensors = Safetensors::from_region(tensors, "fuzz.safetensors").ok()?;
    Some(Source::Checkpoint { path: PathBuf::from("fuzz"), config, tensors })
}

pub(crate) fn use_source(source: &Source) -> bool {
    let Some(config) = accepted(source.config()) else { return false };
    for rounding in [Rounding::Plain, Rounding::Official] {
        if let Some(state) = accepted(StateCost::of(&config, rounding, 128)) {
            let plan = MemoryPlan::new(&config, u64::MAX / 2, state, DEFAULT_CHUNK);
            accepted(plan.check(1 << 30, 3, config.max_context as u64));
        }
    }
    // A description of thousands of layers with thousands of experts each is only long to list.
    if config.layers.len() * config.experts <= 1 << 12 {
        source.audit(&config);
    }
    let Some(model) = accepted(Model::bind(source)) else { return false };
    let mut row = Vec::new();
    for matrix in model.weights.matrices() {
        matrix.damage();
        row.resize(matrix.cols(), 0.0);
        matrix.decode_row(0, &mut row);
        matrix.decode_row(matrix.rows() - 1, &mut row);
    }
    run(Arc::new(model));
    true
}

fn run(model: Arc<Model>) {
    let vocab = model.config.vocab as u32;
    let tokens: Vec<u32> = (0..TOKENS).map(|i| i % vocab).collect();
    for (rounding, activations) in
        [(Rounding::Plain, Activations::Exact), (Rounding::Official, Activations::Int8)]
    {
        let options =
            CpuOptions { threads: 1, activations, rounding, rewind: 2, ..CpuOptions::default() };
        // What the executor refuses has rows that cannot be packed; the reference packs none.
        let Some(cpu) = accepted(CpuExecutor::new(Arc::clone(&model), options)) else { continue };
        let mut reference = Reference::<f32>::new(&model, rounding);
        for &token in &tokens {
            reference.step(token);
        }
        let engine = Engine::new(Box::new(cpu));
        let options = SessionOptions { context: model.config.max_context, chunk: 4 };
        let mut session = engine.session(options).expect("options within the model's");
        if accepted(session.sync(&tokens, &mut |_| ControlFlow::Continue(()))).is_some() {
            accepted(session.truncate(1));
        }
    }
}

pub fn seeds() -> Vec<Vec<u8>> {
    let checkpoint = |config, published| {
        let (config, tensors) = tiny::checkpoint(config, published);
        [config.to_string().as_bytes(), &[SEPARATOR], &tensors].concat()
    };
    vec![
        tiny::gguf(&tiny::config(), Format::F32),
        tiny::gguf(&tiny::wide(), Format::Q8_0),
        tiny::gguf(&tiny::wide(), Format::Mxfp4),
        checkpoint(&tiny::config(), Published::Plain),
        checkpoint(&tiny::wide(), Published::Scaled),
    ]
}
