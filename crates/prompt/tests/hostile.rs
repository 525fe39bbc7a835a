//! Messages and requests from nowhere: whatever JSON arrives, the answer is a prompt or an error.

use ds4_prompt::{
    Conversation, Mode, Options, Profile, conversation_from_request, encode, messages_from_json,
    pyjson::{Dialect, Value},
};
use proptest::prelude::*;

fn check(text: &str) {
    for dialect in [Dialect::Python, Dialect::Hosted] {
        let Ok(value) = Value::parse(text, dialect) else { continue };
        for profile in [Profile::Preview, Profile::Official, Profile::Hosted] {
            if let Ok(conversation) = conversation_from_request(&value) {
                let _ = conversation.render(profile);
            }
            for mode in [Mode::Chat, Mode::Thinking] {
                if let Ok(messages) = messages_from_json(&value) {
                    let _ = encode(&messages, &Options::new(profile, mode));
                    let _ = Conversation::new(messages, mode).render(profile);
                }
            }
        }
    }
}

/// JSON whose keys and values are the words of messages and requests, in any combination.
fn plausible() -> impl Strategy<Value = String> {
    let words = [
        "role",
        "content",
        "system",
        "developer",
        "user",
        "assistant",
        "tool",
        "latest_reminder",
        "tools",
        "function",
        "name",
        "parameters",
        "type",
        "text",
        "image_url",
        "url",
        "tool_calls",
        "tool_call_id",
        "id",
        "arguments",
        "task",
        "action",
        "wo_eos",
        "prefix",
        "reasoning_content",
        "response_format",
        "json_schema",
        "schema",
        "strict",
        "object",
        "properties",
        "messages",
        "thinking",
        "enabled",
        "tool_choice",
        "required",
        "{}",
        "",
    ];
    let word = prop::sample::select(words.to_vec());
    let leaf = prop_oneof![
        3 => word.clone().prop_map(|word| format!("\"{word}\"")),
        1 => prop::sample::select(vec!["null", "true", "0", "1.5", "NaN", "[]", "{}"]).prop_map(str::to_owned),
    ];
    leaf.prop_recursive(5, 48, 5, move |inner| {
        prop_oneof![
            1 => prop::collection::vec(inner.clone(), 0..5).prop_map(|items| format!("[{}]", items.join(","))),
            3 => prop::collection::vec((word.clone(), inner), 0..6).prop_map(|members| {
                let members: Vec<_> =
                    members.iter().map(|(key, value)| format!("\"{key}\":{value}")).collect();
                format!("{{{}}}", members.join(","))
            }),
        ]
    })
}

#[test]
fn shapes_that_almost_fit() {
    for text in [
        "[]",
        "[1]",
        r#"[{"role":"user","content":"x","tools":3}]"#,
        r#"[{"role":"assistant","tool_calls":[{}]}]"#,
        r#"[{"role":"assistant","tool_calls":[{"function":{"name":"f","arguments":"{\"a\":1}"}}]},{"role":"tool"}]"#,
        r#"[{"role":"user","content":"x","task":"query"},{"role":"tool","content":{}},{"role":"user","content":"y"}]"#,
        r#"{"messages":[{"role":"tool","tool_call_id":"a","content":"x"}]}"#,
        r#"{"messages":[{"role":"assistant","content":"x","prefix":true}]}"#,
        r#"{"messages":[{"role":"user","content":"x"}],"tools":[{"type":"function","function":{"name":""}}]}"#,
    ] {
        check(text);
    }
}

proptest! {
    #[test]
    fn lists_of_messages(items in prop::collection::vec(plausible(), 0..5)) {
        check(&format!("[{}]", items.join(",")));
    }

    #[test]
    fn requests(messages in prop::collection::vec(plausible(), 0..4), tools in plausible(), rest in plausible()) {
        let messages = messages.join(",");
        check(&format!("{{\"messages\":[{messages}],\"tools\":[{tools}],\"response_format\":{rest}}}"));
    }
}
