//! GGUF: whatever is written comes back the same, and damage to it never panics.

mod walk;

use ds4_gguf::{Error, Gguf, GgufWriter, Value};
use ds4_host::Region;
use proptest::{collection::vec, prelude::*, sample::select};
use walk::walk;

const F32: u32 = 0;
const Q8_0: u32 = 8;
const Q6_K: u32 = 14;
const BF16: u32 = 30;

fn read(bytes: Vec<u8>) -> Result<Gguf, Error> {
    Gguf::from_region(Region::from_vec(bytes), "made.gguf")
}

/// Values of every type, as the writer takes them.
#[derive(Clone, Debug)]
enum Written {
    U8(u8),
    I16(i16),
    I64(i64),
    F32(f32),
    F64(f64),
    Bool(bool),
    Str(String),
    U32s(Vec<u32>),
    Bools(Vec<bool>),
    Strs(Vec<String>),
}

impl Written {
    fn any() -> impl Strategy<Value = Written> {
        prop_oneof![
            any::<u8>().prop_map(Written::U8),
            any::<i16>().prop_map(Written::I16),
            any::<i64>().prop_map(Written::I64),
            any::<f32>().prop_map(Written::F32),
            any::<f64>().prop_map(Written::F64),
            any::<bool>().prop_map(Written::Bool),
            ".{0,9}".prop_map(Written::Str),
            vec(any::<u32>(), 0..5).prop_map(Written::U32s),
            vec(any::<bool>(), 0..5).prop_map(Written::Bools),
            vec(".{0,5}", 0..5).prop_map(Written::Strs),
        ]
    }

    fn put(&self, key: &str, writer: &mut GgufWriter) {
        match self {
            Written::U8(v) => writer.put(key, *v),
            Written::I16(v) => writer.put(key, *v),
            Written::I64(v) => writer.put(key, *v),
            Written::F32(v) => writer.put(key, *v),
            Written::F64(v) => writer.put(key, *v),
            Written::Bool(v) => writer.put(key, *v),
            Written::Str(v) => writer.put(key, &**v),
            Written::U32s(v) => writer.put_array(key, v.iter().copied()),
            Written::Bools(v) => writer.put_array(key, v.iter().copied()),
            Written::Strs(v) => writer.put_array(key, v.iter().map(String::as_str)),
        }
    }

    fn is(&self, value: Value) -> bool {
        match (self, value) {
            (Written::U8(v), Value::U8(found)) => *v == found,
            (Written::I16(v), Value::I16(found)) => *v == found,
            (Written::I64(v), Value::I64(found)) => *v == found,
            (Written::F32(v), Value::F32(found)) => *v == found,
            (Written::F64(v), Value::F64(found)) => *v == found,
            (Written::Bool(v), Value::Bool(found)) => *v == found,
            (Written::Str(v), Value::Str(found)) => v.as_bytes() == found,
            (Written::U32s(v), Value::Array(found)) => {
                found.u64s().map(Result::unwrap).eq(v.iter().map(|&v| u64::from(v)))
            }
            (Written::Bools(v), Value::Array(found)) => {
                found.values().map(Result::unwrap).eq(v.iter().map(|&v| Value::Bool(v)))
            }
            (Written::Strs(v), Value::Array(found)) => found.strs().map(Result::unwrap).eq(v),
            _ => false,
        }
    }
}

#[derive(Clone, Debug)]
struct Model {
    alignment: Option<u32>,
    keys: Vec<(String, Written)>,
    /// Name, blocks in a row, other extents, type.
    tensors: Vec<(String, Vec<u64>, u32)>,
}

impl Model {
    fn any() -> impl Strategy<Value = Model> {
        let tensor = ("[a-z.0-9]{1,9}", vec(0u64..4, 1..=4), select(&[F32, Q8_0, Q6_K, BF16][..]));
        let tensor = tensor.prop_map(|(name, mut dims, type_id)| {
            dims[0] *= ds4_quant::Layout::of_ggml(type_id).unwrap().block_elems as u64;
            (name, dims, type_id)
        });
        let alignment = prop::option::of(select(&[8u32, 32, 64, 4096][..]));
        let keys = vec(("[a-z.▁]{1,9}", Written::any()), 0..9);
        (alignment, keys, vec(tensor, 0..9)).prop_map(|(alignment, mut keys, mut tensors)| {
            keys.sort_by(|a, b| a.0.cmp(&b.0));
            keys.dedup_by(|a, b| a.0 == b.0);
            tensors.sort_by(|a, b| a.0.cmp(&b.0));
            tensors.dedup_by(|a, b| a.0 == b.0);
            Model { alignment, keys, tensors }
        })
    }

    fn written(&self) -> Vec<u8> {
        let mut writer = GgufWriter::new("made.gguf");
        for (key, value) in &self.keys {
            value.put(key, &mut writer);
        }
        for (name, dims, type_id) in &self.tensors {
            writer.tensor(name, dims, *type_id).unwrap();
        }
        if let Some(alignment) = self.alignment {
            writer.put("general.alignment", alignment);
        }
        let mut stream = writer.begin(Vec::new()).unwrap();
        let file_bytes = stream.file_bytes();
        for (name, dims, type_id) in &self.tensors {
            assert_eq!(stream.next_tensor(), Some(&**name));
            stream.write(name, filling(name, dims, *type_id).chunks(7)).unwrap();
        }
        let file = stream.finish().unwrap();
        assert_eq!(file.len() as u64, file_bytes);
        file
    }
}

/// Data that differs from tensor to tensor.
fn filling(name: &str, dims: &[u64], type_id: u32) -> Vec<u8> {
    let layout = ds4_quant::Layout::of_ggml(type_id).unwrap();
    let elements = dims.iter().product::<u64>() as usize;
    let bytes = elements / layout.block_elems * layout.block_bytes;
    name.bytes().cycle().take(bytes).collect()
}

proptest! {
    #[test]
    fn what_is_written_is_read(model in Model::any()) {
        let gguf = read(model.written()).unwrap();
        walk(&gguf);
        let keys = model.keys.len() + usize::from(model.alignment.is_some());
        prop_assert_eq!(gguf.meta().len(), keys);
        for ((key, value), (found_key, found)) in model.keys.iter().zip(gguf.meta().iter()) {
            prop_assert_eq!(key, found_key);
            prop_assert!(value.is(found), "{value:?} came back as {found:?}");
        }
        prop_assert_eq!(gguf.tensors().len(), model.tensors.len());
        for ((name, dims, type_id), found) in model.tensors.iter().zip(gguf.tensors()) {
            prop_assert_eq!((&found.name, &found.dims, found.type_id), (name, dims, *type_id));
            prop_assert!(found.offset.is_multiple_of(model.alignment.unwrap_or(32).into()));
            prop_assert_eq!(&*gguf.data(found).unwrap(), filling(name, dims, *type_id));
        }
    }

    #[test]
    fn damage_never_panics(
        model in Model::any(),
        edits in vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
        keep in any::<prop::sample::Index>(),
    ) {
        let mut bytes = model.written();
        for (at, byte) in edits {
            // The directory is at the front, and is what can be damaged.
            let at = at.index(bytes.len().min(512));
            bytes[at] = byte;
        }
        if let Ok(gguf) = read(bytes.clone()) {
            walk(&gguf);
        }
        bytes.truncate(keep.index(bytes.len()));
        if let Ok(gguf) = read(bytes) {
            walk(&gguf);
        }
    }
}
