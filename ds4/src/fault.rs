//! How a run can end badly: one line for a person, and an exit code.

use std::{error::Error, io, process::ExitCode};

/// Why a run ended.
#[derive(Debug, PartialEq, Eq)]
pub enum Fault {
    /// The command line makes no sense.
    Usage(String),
    /// It made sense, and could not be done.
    Failed(String),
    /// Whoever read our output has enough of it. That is a success.
    Closed,
}

impl Fault {
    pub fn usage(message: impl Into<String>) -> Fault {
        Fault::Usage(message.into())
    }

    pub fn failed(message: impl Into<String>) -> Fault {
        Fault::Failed(message.into())
    }

    /// The line for standard error, if there is one to say.
    pub fn message(&self) -> Option<String> {
        let (Fault::Usage(message) | Fault::Failed(message)) = self else { return None };
        // A file or a terminal may have put line feeds or escape sequences into it.
        Some(message.chars().map(|c| if c.is_control() { ' ' } else { c }).collect())
    }

    pub fn exit_code(&self) -> ExitCode {
        match self {
            Fault::Closed => ExitCode::SUCCESS,
            Fault::Failed(_) => ExitCode::from(1),
            Fault::Usage(_) => ExitCode::from(2),
        }
    }
}

/// Every error of the crates below says all there is to say in its own line.
impl<E: Error + 'static> From<E> for Fault {
    fn from(error: E) -> Fault {
        let any: &(dyn Error + 'static) = &error;
        match any.downcast_ref::<io::Error>() {
            Some(error) if error.kind() == io::ErrorKind::BrokenPipe => Fault::Closed,
            Some(error) => Fault::Failed(format!("standard output: {error}")),
            None => Fault::Failed(error.to_string()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_closed_pipe_is_no_failure() {
        let closed = Fault::from(io::Error::from(io::ErrorKind::BrokenPipe));
        assert_eq!(closed, Fault::Closed);
        assert_eq!(closed.message(), None);
        let full = Fault::from(io::Error::from(io::ErrorKind::StorageFull));
        assert!(full.message().is_some_and(|line| line.starts_with("standard output: ")));
    }

    #[test]
    fn a_message_is_one_line_without_escapes() {
        let fault = Fault::failed("bad\nfile\x1b[31m");
        assert_eq!(fault.message().as_deref(), Some("bad file [31m"));
    }
}
