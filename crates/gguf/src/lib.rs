//! Model containers: GGUF and safetensors, read in place and written as streams.
//!
//! A container is metadata, a list of named tensors and the bytes of each. This crate finds those
//! bytes and proves that they lie inside the file; it must not know what a tensor is for, which
//! keys an architecture has, or how a block of weights decodes.
//!
//! Opening a file reads its directory and nothing else: no page of tensor data is touched, string
//! tables stay in the mapping and are walked when asked for.

mod array;
mod by_name;
mod cursor;
mod directory;
mod error;
mod gguf;
mod meta;
mod safetensors;
mod span;
mod split;
mod stream;
mod value;
mod writer;

pub use array::{Array, Element};
pub use directory::TensorInfo;
pub use error::{Error, shown};
pub use gguf::Gguf;
pub use meta::Meta;
pub use safetensors::{Dtype, Safetensors, SafetensorsWriter, StInfo};
pub use split::part_path;
pub use stream::TensorStream;
pub use value::{Value, ValueType};
pub use writer::GgufWriter;
