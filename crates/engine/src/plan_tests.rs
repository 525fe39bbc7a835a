//! The plan against the published arithmetic, and its refusals.

use ds4_model::{Compression, Indexer, Rope};

use super::*;

const GIB: u64 = 1 << 30;

/// A published schedule: what the first two layers are, then CSA and HCA in turn.
fn published(
    first: Compression,
    layers: usize,
    hidden: usize,
    heads: usize,
    top_k: usize,
) -> Config {
    let kind = |layer| match layer {
        0 | 1 => first,
        even if even % 2 == 0 => Compression::Csa,
        _ => Compression::Hca,
    };
    Config {
        name: String::new(),
        hidden,
        vocab: 129_280,
        heads,
        head_dim: 512,
        rope: Rope {
            dims: 64,
            base: 1e4,
            compressed_base: 1.6e5,
            factor: 16.0,
            original_context: 65_536.0,
            beta_fast: 32.0,
            beta_slow: 1.0,
        },
        q_rank: 1024,
        o_groups: 8,
        o_rank: 1024,
        window: 128,
        layers: (0..layers).map(kind).collect(),
        indexer: Indexer { heads: 64, dim: 128, top_k },
        experts: 256,
        experts_used: 6,
        expert_hidden: 2048,
        hash_layers: 3,
        routed_scale: 1.5,
        swiglu_limit: vec![10.0; layers],
        swiglu_limit_shared: vec![10.0; layers],
        streams: 4,
        sinkhorn_iterations: 20,
        hc_eps: 1e-6,
        rms_eps: 1e-6,
        max_context: 1 << 20,
    }
}

fn flash() -> Config {
    published(Compression::None, 43, 4096, 64, 512)
}

fn pro() -> Config {
    published(Compression::Hca, 61, 7168, 128, 1024)
}

/// Bytes per token as published (cut, not rounded), with the whole at three lengths in GiB.
fn check_per_token(config: &Config, rounding: Rounding, per_token: u64, gib: [f64; 3]) {
    let cost = StateCost::of(config, rounding, 0).unwrap();
    assert_eq!(cost.per_1k_tokens / 1024, per_token);
    for (tokens, wanted) in [128 << 10, 384 << 10, 1 << 20].into_iter().zip(gib) {
        let found = (cost.bytes(tokens) - cost.fixed) as f64 / GIB as f64;
        assert!((found - wanted).abs() < 0.006, "{found} GiB at {tokens} tokens");
    }
}

#[test]
fn a_token_costs_what_the_arithmetic_says() {
    check_per_token(&flash(), Rounding::Official, 3_514, [0.43, 1.29, 3.43]);
    check_per_token(&pro(), Rounding::Official, 5_031, [0.61, 1.84, 4.91]);
    check_per_token(&flash(), Rounding::Plain, 13_760, [1.68, 5.04, 13.44]);
    check_per_token(&pro(), Rounding::Plain, 19_696, [2.40, 7.21, 19.23]);
}

#[test]
fn the_fixed_part_is_windows_and_pending_projections() {
    // 127 packed rows a layer; 8 positions of 2 x (512 + 128) and 128 of 512, values and scores.
    let fixed = 43 * 127 * 584 + 21 * 8 * 2 * 640 * 8 + 20 * 128 * 512 * 8;
    assert_eq!(StateCost::of(&flash(), Rounding::Official, 0).unwrap().fixed, fixed);
    let one = 43 * 584 + 21 * 2 * 640 * 8 + 20 * 512 * 8;
    assert_eq!(StateCost::of(&flash(), Rounding::Official, 1).unwrap().fixed, fixed + one);
}

#[test]
fn the_cost_covers_every_state_that_can_be_exported() {
    for (config, rounding) in [(flash(), Rounding::Official), (pro(), Rounding::Plain)] {
        let shape = StateShape::new(&config, rounding).unwrap();
        for rewind in [0, 1, 5, 128, 300] {
            let cost = StateCost::of(&config, rounding, rewind).unwrap();
            for len in [0, 1, 3, 4, 127, 128, 131, 255, 1023, 1024, 5000] {
                let layers = config.layers.iter();
                let found: u64 =
                    layers.flat_map(|&kind| shape.layer(kind, len, rewind.min(len))).sum();
                assert!(found <= cost.bytes(len as u64), "{found} bytes at {len}, rewind {rewind}");
            }
        }
    }
}

fn small_plan() -> MemoryPlan {
    MemoryPlan {
        weights: 10 * GIB,
        scratch: GIB,
        session: StateCost { fixed: GIB, per_1k_tokens: GIB },
    }
}

#[test]
fn what_fits_is_what_the_check_lets_through() {
    let plan = small_plan();
    for memory in [0, 10 * GIB, 12 * GIB, 13 * GIB - 1, 13 * GIB, 40 * GIB] {
        for sessions in 1..5 {
            let largest = plan.largest_context(memory, sessions);
            let empty = plan.check(memory, sessions, 0);
            assert_eq!(empty.is_ok(), largest.is_some());
            if let Some(context) = largest {
                plan.check(memory, sessions, context).unwrap();
                plan.check(memory, sessions, context + 1).unwrap_err();
            }
        }
        for context in [0, 1, 1024, 1025, 10_000] {
            let sessions = plan.most_sessions(memory, context);
            plan.check(memory, sessions, context)
                .map_or_else(|e| assert!(e.plan.loaded() > memory), drop);
            plan.check(memory, sessions + 1, context).unwrap_err();
        }
    }
}

#[test]
fn refusals_say_what_would_fit() {
    let check = |gib: u64, sessions, context, message: &str| {
        let refusal = small_plan().check(gib * GIB, sessions, context).unwrap_err();
        assert_eq!(refusal.to_string(), message);
    };
    check(
        8,
        1,
        4096,
        "1 session of 4096 tokens: 16.0 GiB needed (weights 10.0 GiB, working space 1.0 GiB, \
         sessions 5.0 GiB), 8.0 GiB available; the model alone does not fit",
    );
    check(
        12,
        2,
        1,
        "2 sessions of 1 tokens: 15.0 GiB needed (weights 10.0 GiB, working space 1.0 GiB, \
         sessions 4.0 GiB), 12.0 GiB available; not even a session of 1024 tokens fits",
    );
    check(
        14,
        1,
        4096,
        "1 session of 4096 tokens: 16.0 GiB needed (weights 10.0 GiB, working space 1.0 GiB, \
         sessions 5.0 GiB), 14.0 GiB available; 1 session of 2048 tokens would fit",
    );
    check(
        13,
        2,
        4096,
        "2 sessions of 4096 tokens: 21.0 GiB needed (weights 10.0 GiB, working space 1.0 GiB, \
         sessions 10.0 GiB), 13.0 GiB available; 1 session of 1024 tokens would fit",
    );
    check(
        18,
        3,
        2048,
        "3 sessions of 2048 tokens: 20.0 GiB needed (weights 10.0 GiB, working space 1.0 GiB, \
         sessions 9.0 GiB), 18.0 GiB available; 2 sessions of 2048 tokens would fit, or 3 of 1024",
    );
}

#[test]
fn a_description_says_what_it_costs_and_what_fits() {
    let said = |gib: u64, most| small_plan().describe(gib * GIB, 2048, most);
    assert_eq!(
        said(24, 1 << 20),
        "weights 10.0 GiB, working space 1.0 GiB, each session 1.0 GiB and 1.0 GiB for every 1024 \
         tokens; in 24.0 GiB fit 4 sessions of 2048 tokens, or 1 of 12288"
    );
    assert!(said(24, 4096).ends_with("4 sessions of 2048 tokens, or 1 of 4096"));
    assert!(said(5, 4096).ends_with("in 5.0 GiB fit 0 sessions of 2048 tokens, or 1 of 0"));
}

#[test]
fn numbers_beyond_reason_do_not_wrap() {
    let plan = small_plan();
    assert_eq!(plan.bytes(u64::MAX, u64::MAX), u64::MAX);
    plan.check(u64::MAX - 1, u64::MAX, u64::MAX).unwrap_err();
    let free = MemoryPlan { session: StateCost { fixed: 0, per_1k_tokens: 0 }, ..plan };
    assert_eq!(free.most_sessions(u64::MAX, 1), u64::MAX);
    assert_eq!(free.largest_context(u64::MAX, 0), Some(u64::MAX));
}

#[test]
fn a_published_model_plans_to_about_its_known_size() {
    let config = flash();
    let state = StateCost::of(&config, Rounding::Official, 128).unwrap();
    let plan = MemoryPlan::new(&config, 81 * GIB, state, 512);
    assert_eq!(plan.session.fixed - state.fixed, 2 * 4 * 129_280);
    assert_eq!(plan.session.per_1k_tokens - state.per_1k_tokens, 4 * 1024);
    assert!(plan.scratch < GIB, "{}", plan.scratch);
    assert!(plan.check(96 * GIB, 1, 1 << 20).is_ok());
    assert_eq!(plan.most_sessions(80 * GIB, 1024), 0);
}
