//! Measuring models. Everything here uses an engine through its sessions, as any other program does.
//!
//! [`mod@bench`] says how fast a model runs, and how far that is from what the machine could do.
//!
//! [`mod@eval`] says how good it is.
//!
//! The crate prints nothing: results are values, or strings that the caller puts where it likes.

pub mod bench;
mod error;
pub mod eval;
mod machine;
mod statistics;

pub use error::LabError;
pub use machine::Machine;
pub use statistics::{Summary, percentile};
