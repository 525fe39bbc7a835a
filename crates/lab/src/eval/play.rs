//! Playing one test: the model speaks, its tools answer from the script, until it is wrong or done.

use std::{ops::ControlFlow, sync::Arc};

use ds4_engine::{Engine, Sampler, Session, SessionOptions};
use ds4_prompt::{EOS, Message, Mode, Options, Profile, encode, parse_completion};
use ds4_tokenizer::Tokenizer;

use super::items::Item;
use crate::LabError;

/// No right answer of a test set is longer.
const LONGEST_TURN: usize = 256;

/// How a test went.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// The test.
    pub id: String,
    /// Why it is failed; `None` if it is passed.
    pub objection: Option<String>,
    /// All that the model said.
    pub said: String,
    /// Tokens that the model said.
    pub tokens: usize,
}

/// Plays tests, one after the other, always with the most probable token.
pub struct Player<'a> {
    session: Session,
    greedy: Sampler,
    tokenizer: &'a Tokenizer,
}

impl<'a> Player<'a> {
    /// A player with a session of its own.
    pub fn new(
        engine: &Arc<Engine>,
        tokenizer: &'a Tokenizer,
        options: SessionOptions,
    ) -> Result<Player<'a>, LabError> {
        let greedy = Sampler::greedy([]);
        let mut session = engine.session(options)?;
        session.expect(&greedy);
        Ok(Player { session, greedy, tokenizer })
    }

    /// Plays a test.
    pub fn play(&mut self, item: &Item) -> Result<Outcome, LabError> {
        let mode = if item.thinking { Mode::Thinking } else { Mode::Chat };
        let options = Options::new(Profile::Official, mode);
        let mut history = item.opening.clone();
        let (mut said, mut tokens) = (String::new(), 0);
        let mut objection = None;
        for turn in &item.turns {
            let prompt = encode(&history, &options)?;
            let prompt = self.tokenizer.encode_prompt(&prompt.text, &prompt.specials)?;
            if prompt.len() + LONGEST_TURN > self.session.context() {
                let (needed, room) = (prompt.len() + LONGEST_TURN, self.session.context());
                objection = Some(format!("needs a context of {needed}, there is one of {room}"));
                break;
            }
            let (text, count) = self.speak(&prompt)?;
            tokens += count;
            said.push_str(&text);
            let mut answer = match parse_completion(&text, mode) {
                Ok(answer) if text.ends_with(EOS) => answer,
                Ok(_) => {
                    objection = Some("it does not stop".into());
                    break;
                }
                Err(error) => {
                    objection = Some(error.to_string());
                    break;
                }
            };
            objection = turn.expect.objection(&answer);
            if objection.is_some() {
                break;
            }
            // Results are sorted by the names of their calls.
            for (place, call) in answer.tool_calls.iter_mut().enumerate() {
                call.id = format!("{place:03}");
            }
            history.push(answer);
            let results = turn.results.iter().enumerate();
            history.extend(results.map(|(place, text)| Message::tool(format!("{place:03}"), text)));
        }
        Ok(Outcome { id: item.id.clone(), objection, said, tokens })
    }

    /// What the model says to a prompt, end of sentence included, and in how many tokens.
    fn speak(&mut self, prompt: &[u32]) -> Result<(String, usize), LabError> {
        self.session.sync(prompt, &mut |_| ControlFlow::Continue(()))?;
        let mut ids = Vec::new();
        while ids.len() < LONGEST_TURN {
            let Some(id) = self.session.draw(&self.greedy)? else { break };
            ids.push(id);
            if Some(id) == self.tokenizer.eos() {
                break;
            }
            self.session.push(id)?;
        }
        Ok((self.tokenizer.decode(&ids), ids.len()))
    }
}
