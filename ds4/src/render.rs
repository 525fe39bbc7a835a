//! From a conversation to token ids, in the manner that was asked for.

use ds4_prompt::{
    ASSISTANT, BOS, END_THINK, EOS, Message, Mode, Options, THINK, Thinking, USER, encode,
    encode_after, next_turn,
};
use ds4_tokenizer::Tokenizer;

use crate::{
    fault::Fault,
    load::Loaded,
    plan::{self, Manner, Prompt},
    term::{Class, Term},
};

/// What a tokenizer needs for a conversation.
const MARKERS: [&str; 6] = [BOS, EOS, USER, ASSISTANT, THINK, END_THINK];

/// The markers of a conversation that a tokenizer does not have.
pub fn missing_markers(tokenizer: &Tokenizer) -> Vec<&'static str> {
    MARKERS.into_iter().filter(|marker| tokenizer.marker(marker).is_none()).collect()
}

/// Refuses a model that cannot hold a conversation.
pub fn need_markers(loaded: &Loaded) -> Result<(), Fault> {
    let missing = missing_markers(&loaded.tokenizer);
    if missing.is_empty() {
        return Ok(());
    }
    Err(Fault::failed(format!(
        "{}: its tokenizer lacks {}, so it cannot hold a conversation; `run --raw` takes a prompt as it is",
        loaded.name,
        missing.join(" ")
    )))
}

/// How to render, thinking like this.
fn options(manner: &Manner, thinking: Thinking) -> Options {
    let (mode, effort) = thinking.settings(manner.profile);
    Options { effort, ..Options::new(manner.profile, mode) }
}

/// One prompt, and whether its answer begins with thoughts.
pub struct Rendered {
    pub tokens: Vec<u32>,
    pub thinking: bool,
}

/// Renders one prompt for a session of `context` tokens.
pub fn prompt(
    loaded: &Loaded,
    manner: &Manner,
    prompt: &Prompt,
    term: Term,
) -> Result<Rendered, Fault> {
    let tokenizer = &loaded.tokenizer;
    if prompt.raw {
        let tokens = tokenizer.encode_with_markers(&prompt.text);
        let last = |marker| tokens.iter().rposition(|id| Some(*id) == tokenizer.marker(marker));
        return Ok(Rendered { thinking: last(THINK) > last(END_THINK), tokens });
    }
    need_markers(loaded)?;
    if prompt.text.starts_with(BOS) {
        let line =
            format!("the prompt begins with {BOS}, taken as text; --raw takes it as a marker");
        term.say(Class::Warning, &line);
    }
    let thinking = settle_thinking(manner.thinking, loaded.session.context, term);
    let messages = [system(manner), Message::user(prompt.text.clone())];
    let rendered = encode(&messages, &options(manner, thinking))?;
    Ok(Rendered {
        tokens: tokenizer.encode_prompt(&rendered.text, &rendered.specials)?,
        thinking: thinking != Thinking::Off,
    })
}

/// How the model will think, said aloud where it is not as asked.
pub fn settle_thinking(requested: Thinking, context: usize, term: Term) -> Thinking {
    let setting = plan::thinking(requested, context);
    if let Some(why) = &setting.why {
        term.say(Class::Warning, why);
    }
    setting.effective
}

/// Empty system text renders nothing, but the words that urge to think stand before the first message,
/// whatever it is.
fn system(manner: &Manner) -> Message {
    Message::system(manner.system.clone())
}

/// What stands before all turns of a chat.
pub fn head(tokenizer: &Tokenizer, manner: &Manner, thinking: Thinking) -> Result<Vec<u32>, Fault> {
    let rendered = encode(&[system(manner)], &options(manner, thinking))?;
    Ok(tokenizer.encode_prompt(&rendered.text, &rendered.specials)?)
}

/// What a user message adds behind `history`, the turns so far, each answer as it was sampled.
pub fn turn(
    tokenizer: &Tokenizer,
    manner: &Manner,
    thinking: Thinking,
    history: &[Message],
    text: &str,
) -> Result<Vec<u32>, Fault> {
    let options = options(manner, thinking);
    let new = [Message::user(text)];
    let rendered = if history.is_empty() {
        encode_after(&[system(manner)], &new, &options)?
    } else {
        next_turn(history, &new, &options)?
    };
    Ok(tokenizer.encode_prompt(&rendered.text, &rendered.specials)?)
}

/// Whether an answer in this mode opens with thoughts.
pub fn opens_with_thoughts(manner: &Manner, thinking: Thinking) -> bool {
    thinking.settings(manner.profile).0 == Mode::Thinking
}

#[cfg(test)]
mod tests {
    use ds4_prompt::{Profile, Sampled};

    use super::*;
    use crate::builtin;

    fn manner(system: &str) -> Manner {
        let system = system.to_owned();
        Manner { system, thinking: Thinking::On, profile: Profile::Official }
    }

    #[test]
    fn head_and_turns_add_up_to_the_whole() {
        let tokenizer = Tokenizer::from_gguf(&builtin::open().unwrap()).unwrap();
        for system_text in ["", "be brief", "\nodd"] {
            for thinking in [Thinking::Off, Thinking::On, Thinking::Max] {
                let manner = manner(system_text);
                let mut timeline = head(&tokenizer, &manner, thinking).unwrap();
                timeline.extend(turn(&tokenizer, &manner, thinking, &[], "one").unwrap());
                timeline.extend(tokenizer.encode("fine"));
                let mut text = ds4_prompt::Prompt::new();
                text.push_text("fine");
                let sampled = Sampled { text, thinking: thinking != Thinking::Off, ended: false };
                let answer = Message { sampled: Some(sampled), ..Message::assistant("") };
                let history = [Message::user("one"), answer.clone()];
                timeline.extend(turn(&tokenizer, &manner, thinking, &history, "two").unwrap());

                let all = [system(&manner), Message::user("one"), answer, Message::user("two")];
                let whole = encode(&all, &options(&manner, thinking)).unwrap();
                let whole = tokenizer.encode_prompt(&whole.text, &whole.specials).unwrap();
                assert_eq!(timeline, whole, "{system_text:?} {thinking:?}");
            }
        }
    }

    #[test]
    fn the_builtin_model_can_talk() {
        let tokenizer = Tokenizer::from_gguf(&builtin::open().unwrap()).unwrap();
        assert!(missing_markers(&tokenizer).is_empty());
    }
}
