//! Holds every decoder and every rounding to an oracle's blocks.
//!
//! A set has, per format, either `raw` blocks, or `weight` codes with their `scale`s, and the values as
//! `f32`; per rounding, rows `in` and `out`.

use std::{collections::BTreeSet, path::Path};

use ds4_gguf::Safetensors;
use ds4_quant::{
    Format, decode_fp4_row, decode_fp8_row, decode_row, fp4_round_trip, fp8_round_trip, hadamard,
};

use crate::arguments::Arguments;

pub const USAGE: &str = "--set DIR
    decode the blocks of DIR/dequant.safetensors and compare with their values";

/// Everything that can decode a row without scales beside it.
const FORMATS: [Format; 11] = [
    Format::F32,
    Format::F16,
    Format::BF16,
    Format::Q8_0,
    Format::Q4_0,
    Format::Q2K,
    Format::Q4K,
    Format::Q5K,
    Format::Q6K,
    Format::Iq2Xxs,
    Format::Mxfp4,
];
/// Rotary values at the end of a cached row, which stay as they are.
const ROPE: usize = 64;
/// FP8 matrices share a scale in tiles of this side.
const TILE: usize = 128;
/// The sets allow another order of multiplications.
const TOLERANCE: f32 = 1e-6;

pub fn run(arguments: &[String]) -> Result<bool, String> {
    let arguments = Arguments::parse(arguments, &["set"], &[])?;
    let set = Vectors::open(&arguments.path("set")?)?;
    let (mut passed, mut failed) = (0, Vec::new());
    for name in set.names() {
        match set.check(&name) {
            Ok(()) => passed += 1,
            Err(reason) => failed.push(format!("{name}: {reason}")),
        }
    }
    for line in &failed {
        println!("{line}");
    }
    println!("passed {passed} failed {}", failed.len());
    Ok(failed.is_empty() && passed > 0)
}

struct Vectors(Safetensors);

impl Vectors {
    fn open(folder: &Path) -> Result<Vectors, String> {
        let file = folder.join("dequant.safetensors");
        Safetensors::open(&file).map(Vectors).map_err(|e| e.to_string())
    }

    fn names(&self) -> BTreeSet<String> {
        let name = |t: &ds4_gguf::StInfo| t.name.split_once('/').map(|(name, _)| name.to_owned());
        self.0.tensors().iter().filter_map(name).collect()
    }

    /// Rows of bytes of one tensor.
    fn rows(&self, name: &str, part: &str) -> Result<Vec<Vec<u8>>, String> {
        let missing = || format!("{part} is missing");
        let tensor = self.0.tensor(&format!("{name}/{part}")).ok_or_else(missing)?;
        let data = self.0.data(tensor).map_err(|e| e.to_string())?;
        let rows = usize::try_from(*tensor.shape.first().unwrap_or(&0)).unwrap_or(0);
        let width = data.len().checked_div(rows).filter(|&width| width > 0).ok_or("no rows")?;
        Ok(data.chunks_exact(width).map(<[u8]>::to_vec).collect())
    }

    fn numbers(&self, name: &str, part: &str) -> Result<Vec<Vec<f32>>, String> {
        let rows = self.rows(name, part)?;
        let row = |row: Vec<u8>| row.as_chunks().0.iter().map(|&b| f32::from_le_bytes(b)).collect();
        Ok(rows.into_iter().map(row).collect())
    }

    fn check(&self, name: &str) -> Result<(), String> {
        match name {
            "KV_FP8_ROWS" => self.rounding(name, |row| {
                let plain = row.len() - ROPE;
                fp8_round_trip(&mut row[..plain]);
                Ok(())
            }),
            "IDX_FP4_ROWS" => self.rounding(name, |row| {
                hadamard(row).map_err(|e| e.to_string())?;
                fp4_round_trip(row);
                Ok(())
            }),
            "FP8_E4M3_128" => self.scaled(name, |codes, scales, row, out| {
                let scales = scales.get(row / TILE).ok_or("scales end early")?;
                decode_fp8_row(codes, scales, out).map_err(|e| e.to_string())
            }),
            "FP4_E2M1_32" => self.scaled(name, |codes, scales, row, out| {
                let scales = scales.get(row).ok_or("scales end early")?;
                decode_fp4_row(codes, scales, out).map_err(|e| e.to_string())
            }),
            _ => self.blocks(name),
        }
    }

    fn blocks(&self, name: &str) -> Result<(), String> {
        let format = FORMATS.into_iter().find(|format| format.name() == name);
        let format = format.ok_or("no decoder of this name")?;
        let raw = self.rows(name, "raw")?;
        for (i, (raw, expected)) in raw.iter().zip(self.numbers(name, "f32")?).enumerate() {
            let mut found = vec![0.0; expected.len()];
            decode_row(format, raw, &mut found).map_err(|e| e.to_string())?;
            same(i, &found, &expected, TOLERANCE)?;
        }
        Ok(())
    }

    fn scaled(
        &self,
        name: &str,
        decode: impl Fn(&[u8], &[Vec<u8>], usize, &mut [f32]) -> Result<(), String>,
    ) -> Result<(), String> {
        let (codes, scales) = (self.rows(name, "weight")?, self.rows(name, "scale")?);
        for (i, (codes, expected)) in codes.iter().zip(self.numbers(name, "f32")?).enumerate() {
            let mut found = vec![0.0; expected.len()];
            decode(codes, &scales, i, &mut found)?;
            same(i, &found, &expected, 0.0)?;
        }
        Ok(())
    }

    fn rounding(
        &self,
        name: &str,
        round: impl Fn(&mut [f32]) -> Result<(), String>,
    ) -> Result<(), String> {
        let rows = self.numbers(name, "in")?.into_iter().zip(self.numbers(name, "out")?);
        for (i, (mut row, expected)) in rows.enumerate() {
            round(&mut row)?;
            same(i, &row, &expected, TOLERANCE)?;
        }
        Ok(())
    }
}

fn same(row: usize, found: &[f32], expected: &[f32], tolerance: f32) -> Result<(), String> {
    let most = expected.iter().fold(0f32, |most, x| most.max(x.abs()));
    let off = found.iter().zip(expected).map(|(a, b)| (a - b).abs()).fold(0f32, f32::max);
    if found.len() == expected.len() && off <= tolerance * most {
        Ok(())
    } else {
        Err(format!("row {row} is off by {off:e}; its largest value is {most:e}"))
    }
}
