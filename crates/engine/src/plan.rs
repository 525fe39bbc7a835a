//! What memory a model and its sessions need, before any of it is taken.

/// What the state of one slot costs, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StateCost {
    /// For a slot of any length: windows, rings, what pending rows need.
    pub fixed: u64,
    /// For every 1024 tokens.
    pub per_1k_tokens: u64,
}

impl StateCost {
    /// What a slot of `tokens` tokens costs.
    pub fn bytes(&self, tokens: u64) -> u64 {
        self.fixed + self.per_1k_tokens.saturating_mul(tokens.div_ceil(1024))
    }
}
