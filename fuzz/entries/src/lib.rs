//! Every kind of bytes that comes from outside, each with one function that feeds them to the code
//! that reads them and holds that code to its promises.
//!
//! The fuzzing binaries and the ordinary tests share this table, so what a fuzzer has found once is
//! tried for ever. A function panics where a promise is broken, and must not know who calls it.

mod containers;
mod conversations;
mod models;
mod refusal;
mod sessions;
mod shapes;
mod tiny;
mod tokenizers;

/// One kind of untrusted bytes.
pub struct Target {
    /// The name of its binary, and of the folder of its corpus.
    pub name: &'static str,
    /// Tries one input, and says whether it was taken for valid.
    pub run: fn(&[u8]) -> bool,
    /// Small valid inputs that this project's own writers make.
    pub seeds: fn() -> Vec<Vec<u8>>,
}

/// All targets.
pub const TARGETS: &[Target] = &[
    Target { name: "gguf", run: containers::gguf, seeds: containers::gguf_seeds },
    Target {
        name: "safetensors",
        run: containers::safetensors,
        seeds: containers::safetensors_seeds,
    },
    Target { name: "tokenizer", run: tokenizers::file, seeds: tokenizers::file_seeds },
    Target { name: "text", run: tokenizers::text, seeds: tokenizers::text_seeds },
    Target { name: "model", run: models::bind, seeds: models::seeds },
    Target { name: "shapes", run: shapes::run, seeds: shapes::seeds },
    Target { name: "session", run: sessions::import, seeds: sessions::import_seeds },
    Target {
        name: "completion",
        run: conversations::completion,
        seeds: conversations::completion_seeds,
    },
    Target { name: "request", run: conversations::request, seeds: conversations::request_seeds },
];

/// Tries one input of the target with this name.
pub fn run(name: &str, data: &[u8]) {
    let target = TARGETS.iter().find(|target| target.name == name).expect("a target's name");
    (target.run)(data);
}
