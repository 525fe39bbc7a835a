//! Every tensor of the architecture once: its name in either family of files, and its shape.
//!
//! ds4's and llama.cpp's GGUFs share their names; the original checkpoint has its own. Binding,
//! `inspect` and the writers of test models all read this one table.

use crate::{Compression, Config};

/// What a tensor is used as, which decides the formats it may be stored in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A short list of numbers, read as `f32`; a plain number format in the file.
    Vector,
    /// A matrix, used as it is stored: any format that can be decoded.
    Matrix,
    /// One matrix for every routed expert: stacked in a GGUF, one tensor each in a checkpoint.
    Experts,
    /// Integers: token id to expert ids.
    Table,
}

/// One tensor, or one per layer.
#[derive(Clone, Copy, Debug)]
pub struct Entry {
    gguf: &'static str,
    checkpoint: &'static str,
    /// What it is used as.
    pub kind: Kind,
    /// Whether a model can do without it.
    pub optional: bool,
    /// `(rows, cols)`, a vector being one row; `None` where the layer has no such tensor.
    pub shape: fn(&Config, usize) -> Option<(usize, usize)>,
}

impl Entry {
    /// The name in a GGUF.
    pub fn gguf_name(&self, layer: usize) -> String {
        self.gguf.replace("{L}", &layer.to_string())
    }

    /// The name in the original checkpoint; `expert` matters for [`Kind::Experts`] only.
    pub fn checkpoint_name(&self, layer: usize, expert: usize) -> String {
        self.checkpoint.replace("{L}", &layer.to_string()).replace("{E}", &expert.to_string())
    }

    /// Whether the entry names a tensor of every layer rather than one of the whole model.
    pub fn is_per_layer(&self) -> bool {
        self.gguf.contains("{L}")
    }
}

type Shape = fn(&Config, usize) -> Option<(usize, usize)>;

const fn entry(kind: Kind, gguf: &'static str, checkpoint: &'static str, shape: Shape) -> Entry {
    Entry { gguf, checkpoint, kind, optional: false, shape }
}

fn compressor_width(c: &Config, layer: usize, dim: usize) -> Option<usize> {
    match c.layers[layer] {
        Compression::None => None,
        kind => Some(kind.windows() * dim),
    }
}

fn csa_only<T>(c: &Config, layer: usize, shape: T) -> Option<T> {
    (c.layers[layer] == Compression::Csa).then_some(shape)
}

use Kind::{Experts, Matrix, Table, Vector};

/// `[vocab, hidden]`.
pub const EMBEDDING: Entry =
    entry(Matrix, "token_embd.weight", "embed.weight", |c, _| Some((c.vocab, c.hidden)));
/// `[hidden]`.
pub const HEAD_NORM: Entry =
    entry(Vector, "output_norm.weight", "norm.weight", |c, _| Some((1, c.hidden)));
/// `[vocab, hidden]`.
pub const OUTPUT: Entry =
    entry(Matrix, "output.weight", "head.weight", |c, _| Some((c.vocab, c.hidden)));
/// `[streams, streams * hidden]`.
pub const HEAD_HC_FUNCTION: Entry =
    entry(Matrix, "output_hc_fn.weight", "hc_head_fn", |c, _| Some((c.streams, c.stream_width())));
/// `[streams]`.
pub const HEAD_HC_BASE: Entry =
    entry(Vector, "output_hc_base.weight", "hc_head_base", |c, _| Some((1, c.streams)));
/// One scalar.
pub const HEAD_HC_SCALE: Entry =
    entry(Vector, "output_hc_scale.weight", "hc_head_scale", |_, _| Some((1, 1)));

/// `[mix, streams * hidden]`.
pub const ATTN_HC_FUNCTION: Entry =
    entry(Matrix, "blk.{L}.hc_attn_fn.weight", "layers.{L}.hc_attn_fn", |c, _| {
        Some((c.mix_rows(), c.stream_width()))
    });
/// `[mix]`.
pub const ATTN_HC_BASE: Entry =
    entry(Vector, "blk.{L}.hc_attn_base.weight", "layers.{L}.hc_attn_base", |c, _| {
        Some((1, c.mix_rows()))
    });
/// Three scalars.
pub const ATTN_HC_SCALE: Entry =
    entry(Vector, "blk.{L}.hc_attn_scale.weight", "layers.{L}.hc_attn_scale", |_, _| Some((1, 3)));
/// `[mix, streams * hidden]`.
pub const FFN_HC_FUNCTION: Entry =
    entry(Matrix, "blk.{L}.hc_ffn_fn.weight", "layers.{L}.hc_ffn_fn", |c, _| {
        Some((c.mix_rows(), c.stream_width()))
    });
/// `[mix]`.
pub const FFN_HC_BASE: Entry =
    entry(Vector, "blk.{L}.hc_ffn_base.weight", "layers.{L}.hc_ffn_base", |c, _| {
        Some((1, c.mix_rows()))
    });
/// Three scalars.
pub const FFN_HC_SCALE: Entry =
    entry(Vector, "blk.{L}.hc_ffn_scale.weight", "layers.{L}.hc_ffn_scale", |_, _| Some((1, 3)));

/// `[hidden]`.
pub const ATTN_NORM: Entry =
    entry(Vector, "blk.{L}.attn_norm.weight", "layers.{L}.attn_norm.weight", |c, _| {
        Some((1, c.hidden))
    });
/// `[q_rank, hidden]`.
pub const Q_A: Entry =
    entry(Matrix, "blk.{L}.attn_q_a.weight", "layers.{L}.attn.wq_a.weight", |c, _| {
        Some((c.q_rank, c.hidden))
    });
/// `[q_rank]`.
pub const Q_A_NORM: Entry =
    entry(Vector, "blk.{L}.attn_q_a_norm.weight", "layers.{L}.attn.q_norm.weight", |c, _| {
        Some((1, c.q_rank))
    });
/// `[heads * head_dim, q_rank]`.
pub const Q_B: Entry =
    entry(Matrix, "blk.{L}.attn_q_b.weight", "layers.{L}.attn.wq_b.weight", |c, _| {
        Some((c.q_width(), c.q_rank))
    });
/// `[head_dim, hidden]`.
pub const KV: Entry =
    entry(Matrix, "blk.{L}.attn_kv.weight", "layers.{L}.attn.wkv.weight", |c, _| {
        Some((c.head_dim, c.hidden))
    });
/// `[head_dim]`.
pub const KV_NORM: Entry =
    entry(Vector, "blk.{L}.attn_kv_a_norm.weight", "layers.{L}.attn.kv_norm.weight", |c, _| {
        Some((1, c.head_dim))
    });
/// `[heads]`.
pub const SINKS: Entry =
    entry(Vector, "blk.{L}.attn_sinks.weight", "layers.{L}.attn.attn_sink", |c, _| {
        Some((1, c.heads))
    });
/// `[o_groups * o_rank, width of a group of heads]`.
pub const OUTPUT_A: Entry =
    entry(Matrix, "blk.{L}.attn_output_a.weight", "layers.{L}.attn.wo_a.weight", |c, _| {
        Some((c.o_low_width(), c.o_group_width()))
    });
/// `[hidden, o_groups * o_rank]`.
pub const OUTPUT_B: Entry =
    entry(Matrix, "blk.{L}.attn_output_b.weight", "layers.{L}.attn.wo_b.weight", |c, _| {
        Some((c.hidden, c.o_low_width()))
    });

/// The four tensors of a compressor.
#[derive(Clone, Copy, Debug)]
pub struct CompressorEntries {
    /// `[windows * dim, hidden]`.
    pub kv: Entry,
    /// `[windows * dim, hidden]`.
    pub gate: Entry,
    /// `[ratio, windows * dim]`.
    pub ape: Entry,
    /// `[dim]`.
    pub norm: Entry,
}

/// The compressor of the attention rows.
pub const COMPRESSOR: CompressorEntries = CompressorEntries {
    kv: entry(
        Matrix,
        "blk.{L}.attn_compressor_kv.weight",
        "layers.{L}.attn.compressor.wkv.weight",
        |c, l| Some((compressor_width(c, l, c.head_dim)?, c.hidden)),
    ),
    gate: entry(
        Matrix,
        "blk.{L}.attn_compressor_gate.weight",
        "layers.{L}.attn.compressor.wgate.weight",
        |c, l| Some((compressor_width(c, l, c.head_dim)?, c.hidden)),
    ),
    ape: entry(
        Vector,
        "blk.{L}.attn_compressor_ape.weight",
        "layers.{L}.attn.compressor.ape",
        |c, l| Some((c.layers[l].ratio(), compressor_width(c, l, c.head_dim)?)),
    ),
    norm: entry(
        Vector,
        "blk.{L}.attn_compressor_norm.weight",
        "layers.{L}.attn.compressor.norm.weight",
        |c, l| compressor_width(c, l, c.head_dim).map(|_| (1, c.head_dim)),
    ),
};

/// The compressor of the index rows.
pub const INDEX_COMPRESSOR: CompressorEntries = CompressorEntries {
    kv: entry(
        Matrix,
        "blk.{L}.indexer_compressor_kv.weight",
        "layers.{L}.attn.indexer.compressor.wkv.weight",
        |c, l| csa_only(c, l, (2 * c.indexer.dim, c.hidden)),
    ),
    gate: entry(
        Matrix,
        "blk.{L}.indexer_compressor_gate.weight",
        "layers.{L}.attn.indexer.compressor.wgate.weight",
        |c, l| csa_only(c, l, (2 * c.indexer.dim, c.hidden)),
    ),
    ape: entry(
        Vector,
        "blk.{L}.indexer_compressor_ape.weight",
        "layers.{L}.attn.indexer.compressor.ape",
        |c, l| csa_only(c, l, (4, 2 * c.indexer.dim)),
    ),
    norm: entry(
        Vector,
        "blk.{L}.indexer_compressor_norm.weight",
        "layers.{L}.attn.indexer.compressor.norm.weight",
        |c, l| csa_only(c, l, (1, c.indexer.dim)),
    ),
};

/// `[indexer heads * dim, q_rank]`.
pub const INDEXER_Q_B: Entry = entry(
    Matrix,
    "blk.{L}.indexer.attn_q_b.weight",
    "layers.{L}.attn.indexer.wq_b.weight",
    |c, l| csa_only(c, l, (c.indexer.heads * c.indexer.dim, c.q_rank)),
);
/// `[indexer heads, hidden]`.
pub const INDEXER_PROJ: Entry = entry(
    Matrix,
    "blk.{L}.indexer.proj.weight",
    "layers.{L}.attn.indexer.weights_proj.weight",
    |c, l| csa_only(c, l, (c.indexer.heads, c.hidden)),
);

/// `[hidden]`.
pub const FFN_NORM: Entry =
    entry(Vector, "blk.{L}.ffn_norm.weight", "layers.{L}.ffn_norm.weight", |c, _| {
        Some((1, c.hidden))
    });
/// `[experts, hidden]`.
pub const ROUTER: Entry =
    entry(Matrix, "blk.{L}.ffn_gate_inp.weight", "layers.{L}.ffn.gate.weight", |c, _| {
        Some((c.experts, c.hidden))
    });
/// `[experts]`; absent means zeros.
pub const ROUTER_BIAS: Entry = Entry {
    optional: true,
    ..entry(Vector, "blk.{L}.exp_probs_b.bias", "layers.{L}.ffn.gate.bias", |c, l| {
        (!c.routes_by_hash(l)).then_some((1, c.experts))
    })
};
/// `[vocab, experts_used]`.
pub const ROUTER_TABLE: Entry =
    entry(Table, "blk.{L}.ffn_gate_tid2eid.weight", "layers.{L}.ffn.gate.tid2eid", |c, l| {
        c.routes_by_hash(l).then_some((c.vocab, c.experts_used))
    });

/// The three matrices of an expert.
#[derive(Clone, Copy, Debug)]
pub struct ExpertEntries {
    /// `[expert_hidden, hidden]`.
    pub gate: Entry,
    /// `[expert_hidden, hidden]`.
    pub up: Entry,
    /// `[hidden, expert_hidden]`.
    pub down: Entry,
}

/// The routed experts.
pub const EXPERTS: ExpertEntries = ExpertEntries {
    gate: entry(
        Experts,
        "blk.{L}.ffn_gate_exps.weight",
        "layers.{L}.ffn.experts.{E}.w1.weight",
        |c, _| Some((c.expert_hidden, c.hidden)),
    ),
    up: entry(
        Experts,
        "blk.{L}.ffn_up_exps.weight",
        "layers.{L}.ffn.experts.{E}.w3.weight",
        |c, _| Some((c.expert_hidden, c.hidden)),
    ),
    down: entry(
        Experts,
        "blk.{L}.ffn_down_exps.weight",
        "layers.{L}.ffn.experts.{E}.w2.weight",
        |c, _| Some((c.hidden, c.expert_hidden)),
    ),
};

/// The shared expert.
pub const SHARED_EXPERT: ExpertEntries = ExpertEntries {
    gate: entry(
        Matrix,
        "blk.{L}.ffn_gate_shexp.weight",
        "layers.{L}.ffn.shared_experts.w1.weight",
        |c, _| Some((c.expert_hidden, c.hidden)),
    ),
    up: entry(
        Matrix,
        "blk.{L}.ffn_up_shexp.weight",
        "layers.{L}.ffn.shared_experts.w3.weight",
        |c, _| Some((c.expert_hidden, c.hidden)),
    ),
    down: entry(
        Matrix,
        "blk.{L}.ffn_down_shexp.weight",
        "layers.{L}.ffn.shared_experts.w2.weight",
        |c, _| Some((c.hidden, c.expert_hidden)),
    ),
};

/// All entries, the whole model's first.
pub const ALL: &[Entry] = &[
    EMBEDDING,
    HEAD_NORM,
    OUTPUT,
    HEAD_HC_FUNCTION,
    HEAD_HC_BASE,
    HEAD_HC_SCALE,
    ATTN_HC_FUNCTION,
    ATTN_HC_BASE,
    ATTN_HC_SCALE,
    ATTN_NORM,
    Q_A,
    Q_A_NORM,
    Q_B,
    KV,
    KV_NORM,
    SINKS,
    OUTPUT_A,
    OUTPUT_B,
    COMPRESSOR.kv,
    COMPRESSOR.gate,
    COMPRESSOR.ape,
    COMPRESSOR.norm,
    INDEXER_Q_B,
    INDEXER_PROJ,
    INDEX_COMPRESSOR.kv,
    INDEX_COMPRESSOR.gate,
    INDEX_COMPRESSOR.ape,
    INDEX_COMPRESSOR.norm,
    FFN_HC_FUNCTION,
    FFN_HC_BASE,
    FFN_HC_SCALE,
    FFN_NORM,
    ROUTER,
    ROUTER_BIAS,
    ROUTER_TABLE,
    EXPERTS.gate,
    EXPERTS.up,
    EXPERTS.down,
    SHARED_EXPERT.gate,
    SHARED_EXPERT.up,
    SHARED_EXPERT.down,
];

/// Every tensor of this model: the entry, its layer (0 for those of the whole model) and its shape.
pub fn tensors(config: &Config) -> impl Iterator<Item = (&'static Entry, usize, (usize, usize))> {
    ALL.iter().flat_map(move |entry| {
        let layers = if entry.is_per_layer() { config.layers.len() } else { 1 };
        (0..layers).filter_map(move |layer| {
            (entry.shape)(config, layer).map(|shape| (entry, layer, shape))
        })
    })
}
