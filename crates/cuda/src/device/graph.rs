//! A sequence of launches, recorded once and replayed with one call.

use std::{ptr, sync::Arc};

use cudarc::driver::{result, sys};

use super::{Context, Device, driver};
use crate::options::CudaError;

/// A recorded sequence.
pub struct Graph {
    context: Arc<Context>,
    graph: sys::CUgraph,
    /// Null until it can be run.
    ready: sys::CUgraphExec,
}

// SAFETY: the handles may be used from any thread that has made the context current.
unsafe impl Send for Graph {}

impl Device {
    /// Records what `enqueue` puts on the stream, without running it.
    pub fn record(
        &self,
        enqueue: impl FnOnce() -> Result<(), CudaError>,
    ) -> Result<Graph, CudaError> {
        let mode = sys::CUstreamCaptureMode_enum::CU_STREAM_CAPTURE_MODE_THREAD_LOCAL;
        // SAFETY: the stream is alive and nothing is being recorded on it.
        unsafe { result::stream::begin_capture(self.stream, mode) }
            .map_err(driver("recording a graph"))?;
        let enqueued = enqueue();
        // SAFETY: the recording was begun above, and must be ended whatever came of it.
        let graph = unsafe { result::stream::end_capture(self.stream) };
        let ready = ptr::null_mut();
        let graph = graph.map(|graph| Graph { context: Arc::clone(&self.context), graph, ready });
        enqueued?;
        let mut graph = graph.map_err(driver("recording a graph"))?;
        // SAFETY: the graph is complete.
        unsafe { sys::cuGraphInstantiateWithFlags(&mut graph.ready, graph.graph, 0) }
            .result()
            .map_err(driver("preparing a graph"))?;
        Ok(graph)
    }

    /// Starts a recorded sequence.
    pub fn replay(&self, graph: &Graph) -> Result<(), CudaError> {
        // SAFETY: graph and stream belong to this context; what the graph's kernels use is kept alive
        // by whoever keeps the graph.
        unsafe { result::graph::launch(graph.ready, self.stream) }
            .map_err(driver("running a graph"))
    }
}

impl Drop for Graph {
    fn drop(&mut self) {
        // SAFETY: the handles were made by `record`, as far as they are not null, and are not used after
        // this.
        let _ = self.context.bind().map(|()| unsafe {
            if !self.ready.is_null() {
                let _ = result::graph::exec_destroy(self.ready);
            }
            if !self.graph.is_null() {
                let _ = result::graph::destroy(self.graph);
            }
        });
    }
}
