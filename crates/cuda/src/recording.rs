//! Rounds that look alike are recorded the second time, and replayed from then on.

use std::collections::HashMap;

use crate::{
    device::{Device, Graph, Mark, Times},
    options::CudaError,
};

/// Rounds of up to so many rows are recorded: longer ones keep the card busy between launches.
const RECORDED_ROWS: usize = 16;

/// What decides which launches a round has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Key {
    /// Rows of the round.
    pub rows: usize,
    /// Rows that give logits.
    pub wanted: usize,
    /// Room for the scores of a row's index rows; 0 if no row has to choose.
    pub capacity: usize,
}

/// Rounds seen before, and, from the second time on, their recordings.
#[derive(Default)]
pub struct Recordings(HashMap<Key, Option<Recording>>);

/// A round's launches, and the marks between them while they are timed.
struct Recording {
    graph: Graph,
    marks: Vec<Mark>,
}

impl Recordings {
    /// Forgets all of them: what they name has moved, or is to be marked for times.
    pub fn clear(&mut self) {
        self.0.clear();
    }

    /// Runs a round to its end: what `enqueue` puts on the stream, or what it did put there when it was
    /// recorded. Gives the times of its launches, if they are wanted.
    pub fn run(
        &mut self,
        device: &Device,
        key: Key,
        mut enqueue: impl FnMut() -> Result<(), CudaError>,
    ) -> Result<Times, CudaError> {
        let mut once = || {
            enqueue()?;
            device.finish()?;
            device.times(&device.take_marks())
        };
        match self.0.get(&key) {
            _ if key.rows > RECORDED_ROWS => once(),
            // The first time nothing is recorded: it is then that the driver loads the kernels.
            None => {
                let times = once()?;
                self.0.insert(key, None);
                Ok(times)
            }
            Some(None) => {
                let graph = device.record(enqueue)?;
                let recording = Recording { graph, marks: device.take_marks() };
                let times = recording.run(device)?;
                self.0.insert(key, Some(recording));
                Ok(times)
            }
            Some(Some(recording)) => recording.run(device),
        }
    }
}

impl Recording {
    fn run(&self, device: &Device) -> Result<Times, CudaError> {
        device.replay(&self.graph)?;
        device.finish()?;
        device.times(&self.marks)
    }
}
