//! Weights times activations. The weights stay as they lie in the file.
//!
//! Where the activations were quantised for the format of a matrix, integer kernels take both as they
//! are. Otherwise a few rows at a time are decoded to floats, and each decoded tile meets every
//! activation of the batch before the next one.

use std::{marker::PhantomData, ops::Range};

use ds4_model::Matrix;
use ds4_quant::Format;

use crate::{
    floats::{TOGETHER, dots, dots_encoded, dots_together, widen_f16},
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

    /// Some rows of this product. `columns` counts from the product's first row.
    ///
    /// # Safety
    /// The columns of no other call at the same time overlap these.
    unsafe fn compute(&self, columns: Range<usize>, scratch: &mut Scratch) {
        if columns.is_empty() || self.inputs.is_empty() {
            return;
        }
        let rows = self.rows.start + columns.start..self.rows.start + columns.end;
        // SAFETY: the caller's promise, and outputs are rows apart.
        let parts = self.outputs.iter().map(|out| unsafe { out.part(columns.clone()) });
        let mut outputs: Vec<&mut [f32]> = parts.collect();
        match self.quantised() {
            Some((weights, tokens)) => {
                let panel = &mut scratch.panel;
                Kernels::detect().multiply(&weights, rows, &tokens, &mut outputs, panel);
            }
            None => self.compute_floats(rows, &mut outputs, scratch),
        }
    }

    /// What an integer kernel needs, if there is one for the matrix and the inputs are ready for it.
    fn quantised(&self) -> Option<(Weights<'_>, Vec<Token<'_>>)> {
        let matrix = self.matrix;
        let form = Form::of(matrix.format())?;
        let tokens = self.inputs.iter().map(|x| x.token(form)).collect::<Option<_>>()?;
        let (shape, scales) = ((matrix.rows(), matrix.cols()), matrix.scales().unwrap_or(&[]));
        Some((Weights::new(matrix.format(), shape, matrix.data(), scales)?, tokens))
    }

    fn compute_floats(
        &self,
        rows: Range<usize>,
        outputs: &mut [&mut [f32]],
        scratch: &mut Scratch,
    ) {
        let (matrix, cols) = (self.matrix, self.matrix.cols());
        let row_bytes = matrix.row(rows.start).len();
        let encoded = |rows: &Range<usize>| {
            &matrix.data()[rows.start * row_bytes..][..rows.len() * row_bytes]
        };
        // For a few inputs it is not worth to keep what was decoded.
        if self.inputs.len() < TOGETHER {
            let mut pairs = self.inputs.iter().zip(&mut *outputs);
            let bytes = encoded(&rows);
            if pairs.all(|(x, y)| dots_encoded(matrix.format(), bytes, x.floats, y)) {
                return;
            }
        }
        let tile = scratch.floats(TILE * cols);
        for first in rows.clone().step_by(TILE) {
            let count = TILE.min(rows.end - first);
            let tile = &mut tile[..count * cols];
            if matrix.format() == Format::F16 {
                widen_f16(encoded(&(first..first + count)), tile);
            } else {
                for (row, out) in (first..first + count).zip(tile.chunks_exact_mut(cols)) {
                    matrix.decode_row(row, out);
                }
            }
            let at = first - rows.start;
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
        let read = if product.inputs.is_empty() { 0 } else { rows };
        let row_bytes = matrix.data().len() / matrix.rows().max(1);
        pool.meter.count(read * row_bytes, 2 * rows * matrix.cols() * product.inputs.len());
    }
    let workers = pool.workers();
    pool.run(|worker, scratch| {
        for product in &products {
            let columns = columns_of(product.rows.len(), worker, workers);
            // SAFETY: every worker has its own number, and their columns do not overlap.
            unsafe { product.compute(columns, scratch) };
        }
    });
}

/// The share of a worker in `count` rows of a matrix.
fn columns_of(count: usize, worker: usize, workers: usize) -> Range<usize> {
    let grain = if count >= 2 * GRAIN * workers { GRAIN } else { 1 };
    let grains = count.div_ceil(grain);
    let at = |part| (grain * share(grains, part, workers)).min(count);
    at(worker)..at(worker + 1)
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
            let mut pool = Pool::new(workers).unwrap();
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
