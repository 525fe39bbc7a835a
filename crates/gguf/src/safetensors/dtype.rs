//! The element types of safetensors and their sizes.

/// The type of a tensor's values.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "the names are the types")]
pub enum Dtype {
    Bool,
    U8,
    I8,
    U16,
    I16,
    U32,
    I32,
    U64,
    I64,
    F16,
    Bf16,
    F32,
    F64,
    F8E4m3,
    F8E5m2,
    F8E8m0,
    /// E2M1, two to a byte.
    F4,
}

impl Dtype {
    /// All of them.
    pub const ALL: [Dtype; 17] = [
        Dtype::Bool,
        Dtype::U8,
        Dtype::I8,
        Dtype::U16,
        Dtype::I16,
        Dtype::U32,
        Dtype::I32,
        Dtype::U64,
        Dtype::I64,
        Dtype::F16,
        Dtype::Bf16,
        Dtype::F32,
        Dtype::F64,
        Dtype::F8E4m3,
        Dtype::F8E5m2,
        Dtype::F8E8m0,
        Dtype::F4,
    ];

    /// The name that headers use.
    pub fn name(self) -> &'static str {
        match self {
            Dtype::Bool => "BOOL",
            Dtype::U8 => "U8",
            Dtype::I8 => "I8",
            Dtype::U16 => "U16",
            Dtype::I16 => "I16",
            Dtype::U32 => "U32",
            Dtype::I32 => "I32",
            Dtype::U64 => "U64",
            Dtype::I64 => "I64",
            Dtype::F16 => "F16",
            Dtype::Bf16 => "BF16",
            Dtype::F32 => "F32",
            Dtype::F64 => "F64",
            Dtype::F8E4m3 => "F8_E4M3",
            Dtype::F8E5m2 => "F8_E5M2",
            Dtype::F8E8m0 => "F8_E8M0",
            Dtype::F4 => "F4",
        }
    }

    /// The type of a name.
    pub fn of_name(name: &str) -> Option<Dtype> {
        Dtype::ALL.into_iter().find(|dtype| dtype.name() == name)
    }

    fn bits(self) -> u64 {
        match self {
            Dtype::F4 => 4,
            Dtype::Bool | Dtype::U8 | Dtype::I8 => 8,
            Dtype::F8E4m3 | Dtype::F8E5m2 | Dtype::F8E8m0 => 8,
            Dtype::U16 | Dtype::I16 | Dtype::F16 | Dtype::Bf16 => 16,
            Dtype::U32 | Dtype::I32 | Dtype::F32 => 32,
            Dtype::U64 | Dtype::I64 | Dtype::F64 => 64,
        }
    }

    /// The bytes of a tensor, `None` when they are no whole number or beyond counting.
    pub(super) fn tensor_bytes(self, shape: &[u64]) -> Option<u64> {
        let elements = shape.iter().try_fold(1u64, |product, &n| product.checked_mul(n))?;
        let bits = elements.checked_mul(self.bits())?;
        bits.is_multiple_of(8).then_some(bits / 8)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_lead_back() {
        for dtype in Dtype::ALL {
            assert_eq!(Dtype::of_name(dtype.name()), Some(dtype));
        }
        assert_eq!(Dtype::of_name("f32"), None);
    }

    #[test]
    fn sizes() {
        assert_eq!(Dtype::F32.tensor_bytes(&[]), Some(4));
        assert_eq!(Dtype::F4.tensor_bytes(&[3, 2]), Some(3));
        assert_eq!(Dtype::F4.tensor_bytes(&[3]), None);
        assert_eq!(Dtype::Bool.tensor_bytes(&[0, 7]), Some(0));
        assert_eq!(Dtype::I8.tensor_bytes(&[1 << 40, 1 << 40]), None);
    }
}
