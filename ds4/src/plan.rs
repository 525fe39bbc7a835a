//! From what was typed to what will be done: defaults filled in, contradictions refused, the prompt
//! read. What depends on the model is settled once the model is known ([`Setting`]).

mod bench;
mod pull;

use std::{
    env, fs,
    hash::{BuildHasher, Hasher, RandomState},
    io::{self, IsTerminal, Read},
    path::{Path, PathBuf},
};

use ds4_cpu::{Activations, Numa};
use ds4_engine::SamplerOptions;
use ds4_model::Rounding;
use ds4_prompt::{Profile, Thinking};

use crate::{
    fault::Fault,
    flags::{Args, Backend, Command, complete::SHELLS},
};

pub use bench::{Bench, BenchPrompt, is_dash};
pub use pull::Pull;

/// The model that the original looks for.
pub const DEFAULT_MODEL: &str = "ds4flash.gguf";
const DEFAULT_CONTEXT: usize = 32_768;
const DEFAULT_TOKENS: usize = 50_000;
const DEFAULT_SYSTEM: &str = "You are a helpful assistant";
const DEFAULT_TOP_LOGPROBS: usize = 20;
/// Urging to think without limit makes no sense where there is no room for it.
pub const THINK_MAX_CONTEXT: usize = 393_216;

/// What will be done.
#[derive(Debug, PartialEq)]
pub enum Plan {
    Version,
    Completions {
        shell: &'static str,
    },
    Chat(Setup, Manner, Answer),
    Run(Setup, Manner, Answer, Prompt),
    Inspect {
        model: ModelChoice,
        context: Option<usize>,
        json: bool,
        check: bool,
    },
    Tokens {
        model: ModelChoice,
        text: String,
    },
    Logits {
        setup: Setup,
        manner: Manner,
        prompt: Prompt,
        output: Option<PathBuf>,
    },
    Logprobs {
        setup: Setup,
        manner: Manner,
        prompt: Prompt,
        output: Option<PathBuf>,
        top: usize,
        tokens: usize,
    },
    Perplexity {
        setup: Setup,
        path: PathBuf,
        text: String,
        tokens: usize,
    },
    Bench(Setup, Bench),
    Eval {
        setup: Setup,
        limit: usize,
        json: Option<PathBuf>,
    },
    Pull(Pull),
}

/// Which model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ModelChoice {
    File(PathBuf),
    /// The one inside this program.
    BuiltIn,
}

/// A model and how to run it.
#[derive(Clone, Debug, PartialEq)]
pub struct Setup {
    pub model: ModelChoice,
    pub context: Option<usize>,
    /// 0 is one for each core.
    pub threads: usize,
    pub numa: Numa,
    pub backend: Backend,
    pub gpu: usize,
    /// `None`: what computes says.
    pub chunk: Option<usize>,
    pub rounding: Rounding,
    pub activations: Activations,
}

/// How conversations are rendered.
#[derive(Clone, Debug, PartialEq)]
pub struct Manner {
    pub system: String,
    pub thinking: Thinking,
    pub profile: Profile,
}

/// How answers are drawn.
#[derive(Clone, Debug, PartialEq)]
pub struct Answer {
    pub tokens: usize,
    pub seed: Option<u64>,
    /// All but the seed.
    pub sampling: SamplerOptions,
}

/// A prompt as it was given.
#[derive(Clone, Debug, PartialEq)]
pub struct Prompt {
    pub text: String,
    /// Whether it is rendered already.
    pub raw: bool,
}

/// A setting: what was asked for, what it will be, and why, where a person should know.
#[derive(Clone, Debug, PartialEq)]
pub struct Setting<T> {
    pub requested: Option<T>,
    pub effective: T,
    pub why: Option<String>,
}

impl Plan {
    /// Plans what the arguments ask for.
    pub fn of(args: Args) -> Result<Plan, Fault> {
        if args.version {
            return Ok(Plan::Version);
        }
        Ok(match command(&args) {
            Command::Completions => Plan::Completions { shell: shell(&args)? },
            Command::Chat => Plan::Chat(setup(&args), manner(&args), answer(&args)),
            Command::Run => {
                let prompt = prompt(&args)?;
                Plan::Run(setup(&args), manner(&args), answer(&args), prompt)
            }
            Command::Inspect => Plan::Inspect {
                model: match (&args.operand, &args.model) {
                    (Some(_), Some(_)) => {
                        return Err(Fault::usage("inspect: FILE or -m FILE, not both"));
                    }
                    (Some(file), None) => ModelChoice::File(file.into()),
                    (None, _) => model(&args),
                },
                context: args.context.map(|n| n as usize),
                json: args.json,
                check: args.check,
            },
            Command::Tokens => Plan::Tokens { model: model(&args), text: prompt(&args)?.text },
            Command::Logits => Plan::Logits {
                setup: setup(&args),
                manner: manner(&args),
                prompt: prompt(&args)?,
                output: args.output,
            },
            Command::Logprobs => Plan::Logprobs {
                setup: setup(&args),
                manner: manner(&args),
                prompt: prompt(&args)?,
                tokens: tokens(&args),
                top: args.top_logprobs.map_or(DEFAULT_TOP_LOGPROBS, |n| n as usize),
                output: args.output,
            },
            Command::Perplexity => {
                let path = match (&args.operand, &args.perplexity_file) {
                    (Some(file), _) => file.into(),
                    (None, Some(file)) => file.clone(),
                    (None, None) => return Err(Fault::usage("perplexity: needs a FILE of text")),
                };
                if args.prompt.is_some() || args.prompt_file.is_some() {
                    return Err(Fault::usage("perplexity: scores a file, it takes no prompt"));
                }
                let text = read_text(&path)?;
                Plan::Perplexity { setup: setup(&args), path, text, tokens: tokens(&args) }
            }
            Command::Eval => Plan::Eval {
                setup: setup(&args),
                limit: args.eval.limit.map_or(usize::MAX, |n| n as usize),
                json: args.json_file,
            },
            Command::Pull => Plan::Pull(Pull::of(&args)?),
            Command::Bench => {
                let bench = Bench::of(&args)?;
                Plan::Bench(Setup { context: Some(bench.context()), ..setup(&args) }, bench)
            }
        })
    }
}

/// Of several commands that flags ask for, the one that needs least wins, as in the original.
fn command(args: &Args) -> Command {
    use Command::{Chat, Inspect, Logits, Logprobs, Perplexity, Run, Tokens};
    if let Some(command) = args.command {
        return command;
    }
    let by_flag = [Tokens, Inspect, Perplexity, Logits, Logprobs]
        .into_iter()
        .find(|command| args.by_flag.contains(command));
    let has_prompt = args.prompt.is_some() || args.prompt_file.is_some();
    by_flag.unwrap_or(if has_prompt { Run } else { Chat })
}

fn shell(args: &Args) -> Result<&'static str, Fault> {
    let wanted = args.operand.as_ref().and_then(|shell| shell.to_str()).unwrap_or_default();
    SHELLS.iter().find(|shell| **shell == wanted).copied().ok_or_else(|| {
        Fault::usage(format!("completions: name a shell, one of {}", SHELLS.join(", ")))
    })
}

fn model(args: &Args) -> ModelChoice {
    match &args.model {
        Some(path) => ModelChoice::File(path.clone()),
        None if Path::new(DEFAULT_MODEL).exists() => ModelChoice::File(DEFAULT_MODEL.into()),
        None => ModelChoice::BuiltIn,
    }
}

fn setup(args: &Args) -> Setup {
    Setup {
        model: model(args),
        context: args.context.map(|n| n as usize),
        threads: args.threads.unwrap_or(0) as usize,
        numa: args.numa,
        backend: args.backend,
        gpu: args.gpu.unwrap_or(0) as usize,
        chunk: args.prefill_chunk.map(|n| n as usize),
        rounding: args.rounding.unwrap_or(Rounding::Official),
        activations: if args.exact { Activations::Exact } else { Activations::Int8 },
    }
}

fn manner(args: &Args) -> Manner {
    Manner {
        system: args.system.clone().unwrap_or_else(|| DEFAULT_SYSTEM.to_owned()),
        thinking: args.thinking.unwrap_or(Thinking::On),
        profile: args.effort_profile.unwrap_or(Profile::Official),
    }
}

fn tokens(args: &Args) -> usize {
    args.tokens.map_or(DEFAULT_TOKENS, |n| n as usize)
}

fn answer(args: &Args) -> Answer {
    let usual = SamplerOptions::default();
    Answer {
        tokens: tokens(args),
        seed: args.seed,
        sampling: SamplerOptions {
            temperature: args.temperature.unwrap_or(usual.temperature),
            top_k: args.top_k.map_or(usual.top_k, |n| n as usize),
            top_p: args.top_p.unwrap_or(usual.top_p),
            min_p: args.min_p.unwrap_or(usual.min_p),
            repetition_penalty: args.repetition_penalty.unwrap_or(usual.repetition_penalty),
            frequency_penalty: args.frequency_penalty.unwrap_or(usual.frequency_penalty),
            presence_penalty: args.presence_penalty.unwrap_or(usual.presence_penalty),
            penalty_window: args.penalty_window.map_or(usual.penalty_window, |n| n as usize),
            logit_bias: args.logit_bias.clone(),
            seed: usual.seed,
        },
    }
}

fn prompt(args: &Args) -> Result<Prompt, Fault> {
    let text = match (&args.prompt, &args.prompt_file) {
        (Some(_), Some(_)) => return Err(Fault::usage("--prompt-file: not together with -p")),
        (Some(text), None) => text.clone(),
        (None, Some(path)) => read_text(path)?,
        (None, None) if io::stdin().is_terminal() => {
            return Err(Fault::usage(
                "no prompt: give one with -p TEXT, --prompt-file FILE, or on standard input",
            ));
        }
        (None, None) => {
            let mut bytes = Vec::new();
            io::stdin()
                .lock()
                .read_to_end(&mut bytes)
                .map_err(|error| Fault::usage(format!("standard input: {error}")))?;
            utf8(bytes, "standard input")?
        }
    };
    if text.is_empty() {
        return Err(Fault::usage("the prompt is empty"));
    }
    Ok(Prompt { text, raw: args.raw })
}

fn read_text(path: &Path) -> Result<String, Fault> {
    let bytes =
        fs::read(path).map_err(|error| Fault::usage(format!("{}: {error}", path.display())))?;
    utf8(bytes, &path.display().to_string())
}

fn utf8(bytes: Vec<u8>, name: &str) -> Result<String, Fault> {
    String::from_utf8(bytes).map_err(|error| {
        let at = error.utf8_error().valid_up_to();
        Fault::usage(format!("{name}: not UTF-8 text at byte {at}"))
    })
}

impl Setup {
    /// How many tokens a session may hold, on a model made for `most`.
    pub fn context_for(&self, most: usize) -> Setting<usize> {
        context(self.context, most)
    }
}

/// How many tokens a session may hold, on a model made for `most`.
pub fn context(requested: Option<usize>, most: usize) -> Setting<usize> {
    let wanted = requested.unwrap_or(DEFAULT_CONTEXT);
    let why = (requested.is_some() && wanted > most)
        .then(|| format!("context {most} instead of {wanted}: the model was made for no more"));
    Setting { requested, effective: wanted.min(most), why }
}

/// How the model will think in a context of this size.
pub fn thinking(requested: Thinking, context: usize) -> Setting<Thinking> {
    let too_short = requested == Thinking::Max && context < THINK_MAX_CONTEXT;
    Setting {
        requested: Some(requested),
        effective: if too_short { Thinking::On } else { requested },
        why: too_short.then(|| {
            format!(
                "plain thinking instead of --think-max: \
                 the context is {context}, it needs --ctx {THINK_MAX_CONTEXT}"
            )
        }),
    }
}

impl Answer {
    /// The seed: the one asked for, or a drawn one that a person can type.
    pub fn seed(&self) -> Setting<u64> {
        let drawn = || (RandomState::new().build_hasher().finish() >> 32).max(1);
        let effective = self.seed.unwrap_or_else(drawn);
        let drawn_counts = self.seed.is_none() && self.sampling.temperature > 0.0;
        Setting {
            requested: self.seed,
            effective,
            why: drawn_counts.then(|| format!("seed {effective}, drawn; --seed repeats it")),
        }
    }
}

/// Where the history of a chat is kept: at home, or here for those who have none.
pub fn history_path() -> PathBuf {
    let home = env::var_os("HOME").filter(|home| !home.is_empty());
    home.map_or_else(|| PathBuf::from("."), PathBuf::from).join(".ds4_history")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with_prompt() -> Args {
        Args { prompt: Some("hi".into()), ..Args::default() }
    }

    #[test]
    fn a_prompt_means_run_and_none_means_chat() {
        assert!(matches!(Plan::of(Args::default()), Ok(Plan::Chat(..))));
        assert!(matches!(Plan::of(with_prompt()), Ok(Plan::Run(..))));
    }

    #[test]
    fn commands_by_flag_have_an_order() {
        use Command::{Inspect, Logits, Logprobs, Perplexity, Tokens};
        let order = [Tokens, Inspect, Perplexity, Logits, Logprobs];
        for (i, first) in order.into_iter().enumerate() {
            let mut by_flag = order[i..].to_vec();
            by_flag.reverse();
            assert_eq!(command(&Args { by_flag, ..with_prompt() }), first);
        }
    }

    #[test]
    fn two_prompts_are_one_too_many() {
        let args = Args { prompt_file: Some("x".into()), ..with_prompt() };
        assert!(matches!(Plan::of(args), Err(Fault::Usage(_))));
    }

    #[test]
    fn defaults_are_those_of_the_original() {
        let Ok(Plan::Run(setup, manner, answer, _)) = Plan::of(with_prompt()) else { panic!() };
        assert_eq!(setup.context_for(1 << 20).effective, 32_768);
        assert_eq!(setup.activations, Activations::Int8);
        assert_eq!((manner.thinking, manner.system.as_str()), (Thinking::On, DEFAULT_SYSTEM));
        assert_eq!(answer.tokens, 50_000);
        let sampling = answer.sampling;
        assert_eq!((sampling.temperature, sampling.top_p, sampling.min_p), (1.0, 1.0, 0.05));
        assert_eq!(sampling.top_k, 0);
    }

    #[test]
    fn a_context_stays_within_the_model_and_says_so_if_it_was_asked_for() {
        for (requested, most, effective, told) in [
            (None, 1 << 20, 32_768, false),
            (None, 4096, 4096, false),
            (Some(1000), 4096, 1000, false),
            (Some(5000), 4096, 4096, true),
        ] {
            let setting = context(requested, most);
            assert_eq!(setting.effective, effective);
            assert_eq!(setting.why.is_some(), told);
        }
    }

    #[test]
    fn thinking_without_limit_needs_room() {
        let setting = thinking(Thinking::Max, THINK_MAX_CONTEXT - 1);
        assert_eq!(setting.effective, Thinking::On);
        assert!(setting.why.is_some_and(|why| why.contains("393216")));
        assert_eq!(thinking(Thinking::Max, THINK_MAX_CONTEXT).why, None);
        assert_eq!(thinking(Thinking::Off, 1).effective, Thinking::Off);
    }

    #[test]
    fn a_seed_is_told_only_if_it_was_drawn_and_matters() {
        let mut answer = answer(&Args::default());
        assert!(answer.seed().why.is_some());
        assert_ne!(answer.seed().effective, answer.seed().effective);
        answer.sampling.temperature = 0.0;
        assert_eq!(answer.seed().why, None);
        answer.seed = Some(7);
        assert_eq!(answer.seed().effective, 7);
    }
}
