//! The forward pass of DeepSeek V4 in the order of the paper: one token at a time, every row kept,
//! every matrix decoded, no trick. It is the executable specification; executors are checked against
//! it, and it is itself checked against independent implementations.
//!
//! Shapes: `D` hidden, `N` streams, `H` heads, `d` head width, `R` rank, `E` experts.
//! A comment in brackets is the shape of what the line makes.

use std::iter;

use ds4_quant::{fp4_round_trip, fp8_round_trip, hadamard};

use crate::{
    AttentionWeights, Compression, CompressorWeights, Config, ExpertWeights, HyperWeights,
    IndexerWeights, Model, MoeWeights, Rounding, Routing,
    algebra::{
        Dense, Real, dot, largest, numbers, relu, rms_norm, sigmoid, softmax, softplus, sum,
        unit_rms, weighted_sum,
    },
};

/// The scores of experts that are all near zero are divided by no less than this.
const MIN_EXPERT_SUM: f64 = 6.103515625e-5;

/// One timeline of the reference pass.
pub struct Reference<T> {
    config: Config,
    rounding: Rounding,
    embedding: Dense<T>,
    layers: Vec<Layer<T>>,
    head: Hyper<T>,
    head_norm: Vec<T>,
    output: Dense<T>,
    position: usize,
}

impl<T: Real> Reference<T> {
    /// Decodes a whole model; meant for small ones.
    pub fn new(model: &Model, rounding: Rounding) -> Reference<T> {
        let (config, w) = (&model.config, &model.weights);
        let layers = w.layers.iter().zip(&config.layers).map(|(l, &compression)| Layer {
            attn_hc: Hyper::new(&l.attn_hc),
            attn_norm: numbers(&l.attn_norm),
            attention: Attention::new(config, &l.attention, compression),
            ffn_hc: Hyper::new(&l.ffn_hc),
            ffn_norm: numbers(&l.ffn_norm),
            moe: Moe::new(&l.moe),
        });
        Reference {
            rounding,
            embedding: Dense::new(&w.embedding),
            layers: layers.collect(),
            head: Hyper::new(&w.head_hc),
            head_norm: numbers(&w.head_norm),
            output: Dense::new(&w.output),
            position: 0,
            config: config.clone(),
        }
    }

    /// Forgets every token.
    pub fn reset(&mut self) {
        self.position = 0;
        for layer in &mut self.layers {
            layer.attention.forget();
        }
    }

    /// Evaluates the next token and returns the logits of the one after it, one for each token of the vocabulary.
    ///
    /// The token must be below `vocab`.
    pub fn step(&mut self, token: u32) -> Vec<T> {
        self.step_watched(token, |_, _| {})
    }

    /// As [`Reference::step`], showing the streams after each layer: `watch(layer, streams)`.
    pub fn step_watched(&mut self, token: u32, mut watch: impl FnMut(usize, &[Vec<T>])) -> Vec<T> {
        let c = &self.config;
        // Every stream starts as the token's embedding.
        let mut streams = vec![self.embedding.row(token as usize).to_vec(); c.streams]; // [N, D]

        for (index, layer) in self.layers.iter_mut().enumerate() {
            let mix = layer.attn_hc.mix(c, &streams);
            let x = rms_norm(&mix.input(&streams), &layer.attn_norm, c.rms_eps); // [D]
            let y = layer.attention.forward(c, self.rounding, &x, self.position); // [D]
            streams = mix.output(&streams, &y);

            let mix = layer.ffn_hc.mix(c, &streams);
            let x = rms_norm(&mix.input(&streams), &layer.ffn_norm, c.rms_eps);
            let y = layer.moe.forward(c, index, &x, token);
            streams = mix.output(&streams, &y);
            watch(index, &streams);
        }
        self.position += 1;

        let weights = self.head.head_weights(c, &streams); // [N]
        let y = rms_norm(&weighted_sum(&weights, &streams), &self.head_norm, c.rms_eps);
        self.output.times(&y)
    }
}

struct Layer<T> {
    attn_hc: Hyper<T>,
    attn_norm: Vec<T>,
    attention: Attention<T>,
    ffn_hc: Hyper<T>,
    ffn_norm: Vec<T>,
    moe: Moe<T>,
}

// ---------------------------------------------------------------- manifold hyper-connections

struct Hyper<T> {
    function: Dense<T>, // [2N + N*N, N*D], or [N, N*D] in the head
    base: Vec<T>,
    scale: Vec<T>,
}

/// What one half-block does with the streams.
struct Mix<T> {
    pre: Vec<T>,       // [N]: how much of each stream the block reads
    post: Vec<T>,      // [N]: how much of the block's output each stream takes
    comb: Vec<Vec<T>>, // [N source, N destination]: what the streams exchange
}

impl<T: Real> Hyper<T> {
    fn new(w: &HyperWeights) -> Hyper<T> {
        Hyper {
            function: Dense::new(&w.function),
            base: numbers(&w.base),
            scale: numbers(&w.scale),
        }
    }

    fn projection(&self, c: &Config, streams: &[Vec<T>]) -> Vec<T> {
        let flat = streams.concat(); // [N*D], stream after stream
        self.function.times(&unit_rms(&flat, c.rms_eps))
    }

    fn mix(&self, c: &Config, streams: &[Vec<T>]) -> Mix<T> {
        let n = c.streams;
        let eps = T::from_f64(c.hc_eps.into());
        let m = self.projection(c, streams); // [2N + N*N]
        let logit = |i: usize, part: usize| m[i] * self.scale[part] + self.base[i];

        let pre = (0..n).map(|i| sigmoid(logit(i, 0)) + eps).collect();
        let post = (0..n).map(|i| T::from_f64(2.0) * sigmoid(logit(n + i, 1))).collect();

        // Sinkhorn: a softmax in each row, then columns and rows are normalised in turns, so that
        // the matrix comes close to doubly stochastic. The last turn is a column turn.
        let mut comb: Vec<Vec<T>> = (0..n)
            .map(|i| softmax(&(0..n).map(|j| logit(2 * n + n * i + j, 2)).collect::<Vec<_>>()))
            .collect();
        comb.iter_mut().flatten().for_each(|x| *x += eps);
        normalise_columns(&mut comb, eps);
        for _ in 1..c.sinkhorn_iterations {
            normalise_rows(&mut comb, eps);
            normalise_columns(&mut comb, eps);
        }
        Mix { pre, post, comb }
    }

    fn head_weights(&self, c: &Config, streams: &[Vec<T>]) -> Vec<T> {
        let eps = T::from_f64(c.hc_eps.into());
        let logits = self.projection(c, streams);
        let shifted = logits.iter().zip(&self.base).map(|(&x, &base)| x * self.scale[0] + base);
        shifted.map(|x| sigmoid(x) + eps).collect()
    }
}

impl<T: Real> Mix<T> {
    fn input(&self, streams: &[Vec<T>]) -> Vec<T> {
        weighted_sum(&self.pre, streams)
    }

    fn output(&self, streams: &[Vec<T>], y: &[T]) -> Vec<Vec<T>> {
        let stream = |to: usize| {
            let from: Vec<T> = self.comb.iter().map(|row| row[to]).collect();
            let kept = weighted_sum(&from, streams);
            kept.iter().zip(y).map(|(&kept, &y)| self.post[to] * y + kept).collect()
        };
        (0..streams.len()).map(stream).collect()
    }
}

fn normalise_rows<T: Real>(matrix: &mut [Vec<T>], eps: T) {
    for row in matrix {
        let total = sum(row.iter().copied()) + eps;
        row.iter_mut().for_each(|x| *x = *x / total);
    }
}

fn normalise_columns<T: Real>(matrix: &mut [Vec<T>], eps: T) {
    for j in 0..matrix.len() {
        let total = sum(matrix.iter().map(|row| row[j])) + eps;
        matrix.iter_mut().for_each(|row| row[j] = row[j] / total);
    }
}

// ---------------------------------------------------------------- attention

struct Attention<T> {
    q_a: Dense<T>,      // [Rq, D]
    q_a_norm: Vec<T>,   // [Rq]
    q_b: Dense<T>,      // [H*d, Rq]
    kv: Dense<T>,       // [d, D]
    kv_norm: Vec<T>,    // [d]
    sinks: Vec<T>,      // [H]
    output_a: Dense<T>, // [G*R, H*d/G]
    output_b: Dense<T>, // [D, G*R]
    compressor: Option<Compressor<T>>,
    indexer: Option<Indexer<T>>,
    frequencies: Vec<f64>, // [rope/2]
    rows: Vec<Vec<T>>,     // [position, d]: keys, which are the values too
}

impl<T: Real> Attention<T> {
    fn new(c: &Config, w: &AttentionWeights, kind: Compression) -> Attention<T> {
        Attention {
            q_a: Dense::new(&w.q_a),
            q_a_norm: numbers(&w.q_a_norm),
            q_b: Dense::new(&w.q_b),
            kv: Dense::new(&w.kv),
            kv_norm: numbers(&w.kv_norm),
            sinks: numbers(&w.sinks),
            output_a: Dense::new(&w.output_a),
            output_b: Dense::new(&w.output_b),
            compressor: w.compressor.as_ref().map(|w| Compressor::new(w, kind)),
            indexer: w.indexer.as_ref().map(|w| Indexer::new(w, kind)),
            frequencies: c.rope.frequencies(kind),
            rows: Vec::new(),
        }
    }

    fn forget(&mut self) {
        self.rows.clear();
        self.compressor.iter_mut().for_each(Compressor::forget);
        self.indexer.iter_mut().for_each(|indexer| indexer.compressor.forget());
    }

    fn forward(&mut self, c: &Config, rounding: Rounding, x: &[T], position: usize) -> Vec<T> {
        let qr = rms_norm(&self.q_a.times(x), &self.q_a_norm, c.rms_eps); // [Rq]

        let mut row = rms_norm(&self.kv.times(x), &self.kv_norm, c.rms_eps); // [d]
        rotate(&mut row, &self.frequencies, position as f64);
        round_row(&mut row, c.rope.dims, rounding);
        self.rows.push(row);

        if let Some(compressor) = &mut self.compressor {
            let d = c.head_dim;
            if let Some(mut row) = compressor.push(x, d, position, &self.frequencies, c.rms_eps) {
                round_row(&mut row, c.rope.dims, rounding);
                compressor.rows.push(row);
            }
        }
        let chosen = match &mut self.indexer {
            Some(indexer) => {
                indexer.choose(c, rounding, x, &qr, position, &self.frequencies) // row numbers
            }
            None => (0..self.compressor.as_ref().map_or(0, |c| c.rows.len())).collect(),
        };

        // The query sees the rows of the window, its own included, and the chosen compressed rows.
        let window = &self.rows[(position + 1).saturating_sub(c.window)..];
        let compressed = self.compressor.as_ref().map_or(&[][..], |c| &c.rows);
        let visible: Vec<&[T]> = window
            .iter()
            .chain(chosen.iter().map(|&i| &compressed[i]))
            .map(Vec::as_slice)
            .collect();

        let scale = T::from_f64(1.0 / (c.head_dim as f64).sqrt());
        let q = self.q_b.times(&qr); // [H*d]
        let mut heads = Vec::with_capacity(q.len());
        for (q, &sink) in q.chunks_exact(c.head_dim).zip(&self.sinks) {
            let mut q = unit_rms(q, c.rms_eps); // [d]
            rotate(&mut q, &self.frequencies, position as f64);
            // The sink is one more logit, that gives no value.
            let scores = visible.iter().map(|row| dot(&q, row) * scale);
            let weights = softmax(&scores.chain(iter::once(sink)).collect::<Vec<_>>());
            let mut o = weighted_sum(&weights[..visible.len()], &visible); // [d]
            // The rows carry the rotation of their positions into the values: take the query's out.
            rotate(&mut o, &self.frequencies, -(position as f64));
            heads.extend(o);
        }

        let groups = heads.chunks_exact(c.o_group_width()).enumerate();
        let low: Vec<T> = groups // [G*R]
            .flat_map(|(g, heads)| {
                (g * c.o_rank..(g + 1) * c.o_rank).map(|r| dot(self.output_a.row(r), heads))
            })
            .collect();
        self.output_b.times(&low)
    }
}

/// The rotary embedding of the trailing dimensions, pairs of neighbours, at this position.
fn rotate<T: Real>(head: &mut [T], frequencies: &[f64], position: f64) {
    let start = head.len() - 2 * frequencies.len();
    for (pair, f) in head[start..].chunks_exact_mut(2).zip(frequencies) {
        let (sin, cos) = (position * f).sin_cos();
        let (sin, cos) = (T::from_f64(sin), T::from_f64(cos));
        (pair[0], pair[1]) = (pair[0] * cos - pair[1] * sin, pair[0] * sin + pair[1] * cos);
    }
}

/// The official model caches all but the rotary dimensions in FP8, and was trained so.
fn round_row<T: Real>(row: &mut [T], rope_dims: usize, rounding: Rounding) {
    if rounding == Rounding::Official {
        let plain = row.len() - rope_dims;
        fp8_round_trip(&mut row[..plain]);
    }
}

/// Index rows and index queries: a Hadamard rotation, then FP4.
fn round_index<T: Real>(row: &mut [T], rounding: Rounding) {
    if rounding == Rounding::Official {
        let rotated = hadamard(row);
        debug_assert!(rotated.is_ok(), "the width is checked with the config");
        fp4_round_trip(row);
    }
}

// ---------------------------------------------------------------- compressor

struct Compressor<T> {
    kind: Compression,
    kv: Dense<T>,        // [w, D], w = windows * d
    gate: Dense<T>,      // [w, D]
    ape: Vec<T>,         // [ratio, w]
    norm: Vec<T>,        // [d]
    values: Vec<Vec<T>>, // [position, w]
    scores: Vec<Vec<T>>, // [position, w]
    rows: Vec<Vec<T>>,   // [row, d]
}

impl<T: Real> Compressor<T> {
    fn new(w: &CompressorWeights, kind: Compression) -> Compressor<T> {
        Compressor {
            kind,
            kv: Dense::new(&w.kv),
            gate: Dense::new(&w.gate),
            ape: numbers(&w.ape),
            norm: numbers(&w.norm),
            values: Vec::new(),
            scores: Vec::new(),
            rows: Vec::new(),
        }
    }

    fn forget(&mut self) {
        self.values.clear();
        self.scores.clear();
        self.rows.clear();
    }

    /// Takes the token at `position`; when it completes a window, gives the row, not yet rounded.
    fn push(
        &mut self,
        x: &[T],
        d: usize,
        position: usize,
        frequencies: &[f64],
        eps: f32,
    ) -> Option<Vec<T>> {
        let ratio = self.kind.ratio();
        let bias = self.ape.chunks_exact(self.kv.rows).nth(position % ratio)?;
        self.values.push(self.kv.times(x));
        let gate = self.gate.times(x);
        self.scores.push(gate.iter().zip(bias).map(|(&gate, &bias)| gate + bias).collect());
        if !(position + 1).is_multiple_of(ratio) {
            return None;
        }

        // A window pools the columns of its own tokens. Where windows overlap, the first half of a
        // token's columns belongs to the row of the window after its own, the second to its own.
        let first = position + 1 - ratio;
        let own = (first..=position).map(|token| (token, (self.kind.windows() - 1) * d));
        let before = match self.kind {
            Compression::Csa => first.saturating_sub(ratio)..first,
            _ => 0..0,
        };
        let slots: Vec<(usize, usize)> = before.map(|token| (token, 0)).chain(own).collect();

        let pooled: Vec<T> = (0..d)
            .map(|i| {
                let scores: Vec<T> = slots.iter().map(|&(t, at)| self.scores[t][at + i]).collect();
                let values = slots.iter().map(|&(t, at)| self.values[t][at + i]);
                sum(softmax(&scores).into_iter().zip(values).map(|(p, v)| p * v))
            })
            .collect();
        let mut row = rms_norm(&pooled, &self.norm, eps); // [d]
        rotate(&mut row, frequencies, first as f64);
        Some(row)
    }
}

// ---------------------------------------------------------------- indexer

struct Indexer<T> {
    q_b: Dense<T>,  // [heads * dim, Rq]
    proj: Dense<T>, // [heads, D]
    compressor: Compressor<T>,
}

impl<T: Real> Indexer<T> {
    fn new(w: &IndexerWeights, kind: Compression) -> Indexer<T> {
        Indexer {
            q_b: Dense::new(&w.q_b),
            proj: Dense::new(&w.proj),
            compressor: Compressor::new(&w.compressor, kind),
        }
    }

    /// The compressed rows that this query attends to, in order.
    fn choose(
        &mut self,
        c: &Config,
        rounding: Rounding,
        x: &[T],
        qr: &[T],
        position: usize,
        frequencies: &[f64],
    ) -> Vec<usize> {
        let dim = c.indexer.dim;
        if let Some(mut row) = self.compressor.push(x, dim, position, frequencies, c.rms_eps) {
            round_index(&mut row, rounding);
            self.compressor.rows.push(row);
        }
        let rows = &self.compressor.rows;
        if rows.len() <= c.indexer.top_k {
            return (0..rows.len()).collect();
        }

        let scale = T::from_f64(1.0 / ((c.indexer.heads * dim) as f64).sqrt());
        let weights = self.proj.times(x); // [heads]
        let mut queries = self.q_b.times(qr); // [heads * dim]
        for q in queries.chunks_exact_mut(dim) {
            rotate(q, frequencies, position as f64);
            round_index(q, rounding);
        }
        let score = |row: &Vec<T>| {
            let heads = queries.chunks_exact(dim).zip(&weights);
            sum(heads.map(|(q, &w)| relu(dot(q, row)) * w * scale))
        };
        let scores: Vec<T> = rows.iter().map(score).collect();
        let mut chosen = largest(&scores, c.indexer.top_k);
        chosen.sort_unstable();
        chosen
    }
}

// ---------------------------------------------------------------- mixture of experts

struct Moe<T> {
    router: Dense<T>, // [E, D]
    routing: Routing,
    experts: Vec<Expert<T>>,
    shared: Expert<T>,
}

struct Expert<T> {
    gate: Dense<T>, // [F, D]
    up: Dense<T>,   // [F, D]
    down: Dense<T>, // [D, F]
}

impl<T: Real> Moe<T> {
    fn new(w: &MoeWeights) -> Moe<T> {
        Moe {
            router: Dense::new(&w.router),
            routing: w.routing.clone(),
            experts: w.experts.iter().map(Expert::new).collect(),
            shared: Expert::new(&w.shared),
        }
    }

    fn forward(&self, c: &Config, layer: usize, x: &[T], token: u32) -> Vec<T> {
        let logits = self.router.times(x); // [E]
        let scores: Vec<T> = logits.iter().map(|&logit| softplus(logit).sqrt()).collect();
        // The bias takes part in the choice, not in the weights.
        let chosen: Vec<usize> = match &self.routing {
            Routing::Hash(table) => {
                let ids = &table[token as usize * c.experts_used..][..c.experts_used];
                ids.iter().map(|&id| id as usize).collect()
            }
            Routing::Scores(bias) => {
                let biased: Vec<T> =
                    scores.iter().zip(bias).map(|(&s, &b)| s + T::from_f64(b.into())).collect();
                largest(&biased, c.experts_used)
            }
        };
        let total = sum(chosen.iter().map(|&e| scores[e]));
        let total =
            if total < T::from_f64(MIN_EXPERT_SUM) { T::from_f64(MIN_EXPERT_SUM) } else { total };

        let one = T::from_f64(1.0);
        let mut y = self.shared.forward(x, one, c.swiglu_limit_shared[layer]); // [D]
        for &e in &chosen {
            let weight = scores[e] / total * T::from_f64(c.routed_scale.into());
            let out = self.experts[e].forward(x, weight, c.swiglu_limit[layer]);
            y.iter_mut().zip(out).for_each(|(y, out)| *y += out);
        }
        y
    }
}

impl<T: Real> Expert<T> {
    fn new(w: &ExpertWeights) -> Expert<T> {
        Expert { gate: Dense::new(&w.gate), up: Dense::new(&w.up), down: Dense::new(&w.down) }
    }

    /// SwiGLU with both sides clamped; the weight goes in before the down projection.
    fn forward(&self, x: &[T], weight: T, limit: f32) -> Vec<T> {
        let limit = T::from_f64(limit.into());
        let (gate, up) = (self.gate.times(x), self.up.times(x)); // [F]
        let middle: Vec<T> = gate
            .into_iter()
            .zip(up)
            .map(|(g, u)| {
                let g = if g > limit { limit } else { g };
                let u = if u > limit { limit } else { u };
                let u = if u < -limit { -limit } else { u };
                g * sigmoid(g) * u * weight
            })
            .collect();
        self.down.times(&middle)
    }
}
