//! Arrays of metadata values, walked where they lie in the file.
//!
//! A token table has 129 thousand strings: they are checked once when the file is opened, and
//! decoded again by whoever wants them, without a list of their places in between.

use crate::{Error, Value, ValueType, cursor::Cursor};

/// An array of metadata values that are all of one type.
#[derive(Clone, Copy, Debug)]
pub struct Array<'a> {
    elements: Cursor<'a>,
    key: &'a str,
    element_type: ValueType,
    len: u64,
}

impl<'a> Array<'a> {
    pub(crate) fn new(
        elements: Cursor<'a>,
        key: &'a str,
        element_type: ValueType,
        len: u64,
    ) -> Array<'a> {
        Array { elements, key, element_type, len }
    }

    /// The type that every element has.
    pub fn element_type(&self) -> ValueType {
        self.element_type
    }

    /// How many elements there are. The file has room for so many: the number may be trusted for
    /// an allocation.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The elements, in order.
    pub fn values(self) -> impl Iterator<Item = Result<Value<'a>, Error>> {
        let Array { elements: mut cursor, key, element_type, len } = self;
        (0..len).map(move |_| Value::read(&mut cursor, element_type, key))
    }

    /// The elements as integers of any width; one that is negative or no integer is an error.
    pub fn u64s(self) -> impl Iterator<Item = Result<u64, Error>> {
        self.typed("a non-negative integer", |value| value.as_u64())
    }

    /// The elements as numbers, whatever their type; one that is no number is an error.
    pub fn f64s(self) -> impl Iterator<Item = Result<f64, Error>> {
        self.typed("a number", |value| value.as_f64())
    }

    /// The elements as text; one that is no string or not UTF-8 is an error.
    pub fn strs(self) -> impl Iterator<Item = Result<&'a str, Error>> {
        self.typed("a UTF-8 string", |value| match value {
            Value::Str(bytes) => str::from_utf8(bytes).ok(),
            _ => None,
        })
    }

    /// The elements as strings of bytes; one that is no string is an error.
    pub fn byte_strings(self) -> impl Iterator<Item = Result<&'a [u8], Error>> {
        self.typed("a string", |value| match value {
            Value::Str(bytes) => Some(bytes),
            _ => None,
        })
    }

    fn typed<T>(
        self,
        wanted: &'static str,
        read: impl Fn(Value<'a>) -> Option<T>,
    ) -> impl Iterator<Item = Result<T, Error>> {
        let (file, key) = (self.elements.file(), self.key);
        self.values().enumerate().map(move |(i, value)| {
            let value = value?;
            read(value).ok_or_else(|| {
                Error::key(file, key, format!("element {i} must be {wanted}, but is {value}"))
            })
        })
    }

    /// The elements as the file holds them.
    pub(crate) fn encoded(&self) -> &'a [u8] {
        self.elements.rest()
    }
}

/// Equal when they would be written as the same bytes.
impl PartialEq for Array<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.element_type == other.element_type
            && self.len == other.len
            && self.encoded() == other.encoded()
    }
}

/// A Rust type that a metadata value or array element can be written from.
pub trait Element: Copy {
    /// The type that the file will name.
    const TYPE: ValueType;

    /// The value to write.
    fn value(&self) -> Value<'_>;
}

macro_rules! elements {
    ($($rust:ty => $variant:ident),*) => {
        $(impl Element for $rust {
            const TYPE: ValueType = ValueType::$variant;

            fn value(&self) -> Value<'_> {
                Value::$variant(*self)
            }
        })*
    };
}

elements!(
    u8 => U8, i8 => I8, u16 => U16, i16 => I16, u32 => U32, i32 => I32, f32 => F32,
    bool => Bool, u64 => U64, i64 => I64, f64 => F64
);

impl Element for &str {
    const TYPE: ValueType = ValueType::Str;

    fn value(&self) -> Value<'_> {
        Value::Str(self.as_bytes())
    }
}

impl Element for &[u8] {
    const TYPE: ValueType = ValueType::Str;

    fn value(&self) -> Value<'_> {
        Value::Str(self)
    }
}
