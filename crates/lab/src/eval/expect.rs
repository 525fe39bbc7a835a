//! What a turn must be.

use ds4_prompt::{
    Message,
    pyjson::{Dialect, Value},
};

/// A call that must be made.
#[derive(Clone, Debug, PartialEq)]
pub struct Call {
    /// The tool.
    pub name: String,
    /// An object; the order of its members does not count.
    pub arguments: Value,
}

/// What a turn must be. What is not said does not matter.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Expect {
    /// Exactly these calls, in this order.
    pub calls: Option<Vec<Call>>,
    /// The answer has all of these in it, in any case of letters.
    pub contains: Vec<String>,
    /// The last integer of the answer.
    pub last_integer: Option<String>,
    /// The answer is this JSON and nothing else.
    pub json: Option<Value>,
}

impl Expect {
    /// Why a turn is wrong; `None` if it is right.
    pub fn objection(&self, turn: &Message) -> Option<String> {
        let content = turn.content.as_str();
        if let Some(calls) = &self.calls
            && let Some(why) = objection_to_calls(calls, turn)
        {
            return Some(why);
        }
        let lower = content.to_lowercase();
        if let Some(part) = self.contains.iter().find(|part| !lower.contains(&part.to_lowercase()))
        {
            return Some(format!("`{part}` is not in the answer"));
        }
        if let Some(wanted) = &self.last_integer
            && last_integer(content).as_deref() != Some(wanted)
        {
            return Some(format!("the last integer is not {wanted}"));
        }
        let wanted = self.json.as_ref()?;
        match Value::parse(content, Dialect::Python) {
            Ok(value) if same(&value, wanted) => None,
            Ok(_) => Some("other JSON than expected".into()),
            Err(error) => Some(format!("not JSON: {error}")),
        }
    }
}

fn objection_to_calls(wanted: &[Call], turn: &Message) -> Option<String> {
    let made = &turn.tool_calls;
    if made.len() != wanted.len() {
        return Some(format!("{} calls instead of {}", made.len(), wanted.len()));
    }
    let right = |made: &ds4_prompt::ToolCall, wanted: &Call| {
        let arguments = Value::parse(&made.arguments.to_text(), Dialect::Python);
        made.name == wanted.name && arguments.is_ok_and(|value| same(&value, &wanted.arguments))
    };
    let wrong = made.iter().zip(wanted).find(|(made, wanted)| !right(made, wanted))?;
    Some(format!("the call of `{}` is not the one expected", wrong.0.name))
}

/// The last run of digits, with its sign. Commas between digits are for people.
fn last_integer(text: &str) -> Option<String> {
    let text = text.replace(',', "");
    let end = text.rfind(|c: char| c.is_ascii_digit())? + 1;
    let head = text.get(..end)?;
    let start = head.rfind(|c: char| !c.is_ascii_digit());
    let digits = match start {
        Some(at) if head.get(at..)?.starts_with('-') => head.get(at..)?,
        Some(at) => head.get(at..)?.trim_start_matches(|c: char| !c.is_ascii_digit()),
        None => head,
    };
    Some(digits.to_owned())
}

/// Equal as JSON: members in any order, and a number is its value.
fn same(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Array(a), Value::Array(b)) => {
            a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(a, b))
        }
        (Value::Object(a), Value::Object(b)) => {
            a.len() == b.len()
                && a.iter().all(|(key, value)| b.get(key).is_some_and(|other| same(value, other)))
        }
        (Value::Int(int), Value::Float(float)) | (Value::Float(float), Value::Int(int)) => {
            int.digits().parse() == Ok(*float)
        }
        (a, b) => a == b,
    }
}

#[cfg(test)]
mod tests {
    use ds4_prompt::ToolCall;

    use super::*;

    fn value(text: &str) -> Value {
        Value::parse(text, Dialect::Python).unwrap()
    }

    fn said(content: &str, calls: &[(&str, &str)]) -> Message {
        let tool_calls = calls.iter().map(|(name, text)| ToolCall::new("", name, text)).collect();
        Message { tool_calls, ..Message::assistant(content) }
    }

    #[track_caller]
    fn check(expect: &Expect, turn: &Message, right: bool) {
        assert_eq!(
            expect.objection(turn).is_none(),
            right,
            "{turn:?}: {:?}",
            expect.objection(turn)
        );
    }

    #[test]
    fn words_are_found_in_any_case_and_all_of_them() {
        let expect = Expect { contains: vec!["Flash".into(), "small".into()], ..Expect::default() };
        check(&expect, &said("A SMALL one beside flash", &[]), true);
        check(&expect, &said("a small one", &[]), false);
    }

    #[test]
    fn the_last_integer_counts() {
        let expect = Expect { last_integer: Some("-1234".into()), ..Expect::default() };
        for (text, right) in [
            ("5 - 1239 = -1234", true),
            ("-1,234.", true),
            ("so it is -1234!", true),
            ("-1234 and 5", false),
            ("1234", false),
            ("-12345", false),
            ("none", false),
            ("", false),
        ] {
            check(&expect, &said(text, &[]), right);
        }
        assert_eq!(last_integer("é7"), Some("7".into()));
    }

    #[test]
    fn json_is_the_whole_answer_in_any_order() {
        let json = Some(value(r#"{"a": 1, "b": ["x", true]}"#));
        let expect = Expect { json, ..Expect::default() };
        for (text, right) in [
            (r#"{"b": ["x", true], "a": 1.0}"#, true),
            (r#" {"a":1,"b":["x",true]} "#, true),
            (r#"{"a": 1, "b": [true, "x"]}"#, false),
            (r#"{"a": 1, "b": ["x", true], "c": 0}"#, false),
            (r#"Here: {"a": 1, "b": ["x", true]}"#, false),
            (r#"{"a": "1", "b": ["x", true]}"#, false),
        ] {
            check(&expect, &said(text, &[]), right);
        }
    }

    #[test]
    fn calls_are_exactly_those() {
        let call = |name: &str, text: &str| Call { name: name.into(), arguments: value(text) };
        let calls = vec![call("f", r#"{"x": 1, "y": "z"}"#), call("g", "{}")];
        let expect = Expect { calls: Some(calls), ..Expect::default() };
        let (f, g) = (("f", r#"{"y": "z", "x": 1}"#), ("g", "{}"));
        check(&expect, &said("", &[f, g]), true);
        check(&expect, &said("", &[g, f]), false);
        check(&expect, &said("", &[f]), false);
        check(&expect, &said("", &[f, g, g]), false);
        check(&expect, &said("", &[("f", r#"{"x": "1", "y": "z"}"#), g]), false);
        check(&expect, &said("", &[("f", r#"{"x": 1, "y": z}"#), g]), false);
        let none = Expect { calls: Some(Vec::new()), ..Expect::default() };
        check(&none, &said("no tool fits", &[]), true);
        check(&none, &said("", &[g]), false);
    }
}
