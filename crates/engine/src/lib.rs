//! Two nouns, one verb: an [`Engine`] is a loaded model, a [`Session`] is one timeline of tokens with
//! its state, and [`Session::sync`] makes a session equal to a prefix, reusing what it can.
//!
//! Server, command line, agent and benchmarks use these and nothing below them. The engine never
//! sees text; what it asks of a backend is the [`Executor`] trait.

mod executor;
mod plan;
mod state;

pub use executor::{ExecError, Executor, Feed, Logits, SlotId, Want};
pub use plan::StateCost;
pub use state::{LayerState, Pending, SlotState, first_needed};
