//! `ds4 perplexity`: how well the model foresees a text.

use std::{io::Write, path::Path};

use ds4_engine::logprob;

use crate::{fault::Fault, load, plan::Setup, term::Term};

/// The first tokens are read and not scored: nobody can foresee how a text begins.
const UNSCORED: usize = 32;
/// Tokens between two signs of life.
const REPORT_EVERY: usize = 256;

pub fn run(
    setup: &Setup,
    path: &Path,
    text: &str,
    most: usize,
    out: &mut dyn Write,
    term: Term,
) -> Result<(), Fault> {
    let loaded = load::load(setup, term)?;
    // The text is from outside: what spells a marker in it stays text.
    let ids = loaded.tokenizer.encode(text);
    let mut session = loaded.engine.session(loaded.session)?;
    let room = session.context().saturating_sub(UNSCORED);
    let wanted = ids.len().saturating_sub(UNSCORED).min(most).min(room);
    if wanted == 0 {
        return Err(Fault::failed(format!(
            "{}: {} tokens in a context of {} leave none to score behind the first {UNSCORED}",
            path.display(),
            ids.len(),
            session.context()
        )));
    }
    let scored = ids.get(..UNSCORED + wanted).unwrap_or_default();
    // The last token is foreseen, not read.
    let read = scored.split_last().map_or(&[][..], |(_, read)| read);
    let mut sum = 0.0;
    let mut unforeseeable = None;
    let mut progress = term.progress();
    for chunk in read.chunks(REPORT_EVERY) {
        session.append(chunk, &mut |position, logits| {
            let next = position + 1;
            if next < UNSCORED {
                return;
            }
            match scored.get(next).and_then(|&id| logprob(logits, id)) {
                Some(logprob) => sum -= logprob,
                None => unforeseeable = unforeseeable.or(Some(next)),
            }
        })?;
        if session.len() < read.len() {
            progress.show(&format!("scored up to token {} of {}", session.len(), scored.len()));
        }
    }
    progress.clear();
    if let Some(position) = unforeseeable {
        let path = path.display();
        return Err(Fault::failed(format!("{path}: token {position} has no finite probability")));
    }
    let average = sum / wanted as f64;
    writeln!(
        out,
        "tokens={} scored={wanted} nll={sum:.9} avg_nll={average:.9} ppl={:.9}",
        ids.len(),
        average.exp()
    )?;
    Ok(out.flush()?)
}
