//! What can go wrong in a measurement, each in one line.

use ds4_engine::EngineError;
use ds4_prompt::EncodeError;
use ds4_quant::QuantError;

/// Why nothing could be measured.
#[derive(Debug, thiserror::Error)]
pub enum LabError {
    /// A number that must not be zero.
    #[error("{0}: must be at least 1")]
    Zero(&'static str),
    /// Context lengths that do not grow, or none.
    #[error(
        "the context lengths to measure at must be one or more, each longer than the one before"
    )]
    Frontiers,
    /// A text that is shorter than the longest context.
    #[error("the prompt has {given} tokens, a context of {wanted} was to be measured")]
    ShortPrompt {
        /// Tokens there are.
        given: usize,
        /// Tokens needed.
        wanted: usize,
    },
    /// Rows of the cache that have no packed form.
    #[error("the model's cached rows cannot be packed: {0}")]
    Rows(#[from] QuantError),
    /// A line of a test set that makes no sense.
    #[error("test set {set}, line {line}: {problem}")]
    Item {
        /// The set.
        set: &'static str,
        /// Its line, from 1.
        line: usize,
        /// What is wrong.
        problem: String,
    },
    /// A conversation that cannot be rendered.
    #[error(transparent)]
    Encode(#[from] EncodeError),
    /// A prompt that the tokenizer lacks markers for.
    #[error(transparent)]
    Tokenizer(#[from] ds4_tokenizer::Error),
    /// The engine could not.
    #[error(transparent)]
    Engine(#[from] EngineError),
}
