//! The one command that checks everything which needs no GPU.

use std::{
    env,
    path::{Path, PathBuf},
    process::Command,
    time::Instant,
};

pub const USAGE: &str = "[--vectors DIR]
    format, lints, licences, documentation, tests, and the full vector sets where DIR has them";

/// One step: what it protects, and the command.
struct Step {
    name: &'static str,
    program: String,
    arguments: Vec<String>,
}

pub fn run(arguments: &[String]) -> Result<bool, String> {
    let arguments = crate::arguments::Arguments::parse(arguments, &["vectors"], &[])?;
    let cargo = env::var("CARGO").unwrap_or_else(|_| "cargo".into());
    let step = |name, line: &str| Step {
        name,
        program: cargo.clone(),
        arguments: line.split_whitespace().map(str::to_owned).collect(),
    };
    let mut steps = vec![
        step("format", "fmt --all --check"),
        step("lints", "clippy --workspace --all-targets --quiet -- -D warnings"),
        step("documentation", "doc --workspace --no-deps --quiet"),
        step("tests", "test --workspace --no-fail-fast"),
    ];
    if has_cargo_deny(&cargo) {
        steps.push(step("licences", "deny check licenses bans sources"));
    } else {
        println!("licences: skipped, `cargo install cargo-deny --locked` adds them");
    }
    if let Some(folder) = arguments.get("vectors").map(PathBuf::from) {
        steps.extend(vector_steps(&folder)?);
    }

    let mut failed = Vec::new();
    if has_cargo_deny(&cargo) && !advisories(&cargo)? {
        failed.push("advisories");
    }
    for step in &steps {
        println!("== {}", step.name);
        let start = Instant::now();
        let mut command = Command::new(&step.program);
        command.args(&step.arguments).env("RUSTDOCFLAGS", "-D warnings");
        let status = command.status().map_err(|e| format!("{}: {e}", step.program))?;
        println!("== {}: {:.0} s", step.name, start.elapsed().as_secs_f64());
        if !status.success() {
            failed.push(step.name);
        }
    }
    if !failed.is_empty() {
        println!("failed: {}", failed.join(", "));
    }
    Ok(failed.is_empty())
}

/// Known defects of dependencies. Their list is fetched from where RustSec keeps it; a machine that
/// reaches nothing but the package registries goes without, and says so.
fn advisories(cargo: &str) -> Result<bool, String> {
    println!("== advisories");
    let check = Command::new(cargo).args(["deny", "check", "advisories"]).output();
    let check = check.map_err(|e| format!("{cargo}: {e}"))?;
    let said = String::from_utf8_lossy(&check.stderr);
    if said.contains("failed to fetch advisory database") {
        println!("skipped: the list of advisories cannot be fetched from here");
        return Ok(true);
    }
    print!("{said}");
    Ok(check.status.success())
}

fn has_cargo_deny(cargo: &str) -> bool {
    Command::new(cargo).args(["deny", "--version"]).output().is_ok_and(|out| out.status.success())
}

/// The full sets lie beside a developer's checkout; a user's clone has the fixtures only.
fn vector_steps(folder: &Path) -> Result<Vec<Step>, String> {
    let program = env::current_exe().map_err(|e| e.to_string())?.display().to_string();
    let path = |part: &str| folder.join(part).display().to_string();
    let dev = path("oracle/dev");
    let step = |name, line: &str, set: &str| {
        let mut arguments: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
        arguments.extend(["--set".to_owned(), set.to_owned()]);
        Step { name, program: program.clone(), arguments }
    };
    Ok(vec![
        step("vectors: dequant", "dequant", &dev),
        step("vectors: tokens", "tokens", &path("encoding/tok_dev.jsonl")),
        step("vectors: encoding", "encoding", &path("encoding/dev.jsonl")),
        step("vectors: hosted API", "encoding", &path("encoding/api_dev.jsonl")),
        step("vectors: reference, plain", "oracle --backend reference --mode plain", &dev),
        step("vectors: reference, official", "oracle --backend reference --mode qat", &dev),
        step("vectors: cpu, plain", "oracle --backend cpu --mode plain", &dev),
        step("vectors: cpu, official", "oracle --backend cpu --mode qat", &dev),
    ])
}
