//! A benchmark of the built-in model, small enough for a test.

mod program;

use std::fs;

use program::{ds4, folder};
use serde_json::Value;

const SMALL: [&str; 12] = [
    "bench",
    "--cpu",
    "--ctx-start",
    "8",
    "--ctx-max",
    "24",
    "--step-mul",
    "2",
    "-n",
    "3",
    "--batch",
    "1,3",
];

fn small(args: &[&str]) -> Vec<String> {
    SMALL.iter().chain(args).map(|arg| (*arg).to_owned()).collect()
}

fn bench(args: &[&str]) -> program::Run {
    let args = small(args);
    ds4(&args.iter().map(String::as_str).collect::<Vec<_>>())
}

#[test]
fn a_benchmark_says_where_what_and_how_fast() {
    let run = bench(&["--roofline", "-t", "2"]).good();
    for part in ["machine ", "2 threads, rounding official", "GB/s with", "decode t/s", "share"] {
        assert!(run.out.contains(part), "{part}: {run:?}");
    }
    let contexts: Vec<&str> =
        run.out.lines().filter(|l| l.ends_with(" %") && l.contains(" - ")).collect();
    assert_eq!(contexts.len(), 6, "three contexts, two batches: {run:?}");
    assert!(run.err.contains("run 3 of 3"), "{run:?}");
}

#[test]
fn every_form_holds_the_same_numbers() {
    let folder = folder("bench");
    let path = |name: &str| folder.join(name).display().to_string();
    let (csv, json, svg) = (path("b.csv"), path("b.json"), path("b.svg"));
    bench(&["--csv", &csv, "--json", &json, "--svg", &svg, "--repeats", "2"]).good();
    let json: Value = serde_json::from_slice(&fs::read(json).unwrap()).unwrap();
    assert!(json["decode_bandwidth_share"].as_f64().unwrap() > 0.0);
    assert_eq!(json["settings"]["backend"], "cpu");
    let frontiers = json["frontiers"].as_array().unwrap();
    let contexts: Vec<_> = frontiers.iter().map(|f| f["ctx_tokens"].as_u64().unwrap()).collect();
    assert_eq!(contexts, [8, 16, 24]);
    assert_eq!(frontiers[0]["decode"][1]["batch"], 3);
    assert_eq!(frontiers[0]["decode"][0]["gen_tps"]["runs"].as_array().unwrap().len(), 2);
    let three = &frontiers[0]["decode"][1];
    let (all, each) = (three["gen_tps"]["median"].as_f64(), three["gen_tps_each"].as_f64());
    assert!((all.unwrap() / each.unwrap() - 3.0).abs() < 1e-9);
    assert_eq!(json["settings"]["activations"], "int8");

    let csv = fs::read_to_string(csv).unwrap();
    let lines: Vec<&str> = csv.lines().collect();
    assert!(lines[0].starts_with("ctx_tokens,prefill_tokens,prefill_tps,gen_tokens,gen_tps,"));
    assert_eq!(lines.len(), 7);
    let rate = frontiers[0]["decode"][0]["gen_tps"]["median"].as_f64().unwrap();
    assert_eq!(lines[1].split(',').nth(4), Some(format!("{rate:.2}").as_str()));
    let svg = fs::read_to_string(svg).unwrap();
    assert!(svg.starts_with("<svg ") && svg.ends_with("</svg>\n"));
}

#[test]
fn standard_output_takes_one_form() {
    let run = bench(&["--csv", "-", "--repeats", "1", "--warmup", "0"]).good();
    assert!(run.out.lines().all(|line| line.split(',').count() == 15), "{run:?}");
    let run = bench(&["--json", "-", "--repeats", "1", "--gen-tokens", "0"]).good();
    let json: Value = serde_json::from_str(&run.out).unwrap();
    assert!(json["decode_bandwidth_share"].is_null());
}

/// What the backend counts while it computes, and what the benchmark counts from the file, are two
/// opinions on the same bytes.
#[test]
fn stages_read_what_a_token_must_read() {
    let run = bench(&["--json", "-", "--repeats", "1", "--warmup", "0", "--exact"]).good();
    let json: Value = serde_json::from_str(&run.out).unwrap();
    assert_eq!(json["settings"]["activations"], "f32");
    for frontier in json["frontiers"].as_array().unwrap() {
        let decode = &frontier["decode"][0];
        let stages = decode["stages_per_step"].as_array().unwrap();
        let counted: f64 = stages.iter().map(|stage| stage["bytes"].as_f64().unwrap()).sum();
        let computed = decode["bytes_per_token"].as_f64().unwrap();
        assert!((counted / computed - 1.0).abs() < 0.05, "{counted} and {computed}: {frontier:#}");
    }
}

#[test]
fn a_text_can_be_measured_on() {
    let path = folder("bench_text").join("text.txt");
    fs::write(&path, "All happy families are alike. ".repeat(20)).unwrap();
    let path = path.to_str().unwrap();
    for flag in ["--prompt-file", "--chat-prompt-file"] {
        let run = bench(&[flag, path, "--repeats", "1", "--warmup", "0"]).good();
        assert!(run.out.contains(&format!("prompt {path}")), "{run:?}");
    }
    fs::write(path, "short").unwrap();
    let run = bench(&["--prompt-file", path]);
    assert_eq!(run.code, Some(1));
    assert!(run.err.contains("a context of 24 was to be measured"), "{run:?}");
}

#[test]
fn what_makes_no_sense_is_refused() {
    for (args, part) in [
        (&["--ctx-max", "4"][..], "--ctx-max: 4 is less than --ctx-start 8"),
        (&["--ctx-alloc", "27"], "--ctx-alloc: 27 is too little"),
        (&["--batch", "1,0"], "--batch: `1,0` is no list"),
        (&["--batch", ""], "--batch: `` is no list"),
        (&["--batch", "1,x"], "as in 1,4,16"),
        (&["--step-mul", "0.5"], "not a number from 1 to 1000"),
        (&["--csv", "-", "--json", "-"], "standard output takes one"),
        (&["--svg", "-"], "--svg: needs a file"),
        (&["--prompt-file", "x", "--chat-prompt-file", "y"], "not together with"),
        (&["--temp", "1"], "--temp: not a flag of `bench`"),
    ] {
        bench(args).bad(2, part);
    }
    bench(&["--ctx-alloc", "28", "--repeats", "1"]).good();
}

/// `--json` takes a file here and none elsewhere.
#[test]
fn a_flag_is_that_of_its_command() {
    assert!(ds4(&["inspect", "--json"]).good().out.starts_with('{'));
    ds4(&["bench", "--json"]).bad(2, "--json: needs a value");
}
