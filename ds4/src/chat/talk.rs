//! A conversation that goes on: the turns as tokens, exactly as they were sampled, and a session that
//! has most of them evaluated already.

use std::{
    io::{self, Write},
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use ds4_engine::{Sampler, SamplerOptions, Session, SessionOptions};
use ds4_host::peak_resident_bytes;
use ds4_prompt::{Message, Prompt, Sampled, Thinking};
use ds4_tokenizer::{Decoder, Tokenizer};

use super::{saved::Saved, settled, thinking_name};
use crate::{
    fault::Fault,
    generate::{self, Answered, Finish, Limits, Prefill},
    load::Loaded,
    plan::{self, Answer, Manner},
    render,
    speak::Speaker,
    term::{Class, Term, human_bytes},
};

/// Positions that a saved conversation can take back without work.
const SAVED_REWIND: usize = 128;

pub struct Talk {
    loaded: Loaded,
    manner: Manner,
    sampler: Sampler,
    most_tokens: usize,
    stop: Arc<AtomicBool>,
    term: Term,
    session: Session,
    /// Everything behind the head, down to the last answer, without its end of sentence.
    turns: Vec<u32>,
    /// The same as messages.
    messages: Vec<Message>,
}

impl Talk {
    pub fn new(
        loaded: Loaded,
        manner: Manner,
        answer: &Answer,
        stop: Arc<AtomicBool>,
        term: Term,
    ) -> Result<Talk, Fault> {
        let seed = answer.seed();
        if let Some(why) = &seed.why {
            term.say(Class::Plain, why);
        }
        let options = SamplerOptions { seed: seed.effective, ..answer.sampling.clone() };
        let sampler = Sampler::new(options)?;
        let session = loaded.engine.session(loaded.session)?;
        let talk = Talk {
            loaded,
            manner,
            sampler,
            most_tokens: answer.tokens,
            stop,
            term,
            session,
            turns: Vec::new(),
            messages: Vec::new(),
        };
        render::settle_thinking(talk.manner.thinking, talk.session.context(), term);
        Ok(talk)
    }

    /// Says something and prints the answer. If there is none, it is as if nothing had been said.
    pub fn answer(&mut self, text: &str, out: &mut dyn Write) -> Result<(), Fault> {
        let turns = self.turns.len();
        let result = self.try_answer(text, out);
        if !matches!(result, Ok(true)) {
            self.turns.truncate(turns);
        }
        result.map(|_| ())
    }

    /// Whether there is an answer.
    fn try_answer(&mut self, text: &str, out: &mut dyn Write) -> Result<bool, Fault> {
        self.stop.store(false, Ordering::Relaxed);
        let tokenizer = &self.loaded.tokenizer;
        let (thinking, _) = settled(self.manner.thinking, self.session.context());
        let head = render::head(tokenizer, &self.manner, thinking)?;
        let turn = render::turn(tokenizer, &self.manner, thinking, &self.messages, text)?;
        self.turns.extend(turn);
        let timeline = [head, self.turns.clone()].concat();

        let prefill = generate::prefill(&mut self.session, &timeline, &self.stop, self.term)?;
        if prefill.sync.interrupted {
            self.term.say(Class::Warning, "stopped; the message is taken back");
            return Ok(false);
        }
        let opens_with_thoughts = render::opens_with_thoughts(&self.manner, thinking);
        let mut speaker = Speaker::new(tokenizer, out, self.term, opens_with_thoughts);
        let limits = Limits { tokens: self.most_tokens, eos: tokenizer.eos(), stop: &self.stop };
        let answered = generate::generate(&mut self.session, &self.sampler, &limits, &mut |id| {
            Ok(speaker.token(id)?)
        })?;
        speaker.finish()?;
        self.say_how_it_ended(&prefill, &answered);
        if answered.tokens.is_empty() && answered.finish == Finish::Interrupted {
            return Ok(false);
        }
        self.messages.push(Message::user(text));
        self.messages.push(answer_message(tokenizer, &answered.tokens, opens_with_thoughts));
        self.turns.extend(answered.tokens);
        Ok(true)
    }

    fn say_how_it_ended(&self, prefill: &Prefill, answered: &Answered) {
        match answered.finish {
            Finish::EndOfSentence => {}
            Finish::Interrupted if answered.tokens.is_empty() => {
                self.term.say(Class::Warning, "stopped; the message is taken back");
            }
            Finish::Interrupted => self.term.say(Class::Warning, "stopped; what was said stays"),
            Finish::Length => {
                let line = format!("cut off after {} tokens", answered.tokens.len());
                self.term.say(Class::Warning, &line);
            }
        }
        generate::say_stats(self.term, prefill, answered);
    }

    /// Thinks otherwise from the next turn on.
    pub fn think(&mut self, thinking: Thinking) {
        self.manner.thinking = thinking;
        let (_, line) = settled(thinking, self.session.context());
        self.term.say(Class::Plain, &format!("thinking: {line}"));
    }

    /// Goes on with another limit. The state is made again at the next turn.
    pub fn set_context(&mut self, requested: usize) -> Result<(), Fault> {
        let setting = plan::context(Some(requested), self.loaded.engine.model().config.max_context);
        if let Some(why) = &setting.why {
            self.term.say(Class::Warning, why);
        }
        self.loaded.check_context(setting.effective, self.term)?;
        let options = SessionOptions { context: setting.effective, ..self.loaded.session };
        self.session = self.loaded.engine.session(options)?;
        self.loaded.session = options;
        let line = format!("context {}; the next turn reads everything again", setting.effective);
        self.term.say(Class::Plain, &line);
        Ok(())
    }

    pub fn write_stats(&self, out: &mut dyn Write) -> io::Result<()> {
        let state = self.loaded.engine.state_bytes().unwrap_or(0) as u64;
        writeln!(out, "model      {}", self.loaded.name)?;
        writeln!(out, "thinking   {}", settled(self.manner.thinking, self.session.context()).1)?;
        writeln!(out, "messages   {}", self.messages.len())?;
        writeln!(out, "tokens     {} of {}", self.session.len(), self.session.context())?;
        writeln!(out, "state      {}", human_bytes(state))?;
        if let Some(peak) = peak_resident_bytes() {
            writeln!(out, "memory     {} at most so far", human_bytes(peak))?;
        }
        writeln!(out, "seed       {}", self.sampler.options().seed)?;
        out.flush()
    }

    pub fn save(&self, path: &Path) -> Result<(), Fault> {
        Saved {
            system: self.manner.system.clone(),
            thinking: self.manner.thinking,
            profile: self.manner.profile,
            seed: self.sampler.options().seed,
            turns: self.turns.clone(),
            messages: self.messages.clone(),
            state: self.session.export(SAVED_REWIND)?,
        }
        .write(path)
    }

    /// Goes on with a saved conversation. If it cannot be taken, this one stays.
    pub fn load(&mut self, path: &Path) -> Result<(), Fault> {
        let saved = Saved::read(path)?;
        let fault =
            |error: &dyn std::fmt::Display| Fault::failed(format!("{}: {error}", path.display()));
        let vocab = self.loaded.engine.model().config.vocab;
        if let Some(id) = saved.turns.iter().find(|id| **id as usize >= vocab) {
            return Err(fault(&format!("token {id} is not in the model's vocabulary of {vocab}")));
        }
        let options = SamplerOptions { seed: saved.seed, ..self.sampler.options().clone() };
        let sampler = Sampler::new(options)?;
        let session = self.loaded.engine.import(&saved.state, self.loaded.session);
        self.session = session.map_err(|error| fault(&error))?;
        self.sampler = sampler;
        self.manner =
            Manner { system: saved.system, thinking: saved.thinking, profile: saved.profile };
        self.turns = saved.turns;
        self.messages = saved.messages;
        let line = format!(
            "{} messages, {} tokens, {}, seed {}",
            self.messages.len(),
            self.session.len(),
            thinking_name(self.manner.thinking),
            saved.seed
        );
        self.term.say(Class::Plain, &line);
        Ok(())
    }
}

/// The answer as a message: what it is made of decides what can be put behind it.
fn answer_message(tokenizer: &Tokenizer, ids: &[u32], thinking: bool) -> Message {
    let mut text = Prompt::new();
    let mut decoder = Decoder::new();
    for &id in ids {
        let mut piece = String::new();
        decoder.push(tokenizer, id, &mut piece);
        text.push_sampled(&piece, tokenizer.is_marker(id));
    }
    let mut rest = String::new();
    decoder.finish(&mut rest);
    text.push_sampled(&rest, false);
    // The next turn closes it, whether the model did or not: its end of sentence is not evaluated yet.
    let sampled = Sampled { text, thinking, ended: false };
    Message { sampled: Some(sampled), ..Message::assistant("") }
}
