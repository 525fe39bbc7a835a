//! The directory of one GGUF file: header, metadata, and where each tensor lies.
//!
//! Everything that a file says about its own layout is checked here, once, against its real size.

use std::{
    ops::RangeInclusive,
    path::{Path, PathBuf},
};

use ds4_host::Region;
use ds4_quant::Layout;

use crate::{Error, Meta, by_name::Named, cursor::Cursor, error::shown};

/// "GGUF" as the bytes lie in the file.
pub(crate) const MAGIC: [u8; 4] = *b"GGUF";
/// The key that moves the tensors to other boundaries than [`DEFAULT_ALIGNMENT`].
pub(crate) const ALIGNMENT_KEY: &str = "general.alignment";
pub(crate) const DEFAULT_ALIGNMENT: u64 = 32;
/// Less would be no alignment for 64-bit values; more is nonsense that would pad files for ever.
const ALIGNMENTS: RangeInclusive<u64> = 8..=1 << 24;
const MOST_DIMS: usize = 8;

/// The fewest bytes of an entry, to refuse counts that a file has no room for. A key: its length,
/// one letter, a type, one byte. A tensor: length, one letter, rank, one extent, type, offset.
const LEAST_KEY_BYTES: u64 = 8 + 1 + 4 + 1;
const LEAST_TENSOR_BYTES: u64 = 8 + 1 + 4 + 8 + 4 + 8;

/// What a GGUF file says about one tensor.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct TensorInfo {
    /// Its name.
    pub name: String,
    /// Its extents, the contiguous one (`ne0`) first.
    pub dims: Vec<u64>,
    /// The ggml number of its type.
    pub type_id: u32,
    /// Which file of the model it lies in.
    pub part: usize,
    /// Where its bytes begin in that file.
    pub offset: u64,
    /// How many bytes it has; `None` for a type that is not known.
    pub bytes: Option<u64>,
}

impl TensorInfo {
    /// How many values it has.
    pub fn elements(&self) -> u64 {
        self.dims.iter().product()
    }
}

impl Named for TensorInfo {
    fn name(&self) -> &str {
        &self.name
    }
}

/// One GGUF file, read and checked.
#[derive(Debug)]
pub(crate) struct Part {
    pub(crate) path: PathBuf,
    pub(crate) region: Region,
    pub(crate) version: u32,
    pub(crate) meta: Meta,
    pub(crate) tensors: Vec<TensorInfo>,
}

impl Part {
    pub(crate) fn open(path: &Path) -> Result<Part, Error> {
        Part::read(Region::map(path)?, path.to_owned())
    }

    pub(crate) fn read(region: Region, path: PathBuf) -> Result<Part, Error> {
        let mut cursor = Cursor::new(&path, &region, 0);
        let version = read_version(&mut cursor)?;
        let tensor_count = cursor.count(LEAST_TENSOR_BYTES, &"the number of tensors")?;
        let key_count = cursor.count(LEAST_KEY_BYTES, &"the number of keys")?;
        let meta = Meta::read(&mut cursor, key_count, &region)?;
        let alignment = read_alignment(&meta, &path)?;

        let mut tensors = Vec::new();
        for i in 0..tensor_count {
            tensors.push(read_tensor(&mut cursor, i)?);
        }
        place(&mut tensors, &cursor, alignment, region.len() as u64)?;
        Ok(Part { version, meta, tensors, region, path })
    }
}

fn read_version(cursor: &mut Cursor) -> Result<u32, Error> {
    let magic: [u8; 4] = cursor.array(&"the magic number")?;
    if magic != MAGIC {
        let found = magic.escape_ascii();
        return Err(cursor.error(4, format!("not a GGUF file: it begins with \"{found}\"")));
    }
    match cursor.u32(&"the version")? {
        version @ 2..=3 => Ok(version),
        swapped if matches!(swapped.swap_bytes(), 1..=3) => {
            Err(cursor.error(4, "a big-endian GGUF file; only little-endian ones can be read"))
        }
        other => Err(cursor.error(4, format!("GGUF version {other}; 2 and 3 can be read"))),
    }
}

fn read_alignment(meta: &Meta, file: &Path) -> Result<u64, Error> {
    let alignment = meta.get_u64(ALIGNMENT_KEY)?.unwrap_or(DEFAULT_ALIGNMENT);
    check_alignment(alignment).map_err(|reason| Error::key(file, ALIGNMENT_KEY, reason))?;
    Ok(alignment)
}

pub(crate) fn check_alignment(alignment: u64) -> Result<(), String> {
    if alignment.is_power_of_two() && ALIGNMENTS.contains(&alignment) {
        return Ok(());
    }
    let (least, most) = (ALIGNMENTS.start(), ALIGNMENTS.end());
    Err(format!("must be a power of two from {least} to {most}, but is {alignment}"))
}

/// Reads one entry; its offset still counts from the start of the data.
fn read_tensor(cursor: &mut Cursor, i: u64) -> Result<TensorInfo, Error> {
    let name = cursor.name(&format_args!("the name of tensor {i}"))?;
    let what = format!("the description of tensor `{}`", shown(name));
    let rank = cursor.u32(&what)? as usize;
    check_rank(rank).map_err(|reason| Error::tensor(cursor.file(), name, reason))?;
    let mut dims = Vec::with_capacity(rank);
    for _ in 0..rank {
        dims.push(cursor.u64(&what)?);
    }
    let type_id = cursor.u32(&what)?;
    let offset = cursor.u64(&what)?;
    let bytes = tensor_bytes(&dims, type_id)
        .map_err(|reason| Error::tensor(cursor.file(), name, reason))?;
    Ok(TensorInfo { name: name.to_owned(), dims, type_id, part: 0, offset, bytes })
}

pub(crate) fn check_rank(rank: usize) -> Result<(), String> {
    if (1..=MOST_DIMS).contains(&rank) {
        return Ok(());
    }
    Err(format!("has {rank} dimensions; 1 to {MOST_DIMS} are possible"))
}

/// The size of a tensor, `None` for a type that is not known.
pub(crate) fn tensor_bytes(dims: &[u64], type_id: u32) -> Result<Option<u64>, String> {
    let too_large = || format!("extents {dims:?} are more than a file can hold");
    let elements = dims.iter().try_fold(1u64, |product, &extent| product.checked_mul(extent));
    let elements = elements.ok_or_else(too_large)?;
    let Some(layout) = Layout::of_ggml(type_id) else { return Ok(None) };
    let row = dims.first().copied().unwrap_or(1);
    let block = layout.block_elems as u64;
    if !row.is_multiple_of(block) {
        return Err(format!(
            "rows of {row} values do not divide into {} blocks of {block}",
            layout.name
        ));
    }
    let bytes = (elements / block).checked_mul(layout.block_bytes as u64);
    bytes.map(Some).ok_or_else(too_large)
}

/// Turns offsets from the start of the data, which begins at the first boundary after the cursor,
/// into offsets from the start of the file, and refuses tensors that leave it or share bytes.
fn place(
    tensors: &mut [TensorInfo],
    directory_end: &Cursor,
    alignment: u64,
    file_bytes: u64,
) -> Result<(), Error> {
    let file = directory_end.file();
    let data_start = (directory_end.at() as u64).checked_next_multiple_of(alignment);
    let mut spans = Vec::new();
    for (i, tensor) in tensors.iter_mut().enumerate() {
        let fault = |reason| Err(Error::tensor(file, &tensor.name, reason));
        let relative = tensor.offset;
        if !relative.is_multiple_of(alignment) {
            return fault(format!("its offset {relative} is not a multiple of {alignment}"));
        }
        let bytes = tensor.bytes.unwrap_or(0);
        let start = data_start.and_then(|data| data.checked_add(relative));
        let end = start.and_then(|start| start.checked_add(bytes));
        let (Some(start), Some(end)) = (start, end.filter(|&end| end <= file_bytes)) else {
            return fault(format!(
                "its {bytes} bytes at offset {relative} of the data end after the file, \
                 which has {file_bytes} bytes: cut short?"
            ));
        };
        tensor.offset = start;
        if bytes > 0 {
            spans.push((start, end, i));
        }
    }
    spans.sort_unstable();
    match spans.windows(2).find(|pair| pair[0].1 > pair[1].0) {
        Some(&[(_, _, first), (start, _, second)]) => {
            let first = shown(&tensors[first].name);
            let reason = format!("its bytes at {start} belong to tensor `{first}` too");
            Err(Error::tensor(file, &tensors[second].name, reason))
        }
        _ => Ok(()),
    }
}
