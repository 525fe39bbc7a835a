//! What was typed, and nothing else: no defaults, no files read, no questions asked of the machine.
//! [`crate::plan`] makes of it what will be done.

use std::{ffi::OsString, path::PathBuf};

use ds4_cpu::Numa;
use ds4_model::Rounding;
use ds4_prompt::{Profile, Thinking};

use super::Command;

/// The typed command line. `None` and empty mean that nothing was said.
/// What computes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Backend {
    /// The best there is.
    #[default]
    Auto,
    Cpu,
    Cuda,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct Args {
    /// A command by name.
    pub command: Option<Command>,
    /// The one argument of a command that takes one.
    pub operand: Option<OsString>,
    /// Commands asked for in the original's way, by a flag; several may be.
    pub by_flag: Vec<Command>,

    pub prompt: Option<String>,
    pub prompt_file: Option<PathBuf>,
    pub system: Option<String>,
    pub raw: bool,

    pub model: Option<PathBuf>,
    pub context: Option<u64>,
    pub tokens: Option<u64>,
    pub threads: Option<u64>,
    pub numa: Numa,
    pub backend: Backend,
    pub gpu: Option<u64>,
    pub prefill_chunk: Option<u64>,
    pub rounding: Option<Rounding>,
    pub exact: bool,

    pub temperature: Option<f32>,
    pub top_k: Option<u64>,
    pub top_p: Option<f32>,
    pub min_p: Option<f32>,
    pub repetition_penalty: Option<f32>,
    pub frequency_penalty: Option<f32>,
    pub presence_penalty: Option<f32>,
    pub penalty_window: Option<u64>,
    pub logit_bias: Vec<(u32, f32)>,
    pub seed: Option<u64>,

    /// The last of the flags counts.
    pub thinking: Option<Thinking>,
    pub effort_profile: Option<Profile>,

    pub output: Option<PathBuf>,
    pub top_logprobs: Option<u64>,
    pub json: bool,
    pub json_file: Option<PathBuf>,
    pub check: bool,
    pub perplexity_file: Option<PathBuf>,

    pub bench: BenchArgs,
    pub eval: EvalArgs,
    pub pull: PullArgs,

    pub version: bool,
}

/// What was typed for a benchmark alone.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct BenchArgs {
    pub chat_prompt_file: Option<PathBuf>,
    pub ctx_start: Option<u64>,
    pub ctx_max: Option<u64>,
    pub ctx_alloc: Option<u64>,
    pub step_incr: Option<u64>,
    pub step_mul: Option<f32>,
    pub gen_tokens: Option<u64>,
    pub batches: Vec<usize>,
    pub runs: Option<u64>,
    pub warm_up: Option<u64>,
    pub roofline: bool,
    pub csv: Option<PathBuf>,
    pub svg: Option<PathBuf>,
}

/// What was typed for fetching a model alone.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PullArgs {
    pub list: bool,
    pub folder: Option<PathBuf>,
    pub base_url: Option<String>,
    pub token: Option<String>,
}

/// What was typed for an evaluation alone.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct EvalArgs {
    pub limit: Option<u64>,
}
