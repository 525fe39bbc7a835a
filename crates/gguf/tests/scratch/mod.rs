//! A folder for the files of one test, gone when the test is over.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process,
};

pub struct Scratch(PathBuf);

impl Scratch {
    pub fn new(test: &str) -> Scratch {
        let folder = env::temp_dir().join(format!("ds4-gguf-{test}-{}", process::id()));
        fs::create_dir_all(&folder).unwrap();
        Scratch(folder)
    }

    pub fn path(&self, name: impl AsRef<Path>) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}
