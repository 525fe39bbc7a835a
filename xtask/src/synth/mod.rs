//! Models of full shape with random weights: what speed and memory are measured on where the
//! published files are not at hand.
//!
//! A file is planned first, then filled by as many threads as there are. Each stretch of bytes is a
//! function of the seed, of its tensor's name and of its place there: any number of threads writes the
//! same file, and a file of few layers is the beginning of the whole one. Blocks are made in the
//! format that they are stored in; nothing is encoded.
//!
//! In the order of use: `shapes` are the published models, `plan` gives each tensor its format and
//! the size of its numbers, `content` and `blocks` make the bytes, `file` writes them. `vocabulary`
//! is the tokenizer.

mod blocks;
mod content;
mod file;
mod plan;
mod random;
mod shapes;
#[cfg(test)]
mod tests;
mod vocabulary;

use std::time::Instant;

use ds4_gguf::GgufWriter;
use ds4_host::physical_cores;
use ds4_model::describe;

use crate::arguments::Arguments;

pub use file::{Filling, write};
pub use plan::{Recipe, plan};
pub use shapes::{flash, pro};
pub use vocabulary::Vocabulary;

pub const USAGE: &str = "--out FILE.gguf [--model flash|pro] [--quant q2|q4|mxfp4] [--layers N] \
    [--threads N] [--seed N]
    write a model of full shape with random weights";

pub fn run(arguments: &[String]) -> Result<bool, String> {
    let known = ["out", "model", "quant", "layers", "threads", "seed"];
    let arguments = Arguments::parse(arguments, &known, &[])?;
    let out = arguments.path("out")?;
    let whole = match arguments.word("model", &["flash", "pro"])? {
        "pro" => pro(),
        _ => flash(),
    };
    let quant = arguments.word("quant", &["q2", "q4", "mxfp4"])?;
    let recipe = match quant {
        "q4" => Recipe::Q4,
        "mxfp4" => Recipe::MXFP4,
        _ => Recipe::Q2,
    };
    let most = whole.layers.len();
    let layers = number(&arguments, "layers", 1..=most)?.unwrap_or(most);
    let filling = Filling {
        seed: number(&arguments, "seed", 0..=usize::MAX)?.unwrap_or(1) as u64,
        threads: number(&arguments, "threads", 1..=4096)?.unwrap_or_else(physical_cores),
    };

    let mut config = shapes::first_layers(whole, layers);
    config.name = format!("{} synthetic {quant}, {layers} of {most} layers", config.name);
    let vocabulary = Vocabulary::published()?;
    let mut writer = GgufWriter::new(&out);
    describe(&config, &mut writer);
    vocabulary.describe(&mut writer);
    let start = Instant::now();
    let bytes = write(writer, &plan(&config, recipe)?, filling, &out)?;
    let seconds = start.elapsed().as_secs_f64();
    println!(
        "{}: {:.2} GiB in {seconds:.1} s with {} threads, {:.2} GB/s",
        out.display(),
        bytes as f64 / f64::from(1 << 30),
        filling.threads,
        bytes as f64 / 1e9 / seconds
    );
    Ok(true)
}

fn number(
    arguments: &Arguments,
    name: &str,
    allowed: std::ops::RangeInclusive<usize>,
) -> Result<Option<usize>, String> {
    let Some(text) = arguments.get(name) else { return Ok(None) };
    match text.parse() {
        Ok(number) if allowed.contains(&number) => Ok(Some(number)),
        _ => {
            let (least, most) = allowed.into_inner();
            Err(format!("--{name} is a number from {least} to {most}, not `{text}`"))
        }
    }
}
