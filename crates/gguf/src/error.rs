//! What can be wrong with a container: one line that names the file and the place in it.

use std::{
    fmt::Display,
    io,
    path::{Path, PathBuf},
};

use ds4_host::HostError;

/// Why a container could not be opened, read or written.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file could not be mapped.
    #[error(transparent)]
    Host(#[from] HostError),
    /// Writing failed.
    #[error("{}: {source}", path.display())]
    Write {
        /// What was being written.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
    /// The file is not what it claims to be, or is damaged.
    #[error("{}: at byte {offset}: {reason}", path.display())]
    Format {
        /// The file.
        path: PathBuf,
        /// Where in it.
        offset: u64,
        /// What is wrong there.
        reason: String,
    },
    /// A metadata key is missing or does not hold what is needed.
    #[error("{}: key `{key}`: {reason}", path.display())]
    Key {
        /// The file.
        path: PathBuf,
        /// The key, fit for a terminal.
        key: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A tensor is missing or its description is wrong.
    #[error("{}: tensor `{tensor}`: {reason}", path.display())]
    Tensor {
        /// The file.
        path: PathBuf,
        /// The tensor's name, fit for a terminal.
        tensor: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The files of a model that comes in several do not make a whole.
    #[error("{}: {reason}", path.display())]
    Parts {
        /// The file or folder that was asked for.
        path: PathBuf,
        /// What does not fit.
        reason: String,
    },
}

impl Error {
    pub(crate) fn format(path: &Path, offset: u64, reason: impl Into<String>) -> Error {
        Error::Format { path: path.to_owned(), offset, reason: reason.into() }
    }

    pub(crate) fn key(path: &Path, key: &str, reason: impl Into<String>) -> Error {
        Error::Key { path: path.to_owned(), key: shown(key), reason: reason.into() }
    }

    pub(crate) fn tensor(path: &Path, tensor: &str, reason: impl Into<String>) -> Error {
        Error::Tensor { path: path.to_owned(), tensor: shown(tensor), reason: reason.into() }
    }

    pub(crate) fn parts(path: &Path, reason: impl Into<String>) -> Error {
        Error::Parts { path: path.to_owned(), reason: reason.into() }
    }

    pub(crate) fn write(path: &Path, source: io::Error) -> Error {
        Error::Write { path: path.to_owned(), source }
    }
}

/// Text from a file, made fit for one line of a terminal: a name may be a megabyte long or hold
/// escape sequences. For the messages of everyone who reads a model's files.
pub fn shown(text: impl Display) -> String {
    const LONGEST: usize = 120;
    let text = text.to_string();
    let mut line: String = text.chars().take(LONGEST).flat_map(show_char).collect();
    if text.chars().nth(LONGEST).is_some() {
        line.push('…');
    }
    line
}

fn show_char(c: char) -> impl Iterator<Item = char> {
    let (escaped, plain) =
        if c.is_control() { (Some(c.escape_default()), None) } else { (None, Some(c)) };
    escaped.into_iter().flatten().chain(plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hostile_names_stay_on_one_line() {
        assert_eq!(shown("blk.0.ffn▁"), "blk.0.ffn▁");
        assert_eq!(shown("a\nb\x1b[2J"), "a\\nb\\u{1b}[2J");
        assert_eq!(shown("x".repeat(1 << 20)).chars().count(), 121);
    }
}
