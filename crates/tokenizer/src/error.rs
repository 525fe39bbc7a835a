//! What can be wrong with a tokenizer: one line that names the file and the field.

use std::ops::Range;

/// Why a tokenizer could not be loaded, or a prompt not encoded.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The GGUF file lacks a key, or holds something else there.
    #[error(transparent)]
    Gguf(#[from] ds4_gguf::Error),
    /// A field of the file holds what makes no tokenizer, or not one that is implemented here.
    #[error("{file}: {field}: {reason}")]
    Field {
        /// The file.
        file: String,
        /// The key or field, with the index of the entry in question.
        field: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A byte range of a prompt was declared a marker and is none.
    #[error("prompt: bytes {}..{}: {reason}", range.start, range.end)]
    Prompt {
        /// The range.
        range: Range<usize>,
        /// Why it is no marker.
        reason: String,
    },
}

impl Error {
    pub(crate) fn field(file: &str, field: impl Into<String>, reason: impl Into<String>) -> Error {
        Error::Field { file: file.to_owned(), field: field.into(), reason: reason.into() }
    }
}
