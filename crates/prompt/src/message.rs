//! The parts of a conversation, as every dialect and tool of this project hands them to the
//! encoder.

use crate::{
    prompt::Prompt,
    pyjson::{Dialect, Value},
};

/// Who speaks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Role {
    /// Instructions; bare text, usually first.
    System,
    /// A user turn of DeepSeek's own search agents; not OpenAI's synonym for system.
    Developer,
    /// The person.
    User,
    /// The model.
    Assistant,
    /// The result of a tool call.
    Tool,
    /// Facts of the moment (date, place, language) that outrank older ones.
    LatestReminder,
    /// A role that the encoding has no place for, by its name.
    Other(String),
}

impl Role {
    /// The role that wire formats call `name`.
    pub fn from_name(name: &str) -> Role {
        match name {
            "system" => Role::System,
            "developer" => Role::Developer,
            "user" => Role::User,
            "assistant" => Role::Assistant,
            "tool" => Role::Tool,
            "latest_reminder" => Role::LatestReminder,
            other => Role::Other(other.to_owned()),
        }
    }

    /// The name that wire formats use.
    pub fn name(&self) -> &str {
        match self {
            Role::System => "system",
            Role::Developer => "developer",
            Role::User => "user",
            Role::Assistant => "assistant",
            Role::Tool => "tool",
            Role::LatestReminder => "latest_reminder",
            Role::Other(name) => name,
        }
    }
}

/// The small classification jobs that a message can be marked for, each with its own control token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names say all that is known")]
pub enum Task {
    Action,
    Query,
    Authority,
    Domain,
    Title,
    ReadUrl,
}

impl Task {
    /// The task that wire formats call `name`.
    pub fn from_name(name: &str) -> Option<Task> {
        Some(match name {
            "action" => Task::Action,
            "query" => Task::Query,
            "authority" => Task::Authority,
            "domain" => Task::Domain,
            "title" => Task::Title,
            "read_url" => Task::ReadUrl,
            _ => return None,
        })
    }

    /// The control token that asks for it.
    pub(crate) fn marker(self) -> &'static str {
        match self {
            Task::Action => "<｜action｜>",
            Task::Query => "<｜query｜>",
            Task::Authority => "<｜authority｜>",
            Task::Domain => "<｜domain｜>",
            Task::Title => "<｜title｜>",
            Task::ReadUrl => "<｜read_url｜>",
        }
    }
}

/// One message. The fields that its role has no use for stay empty and are not rendered.
#[derive(Debug, Clone, PartialEq)]
pub struct Message {
    /// Who speaks.
    pub role: Role,
    /// The text; for an assistant, without reasoning and tool calls. See [`join_parts`].
    pub content: String,
    /// An assistant's reasoning.
    pub reasoning: String,
    /// An assistant's tool calls.
    pub tool_calls: Vec<ToolCall>,
    /// For a tool: the call that this is the result of.
    pub call_id: String,
    /// Schemas of the tools that this message offers: one JSON object each, without any envelope.
    pub tools: Vec<Value>,
    /// The shape that answers must have, rendered as JSON.
    pub response_format: Option<Value>,
    /// What the next assistant message is asked for instead of an answer.
    pub task: Option<Task>,
    /// For the last assistant message: leave it open, so that the model continues it.
    pub open: bool,
    /// For an assistant: what the model sampled, to be rendered instead of all of the above.
    pub sampled: Option<Sampled>,
}

impl Message {
    /// A message with text and nothing else.
    pub fn new(role: Role, content: impl Into<String>) -> Message {
        Message {
            role,
            content: content.into(),
            reasoning: String::new(),
            tool_calls: Vec::new(),
            call_id: String::new(),
            tools: Vec::new(),
            response_format: None,
            task: None,
            open: false,
            sampled: None,
        }
    }

    /// Instructions.
    pub fn system(content: impl Into<String>) -> Message {
        Message::new(Role::System, content)
    }

    /// What the person says.
    pub fn user(content: impl Into<String>) -> Message {
        Message::new(Role::User, content)
    }

    /// A plain answer.
    pub fn assistant(content: impl Into<String>) -> Message {
        Message::new(Role::Assistant, content)
    }

    /// The result of the tool call `call_id`.
    pub fn tool(call_id: impl Into<String>, content: impl Into<String>) -> Message {
        Message { call_id: call_id.into(), ..Message::new(Role::Tool, content) }
    }
}

/// A tool call in the history.
#[derive(Debug, Clone, PartialEq)]
pub struct ToolCall {
    /// The client's name for this call; only used to order results. Never rendered.
    pub id: String,
    /// The tool.
    pub name: String,
    /// What it is called with.
    pub arguments: Arguments,
}

impl ToolCall {
    /// A call with arguments as JSON text.
    pub fn new(id: &str, name: &str, arguments: &str) -> ToolCall {
        let arguments = Arguments::Text(arguments.to_owned());
        ToolCall { id: id.to_owned(), name: name.to_owned(), arguments }
    }
}

/// The arguments of a tool call.
#[derive(Debug, Clone, PartialEq)]
pub enum Arguments {
    /// The text of a JSON object, as wire formats carry it. Text that is no JSON is passed to the
    /// tool as one parameter.
    Text(String),
    /// A value sent in place of that text: one parameter, whatever it is.
    Value(Value),
}

impl Arguments {
    /// The arguments as text.
    pub fn to_text(&self) -> String {
        match self {
            Arguments::Text(text) => text.clone(),
            Arguments::Value(value) => value.to_json(Dialect::Python),
        }
    }
}

/// An assistant turn exactly as it was sampled. Rendering a parsed answer again loses white space,
/// the spelling of numbers and the order of keys, and with them every cached token behind; this
/// keeps them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sampled {
    /// Everything the model produced behind its opener, without the closing end of sentence.
    pub text: Prompt,
    /// Whether the opener was `<think>` rather than `</think>`.
    pub thinking: bool,
    /// Whether the model closed the turn itself, so that the end of sentence is in the timeline
    /// already.
    pub ended: bool,
}

/// A part of a message that a client sent in pieces.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Part {
    /// Text.
    Text(String),
    /// Something else, by its type: V4 reads text only.
    Unsupported(String),
}

/// The text of a message that came in parts.
pub fn join_parts(parts: &[Part]) -> String {
    let texts: Vec<String> = parts
        .iter()
        .map(|part| match part {
            Part::Text(text) => text.clone(),
            Part::Unsupported(kind) => format!("[Unsupported {kind}]"),
        })
        .collect();
    texts.join("\n\n")
}
