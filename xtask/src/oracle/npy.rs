//! Writing rows of `f32` in NumPy's file format.

use std::{fs, io, path::Path};

pub fn write(path: &Path, rows: &[Vec<f32>]) -> io::Result<()> {
    let cols = rows.first().map_or(0, Vec::len);
    let shape = format!("({}, {cols})", rows.len());
    let mut header = format!("{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}, }}");
    // Magic, version and length take 10 bytes; the whole is padded to 64, the last byte a newline.
    let padded = (10 + header.len() + 1).next_multiple_of(64) - 10;
    header.extend(std::iter::repeat_n(' ', padded - header.len() - 1));
    header.push('\n');

    let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
    bytes.extend((padded as u16).to_le_bytes());
    bytes.extend(header.into_bytes());
    bytes.extend(rows.iter().flatten().flat_map(|x| x.to_le_bytes()));
    fs::write(path, bytes)
}
