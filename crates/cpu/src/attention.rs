//! Attention: low-rank queries, one key/value head whose rows are key and value at once, a sliding
//! window, compressed rows behind it, and a grouped low-rank output.

use ds4_model::AttentionWeights;

use crate::{
    attend::{Attend, Scene},
    compressor::Compressor,
    indexer::Indexer,
    matmul::{Product, multiply},
    norm::rms_norm,
    operand::Quantiser,
    pool::Pool,
    rope::rotate,
    round::{Pass, fit},
    slot::{Shape, Slot},
    split::RowsMut,
    stages::Part,
};

/// Working memory.
#[derive(Default)]
pub struct Attention {
    qr: Vec<f32>,
    q: Vec<f32>,
    kv: Vec<f32>,
    packed: Vec<u8>,
    projected: Vec<f32>,
    index_projected: Vec<f32>,
    indexer: Indexer,
    attend: Attend,
    low: Vec<f32>,
    x_codes: Quantiser,
    qr_codes: Quantiser,
    heads_codes: Quantiser,
    low_codes: Quantiser,
}

impl Attention {
    /// Attention of one layer: normalised inputs `x` `[n, hidden]` to `out` `[n, hidden]`.
    #[expect(clippy::too_many_arguments, reason = "a layer has this many inputs")]
    pub fn forward(
        &mut self,
        pool: &mut Pool,
        pass: &Pass<'_>,
        shape: &Shape,
        layer: usize,
        weights: &AttentionWeights,
        slots: &mut [Slot],
        x: &[f32],
        out: &mut Vec<f32>,
    ) {
        let (config, round) = (pass.config, pass.round);
        let (rows, kind) = (round.rows(), config.layers[layer]);
        let head_dim = config.head_dim;
        let compressor = weights
            .compressor
            .as_ref()
            .map(|weights| Compressor::new(weights, kind, pass.formats.attention));
        let index = weights.indexer.as_ref().map(|indexer| {
            (indexer, Compressor::new(&indexer.compressor, kind, pass.formats.index))
        });

        pool.meter.enter(Part::AttentionIn);
        let (compress, make_index) =
            (compressor.map(|c| c.matrices()), index.map(|(_, c)| c.matrices()));
        let of_index = weights.indexer.as_ref().map(|indexer| &indexer.proj);
        let matrices = [&weights.q_a, &weights.kv].into_iter().chain(of_index);
        let matrices = matrices.chain(compress.into_iter().chain(make_index).flatten());
        let x = self.x_codes.quantise(pool, pass.activations, x, config.hidden, matrices);

        // What is projected from the input: the low-rank query, the row, the compressors' values.
        let qr = fit(&mut self.qr, rows * config.q_rank);
        let kv = fit(&mut self.kv, rows * head_dim);
        let projected = fit(&mut self.projected, rows * compressor.map_or(0, |c| c.width()));
        let index_projected =
            fit(&mut self.index_projected, rows * index.map_or(0, |(_, c)| c.width()));
        let mut products =
            vec![Product::new(&weights.q_a, x, qr), Product::new(&weights.kv, x, kv)];
        if let Some(compressor) = &compressor {
            products.extend(compressor.project(x, projected));
        }
        if let Some((_, compressor)) = &index {
            products.extend(compressor.project(x, index_projected));
        }
        multiply(pool, products);

        // The row: normalised, rotated, rounded as it is stored.
        let format = pass.formats.attention;
        self.packed.resize(rows * format.bytes(), 0);
        let both = (
            RowsMut::new(qr, config.q_rank),
            (RowsMut::new(kv, head_dim), RowsMut::new(&mut self.packed, format.bytes())),
        );
        pool.rows(rows, both, |row, (qr, (kv, packed)), _| {
            rms_norm(qr, &weights.q_a_norm, config.rms_eps);
            rms_norm(kv, &weights.kv_norm, config.rms_eps);
            rotate(kv, round.turns(kind, row));
            format.pack(kv, packed);
            format.unpack(packed, kv);
        });

        pool.meter.enter(Part::Queries);
        let of_index = weights.indexer.as_ref().map(|indexer| &indexer.q_b);
        let matrices = [&weights.q_b].into_iter().chain(of_index);
        let qr = self.qr_codes.quantise(pool, pass.activations, qr, config.q_rank, matrices);

        // The queries. Attention itself normalises and rotates their heads.
        let q = fit(&mut self.q, rows * config.q_width());
        let choosing = index.filter(|_| Indexer::needed(pass));
        let mut products = vec![Product::new(&weights.q_b, qr, q)];
        if let Some((weights, _)) = choosing {
            products.extend(self.indexer.project(weights, x, qr, rows));
        }
        multiply(pool, products);

        pool.meter.enter(Part::Compress);
        // Compressed rows come first: a token that completes a window sees the row made from it.
        if let Some(compressor) = &compressor {
            compressor.add_position_bias(pool, &round.positions, projected);
        }
        if let Some((_, compressor)) = &index {
            compressor.add_position_bias(pool, &round.positions, index_projected);
        }
        if choosing.is_some() {
            self.indexer.prepare(pool, pass);
        }
        for span in &round.spans {
            let state = &mut slots[span.slot].layers[layer];
            if let (Some(compressor), Some(state)) = (&compressor, &mut state.compressed) {
                compressor.append(pool, pass, span, projected, state);
            }
            if let (Some((_, compressor)), Some(state)) = (&index, &mut state.index) {
                compressor.append(pool, pass, span, index_projected, state);
                if choosing.is_some() {
                    pool.meter.enter(Part::Index);
                    self.indexer.choose(pool, pass, span, compressor.format, &state.rows);
                    pool.meter.enter(Part::Compress);
                }
            }
        }

        pool.meter.enter(Part::Attend);
        let scene = Scene { pass, shape, layer, slots, kv, indexer: &self.indexer };
        self.attend.attend(pool, &scene, &weights.sinks, q);
        for span in &round.spans {
            let window = &mut slots[span.slot].layers[layer].window;
            for (i, row) in span.rows.clone().enumerate() {
                let packed = &self.packed[row * format.bytes()..][..format.bytes()];
                window.write(span.start + i, packed);
            }
        }

        pool.meter.enter(Part::AttentionOut);
        self.project_out(pool, pass, weights, out);
    }

    /// Every group of heads through its own matrix, then all of them through one.
    fn project_out(
        &mut self,
        pool: &mut Pool,
        pass: &Pass<'_>,
        weights: &AttentionWeights,
        out: &mut Vec<f32>,
    ) {
        let (config, rows) = (pass.config, pass.round.rows());
        let (rank, width) = (config.o_rank, config.o_group_width());
        let low = fit(&mut self.low, rows * config.o_low_width());
        let (output_a, output_b) = (&weights.output_a, &weights.output_b);
        let heads = self.heads_codes.quantise(pool, pass.activations, &self.q, width, [output_a]);
        let mut outputs: Vec<Vec<&mut [f32]>> = (0..config.o_groups).map(|_| Vec::new()).collect();
        for low in low.chunks_exact_mut(config.o_low_width()) {
            outputs.iter_mut().zip(low.chunks_exact_mut(rank)).for_each(|(o, low)| o.push(low));
        }
        let products = outputs
            .into_iter()
            .enumerate()
            .map(|(g, outputs)| {
                let inputs = (0..rows).map(|row| heads.row(row * config.o_groups + g));
                Product::of_rows(output_a, g * rank..(g + 1) * rank, inputs, outputs)
            })
            .collect();
        multiply(pool, products);
        let out = fit(out, rows * config.hidden);
        let low =
            self.low_codes.quantise(pool, pass.activations, low, config.o_low_width(), [output_b]);
        multiply(pool, vec![Product::new(output_b, low, out)]);
    }
}
