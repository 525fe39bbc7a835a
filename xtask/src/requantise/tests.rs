//! Requantising, on a file of two expert tensors and on the built-in model.

use std::{env, path::PathBuf, process, sync::Arc};

use ds4_cpu::{CpuExecutor, CpuOptions};
use ds4_engine::{Executor, Feed, Logits, Want, argmax};
use ds4_model::Model;
use ds4_tokenizer::Tokenizer;

use super::*;

/// A folder that goes when the test ends.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Folder {
        let path = env::temp_dir().join(format!("ds4-requantise-{name}-{}", process::id()));
        fs::create_dir_all(&path).unwrap();
        Folder(path)
    }

    fn file(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

const GATE: &str = "blk.0.ffn_gate_exps.weight";
const DOWN: &str = "blk.0.ffn_down_exps.weight";
const PLAIN: &str = "blk.0.ffn_gate_shexp.weight";
const ROWS: usize = 3 * 700;

/// A file of two expert tensors and one other.
fn made(path: &Path, values: &[f32]) {
    let f32_bytes =
        |values: &[f32]| -> Vec<u8> { values.iter().flat_map(|x| x.to_le_bytes()).collect() };
    let mut writer = GgufWriter::new(path);
    writer.put("general.architecture", "deepseek4");
    writer.put(FILE_TYPE, 38u32);
    writer.put("split.count", 1u32);
    writer.put("quantize.imatrix.file", "old.dat");
    writer.put_array("tokenizer.ggml.tokens", ["a", "b"]);
    for name in [GATE, PLAIN, DOWN] {
        writer.tensor(name, &[256, 700, 3], 0).unwrap();
    }
    let mut stream = writer.begin(File::create(path).unwrap()).unwrap();
    for name in [GATE, PLAIN, DOWN] {
        stream.write(name, [f32_bytes(values)]).unwrap();
    }
    stream.finish().unwrap();
}

fn values() -> Vec<f32> {
    (0..ROWS * 256).map(|i| ((i * 7919 % 1009) as f32 - 504.0) / 700.0).collect()
}

fn decoded(gguf: &Gguf, name: &str) -> Vec<f32> {
    let tensor = gguf.tensor(name).unwrap();
    let format = Format::from_ggml(tensor.type_id).unwrap();
    let mut values = vec![0.0; ROWS * 256];
    decode_row(format, &gguf.data(tensor).unwrap(), &mut values).unwrap();
    values
}

#[test]
fn experts_change_and_nothing_else_does() {
    let folder = Folder::new("changes");
    let (from, out, again) = (folder.file("from"), folder.file("out"), folder.file("again"));
    made(&from, &values());
    let recipe = Recipe::parse("iq2_xxs,Q2_K").unwrap();
    let old = Gguf::open(&from).unwrap();
    let bytes = rewrite(&old, recipe, 3, &out).unwrap();
    assert_eq!(fs::metadata(&out).unwrap().len(), bytes);
    assert!(!out.with_added_extension("part").exists());

    let new = Gguf::open(&out).unwrap();
    let keys: Vec<&str> = new.meta().iter().map(|(key, _)| key).collect();
    assert_eq!(keys, ["general.architecture", FILE_TYPE, "tokenizer.ggml.tokens"]);
    assert_eq!(new.meta().need_u64(FILE_TYPE).unwrap(), 19);
    let types: Vec<u32> = new.tensors().iter().map(|tensor| tensor.type_id).collect();
    assert_eq!(types, [16, 0, 10]);
    assert_eq!(decoded(&new, PLAIN), values());
    for (name, format) in [(GATE, Format::Iq2Xxs), (DOWN, Format::Q2K)] {
        let mut bytes = vec![0; format.row_bytes(256).unwrap()];
        let mut expected = vec![0.0; 256];
        let found = decoded(&new, name);
        for row in [0, 1023, 1024, ROWS - 1] {
            let row = 256 * row..256 * (row + 1);
            quantise_row(format, &values()[row.clone()], None, &mut bytes).unwrap();
            decode_row(format, &bytes, &mut expected).unwrap();
            assert_eq!(found[row], expected, "{name}");
        }
    }
    // The number of threads changes nothing; nor does a second time, for what has its format.
    rewrite(&old, recipe, 1, &again).unwrap();
    assert!(fs::read(&again).unwrap() == fs::read(&out).unwrap());
    assert!(
        rewrite(&new, recipe, 2, &again)
            .unwrap_err()
            .contains("has no routed experts in another format")
    );
}

fn refused(values: &[f32], experts: &str, reason: &str) {
    let folder = Folder::new(reason.split(' ').next().unwrap());
    let (from, out) = (folder.file("from"), folder.file("out"));
    made(&from, values);
    let gguf = Gguf::open(&from).unwrap();
    let error = rewrite(&gguf, Recipe::parse(experts).unwrap(), 2, &out).unwrap_err();
    assert!(error.contains(reason) && error.contains(GATE), "{error}");
    assert!(!error.contains('\n') && !out.exists() && !out.with_added_extension("part").exists());
}

#[test]
fn what_cannot_be_encoded_is_named() {
    let mut broken = values();
    broken[256 * 1500 + 7] = f32::NAN;
    refused(&broken, "q4_k", "row 1500: value 7 of the row is not finite");
    broken[256 * 1500 + 7] = 1e20;
    refused(&broken, "q2_k", "row 1500: the values from 0 on are too large for Q2_K");
}

#[test]
fn a_file_is_not_written_over_itself_and_words_are_known() {
    let folder = Folder::new("itself");
    let from = folder.file("from");
    made(&from, &values());
    let recipe = Recipe::parse("q4_k").unwrap();
    let error = rewrite(&Gguf::open(&from).unwrap(), recipe, 1, &from).unwrap_err();
    assert!(error.contains("would be written over"), "{error}");
    let error = Recipe::parse("q3_k").err().unwrap();
    assert!(error.contains("`q3_k` is none of iq2_xxs, q2_k"), "{error}");
    assert!(Recipe::parse("q4_k,").is_err());
}

/// The most probable token after each of these.
fn greedy(path: &Path, tokens: &[u32]) -> Vec<u32> {
    let options = CpuOptions { threads: 1, ..CpuOptions::default() };
    let mut cpu = CpuExecutor::new(Arc::new(Model::open(path).unwrap()), options).unwrap();
    let slot = cpu.open().unwrap();
    let mut logits = Logits::default();
    cpu.step(&[Feed { slot, tokens, want: Want::All }], &mut logits).unwrap();
    logits.rows().map(|row| argmax(row).unwrap()).collect()
}

#[test]
fn the_built_in_model_goes_on_speaking_in_two_bits() {
    let nano = Path::new(env!("CARGO_MANIFEST_DIR")).join("../ds4/assets/nano.gguf");
    let folder = Folder::new("nano");
    let out = folder.file("nano-q2.gguf");
    let gguf = Gguf::open(&nano).unwrap();
    let bytes = rewrite(&gguf, Recipe::parse("iq2_xxs,q2_k").unwrap(), 2, &out).unwrap();
    assert!(bytes * 6 < gguf.file_bytes() * 5, "{bytes}");

    // What it says of itself, from its own mouth: whole before, and nearly so after.
    let tokenizer = Tokenizer::from_gguf(&gguf).unwrap();
    let prompt = "<｜begin▁of▁sentence｜><｜User｜>Who are you?<｜Assistant｜></think>";
    let mut tokens = tokenizer.encode_with_markers(prompt);
    let start = tokens.len();
    while tokens.len() < start + 60 {
        let next = *greedy(&nano, &tokens).last().unwrap();
        tokens.push(next);
        if Some(next) == tokenizer.eos() {
            break;
        }
    }
    let said = &tokens[start..];
    assert!(said.len() > 15, "{}", tokenizer.decode(said));
    let found = &greedy(&out, &tokens)[start - 1..tokens.len() - 1];
    let same = said.iter().zip(found).filter(|(a, b)| a == b).count();
    assert!(same * 10 >= said.len() * 8, "{same} of {}: {}", said.len(), tokenizer.decode(found));
}
