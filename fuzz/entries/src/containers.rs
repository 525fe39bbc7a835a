//! Model files as containers: whatever is taken can be walked, and written again as it was read.

use ds4_gguf::{Dtype, Gguf, GgufWriter, Safetensors, SafetensorsWriter, Value};
use ds4_host::Region;

use crate::refusal::accepted;

const F16: u32 = 1;
const Q8_0: u32 = 8;
/// A file may ask for boundaries of 16 MiB, which would only be padding here.
const LARGEST_ALIGNMENT: u64 = 4096;

pub fn gguf(data: &[u8]) -> bool {
    let Some(gguf) = accepted(Gguf::from_region(Region::from_vec(data.to_vec()), "fuzz.gguf"))
    else {
        return false;
    };
    for (key, value) in gguf.meta().iter() {
        walk(value);
        accepted(gguf.meta().get_u64(key));
        accepted(gguf.meta().get_f64(key));
        accepted(gguf.meta().get_bool(key));
        accepted(gguf.meta().get_str(key));
        accepted(gguf.meta().get_array(key));
    }
    for tensor in gguf.tensors() {
        assert!(tensor.bytes.is_none() || tensor.elements() < u64::MAX);
        let bytes = accepted(gguf.data(tensor)).map(|data| data.len() as u64);
        assert_eq!(bytes, tensor.bytes, "{}", tensor.name);
    }
    if let Some(written) = rewritten(&gguf) {
        let again = Gguf::from_region(Region::from_vec(written.clone()), "again.gguf");
        let again = again.expect("a reader of what was written");
        assert!(rewritten(&again).as_ref() == Some(&written), "reads back as something else");
    }
    true
}

/// The same model by our writer; `None` if it holds what a writer does not write.
fn rewritten(gguf: &Gguf) -> Option<Vec<u8>> {
    let alignment = gguf.meta().get_u64("general.alignment").ok()?.unwrap_or(0);
    if alignment > LARGEST_ALIGNMENT || gguf.tensors().iter().any(|tensor| tensor.bytes.is_none()) {
        return None;
    }
    let mut writer = GgufWriter::new("again.gguf");
    for (key, value) in gguf.meta().iter() {
        writer.put_value(key, value);
    }
    for tensor in gguf.tensors() {
        let announced = writer.tensor(&tensor.name, &tensor.dims, tensor.type_id);
        announced.expect("a tensor that was read");
    }
    let mut stream = writer.begin(Vec::new()).expect("a directory that was read");
    for tensor in gguf.tensors() {
        let data = gguf.data(tensor).expect("checked above");
        stream.write(&tensor.name, [&*data]).expect("as many bytes as announced");
    }
    Some(stream.finish().expect("all tensors"))
}

fn walk(value: Value) {
    if let Value::Array(array) = value {
        let mut found = 0;
        for element in array.values() {
            walk(element.expect("checked when the file was opened"));
            found += 1;
        }
        assert_eq!(found, array.len());
        let _ = array.strs().try_for_each(|element| accepted(element).map(drop).ok_or(()));
        let _ = array.u64s().try_for_each(|element| accepted(element).map(drop).ok_or(()));
        let _ = array.f64s().try_for_each(|element| accepted(element).map(drop).ok_or(()));
    }
}

pub fn gguf_seeds() -> Vec<Vec<u8>> {
    let mut every_value = GgufWriter::new("seed");
    every_value.put("general.architecture", "deepseek4");
    every_value.put("general.alignment", 64u32);
    every_value.put("u8", 1u8);
    every_value.put("i8", -1i8);
    every_value.put("u16", 2u16);
    every_value.put("i16", -2i16);
    every_value.put("i32", -3i32);
    every_value.put("f32", 0.5f32);
    every_value.put("bool", true);
    every_value.put("u64", 1u64 << 40);
    every_value.put("i64", -1i64 << 40);
    every_value.put("f64", 0.25f64);
    every_value.put_array("strings", ["a", "", "é"]);
    every_value.put_array("numbers", [1u16, 2, 3]);
    every_value.put_array("bools", [true, false]);

    let mut tensors = GgufWriter::new("seed");
    tensors.put("general.name", "two tensors");
    tensors.tensor("token_embd.weight", &[32, 2], Q8_0).expect("a tensor");
    tensors.tensor("output_norm.weight", &[3], F16).expect("a tensor");
    let mut stream = tensors.begin(Vec::new()).expect("a directory");
    stream.write("token_embd.weight", [[1; 68]]).expect("two rows");
    stream.write("output_norm.weight", [[2; 6]]).expect("three numbers");

    let every_value = every_value.begin(Vec::new()).and_then(|stream| stream.finish());
    vec![every_value.expect("a file"), stream.finish().expect("a file"), nested_arrays()]
}

/// Arrays of arrays, which our writer has no use for.
fn nested_arrays() -> Vec<u8> {
    const ARRAY: u32 = 9;
    const U8: u32 = 0;
    let mut file = b"GGUF".to_vec();
    file.extend(3u32.to_le_bytes());
    file.extend([0u64, 1, 1].map(u64::to_le_bytes).as_flattened());
    file.push(b'k');
    file.extend([ARRAY, ARRAY].map(u32::to_le_bytes).as_flattened());
    file.extend(2u64.to_le_bytes());
    for len in [1u64, 0] {
        file.extend(U8.to_le_bytes());
        file.extend(len.to_le_bytes());
        file.extend(vec![7; len as usize]);
    }
    file
}

pub fn safetensors(data: &[u8]) -> bool {
    let region = Region::from_vec(data.to_vec());
    let Some(file) = accepted(Safetensors::from_region(region, "fuzz.safetensors")) else {
        return false;
    };
    let mut writer = SafetensorsWriter::new("again.safetensors");
    for (key, value) in file.metadata() {
        writer.metadata(key, value);
    }
    for tensor in file.tensors() {
        let announced = writer.tensor(&tensor.name, tensor.dtype, &tensor.shape);
        announced.expect("a tensor that was read");
    }
    let mut stream = writer.begin(Vec::new()).expect("a header that was read");
    for tensor in file.tensors() {
        let data = file.data(tensor).expect("checked when the file was opened");
        assert_eq!(data.len() as u64, tensor.bytes);
        assert!(tensor.elements() < u64::MAX);
        stream.write(&tensor.name, [&*data]).expect("as many bytes as announced");
    }
    let written = stream.finish().expect("all tensors");

    let again = Safetensors::from_region(Region::from_vec(written), "again.safetensors");
    let again = again.expect("a reader of what was written");
    assert_eq!(again.metadata(), file.metadata());
    assert_eq!(again.tensors().len(), file.tensors().len());
    for (copy, tensor) in again.tensors().iter().zip(file.tensors()) {
        assert_eq!(
            (&copy.name, copy.dtype, &copy.shape),
            (&tensor.name, tensor.dtype, &tensor.shape)
        );
        let [copied, original] = [(&again, copy), (&file, tensor)].map(|(of, t)| of.data(t));
        assert!(copied.expect("its bytes")[..] == original.expect("its bytes")[..]);
    }
    true
}

pub fn safetensors_seeds() -> Vec<Vec<u8>> {
    let tensors: [(&str, Dtype, &[u64], usize); 4] = [
        ("embed.weight", Dtype::F8E4m3, &[2, 3], 6),
        ("embed.scale", Dtype::F8E8m0, &[1, 1], 1),
        ("norm.weight", Dtype::Bf16, &[2], 4),
        ("experts", Dtype::F4, &[4, 0], 0),
    ];
    let mut writer = SafetensorsWriter::new("seed");
    writer.metadata("format", "pt");
    for (name, dtype, shape, _) in tensors {
        writer.tensor(name, dtype, shape).expect("a tensor");
    }
    let mut stream = writer.begin(Vec::new()).expect("a header");
    for (name, .., bytes) in tensors {
        stream.write(name, [vec![3; bytes]]).expect("a tensor's bytes");
    }
    let empty = SafetensorsWriter::new("seed").begin(Vec::new()).and_then(|s| s.finish());
    vec![stream.finish().expect("a file"), empty.expect("a file")]
}
