//! What goes wrong is said, with the tensor to blame, and leaves every slot as it was.

mod fixture;

use std::sync::Arc;

use ds4_cpu::{CpuError, CpuExecutor, CpuOptions};
use ds4_engine::{ExecError, Executor, Feed, Logits, SlotId, Want};
use ds4_host::Region;
use ds4_model::{Matrix, Model};
use ds4_quant::Format;
use fixture::{assert_same, evaluate, executor, feed, model, prompt};

fn options() -> CpuOptions {
    CpuOptions { threads: 2, ..CpuOptions::default() }
}

fn step(cpu: &mut CpuExecutor, slot: SlotId, tokens: &[u32]) -> Result<(), ExecError> {
    cpu.step(&[Feed { slot, tokens, want: Want::Last }], &mut Logits::default())
}

/// The same matrix in `f32`, with one value replaced.
fn damaged(matrix: &Matrix, row: usize, column: usize, value: f32) -> Matrix {
    let mut values = vec![0.0; matrix.cols()];
    let mut bytes = Vec::new();
    for r in 0..matrix.rows() {
        matrix.decode_row(r, &mut values);
        if r == row {
            values[column] = value;
        }
        bytes.extend(values.iter().flat_map(|x| x.to_le_bytes()));
    }
    let shape = (matrix.rows(), matrix.cols());
    Matrix::new(matrix.name().into(), Format::F32, shape, Region::from_vec(bytes), None).unwrap()
}

#[test]
fn a_failed_step_leaves_every_slot_as_it_was() {
    let sound = model("sparse_a-f32");
    let mut broken = Model::clone(&sound);
    let poison = 7;
    broken.weights.embedding = damaged(&sound.weights.embedding, poison, 3, f32::NAN);
    let mut cpu = executor(&Arc::new(broken), CpuOptions { boundary: 128, ..options() });
    let clean = |tokens: Vec<u32>| -> Vec<u32> {
        tokens.into_iter().map(|t| if t as usize == poison { 8 } else { t }).collect()
    };
    let (a_tokens, b_tokens) = (clean(prompt(&sound, 420, 0)), clean(prompt(&sound, 250, 1)));
    let (a, b) = (cpu.open().unwrap(), cpu.open().unwrap());
    feed(&mut cpu, a, &a_tokens[..150], &[150]);
    feed(&mut cpu, b, &b_tokens[..131], &[131]);
    let before = (cpu.export(a, 128).unwrap(), cpu.export(b, 128).unwrap());

    // The poison comes in the third round, after two that went well.
    let mut long = clean(prompt(&sound, 700, 5));
    long[600] = poison as u32;
    let mut logits = Logits::default();
    let error = cpu
        .step(
            &[
                Feed { slot: b, tokens: &b_tokens[131..], want: Want::All },
                Feed { slot: a, tokens: &long, want: Want::Last },
            ],
            &mut logits,
        )
        .unwrap_err();
    assert_eq!(
        error.to_string(),
        "the forward pass gave a value that is not finite in the embedding, for token 7 at position 750; \
         tensor token_embd.weight has a damaged block at its byte 2700"
    );
    assert!(logits.values.is_empty());
    assert_eq!((cpu.export(a, 128).unwrap(), cpu.export(b, 128).unwrap()), before);
    for (slot, tokens, len) in [(a, &a_tokens, 150), (b, &b_tokens, 131)] {
        let got = feed(&mut cpu, slot, &tokens[len..], &[30]);
        let fresh = evaluate(&mut cpu, tokens, &[tokens.len()]);
        assert_same(&got.values, &fresh.values[len * fresh.vocab..], "after the failure");
    }
}

#[test]
fn the_damaged_tensor_is_named() {
    let check = |damage: &dyn Fn(&mut Model), part: &str| {
        let mut model = Model::clone(&model("sparse_a-f32"));
        damage(&mut model);
        let model = Arc::new(model);
        let mut cpu = executor(&model, options());
        let slot = cpu.open().unwrap();
        let error = step(&mut cpu, slot, &prompt(&model, 140, 0)).unwrap_err().to_string();
        assert!(error.contains(part), "{error}");
        assert_eq!(cpu.len(slot).unwrap(), 0);
    };
    let nan = f32::NAN;
    check(
        &|m| {
            let q_b = &mut m.weights.layers[2].attention.q_b;
            *q_b = damaged(q_b, 1, 2, nan);
        },
        "in the attention of layer 2, for token 0 at position 0; tensor blk.2.attn_q_b.weight has a damaged \
         block at its byte 200",
    );
    check(
        &|m| {
            let expert = &mut m.weights.layers[1].moe.experts[3];
            expert.gate = damaged(&expert.gate, 0, 0, f32::INFINITY);
            expert.gate = damaged(&expert.gate, 0, 1, nan);
        },
        "in the experts of layer 1",
    );
    check(
        &|m| {
            let expert = &mut m.weights.layers[1].moe.experts[3];
            expert.down = damaged(&expert.down, 0, 0, nan);
        },
        "tensor blk.1.ffn_down_exps.weight[3] has a damaged block at its byte 0",
    );
    check(
        &|m| m.weights.layers[0].attention.kv_norm[5] = nan,
        "tensor blk.0.attn_kv_a_norm.weight is NaN at its value 5",
    );
    check(
        &|m| m.weights.layers[1].attention.compressor.as_mut().unwrap().ape[9] = nan,
        "tensor blk.1.attn_compressor_ape.weight is NaN at its value 9",
    );
    check(&|m| m.weights.head_norm[1] = nan, "in the output, for token");
    check(
        &|m| m.weights.layers[3].ffn_norm[0] = f32::MAX,
        "in the experts of layer 3, for token 0 at position 0; all its weights are finite, so the numbers \
         must have grown out of range",
    );
}

#[test]
fn broken_contracts_are_refused() {
    let model = model("sparse_a-f32");
    let mut cpu = executor(&model, options());
    let slot = cpu.open().unwrap();
    let unknown = SlotId(99);
    let mut logits = Logits::default();
    assert!(
        matches!(step(&mut cpu, unknown, &[1]), Err(ExecError::NoSuchSlot(id)) if id == unknown)
    );
    assert!(matches!(step(&mut cpu, slot, &[]), Err(ExecError::InvalidBatch(_))));
    assert!(matches!(
        step(&mut cpu, slot, &[1, 320]),
        Err(ExecError::TokenOutOfRange { id: 320, vocab: 320 })
    ));
    let twice = [Feed { slot, tokens: &[1], want: Want::Last }; 2];
    assert!(matches!(cpu.step(&twice, &mut logits), Err(ExecError::InvalidBatch(_))));
    assert!(cpu.step(&[], &mut logits).is_ok());
    assert_eq!(cpu.len(slot).unwrap(), 0);

    cpu.close(slot);
    cpu.close(slot);
    assert!(cpu.len(slot).is_err());
    assert!(cpu.truncate(slot, 0).is_err());
    assert!(cpu.fork(slot).is_err());
    assert!(cpu.export(slot, 0).is_err());
    assert_ne!(cpu.open().unwrap(), slot);
}

#[test]
fn options_that_cannot_be_are_refused() {
    let model = model("sparse_a-f32");
    for (options, name) in [
        (CpuOptions { boundary: 100, ..options() }, "boundary"),
        (CpuOptions { rows: 0, ..options() }, "rows"),
        (CpuOptions { threads: 1 << 20, ..options() }, "threads"),
        (CpuOptions { rewind: usize::MAX, ..options() }, "rewind"),
    ] {
        let result = CpuExecutor::new(Arc::clone(&model), options);
        assert!(matches!(result, Err(CpuError::Option { option, .. }) if option == name), "{name}");
    }
}

#[test]
fn the_state_costs_what_the_plan_says() {
    let model = model("kquant_a-ds4_iq2");
    let mut cpu = executor(&model, CpuOptions { boundary: 512, boundaries_kept: 2, ..options() });
    let cost = cpu.state_cost();
    let slot = cpu.open().unwrap();
    let empty = cpu.state_bytes();
    let tokens = prompt(&model, 2048, 0);
    feed(&mut cpu, slot, &tokens, &[2048]);
    // What is in a partly filled segment is the only thing that a plan cannot know.
    let (bytes, planned) = (cpu.state_bytes() as u64, cost.bytes(2048));
    assert!(bytes <= planned && bytes > planned * 9 / 10, "{bytes} of {planned}");
    assert!((empty as u64) < cost.fixed);
}
