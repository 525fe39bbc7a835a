//! Rewrites a GGUF with its routed experts in other formats: how a q2 or a q4 file is made of a
//! larger one. Everything else is copied as it is.
//!
//! The file goes by tensor after tensor, a few rows of it at a time in as many threads as there are,
//! so that it may be far larger than memory.

use std::{
    fs::{self, File},
    io::{BufWriter, Write},
    path::Path,
    thread,
    time::Instant,
};

use ds4_gguf::{Gguf, GgufWriter, TensorInfo, TensorStream};
use ds4_host::physical_cores;
use ds4_quant::{Format, decode_row, quantise_row};

use crate::arguments::Arguments;

pub const USAGE: &str =
    "--from FILE.gguf --out FILE.gguf --experts GATE_AND_UP[,DOWN] [--threads N]
    rewrite a model with its experts as iq2_xxs, q2_k, q4_k, mxfp4, q4_0, q8_0 or f16;
    `iq2_xxs,q2_k` is what ds4 calls q2, `q4_k` is q4";

/// What experts can be written as, with GGUF's number for a file that is mostly that.
const FORMATS: [(Format, u32); 7] = [
    (Format::Iq2Xxs, 19),
    (Format::Q2K, 10),
    (Format::Q4K, 14),
    (Format::Mxfp4, 38),
    (Format::Q4_0, 2),
    (Format::Q8_0, 7),
    (Format::F16, 1),
];
const FILE_TYPE: &str = "general.file_type";
/// Keys that speak of the file that was read: its parts, and how it was quantised.
const LEFT_OUT: [&str; 2] = ["split.", "quantize."];
/// About how many values a thread has at a time.
const STRETCH: usize = 1 << 18;

/// The formats of the experts' matrices.
#[derive(Clone, Copy)]
struct Recipe {
    gate_and_up: Format,
    down: Format,
}

impl Recipe {
    fn parse(text: &str) -> Result<Recipe, String> {
        let (gate_and_up, down) = text.split_once(',').unwrap_or((text, text));
        Ok(Recipe { gate_and_up: format(gate_and_up)?, down: format(down)? })
    }

    /// What a tensor is to be written as; `None` for those that are copied.
    fn format(self, name: &str) -> Option<Format> {
        match name.strip_suffix("_exps.weight")?.rsplit('.').next()? {
            "ffn_gate" | "ffn_up" => Some(self.gate_and_up),
            "ffn_down" => Some(self.down),
            _ => None,
        }
    }

    fn file_type(self) -> u32 {
        let found = FORMATS.iter().find(|(format, _)| *format == self.gate_and_up);
        found.map_or(0, |(_, file_type)| *file_type)
    }
}

fn format(word: &str) -> Result<Format, String> {
    let found = FORMATS.iter().find(|(format, _)| format.name().eq_ignore_ascii_case(word));
    found.map(|(format, _)| *format).ok_or_else(|| {
        let words: Vec<_> = FORMATS.iter().map(|(f, _)| f.name().to_lowercase()).collect();
        format!("--experts: `{word}` is none of {}", words.join(", "))
    })
}

pub fn run(arguments: &[String]) -> Result<bool, String> {
    let arguments = Arguments::parse(arguments, &["from", "out", "experts", "threads"], &[])?;
    let (from, out) = (arguments.path("from")?, arguments.path("out")?);
    let recipe = Recipe::parse(arguments.get("experts").ok_or("--experts is needed")?)?;
    let threads = match arguments.get("threads") {
        None => physical_cores(),
        Some(text) => match text.parse() {
            Ok(threads @ 1..=4096) => threads,
            _ => return Err(format!("--threads is a number from 1 to 4096, not `{text}`")),
        },
    };
    let start = Instant::now();
    let gguf = Gguf::open(&from).map_err(|e| e.to_string())?;
    let bytes = rewrite(&gguf, recipe, threads, &out)?;
    println!(
        "{}: {:.2} MiB, was {:.2} MiB, in {:.1} s with {threads} threads",
        out.display(),
        bytes as f64 / f64::from(1 << 20),
        gguf.file_bytes() as f64 / f64::from(1 << 20),
        start.elapsed().as_secs_f64(),
    );
    Ok(true)
}

/// Writes the file beside its name and renames it when it is whole. Returns its size.
fn rewrite(gguf: &Gguf, recipe: Recipe, threads: usize, out: &Path) -> Result<u64, String> {
    if gguf.files().any(|file| same_file(file, out)) {
        return Err(format!("{}: would be written over while it is read", out.display()));
    }
    let tasks: Vec<Task> = gguf
        .tensors()
        .iter()
        .map(|tensor| Task::new(gguf, tensor, recipe))
        .collect::<Result<_, _>>()?;
    if tasks.iter().all(|task| task.recoded.is_none()) {
        return Err(format!("{}: has no routed experts in another format", gguf.path().display()));
    }
    let part = out.with_added_extension("part");
    let written = write(gguf, recipe, threads, &tasks, &part).and_then(|bytes| {
        fs::rename(&part, out).map_err(|e| format!("{}: {e}", out.display()))?;
        Ok(bytes)
    });
    if written.is_err() {
        // The first error is the one to tell.
        let _ = fs::remove_file(&part);
    }
    written
}

fn same_file(a: &Path, b: &Path) -> bool {
    fs::canonicalize(a).ok().is_some_and(|a| fs::canonicalize(b).is_ok_and(|b| a == b))
}

/// A tensor and what becomes of it.
struct Task<'a> {
    tensor: &'a TensorInfo,
    recoded: Option<Recoding>,
}

/// From one format to another, row by row.
#[derive(Clone, Copy)]
struct Recoding {
    cols: usize,
    from: (Format, usize),
    to: (Format, usize),
}

impl<'a> Task<'a> {
    fn new(gguf: &Gguf, tensor: &'a TensorInfo, recipe: Recipe) -> Result<Task<'a>, String> {
        let failed = |reason: String| complaint(gguf, tensor, &reason);
        let Some(to) = recipe.format(&tensor.name) else {
            return Ok(Task { tensor, recoded: None });
        };
        let from = Format::from_ggml(tensor.type_id)
            .ok_or_else(|| failed(format!("its type {} cannot be decoded", tensor.type_id)))?;
        let cols = tensor.dims.first().and_then(|&cols| usize::try_from(cols).ok()).unwrap_or(0);
        let row = |format: Format| {
            let bytes = format.row_bytes(cols).filter(|&bytes| bytes > 0);
            bytes.ok_or_else(|| failed(format!("rows of {cols} are no whole blocks of {format}")))
        };
        let recoded = Recoding { cols, from: (from, row(from)?), to: (to, row(to)?) };
        Ok(Task { tensor, recoded: Some(recoded).filter(|_| from != to) })
    }

    fn type_id(&self) -> u32 {
        let recoded = self.recoded.and_then(|recoded| recoded.to.0.ggml_id());
        recoded.unwrap_or(self.tensor.type_id)
    }
}

fn complaint(gguf: &Gguf, tensor: &TensorInfo, reason: &str) -> String {
    let file = gguf.files().nth(tensor.part).unwrap_or(gguf.path());
    format!("{}: tensor `{}`: {reason}", file.display(), ds4_gguf::shown(&tensor.name))
}

fn write(
    gguf: &Gguf,
    recipe: Recipe,
    threads: usize,
    tasks: &[Task],
    out: &Path,
) -> Result<u64, String> {
    let mut writer = GgufWriter::new(out);
    for (key, value) in gguf.meta().iter() {
        if key == FILE_TYPE {
            writer.put(key, recipe.file_type());
        } else if !LEFT_OUT.iter().any(|prefix| key.starts_with(prefix)) {
            writer.put_value(key, value);
        }
    }
    for task in tasks {
        let announced = writer.tensor(&task.tensor.name, &task.tensor.dims, task.type_id());
        announced.map_err(|e| e.to_string())?;
    }
    let file = File::create(out).map_err(|e| format!("{}: {e}", out.display()))?;
    let mut stream = writer.begin(BufWriter::new(file)).map_err(|e| e.to_string())?;
    let bytes = stream.file_bytes();
    for task in tasks {
        let data = gguf.data(task.tensor).map_err(|e| e.to_string())?;
        match task.recoded {
            None => stream.write(&task.tensor.name, [&*data]).map_err(|e| e.to_string())?,
            Some(recoding) => recode(&mut stream, &task.tensor.name, &data, recoding, threads)
                .map_err(|reason| match reason {
                    Failure::Row { row, reason } => {
                        complaint(gguf, task.tensor, &format!("row {row}: {reason}"))
                    }
                    Failure::Write(reason) => reason,
                })?,
        }
    }
    stream.finish().map_err(|e| e.to_string())?;
    Ok(bytes)
}

/// What can stop a tensor.
enum Failure {
    Row { row: usize, reason: String },
    Write(String),
}

/// Writes a tensor in its new format.
fn recode<W: Write>(
    stream: &mut TensorStream<W>,
    name: &str,
    data: &[u8],
    recoding: Recoding,
    threads: usize,
) -> Result<(), Failure> {
    let rows = (STRETCH / recoding.cols).max(1);
    let mut failed = None;
    let turns = data.chunks(rows * recoding.from.1 * threads).enumerate();
    let pieces = turns.map_while(|(turn, data)| {
        let first = turn * rows * threads;
        match recode_rows(data, rows, first, recoding) {
            Ok(piece) => Some(piece),
            Err(failure) => {
                failed = Some(failure);
                None
            }
        }
    });
    let written = stream.write(name, pieces.flatten());
    match failed {
        Some(failure) => Err(failure),
        None => written.map_err(|e| Failure::Write(e.to_string())),
    }
}

/// Recodes rows, so many to a thread; the first of them has number `first`.
fn recode_rows(
    data: &[u8],
    rows: usize,
    first: usize,
    recoding: Recoding,
) -> Result<Vec<Vec<u8>>, Failure> {
    thread::scope(|scope| {
        let shares = data.chunks(rows * recoding.from.1).enumerate();
        let workers: Vec<_> = shares
            .map(|(i, share)| scope.spawn(move || recode_share(share, first + i * rows, recoding)))
            .collect();
        let panicked = || Failure::Write("a thread ended early".into());
        workers.into_iter().map(|w| w.join().unwrap_or_else(|_| Err(panicked()))).collect()
    })
}

fn recode_share(share: &[u8], first: usize, recoding: Recoding) -> Result<Vec<u8>, Failure> {
    let Recoding { cols, from, to } = recoding;
    let mut values = vec![0.0; cols];
    let mut out = vec![0; share.len() / from.1 * to.1];
    for (row, (old, new)) in share.chunks_exact(from.1).zip(out.chunks_exact_mut(to.1)).enumerate()
    {
        decode_row(from.0, old, &mut values)
            .and_then(|()| quantise_row(to.0, &values, None, new))
            .map_err(|e| Failure::Row { row: first + row, reason: e.to_string() })?;
    }
    Ok(out)
}

#[cfg(test)]
mod tests;
