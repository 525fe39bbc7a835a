//! Flags of the original whose features are still to come. They are known, so that nobody's script has
//! one of them silently ignored.

use super::{Action, Flag, Topic, defs::ALL};

/// All of them, each with what it is about.
pub const LATER: &[Flag] = &[
    later("power", "limiting the power of the GPU"),
    later("warm-weights", "reading all weights into memory at the start"),
    later("metal", "Apple GPUs"),
    later("rocm", "AMD GPUs"),
    later("gpu-vram", "the share of each GPU's memory"),
    later("gpu-devices", "the choice of GPUs"),
    later("cuda-tensor-parallel", "one model over several GPUs"),
    later("ssd-streaming", "experts streamed from disk"),
    later("ssd-streaming-cold", "experts streamed from disk, without a warm start"),
    later("ssd-streaming-cache-experts", "the size of the cache of streamed experts"),
    later("ssd-streaming-preload-experts", "streamed experts that are read at the start"),
    later("simulate-used-memory", "a machine with less memory"),
    later("expert-profile", "a record of which experts are used"),
    later("mtp", "drafting with the model's own predictor"),
    later("mtp-model", "drafting with the model's own predictor"),
    later("mtp-draft", "the length of drafts"),
    later("mtp-margin", "the margin that drafts must have"),
    later("mtp-exact-sampling", "drafting while sampling"),
    later("dspark-strict", "drafting with DSpark"),
    later("dir-steering-file", "steering by directions"),
    later("dir-steering-ffn", "the strength of steering behind experts"),
    later("dir-steering-attn", "the strength of steering behind attention"),
    later("imatrix-dataset", "the texts of an importance matrix"),
    later("imatrix-out", "making an importance matrix"),
    later("imatrix-max-prompts", "the length of an importance matrix run"),
    later("imatrix-max-tokens", "the length of an importance matrix run"),
    later("head-test", "a check of the first layer"),
    later("first-token-test", "a check of the first token"),
    later("metal-graph-test", "a check of the Metal backend"),
    later("metal-graph-full-test", "a check of the Metal backend"),
    later("metal-graph-prompt-test", "a check of the Metal backend"),
    later("metal-graph-generate", "a check of the Metal backend"),
    later("role", "several machines"),
    later("layers", "the layers of one of several machines"),
    later("listen", "the address of one of several machines"),
    later("coordinator", "the first of several machines"),
    later("dist-prefill-chunk", "prompts on several machines"),
    later("dist-prefill-window", "prompts on several machines"),
    later("dist-activation-bits", "what several machines send each other"),
    later("dist-replay-check", "a check of several machines"),
    later("debug", "messages of several machines"),
    later("server", "the HTTP server"),
    later("vision", "images in prompts"),
    later("think-level", "the graded thinking of V4.1"),
    later("prefix-file", "a conversation to start from"),
    later("chdir", "another working directory"),
    later("ui-logo", "a welcome screen"),
];

const fn later(long: &'static str, doc: &'static str) -> Flag {
    Flag { long, short: None, topic: Topic::Later, commands: ALL, action: Action::Later, doc }
}
