//! Hyper-connections: the residual state is several streams; each half-block reads a weighted sum of
//! them and writes back into all, while the streams mix among themselves.

use std::sync::atomic::{AtomicUsize, Ordering};

use ds4_model::{Config, HyperWeights};

use crate::{
    floats::accumulate,
    matmul::{Product, multiply},
    norm::{inverse_rms, rms_norm},
    operand::Input,
    pool::Pool,
    round::fit,
    split::RowsMut,
};

/// The lowest row whose streams were not finite.
#[derive(Debug, PartialEq, Eq)]
pub struct BadRow(pub usize);

/// Reads the streams `[n, streams * hidden]` for a half-block: its normalised input goes to
/// `x` `[n, hidden]`, and what `post` needs to `mix`, per row `[into streams, between streams]`.
pub fn pre(
    pool: &mut Pool,
    config: &Config,
    weights: &HyperWeights,
    norm: &[f32],
    streams: &[f32],
    mix: &mut Vec<f32>,
    x: &mut Vec<f32>,
) -> Result<(), BadRow> {
    let (n, hidden) = (config.streams, config.hidden);
    let count = streams.len() / config.stream_width();
    let mix = fit(mix, count * config.mix_rows());
    let x = fit(x, count * hidden);
    let inputs = streams.chunks_exact(config.stream_width()).map(Input::floats);
    let outputs = mix.chunks_exact_mut(config.mix_rows());
    let function = &weights.function;
    multiply(pool, vec![Product::of_rows(function, 0..function.rows(), inputs, outputs)]);

    let (base, scale) = (&weights.base[..], &weights.scale[..]);
    let bad = Watch::default();
    let rows = (RowsMut::new(mix, config.mix_rows()), RowsMut::new(x, hidden));
    pool.rows(count, rows, |row, (mix, x), _| {
        let streams = &streams[row * config.stream_width()..][..config.stream_width()];
        let inverse = bad.checked(row, inverse_rms(streams, config.rms_eps));
        mix.iter_mut().for_each(|m| *m *= inverse);
        let (read, rest) = mix.split_at_mut(n);
        let (write, between) = rest.split_at_mut(n);
        for (i, m) in read.iter_mut().enumerate() {
            *m = sigmoid(*m * scale[0] + base[i]) + config.hc_eps;
        }
        for (i, m) in write.iter_mut().enumerate() {
            *m = 2.0 * sigmoid(*m * scale[1] + base[n + i]);
        }
        for (m, base) in between.iter_mut().zip(&base[2 * n..]) {
            *m = *m * scale[2] + base;
        }
        sinkhorn(between, n, config.sinkhorn_iterations, config.hc_eps);
        x.fill(0.0);
        accumulate(streams, read, x);
        rms_norm(x, norm, config.rms_eps);
    });
    bad.verdict()
}

/// Makes a matrix doubly stochastic: a softmax over each row, then columns and rows are brought to a
/// sum of one in turn, columns first and last.
fn sinkhorn(matrix: &mut [f32], n: usize, iterations: usize, eps: f32) {
    for row in matrix.chunks_exact_mut(n) {
        let max = row.iter().fold(f32::NEG_INFINITY, |max, &x| max.max(x));
        row.iter_mut().for_each(|x| *x = (*x - max).exp());
        let sum: f32 = row.iter().sum();
        row.iter_mut().for_each(|x| *x = *x / sum + eps);
    }
    let columns = |matrix: &mut [f32]| {
        for c in 0..n {
            let sum: f32 = matrix[c..].iter().step_by(n).sum();
            matrix[c..].iter_mut().step_by(n).for_each(|x| *x /= sum + eps);
        }
    };
    columns(matrix);
    for _ in 1..iterations {
        for row in matrix.chunks_exact_mut(n) {
            let sum: f32 = row.iter().sum();
            row.iter_mut().for_each(|x| *x /= sum + eps);
        }
        columns(matrix);
    }
}

/// Writes a half-block's output `[n, hidden]` back: row `i` of the mixing matrix says where stream
/// `i` goes.
pub fn post(pool: &mut Pool, config: &Config, streams: &mut [f32], mix: &[f32], out: &[f32]) {
    let (n, hidden, width) = (config.streams, config.hidden, config.stream_width());
    let count = streams.len() / width;
    pool.rows(count, RowsMut::new(streams, width), |row, streams, scratch| {
        let mix = &mix[row * config.mix_rows()..][..config.mix_rows()];
        let (write, between) = mix[n..].split_at(n);
        let out = &out[row * hidden..][..hidden];
        let (old, shares) = scratch.floats(width + n).split_at_mut(width);
        old.copy_from_slice(streams);
        for (j, stream) in streams.chunks_exact_mut(hidden).enumerate() {
            stream.iter_mut().zip(out).for_each(|(s, y)| *s = write[j] * y);
            for (share, row) in shares.iter_mut().zip(between.chunks_exact(n)) {
                *share = row[j];
            }
            accumulate(old, shares, stream);
        }
    });
}

/// Reads the streams of some rows for the output matrix: `y` becomes `[rows, hidden]`, normalised. All
/// rows are checked.
pub fn head(
    pool: &mut Pool,
    config: &Config,
    weights: &HyperWeights,
    norm: &[f32],
    streams: &[f32],
    wanted: &[usize],
    y: &mut Vec<f32>,
) -> Result<(), BadRow> {
    let (n, hidden, width) = (config.streams, config.hidden, config.stream_width());
    let bad = Watch::default();
    let mut inverse = vec![0.0; streams.len() / width];
    pool.rows(inverse.len(), RowsMut::new(&mut inverse, 1), |row, inverse, _| {
        let streams = &streams[row * width..][..width];
        inverse[0] = bad.checked(row, inverse_rms(streams, config.rms_eps));
    });
    bad.verdict()?;

    let streams_of = |row: usize| &streams[row * width..][..width];
    let mut mix = vec![0.0; wanted.len() * n];
    let inputs = wanted.iter().map(|&row| Input::floats(streams_of(row)));
    let outputs = mix.chunks_exact_mut(n);
    multiply(pool, vec![Product::of_rows(&weights.function, 0..n, inputs, outputs)]);
    let y = fit(y, wanted.len() * hidden);
    let rows = (RowsMut::new(&mut mix, n), RowsMut::new(y, hidden));
    pool.rows(wanted.len(), rows, |i, (mix, y), _| {
        for (m, base) in mix.iter_mut().zip(&weights.base) {
            *m = sigmoid(*m * inverse[wanted[i]] * weights.scale[0] + base) + config.hc_eps;
        }
        y.fill(0.0);
        accumulate(streams_of(wanted[i]), mix, y);
        rms_norm(y, norm, config.rms_eps);
    });
    Ok(())
}

/// Looks out for rows that are not finite. Their mean square is not either, so the check is free.
struct Watch(AtomicUsize);

impl Default for Watch {
    fn default() -> Watch {
        Watch(AtomicUsize::new(usize::MAX))
    }
}

impl Watch {
    fn checked(&self, row: usize, inverse_rms: f32) -> f32 {
        // One over the root of an infinity is zero, of a NaN it is NaN.
        if !inverse_rms.is_normal() {
            self.0.fetch_min(row, Ordering::Relaxed);
        }
        inverse_rms
    }

    fn verdict(self) -> Result<(), BadRow> {
        match self.0.into_inner() {
            usize::MAX => Ok(()),
            row => Err(BadRow(row)),
        }
    }
}

/// One over one plus the exponential of minus `x`.
fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + (-x).exp())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sinkhorn_balances_rows_and_columns() {
        let mut m = [1.0, -2.0, 0.5, 3.0, 0.0, 0.0, -1.0, 2.0, 1.0];
        sinkhorn(&mut m, 3, 20, 1e-6);
        for i in 0..3 {
            let row: f32 = m[3 * i..3 * i + 3].iter().sum();
            let column: f32 = m[i..].iter().step_by(3).sum();
            assert!((row - 1.0).abs() < 1e-4 && (column - 1.0).abs() < 1e-5, "{row} {column}");
        }
        assert!(m[3] > m[4]);
    }

    #[test]
    fn the_lowest_bad_row_is_reported() {
        let watch = Watch::default();
        for (row, mean) in [(0, 1.0), (3, f32::INFINITY), (2, f32::NAN), (4, 0.1)] {
            watch.checked(row, 1.0 / f32::sqrt(mean));
        }
        assert_eq!(watch.verdict(), Err(BadRow(2)));
        assert_eq!(Watch::default().verdict(), Ok(()));
    }
}
