//! What a person may choose about the executor, and what can go wrong with the card.

use ds4_engine::{ExecError, Size};
use ds4_model::Rounding;
use ds4_quant::QuantError;

/// How the executor computes and what it keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CudaOptions {
    /// Which card, counted as the driver counts them.
    pub gpu: usize,
    /// Which of the model's own roundings are applied to cached rows.
    pub rounding: Rounding,
    /// Whether activations are rounded to half precision, or to int8 before experts of IQ2_XXS and Q2_K, and meet the
    /// weights on tensor cores. Many times faster; one to three thousandths of a logit's size off.
    pub fast: bool,
    /// How many of the last positions a slot can be truncated to at once.
    pub rewind: usize,
    /// A slot that is truncated further goes back to a multiple of this; itself a multiple of 128, or 0
    /// to go back to the start. Rounds of a prompt end there, so it should be no less than `rows`.
    pub boundary: usize,
    /// How many such multiples a slot remembers, close ones near its end and distant ones further back,
    /// in the host's memory: a large model's take four to six megabytes each.
    pub boundaries_kept: usize,
    /// Rows of a batch that go through the layers together; it bounds the working memory. Long rounds
    /// read the weights less often, and give each expert more rows.
    pub rows: usize,
    /// Rows of a round that attention takes at a time; it bounds the working memory of their queries.
    pub slice: usize,
}

/// Slices of a round at most.
const MOST_SLICES: usize = 64;

impl Default for CudaOptions {
    fn default() -> CudaOptions {
        CudaOptions {
            gpu: 0,
            rounding: Rounding::Official,
            fast: false,
            rewind: 128,
            boundary: 4096,
            boundaries_kept: 16,
            rows: 4096,
            slice: 512,
        }
    }
}

/// Why an executor could not be made.
#[derive(Debug, thiserror::Error)]
pub enum CudaError {
    /// There is no driver on this machine.
    #[error("no CUDA driver on this machine: libcuda was not found")]
    NoDriver,
    /// The driver lacks what is called.
    #[error("the NVIDIA driver knows CUDA {found}, and {needed} or later is needed")]
    OldDriver {
        /// The version that it knows.
        found: String,
        /// The least that will do.
        needed: String,
    },
    /// The driver counts fewer cards.
    #[error("there is no GPU {wanted}: the driver sees {found}")]
    NoSuchGpu {
        /// The one asked for.
        wanted: usize,
        /// How many there are.
        found: usize,
    },
    /// The driver refused.
    #[error("{what}: the CUDA driver says {says}")]
    Driver {
        /// What was tried.
        what: &'static str,
        /// The driver's own words.
        says: String,
    },
    /// Not enough memory on the card.
    #[error("the GPU has no room for {what}: {} needed, {} free", Size(*.wanted), Size(*.free))]
    OutOfMemory {
        /// What the memory was for.
        what: &'static str,
        /// How much.
        wanted: u64,
        /// How much there was.
        free: u64,
    },
    /// No kernels for this card, and no compiler for them.
    #[error("no kernels for compute capability {capability}: {why}")]
    NoKernels {
        /// Of the card: 90 for 9.0.
        capability: u32,
        /// What the compiler said, or that there is none.
        why: String,
    },
    /// An option that cannot be.
    #[error("{option} = {value}: {why}")]
    Option {
        /// The field of [`CudaOptions`].
        option: &'static str,
        /// Its value.
        value: usize,
        /// What it must be.
        why: &'static str,
    },
    /// A model whose shape the kernels do not know.
    #[error("{model}: {what}")]
    Shape {
        /// The model's name.
        model: String,
        /// What does not fit.
        what: String,
    },
    /// More matrices with one input than a launch takes.
    #[error("{count} matrices are multiplied with one vector, {most} can be")]
    TooManyProducts {
        /// So many.
        count: usize,
        /// The most.
        most: usize,
    },
    /// The model's rows cannot be encoded.
    #[error("{model}: the cached rows have a shape that cannot be packed: {source}")]
    Rows {
        /// The model's name.
        model: String,
        /// What is wrong with the shape.
        source: QuantError,
    },
}

impl From<CudaError> for ExecError {
    fn from(error: CudaError) -> ExecError {
        ExecError::Machine(error.to_string())
    }
}

impl CudaOptions {
    /// Refuses options that cannot be.
    pub fn check(&self) -> Result<(), CudaError> {
        let refuse = |option, value, why| Err(CudaError::Option { option, value, why });
        if !self.boundary.is_multiple_of(128) {
            return refuse("boundary", self.boundary, "must be a multiple of 128");
        }
        if self.rows == 0 || self.rows > 4096 {
            return refuse("rows", self.rows, "must be from 1 to 4096");
        }
        if self.slice == 0 || self.slices() > MOST_SLICES {
            return refuse("slice", self.slice, "must be at least a 64th of the rows of a round");
        }
        if self.rewind > 1 << 20 {
            return refuse("rewind", self.rewind, "must be at most 1048576");
        }
        Ok(())
    }

    /// Tokens of a prompt that are best fed at a time. Floats gain nothing from long rounds.
    pub fn chunk(&self) -> usize {
        if self.fast { self.rows } else { self.longest_slice() }
    }

    /// Rows of the longest slice: a short round is one.
    pub fn longest_slice(&self) -> usize {
        self.slice.min(self.rows)
    }

    /// Slices of the longest round.
    pub fn slices(&self) -> usize {
        self.rows.div_ceil(self.longest_slice())
    }
}

#[cfg(test)]
mod tests {
    use super::CudaOptions;

    #[test]
    fn a_round_is_cut_into_slices_but_not_into_crumbs() {
        let with = |rows, slice| CudaOptions { rows, slice, ..CudaOptions::default() };
        for (rows, slice, slices) in [(4096, 512, 8), (600, 512, 2), (100, 512, 1), (64, 1, 64)] {
            with(rows, slice).check().unwrap();
            assert_eq!(with(rows, slice).slices(), slices, "{rows} by {slice}");
        }
        for (rows, slice) in [(0, 512), (4097, 512), (4096, 0), (4096, 63)] {
            with(rows, slice).check().unwrap_err();
        }
    }
}
