//! What tests on a card share: whether there is one, and small models to run there.

#![allow(clippy::print_stderr, reason = "a skipped test says why")]

use std::{path::PathBuf, sync::Arc};

use ds4_cuda::devices;
use ds4_model::Model;

/// Whether the driver sees a card; says so if it does not.
pub fn is_here() -> bool {
    match devices() {
        Ok(found) if !found.is_empty() => return true,
        Ok(_) => eprintln!("skipped: the CUDA driver sees no GPU"),
        Err(error) => eprintln!("skipped: {error}"),
    }
    false
}

/// A file of the oracle's fixtures, which another folder may hold on another machine.
pub fn file(name: &str) -> PathBuf {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/oracle");
    std::env::var_os("DS4_FIXTURES").map_or(folder, PathBuf::from).join(name)
}

/// The model in it.
pub fn model(name: &str) -> Arc<Model> {
    Arc::new(Model::open(&file(name)).unwrap())
}
