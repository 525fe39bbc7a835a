//! Safetensors: what is written comes back, and every lie of a header or an index is refused by name.

mod scratch;

use std::{fs, path::Path};

use ds4_gguf::{Dtype, Error, Safetensors, SafetensorsWriter};
use ds4_host::Region;
use proptest::{collection::vec, prelude::*, sample::select};
use scratch::Scratch;

/// A file of this header and so many bytes of data.
fn file(header: &str, data_bytes: usize) -> Vec<u8> {
    let len = (header.len() as u64).to_le_bytes();
    [&len, header.as_bytes(), &vec![0; data_bytes]].concat()
}

fn read(bytes: Vec<u8>) -> Result<Safetensors, Error> {
    Safetensors::from_region(Region::from_vec(bytes), "bad.safetensors")
}

fn walk(model: &Safetensors) {
    for tensor in model.tensors() {
        assert_eq!(model.data(tensor).unwrap().len() as u64, tensor.bytes);
        assert_eq!(model.tensor(&tensor.name), Some(tensor));
    }
}

#[test]
fn refusals() {
    #[track_caller]
    fn check(bytes: Vec<u8>, expected: &str) {
        let message = read(bytes).unwrap_err().to_string();
        assert!(message.starts_with("bad.safetensors: "), "{message}");
        assert!(message.contains(expected), "{message}");
        assert!(!message.contains('\n'), "{message}");
    }
    #[track_caller]
    fn check_tensors(entries: &str, data_bytes: usize, expected: &str) {
        check(file(&format!("{{{entries}}}"), data_bytes), expected);
    }

    check(vec![], "the length of the header needs 8 bytes, but only 0 are left");
    check(vec![9; 7], "only 7 are left");
    check(vec![0xff; 64], "is 18446744073709551615, but the file has room for 56");
    check(file("", 0), "EOF while parsing");
    check(file("[]", 0), "expected an object of tensors");
    check(file("{} {}", 0), "trailing characters");
    check(file("{\"a", 0), "EOF while parsing a string");
    check(file(&format!("{{\"a\":{{\"x\":{}", "[".repeat(100_000)), 0), "EOF while parsing a list");
    check([&file("{\"a", 0)[..8], b"{\"\xff"].concat(), "line 1");
    check(file(r#"{"__metadata__":{"a":1}}"#, 0), "expected a string");
    check(file(r#"{"__metadata__":{"a":"1","a":"2"}}"#, 0), "key `a`: appears more than once");

    check_tensors(r#""a":{"shape":[1],"data_offsets":[0,4]}"#, 4, "missing field `dtype`");
    check_tensors(
        r#""a":{"dtype":"Q8","shape":[1],"data_offsets":[0,4]}"#,
        4,
        "tensor `a`: its type `Q8` is unknown",
    );
    check_tensors(
        r#""a":{"dtype":"F32","shape":[-1],"data_offsets":[0,4]}"#,
        4,
        "invalid value: integer `-1`",
    );
    check_tensors(
        r#""a":{"dtype":"F32","shape":[1,1,1,1,1,1,1,1,1],"data_offsets":[0,4]}"#,
        4,
        "more than 8 dimensions",
    );
    check_tensors(
        r#""a":{"dtype":"F32","shape":[4294967296,4294967296],"data_offsets":[0,4]}"#,
        4,
        "tensor `a`: no number of bytes holds F32",
    );
    check_tensors(
        r#""a":{"dtype":"F4","shape":[3],"data_offsets":[0,2]}"#,
        2,
        "tensor `a`: no number of bytes holds F4",
    );
    check_tensors(
        r#""a":{"dtype":"F32","shape":[2],"data_offsets":[0,4]}"#,
        4,
        "tensor `a`: its data_offsets are 0 and 4, but F32 [2] has 8 bytes",
    );
    check_tensors(
        r#""a":{"dtype":"U8","shape":[4],"data_offsets":[4,0]}"#,
        4,
        "tensor `a`: its data_offsets are 4 and 0",
    );
    check_tensors(
        r#""a":{"dtype":"U8","shape":[0],"data_offsets":[18446744073709551615,18446744073709551615]}"#,
        0,
        "tensor `a`: its data_offsets end at 18446744073709551615, beyond any file",
    );
    check_tensors(
        r#""a":{"dtype":"U8","shape":[4],"data_offsets":[0,4]}"#,
        3,
        "the tensors end at byte 65: the file is cut short",
    );
    check_tensors(
        r#""a":{"dtype":"U8","shape":[4],"data_offsets":[0,4]}"#,
        5,
        "at byte 65: the bytes up to 66 belong to no tensor",
    );
    check_tensors(
        r#""a":{"dtype":"U8","shape":[4],"data_offsets":[1,5]}"#,
        5,
        "at byte 61: the bytes up to 62 belong to no tensor",
    );
    let a = r#""a":{"dtype":"U8","shape":[4],"data_offsets":[0,4]}"#;
    let b = r#""b":{"dtype":"U8","shape":[4],"data_offsets":[3,7]}"#;
    check_tensors(&format!("{a},{b}"), 7, "tensor `b`: its bytes from 116 on belong to another");
    let again = r#""a":{"dtype":"U8","shape":[4],"data_offsets":[4,8]}"#;
    check_tensors(&format!("{a},{again}"), 8, "tensor `a`: appears more than once");
}

#[test]
fn an_empty_model_is_a_model() {
    let model = read(file("{}  ", 0)).unwrap();
    assert!(model.tensors().is_empty());
    let message = model.need_tensor("norm.weight").unwrap_err().to_string();
    assert_eq!(message, "bad.safetensors: tensor `norm.weight`: is missing");
}

/// Names with the values that the writer and the reader must agree on.
fn tensors() -> impl Strategy<Value = Vec<(String, Dtype, Vec<u64>)>> {
    let tensor = ("[a-z.\"\\\\▁]{1,12}", select(&Dtype::ALL[..]), vec(0u64..5, 0..4));
    let tensor = tensor.prop_map(|(name, dtype, mut shape)| {
        if dtype == Dtype::F4 {
            shape.push(2);
        }
        (name, dtype, shape)
    });
    vec(tensor, 0..8).prop_map(|mut tensors| {
        tensors.sort_by(|a, b| a.0.cmp(&b.0));
        tensors.dedup_by(|a, b| a.0 == b.0);
        tensors
    })
}

/// Data that differs from tensor to tensor.
fn filling(name: &str, bytes: u64) -> Vec<u8> {
    name.bytes().cycle().take(bytes as usize).collect()
}

fn written(tensors: &[(String, Dtype, Vec<u64>)]) -> Vec<u8> {
    let mut writer = SafetensorsWriter::new("made.safetensors");
    writer.metadata("format", "pt");
    for (name, dtype, shape) in tensors {
        writer.tensor(name, *dtype, shape).unwrap();
    }
    let mut stream = writer.begin(Vec::new()).unwrap();
    for (name, dtype, shape) in tensors {
        let bytes = shape.iter().product::<u64>() * dtype_bits(*dtype) / 8;
        stream.write(name, filling(name, bytes).chunks(3)).unwrap();
    }
    stream.finish().unwrap()
}

fn dtype_bits(dtype: Dtype) -> u64 {
    match dtype.name() {
        "F4" => 4,
        "BOOL" | "U8" | "I8" => 8,
        name if name.starts_with("F8") => 8,
        name => name[name.find(char::is_numeric).unwrap()..].parse().unwrap(),
    }
}

proptest! {
    #[test]
    fn what_is_written_is_read(tensors in tensors()) {
        let model = read(written(&tensors)).unwrap();
        walk(&model);
        prop_assert_eq!(model.metadata(), &[("format".to_owned(), "pt".to_owned())]);
        prop_assert_eq!(model.tensors().len(), tensors.len());
        for (name, dtype, shape) in &tensors {
            let found = model.need_tensor(name).unwrap();
            prop_assert_eq!((found.dtype, &found.shape), (*dtype, shape));
            prop_assert_eq!(&*model.data(found).unwrap(), filling(name, found.bytes));
        }
    }

    #[test]
    fn damage_never_panics(
        tensors in tensors(),
        edits in vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
        keep in any::<prop::sample::Index>(),
    ) {
        let mut bytes = written(&tensors);
        for (at, byte) in edits {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        if let Ok(model) = read(bytes.clone()) {
            walk(&model);
        }
        bytes.truncate(keep.index(bytes.len()));
        if let Ok(model) = read(bytes) {
            walk(&model);
        }
    }
}

const INDEX: &str = "model.safetensors.index.json";

fn write_index(folder: &Scratch, weight_map: &str) {
    let text = format!(r#"{{"metadata":{{"total_size":8}},"weight_map":{{{weight_map}}}}}"#);
    fs::write(folder.path(INDEX), text).unwrap();
}

fn write_shard(folder: &Scratch, file: &str, tensor: &str) {
    let bytes = written(&[(tensor.to_owned(), Dtype::F32, vec![1])]);
    fs::write(folder.path(file), bytes).unwrap();
}

#[test]
fn shards_are_one_model() {
    let folder = Scratch::new("shards");
    write_shard(&folder, "1.safetensors", "a");
    write_shard(&folder, "2.safetensors", "b");
    write_index(&folder, r#""b":"2.safetensors","a":"1.safetensors""#);

    for path in [folder.path(""), folder.path(INDEX)] {
        let model = Safetensors::open(&path).unwrap();
        walk(&model);
        let names: Vec<&str> = model.tensors().iter().map(|tensor| &*tensor.name).collect();
        assert_eq!(names, ["b", "a"]);
        assert_eq!(&*model.data(model.need_tensor("a").unwrap()).unwrap(), b"aaaa");
        assert_eq!(model.files().count(), 2);
    }
}

#[test]
fn a_folder_may_hold_a_single_file() {
    let folder = Scratch::new("single");
    let message = Safetensors::open(&folder.path("")).unwrap_err().to_string();
    assert!(message.contains("has no model.safetensors.index.json and no model.safetensors"));
    write_shard(&folder, "model.safetensors", "a");
    assert_eq!(Safetensors::open(&folder.path("")).unwrap().tensors().len(), 1);
}

#[test]
fn lying_indexes_are_refused() {
    let folder = Scratch::new("index");
    write_shard(&folder, "1.safetensors", "a");
    fs::create_dir(folder.path("sub")).unwrap();
    let check = |weight_map: &str, expected: &str| {
        write_index(&folder, weight_map);
        let message = Safetensors::open(&folder.path(INDEX)).unwrap_err().to_string();
        assert!(message.contains(expected), "{message}");
        assert!(!message.contains('\n'), "{message}");
    };

    check(r#""b":"1.safetensors""#, "tensor `b`: is not in 1.safetensors, where the index has it");
    check(r#""b":"2.safetensors""#, "2.safetensors, which is missing");
    check(r#""a":"1.safetensors","a":"1.safetensors""#, "tensor `a`: appears more than once");
    check(r#""a":1"#, "the index: invalid type: integer `1`, expected a string");
    check(r#""a":"sub""#, "not a regular file");
    for elsewhere in
        ["../1.safetensors", "..", ".", "", "/etc/passwd", "sub/1", "c:1", r"..\\1", r"a\u0000"]
    {
        check(&format!(r#""a":"{elsewhere}""#), "is not the name of a file beside it");
    }
}

#[test]
fn the_writer_refuses_what_it_cannot_write() {
    #[track_caller]
    fn check(result: Result<(), Error>, expected: &str) {
        let message = result.unwrap_err().to_string();
        assert!(message.contains(expected), "{message}");
    }
    let mut writer = SafetensorsWriter::new("made.safetensors");
    check(writer.tensor("a", Dtype::F4, &[1]), "tensor `a`: its shape");
    check(writer.tensor("__metadata__", Dtype::U8, &[1]), "keeps for its metadata");
    writer.tensor("a", Dtype::U8, &[2]).unwrap();
    writer.tensor("a", Dtype::U8, &[2]).unwrap();
    check(writer.begin(Vec::new()).map(drop), "tensor `a`: is announced twice");
}

/// The reference checkpoint, where it lies beside this repository.
#[test]
fn the_reference_checkpoint_opens() {
    let oracle = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/oracle/dev");
    let Ok(entries) = fs::read_dir(&oracle) else { return };
    for entry in entries {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "safetensors") {
            walk(&Safetensors::open(&path).unwrap());
        }
    }
    let model = Safetensors::open(&oracle.join("kquant_a-hf")).unwrap();
    walk(&model);
    assert_eq!(model.files().count(), 2);
    assert_eq!(model.need_tensor("embed.weight").unwrap().shape, [320, 256]);
    let scale = model.need_tensor("layers.0.attn.wq_a.scale").unwrap();
    assert_eq!(scale.dtype, Dtype::F8E8m0);
}
