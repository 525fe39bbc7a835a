//! Kernels as machine code: built into the program, found in the cache, or compiled at start.

use std::{env, ffi::CString, fs, path::PathBuf};

use cudarc::nvrtc::{result, sys};

use crate::options::CudaError;

/// The source of all kernels, in one piece.
pub const KERNEL_SOURCE: &str = concat!(
    include_str!("../common.cuh"),
    include_str!("../cluster.cuh"),
    include_str!("../tensor/halves.cuh"),
    include_str!("../matvec/weights.cuh"),
    include_str!("../matvec/kernel.cu"),
    include_str!("../embed/kernel.cu"),
    include_str!("../tensor/bytes.cuh"),
    include_str!("../hyper/steps.cuh"),
    include_str!("../hyper/kernel.cu"),
    include_str!("../hyper/together.cu"),
    include_str!("../rows/kernel.cu"),
    include_str!("../indexer/kernel.cu"),
    include_str!("../indexer/top.cu"),
    include_str!("../sample/kernel.cu"),
    include_str!("../attend/kernel.cu"),
    include_str!("../attend/tile.cuh"),
    include_str!("../attend/tensor.cu"),
    include_str!("../attend/together.cu"),
    include_str!("../indexer/tensor.cu"),
    include_str!("../indexer/together.cu"),
    include_str!("../experts/kernel.cu"),
    include_str!("../tensor/codes.cuh"),
    include_str!("../tensor/whole.cuh"),
    include_str!("../tensor/pipe.cuh"),
    include_str!("../tensor/few.cu"),
    include_str!("../tensor/one.cu"),
    include_str!("../tensor/together.cu"),
    include_str!("../tensor/many.cu"),
    include_str!("../tensor/hopper.cu"),
    include_str!("../experts/tensor.cu"),
    include_str!("../experts/one.cu"),
    include_str!("../experts/shared.cu"),
    include_str!("../experts/choice.cuh"),
    include_str!("../experts/iq2.cuh"),
    include_str!("../experts/q2.cuh"),
    include_str!("../experts/flash.cu"),
    include_str!("../experts/items.cu"),
    include_str!("../experts/many.cu"),
    include_str!("../tensor/pack.cu"),
    include_str!("../experts/hopper.cu"),
    include_str!("../upload/kernel.cu"),
    include_str!("../read_rate/kernel.cu"),
);

/// Tells the source of the kernels from every other: the name of what is compiled from it.
pub fn kernel_hash() -> String {
    blake3::hash(KERNEL_SOURCE.as_bytes()).to_hex().to_string()
}

include!(concat!(env!("OUT_DIR"), "/built_kernels.rs"));

/// Machine code for a compute capability.
pub fn image(capability: u32) -> Result<Vec<u8>, CudaError> {
    // Hopper and later have instructions that only their own target knows.
    let target = match capability {
        90 | 100 | 103 | 120 | 121 => format!("sm_{capability}a"),
        _ => format!("sm_{capability}"),
    };
    let hash = kernel_hash();
    let built = BUILT_KERNELS.iter().find(|(name, made_of, _)| *name == target && *made_of == hash);
    if let Some((_, _, image)) = built {
        return Ok(image.to_vec());
    }
    let cached = cache_folder().map(|folder| folder.join(format!("kernels-{target}-{hash}.cubin")));
    if let Some(image) = cached.as_ref().and_then(|path| fs::read(path).ok()) {
        return Ok(image);
    }
    let image = compile(&target).map_err(|why| CudaError::NoKernels { capability, why })?;
    if let Some(path) = cached {
        store(&path, &image);
    }
    Ok(image)
}

/// A cache that cannot be written is no reason to fail: the next start compiles again.
fn store(path: &PathBuf, image: &[u8]) {
    let unfinished = path.with_extension(format!("{}.part", std::process::id()));
    let folder = path.parent().map_or(Ok(()), fs::create_dir_all);
    let _ = folder
        .and_then(|()| fs::write(&unfinished, image))
        .and_then(|()| fs::rename(&unfinished, path));
}

fn cache_folder() -> Option<PathBuf> {
    let base = match env::var_os("XDG_CACHE_HOME").filter(|path| !path.is_empty()) {
        Some(path) => PathBuf::from(path),
        None => PathBuf::from(env::var_os("HOME")?).join(".cache"),
    };
    Some(base.join("ds4").join("cuda"))
}

fn compile(target: &str) -> Result<Vec<u8>, String> {
    // SAFETY: it only tries to load the library.
    if !unsafe { sys::is_culib_present() } {
        return Err(
            "this build holds none for it, and libnvrtc, the compiler, was not found".into()
        );
    }
    let source = CString::new(KERNEL_SOURCE).map_err(|e| e.to_string())?;
    let program = result::create_program(&source, Some(c"ds4.cu")).map_err(|e| format!("{e:?}"))?;
    let options = [
        format!("--gpu-architecture={target}"),
        "--std=c++17".into(),
        // Lambdas that take anything cannot say where they run.
        "--device-as-default-execution-space".into(),
    ];
    // SAFETY: the program was made above and is destroyed below, whatever happens in between.
    let made = unsafe { result::compile_program(program, &options) }
        .map_err(|error| {
            // SAFETY: the program is alive.
            let log = unsafe { result::get_program_log(program) }.unwrap_or_default();
            let bytes: Vec<u8> = log.iter().map(|&c| c as u8).collect();
            let text = String::from_utf8_lossy(&bytes);
            format!("{error:?}: {}", text.lines().next().unwrap_or_default())
        })
        .and_then(|()| machine_code(program));
    // SAFETY: as above.
    let _ = unsafe { result::destroy_program(program) };
    made
}

fn machine_code(program: sys::nvrtcProgram) -> Result<Vec<u8>, String> {
    let mut size = 0;
    // SAFETY: the program has been compiled; the size is what it wants to write.
    unsafe { sys::nvrtcGetCUBINSize(program, &mut size) }.result().map_err(|e| format!("{e:?}"))?;
    let mut image = vec![0u8; size];
    // SAFETY: there are `size` bytes of room.
    unsafe { sys::nvrtcGetCUBIN(program, image.as_mut_ptr().cast()) }
        .result()
        .map_err(|e| format!("{e:?}"))?;
    Ok(image)
}
