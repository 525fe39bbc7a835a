//! Runs the models of an oracle set and holds their logits to the expected ones.

mod backend;
mod compare;
mod npy;
mod set;

use std::{fs, path::Path, sync::Arc};

use ds4_cpu::Activations;
use ds4_model::{Model, Rounding};

use crate::arguments::Arguments;
use backend::Backend;
use set::{Case, Set};

pub const USAGE: &str =
    "--set DIR [--mode plain|qat] [--backend cpu|cuda|reference] [--precision f64|f32]
         [--threads N] [--chunks 37,1,91] [--class exact|exact_f16rows|int8]
         [--activations int8|exact] [--filter TEXT] [--out DIR]
    run every model of an oracle set, compare with its vectors, write the logits to --out";

/// How many tokens the sets continue each prompt by.
const GREEDY: usize = 32;
/// Beyond this length the sets have no greedy continuation in the official rounding.
const LONGEST_OFFICIAL_GREEDY: usize = 300;

pub fn run(arguments: &[String]) -> Result<bool, String> {
    let known = [
        "set",
        "mode",
        "backend",
        "precision",
        "threads",
        "chunks",
        "class",
        "activations",
        "filter",
        "out",
    ];
    let arguments = Arguments::parse(arguments, &known, &[])?;
    let set = Set::open(&arguments.path("set")?)?;
    let mode = arguments.word("mode", &["plain", "qat"])?;
    let rounding = if mode == "qat" { Rounding::Official } else { Rounding::Plain };
    let backend_name = arguments.word("backend", &["cpu", "cuda", "reference"])?;
    let double = arguments.word("precision", &["f64", "f32"])? == "f64";
    let threads = match arguments.get("threads") {
        Some(n) => Some(n.parse().map_err(|_| format!("--threads {n}: not a number"))?),
        None => None,
    };
    // Packed rows keep the rotary part in f16; the class for that is part of the contract.
    let default_class = match (backend_name, rounding) {
        ("cpu" | "cuda", Rounding::Official) => "exact_f16rows",
        _ => "exact",
    };
    let class = match arguments.get("class") {
        Some(_) => arguments.word("class", &["exact", "exact_f16rows", "int8"])?,
        None => default_class,
    };
    let default_activations = if class == "int8" { "int8" } else { "exact" };
    let activations = match arguments.get("activations") {
        Some(_) => arguments.word("activations", &["int8", "exact"])?,
        None => default_activations,
    };
    let activations = if activations == "int8" { Activations::Int8 } else { Activations::Exact };
    let chunks = parse_chunks(arguments.get("chunks"))?;
    let out = arguments.get("out").map(Path::new);

    let (mut passed, mut failed) = (0, Vec::new());
    for entry in &set.entries {
        let cases: Vec<&Case> = entry
            .cases
            .iter()
            .filter(|case| case.key.contains(arguments.get("filter").unwrap_or("")))
            .filter(|case| case.tolerance(class, mode).is_some())
            .collect();
        if cases.is_empty() {
            continue;
        }
        let model = Arc::new(Model::open(&entry.model).map_err(|e| e.to_string())?);
        let mut backend =
            Backend::new(backend_name, double, model, rounding, activations, threads)?;
        for case in cases {
            let expected = entry.expected(case, mode)?;
            let logits = backend.logits(&expected.tokens, &expected.positions, &chunks)?;
            let greedy = match rounding {
                Rounding::Official if expected.tokens.len() > LONGEST_OFFICIAL_GREEDY => None,
                _ => Some(backend.greedy(GREEDY)?),
            };
            if let Some(out) = out {
                write(out, case, &logits, greedy.as_deref())?;
            }
            let tolerance = case.tolerance(class, mode).ok_or("no tolerance")?;
            let verdict = compare::compare(&logits, greedy.as_deref(), &expected, tolerance);
            println!("{} {} [{class}/{mode}] {}", verdict.word(), case.key, verdict.line);
            if verdict.pass {
                passed += 1;
            } else {
                failed.push(case.key.clone());
            }
        }
    }
    for key in &failed {
        println!("{key}");
    }
    println!("passed {passed} failed {}", failed.len());
    Ok(failed.is_empty() && passed > 0)
}

/// The lengths of the chunks a prompt is cut into, in turn; one chunk when none are given.
fn parse_chunks(text: Option<&str>) -> Result<Vec<usize>, String> {
    let Some(text) = text else { return Ok(Vec::new()) };
    text.split(',')
        .map(|n| match n.parse() {
            Ok(n) if n > 0 => Ok(n),
            _ => Err(format!("--chunks {text}: `{n}` is no length")),
        })
        .collect()
}

fn write(
    out: &Path,
    case: &Case,
    logits: &[Vec<f32>],
    greedy: Option<&[u32]>,
) -> Result<(), String> {
    let path = out.join(format!("{}.npy", case.key));
    let folder = path.parent().ok_or("an id without a folder")?;
    fs::create_dir_all(folder).map_err(|e| format!("{}: {e}", folder.display()))?;
    npy::write(&path, logits).map_err(|e| format!("{}: {e}", path.display()))?;
    if let Some(greedy) = greedy {
        let path = out.join(format!("{}.greedy.json", case.key));
        fs::write(&path, format!("{greedy:?}\n"))
            .map_err(|e| format!("{}: {e}", path.display()))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    fn oracle(arguments: &str) {
        let set = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../fixtures/oracle");
        let mut words: Vec<String> = vec!["--set".into(), set.to_string_lossy().into()];
        words.extend(arguments.split_whitespace().map(str::to_owned));
        assert_eq!(super::run(&words), Ok(true), "{arguments}");
    }

    #[test]
    fn reference_is_exact_in_both_roundings() {
        oracle("--backend reference --mode plain");
        oracle("--backend reference --mode qat");
    }

    #[test]
    fn reference_is_exact_in_single_precision() {
        oracle("--backend reference --mode plain --precision f32 --filter /p300");
    }

    #[test]
    fn cpu_is_exact_in_plain_rounding_and_close_in_official() {
        oracle("--backend cpu --mode plain");
        oracle("--backend cpu --mode qat --chunks 37,1,91,3,130");
    }
}
