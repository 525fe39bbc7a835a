//! Models of a few kilobytes with every mechanism of the architecture, in two of the file styles.

use std::iter;

use ds4_gguf::{Dtype, GgufWriter, SafetensorsWriter};
use ds4_model::{
    Compression, Config, Indexer, Rope,
    catalogue::{self, Entry, Kind},
    describe,
};
use ds4_quant::{Format, encode_row};
use serde_json::{Value, json};

/// GGUF's number for 32-bit integers.
const I32: u32 = 26;

pub fn config() -> Config {
    let layers = vec![Compression::None, Compression::Csa, Compression::Hca];
    Config {
        name: "tiny".into(),
        hidden: 8,
        vocab: 5,
        heads: 2,
        head_dim: 8,
        rope: Rope {
            dims: 4,
            base: 10_000.0,
            compressed_base: 160_000.0,
            factor: 16.0,
            original_context: 65_536.0,
            beta_fast: 32.0,
            beta_slow: 1.0,
        },
        q_rank: 4,
        o_groups: 2,
        o_rank: 3,
        window: 4,
        indexer: Indexer { heads: 2, dim: 4, top_k: 2 },
        experts: 3,
        experts_used: 2,
        expert_hidden: 6,
        hash_layers: 1,
        routed_scale: 1.5,
        swiglu_limit: vec![10.0; layers.len()],
        swiglu_limit_shared: vec![10.0; layers.len()],
        streams: 2,
        sinkhorn_iterations: 3,
        hc_eps: 1e-6,
        rms_eps: 1e-6,
        max_context: 4096,
        layers,
    }
}

/// A config whose matrices are wide enough for formats of 32-value blocks.
pub fn wide() -> Config {
    let layers = vec![Compression::Csa];
    Config {
        hidden: 32,
        q_rank: 32,
        head_dim: 32,
        heads: 1,
        o_groups: 1,
        o_rank: 32,
        expert_hidden: 32,
        experts: 2,
        experts_used: 1,
        hash_layers: 0,
        swiglu_limit: vec![10.0],
        swiglu_limit_shared: vec![10.0],
        layers,
        ..config()
    }
}

/// The model as a GGUF; matrices whose rows allow it are of the format `narrow`.
pub fn gguf(config: &Config, narrow: Format) -> Vec<u8> {
    let mut writer = GgufWriter::new("tiny.gguf");
    describe(config, &mut writer);
    let tensors: Vec<(String, Vec<u64>, Option<Format>)> = catalogue::tensors(config)
        .map(|(entry, layer, (rows, cols))| {
            let mut dims = vec![cols as u64, rows as u64];
            if entry.kind == Kind::Experts {
                dims.push(config.experts as u64);
            }
            let fits = narrow.row_bytes(cols).is_some();
            let format = match entry.kind {
                Kind::Table => None,
                Kind::Matrix | Kind::Experts if fits => Some(narrow),
                _ => Some(Format::F32),
            };
            (entry.gguf_name(layer), dims, format)
        })
        .collect();
    for (name, dims, format) in &tensors {
        let type_id = format.map_or(Some(I32), Format::ggml_id).expect("a format of GGUF");
        writer.tensor(name, dims, type_id).expect("a tensor of the catalogue");
    }
    let mut stream = writer.begin(Vec::new()).expect("a directory");
    let mut random = Random(1);
    for (name, dims, format) in &tensors {
        let rows: u64 = dims.iter().skip(1).product();
        let cols = dims[0] as usize;
        let mut row = || match format {
            Some(format) => random.row(*format, cols),
            None => vec![0; 4 * cols],
        };
        let rows: Vec<Vec<u8>> = iter::repeat_with(&mut row).take(rows as usize).collect();
        stream.write(name, rows).expect("as many bytes as announced");
    }
    stream.finish().expect("all tensors")
}

/// Weights that are the same everywhere.
struct Random(u64);

impl Random {
    /// A row of values from -0.5 to 0.5, or of any blocks where we have no encoder.
    fn row(&mut self, format: Format, cols: usize) -> Vec<u8> {
        let values: Vec<f32> = iter::repeat_with(|| self.next()).take(cols).collect();
        let mut row = vec![0; format.row_bytes(cols).expect("whole blocks")];
        if encode_row(format, &values, &mut row).is_err() {
            // Without this bit no half-precision scale is infinite, nor large.
            row.fill_with(|| (self.next() * 512.0) as i32 as u8 & !0x40);
        }
        row
    }

    /// Xorshift, the upper bits.
    fn next(&mut self) -> f32 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 40) as f32 / (1 << 24) as f32 - 0.5
    }
}

/// How the matrices of a checkpoint are stored.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Published {
    Plain,
    /// FP8 matrices and FP4 experts with their scales.
    Scaled,
}

/// `config.json` and the safetensors of a checkpoint.
pub fn checkpoint(config: &Config, published: Published) -> (Value, Vec<u8>) {
    let mut writer = SafetensorsWriter::new("tiny.safetensors");
    let mut bytes: Vec<(String, usize)> = Vec::new();
    let mut announce = |name: String, dtype: Dtype, shape: &[u64], width: usize| {
        writer.tensor(&name, dtype, shape).expect("a tensor of the catalogue");
        bytes.push((name, width * shape.iter().product::<u64>() as usize));
    };
    for (entry, layer, (rows, cols)) in catalogue::tensors(config) {
        let count = if entry.kind == Kind::Experts { config.experts } else { 1 };
        for expert in 0..count {
            let name = entry.checkpoint_name(layer, expert);
            let scale = scale_name(entry, &name).filter(|_| published == Published::Scaled);
            let (rows, cols) = (rows as u64, cols as u64);
            match (entry.kind, scale) {
                (Kind::Matrix, Some(scale)) => {
                    announce(name, Dtype::F8E4m3, &[rows, cols], 1);
                    let tiles = [rows.div_ceil(128), cols.div_ceil(128)];
                    announce(scale, Dtype::F8E8m0, &tiles, 1);
                }
                (Kind::Experts, Some(scale)) => {
                    announce(name, Dtype::I8, &[rows, cols / 2], 1);
                    announce(scale, Dtype::F8E8m0, &[rows, cols.div_ceil(32)], 1);
                }
                (Kind::Table, _) => announce(name, Dtype::I64, &[rows, cols], 8),
                (Kind::Vector, _) if rows == 1 => announce(name, Dtype::F32, &[cols], 4),
                _ => announce(name, Dtype::Bf16, &[rows, cols], 2),
            }
        }
    }
    let mut stream = writer.begin(Vec::new()).expect("a header");
    for (name, bytes) in bytes {
        stream.write(&name, [vec![0; bytes]]).expect("as many bytes as announced");
    }
    (description(config), stream.finish().expect("all tensors"))
}

fn scale_name(entry: &Entry, name: &str) -> Option<String> {
    let scaled = matches!(entry.kind, Kind::Matrix | Kind::Experts);
    Some(format!("{}.scale", name.strip_suffix(".weight").filter(|_| scaled)?))
}

fn description(c: &Config) -> Value {
    let ratios: Vec<usize> = c.layers.iter().map(|kind| kind.ratio()).collect();
    json!({
        "model_type": "deepseek_v4",
        "num_hidden_layers": c.layers.len(),
        "hidden_size": c.hidden,
        "vocab_size": c.vocab,
        "num_attention_heads": c.heads,
        "num_key_value_heads": 1,
        "head_dim": c.head_dim,
        "qk_rope_head_dim": c.rope.dims,
        "rope_theta": c.rope.base,
        "compress_rope_theta": c.rope.compressed_base,
        "rope_scaling": {
            "factor": c.rope.factor,
            "original_max_position_embeddings": c.rope.original_context,
            "beta_fast": c.rope.beta_fast,
            "beta_slow": c.rope.beta_slow,
        },
        "q_lora_rank": c.q_rank,
        "o_lora_rank": c.o_rank,
        "o_groups": c.o_groups,
        "sliding_window": c.window,
        "compress_ratios": ratios,
        "index_n_heads": c.indexer.heads,
        "index_head_dim": c.indexer.dim,
        "index_topk": c.indexer.top_k,
        "n_routed_experts": c.experts,
        "num_experts_per_tok": c.experts_used,
        "moe_intermediate_size": c.expert_hidden,
        "n_shared_experts": 1,
        "scoring_func": "sqrtsoftplus",
        "norm_topk_prob": true,
        "routed_scaling_factor": c.routed_scale,
        "num_hash_layers": c.hash_layers,
        "swiglu_limit": c.swiglu_limit[0],
        "hc_mult": c.streams,
        "hc_sinkhorn_iters": c.sinkhorn_iterations,
        "hc_eps": c.hc_eps,
        "rms_norm_eps": c.rms_eps,
        "max_position_embeddings": c.max_context,
    })
}
