//! The published models in numbers.

use ds4_model::{
    Compression::{self, Csa, Hca},
    Config, Indexer, Rope,
};

/// DeepSeek V4 Flash.
pub fn flash() -> Config {
    published("DeepSeek V4 Flash", [Compression::None; 2], 43)
}

/// DeepSeek V4 PRO.
pub fn pro() -> Config {
    Config {
        hidden: 7168,
        heads: 128,
        q_rank: 1536,
        o_groups: 16,
        indexer: Indexer { heads: 64, dim: 128, top_k: 1024 },
        experts: 384,
        expert_hidden: 3072,
        routed_scale: 2.5,
        ..published("DeepSeek V4 PRO", [Hca; 2], 61)
    }
}

/// The same model without its later layers.
pub fn first_layers(config: Config, count: usize) -> Config {
    let mut config = config;
    config.layers.truncate(count);
    config.swiglu_limit.truncate(count);
    config.swiglu_limit_shared.truncate(count);
    config.hash_layers = config.hash_layers.min(count);
    config
}

/// What both have in common, and Flash's numbers where they differ. Layers after the first two
/// alternate.
fn published(name: &str, first: [Compression; 2], layers: usize) -> Config {
    let layers: Vec<Compression> =
        first.into_iter().chain([Csa, Hca].into_iter().cycle()).take(layers).collect();
    Config {
        name: name.into(),
        hidden: 4096,
        vocab: 129_280,
        heads: 64,
        head_dim: 512,
        rope: Rope {
            dims: 64,
            base: 10_000.0,
            compressed_base: 160_000.0,
            factor: 16.0,
            original_context: 65_536.0,
            beta_fast: 32.0,
            beta_slow: 1.0,
        },
        q_rank: 1024,
        o_groups: 8,
        o_rank: 1024,
        window: 128,
        indexer: Indexer { heads: 64, dim: 128, top_k: 512 },
        experts: 256,
        experts_used: 6,
        expert_hidden: 2048,
        hash_layers: 3,
        routed_scale: 1.5,
        swiglu_limit: vec![10.0; layers.len()],
        swiglu_limit_shared: vec![10.0; layers.len()],
        streams: 4,
        sinkhorn_iterations: 20,
        hc_eps: 1e-6,
        rms_eps: 1e-6,
        max_context: 1 << 20,
        layers,
    }
}
