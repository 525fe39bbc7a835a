//! Going on with a live conversation: the tokens so far are in the model's state, and only what
//! comes behind them is rendered.

use crate::{
    encode::{self, Options},
    error::EncodeError,
    message::Message,
    prompt::Prompt,
};

/// What to append to a timeline that ends with the model's own answer, to make it answer `new`
/// messages.
///
/// `history` is the conversation so far; its last message is the answer, with [`Message::sampled`]
/// as the model gave it (and its tool calls, if `new` brings their results). The result closes the
/// answer if it was cut off, and ends with the opener of the next one.
///
/// What is in the timeline stays in it. So this equals the end of the whole conversation, rendered
/// anew, as long as every answer in `history` is [`crate::Sampled`] and it has no developer
/// messages. Otherwise the whole rendering would go back on itself: at a new user turn it drops the
/// reasoning of answers that are not replayed, and developer messages altogether (unless
/// [`Options::drop_reasoning`] is off, or there are tools).
pub fn next_turn(
    history: &[Message],
    new: &[Message],
    options: &Options,
) -> Result<Prompt, EncodeError> {
    let answer = history
        .last()
        .and_then(|last| last.sampled.as_ref())
        .ok_or(EncodeError::NoSampledAnswer)?;
    let mut prompt = Prompt::new();
    if !answer.ended {
        prompt.push_structure("<｜end▁of▁sentence｜>");
    }
    encode::encode_behind(history, new, options, &mut prompt)?;
    Ok(prompt)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{
        encode::encode,
        message::{Sampled, ToolCall},
        profile::{Effort, Mode, Profile},
        pyjson::{Dialect, Value},
    };

    fn sampled(text: &str, thinking: bool, ended: bool) -> Message {
        let mut prompt = Prompt::new();
        for piece in text.split_inclusive("</think>") {
            match piece.strip_suffix("</think>") {
                Some(before) if thinking => {
                    prompt.push_sampled(before, false);
                    prompt.push_sampled("</think>", true);
                }
                _ => prompt.push_sampled(piece, false),
            }
        }
        Message {
            sampled: Some(Sampled { text: prompt, thinking, ended }),
            ..Message::assistant("")
        }
    }

    /// Plays `turns` (answers at odd places) and checks the growing timeline against rendering
    /// anew.
    fn check(turns: &[Message], options: &Options) {
        let mut timeline = Prompt::new();
        let mut history: Vec<Message> = Vec::new();
        for group in turns.chunk_by(|a, b| a.sampled.is_none() && b.sampled.is_none()) {
            if let [answer @ Message { sampled: Some(sampled), .. }] = group {
                timeline.push_prompt(&sampled.text);
                if sampled.ended {
                    timeline.push_structure("<｜end▁of▁sentence｜>");
                }
                history.push(answer.clone());
                continue;
            }
            if history.is_empty() {
                timeline = encode(group, options).expect("encodes");
            } else {
                timeline.push_prompt(&next_turn(&history, group, options).expect("encodes"));
            }
            history.extend_from_slice(group);
            assert_eq!(timeline, encode(&history, options).expect("encodes"));
        }
    }

    #[test]
    fn a_growing_timeline_equals_the_whole() {
        for (mode, thinking) in [(Mode::Thinking, true), (Mode::Chat, false)] {
            let mut options = Options::new(Profile::Official, mode);
            options.effort = Some(Effort::High);
            let conversation = [
                Message::system("be brief"),
                Message::user("one"),
                sampled("\n hm</think>first ", thinking, true),
                Message::user("two"),
                Message::user("and more"),
                sampled("never finished", thinking, false),
                Message::user("three"),
            ];
            check(&conversation, &options);
        }
    }

    #[test]
    fn results_are_appended_in_the_order_of_the_sampled_calls() {
        let mut answer = sampled("r</think>\n\n<｜DSML｜tool_calls> as it came", true, true);
        answer.tool_calls = vec![ToolCall::new("x", "f", "{}"), ToolCall::new("a", "f", "{}")];
        let mut system = Message::system("");
        system.tools = vec![Value::parse(r#"{"name":"f"}"#, Dialect::Python).expect("valid")];
        let conversation = [
            system,
            Message::user("go"),
            answer,
            Message::tool("a", "second"),
            Message::tool("x", "first"),
            sampled("</think>done", true, true),
            Message::user("thanks"),
        ];
        check(&conversation, &Options::new(Profile::Preview, Mode::Thinking));
        let next = next_turn(
            &conversation[..3],
            &conversation[3..5],
            &Options::new(Profile::Preview, Mode::Thinking),
        )
        .expect("encodes");
        assert_eq!(
            next.text,
            "<｜User｜><tool_result>first</tool_result>\n\n<tool_result>second</tool_result><｜Assistant｜><think>"
        );
    }

    #[test]
    fn switching_thinking_off_leaves_past_openers_alone() {
        let history = [Message::user("q"), sampled("r</think>a", true, true)];
        let options = Options::new(Profile::Preview, Mode::Chat);
        let next = next_turn(&history, &[Message::user("p")], &options).expect("encodes");
        assert_eq!(next.text, "<｜User｜>p<｜Assistant｜></think>");
        let whole = [&history[..], &[Message::user("p")]].concat();
        let whole = encode(&whole, &options).expect("encodes").text;
        assert!(
            whole.contains("<｜Assistant｜><think>r</think>a<｜end▁of▁sentence｜><｜User｜>p"),
            "{whole}"
        );
    }

    #[test]
    fn a_rendered_answer_is_no_end_of_a_timeline() {
        let history = [Message::user("q"), Message::assistant("a")];
        let options = Options::new(Profile::Preview, Mode::Chat);
        let found = next_turn(&history, &[Message::user("p")], &options);
        assert_eq!(found, Err(EncodeError::NoSampledAnswer));
    }

    proptest! {
        #[test]
        fn any_chat_grows_by_its_end(texts in prop::collection::vec((".{0,12}", ".{0,12}", any::<bool>()), 1..6),
                                     thinking in any::<bool>()) {
            let mut turns = Vec::new();
            for (question, answer, ended) in texts {
                turns.push(Message::user(question));
                turns.push(sampled(&answer, thinking, ended));
            }
            turns.push(Message::user("last"));
            let mode = if thinking { Mode::Thinking } else { Mode::Chat };
            check(&turns, &Options::new(Profile::Official, mode));
        }
    }
}
