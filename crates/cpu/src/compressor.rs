//! The compressor: one row for every window of tokens, pooled by a softmax over the window in each
//! dimension. It makes the compressed rows of attention and the index rows of the indexer.

use ds4_model::{Compression, CompressorWeights, Matrix};

use crate::{
    floats::pool_step,
    matmul::Product,
    norm::rms_norm,
    operand::Operand,
    pool::Pool,
    rope::{Turn, rotate, turns},
    round::{Pass, Span},
    rows::RowFormat,
    slot::Compressed,
    split::RowsMut,
};

/// A compressor of a layer.
#[derive(Clone, Copy)]
pub struct Compressor<'a> {
    weights: &'a CompressorWeights,
    compression: Compression,
    /// How its rows are encoded.
    pub format: RowFormat,
}

impl<'a> Compressor<'a> {
    /// A compressor with these weights.
    pub fn new(
        weights: &'a CompressorWeights,
        compression: Compression,
        format: RowFormat,
    ) -> Compressor<'a> {
        Compressor { weights, compression, format }
    }

    /// Width of a token's projection: values of all windows that it is part of, then their scores.
    pub fn width(&self) -> usize {
        2 * self.compression.windows() * self.format.values()
    }

    /// The projections of the normalised inputs `x` into `projected`, `[n, width]`.
    pub fn project<'p>(&self, x: Operand<'p>, projected: &'p mut [f32]) -> [Product<'p>; 2]
    where
        'a: 'p,
    {
        let width = self.width();
        let (values, scores): (Vec<_>, Vec<_>) =
            projected.chunks_exact_mut(width).map(|row| row.split_at_mut(width / 2)).unzip();
        [
            Product::of_rows(&self.weights.kv, 0..width / 2, x.rows(), values),
            Product::of_rows(&self.weights.gate, 0..width / 2, x.rows(), scores),
        ]
    }

    /// The matrices that project.
    pub fn matrices(&self) -> [&'a Matrix; 2] {
        [&self.weights.kv, &self.weights.gate]
    }

    /// Adds the bias of each row's place in its window to the scores.
    pub fn add_position_bias(&self, pool: &mut Pool, positions: &[usize], projected: &mut [f32]) {
        let width = self.width();
        pool.rows(positions.len(), RowsMut::new(projected, width), |row, projected, _| {
            let scores = &mut projected[width / 2..];
            let place = positions[row] % self.compression.ratio();
            let bias = &self.weights.ape[place * scores.len()..][..scores.len()];
            scores.iter_mut().zip(bias).for_each(|(score, bias)| *score += bias);
        });
    }

    /// Appends the rows of all windows that end in this span, and keeps the projections of its last
    /// tokens. `projected` holds those of the whole round.
    pub fn append(
        &self,
        pool: &mut Pool,
        pass: &Pass<'_>,
        span: &Span,
        projected: &[f32],
        state: &mut Compressed,
    ) {
        let ratio = self.compression.ratio();
        let (first, end) = (span.start / ratio, span.end() / ratio);
        let (dim, bytes) = (self.format.values(), self.format.bytes());
        let mut rows = vec![0.0; (end - first) * dim];
        let mut packed = vec![0; (end - first) * bytes];
        let width = self.width();
        let projected = &projected[span.rows.start * width..span.rows.end * width];
        let pending = &state.pending;
        let projection = |position: usize| match position.checked_sub(span.start) {
            Some(row) => &projected[row * width..][..width],
            None => pending.row(position),
        };
        let both = (RowsMut::new(&mut rows, dim), RowsMut::new(&mut packed, bytes));
        pool.rows(end - first, both, |i, (row, packed), scratch| {
            let position = (first + i) * ratio;
            self.pool_window(position, projection, row, scratch.floats(2 * dim));
            rms_norm(row, &self.weights.norm, pass.config.rms_eps);
            let frequencies = pass.frequencies.of(self.compression);
            let turns: Vec<Turn> = turns(frequencies, position).collect();
            rotate(row, &turns);
            self.format.pack(row, packed);
        });
        for (i, packed) in packed.chunks_exact(bytes).enumerate() {
            state.rows.write(first + i, packed);
        }
        for (i, projection) in projected.chunks_exact(width).enumerate() {
            state.pending.write(span.start + i, projection);
        }
    }

    /// Pools the window that starts at `position`. Where windows overlap, the first half of a token's
    /// columns belongs to the row of the window after its own, the second half to its own row.
    fn pool_window<'r>(
        &self,
        position: usize,
        projection: impl Fn(usize) -> &'r [f32],
        row: &mut [f32],
        scratch: &mut [f32],
    ) {
        let dim = row.len();
        let (ratio, windows) = (self.compression.ratio(), self.compression.windows());
        let before = position.saturating_sub((windows - 1) * ratio)..position;
        let members = || {
            let before = before.clone().map(|token| (token, 0));
            let own = (position..position + ratio).map(|token| (token, (windows - 1) * dim));
            before.chain(own).map(|(token, column)| {
                let (values, scores) = projection(token).split_at(windows * dim);
                (&values[column..column + dim], &scores[column..column + dim])
            })
        };
        let (largest, total) = scratch.split_at_mut(dim);
        largest.fill(f32::NEG_INFINITY);
        for (_, scores) in members() {
            largest.iter_mut().zip(scores).for_each(|(max, &score)| *max = max.max(score));
        }
        total.fill(0.0);
        row.fill(0.0);
        for (values, scores) in members() {
            pool_step(values, scores, largest, total, row);
        }
        row.iter_mut().zip(total).for_each(|(x, total)| *x /= *total);
    }
}
