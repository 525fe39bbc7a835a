//! Python's `str()` of a JSON value: what the official encoder writes where a client sent something
//! that is not text. Nobody means it; it is here so that such a conversation still gives the same
//! prompt.

use std::fmt::Write;

use super::{Dialect, Value, write::push_finite};

/// `str(value)`: a string as it is, anything else as Python displays it.
pub fn python_str(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => {
            let mut out = String::new();
            push_repr(other, &mut out);
            out
        }
    }
}

fn push_repr(value: &Value, out: &mut String) {
    match value {
        Value::Null => out.push_str("None"),
        Value::Bool(true) => out.push_str("True"),
        Value::Bool(false) => out.push_str("False"),
        Value::Int(int) => out.push_str(int.digits()),
        Value::Float(float) if float.is_nan() => out.push_str("nan"),
        Value::Float(float) if float.is_infinite() => {
            out.push_str(if *float > 0.0 { "inf" } else { "-inf" })
        }
        Value::Float(float) => push_finite(*float, Dialect::Python, out),
        Value::String(text) => push_quoted(text, out),
        Value::Array(items) => {
            out.push('[');
            for (index, item) in items.iter().enumerate() {
                if index > 0 {
                    out.push_str(", ");
                }
                push_repr(item, out);
            }
            out.push(']');
        }
        Value::Object(members) => {
            out.push('{');
            for (index, (key, member)) in members.iter().enumerate() {
                if index > 0 {
                    out.push_str(", ");
                }
                push_quoted(key, out);
                out.push_str(": ");
                push_repr(member, out);
            }
            out.push('}');
        }
    }
}

/// Single quotes, unless only double ones avoid an escape.
fn push_quoted(text: &str, out: &mut String) {
    let quote = if text.contains('\'') && !text.contains('"') { '"' } else { '\'' };
    out.push(quote);
    for character in text.chars() {
        match character {
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            same if same == quote => {
                out.push('\\');
                out.push(same);
            }
            shown if is_printable(shown) => out.push(shown),
            hidden => {
                let code = u32::from(hidden);
                // Writing to a String cannot fail.
                let _ = match code {
                    0..=0xff => write!(out, "\\x{code:02x}"),
                    0x100..=0xffff => write!(out, "\\u{code:04x}"),
                    _ => write!(out, "\\U{code:08x}"),
                };
            }
        }
    }
    out.push(quote);
}

/// Python's `isprintable`. Rust's own debug escaping draws the same line, but also escapes a
/// combining mark at the start of a text, so the character is shown behind another one.
fn is_printable(character: char) -> bool {
    let behind: String = ['x', character].iter().collect();
    character == '\'' || character == '"' || behind.escape_debug().count() == 2
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_look_as_in_python() {
        for (json, shown) in [
            ("null", "None"),
            ("\"as it is\"", "as it is"),
            (r#"{"a":1.5,"b":[true,null,"é"]}"#, "{'a': 1.5, 'b': [True, None, 'é']}"),
            (r#"["it's","\"","'\""]"#, r#"["it's", '"', '\'"']"#),
            (
                r#"["\u0001\u00a0\u200d\n\\\u0301",1e-7,NaN]"#,
                "['\\x01\\xa0\\u200d\\n\\\\\u{301}', 1e-07, nan]",
            ),
        ] {
            let value = Value::parse(json, Dialect::Python).expect("valid");
            assert_eq!(python_str(&value), shown, "{json}");
        }
    }
}
