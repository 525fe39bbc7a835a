//! The search of the K-quants with a minimum: `x = d scale q - dmin min`, with small whole numbers
//! `scale`, `min` and `q`.

use super::{BLOCK, Block, Step, common_step, nearest};

/// How a format cuts a block up.
pub(super) struct Shape {
    /// Values in a sub-block.
    pub(super) part: usize,
    /// The largest code.
    pub(super) top: u8,
    /// The largest scale and minimum of a sub-block.
    pub(super) top_scale: u8,
}

/// Sub-blocks in a block, at most.
const PARTS: usize = 16;

/// A block, encoded but not yet packed.
pub(super) struct Fitted {
    pub(super) d: u16,
    pub(super) dmin: u16,
    /// Scale and minimum of each sub-block.
    pub(super) steps: [(u8, u8); PARTS],
    pub(super) codes: [u8; BLOCK],
}

/// `x = scale q - min`, neither negative.
#[derive(Clone, Copy, Default)]
struct Line {
    scale: f32,
    min: f32,
}

impl Line {
    fn inverse(self) -> f32 {
        if self.scale > 0.0 { 1.0 / self.scale } else { 0.0 }
    }
}

/// Sums over a sub-block, from which everything else follows.
#[derive(Default)]
struct Sums {
    w: f32,
    wq: f32,
    wqq: f32,
    wx: f32,
    wxq: f32,
}

/// How far candidates for the first scale of a sub-block reach: the range of its values is taken as
/// so many codes more or fewer than there are.
const SWEEP: std::ops::RangeInclusive<i32> = -9..=9;
/// Fits of codes to a line, or to steps, and of these to the codes.
const ROUNDS: usize = 3;

pub(super) fn fit(shape: &Shape, block: &Block) -> Fitted {
    let parts =
        || block.values.chunks_exact(shape.part).zip(block.weights.chunks_exact(shape.part));
    let top = f32::from(shape.top);
    let top_scale = f32::from(shape.top_scale);
    let mut lines = [Line::default(); PARTS];
    let mut scales = [(0.0, 0.0); PARTS];
    let mut mins = [(0.0, 0.0); PARTS];
    for (j, (x, w)) in parts().enumerate() {
        let (line, sums) = fit_line(x, w, top);
        lines[j] = line;
        scales[j] = (line.scale, sums.wqq);
        mins[j] = (line.min, sums.w);
    }
    // From the top down: of equals, the finest.
    let times = || (1..=shape.top_scale).rev().map(f32::from);
    let multiple = |x| nearest(x, top_scale);
    let d = common_step(block, &scales, times(), multiple);
    let dmin = common_step(block, &mins, times(), multiple);

    let choose = |d: Step, dmin: Step| {
        let mut steps = [(0, 0); PARTS];
        let mut total = 0.0;
        for (j, (x, w)) in parts().enumerate() {
            let (error, step) = choose_step(x, w, lines[j], (d.value, dmin.value), shape);
            steps[j] = step;
            total += error;
        }
        (total, d, dmin, steps)
    };
    let mut best = choose(d, dmin);
    for _ in 0..ROUNDS {
        let (_, d, dmin, steps) = best;
        let (d, dmin) = refit_steps(parts().zip(steps), (d.value, dmin.value), top);
        let next = choose(block.stored(d), block.stored(dmin));
        if next.0 < best.0 {
            best = next;
        } else {
            break;
        }
    }

    let (_, d, dmin, steps) = best;
    let mut codes = [0; BLOCK];
    for ((codes, (x, _)), step) in codes.chunks_exact_mut(shape.part).zip(parts()).zip(steps) {
        let line = line_of(step, (d.value, dmin.value));
        let inverse = line.inverse();
        for (code, x) in codes.iter_mut().zip(x) {
            *code = nearest((x + line.min) * inverse, top) as u8;
        }
    }
    Fitted { d: d.half, dmin: dmin.half, steps, codes }
}

fn line_of((scale, min): (u8, u8), (d, dmin): (f32, f32)) -> Line {
    Line { scale: d * f32::from(scale), min: dmin * f32::from(min) }
}

/// The line that fits a sub-block best on its own, and its sums.
fn fit_line(x: &[f32], w: &[f32], top: f32) -> (Line, Sums) {
    let low = x.iter().fold(0f32, |low, &x| low.min(x));
    let high = x.iter().fold(f32::NEG_INFINITY, |high, &x| high.max(x));
    let level = Line { scale: 0.0, min: -low };
    let mut best = (error(x, w, level, top), level);
    if high > low {
        for tenth in SWEEP {
            let codes = top + tenth as f32 * 0.1;
            let mut line = Line { scale: (high - low) / codes, min: -low };
            for _ in 0..ROUNDS {
                line = refit(&sums(x, w, line, top));
                let error = error(x, w, line, top);
                if error < best.0 {
                    best = (error, line);
                }
            }
        }
    }
    (best.1, sums(x, w, best.1, top))
}

/// The squared error of a sub-block on a line.
fn error(x: &[f32], w: &[f32], line: Line, top: f32) -> f32 {
    let inverse = line.inverse();
    let of = |(x, w): (&f32, &f32)| {
        let q = nearest((x + line.min) * inverse, top);
        w * (x - (line.scale * q - line.min)).powi(2)
    };
    x.iter().zip(w).map(of).sum()
}

fn sums(x: &[f32], w: &[f32], line: Line, top: f32) -> Sums {
    let inverse = line.inverse();
    let mut sums = Sums::default();
    for (x, w) in x.iter().zip(w) {
        let q = nearest((x + line.min) * inverse, top);
        sums.w += w;
        sums.wq += w * q;
        sums.wqq += w * q * q;
        sums.wx += w * x;
        sums.wxq += w * x * q;
    }
    sums
}

/// The best line for given codes, by least squares; without a minimum if that were negative.
fn refit(sums: &Sums) -> Line {
    let Sums { w, wq, wqq, wx, wxq } = sums;
    let [w, wq, wqq, wx, wxq] = [*w, *wq, *wqq, *wx, *wxq].map(f64::from);
    let (a, b) = solve([w, wq, wqq], [wx, wxq]).unwrap_or((0.0, 0.0));
    if b > 0.0 && a <= 0.0 {
        return Line { scale: b as f32, min: -a as f32 };
    }
    let scale = if wqq > 0.0 { (wxq / wqq).max(0.0) } else { 0.0 };
    Line { scale: scale as f32, min: 0.0 }
}

/// The best steps for given codes, scales and minima, by least squares over the block.
fn refit_steps<'a>(
    parts: impl Iterator<Item = ((&'a [f32], &'a [f32]), (u8, u8))>,
    (d, dmin): (f32, f32),
    top: f32,
) -> (f64, f64) {
    let (mut aa, mut ab, mut bb, mut ax, mut bx) = (0.0, 0.0, 0.0, 0.0, 0.0);
    for ((x, w), step) in parts {
        let sums = sums(x, w, line_of(step, (d, dmin)), top);
        // x = d a - dmin b, with a = scale q and b = min.
        let [scale, min] = [step.0, step.1].map(f64::from);
        aa += scale * scale * f64::from(sums.wqq);
        ab -= scale * min * f64::from(sums.wq);
        bb += min * min * f64::from(sums.w);
        ax += scale * f64::from(sums.wxq);
        bx -= min * f64::from(sums.wx);
    }
    match solve([aa, ab, bb], [ax, bx]) {
        Some((d, dmin)) if d > 0.0 && dmin >= 0.0 => (d, dmin),
        _ if aa > 0.0 => ((ax / aa).max(0.0), f64::from(dmin)),
        _ if bb > 0.0 => (f64::from(d), (bx / bb).max(0.0)),
        _ => (f64::from(d), f64::from(dmin)),
    }
}

/// Solves `[[aa, ab], [ab, bb]] (a, b) = (ax, bx)`, unless the two say the same.
fn solve([aa, ab, bb]: [f64; 3], [ax, bx]: [f64; 2]) -> Option<(f64, f64)> {
    let determinant = aa * bb - ab * ab;
    (determinant > 1e-9 * aa * bb)
        .then(|| ((ax * bb - bx * ab) / determinant, (bx * aa - ax * ab) / determinant))
}

/// Scale and minimum of a sub-block under given steps: those nearest to its own line or next to
/// them, whichever leaves least.
fn choose_step(
    x: &[f32],
    w: &[f32],
    line: Line,
    (d, dmin): (f32, f32),
    shape: &Shape,
) -> (f32, (u8, u8)) {
    let near = |value: f32, step: f32| {
        let at =
            if step > 0.0 { nearest(value / step, f32::from(shape.top_scale)) as u8 } else { 0 };
        at.saturating_sub(1)..=(at + 1).min(shape.top_scale)
    };
    let mut best = (f32::INFINITY, (0, 0));
    for scale in near(line.scale, d) {
        for min in near(line.min, dmin) {
            let step = (scale, min);
            let error = error(x, w, line_of(step, (d, dmin)), f32::from(shape.top));
            if error < best.0 {
                best = (error, step);
            }
        }
    }
    best
}
