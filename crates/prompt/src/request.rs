//! A chat-completions request, read as strictly as DeepSeek's API reads it, for what shapes the
//! prompt.
//!
//! This is the yardstick of what the hosted API would be given and would refuse, not the project's
//! own HTTP front, which takes more. Sampling parameters, models and streaming are not looked at.

use std::collections::HashSet;

use crate::{
    conversation::{AnswerFormat, Conversation, ToolChoice},
    error::RequestError,
    fields::Fields,
    message::{Message, Part, Role, ToolCall, join_parts},
    profile::{Effort, Mode},
    pyjson::{Object, Value},
    strict_schema,
};

/// Reads a request body (parse it in [`crate::pyjson::Dialect::Hosted`]).
pub fn conversation_from_request(body: &Value) -> Result<Conversation, RequestError> {
    let body = Fields::of(body, "")?;
    let (mode, effort) = thinking(&body)?;
    let declared = declared_tools(&body)?;
    let messages = messages(&body)?;

    let uses_tools = !declared.is_empty()
        || messages
            .iter()
            .any(|message| !message.tool_calls.is_empty() || message.role == Role::Tool);
    let continues = continues_last(&messages)?;
    let answer_format = answer_format(&body, &messages)?;
    if continues && (uses_tools || answer_format == AnswerFormat::JsonObject) {
        return Err(body.error("messages", "`prefix` does not go with tools or `json_object`"));
    }
    let has_format = body.optional("response_format").is_some();
    let (tools, tool_choice) = offered_tools(&body, declared, mode, has_format)?;
    let messages = match mode {
        Mode::Thinking => messages,
        Mode::Chat => messages.into_iter().map(without_reasoning).collect(),
    };
    Ok(Conversation { messages, tools, tool_choice, answer_format, mode, effort })
}

fn without_reasoning(message: Message) -> Message {
    Message { reasoning: String::new(), ..message }
}

/// Thinking is on unless the request says otherwise, and then with high effort.
fn thinking(body: &Fields<'_>) -> Result<(Mode, Option<Effort>), RequestError> {
    let (effort, names_none) = match body.optional_text("reasoning_effort")? {
        None => (None, false),
        Some("none") => (None, true),
        Some(name) => match Effort::from_name(name) {
            Some(effort) => (Some(effort), false),
            None => return Err(body.error("reasoning_effort", format!("unknown effort `{name}`"))),
        },
    };
    let enabled = match body.optional("thinking") {
        None => !names_none,
        Some(_) => match body.object("thinking")?.text("type")? {
            "enabled" | "adaptive" => true,
            "disabled" => false,
            other => return Err(body.error("thinking.type", format!("unknown type `{other}`"))),
        },
    };
    Ok(if enabled {
        (Mode::Thinking, Some(effort.unwrap_or(Effort::High)))
    } else {
        (Mode::Chat, None)
    })
}

/// A tool as the request declares it.
struct Declared {
    name: String,
    description: String,
    parameters: Option<Value>,
    is_strict: bool,
    path: String,
}

fn declared_tools(body: &Fields<'_>) -> Result<Vec<Declared>, RequestError> {
    let mut declared = Vec::new();
    for (path, tool) in body.items("tools")? {
        let function = function_of(&Fields::of(tool, path)?)?;
        let name = function.text("name")?;
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-';
        if name.is_empty() || name.len() > 128 || !name.bytes().all(allowed) {
            return Err(
                function.error("name", "must be 1 to 128 of the characters a-z A-Z 0-9 _ -")
            );
        }
        declared.push(Declared {
            name: name.to_owned(),
            description: function.optional_text("description")?.unwrap_or_default().to_owned(),
            parameters: function.optional("parameters").cloned(),
            is_strict: function.flag("strict")?,
            path: function.path_of("parameters"),
        });
    }
    Ok(declared)
}

/// The `function` of a tool or tool call of that type.
fn function_of<'a>(fields: &Fields<'a>) -> Result<Fields<'a>, RequestError> {
    match fields.text("type")? {
        "function" => fields.object("function"),
        other => Err(fields.error("type", format!("unknown type `{other}`"))),
    }
}

fn offered_tools(
    body: &Fields<'_>,
    declared: Vec<Declared>,
    mode: Mode,
    has_format: bool,
) -> Result<(Vec<Value>, ToolChoice), RequestError> {
    let mut only = None;
    let mut choice = ToolChoice::Auto;
    match body.optional("tool_choice") {
        None => {}
        Some(Value::String(name)) => match name.as_str() {
            "none" => return Ok((Vec::new(), ToolChoice::Auto)),
            "auto" => {}
            "required" => choice = ToolChoice::Required,
            other => return Err(body.error("tool_choice", format!("unknown choice `{other}`"))),
        },
        Some(_) => {
            choice = ToolChoice::Required;
            only = Some(function_of(&body.object("tool_choice")?)?.text("name")?);
        }
    }
    if declared.is_empty() {
        return Ok((Vec::new(), ToolChoice::Auto));
    }
    let mut names = HashSet::new();
    let mut tools = Vec::new();
    for tool in &declared {
        if !names.insert(tool.name.as_str()) {
            return Err(body.error("tools", format!("two tools are called `{}`", tool.name)));
        }
        let schema = schema_of(tool)?;
        if only.is_none_or(|only| only == tool.name) {
            tools.push((tool.is_strict, schema));
        }
    }
    if let Some(only) = only.filter(|only| !names.contains(only)) {
        return Err(body.error("tool_choice", format!("there is no tool `{only}`")));
    }
    if choice == ToolChoice::Required && mode == Mode::Thinking {
        return Err(body.error("tool_choice", "a thinking model cannot be made to call a tool"));
    }
    let strict = tools.iter().filter(|(is_strict, _)| *is_strict).count();
    if strict > 0 && strict < tools.len() {
        return Err(body.error("tools", "strict and other tools cannot be mixed"));
    }
    if strict > 0 && has_format {
        return Err(body.error("response_format", "does not go with strict tools"));
    }
    Ok((tools.into_iter().map(|(_, schema)| schema).collect(), choice))
}

/// What the model is shown of a tool: always these three members.
fn schema_of(tool: &Declared) -> Result<Value, RequestError> {
    let parameters = match &tool.parameters {
        parameters if tool.is_strict => {
            strict_schema::tool_parameters(parameters.as_ref(), &tool.path)?
        }
        None => Value::Object(Object::default()),
        Some(parameters) if parameters.get("type").and_then(Value::as_str) == Some("object") => {
            parameters.clone()
        }
        Some(_) => {
            return Err(RequestError::field(&tool.path, "must be a JSON schema of type `object`"));
        }
    };
    let members = [
        ("name", tool.name.as_str().into()),
        ("description", tool.description.as_str().into()),
        ("parameters", parameters),
    ];
    Ok(Value::Object(members.into_iter().collect()))
}

fn answer_format(body: &Fields<'_>, messages: &[Message]) -> Result<AnswerFormat, RequestError> {
    if body.optional("response_format").is_none() {
        return Ok(AnswerFormat::Text);
    }
    let format = body.object("response_format")?;
    match format.text("type")? {
        "text" => Ok(AnswerFormat::Text),
        // Enforced while sampling; the prompt does not mention it.
        "regex" => format.text("regex").map(|_| AnswerFormat::Text),
        "json_object" if messages.iter().any(|message| mentions_json(&message.content)) => {
            Ok(AnswerFormat::JsonObject)
        }
        "json_object" => {
            Err(body.error("response_format", "needs the word `json` somewhere in the messages"))
        }
        "json_schema" => {
            let fields = format.object("json_schema")?;
            let schema = fields.required("schema")?;
            if fields.flag("strict")? {
                strict_schema::answer(schema, &fields.path_of("schema"))?;
            }
            Ok(AnswerFormat::Schema(schema.clone()))
        }
        other => Err(format.error("type", format!("unknown type `{other}`"))),
    }
}

fn mentions_json(text: &str) -> bool {
    text.as_bytes().windows(4).any(|window| window.eq_ignore_ascii_case(b"json"))
}

/// Whether the last message is to be continued; no other may be.
fn continues_last(messages: &[Message]) -> Result<bool, RequestError> {
    match messages.iter().position(|message| message.open) {
        None => Ok(false),
        Some(index) if index + 1 == messages.len() => Ok(true),
        Some(index) => Err(RequestError::field(
            format!("messages[{index}].prefix"),
            "is for the last message only",
        )),
    }
}

fn messages(body: &Fields<'_>) -> Result<Vec<Message>, RequestError> {
    body.required("messages")?;
    let items = body.items("messages")?;
    if items.is_empty() {
        return Err(body.error("messages", "must not be empty"));
    }
    let mut messages = Vec::new();
    // The calls that wait for results. Each must be answered at once, in any order.
    let mut unanswered: HashSet<String> = HashSet::new();
    for (path, item) in items {
        let fields = Fields::of(item, path)?;
        let role = fields.text("role")?;
        if role != "tool" && !unanswered.is_empty() {
            return Err(
                fields.error("role", "must be `tool`: there are tool calls without a result")
            );
        }
        match role {
            "system" => {
                let text = without_billing_header(&content(&fields)?).to_owned();
                if !text.is_empty() {
                    messages.push(Message::system(text));
                }
            }
            "user" => messages.push(Message::user(content(&fields)?)),
            "latest_reminder" => {
                messages.push(Message::new(Role::LatestReminder, fields.text("content")?))
            }
            "tool" => {
                let call_id = fields.text("tool_call_id")?;
                if !unanswered.remove(call_id) {
                    return Err(
                        fields.error("tool_call_id", "answers no open call of the message before")
                    );
                }
                messages.push(Message::tool(call_id, content(&fields)?));
            }
            "assistant" => {
                let message = assistant(&fields)?;
                for call in &message.tool_calls {
                    if !unanswered.insert(call.id.clone()) {
                        return Err(fields
                            .error("tool_calls", format!("two calls have the id `{}`", call.id)));
                    }
                }
                messages.push(message);
            }
            other => return Err(fields.error("role", format!("unknown role `{other}`"))),
        }
    }
    if unanswered.is_empty() {
        Ok(messages)
    } else {
        Err(body.error("messages", "the last tool calls have no results"))
    }
}

fn assistant(fields: &Fields<'_>) -> Result<Message, RequestError> {
    let calls = fields.items("tool_calls")?;
    let has_calls = fields.optional("tool_calls").is_some();
    if has_calls && calls.is_empty() {
        return Err(fields.error("tool_calls", "must not be empty"));
    }
    let text = match fields.optional("content") {
        None if has_calls => String::new(),
        None => return Err(fields.error("content", "is missing, and so are tool calls")),
        Some(_) => content(fields)?,
    };
    let mut message = Message::assistant(text);
    message.reasoning = fields.optional_text("reasoning_content")?.unwrap_or_default().to_owned();
    message.open = fields.flag("prefix")?;
    for (path, call) in calls {
        let call = Fields::of(call, path)?;
        let function = function_of(&call)?;
        let (name, arguments) = (function.text("name")?, function.text("arguments")?);
        message.tool_calls.push(ToolCall::new(call.text("id")?, name, arguments));
    }
    Ok(message)
}

/// Text, or parts of which only text can be read.
fn content(fields: &Fields<'_>) -> Result<String, RequestError> {
    if let Some(text) = fields.required("content")?.as_str() {
        return Ok(text.to_owned());
    }
    if fields.optional("content").is_none() {
        return Err(fields.error("content", "must not be null"));
    }
    let mut parts = Vec::new();
    for (path, part) in fields.items("content")? {
        let part = Fields::of(part, path)?;
        parts.push(match part.text("type")? {
            "text" => Part::Text(part.text("text")?.to_owned()),
            "image_url" => {
                part.object("image_url")?.text("url")?;
                Part::Unsupported("Image".to_owned())
            }
            "file" => Part::Unsupported("Image".to_owned()),
            other => return Err(part.error("type", format!("unknown type `{other}`"))),
        });
    }
    Ok(join_parts(&parts))
}

/// A coding client puts a line about billing first in its system text. It changes with every
/// request, and every cached prefix with it.
fn without_billing_header(text: &str) -> &str {
    if !text.starts_with("x-anthropic-billing-header") {
        return text;
    }
    let end = [text.find('\n'), text.find("You are")].into_iter().flatten().min();
    end.and_then(|end| text.get(end..)).unwrap_or("").trim_start()
}
