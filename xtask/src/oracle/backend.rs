//! One way to ask either the reference pass or an executor for logits.

use std::sync::Arc;

use ds4_cpu::{Activations, CpuExecutor, CpuOptions};
use ds4_cuda::{CudaExecutor, CudaOptions};
use ds4_engine::{Executor, Feed, Logits, SlotId, Want};
use ds4_model::{Model, Rounding, reference::Reference};

/// A model ready to run, and the logits after the last token it was given.
pub struct Backend {
    kind: Kind,
    last: Vec<f32>,
}

enum Kind {
    Single(Reference<f32>),
    Double(Reference<f64>),
    Executor { executor: Box<dyn Executor>, slot: SlotId },
}

impl Kind {
    fn executor(executor: impl Executor + 'static) -> Result<Kind, String> {
        let mut executor: Box<dyn Executor> = Box::new(executor);
        let slot = executor.open().map_err(|e| e.to_string())?;
        Ok(Kind::Executor { executor, slot })
    }
}

impl Backend {
    pub fn new(
        name: &str,
        double: bool,
        model: Arc<Model>,
        rounding: Rounding,
        activations: Activations,
        threads: Option<usize>,
    ) -> Result<Backend, String> {
        let kind = match (name, double) {
            ("reference", true) => Kind::Double(Reference::new(&model, rounding)),
            ("reference", false) => Kind::Single(Reference::new(&model, rounding)),
            ("cuda", _) => {
                let fast = activations == Activations::Int8;
                let options = CudaOptions { rounding, fast, ..CudaOptions::default() };
                Kind::executor(CudaExecutor::new(model, options).map_err(|e| e.to_string())?)?
            }
            _ => {
                let mut options = CpuOptions { rounding, activations, ..CpuOptions::default() };
                if let Some(threads) = threads {
                    options.threads = threads;
                }
                Kind::executor(CpuExecutor::new(model, options).map_err(|e| e.to_string())?)?
            }
        };
        Ok(Backend { kind, last: Vec::new() })
    }

    /// Evaluates a prompt from the start, cut into chunks, and gives the logits at `positions`.
    pub fn logits(
        &mut self,
        tokens: &[u32],
        positions: &[usize],
        chunks: &[usize],
    ) -> Result<Vec<Vec<f32>>, String> {
        self.reset()?;
        let mut found = Vec::new();
        let mut lengths = chunks.iter().copied().cycle();
        let mut start = 0;
        while start < tokens.len() {
            let end = tokens.len().min(start + lengths.next().unwrap_or(tokens.len()));
            let rows = self.feed(&tokens[start..end])?;
            found.extend(
                (start..end).zip(rows).filter(|(p, _)| positions.contains(p)).map(|(_, row)| row),
            );
            start = end;
        }
        Ok(found)
    }

    /// Continues greedily: the most likely token, the lowest id among equals.
    pub fn greedy(&mut self, count: usize) -> Result<Vec<u32>, String> {
        let mut tokens = Vec::new();
        while tokens.len() < count {
            let token = ds4_engine::argmax(&self.last).ok_or("no finite logit")?;
            tokens.push(token);
            if tokens.len() < count {
                self.feed(&[token])?;
            }
        }
        Ok(tokens)
    }

    fn reset(&mut self) -> Result<(), String> {
        match &mut self.kind {
            Kind::Single(reference) => reference.reset(),
            Kind::Double(reference) => reference.reset(),
            Kind::Executor { executor, slot } => {
                executor.close(*slot);
                *slot = executor.open().map_err(|e| e.to_string())?;
            }
        }
        Ok(())
    }

    fn feed(&mut self, tokens: &[u32]) -> Result<Vec<Vec<f32>>, String> {
        let rows: Vec<Vec<f32>> = match &mut self.kind {
            Kind::Single(reference) => tokens.iter().map(|&t| reference.step(t)).collect(),
            Kind::Double(reference) => tokens
                .iter()
                .map(|&t| reference.step(t).into_iter().map(|x| x as f32).collect())
                .collect(),
            Kind::Executor { executor, slot } => {
                let feed = Feed { slot: *slot, tokens, want: Want::All };
                let mut logits = Logits::default();
                executor.step(&[feed], &mut logits).map_err(|e| e.to_string())?;
                logits.rows().map(<[f32]>::to_vec).collect()
            }
        };
        self.last = rows.last().cloned().unwrap_or_default();
        Ok(rows)
    }
}
