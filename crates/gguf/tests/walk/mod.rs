//! Touches everything that a GGUF model holds, as a reader of a hostile file would.

use ds4_gguf::{Gguf, Value};

/// Touches everything that a model holds.
pub fn walk(gguf: &Gguf) {
    for (key, value) in gguf.meta().iter() {
        assert_eq!(gguf.meta().get(key).is_some_and(|found| found == value), !is_nan(&value));
        walk_value(value);
        let _ = gguf.meta().get_u64(key);
        let _ = gguf.meta().get_str(key).map(|text| text.map(str::len));
    }
    for tensor in gguf.tensors() {
        let data = gguf.data(tensor);
        assert_eq!(data.ok().map(|data| data.len() as u64), tensor.bytes);
        assert_eq!(gguf.tensor(&tensor.name), Some(tensor));
    }
}

fn is_nan(value: &Value) -> bool {
    value.as_f64().is_some_and(f64::is_nan)
}

fn walk_value(value: Value) {
    if let Value::Array(array) = value {
        assert_eq!(
            array.values().filter_map(Result::ok).map(walk_value).count() as u64,
            array.len()
        );
        let _ = array.strs().try_for_each(|text| text.map(drop));
    }
}
