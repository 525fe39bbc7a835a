//! Measuring models. Everything here uses an engine through its sessions, as any other program does.
//!
//! [`mod@bench`] says how fast a model runs, and how far that is from what the machine could do.
//!
//! The crate sees token ids, never text, and prints nothing: results are values, or strings that the
//! caller puts where it likes.

pub mod bench;
mod error;
mod machine;
mod statistics;

pub use error::LabError;
pub use machine::Machine;
pub use statistics::{Summary, percentile};
