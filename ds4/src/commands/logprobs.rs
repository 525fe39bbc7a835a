//! `ds4 logprobs`: a greedy answer, with the likeliest tokens of each step, as JSON.

use std::{io::Write, path::Path, sync::atomic::AtomicBool};

use ds4_engine::{argmax, top_logprobs};
use serde_json::{Value, json};

use super::{token_json, write_object, write_result};
use crate::{
    fault::Fault,
    generate, load,
    plan::{Manner, Prompt, Setup},
    render,
    term::Term,
};

/// What to dump.
pub struct Wanted<'a> {
    pub output: Option<&'a Path>,
    pub top: usize,
    pub tokens: usize,
}

pub fn run(
    setup: &Setup,
    manner: &Manner,
    prompt: &Prompt,
    wanted: &Wanted<'_>,
    out: &mut dyn Write,
    term: Term,
) -> Result<(), Fault> {
    let loaded = load::load(setup, term)?;
    let tokenizer = &loaded.tokenizer;
    let rendered = render::prompt(&loaded, manner, prompt, term)?;
    let mut session = loaded.engine.session(loaded.session)?;
    generate::prefill(&mut session, &rendered.tokens, &AtomicBool::new(false), term)?;
    let prompt_tokens = session.len();
    let most = wanted.tokens.min(session.context().saturating_sub(prompt_tokens + 1));
    let mut steps: Vec<Value> = Vec::new();
    while steps.len() < most {
        let logits = session.logits().ok_or_else(|| Fault::failed("the prompt has no tokens"))?;
        let id = argmax(logits).ok_or_else(|| Fault::failed("no logit is finite"))?;
        let top: Vec<Value> = top_logprobs(logits, wanted.top)
            .into_iter()
            .map(|one| {
                let token = token_json::token(tokenizer, one.id);
                let logit = token_json::number(one.logit);
                // Single precision is all there is to know about it.
                let logprob = token_json::number(one.logprob as f32);
                json!({"token": token, "logit": logit, "logprob": logprob})
            })
            .collect();
        let selected = token_json::token(tokenizer, id);
        steps.push(json!({"step": steps.len(), "selected": selected, "top_logprobs": top}));
        // The end of sentence is the last step, and not evaluated.
        if Some(id) == tokenizer.eos() {
            break;
        }
        session.push(id)?;
    }
    let head = json!({
        "source": "ds4",
        "prompt_tokens": prompt_tokens,
        "ctx": session.context(),
        "top_k": wanted.top,
    });
    write_result(wanted.output, out, |out| {
        let steps = steps.iter().map(Value::to_string);
        Ok(write_object(out, &head, "steps", steps)?)
    })
}
