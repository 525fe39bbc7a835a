//! What the vector files do not cover: when events come, tokens against spelling, and odd markup.

use proptest::prelude::*;

use super::*;

fn feed(parser: &mut StreamParser, piece: &str) -> Vec<Event> {
    parser.feed(piece, Origin::Unknown)
}

fn reasoning(text: &str) -> Event {
    Event::Reasoning(text.to_owned())
}

fn content(text: &str) -> Event {
    Event::Content(text.to_owned())
}

#[test]
fn only_what_may_become_a_marker_is_held_back() {
    let mut parser = StreamParser::new(Start::Reasoning, Tools::Offered);
    assert_eq!(feed(&mut parser, "\n\nwhy"), [reasoning("why")]);
    assert_eq!(feed(&mut parser, " not\n"), [reasoning(" not")]);
    assert_eq!(feed(&mut parser, "</th"), []);
    assert_eq!(feed(&mut parser, "is>"), [reasoning("\n</this>")]);
    assert_eq!(feed(&mut parser, "\n\n</think>\n"), []);
    assert_eq!(feed(&mut parser, "a < b <"), [content("a < b ")]);
    assert_eq!(feed(&mut parser, "｜DSML"), []);
    assert_eq!(feed(&mut parser, "｝"), [content("<｜DSML｝")]);
    assert_eq!(parser.finish(), [Event::Finish(Finish::Stop)]);
}

#[test]
fn a_call_comes_out_piece_by_piece() {
    let arguments = |index, json: &str| Event::Arguments { index, json: json.to_owned() };
    let mut parser = StreamParser::new(Start::Content, Tools::Offered);
    assert_eq!(
        feed(&mut parser, "ok\n\n<｜DSML｜tool_calls>\n<｜DSML｜invoke name=\"ba"),
        [content("ok")]
    );
    let begin = Event::CallBegin { index: 0, name: "bash".to_owned() };
    assert_eq!(
        feed(&mut parser, "sh\">\n<｜DSML｜parameter name=\"c"),
        [begin, arguments(0, "{\"c")]
    );
    assert_eq!(
        feed(&mut parser, "md\" string=\"true\">say \"hi"),
        [arguments(0, "md\": \"say \\\"hi")]
    );
    assert_eq!(feed(&mut parser, "\"\n</"), [arguments(0, "\\\"\\n")]);
    assert_eq!(feed(&mut parser, "｜DSML｜parameter>\n"), [arguments(0, "\"")]);
    let end = Event::CallEnd { index: 0 };
    assert_eq!(
        feed(&mut parser, "</｜DSML｜invoke>\n</｜DSML｜tool_calls>"),
        [arguments(0, "}"), end]
    );
    assert_eq!(parser.finish(), [Event::Finish(Finish::ToolCalls)]);
}

#[test]
fn a_marker_spelled_with_ordinary_tokens_is_text_when_tokens_are_known() {
    let mut parser = StreamParser::new(Start::Reasoning, Tools::Offered);
    let mut completion = Completion::default();
    for (piece, origin) in [
        ("a</think>b<｜DSML｜tool_calls>\n", Origin::Ordinary),
        ("</think>", Origin::Special),
        ("c<", Origin::Ordinary),
        ("｜DSML｜", Origin::Special),
        ("tool_calls>\n<", Origin::Ordinary),
        ("｜DSML｜", Origin::Special),
        ("invoke name=\"f\">\n<", Origin::Ordinary),
        ("｜DSML｜", Origin::Special),
        ("parameter name=\"p\" string=\"true\">x</｜DSML｜parameter></", Origin::Ordinary),
        ("｜DSML｜", Origin::Special),
        ("parameter>\n</", Origin::Ordinary),
        ("｜DSML｜", Origin::Special),
        ("invoke>", Origin::Ordinary),
    ] {
        completion.extend(parser.feed(piece, origin));
    }
    completion.extend(parser.finish());
    assert_eq!(completion.reasoning, "a</think>b<｜DSML｜tool_calls>");
    assert_eq!(completion.content, "c");
    let call = completion.tool_calls.first().expect("one call");
    assert_eq!(call.arguments, r#"{"p": "x</｜DSML｜parameter>"}"#);
    assert!(call.is_complete);
}

fn check(text: &str, start: Start, expected: (&str, &str, &[(&str, &str, bool)])) {
    let found = Completion::read(text, start, Tools::Offered);
    let calls: Vec<_> = found
        .tool_calls
        .iter()
        .map(|call| (call.name.as_str(), call.arguments.as_str(), call.is_complete))
        .collect();
    assert_eq!(
        (found.reasoning.as_str(), found.content.as_str(), calls.as_slice()),
        expected,
        "{text}"
    );
}

#[test]
fn odd_markup_is_read_for_what_it_means() {
    // A name that needs escaping, one with a space, and a parameter without its attribute.
    check(
        "<｜DSML｜invoke name=\"f\"><｜DSML｜parameter name=\"a\"b c\" string=\"false\">1</｜DSML｜parameter>\
         <｜DSML｜parameter name=\"d\">2</｜DSML｜parameter>\
         <｜DSML｜parameter name=\"e\" string=\"yes\">3</｜DSML｜parameter></｜DSML｜invoke>",
        Start::Content,
        ("", "", &[("f", "{\"a\\\"b c\": 1, \"d\": \"2\", \"e\": \"3\"}", true)]),
    );
    // Broken off inside a value: the call is there, and marked.
    check(
        "<｜DSML｜invoke name=\"f\"><｜DSML｜parameter name=\"a\" string=\"true\">rm -rf /</｜DSML",
        Start::Content,
        ("", "", &[("f", "{\"a\": \"rm -rf /</｜DSML", false)]),
    );
    // Broken off before the name is complete: nothing to call.
    check("x\n\n<｜DSML｜tool_calls>\n<｜DSML｜invoke name=\"f", Start::Content, ("", "x", &[]));
    // Newlines behind a `<` that came to nothing are still dropped before a tag.
    check("a <\n\n<｜DSML｜tool_calls>", Start::Content, ("", "a <", &[]));
}

#[test]
fn a_continued_turn_keeps_its_leading_newlines() {
    check("\n\nx</think>\n\ny", Start::ReasoningContinued, ("\n\nx", "y", &[]));
    check("\n\ny", Start::ContentContinued, ("", "\n\ny", &[]));
    check(
        "<｜DSML｜invoke name=\"f\">\n</｜DSML｜invoke>",
        Start::ToolCalls,
        ("", "", &[("f", "{}", true)]),
    );
}

#[test]
fn time_is_linear_in_hostile_text() {
    // Each of these would be quadratic if held text were looked at again for every character.
    for unit in ["\n", "<", "</", "<｜", "</think", "\n<"] {
        for (start, tools) in
            [(Start::Reasoning, Tools::Offered), (Start::ContentContinued, Tools::None)]
        {
            let text = unit.repeat(300_000);
            let mut parser = StreamParser::new(start, tools);
            let mut completion = Completion::default();
            for character in text.chars() {
                completion.extend(parser.feed(character.encode_utf8(&mut [0; 4]), Origin::Unknown));
            }
            completion.extend(parser.finish());
            assert!(text.ends_with(&(completion.reasoning + &completion.content)));
        }
    }
}

/// Text in which markers and their pieces are as likely as anything else.
fn hostile_text() -> impl Strategy<Value = String> {
    let pieces = prop::sample::select(vec![
        "</think>",
        "<think>",
        "\n",
        "\n\n",
        "<",
        "</",
        "｜DSML｜",
        "<｜DSML｜",
        "</｜DSML｜",
        "tool_calls>",
        " calls>",
        "invoke name=\"",
        "parameter name=\"",
        "\" string=\"",
        "true",
        "false",
        "\">",
        "\"",
        " ",
        "a",
        "é",
        "｜",
        "{",
    ]);
    prop::collection::vec(
        prop_oneof![4 => pieces.prop_map(str::to_owned), 1 => any::<String>()],
        0..30,
    )
    .prop_map(|pieces| pieces.concat())
}

proptest! {
    #[test]
    fn cutting_changes_nothing(text in hostile_text(), cuts in prop::collection::vec(1usize..9, 1..20),
                               thinking in any::<bool>(), tools in any::<bool>()) {
        let start = if thinking { Start::Reasoning } else { Start::Content };
        let tools = if tools { Tools::Offered } else { Tools::None };
        let whole = Completion::read(&text, start, tools);
        let mut parser = StreamParser::new(start, tools);
        let mut completion = Completion::default();
        let characters: Vec<char> = text.chars().collect();
        let mut rest = characters.as_slice();
        for cut in cuts.iter().cycle() {
            if rest.is_empty() {
                break;
            }
            let (piece, behind) = rest.split_at((*cut).min(rest.len()));
            completion.extend(parser.feed(&piece.iter().collect::<String>(), Origin::Unknown));
            rest = behind;
        }
        completion.extend(parser.finish());
        prop_assert_eq!(completion, whole);
    }

    #[test]
    fn without_tools_only_think_ends_are_lost(text in hostile_text()) {
        let found = Completion::read(&text, Start::ContentContinued, Tools::None);
        prop_assert_eq!(found.content, text.replace("</think>", ""));
    }
}
