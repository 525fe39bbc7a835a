//! Adding up.

use serde_json::{Value, json};

use super::play::Outcome;

/// The outcomes of one group.
#[derive(Clone, Debug)]
pub struct Score {
    /// The group.
    pub group: &'static str,
    /// Its tests, as far as they were played.
    pub outcomes: Vec<Outcome>,
}

impl Score {
    /// Tests that were passed.
    pub fn passed(&self) -> usize {
        self.outcomes.iter().filter(|outcome| outcome.objection.is_none()).count()
    }

    /// The share of tests that were passed; of none it is none.
    pub fn share(&self) -> f64 {
        self.passed() as f64 / self.outcomes.len().max(1) as f64
    }

    /// Tokens that the model said.
    pub fn tokens(&self) -> usize {
        self.outcomes.iter().map(|outcome| outcome.tokens).sum()
    }

    /// The score for machines, with what went wrong.
    pub fn to_json(&self) -> Value {
        let failed = self.outcomes.iter().filter_map(|outcome| {
            let why = outcome.objection.as_ref()?;
            Some(json!({"id": outcome.id, "why": why, "said": outcome.said}))
        });
        json!({
            "score": (self.share() * 1e4).round() / 1e4,
            "n": self.outcomes.len(),
            "failed": failed.collect::<Vec<Value>>(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_score_is_the_share_of_what_was_played() {
        let outcome = |objection: Option<&str>| Outcome {
            id: "x".into(),
            objection: objection.map(str::to_owned),
            said: "said".into(),
            tokens: 2,
        };
        let outcomes = vec![outcome(None), outcome(Some("wrong")), outcome(None)];
        let score = Score { group: "g", outcomes };
        let json = score.to_json();
        assert_eq!((json["score"].as_f64(), json["n"].as_u64()), (Some(0.6667), Some(3)));
        assert_eq!(json["failed"][0]["why"], "wrong");
        assert_eq!(score.tokens(), 6);
        assert_eq!(Score { group: "g", outcomes: Vec::new() }.share(), 0.0);
    }
}
