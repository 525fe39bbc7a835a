//! Weights near the cores that multiply them, for machines whose memory is in several nodes.
//!
//! Every worker multiplies the same rows of a matrix in every step, so it can have a copy of exactly
//! those, made by itself: the system puts memory near the core that first touches it. Experts are thus
//! sliced across nodes by rows of all three matrices. Slicing the last one along the inner dimension
//! would save a barrier, but then the number of nodes would change sums; so it changes none.

use std::{collections::HashMap, thread};

use ds4_host::{Core, Memory, stay_on};
use ds4_model::{
    AttentionWeights, CompressorWeights, ExpertWeights, IndexerWeights, Matrix, Weights,
};

use crate::{matmul::rows_of, options::CpuError};

/// The rows that one worker multiplies, of all matrices.
#[derive(Default)]
pub struct Near {
    bytes: Vec<u8>,
    /// Where the rows of a matrix begin, by the address of its first byte.
    starts: HashMap<usize, usize>,
}

impl Near {
    /// Copies for every worker, each made on the worker's core.
    pub fn copies(
        cores: &[Core],
        workers: usize,
        weights: &Weights,
    ) -> Result<Vec<Near>, CpuError> {
        let matrices = matrices(weights);
        let needed: usize = matrices.iter().map(|matrix| matrix.data().len()).sum();
        if let Some(memory) = Memory::of_this_machine()
            && memory.available < needed as u64
        {
            return Err(CpuError::Copies { needed: needed as u64, available: memory.available });
        }
        let mut copies: Vec<Near> = (0..workers).map(|_| Near::default()).collect();
        // Threads of their own, because the first worker is the caller and stays nowhere.
        thread::scope(|scope| {
            for (worker, copy) in copies.iter_mut().enumerate() {
                let (core, matrices) = (cores.get(worker).copied(), &matrices);
                scope.spawn(move || {
                    core.map(stay_on);
                    copy.fill(matrices, worker, workers);
                });
            }
        });
        Ok(copies)
    }

    fn fill(&mut self, matrices: &[&Matrix], worker: usize, workers: usize) {
        let mine = |matrix: &Matrix| {
            let row_bytes = matrix.data().len() / matrix.rows().max(1);
            let rows = rows_of(matrix, worker, workers);
            rows.start * row_bytes..rows.end * row_bytes
        };
        self.bytes.reserve_exact(matrices.iter().map(|matrix| mine(matrix).len()).sum());
        for matrix in matrices {
            self.starts.insert(matrix.data().as_ptr().addr(), self.bytes.len());
            self.bytes.extend_from_slice(&matrix.data()[mine(matrix)]);
        }
    }

    /// So many bytes of the worker's rows of a matrix, from a byte of them on.
    pub fn bytes(&self, matrix: &Matrix, from: usize, len: usize) -> Option<&[u8]> {
        let start = self.starts.get(&matrix.data().as_ptr().addr())?;
        self.bytes.get(start + from..start + from + len)
    }
}

/// All matrices that are multiplied with.
fn matrices(weights: &Weights) -> Vec<&Matrix> {
    let mut all = vec![&weights.head_hc.function, &weights.output];
    for layer in &weights.layers {
        all.extend([&layer.attn_hc.function, &layer.ffn_hc.function, &layer.moe.router]);
        let AttentionWeights { q_a, q_b, kv, output_a, output_b, compressor, indexer, .. } =
            &layer.attention;
        all.extend([q_a, q_b, kv, output_a, output_b]);
        if let Some(IndexerWeights { q_b, proj, .. }) = indexer {
            all.extend([q_b, proj]);
        }
        let of_index = indexer.as_ref().map(|indexer| &indexer.compressor);
        for CompressorWeights { kv, gate, .. } in compressor.iter().chain(of_index) {
            all.extend([kv, gate]);
        }
        let moe = &layer.moe;
        for ExpertWeights { gate, up, down } in moe.experts.iter().chain([&moe.shared]) {
            all.extend([gate, up, down]);
        }
    }
    all
}
