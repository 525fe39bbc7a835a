//! Writes GGUF files: first the directory, which must be complete, then the tensors as a stream.

use std::{io::Write, path::PathBuf};

use crate::{
    Element, Error, TensorStream, Value, ValueType,
    by_name::{ByName, Named},
    directory::{
        ALIGNMENT_KEY, DEFAULT_ALIGNMENT, MAGIC, check_alignment, check_rank, tensor_bytes,
    },
    stream::Announced,
};

const VERSION: u32 = 3;

/// Collects the directory of a GGUF file.
///
/// ```
/// # fn main() -> Result<(), ds4_gguf::Error> {
/// const F32: u32 = 0;
/// let mut writer = ds4_gguf::GgufWriter::new("tiny.gguf");
/// writer.put("general.architecture", "deepseek4");
/// writer.put_array("tokenizer.ggml.tokens", ["a", "b"]);
/// writer.tensor("output_norm.weight", &[2], F32)?;
///
/// let mut tensors = writer.begin(Vec::new())?;
/// tensors.write("output_norm.weight", [1f32, 2.0].map(f32::to_le_bytes))?;
/// let file = tensors.finish()?;
/// assert_eq!(&file[..4], b"GGUF");
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct GgufWriter {
    file: PathBuf,
    alignment: Option<u64>,
    metadata: Vec<u8>,
    keys: Vec<String>,
    tensors: Vec<Planned>,
}

#[derive(Debug)]
struct Planned {
    name: String,
    dims: Vec<u64>,
    type_id: u32,
    bytes: u64,
}

impl Named for String {
    fn name(&self) -> &str {
        self
    }
}

impl Named for Planned {
    fn name(&self) -> &str {
        &self.name
    }
}

impl GgufWriter {
    /// An empty directory; `file` stands for the file in messages.
    pub fn new(file: impl Into<PathBuf>) -> GgufWriter {
        GgufWriter {
            file: file.into(),
            alignment: Some(DEFAULT_ALIGNMENT),
            metadata: Vec::new(),
            keys: Vec::new(),
            tensors: Vec::new(),
        }
    }

    /// Adds a key with one value. `general.alignment` moves the tensors.
    pub fn put(&mut self, key: &str, value: impl Element) {
        self.put_value(key, value.value());
    }

    /// Adds a key with a value as a reader gives it, arrays included: the way to carry metadata
    /// over from another file.
    pub fn put_value(&mut self, key: &str, value: Value) {
        if key == ALIGNMENT_KEY {
            self.alignment = value.as_u64();
        }
        self.put_key(key, value.value_type());
        value.encode(&mut self.metadata);
    }

    /// Adds a key with an array.
    pub fn put_array<E: Element>(&mut self, key: &str, elements: impl IntoIterator<Item = E>) {
        self.put_key(key, ValueType::Array);
        let mut encoded = Vec::new();
        let mut len = 0u64;
        for element in elements {
            element.value().encode(&mut encoded);
            len += 1;
        }
        self.metadata.extend((E::TYPE as u32).to_le_bytes());
        self.metadata.extend(len.to_le_bytes());
        self.metadata.extend(encoded);
    }

    fn put_key(&mut self, key: &str, value_type: ValueType) {
        encode_name(key, &mut self.metadata);
        self.metadata.extend((value_type as u32).to_le_bytes());
        self.keys.push(key.to_owned());
    }

    /// Announces the next tensor: its extents, the contiguous one first, and its ggml type.
    pub fn tensor(&mut self, name: &str, dims: &[u64], type_id: u32) -> Result<(), Error> {
        let bytes = check_rank(dims.len())
            .and_then(|()| tensor_bytes(dims, type_id))
            .and_then(|bytes| bytes.ok_or_else(|| format!("its type {type_id} is unknown")))
            .map_err(|reason| Error::tensor(&self.file, name, reason))?;
        self.tensors.push(Planned { name: name.to_owned(), dims: dims.to_vec(), type_id, bytes });
        Ok(())
    }

    /// Writes the directory; the stream then takes the tensors in the order they were announced.
    pub fn begin<W: Write>(self, sink: W) -> Result<TensorStream<W>, Error> {
        let GgufWriter { file, alignment, metadata, keys, tensors } = self;
        let alignment = alignment.unwrap_or(0);
        check_alignment(alignment).map_err(|reason| Error::key(&file, ALIGNMENT_KEY, reason))?;
        let keys = ByName::new(keys).map_err(|key| Error::key(&file, &key, "is put twice"))?;
        let tensors = ByName::new(tensors)
            .map_err(|twice| Error::tensor(&file, &twice.name, "is announced twice"))?;
        if keys.get("").is_some() || tensors.get("").is_some() {
            return Err(Error::parts(&file, "keys and tensors need names that are not empty"));
        }

        let mut directory = Vec::from(MAGIC);
        directory.extend(VERSION.to_le_bytes());
        directory.extend((tensors.in_order().len() as u64).to_le_bytes());
        directory.extend((keys.in_order().len() as u64).to_le_bytes());
        directory.extend(metadata);
        let mut data_bytes = 0u64;
        let mut announced = Vec::with_capacity(tensors.in_order().len());
        for Planned { name, dims, type_id, bytes } in tensors.in_order() {
            encode_name(name, &mut directory);
            directory.extend((dims.len() as u32).to_le_bytes());
            directory.extend(dims.iter().flat_map(|extent| extent.to_le_bytes()));
            directory.extend(type_id.to_le_bytes());
            directory.extend(data_bytes.to_le_bytes());
            announced.push(Announced { name: name.clone(), offset: data_bytes, bytes: *bytes });
            // Padding after the last tensor too: some readers take whole boundaries at a time.
            data_bytes = data_bytes
                .checked_add(*bytes)
                .and_then(|end| end.checked_next_multiple_of(alignment))
                .ok_or_else(|| Error::tensor(&file, name, "ends after the largest offset"))?;
        }

        let data_start = (directory.len() as u64).next_multiple_of(alignment);
        let file_bytes = data_start
            .checked_add(data_bytes)
            .ok_or_else(|| Error::parts(&file, "would be larger than any file can be"))?;
        for tensor in &mut announced {
            tensor.offset += data_start;
        }
        TensorStream::begin(file, sink, &directory, announced, file_bytes)
    }
}

fn encode_name(name: &str, out: &mut Vec<u8>) {
    Value::Str(name.as_bytes()).encode(out);
}
