//! Writes a planned file: the directory, then all tensors at once from several threads.
//!
//! The directory and the file's size come first; then every thread takes the next stretch of bytes,
//! makes it in a buffer that its cache holds, and writes it where it belongs.

use std::{
    fs::{self, File, OpenOptions},
    io::{Seek, SeekFrom, Write},
    path::Path,
    sync::Mutex,
    thread,
};

use ds4_gguf::{Gguf, GgufWriter};

use super::{plan::Tensor, random::Random};

/// About what a thread makes at a time.
const STRETCH: usize = 1 << 19;

/// What the random numbers come from, and who makes them.
#[derive(Clone, Copy)]
pub struct Filling {
    pub seed: u64,
    pub threads: usize,
}

/// Bytes of one tensor that are made together.
struct Stretch<'a> {
    tensor: &'a Tensor,
    /// Where they lie in the tensor.
    offset: u64,
    len: usize,
    /// Where they lie in the file.
    place: u64,
}

/// Writes a file of these tensors, with the keys that `writer` has. Returns its size.
pub fn write(
    mut writer: GgufWriter,
    tensors: &[Tensor],
    filling: Filling,
    out: &Path,
) -> Result<u64, String> {
    for tensor in tensors {
        writer.tensor(&tensor.name, &tensor.dims, tensor.type_id).map_err(|e| e.to_string())?;
    }
    // Until it is full, the file has a name that nobody takes for a model.
    let part = out.with_added_extension("part");
    let renamed = || fs::rename(&part, out).map_err(|e| format!("{}: {e}", out.display()));
    let written = write_part(writer, tensors, filling, &part).and_then(|bytes| {
        renamed()?;
        Ok(bytes)
    });
    if written.is_err() {
        // The first error is the one to tell.
        let _ = fs::remove_file(&part);
    }
    written
}

fn write_part(
    writer: GgufWriter,
    tensors: &[Tensor],
    filling: Filling,
    part: &Path,
) -> Result<u64, String> {
    let failed = |e: std::io::Error| format!("{}: {e}", part.display());
    let file = File::create(part).map_err(failed)?;
    let bytes = writer.begin(&file).map_err(|e| e.to_string())?.file_bytes();
    file.set_len(bytes).map_err(failed)?;
    let stretches = Mutex::new(stretches(tensors, part)?);
    thread::scope(|scope| {
        let fill = || fill(&stretches, filling.seed, part);
        let threads: Vec<_> = (0..filling.threads).map(|_| scope.spawn(fill)).collect();
        let mut results = threads.into_iter().map(|t| t.join().unwrap_or(Err("panicked".into())));
        results.try_for_each(|result| result).map(|()| bytes)
    })
}

/// Every tensor cut up, in the order of the file. A reader is asked where each tensor goes: it is
/// the reader who will look there.
fn stretches<'a>(
    tensors: &'a [Tensor],
    file: &Path,
) -> Result<impl Iterator<Item = Stretch<'a>> + use<'a>, String> {
    let directory = Gguf::open(file).map_err(|e| e.to_string())?;
    let places: Vec<u64> = tensors
        .iter()
        .map(|tensor| directory.tensor(&tensor.name).map(|found| found.offset))
        .collect::<Option<_>>()
        .ok_or("the directory lost a tensor")?;
    Ok(tensors.iter().zip(places).flat_map(|(tensor, place)| {
        let unit = tensor.content.unit();
        let most = (STRETCH / unit).max(1) * unit;
        (0..tensor.bytes).step_by(most).map(move |offset| Stretch {
            tensor,
            offset,
            len: (tensor.bytes - offset).min(most as u64) as usize,
            place: place + offset,
        })
    }))
}

/// Fills stretches until none is left.
fn fill<'a>(
    stretches: &Mutex<impl Iterator<Item = Stretch<'a>>>,
    seed: u64,
    path: &Path,
) -> Result<(), String> {
    let failed = |e: std::io::Error| format!("{}: {e}", path.display());
    let mut file = OpenOptions::new().write(true).open(path).map_err(failed)?;
    let mut buffer = Vec::new();
    let next = || stretches.lock().ok().and_then(|mut stretches| stretches.next());
    while let Some(Stretch { tensor, offset, len, place }) = next() {
        buffer.resize(len, 0);
        let mut random = Random::at(seed, &tensor.name, offset);
        tensor.content.fill(&mut random, &mut buffer);
        file.seek(SeekFrom::Start(place)).and_then(|_| file.write_all(&buffer)).map_err(failed)?;
    }
    Ok(())
}
