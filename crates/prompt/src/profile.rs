//! Which of DeepSeek's own conventions apply: the places where they differ are all named here.

use crate::pyjson::Dialect;

/// How hard to think, as requests spell it. Not every [`Profile`] knows every level.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "what a level means is the profile's business")]
pub enum Effort {
    Minimal,
    Low,
    Medium,
    High,
    Xhigh,
    Max,
    Ultra,
}

impl Effort {
    /// The level that requests call `name`.
    pub fn from_name(name: &str) -> Option<Effort> {
        Some(match name {
            "minimal" => Effort::Minimal,
            "low" => Effort::Low,
            "medium" => Effort::Medium,
            "high" => Effort::High,
            "xhigh" => Effort::Xhigh,
            "max" => Effort::Max,
            "ultra" => Effort::Ultra,
            _ => return None,
        })
    }

    /// The name that requests use.
    pub fn name(self) -> &'static str {
        match self {
            Effort::Minimal => "minimal",
            Effort::Low => "low",
            Effort::Medium => "medium",
            Effort::High => "high",
            Effort::Xhigh => "xhigh",
            Effort::Max => "max",
            Effort::Ultra => "ultra",
        }
    }
}

/// A set of conventions.
///
/// | | `Preview` | `Official` | `Hosted` |
/// |---|---|---|---|
/// | belongs to | the checkpoints of April 2026 | Flash 0731, PRO GA | DeepSeek's API |
/// | no effort given | nothing | nothing | *absolute* |
/// | low, minimal | - | low: nothing | nothing |
/// | high | nothing | *absolute* | *absolute* |
/// | medium, xhigh | - | - | *absolute* |
/// | max | *absolute* | *beyond* | *beyond* (also ultra) |
/// | conversation | message by message, in place | same | [`crate::Conversation::render`] says |
/// | JSON | Python's | Python's | [`Dialect::Hosted`] |
/// | call without arguments | a blank line | same | no blank line |
///
/// A dash is an error. *absolute* and *beyond* are the two preambles that a thinking prompt can
/// begin with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Profile {
    /// The reference encoder as first released.
    Preview,
    /// The reference encoder of the current checkpoints.
    Official,
    /// The hosted API.
    Hosted,
}

/// An effort that the profile has no meaning for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("reasoning effort `{}` does not exist in the {} profile", effort.name(), profile.name())]
pub struct UnknownEffort {
    /// The effort asked for.
    pub effort: Effort,
    /// The profile asked.
    pub profile: Profile,
}

impl Profile {
    /// The name on command lines and in vector files.
    pub fn name(self) -> &'static str {
        match self {
            Profile::Preview => "preview",
            Profile::Official => "official",
            Profile::Hosted => "hosted",
        }
    }

    /// The profile called `name`.
    pub fn from_name(name: &str) -> Option<Profile> {
        [Profile::Preview, Profile::Official, Profile::Hosted]
            .into_iter()
            .find(|profile| profile.name() == name)
    }

    /// What a thinking prompt begins with, before any system text.
    pub fn preamble(self, effort: Option<Effort>) -> Result<&'static str, UnknownEffort> {
        use Effort::{High, Low, Max, Medium, Minimal, Ultra, Xhigh};
        Ok(match (self, effort) {
            (Profile::Preview, None | Some(High)) => "",
            (Profile::Preview, Some(Max)) => ABSOLUTE,
            (Profile::Official, None | Some(Low)) => "",
            (Profile::Official, Some(High)) => ABSOLUTE,
            (Profile::Official, Some(Max)) => BEYOND,
            (Profile::Hosted, Some(Minimal | Low)) => "",
            (Profile::Hosted, None | Some(Medium | High | Xhigh)) => ABSOLUTE,
            (Profile::Hosted, Some(Max | Ultra)) => BEYOND,
            (profile, Some(effort)) => return Err(UnknownEffort { effort, profile }),
        })
    }

    pub(crate) fn dialect(self) -> Dialect {
        match self {
            Profile::Preview | Profile::Official => Dialect::Python,
            Profile::Hosted => Dialect::Hosted,
        }
    }
}

/// Whether the model reasons before it answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// It answers at once: turns open with `</think>`.
    Chat,
    /// It reasons first: turns open with `<think>`.
    Thinking,
}

/// The three settings of a chat at the terminal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Thinking {
    /// `/nothink`
    Off,
    /// `/think`: reason, without urging.
    On,
    /// `/think-max`: the strongest preamble that the profile has.
    Max,
}

impl Thinking {
    /// What to give the encoder. `On` is the lowest effort of each ladder, which has no preamble:
    /// that is the encoder's own default for checkpoints, and on the hosted ladder it has to be
    /// asked for.
    pub fn settings(self, profile: Profile) -> (Mode, Option<Effort>) {
        match (self, profile) {
            (Thinking::Off, _) => (Mode::Chat, None),
            (Thinking::On, Profile::Preview | Profile::Official) => (Mode::Thinking, None),
            (Thinking::On, Profile::Hosted) => (Mode::Thinking, Some(Effort::Low)),
            (Thinking::Max, _) => (Mode::Thinking, Some(Effort::Max)),
        }
    }
}

const ABSOLUTE: &str = "\
Reasoning Effort: Absolute maximum with no shortcuts permitted.
You MUST be very thorough in your thinking and comprehensively decompose the problem to resolve the root cause, rigorously stress-testing your logic against all potential paths, edge cases, and adversarial scenarios.
Explicitly write out your entire deliberation process, documenting every intermediate step, considered alternative, and rejected hypothesis to ensure absolutely no assumption is left unchecked.

";

const BEYOND: &str = "\
Reasoning Effort: Beyond maximum — exhaustive, relentless, and uncompromising.
You MUST reason with the utmost depth and rigor, leaving absolutely nothing to chance: exhaustively decompose the problem into its most fundamental components, trace every causal chain to its root, and resolve the underlying cause rather than any surface symptom.
Do not stop reasoning until you have independently verified the solution from multiple angles and are certain that no assumption remains unchecked and no error remains undiscovered.

";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_ladder_has_its_own_steps() {
        let levels = ["", "minimal", "low", "medium", "high", "xhigh", "max", "ultra"]
            .map(Effort::from_name);
        for (profile, steps) in [
            (Profile::Preview, "0---0-1-"),
            (Profile::Official, "0-0-1-2-"),
            (Profile::Hosted, "10011122"),
        ] {
            let found: String = levels
                .iter()
                .map(|&effort| match profile.preamble(effort) {
                    Ok("") => '0',
                    Ok(ABSOLUTE) => '1',
                    Ok(_) => '2',
                    Err(_) => '-',
                })
                .collect();
            assert_eq!(found, steps, "{}", profile.name());
        }
    }

    #[test]
    fn terminal_settings_exist_on_every_ladder() {
        for profile in [Profile::Preview, Profile::Official, Profile::Hosted] {
            assert_eq!(Profile::from_name(profile.name()), Some(profile));
            assert_eq!(Thinking::Off.settings(profile).0, Mode::Chat);
            let preamble = |thinking: Thinking| profile.preamble(thinking.settings(profile).1);
            assert_eq!(preamble(Thinking::On), Ok(""));
            assert!(preamble(Thinking::Max).is_ok_and(|text| !text.is_empty()));
        }
    }
}
