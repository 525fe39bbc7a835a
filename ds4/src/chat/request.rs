//! What a line of a chat asks for.

use std::path::PathBuf;

use ds4_prompt::Thinking;

use super::thinking_from_name;

#[derive(Debug, PartialEq)]
pub enum Request {
    Say(String),
    Help,
    Think(Thinking),
    Context(usize),
    Read(PathBuf),
    Stats,
    Save(PathBuf),
    Load(PathBuf),
    Quit,
}

impl Request {
    /// `None` for an empty line; the error says what is wrong with a command.
    pub fn of(line: &str) -> Result<Option<Request>, String> {
        let line = line.trim();
        let Some(command) = line.strip_prefix('/') else {
            return Ok((!line.is_empty()).then(|| Request::Say(line.to_owned())));
        };
        let (name, rest) = command.split_once(char::is_whitespace).unwrap_or((command, ""));
        let rest = rest.trim();
        let path = || match rest {
            "" => Err(format!("/{name}: needs a file, as in `/{name} FILE`")),
            path => Ok(PathBuf::from(path)),
        };
        if let Some(thinking) = thinking_from_name(name) {
            return Ok(Some(Request::Think(thinking)));
        }
        Ok(Some(match name {
            "help" => Request::Help,
            "ctx" => match rest.parse() {
                Ok(context) if context > 0 => Request::Context(context),
                _ => return Err(format!("/ctx: `{rest}` is not a number of tokens")),
            },
            "read" => Request::Read(path()?),
            "stats" => Request::Stats,
            "save" => Request::Save(path()?),
            "load" => Request::Load(path()?),
            "quit" | "exit" => Request::Quit,
            _ => return Err(format!("/{name}: unknown; /help lists what there is")),
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flags::help::CHAT_COMMANDS;

    #[test]
    fn lines_mean_what_they_say() {
        for (line, request) in [
            ("", None),
            (" \t\r\n", None),
            (" hello \n", Some(Request::Say("hello".into()))),
            ("a /b", Some(Request::Say("a /b".into()))),
            ("/nothink", Some(Request::Think(Thinking::Off))),
            ("/think-max", Some(Request::Think(Thinking::Max))),
            ("/ctx 4096", Some(Request::Context(4096))),
            ("/read  two words.txt ", Some(Request::Read("two words.txt".into()))),
            ("/exit", Some(Request::Quit)),
        ] {
            assert_eq!(Request::of(line), Ok(request), "{line:?}");
        }
        for line in ["/", "/abc", "/ctx", "/ctx 0", "/ctx -1", "/ctx x", "/read", "/save", "/load "]
        {
            assert!(Request::of(line).is_err(), "{line:?}");
        }
    }

    #[test]
    fn everything_in_the_help_exists() {
        for (spelled, _) in CHAT_COMMANDS {
            for command in spelled.split(", ") {
                let line = command.replace(" N", " 1");
                assert!(matches!(Request::of(&line), Ok(Some(_))), "{line}");
            }
        }
    }
}
