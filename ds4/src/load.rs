//! Opening a model: file, tokenizer, weights, engine, and the memory they need, in that order.

use std::{fs, path::Path, sync::Arc, time::Instant};

use ds4_cpu::{Activations, CpuExecutor, CpuOptions};
use ds4_cuda::{Card, CudaError, CudaExecutor, CudaOptions, memory_plan};
use ds4_engine::{DEFAULT_CHUNK, Engine, Executor, MemoryPlan, SessionOptions, StateCost};
use ds4_host::Memory;
use ds4_model::{Model, Source};
use ds4_tokenizer::Tokenizer;

use crate::{
    builtin,
    fault::Fault,
    flags::Backend,
    plan::{ModelChoice, Setup},
    term::{Class, Term, human_bytes},
};

/// No tokenizer is larger; the published one has 8 MB.
const MAX_TOKENIZER_BYTES: u64 = 256 << 20;

/// A model ready to be talked to.
pub struct Loaded {
    pub engine: Arc<Engine>,
    pub tokenizer: Tokenizer,
    pub memory: MemoryPlan,
    /// Bytes that were free on the card before it was loaded there; `None` on the CPU.
    pub card: Option<u64>,
    /// The file, for people.
    pub name: String,
    pub session: SessionOptions,
}

/// Opens the files of a model.
pub fn open(choice: &ModelChoice, term: Term) -> Result<Source, Fault> {
    match choice {
        ModelChoice::File(path) => Ok(Source::open(path)?),
        ModelChoice::BuiltIn => {
            let model = builtin::open()?;
            term.say(Class::Warning, &builtin::notice(&model));
            Ok(Source::from_gguf(model)?)
        }
    }
}

/// The tokenizer of a model: inside a GGUF, beside the tensors of a checkpoint.
pub fn tokenizer(source: &Source) -> Result<Tokenizer, Fault> {
    match source.gguf() {
        Some(gguf) => Ok(Tokenizer::from_gguf(gguf)?),
        None => {
            let path = source.path().join("tokenizer.json");
            let json = read_limited(&path, MAX_TOKENIZER_BYTES)?;
            Ok(Tokenizer::from_hf_json(&json, &path.display().to_string())?)
        }
    }
}

fn read_limited(path: &Path, most: u64) -> Result<Vec<u8>, Fault> {
    let fault = |error| Fault::failed(format!("{}: {error}", path.display()));
    let size = fs::metadata(path).map_err(fault)?.len();
    if size > most {
        return Err(Fault::failed(format!("{}: {size} bytes are too many", path.display())));
    }
    fs::read(path).map_err(fault)
}

/// Opens a model and everything that is needed to run it.
pub fn load(setup: &Setup, term: Term) -> Result<Loaded, Fault> {
    let start = Instant::now();
    let mut progress = term.progress();
    let source = open(&setup.model, term)?;
    let name = source.path().display().to_string();
    progress.flash(&format!("loading {name}"));
    let tokenizer = tokenizer(&source)?;
    let model = Arc::new(Model::bind(&source)?);
    let config = &model.config;
    if tokenizer.vocab_size() > config.vocab {
        let (tokens, rows) = (tokenizer.vocab_size(), config.vocab);
        return Err(Fault::failed(format!(
            "{name}: the tokenizer has {tokens} tokens, the embedding {rows} rows"
        )));
    }
    let context = setup.context_for(config.max_context);
    if let Some(why) = &context.why {
        term.say(Class::Warning, why);
    }
    let context = context.effective;
    let weights = weight_bytes(&source);
    progress.clear();
    let Chosen { executor, memory, card } = choose(setup, &model, weights, context, term)?;
    let chunk = setup.chunk.unwrap_or_else(|| executor.chunk());
    let session = SessionOptions { context, chunk };
    let engine = Engine::new(executor);
    let state = memory.session.bytes(session.context as u64);
    term.say(
        Class::Plain,
        &format!(
            "{}: {} layers, {} of weights; a context of {} takes {} when it is full ({}, {:.1} s)",
            if config.name.is_empty() { &name } else { &config.name },
            config.layers.len(),
            human_bytes(weights),
            session.context,
            human_bytes(state),
            engine.backend(),
            start.elapsed().as_secs_f64(),
        ),
    );
    Ok(Loaded { engine, tokenizer, memory, card, name, session })
}

impl Loaded {
    /// Refuses a context that has no room where the sessions live.
    pub fn check_context(&self, context: usize, term: Term) -> Result<(), Fault> {
        match self.card {
            Some(free) => Ok(self.memory.check(free, 1, context as u64)?),
            None => check_memory(&self.memory, context, term),
        }
    }
}

/// What will compute, and the memory that it takes.
struct Chosen {
    executor: Box<dyn Executor>,
    memory: MemoryPlan,
    card: Option<u64>,
}

/// Asked for, a card that cannot is an error; left to us, it is a reason to use the CPU, which those who
/// have a card want to know.
fn choose(
    setup: &Setup,
    model: &Arc<Model>,
    weights: u64,
    context: usize,
    term: Term,
) -> Result<Chosen, Fault> {
    if setup.backend != Backend::Cpu {
        match on_a_card(setup, model, context, term) {
            Ok(Some(chosen)) => return Ok(chosen),
            Ok(None) => {}
            Err(Fault::Failed(why)) if setup.backend == Backend::Auto => {
                term.say(Class::Warning, &format!("the CPU computes, not the GPU: {why}"));
            }
            Err(fault) => return Err(fault),
        }
    }
    let state = StateCost::of(&model.config, setup.rounding, CpuOptions::default().rewind)?;
    let chunk = setup.chunk.unwrap_or(DEFAULT_CHUNK);
    let memory = MemoryPlan::new(&model.config, weights, state, chunk);
    check_memory(&memory, context, term)?;
    let executor = Box::new(CpuExecutor::new(Arc::clone(model), cpu_options(setup))?);
    Ok(Chosen { executor, memory, card: None })
}

/// Plans, says the plan, and loads. `None` on a machine without a card, if none was asked for.
fn on_a_card(
    setup: &Setup,
    model: &Arc<Model>,
    context: usize,
    term: Term,
) -> Result<Option<Chosen>, Fault> {
    let card = match Card::open(setup.gpu) {
        Err(CudaError::NoDriver | CudaError::NoSuchGpu { found: 0, .. })
            if setup.backend == Backend::Auto =>
        {
            return Ok(None);
        }
        card => card?,
    };
    let options = cuda_options(setup);
    let chunk = setup.chunk.unwrap_or(options.chunk());
    let memory = memory_plan(card.info(), model, &options, chunk)?;
    let (name, free, context) = (&card.info().name, card.free_memory()?, context as u64);
    memory
        .check(free, 1, context)
        .map_err(|error| Fault::failed(format!("{name} has no room for this: {error}")))?;
    let plan = memory.describe(free, context, model.config.max_context as u64);
    term.say(Class::Plain, &format!("{name}: {plan}"));
    let executor = Box::new(CudaExecutor::on(card, Arc::clone(model), options)?);
    Ok(Some(Chosen { executor, memory, card: Some(free) }))
}

fn cpu_options(setup: &Setup) -> CpuOptions {
    CpuOptions {
        threads: setup.threads,
        numa: setup.numa,
        activations: setup.activations,
        rounding: setup.rounding,
        ..CpuOptions::default()
    }
}

fn cuda_options(setup: &Setup) -> CudaOptions {
    CudaOptions {
        gpu: setup.gpu,
        rounding: setup.rounding,
        fast: setup.activations == Activations::Int8,
        ..CudaOptions::default()
    }
}

/// The bytes of all tensors.
pub fn weight_bytes(source: &Source) -> u64 {
    source.tensors().iter().map(|tensor| tensor.bytes).fold(0, u64::saturating_add)
}

/// The weights stay in the file, and the system drops what it has no room for; that is slow, not
/// wrong. What is beside them must fit, or the machine starts to thrash in the middle of an answer.
pub fn check_memory(plan: &MemoryPlan, context: usize, term: Term) -> Result<(), Fault> {
    let Some(memory) = Memory::of_this_machine() else { return Ok(()) };
    let beside = MemoryPlan { weights: 0, ..*plan };
    beside.check(memory.available, 1, context as u64).map_err(|error| {
        Fault::failed(format!(
            "--ctx {context} does not fit in memory, weights not counted: {error}"
        ))
    })?;
    if plan.check(memory.available, 1, context as u64).is_err() {
        term.say(
            Class::Warning,
            &format!(
                "{} of weights do not fit in {} of free memory: parts will be read again and again",
                human_bytes(plan.weights),
                human_bytes(memory.available)
            ),
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(target_os = "linux")]
    #[test]
    fn what_stands_beside_the_weights_must_fit() {
        let per_1k_tokens = 1 << 30;
        let session = StateCost { fixed: 0, per_1k_tokens };
        // More weights than any machine has memory are slow, and no reason to refuse.
        let plan = MemoryPlan { weights: 1 << 60, scratch: 0, session };
        let term = Term { out_is_terminal: false, err_is_terminal: false, colours_wanted: false };
        assert_eq!(check_memory(&plan, 1, term), Ok(()));
        let Err(Fault::Failed(line)) = check_memory(&plan, 1 << 40, term) else { panic!() };
        assert!(line.contains("--ctx 1099511627776 does not fit"), "{line}");
        assert!(line.contains("would fit"), "{line}");
    }
}
