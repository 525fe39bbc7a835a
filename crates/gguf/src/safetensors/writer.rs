//! Writes safetensors files: first the header, which must be complete, then the tensors as a stream.

use std::{io::Write, path::PathBuf};

use serde_json::{Map, Value, json};

use super::{Dtype, StInfo, header::METADATA_KEY};
use crate::{Error, TensorStream, by_name::ByName, stream::Announced};

/// Collects the header of a safetensors file.
///
/// ```
/// # fn main() -> Result<(), ds4_gguf::Error> {
/// use ds4_gguf::{Dtype, SafetensorsWriter};
///
/// let mut writer = SafetensorsWriter::new("tiny.safetensors");
/// writer.tensor("norm.weight", Dtype::F32, &[2])?;
///
/// let mut tensors = writer.begin(Vec::new())?;
/// tensors.write("norm.weight", [1f32, 2.0].map(f32::to_le_bytes))?;
/// let file = tensors.finish()?;
/// assert_eq!(file[8], b'{');
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct SafetensorsWriter {
    file: PathBuf,
    metadata: Map<String, Value>,
    tensors: Vec<StInfo>,
    data_bytes: u64,
}

impl SafetensorsWriter {
    /// An empty header; `file` stands for the file in messages.
    pub fn new(file: impl Into<PathBuf>) -> SafetensorsWriter {
        SafetensorsWriter {
            file: file.into(),
            metadata: Map::new(),
            tensors: Vec::new(),
            data_bytes: 0,
        }
    }

    /// Adds an entry of `__metadata__`, or replaces it.
    pub fn metadata(&mut self, key: &str, value: &str) {
        self.metadata.insert(key.to_owned(), value.into());
    }

    /// Announces the next tensor; the contiguous extent comes last.
    pub fn tensor(&mut self, name: &str, dtype: Dtype, shape: &[u64]) -> Result<(), Error> {
        let fault = |reason: &str| Error::tensor(&self.file, name, reason);
        if name == METADATA_KEY {
            return Err(fault("is the name that the format keeps for its metadata"));
        }
        let bytes = dtype
            .tensor_bytes(shape)
            .ok_or_else(|| fault("its shape is no whole number of bytes, or beyond counting"))?;
        let offset = self.data_bytes;
        self.data_bytes =
            offset.checked_add(bytes).ok_or_else(|| fault("ends after the largest offset"))?;
        let (name, shape) = (name.to_owned(), shape.to_vec());
        self.tensors.push(StInfo { name, dtype, shape, part: 0, offset, bytes });
        Ok(())
    }

    /// Writes the header; the stream then takes the tensors in the order they were announced.
    pub fn begin<W: Write>(self, sink: W) -> Result<TensorStream<W>, Error> {
        let SafetensorsWriter { file, metadata, tensors, data_bytes } = self;
        let tensors = ByName::new(tensors)
            .map_err(|twice| Error::tensor(&file, &twice.name, "is announced twice"))?;

        let mut header = Map::new();
        if !metadata.is_empty() {
            header.insert(METADATA_KEY.to_owned(), metadata.into());
        }
        for StInfo { name, dtype, shape, offset, bytes, .. } in tensors.in_order() {
            let offsets = [*offset, offset + bytes];
            let entry = json!({"dtype": dtype.name(), "shape": shape, "data_offsets": offsets});
            header.insert(name.clone(), entry);
        }
        let mut header = Value::from(header).to_string().into_bytes();
        // Blanks, so that the data begins on a boundary that every type is content with.
        header.resize(header.len().next_multiple_of(8), b' ');

        let data_start = 8 + header.len() as u64;
        let file_bytes = data_start
            .checked_add(data_bytes)
            .ok_or_else(|| Error::parts(&file, "would be larger than any file can be"))?;
        let announced = tensors.in_order().iter().map(|tensor| Announced {
            name: tensor.name.clone(),
            offset: data_start + tensor.offset,
            bytes: tensor.bytes,
        });
        let announced = announced.collect();
        let directory = [&(header.len() as u64).to_le_bytes(), &*header].concat();
        TensorStream::begin(file, sink, &directory, announced, file_bytes)
    }
}
