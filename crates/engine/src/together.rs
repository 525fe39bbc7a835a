//! Several sessions stepping as one batch: the weights are read once for all of them.

use std::{ptr, sync::Arc};

use crate::{Engine, EngineError, Feed, Logits, Session, Want};

impl Engine {
    /// Evaluates one more token of each session, as [`Session::push`] does for one. No session sees
    /// another. If it fails, every session is as before; `rows` is kept for its allocation.
    pub fn push_together(
        &self,
        steps: &mut [(&mut Session, u32)],
        rows: &mut Logits,
    ) -> Result<(), EngineError> {
        if steps.is_empty() {
            return Ok(());
        }
        if !steps.iter().all(|(session, _)| ptr::eq(Arc::as_ptr(session.engine()), self)) {
            return Err(EngineError::OtherEngine);
        }
        let feeds: Vec<Feed<'_>> =
            steps.iter().map(|(session, token)| session.feed(token)).collect::<Result<_, _>>()?;
        let wants: Vec<Want> = feeds.iter().map(|feed| feed.want).collect();
        self.executor()?.step(&feeds, rows)?;
        let vocab = self.model().config.vocab;
        let given = rows.given(vocab, &wants);
        let complete = given.is_some();
        let mut given = given.into_iter().flatten();
        for (session, token) in steps.iter_mut() {
            // The slots have their tokens, whatever came back with them.
            session.follow(*token, given.next());
        }
        if complete {
            return Ok(());
        }
        let (got, wanted) = (rows.values.len(), steps.len() * vocab);
        let what = format!("it gave {got} logits where {wanted} were wanted");
        Err(EngineError::Contract { backend: self.backend(), what })
    }
}
