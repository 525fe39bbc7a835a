//! All that speaks to the driver: contexts, memory, kernels, graphs.
//!
//! The driver's library is loaded when it is first asked for, so a program without a card starts and
//! runs. Only this module, and the launchers that hand it their arguments, hold unsafe code.

mod compile;
mod graph;
mod kernels;
mod memory;
mod timing;

use std::sync::Arc;

use cudarc::driver::{DriverError, result, sys};

use crate::options::CudaError;

pub use compile::{KERNEL_SOURCE, kernel_hash};
pub use graph::Graph;
pub use kernels::{Args, Kernel, Kernels};
pub use memory::{Buffer, Pinned, Words};
use timing::Marks;
pub use timing::{Mark, Times};

/// A card that the driver sees.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceInfo {
    /// Its name.
    pub name: String,
    /// Its memory in bytes.
    pub memory: u64,
    /// Its compute capability: 90 for 9.0.
    pub capability: u32,
    /// How many multiprocessors it has.
    pub multiprocessors: usize,
}

impl DeviceInfo {
    /// Whether a block can have more than 220 KiB of shared memory, as on 9.0 and from 10.0 to 11.x.
    pub fn has_much_shared(&self) -> bool {
        matches!(self.capability, 90..=119)
    }

    /// Whether it is a Hopper, whose instructions no other card has, and for which registers are counted.
    pub fn is_hopper(&self) -> bool {
        self.capability == 90
    }
}

/// The cards of this machine, in the driver's order.
pub fn devices() -> Result<Vec<DeviceInfo>, CudaError> {
    (0..count()?).map(|ordinal| describe(ordinal).map(|(_, info)| info)).collect()
}

fn count() -> Result<usize, CudaError> {
    // SAFETY: it only tries to load the library, whose initialisers are the driver's own.
    if !unsafe { sys::is_culib_present() } {
        return Err(CudaError::NoDriver);
    }
    match result::init() {
        Err(error) if error.0 == sys::cudaError_enum::CUDA_ERROR_NO_DEVICE => return Ok(0),
        started => started.map_err(driver("starting the driver"))?,
    }
    let mut version = 0;
    // SAFETY: it writes the number and nothing else.
    unsafe { sys::cuDriverGetVersion(&mut version) }
        .result()
        .map_err(driver("asking for the driver's version"))?;
    check_version(version)?;
    let count = result::device::get_count().map_err(driver("counting the GPUs"))?;
    Ok(count as usize)
}

/// The CUDA version that has all that is called here, in the driver's own counting. What an older
/// driver lacks is not refused by it: it is not there to be called.
const NEEDED_VERSION: i32 = 12_000;

fn check_version(found: i32) -> Result<(), CudaError> {
    let words = |version: i32| format!("{}.{}", version / 1000, version % 1000 / 10);
    match found {
        found if found < NEEDED_VERSION => {
            Err(CudaError::OldDriver { found: words(found), needed: words(NEEDED_VERSION) })
        }
        _ => Ok(()),
    }
}

fn describe(ordinal: usize) -> Result<(sys::CUdevice, DeviceInfo), CudaError> {
    use sys::CUdevice_attribute_enum as attribute;
    let asking = driver("asking about the GPU");
    let device = result::device::get(ordinal as i32).map_err(driver("finding the GPU"))?;
    let number = |what| {
        // SAFETY: the driver has just given the handle.
        unsafe { result::device::get_attribute(device, what) }.map_err(&asking)
    };
    let major = number(attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR)?;
    let minor = number(attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR)?;
    let multiprocessors = number(attribute::CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT)?;
    // SAFETY: as above.
    let memory = unsafe { result::device::total_mem(device) }.map_err(&asking)?;
    let info = DeviceInfo {
        name: result::device::get_name(device).map_err(&asking)?,
        memory: memory as u64,
        capability: (major * 10 + minor) as u32,
        multiprocessors: multiprocessors as usize,
    };
    Ok((device, info))
}

/// Names what was tried when the driver refuses.
pub fn driver(what: &'static str) -> impl Fn(DriverError) -> CudaError {
    move |error| CudaError::Driver { what, says: words(error) }
}

fn words(error: DriverError) -> String {
    match (error.error_name(), error.error_string()) {
        (Ok(name), Ok(text)) => format!("{}: {}", name.to_string_lossy(), text.to_string_lossy()),
        _ => format!("{error:?}"),
    }
}

/// The context of a card. It stays as long as anything that was made in it.
pub struct Context {
    device: sys::CUdevice,
    context: sys::CUcontext,
}

// SAFETY: a context may be used from any thread that has made it current, which `bind` does.
unsafe impl Send for Context {}
// SAFETY: as above; the driver locks its own structures.
unsafe impl Sync for Context {}

impl Context {
    /// Makes the context current on this thread.
    pub fn bind(&self) -> Result<(), CudaError> {
        // SAFETY: the context lives as long as `self`.
        unsafe { result::ctx::set_current(self.context) }.map_err(driver("entering the context"))
    }
}

impl Drop for Context {
    fn drop(&mut self) {
        // SAFETY: nothing that was made in the context is left: all of it holds an `Arc` of it.
        let _ = unsafe { result::primary_ctx::release(self.device) };
    }
}

/// A card with a stream of work.
pub struct Device {
    context: Arc<Context>,
    stream: sys::CUstream,
    info: DeviceInfo,
    marks: Marks,
}

// SAFETY: a stream is a handle that any thread may use once the context is current there.
unsafe impl Send for Device {}
// SAFETY: as above; the driver orders what several threads put on one stream.
unsafe impl Sync for Device {}

impl Device {
    /// Opens a card.
    pub fn open(ordinal: usize) -> Result<Device, CudaError> {
        let found = count()?;
        if ordinal >= found {
            return Err(CudaError::NoSuchGpu { wanted: ordinal, found });
        }
        let (device, info) = describe(ordinal)?;
        // SAFETY: the driver has given the device's handle.
        let context =
            unsafe { result::primary_ctx::retain(device) }.map_err(driver("making a context"))?;
        let context = Arc::new(Context { device, context });
        Device::in_context(context, info)
    }

    /// Another stream on the same card.
    pub fn another(&self) -> Result<Device, CudaError> {
        Device::in_context(Arc::clone(&self.context), self.info.clone())
    }

    fn in_context(context: Arc<Context>, info: DeviceInfo) -> Result<Device, CudaError> {
        context.bind()?;
        let stream = result::stream::create(result::stream::StreamKind::NonBlocking)
            .map_err(driver("making a stream"))?;
        Ok(Device { context, stream, info, marks: Marks::default() })
    }

    /// What the card is.
    pub fn info(&self) -> &DeviceInfo {
        &self.info
    }

    /// Makes the card current on this thread.
    pub fn bind(&self) -> Result<(), CudaError> {
        self.context.bind()
    }

    /// Waits for all work of the stream.
    pub fn finish(&self) -> Result<(), CudaError> {
        // SAFETY: the stream lives as long as `self`.
        unsafe { result::stream::synchronize(self.stream) }.map_err(driver("running the kernels"))
    }

    /// Bytes that are free on the card.
    pub fn free_memory(&self) -> Result<u64, CudaError> {
        let (free, _) = result::mem_get_info().map_err(driver("asking for free memory"))?;
        Ok(free as u64)
    }
}

impl Drop for Device {
    fn drop(&mut self) {
        // SAFETY: the stream was made by `in_context` and is not used after this.
        let _ = self.context.bind().map(|()| unsafe { result::stream::destroy(self.stream) });
    }
}

#[cfg(test)]
mod tests {
    use super::check_version;

    #[test]
    fn a_driver_that_lacks_what_is_called_is_refused() {
        check_version(12_000).unwrap();
        check_version(13_010).unwrap();
        let refusal = check_version(11_080).unwrap_err().to_string();
        assert_eq!(refusal, "the NVIDIA driver knows CUDA 11.8, and 12.0 or later is needed");
    }
}

/// What tests of operations need.
#[cfg(test)]
pub mod testing {
    #![allow(clippy::print_stderr, reason = "a skipped test says why")]

    use super::{Device, Kernels};

    /// Runs a test with the first card, if there is one.
    pub fn on_the_card(test: impl Fn(&Device, &Kernels)) {
        match Device::open(0) {
            Ok(device) => {
                let kernels = Kernels::load(&device).unwrap();
                test(&device, &kernels);
                device.finish().unwrap();
            }
            Err(error) => eprintln!("skipped: {error}"),
        }
    }
}
