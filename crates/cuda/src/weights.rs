//! The model's weights on the card, and what each layer's launches want to know of them.

mod loader;

use ds4_model::{
    AttentionWeights, CompressorWeights, Config, ExpertWeights, HyperWeights, LayerWeights, Matrix,
    Model, Routing,
};
use ds4_quant::Format;
use loader::Loader;
#[cfg(test)]
pub use loader::testing;
pub use loader::{DRAWER, bytes};

use crate::{
    device::{Buffer, Device, Kernels},
    experts::{self, ExpertsArgs},
    matvec::{self, MatrixRef, Product, ProductList, StackRef},
    options::CudaError,
    scratch::{Forms, Room, Scratch},
    tensor::{
        self, HalfProduct, HalfProductList, OneNorm, OneQueries,
        bytes::{InnerNumbers, Numbers},
    },
};

/// Hyper-connections.
#[derive(Clone, Copy)]
pub struct Hyper {
    /// `F32`, `F16` or `BF16`.
    pub function: MatrixRef,
    /// One for each row of the function.
    pub base: u64,
    /// One for each part of it.
    pub scale: u64,
    /// Weights of the norm behind it.
    pub norm: u64,
}

/// A compressor's small weights; its matrices are among the layer's products.
#[derive(Clone, Copy)]
pub struct Compressor {
    /// `[ratio, windows * dim]`.
    pub ape: u64,
    /// `[dim]`.
    pub norm: u64,
}

/// Products that are launched together.
pub enum Products {
    /// In full precision.
    Floats(ProductList),
    /// On tensor cores, as far as their formats allow.
    Halves(Box<HalfProductList>),
}

impl Products {
    /// Does them for `rows` rows of the batch.
    pub fn multiply(
        &self,
        device: &Device,
        kernels: &Kernels,
        rows: usize,
    ) -> Result<(), CudaError> {
        match self {
            Products::Floats(list) => matvec::multiply(device, kernels, list, rows),
            Products::Halves(list) => tensor::multiply(device, kernels, list, rows),
        }
    }

    /// The same with another list for tensor cores, if that is what they are done with.
    fn in_halves(self, change: impl FnOnce(HalfProductList) -> HalfProductList) -> Products {
        match self {
            Products::Halves(list) => Products::Halves(Box::new(change(*list))),
            floats => floats,
        }
    }
}

/// One layer.
pub struct Layer {
    /// Around attention.
    pub attn_hc: Hyper,
    /// Around the experts.
    pub ffn_hc: Hyper,
    /// Everything that the input of attention is multiplied with.
    pub inputs: Products,
    /// Everything that the low-rank query is multiplied with, for each slice of a round.
    pub queries: Vec<Products>,
    /// The same for a row alone, where there is a kernel for it.
    pub alone: Option<OneQueries>,
    /// The groups' output matrices.
    pub low: Products,
    /// The output matrix.
    pub output: Products,
    /// The router.
    pub router: Products,
    /// The format of its matrix, by number.
    pub router_format: u32,
    /// The shared expert's output, beside those of the others; in full precision it is not used.
    pub shared_output: Products,
    /// `[q_rank]`.
    pub qr_norm: u64,
    /// `[head_dim]`.
    pub kv_norm: u64,
    /// `[heads]`.
    pub sinks: u64,
    /// On CSA and HCA layers.
    pub compressor: Option<Compressor>,
    /// On CSA layers.
    pub index_compressor: Option<Compressor>,
    /// `[vocab, experts_used]`, or 0.
    pub table: u64,
    /// `[experts]`, or 0.
    pub bias: u64,
    /// Routed experts: gate, up, down.
    pub experts: [StackRef; 3],
    /// The shared expert: gate, up, down.
    pub shared: [MatrixRef; 3],
}

/// The whole model.
pub struct Weights {
    /// The embedding.
    pub embedding: MatrixRef,
    /// First to last.
    pub layers: Vec<Layer>,
    /// Streams into the head.
    pub head_hc: Hyper,
    /// The output matrix.
    pub output: Products,
    memory: Vec<Buffer>,
}

impl Weights {
    /// Brings a model to the card.
    pub fn load(
        device: &Device,
        kernels: &Kernels,
        model: &Model,
        scratch: &Scratch,
        room: Room,
    ) -> Result<Weights, CudaError> {
        let (config, weights, fast) = (&model.config, &model.weights, room.fast);
        let mut loader = Loader::new(device, fast, scratch.halves.packed);
        let embedding = loader.matrix(&weights.embedding)?;
        let mut layers = Vec::new();
        for layer in &weights.layers {
            layers.push(loader.layer(config, layer, scratch, room)?);
        }
        let head_hc = loader.hyper(&weights.head_hc, &weights.head_norm)?;
        let output = loader.matrix(&weights.output)?;
        let output = Product::new(output, scratch.head, scratch.logits);
        let output = HalfProduct::new(output, scratch.halves.head);
        let output = loader.spread_products(&[output])?;
        Ok(Weights { embedding, layers, head_hc, output, memory: loader.finish(kernels)? })
    }

    /// All the memory that they take.
    pub fn memory(&self) -> &[Buffer] {
        &self.memory
    }
}

/// In which forms some layer wants vectors: as floats those of products and experts that are none for tensor
/// cores, as whole numbers those that experts of IQ2_XXS and outputs of Q2_K take.
pub fn forms(model: &Model, fast: bool) -> Forms {
    let shape = |matrix: &Matrix| MatrixRef {
        format: matrix.format() as u32,
        rows: matrix.rows() as u32,
        cols: matrix.cols() as u32,
        ..MatrixRef::default()
    };
    let mut forms =
        Forms { heads: !fast, low: !fast, middle: !fast, numbers: false, inner_numbers: false };
    for layer in &model.weights.layers {
        let AttentionWeights { output_a, output_b, .. } = &layer.attention;
        let low = Product::grouped(shape(output_a), 0, 0, model.config.o_groups);
        let [heads, low] = [low, Product::new(shape(output_b), 0, 0)]
            .map(|product| HalfProduct::new(product, 1).takes_halves());
        forms.heads |= !heads;
        forms.low |= !heads || !low;
        let stack = |of: fn(&ExpertWeights) -> &Matrix| StackRef {
            first: layer.moe.experts.first().map(|expert| shape(of(expert))).unwrap_or_default(),
            ..StackRef::default()
        };
        let shared = &layer.moe.shared;
        let gate = stack(|e| &e.gate);
        let suits = experts::tensor::suits(&ExpertsArgs {
            gate,
            up: stack(|e| &e.up),
            down: stack(|e| &e.down),
            shared_gate: shape(&shared.gate),
            shared_up: shape(&shared.up),
            shared_down: shape(&shared.down),
            used: model.config.experts_used as u32,
            inner: model.config.expert_hidden as u32,
            hidden: model.config.hidden as u32,
            ..ExpertsArgs::default()
        });
        forms.middle |= !suits;
        forms.numbers |= fast && suits && Numbers::wanted_by(gate.first.format);
        let down = stack(|e| &e.down).first.format;
        forms.inner_numbers |= fast && suits && InnerNumbers::wanted_by(down);
    }
    forms
}

impl<'a> Loader<'a> {
    /// A function of hyper-connections: a kernel reads it as floats, so other formats are decoded.
    fn hyper(&mut self, weights: &'a HyperWeights, norm: &[f32]) -> Result<Hyper, CudaError> {
        let matrix = &weights.function;
        let function = match matrix.format() {
            Format::F32 | Format::F16 | Format::BF16 => self.place(&[matrix], true)?.first,
            _ => {
                let mut values = vec![0.0f32; matrix.rows() * matrix.cols()];
                for (row, values) in values.chunks_exact_mut(matrix.cols()).enumerate() {
                    matrix.decode_row(row, values);
                }
                let (rows, cols) = (matrix.rows() as u32, matrix.cols() as u32);
                MatrixRef {
                    codes: self.put(&values)?,
                    format: Format::F32 as u32,
                    rows,
                    cols,
                    ..MatrixRef::default()
                }
            }
        };
        Ok(Hyper {
            function,
            base: self.put(&weights.base)?,
            scale: self.put(&weights.scale)?,
            norm: self.put(norm)?,
        })
    }

    fn compressor(
        &mut self,
        weights: &'a CompressorWeights,
        (x, half): (u64, u64),
        out: [u64; 2],
        products: &mut Vec<HalfProduct>,
    ) -> Result<Compressor, CudaError> {
        for (matrix, out) in [&weights.kv, &weights.gate].into_iter().zip(out) {
            products.push(HalfProduct::new(Product::new(self.matrix(matrix)?, x, out), half));
        }
        Ok(Compressor { ape: self.put(&weights.ape)?, norm: self.put(&weights.norm)? })
    }

    fn layer(
        &mut self,
        c: &Config,
        layer: &'a LayerWeights,
        s: &Scratch,
        room: Room,
    ) -> Result<Layer, CudaError> {
        let AttentionWeights { q_a, q_a_norm, q_b, kv, kv_norm, sinks, output_a, output_b, .. } =
            &layer.attention;
        let (x_half, qr_half) = (s.halves.x, s.halves.qr);
        let mut inputs = vec![
            HalfProduct::new(Product::new(self.matrix(q_a)?, s.x, s.qr), x_half),
            HalfProduct::new(Product::new(self.matrix(kv)?, s.x, s.kv), x_half),
        ];
        let mut queries = vec![(self.matrix(q_b)?, s.q)];
        let compressor = match &layer.attention.compressor {
            Some(weights) => {
                Some(self.compressor(weights, (s.x, x_half), s.pending, &mut inputs)?)
            }
            None => None,
        };
        let index_compressor = match &layer.attention.indexer {
            Some(indexer) => {
                let proj = Product::new(self.matrix(&indexer.proj)?, s.x, s.index_weights);
                inputs.push(HalfProduct::new(proj, x_half));
                queries.push((self.matrix(&indexer.q_b)?, s.index_q));
                let out = s.index_pending;
                Some(self.compressor(&indexer.compressor, (s.x, x_half), out, &mut inputs)?)
            }
            None => None,
        };
        let from = |first: usize| -> Vec<HalfProduct> {
            let x = s.qr + (4 * first * c.q_rank) as u64;
            let half = if qr_half == 0 { 0 } else { qr_half + (2 * first * c.q_rank) as u64 };
            let of = |&(matrix, y)| HalfProduct::new(Product::new(matrix, x, y), half);
            queries.iter().map(of).collect()
        };
        let qr_norm = self.put(q_a_norm)?;
        let norm = OneNorm { x: s.qr, weight: qr_norm, eps: c.rms_eps, unused: 0 };
        let alone = OneQueries::new(self.card(), &from(0), norm).filter(|_| self.is_fast());
        let queries = (0..room.rows).step_by(room.slice).map(|first| self.products(&from(first)));
        let queries = queries.collect::<Result<Vec<_>, _>>()?;
        let low = Product::grouped(self.matrix(output_a)?, s.heads, s.low, c.o_groups);
        let mut low = HalfProduct::new(low, s.halves.heads);
        let output_b = self.matrix(output_b)?;
        if self.is_fast() && tensor::knows(output_b.format, output_b.cols as usize) {
            low = low.halving(s.halves.low);
        }
        let low_half = if low.halves() { s.halves.low } else { 0 };
        let output = HalfProduct::new(Product::new(output_b, s.low, s.out), low_half);
        let router = Product::new(self.matrix(&layer.moe.router)?, s.x, s.router);
        let (router, router_format) = (HalfProduct::new(router, x_half), router.format());
        let (table, bias) = match &layer.moe.routing {
            Routing::Hash(table) => (self.put(table)?, 0),
            Routing::Scores(bias) => (0, self.put(bias)?),
        };
        let shared_down = self.matrix(&layer.moe.shared.down)?;
        let (inner, hidden, used) = (c.expert_hidden, c.hidden, c.experts_used);
        let shared_output =
            Product::new(shared_down, 0, s.halves.parts + (4 * used * hidden) as u64)
                .strided((used + 1) * inner, (used + 1) * hidden);
        let shared_output =
            HalfProduct::new(shared_output, s.halves.middle + (2 * used * inner) as u64);
        let of = |part: fn(&ExpertWeights) -> &Matrix| -> Vec<&'a Matrix> {
            layer.moe.experts.iter().map(part).collect()
        };
        let shared = &layer.moe.shared;
        Ok(Layer {
            attn_hc: self.hyper(&layer.attn_hc, &layer.attn_norm)?,
            ffn_hc: self.hyper(&layer.ffn_hc, &layer.ffn_norm)?,
            inputs: self.spread_products(&inputs)?,
            queries,
            alone,
            low: self.spread_products(&[low])?.in_halves(HalfProductList::late),
            output: self.products(&[output])?,
            router: self.products(&[router])?,
            router_format,
            shared_output: self.products(&[shared_output])?,
            qr_norm,
            kv_norm: self.put(kv_norm)?,
            sinks: self.put(sinks)?,
            compressor,
            index_compressor,
            table,
            bias,
            experts: [
                self.stack(&of(|e| &e.gate))?,
                self.stack(&of(|e| &e.up))?,
                self.stack(&of(|e| &e.down))?,
            ],
            shared: [self.matrix(&shared.gate)?, self.matrix(&shared.up)?, shared_down],
        })
    }
}
