//! What can be wrong with a conversation, a request or a completion.

use crate::{profile::UnknownEffort, pyjson::JsonError};

/// Why a conversation cannot be rendered. `message` counts from 0 in the list that was given.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum EncodeError {
    /// A role that the encoding has no place for.
    #[error("message {message}: the role `{}` cannot be rendered", shown(role))]
    Role {
        /// The message.
        message: usize,
        /// Its role.
        role: String,
    },
    /// A developer message without text.
    #[error("message {message}: a developer message must have text")]
    EmptyDeveloper {
        /// The message.
        message: usize,
    },
    /// Tool arguments that are JSON, but no object.
    #[error(
        "message {message}: the arguments of the call of `{}` are not a JSON object",
        shown(tool)
    )]
    ArgumentsNotObject {
        /// The message.
        message: usize,
        /// The tool called.
        tool: String,
    },
    /// An effort that the profile does not have.
    #[error(transparent)]
    Effort(#[from] UnknownEffort),
    /// A turn is to be appended to a history that does not end in a sampled answer.
    #[error("the history must end with an answer of the model as it was sampled")]
    NoSampledAnswer,
}

/// Why JSON is not a list of messages or a request.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum RequestError {
    /// It is not JSON.
    #[error(transparent)]
    Json(#[from] JsonError),
    /// A field is missing, of the wrong type, or has a value that is not known.
    #[error("{}: {}", shown(path), shown(problem))]
    Field {
        /// Where, as in `messages[2].content`.
        path: String,
        /// What is wrong.
        problem: String,
    },
}

impl RequestError {
    pub(crate) fn field(path: impl Into<String>, problem: impl Into<String>) -> RequestError {
        RequestError::Field { path: path.into(), problem: problem.into() }
    }
}

/// Why a completion is not well-formed, with the text that shows it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("malformed completion: {problem}{}", quoted(found))]
pub struct ParseError {
    /// What is wrong.
    pub problem: &'static str,
    /// The text in question, shortened.
    pub found: String,
}

fn quoted(found: &str) -> String {
    if found.is_empty() { String::new() } else { format!(", found {found:?}") }
}

impl ParseError {
    pub(crate) fn new(problem: &'static str, found: &str) -> ParseError {
        ParseError { problem, found: found.chars().take(60).collect() }
    }
}

/// Text from a client, made fit for one line: a role or a name may be a megabyte long or hold line
/// feeds.
fn shown(text: &str) -> String {
    const LONGEST: usize = 160;
    let mut line = String::new();
    for character in text.chars().take(LONGEST) {
        if character.is_control() {
            line.extend(character.escape_default());
        } else {
            line.push(character);
        }
    }
    if text.chars().nth(LONGEST).is_some() {
        line.push('…');
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hostile_names_stay_on_one_line() {
        let role = "a\nb\u{9b}2J".to_owned();
        let error = EncodeError::Role { message: 3, role };
        assert_eq!(error.to_string(), r"message 3: the role `a\nb\u{9b}2J` cannot be rendered");
        let long = RequestError::field("x".repeat(1 << 20), "y\0".repeat(1 << 20));
        assert!(long.to_string().len() < 1000);
    }
}
