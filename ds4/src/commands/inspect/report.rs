//! Everything that `inspect` finds out, gathered once for both of its forms.

use std::collections::BTreeMap;

use ds4_cpu::CpuOptions;
use ds4_engine::{DEFAULT_CHUNK, MemoryPlan, StateCost};
use ds4_host::Memory;
use ds4_model::{Compression, Config, Rounding, Source, catalogue};
use ds4_tokenizer::Tokenizer;
use serde_json::{Value, json};

use crate::{fault::Fault, load, render::missing_markers};

pub struct Report {
    pub path: String,
    pub style: Style,
    pub config: Config,
    pub tensors: usize,
    pub tensor_bytes: u64,
    /// Count and bytes of each type.
    pub types: BTreeMap<String, (u64, u64)>,
    pub parameters: u64,
    pub tokenizer: Result<TokenizerFacts, String>,
    pub memory: MemoryNeed,
    pub missing: Vec<String>,
    pub unused: Vec<String>,
    /// `None` if the model could not be bound.
    pub fingerprint: Option<String>,
    /// Whether all weights were read.
    pub checked: bool,
    /// What makes the model unusable besides missing tensors.
    pub problem: Option<String>,
}

/// What kind of files these are.
pub enum Style {
    Gguf { version: u32, keys: usize, files: usize, bytes: u64 },
    Checkpoint,
}

pub struct TokenizerFacts {
    pub tokens: usize,
    pub merges: usize,
    pub bos: Option<u32>,
    pub eos: Option<u32>,
    /// What a conversation needs and it lacks.
    pub missing_markers: Vec<&'static str>,
}

/// What one session needs on the CPU.
pub struct MemoryNeed {
    pub context: usize,
    pub plan: MemoryPlan,
    /// What the machine has left, where it tells.
    pub available: Option<u64>,
}

impl Report {
    pub fn of(source: &Source, config: &Config, context: usize) -> Result<Report, Fault> {
        let audit = source.audit(config);
        let (count, bytes) = audit.types.values().fold((0, 0u64), |(count, bytes), of_type| {
            (count + of_type.0 as usize, bytes.saturating_add(of_type.1))
        });
        Ok(Report {
            path: source.path().display().to_string(),
            style: match source.gguf() {
                Some(gguf) => Style::Gguf {
                    version: gguf.version(),
                    keys: gguf.meta().len(),
                    files: gguf.files().count(),
                    bytes: gguf.file_bytes(),
                },
                None => Style::Checkpoint,
            },
            config: config.clone(),
            tensors: count,
            tensor_bytes: bytes,
            types: audit.types,
            parameters: parameters(config),
            tokenizer: tokenizer_facts(source),
            memory: memory(config, bytes, context)?,
            missing: audit.missing,
            unused: audit.unused,
            fingerprint: None,
            checked: false,
            problem: None,
        })
    }

    pub fn is_complete(&self) -> bool {
        self.missing.is_empty() && self.problem.is_none()
    }

    pub fn to_json(&self) -> Value {
        let c = &self.config;
        let types: Vec<Value> = self
            .types
            .iter()
            .map(|(name, (count, bytes))| json!({"type": name, "count": count, "bytes": bytes}))
            .collect();
        let ratios: Vec<usize> = c.layers.iter().map(|layer| layer.ratio()).collect();
        let memory = &self.memory;
        let session = memory.plan.session;
        json!({
            "path": self.path,
            "style": match self.style {
                Style::Gguf { version, keys, files, bytes } => json!({
                    "name": "gguf", "version": version, "metadata_keys": keys,
                    "files": files, "file_bytes": bytes,
                }),
                Style::Checkpoint => json!({"name": "checkpoint"}),
            },
            "architecture": ds4_model::ARCHITECTURE,
            "name": c.name,
            "fingerprint": self.fingerprint,
            "parameters": self.parameters,
            "shape": {
                "layers": c.layers.len(),
                "hash_layers": c.hash_layers,
                "compress_ratios": ratios,
                "hidden": c.hidden,
                "vocab": c.vocab,
                "max_context": c.max_context,
                "heads": c.heads,
                "kv_heads": 1,
                "head_dim": c.head_dim,
                "rope_dims": c.rope.dims,
                "window": c.window,
                "q_rank": c.q_rank,
                "o_groups": c.o_groups,
                "o_rank": c.o_rank,
                "indexer": {"heads": c.indexer.heads, "dim": c.indexer.dim, "top_k": c.indexer.top_k},
                "experts": c.experts,
                "experts_used": c.experts_used,
                "experts_shared": 1,
                "expert_hidden": c.expert_hidden,
                "streams": c.streams,
                "sinkhorn_iterations": c.sinkhorn_iterations,
            },
            "tensors": {
                "count": self.tensors,
                "bytes": self.tensor_bytes,
                "types": types,
                "missing": self.missing,
                "unused": self.unused,
            },
            "tokenizer": match &self.tokenizer {
                Ok(facts) => json!({
                    "tokens": facts.tokens,
                    "merges": facts.merges,
                    "bos": facts.bos,
                    "eos": facts.eos,
                    "missing_markers": facts.missing_markers,
                }),
                Err(reason) => json!({"error": reason}),
            },
            "memory": {
                "context": memory.context,
                "weights": memory.plan.weights,
                "scratch": memory.plan.scratch,
                "session": session.bytes(memory.context as u64),
                "session_fixed": session.fixed,
                "session_per_1024_tokens": session.per_1k_tokens,
                "total": memory.plan.bytes(1, memory.context as u64),
                "available": memory.available,
            },
            "checked": self.checked,
            "complete": self.is_complete(),
            "problem": self.problem,
        })
    }
}

fn memory(config: &Config, weights: u64, context: usize) -> Result<MemoryNeed, Fault> {
    let rewind = CpuOptions::default().rewind;
    let state = StateCost::of(config, Rounding::Official, rewind)?;
    Ok(MemoryNeed {
        context,
        plan: MemoryPlan::new(config, weights, state, DEFAULT_CHUNK),
        available: Memory::of_this_machine().map(|memory| memory.available),
    })
}

fn tokenizer_facts(source: &Source) -> Result<TokenizerFacts, String> {
    let tokenizer: Tokenizer =
        load::tokenizer(source).map_err(|fault| fault.message().unwrap_or_default())?;
    Ok(TokenizerFacts {
        tokens: tokenizer.vocab_size(),
        merges: tokenizer.merge_count(),
        bos: tokenizer.bos(),
        eos: tokenizer.eos(),
        missing_markers: missing_markers(&tokenizer),
    })
}

/// Values of all weights, by the catalogue: what a file lacks counts, what it has besides does not.
fn parameters(config: &Config) -> u64 {
    catalogue::tensors(config)
        .filter(|(entry, ..)| entry.kind != catalogue::Kind::Table)
        .map(|(entry, _, (rows, cols))| {
            let each = (rows as u64).saturating_mul(cols as u64);
            let experts = entry.kind == catalogue::Kind::Experts;
            if experts { each.saturating_mul(config.experts as u64) } else { each }
        })
        .fold(0, u64::saturating_add)
}

/// The layers of one kind, as runs: `0-1`, or `2-42 by 2`.
pub fn layers_of(config: &Config, kind: Compression) -> (usize, String) {
    let layers: Vec<usize> =
        (0..config.layers.len()).filter(|&layer| config.layers[layer] == kind).collect();
    (layers.len(), runs(&layers))
}

/// Ascending numbers in few words.
fn runs(numbers: &[usize]) -> String {
    let mut parts: Vec<String> = Vec::new();
    let mut rest = numbers;
    while let [first, after @ ..] = rest {
        let step = after.first().map_or(0, |second| second - first);
        let in_step = after.iter().enumerate().take_while(|(i, n)| **n == first + (i + 1) * step);
        let run = in_step.count();
        // Two numbers in a row are a run, two apart are just two numbers.
        if run >= 2 || (run == 1 && step == 1) {
            let by = if step == 1 { String::new() } else { format!(" by {step}") };
            parts.push(format!("{first}-{}{by}", first + run * step));
            rest = after.get(run..).unwrap_or_default();
        } else {
            parts.push(first.to_string());
            rest = after;
        }
    }
    parts.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_are_short_and_true() {
        for (numbers, text) in [
            (&[][..], ""),
            (&[3], "3"),
            (&[0, 1], "0-1"),
            (&[0, 2], "0, 2"),
            (&[2, 4, 6], "2-6 by 2"),
            (&[0, 1, 2, 5, 7, 9, 20], "0-2, 5-9 by 2, 20"),
        ] {
            assert_eq!(runs(numbers), text);
        }
    }
}
