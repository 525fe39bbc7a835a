//! DSML, the markup of tool calls: how a prompt explains it, and how calls are written in it.
//!
//! Nothing is escaped. A name or a value that contains a closing tag is rendered as it is; it
//! cannot close anything, because its `｜DSML｜` is plain text and that of a real tag is a control
//! token.

use crate::{
    error::EncodeError,
    message::{Arguments, ToolCall},
    profile::Profile,
    prompt::Prompt,
    pyjson::{Object, Value},
};

/// What to do with arguments that are JSON, but no object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OddArguments {
    /// Refuse the conversation, as the reference encoder does.
    Refuse,
    /// Pass their text to the tool as one parameter, as the hosted API does.
    AsText,
}

/// Appends the section that describes `tools`: what DSML is, and one schema a line.
pub(crate) fn push_tools_section(prompt: &mut Prompt, tools: &[Value], profile: Profile) {
    prompt.push_structure(TOOLS_HEAD);
    for tool in tools {
        prompt.push_text(&tool.to_json(profile.dialect()));
        prompt.push_text("\n");
    }
    prompt.push_structure(TOOLS_FOOT);
}

/// Appends a block of tool calls, separated by a blank line from what is before it. `message` is
/// the index of the message they belong to, for errors.
pub(crate) fn push_tool_calls(
    prompt: &mut Prompt,
    calls: &[&ToolCall],
    profile: Profile,
    odd: OddArguments,
    message: usize,
) -> Result<(), EncodeError> {
    prompt.push_structure(CALLS_OPENER);
    for call in calls {
        prompt.push_structure("<｜DSML｜invoke name=\"");
        prompt.push_text(&call.name);
        prompt.push_structure("\">\n");
        let parameters = parameters(call, profile, odd)
            .ok_or_else(|| EncodeError::ArgumentsNotObject { message, tool: call.name.clone() })?;
        for (name, value) in parameters.iter() {
            push_parameter(prompt, name, value, profile);
        }
        if parameters.is_empty() && profile != Profile::Hosted {
            // The reference template joins the parameters with newlines and adds one; of none, it
            // is left.
            prompt.push_structure("\n");
        }
        prompt.push_structure("</｜DSML｜invoke>\n");
    }
    prompt.push_structure("</｜DSML｜tool_calls>");
    Ok(())
}

/// How a block of calls begins; a prompt that ends with it makes the model call a tool.
pub(crate) const CALLS_OPENER: &str = "\n\n<｜DSML｜tool_calls>\n";

fn push_parameter(prompt: &mut Prompt, name: &str, value: &Value, profile: Profile) {
    prompt.push_structure("<｜DSML｜parameter name=\"");
    prompt.push_text(name);
    match value {
        Value::String(text) => {
            prompt.push_structure("\" string=\"true\">");
            prompt.push_text(text);
        }
        other => {
            prompt.push_structure("\" string=\"false\">");
            prompt.push_text(&other.to_json(profile.dialect()));
        }
    }
    prompt.push_structure("</｜DSML｜parameter>\n");
}

/// The parameters of a call; `None` if its arguments are odd and to be refused.
fn parameters(call: &ToolCall, profile: Profile, odd: OddArguments) -> Option<Object> {
    let only = |value: Value| Object::from_iter([("arguments", value)]);
    match &call.arguments {
        Arguments::Value(value) => Some(only(value.clone())),
        Arguments::Text(text) => match Value::parse(text, profile.dialect()) {
            Ok(Value::Object(members)) => Some(members),
            Ok(_) if odd == OddArguments::Refuse => None,
            Ok(_) | Err(_) => Some(only(text.as_str().into())),
        },
    }
}

const TOOLS_HEAD: &str = r#"## Tools

You have access to a set of tools to help answer the user's question. You can invoke tools by writing a "<｜DSML｜tool_calls>" block like the following:

<｜DSML｜tool_calls>
<｜DSML｜invoke name="$TOOL_NAME">
<｜DSML｜parameter name="$PARAMETER_NAME" string="true|false">$PARAMETER_VALUE</｜DSML｜parameter>
...
</｜DSML｜invoke>
<｜DSML｜invoke name="$TOOL_NAME2">
...
</｜DSML｜invoke>
</｜DSML｜tool_calls>

String parameters should be specified as is and set `string="true"`. For all other types (numbers, booleans, arrays, objects), pass the value in JSON format and set `string="false"`.

If thinking_mode is enabled (triggered by <think>), you MUST output your complete reasoning inside <think>...</think> BEFORE any tool calls or final response.

Otherwise, output directly after </think> with tool calls or final response.

### Available Tool Schemas

"#;

const TOOLS_FOOT: &str = "
You MUST strictly follow the above defined tool name and parameter schemas to invoke tool calls.
";
