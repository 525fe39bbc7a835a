//! Traffic against numbers worked out by hand on a model with one layer of each kind.

use std::sync::Arc;

use ds4_host::Region;
use ds4_model::{
    AttentionWeights, CompressorWeights, ExpertWeights, Fingerprint, HyperWeights, Indexer,
    IndexerWeights, LayerWeights, MoeWeights, Rope, Routing, Weights,
};
use ds4_quant::Format;

use super::*;

/// A matrix of so many rows of 32 columns: 64 bytes a row in F16, 34 in Q8_0.
fn matrix(format: Format, rows: usize) -> Matrix {
    let bytes = format.row_bytes(32).unwrap() * rows;
    let data = Region::from_vec(vec![0; bytes]);
    Matrix::new("m".into(), format, (rows, 32), data, None).unwrap()
}

fn compressor(rows: usize) -> CompressorWeights {
    CompressorWeights {
        kv: matrix(Format::F16, rows),
        gate: matrix(Format::F16, rows),
        ape: Vec::new(),
        norm: Vec::new(),
    }
}

fn expert(format: Format) -> ExpertWeights {
    ExpertWeights { gate: matrix(format, 1), up: matrix(format, 1), down: matrix(format, 1) }
}

fn layer(kind: Compression) -> LayerWeights {
    let hyper = || HyperWeights { function: matrix(Format::F16, 1), base: vec![], scale: vec![] };
    LayerWeights {
        attn_hc: hyper(),
        attn_norm: vec![],
        attention: AttentionWeights {
            q_a: matrix(Format::Q8_0, 1),
            q_a_norm: vec![],
            q_b: matrix(Format::Q8_0, 1),
            kv: matrix(Format::Q8_0, 1),
            kv_norm: vec![],
            sinks: vec![],
            output_a: matrix(Format::Q8_0, 1),
            output_b: matrix(Format::Q8_0, 1),
            compressor: (kind != Compression::None).then(|| compressor(2)),
            indexer: (kind == Compression::Csa).then(|| IndexerWeights {
                q_b: matrix(Format::F16, 5),
                proj: matrix(Format::F16, 2),
                compressor: compressor(1),
            }),
        },
        ffn_hc: hyper(),
        ffn_norm: vec![],
        moe: MoeWeights {
            router: matrix(Format::F16, 1),
            routing: Routing::Scores(vec![]),
            experts: (0..8).map(|_| expert(Format::Q8_0)).collect(),
            shared: expert(Format::F16),
        },
    }
}

fn model() -> Arc<Model> {
    let layers = vec![Compression::None, Compression::Csa, Compression::Hca];
    let config = Config {
        name: "by hand".into(),
        hidden: 32,
        vocab: 10,
        heads: 1,
        head_dim: 128,
        rope: Rope {
            dims: 64,
            base: 1e4,
            compressed_base: 1.6e5,
            factor: 16.0,
            original_context: 65_536.0,
            beta_fast: 32.0,
            beta_slow: 1.0,
        },
        q_rank: 32,
        o_groups: 1,
        o_rank: 32,
        window: 128,
        indexer: Indexer { heads: 1, dim: 128, top_k: 64 },
        experts: 8,
        experts_used: 2,
        expert_hidden: 32,
        hash_layers: 0,
        routed_scale: 1.0,
        swiglu_limit: vec![10.0; 3],
        swiglu_limit_shared: vec![10.0; 3],
        streams: 1,
        sinkhorn_iterations: 1,
        hc_eps: 1e-6,
        rms_eps: 1e-6,
        max_context: 100_000,
        layers: layers.clone(),
    };
    let weights = Weights {
        embedding: matrix(Format::F16, 10),
        layers: layers.into_iter().map(layer).collect(),
        head_hc: HyperWeights { function: matrix(Format::F16, 1), base: vec![], scale: vec![] },
        head_norm: vec![],
        output: matrix(Format::Q8_0, 10),
    };
    Arc::new(Model { config, weights, fingerprint: Fingerprint([0; 32]) })
}

/// What every layer reads: five Q8_0 rows, two F16 rows of hyper-connections, the router, the shared
/// expert.
const LAYER: f64 = 5.0 * 34.0 + 2.0 * 64.0 + 64.0 + 3.0 * 64.0;
/// Two compressors of two matrices of two rows, and that of the indexer with one row each.
const COMPRESSORS: f64 = 2.0 * 4.0 * 64.0 + 2.0 * 64.0;
/// Head, its hyper-connection, and one row of the embedding.
const ENDS: f64 = 10.0 * 34.0 + 64.0 + 64.0;
/// Two of eight experts in each of three layers.
const EXPERTS: f64 = 3.0 * 2.0 * 3.0 * 34.0;
/// The indexer's queries and head weights.
const CHOOSING: f64 = 7.0 * 64.0;
/// 64 values, 1 scale, 7 of padding, 64 rotary values of two bytes.
const ROW: f64 = 64.0 + 1.0 + 7.0 + 128.0;
/// 128 nibbles and 4 scales.
const INDEX_ROW: f64 = 68.0;

#[test]
fn a_step_reads_what_was_counted_by_hand() {
    let traffic = Traffic::of(&model(), Rounding::Official).unwrap();
    let weights = 3.0 * LAYER + COMPRESSORS + ENDS + EXPERTS;
    // The first token: one row in each of three windows.
    assert_eq!(traffic.step(1, 1), weights + 3.0 * ROW);
    // 256 tokens: full windows, 64 rows of 4 tokens, all seen and none chosen, and two of 128.
    assert_eq!(traffic.step(1, 256), weights + (3.0 * 128.0 + 64.0 + 2.0) * ROW);
    // 260 tokens: 65 rows, of which 64 are chosen.
    let chosen = CHOOSING + 65.0 * INDEX_ROW;
    assert_eq!(traffic.step(1, 260), weights + (3.0 * 128.0 + 64.0 + 2.0) * ROW + chosen);
    let chosen = CHOOSING + 1024.0 * INDEX_ROW;
    assert_eq!(traffic.step(1, 4096), weights + (3.0 * 128.0 + 64.0 + 32.0) * ROW + chosen);
}

#[test]
fn unrounded_rows_are_floats() {
    let model = model();
    let [official, plain] = [Rounding::Official, Rounding::Plain]
        .map(|rounding| Traffic::of(&model, rounding).unwrap().step(1, 260));
    assert_eq!(plain - official, 450.0 * (512.0 - ROW) + 65.0 * (512.0 - INDEX_ROW));
}

#[test]
fn a_batch_shares_weights_and_some_experts() {
    let traffic = Traffic::of(&model(), Rounding::Official).unwrap();
    let own = 64.0 + 3.0 * ROW;
    let shared = 3.0 * LAYER + COMPRESSORS + ENDS - 64.0;
    for (batch, part) in [(1, 0.25), (2, 1.0 - 0.75 * 0.75), (3, 1.0 - 0.421_875)] {
        let experts = 4.0 * EXPERTS * part;
        let wanted = shared + experts + batch as f64 * own;
        assert!((traffic.step(batch, 1) - wanted).abs() < 1e-6, "batch {batch}");
    }
    let everything = shared + 4.0 * EXPERTS + 1000.0 * own;
    assert!((traffic.step(1000, 1) - everything).abs() < 1e-6);
}

#[test]
fn a_prompt_token_multiplies_with_everything_but_the_head_and_unused_experts() {
    let traffic = Traffic::of(&model(), Rounding::Official).unwrap();
    let layers = 3.0 * (5.0 + 2.0 + 1.0 + 3.0 + 2.0 * 3.0);
    let rows = layers + 2.0 * 4.0 + 2.0 + 7.0;
    assert_eq!(traffic.operations_per_prompt_token(), 2.0 * 32.0 * rows);
}

#[test]
fn formats_have_their_bytes() {
    let formats = formats(&model());
    let q8 = 3 * (5 + 8 * 3) * 34 + 340;
    assert_eq!(formats["Q8_0"], q8);
    let f16 = 3 * (2 + 1 + 3) + 10 + 8 + 2 + 7 + 1;
    assert_eq!(formats["F16"], f16 * 64);
    assert_eq!(formats.len(), 2);
}
