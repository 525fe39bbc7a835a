//! A loaded model that sessions share.

use std::{
    fmt,
    sync::{Arc, Mutex, MutexGuard},
};

use ds4_model::{Model, Rounding};

use crate::{EngineError, Executor, ReadRate, SavedSession, Session, Stage, StateCost};

/// Tokens per prefill chunk unless the caller or the backend says otherwise.
pub const DEFAULT_CHUNK: usize = 512;

/// A model on a backend. Sessions take turns on it: one step, then the next.
pub struct Engine {
    model: Arc<Model>,
    backend: &'static str,
    rounding: Rounding,
    state_cost: StateCost,
    executor: Mutex<Box<dyn Executor>>,
}

/// What a session may hold, and how it reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SessionOptions {
    /// The most tokens it may hold. Memory is taken as it fills, not before.
    pub context: usize,
    /// Tokens that a prompt is evaluated in at a time. It changes how often progress is reported and
    /// how much memory a step needs, never a logit.
    pub chunk: usize,
}

impl SessionOptions {
    /// Room for `context` tokens, read in chunks of [`DEFAULT_CHUNK`].
    pub fn new(context: usize) -> SessionOptions {
        SessionOptions { context, chunk: DEFAULT_CHUNK }
    }
}

impl Engine {
    /// An engine on a backend that has loaded its model.
    pub fn new(executor: Box<dyn Executor>) -> Arc<Engine> {
        Arc::new(Engine {
            model: Arc::clone(executor.model()),
            backend: executor.name(),
            rounding: executor.rounding(),
            state_cost: executor.state_cost(),
            executor: Mutex::new(executor),
        })
    }

    /// The model.
    pub fn model(&self) -> &Arc<Model> {
        &self.model
    }

    /// The backend's name, for people.
    pub fn backend(&self) -> &'static str {
        self.backend
    }

    /// Which of the model's own roundings are applied.
    pub fn rounding(&self) -> Rounding {
        self.rounding
    }

    /// What the state of one session costs.
    pub fn state_cost(&self) -> StateCost {
        self.state_cost
    }

    /// Bytes that the state of all open sessions takes now.
    pub fn state_bytes(&self) -> Result<usize, EngineError> {
        Ok(self.executor()?.state_bytes())
    }

    /// Where the time of all steps since the last reset went; empty if the backend does not measure it.
    pub fn stages(&self) -> Result<Vec<Stage>, EngineError> {
        Ok(self.executor()?.stages())
    }

    /// Starts measuring [`Engine::stages`] anew.
    pub fn reset_stages(&self) -> Result<(), EngineError> {
        self.executor()?.reset_stages();
        Ok(())
    }

    /// Starts or stops measuring [`Engine::stages`] where that slows steps down; whether it does.
    pub fn time_stages(&self, on: bool) -> Result<bool, EngineError> {
        Ok(self.executor()?.time_stages(on))
    }

    /// The card that computes; `None` where it is the processor.
    pub fn card(&self) -> Result<Option<String>, EngineError> {
        Ok(self.executor()?.card())
    }

    /// How fast the card reads its weights; `None` where they lie in the machine's own memory.
    pub fn read_rate(&self) -> Result<Option<ReadRate>, EngineError> {
        Ok(self.executor()?.read_rate()?)
    }

    /// An empty session.
    pub fn session(self: &Arc<Self>, options: SessionOptions) -> Result<Session, EngineError> {
        self.check(options)?;
        let slot = self.executor()?.open()?;
        Ok(Session::adopt(Arc::clone(self), slot, options, Vec::new(), Vec::new()))
    }

    /// A session as [`Session::export`] saved it, here or on another machine or backend.
    pub fn import(
        self: &Arc<Self>,
        bytes: &[u8],
        options: SessionOptions,
    ) -> Result<Session, EngineError> {
        self.check(options)?;
        let SavedSession { tokens, logits, state } =
            SavedSession::decode(bytes, &self.model.config, self.model.fingerprint, self.rounding)?;
        if tokens.len() > options.context {
            return Err(EngineError::ContextFull {
                wanted: tokens.len(),
                context: options.context,
            });
        }
        let slot = self.executor()?.import(&state)?;
        Ok(Session::adopt(Arc::clone(self), slot, options, tokens, logits))
    }

    /// The executor, for one call. A panic inside an earlier one leaves state of unknown content,
    /// which nobody should be given logits from.
    pub(crate) fn executor(&self) -> Result<MutexGuard<'_, Box<dyn Executor>>, EngineError> {
        self.executor.lock().map_err(|_| EngineError::Lost { backend: self.backend })
    }

    fn check(&self, options: SessionOptions) -> Result<(), EngineError> {
        let model = self.model.config.max_context;
        match options {
            SessionOptions { context: 0, .. } => Err(EngineError::ZeroOption("context")),
            SessionOptions { chunk: 0, .. } => Err(EngineError::ZeroOption("chunk")),
            SessionOptions { context: asked, .. } if asked > model => {
                Err(EngineError::ContextTooLong { asked, model })
            }
            _ => Ok(()),
        }
    }
}

impl fmt::Debug for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Engine")
            .field("model", &self.model.config.name)
            .field("backend", &self.backend)
            .field("rounding", &self.rounding)
            .finish_non_exhaustive()
    }
}
