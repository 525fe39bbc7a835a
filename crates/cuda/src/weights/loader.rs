//! Bringing matrices and small values to the card: where they lie there, and what has to be copied.

use ds4_model::Matrix;

use super::Products;
use crate::{
    device::{Buffer, Device, DeviceInfo, Kernels, Words},
    matvec::{MatrixRef, ProductList, StackRef},
    options::CudaError,
    tensor::{HalfProduct, HalfProductList},
    upload::{Cut, Job, upload},
};

/// Bytes that small values are gathered in.
pub const DRAWER: usize = 16 << 20;

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

struct Drawer {
    buffer: Buffer,
    bytes: Vec<u8>,
}

/// What is on its way to the card.
pub struct Loader<'a> {
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
    /// Nothing yet. In full precision nothing is for tensor cores, and there is no room at `packed`.
    pub fn new(device: &'a Device, fast: bool, packed: u64) -> Loader<'a> {
        let (memory, drawers, jobs) = (Vec::new(), Vec::new(), Vec::new());
        Loader { device, fast, packed, memory, drawers, jobs }
    }

    /// Whether products are for tensor cores.
    pub fn is_fast(&self) -> bool {
        self.fast
    }

    /// What the card is.
    pub fn card(&self) -> &'a DeviceInfo {
        self.device.info()
    }

    /// Waits until all is there.
    pub fn finish(mut self, kernels: &Kernels) -> Result<Vec<Buffer>, CudaError> {
        for drawer in self.drawers {
            self.device.write(&drawer.buffer, 0, &drawer.bytes)?;
            self.memory.push(drawer.buffer);
        }
        upload(self.device, kernels, self.jobs)?;
        Ok(self.memory)
    }

    /// Puts small values on the card, at a multiple of 256 bytes.
    pub fn put<T: Words>(&mut self, values: &[T]) -> Result<u64, CudaError> {
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
    pub fn products(&mut self, products: &[HalfProduct]) -> Result<Products, CudaError> {
        if self.fast {
            let card = self.card();
            let packed = self.packed;
            return HalfProductList::new(card, packed, products, |list| self.put(list))
                .map(|list| Products::Halves(Box::new(list)));
        }
        let plain = products.iter().map(HalfProduct::plain).collect();
        ProductList::new(plain, |list| self.put(list)).map(Products::Floats)
    }

    /// The same behind a kernel that does not fill the card.
    pub fn spread_products(&mut self, products: &[HalfProduct]) -> Result<Products, CudaError> {
        let card = self.card();
        self.products(products).map(|products| products.in_halves(|list| list.spread(card)))
    }

    /// Memory for so many bytes of codes and of scales.
    fn room(&mut self, codes: usize, scales: usize) -> Result<(u64, u64), CudaError> {
        let at = codes.next_multiple_of(256);
        let buffer = self.device.alloc(at + scales, "the weights")?;
        let base = buffer.address();
        self.memory.push(buffer);
        Ok((base, base + at as u64))
    }

    /// One matrix.
    pub fn matrix(&mut self, matrix: &'a Matrix) -> Result<MatrixRef, CudaError> {
        Ok(self.stack(&[matrix])?.first)
    }

    /// Matrices of one shape, one behind the other.
    pub fn stack(&mut self, matrices: &[&'a Matrix]) -> Result<StackRef, CudaError> {
        self.place(matrices, false)
    }

    /// The same; `plain`: row after row, as in the file.
    pub fn place(&mut self, matrices: &[&'a Matrix], plain: bool) -> Result<StackRef, CudaError> {
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

    /// Brings matrices of one shape and format to the card, one behind the other.
    pub fn stack_to_the_card(
        device: &Device,
        kernels: &Kernels,
        matrices: &[Matrix],
    ) -> (StackRef, Vec<Buffer>) {
        let mut loader = Loader::new(device, false, 0);
        let stack = loader.place(&matrices.iter().collect::<Vec<_>>(), false).unwrap();
        (stack, loader.finish(kernels).unwrap())
    }

    fn place(
        device: &Device,
        kernels: &Kernels,
        matrix: &Matrix,
        plain: bool,
    ) -> (MatrixRef, Vec<Buffer>) {
        let mut loader = Loader::new(device, false, 0);
        let on_card = loader.place(&[matrix], plain).unwrap().first;
        (on_card, loader.finish(kernels).unwrap())
    }
}
