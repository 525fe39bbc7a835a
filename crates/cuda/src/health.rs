//! Whether the card still answers. After some errors (an illegal address, a memory error, a card that
//! fell off the bus) the driver refuses everything that follows, and what the card held is gone. From
//! then on every call gets the same sentence: what happened first, and what to do.

use std::sync::OnceLock;

use ds4_engine::ExecError;

use crate::options::CudaError;

/// Whether the card still answers, and if not, what happened.
#[derive(Default)]
pub struct Health(OnceLock<String>);

impl Health {
    /// Refuses if the card was lost.
    pub fn check(&self) -> Result<(), ExecError> {
        match self.0.get() {
            None => Ok(()),
            Some(what) => Err(ExecError::Machine(format!(
                "the GPU failed and its sessions are lost, saved ones are not; load the model again ({what})"
            ))),
        }
    }

    /// Gives the card up. The first reason stays.
    pub fn lose(&self, what: &dyn ToString) {
        let _ = self.0.set(what.to_string());
    }

    /// Passes a result on; after an error of the machine `answers` says whether the card still does,
    /// and a card that does not is given up.
    pub fn judge<T>(
        &self,
        result: Result<T, ExecError>,
        answers: impl FnOnce() -> Result<(), CudaError>,
    ) -> Result<T, ExecError> {
        if let Err(ExecError::Machine(what)) = &result
            && answers().is_err()
        {
            self.lose(what);
        }
        match (result, self.check()) {
            (Err(_), Err(lost)) => Err(lost),
            (result, _) => result,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(says: &str) -> CudaError {
        CudaError::Driver { what: "running the kernels", says: says.to_owned() }
    }

    fn machine(says: &str) -> Result<(), ExecError> {
        Err(error(says).into())
    }

    #[test]
    fn an_error_that_the_card_survives_stays_one_error() {
        let health = Health::default();
        let said = health.judge(machine("no room"), || Ok(())).unwrap_err().to_string();
        assert_eq!(said, "running the kernels: the CUDA driver says no room");
        health.check().unwrap();
        assert_eq!(health.judge(Ok(7), || Err(error("is not asked"))).unwrap(), 7);
    }

    #[test]
    fn a_lost_card_says_so_once_and_for_all() {
        let health = Health::default();
        let gone = || Err(error("CUDA_ERROR_ILLEGAL_ADDRESS"));
        let first = health.judge(machine("CUDA_ERROR_ILLEGAL_ADDRESS"), gone).unwrap_err();
        let first = first.to_string();
        assert_eq!(
            first,
            "the GPU failed and its sessions are lost, saved ones are not; load the model again \
             (running the kernels: the CUDA driver says CUDA_ERROR_ILLEGAL_ADDRESS)"
        );
        assert_eq!(health.check().unwrap_err().to_string(), first);
        health.lose(&"something else");
        assert_eq!(health.judge(machine("another"), gone).unwrap_err().to_string(), first);
    }

    #[test]
    fn a_refused_batch_asks_nobody() {
        let health = Health::default();
        let refused: Result<(), _> = Err(ExecError::InvalidBatch("a slot is fed twice"));
        let judged = health.judge(refused, || panic!("asked"));
        assert!(matches!(judged, Err(ExecError::InvalidBatch(_))));
    }
}
