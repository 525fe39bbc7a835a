//! The table of kernels, chosen once for the processor at hand.

use std::{ops::Range, sync::OnceLock};

use ds4_quant::Format;

use super::{
    activations::{Form, Token},
    codec::{Chunks, Codec},
    formats::{Fp4, Fp8, Iq2Xxs, Mxfp4, Q2K, Q4K, Q5K, Q6K, Q8},
    gemm::{self, Panel},
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

/// The kernels of one level.
pub struct Kernels {
    level: Level,
    of: fn(Format) -> Option<Kernel>,
}

/// One format's kernels.
struct Kernel {
    few: Few,
    /// Where unpacking rows into memory pays.
    many: Option<Many>,
}

type Few = unsafe fn(&Weights<'_>, Range<usize>, &[Token<'_>], &mut [&mut [f32]]);
type Many = unsafe fn(&Weights<'_>, Range<usize>, &[Token<'_>], &mut [&mut [f32]], &mut Panel);

/// From so many tokens on, unpacking rows into memory pays.
const MANY: usize = 5;

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
            #[cfg(target_arch = "aarch64")]
            Level::Neon => std::arch::is_aarch64_feature_detected!("dotprod"),
            #[allow(unreachable_patterns, reason = "what other architectures have")]
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
            best.unwrap_or(Kernels { level: Level::Scalar, of: scalar })
        })
    }

    /// The kernels of a level, if this processor can run them.
    pub fn of(level: Level) -> Option<Kernels> {
        if !level.is_here() {
            return None;
        }
        let of = match level {
            Level::Scalar => scalar,
            #[cfg(target_arch = "x86_64")]
            Level::Avx2 => avx2::kernel,
            #[cfg(target_arch = "x86_64")]
            Level::AvxVnni => avx_vnni::kernel,
            #[cfg(target_arch = "x86_64")]
            Level::Avx512 => avx512::kernel,
            #[cfg(target_arch = "x86_64")]
            Level::Avx512Vbmi => avx512_vbmi::kernel,
            #[cfg(target_arch = "aarch64")]
            Level::Neon => neon_dotprod::kernel,
            _ => return None,
        };
        Some(Kernels { level, of })
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
        panel: &mut Panel,
    ) {
        let form = Form::of(weights.format());
        assert!(x.iter().all(|x| Some(x.form) == form && x.cols == weights.cols()));
        assert!(x.len() == out.len() && out.iter().all(|out| out.len() >= rows.len()));
        assert!(rows.start <= rows.end && rows.end <= weights.rows());
        let Some(kernel) = (self.of)(weights.format()) else { return };
        match kernel.many {
            // SAFETY: a level's kernels are only handed out where `is_here` found its instructions.
            Some(many) if x.len() >= MANY => unsafe { many(weights, rows, x, out, panel) },
            // SAFETY: as above.
            _ => unsafe { (kernel.few)(weights, rows, x, out) },
        }
    }
}

fn scalar(format: Format) -> Option<Kernel> {
    fn few(weights: &Weights<'_>, rows: Range<usize>, x: &[Token<'_>], out: &mut [&mut [f32]]) {
        let (grid, format) = (Grid::get(), weights.format());
        for (x, out) in x.iter().zip(out) {
            for (row, out) in rows.clone().zip(out.iter_mut()) {
                *out = scalar::row(grid, format, weights.row(row), weights.row_scales(row), x);
            }
        }
    }
    Form::of(format).map(|_| Kernel { few, many: None })
}

macro_rules! level {
    ($level:ident, $isa:ty, $features:literal, $many:literal) => {
        mod $level {
            use super::*;

            pub fn kernel(format: Format) -> Option<Kernel> {
                Some(match format {
                    Format::Q8_0 => both::<Q8>(),
                    Format::Mxfp4 => both::<Mxfp4>(),
                    Format::Fp4Block => both::<Fp4>(),
                    Format::Fp8Block => Kernel { few: few::<Fp8>, many: None },
                    Format::Q2K => both::<Q2K>(),
                    Format::Q4K => both::<Q4K>(),
                    Format::Q5K => both::<Q5K>(),
                    Format::Q6K => both::<Q6K>(),
                    Format::Iq2Xxs => both::<Iq2Xxs>(),
                    Format::F32 | Format::F16 | Format::BF16 | Format::Q4_0 => return None,
                })
            }

            fn both<C: Chunks>() -> Kernel {
                Kernel { few: few::<C>, many: Some(many::<C>) }
            }

            #[target_feature(enable = $features)]
            fn few<C: Codec>(
                weights: &Weights<'_>,
                rows: Range<usize>,
                x: &[Token<'_>],
                out: &mut [&mut [f32]],
            ) {
                // SAFETY: the instructions are those that this function is compiled for.
                let s = unsafe { <$isa>::new() };
                gemv::multiply_few::<_, C>(s, weights, rows, x, out);
            }

            #[target_feature(enable = $features)]
            fn many<C: Chunks>(
                weights: &Weights<'_>,
                rows: Range<usize>,
                x: &[Token<'_>],
                out: &mut [&mut [f32]],
                panel: &mut Panel,
            ) {
                // SAFETY: as in `few`.
                let s = unsafe { <$isa>::new() };
                gemm::multiply::<_, C, $many>(s, weights, rows, x, out, panel);
            }
        }
    };
}

#[cfg(target_arch = "x86_64")]
use super::{avx2::Ymm, avx512::Zmm};

#[cfg(target_arch = "x86_64")]
level!(avx2, Ymm<false>, "avx2,fma,f16c", 4);
#[cfg(target_arch = "x86_64")]
level!(avx_vnni, Ymm<true>, "avx2,fma,f16c,avxvnni", 4);
#[cfg(target_arch = "x86_64")]
level!(avx512, Zmm<false>, "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni", 12);
#[cfg(target_arch = "x86_64")]
level!(avx512_vbmi, Zmm<true>, "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx512vbmi,gfni", 12);

#[cfg(target_arch = "aarch64")]
use super::neon::Neon;

#[cfg(target_arch = "aarch64")]
level!(neon_dotprod, Neon, "neon,dotprod", 4);
