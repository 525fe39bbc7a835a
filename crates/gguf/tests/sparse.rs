//! A file far larger than memory opens at once: only its directory is read.
//!
//! Alone in its file, because the peak of resident memory is that of the process.

mod scratch;

use std::{
    fs::File,
    io::{BufWriter, Write},
    time::{Duration, Instant},
};

use ds4_gguf::{Gguf, GgufWriter};
use scratch::Scratch;

const IQ2_XXS: u32 = 16;
const F32: u32 = 0;
const WHOLE: u64 = 81 << 30;
const TOKENS: u64 = 129_280;

#[test]
fn an_81_gib_file_opens_in_a_moment() {
    let folder = Scratch::new("sparse");
    let path = folder.path("model.gguf");

    let mut writer = GgufWriter::new(&path);
    writer.put("general.architecture", "deepseek4");
    let tokens: Vec<String> = (0..TOKENS).map(|id| format!("token {id}")).collect();
    writer.put_array("tokenizer.ggml.tokens", tokens.iter().map(String::as_str));
    writer.put_array("tokenizer.ggml.merges", tokens.iter().map(String::as_str));
    for i in 0..100_000 {
        writer.tensor(&format!("blk.{i}.attn_norm.weight"), &[64], F32).unwrap();
    }
    for layer in 0..43 {
        for kind in ["gate", "up", "down"] {
            let name = format!("blk.{layer}.ffn_{kind}_exps.weight");
            writer.tensor(&name, &[4096, 2500, 256], IQ2_XXS).unwrap();
        }
    }
    let mut sink = BufWriter::new(File::create(&path).unwrap());
    let file_bytes = writer.begin(&mut sink).unwrap().file_bytes();
    assert!(file_bytes > WHOLE, "{file_bytes}");
    sink.flush().unwrap();
    if sink.get_ref().set_len(file_bytes).is_err() {
        return; // No sparse files here, nothing to measure.
    }

    let start = Instant::now();
    let gguf = Gguf::open(&path).unwrap();
    let took = start.elapsed();
    let peak = ds4_host::peak_resident_bytes();

    assert!(took < Duration::from_secs(1), "took {took:?}");
    assert!(peak.is_none_or(|peak| peak < 100_000_000), "peak {peak:?} bytes");
    assert_eq!(gguf.file_bytes(), file_bytes);
    assert_eq!(gguf.tensors().len(), 100_000 + 43 * 3);
    let last = gguf.need_tensor("blk.42.ffn_down_exps.weight").unwrap();
    assert_eq!(gguf.data(last).unwrap().last(), Some(&0));
    let tokens = gguf.meta().need_array("tokenizer.ggml.tokens").unwrap();
    assert_eq!(tokens.strs().last().unwrap().unwrap(), "token 129279");
}
