//! The built-in model until a trained one exists: a tiny DeepSeek V4 with random weights, that has
//! every mechanism of the architecture and says nothing but noise.

use std::{
    fs::File,
    io::{BufWriter, Read},
    path::Path,
};

use ds4_gguf::{Gguf, GgufWriter};
use ds4_host::Region;
use ds4_model::{
    Compression, Config, Indexer, Rope,
    catalogue::{self, Entry, Kind},
    describe,
};
use ds4_quant::{Format, encode_row};
use flate2::read::GzDecoder;

use crate::arguments::Arguments;

pub const USAGE: &str = "--out FILE.gguf
    write the tiny random model that the program has built in";

const TOKENIZER: &[u8] = include_bytes!("../../fixtures/encoding/small_tokenizer.gguf.gz");
/// GGUF's number for 32-bit integers.
const I32: u32 = 26;

pub fn run(arguments: &[String]) -> Result<bool, String> {
    let arguments = Arguments::parse(arguments, &["out"], &[])?;
    let out = arguments.path("out")?;
    write(&out)?;
    println!("{}: {} bytes", out.display(), out.metadata().map_or(0, |m| m.len()));
    Ok(true)
}

fn write(out: &Path) -> Result<(), String> {
    let tokenizer = tokenizer()?;
    let tokens = tokenizer.meta().need_array("tokenizer.ggml.tokens").map_err(|e| e.to_string())?;
    let config = config(tokens.len() as usize);

    let mut writer = GgufWriter::new(out);
    describe(&config, &mut writer);
    for (key, value) in tokenizer.meta().iter().filter(|(key, _)| key.starts_with("tokenizer.")) {
        writer.put_value(key, value);
    }
    let tensors: Vec<Tensor> =
        catalogue::tensors(&config).map(|(e, l, s)| Tensor::new(&config, e, l, s)).collect();
    for tensor in &tensors {
        writer.tensor(&tensor.name, &tensor.dims, tensor.type_id).map_err(|e| e.to_string())?;
    }
    let file = File::create(out).map_err(|e| format!("{}: {e}", out.display()))?;
    let mut stream = writer.begin(BufWriter::new(file)).map_err(|e| e.to_string())?;
    for (number, tensor) in tensors.iter().enumerate() {
        let bytes = tensor.bytes(&config, &mut Random(number as u64 + 1))?;
        stream.write(&tensor.name, [bytes]).map_err(|e| e.to_string())?;
    }
    stream.finish().map_err(|e| e.to_string())?;
    Ok(())
}

fn tokenizer() -> Result<Gguf, String> {
    let mut bytes = Vec::new();
    GzDecoder::new(TOKENIZER).read_to_end(&mut bytes).map_err(|e| e.to_string())?;
    Gguf::from_region(Region::from_vec(bytes), "small_tokenizer.gguf").map_err(|e| e.to_string())
}

fn config(vocab: usize) -> Config {
    use Compression::{Csa, Hca, None};
    let layers = vec![None, Csa, Hca, Csa];
    Config {
        name: "DwarfStar Noise".into(),
        hidden: 128,
        vocab,
        heads: 4,
        head_dim: 128,
        rope: Rope {
            dims: 64,
            base: 10_000.0,
            compressed_base: 160_000.0,
            factor: 16.0,
            original_context: 65_536.0,
            beta_fast: 32.0,
            beta_slow: 1.0,
        },
        q_rank: 64,
        o_groups: 2,
        o_rank: 64,
        window: 128,
        indexer: Indexer { heads: 16, dim: 64, top_k: 64 },
        experts: 8,
        experts_used: 2,
        expert_hidden: 128,
        hash_layers: 1,
        routed_scale: 1.5,
        swiglu_limit: vec![10.0; layers.len()],
        swiglu_limit_shared: vec![10.0; layers.len()],
        streams: 4,
        sinkhorn_iterations: 20,
        hc_eps: 1e-6,
        rms_eps: 1e-6,
        max_context: 1 << 20,
        layers,
    }
}

struct Tensor {
    name: String,
    dims: Vec<u64>,
    type_id: u32,
    kind: Kind,
    rows: usize,
    cols: usize,
}

impl Tensor {
    fn new(config: &Config, entry: &Entry, layer: usize, (rows, cols): (usize, usize)) -> Tensor {
        let name = entry.gguf_name(layer);
        let count = if entry.kind == Kind::Experts { config.experts } else { 1 };
        let mut dims = vec![cols as u64, rows as u64, count as u64];
        while dims.len() > 1 && dims.last() == Some(&1) {
            dims.pop();
        }
        let type_id = match entry.kind {
            Kind::Table => Some(I32),
            kind => Tensor::format(kind, &name).ggml_id(),
        };
        Tensor {
            name,
            dims,
            type_id: type_id.unwrap_or(I32),
            kind: entry.kind,
            rows: rows * count,
            cols,
        }
    }

    /// The formats that ds4's files use for each role.
    fn format(kind: Kind, name: &str) -> Format {
        let control = ["token_embd", "hc_", "compressor", "indexer", "ffn_gate_inp"];
        match kind {
            Kind::Experts => Format::Mxfp4,
            Kind::Matrix if control.iter().any(|part| name.contains(part)) => Format::F16,
            Kind::Matrix => Format::Q8_0,
            Kind::Vector | Kind::Table => Format::F32,
        }
    }

    fn bytes(&self, config: &Config, random: &mut Random) -> Result<Vec<u8>, String> {
        if self.kind == Kind::Table {
            let mut id = || (random.next() % config.experts as u64) as i32;
            return Ok((0..self.rows * self.cols).flat_map(|_| id().to_le_bytes()).collect());
        }
        let format = Tensor::format(self.kind, &self.name);
        let size = format.row_bytes(self.cols).ok_or("a width that is no multiple of a block")?;
        let mut bytes = vec![0; size * self.rows];
        let mut row = vec![0.0; self.cols];
        let (centre, spread) = self.distribution();
        for place in bytes.chunks_exact_mut(size) {
            row.fill_with(|| centre + spread * random.unit());
            encode_row(format, &row, place).map_err(|e| e.to_string())?;
        }
        Ok(bytes)
    }

    /// Centre and half-width of the values: enough for every part to matter, and none to explode.
    fn distribution(&self) -> (f32, f32) {
        let name = &self.name;
        match self.kind {
            Kind::Vector if name.contains("norm") => (1.0, 0.2),
            Kind::Vector if name.contains("hc_") && name.contains("scale") => (0.5, 0.2),
            Kind::Vector => (0.0, 0.3),
            _ => (0.0, (3.0 / self.cols as f32).sqrt()),
        }
    }
}

/// SplitMix64: the file must come out the same everywhere.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut x = self.0;
        x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        x ^ (x >> 31)
    }

    /// Uniform in -1 to 1.
    fn unit(&mut self) -> f32 {
        (self.next() >> 40) as f32 / (1 << 23) as f32 - 1.0
    }
}

#[cfg(test)]
mod tests {
    use std::{env, fs, path::Path};

    #[test]
    fn the_built_in_model_is_what_this_makes() {
        let made = env::temp_dir().join(format!("ds4-noise-{}.gguf", std::process::id()));
        super::write(&made).unwrap();
        let built_in = Path::new(env!("CARGO_MANIFEST_DIR")).join("../ds4/assets/noise.gguf");
        let same = fs::read(&made).unwrap() == fs::read(built_in).unwrap();
        fs::remove_file(&made).unwrap();
        assert!(same, "run `cargo xtask noise --out ds4/assets/noise.gguf`");
    }
}
