//! The model's weights on the card, and what each layer's launches want to know of them.

use ds4_model::{
    AttentionWeights, CompressorWeights, Config, ExpertWeights, HyperWeights, LayerWeights, Matrix,
    Model, Routing,
};
use ds4_quant::Format;

use crate::{
    device::{Buffer, Device, Kernels, Words},
    experts::{self, ExpertsArgs},
    matvec::{self, MatrixRef, Product, ProductList, StackRef},
    options::CudaError,
    scratch::{Floats, Room, Scratch},
    tensor::{self, HalfProduct, HalfProductList, OneNorm, OneQueries},
    upload::{Cut, Job, upload},
};

/// Bytes that small values are gathered in.
pub const DRAWER: usize = 16 << 20;

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
        let mut loader = Loader {
            device,
            fast,
            packed: scratch.halves.packed,
            memory: Vec::new(),
            drawers: Vec::new(),
            jobs: Vec::new(),
        };
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

/// Bytes that a matrix takes on the card.
pub fn bytes(matrix: &Matrix) -> u64 {
    let (codes, scales) = parts_of(matrix);
    (codes + scales) as u64
}

/// Bytes of a matrix's codes, and of scales that do not lie among them.
fn parts_of(matrix: &Matrix) -> (usize, usize) {
    let beside = matrix.scales().map_or(0, <[u8]>::len);
    match Cut::of(matrix.format(), matrix.cols()) {
        Some(cut) => {
            let (codes, scales) = cut.bytes(matrix.rows());
            (codes, if scales_in_tiles(matrix, cut) { 0 } else { scales + beside })
        }
        None => (matrix.data().len(), beside),
    }
}

/// Whether scales that the file has beside the codes go into tiles: those of single rows do.
fn scales_in_tiles(matrix: &Matrix, cut: Cut) -> bool {
    cut.tiled() && matrix.format().scale_tile().is_some_and(|(rows, _)| rows == 1)
}

/// Which vectors some layer wants as floats: those of products and experts that are none for tensor
/// cores.
pub fn floats(model: &Model, fast: bool) -> Floats {
    let shape = |matrix: &Matrix| MatrixRef {
        format: matrix.format() as u32,
        rows: matrix.rows() as u32,
        cols: matrix.cols() as u32,
        ..MatrixRef::default()
    };
    let mut floats = Floats { heads: !fast, low: !fast, middle: !fast };
    for layer in &model.weights.layers {
        let AttentionWeights { output_a, output_b, .. } = &layer.attention;
        let low = Product::grouped(shape(output_a), 0, 0, model.config.o_groups);
        let [heads, low] = [low, Product::new(shape(output_b), 0, 0)]
            .map(|product| HalfProduct::new(product, 1).takes_halves());
        floats.heads |= !heads;
        floats.low |= !heads || !low;
        let stack = |of: fn(&ExpertWeights) -> &Matrix| StackRef {
            first: layer.moe.experts.first().map(|expert| shape(of(expert))).unwrap_or_default(),
            ..StackRef::default()
        };
        let shared = &layer.moe.shared;
        floats.middle |= !experts::tensor::suits(&ExpertsArgs {
            gate: stack(|e| &e.gate),
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
    }
    floats
}

struct Drawer {
    buffer: Buffer,
    bytes: Vec<u8>,
}

struct Loader<'a> {
    device: &'a Device,
    fast: bool,
    /// Room for packed vectors.
    packed: u64,
    memory: Vec<Buffer>,
    /// Small values, to be copied in one go.
    drawers: Vec<Drawer>,
    jobs: Vec<Job<'a>>,
}

impl<'a> Loader<'a> {
    fn finish(mut self, kernels: &Kernels) -> Result<Vec<Buffer>, CudaError> {
        for drawer in self.drawers {
            self.device.write(&drawer.buffer, 0, &drawer.bytes)?;
            self.memory.push(drawer.buffer);
        }
        upload(self.device, kernels, self.jobs)?;
        Ok(self.memory)
    }

    /// Puts small values on the card, at a multiple of 256 bytes.
    fn put<T: Words>(&mut self, values: &[T]) -> Result<u64, CudaError> {
        let len = size_of_val(values);
        let fits =
            |drawer: &Drawer| drawer.bytes.len().next_multiple_of(256) + len <= drawer.buffer.len();
        if !self.drawers.last().is_some_and(fits) {
            let buffer = self.device.alloc(DRAWER.max(len), "the weights")?;
            self.drawers.push(Drawer { buffer, bytes: Vec::new() });
        }
        let Some(drawer) = self.drawers.last_mut() else {
            return Err(CudaError::Driver { what: "the weights", says: "no memory".to_owned() });
        };
        let at = drawer.bytes.len().next_multiple_of(256);
        drawer.bytes.resize(at, 0);
        // SAFETY: `T: Words` has no padding, so all its bytes are numbers.
        drawer
            .bytes
            .extend_from_slice(unsafe { std::slice::from_raw_parts(values.as_ptr().cast(), len) });
        Ok(drawer.buffer.address() + at as u64)
    }

    /// Lists products that are launched together, for the kernels that will run them.
    fn products(&mut self, products: &[HalfProduct]) -> Result<Products, CudaError> {
        if self.fast {
            let card = self.device.info();
            let packed = self.packed;
            return HalfProductList::new(card, packed, products, |list| self.put(list))
                .map(|list| Products::Halves(Box::new(list)));
        }
        let plain = products.iter().map(HalfProduct::plain).collect();
        ProductList::new(plain, |list| self.put(list)).map(Products::Floats)
    }

    /// The same behind a kernel that does not fill the card.
    fn spread_products(&mut self, products: &[HalfProduct]) -> Result<Products, CudaError> {
        let card = self.device.info();
        self.products(products).map(|products| match products {
            Products::Halves(list) => Products::Halves(Box::new(list.spread(card))),
            floats => floats,
        })
    }

    /// Memory for so many bytes of codes and of scales.
    fn room(&mut self, codes: usize, scales: usize) -> Result<(u64, u64), CudaError> {
        let at = codes.next_multiple_of(256);
        let buffer = self.device.alloc(at + scales, "the weights")?;
        let base = buffer.address();
        self.memory.push(buffer);
        Ok((base, base + at as u64))
    }

    fn matrix(&mut self, matrix: &'a Matrix) -> Result<MatrixRef, CudaError> {
        Ok(self.stack(&[matrix])?.first)
    }

    /// Matrices of one shape, one behind the other.
    fn stack(&mut self, matrices: &[&'a Matrix]) -> Result<StackRef, CudaError> {
        self.place(matrices, false)
    }

    /// The same; `plain`: row after row, as in the file.
    fn place(&mut self, matrices: &[&'a Matrix], plain: bool) -> Result<StackRef, CudaError> {
        let Some(first) = matrices.first() else { return Ok(StackRef::default()) };
        let cut = if plain { None } else { Cut::of(first.format(), first.cols()) };
        let (codes_each, scales_each) =
            if plain { (first.data().len(), 0) } else { parts_of(first) };
        // Each begins at an address that its widest loads can have.
        let (codes_stride, scales_stride) = match matrices.len() {
            1 => (codes_each, scales_each),
            _ => (codes_each.next_multiple_of(256), scales_each.next_multiple_of(256)),
        };
        let count = matrices.len();
        let (codes, scales) = self.room(count * codes_stride, count * scales_stride)?;
        for (i, matrix) in matrices.iter().enumerate() {
            let codes = codes + (i * codes_stride) as u64;
            let scales = scales + (i * scales_stride) as u64;
            self.jobs.push(Job { bytes: matrix.data(), codes, scales, cut });
            if let Some(bytes) = matrix.scales() {
                let in_tiles = cut.filter(|cut| scales_in_tiles(matrix, *cut));
                let to = if in_tiles.is_some() { codes } else { scales };
                let cut = in_tiles.map(|cut| cut.of_scales());
                self.jobs.push(Job { bytes, codes: to, scales: 0, cut });
            }
        }
        let first = MatrixRef {
            codes,
            scales,
            format: first.format() as u32,
            rows: first.rows() as u32,
            cols: first.cols() as u32,
            tiled: cut.is_some_and(|cut| cut.tiled()).into(),
        };
        Ok(StackRef {
            first,
            codes_stride: codes_stride as u64,
            scales_stride: scales_stride as u64,
        })
    }

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
        let alone = OneQueries::new(self.device.info(), &from(0), norm).filter(|_| self.fast);
        let queries = (0..room.rows).step_by(room.slice).map(|first| self.products(&from(first)));
        let queries = queries.collect::<Result<Vec<_>, _>>()?;
        let low = Product::grouped(self.matrix(output_a)?, s.heads, s.low, c.o_groups);
        let mut low = HalfProduct::new(low, s.halves.heads);
        let output_b = self.matrix(output_b)?;
        if self.fast && tensor::knows(output_b.format, output_b.cols as usize) {
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
            low: self.spread_products(&[low])?,
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

/// What tests of operations need.
#[cfg(test)]
pub mod testing {
    use super::*;

    /// Brings one matrix to the card, as products want it.
    pub fn to_the_card(
        device: &Device,
        kernels: &Kernels,
        matrix: &Matrix,
    ) -> (MatrixRef, Vec<Buffer>) {
        place(device, kernels, matrix, false)
    }

    /// Brings one matrix to the card, row after row.
    pub fn rows_to_the_card(
        device: &Device,
        kernels: &Kernels,
        matrix: &Matrix,
    ) -> (MatrixRef, Vec<Buffer>) {
        place(device, kernels, matrix, true)
    }

    fn place(
        device: &Device,
        kernels: &Kernels,
        matrix: &Matrix,
        plain: bool,
    ) -> (MatrixRef, Vec<Buffer>) {
        let mut loader = Loader {
            device,
            fast: false,
            packed: 0,
            memory: Vec::new(),
            drawers: Vec::new(),
            jobs: Vec::new(),
        };
        let on_card = loader.place(&[matrix], plain).unwrap().first;
        (on_card, loader.finish(kernels).unwrap())
    }
}
