//! One timeline of tokens with its state.
//!
//! A session's tokens are exactly those that its slot has evaluated, whatever fails or is
//! interrupted. Callers say what the timeline should be ([`Session::sync`]); the session finds the
//! cheapest way there and reports it.

use std::{fmt, mem, ops::ControlFlow, slice, sync::Arc};

use crate::{
    DEFAULT_CHUNK, Engine, EngineError, Feed, Logits, Sampler, SavedSession, SessionOptions,
    Shortlist, SlotId, Want, executor::Given, shape::StateShape,
};

/// A timeline of tokens and the model's state after them.
pub struct Session {
    engine: Arc<Engine>,
    slot: SlotId,
    options: SessionOptions,
    tokens: Vec<u32>,
    /// After the last token. Empty if there is none, or if a rewind was not followed by a step.
    logits: Vec<f32>,
    /// What there may be in place of the logits.
    shortlist: Option<Shortlist>,
    /// What a step must give of its last row.
    want: Want,
    /// Kept for its allocation.
    row: Logits,
}

/// How far a [`Session::sync`] is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// Tokens that were there already and stay.
    pub reused: usize,
    /// Tokens that were there already, but must be evaluated again as a rewind lost their state.
    pub rebuild: usize,
    /// Tokens in place now; `reused` at first.
    pub done: usize,
    /// Tokens wanted.
    pub total: usize,
}

/// What a [`Session::sync`] did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sync {
    /// Tokens that were there already and stayed.
    pub reused: usize,
    /// The length before, if the session had to be shortened first.
    pub rewound_from: Option<usize>,
    /// Tokens that were there already, but were evaluated again: state that a rewind lost, and the
    /// last token where its logits had to be made again.
    pub rebuilt: usize,
    /// All tokens that were evaluated.
    pub evaluated: usize,
    /// Whether the caller broke off. The session is then shorter than wanted, and valid.
    pub interrupted: bool,
}

/// What a [`Session::truncate`] did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rewind {
    /// Tokens whose state was still there.
    pub kept: usize,
    /// Tokens that were evaluated again to get to the length asked for.
    pub rebuilt: usize,
}

impl Session {
    /// A session over a slot that already holds `tokens`.
    pub(crate) fn adopt(
        engine: Arc<Engine>,
        slot: SlotId,
        options: SessionOptions,
        tokens: Vec<u32>,
        logits: Vec<f32>,
    ) -> Session {
        let (shortlist, want, row) = (None, Want::Last, Logits::default());
        Session { engine, slot, options, tokens, logits, shortlist, want, row }
    }

    /// The engine it runs on.
    pub fn engine(&self) -> &Arc<Engine> {
        &self.engine
    }

    /// The tokens that are evaluated.
    pub fn tokens(&self) -> &[u32] {
        &self.tokens
    }

    /// How many they are.
    pub fn len(&self) -> usize {
        self.tokens.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.tokens.is_empty()
    }

    /// The most tokens it may hold.
    pub fn context(&self) -> usize {
        self.options.context
    }

    /// The logits after the last token. `None` for an empty session, where a rewind was interrupted or
    /// failed before its first step, until the next sync, push or append gives them again, and where
    /// [`Session::expect`] has made do with less.
    pub fn logits(&self) -> Option<&[f32]> {
        (!self.logits.is_empty()).then_some(&self.logits)
    }

    /// Says what the next tokens will be drawn with. From here on steps fetch what that takes as a rule,
    /// which may be less than all logits. It changes no token that is drawn.
    pub fn expect(&mut self, sampler: &Sampler) {
        self.want = sampler.want();
    }

    /// Draws the token that follows the last one, whatever was expected. `None` if there is none to choose:
    /// no logit is finite after penalties and bias, or the session is empty.
    pub fn draw(&mut self, sampler: &Sampler) -> Result<Option<u32>, EngineError> {
        let position = self.tokens.len() as u64;
        let known = self.shortlist.as_ref();
        if let Some(id) = known.and_then(|list| sampler.sample_shortlist(list, position)) {
            return Ok(Some(id));
        }
        self.fetch_logits()?;
        Ok(sampler.sample(&self.logits, &self.tokens, position))
    }

    /// Makes all logits after the last token current: they are still with the executor, or the token is
    /// evaluated again.
    fn fetch_logits(&mut self) -> Result<(), EngineError> {
        if self.is_empty() || self.logits().is_some() {
            return Ok(());
        }
        if let Some(row) = self.recalled()? {
            self.logits = row;
            return Ok(());
        }
        let want = mem::replace(&mut self.want, Want::Last);
        let tokens = self.tokens.clone();
        let again = self.sync(&tokens, &mut |_| ControlFlow::Continue(()));
        self.want = want;
        again.map(|_| ())
    }

    /// All logits that a shortlist is here in place of, if the executor still has them.
    fn recalled(&self) -> Result<Option<Vec<f32>>, EngineError> {
        if self.shortlist.is_none() {
            return Ok(None);
        }
        let vocab = self.engine.model().config.vocab;
        match self.engine.executor()?.recall(self.slot)? {
            Some(row) if row.len() != vocab => {
                let got = row.len();
                Err(self.broken(format!("it gave {got} logits where {vocab} were wanted")))
            }
            row => Ok(row),
        }
    }

    /// Whether there is what a step would give.
    fn is_current(&self) -> bool {
        let short = matches!(self.want, Want::Shortlist { .. }) && self.shortlist.is_some();
        short || self.logits().is_some()
    }

    /// Makes the session equal to `target`, reusing what the two have in common. `progress` is
    /// called before the first token is evaluated and after each chunk, and may break off there.
    pub fn sync(
        &mut self,
        target: &[u32],
        progress: &mut dyn FnMut(Progress) -> ControlFlow<()>,
    ) -> Result<Sync, EngineError> {
        self.check_room(target.len())?;
        self.check_ids(target, 0)?;
        let before = self.tokens.len();
        let common = common_prefix(&self.tokens, target);
        let current = common == before && (common < target.len() || self.is_current());
        // The last token is evaluated here unless its logits are at hand.
        let keep = if current { before } else { common.min(target.len().saturating_sub(1)) };
        if keep < before {
            self.rewind(keep)?;
        }
        let reused = self.tokens.len();
        let rebuild = common - reused;
        let total = target.len();
        if reused < total {
            let mut report = |done| progress(Progress { reused, rebuild, done, total });
            let mut flow = report(reused);
            while flow.is_continue() && self.tokens.len() < total {
                let done = self.tokens.len();
                self.step(&target[done..chunk_end(self.options.chunk, done, total)])?;
                flow = report(self.tokens.len());
            }
        }
        let evaluated = self.tokens.len() - reused;
        Ok(Sync {
            reused,
            rewound_from: (reused < before).then_some(before),
            rebuilt: rebuild.min(evaluated),
            evaluated,
            interrupted: self.tokens.len() < total,
        })
    }

    /// Evaluates one more token.
    pub fn push(&mut self, token: u32) -> Result<(), EngineError> {
        self.check_room(self.tokens.len().saturating_add(1))?;
        self.check_ids(&[token], self.tokens.len())?;
        self.step(&[token])
    }

    /// What a batch in which this session evaluates `token` next must name, or why it cannot.
    pub(crate) fn feed<'a>(&self, token: &'a u32) -> Result<Feed<'a>, EngineError> {
        self.check_room(self.tokens.len().saturating_add(1))?;
        self.check_ids(slice::from_ref(token), self.tokens.len())?;
        Ok(Feed { slot: self.slot, tokens: slice::from_ref(token), want: self.want })
    }

    /// Takes over what a batch has done: the slot has `token` now, and this came of it.
    pub(crate) fn follow(&mut self, token: u32, given: Option<Given<'_>>) {
        self.tokens.push(token);
        self.forget_logits();
        match given {
            Some(Given::Row(logits)) => self.logits.extend_from_slice(logits),
            Some(Given::Shortlist(list)) => self.shortlist = Some(list.clone()),
            None => {}
        }
    }

    fn forget_logits(&mut self) {
        self.logits.clear();
        self.shortlist = None;
    }

    /// Evaluates more tokens and hands out the logits after each, with its position.
    pub fn append(
        &mut self,
        tokens: &[u32],
        each: &mut dyn FnMut(usize, &[f32]),
    ) -> Result<(), EngineError> {
        let total = self.tokens.len().saturating_add(tokens.len());
        self.check_room(total)?;
        self.check_ids(tokens, self.tokens.len())?;
        let mut rest = tokens;
        let mut rows = Logits::default();
        // The logits of a whole chunk are there at once: as many rows as the longest chunks have that
        // backends like would take gigabytes.
        let most = self.options.chunk.min(DEFAULT_CHUNK);
        while !rest.is_empty() {
            let start = self.tokens.len();
            let (chunk, after) = rest.split_at(chunk_end(most, start, total) - start);
            self.evaluate(chunk, Want::All, &mut rows)?;
            for (position, row) in (start..).zip(rows.rows()) {
                each(position, row);
            }
            if let Some(last) = rows.rows().last() {
                self.logits.extend_from_slice(last);
            }
            rest = after;
        }
        Ok(())
    }

    /// Shortens the session to `len` tokens and makes the logits there current. Where the state for
    /// that length is gone, it is rebuilt from the longest that is left.
    pub fn truncate(&mut self, len: usize) -> Result<Rewind, EngineError> {
        if len > self.tokens.len() {
            return Err(EngineError::TruncateBeyond { asked: len, len: self.tokens.len() });
        }
        let target = self.tokens[..len].to_vec();
        let sync = self.sync(&target, &mut |_| ControlFlow::Continue(()))?;
        Ok(Rewind { kept: sync.reused, rebuilt: sync.evaluated })
    }

    /// A session that starts as a copy of this one, and shares what it can with it.
    pub fn fork(&self) -> Result<Session, EngineError> {
        let slot = self.engine.executor()?.fork(self.slot)?;
        let (engine, tokens) = (Arc::clone(&self.engine), self.tokens.clone());
        let mut copy = Session::adopt(engine, slot, self.options, tokens, self.logits.clone());
        (copy.shortlist, copy.want) = (self.shortlist.clone(), self.want);
        Ok(copy)
    }

    /// The session as bytes, for [`Engine::import`]. `rewind` is how many of the last tokens the
    /// copy can take back without rebuilding; each costs some KiB. Where the logits are not at hand it is
    /// one at least: the copy will evaluate its last token again.
    pub fn export(&self, rewind: usize) -> Result<Vec<u8>, EngineError> {
        let model = self.engine.model();
        let logits = match self.logits() {
            Some(logits) => logits.to_vec(),
            None => self.recalled()?.unwrap_or_default(),
        };
        let rewind = rewind.max(logits.is_empty().into()).min(self.tokens.len());
        let state = self.engine.executor()?.export(self.slot, rewind)?;
        if state.len != self.tokens.len() || state.rounding != self.engine.rounding() {
            return Err(self.broken(format!("it exported {} tokens of {}", state.len, self.len())));
        }
        // A file that nobody can read back should not be written.
        StateShape::new(&model.config, state.rounding)
            .map_err(|error| error.to_string())
            .and_then(|shape| shape.check(&state))
            .map_err(|reason| self.broken(format!("it exported a wrong state: {reason}")))?;
        let tokens = self.tokens.clone();
        Ok(SavedSession { tokens, logits, state }.encode(model.fingerprint))
    }

    /// Shortens the slot to at most `len` tokens, and the session with it.
    fn rewind(&mut self, len: usize) -> Result<(), EngineError> {
        let kept = self.engine.executor()?.truncate(self.slot, len)?;
        self.forget_logits();
        self.tokens.truncate(kept);
        if kept > len {
            return Err(self.broken(format!("it truncated to {kept} tokens instead of {len}")));
        }
        Ok(())
    }

    /// Evaluates one chunk and makes the logits of its last token current, or their shortlist.
    fn step(&mut self, chunk: &[u32]) -> Result<(), EngineError> {
        let mut row = mem::take(&mut self.row);
        self.evaluate(chunk, self.want, &mut row)?;
        self.shortlist = row.shortlists.pop();
        mem::swap(&mut self.logits, &mut row.values);
        self.row = row;
        Ok(())
    }

    /// Evaluates one chunk. The logits it wants are in `rows`; the session has none until its caller
    /// puts them there. If it fails, the session is as before.
    fn evaluate(
        &mut self,
        chunk: &[u32],
        want: Want,
        rows: &mut Logits,
    ) -> Result<(), EngineError> {
        let feed = Feed { slot: self.slot, tokens: chunk, want };
        self.engine.executor()?.step(&[feed], rows)?;
        self.tokens.extend_from_slice(chunk);
        self.forget_logits();
        let vocab = self.engine.model().config.vocab;
        let wanted = want.rows(chunk.len());
        let short = usize::from(matches!(want, Want::Shortlist { .. }));
        if !rows.are(vocab, wanted, short) {
            let (got, wanted) = (rows.values.len(), wanted.saturating_mul(vocab));
            return Err(self.broken(format!("it gave {got} logits where {wanted} were wanted")));
        }
        Ok(())
    }

    fn check_room(&self, wanted: usize) -> Result<(), EngineError> {
        let context = self.options.context;
        if wanted > context { Err(EngineError::ContextFull { wanted, context }) } else { Ok(()) }
    }

    fn check_ids(&self, tokens: &[u32], start: usize) -> Result<(), EngineError> {
        let vocab = self.engine.model().config.vocab;
        match (start..).zip(tokens).find(|(_, id)| **id as usize >= vocab) {
            Some((position, &id)) => Err(EngineError::TokenOutOfRange { id, position, vocab }),
            None => Ok(()),
        }
    }

    fn broken(&self, what: String) -> EngineError {
        EngineError::Contract { backend: self.engine.backend(), what }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        // A lost executor has nothing left to close.
        if let Ok(mut executor) = self.engine.executor() {
            executor.close(self.slot);
        }
    }
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session")
            .field("backend", &self.engine.backend())
            .field("slot", &self.slot)
            .field("len", &self.tokens.len())
            .field("context", &self.options.context)
            .finish_non_exhaustive()
    }
}

/// Where the chunk that starts at `start` ends. Chunks end at multiples of their size, so that those of
/// a resumed prompt line up with those of a whole one, and with compressed rows.
fn chunk_end(chunk: usize, start: usize, total: usize) -> usize {
    (start - start % chunk).saturating_add(chunk).min(total)
}

fn common_prefix(a: &[u32], b: &[u32]) -> usize {
    a.iter().zip(b).take_while(|(a, b)| a == b).count()
}
