//! What can be wrong with a model, in one line that names the file and the key or tensor.

use std::path::PathBuf;

/// Why a file could not be used as a model.
#[derive(Debug, thiserror::Error)]
pub enum ModelError {
    /// The container is damaged or missing.
    #[error(transparent)]
    Container(#[from] ds4_gguf::Error),
    /// A file could not be mapped.
    #[error(transparent)]
    Host(#[from] ds4_host::HostError),
    /// `config.json` is not JSON.
    #[error("{}: not valid JSON: {reason}", path.display())]
    Json {
        /// The file.
        path: PathBuf,
        /// What the parser said.
        reason: String,
    },
    /// A value that is missing or that no DeepSeek V4 model can have.
    #[error("{}: key `{key}`: {reason}", path.display())]
    Key {
        /// The file.
        path: PathBuf,
        /// The key.
        key: String,
        /// What is wrong.
        reason: String,
    },
    /// A tensor that is missing, has another shape, or a format that cannot be used there.
    #[error("{}: tensor `{tensor}`: {reason}", path.display())]
    Tensor {
        /// The file or directory.
        path: PathBuf,
        /// The tensor.
        tensor: String,
        /// What is wrong.
        reason: String,
    },
}
