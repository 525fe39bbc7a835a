//! The table of kernels, chosen once for the processor at hand.

use std::{ops::Range, sync::OnceLock};

use ds4_quant::Format;

use super::{
    activations::{Form, Token},
    formats::{Fp4, Fp8, Iq2Xxs, Mxfp4, Q2K, Q4K, Q5K, Q6K, Q8},
    gemv,
    grid::Grid,
    scalar,
    weights::Weights,
};

/// A set of instructions that there are kernels for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// Plain code, for every processor; the others are checked against it.
    Scalar,
    /// AVX2, FMA and F16C.
    Avx2,
    /// The same with byte dot products.
    AvxVnni,
    /// AVX-512 with byte dot products.
    Avx512,
    /// The same with lookups of bytes in registers.
    Avx512Vbmi,
    /// Arm's byte dot products.
    Neon,
}

/// Working memory of `multiply`.
#[derive(Default)]
pub struct Panel {}

/// The kernels of one level.
pub struct Kernels {
    level: Level,
    few: fn(Format) -> Option<Few>,
}

type Few = unsafe fn(&Weights<'_>, Range<usize>, &[Token<'_>], &mut [&mut [f32]]);

impl Level {
    /// All levels, the best last.
    pub const ALL: [Level; 6] =
        [Level::Scalar, Level::Avx2, Level::AvxVnni, Level::Avx512, Level::Avx512Vbmi, Level::Neon];

    /// Whether this processor has the instructions.
    pub fn is_here(self) -> bool {
        match self {
            Level::Scalar => true,
            #[cfg(target_arch = "x86_64")]
            Level::Avx2 => {
                is_x86_feature_detected!("avx2")
                    && is_x86_feature_detected!("fma")
                    && is_x86_feature_detected!("f16c")
            }
            #[cfg(target_arch = "x86_64")]
            Level::AvxVnni => Level::Avx2.is_here() && is_x86_feature_detected!("avxvnni"),
            #[cfg(target_arch = "x86_64")]
            Level::Avx512 => {
                is_x86_feature_detected!("avx512f")
                    && is_x86_feature_detected!("avx512bw")
                    && is_x86_feature_detected!("avx512vl")
                    && is_x86_feature_detected!("avx512dq")
                    && is_x86_feature_detected!("avx512vnni")
            }
            #[cfg(target_arch = "x86_64")]
            Level::Avx512Vbmi => {
                Level::Avx512.is_here()
                    && is_x86_feature_detected!("avx512vbmi")
                    && is_x86_feature_detected!("gfni")
            }
            _ => false,
        }
    }
}

impl Kernels {
    /// The best kernels that this processor can run.
    pub fn detect() -> &'static Kernels {
        static BEST: OnceLock<Kernels> = OnceLock::new();
        BEST.get_or_init(|| {
            let best = Level::ALL.into_iter().rev().find_map(Kernels::of);
            best.unwrap_or(Kernels { level: Level::Scalar, few: scalar_few })
        })
    }

    /// The kernels of a level, if this processor can run them.
    pub fn of(level: Level) -> Option<Kernels> {
        if !level.is_here() {
            return None;
        }
        let few = match level {
            Level::Scalar => scalar_few,
            #[cfg(target_arch = "x86_64")]
            Level::Avx2 => avx2::few,
            #[cfg(target_arch = "x86_64")]
            Level::AvxVnni => avx_vnni::few,
            #[cfg(target_arch = "x86_64")]
            Level::Avx512 => avx512::few,
            #[cfg(target_arch = "x86_64")]
            Level::Avx512Vbmi => avx512_vbmi::few,
            _ => return None,
        };
        Some(Kernels { level, few })
    }

    /// Which level this is.
    pub fn level(&self) -> Level {
        self.level
    }

    /// Rows of weights times tokens; `out[n][i]` is the product of token `n` with row `rows[i]`.
    ///
    /// The same bits come out at every level and in whatever company a token or a row is computed.
    ///
    /// # Panics
    /// If the tokens are not of the format's form and the matrix's width, there are not as many
    /// outputs as tokens, an output is shorter than `rows`, or `rows` are not all there.
    pub fn multiply(
        &self,
        weights: &Weights<'_>,
        rows: Range<usize>,
        x: &[Token<'_>],
        out: &mut [&mut [f32]],
        _panel: &mut Panel,
    ) {
        let form = Form::of(weights.format());
        assert!(x.iter().all(|x| Some(x.form) == form && x.cols == weights.cols()));
        assert!(x.len() == out.len() && out.iter().all(|out| out.len() >= rows.len()));
        assert!(rows.start <= rows.end && rows.end <= weights.rows());
        if let Some(few) = (self.few)(weights.format()) {
            // SAFETY: a level's kernels are only handed out where `is_here` found its instructions.
            unsafe { few(weights, rows, x, out) }
        }
    }
}

fn scalar_few(format: Format) -> Option<Few> {
    fn few(weights: &Weights<'_>, rows: Range<usize>, x: &[Token<'_>], out: &mut [&mut [f32]]) {
        let (grid, format) = (Grid::get(), weights.format());
        for (x, out) in x.iter().zip(out) {
            for (row, out) in rows.clone().zip(out.iter_mut()) {
                *out = scalar::row(grid, format, weights.row(row), weights.row_scales(row), x);
            }
        }
    }
    Form::of(format).map(|_| few as Few)
}

macro_rules! level {
    ($level:ident, $isa:ty, $features:literal) => {
        mod $level {
            use super::*;

            pub fn few(format: Format) -> Option<Few> {
                Some(match format {
                    Format::Q8_0 => few_of::<Q8>,
                    Format::Mxfp4 => few_of::<Mxfp4>,
                    Format::Fp4Block => few_of::<Fp4>,
                    Format::Fp8Block => few_of::<Fp8>,
                    Format::Q2K => few_of::<Q2K>,
                    Format::Q4K => few_of::<Q4K>,
                    Format::Q5K => few_of::<Q5K>,
                    Format::Q6K => few_of::<Q6K>,
                    Format::Iq2Xxs => few_of::<Iq2Xxs>,
                    Format::F32 | Format::F16 | Format::BF16 | Format::Q4_0 => return None,
                })
            }

            #[target_feature(enable = $features)]
            fn few_of<C: Codec>(
                weights: &Weights<'_>,
                rows: Range<usize>,
                x: &[Token<'_>],
                out: &mut [&mut [f32]],
            ) {
                // SAFETY: the instructions are those that this function is compiled for.
                let s = unsafe { <$isa>::new() };
                gemv::multiply_few::<_, C>(s, weights, rows, x, out);
            }
        }
    };
}

#[cfg(target_arch = "x86_64")]
use super::{avx2::Ymm, avx512::Zmm, codec::Codec};

#[cfg(target_arch = "x86_64")]
level!(avx2, Ymm<false>, "avx2,fma,f16c");
#[cfg(target_arch = "x86_64")]
level!(avx_vnni, Ymm<true>, "avx2,fma,f16c,avxvnni");
#[cfg(target_arch = "x86_64")]
level!(avx512, Zmm<false>, "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni");
#[cfg(target_arch = "x86_64")]
level!(avx512_vbmi, Zmm<true>, "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx512vbmi,gfni");
