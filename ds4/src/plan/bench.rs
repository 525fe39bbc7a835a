//! What `ds4 bench` will measure.

use std::path::PathBuf;

use ds4_lab::bench::Stride;
use ds4_prompt::Thinking;

use super::{Manner, manner, read_text};
use crate::{
    fault::Fault,
    flags::{Args, BenchArgs},
};

const START: usize = 2048;
const MOST: usize = 32_768;
const STEP: usize = 2048;
const DECODE: usize = 128;
const RUNS: usize = 3;
const WARM_UP: usize = 1;

/// A benchmark.
#[derive(Clone, Debug, PartialEq)]
pub struct Bench {
    pub start: usize,
    /// The last context length; a default gives way to what the model was made for.
    pub most: Option<usize>,
    pub stride: Stride,
    pub alloc: Option<usize>,
    pub decode: usize,
    pub batches: Vec<usize>,
    pub runs: usize,
    pub warm_up: usize,
    pub prompt: BenchPrompt,
    pub roofline: bool,
    pub csv: Option<PathBuf>,
    pub json: Option<PathBuf>,
    pub svg: Option<PathBuf>,
}

/// What the tokens are made of.
#[derive(Clone, Debug, PartialEq)]
pub enum BenchPrompt {
    /// Nothing: they are drawn.
    Drawn,
    /// A text as it is.
    Raw { name: String, text: String },
    /// A text as a message.
    Chat { name: String, text: String, manner: Manner },
}

impl Bench {
    /// Plans what the arguments ask for.
    pub fn of(args: &Args) -> Result<Bench, Fault> {
        let typed = &args.bench;
        let bench = Bench {
            start: typed.ctx_start.map_or(START, |n| n as usize),
            most: typed.ctx_max.map(|n| n as usize),
            stride: match typed.step_mul {
                Some(factor) if factor > 1.0 => Stride::Multiply(factor.into()),
                _ => Stride::Add(typed.step_incr.map_or(STEP, |n| n as usize)),
            },
            alloc: typed.ctx_alloc.map(|n| n as usize),
            decode: typed.gen_tokens.or(args.tokens).map_or(DECODE, |n| n as usize),
            batches: if typed.batches.is_empty() { vec![1] } else { typed.batches.clone() },
            runs: typed.runs.map_or(RUNS, |n| n as usize),
            warm_up: typed.warm_up.map_or(WARM_UP, |n| n as usize),
            prompt: prompt(args)?,
            roofline: typed.roofline,
            csv: typed.csv.clone(),
            json: args.json_file.clone(),
            svg: typed.svg.clone(),
        };
        bench.check(typed)?;
        Ok(bench)
    }

    fn check(&self, typed: &BenchArgs) -> Result<(), Fault> {
        let (start, needed) = (self.start, self.needed());
        if let Some(most) = self.most.filter(|most| *most < start) {
            return Err(Fault::usage(format!(
                "--ctx-max: {most} is less than --ctx-start {start}"
            )));
        }
        if let Some(alloc) = self.alloc.filter(|alloc| *alloc < needed) {
            return Err(Fault::usage(format!(
                "--ctx-alloc: {alloc} is too little for --ctx-max and --gen-tokens, {needed} is needed"
            )));
        }
        if typed.csv.as_deref().is_some_and(is_dash) && self.json.as_deref().is_some_and(is_dash) {
            return Err(Fault::usage("--csv - and --json -: standard output takes one of them"));
        }
        if self.svg.as_deref().is_some_and(is_dash) {
            return Err(Fault::usage("--svg: needs a file"));
        }
        Ok(())
    }

    /// The context of every session, if the model allows.
    pub fn context(&self) -> usize {
        self.alloc.unwrap_or(self.needed())
    }

    /// The last context length, in sessions of `context` tokens.
    pub fn most_in(&self, context: usize) -> Result<usize, Fault> {
        let room = context.saturating_sub(self.decode + 1);
        let wanted = self.most.unwrap_or(MOST.max(self.start));
        if wanted <= room {
            return Ok(wanted);
        }
        if self.most.is_some() || room < self.start {
            let (wanted, decode) = (self.most.unwrap_or(self.start), self.decode);
            return Err(Fault::failed(format!(
                "bench: {wanted} tokens, {decode} more to decode and one to spare do not fit the \
                 context of {context} that the model was made for; see --ctx-start, --ctx-max and --gen-tokens"
            )));
        }
        Ok(room)
    }

    fn needed(&self) -> usize {
        self.most.unwrap_or(MOST.max(self.start)).saturating_add(self.decode).saturating_add(1)
    }
}

/// Whether a path stands for standard output.
pub fn is_dash(path: &std::path::Path) -> bool {
    path.as_os_str() == "-"
}

fn prompt(args: &Args) -> Result<BenchPrompt, Fault> {
    let (path, chat) = match (&args.prompt_file, &args.bench.chat_prompt_file) {
        (Some(_), Some(_)) => {
            return Err(Fault::usage("--chat-prompt-file: not together with --prompt-file"));
        }
        (None, None) => return Ok(BenchPrompt::Drawn),
        (Some(path), None) => (path, false),
        (None, Some(path)) => (path, true),
    };
    let (name, text) = (path.display().to_string(), read_text(path)?);
    let manner = Manner { thinking: Thinking::Off, ..manner(args) };
    Ok(if chat {
        BenchPrompt::Chat { name, text, manner }
    } else {
        BenchPrompt::Raw { name, text }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bench(typed: BenchArgs) -> Result<Bench, Fault> {
        Bench::of(&Args { bench: typed, ..Args::default() })
    }

    #[test]
    fn defaults_are_those_of_the_original() {
        let bench = bench(BenchArgs::default()).unwrap();
        assert_eq!((bench.start, bench.stride, bench.decode), (2048, Stride::Add(2048), 128));
        assert_eq!(bench.context(), 32_768 + 128 + 1);
        assert_eq!(bench.most_in(bench.context()).unwrap(), 32_768);
        assert_eq!((bench.runs, bench.warm_up, bench.batches), (3, 1, vec![1]));
        assert_eq!(bench.prompt, BenchPrompt::Drawn);
    }

    #[test]
    fn a_default_gives_way_to_the_model_and_a_wish_does_not() {
        let free = bench(BenchArgs::default()).unwrap();
        assert_eq!(free.most_in(4096).unwrap(), 4096 - 129);
        assert!(free.most_in(2048).is_err());
        let fixed = bench(BenchArgs { ctx_max: Some(4096), ..BenchArgs::default() }).unwrap();
        assert!(fixed.most_in(4096).is_err());
    }

    #[test]
    fn the_longer_name_for_tokens_wins() {
        let args = Args { tokens: Some(5), ..Args::default() };
        assert_eq!(Bench::of(&args).unwrap().decode, 5);
        let typed = BenchArgs { gen_tokens: Some(0), ..BenchArgs::default() };
        assert_eq!(Bench::of(&Args { bench: typed, ..args }).unwrap().decode, 0);
    }

    #[test]
    fn a_factor_of_one_is_no_factor() {
        let typed = BenchArgs { step_mul: Some(1.0), step_incr: Some(7), ..BenchArgs::default() };
        assert_eq!(bench(typed).unwrap().stride, Stride::Add(7));
        let typed = BenchArgs { step_mul: Some(2.0), ..BenchArgs::default() };
        assert_eq!(bench(typed).unwrap().stride, Stride::Multiply(2.0));
    }
}
