//! One file for each command: what it prints, and in which form.

pub mod bench;
pub mod eval;
pub mod inspect;
pub mod logits;
pub mod logprobs;
pub mod perplexity;
pub mod run;
mod token_json;
pub mod tokens;

use std::{
    fs::File,
    io::{self, BufWriter, Write},
    path::Path,
};

use serde_json::Value;

use crate::fault::Fault;

/// Writes a result to a file, or to standard output where no file is given.
fn write_result(
    path: Option<&Path>,
    out: &mut dyn Write,
    write: impl FnOnce(&mut dyn Write) -> Result<(), Fault>,
) -> Result<(), Fault> {
    let Some(path) = path else {
        write(out)?;
        return Ok(out.flush()?);
    };
    let fault = |error| Fault::failed(format!("{}: {error}", path.display()));
    let mut file = BufWriter::new(File::create(path).map_err(fault)?);
    write(&mut file)?;
    file.flush().map_err(fault)
}

/// Writes a JSON object whose last field is a long list, in lines that people can read too.
fn write_object(
    out: &mut dyn Write,
    head: &Value,
    list: &str,
    lines: impl Iterator<Item = String>,
) -> io::Result<()> {
    writeln!(out, "{{")?;
    for (key, value) in head.as_object().into_iter().flatten() {
        writeln!(out, "  \"{key}\": {value},")?;
    }
    writeln!(out, "  \"{list}\": [")?;
    let mut lines = lines.peekable();
    while let Some(line) = lines.next() {
        let end = if lines.peek().is_some() { "," } else { "" };
        writeln!(out, "    {line}{end}")?;
    }
    writeln!(out, "  ]\n}}")
}
