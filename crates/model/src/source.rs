//! A model's files, opened: a GGUF of either kind or an original checkpoint, behind one set of
//! questions about tensors.

use std::{
    collections::{BTreeMap, HashSet},
    fs,
    path::{Path, PathBuf},
};

use ds4_gguf::{Dtype, Gguf, Safetensors, StInfo, TensorInfo, shown};
use ds4_host::{HostError, Region};
use ds4_quant::{Format, Layout, decode_row};
use serde_json::Value;

use crate::{
    Config, Matrix, ModelError,
    catalogue::{self, Entry, Kind},
    config_read::{self, Hints},
    facts::Facts,
};

/// The architecture this program runs, as GGUFs name it.
pub const ARCHITECTURE: &str = "deepseek4";
/// The same in a checkpoint's `config.json`.
const MODEL_TYPE: &str = "deepseek_v4";
/// No description of a model is larger.
const MAX_CONFIG_BYTES: u64 = 4 << 20;

/// The files of a model.
pub enum Source {
    /// One GGUF, or its parts; ds4's and llama.cpp's files differ in formats and optional keys only.
    Gguf(Gguf),
    /// A directory with `config.json` and safetensors, as the model was published.
    Checkpoint {
        /// The directory.
        path: PathBuf,
        /// The content of `config.json`.
        config: Value,
        /// The tensors.
        tensors: Safetensors,
    },
}

/// A tensor as it stands in the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stored {
    /// Its name.
    pub name: String,
    /// The name of its type.
    pub type_name: String,
    /// Rows before columns, in the order of mathematics.
    pub shape: Vec<u64>,
    /// How many bytes it takes.
    pub bytes: u64,
}

/// What a file holds, compared with what its description asks for.
#[derive(Clone, Debug, Default)]
pub struct Audit {
    /// Tensors that the model needs and the file lacks.
    pub missing: Vec<String>,
    /// Tensors that the file has and the model does not use.
    pub unused: Vec<String>,
    /// Count and bytes of each type.
    pub types: BTreeMap<String, (u64, u64)>,
}

impl Source {
    /// Opens a GGUF, one part of a split GGUF, or a checkpoint: its directory or a file in it.
    pub fn open(path: &Path) -> Result<Source, ModelError> {
        let in_checkpoint = path.extension().is_some_and(|e| e == "json" || e == "safetensors");
        if path.is_dir() {
            Source::open_checkpoint(path)
        } else if in_checkpoint {
            Source::open_checkpoint(path.parent().unwrap_or(Path::new(".")))
        } else {
            Source::from_gguf(Gguf::open(path)?)
        }
    }

    /// Takes a GGUF that is already open.
    pub fn from_gguf(gguf: Gguf) -> Result<Source, ModelError> {
        let key = "general.architecture";
        match gguf.meta().need_str(key)? {
            ARCHITECTURE => Ok(Source::Gguf(gguf)),
            other => Err(ModelError::Key {
                path: gguf.path().to_owned(),
                key: key.into(),
                reason: not_ours(other, ARCHITECTURE),
            }),
        }
    }

    fn open_checkpoint(dir: &Path) -> Result<Source, ModelError> {
        let path = dir.join("config.json");
        let json = |reason: String| ModelError::Json { path: path.clone(), reason };
        let io = |source| HostError::Io { path: path.clone(), source };
        let size = fs::metadata(&path).map_err(io)?.len();
        if size > MAX_CONFIG_BYTES {
            return Err(json(format!("{size} bytes are too many for a description")));
        }
        let text = fs::read(&path).map_err(io)?;
        let config: Value = serde_json::from_slice(&text).map_err(|e| json(e.to_string()))?;
        let model_type = config.get("model_type").and_then(Value::as_str).unwrap_or_default();
        if model_type != MODEL_TYPE {
            let reason = not_ours(model_type, MODEL_TYPE);
            return Err(ModelError::Key { path, key: "model_type".into(), reason });
        }
        let tensors = Safetensors::open(dir)?;
        Ok(Source::Checkpoint { path: dir.to_owned(), config, tensors })
    }

    /// The file or directory.
    pub fn path(&self) -> &Path {
        match self {
            Source::Gguf(gguf) => gguf.path(),
            Source::Checkpoint { path, .. } => path,
        }
    }

    /// The GGUF, which carries the tokenizer too; a checkpoint has `tokenizer.json` beside it.
    pub fn gguf(&self) -> Option<&Gguf> {
        match self {
            Source::Gguf(gguf) => Some(gguf),
            Source::Checkpoint { .. } => None,
        }
    }

    /// Reads and checks the description.
    pub fn config(&self) -> Result<Config, ModelError> {
        match self {
            Source::Gguf(gguf) => {
                let name = gguf.meta().get_str("general.name")?.unwrap_or_default().to_owned();
                let embedding = gguf.tensor(&catalogue::EMBEDDING.gguf_name(0));
                let blocks = gguf.meta().get_u64("deepseek4.block_count")?.unwrap_or(0);
                let last = blocks.saturating_sub(1);
                let hints = Hints {
                    vocab: embedding.and_then(|t| t.dims.get(1).copied()),
                    last_is_nextn: blocks > 1
                        && gguf.tensor(&format!("blk.{last}.nextn.eh_proj.weight")).is_some(),
                };
                config_read::read(&Facts::Gguf(gguf), name, hints)
            }
            Source::Checkpoint { path, config, tensors } => {
                let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
                let embedding = tensors.tensor(&catalogue::EMBEDDING.checkpoint_name(0, 0));
                let hints = Hints {
                    vocab: embedding.and_then(|t| t.shape.first().copied()),
                    last_is_nextn: false,
                };
                let facts = Facts::Json { path: path.join("config.json"), value: config };
                config_read::read(&facts, name, hints)
            }
        }
    }

    /// Every tensor in the file.
    pub fn tensors(&self) -> Vec<Stored> {
        match self {
            Source::Gguf(gguf) => gguf
                .tensors()
                .iter()
                .map(|t| Stored {
                    name: t.name.clone(),
                    type_name: type_name(t.type_id),
                    shape: t.dims.iter().rev().copied().collect(),
                    bytes: t.bytes.unwrap_or(0),
                })
                .collect(),
            Source::Checkpoint { tensors, .. } => tensors
                .tensors()
                .iter()
                .map(|t| Stored {
                    name: t.name.clone(),
                    type_name: t.dtype.name().to_owned(),
                    shape: t.shape.clone(),
                    bytes: t.bytes,
                })
                .collect(),
        }
    }

    /// Compares what the file holds with what its description asks for.
    pub fn audit(&self, config: &Config) -> Audit {
        let mut audit = Audit::default();
        let mut present = HashSet::new();
        let stored = self.tensors();
        for tensor in &stored {
            present.insert(tensor.name.as_str());
            let sum = audit.types.entry(tensor.type_name.clone()).or_default();
            *sum = (sum.0 + 1, sum.1 + tensor.bytes);
        }
        let mut wanted = HashSet::new();
        for (entry, layer, _) in catalogue::tensors(config) {
            for name in self.names(config, entry, layer) {
                if !entry.optional && !present.contains(name.as_str()) {
                    audit.missing.push(name.clone());
                }
                wanted.insert(scale_name(&name));
                wanted.insert(name);
            }
        }
        audit.unused = stored.into_iter().map(|t| t.name).filter(|n| !wanted.contains(n)).collect();
        audit
    }

    /// The names under which this file would hold a tensor.
    fn names(&self, config: &Config, entry: &Entry, layer: usize) -> Vec<String> {
        match self {
            Source::Gguf(_) => vec![entry.gguf_name(layer)],
            Source::Checkpoint { .. } => {
                let count = if entry.kind == Kind::Experts { config.experts } else { 1 };
                (0..count).map(|e| entry.checkpoint_name(layer, e)).collect()
            }
        }
    }

    fn wrong(&self, tensor: &str, reason: impl Into<String>) -> ModelError {
        ModelError::Tensor {
            path: self.path().to_owned(),
            tensor: tensor.to_owned(),
            reason: reason.into(),
        }
    }

    /// Fetches one tensor of `count` stacked matrices (one, for all but experts of a GGUF).
    fn fetch(
        &self,
        name: &str,
        count: usize,
        shape: (usize, usize),
    ) -> Result<Option<Fetched>, ModelError> {
        let fetched = match self {
            Source::Gguf(gguf) => match gguf.tensor(name) {
                Some(tensor) => Fetched::from_gguf(gguf, tensor)?,
                None => return Ok(None),
            },
            Source::Checkpoint { tensors, .. } => match tensors.tensor(name) {
                Some(tensor) => Fetched::from_checkpoint(tensors, tensor)?,
                None => return Ok(None),
            },
        };
        let (rows, cols) = shape;
        let stacked = [count, rows, cols].map(|n| n as u64);
        let without_ones =
            |shape: &[u64]| -> Vec<u64> { shape.iter().copied().filter(|&n| n != 1).collect() };
        if without_ones(&fetched.shape) != without_ones(&stacked) {
            let wanted: Vec<u64> = if count > 1 { stacked.to_vec() } else { stacked[1..].to_vec() };
            let reason = format!("its shape is {:?}, {wanted:?} needed", fetched.shape);
            return Err(self.wrong(name, reason));
        }
        Ok(Some(fetched))
    }

    fn name(&self, entry: &Entry, layer: usize, expert: usize) -> String {
        match self {
            Source::Gguf(_) => entry.gguf_name(layer),
            Source::Checkpoint { .. } => entry.checkpoint_name(layer, expert),
        }
    }

    fn shape(&self, config: &Config, entry: &Entry, layer: usize) -> (usize, usize) {
        // The binder asks only for what the layer has.
        (entry.shape)(config, layer).unwrap_or((0, 0))
    }

    /// A short list of finite numbers; `None` if it is optional and absent.
    pub(crate) fn maybe_vector(
        &self,
        config: &Config,
        entry: &Entry,
        layer: usize,
    ) -> Result<Option<Vec<f32>>, ModelError> {
        let name = self.name(entry, layer, 0);
        let shape = self.shape(config, entry, layer);
        let Some(fetched) = self.fetch(&name, 1, shape)? else { return Ok(None) };
        let format = match fetched.ty {
            Type::Values(format @ (Format::F32 | Format::F16 | Format::BF16)) => format,
            _ => {
                let reason = format!("{} cannot hold it; F32, F16 or BF16", fetched.type_name);
                return Err(self.wrong(&name, reason));
            }
        };
        let mut values = vec![0.0; shape.0 * shape.1];
        decode_row(format, &fetched.data, &mut values)
            .map_err(|e| self.wrong(&name, e.to_string()))?;
        if let Some(i) = values.iter().position(|x| !x.is_finite()) {
            let offset = i * format.block_bytes();
            let reason = format!("value {i} (byte {offset} of the tensor) is {}", values[i]);
            return Err(self.wrong(&name, reason));
        }
        Ok(Some(values))
    }

    /// A short list of finite numbers.
    pub(crate) fn vector(
        &self,
        config: &Config,
        entry: &Entry,
        layer: usize,
    ) -> Result<Vec<f32>, ModelError> {
        self.maybe_vector(config, entry, layer)?
            .ok_or_else(|| self.wrong(&self.name(entry, layer, 0), "missing"))
    }

    /// A matrix.
    pub(crate) fn matrix(
        &self,
        config: &Config,
        entry: &Entry,
        layer: usize,
    ) -> Result<Matrix, ModelError> {
        self.matrix_named(&self.name(entry, layer, 0), self.shape(config, entry, layer))
    }

    fn matrix_named(&self, name: &str, shape: (usize, usize)) -> Result<Matrix, ModelError> {
        let fetched = self.fetch(name, 1, shape)?.ok_or_else(|| self.wrong(name, "missing"))?;
        let format = fetched.matrix_format().map_err(|reason| self.wrong(name, reason))?;
        let scales = match self {
            Source::Checkpoint { tensors, .. } if format.scale_tile().is_some() => {
                let scale_name = scale_name(name);
                let info = tensors.tensor(&scale_name);
                let info = info.ok_or_else(|| self.wrong(&scale_name, "missing"))?;
                if info.dtype != Dtype::F8E8m0 {
                    let reason = format!("{} cannot hold scales; F8_E8M0", info.dtype.name());
                    return Err(self.wrong(&scale_name, reason));
                }
                Some(tensors.data(info)?)
            }
            _ => None,
        };
        Matrix::new(name.into(), format, shape, fetched.data, scales)
            .map_err(|reason| self.wrong(name, reason))
    }

    /// One matrix per expert: slices of one stacked tensor, or tensors of their own.
    pub(crate) fn experts(
        &self,
        config: &Config,
        entry: &Entry,
        layer: usize,
    ) -> Result<Vec<Matrix>, ModelError> {
        let shape = self.shape(config, entry, layer);
        if let Source::Checkpoint { .. } = self {
            let one = |e| self.matrix_named(&entry.checkpoint_name(layer, e), shape);
            return (0..config.experts).map(one).collect();
        }
        let name = entry.gguf_name(layer);
        let fetched = self.fetch(&name, config.experts, shape)?;
        let fetched = fetched.ok_or_else(|| self.wrong(&name, "missing"))?;
        let format = fetched.matrix_format().map_err(|reason| self.wrong(&name, reason))?;
        let size = fetched.data.len() / config.experts;
        let one = |e: usize| {
            let data = fetched.data.slice(e * size..(e + 1) * size);
            let data = data.ok_or_else(|| self.wrong(&name, "its bytes end early"))?;
            Matrix::new(format!("{name}[{e}]").into(), format, shape, data, None)
                .map_err(|reason| self.wrong(&name, reason))
        };
        (0..config.experts).map(one).collect()
    }

    /// A table of expert ids, each below the number of experts.
    pub(crate) fn table(
        &self,
        config: &Config,
        entry: &Entry,
        layer: usize,
    ) -> Result<Vec<u32>, ModelError> {
        let name = self.name(entry, layer, 0);
        let fetched = self.fetch(&name, 1, self.shape(config, entry, layer))?;
        let fetched = fetched.ok_or_else(|| self.wrong(&name, "missing"))?;
        let id = |(i, value): (usize, i64)| match u32::try_from(value) {
            Ok(id) if (id as usize) < config.experts => Ok(id),
            _ => Err(self.wrong(&name, format!("entry {i} is {value}, no expert's number"))),
        };
        match fetched.ty {
            Type::I32 => {
                let (words, _) = fetched.data.as_chunks();
                words.iter().map(|&w| i32::from_le_bytes(w).into()).enumerate().map(id).collect()
            }
            Type::I64 => {
                let (words, _) = fetched.data.as_chunks();
                words.iter().map(|&w| i64::from_le_bytes(w)).enumerate().map(id).collect()
            }
            _ => {
                Err(self.wrong(&name, format!("{} cannot hold it; I32 or I64", fetched.type_name)))
            }
        }
    }
}

/// What a tensor's type means to the binder.
enum Type {
    Values(Format),
    I32,
    I64,
    Other,
}

struct Fetched {
    ty: Type,
    type_name: String,
    /// Rows before columns; an FP4 tensor counts values, not bytes.
    shape: Vec<u64>,
    data: Region,
}

impl Fetched {
    fn from_gguf(gguf: &Gguf, tensor: &TensorInfo) -> Result<Fetched, ModelError> {
        const I32_ID: u32 = 26;
        const I64_ID: u32 = 27;
        let ty = match tensor.type_id {
            I32_ID => Type::I32,
            I64_ID => Type::I64,
            id => Format::from_ggml(id).map_or(Type::Other, Type::Values),
        };
        Ok(Fetched {
            ty,
            type_name: type_name(tensor.type_id),
            shape: tensor.dims.iter().rev().copied().collect(),
            data: gguf.data(tensor)?,
        })
    }

    fn from_checkpoint(tensors: &Safetensors, tensor: &StInfo) -> Result<Fetched, ModelError> {
        let mut shape = tensor.shape.clone();
        let ty = match tensor.dtype {
            Dtype::F32 => Type::Values(Format::F32),
            Dtype::F16 => Type::Values(Format::F16),
            Dtype::Bf16 => Type::Values(Format::BF16),
            Dtype::F8E4m3 => Type::Values(Format::Fp8Block),
            Dtype::I8 => {
                // Two FP4 values share a byte.
                if let Some(cols) = shape.last_mut() {
                    *cols = cols.saturating_mul(2);
                }
                Type::Values(Format::Fp4Block)
            }
            Dtype::I32 => Type::I32,
            Dtype::I64 => Type::I64,
            _ => Type::Other,
        };
        let type_name = tensor.dtype.name().to_owned();
        Ok(Fetched { ty, type_name, shape, data: tensors.data(tensor)? })
    }

    fn matrix_format(&self) -> Result<Format, String> {
        match self.ty {
            Type::Values(format) => Ok(format),
            _ => {
                Err(format!("{} is not a format of weights that this program runs", self.type_name))
            }
        }
    }
}

fn not_ours(found: &str, ours: &str) -> String {
    format!("`{}` is not `{ours}`, the one this program runs", shown(found))
}

/// Where a checkpoint keeps the scales of a matrix.
fn scale_name(matrix: &str) -> String {
    format!("{}.scale", matrix.strip_suffix(".weight").unwrap_or(matrix))
}

fn type_name(id: u32) -> String {
    Layout::of_ggml(id).map_or_else(|| format!("type {id}"), |layout| layout.name.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_ending_of_a_name_becomes_scale() {
        for (matrix, scale) in [
            ("layers.0.attn.wq_a.weight", "layers.0.attn.wq_a.scale"),
            (
                "layers.0.attn.indexer.weights_proj.weight",
                "layers.0.attn.indexer.weights_proj.scale",
            ),
            ("hc_head_fn", "hc_head_fn.scale"),
        ] {
            assert_eq!(scale_name(matrix), scale);
        }
    }
}
