//! A GGUF model as one view, however many files it lies in.

use std::path::{Path, PathBuf};

use ds4_host::Region;

use crate::{
    Error, Meta, TensorInfo, by_name::ByName, directory::Part, span::span, split, split::Place,
};

/// A GGUF model: metadata and tensors of one file, or of all parts of a split one.
#[derive(Debug)]
pub struct Gguf {
    version: u32,
    meta: Meta,
    tensors: ByName<TensorInfo>,
    files: Vec<(PathBuf, Region)>,
}

impl Gguf {
    /// Opens a file. Of a model that is split, any part may be given: the others are found beside it.
    pub fn open(path: &Path) -> Result<Gguf, Error> {
        let given = Part::open(path)?;
        match Place::of(&given)? {
            None => Gguf::join(given, Vec::new()),
            Some(place) => {
                let (first, others) = split::open_all(given, place)?;
                Gguf::join(first, others)
            }
        }
    }

    /// Reads a whole model out of memory; `name` stands for the file in messages.
    pub fn from_region(region: Region, name: &str) -> Result<Gguf, Error> {
        let part = Part::read(region, PathBuf::from(name))?;
        match Place::of(&part)? {
            None => Gguf::join(part, Vec::new()),
            Some(place) => {
                let reason = format!("is {place}, and the others cannot be looked for");
                Err(Error::parts(&part.path, reason))
            }
        }
    }

    fn join(first: Part, others: Vec<Part>) -> Result<Gguf, Error> {
        let mut tensors = first.tensors;
        let mut files = vec![(first.path, first.region)];
        for part in others {
            let number = files.len();
            tensors.extend(part.tensors.into_iter().map(|t| TensorInfo { part: number, ..t }));
            files.push((part.path, part.region));
        }
        let tensors = ByName::new(tensors).map_err(|twice| {
            let path = files.get(twice.part).map_or(Path::new(""), |(path, _)| path);
            Error::tensor(path, &twice.name, "appears more than once")
        })?;
        Ok(Gguf { version: first.version, meta: first.meta, tensors, files })
    }

    /// The file; of a split model, its first part.
    pub fn path(&self) -> &Path {
        self.files.first().map_or(Path::new(""), |(path, _)| path)
    }

    /// The files that the model lies in, in the order that [`TensorInfo::part`] counts.
    pub fn files(&self) -> impl Iterator<Item = &Path> {
        self.files.iter().map(|(path, _)| &**path)
    }

    /// The size of all files together.
    pub fn file_bytes(&self) -> u64 {
        self.files.iter().map(|(_, region)| region.len() as u64).sum()
    }

    /// The version of the format.
    pub fn version(&self) -> u32 {
        self.version
    }

    /// The metadata; of a split model, that of its first part.
    pub fn meta(&self) -> &Meta {
        &self.meta
    }

    /// All tensors, in the order of the files.
    pub fn tensors(&self) -> &[TensorInfo] {
        self.tensors.in_order()
    }

    /// The tensor of a name.
    pub fn tensor(&self, name: &str) -> Option<&TensorInfo> {
        self.tensors.get(name)
    }

    /// The tensor of a name that must be there.
    pub fn need_tensor(&self, name: &str) -> Result<&TensorInfo, Error> {
        self.tensor(name).ok_or_else(|| Error::tensor(self.path(), name, "is missing"))
    }

    /// The bytes of a tensor of this model.
    pub fn data(&self, tensor: &TensorInfo) -> Result<Region, Error> {
        let (path, region) = self
            .files
            .get(tensor.part)
            .ok_or_else(|| Error::tensor(self.path(), &tensor.name, "belongs to another model"))?;
        let Some(bytes) = tensor.bytes else {
            let reason = format!("its type {} is unknown, and so is its size", tensor.type_id);
            return Err(Error::tensor(path, &tensor.name, reason));
        };
        span(region, tensor.offset, bytes)
            .ok_or_else(|| Error::tensor(path, &tensor.name, "does not lie in the file"))
    }
}
