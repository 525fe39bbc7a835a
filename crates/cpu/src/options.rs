//! What a person may choose about the executor, and what can be wrong with the choice.

use ds4_model::Rounding;
use ds4_quant::QuantError;

/// What matrices are multiplied with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Activations {
    /// Signed bytes with a scale per block, for every format that has a kernel for them; floats for
    /// the others.
    #[default]
    Int8,
    /// Floats. Several times slower, for checking.
    Exact,
}

/// Where the weights are read on machines whose memory is in several nodes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Numa {
    /// Where they lie.
    Off,
    /// From copies, if the cores belong to several nodes and there is room.
    #[default]
    Auto,
    /// From copies of every row near the core that multiplies it.
    Copy,
}

/// How the executor computes and what it keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CpuOptions {
    /// Threads that compute; 0 for one on each physical core.
    pub threads: usize,
    /// What matrices are multiplied with.
    pub activations: Activations,
    /// Whether every row of weights is copied near the core that multiplies it. It takes as much memory
    /// as the matrices again, and changes no bit.
    pub numa: Numa,
    /// Which of the model's own roundings are applied to cached rows.
    pub rounding: Rounding,
    /// How many of the last positions a slot can be truncated to at once.
    pub rewind: usize,
    /// A slot that is truncated further goes back to a multiple of this; itself a multiple of 128, or 0
    /// to go back to the start.
    pub boundary: usize,
    /// How many such multiples a slot remembers, close ones near its end and distant ones further back.
    pub boundaries_kept: usize,
    /// Rows of a batch that go through the layers together; it bounds the working memory.
    pub rows: usize,
}

impl Default for CpuOptions {
    fn default() -> CpuOptions {
        CpuOptions {
            threads: 0,
            activations: Activations::Int8,
            numa: Numa::default(),
            rounding: Rounding::Official,
            rewind: 128,
            boundary: 2048,
            boundaries_kept: 16,
            rows: 512,
        }
    }
}

/// Why an executor could not be made.
#[derive(Debug, thiserror::Error)]
pub enum CpuError {
    /// An option that cannot be.
    #[error("{option} = {value}: {why}")]
    Option {
        /// The field of [`CpuOptions`].
        option: &'static str,
        /// Its value.
        value: usize,
        /// What it must be.
        why: &'static str,
    },
    /// The model's rows cannot be encoded.
    #[error("{model}: the cached rows have a shape that cannot be packed: {source}")]
    Rows {
        /// The model's name.
        model: String,
        /// What is wrong with the shape.
        source: QuantError,
    },
    /// The copies of the weights do not fit.
    #[error(
        "copies of the weights near the cores need {needed} bytes and {available} are free; leave them where \
         they lie"
    )]
    Copies {
        /// Bytes of all copies.
        needed: u64,
        /// Bytes that the system could give.
        available: u64,
    },
    /// A thread could not be started.
    #[error("could not start {threads} threads: {source}")]
    Threads {
        /// How many were wanted.
        threads: usize,
        /// What the system said.
        source: std::io::Error,
    },
}

impl CpuOptions {
    /// Refuses options that cannot be.
    pub fn check(&self) -> Result<(), CpuError> {
        let refuse = |option, value, why| Err(CpuError::Option { option, value, why });
        if !self.boundary.is_multiple_of(128) {
            return refuse("boundary", self.boundary, "must be a multiple of 128");
        }
        if self.rows == 0 {
            return refuse("rows", self.rows, "must be at least 1");
        }
        if self.threads > 4096 {
            return refuse("threads", self.threads, "must be at most 4096");
        }
        if self.rewind > 1 << 20 {
            return refuse("rewind", self.rewind, "must be at most 1048576");
        }
        Ok(())
    }
}
