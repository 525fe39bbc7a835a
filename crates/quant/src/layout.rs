//! The sizes of every tensor type that a GGUF file can name, also of those that nothing here
//! computes with: a reader has to know how long a tensor is before it can decide to ignore it.

/// The block size of one ggml tensor type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Layout {
    /// The name that people know the type by, such as `Q4_K`.
    pub name: &'static str,
    /// Values in one block.
    pub block_elems: usize,
    /// Bytes of one block.
    pub block_bytes: usize,
}

impl Layout {
    /// The layout of a ggml type id, or `None` for an id that was never given out or has been
    /// withdrawn.
    pub fn of_ggml(id: u32) -> Option<Layout> {
        let found = GGML_TYPES.iter().find(|known| known.0 == id)?;
        let &(_, name, block_elems, block_bytes) = found;
        Some(Layout { name, block_elems, block_bytes })
    }

    /// Bytes of a row of `cols` values: `None` if that is no whole number of blocks or does not
    /// fit.
    pub fn row_bytes(&self, cols: usize) -> Option<usize> {
        if !cols.is_multiple_of(self.block_elems) {
            return None;
        }
        (cols / self.block_elems).checked_mul(self.block_bytes)
    }
}

/// Id, name, values and bytes of a block. The gaps are types that ggml withdrew; no current file
/// has them.
const GGML_TYPES: [(u32, &str, usize, usize); 34] = [
    (0, "F32", 1, 4),
    (1, "F16", 1, 2),
    (2, "Q4_0", 32, 18),
    (3, "Q4_1", 32, 20),
    (6, "Q5_0", 32, 22),
    (7, "Q5_1", 32, 24),
    (8, "Q8_0", 32, 34),
    (9, "Q8_1", 32, 36),
    (10, "Q2_K", 256, 84),
    (11, "Q3_K", 256, 110),
    (12, "Q4_K", 256, 144),
    (13, "Q5_K", 256, 176),
    (14, "Q6_K", 256, 210),
    (15, "Q8_K", 256, 292),
    (16, "IQ2_XXS", 256, 66),
    (17, "IQ2_XS", 256, 74),
    (18, "IQ3_XXS", 256, 98),
    (19, "IQ1_S", 256, 50),
    (20, "IQ4_NL", 32, 18),
    (21, "IQ3_S", 256, 110),
    (22, "IQ2_S", 256, 82),
    (23, "IQ4_XS", 256, 136),
    (24, "I8", 1, 1),
    (25, "I16", 1, 2),
    (26, "I32", 1, 4),
    (27, "I64", 1, 8),
    (28, "F64", 1, 8),
    (29, "IQ1_M", 256, 56),
    (30, "BF16", 1, 2),
    (34, "TQ1_0", 256, 54),
    (35, "TQ2_0", 256, 66),
    (39, "MXFP4", 32, 17),
    (40, "NVFP4", 64, 36),
    (41, "Q1_0", 128, 18),
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Format;

    #[test]
    fn ids_are_ascending_and_names_unique() {
        for pair in GGML_TYPES.windows(2) {
            assert!(pair[0].0 < pair[1].0);
        }
        for (i, a) in GGML_TYPES.iter().enumerate() {
            assert!(GGML_TYPES[i + 1..].iter().all(|b| a.1 != b.1), "{} twice", a.1);
        }
    }

    #[test]
    fn withdrawn_and_unknown_ids_have_no_layout() {
        for id in [4, 5, 31, 32, 33, 36, 37, 38, 42, u32::MAX] {
            assert_eq!(Layout::of_ggml(id), None, "id {id}");
        }
    }

    #[test]
    fn formats_agree_with_the_table() {
        for format in Format::ALL {
            let Some(id) = format.ggml_id() else { continue };
            assert_eq!(Format::from_ggml(id), Some(format));
            let layout = Layout::of_ggml(id).unwrap();
            assert_eq!(layout.name, format.name());
            assert_eq!(layout.block_elems, format.block_elems());
            assert_eq!(layout.block_bytes, format.block_bytes());
        }
    }

    #[test]
    fn row_sizes_of_the_real_models() {
        let iq2 = Layout::of_ggml(16).unwrap();
        assert_eq!(iq2.row_bytes(4096), Some(1056));
        assert_eq!(iq2.row_bytes(0), Some(0));
        assert_eq!(iq2.row_bytes(4095), None);
        assert_eq!(Layout::of_ggml(10).unwrap().row_bytes(2048), Some(672));
        let double = Layout::of_ggml(28).unwrap();
        assert_eq!(double.row_bytes(usize::MAX), None);
    }
}
