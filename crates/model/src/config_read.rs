//! Reading a [`Config`] from either family of files, and refusing what no DeepSeek V4 model can be.

use crate::{
    Compression, Config, Indexer, ModelError, Rope,
    facts::{Facts, Key},
};

const fn key(gguf: &'static str, json: &'static str) -> Key {
    Key { gguf, json }
}

const LAYERS: Key = key("block_count", "num_hidden_layers");
const NEXTN: Key = key("nextn_predict_layers", "");
const HIDDEN: Key = key("embedding_length", "hidden_size");
const VOCAB: Key = key("vocab_size", "vocab_size");
const HEADS: Key = key("attention.head_count", "num_attention_heads");
const KV_HEADS: Key = key("attention.head_count_kv", "num_key_value_heads");
const HEAD_DIM: Key = key("attention.key_length", "head_dim");
const VALUE_DIM: Key = key("attention.value_length", "");
const ROPE_DIM: Key = key("rope.dimension_count", "qk_rope_head_dim");
const ROPE_BASE: Key = key("rope.freq_base", "rope_theta");
const COMPRESSED_BASE: Key = key("attention.compress_rope_freq_base", "compress_rope_theta");
const YARN_FACTOR: Key = key("rope.scaling.factor", "rope_scaling/factor");
const YARN_CONTEXT: Key =
    key("rope.scaling.original_context_length", "rope_scaling/original_max_position_embeddings");
const YARN_FAST: Key = key("rope.scaling.yarn_beta_fast", "rope_scaling/beta_fast");
const YARN_SLOW: Key = key("rope.scaling.yarn_beta_slow", "rope_scaling/beta_slow");
const Q_RANK: Key = key("attention.q_lora_rank", "q_lora_rank");
const O_RANK: Key = key("attention.output_lora_rank", "o_lora_rank");
const O_GROUPS: Key = key("attention.output_group_count", "o_groups");
const WINDOW: Key = key("attention.sliding_window", "sliding_window");
const RATIOS: Key = key("attention.compress_ratios", "compress_ratios");
const INDEX_HEADS: Key = key("attention.indexer.head_count", "index_n_heads");
const INDEX_DIM: Key = key("attention.indexer.key_length", "index_head_dim");
const INDEX_TOP_K: Key = key("attention.indexer.top_k", "index_topk");
const EXPERTS: Key = key("expert_count", "n_routed_experts");
const EXPERTS_USED: Key = key("expert_used_count", "num_experts_per_tok");
const EXPERT_HIDDEN: Key = key("expert_feed_forward_length", "moe_intermediate_size");
const EXPERTS_SHARED: Key = key("expert_shared_count", "n_shared_experts");
const EXPERT_GROUPS: Key = key("expert_group_count", "n_group");
const GATING: Key = key("expert_gating_func", "");
const SCORING: Key = key("", "scoring_func");
const WEIGHTS_NORM: Key = key("expert_weights_norm", "norm_topk_prob");
const ROUTED_SCALE: Key = key("expert_weights_scale", "routed_scaling_factor");
const HASH_LAYERS: Key = key("hash_layer_count", "num_hash_layers");
const SWIGLU_LIMITS: Key = key("swiglu_clamp_exp", "");
const SWIGLU_SHARED: Key = key("swiglu_clamp_shexp", "");
const SWIGLU_LIMIT: Key = key("", "swiglu_limit");
const STREAMS: Key = key("hyper_connection.count", "hc_mult");
const SINKHORN: Key = key("hyper_connection.sinkhorn_iterations", "hc_sinkhorn_iters");
const HC_EPS: Key = key("hyper_connection.epsilon", "hc_eps");
const RMS_EPS: Key = key("attention.layer_norm_rms_epsilon", "rms_norm_eps");
const MAX_CONTEXT: Key = key("context_length", "max_position_embeddings");

/// No dimension of a real model comes near this; products of two fit easily.
const MOST: u64 = 1 << 24;
/// llama.cpp's number for the square root of softplus.
const SQRT_SOFTPLUS: u64 = 4;
/// Published models were first trained on this context and stretched by this factor; files made
/// before the keys existed leave them out.
const DEFAULT_YARN: (f64, f64, f64, f64) = (16.0, 65_536.0, 32.0, 1.0);
/// The same for the positions that a model was made for.
const DEFAULT_CONTEXT: u64 = 1 << 20;

/// What the description leaves to the tensors.
pub(crate) struct Hints {
    /// Rows of the embedding, where the file has one.
    pub vocab: Option<u64>,
    /// Whether the last of `block_count` layers is a token predictor and no part of the backbone.
    pub last_is_nextn: bool,
}

pub(crate) fn read(facts: &Facts, name: String, hints: Hints) -> Result<Config, ModelError> {
    let layers = layers(facts, hints.last_is_nextn)?;
    let heads = facts.count(HEADS, 1, 65_536)?;
    let head_dim = facts.count(HEAD_DIM, 2, 65_536)?;
    let o_groups = facts.count(O_GROUPS, 1, 65_536)?;
    if heads % o_groups != 0 {
        let reason = format!("{o_groups} groups do not divide {heads} heads");
        return Err(facts.wrong(O_GROUPS, reason));
    }
    only(facts, KV_HEADS, 1)?;
    only(facts, VALUE_DIM, head_dim as u64)?;
    only(facts, EXPERTS_SHARED, 1)?;
    only(facts, GATING, SQRT_SOFTPLUS)?;
    if facts.maybe_count(EXPERT_GROUPS)?.is_some_and(|groups| groups > 1) {
        return Err(facts.wrong(EXPERT_GROUPS, "groups of experts are not part of DeepSeek V4"));
    }
    if facts.maybe_bool(WEIGHTS_NORM)? == Some(false) {
        return Err(facts.wrong(WEIGHTS_NORM, "expert weights must be normalised"));
    }
    if facts.maybe_text(SCORING)?.is_some_and(|scoring| scoring != "sqrtsoftplus") {
        return Err(facts.wrong(SCORING, "must be sqrtsoftplus"));
    }

    let rope = rope(facts, head_dim)?;
    let indexer = indexer(facts, &layers, rope.dims)?;
    let experts = facts.count(EXPERTS, 1, 65_536)?;
    let (swiglu_limit, swiglu_limit_shared) = swiglu_limits(facts, layers.len())?;
    let vocab = match facts.maybe_count(VOCAB)?.or(hints.vocab) {
        Some(vocab) => facts.within(VOCAB, vocab, 1, MOST)?,
        None => return Err(facts.wrong(VOCAB, "missing, and there is no embedding to count")),
    };
    Ok(Config {
        name,
        hidden: facts.count(HIDDEN, 1, MOST)?,
        vocab,
        heads,
        head_dim,
        rope,
        q_rank: facts.count(Q_RANK, 1, MOST)?,
        o_groups,
        o_rank: facts.count(O_RANK, 1, MOST)?,
        window: facts.count(WINDOW, 1, 65_536)?,
        indexer,
        experts,
        experts_used: facts.count(EXPERTS_USED, 1, experts as u64)?,
        expert_hidden: facts.count(EXPERT_HIDDEN, 1, MOST)?,
        hash_layers: facts.count(HASH_LAYERS, 0, layers.len() as u64)?,
        routed_scale: facts.positive(ROUTED_SCALE)? as f32,
        swiglu_limit,
        swiglu_limit_shared,
        streams: facts.count(STREAMS, 1, 64)?,
        sinkhorn_iterations: facts.count(SINKHORN, 1, 1000)?,
        hc_eps: facts.positive(HC_EPS)? as f32,
        rms_eps: facts.positive(RMS_EPS)? as f32,
        max_context: match facts.maybe_count(MAX_CONTEXT)? {
            Some(context) => facts.within(MAX_CONTEXT, context, 1, 1 << 32)?,
            None => facts.within(MAX_CONTEXT, DEFAULT_CONTEXT, 1, 1 << 32)?,
        },
        layers,
    })
}

/// A fact that, where stated, has one value only.
fn only(facts: &Facts, key: Key, value: u64) -> Result<(), ModelError> {
    match facts.maybe_count(key)? {
        Some(found) if found != value => {
            Err(facts.wrong(key, format!("{found}, but DeepSeek V4 has {value}")))
        }
        _ => Ok(()),
    }
}

fn layers(facts: &Facts, last_is_nextn: bool) -> Result<Vec<Compression>, ModelError> {
    let mut count = facts.count(LAYERS, 1, 4096)?;
    if last_is_nextn {
        let extra = facts.maybe_count(NEXTN)?.unwrap_or(1);
        count -= facts.within(NEXTN, extra, 1, count as u64 - 1)?;
    }
    let ratios = facts.numbers(RATIOS, count)?;
    let kind = |(layer, ratio): (usize, f64)| {
        let whole = (ratio >= 0.0 && ratio.fract() == 0.0).then_some(ratio as u64);
        whole.and_then(Compression::from_ratio).ok_or_else(|| {
            facts.wrong(RATIOS, format!("{ratio} at layer {layer}; only 0, 4 and 128 are known"))
        })
    };
    ratios.into_iter().enumerate().map(kind).collect()
}

fn rope(facts: &Facts, head_dim: usize) -> Result<Rope, ModelError> {
    let dims = facts.count(ROPE_DIM, 2, head_dim as u64)?;
    if dims % 2 != 0 {
        return Err(facts.wrong(ROPE_DIM, format!("{dims} is odd; dimensions turn in pairs")));
    }
    let or = |key: Key, default: f64| {
        let number = facts.maybe_number(key)?.unwrap_or(default);
        facts.above_zero(key, number)
    };
    let base = |key: Key| match facts.positive(key)? {
        base if base > 1.0 => Ok(base),
        base => Err(facts.wrong(key, format!("{base} is not above one"))),
    };
    let (factor, context, fast, slow) = DEFAULT_YARN;
    Ok(Rope {
        dims,
        base: base(ROPE_BASE)?,
        compressed_base: base(COMPRESSED_BASE)?,
        factor: or(YARN_FACTOR, factor)?,
        original_context: or(YARN_CONTEXT, context)?,
        beta_fast: or(YARN_FAST, fast)?,
        beta_slow: or(YARN_SLOW, slow)?,
    })
}

fn indexer(facts: &Facts, layers: &[Compression], rope_dims: usize) -> Result<Indexer, ModelError> {
    let indexer = Indexer {
        heads: facts.count(INDEX_HEADS, 1, 65_536)?,
        dim: facts.count(INDEX_DIM, 2, 65_536)?,
        top_k: facts.count(INDEX_TOP_K, 1, MOST)?,
    };
    if layers.contains(&Compression::Csa) {
        if !indexer.dim.is_power_of_two() {
            let reason = format!("{} is no power of two; index rows are rotated", indexer.dim);
            return Err(facts.wrong(INDEX_DIM, reason));
        }
        if indexer.dim < rope_dims {
            let reason = format!("{} is below the {rope_dims} rotary dimensions", indexer.dim);
            return Err(facts.wrong(INDEX_DIM, reason));
        }
    }
    Ok(indexer)
}

/// A GGUF lists a clamp for each layer, a checkpoint has one for all. Files without a list of their
/// own for shared experts use the routed experts' one.
fn swiglu_limits(facts: &Facts, layers: usize) -> Result<(Vec<f32>, Vec<f32>), ModelError> {
    let checked = |key: Key, limits: Vec<f64>| -> Result<Vec<f32>, ModelError> {
        limits.into_iter().map(|limit| Ok(facts.above_zero(key, limit)? as f32)).collect()
    };
    if let Some(limit) = facts.maybe_number(SWIGLU_LIMIT)? {
        let limits = checked(SWIGLU_LIMIT, vec![limit; layers])?;
        return Ok((limits.clone(), limits));
    }
    let missing = match facts {
        Facts::Gguf(_) => SWIGLU_LIMITS,
        Facts::Json { .. } => SWIGLU_LIMIT,
    };
    let routed = facts.maybe_numbers(SWIGLU_LIMITS, layers)?;
    let routed = checked(SWIGLU_LIMITS, routed.ok_or_else(|| facts.wrong(missing, "missing"))?)?;
    let shared = match facts.maybe_numbers(SWIGLU_SHARED, layers)? {
        Some(limits) => checked(SWIGLU_SHARED, limits)?,
        None => routed.clone(),
    };
    Ok((routed, shared))
}
