//! Weights times activations. The weights stay as they lie in the file: a few rows at a time are
//! decoded, and each decoded tile meets every activation of the batch before the next one.

use std::ops::Range;

use ds4_model::Matrix;

use crate::{
    kernels::dots,
    pool::{Pool, Scratch, share},
};

/// Rows of weights that are decoded together; as `f32` they stay in the nearest caches.
const TILE: usize = 8;

/// Rows of a matrix times many vectors, not yet done.
pub struct Product<'a> {
    matrix: &'a Matrix,
    rows: Range<usize>,
    inputs: Vec<&'a [f32]>,
    outputs: Vec<&'a mut [f32]>,
}

impl<'a> Product<'a> {
    /// The whole matrix times each of the rows of `inputs`, into the rows of `outputs`.
    pub fn new(matrix: &'a Matrix, inputs: &'a [f32], outputs: &'a mut [f32]) -> Product<'a> {
        let inputs = inputs.chunks_exact(matrix.cols()).collect();
        let outputs = outputs.chunks_exact_mut(matrix.rows()).collect();
        Product::of_rows(matrix, 0..matrix.rows(), inputs, outputs)
    }

    /// Some rows of the matrix times each input. There are as many outputs as inputs, each as long
    /// as `rows`.
    pub fn of_rows(
        matrix: &'a Matrix,
        rows: Range<usize>,
        inputs: Vec<&'a [f32]>,
        outputs: Vec<&'a mut [f32]>,
    ) -> Product<'a> {
        debug_assert_eq!(inputs.len(), outputs.len());
        debug_assert!(inputs.iter().all(|x| x.len() == matrix.cols()));
        debug_assert!(outputs.iter().all(|y| y.len() == rows.len()));
        Product { matrix, rows, inputs, outputs }
    }
}

/// Some rows of one product: the share of one worker.
struct Part<'p> {
    matrix: &'p Matrix,
    rows: Range<usize>,
    inputs: &'p [&'p [f32]],
    outputs: Vec<&'p mut [f32]>,
}

/// Does all products, the rows of each shared out among the workers.
pub fn multiply(pool: &mut Pool, mut products: Vec<Product<'_>>) {
    let workers = pool.workers();
    let mut parts: Vec<Vec<Part<'_>>> = (0..workers).map(|_| Vec::new()).collect();
    for product in &mut products {
        let Range { start, end } = product.rows;
        let mut rest: Vec<&mut [f32]> = product.outputs.iter_mut().map(|out| &mut **out).collect();
        for (worker, parts) in parts.iter_mut().enumerate() {
            let rows = start + share(end - start, worker, workers)
                ..start + share(end - start, worker + 1, workers);
            let outputs = rest
                .iter_mut()
                .map(|rest| {
                    let (mine, others) = std::mem::take(rest).split_at_mut(rows.len());
                    *rest = others;
                    mine
                })
                .collect();
            if !rows.is_empty() {
                parts.push(Part { matrix: product.matrix, rows, inputs: &product.inputs, outputs });
            }
        }
    }
    pool.each(parts, |parts, scratch| parts.into_iter().for_each(|part| part.compute(scratch)));
}

impl Part<'_> {
    fn compute(mut self, scratch: &mut Scratch) {
        if self.inputs.is_empty() {
            return;
        }
        let cols = self.matrix.cols();
        let tile = scratch.floats(TILE * cols);
        for first in self.rows.clone().step_by(TILE) {
            let count = TILE.min(self.rows.end - first);
            let tile = &mut tile[..count * cols];
            for (row, out) in (first..first + count).zip(tile.chunks_exact_mut(cols)) {
                self.matrix.decode_row(row, out);
            }
            let at = first - self.rows.start;
            for (x, y) in self.inputs.iter().zip(&mut self.outputs) {
                dots(tile, x, &mut y[at..at + count]);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ds4_host::Region;
    use ds4_quant::Format;

    #[test]
    fn every_number_of_workers_gives_the_product() {
        let (rows, cols, count) = (21, 10, 3);
        let values: Vec<f32> = (0..rows * cols).map(|i| ((i * 7) % 13) as f32 - 6.0).collect();
        let bytes = values.iter().flat_map(|x| x.to_le_bytes()).collect();
        let region = Region::from_vec(bytes);
        let matrix = Matrix::new("w".into(), Format::F32, (rows, cols), region, None).unwrap();
        let x: Vec<f32> = (0..count * cols).map(|i| (i % 5) as f32).collect();
        for workers in [1, 2, 5, 40] {
            let mut pool = Pool::new(workers).unwrap();
            let (mut all, mut some) = (vec![0.0; count * rows], vec![0.0; count * 6]);
            let whole = Product::new(&matrix, &x, &mut all);
            let part = Product::of_rows(
                &matrix,
                5..11,
                x.chunks(cols).collect(),
                some.chunks_mut(6).collect(),
            );
            multiply(&mut pool, vec![whole, part]);
            for t in 0..count {
                for r in 0..rows {
                    let want: f32 = (0..cols).map(|c| values[r * cols + c] * x[t * cols + c]).sum();
                    assert_eq!(all[t * rows + r], want);
                    if (5..11).contains(&r) {
                        assert_eq!(some[t * 6 + r - 5], want);
                    }
                }
            }
        }
    }
}
