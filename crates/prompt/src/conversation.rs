//! A conversation as HTTP requests describe one: tools, answer format and effort belong to the
//! request, not to a message. The reference encoder and the hosted API lay such a conversation out
//! differently.

use std::borrow::Cow;

use crate::{
    dsml::{self, OddArguments},
    encode::{self, Options, RESPONSE_FORMAT},
    error::EncodeError,
    message::{Message, Role},
    profile::{Effort, Mode, Profile},
    prompt::Prompt,
    pyjson::Value,
};

/// Whether the model may call a tool.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ToolChoice {
    /// If it wants to.
    Auto,
    /// It must: the prompt ends inside a block of calls.
    Required,
}

/// The shape that the answer must have.
#[derive(Debug, Clone, PartialEq)]
pub enum AnswerFormat {
    /// Any text.
    Text,
    /// Some JSON object.
    JsonObject,
    /// JSON of this schema.
    Schema(Value),
}

/// Messages with what a request says about all of them.
#[derive(Debug, Clone, PartialEq)]
pub struct Conversation {
    /// The messages.
    pub messages: Vec<Message>,
    /// The tools on offer, as [`Message::tools`] holds them.
    pub tools: Vec<Value>,
    /// Whether one must be called.
    pub tool_choice: ToolChoice,
    /// The shape of the answer.
    pub answer_format: AnswerFormat,
    /// Whether the model reasons.
    pub mode: Mode,
    /// How hard.
    pub effort: Option<Effort>,
}

impl Conversation {
    /// Messages without tools or other demands.
    pub fn new(messages: Vec<Message>, mode: Mode) -> Conversation {
        Conversation {
            messages,
            tools: Vec::new(),
            tool_choice: ToolChoice::Auto,
            answer_format: AnswerFormat::Text,
            mode,
            effort: None,
        }
    }

    /// Renders the conversation, ready for the model to go on.
    ///
    /// `Preview` and `Official` give tools and format to the first system message and leave the
    /// rest to [`crate::encode`]. `Hosted` does what DeepSeek's API does:
    /// - system text from anywhere moves to the head, joined by blank lines, tools and format
    ///   behind it;
    /// - calls and results are in the order of the call ids, as text;
    /// - reasoning of past turns is kept if there are tools, and never otherwise, not even behind
    ///   the last user message;
    /// - every assistant message has its own opener, a reminder comes before the next one, and
    ///   after a closed last answer another is opened.
    pub fn render(&self, profile: Profile) -> Result<Prompt, EncodeError> {
        let mut prompt = match profile {
            Profile::Preview | Profile::Official => self.render_in_place(profile)?,
            Profile::Hosted => self.render_hosted()?,
        };
        if self.must_call() {
            prompt.push_structure(dsml::CALLS_OPENER);
        }
        Ok(prompt)
    }

    fn must_call(&self) -> bool {
        self.tool_choice == ToolChoice::Required && !self.tools.is_empty()
    }

    fn render_in_place(&self, profile: Profile) -> Result<Prompt, EncodeError> {
        let mut options = Options::new(profile, self.mode);
        options.effort = self.effort;
        options.odd_arguments = OddArguments::AsText;
        if self.tools.is_empty() && self.answer_format == AnswerFormat::Text {
            return encode::encode(&self.messages, &options);
        }
        let mut messages = self.messages.clone();
        let at =
            messages.iter().position(|message| message.role == Role::System).unwrap_or_else(|| {
                messages.insert(0, Message::system(""));
                0
            });
        if let Some(system) = messages.get_mut(at) {
            system.tools.extend(self.tools.iter().cloned());
            match &self.answer_format {
                AnswerFormat::Text => {}
                AnswerFormat::Schema(schema) => system.response_format = Some(schema.clone()),
                AnswerFormat::JsonObject => {
                    let kind = [("type", Value::from("json_object"))];
                    system.response_format = Some(Value::Object(kind.into_iter().collect()));
                }
            }
        }
        encode::encode(&messages, &options)
    }

    fn render_hosted(&self) -> Result<Prompt, EncodeError> {
        let mut prompt = Prompt::new();
        prompt.push_structure("<｜begin▁of▁sentence｜>");
        if self.mode == Mode::Thinking {
            prompt.push_structure(Profile::Hosted.preamble(self.effort)?);
        }
        self.push_head(&mut prompt);
        let turns = hosted_turns(&self.messages);
        let mut before = None;
        for (place, turn) in turns.iter().enumerate() {
            match &turn.message.role {
                Role::User => {
                    // A user's text joins the turn that the tool results before it have opened.
                    prompt.push_structure(if before == Some(&Role::Tool) {
                        "\n\n"
                    } else {
                        "<｜User｜>"
                    });
                    prompt.push_text(&turn.text);
                }
                Role::Tool => {
                    prompt.push_structure(if before == Some(&Role::Tool) {
                        "\n\n"
                    } else {
                        "<｜User｜>"
                    });
                    encode::push_result(&mut prompt, &turn.text);
                }
                Role::LatestReminder => {
                    prompt.push_structure("<｜latest_reminder｜>");
                    prompt.push_text(&turn.text);
                }
                Role::Assistant => {
                    let is_last = place + 1 == turns.len();
                    self.push_hosted_answer(&mut prompt, turn, is_last)?;
                }
                role @ (Role::System | Role::Developer | Role::Other(_)) => {
                    let role = role.name().to_owned();
                    return Err(EncodeError::Role { message: turn.index, role });
                }
            }
            before = Some(&turn.message.role);
        }
        let ends_open =
            |last: &HostedTurn<'_>| last.message.role == Role::Assistant && last.message.open;
        if !turns.last().is_some_and(ends_open) {
            prompt.push_structure("<｜Assistant｜>");
            prompt.push_structure(if self.mode == Mode::Thinking { "<think>" } else { "</think>" });
        }
        Ok(prompt)
    }

    /// All system text, then tools, then the answer format.
    fn push_head(&self, prompt: &mut Prompt) {
        let systems = self.messages.iter().filter(|message| message.role == Role::System);
        let texts: Vec<&str> = systems
            .map(|message| message.content.as_str())
            .filter(|text| !text.is_empty())
            .collect();
        prompt.push_text(&texts.join("\n\n"));
        if !self.tools.is_empty() {
            prompt.push_text("\n\n");
            dsml::push_tools_section(prompt, &self.tools, Profile::Hosted);
        }
        match &self.answer_format {
            AnswerFormat::Text => {}
            AnswerFormat::JsonObject => prompt.push_text(HOSTED_JSON_OBJECT),
            AnswerFormat::Schema(schema) => {
                prompt.push_text("\n\n");
                prompt.push_text(RESPONSE_FORMAT);
                prompt.push_text(&schema.to_json(Profile::Hosted.dialect()));
            }
        }
    }

    fn push_hosted_answer(
        &self,
        prompt: &mut Prompt,
        turn: &HostedTurn<'_>,
        is_last: bool,
    ) -> Result<(), EncodeError> {
        let message = turn.message;
        let open = message.open && is_last;
        let thinking = self.mode == Mode::Thinking;
        prompt.push_structure("<｜Assistant｜>");
        if let Some(sampled) = &message.sampled {
            prompt.push_structure(if sampled.thinking { "<think>" } else { "</think>" });
            prompt.push_prompt(&sampled.text);
        } else {
            if thinking && (message.open || !self.tools.is_empty()) {
                prompt.push_structure("<think>");
                prompt.push_text(&message.reasoning);
            }
            if !(thinking && message.open && message.content.is_empty()) {
                prompt.push_structure("</think>");
            }
            prompt.push_text(&message.content);
            if !message.tool_calls.is_empty() {
                let mut calls: Vec<_> = message.tool_calls.iter().collect();
                calls.sort_by(|a, b| a.id.cmp(&b.id));
                dsml::push_tool_calls(
                    prompt,
                    &calls,
                    Profile::Hosted,
                    OddArguments::AsText,
                    turn.index,
                )?;
            }
        }
        if !open {
            prompt.push_structure("<｜end▁of▁sentence｜>");
        }
        Ok(())
    }
}

/// A message of a hosted conversation, or several user messages in a row.
struct HostedTurn<'a> {
    index: usize,
    message: &'a Message,
    text: Cow<'a, str>,
}

/// The messages without system ones: adjacent user messages joined, and the results of each group
/// of calls in the order of their ids.
fn hosted_turns(messages: &[Message]) -> Vec<HostedTurn<'_>> {
    let mut turns: Vec<HostedTurn<'_>> = Vec::new();
    for (index, message) in messages.iter().enumerate() {
        match turns.last_mut() {
            _ if message.role == Role::System => {}
            Some(last) if message.role == Role::User && last.message.role == Role::User => {
                if !last.text.is_empty() && !message.content.is_empty() {
                    last.text.to_mut().push_str("\n\n");
                }
                last.text.to_mut().push_str(&message.content);
            }
            _ => turns.push(HostedTurn { index, message, text: message.content.as_str().into() }),
        }
    }
    for place in 0..turns.len() {
        let calls = match turns.get(place).map(|turn| turn.message) {
            Some(message) if message.role == Role::Assistant => message.tool_calls.len(),
            _ => continue,
        };
        if let Some(results) = turns.get_mut(place + 1..).and_then(|behind| behind.get_mut(..calls))
        {
            results.sort_by_key(|turn| {
                (turn.message.role != Role::Tool, turn.message.call_id.as_str())
            });
        }
    }
    turns
}

const HOSTED_JSON_OBJECT: &str = "\n\nYou are a helpful assistant designed to output JSON.\n## Response Format:\n\nReply with JSON object ONLY.";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pyjson::Dialect;

    fn with_tool() -> Conversation {
        let mut conversation = Conversation::new(vec![Message::user("q")], Mode::Chat);
        conversation.tools = vec![Value::parse(r#"{"name":"f"}"#, Dialect::Python).expect("valid")];
        conversation
    }

    #[test]
    fn tools_go_to_the_first_system_message_or_to_a_new_one() {
        let mut conversation = with_tool();
        let alone = conversation.render(Profile::Official).expect("renders").text;
        assert!(alone.starts_with("<｜begin▁of▁sentence｜>\n\n## Tools\n"), "{alone}");
        assert!(alone.ends_with("tool calls.\n<｜User｜>q<｜Assistant｜></think>"), "{alone}");
        conversation.messages.insert(0, Message::system("s"));
        conversation.answer_format = AnswerFormat::JsonObject;
        let behind = conversation.render(Profile::Official).expect("renders").text;
        assert!(behind.starts_with("<｜begin▁of▁sentence｜>s\n\n## Tools\n"), "{behind}");
        assert!(behind.contains("reply:\n{\"type\": \"json_object\"}<｜User｜>"), "{behind}");
    }

    #[test]
    fn a_required_call_is_begun_in_every_layout() {
        let mut conversation = with_tool();
        conversation.tool_choice = ToolChoice::Required;
        for profile in [Profile::Preview, Profile::Official, Profile::Hosted] {
            let prompt = conversation.render(profile).expect("renders");
            assert!(prompt.text.ends_with("</think>\n\n<｜DSML｜tool_calls>\n"), "{}", prompt.text);
            let last = prompt.specials.last().expect("has markers");
            assert_eq!(&prompt.text[last.clone()], "｜DSML｜");
        }
    }

    #[test]
    fn the_layouts_differ_where_they_are_said_to() {
        let mut answer = Message::assistant("a");
        answer.reasoning = "r".to_owned();
        let messages = vec![Message::user("q"), answer, Message::system("late")];
        let conversation = Conversation::new(messages, Mode::Thinking);
        let render = |profile| conversation.render(profile).expect("renders").text;
        assert_eq!(
            render(Profile::Official),
            "<｜begin▁of▁sentence｜><｜User｜>q<｜Assistant｜><think>r</think>a<｜end▁of▁sentence｜>late"
        );
        let hosted = render(Profile::Hosted);
        let end =
            "late<｜User｜>q<｜Assistant｜></think>a<｜end▁of▁sentence｜><｜Assistant｜><think>";
        assert!(hosted.ends_with(end), "{hosted}");
    }
}
