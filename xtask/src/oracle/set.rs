//! An oracle set: a manifest, models, and vectors of expected logits.

use std::{
    fs,
    path::{Path, PathBuf},
};

use ds4_gguf::Safetensors;
use serde_json::Value;

/// A folder with a manifest.
pub struct Set {
    pub entries: Vec<Entry>,
}

/// One model and its cases.
pub struct Entry {
    pub model: PathBuf,
    pub cases: Vec<Case>,
    vectors: Safetensors,
}

/// One prompt of one model.
pub struct Case {
    /// `<model id>/<prompt>`.
    pub key: String,
    prompt: String,
    tolerances: Value,
}

/// How far a candidate may be from the expected logits, in relative L2 per position.
#[derive(Clone, Copy)]
pub struct Tolerance {
    pub median: f64,
    pub p85: f64,
}

/// What an independent implementation computed.
pub struct Expected {
    pub tokens: Vec<u32>,
    pub positions: Vec<usize>,
    pub logits: Vec<Vec<f32>>,
    /// The continuation, and how clear each choice was.
    pub greedy: Option<(Vec<u32>, Vec<f32>)>,
}

impl Set {
    pub fn open(folder: &Path) -> Result<Set, String> {
        let path = folder.join("manifest.json");
        let text = fs::read_to_string(&path).map_err(|e| format!("{}: {e}", path.display()))?;
        let manifest: Value =
            serde_json::from_str(&text).map_err(|e| format!("{}: {e}", path.display()))?;
        let entries = list(&manifest, "entries")?.iter().map(|e| Entry::read(folder, e));
        Ok(Set { entries: entries.collect::<Result<_, _>>()? })
    }
}

impl Entry {
    fn read(folder: &Path, entry: &Value) -> Result<Entry, String> {
        let id = text(entry, "id")?;
        let case = |case: &Value| {
            let prompt = text(case, "prompt")?;
            Ok(Case {
                key: format!("{id}/{prompt}"),
                prompt: prompt.to_owned(),
                tolerances: case.get("tolerances").cloned().unwrap_or_default(),
            })
        };
        let vectors = folder.join(text(entry, "vectors")?);
        Ok(Entry {
            model: folder.join(text(entry, "model")?),
            cases: list(entry, "cases")?.iter().map(case).collect::<Result<_, String>>()?,
            vectors: Safetensors::open(&vectors).map_err(|e| e.to_string())?,
        })
    }

    pub fn expected(&self, case: &Case, mode: &str) -> Result<Expected, String> {
        let prompt = &case.prompt;
        let logits = self.floats(&format!("{prompt}/{mode}/logits"))?.ok_or("no logits")?;
        let positions = self.integers(&format!("{prompt}/pos"))?.ok_or("no positions")?;
        let vocab = logits.len() / positions.len().max(1);
        let greedy = self.integers(&format!("{prompt}/{mode}/greedy"))?;
        let margin = self.floats(&format!("{prompt}/{mode}/greedy_margin"))?;
        Ok(Expected {
            tokens: self.integers(&format!("{prompt}/tokens"))?.ok_or("no tokens")?,
            positions: positions.into_iter().map(|p| p as usize).collect(),
            logits: logits.chunks_exact(vocab).map(<[f32]>::to_vec).collect(),
            greedy: greedy.zip(margin),
        })
    }

    fn bytes(&self, name: &str) -> Result<Option<Vec<[u8; 4]>>, String> {
        let Some(tensor) = self.vectors.tensor(name) else { return Ok(None) };
        let data = self.vectors.data(tensor).map_err(|e| e.to_string())?;
        Ok(Some(data.as_chunks().0.to_vec()))
    }

    fn floats(&self, name: &str) -> Result<Option<Vec<f32>>, String> {
        let bytes = self.bytes(name)?;
        Ok(bytes.map(|bytes| bytes.into_iter().map(f32::from_le_bytes).collect()))
    }

    fn integers(&self, name: &str) -> Result<Option<Vec<u32>>, String> {
        let bytes = self.bytes(name)?;
        Ok(bytes.map(|bytes| bytes.into_iter().map(u32::from_le_bytes).collect()))
    }
}

impl Case {
    pub fn tolerance(&self, class: &str, mode: &str) -> Option<Tolerance> {
        let tolerance = self.tolerances.get(class)?.get(mode)?;
        Some(Tolerance {
            median: tolerance.get("median")?.as_f64()?,
            p85: tolerance.get("p85")?.as_f64()?,
        })
    }
}

fn text<'a>(value: &'a Value, key: &str) -> Result<&'a str, String> {
    value.get(key).and_then(Value::as_str).ok_or(format!("manifest: `{key}` is missing"))
}

fn list<'a>(value: &'a Value, key: &str) -> Result<&'a Vec<Value>, String> {
    value.get(key).and_then(Value::as_array).ok_or(format!("manifest: `{key}` is missing"))
}
