//! A conversation in a file: one line of JSON that says what was said, then the session's state as the
//! engine exports it. Nothing in such a file is trusted.

use std::{
    ffi::OsString,
    fs::{self, File},
    io::{self, Write},
    path::Path,
};

use ds4_prompt::{Message, Profile, Prompt, Role, Sampled, Thinking};
use serde_json::{Value, json};

use super::{thinking_from_name, thinking_name};
use crate::fault::Fault;

const FORMAT: &str = "ds4 chat";
const VERSION: u64 = 1;

#[derive(Debug, PartialEq)]
pub struct Saved {
    pub system: String,
    pub thinking: Thinking,
    pub profile: Profile,
    pub seed: u64,
    pub turns: Vec<u32>,
    pub messages: Vec<Message>,
    pub state: Vec<u8>,
}

impl Saved {
    /// Writes beside the file first, so that a full disk does not cost an older save.
    pub fn write(&self, path: &Path) -> Result<(), Fault> {
        let mut partial = OsString::from(path);
        partial.push(".partial");
        let written = (|| -> io::Result<()> {
            let mut file = File::create(&partial)?;
            file.write_all(self.header().to_string().as_bytes())?;
            file.write_all(b"\n")?;
            file.write_all(&self.state)?;
            file.sync_all()?;
            fs::rename(&partial, path)
        })();
        written.map_err(|error| {
            // What is left of it is of no use; that it may not have been made is of no interest.
            let _ = fs::remove_file(&partial);
            Fault::failed(format!("{}: {error}", path.display()))
        })
    }

    pub fn read(path: &Path) -> Result<Saved, Fault> {
        let fault = |reason: String| Fault::failed(format!("{}: {reason}", path.display()));
        let bytes = fs::read(path).map_err(|error| fault(error.to_string()))?;
        Saved::parse(&bytes).map_err(fault)
    }

    fn parse(bytes: &[u8]) -> Result<Saved, String> {
        let not_one = || "not a saved chat".to_owned();
        let end = bytes.iter().position(|byte| *byte == b'\n').ok_or_else(not_one)?;
        let (header, state) = bytes.split_at(end);
        let header: Value = serde_json::from_slice(header).map_err(|_| not_one())?;
        if header.get("format").and_then(Value::as_str) != Some(FORMAT) {
            return Err(not_one());
        }
        match header.get("version").and_then(Value::as_u64) {
            Some(VERSION) => {}
            Some(other) => {
                return Err(format!("a chat of version {other}, only {VERSION} is known"));
            }
            None => return Err(not_one()),
        }
        let wrong = |field: &str| format!("a saved chat whose `{field}` makes no sense");
        let text =
            |field: &str| header.get(field).and_then(Value::as_str).ok_or_else(|| wrong(field));
        let list =
            |field: &str| header.get(field).and_then(Value::as_array).ok_or_else(|| wrong(field));
        let id = |value: &Value| value.as_u64().and_then(|id| u32::try_from(id).ok());
        let turns: Option<Vec<u32>> = list("turns")?.iter().map(id).collect();
        let messages: Option<Vec<Message>> = list("messages")?.iter().map(message).collect();
        let messages = messages.ok_or_else(|| wrong("messages"))?;
        // The next turn is put behind an answer.
        if messages.last().is_some_and(|last| last.sampled.is_none()) {
            return Err(wrong("messages"));
        }
        Ok(Saved {
            system: text("system")?.to_owned(),
            thinking: thinking_from_name(text("thinking")?).ok_or_else(|| wrong("thinking"))?,
            profile: Profile::from_name(text("profile")?).ok_or_else(|| wrong("profile"))?,
            seed: header.get("seed").and_then(Value::as_u64).ok_or_else(|| wrong("seed"))?,
            turns: turns.ok_or_else(|| wrong("turns"))?,
            messages,
            state: state.get(1..).unwrap_or_default().to_vec(),
        })
    }

    fn header(&self) -> Value {
        let messages: Vec<Value> = self.messages.iter().map(message_json).collect();
        json!({
            "format": FORMAT,
            "version": VERSION,
            "system": self.system,
            "thinking": thinking_name(self.thinking),
            "profile": self.profile.name(),
            "seed": self.seed,
            "messages": messages,
            "turns": self.turns,
        })
    }
}

fn message_json(message: &Message) -> Value {
    match &message.sampled {
        None => json!({"role": message.role.name(), "content": message.content}),
        Some(sampled) => json!({
            "role": message.role.name(),
            "content": sampled.text.text,
            "thinking": sampled.thinking,
        }),
    }
}

/// Tokens are what counts; of an answer's text, markers need not be told from what spells them.
fn message(value: &Value) -> Option<Message> {
    let content = value.get("content")?.as_str()?;
    match Role::from_name(value.get("role")?.as_str()?) {
        Role::User => Some(Message::user(content)),
        Role::Assistant => {
            let mut text = Prompt::new();
            text.push_text(content);
            let thinking = value.get("thinking")?.as_bool()?;
            let sampled = Some(Sampled { text, thinking, ended: false });
            Some(Message { sampled, ..Message::assistant("") })
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn saved() -> Saved {
        let answer = json!({"role": "assistant", "content": "hm</think>yes", "thinking": true});
        Saved {
            system: "be\nbrief".into(),
            thinking: Thinking::Max,
            profile: Profile::Preview,
            seed: u64::MAX,
            turns: vec![0, 7, u32::MAX],
            messages: vec![Message::user("well?\n"), message(&answer).unwrap()],
            state: b"state\nwith\0anything".to_vec(),
        }
    }

    fn bytes(saved: &Saved) -> Vec<u8> {
        [saved.header().to_string().as_bytes(), b"\n", &saved.state].concat()
    }

    #[test]
    fn what_is_saved_comes_back() {
        assert_eq!(Saved::parse(&bytes(&saved())), Ok(saved()));
    }

    #[test]
    fn what_is_no_chat_is_refused() {
        let line = saved().header().to_string();
        for (text, reason) in [
            (String::new(), "not a saved chat"),
            ("GGUF\n".into(), "not a saved chat"),
            ("{}\n".into(), "not a saved chat"),
            (line.replace("\"version\":1", "\"version\":2") + "\n", "version 2"),
            (line.replace("think-max", "hard") + "\n", "`thinking`"),
            (line.replace("preview", "x") + "\n", "`profile`"),
            (line.replace("[0,7,", "[-1,7,") + "\n", "`turns`"),
            (line.replace("[0,7,", "[4294967296,7,") + "\n", "`turns`"),
            (line.replace("\"assistant\"", "\"user\"") + "\n", "`messages`"),
            (line.replace("\"user\"", "\"tool\"") + "\n", "`messages`"),
        ] {
            let refused = Saved::parse(text.as_bytes()).unwrap_err();
            assert!(refused.contains(reason), "{refused} for {text}");
        }
        for end in 0..line.len() {
            assert!(Saved::parse(&line.as_bytes()[..end]).is_err());
        }
    }
}
