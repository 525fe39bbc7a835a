//! How long each launch takes: marks on the stream between launches, also between those of a recording.

use std::sync::{Arc, Mutex};

use cudarc::driver::{result, sys};

use super::{Context, Device, Kernel, driver};
use crate::{options::CudaError, stages::Part};

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

/// The point behind a launch, or behind copies, and what part of a step that is.
pub struct Mark {
    kernel: Option<Kernel>,
    part: Part,
    event: Event,
}

/// What ran between two marks, and for how many seconds.
pub type Times = Vec<(Option<Kernel>, Part, f64)>;

/// The marks since they were last taken, while times are wanted.
#[derive(Default)]
pub struct Marks(Mutex<Option<Sheet>>);

#[derive(Default)]
struct Sheet {
    part: Part,
    marks: Vec<Mark>,
}

impl Device {
    /// Starts or stops marking launches, forgetting what was marked.
    pub fn time_kernels(&self, on: bool) {
        if let Ok(mut sheet) = self.marks.0.lock() {
            *sheet = on.then(Sheet::default);
        }
    }

    /// Says what part of a step is launched from here on.
    pub fn enter(&self, part: Part) {
        if let Ok(mut sheet) = self.marks.0.lock()
            && let Some(sheet) = sheet.as_mut()
        {
            sheet.part = part;
        }
    }

    /// Whether launches are marked.
    pub(super) fn is_timed(&self) -> bool {
        self.marks.0.lock().is_ok_and(|sheet| sheet.is_some())
    }

    /// The marks since the last call.
    pub fn take_marks(&self) -> Vec<Mark> {
        let Ok(mut sheet) = self.marks.0.lock() else { return Vec::new() };
        sheet.as_mut().map_or_else(Vec::new, |sheet| std::mem::take(&mut sheet.marks))
    }

    /// Marks the stream behind a launch, or behind something else, if times are wanted.
    pub fn mark(&self, kernel: Option<Kernel>) -> Result<(), CudaError> {
        let Ok(mut sheet) = self.marks.0.lock() else { return Ok(()) };
        let Some(sheet) = sheet.as_mut() else { return Ok(()) };
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
        let part = kernel.map_or(sheet.part, |kernel| sheet.part.of(kernel.name()));
        sheet.marks.push(Mark { kernel, part, event });
        Ok(())
    }

    /// What ran between these marks, in order. The stream must be done.
    pub fn times(&self, marks: &[Mark]) -> Result<Times, CudaError> {
        let between = |[before, after]: &[Mark; 2]| {
            // SAFETY: both events have been reached.
            let milliseconds =
                unsafe { result::event::elapsed(before.event.event, after.event.event) }
                    .map_err(driver("timing the kernels"))?;
            Ok((after.kernel, after.part, f64::from(milliseconds) / 1e3))
        };
        marks.array_windows().map(between).collect()
    }
}
