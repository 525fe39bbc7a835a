//! The model inside the program: so that everything can be tried before anything is downloaded.

use ds4_gguf::Gguf;
use ds4_host::Region;

/// Trained by `nano/`: small, and real.
#[cfg(feature = "nano")]
static BYTES: &[u8] = include_bytes!("../assets/nano.gguf");
/// Made by `cargo xtask noise`: real in every part, random in every weight. For builds that must be small.
#[cfg(not(feature = "nano"))]
static BYTES: &[u8] = include_bytes!("../assets/noise.gguf");

/// Opens it.
pub fn open() -> Result<Gguf, ds4_gguf::Error> {
    Gguf::from_region(Region::from_static(BYTES), "built-in model")
}

/// What must be said to whoever did not ask for it.
pub fn notice(model: &Gguf) -> String {
    if !cfg!(feature = "nano") {
        return "no model given: this is the built-in one, tiny and random, and it speaks noise; \
                `ds4 pull flash` gets a real one"
            .into();
    }
    let size = |dims: &[u64]| dims.iter().copied().fold(1, u64::saturating_mul);
    let parameters: u64 =
        model.tensors().iter().map(|tensor| size(&tensor.dims)).fold(0, u64::saturating_add);
    let millions = (parameters + 500_000) / 1_000_000;
    format!("Nano, {millions} M parameters: a demonstration; `ds4 pull flash` gets the real one")
}
