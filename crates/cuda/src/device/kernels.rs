//! The kernels of the crate, loaded, and how they are started.

use std::{ffi::CString, ffi::c_void, sync::Arc};

use cudarc::driver::{result, sys};
use ds4_quant::{Format, decode_row};

use super::{Context, Device, compile, driver};
use crate::options::CudaError;

macro_rules! kernels {
    ($($kernel:ident = $name:literal),* $(,)?) => {
        /// A kernel of this crate.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Kernel {
            $(#[doc = $name] $kernel,)*
        }

        const NAMES: &[&str] = &[$($name),*];

        impl Kernel {
            /// Its name in the source.
            pub fn name(self) -> &'static str {
                NAMES[self as usize]
            }
        }
    };
}

kernels! {
    Embed = "embed",
    HyperWrite = "hyper_write",
    HyperRead = "hyper_read",
    Products1 = "products_1",
    Products8 = "products_8",
    Products8Bit1 = "products8_1",
    Products8Bit4 = "products8_4",
    Products8Bit8 = "products8_8",
    Experts8In = "experts8_in",
    Experts8Out = "experts8_out",
    KeepRows = "keep_rows",
    SaveRows = "save_rows",
    CopyRings = "copy_rings",
    Compress = "compress",
    IndexQueries = "index_queries",
    IndexScores = "index_scores",
    IndexScoresPlain = "index_scores_plain",
    IndexScoresTensor = "index_scores_tensor",
    IndexTop = "index_top",
    AttendParts = "attend_parts",
    AttendJoin = "attend_join",
    Attend8 = "attend_8",
    Attend16 = "attend_16",
    Attend16Whole = "attend_16_whole",
    Attend64Whole = "attend_64_whole",
    Route = "route",
    ExpertsIn = "experts_in",
    ExpertsOut = "experts_out",
    SplitBlocks = "split_blocks",
}

/// Compute capability from which on kernels of a stream may overlap.
const OVERLAPPING: u32 = 90;

/// Shared memory that a kernel may use without asking.
const ORDINARY_SHARED: u32 = 48 << 10;

/// Arguments of a kernel: one structure that stands in its source too.
///
/// # Safety
/// The structure must be `repr(C)` and mirror the kernel's, and whatever it points to must be alive
/// and large enough when the kernel runs.
pub unsafe trait Args: Copy {}

/// The loaded kernels of a card.
pub struct Kernels {
    context: Arc<Context>,
    module: sys::CUmodule,
    functions: Vec<sys::CUfunction>,
}

// SAFETY: the handles may be used from any thread that has made the context current.
unsafe impl Send for Kernels {}
// SAFETY: as above; they are only read.
unsafe impl Sync for Kernels {}

impl Kernels {
    /// Finds or compiles the kernels for this card and loads them.
    pub fn load(device: &Device) -> Result<Kernels, CudaError> {
        let image = compile::image(device.info().capability)?;
        // SAFETY: the image is an ELF file that carries its own length; the driver checks it.
        let module = unsafe { result::module::load_data(image.as_ptr().cast()) }
            .map_err(driver("loading the kernels"))?;
        let mut kernels =
            Kernels { context: Arc::clone(&device.context), module, functions: Vec::new() };
        for name in NAMES {
            let name = CString::new(*name).unwrap_or_default();
            // SAFETY: the module has just been loaded.
            let function = unsafe { result::module::get_function(module, name) }
                .map_err(driver("finding a kernel"))?;
            kernels.functions.push(function);
        }
        kernels.fill_grid(device)?;
        Ok(kernels)
    }

    /// Lets a kernel use more shared memory than any kernel may without asking.
    pub fn allow_shared(&self, kernel: Kernel, bytes: u32) -> Result<(), CudaError> {
        if bytes <= ORDINARY_SHARED {
            return Ok(());
        }
        let most = sys::CUfunction_attribute_enum::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
        // SAFETY: the function belongs to the loaded module.
        unsafe {
            result::function::set_function_attribute(
                self.functions[kernel as usize],
                most,
                bytes as i32,
            )
        }
        .map_err(driver("asking for shared memory"))
    }

    /// Writes the magnitudes of IQ2_XXS, as `ds4_quant` knows them, to where the kernels look.
    fn fill_grid(&self, device: &Device) -> Result<(), CudaError> {
        let mut grid = [0u64; 256];
        for (block, entries) in grid.as_chunks_mut::<32>().0.iter_mut().enumerate() {
            // Scale 8 and no signs: a magnitude m gives 8 (0 + 1/2) m / 4 = m.
            let mut bytes = vec![0u8; 66];
            bytes[..2].copy_from_slice(&0x4800u16.to_le_bytes());
            for (group, bytes) in bytes[2..].chunks_exact_mut(8).enumerate() {
                for (i, byte) in bytes[..4].iter_mut().enumerate() {
                    *byte = (32 * block + 4 * group + i) as u8;
                }
            }
            let mut values = [0.0f32; 256];
            let decoded = decode_row(Format::Iq2Xxs, &bytes, &mut values);
            debug_assert!(decoded.is_ok(), "one whole block: {decoded:?}");
            for (entry, eight) in entries.iter_mut().zip(values.as_chunks::<8>().0) {
                *entry = u64::from_le_bytes(eight.map(|x| x as u8));
            }
        }
        // SAFETY: the module is loaded.
        let (address, size) =
            unsafe { result::module::get_global(self.module, c"IQ2_XXS_GRID".to_owned()) }
                .map_err(driver("finding the grid of IQ2_XXS"))?;
        if size < size_of_val(&grid) {
            return Err(CudaError::Driver {
                what: "finding the grid of IQ2_XXS",
                says: format!("it has {size} bytes"),
            });
        }
        device.finish()?;
        // SAFETY: the global has room for the grid.
        unsafe { result::memcpy_htod_sync(address, &grid) }.map_err(driver("copying to the GPU"))
    }
}

impl Drop for Kernels {
    fn drop(&mut self) {
        // SAFETY: the module was loaded by `load` and is not used after this.
        let _ = self.context.bind().map(|()| unsafe { result::module::unload(self.module) });
    }
}

impl Device {
    /// Puts a kernel on the stream: a grid of blocks of `threads`, with `shared` bytes each.
    pub fn launch<A: Args>(
        &self,
        kernels: &Kernels,
        kernel: Kernel,
        grid: [usize; 3],
        threads: u32,
        shared: usize,
        args: &A,
    ) -> Result<(), CudaError> {
        let [x, y, z] = grid.map(|n| n as u32);
        if x == 0 || y == 0 || z == 0 {
            return Ok(());
        }
        let mut args = *args;
        let mut parameters = [(&raw mut args).cast::<c_void>()];
        // Where the card can, a kernel starts while the one before still runs, and waits by itself.
        let overlap = sys::CUlaunchAttribute {
            id: sys::CUlaunchAttributeID::CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_STREAM_SERIALIZATION,
            pad: [0; 4],
            value: sys::CUlaunchAttributeValue { programmaticStreamSerializationAllowed: 1 },
        };
        let mut attributes = [overlap];
        let config = sys::CUlaunchConfig {
            gridDimX: x,
            gridDimY: y,
            gridDimZ: z,
            blockDimX: threads,
            blockDimY: 1,
            blockDimZ: 1,
            sharedMemBytes: shared as u32,
            hStream: self.stream,
            attrs: attributes.as_mut_ptr(),
            numAttrs: u32::from(self.info.capability >= OVERLAPPING),
        };
        // SAFETY: `A: Args` promises that the structure is the kernel's only parameter and that what it
        // points to will be alive; the driver copies structure and attributes before it returns.
        unsafe {
            sys::cuLaunchKernelEx(
                &config,
                kernels.functions[kernel as usize],
                parameters.as_mut_ptr(),
                std::ptr::null_mut(),
            )
        }
        .result()
        .map_err(driver("starting a kernel"))?;
        self.mark(kernel)
    }
}
