//! A config written as GGUF keys: the set that both ds4 and llama.cpp read, each in the type that
//! both accept.

use ds4_gguf::GgufWriter;

use crate::{ARCHITECTURE, Config};

/// llama.cpp's number for the square root of softplus.
const SQRT_SOFTPLUS: u32 = 4;

/// Puts every key that describes `config`; the tokenizer's keys are the caller's.
pub fn describe(config: &Config, writer: &mut GgufWriter) {
    writer.put("general.architecture", ARCHITECTURE);
    writer.put("general.name", config.name.as_str());
    let c = config;
    let counts: &[(&str, usize)] = &[
        ("block_count", c.layers.len()),
        ("context_length", c.max_context),
        ("embedding_length", c.hidden),
        ("vocab_size", c.vocab),
        ("feed_forward_length", c.expert_hidden),
        ("attention.head_count", c.heads),
        ("attention.head_count_kv", 1),
        ("attention.key_length", c.head_dim),
        ("attention.value_length", c.head_dim),
        ("rope.dimension_count", c.rope.dims),
        ("attention.q_lora_rank", c.q_rank),
        ("attention.output_lora_rank", c.o_rank),
        ("attention.output_group_count", c.o_groups),
        ("expert_count", c.experts),
        ("expert_used_count", c.experts_used),
        ("expert_feed_forward_length", c.expert_hidden),
        ("expert_shared_count", 1),
        ("hash_layer_count", c.hash_layers),
        ("attention.sliding_window", c.window),
        ("attention.indexer.head_count", c.indexer.heads),
        ("attention.indexer.key_length", c.indexer.dim),
        ("attention.indexer.top_k", c.indexer.top_k),
        ("hyper_connection.count", c.streams),
        ("hyper_connection.sinkhorn_iterations", c.sinkhorn_iterations),
        ("rope.scaling.original_context_length", c.rope.original_context as usize),
    ];
    let key = |name: &str| format!("{ARCHITECTURE}.{name}");
    for &(name, count) in counts {
        // No count of a checked config comes near the end of u32; the context may.
        writer.put(&key(name), u32::try_from(count).unwrap_or(u32::MAX));
    }
    let numbers: &[(&str, f32)] = &[
        ("rope.freq_base", c.rope.base as f32),
        ("attention.compress_rope_freq_base", c.rope.compressed_base as f32),
        ("rope.scaling.factor", c.rope.factor as f32),
        ("rope.scaling.yarn_beta_fast", c.rope.beta_fast as f32),
        ("rope.scaling.yarn_beta_slow", c.rope.beta_slow as f32),
        ("expert_weights_scale", c.routed_scale),
        ("attention.layer_norm_rms_epsilon", c.rms_eps),
        ("hyper_connection.epsilon", c.hc_eps),
    ];
    for &(name, number) in numbers {
        writer.put(&key(name), number);
    }
    writer.put(&key("rope.scaling.type"), "yarn");
    writer.put(&key("expert_gating_func"), SQRT_SOFTPLUS);
    writer.put(&key("expert_weights_norm"), true);
    let ratios = c.layers.iter().map(|kind| kind.ratio() as u32);
    writer.put_array(&key("attention.compress_ratios"), ratios);
    writer.put_array(&key("swiglu_clamp_exp"), c.swiglu_limit.iter().copied());
    writer.put_array(&key("swiglu_clamp_shexp"), c.swiglu_limit_shared.iter().copied());
}
