//! What a DeepSeek V4 model is, in numbers. Every value comes from the file; nothing is looked up
//! in a table of known models.

use std::fmt;

/// How the rows of a layer's cache are compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compression {
    /// The sliding window only.
    None,
    /// One row for every 4 tokens, made of two overlapping windows, chosen by an indexer ("CSA").
    Csa,
    /// One row for every 128 tokens, all of them attended ("HCA").
    Hca,
}

impl Compression {
    /// Tokens per compressed row; 0 when there are none.
    pub const fn ratio(self) -> usize {
        match self {
            Compression::None => 0,
            Compression::Csa => 4,
            Compression::Hca => 128,
        }
    }

    /// The kind with this ratio.
    pub const fn from_ratio(ratio: u64) -> Option<Compression> {
        match ratio {
            0 => Some(Compression::None),
            4 => Some(Compression::Csa),
            128 => Some(Compression::Hca),
            _ => None,
        }
    }

    /// How many windows one row is pooled from: CSA rows overlap the window before.
    pub const fn windows(self) -> usize {
        match self {
            Compression::None => 0,
            Compression::Csa => 2,
            Compression::Hca => 1,
        }
    }
}

impl fmt::Display for Compression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.ratio())
    }
}

/// The rotary embedding: one base for window-only layers, another with YaRN for compressed ones.
#[derive(Clone, Debug, PartialEq)]
pub struct Rope {
    /// How many trailing dimensions of a head are rotated.
    pub dims: usize,
    /// Base of layers without compression.
    pub base: f64,
    /// Base of layers with compression.
    pub compressed_base: f64,
    /// YaRN: by how much the low frequencies are stretched.
    pub factor: f64,
    /// YaRN: the context the model was first trained on.
    pub original_context: f64,
    /// YaRN: rotations above which a frequency is left alone.
    pub beta_fast: f64,
    /// YaRN: rotations below which a frequency is stretched fully.
    pub beta_slow: f64,
}

impl Rope {
    /// The frequency of each pair of dimensions, in radians per position.
    ///
    /// Window-only layers: `f_i = base^(-2i/d)`. Compressed layers: the same with their own base,
    /// blended with `f_i / factor` by a linear ramp over the pairs, between those that turn more than
    /// `beta_fast` times in the original context and those that turn less than `beta_slow` times.
    /// No magnitude factor is applied.
    pub fn frequencies(&self, compression: Compression) -> Vec<f64> {
        let d = self.dims as f64;
        let plain = |base: f64, i: usize| base.powf(-2.0 * i as f64 / d);
        if compression == Compression::None {
            return (0..self.dims / 2).map(|i| plain(self.base, i)).collect();
        }
        let base = self.compressed_base;
        let pair_turning = |turns: f64| {
            d * (self.original_context / (turns * 2.0 * std::f64::consts::PI)).ln()
                / (2.0 * base.ln())
        };
        let low = pair_turning(self.beta_fast).floor().max(0.0);
        let high = pair_turning(self.beta_slow).ceil().min(d - 1.0);
        (0..self.dims / 2)
            .map(|i| {
                let ramp = ((i as f64 - low) / (high - low).max(0.001)).clamp(0.0, 1.0);
                let f = plain(base, i);
                f * (1.0 - ramp) + f / self.factor * ramp
            })
            .collect()
    }
}

/// The indexer of CSA layers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Indexer {
    /// Query heads.
    pub heads: usize,
    /// Width of a head and of an index row.
    pub dim: usize,
    /// How many compressed rows a query attends to at most.
    pub top_k: usize,
}

/// All the numbers of one model.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// The name the file gives itself.
    pub name: String,
    /// Width of one residual stream.
    pub hidden: usize,
    /// Rows of the embedding and of the output matrix.
    pub vocab: usize,
    /// Query heads; there is one key/value head.
    pub heads: usize,
    /// Width of a head, and of a cached row, which is key and value at once.
    pub head_dim: usize,
    /// Rotary embedding.
    pub rope: Rope,
    /// Rank of the query projection.
    pub q_rank: usize,
    /// Groups of heads with an output projection of their own.
    pub o_groups: usize,
    /// Rank of each group's output projection.
    pub o_rank: usize,
    /// The sliding window: a query sees this many rows, its own included.
    pub window: usize,
    /// Compression of each layer; its length is the number of layers.
    pub layers: Vec<Compression>,
    /// The indexer of CSA layers.
    pub indexer: Indexer,
    /// Routed experts.
    pub experts: usize,
    /// Routed experts that each token uses.
    pub experts_used: usize,
    /// Inner width of routed and shared experts.
    pub expert_hidden: usize,
    /// How many of the first layers route by token id.
    pub hash_layers: usize,
    /// Factor on the normalised weights of routed experts.
    pub routed_scale: f32,
    /// SwiGLU clamp of routed experts, per layer.
    pub swiglu_limit: Vec<f32>,
    /// SwiGLU clamp of the shared expert, per layer.
    pub swiglu_limit_shared: Vec<f32>,
    /// Residual streams.
    pub streams: usize,
    /// Sinkhorn iterations of the stream mixing matrix.
    pub sinkhorn_iterations: usize,
    /// Epsilon of the hyper-connections.
    pub hc_eps: f32,
    /// Epsilon of every RMS norm.
    pub rms_eps: f32,
    /// Positions the model was made for.
    pub max_context: usize,
}

impl Config {
    /// Width of all streams together.
    pub fn stream_width(&self) -> usize {
        self.streams * self.hidden
    }

    /// Rows of a layer's mixing function: weights into the block, out of it, and between streams.
    pub fn mix_rows(&self) -> usize {
        2 * self.streams + self.streams * self.streams
    }

    /// Width of all query heads together.
    pub fn q_width(&self) -> usize {
        self.heads * self.head_dim
    }

    /// Width of the heads of one output group.
    pub fn o_group_width(&self) -> usize {
        self.q_width() / self.o_groups
    }

    /// Width of all groups' low-rank outputs together.
    pub fn o_low_width(&self) -> usize {
        self.o_groups * self.o_rank
    }

    /// Whether this layer routes by token id.
    pub fn routes_by_hash(&self, layer: usize) -> bool {
        layer < self.hash_layers
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn yarn_ramp_of_the_published_constants_runs_from_pair_15_to_25() {
        let rope = Rope {
            dims: 64,
            base: 10_000.0,
            compressed_base: 160_000.0,
            factor: 16.0,
            original_context: 65_536.0,
            beta_fast: 32.0,
            beta_slow: 1.0,
        };
        let plain = |i: usize| 160_000f64.powf(-2.0 * i as f64 / 64.0);
        let f = rope.frequencies(Compression::Csa);
        assert_eq!(f, rope.frequencies(Compression::Hca));
        assert_eq!(f[15], plain(15));
        assert!(f[16] < plain(16));
        assert!(f[24] > plain(24) / 16.0);
        assert_eq!(f[25], plain(25) / 16.0);
        assert_eq!(rope.frequencies(Compression::None)[0], 1.0);
    }
}
