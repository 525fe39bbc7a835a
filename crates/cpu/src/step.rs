//! One round through the model: embedding, every layer, head.

use ds4_model::{Model, Weights};

use crate::{
    attention::Attention,
    fault::{Fault, Place},
    hyper::{self, BadRow},
    matmul::{Product, multiply},
    moe::Moe,
    operand::Quantiser,
    pool::Pool,
    round::{Pass, fit},
    slot::{Shape, Slot},
    split::RowsMut,
    stages::Part,
};

/// Working memory of a round, kept from one to the next.
#[derive(Default)]
pub struct Step {
    streams: Vec<f32>,
    mix: Vec<f32>,
    x: Vec<f32>,
    out: Vec<f32>,
    attention: Attention,
    moe: Moe,
    quantiser: Quantiser,
}

impl Step {
    /// Evaluates the round: the slots gain its rows, though not its length, and `logits` the
    /// logits of the rows `wanted`, one slice each.
    #[expect(clippy::too_many_arguments, reason = "the whole of a forward pass")]
    pub fn forward(
        &mut self,
        pool: &mut Pool,
        pass: &Pass<'_>,
        shape: &Shape,
        model: &Model,
        slots: &mut [Slot],
        wanted: &[usize],
        mut logits: Vec<&mut [f32]>,
    ) -> Result<(), Fault> {
        let (config, weights) = (&model.config, &model.weights);
        pool.meter.enter(Part::Embedding);
        self.embed(pool, pass, weights);
        let streams = &mut self.streams;
        let mut place = Place::Embedding;
        for (l, layer) in weights.layers.iter().enumerate() {
            let (x, mix, out) = (&mut self.x, &mut self.mix, &mut self.out);
            pool.meter.enter(Part::Streams);
            hyper::pre(pool, config, &layer.attn_hc, &layer.attn_norm, streams, mix, x)
                .map_err(|row| fault(pass, place, row))?;
            self.attention.forward(pool, pass, shape, l, &layer.attention, slots, x, out);
            pool.meter.enter(Part::Streams);
            hyper::post(pool, config, streams, mix, out);
            place = Place::Attention(l);

            hyper::pre(pool, config, &layer.ffn_hc, &layer.ffn_norm, streams, mix, x)
                .map_err(|row| fault(pass, place, row))?;
            self.moe.forward(pool, pass, l, &layer.moe, x, out);
            pool.meter.enter(Part::Streams);
            hyper::post(pool, config, streams, mix, out);
            place = Place::Experts(l);
        }

        hyper::head(
            pool,
            config,
            &weights.head_hc,
            &weights.head_norm,
            streams,
            wanted,
            &mut self.x,
        )
        .map_err(|row| fault(pass, place, row))?;
        pool.meter.enter(Part::Head);
        let output = &weights.output;
        let x = self.quantiser.quantise(pool, pass.activations, &self.x, config.hidden, [output]);
        let outputs = logits.iter_mut().map(|row| &mut **row);
        multiply(pool, vec![Product::of_rows(output, 0..config.vocab, x.rows(), outputs)]);
        match logits.iter().zip(wanted).find(|(row, _)| !row.iter().all(|x| x.is_finite())) {
            Some((_, &row)) => Err(fault(pass, Place::Head, BadRow(row))),
            None => Ok(()),
        }
    }

    /// All streams of a row start as the embedding of its token.
    fn embed(&mut self, pool: &mut Pool, pass: &Pass<'_>, weights: &Weights) {
        let (config, round) = (pass.config, pass.round);
        let width = config.stream_width();
        let streams = fit(&mut self.streams, round.rows() * width);
        pool.rows(round.rows(), RowsMut::new(streams, width), |row, streams, _| {
            let (first, others) = streams.split_at_mut(config.hidden);
            weights.embedding.decode_row(round.tokens[row] as usize, first);
            others.chunks_exact_mut(config.hidden).for_each(|stream| stream.copy_from_slice(first));
        });
    }
}

fn fault(pass: &Pass<'_>, place: Place, BadRow(row): BadRow) -> Fault {
    Fault { place, token: pass.round.tokens[row], position: pass.round.positions[row] }
}
