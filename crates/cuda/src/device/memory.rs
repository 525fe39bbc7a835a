//! Memory on the card, and memory of the host that the card copies from at full speed.

use std::{ops::Range, ptr::NonNull, sync::Arc};

use cudarc::driver::{result, sys};

use super::{Context, Device, driver};
use crate::options::CudaError;

/// Bytes on the card.
pub struct Buffer {
    context: Arc<Context>,
    address: sys::CUdeviceptr,
    len: usize,
}

impl Buffer {
    /// Where it begins, as kernels see it.
    pub fn address(&self) -> u64 {
        self.address
    }

    /// Its bytes.
    pub fn len(&self) -> usize {
        self.len
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        // SAFETY: the address came from the driver's allocator, and the owner drops it once. Work that
        // still uses it has been waited for: freeing waits for the whole card.
        let _ = self.context.bind().map(|()| unsafe { result::free_sync(self.address) });
    }
}

/// Numbers whose bytes may be copied to and from the card as they lie.
///
/// # Safety
/// Every pattern of bits must be a value, and there must be no padding.
pub unsafe trait Words: Copy {}

// SAFETY: plain numbers.
unsafe impl Words for u8 {}
// SAFETY: plain numbers.
unsafe impl Words for u32 {}
// SAFETY: plain numbers.
unsafe impl Words for u64 {}
// SAFETY: plain numbers.
unsafe impl Words for f32 {}

/// Page-locked bytes of the host.
pub struct Pinned {
    context: Arc<Context>,
    start: NonNull<u8>,
    len: usize,
}

// SAFETY: it owns its memory as a `Vec` does.
unsafe impl Send for Pinned {}

impl Pinned {
    /// The bytes.
    pub fn bytes(&self) -> &[u8] {
        // SAFETY: `start` is the beginning of `len` bytes that this value owns, zeroed when made.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.len) }
    }

    /// Its values from byte `at` on, a multiple of their size.
    pub fn values<T: Words>(&self, at: usize) -> &[T] {
        let bytes = self.bytes().get(at..).unwrap_or_default();
        // SAFETY: `T: Words` takes every pattern of bits. Page-locked memory begins at a page, so
        // nothing is left out in front.
        unsafe { bytes.align_to() }.1
    }

    /// The bytes, to be written. The caller sees to it that no copy from them is under way.
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: as in `bytes`, and `self` is borrowed mutably.
        unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr(), self.len) }
    }
}

impl Drop for Pinned {
    fn drop(&mut self) {
        // SAFETY: the memory came from `malloc_host` and is freed once.
        let _ =
            self.context.bind().map(|()| unsafe { result::free_host(self.start.as_ptr().cast()) });
    }
}

impl Device {
    /// Takes memory on the card, with what it is for in case there is too little.
    pub fn alloc(&self, bytes: usize, what: &'static str) -> Result<Buffer, CudaError> {
        // SAFETY: an allocation of at least one byte; nothing reads it before it is written.
        match unsafe { result::malloc_sync(bytes.max(16)) } {
            Ok(address) => Ok(Buffer { context: Arc::clone(&self.context), address, len: bytes }),
            Err(error) if error.0 == sys::cudaError_enum::CUDA_ERROR_OUT_OF_MEMORY => {
                let free = self.free_memory()?;
                Err(CudaError::OutOfMemory { what, wanted: bytes as u64, free })
            }
            Err(error) => Err(driver("taking memory on the GPU")(error)),
        }
    }

    /// Takes memory and fills it.
    pub fn upload<T: Words>(&self, values: &[T], what: &'static str) -> Result<Buffer, CudaError> {
        let buffer = self.alloc(size_of_val(values), what)?;
        self.write(&buffer, 0, values)?;
        Ok(buffer)
    }

    /// Takes page-locked memory of the host.
    pub fn pinned(&self, bytes: usize) -> Result<Pinned, CudaError> {
        let bytes = bytes.max(16);
        // SAFETY: an allocation of at least one byte.
        let start =
            unsafe { result::malloc_host(bytes, 0) }.map_err(driver("page-locking memory"))?;
        let start = NonNull::new(start.cast::<u8>())
            .ok_or(CudaError::Driver { what: "page-locking memory", says: "nothing".to_owned() })?;
        // SAFETY: the driver has just given these bytes.
        unsafe { start.write_bytes(0, bytes) };
        Ok(Pinned { context: Arc::clone(&self.context), start, len: bytes })
    }

    /// Copies values to the card and waits for it.
    pub fn write<T: Words>(&self, to: &Buffer, at: usize, values: &[T]) -> Result<(), CudaError> {
        check(at, size_of_val(values), to.len)?;
        // SAFETY: the range is inside the buffer.
        unsafe { self.write_at(to.address + at as u64, values) }
    }

    /// The same to an address. On the stream: a copy that the driver calls synchronous returns when it has read ordinary
    /// memory, and may reach the card behind kernels of a stream that does not wait for it.
    ///
    /// # Safety
    /// There must be room at the address.
    pub unsafe fn write_at<T: Words>(&self, to: u64, values: &[T]) -> Result<(), CudaError> {
        // SAFETY: the caller's promise; the values are borrowed until the copy has ended.
        unsafe { result::memcpy_htod_async(to, values, self.stream) }
            .map_err(driver("copying to the GPU"))?;
        self.finish()
    }

    /// Copies values from the card, after all work of the stream.
    pub fn read<T: Words>(
        &self,
        from: &Buffer,
        at: usize,
        values: &mut [T],
    ) -> Result<(), CudaError> {
        check(at, size_of_val(values), from.len)?;
        self.finish()?;
        // SAFETY: the range is inside the buffer, every pattern of bits is a value of `T`.
        unsafe { result::memcpy_dtoh_sync(values, from.address + at as u64) }
            .map_err(driver("copying from the GPU"))
    }

    /// Starts a copy of page-locked bytes to an address on the card.
    ///
    /// # Safety
    /// There must be room at the address, and the bytes must stay as they are until the stream is done.
    pub unsafe fn send(
        &self,
        from: &Pinned,
        range: Range<usize>,
        to: u64,
    ) -> Result<(), CudaError> {
        check(range.start, range.len(), from.len)?;
        // SAFETY: the caller's promise; the range is inside the buffer.
        unsafe { result::memcpy_htod_async(to, &from.bytes()[range], self.stream) }
            .map_err(driver("copying to the GPU"))
    }

    /// Starts a copy from the card to page-locked bytes.
    pub fn fetch(&self, from: u64, to: &mut Pinned, range: Range<usize>) -> Result<(), CudaError> {
        check(range.start, range.len(), to.len)?;
        // SAFETY: the range is inside the page-locked memory, and its owner reads it after `finish`.
        unsafe { result::memcpy_dtoh_async(&mut to.bytes_mut()[range], from, self.stream) }
            .map_err(driver("copying from the GPU"))
    }

    /// Copies a whole buffer on the card.
    pub fn duplicate(&self, from: &Buffer, what: &'static str) -> Result<Buffer, CudaError> {
        let copy = self.alloc(from.len, what)?;
        // SAFETY: both buffers have `from.len` bytes and are alive until the copy has ended.
        unsafe { result::memcpy_dtod_async(copy.address, from.address, from.len, self.stream) }
            .map_err(driver("copying on the GPU"))?;
        self.finish()?;
        Ok(copy)
    }
}

fn check(at: usize, len: usize, room: usize) -> Result<(), CudaError> {
    match at.checked_add(len) {
        Some(end) if end <= room => Ok(()),
        _ => Err(CudaError::Driver {
            what: "copying",
            says: format!("{len} bytes at {at} do not fit in {room}"),
        }),
    }
}
