//! Saved sessions: what imports is what was saved, and can go on.

use std::{
    ops::ControlFlow,
    sync::{Arc, LazyLock},
};

use ds4_cpu::{CpuExecutor, CpuOptions};
use ds4_engine::{Engine, SessionOptions};
use ds4_gguf::Gguf;
use ds4_host::Region;
use ds4_model::{Model, Rounding, Source};
use ds4_quant::Format;

use crate::{refusal::accepted, tiny};

const OPTIONS: SessionOptions = SessionOptions { context: 512, chunk: 16 };
const CHECKSUM: usize = 32;
/// Where a saved session has its rounding, its length in bytes, its model and its rewind.
const ROUNDING: usize = 12;
const LENGTH: usize = 16;
const MODEL: usize = 24;
const REWIND: usize = 64;

fn engine(rounding: Rounding) -> &'static Arc<Engine> {
    static PLAIN: LazyLock<Arc<Engine>> = LazyLock::new(|| make(Rounding::Plain));
    static OFFICIAL: LazyLock<Arc<Engine>> = LazyLock::new(|| make(Rounding::Official));
    match rounding {
        Rounding::Plain => &PLAIN,
        Rounding::Official => &OFFICIAL,
    }
}

fn make(rounding: Rounding) -> Arc<Engine> {
    let file = Region::from_vec(tiny::gguf(&tiny::config(), Format::F32));
    let gguf = Gguf::from_region(file, "tiny.gguf").expect("a GGUF");
    let model = Model::bind(&Source::from_gguf(gguf).expect("a model")).expect("its tensors");
    let options = CpuOptions { threads: 1, rounding, ..CpuOptions::default() };
    let cpu = CpuExecutor::new(Arc::new(model), options).expect("an executor");
    Engine::new(Box::new(cpu))
}

pub fn import(data: &[u8]) -> bool {
    let rounding = match data.get(ROUNDING) {
        Some(0) => Rounding::Plain,
        _ => Rounding::Official,
    };
    let engine = engine(rounding);
    accepted(engine.import(data, OPTIONS));
    // A fuzzer cannot make checksums; whoever forges a session can.
    let Some(sealed) = sealed(data, engine) else { return false };
    let Some(mut session) = accepted(engine.import(&sealed, OPTIONS)) else { return false };

    assert!(session.len() <= session.context());
    let rewind = sealed.get(REWIND..).and_then(|at| at.first_chunk()).expect("a whole header");
    let again = session.export(u64::from_le_bytes(*rewind) as usize).expect("a session");
    assert!(again == sealed, "it is saved as something else");
    if accepted(session.push(1)).is_some() {
        let mut copy = session.fork().expect("a copy");
        accepted(copy.truncate(copy.len() / 2));
    }
    let target = [0, 1, 2, 3, 4, 0];
    accepted(session.sync(&target, &mut |_| ControlFlow::Continue(())));
    true
}

/// The same with the model, length and checksum that make it acceptable.
fn sealed(data: &[u8], engine: &Engine) -> Option<Vec<u8>> {
    let mut bytes = data.to_vec();
    let total = bytes.len() as u64;
    bytes.get_mut(LENGTH..MODEL)?.copy_from_slice(&total.to_le_bytes());
    bytes.get_mut(MODEL..MODEL + 32)?.copy_from_slice(&engine.model().fingerprint.0);
    let (content, checksum) = bytes.split_last_chunk_mut::<CHECKSUM>()?;
    *checksum = *blake3::hash(content).as_bytes();
    Some(bytes)
}

pub fn import_seeds() -> Vec<Vec<u8>> {
    let saved = |rounding, len: u32, rewind| {
        let mut session = engine(rounding).session(OPTIONS).expect("a session");
        let tokens: Vec<u32> = (0..len).map(|i| i * 3 % 5).collect();
        let done = session.sync(&tokens, &mut |_| ControlFlow::Continue(()));
        done.expect("a prompt that fits");
        session.export(rewind).expect("its bytes")
    };
    vec![
        saved(Rounding::Official, 0, 0),
        saved(Rounding::Official, 9, 2),
        saved(Rounding::Official, 131, 0),
        saved(Rounding::Plain, 5, 5),
    ]
}
