//! Vector files: one JSON object a line, with the input of one operation of this crate and what is
//! expected of it. The tests of this crate run the ones in the repository, `cargo xtask encoding`
//! any other.

use crate::{
    completion::parse_completion,
    encode::{Options, encode_after},
    message::Message,
    profile::{Effort, Mode, Profile},
    prompt::Prompt,
    pyjson::{Dialect, Value},
    request::conversation_from_request,
    stream::{Completion, Finish, Origin, Start, StreamParser, Tools},
    wire::messages_from_json,
};

/// One line of a vector file.
#[derive(Debug, Clone)]
pub struct Case {
    /// Its name.
    pub id: String,
    kind: String,
    args: Value,
    expect: Value,
}

/// How a case went.
#[derive(Debug, Clone)]
pub struct Verdict {
    /// The prompt, if the case renders one.
    pub prompt: Option<Prompt>,
    /// What is not as expected.
    pub difference: Option<String>,
}

impl Case {
    /// Reads a line.
    pub fn parse(line: &str) -> Result<Case, String> {
        let case = Value::parse(line, Dialect::Python).map_err(|error| error.to_string())?;
        let text = |key: &str| {
            case.get(key)
                .and_then(Value::as_str)
                .map(str::to_owned)
                .ok_or(format!("the case has no `{key}`"))
        };
        let value = |key: &str| case.get(key).cloned().ok_or(format!("the case has no `{key}`"));
        Ok(Case {
            id: text("id")?,
            kind: text("kind")?,
            args: value("args")?,
            expect: value("expect")?,
        })
    }

    /// The expected token ids called `name`, if the case has any.
    pub fn expected_ids(&self, name: &str) -> Option<Vec<u32>> {
        self.expect.get(name)?.as_array()?.iter().map(|id| number(id)?.try_into().ok()).collect()
    }

    /// Runs the case.
    pub fn run(&self) -> Verdict {
        let (prompt, difference) = match self.kind.as_str() {
            "encode" => self.compare_prompt(self.encode()),
            "api-encode" => self.compare_prompt(self.encode_request()),
            "parse" => (None, self.compare_parsed()),
            "api-parse" => (None, self.compare_streamed()),
            other => (None, Some(format!("unknown kind of case `{other}`"))),
        };
        Verdict { prompt, difference }
    }

    fn text(&self, key: &str) -> &str {
        self.args.get(key).and_then(Value::as_str).unwrap_or_default()
    }

    fn flag(&self, key: &str, default: bool) -> bool {
        self.args.get(key).and_then(Value::as_bool).unwrap_or(default)
    }

    fn encode(&self) -> Result<Prompt, String> {
        let mode = match self.text("thinking_mode") {
            "thinking" => Mode::Thinking,
            "chat" => Mode::Chat,
            other => return Err(format!("unknown thinking mode `{other}`")),
        };
        let profile = match self.text("effort_profile") {
            "" => Profile::Preview,
            name => Profile::from_name(name).ok_or_else(|| format!("unknown profile `{name}`"))?,
        };
        let mut options = Options::new(profile, mode);
        options.drop_reasoning = self.flag("drop_thinking", true);
        options.begin = self.flag("add_default_bos_token", true);
        options.effort = match self.args.get("reasoning_effort").and_then(Value::as_str) {
            None => None,
            Some(name) => {
                Some(Effort::from_name(name).ok_or_else(|| format!("unknown effort `{name}`"))?)
            }
        };
        let list = |value: Option<&Value>| match value {
            None | Some(Value::Null) => Ok(Vec::new()),
            Some(list) => messages_from_json(list).map_err(|error| error.to_string()),
        };
        let context: Vec<Message> = list(self.args.get("context"))?;
        let messages = match self.args.get("messages_json").and_then(Value::as_str) {
            None => list(self.args.get("messages"))?,
            Some(text) => list(Some(
                &Value::parse(text, Dialect::Python).map_err(|error| error.to_string())?,
            ))?,
        };
        encode_after(&context, &messages, &options).map_err(|error| error.to_string())
    }

    fn encode_request(&self) -> Result<Prompt, String> {
        // Written and read again, so that numbers are what the hosted reader makes of them.
        let body = self.args.to_json(Dialect::Python);
        let body = Value::parse(&body, Dialect::Hosted).map_err(|error| error.to_string())?;
        let conversation = conversation_from_request(&body).map_err(|error| error.to_string())?;
        conversation.render(Profile::Hosted).map_err(|error| error.to_string())
    }

    fn compare_prompt(&self, found: Result<Prompt, String>) -> (Option<Prompt>, Option<String>) {
        let expected = self.expect.get("prompt").and_then(Value::as_str);
        let prompt = match (found, expected) {
            (Err(_), None) => return (None, None),
            (Err(error), Some(_)) => return (None, Some(format!("refused: {error}"))),
            (Ok(prompt), None) => {
                return (Some(prompt), Some("should have been refused".to_owned()));
            }
            (Ok(prompt), Some(_)) => prompt,
        };
        let difference = first_difference("prompt", &prompt.text, expected.unwrap_or_default());
        let difference = difference.or_else(|| {
            let expected = self.expect.get("special_ranges")?.to_json(Dialect::Python);
            first_difference("special_ranges", &code_point_ranges(&prompt), &expected)
        });
        (Some(prompt), difference)
    }

    fn compare_parsed(&self) -> Option<String> {
        // As in the reference, whatever is not `thinking` is chat.
        let mode =
            if self.text("thinking_mode") == "thinking" { Mode::Thinking } else { Mode::Chat };
        let expected = self.expect.get("message");
        let message = match (parse_completion(self.text("text"), mode), expected) {
            (Err(_), None) => return None,
            (Err(error), Some(_)) => return Some(format!("refused: {error}")),
            (Ok(_), None) => return Some("should have been refused".to_owned()),
            (Ok(message), Some(_)) => message,
        };
        let arguments: Vec<String> =
            message.tool_calls.iter().map(|call| call.arguments.to_text()).collect();
        let calls = message.tool_calls.iter().zip(&arguments).map(|(call, arguments)| {
            let function = object([
                ("name", call.name.as_str().into()),
                ("arguments", arguments.as_str().into()),
            ]);
            object([("type", "function".into()), ("function", function)])
        });
        let found = object([
            ("role", "assistant".into()),
            ("content", message.content.as_str().into()),
            ("reasoning_content", message.reasoning.as_str().into()),
            ("tool_calls", Value::Array(calls.collect())),
        ]);
        let is_valid = |text: &String| Value::Bool(Value::parse(text, Dialect::Python).is_ok());
        let valid = Value::Array(arguments.iter().map(is_valid).collect());
        let found = object([("message", found), ("arguments_valid_json", valid)]);
        first_difference(
            "message",
            &found.to_json(Dialect::Python),
            &self.expect.to_json(Dialect::Python),
        )
    }

    fn compare_streamed(&self) -> Option<String> {
        let thinking = self.flag("thinking", false);
        let start = if thinking { Start::Reasoning } else { Start::Content };
        let tools = if self.flag("has_tools", false) { Tools::Offered } else { Tools::None };
        let text = self.text("text");
        let whole = Completion::read(text, start, tools);
        for size in [1, 2, 3, 7, 64] {
            if read_in_pieces(text, size, start, tools) != whole {
                return Some(format!("differs when read {size} characters at a time"));
            }
        }
        let calls = whole.tool_calls.iter().map(|call| {
            object([
                ("name", call.name.as_str().into()),
                ("arguments", call.arguments.as_str().into()),
            ])
        });
        let reasoning = if thinking { whole.reasoning.as_str().into() } else { Value::Null };
        let finish = match whole.finish {
            Finish::Stop => "stop",
            Finish::ToolCalls => "tool_calls",
        };
        let found = object([
            ("content", whole.content.as_str().into()),
            ("reasoning_content", reasoning),
            ("tool_calls", Value::Array(calls.collect())),
            ("finish_reason", finish.into()),
        ]);
        first_difference(
            "completion",
            &found.to_json(Dialect::Python),
            &self.expect.to_json(Dialect::Python),
        )
    }
}

fn read_in_pieces(text: &str, size: usize, start: Start, tools: Tools) -> Completion {
    let mut parser = StreamParser::new(start, tools);
    let mut completion = Completion::default();
    let mut rest = text;
    while !rest.is_empty() {
        let cut = rest.char_indices().nth(size).map_or(rest.len(), |(at, _)| at);
        let (piece, behind) = rest.split_at(cut);
        completion.extend(parser.feed(piece, Origin::Unknown));
        rest = behind;
    }
    completion.extend(parser.finish());
    completion
}

fn object<const N: usize>(members: [(&str, Value); N]) -> Value {
    Value::Object(members.into_iter().collect())
}

fn number(value: &Value) -> Option<u64> {
    match value {
        Value::Int(int) => int.digits().parse().ok(),
        _ => None,
    }
}

/// The ranges of the markers, counted in code points, as JSON.
fn code_point_ranges(prompt: &Prompt) -> String {
    let mut ranges = Vec::new();
    let mut seen = (0, 0);
    let mut count_to = |byte: usize| {
        let between = prompt.text.get(seen.0..byte).unwrap_or_default();
        seen = (byte, seen.1 + between.chars().count());
        seen.1
    };
    for range in &prompt.specials {
        ranges.push(format!("[{}, {}]", count_to(range.start), count_to(range.end)));
    }
    format!("[{}]", ranges.join(", "))
}

/// Where two texts part, with a little of what is around.
pub fn first_difference(what: &str, found: &str, expected: &str) -> Option<String> {
    if found == expected {
        return None;
    }
    let same = found.chars().zip(expected.chars()).take_while(|(a, b)| a == b).count();
    let around =
        |text: &str| -> String { text.chars().skip(same.saturating_sub(20)).take(60).collect() };
    Some(format!(
        "{what} differs at character {same}: found {:?}, expected {:?}",
        around(found),
        around(expected)
    ))
}
