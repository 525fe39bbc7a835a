//! The weights of a model as the forward pass wants them: small vectors as `f32`, matrices as views
//! of the file in whatever format they were stored.

use std::sync::Arc;

use ds4_host::Region;
use ds4_quant::{Format, decode_fp4_row, decode_fp8_row, decode_row};

/// Side of the square tiles that share a scale in FP8 matrices.
pub const FP8_TILE: usize = 128;
/// Columns that share a scale in the checkpoint's FP4 matrices.
pub const FP4_GROUP: usize = 32;

/// A matrix `[rows, cols]` that multiplies a vector of `cols`, still encoded.
#[derive(Clone, Debug)]
pub struct Matrix {
    name: Arc<str>,
    format: Format,
    rows: usize,
    cols: usize,
    row_bytes: usize,
    data: Region,
    /// E8M0 scales that live in a tensor of their own (FP8 and FP4 of the original checkpoint).
    scales: Option<Region>,
}

impl Matrix {
    /// A matrix over `data`, or a message that says which size does not fit.
    pub fn new(
        name: Arc<str>,
        format: Format,
        (rows, cols): (usize, usize),
        data: Region,
        scales: Option<Region>,
    ) -> Result<Matrix, String> {
        let row_bytes = format.row_bytes(cols).ok_or_else(|| {
            format!(
                "{} columns are no multiple of the {}-value blocks of {}",
                cols,
                format.block_elems(),
                format.name()
            )
        })?;
        if row_bytes.checked_mul(rows) != Some(data.len()) {
            return Err(format!(
                "{} bytes do not hold {rows} x {cols} values of {}",
                data.len(),
                format.name()
            ));
        }
        let wanted = match format {
            Format::Fp8Block => Some(rows.div_ceil(FP8_TILE) * cols.div_ceil(FP8_TILE)),
            Format::Fp4Block => Some(rows * cols.div_ceil(FP4_GROUP)),
            _ => None,
        };
        if scales.as_ref().map(|s| s.len()) != wanted {
            return Err(format!(
                "{} scales for {rows} x {cols} values of {}, {} needed",
                scales.map_or(0, |s| s.len()),
                format.name(),
                wanted.unwrap_or(0)
            ));
        }
        Ok(Matrix { name, format, rows, cols, row_bytes, data, scales })
    }

    /// The tensor's name in the file.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// How the values are stored.
    pub fn format(&self) -> Format {
        self.format
    }

    /// Outputs.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Inputs.
    pub fn cols(&self) -> usize {
        self.cols
    }

    /// All bytes of the values, row after row.
    pub fn data(&self) -> &[u8] {
        &self.data
    }

    /// The E8M0 scales, where they are kept apart from the values.
    pub fn scales(&self) -> Option<&[u8]> {
        self.scales.as_deref()
    }

    /// The encoded bytes of one row.
    pub fn row(&self, row: usize) -> &[u8] {
        &self.data[row * self.row_bytes..][..self.row_bytes]
    }

    /// The scales of one row; empty where the format carries them in its blocks.
    pub fn row_scales(&self, row: usize) -> &[u8] {
        let Some(scales) = self.scales.as_deref() else { return &[] };
        let (line, width) = match self.format {
            Format::Fp8Block => (row / FP8_TILE, self.cols.div_ceil(FP8_TILE)),
            _ => (row, self.cols.div_ceil(FP4_GROUP)),
        };
        &scales[line * width..][..width]
    }

    /// Decodes one row into `out`, which must be `cols` long.
    pub fn decode_row(&self, row: usize, out: &mut [f32]) {
        let bytes = self.row(row);
        let decoded = match self.format {
            Format::Fp8Block => decode_fp8_row(bytes, self.row_scales(row), out),
            Format::Fp4Block => decode_fp4_row(bytes, self.row_scales(row), out),
            format => decode_row(format, bytes, out),
        };
        debug_assert!(decoded.is_ok(), "sizes are checked when the matrix is made: {decoded:?}");
    }
}

/// Hyper-connections of one half-block, or of the head.
#[derive(Clone, Debug)]
pub struct HyperWeights {
    /// `[mix, streams * hidden]`.
    pub function: Matrix,
    /// `[mix]`.
    pub base: Vec<f32>,
    /// One scalar per part of the mix: in, out, between streams; the head has one only.
    pub scale: Vec<f32>,
}

/// The compressor of a layer, or of its indexer.
#[derive(Clone, Debug)]
pub struct CompressorWeights {
    /// `[windows * dim, hidden]`.
    pub kv: Matrix,
    /// `[windows * dim, hidden]`.
    pub gate: Matrix,
    /// Position bias `[ratio, windows * dim]`.
    pub ape: Vec<f32>,
    /// `[dim]`.
    pub norm: Vec<f32>,
}

/// The indexer of a CSA layer.
#[derive(Clone, Debug)]
pub struct IndexerWeights {
    /// `[heads * dim, q_rank]`.
    pub q_b: Matrix,
    /// `[heads, hidden]`.
    pub proj: Matrix,
    /// Makes the index rows.
    pub compressor: CompressorWeights,
}

/// Attention.
#[derive(Clone, Debug)]
pub struct AttentionWeights {
    /// `[q_rank, hidden]`.
    pub q_a: Matrix,
    /// `[q_rank]`.
    pub q_a_norm: Vec<f32>,
    /// `[heads * head_dim, q_rank]`.
    pub q_b: Matrix,
    /// `[head_dim, hidden]`; key and value are the same row.
    pub kv: Matrix,
    /// `[head_dim]`.
    pub kv_norm: Vec<f32>,
    /// One logit per head that takes weight and gives nothing.
    pub sinks: Vec<f32>,
    /// `[o_groups * o_rank, heads / o_groups * head_dim]`; rows `g * o_rank ..` belong to group `g`.
    pub output_a: Matrix,
    /// `[hidden, o_groups * o_rank]`.
    pub output_b: Matrix,
    /// On CSA and HCA layers.
    pub compressor: Option<CompressorWeights>,
    /// On CSA layers.
    pub indexer: Option<IndexerWeights>,
}

/// One SwiGLU expert.
#[derive(Clone, Debug)]
pub struct ExpertWeights {
    /// `[expert_hidden, hidden]`.
    pub gate: Matrix,
    /// `[expert_hidden, hidden]`.
    pub up: Matrix,
    /// `[hidden, expert_hidden]`.
    pub down: Matrix,
}

/// How a layer chooses its experts.
#[derive(Clone, Debug)]
pub enum Routing {
    /// By token id: `[vocab, experts_used]`.
    Hash(Vec<u32>),
    /// By the largest biased scores; `[experts]`.
    Scores(Vec<f32>),
}

/// The mixture of experts.
#[derive(Clone, Debug)]
pub struct MoeWeights {
    /// `[experts, hidden]`.
    pub router: Matrix,
    /// The choice.
    pub routing: Routing,
    /// Routed experts.
    pub experts: Vec<ExpertWeights>,
    /// The expert that every token uses.
    pub shared: ExpertWeights,
}

/// One layer.
#[derive(Clone, Debug)]
pub struct LayerWeights {
    /// Streams around attention.
    pub attn_hc: HyperWeights,
    /// `[hidden]`.
    pub attn_norm: Vec<f32>,
    /// Attention.
    pub attention: AttentionWeights,
    /// Streams around the experts.
    pub ffn_hc: HyperWeights,
    /// `[hidden]`.
    pub ffn_norm: Vec<f32>,
    /// Experts.
    pub moe: MoeWeights,
}

/// The whole model.
#[derive(Clone, Debug)]
pub struct Weights {
    /// `[vocab, hidden]`.
    pub embedding: Matrix,
    /// Layers, first to last.
    pub layers: Vec<LayerWeights>,
    /// Streams into the head.
    pub head_hc: HyperWeights,
    /// `[hidden]`.
    pub head_norm: Vec<f32>,
    /// `[vocab, hidden]`.
    pub output: Matrix,
}
