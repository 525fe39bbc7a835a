//! JSON as the model was trained on it: what Python's `json` module reads and writes.
//!
//! Tool schemas, response formats and tool arguments reach the model as `json.dumps` text, so a
//! float, a key order or an escape that differs is a different prompt. The hosted API writes the
//! same layout with other numbers; that is the second [`Dialect`]. Nothing here knows what the
//! values are for.

use std::collections::HashMap;

mod parse;
mod repr;
mod write;

pub use parse::{JsonError, MAX_DEPTH};
pub use repr::python_str;
pub use write::push_escaped;

/// Whose number rules apply. Everything else (separators, escapes, key order) is the same in both.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dialect {
    /// Python's `json`: integers of any size, `NaN` and `Infinity` literals, `repr` floats
    /// (`1e-07`).
    Python,
    /// The hosted API's: integers beyond 64 bits become floats, no literals for non-numbers,
    /// `1e-7`.
    Hosted,
}

/// One JSON value. Object keys keep the order in which they were first seen.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// `null`
    Null,
    /// `true` or `false`
    Bool(bool),
    /// A number written without fraction or exponent, at its exact value.
    Int(Int),
    /// Any other number, and the non-numbers of the Python dialect.
    Float(f64),
    /// A string, unescaped.
    String(String),
    /// An array.
    Array(Vec<Value>),
    /// An object.
    Object(Object),
}

/// An integer of any size, kept as its canonical decimal digits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Int(Box<str>);

impl Int {
    /// The decimal digits, with a leading `-` for negative numbers.
    pub fn digits(&self) -> &str {
        &self.0
    }
}

impl From<i64> for Int {
    fn from(value: i64) -> Int {
        Int(value.to_string().into())
    }
}

/// The members of a JSON object in order.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Object(Vec<(String, Value)>);

impl Object {
    /// The value of `key`.
    pub fn get(&self, key: &str) -> Option<&Value> {
        self.0.iter().find(|(name, _)| name == key).map(|(_, value)| value)
    }

    /// Sets `key`: a new key goes last, a known one keeps its place.
    pub fn insert(&mut self, key: impl Into<String>, value: Value) {
        let key = key.into();
        match self.0.iter_mut().find(|(name, _)| *name == key) {
            Some((_, old)) => *old = value,
            None => self.0.push((key, value)),
        }
    }

    /// The members in order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Value)> {
        self.0.iter().map(|(key, value)| (key.as_str(), value))
    }

    /// How many members there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl<K: Into<String>> FromIterator<(K, Value)> for Object {
    fn from_iter<I: IntoIterator<Item = (K, Value)>>(members: I) -> Object {
        // A map beside the list: very many members must not take quadratic time.
        let mut places: HashMap<String, usize> = HashMap::new();
        let mut object = Object::default();
        for (key, value) in members {
            let key = key.into();
            match places.get(&key).and_then(|&place| object.0.get_mut(place)) {
                Some(member) => member.1 = value,
                None => {
                    places.insert(key.clone(), object.0.len());
                    object.0.push((key, value));
                }
            }
        }
        object
    }
}

impl Value {
    /// Reads one JSON document.
    pub fn parse(text: &str, dialect: Dialect) -> Result<Value, JsonError> {
        parse::document(text, dialect)
    }

    /// Writes the value on one line, `", "` between items and `": "` after keys.
    pub fn to_json(&self, dialect: Dialect) -> String {
        let mut out = String::new();
        write::push_value(self, dialect, &mut out);
        out
    }

    /// The member `key` of an object; `None` for other values too.
    pub fn get(&self, key: &str) -> Option<&Value> {
        self.as_object()?.get(key)
    }

    /// The text of a string.
    pub fn as_str(&self) -> Option<&str> {
        match self {
            Value::String(text) => Some(text),
            _ => None,
        }
    }

    /// The items of an array.
    pub fn as_array(&self) -> Option<&[Value]> {
        match self {
            Value::Array(items) => Some(items),
            _ => None,
        }
    }

    /// The members of an object.
    pub fn as_object(&self) -> Option<&Object> {
        match self {
            Value::Object(members) => Some(members),
            _ => None,
        }
    }

    /// `true` or `false`.
    pub fn as_bool(&self) -> Option<bool> {
        match self {
            Value::Bool(flag) => Some(*flag),
            _ => None,
        }
    }

    /// Whether Python's `if value:` takes the branch.
    pub fn is_truthy(&self) -> bool {
        match self {
            Value::Null => false,
            Value::Bool(flag) => *flag,
            Value::Int(int) => int.digits() != "0",
            Value::Float(float) => *float != 0.0,
            Value::String(text) => !text.is_empty(),
            Value::Array(items) => !items.is_empty(),
            Value::Object(members) => !members.is_empty(),
        }
    }
}

impl From<&str> for Value {
    fn from(text: &str) -> Value {
        Value::String(text.to_owned())
    }
}

impl From<String> for Value {
    fn from(text: String) -> Value {
        Value::String(text)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn check(dialect: Dialect, input: &str, output: &str) {
        let value = Value::parse(input, dialect).unwrap_or_else(|error| panic!("{input}: {error}"));
        assert_eq!(value.to_json(dialect), output, "{input}");
    }

    #[test]
    fn python_numbers_are_written_as_python_writes_them() {
        for (input, output) in [
            ("-0", "0"),
            ("-0.0", "-0.0"),
            ("1.50", "1.5"),
            ("1E+2", "100.0"),
            ("0.00001", "1e-05"),
            ("0.0001", "0.0001"),
            ("1e16", "1e+16"),
            ("9999999999999998.0", "9999999999999998.0"),
            ("123456789.123456789", "123456789.12345679"),
            ("12345678901234567890.0", "1.2345678901234567e+19"),
            ("996668955762063.25", "996668955762063.2"),
            ("-1685967414226466.25", "-1685967414226466.2"),
            ("0.00012", "0.00012"),
            ("5e-324", "5e-324"),
            ("1e-400", "0.0"),
            ("1e400", "Infinity"),
            ("-1e400", "-Infinity"),
            ("NaN", "NaN"),
            ("123456789012345678901234567890", "123456789012345678901234567890"),
        ] {
            check(Dialect::Python, input, output);
        }
    }

    #[test]
    fn hosted_numbers_are_bounded() {
        for (input, output) in [
            ("18446744073709551615", "18446744073709551615"),
            ("-9223372036854775808", "-9223372036854775808"),
            ("18446744073709551616", "1.8446744073709552e+19"),
            ("100000000000000000000000", "1e+23"),
            ("1e-7", "1e-7"),
            ("0.00001", "0.00001"),
            ("-0", "-0.0"),
            ("1e15", "1000000000000000.0"),
        ] {
            check(Dialect::Hosted, input, output);
        }
        for input in ["NaN", "-Infinity", "1e400"] {
            assert!(Value::parse(input, Dialect::Hosted).is_err(), "{input}");
        }
    }

    #[test]
    fn strings_escape_only_what_json_must() {
        check(
            Dialect::Python,
            r#""\u4f60\ud83d\ude00\n\t\"\\\/\b\f\r\u0001\u007f\u2028é""#,
            "\"你😀\\n\\t\\\"\\\\/\\b\\f\\r\\u0001\u{7f}\u{2028}é\"",
        );
    }

    #[test]
    fn a_repeated_key_keeps_its_place_and_takes_the_last_value() {
        check(Dialect::Python, r#"{"a":1,"b":2,"a":{}}"#, r#"{"a": {}, "b": 2}"#);
    }

    #[test]
    fn what_python_refuses_is_refused() {
        for input in [
            "",
            " ",
            "01",
            "1.",
            ".5",
            "-",
            "+1",
            "1e",
            "'a'",
            "[1,]",
            "{\"a\":1,}",
            "{1:2}",
            "[1 2]",
            "nul",
            "\"",
            "\"\\x\"",
            "\"\\u12\"",
            "\"\n\"",
            "\u{feff}{}",
            "{} x",
            "\"\\ud800\"",
            "\"\\ud800\\u0041\"",
            "[",
            "{\"a\"",
        ] {
            assert!(Value::parse(input, Dialect::Python).is_err(), "{input:?}");
        }
    }

    #[test]
    fn an_error_says_where() {
        let error = Value::parse("[1, x]", Dialect::Python).expect_err("x is no value");
        assert_eq!(error.to_string(), "invalid JSON at byte 4: expected a value");
    }

    #[test]
    fn depth_is_limited_and_the_limit_is_reachable() {
        for (dialect, limit) in [(Dialect::Python, MAX_DEPTH), (Dialect::Hosted, 127)] {
            let nested = |depth: usize| "[".repeat(depth) + &"]".repeat(depth);
            assert!(Value::parse(&nested(limit), dialect).is_ok());
            assert!(Value::parse(&nested(limit + 1), dialect).is_err());
            assert!(Value::parse(&"[".repeat(1_000_000), dialect).is_err());
        }
    }

    fn any_value() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::Bool),
            any::<i64>().prop_map(|int| Value::Int(int.into())),
            any::<f64>()
                .prop_filter("NaN equals nothing", |float| !float.is_nan())
                .prop_map(Value::Float),
            any::<String>().prop_map(Value::String),
        ];
        leaf.prop_recursive(6, 64, 6, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..6).prop_map(Value::Array),
                prop::collection::vec((any::<String>(), inner), 0..6)
                    .prop_map(|members| Value::Object(members.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn what_is_written_reads_back(value in any_value()) {
            let text = value.to_json(Dialect::Python);
            let again = Value::parse(&text, Dialect::Python).expect("own output parses");
            prop_assert_eq!(&again, &value);
            prop_assert_eq!(again.to_json(Dialect::Python), text);
        }

        #[test]
        fn any_text_is_answered_without_panic(text in any::<String>()) {
            let _ = Value::parse(&text, Dialect::Python);
            let _ = Value::parse(&text, Dialect::Hosted);
        }

        #[test]
        fn almost_json_is_answered_without_panic(text in r#"[\[\]{}",:\\ue0-9.+\-a-z \n]{0,40}"#) {
            if let Ok(value) = Value::parse(&text, Dialect::Python) {
                let written = value.to_json(Dialect::Python);
                prop_assert!(Value::parse(&written, Dialect::Python).is_ok());
            }
        }
    }
}
