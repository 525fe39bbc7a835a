//! The test sets, as they are written: one JSON object a line. They stand inside the program.

use ds4_prompt::{
    Message, messages_from_json,
    pyjson::{Dialect, Value},
};

use super::expect::{Call, Expect};
use crate::LabError;

/// One turn of the model.
#[derive(Clone, Debug)]
pub struct Turn {
    /// What it must be.
    pub expect: Expect,
    /// What the tools answer to its calls, in their order.
    pub results: Vec<String>,
}

/// One test.
#[derive(Clone, Debug)]
pub struct Item {
    /// Its name.
    pub id: String,
    /// Whether the model reasons first.
    pub thinking: bool,
    /// The conversation that it begins with.
    pub opening: Vec<Message>,
    /// What the model must say, turn by turn.
    pub turns: Vec<Turn>,
}

/// Tests of one ability.
#[derive(Clone, Debug)]
pub struct Group {
    /// Its name.
    pub name: &'static str,
    /// Its tests.
    pub items: Vec<Item>,
}

/// Groups of tests.
#[derive(Clone, Debug)]
pub struct Suite {
    /// Its name.
    pub name: &'static str,
    /// Its groups.
    pub groups: Vec<Group>,
}

const NANO: [(&str, &str); 6] = [
    ("self", include_str!("../../../../nano/eval/self.jsonl")),
    ("arithmetic", include_str!("../../../../nano/eval/arithmetic.jsonl")),
    ("tools_single", include_str!("../../../../nano/eval/tools_single.jsonl")),
    ("tools_multi", include_str!("../../../../nano/eval/tools_multi.jsonl")),
    ("retrieval_8k", include_str!("../../../../nano/eval/retrieval_8k.jsonl")),
    ("json", include_str!("../../../../nano/eval/json.jsonl")),
];
/// Paragraphs that long texts are made of.
const FILLER: &str = include_str!("../../../../nano/eval/filler.txt");

impl Suite {
    /// What the built-in model was trained for, in questions that its training never saw. At most
    /// `limit` tests of each group.
    pub fn nano(limit: usize) -> Result<Suite, LabError> {
        let filler: Vec<&str> = FILLER.lines().collect();
        let read = |(name, text): (&'static str, &str)| {
            let lines = text.lines().take(limit).enumerate();
            let items = lines.map(|(number, line)| {
                item(line, &filler).map_err(|problem| LabError::Item {
                    set: name,
                    line: number + 1,
                    problem,
                })
            });
            Ok(Group { name, items: items.collect::<Result<_, LabError>>()? })
        };
        let groups = NANO.into_iter().map(read).collect::<Result<_, LabError>>()?;
        Ok(Suite { name: "nano", groups })
    }
}

fn item(line: &str, filler: &[&str]) -> Result<Item, String> {
    let value = Value::parse(line, Dialect::Python).map_err(|error| error.to_string())?;
    let mut opening = match (value.get("messages"), value.get("haystack")) {
        (Some(messages), _) => messages_from_json(messages).map_err(|error| error.to_string())?,
        (None, Some(haystack)) => vec![Message::user(long_text(haystack, filler)?)],
        (None, None) => return Err("neither messages nor a haystack".into()),
    };
    let tools = value.get("tools").and_then(Value::as_array).unwrap_or_default();
    let schema = value.get("schema");
    if !tools.is_empty() || schema.is_some() {
        // Tools and formats are said in a system message.
        if opening.first().is_none_or(|first| first.role != ds4_prompt::Role::System) {
            opening.insert(0, Message::system(""));
        }
        if let Some(system) = opening.first_mut() {
            system.tools = tools.to_vec();
            system.response_format = schema.cloned();
        }
    }
    Ok(Item {
        id: text(&value, "id")?.to_owned(),
        thinking: value.get("thinking").and_then(Value::as_bool).ok_or("no `thinking`")?,
        opening,
        turns: list(&value, "turns")?.iter().map(turn).collect::<Result<_, _>>()?,
    })
}

fn turn(value: &Value) -> Result<Turn, String> {
    let expect = value.get("expect").ok_or("a turn without `expect`")?;
    let results = value.get("results").and_then(Value::as_array).unwrap_or_default();
    let calls = expect
        .get("calls")
        .and_then(Value::as_array)
        .map(|calls| calls.iter().map(call).collect::<Result<Vec<Call>, String>>());
    let contains = expect.get("contains").and_then(Value::as_array).unwrap_or_default();
    Ok(Turn {
        expect: Expect {
            calls: calls.transpose()?,
            contains: contains.iter().filter_map(Value::as_str).map(str::to_owned).collect(),
            last_integer: match expect.get("last_integer") {
                Some(Value::Int(int)) => Some(int.digits().to_owned()),
                Some(_) => return Err("`last_integer` is no integer".into()),
                None => None,
            },
            json: expect.get("json").cloned(),
        },
        results: results.iter().filter_map(Value::as_str).map(str::to_owned).collect(),
    })
}

fn call(value: &Value) -> Result<Call, String> {
    let arguments = value.get("arguments").ok_or("a call without `arguments`")?.clone();
    Ok(Call { name: text(value, "name")?.to_owned(), arguments })
}

/// A text of many paragraphs with sentences put between them, and a question at its end.
fn long_text(haystack: &Value, filler: &[&str]) -> Result<String, String> {
    let (start, count) = (number(haystack.get("start"))?, number(haystack.get("paragraphs"))?);
    let mut paragraphs: Vec<&str> =
        filler.iter().cycle().skip(start).take(count).copied().collect();
    let mut needles: Vec<(usize, &str)> = Vec::new();
    for needle in list(haystack, "insert")? {
        let [place, sentence] = needle.as_array().unwrap_or_default() else {
            return Err("a needle is a place and a sentence".into());
        };
        let sentence = sentence.as_str().ok_or("a needle without a sentence")?;
        needles.push((number(Some(place))?.min(paragraphs.len()), sentence));
    }
    // From the back, so that places stay what they are.
    needles.sort();
    for (place, sentence) in needles.into_iter().rev() {
        paragraphs.insert(place, sentence);
    }
    paragraphs.push(text(haystack, "ask")?);
    Ok(paragraphs.join("\n\n"))
}

fn text<'v>(value: &'v Value, key: &str) -> Result<&'v str, String> {
    value.get(key).and_then(Value::as_str).ok_or_else(|| format!("no text `{key}`"))
}

fn list<'v>(value: &'v Value, key: &str) -> Result<&'v [Value], String> {
    value.get(key).and_then(Value::as_array).ok_or_else(|| format!("no list `{key}`"))
}

fn number(value: Option<&Value>) -> Result<usize, String> {
    match value {
        Some(Value::Int(int)) => int.digits().parse().map_err(|_| "a number out of range".into()),
        _ => Err("a number is missing".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_built_in_sets_can_be_read_and_every_turn_asks_for_something() {
        let suite = Suite::nano(usize::MAX).unwrap();
        for group in &suite.groups {
            assert!(group.items.len() >= 50, "{}", group.name);
            for item in &group.items {
                assert!(item.id.starts_with(group.name), "{}", item.id);
                assert!(!item.turns.is_empty() && !item.opening.is_empty(), "{}", item.id);
                for turn in &item.turns {
                    assert_ne!(turn.expect, Expect::default(), "{}", item.id);
                    let calls = turn.expect.calls.as_deref().unwrap_or_default();
                    assert_eq!(turn.results.len(), calls.len(), "{}", item.id);
                }
            }
        }
        assert_eq!(Suite::nano(3).unwrap().groups[1].items.len(), 3);
    }

    #[test]
    fn needles_lie_in_the_hay_and_the_question_comes_last() {
        let haystack = r#"{"start": 1, "paragraphs": 3, "insert": [[2, "two"], [0, "zero"]], "ask": "which?"}"#;
        let haystack = Value::parse(haystack, Dialect::Python).unwrap();
        let text = long_text(&haystack, &["a", "b", "c"]).unwrap();
        assert_eq!(text, "zero\n\nb\n\nc\n\ntwo\n\na\n\nwhich?");
    }

    #[test]
    fn tools_and_formats_stand_in_a_system_message() {
        let line = r#"{"id": "x", "thinking": true, "messages": [{"role": "user", "content": "q"}],
            "tools": [{"name": "f"}], "turns": []}"#;
        let item = item(line, &[]).unwrap();
        assert_eq!(item.opening.len(), 2);
        assert_eq!(item.opening[0].tools.len(), 1);
        assert!(self::item("{}", &[]).is_err());
    }
}
