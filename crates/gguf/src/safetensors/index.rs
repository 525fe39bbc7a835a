//! The index of a sharded model: which file has which tensor.

use std::{
    collections::HashMap,
    path::{Component, Path},
};

use serde::Deserialize;

use super::pairs::Pairs;
use crate::{Error, error::shown};

/// An index, read and checked; duplicate tensors are left to whoever joins the shards.
#[derive(Debug)]
pub(super) struct Index {
    /// File names, in the order in which the index first mentions them.
    pub(super) shards: Vec<String>,
    /// Each tensor, and which of the shards has it.
    pub(super) tensors: Vec<(String, usize)>,
}

#[derive(Deserialize)]
struct Listing {
    weight_map: Pairs,
}

impl Index {
    pub(super) fn read(json: &[u8], file: &Path) -> Result<Index, Error> {
        let Listing { weight_map: Pairs(entries) } = serde_json::from_slice(json)
            .map_err(|error| Error::format(file, 0, format!("the index: {}", shown(error))))?;
        let mut numbers = HashMap::new();
        let mut shards = Vec::new();
        let mut tensors = Vec::with_capacity(entries.len());
        for (tensor, shard) in entries {
            if !is_file_name(&shard) {
                let reason =
                    format!("its shard `{}` is not the name of a file beside it", shown(&shard));
                return Err(Error::tensor(file, &tensor, reason));
            }
            let number = *numbers.entry(shard).or_insert_with_key(|shard| {
                shards.push(shard.clone());
                shards.len() - 1
            });
            tensors.push((tensor, number));
        }
        Ok(Index { shards, tensors })
    }
}

/// A shard lies beside its index: a name that leads anywhere else, on whatever system the file was
/// made for, is an attempt to have another file read.
fn is_file_name(name: &str) -> bool {
    let first = Path::new(name).components().next();
    matches!(first, Some(Component::Normal(_))) && !name.contains(['/', '\\', ':', '\0'])
}
