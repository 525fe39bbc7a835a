//! How long each kernel takes: marks on the stream between launches, also between those of a recording.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
};

use cudarc::driver::{result, sys};

use super::{Context, Device, Kernel, driver};
use crate::options::CudaError;

/// A point of the stream.
struct Event {
    context: Arc<Context>,
    event: sys::CUevent,
}

// SAFETY: the handle may be used from any thread that has made the context current.
unsafe impl Send for Event {}

impl Drop for Event {
    fn drop(&mut self) {
        // SAFETY: the event was made by `Device::mark` and is not used after this.
        let _ = self.context.bind().map(|()| unsafe { result::event::destroy(self.event) });
    }
}

/// The points after each launch, while times are wanted.
#[derive(Default)]
pub struct Marks(Mutex<Option<Vec<(Kernel, Event)>>>);

impl Device {
    /// Starts or stops marking launches, forgetting what was marked.
    pub fn time_kernels(&self, on: bool) {
        if let Ok(mut marks) = self.marks.0.lock() {
            *marks = on.then(Vec::new);
        }
    }

    /// Forgets what was marked, and goes on marking if times are wanted.
    pub fn forget_marks(&self) {
        if let Ok(mut marks) = self.marks.0.lock()
            && let Some(marks) = marks.as_mut()
        {
            marks.clear();
        }
    }

    /// Marks the stream after a launch, if times are wanted.
    pub(super) fn mark(&self, kernel: Kernel) -> Result<(), CudaError> {
        let Ok(mut marks) = self.marks.0.lock() else { return Ok(()) };
        let Some(marks) = marks.as_mut() else { return Ok(()) };
        let event = result::event::create(sys::CUevent_flags::CU_EVENT_DEFAULT)
            .map_err(driver("timing the kernels"))?;
        let event = Event { context: Arc::clone(&self.context), event };
        // On a stream that is being recorded an ordinary mark would only order things.
        // SAFETY: stream and event are alive.
        unsafe {
            let mut status = sys::CUstreamCaptureStatus::CU_STREAM_CAPTURE_STATUS_NONE;
            sys::cuStreamIsCapturing(self.stream, &mut status)
                .result()
                .map_err(driver("timing the kernels"))?;
            let recording = status != sys::CUstreamCaptureStatus::CU_STREAM_CAPTURE_STATUS_NONE;
            sys::cuEventRecordWithFlags(event.event, self.stream, u32::from(recording))
                .result()
                .map_err(driver("timing the kernels"))?;
        }
        marks.push((kernel, event));
        Ok(())
    }

    /// Seconds that passed between each launch's mark and the one before, by kernel, and how many
    /// launches there were. The stream must be done.
    pub fn kernel_times(&self) -> Result<Vec<(&'static str, usize, f64)>, CudaError> {
        let mut times: BTreeMap<&'static str, (usize, f64)> = BTreeMap::new();
        if let Ok(Some(marks)) = self.marks.0.lock().as_deref() {
            for [(_, before), (kernel, after)] in marks.array_windows() {
                // SAFETY: both events have been reached.
                let milliseconds = unsafe { result::event::elapsed(before.event, after.event) }
                    .map_err(driver("timing the kernels"))?;
                let of = times.entry(kernel.name()).or_default();
                *of = (of.0 + 1, of.1 + f64::from(milliseconds) / 1e3);
            }
        }
        let mut times: Vec<_> = times.into_iter().map(|(name, (n, s))| (name, n, s)).collect();
        times.sort_by(|a, b| b.2.total_cmp(&a.2));
        Ok(times)
    }
}
