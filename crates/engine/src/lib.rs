//! Two nouns, one verb: an [`Engine`] is a loaded model, a [`Session`] is one timeline of tokens with
//! its state, and [`Session::sync`] makes a session equal to a prefix, reusing what it can.
//!
//! Server, command line, agent and benchmarks use these and nothing below them. The engine never
//! sees text; what it asks of a backend is the [`Executor`] trait. A [`Sampler`] draws tokens from rows of
//! logits, or the same ones from a [`Shortlist`] of a row.

mod draw;
mod engine;
mod error;
mod executor;
mod plan;
mod ranking;
mod sampler;
mod saved;
mod session;
mod shape;
mod shortlist;
mod state;
mod together;

pub use engine::{DEFAULT_CHUNK, Engine, SessionOptions};
pub use error::EngineError;
pub use executor::{ExecError, Executor, Feed, Logits, ReadRate, SlotId, Stage, Want};
pub use plan::{DoesNotFit, MemoryPlan, Size, StateCost};
pub use ranking::{TokenLogprob, argmax, logprob, top_logprobs};
pub use sampler::{Sampler, SamplerError, SamplerOptions};
pub use saved::{SavedError, SavedSession};
pub use session::{Progress, Rewind, Session, Sync};
pub use shortlist::Shortlist;
pub use state::{LayerState, Pending, SlotState, first_needed};
