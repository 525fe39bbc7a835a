//! Messages from JSON, as the reference encoder takes them: OpenAI's shape plus its own extras
//! (`tools`, `task`, `wo_eos`, `response_format` on a message). Where Python would print whatever
//! it was given, so does this; where it would fail, this is an error.

use crate::{
    error::RequestError,
    fields::Fields,
    message::{Arguments, Message, Part, Role, Task, ToolCall, join_parts},
    pyjson::{Value, python_str},
};

/// Reads a list of messages.
pub fn messages_from_json(list: &Value) -> Result<Vec<Message>, RequestError> {
    let list =
        list.as_array().ok_or_else(|| RequestError::field("messages", "must be an array"))?;
    list.iter()
        .enumerate()
        .map(|(index, value)| message(&Fields::of(value, format!("messages[{index}]"))?))
        .collect()
}

fn message(fields: &Fields<'_>) -> Result<Message, RequestError> {
    let role = match fields.raw("role") {
        Some(Value::String(name)) => Role::from_name(name),
        other => Role::Other(python_str(other.unwrap_or(&Value::Null))),
    };
    let content = content(&role, fields)?;
    let mut message = Message::new(role, content);
    match &message.role {
        Role::Tool => {
            message.call_id = fields.optional("tool_call_id").map(python_str).unwrap_or_default();
            return Ok(message);
        }
        // The reference encoder carries only these two over from a user message.
        Role::User => {
            message.task = task(fields)?;
            return Ok(message);
        }
        _ => {}
    }
    message.task = task(fields)?;
    message.reasoning = truthy(fields, "reasoning_content").map(python_str).unwrap_or_default();
    message.response_format = truthy(fields, "response_format").cloned();
    message.open = truthy(fields, "wo_eos").is_some();
    for (path, tool) in fields.items("tools")? {
        message.tools.push(Fields::of(tool, path)?.required("function")?.clone());
    }
    for (path, call) in fields.items("tool_calls")? {
        message.tool_calls.push(tool_call(&Fields::of(call, path)?)?);
    }
    Ok(message)
}

fn truthy<'a>(fields: &Fields<'a>, key: &str) -> Option<&'a Value> {
    fields.raw(key).filter(|value| value.is_truthy())
}

fn content(role: &Role, fields: &Fields<'_>) -> Result<String, RequestError> {
    let content = fields.raw("content");
    match (role, content) {
        (Role::User | Role::Tool, None) => Ok(String::new()),
        (Role::Tool, Some(Value::Array(parts))) => result_parts(parts, fields),
        (Role::User, Some(_)) => fields.text("content").map(str::to_owned),
        // Anything but text is refused as missing text, and only if the message is rendered at all.
        (Role::Developer, content) => {
            Ok(content.and_then(Value::as_str).unwrap_or_default().to_owned())
        }
        (Role::Tool | Role::LatestReminder, content) => {
            Ok(python_str(content.unwrap_or(&Value::Null)))
        }
        _ => Ok(truthy(fields, "content").map(python_str).unwrap_or_default()),
    }
}

/// The text of a tool result that came in parts.
fn result_parts(parts: &[Value], fields: &Fields<'_>) -> Result<String, RequestError> {
    let mut read = Vec::new();
    for (index, part) in parts.iter().enumerate() {
        let part = Fields::of(part, fields.path_of(&format!("content[{index}]")))?;
        read.push(match part.raw("type") {
            Some(Value::String(kind)) if kind == "text" => Part::Text(match part.raw("text") {
                None => String::new(),
                Some(_) => part.text("text")?.to_owned(),
            }),
            kind => Part::Unsupported(python_str(kind.unwrap_or(&Value::Null))),
        });
    }
    Ok(join_parts(&read))
}

fn task(fields: &Fields<'_>) -> Result<Option<Task>, RequestError> {
    match fields.optional_text("task")? {
        None => Ok(None),
        Some(name) => Task::from_name(name)
            .map(Some)
            .ok_or_else(|| fields.error("task", format!("unknown task `{name}`"))),
    }
}

fn tool_call(fields: &Fields<'_>) -> Result<ToolCall, RequestError> {
    let function = fields.object("function")?;
    let id = truthy(fields, "id").or_else(|| truthy(&function, "id"));
    let arguments = match function.required("arguments")? {
        Value::String(text) => Arguments::Text(text.clone()),
        other => Arguments::Value(other.clone()),
    };
    Ok(ToolCall {
        id: id.map(python_str).unwrap_or_default(),
        name: python_str(function.required("name")?),
        arguments,
    })
}
