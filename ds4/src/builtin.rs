//! The model inside the program: so that everything can be tried before anything is downloaded.

use ds4_gguf::Gguf;
use ds4_host::Region;

/// Made by `cargo xtask noise`: real in every part, random in every weight.
static NOISE: &[u8] = include_bytes!("../assets/noise.gguf");

/// What must be said to whoever did not ask for it.
pub const NOTICE: &str = "no model given: this is the built-in one, tiny and random, and it speaks \
                          noise; use a real one with -m FILE";

/// Opens it.
pub fn open() -> Result<Gguf, ds4_gguf::Error> {
    Gguf::from_region(Region::from_static(NOISE), "built-in noise model")
}
