//! Safetensors models as one view: a single file, or shards with an index.
//!
//! The index decides which shard a tensor is read from; a tensor that it does not name is not part
//! of the model.

mod dtype;
mod header;
mod index;
mod pairs;
mod writer;

use std::path::{Path, PathBuf};

use ds4_host::Region;

pub use dtype::Dtype;
pub use writer::SafetensorsWriter;

use crate::{
    Error,
    by_name::{ByName, Named},
    span::span,
};
use header::Header;
use index::Index;

const SINGLE_FILE: &str = "model.safetensors";
const INDEX_FILE: &str = "model.safetensors.index.json";

/// What a safetensors file says about one tensor.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct StInfo {
    /// Its name.
    pub name: String,
    /// The type of its values.
    pub dtype: Dtype,
    /// Its extents, the contiguous one last.
    pub shape: Vec<u64>,
    /// Which file of the model it lies in.
    pub part: usize,
    /// Where its bytes begin in that file.
    pub offset: u64,
    /// How many bytes it has.
    pub bytes: u64,
}

impl StInfo {
    /// How many values it has.
    pub fn elements(&self) -> u64 {
        self.shape.iter().product()
    }
}

impl Named for StInfo {
    fn name(&self) -> &str {
        &self.name
    }
}

/// A safetensors model.
#[derive(Debug)]
pub struct Safetensors {
    path: PathBuf,
    metadata: Vec<(String, String)>,
    tensors: ByName<StInfo>,
    files: Vec<(PathBuf, Region)>,
}

impl Safetensors {
    /// Opens a `.safetensors` file, a `.index.json` with the shards beside it, or a folder with
    /// either under its usual name.
    pub fn open(path: &Path) -> Result<Safetensors, Error> {
        if path.is_dir() {
            let [index, single] = [INDEX_FILE, SINGLE_FILE].map(|name| path.join(name));
            return match (index.exists(), single.exists()) {
                (true, _) => Safetensors::open_sharded(&index),
                (false, true) => Safetensors::open_single(&single),
                (false, false) => {
                    Err(Error::parts(path, format!("has no {INDEX_FILE} and no {SINGLE_FILE}")))
                }
            };
        }
        match path.extension() {
            Some(extension) if extension == "json" => Safetensors::open_sharded(path),
            _ => Safetensors::open_single(path),
        }
    }

    /// Reads a single file out of memory; `name` stands for the file in messages.
    pub fn from_region(region: Region, name: &str) -> Result<Safetensors, Error> {
        Safetensors::read(region, PathBuf::from(name))
    }

    fn open_single(path: &Path) -> Result<Safetensors, Error> {
        Safetensors::read(Region::map(path)?, path.to_owned())
    }

    fn read(region: Region, path: PathBuf) -> Result<Safetensors, Error> {
        let Header { metadata, tensors } = Header::read(&region, &path)?;
        Ok(Safetensors { files: vec![(path.clone(), region)], path, metadata, tensors })
    }

    fn open_sharded(path: &Path) -> Result<Safetensors, Error> {
        let index = Index::read(&Region::map(path)?, path)?;
        let mut metadata = Vec::new();
        let mut files = Vec::new();
        let mut shards = Vec::new();
        for shard in &index.shards {
            let file = path.with_file_name(shard);
            if !file.exists() {
                let reason = format!("names the shard {}, which is missing", file.display());
                return Err(Error::parts(path, reason));
            }
            let region = Region::map(&file)?;
            let header = Header::read(&region, &file)?;
            metadata.extend(header.metadata);
            shards.push(header.tensors);
            files.push((file, region));
        }

        let mut tensors = Vec::with_capacity(index.tensors.len());
        for (name, part) in index.tensors {
            let found = shards.get(part).and_then(|shard: &ByName<StInfo>| shard.get(&name));
            let Some(tensor) = found else {
                let shard = index.shards.get(part).map_or("", |shard| shard);
                let reason = format!("is not in {shard}, where the index has it");
                return Err(Error::tensor(path, &name, reason));
            };
            tensors.push(StInfo { part, ..tensor.clone() });
        }
        let tensors = ByName::new(tensors)
            .map_err(|twice| Error::tensor(path, &twice.name, "appears more than once"))?;
        Ok(Safetensors { path: path.to_owned(), metadata, tensors, files })
    }

    /// The file or index that was opened.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The files that the tensors lie in, in the order that [`StInfo::part`] counts.
    pub fn files(&self) -> impl Iterator<Item = &Path> {
        self.files.iter().map(|(path, _)| &**path)
    }

    /// The size of all files together.
    pub fn file_bytes(&self) -> u64 {
        self.files.iter().map(|(_, region)| region.len() as u64).sum()
    }

    /// The `__metadata__` of the files, in order.
    pub fn metadata(&self) -> &[(String, String)] {
        &self.metadata
    }

    /// All tensors, in the order of the file or index.
    pub fn tensors(&self) -> &[StInfo] {
        self.tensors.in_order()
    }

    /// The tensor of a name.
    pub fn tensor(&self, name: &str) -> Option<&StInfo> {
        self.tensors.get(name)
    }

    /// The tensor of a name that must be there.
    pub fn need_tensor(&self, name: &str) -> Result<&StInfo, Error> {
        self.tensor(name).ok_or_else(|| Error::tensor(&self.path, name, "is missing"))
    }

    /// The bytes of a tensor of this model.
    pub fn data(&self, tensor: &StInfo) -> Result<Region, Error> {
        self.files
            .get(tensor.part)
            .and_then(|(_, region)| span(region, tensor.offset, tensor.bytes))
            .ok_or_else(|| Error::tensor(&self.path, &tensor.name, "does not lie in the file"))
    }
}
