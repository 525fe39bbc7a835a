//! The two halves of an answer: reading the prompt, and drawing tokens until something stops it.

use std::{
    ops::ControlFlow,
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant},
};

use ds4_engine::{Sampler, Session, Sync};

use crate::{
    fault::Fault,
    term::{Class, Term},
};

/// A prompt that was read.
pub struct Prefill {
    pub sync: Sync,
    pub time: Duration,
}

/// Makes the session equal to `tokens`, with progress on the terminal, until `stop`.
pub fn prefill(
    session: &mut Session,
    tokens: &[u32],
    stop: &AtomicBool,
    term: Term,
) -> Result<Prefill, Fault> {
    let room = session.context();
    if tokens.len() >= room {
        let prompt = tokens.len();
        return Err(Fault::failed(format!(
            "the prompt has {prompt} tokens, and a context of {room} has no room for an answer"
        )));
    }
    let start = Instant::now();
    let mut line = term.progress();
    let sync = session.sync(tokens, &mut |at| {
        let (done, total) = (at.done - at.reused, at.total - at.reused);
        let percent = 100 * done / total.max(1);
        let text = format!("reading {total} tokens: {done}/{total} ({percent}%)");
        match done {
            0 => line.flash(&text),
            done if done < total => line.show(&text),
            _ => {}
        }
        if stop.load(Ordering::Relaxed) {
            ControlFlow::Break(())
        } else {
            ControlFlow::Continue(())
        }
    })?;
    Ok(Prefill { sync, time: start.elapsed() })
}

/// Why an answer ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Finish {
    /// The model said so.
    EndOfSentence,
    /// As many tokens as were allowed.
    Length,
    /// The person said so.
    Interrupted,
}

/// An answer.
pub struct Answered {
    /// Without the end of sentence.
    pub tokens: Vec<u32>,
    pub finish: Finish,
    pub time: Duration,
}

/// What an answer must keep to.
pub struct Limits<'a> {
    pub tokens: usize,
    pub eos: Option<u32>,
    pub stop: &'a AtomicBool,
}

/// Draws tokens until the end of sentence, a limit, or `stop`. The session then holds them all.
pub fn generate(
    session: &mut Session,
    sampler: &Sampler,
    limits: &Limits<'_>,
    each: &mut dyn FnMut(u32) -> Result<(), Fault>,
) -> Result<Answered, Fault> {
    let start = Instant::now();
    // One position stays free: an answer is followed by its end of sentence.
    let room = session.context().saturating_sub(session.len() + 1);
    let most = limits.tokens.min(room);
    let mut tokens = Vec::new();
    session.expect(sampler);
    let finish = loop {
        if tokens.len() == most {
            break Finish::Length;
        }
        if limits.stop.load(Ordering::Relaxed) {
            break Finish::Interrupted;
        }
        let id = draw(session, sampler)?;
        if Some(id) == limits.eos {
            break Finish::EndOfSentence;
        }
        each(id)?;
        tokens.push(id);
        session.push(id)?;
    };
    Ok(Answered { tokens, finish, time: start.elapsed() })
}

fn draw(session: &mut Session, sampler: &Sampler) -> Result<u32, Fault> {
    if session.is_empty() {
        return Err(Fault::failed("there is nothing to answer to"));
    }
    session.draw(sampler)?.ok_or_else(|| {
        Fault::failed("no token is left to choose: every logit is infinite or banned")
    })
}

/// The line at the end of an answer.
pub fn say_stats(term: Term, prefill: &Prefill, answered: &Answered) {
    let evaluated = prefill.sync.evaluated;
    let mut line = format!(
        "prefill: {} ({evaluated} tokens), generation: {} ({} tokens), reused: {} tokens",
        rate(evaluated, prefill.time),
        rate(answered.tokens.len(), answered.time),
        answered.tokens.len(),
        prefill.sync.reused,
    );
    if prefill.sync.rebuilt > 0 {
        line.push_str(&format!(", rebuilt: {}", prefill.sync.rebuilt));
    }
    term.say(Class::Timing, &line);
}

/// Tokens a second.
pub fn rate(tokens: usize, time: Duration) -> String {
    let seconds = time.as_secs_f64();
    if tokens == 0 || seconds == 0.0 {
        return "- t/s".into();
    }
    format!("{:.2} t/s", tokens as f64 / seconds)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_needs_tokens_and_time() {
        assert_eq!(rate(0, Duration::from_secs(1)), "- t/s");
        assert_eq!(rate(5, Duration::ZERO), "- t/s");
        assert_eq!(rate(5, Duration::from_secs(2)), "2.50 t/s");
    }
}
