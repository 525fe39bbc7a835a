//! Weights times activations. The weights stay as they lie in the file.
//!
//! Where the activations were quantised for the format of a matrix, integer kernels take both as they
//! are. Otherwise a few rows at a time are decoded to floats, and each decoded tile meets every
//! activation of the batch before the next one.

use std::{marker::PhantomData, ops::Range, sync::Arc};

use ds4_model::Matrix;
use ds4_quant::Format;

use crate::{
    floats::{TOGETHER, dots, dots_encoded, dots_together, widen_f16},
    near::Near,
    operand::{Input, Operand},
    pool::{Pool, Scratch, share},
    simd::{Form, Kernels, Token, Weights},
};

/// Rows of weights that are decoded together; as `f32` they stay in the nearest caches.
const TILE: usize = 8;
/// Workers get rows in multiples of this, as the kernels like them, where there are enough.
const GRAIN: usize = 16;

/// Rows of a matrix times many vectors, not yet done.
pub struct Product<'a> {
    matrix: &'a Matrix,
    rows: Range<usize>,
    inputs: Vec<Input<'a>>,
    outputs: Vec<Output<'a>>,
}

/// A row of results; every worker writes its own columns of it.
struct Output<'a> {
    start: *mut f32,
    len: usize,
    row: PhantomData<&'a mut [f32]>,
}

// SAFETY: an output is a mutable borrow that is only used in parts; `part` asks for disjoint ones.
unsafe impl Sync for Output<'_> {}

impl<'a> Output<'a> {
    fn new(row: &'a mut [f32]) -> Output<'a> {
        Output { start: row.as_mut_ptr(), len: row.len(), row: PhantomData }
    }

    /// Some columns.
    ///
    /// # Safety
    /// No two parts that are alive at the same time overlap.
    #[expect(clippy::mut_from_ref, reason = "that is the point: parts for several workers")]
    unsafe fn part(&self, columns: Range<usize>) -> &mut [f32] {
        assert!(columns.start <= columns.end && columns.end <= self.len);
        // SAFETY: the columns lie inside the row, which is mutably borrowed for `'a`; the caller
        // promises that nobody else has them.
        unsafe { std::slice::from_raw_parts_mut(self.start.add(columns.start), columns.len()) }
    }
}

impl<'a> Product<'a> {
    /// The whole matrix times each row of the operand, into the rows of `outputs`.
    pub fn new(matrix: &'a Matrix, inputs: Operand<'a>, outputs: &'a mut [f32]) -> Product<'a> {
        let outputs = outputs.chunks_exact_mut(matrix.rows());
        Product::of_rows(matrix, 0..matrix.rows(), inputs.rows(), outputs)
    }

    /// Some rows of the matrix times each input. There are as many outputs as inputs, each as long
    /// as `rows`.
    pub fn of_rows(
        matrix: &'a Matrix,
        rows: Range<usize>,
        inputs: impl IntoIterator<Item = Input<'a>>,
        outputs: impl IntoIterator<Item = &'a mut [f32]>,
    ) -> Product<'a> {
        let inputs: Vec<Input<'_>> = inputs.into_iter().collect();
        let outputs: Vec<Output<'_>> = outputs.into_iter().map(Output::new).collect();
        assert_eq!(inputs.len(), outputs.len());
        debug_assert!(inputs.iter().all(|x| x.floats.len() == matrix.cols()));
        debug_assert!(outputs.iter().all(|y| y.len == rows.len()));
        Product { matrix, rows, inputs, outputs }
    }

    /// The part of this product that lies in `rows` of the matrix.
    ///
    /// # Safety
    /// The rows of no other call at the same time overlap these.
    unsafe fn compute(&self, rows: Range<usize>, near: Option<&Near>, scratch: &mut Scratch) {
        let first = rows.start;
        let rows = rows.start.max(self.rows.start)..rows.end.min(self.rows.end);
        if rows.is_empty() || self.inputs.is_empty() {
            return;
        }
        let columns = rows.start - self.rows.start..rows.end - self.rows.start;
        // SAFETY: the caller's promise, and outputs are rows apart.
        let parts = self.outputs.iter().map(|out| unsafe { out.part(columns.clone()) });
        let mut outputs: Vec<&mut [f32]> = parts.collect();
        let row_bytes = row_bytes(self.matrix);
        let (from, len) = ((rows.start - first) * row_bytes, rows.len() * row_bytes);
        let near = near.and_then(|near| near.bytes(self.matrix, from, len));
        let bytes = near.unwrap_or(&self.matrix.data()[rows.start * row_bytes..][..len]);
        match self.quantised(&rows, bytes) {
            Some((weights, tokens)) => {
                let (rows, panel) = (0..rows.len(), &mut scratch.panel);
                Kernels::detect().multiply(&weights, rows, &tokens, &mut outputs, panel);
            }
            None => self.compute_floats(rows, bytes, &mut outputs, scratch),
        }
    }

    /// What an integer kernel needs, if there is one for the matrix and the inputs are ready for it.
    fn quantised<'w>(
        &'w self,
        rows: &Range<usize>,
        bytes: &'w [u8],
    ) -> Option<(Weights<'w>, Vec<Token<'w>>)> {
        let (matrix, cols) = (self.matrix, self.matrix.cols());
        let form = Form::of(matrix.format())?;
        let tokens = self.inputs.iter().map(|x| x.token(form)).collect::<Option<_>>()?;
        let scales = match (matrix.scales(), matrix.format().scale_tile()) {
            (Some(scales), Some((down, across))) => {
                let across = cols.div_ceil(across);
                &scales[rows.start / down * across..rows.end.div_ceil(down) * across]
            }
            _ => &[],
        };
        Some((Weights::new(matrix.format(), (rows.len(), cols), bytes, scales)?, tokens))
    }

    fn compute_floats(
        &self,
        rows: Range<usize>,
        bytes: &[u8],
        outputs: &mut [&mut [f32]],
        scratch: &mut Scratch,
    ) {
        let (matrix, cols) = (self.matrix, self.matrix.cols());
        // For a few inputs it is not worth to keep what was decoded.
        if self.inputs.len() < TOGETHER {
            let mut pairs = self.inputs.iter().zip(&mut *outputs);
            if pairs.all(|(x, y)| dots_encoded(matrix.format(), bytes, x.floats, y)) {
                return;
            }
        }
        let tile = scratch.floats(TILE * cols);
        let row_bytes = row_bytes(matrix);
        for at in (0..rows.len()).step_by(TILE) {
            let count = TILE.min(rows.len() - at);
            let tile = &mut tile[..count * cols];
            if matrix.format() == Format::F16 {
                widen_f16(&bytes[at * row_bytes..][..count * row_bytes], tile);
            } else {
                for (row, out) in (rows.start + at..).zip(tile.chunks_exact_mut(cols)) {
                    matrix.decode_row(row, out);
                }
            }
            let (inputs, inputs_rest) = self.inputs.as_chunks::<TOGETHER>();
            let (outputs, outputs_rest) = outputs.as_chunks_mut::<TOGETHER>();
            for (x, y) in inputs.iter().zip(outputs) {
                let mut y = y.each_mut().map(|y| &mut y[at..at + count]);
                dots_together(tile, x.map(|x| x.floats), &mut y);
            }
            for (x, y) in inputs_rest.iter().zip(outputs_rest) {
                dots(tile, x.floats, &mut y[at..at + count]);
            }
        }
    }
}

/// Does all products, the rows of each shared out among the workers.
pub fn multiply(pool: &mut Pool, products: Vec<Product<'_>>) {
    for product in &products {
        let (matrix, rows) = (product.matrix, product.rows.len());
        let read = if product.inputs.is_empty() { 0 } else { rows * row_bytes(matrix) };
        pool.meter.count(read, 2 * rows * matrix.cols() * product.inputs.len());
    }
    let (workers, near) = (pool.workers(), Arc::clone(&pool.near));
    pool.run(|worker, scratch| {
        for product in &products {
            let rows = rows_of(product.matrix, worker, workers);
            // SAFETY: every worker has its own number, and their rows do not overlap.
            unsafe { product.compute(rows, near.get(worker), scratch) };
        }
    });
}

/// The rows of a matrix that a worker multiplies, the same ones in every product.
pub fn rows_of(matrix: &Matrix, worker: usize, workers: usize) -> Range<usize> {
    let count = matrix.rows();
    let grain = match matrix.format().scale_tile() {
        // Rows under one scale stay together.
        Some((down, _)) if down > 1 => down,
        _ if count >= 2 * GRAIN * workers => GRAIN,
        _ => 1,
    };
    let grains = count.div_ceil(grain);
    let at = |part| (grain * share(grains, part, workers)).min(count);
    at(worker)..at(worker + 1)
}

fn row_bytes(matrix: &Matrix) -> usize {
    matrix.data().len() / matrix.rows().max(1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{operand::Quantiser, options::Activations};
    use ds4_host::Region;

    #[test]
    fn every_number_of_workers_gives_the_product() {
        let (rows, cols, count) = (21, 10, 3);
        let values: Vec<f32> = (0..rows * cols).map(|i| ((i * 7) % 13) as f32 - 6.0).collect();
        let bytes = values.iter().flat_map(|x| x.to_le_bytes()).collect();
        let region = Region::from_vec(bytes);
        let matrix = Matrix::new("w".into(), Format::F32, (rows, cols), region, None).unwrap();
        let inputs: Vec<f32> = (0..count * cols).map(|i| (i % 5) as f32).collect();
        for workers in [1, 2, 5, 40] {
            let mut pool = Pool::new(workers, &[]).unwrap();
            let (mut all, mut some) = (vec![0.0; count * rows], vec![0.0; count * 6]);
            let mut quantiser = Quantiser::default();
            let x = quantiser.quantise(&mut pool, Activations::Int8, &inputs, cols, [&matrix]);
            let whole = Product::new(&matrix, x, &mut all);
            let part = Product::of_rows(&matrix, 5..11, x.rows(), some.chunks_mut(6));
            multiply(&mut pool, vec![whole, part]);
            for t in 0..count {
                for r in 0..rows {
                    let want: f32 =
                        (0..cols).map(|c| values[r * cols + c] * inputs[t * cols + c]).sum();
                    assert_eq!(all[t * rows + r], want);
                    if (5..11).contains(&r) {
                        assert_eq!(some[t * 6 + r - 5], want);
                    }
                }
            }
        }
    }
}
