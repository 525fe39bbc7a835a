//! Split models: any part opens the whole, and parts that do not belong together are refused.

mod scratch;

use std::{fs, path::PathBuf};

use ds4_gguf::{Gguf, GgufWriter, part_path};
use ds4_host::Region;
use scratch::Scratch;

const F32: u32 = 0;

/// What part `number` (from 1) of a model says.
struct Part {
    number: u16,
    count: u16,
    /// Of the whole model, where the part says so.
    total: Option<i32>,
    name: Option<&'static str>,
    tensors: &'static [&'static str],
}

impl Part {
    fn bytes(&self) -> Vec<u8> {
        let mut writer = GgufWriter::new("made.gguf");
        writer.put("split.no", self.number - 1);
        writer.put("split.count", self.count);
        if let Some(total) = self.total {
            writer.put("split.tensors.count", total);
        }
        if let Some(name) = self.name {
            writer.put("general.name", name);
        }
        for tensor in self.tensors {
            writer.tensor(tensor, &[1], F32).unwrap();
        }
        let mut stream = writer.begin(Vec::new()).unwrap();
        for tensor in self.tensors {
            stream.write(tensor, [[tensor.as_bytes()[0]; 4]]).unwrap();
        }
        stream.finish().unwrap()
    }

    /// Writes the part under the name that part `number` of `count` has.
    fn write_as(&self, folder: &Scratch, number: u64, count: u64) -> PathBuf {
        let path = folder.path(part_path("m", number, count));
        fs::write(&path, self.bytes()).unwrap();
        path
    }
}

const FIRST: Part = Part { number: 1, count: 3, total: Some(3), name: Some("m"), tensors: &["a"] };
const SECOND: Part = Part { number: 2, count: 3, total: Some(3), name: None, tensors: &["b"] };
const THIRD: Part = Part { number: 3, count: 3, total: Some(3), name: None, tensors: &["c"] };
/// One part of one is a whole model, whatever its name.
const ALONE: Part = Part { number: 1, count: 1, total: None, name: None, tensors: &["x"] };

#[test]
fn any_part_opens_the_whole() {
    let folder = Scratch::new("split");
    let parts = [
        FIRST.write_as(&folder, 1, 3),
        SECOND.write_as(&folder, 2, 3),
        THIRD.write_as(&folder, 3, 3),
    ];
    for given in &parts {
        let gguf = Gguf::open(given).unwrap();
        assert!(gguf.files().eq(&parts));
        assert_eq!(gguf.path(), parts[0]);
        assert_eq!(gguf.meta().need_str("general.name").unwrap(), "m");
        for (i, name) in ["a", "b", "c"].into_iter().enumerate() {
            let tensor = gguf.need_tensor(name).unwrap();
            assert_eq!(tensor.part, i);
            assert_eq!(&*gguf.data(tensor).unwrap(), &[name.as_bytes()[0]; 4]);
        }
    }
    let other = Gguf::from_region(Region::from_vec(ALONE.bytes()), "x.gguf").unwrap();
    let foreign = Gguf::open(&parts[0]).unwrap();
    let message = other.data(foreign.need_tensor("c").unwrap()).unwrap_err().to_string();
    assert_eq!(message, "x.gguf: tensor `c`: belongs to another model");
}

#[test]
fn parts_that_do_not_belong_together() {
    #[track_caller]
    fn check(test: &str, second: Option<Part>, third: Part, expected: &str) {
        let folder = Scratch::new(test);
        let given = FIRST.write_as(&folder, 1, 3);
        if let Some(second) = second {
            second.write_as(&folder, 2, 3);
        }
        third.write_as(&folder, 3, 3);
        let message = Gguf::open(&given).unwrap_err().to_string();
        assert!(message.contains(expected), "{message}");
        assert!(message.starts_with(folder.path("").to_str().unwrap()), "{message}");
    }
    check("missing", None, THIRD, "part 2 of 3 is missing: ");
    check(
        "swapped",
        Some(THIRD),
        SECOND,
        "m-00002-of-00003.gguf: is named as part 2 of 3, but its keys say part 3 of 3",
    );
    check("whole", Some(ALONE), THIRD, "but its keys say a whole model");
    check(
        "other-count",
        Some(Part { count: 4, ..SECOND }),
        THIRD,
        "is named as part 2 of 3, but its keys say part 2 of 4",
    );
    check(
        "other-name",
        Some(SECOND),
        Part { name: Some("n"), ..THIRD },
        "m-00003-of-00003.gguf: key `general.name`: differs from that of ",
    );
    check(
        "other-total",
        Some(Part { total: Some(4), ..SECOND }),
        THIRD,
        "m-00002-of-00003.gguf: key `split.tensors.count`: differs from that of ",
    );
    check(
        "too-few",
        Some(Part { tensors: &[], ..SECOND }),
        THIRD,
        "m-00001-of-00003.gguf: key `split.tensors.count`: is 3, but the 3 parts have 2",
    );
    check(
        "twice",
        Some(SECOND),
        Part { tensors: &["b"], ..THIRD },
        "m-00003-of-00003.gguf: tensor `b`: appears more than once",
    );
}

#[test]
fn parts_that_cannot_be_placed() {
    let folder = Scratch::new("unplaced");
    let misnamed = folder.path("model.gguf");
    fs::write(&misnamed, SECOND.bytes()).unwrap();
    let message = Gguf::open(&misnamed).unwrap_err().to_string();
    let expected = "is part 2 of 3, so its name must end with -00002-of-00003.gguf";
    assert_eq!(message, format!("{}: {expected}", misnamed.display()));

    let message = |part: Part| {
        Gguf::from_region(Region::from_vec(part.bytes()), "m.gguf").unwrap_err().to_string()
    };
    assert_eq!(message(SECOND), "m.gguf: is part 2 of 3, and the others cannot be looked for");
    assert_eq!(
        message(Part { number: 4, ..SECOND }),
        "m.gguf: key `split.no`: is 3, but there are only 3 parts, counted from 0"
    );
}
