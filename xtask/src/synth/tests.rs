//! The plan holds to ds4's formats and sizes; what it makes binds, runs and does not depend on who
//! makes it.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process,
    sync::Arc,
};

use ds4_cpu::{CpuExecutor, CpuOptions};
use ds4_engine::{Executor, Feed, Logits, Want, argmax};
use ds4_gguf::{Gguf, GgufWriter};
use ds4_host::Region;
use ds4_model::{Config, Indexer, Model, describe};
use ds4_quant::Format;
use ds4_tokenizer::Tokenizer;

use super::{
    Filling, Recipe, Vocabulary, blocks::Blocks, content::Content, flash, plan, pro,
    random::Random, shapes::first_layers, write,
};

/// All of Flash's mechanisms and proportions in a few megabytes; widths are whole K-quant blocks.
fn miniature(layers: usize) -> Config {
    let config = Config {
        hidden: 256,
        vocab: Vocabulary::small().unwrap().len(),
        heads: 4,
        head_dim: 128,
        q_rank: 128,
        o_groups: 2,
        o_rank: 128,
        indexer: Indexer { heads: 8, dim: 64, top_k: 16 },
        experts: 16,
        expert_hidden: 256,
        ..flash()
    };
    first_layers(config, layers)
}

/// A file that goes when the test ends.
struct Made(PathBuf);

impl Made {
    fn new(name: &str, config: &Config, recipe: Recipe, filling: Filling) -> Made {
        let path = env::temp_dir().join(format!("ds4-synth-{name}-{}.gguf", process::id()));
        let mut writer = GgufWriter::new(&path);
        describe(config, &mut writer);
        Vocabulary::small().unwrap().describe(&mut writer);
        write(writer, &plan(config, recipe).unwrap(), filling, &path).unwrap();
        Made(path)
    }

    fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Made {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

const FILLING: Filling = Filling { seed: 1, threads: 2 };

fn check_size(config: &Config, recipe: Recipe, gib: f64) {
    let bytes: u64 = plan(config, recipe).unwrap().iter().map(|tensor| tensor.bytes).sum();
    let found = bytes as f64 / f64::from(1 << 30);
    assert!((found - gib).abs() < 0.05, "{}: {found:.2} GiB", config.name);
}

#[test]
fn whole_models_have_the_published_sizes() {
    check_size(&flash(), Recipe::Q2, 80.76);
    check_size(&flash(), Recipe::Q4, 153.34);
    check_size(&pro(), Recipe::Q2, 432.71);
}

#[test]
fn formats_and_extents_are_those_that_ds4_insists_on() {
    let (f32, f16, q8, q2k, iq2, i32) = (0, 1, 8, 10, 16, 26);
    let tensors = plan(&first_layers(flash(), 4), Recipe::Q2).unwrap();
    let check = |name: &str, dims: &[u64], type_id: u32| {
        let found = tensors.iter().find(|tensor| tensor.name == name);
        let found = found.map(|tensor| (&*tensor.dims, tensor.type_id));
        assert_eq!(found, Some((dims, type_id)), "{name}");
    };
    check("token_embd.weight", &[4096, 129_280], f16);
    check("output.weight", &[4096, 129_280], q8);
    check("output_norm.weight", &[4096], f32);
    check("output_hc_fn.weight", &[16_384, 4], f16);
    check("output_hc_base.weight", &[4], f32);
    check("output_hc_scale.weight", &[1], f32);
    check("blk.0.hc_attn_fn.weight", &[16_384, 24], f16);
    check("blk.0.hc_ffn_base.weight", &[24], f32);
    check("blk.0.attn_q_a.weight", &[4096, 1024], q8);
    check("blk.0.attn_q_b.weight", &[1024, 32_768], q8);
    check("blk.0.attn_kv.weight", &[4096, 512], q8);
    check("blk.0.attn_sinks.weight", &[64], f32);
    check("blk.0.attn_output_a.weight", &[4096, 8192], q8);
    check("blk.0.attn_output_b.weight", &[8192, 4096], q8);
    check("blk.0.ffn_gate_inp.weight", &[4096, 256], f16);
    check("blk.0.ffn_gate_tid2eid.weight", &[6, 129_280], i32);
    check("blk.0.ffn_gate_exps.weight", &[4096, 2048, 256], iq2);
    check("blk.0.ffn_down_exps.weight", &[2048, 4096, 256], q2k);
    check("blk.0.ffn_down_shexp.weight", &[2048, 4096], q8);
    check("blk.2.attn_compressor_ape.weight", &[1024, 4], f16);
    check("blk.2.attn_compressor_kv.weight", &[4096, 1024], f16);
    check("blk.2.attn_compressor_norm.weight", &[512], f32);
    check("blk.2.indexer.attn_q_b.weight", &[1024, 8192], f16);
    check("blk.2.indexer.proj.weight", &[4096, 64], f16);
    check("blk.2.indexer_compressor_ape.weight", &[256, 4], f16);
    check("blk.2.indexer_compressor_gate.weight", &[4096, 256], f16);
    check("blk.3.attn_compressor_ape.weight", &[512, 128], f16);
    check("blk.3.exp_probs_b.bias", &[256], f32);
}

#[test]
fn a_file_of_few_layers_keeps_the_schedule() {
    let ratios = |config: Config| -> Vec<usize> {
        first_layers(config, 6).layers.iter().map(|layer| layer.ratio()).collect()
    };
    assert_eq!(ratios(flash()), [0, 0, 4, 128, 4, 128]);
    assert_eq!(ratios(pro()), [128, 128, 4, 128, 4, 128]);
}

#[test]
fn threads_do_not_change_the_file_and_seeds_do() {
    let made = |name, seed, threads| {
        let file = Made::new(name, &miniature(4), Recipe::Q2, Filling { seed, threads });
        fs::read(file.path()).unwrap()
    };
    let one = made("one-thread", 1, 1);
    assert!(made("five-threads", 1, 5) == one);
    assert!(made("other-seed", 2, 1) != one);
}

#[test]
fn a_file_of_few_layers_is_the_beginning_of_the_whole() {
    let few = Made::new("few", &miniature(3), Recipe::Q4, FILLING);
    let more = Made::new("more", &miniature(5), Recipe::Q4, FILLING);
    let (few, more) = (Gguf::open(few.path()).unwrap(), Gguf::open(more.path()).unwrap());
    for tensor in few.tensors() {
        let same = more.tensor(&tensor.name).unwrap();
        assert!(*few.data(tensor).unwrap() == *more.data(same).unwrap(), "{}", tensor.name);
    }
}

/// Logits after a few tokens, long enough for the indexer to choose.
fn run(name: &str, config: &Config, recipe: Recipe) {
    let file = Made::new(name, config, recipe, FILLING);
    let model = Arc::new(Model::open(file.path()).unwrap());
    assert_eq!(model.config, *config);
    let options = CpuOptions { threads: 1, ..CpuOptions::default() };
    let mut cpu = CpuExecutor::new(model, options).unwrap();
    let slot = cpu.open().unwrap();
    let tokens: Vec<u32> = (0..96).map(|i| i * 31 % 3000).collect();
    let mut logits = Logits::default();
    cpu.step(&[Feed { slot, tokens: &tokens, want: Want::All }], &mut logits).unwrap();
    let best: Vec<_> = logits.rows().map(|row| argmax(row).unwrap()).collect();
    for row in logits.rows() {
        let square: f32 = row.iter().map(|x| x * x).sum();
        let rms = (square / row.len() as f32).sqrt();
        assert!((2.0..4.0).contains(&rms), "{name}: logits of {rms}");
    }
    // A model whose tokens run into each other says the same after each of them.
    let mut different = best.clone();
    different.sort_unstable();
    different.dedup();
    assert!(different.len() * 10 > best.len() * 9, "{name}: {best:?}");
}

#[test]
fn every_quantisation_binds_and_runs() {
    run("q2", &miniature(4), Recipe::Q2);
    run("q4", &miniature(4), Recipe::Q4);
    run("mxfp4", &miniature(4), Recipe::MXFP4);
}

#[test]
fn tokens_stay_apart_through_all_layers() {
    run("deep", &miniature(43), Recipe::Q2);
}

#[test]
fn blocks_have_the_size_that_was_asked_for() {
    for format in [Format::Q8_0, Format::Q2K, Format::Q4K, Format::Iq2Xxs, Format::Mxfp4] {
        for rms in [0.011, 0.0156, 0.3] {
            let found = Blocks::new(format, rms).unwrap().measure().unwrap();
            assert!((found / rms - 1.0).abs() < 0.03, "{format}: {found}, not {rms}");
        }
    }
    assert!(Blocks::new(Format::Q6K, 1.0).is_err());
}

#[test]
fn a_token_has_each_of_its_experts_once() {
    let mut bytes = vec![0; 6 * 4 * 1000];
    Content::Experts { used: 6, of: 16 }.fill(&mut Random::new(7), &mut bytes);
    let ids: Vec<i32> = bytes.as_chunks().0.iter().map(|&id| i32::from_le_bytes(id)).collect();
    let mut uses = [0; 16];
    for row in ids.chunks_exact(6) {
        let mut row = row.to_vec();
        row.sort_unstable();
        assert!(row.windows(2).all(|pair| pair[0] < pair[1]), "{row:?}");
        row.iter().for_each(|&id| uses[id as usize] += 1);
    }
    assert!(uses.iter().all(|&uses| (300..450).contains(&uses)), "{uses:?}");
}

#[test]
fn markers_have_their_published_ids() {
    let mut writer = GgufWriter::new("vocabulary");
    Vocabulary::published().unwrap().describe(&mut writer);
    let file = writer.begin(Vec::new()).unwrap().finish().unwrap();
    let gguf = Gguf::from_region(Region::from_vec(file), "vocabulary").unwrap();
    let tokenizer = Tokenizer::from_gguf(&gguf).unwrap();
    assert_eq!(tokenizer.vocab_size(), flash().vocab);
    assert_eq!(tokenizer.merges_passed_over(), 0);
    let published = [
        ("<｜begin▁of▁sentence｜>", 0),
        ("<｜end▁of▁sentence｜>", 1),
        ("<｜place▁holder▁no▁0｜>", 128_000),
        ("<｜place▁holder▁no▁799｜>", 128_799),
        ("<｜User｜>", 128_803),
        ("<｜Assistant｜>", 128_804),
        ("<think>", 128_821),
        ("</think>", 128_822),
        ("｜DSML｜", 128_825),
        ("<｜latest_reminder｜>", 128_828),
        ("<｜title｜>", 128_836),
        ("<｜read_url｜>", 128_845),
        ("<|place_holder_mm_span_0021|>", 128_847),
        ("<|place_holder_mm_span_0435|>", 129_261),
        ("<｜image｜>", 129_279),
    ];
    for (name, id) in published {
        assert_eq!(tokenizer.marker(name), Some(id), "{name}");
    }
    let text = "The quick brown fox, 3 times: ünïcode 中文\n";
    let ids = tokenizer.encode(text);
    assert!(ids.len() < text.len() && ids.iter().any(|&id| id > 3003), "{ids:?}");
    assert_eq!(tokenizer.decode(&ids), text);
}
