//! Random blocks of every format with the values that independent implementations give them.
//! Everything must agree exactly; the index rows, whose rotation may be summed in another order, up
//! to ties.

use std::collections::BTreeMap;
use std::io::Read;

use ds4_quant::{
    Format, Layout, QuantError, decode_fp4_row, decode_fp8_row, decode_row, fp4_round_trip,
    fp8_round_trip, hadamard,
};
use serde_json::Value;

const VECTORS: &[u8] = include_bytes!("../fixtures/dequant.safetensors.gz");
const DESCRIPTION: &str = include_str!("../fixtures/dequant.json");

struct Vectors {
    tensors: BTreeMap<String, (Vec<usize>, Vec<u8>)>,
}

impl Vectors {
    fn load() -> Vectors {
        let mut file = Vec::new();
        flate2::read::GzDecoder::new(VECTORS).read_to_end(&mut file).unwrap();
        let (length, rest) = file.split_first_chunk::<8>().unwrap();
        let (header, data) = rest.split_at(u64::from_le_bytes(*length) as usize);
        let header: BTreeMap<String, Value> = serde_json::from_slice(header).unwrap();
        let integers = |list: &Value| -> Vec<usize> {
            list.as_array().unwrap().iter().map(|n| n.as_u64().unwrap() as usize).collect()
        };
        let tensors =
            header.into_iter().filter(|(name, _)| name != "__metadata__").map(|(name, info)| {
                let span = integers(&info["data_offsets"]);
                (name, (integers(&info["shape"]), data[span[0]..span[1]].to_vec()))
            });
        Vectors { tensors: tensors.collect() }
    }

    fn bytes(&self, name: &str) -> &[u8] {
        &self.tensors[name].1
    }

    fn cols(&self, name: &str) -> usize {
        *self.tensors[name].0.last().unwrap()
    }

    fn floats(&self, name: &str) -> Vec<f32> {
        self.bytes(name).chunks(4).map(|x| f32::from_le_bytes(x.try_into().unwrap())).collect()
    }
}

fn assert_same(found: &[f32], expected: &[f32], name: &str) {
    assert_eq!(found.len(), expected.len(), "{name}");
    for (i, (found, expected)) in found.iter().zip(expected).enumerate() {
        assert!(found == expected, "{name}, value {i}: {found} is not {expected}");
    }
}

#[test]
fn every_ggml_format_of_the_oracle_decodes_to_its_values() {
    let vectors = Vectors::load();
    let description: BTreeMap<String, Value> = serde_json::from_str(DESCRIPTION).unwrap();
    let mut checked = 0;
    for (name, about) in &description {
        let Some(id) = about.get("ggml_type").and_then(Value::as_u64) else { continue };
        let format = Format::from_ggml(id as u32).unwrap();
        let layout = Layout::of_ggml(id as u32).unwrap();
        assert_eq!((format.name(), layout.name), (name.as_str(), name.as_str()));
        assert_eq!(about["block_elems"], format.block_elems());
        assert_eq!(about["block_bytes"], format.block_bytes());

        let expected = vectors.floats(&format!("{name}/f32"));
        let mut values = vec![0.0; expected.len()];
        decode_row(format, vectors.bytes(&format!("{name}/raw")), &mut values).unwrap();
        assert_same(&values, &expected, name);
        checked += 1;
    }
    assert_eq!(checked, 8);
}

#[test]
fn checkpoint_matrices_decode_to_their_values() {
    let vectors = Vectors::load();
    check_matrix(&vectors, "FP8_E4M3_128", 128, decode_fp8_row);
    check_matrix(&vectors, "FP4_E2M1_32", 1, decode_fp4_row);
}

type DecodeRow = fn(&[u8], &[u8], &mut [f32]) -> Result<(), QuantError>;

fn check_matrix(vectors: &Vectors, name: &str, rows_per_scale: usize, decode: DecodeRow) {
    let (weight, scale) = (format!("{name}/weight"), format!("{name}/scale"));
    let expected = vectors.floats(&format!("{name}/f32"));
    let cols = vectors.cols(&format!("{name}/f32"));
    let scales: Vec<&[u8]> = vectors.bytes(&scale).chunks(vectors.cols(&scale)).collect();
    let mut values = vec![0.0; expected.len()];
    let rows = values.chunks_mut(cols).zip(vectors.bytes(&weight).chunks(vectors.cols(&weight)));
    for (r, (out, codes)) in rows.enumerate() {
        decode(codes, scales[r / rows_per_scale], out).unwrap();
    }
    assert_same(&values, &expected, name);
}

#[test]
fn key_value_rows_round_to_their_values() {
    let vectors = Vectors::load();
    let mut values = vectors.floats("KV_FP8_ROWS/in");
    for row in values.chunks_mut(512) {
        fp8_round_trip(&mut row[..448]);
    }
    assert_same(&values, &vectors.floats("KV_FP8_ROWS/out"), "KV_FP8_ROWS");
}

#[test]
fn index_rows_round_to_their_values() {
    let vectors = Vectors::load();
    let expected = vectors.floats("IDX_FP4_ROWS/out");
    let mut single = vectors.floats("IDX_FP4_ROWS/in");
    let mut double: Vec<f64> = single.iter().map(|&x| x.into()).collect();
    for row in single.chunks_mut(128) {
        hadamard(row).unwrap();
        fp4_round_trip(row);
    }
    for row in double.chunks_mut(128) {
        hadamard(row).unwrap();
        fp4_round_trip(row);
    }
    let double: Vec<f32> = double.iter().map(|&x| x as f32).collect();
    assert_same(&single, &expected, "IDX_FP4_ROWS in single precision");
    assert_same(&double, &expected, "IDX_FP4_ROWS in double precision");
}
