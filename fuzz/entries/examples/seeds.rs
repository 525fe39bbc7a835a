//! Writes the seeds of every corpus, for a fuzzer to begin with.

use std::{fs, path::Path};

use ds4_fuzz_entries::TARGETS;

fn main() -> std::io::Result<()> {
    for target in TARGETS {
        let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("../corpus").join(target.name);
        fs::create_dir_all(&corpus)?;
        for (number, seed) in (target.seeds)().iter().enumerate() {
            fs::write(corpus.join(format!("seed-{number}")), seed)?;
        }
    }
    Ok(())
}
