//! `ds4 logits`: every logit after a prompt, as JSON.

use std::{io::Write, path::Path, sync::atomic::AtomicBool};

use ds4_engine::argmax;
use ds4_model::Model;
use serde_json::json;

use super::{token_json, write_object, write_result};
use crate::{
    fault::Fault,
    generate, load,
    plan::{Manner, Prompt, Setup},
    render,
    term::Term,
};

/// Numbers on a line.
const PER_LINE: usize = 8;

pub fn run(
    setup: &Setup,
    manner: &Manner,
    prompt: &Prompt,
    output: Option<&Path>,
    out: &mut dyn Write,
    term: Term,
) -> Result<(), Fault> {
    let loaded = load::load(setup, term)?;
    let rendered = render::prompt(&loaded, manner, prompt, term)?;
    let mut session = loaded.engine.session(loaded.session)?;
    generate::prefill(&mut session, &rendered.tokens, &AtomicBool::new(false), term)?;
    let logits = session.logits().ok_or_else(|| Fault::failed("the prompt has no tokens"))?;
    let best = argmax(logits);
    let best_logit = best.and_then(|id| logits.get(id as usize));
    let head = json!({
        "source": "ds4",
        "model": loaded.name,
        "backend": loaded.engine.backend(),
        "quant_bits": expert_bits(loaded.engine.model()),
        "prompt_tokens": session.len(),
        "ctx": session.context(),
        "vocab": logits.len(),
        "argmax_logit": best_logit.map(|&logit| token_json::number(logit)),
        "argmax_token": best.map(|id| token_json::token(&loaded.tokenizer, id)),
    });
    write_result(output, out, |out| Ok(write_object(out, &head, "logits", lines(logits))?))
}

/// The numbers in a form that is still readable at 129,280 of them.
fn lines(logits: &[f32]) -> impl Iterator<Item = String> {
    logits.chunks(PER_LINE).map(|line| {
        let numbers: Vec<String> = line.iter().map(|&x| token_json::nine_digits(x)).collect();
        numbers.join(", ")
    })
}

/// Whole bits for each weight of the routed experts, by which people tell quantisations apart.
fn expert_bits(model: &Model) -> Option<usize> {
    let layer = model.weights.layers.last()?;
    let format = layer.moe.experts.first()?.gate.format();
    Some(8 * format.block_bytes() / format.block_elems())
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    #[test]
    fn what_is_written_is_json() {
        let logits: Vec<f32> =
            (0..19).map(|i| if i == 3 { f32::INFINITY } else { i as f32 / 3.0 }).collect();
        let mut out = Vec::new();
        let head = json!({"source": "ds4", "argmax_logit": logits[18]});
        write_object(&mut out, &head, "logits", lines(&logits)).unwrap();
        let back: Value = serde_json::from_slice(&out).unwrap();
        assert_eq!(back["source"], "ds4");
        assert_eq!(back["argmax_logit"], 6.0);
        let numbers = back["logits"].as_array().unwrap();
        assert_eq!(numbers.len(), 19);
        assert!(numbers[3].is_null());
        assert_eq!(numbers[1].as_f64().unwrap() as f32, logits[1]);
    }
}
