//! What can go wrong between a caller and a session, each in one line.

use crate::{ExecError, SavedError};

/// Why the engine could not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// An option of a session that must not be zero.
    #[error("the session's {0} must be at least 1")]
    ZeroOption(&'static str),
    /// More context than the model has positions for.
    #[error("a context of {asked} tokens was asked for, the model was made for {model}")]
    ContextTooLong {
        /// Tokens asked for.
        asked: usize,
        /// Positions of the model.
        model: usize,
    },
    /// More tokens than the session may hold.
    #[error("{wanted} tokens do not fit the session's context of {context}")]
    ContextFull {
        /// Tokens that the session would hold.
        wanted: usize,
        /// Its limit.
        context: usize,
    },
    /// A token id that the model does not have. Nothing was evaluated.
    #[error("token id {id} at position {position} is outside the vocabulary of {vocab}")]
    TokenOutOfRange {
        /// The id.
        id: u32,
        /// Where it would have been.
        position: usize,
        /// Ids are below this.
        vocab: usize,
    },
    /// A truncation that would make the session longer.
    #[error("the session has {len} tokens and cannot be truncated to {asked}")]
    TruncateBeyond {
        /// The length asked for.
        asked: usize,
        /// The length there is.
        len: usize,
    },
    /// Sessions that cannot share a batch. Nothing was evaluated.
    #[error("sessions of different engines cannot step together")]
    OtherEngine,
    /// The executor could not.
    #[error(transparent)]
    Executor(#[from] ExecError),
    /// The executor did something that its contract forbids: a bug, and the session may be wrong.
    #[error("the {backend} backend broke its contract: {what}")]
    Contract {
        /// Its name.
        backend: &'static str,
        /// What it did.
        what: String,
    },
    /// The executor panicked while it was in use, so what it holds can no longer be trusted.
    #[error("the {backend} backend failed earlier and lost its sessions; load the model again")]
    Lost {
        /// Its name.
        backend: &'static str,
    },
    /// A saved session that cannot be taken.
    #[error(transparent)]
    Saved(#[from] SavedError),
}
