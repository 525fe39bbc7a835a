//! GGUF: every way in which a file can lie is refused by name; so is what could not be read back.

mod walk;

use std::{fs, path::Path};

use ds4_gguf::{Array, Error, Gguf, GgufWriter, Value};
use ds4_host::Region;
use walk::walk;

const F32: u32 = 0;
const Q8_0: u32 = 8;
const NO_SUCH_TYPE: u32 = 4242;

// Value types, by their numbers in the file.
const U8: u32 = 0;
const I8: u32 = 1;
const U16: u32 = 2;
const U32: u32 = 4;
const I32: u32 = 5;
const F32_VALUE: u32 = 6;
const BOOL: u32 = 7;
const STR: u32 = 8;
const ARRAY: u32 = 9;
const U64: u32 = 10;

/// A file put together by hand, field by field.
#[derive(Clone, Default)]
struct Made(Vec<u8>);

impl Made {
    /// Version 3, with so many tensors and keys to come.
    fn with(tensors: u64, keys: u64) -> Made {
        Made::default().bytes(b"GGUF").u32(3).u64(tensors).u64(keys)
    }

    fn bytes(mut self, bytes: &[u8]) -> Made {
        self.0.extend(bytes);
        self
    }

    fn u32(self, value: u32) -> Made {
        self.bytes(&value.to_le_bytes())
    }

    fn u64(self, value: u64) -> Made {
        self.bytes(&value.to_le_bytes())
    }

    fn text(self, text: &str) -> Made {
        self.u64(text.len() as u64).bytes(text.as_bytes())
    }

    fn key(self, key: &str, value_type: u32) -> Made {
        self.text(key).u32(value_type)
    }

    fn array(self, key: &str, element_type: u32, len: u64) -> Made {
        self.key(key, ARRAY).u32(element_type).u64(len)
    }

    fn tensor(self, name: &str, dims: &[u64], type_id: u32, offset: u64) -> Made {
        let made = self.text(name).u32(dims.len() as u32);
        dims.iter().fold(made, |made, &extent| made.u64(extent)).u32(type_id).u64(offset)
    }

    /// Up to the boundary where data begins, then so many bytes of it.
    fn data(mut self, bytes: usize) -> Made {
        self.0.resize(self.0.len().next_multiple_of(32) + bytes, 0);
        self
    }

    fn read(self) -> Result<Gguf, Error> {
        Gguf::from_region(Region::from_vec(self.0), "bad.gguf")
    }

    /// Is refused, in one line that names the file and says this.
    #[track_caller]
    fn refused(self, expected: &str) {
        let message = self.read().unwrap_err().to_string();
        assert!(message.starts_with("bad.gguf: "), "{message}");
        assert!(message.contains(expected), "{message}");
        assert!(!message.contains('\n'), "{message}");
    }
}

#[test]
fn headers_that_are_refused() {
    Made::default().refused("at byte 0: the magic number needs 4 bytes, but only 0 are left");
    Made::default().bytes(b"GGU").refused("the magic number needs 4 bytes, but only 3 are left");
    Made::default()
        .bytes(b"PK\x03\x04rest")
        .refused(r#"at byte 0: not a GGUF file: it begins with "PK\x03\x04""#);
    Made::default().bytes(b"GGUF").u32(1).refused("at byte 4: GGUF version 1; 2 and 3 can be read");
    Made::default().bytes(b"GGUF").u32(4).refused("GGUF version 4");
    Made::default().bytes(b"GGUF\0\0\0\x03").refused("at byte 4: a big-endian GGUF file");
    Made::default()
        .bytes(b"GGUF")
        .u32(3)
        .u32(1)
        .refused("at byte 8: the number of tensors needs 8");
    Made::with(u64::MAX, 0).refused("at byte 8: the number of tensors is 18446744073709551615");
    Made::with(0, u64::MAX).refused("at byte 16: the number of keys is 18446744073709551615");
    Made::with(0, 2).bytes(&[0; 27]).refused("number of keys is 2, but the file has room for 1");
    Made::with(2, 0).bytes(&[0; 50]).refused("tensors is 2, but the file has room for 1");
}

#[test]
fn metadata_that_is_refused() {
    let one = || Made::with(0, 1);
    one().u64(0).bytes(&[0; 20]).refused("at byte 24: key 0 is empty");
    one().u64(1 << 40).bytes(&[0; 20]).refused("at byte 32: key 0 needs 1099511627776 bytes");
    one()
        .u64(u64::MAX)
        .bytes(&[0; 20])
        .refused("key 0 needs 18446744073709551615 bytes, but only 20");
    one().u64(2).bytes(b"a\xff").bytes(&[0; 20]).refused("at byte 33: key 0 is not UTF-8");
    one().key("a.key", 13).u64(0).refused("the type of key 0 is 13, not a type");
    one().key("a.key", U64).u32(0).refused("the u64 of key `a.key` needs 8 bytes, but only 4");
    one().key("a.key", BOOL).bytes(&[2]).refused("the bool of key `a.key` is 2, not 0 or 1");
    one().key("a.key", STR).u64(9).refused("the string of key `a.key` needs 9 bytes");
    one().array("a.key", 99, 0).refused("element type of the array of key `a.key` is 99");
    one().array("a.key", U32, 3).u64(0).refused("the length of the array of key `a.key` is 3");
    one().array("a.key", U64, u64::MAX).refused("is 18446744073709551615");
    one()
        .array("a.key", STR, 2)
        .text("x")
        .bytes(&[0; 7])
        .refused("the string of key `a.key` needs");
    one().array("a.key", BOOL, 2).bytes(&[1, 7]).refused("the bool of key `a.key` is 7");
    let nested = |levels: u64| {
        let outer = one().array("a.key", ARRAY, 1);
        (2..levels).fold(outer, |made, _| made.u32(ARRAY).u64(1)).u32(U8).u64(0)
    };
    nested(4).read().unwrap();
    nested(5).refused("the array of key `a.key` is nested deeper than 4 arrays");
    Made::with(0, 2)
        .key("a.key", U8)
        .bytes(&[1])
        .key("a.key", U32)
        .u32(1)
        .refused("key `a.key`: appears more than once");
    one().key("a\x1b[2J\nb", BOOL).bytes(&[2]).refused(r"key `a\u{1b}[2J\nb` is 2");
    for alignment in [0, 4, 24, 33, 1 << 25] {
        one().key("general.alignment", U32).u32(alignment).refused(&format!(
            "key `general.alignment`: must be a power of two from 8 to 16777216, but is {alignment}"
        ));
    }
    one()
        .key("general.alignment", STR)
        .text("32")
        .refused("key `general.alignment`: must be a non-negative integer, but is a string");
}

#[test]
fn tensors_that_are_refused() {
    let one = || Made::with(1, 0);
    one().u64(0).bytes(&[0; 40]).refused("at byte 24: the name of tensor 0 is empty");
    one().u64(2).bytes(b"a\xff").bytes(&[0; 40]).refused("the name of tensor 0 is not UTF-8");
    one().text("a").u32(0).bytes(&[0; 40]).refused("tensor `a`: has 0 dimensions; 1 to 8 are");
    one().text("a").u32(9).bytes(&[0; 40]).refused("tensor `a`: has 9 dimensions");
    one().text("a").u32(u32::MAX).bytes(&[0; 40]).refused("tensor `a`: has 4294967295 dimensions");
    one().text("a").u32(8).bytes(&[0; 40]).refused("the description of tensor `a` needs 8 bytes");
    one()
        .tensor("a", &[1 << 32, 1 << 32], F32, 0)
        .refused("tensor `a`: extents [4294967296, 4294967296]");
    one().tensor("a", &[1 << 62], F32, 0).refused("tensor `a`: extents [4611686018427387904]");
    one().tensor("a", &[1 << 32, 1 << 32], NO_SUCH_TYPE, 0).refused("tensor `a`: extents");
    one()
        .tensor("a", &[33], Q8_0, 0)
        .data(64)
        .refused("tensor `a`: rows of 33 values do not divide into Q8_0 blocks of 32");
    one()
        .tensor("a", &[4], F32, 8)
        .data(64)
        .refused("tensor `a`: its offset 8 is not a multiple of 32");
    one()
        .tensor("a", &[4], F32, 32)
        .data(47)
        .refused("tensor `a`: its 16 bytes at offset 32 of the data end after the file");
    one().tensor("a", &[4], F32, 0).refused("tensor `a`: its 16 bytes at offset 0");
    one()
        .tensor("a", &[4], F32, !31)
        .data(64)
        .refused("offset 18446744073709551584 of the data end after");
    one()
        .tensor("a", &[4], NO_SUCH_TYPE, 64)
        .data(32)
        .refused("tensor `a`: its 0 bytes at offset 64");

    let two = |a: u64, b: u64| {
        Made::with(2, 0).tensor("a", &[9], F32, a).tensor("b", &[4], F32, b).data(96)
    };
    two(0, 32).refused("tensor `b`: its bytes at 128 belong to tensor `a` too");
    two(0, 0).refused("tensor `a`: its bytes at 96 belong to tensor `b` too");
    two(32, 0).read().unwrap();
    let twice = Made::with(2, 0).tensor("a", &[1], F32, 0).tensor("a", &[1], F32, 32);
    twice.data(64).refused("tensor `a`: appears more than once");
}

#[test]
fn odd_files_that_are_fine() {
    Made::with(0, 0).read().unwrap();
    let mut older = Made::with(1, 0).tensor("a", &[4], F32, 0).data(16);
    older.0[4] = 2;
    let older = older.read().unwrap();
    assert_eq!((older.version(), older.tensors().len()), (2, 1));

    let empty = Made::with(2, 0).tensor("a", &[0, 7], F32, 0).tensor("b", &[1], F32, 0).data(4);
    walk(&empty.read().unwrap());

    // A type of the future hides its size, and nothing else of the file.
    let unknown = Made::with(2, 0).tensor("a", &[3], NO_SUCH_TYPE, 0).tensor("b", &[1], F32, 32);
    let unknown = unknown.data(36).read().unwrap();
    walk(&unknown);
    let message = unknown.data(&unknown.tensors()[0]).unwrap_err().to_string();
    assert_eq!(message, "bad.gguf: tensor `a`: its type 4242 is unknown, and so is its size");
}

#[test]
fn nested_arrays_are_walked_and_carried_over() {
    let nested = Made::with(0, 1).array("k", ARRAY, 2);
    let nested = nested.u32(U8).u64(2).bytes(&[5, 6]).u32(STR).u64(1).text("x").read().unwrap();
    walk(&nested);

    let mut writer = GgufWriter::new("copy.gguf");
    writer.put_value("k", nested.meta().get("k").unwrap());
    let copy = writer.begin(Vec::new()).unwrap().finish().unwrap();
    let copy = Gguf::from_region(Region::from_vec(copy), "copy.gguf").unwrap();
    assert_eq!(copy.meta().get("k"), nested.meta().get("k"));
    let inner: Vec<Value> = copy.meta().need_array("k").unwrap().values().flatten().collect();
    let [Value::Array(numbers), Value::Array(texts)] = inner[..] else { panic!("{inner:?}") };
    assert_eq!(numbers.u64s().collect::<Result<Vec<_>, _>>().unwrap(), [5, 6]);
    assert_eq!(texts.strs().collect::<Result<Vec<_>, _>>().unwrap(), ["x"]);
}

#[test]
fn getters_say_what_they_need() {
    let gguf = Made::with(0, 6)
        .key("small", I8)
        .bytes(&[7])
        .key("negative", I32)
        .u32(-5i32 as u32)
        .key("rate", F32_VALUE)
        .u32(1.5f32.to_bits())
        .key("latin", STR)
        .u64(3)
        .bytes(b"ol\xe9")
        .array("ratios", U16, 2)
        .bytes(&[4, 0, 128, 0])
        .array("texts", STR, 2)
        .text("ok")
        .u64(1)
        .bytes(b"\xff")
        .read()
        .unwrap();
    let meta = gguf.meta();

    assert_eq!(meta.need_u64("small").unwrap(), 7);
    assert_eq!(meta.need_f64("small").unwrap(), 7.0);
    assert_eq!(meta.need_f64("negative").unwrap(), -5.0);
    assert_eq!(meta.need_f64("rate").unwrap(), 1.5);
    assert_eq!(meta.get_u64("absent").unwrap(), None);
    let numbers = |array: Array| array.u64s().collect::<Result<Vec<u64>, Error>>();
    assert_eq!(numbers(meta.need_array("ratios").unwrap()).unwrap(), [4, 128]);
    let texts = meta.need_array("texts").unwrap();
    assert_eq!(texts.byte_strings().nth(1).unwrap().unwrap(), b"\xff");

    #[track_caller]
    fn check<T: std::fmt::Debug>(result: Result<T, Error>, expected: &str) {
        assert_eq!(result.unwrap_err().to_string(), format!("bad.gguf: key {expected}"));
    }
    check(meta.need_u64("absent"), "`absent`: is missing");
    check(meta.need_str("absent"), "`absent`: is missing");
    check(meta.get_u64("negative"), "`negative`: must be a non-negative integer, but is -5 (i32)");
    check(meta.get_u64("rate"), "`rate`: must be a non-negative integer, but is 1.5 (f32)");
    check(meta.get_f64("latin"), "`latin`: must be a number, but is a string");
    check(meta.get_bool("small"), "`small`: must be true or false, but is 7 (i8)");
    check(meta.get_str("ratios"), "`ratios`: must be a string, but is an array of 2 u16");
    check(meta.get_str("latin"), "`latin`: is not UTF-8 at byte 2 of the text");
    check(meta.get_array("small"), "`small`: must be an array, but is 7 (i8)");
    check(
        texts.strs().collect::<Result<Vec<_>, _>>(),
        "`texts`: element 1 must be a UTF-8 string, but is a string",
    );
    check(numbers(texts), "`texts`: element 0 must be a non-negative integer, but is a string");
}

#[test]
fn the_writer_refuses_what_cannot_be_read() {
    #[track_caller]
    fn check(fill: impl FnOnce(&mut GgufWriter) -> Result<(), Error>, expected: &str) {
        let mut writer = GgufWriter::new("made.gguf");
        let result = fill(&mut writer).and_then(|()| writer.begin(Vec::new()).map(drop));
        assert_eq!(result.unwrap_err().to_string(), format!("made.gguf: {expected}"));
    }
    check(|w| w.tensor("a", &[], F32), "tensor `a`: has 0 dimensions; 1 to 8 are possible");
    check(|w| w.tensor("a", &[1], NO_SUCH_TYPE), "tensor `a`: its type 4242 is unknown");
    check(
        |w| w.tensor("a", &[31], Q8_0),
        "tensor `a`: rows of 31 values do not divide into Q8_0 blocks of 32",
    );
    let twice = |w: &mut GgufWriter| w.tensor("a", &[1], F32).and(w.tensor("a", &[1], F32));
    check(twice, "tensor `a`: is announced twice");
    let put = |key: &'static str| {
        move |w: &mut GgufWriter| {
            w.put(key, 3u32);
            Ok(())
        }
    };
    check(put(""), "keys and tensors need names that are not empty");
    check(
        put("general.alignment"),
        "key `general.alignment`: must be a power of two from 8 to 16777216, but is 3",
    );
    check(|w| put("a")(w).and(put("a")(w)), "key `a`: is put twice");
    check(
        |w| w.tensor("a", &[1 << 61], F32).and(w.tensor("b", &[1 << 61], F32)),
        "tensor `b`: ends after the largest offset",
    );
}

#[test]
fn tensors_are_streamed_whole_and_in_turn() {
    #[track_caller]
    fn check(name: &str, bytes: usize, expected: &str) {
        let mut writer = GgufWriter::new("made.gguf");
        writer.tensor("a", &[4], F32).unwrap();
        let mut stream = writer.begin(Vec::new()).unwrap();
        let result = stream.write(name, [vec![0; bytes]]).and_then(|()| stream.write("a", [b""]));
        assert_eq!(result.unwrap_err().to_string(), format!("made.gguf: {expected}"));
    }
    check("a", 15, "tensor `a`: given 1 bytes fewer than its 16");
    check("a", 17, "tensor `a`: given more than its 16 bytes");
    check("b", 16, "tensor `b`: out of turn: `a` is next");
    check("a", 16, "tensor `a`: out of turn: no more is next");

    let mut writer = GgufWriter::new("made.gguf");
    writer.tensor("a", &[4], F32).unwrap();
    let message = writer.begin(Vec::new()).unwrap().finish().unwrap_err().to_string();
    assert_eq!(message, "made.gguf: tensor `a`: announced, but never written");
}

/// The reference models, where they lie beside this repository.
#[test]
fn the_reference_models_open() {
    let oracle = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/oracle/dev");
    let Ok(entries) = fs::read_dir(&oracle) else { return };
    let mut models = 0;
    for entry in entries {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "gguf") {
            let gguf = Gguf::open(&path).unwrap();
            walk(&gguf);
            assert_eq!(gguf.meta().need_str("general.architecture").unwrap(), "deepseek4");
            assert!(gguf.tensors().iter().all(|tensor| tensor.bytes.is_some()));
            models += 1;
        }
    }
    assert!(models > 0);
}
