//! The built-in model until a trained one exists: a tiny DeepSeek V4 with random weights, that has
//! every mechanism of the architecture and says nothing but noise.

use std::path::Path;

use ds4_gguf::GgufWriter;
use ds4_model::{
    Compression::{Csa, Hca, None},
    Config, Indexer, describe,
};

use crate::{
    arguments::Arguments,
    synth::{Filling, Recipe, Vocabulary, flash, plan, write},
};

pub const USAGE: &str = "--out FILE.gguf
    write the tiny random model that the program has built in";

pub fn run(arguments: &[String]) -> Result<bool, String> {
    let arguments = Arguments::parse(arguments, &["out"], &[])?;
    let out = arguments.path("out")?;
    println!("{}: {} bytes", out.display(), make(&out)?);
    Ok(true)
}

fn make(out: &Path) -> Result<u64, String> {
    let vocabulary = Vocabulary::small()?;
    let config = config(vocabulary.len());
    let mut writer = GgufWriter::new(out);
    describe(&config, &mut writer);
    vocabulary.describe(&mut writer);
    write(writer, &plan(&config, Recipe::MXFP4)?, Filling { seed: 1, threads: 1 }, out)
}

fn config(vocab: usize) -> Config {
    let layers = vec![None, Csa, Hca, Csa];
    Config {
        name: "DwarfStar Noise".into(),
        hidden: 128,
        vocab,
        heads: 4,
        head_dim: 128,
        q_rank: 64,
        o_groups: 2,
        o_rank: 64,
        indexer: Indexer { heads: 16, dim: 64, top_k: 64 },
        experts: 8,
        experts_used: 2,
        expert_hidden: 128,
        hash_layers: 1,
        swiglu_limit: vec![10.0; layers.len()],
        swiglu_limit_shared: vec![10.0; layers.len()],
        layers,
        ..flash()
    }
}

#[cfg(test)]
mod tests {
    use std::{env, fs, path::Path};

    #[test]
    fn the_built_in_model_is_what_this_makes() {
        let made = env::temp_dir().join(format!("ds4-noise-{}.gguf", std::process::id()));
        super::make(&made).unwrap();
        let built_in = Path::new(env!("CARGO_MANIFEST_DIR")).join("../ds4/assets/noise.gguf");
        let same = fs::read(&made).unwrap() == fs::read(built_in).unwrap();
        fs::remove_file(&made).unwrap();
        assert!(same, "run `cargo xtask noise --out ds4/assets/noise.gguf`");
    }
}
