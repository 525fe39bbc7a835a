//! `ds4 run`: one prompt, one answer.

use std::{io::Write, sync::atomic::AtomicBool};

use ds4_engine::{Sampler, SamplerOptions};

use crate::{
    fault::Fault,
    generate::{self, Limits},
    load,
    plan::{Answer, Manner, Prompt, Setup},
    render,
    speak::Speaker,
    term::{Class, Term},
};

pub fn run(
    setup: &Setup,
    manner: &Manner,
    answer: &Answer,
    prompt: &Prompt,
    out: &mut dyn Write,
    term: Term,
) -> Result<(), Fault> {
    let loaded = load::load(setup, term)?;
    let rendered = render::prompt(&loaded, manner, prompt, term)?;
    let seed = answer.seed();
    let options = SamplerOptions { seed: seed.effective, ..answer.sampling.clone() };
    let sampler = Sampler::new(options)?;
    if let Some(why) = &seed.why {
        term.say(Class::Plain, why);
    }
    let mut session = loaded.engine.session(loaded.session)?;
    // Nobody sets it: one answer is stopped by stopping the program.
    let stop = AtomicBool::new(false);
    let prefill = generate::prefill(&mut session, &rendered.tokens, &stop, term)?;
    let limits = Limits { tokens: answer.tokens, eos: loaded.tokenizer.eos(), stop: &stop };
    let mut speaker = Speaker::new(&loaded.tokenizer, out, term, rendered.thinking);
    let answered =
        generate::generate(&mut session, &sampler, &limits, &mut |id| Ok(speaker.token(id)?))?;
    speaker.finish()?;
    generate::say_stats(term, &prefill, &answered);
    Ok(())
}
