//! `ds4 eval`: plays the test sets that stand inside the program, and prints the scores.

use std::{io::Write, path::Path, time::Instant};

use ds4_lab::eval::{Player, Score, Suite};
use ds4_model::Rounding;
use serde_json::{Map, Value, json};

use super::write_result;
use crate::{
    fault::Fault,
    load,
    plan::{Setup, is_dash},
    render,
    term::Term,
};

/// What to play.
pub struct Wanted<'a> {
    /// At most so many tests of each group.
    pub limit: usize,
    pub json: Option<&'a Path>,
}

pub fn run(
    setup: &Setup,
    wanted: &Wanted<'_>,
    out: &mut dyn Write,
    term: Term,
) -> Result<(), Fault> {
    let suite = Suite::nano(wanted.limit)?;
    let loaded = load::load(setup, term)?;
    render::need_markers(&loaded)?;
    let mut player = Player::new(&loaded.engine, &loaded.tokenizer, loaded.session)?;
    let to_standard_output = wanted.json.is_some_and(is_dash);
    let began = Instant::now();
    let mut scores = Vec::new();
    for group in &suite.groups {
        let mut score = Score { group: group.name, outcomes: Vec::new() };
        let mut progress = term.progress();
        for item in &group.items {
            score.outcomes.push(player.play(item)?);
            let (done, all) = (score.outcomes.len(), group.items.len());
            progress.flash(&format!(
                "{}: {} of {done} right, {all} in all",
                group.name,
                score.passed()
            ));
        }
        progress.clear();
        if !to_standard_output {
            writeln!(out, "{}", line(&score))?;
            out.flush()?;
        }
        scores.push(score);
    }
    let seconds = began.elapsed().as_secs_f64();
    if let Some(path) = wanted.json {
        let groups: Map<String, Value> =
            scores.iter().map(|score| (score.group.to_owned(), score.to_json())).collect();
        let json = json!({
            "suite": suite.name,
            "model": loaded.name,
            "backend": loaded.engine.backend(),
            "rounding": match setup.rounding {
                Rounding::Official => "official",
                Rounding::Plain => "plain",
            },
            "seconds": (seconds * 10.0).round() / 10.0,
            "tokens": scores.iter().map(Score::tokens).sum::<usize>(),
            "groups": groups,
        });
        let path = (!to_standard_output).then_some(path);
        write_result(path, out, |out| Ok(writeln!(out, "{json:#}")?))?;
    }
    Ok(())
}

fn line(score: &Score) -> String {
    let (passed, played) = (score.passed(), score.outcomes.len());
    format!("{:<14} {:>6.1} %  {passed} of {played}", score.group, 100.0 * score.share())
}
