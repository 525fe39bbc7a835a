//! The header of one safetensors file: its length, then JSON that must account for every byte of
//! the data: the format allows neither gaps nor shared bytes.

use std::{fmt, path::Path};

use serde::{
    Deserialize, Deserializer,
    de::{self, MapAccess, SeqAccess, Visitor},
};

use super::{Dtype, StInfo, pairs::Pairs};
use crate::{
    Error,
    by_name::{ByName, Named},
    cursor::Cursor,
    error::shown,
};

/// What the reference implementation takes at most.
const LONGEST_HEADER: u64 = 100_000_000;
const MOST_DIMS: usize = 8;
pub(super) const METADATA_KEY: &str = "__metadata__";

/// A header, read and checked; offsets count from the start of the file.
#[derive(Debug)]
pub(super) struct Header {
    pub(super) metadata: Vec<(String, String)>,
    pub(super) tensors: ByName<StInfo>,
}

impl Header {
    pub(super) fn read(bytes: &[u8], file: &Path) -> Result<Header, Error> {
        let mut cursor = Cursor::new(file, bytes, 0);
        let len = cursor.count(1, &"the length of the header")?;
        if len > LONGEST_HEADER {
            let reason = format!("a header of {len} bytes; {LONGEST_HEADER} are the most");
            return Err(cursor.error(8, reason));
        }
        let json = cursor.take(len, &"the header")?;
        let Listing { metadata, tensors } = serde_json::from_slice(json)
            .map_err(|error| cursor.error(json.len(), format!("the header: {}", shown(error))))?;

        let metadata = ByName::new(metadata)
            .map_err(|entry| Error::key(file, entry.name(), "appears more than once"))?;
        let (data_start, data_bytes) = (cursor.at() as u64, cursor.left());
        let tensors = tensors
            .into_iter()
            .map(|(name, listed)| listed.check(name, data_start, file))
            .collect::<Result<Vec<StInfo>, Error>>()?;
        cover(&tensors, data_start, data_start + data_bytes, file)?;
        let tensors = ByName::new(tensors)
            .map_err(|twice| Error::tensor(file, &twice.name, "appears more than once"))?;
        Ok(Header { metadata: metadata.into_items(), tensors })
    }
}

/// The tensors must lie end to end over all the data.
fn cover(tensors: &[StInfo], data_start: u64, data_end: u64, file: &Path) -> Result<(), Error> {
    let mut in_place: Vec<&StInfo> = tensors.iter().collect();
    in_place.sort_unstable_by_key(|tensor| (tensor.offset, tensor.bytes));
    let mut covered = data_start;
    for tensor in in_place {
        let start = tensor.offset;
        if start < covered {
            let reason = format!("its bytes from {start} on belong to another tensor too");
            return Err(Error::tensor(file, &tensor.name, reason));
        }
        if start > covered {
            let reason = format!("the bytes up to {start} belong to no tensor");
            return Err(Error::format(file, covered, reason));
        }
        // No overflow: `check` has added these two.
        covered = start + tensor.bytes;
    }
    match covered {
        end if end > data_end => {
            let reason = format!("the tensors end at byte {end}: the file is cut short");
            Err(Error::format(file, data_end, reason))
        }
        end if end < data_end => {
            Err(Error::format(file, end, format!("the bytes up to {data_end} belong to no tensor")))
        }
        _ => Ok(()),
    }
}

/// The JSON as it stands.
#[derive(Default)]
struct Listing {
    metadata: Vec<(String, String)>,
    tensors: Vec<(String, Listed)>,
}

#[derive(Deserialize)]
struct Listed {
    dtype: String,
    shape: Shape,
    data_offsets: [u64; 2],
}

struct Shape(Vec<u64>);

impl Listed {
    fn check(self, name: String, data_start: u64, file: &Path) -> Result<StInfo, Error> {
        let fault = |reason| Error::tensor(file, &name, reason);
        let Listed { dtype, shape: Shape(shape), data_offsets: [begin, end] } = self;
        let dtype = Dtype::of_name(&dtype)
            .ok_or_else(|| fault(format!("its type `{}` is unknown", shown(&dtype))))?;
        let bytes = dtype.tensor_bytes(&shape).ok_or_else(|| {
            fault(format!("no number of bytes holds {} in the shape {shape:?}", dtype.name()))
        })?;
        if end.checked_sub(begin) != Some(bytes) {
            let reason = format!(
                "its data_offsets are {begin} and {end}, but {} {shape:?} has {bytes} bytes",
                dtype.name()
            );
            return Err(fault(reason));
        }
        if data_start.checked_add(end).is_none() {
            return Err(fault(format!("its data_offsets end at {end}, beyond any file")));
        }
        let offset = data_start + begin;
        Ok(StInfo { name, dtype, shape, part: 0, offset, bytes })
    }
}

impl Named for (String, String) {
    fn name(&self) -> &str {
        &self.0
    }
}

// By hand, because a map type would keep only the last of two tensors with one name.
impl<'de> Deserialize<'de> for Listing {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Listing, D::Error> {
        struct Entries;
        impl<'de> Visitor<'de> for Entries {
            type Value = Listing;

            fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
                f.write_str("an object of tensors")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Listing, A::Error> {
                let mut listing = Listing::default();
                while let Some(name) = map.next_key::<String>()? {
                    if name == METADATA_KEY {
                        listing.metadata.extend(map.next_value::<Pairs>()?.0);
                    } else {
                        listing.tensors.push((name, map.next_value()?));
                    }
                }
                Ok(listing)
            }
        }
        deserializer.deserialize_map(Entries)
    }
}

// By hand, because a short text of many ones would become a long list of numbers.
impl<'de> Deserialize<'de> for Shape {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Shape, D::Error> {
        struct Extents;
        impl<'de> Visitor<'de> for Extents {
            type Value = Shape;

            fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
                f.write_str("a shape")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Shape, A::Error> {
                let mut extents = Vec::new();
                while let Some(extent) = seq.next_element()? {
                    if extents.len() == MOST_DIMS {
                        let reason = format!("a shape of more than {MOST_DIMS} dimensions");
                        return Err(de::Error::custom(reason));
                    }
                    extents.push(extent);
                }
                Ok(Shape(extents))
            }
        }
        deserializer.deserialize_seq(Extents)
    }
}
