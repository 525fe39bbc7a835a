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
    HyperTogether = "hyper_together",
    HyperTogether2 = "hyper_together_2",
    HyperTogetherParts = "hyper_together_parts",
    HyperTogether2Parts = "hyper_together_2_parts",
    Products1 = "products_1",
    Products8 = "products_8",
    HalfProducts1 = "half_products_1",
    HalfQueries1 = "half_queries_1",
    HalfProducts8 = "half_products_8",
    HalfProducts8Q8 = "half_products_8_q8",
    HalfProducts16 = "half_products_16",
    HalfProducts16Q8 = "half_products_16_q8",
    HalfProductsTogether8 = "half_products_together_8",
    HalfProductsTogether16 = "half_products_together_16",
    HalfProductsMany = "half_products_many",
    KeepRows = "keep_rows",
    SettleRows = "settle_rows",
    SaveRows = "save_rows",
    CopyRings = "copy_rings",
    IndexQueries = "index_queries",
    IndexScores = "index_scores",
    IndexScoresPlain = "index_scores_plain",
    IndexScoresTensor = "index_scores_tensor",
    IndexTop = "index_top",
    IndexTogether = "index_together",
    AttendParts = "attend_parts",
    AttendJoin = "attend_join",
    AttendTogether = "attend_together",
    Attend8 = "attend_8",
    Attend16 = "attend_16",
    Attend16Whole = "attend_16_whole",
    Attend64Whole = "attend_64_whole",
    Route = "route",
    ExpertsIn = "experts_in",
    ExpertsOut = "experts_out",
    RouterAndShared = "router_and_shared",
    RouterAndShared8 = "router_and_shared_8",
    RouterAndShared16 = "router_and_shared_16",
    SharedOutput8 = "shared_output_8",
    SharedOutput16 = "shared_output_16",
    OneRouterAndShared = "one_router_and_shared",
    OneExpertsIn = "one_experts_in",
    OneExpertsOut = "one_experts_out",
    HalfExpertsIn1 = "half_experts_in_1",
    HalfExpertsIn8 = "half_experts_in_8",
    HalfExpertsIn8Iq2 = "half_experts_in_8_iq2",
    NumberInner = "number_inner",
    HalfExpertsIn16 = "half_experts_in_16",
    HalfExpertsIn32 = "half_experts_in_32",
    HalfExpertsIn64 = "half_experts_in_64",
    HalfExpertsOut1 = "half_experts_out_1",
    HalfExpertsOut8 = "half_experts_out_8",
    HalfExpertsOut8Q2 = "half_experts_out_8_q2",
    HalfExpertsOut16 = "half_experts_out_16",
    HalfExpertsOut32 = "half_experts_out_32",
    HalfExpertsOut64 = "half_experts_out_64",
    WideF16 = "wide_f16",
    WideQ80 = "wide_q8_0",
    WideFp8 = "wide_fp8",
    WideMxfp4 = "wide_mxfp4",
    WideFp4 = "wide_fp4",
    WideIq2Xxs = "wide_iq2_xxs",
    WideQ2K = "wide_q2_k",
    WideWholeQ2K = "wide_whole_q2_k",
    WideQ4K = "wide_q4_k",
    PackVectors = "pack_vectors",
    GroupPairs = "group_pairs",
    JoinExperts = "join_experts",
    SplitBlocks = "split_blocks",
    SplitIq2 = "split_iq2",
    ReadWeights = "read_weights",
    ScanLogits = "scan_logits",
    ListLogits = "list_logits",
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
        kernels.all_to_shared()?;
        kernels.fill_grid(device)?;
        Ok(kernels)
    }

    /// Gives multiprocessors as much shared memory as they can have. One on which two kernels want different shares
    /// serves them one after the other, and the second could ask for nothing ahead. What measures plain reads runs
    /// alone, and wants the cache.
    fn all_to_shared(&self) -> Result<(), CudaError> {
        let share =
            sys::CUfunction_attribute_enum::CU_FUNC_ATTRIBUTE_PREFERRED_SHARED_MEMORY_CARVEOUT;
        let most = sys::CUshared_carveout_enum::CU_SHAREDMEM_CARVEOUT_MAX_SHARED as i32;
        let others = self.functions.iter().enumerate();
        others.filter(|(i, _)| *i != Kernel::ReadWeights as usize).try_for_each(|(_, &function)| {
            // SAFETY: the function belongs to the loaded module.
            unsafe { result::function::set_function_attribute(function, share, most) }
                .map_err(driver("sharing out a multiprocessor's memory"))
        })
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
        // SAFETY: the global has room for the grid.
        unsafe { device.write_at(address, &grid) }
    }
}

impl Drop for Kernels {
    fn drop(&mut self) {
        // SAFETY: the module was loaded by `load` and is not used after this.
        let _ = self.context.bind().map(|()| unsafe { result::module::unload(self.module) });
    }
}

/// The attributes of a launch.
fn attributes(overlap: bool, cluster: Option<usize>) -> Vec<sys::CUlaunchAttribute> {
    let attribute = |id, value| sys::CUlaunchAttribute { id, pad: [0; 4], value };
    // Where the card can, a kernel starts while the one before still runs, and waits by itself.
    let overlap = overlap.then(|| {
        attribute(
            sys::CUlaunchAttributeID::CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_STREAM_SERIALIZATION,
            sys::CUlaunchAttributeValue { programmaticStreamSerializationAllowed: 1 },
        )
    });
    let cluster = cluster.map(|blocks| {
        let dimensions =
            sys::CUlaunchAttributeValue_union__bindgen_ty_1 { x: blocks as u32, y: 1, z: 1 };
        attribute(
            sys::CUlaunchAttributeID::CU_LAUNCH_ATTRIBUTE_CLUSTER_DIMENSION,
            sys::CUlaunchAttributeValue { clusterDim: dimensions },
        )
    });
    overlap.into_iter().chain(cluster).collect()
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
        self.start(kernels, kernel, (grid, None), threads, shared, args)
    }

    /// The same for a kernel whose blocks wait for each other: those of each line of the grid. The card must
    /// be able to do it.
    pub fn launch_clusters<A: Args>(
        &self,
        kernels: &Kernels,
        kernel: Kernel,
        grid: [usize; 3],
        threads: u32,
        shared: usize,
        args: &A,
    ) -> Result<(), CudaError> {
        self.start(kernels, kernel, (grid, Some(grid[0])), threads, shared, args)
    }

    /// Whether the card runs clusters of so many blocks of a kernel, each with `shared` bytes.
    pub fn can_cluster(
        &self,
        kernels: &Kernels,
        kernel: Kernel,
        blocks: usize,
        threads: u32,
        shared: usize,
    ) -> Result<bool, CudaError> {
        if self.info.capability < OVERLAPPING {
            return Ok(false);
        }
        let function = kernels.functions[kernel as usize];
        let larger =
            sys::CUfunction_attribute_enum::CU_FUNC_ATTRIBUTE_NON_PORTABLE_CLUSTER_SIZE_ALLOWED;
        // SAFETY: the function belongs to the loaded module. A card that knows no larger clusters than
        // every card does may refuse; then it is the question below that says no.
        let _ = unsafe { result::function::set_function_attribute(function, larger, 1) };
        let mut attributes = attributes(false, Some(blocks));
        let config = self.config(([blocks, 1, 1], threads, shared), &mut attributes);
        let mut clusters = 0;
        // SAFETY: the configuration and its attributes live until the call has returned.
        let asked = unsafe { sys::cuOccupancyMaxActiveClusters(&mut clusters, function, &config) };
        Ok(asked == sys::CUresult::CUDA_SUCCESS && clusters > 0)
    }

    fn config(
        &self,
        ([x, y, z], threads, shared): ([usize; 3], u32, usize),
        attributes: &mut [sys::CUlaunchAttribute],
    ) -> sys::CUlaunchConfig {
        sys::CUlaunchConfig {
            gridDimX: x as u32,
            gridDimY: y as u32,
            gridDimZ: z as u32,
            blockDimX: threads,
            blockDimY: 1,
            blockDimZ: 1,
            sharedMemBytes: shared as u32,
            hStream: self.stream,
            attrs: attributes.as_mut_ptr(),
            numAttrs: attributes.len() as u32,
        }
    }

    fn start<A: Args>(
        &self,
        kernels: &Kernels,
        kernel: Kernel,
        (grid, cluster): ([usize; 3], Option<usize>),
        threads: u32,
        shared: usize,
        args: &A,
    ) -> Result<(), CudaError> {
        if grid.contains(&0) {
            return Ok(());
        }
        let mut args = *args;
        let mut parameters = [(&raw mut args).cast::<c_void>()];
        let mut attributes = attributes(self.info.capability >= OVERLAPPING, cluster);
        let config = self.config((grid, threads, shared), &mut attributes);
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
        self.mark(Some(kernel))
    }
}
