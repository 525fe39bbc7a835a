//! The report for people.

use std::io::{self, Write};

use ds4_model::Compression;

use super::report::{Report, Style, layers_of};
use crate::term::human_bytes;

/// How many missing or unused tensors are named.
const NAMED: usize = 8;

pub fn print(report: &Report, out: &mut dyn Write) -> io::Result<()> {
    let mut sheet = Sheet { out };
    let c = &report.config;
    sheet.row("model", if c.name.is_empty() { "(unnamed)" } else { &c.name })?;
    sheet.row("file", &report.path)?;
    match report.style {
        Style::Gguf { version, keys, files, bytes } => {
            let files = if files == 1 { String::new() } else { format!("{files} files, ") };
            let bytes = human_bytes(bytes);
            let tensors = report.tensors;
            sheet.row(
                "style",
                &format!(
                    "gguf: v{version}, {keys} metadata keys, {tensors} tensors, {files}{bytes}"
                ),
            )?;
        }
        Style::Checkpoint => {
            let tensors = report.tensors;
            sheet.row("style", &format!("original checkpoint: safetensors, {tensors} tensors"))?;
        }
    }
    sheet.row("arch", ds4_model::ARCHITECTURE)?;
    sheet.row("parameters", &human_count(report.parameters))?;
    if let Some(fingerprint) = &report.fingerprint {
        sheet.row("fingerprint", fingerprint)?;
    }
    shapes(report, &mut sheet)?;
    sheet.row("tensor bytes", &human_bytes(report.tensor_bytes))?;
    for (name, (count, bytes)) in &report.types {
        sheet.row("", &format!("{name:<10}{count:>6}  {:>12}", human_bytes(*bytes)))?;
    }
    tokenizer(report, &mut sheet)?;
    memory(report, &mut sheet)?;
    names("unused", &report.unused, &mut sheet)?;
    names("missing", &report.missing, &mut sheet)?;
    if let Some(problem) = &report.problem {
        sheet.row("problem", problem)?;
    }
    let checked = if report.checked { ", all weights finite" } else { "" };
    match report.is_complete() {
        true => sheet.row("complete", &format!("yes{checked}")),
        false => sheet.row("complete", "no"),
    }
}

fn shapes(report: &Report, sheet: &mut Sheet<'_>) -> io::Result<()> {
    let c = &report.config;
    sheet.row(
        "shape",
        &format!(
            "{} layers, hidden {}, {} streams, vocabulary {}, made for {} positions",
            c.layers.len(),
            c.hidden,
            c.streams,
            c.vocab,
            c.max_context
        ),
    )?;
    for (kind, name) in [
        (Compression::None, "window only"),
        (Compression::Csa, "CSA, 1 row for 4 tokens"),
        (Compression::Hca, "HCA, 1 row for 128 tokens"),
    ] {
        let (count, layers) = layers_of(c, kind);
        if count > 0 {
            sheet.row("", &format!("{count:>3} {name}: layers {layers}"))?;
        }
    }
    let (heads, dim, rope) = (c.heads, c.head_dim, c.rope.dims);
    sheet.row(
        "attention",
        &format!(
            "{heads} heads, 1 kv head of {dim} ({rope} rotary), window {}, query rank {}, output {} x {}",
            c.window, c.q_rank, c.o_groups, c.o_rank
        ),
    )?;
    let indexer = &c.indexer;
    sheet.row(
        "indexer",
        &format!("{} heads of {}, top {}", indexer.heads, indexer.dim, indexer.top_k),
    )?;
    let hash = match c.hash_layers {
        0 => "none routed by token".to_owned(),
        1 => "layer 0 routed by token".to_owned(),
        n => format!("layers 0-{} routed by token", n - 1),
    };
    sheet.row(
        "experts",
        &format!(
            "{} of {}, {} used and 1 shared, {hash}",
            c.experts, c.expert_hidden, c.experts_used
        ),
    )
}

fn tokenizer(report: &Report, sheet: &mut Sheet<'_>) -> io::Result<()> {
    let facts = match &report.tokenizer {
        Ok(facts) => facts,
        Err(reason) => return sheet.row("tokenizer", &format!("none: {reason}")),
    };
    let id = |id: Option<u32>| id.map_or_else(|| "none".to_owned(), |id| id.to_string());
    let chat = match facts.missing_markers.as_slice() {
        [] => "can chat".to_owned(),
        missing => format!("cannot chat, lacks {}", missing.join(" ")),
    };
    sheet.row(
        "tokenizer",
        &format!(
            "{} tokens, {} merges, begin {}, end {}, {chat}",
            facts.tokens,
            facts.merges,
            id(facts.bos),
            id(facts.eos)
        ),
    )
}

fn memory(report: &Report, sheet: &mut Sheet<'_>) -> io::Result<()> {
    let need = &report.memory;
    let context = need.context as u64;
    let (plan, session) = (need.plan, need.plan.session);
    sheet.row(
        "memory",
        &format!(
            "{} for a context of {context}: weights {}, working space {}, state {}",
            human_bytes(plan.bytes(1, context)),
            human_bytes(plan.weights),
            human_bytes(plan.scratch),
            human_bytes(session.bytes(context)),
        ),
    )?;
    let per_1k = human_bytes(session.per_1k_tokens);
    sheet
        .row("", &format!("state: {} and {per_1k} for 1024 tokens", human_bytes(session.fixed)))?;
    let Some(available) = need.available else { return Ok(()) };
    let fits = if plan.bytes(1, context) <= available { "fits" } else { "does not fit" };
    sheet.row("", &format!("{fits} in the {} that are free here", human_bytes(available)))
}

fn names(label: &str, names: &[String], sheet: &mut Sheet<'_>) -> io::Result<()> {
    if names.is_empty() {
        return Ok(());
    }
    sheet.row(label, &format!("{} tensors", names.len()))?;
    for name in names.iter().take(NAMED) {
        sheet.row("", name)?;
    }
    if names.len() > NAMED {
        sheet.row("", "...")?;
    }
    Ok(())
}

/// A count as people say it.
fn human_count(count: u64) -> String {
    match count as f64 {
        n if n >= 1e12 => format!("{:.2} T", n / 1e12),
        n if n >= 1e9 => format!("{:.2} B", n / 1e9),
        n if n >= 1e6 => format!("{:.2} M", n / 1e6),
        _ => count.to_string(),
    }
}

/// Labels and values in two columns.
struct Sheet<'a> {
    out: &'a mut dyn Write,
}

impl Sheet<'_> {
    fn row(&mut self, label: &str, value: &str) -> io::Result<()> {
        // Names come from the file, and must not steer the terminal.
        let value: String = value.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
        writeln!(self.out, "{label:<14}{value}")
    }
}
