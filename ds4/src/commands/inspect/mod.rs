//! `ds4 inspect`: what a model file is, what it holds, what it needs, and whether it is complete.
//!
//! Only the directory of the file and samples of it are read, whatever its size; `--check` reads it all.

mod print;
mod report;

use std::io::Write;

use ds4_model::Model;

use self::report::Report;
use crate::{
    fault::Fault,
    load,
    plan::{self, ModelChoice},
    term::{Class, Term, human_bytes},
};

/// What to find out, and how to say it.
pub struct Wanted {
    pub context: Option<usize>,
    pub json: bool,
    pub check: bool,
}

pub fn run(
    model: &ModelChoice,
    wanted: &Wanted,
    out: &mut dyn Write,
    term: Term,
) -> Result<(), Fault> {
    let source = load::open(model, term)?;
    let config = source.config()?;
    let context = plan::context(wanted.context, config.max_context);
    if let Some(why) = &context.why {
        term.say(Class::Warning, why);
    }
    let mut report = Report::of(&source, &config, context.effective)?;
    if report.missing.is_empty() {
        // Binding also checks shapes and types, and reads every vector.
        match Model::bind(&source) {
            Ok(model) => {
                report.fingerprint = Some(model.fingerprint.to_string());
                if wanted.check {
                    report.checked = true;
                    report.problem = check(&model, term);
                }
            }
            Err(error) => report.problem = Some(error.to_string()),
        }
    }
    if wanted.json {
        writeln!(out, "{:#}", report.to_json())?;
    } else {
        print::print(&report, out)?;
    }
    out.flush()?;
    match (&report.problem, report.missing.as_slice()) {
        (Some(problem), _) => Err(Fault::failed(problem.clone())),
        (None, []) => Ok(()),
        (None, [first, ..]) => Err(Fault::failed(format!(
            "{}: incomplete: {} of its tensors are missing, the first is `{first}`",
            report.path,
            report.missing.len()
        ))),
    }
}

/// Reads all weights and says what is wrong with the first that is damaged.
fn check(model: &Model, term: Term) -> Option<String> {
    const SAY_EVERY: u64 = 4 << 30;
    let mut progress = term.progress();
    let mut read = 0u64;
    for matrix in model.weights.matrices() {
        if let Some(damage) = matrix.damage() {
            return Some(format!(
                "tensor `{}`: a value that is not finite at byte {} of the tensor",
                damage.tensor, damage.offset
            ));
        }
        let before = read / SAY_EVERY;
        read += matrix.data().len() as u64;
        if read / SAY_EVERY > before {
            progress.show(&format!("checked {}", human_bytes(read)));
        }
    }
    None
}
