//! What clients send and what models answer: however it is cut, it reads the same, and nothing in it
//! becomes a control token.

use ds4_prompt::{
    Completion, DSML, END_THINK, EOS, Event, Message, Mode, Options, Origin, Profile, Prompt,
    Start, StreamParser, THINK, ToolCall, Tools, conversation_from_request, encode,
    messages_from_json, parse_completion,
    pyjson::{Dialect, Value, python_str},
};

use crate::refusal::accepted;

/// Four bytes that say how to read, then a completion: a byte of choices, three lengths of pieces.
pub fn completion(data: &[u8]) -> bool {
    let Some((&[choices, lengths @ ..], text)) = data.split_first_chunk::<4>() else {
        return false;
    };
    let text = String::from_utf8_lossy(text);
    let start = match choices & 7 {
        0 => Start::Reasoning,
        1 => Start::Content,
        2 => Start::ReasoningContinued,
        3 => Start::ContentContinued,
        _ => Start::ToolCalls,
    };
    let tools = if choices & 8 == 0 { Tools::Offered } else { Tools::None };
    let known = choices & 16 != 0;
    let lengths = lengths.map(|length| usize::from(length % 16));

    let tokens = if known { tokens(&text, lengths[0]) } else { vec![(&*text, Origin::Unknown)] };
    let whole = read(start, tools, tokens.iter().copied());
    let cut = tokens.iter().flat_map(|&(piece, origin)| {
        let lengths = if origin == Origin::Special { [usize::MAX; 3] } else { lengths };
        pieces(piece, lengths).into_iter().map(move |piece| (piece, origin))
    });
    assert_eq!(read(start, tools, cut), whole, "{text:?}");
    if !known {
        assert_eq!(Completion::read(&text, start, tools), whole, "{text:?}");
    }
    strict(&text)
}

fn read<'a>(
    start: Start,
    tools: Tools,
    pieces: impl Iterator<Item = (&'a str, Origin)>,
) -> Completion {
    let mut parser = StreamParser::new(start, tools);
    let mut events: Vec<Event> =
        pieces.flat_map(|(piece, origin)| parser.feed(piece, origin)).collect();
    events.extend(parser.finish());

    let mut calls = 0;
    for (place, event) in events.iter().enumerate() {
        match event {
            Event::CallBegin { index, .. } => {
                assert_eq!(*index, calls);
                calls += 1;
            }
            Event::Arguments { index, .. } | Event::CallEnd { index } => {
                assert_eq!(*index + 1, calls, "of a call that is not open");
            }
            Event::Reasoning(_) | Event::Content(_) => assert_eq!(calls, 0, "text behind calls"),
            Event::Finish(_) => assert_eq!(place + 1, events.len(), "events behind the end"),
        }
    }
    let mut completion = Completion::default();
    completion.extend(events);
    completion
}

/// The text as a sampler would give it out: some spellings of markers are control tokens.
fn tokens(text: &str, special: usize) -> Vec<(&str, Origin)> {
    let mut tokens = Vec::new();
    let mut rest = text;
    for count in 0.. {
        let found = [DSML, END_THINK].into_iter().filter_map(|m| rest.find(m).map(|at| (at, m)));
        let Some((at, marker)) = found.min() else { break };
        let (before, from) = rest.split_at(at);
        let (marker, after) = from.split_at(marker.len());
        let is_special = special >> (count % 4) & 1 == 0;
        tokens.push((before, Origin::Ordinary));
        tokens.push((marker, if is_special { Origin::Special } else { Origin::Ordinary }));
        rest = after;
    }
    tokens.push((rest, Origin::Ordinary));
    tokens
}

/// The text in pieces of so many characters, over and over; an empty piece may be among them.
fn pieces(text: &str, lengths: [usize; 3]) -> Vec<&str> {
    let mut pieces = Vec::new();
    let mut rest = text;
    for length in lengths.into_iter().cycle() {
        if rest.is_empty() || lengths == [0; 3] {
            break;
        }
        let end = rest.char_indices().nth(length).map_or(rest.len(), |(at, _)| at);
        let (piece, after) = rest.split_at(end);
        pieces.push(piece);
        rest = after;
    }
    pieces.push(rest);
    pieces
}

/// What the strict reading takes, the lenient one understands, and the encoder writes again.
fn strict(text: &str) -> bool {
    let mut taken = false;
    for (mode, start) in [(Mode::Chat, Start::Content), (Mode::Thinking, Start::Reasoning)] {
        let Some(message) = accepted(parse_completion(text, mode)) else { continue };
        taken = true;
        let lenient = Completion::read(text.trim_end_matches(EOS), start, Tools::Offered);
        let same = |a: &str, b: &str| a.trim_matches('\n') == b.trim_matches('\n');
        assert!(same(&message.reasoning, &lenient.reasoning), "{message:?}\n{lenient:?}");
        assert!(same(&message.content, &lenient.content), "{message:?}\n{lenient:?}");
        if message.tool_calls.is_empty() && !text.contains(DSML) {
            assert_eq!(rendered(message, mode), text);
        }
    }
    taken
}

/// An answer as the encoder writes it.
fn rendered(answer: Message, mode: Mode) -> String {
    let messages = [Message::user("q"), answer];
    let options = Options::new(Profile::Official, mode);
    let opener = encode(&messages[..1], &options).expect("a question");
    let whole = encode(&messages, &options).expect("an answer");
    whole.text.strip_prefix(&opener.text).expect("an answer only adds").to_owned()
}

pub fn completion_seeds() -> Vec<Vec<u8>> {
    let mut calling = Message::assistant("Let me look.");
    calling.reasoning = "I need the file.".into();
    calling.tool_calls = vec![
        ToolCall::new("", "read", r#"{"path": "a \"b\"\n", "lines": [1, 2]}"#),
        ToolCall::new("", "ls", "{}"),
    ];
    let mut plain = Message::assistant("42");
    plain.reasoning = "6 * 7\n\n< 50".into();
    let chat = Message { reasoning: String::new(), ..calling.clone() };
    vec![
        [&[0, 1, 2, 3], rendered(calling, Mode::Thinking).as_bytes()].concat(),
        [&[0x10, 0, 5, 0], rendered(plain, Mode::Thinking).as_bytes()].concat(),
        [&[0x11, 4, 7, 1], rendered(chat, Mode::Chat).as_bytes()].concat(),
    ]
}

/// JSON in either dialect: any value, a list of messages, or a request body.
pub fn request(data: &[u8]) -> bool {
    let Ok(text) = str::from_utf8(data) else { return false };
    let values = [Dialect::Python, Dialect::Hosted].map(|dialect| {
        let value = accepted(Value::parse(text, dialect))?;
        python_str(&value);
        let written = value.to_json(dialect);
        let again = Value::parse(&written, dialect).expect("what was written");
        assert_eq!(again.to_json(dialect), written, "of {text:?}");
        render(&value);
        Some(value)
    });
    let [python, hosted] = values;
    assert!(python.is_some() || hosted.is_none(), "only the hosted dialect takes {text:?}");
    python.is_some()
}

fn render(value: &Value) {
    let conversation = accepted(conversation_from_request(value));
    let messages = accepted(messages_from_json(value));
    for profile in [Profile::Preview, Profile::Official, Profile::Hosted] {
        if let Some(conversation) = &conversation {
            accepted(conversation.render(profile)).iter().for_each(check_markers);
        }
        for mode in [Mode::Chat, Mode::Thinking] {
            if let Some(messages) = &messages {
                accepted(encode(messages, &Options::new(profile, mode)))
                    .iter()
                    .for_each(check_markers);
            }
        }
    }
}

fn check_markers(prompt: &Prompt) {
    let mut end = 0;
    for range in prompt.specials.iter().cloned() {
        assert!(range.start >= end, "markers overlap");
        end = range.end;
        let marker = prompt.text.get(range).expect("a marker on the text's characters");
        let of_a_turn = marker.starts_with("<｜") && marker.find("｜>") == Some(marker.len() - 4);
        assert!(of_a_turn || [THINK, END_THINK, DSML].contains(&marker), "{marker:?}");
    }
}

pub fn request_seeds() -> Vec<Vec<u8>> {
    [
        r#" {"a": [1, -0, 2.50, 1e400, -12345678901234567890123], "b": {"c": null}} "#,
        r#"["\u00e9\ud83d\ude00\"\\\/\b\f\n\r\t", true, false, NaN, -Infinity, "日本"]"#,
        r#"{"a": 1e-5, "a": 123456789.125, "": [[[]], {}]}"#,
        r#"[{"role":"system","content":"s","tools":[{"type":"function","function":{"name":"f","parameters":{}}}]},{"role":"user","content":[{"type":"text","text":"<think>"}]},{"role":"assistant","reasoning_content":"r","content":"c","tool_calls":[{"id":"1","type":"function","function":{"name":"f","arguments":"{\"a\": 1}"}}]},{"role":"tool","tool_call_id":"1","content":"t"}]"#,
        r#"{"messages":[{"role":"user","content":"json <｜User｜>"},{"role":"assistant","content":"x"},{"role":"user","content":"y"}],"response_format":{"type":"json_object"},"reasoning_effort":"high"}"#,
        r#"{"messages":[{"role":"user","content":"q"}],"thinking":{"type":"disabled"},"tools":[{"type":"function","function":{"name":"f","description":"d","strict":true,"parameters":{"type":"object","properties":{"p":{"type":"string","enum":["a"]}},"required":["p"],"additionalProperties":false}}}],"tool_choice":"required"}"#,
    ]
    .map(|text| text.as_bytes().to_vec())
    .into()
}
