//! A card that fails while sessions are on it: one clear sentence from then on, no panic, nothing that
//! hangs, and what was saved before goes on elsewhere. A test binary of its own, because the failure
//! takes the whole process's context with it. Without a GPU it says so and passes.

mod card;

use std::sync::Arc;

use cudarc::driver::{result, sys};
use ds4_cpu::{Activations, CpuExecutor, CpuOptions};
use ds4_cuda::{CudaExecutor, CudaOptions};
use ds4_engine::{ExecError, Executor, Feed, Logits, Want};

/// Writes to an address that nobody has.
const WILD: &str = ".version 7.1\n.target sm_80\n.address_size 64\n\
.visible .entry wild()\n{\n.reg .b32 %r<2>;\n.reg .b64 %rd<2>;\n\
mov.u32 %r1, 1;\nmov.u64 %rd1, 4096;\nst.global.u32 [%rd1], %r1;\nret;\n}\n\0";

/// Breaks the context that the executor uses, as a kernel with a bug or a memory error would.
fn break_the_card() {
    let device = result::device::get(0).unwrap();
    // SAFETY: the module is a complete program, the kernel has no parameters; what it does wrong is
    // the point of it, and all that the context holds is lost afterwards.
    unsafe {
        let context = result::primary_ctx::retain(device).unwrap();
        result::ctx::set_current(context).unwrap();
        let module = result::module::load_data(WILD.as_ptr().cast()).unwrap();
        let wild = result::module::get_function(module, c"wild".to_owned()).unwrap();
        let stream = std::ptr::null_mut();
        let none = std::ptr::null_mut();
        let started = sys::cuLaunchKernel(wild, 1, 1, 1, 1, 1, 1, 0, stream, none, none);
        assert_eq!(started, sys::CUresult::CUDA_SUCCESS);
        assert_ne!(sys::cuCtxSynchronize(), sys::CUresult::CUDA_SUCCESS, "it should fail");
    }
}

#[test]
fn a_card_that_fails_says_so_and_loses_nothing_that_was_saved() {
    if !card::is_here() {
        return;
    }
    let model = card::model("kquant_a-ds4_iq2.gguf");
    let mut cuda = CudaExecutor::new(Arc::clone(&model), CudaOptions::default()).unwrap();
    let slot = cuda.open().unwrap();
    let tokens: Vec<u32> = (0..100).map(|i| i * 7 % model.config.vocab as u32).collect();
    let mut logits = Logits::default();
    let feed = |tokens| Feed { slot, tokens, want: Want::Last };
    cuda.step(&[feed(&tokens[..99])], &mut logits).unwrap();
    let saved = cuda.export(slot, 10).unwrap();

    break_the_card();

    let first = cuda.step(&[feed(&tokens[99..])], &mut logits).unwrap_err().to_string();
    assert!(first.starts_with("the GPU failed and its sessions are lost"), "{first}");
    assert!(first.contains("CUDA_ERROR_ILLEGAL_ADDRESS") && !first.contains('\n'), "{first}");
    assert!(logits.values.is_empty());
    assert_eq!(cuda.len(slot).unwrap(), 99, "the length from before");
    let same = |error: ExecError| assert_eq!(error.to_string(), first);
    same(cuda.step(&[feed(&tokens[99..])], &mut logits).unwrap_err());
    same(cuda.open().unwrap_err());
    same(cuda.fork(slot).unwrap_err());
    same(cuda.truncate(slot, 50).unwrap_err());
    same(cuda.export(slot, 0).unwrap_err());
    same(cuda.import(&saved).unwrap_err());
    same(cuda.read_rate().unwrap_err());
    // A batch that makes no sense is still told so.
    let empty = cuda.step(&[feed(&[])], &mut logits).unwrap_err();
    assert!(matches!(empty, ExecError::InvalidBatch(_)), "{empty}");
    cuda.close(slot);
    drop(cuda);

    let options =
        CpuOptions { activations: Activations::Exact, threads: 1, ..CpuOptions::default() };
    let mut cpu = CpuExecutor::new(model, options).unwrap();
    let slot = cpu.import(&saved).unwrap();
    cpu.step(&[Feed { slot, tokens: &tokens[99..], want: Want::Last }], &mut logits).unwrap();
    assert_eq!(cpu.len(slot).unwrap(), 100);
}
