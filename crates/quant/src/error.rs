//! What can be wrong with a row. The caller adds the name of the tensor and of the file.

use crate::Format;

/// Why a row could not be decoded, encoded, packed or rounded.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum QuantError {
    /// The number of values is no whole number of blocks.
    #[error("a row of {values} values is not a whole number of {format} blocks of {}", .format.block_elems())]
    PartialBlock {
        /// The row's format.
        format: Format,
        /// How many values the row was to have.
        values: usize,
    },
    /// The bytes are not those of so many values.
    #[error("{values} values of {format} are {expected} bytes, but there are {found}")]
    Bytes {
        /// The format of the bytes.
        format: Format,
        /// How many values there were to be.
        values: usize,
        /// The bytes that those take.
        expected: usize,
        /// The bytes that were given.
        found: usize,
    },
    /// A buffer does not have the length that the row needs.
    #[error("{what} must be {expected} bytes long, but it is {found}")]
    Length {
        /// What the buffer holds.
        what: &'static str,
        /// The length that the row needs.
        expected: usize,
        /// The length that was given.
        found: usize,
    },
    /// The number of values is not what the row layout holds.
    #[error("{what} must have {expected} values, but it has {found}")]
    Values {
        /// What the values are.
        what: &'static str,
        /// How many the layout holds.
        expected: usize,
        /// How many were given.
        found: usize,
    },
    /// The format keeps its scales in a second tensor, so its codes alone mean nothing.
    #[error("{0} has its scales in a second tensor and cannot be read or written without them")]
    ScalesElsewhere(Format),
    /// Nothing here can write the format.
    #[error("there is no encoder for {0}")]
    NoEncoder(Format),
    /// There is no nearest code of a number that is not finite.
    #[error("value {index} of the row is not finite")]
    NotFinite {
        /// Where in the row it is.
        index: usize,
    },
    /// The scale that a block needs is beyond what the format can store.
    #[error("the values from {index} on are too large for {format}")]
    TooLarge {
        /// The format that was to be written.
        format: Format,
        /// The first value of the block.
        index: usize,
    },
    /// An importance is negative or not finite.
    #[error("the importance of value {index} of the row is not a positive number or zero")]
    Importance {
        /// Where in the row it is.
        index: usize,
    },
    /// A Hadamard transform needs a power of two.
    #[error("a Hadamard transform needs a power of two of values, not {0}")]
    NotPowerOfTwo(usize),
    /// A cached row cannot have this shape.
    #[error("a cached row cannot have {dim} values with {rope} rotary ones")]
    RowShape {
        /// All values of the row.
        dim: usize,
        /// The rotary ones among them.
        rope: usize,
    },
}
