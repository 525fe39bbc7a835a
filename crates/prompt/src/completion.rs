//! The strict reading of a completion: only what the reference encoder itself could have written
//! passes.
//!
//! For checking, and for training data; what a model really says goes through [`crate::stream`].

use std::collections::HashSet;

use crate::{
    error::ParseError,
    message::{Message, ToolCall},
    profile::Mode,
    prompt::{BOS, DSML, END_THINK, EOS, THINK},
    pyjson::push_escaped,
};

const CALLS: &str = "\n\n<｜DSML｜tool_calls";
const END_CALLS: &str = "</｜DSML｜tool_calls>";
const INVOKE: &str = "<｜DSML｜invoke";
const END_INVOKE: &str = "</｜DSML｜invoke";
const PARAMETER: &str = "<｜DSML｜parameter";
const END_PARAMETER: &str = "/｜DSML｜parameter";

/// Reads a whole completion, with its closing end of sentence, into an assistant message.
///
/// The arguments of a call are put together from its parameters; a parameter that is not a string
/// is taken over unread, so they need not be JSON. As in the reference, a completion that stops
/// right behind a tag of its tool calls, or has no end of sentence behind them, still passes.
pub fn parse_completion(text: &str, mode: Mode) -> Result<Message, ParseError> {
    let mut reader = Reader { rest: text };
    let mut message = Message::assistant("");
    if mode == Mode::Thinking {
        let (reasoning, stop) = reader.until(&[END_THINK, CALLS]);
        if stop != Some(END_THINK) {
            return Err(ParseError::new("missing </think>", ""));
        }
        message.reasoning = reasoning.to_owned();
    }
    let (content, stop) = reader.until(&[EOS, CALLS]);
    message.content = content.to_owned();
    match stop {
        Some(CALLS) => {
            message.tool_calls = reader.tool_calls()?;
            let (behind, _) = reader.until(&[EOS]);
            if !behind.is_empty() {
                return Err(ParseError::new("text behind the tool calls", behind));
            }
        }
        Some(_) => {}
        None => return Err(ParseError::new("missing end of sentence", "")),
    }
    if !reader.rest.is_empty() {
        return Err(ParseError::new("text behind the end of sentence", reader.rest));
    }
    for marker in [BOS, EOS, THINK, END_THINK, DSML] {
        if message.content.contains(marker) || message.reasoning.contains(marker) {
            return Err(ParseError::new("a control token inside the text", marker));
        }
    }
    Ok(message)
}

struct Reader<'a> {
    rest: &'a str,
}

impl<'a> Reader<'a> {
    /// Reads past the first of `stops`: the text before it, and which one it was. Without any,
    /// reads all.
    fn until(&mut self, stops: &[&'static str]) -> (&'a str, Option<&'static str>) {
        let found = stops.iter().filter_map(|&stop| self.rest.find(stop).map(|at| (at, stop)));
        match found.min_by_key(|&(at, _)| at) {
            Some((at, stop)) => {
                let (before, from) = self.rest.split_at(at);
                self.rest = from.strip_prefix(stop).unwrap_or("");
                (before, Some(stop))
            }
            None => (std::mem::take(&mut self.rest), None),
        }
    }

    fn tool_calls(&mut self) -> Result<Vec<ToolCall>, ParseError> {
        let mut calls = Vec::new();
        while !self.rest.is_empty() {
            let (between, stop) = self.until(&[INVOKE, END_CALLS]);
            if between != ">\n" {
                return Err(ParseError::new("expected a tag on a line of its own", between));
            }
            match stop {
                Some(INVOKE) => calls.push(self.invoke()?),
                Some(_) => break,
                None => return Err(ParseError::new("unfinished tool calls", "")),
            }
        }
        Ok(calls)
    }

    fn invoke(&mut self) -> Result<ToolCall, ParseError> {
        let (head, mut stop) = self.until(&[PARAMETER, END_INVOKE]);
        let name =
            invoke_name(head).ok_or_else(|| ParseError::new("malformed invoke tag", head))?;
        let mut seen = HashSet::new();
        let mut arguments = String::from("{");
        while stop == Some(PARAMETER) {
            let (text, _) = self.until(&[END_PARAMETER]);
            let (key, is_string, value) =
                parameter(text).ok_or_else(|| ParseError::new("malformed parameter", text))?;
            if !seen.insert(key) {
                return Err(ParseError::new("parameter given twice", key));
            }
            push_argument(&mut arguments, key, is_string, value, seen.len() == 1);
            let between;
            (between, stop) = self.until(&[PARAMETER, END_INVOKE]);
            if between != ">\n" {
                return Err(ParseError::new("expected a tag on a line of its own", between));
            }
        }
        arguments.push('}');
        Ok(ToolCall::new("", name, &arguments))
    }
}

fn push_argument(arguments: &mut String, key: &str, is_string: bool, value: &str, is_first: bool) {
    arguments.push_str(if is_first { "\"" } else { ", \"" });
    push_escaped(key, arguments);
    arguments.push_str("\": ");
    if is_string {
        arguments.push('"');
        push_escaped(value, arguments);
        arguments.push('"');
    } else {
        arguments.push_str(value);
    }
}

/// The name in ` name="NAME">⏎`, with any white space in front and perhaps one blank line behind.
fn invoke_name(head: &str) -> Option<&str> {
    // Python's `\s` has four separators that Rust's white space has not.
    let is_space =
        |character: char| character.is_whitespace() || ('\x1c'..='\x1f').contains(&character);
    let name = head.trim_start_matches(is_space).strip_prefix("name=\"")?;
    without_spare_newline(name, "\">\n")
}

/// Key, whether the value is a string, and value in ` name="KEY" string="true|false">VALUE<`.
fn parameter(text: &str) -> Option<(&str, bool, &str)> {
    let text = text.strip_prefix(" name=\"")?;
    let splits = [("\" string=\"true\">", true), ("\" string=\"false\">", false)];
    let found = splits.iter().filter_map(|&(split, is_string)| {
        let (key, value) = text.split_once(split)?;
        Some((key, is_string, value))
    });
    let (key, is_string, value) = found.min_by_key(|(key, ..)| key.len())?;
    Some((key, is_string, without_spare_newline(value, "<")?))
}

/// `text` without `end`. A pattern's `$` also matches before a final newline, and the reference
/// uses patterns.
fn without_spare_newline<'a>(text: &'a str, end: &str) -> Option<&'a str> {
    text.strip_suffix(end).or_else(|| text.strip_suffix('\n')?.strip_suffix(end))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{
        encode::{Options, encode},
        profile::Profile,
        pyjson::{Dialect, Value},
    };

    /// Text that the encoding can carry inside reasoning, content, names and values.
    fn carried() -> impl Strategy<Value = String> {
        let piece = prop_oneof![
            4 => any::<String>(),
            1 => prop::sample::select(vec!["\n\n", "<tool_result>", "</", "｜", "<｜User｜>", "&lt;", "\\n", "think>"])
                .prop_map(str::to_owned),
        ];
        prop::collection::vec(piece, 0..4)
            .prop_map(|pieces| pieces.concat())
            .prop_filter("a marker would end it", |text| {
                !text.contains(DSML) && !text.contains(THINK) && !text.contains(END_THINK)
            })
    }

    fn name() -> impl Strategy<Value = String> {
        // A quote and a bracket would look like the end of the tag.
        carried().prop_map(|text| text.replace("\">", ""))
    }

    fn value() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::Bool),
            any::<i64>().prop_map(|int| Value::Int(int.into())),
            (-1e30f64..1e30).prop_map(Value::Float),
            carried().prop_map(Value::String),
        ];
        leaf.prop_recursive(3, 12, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::Array),
                prop::collection::vec((carried(), inner), 0..4)
                    .prop_map(|members| Value::Object(members.into_iter().collect())),
            ]
        })
    }

    fn call() -> impl Strategy<Value = ToolCall> {
        let arguments = prop::collection::vec((name(), value()), 0..4);
        (name(), arguments).prop_map(|(name, arguments)| {
            let arguments = Value::Object(arguments.into_iter().collect());
            ToolCall::new("", &name, &arguments.to_json(Dialect::Python))
        })
    }

    proptest! {
        #[test]
        fn a_rendered_answer_reads_back(reasoning in carried(), content in carried(),
                                        calls in prop::collection::vec(call(), 0..3), thinking in any::<bool>()) {
            let mode = if thinking { Mode::Thinking } else { Mode::Chat };
            let mut answer = Message::assistant(content);
            answer.tool_calls = calls;
            if thinking {
                answer.reasoning = reasoning;
            }
            let messages = [Message::user("q"), answer];
            let options = Options::new(Profile::Official, mode);
            let opener = encode(&messages[..1], &options).expect("encodes");
            let whole = encode(&messages, &options).expect("encodes");
            let completion = whole.text.strip_prefix(&opener.text).expect("an answer only adds");
            prop_assert_eq!(&parse_completion(completion, mode), &Ok(messages[1].clone()));
        }

        #[test]
        fn any_text_is_answered_without_panic(text in any::<String>()) {
            let _ = parse_completion(&text, Mode::Chat);
            let _ = parse_completion(&(text + END_THINK), Mode::Thinking);
        }

        #[test]
        fn cut_and_mixed_markup_is_answered_without_panic(
            pieces in prop::collection::vec(prop::sample::select(vec![
                CALLS, END_CALLS, INVOKE, END_INVOKE, PARAMETER, END_PARAMETER, ">\n", " name=\"", "a", "\">\n",
                "\" string=\"true\">", "\" string=\"false\">", "<", EOS, END_THINK, "\n",
            ]), 0..16),
        ) {
            let _ = parse_completion(&pieces.concat(), Mode::Chat);
        }
    }
}
