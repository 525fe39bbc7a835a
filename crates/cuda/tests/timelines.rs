//! The state of a slot is a function of its tokens: neither chunks, company, recordings, rewinds,
//! forks nor travels change a bit. On a machine without a GPU these tests say so and pass.

mod card;

use std::{
    fs,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use ds4_cpu::{Activations, CpuExecutor, CpuOptions};
use ds4_cuda::{CudaExecutor, CudaOptions};
use ds4_engine::{ExecError, Executor, Feed, Logits, SlotId, SlotState, Want};
use ds4_model::{Model, Rounding};

const MODELS: [&str; 2] = ["kquant_a-ds4_iq2.gguf", "sparse_a-f32.gguf"];

/// Runs `test` on every model and rounding, if there is a card.
fn on_the_card(test: impl Fn(&Arc<Model>, CudaOptions)) {
    on_files(|name, options| test(&card::model(name), options));
}

/// The same with the names of their files.
fn on_files(test: impl Fn(&str, CudaOptions)) {
    if !card::is_here() {
        return;
    }
    for (name, rounding) in MODELS.into_iter().zip([Rounding::Official, Rounding::Plain]) {
        for fast in [false, true] {
            let options = CudaOptions { rounding, fast, boundary: 256, ..CudaOptions::default() };
            eprintln!("{name}, fast {fast}");
            test(name, options);
        }
    }
}

fn prompt(model: &Model, len: usize, seed: usize) -> Vec<u32> {
    let token = |i: usize| (i * i * 31 + i * 17 + seed * 101) % model.config.vocab;
    (0..len).map(|i| token(i) as u32).collect()
}

fn feed(executor: &mut dyn Executor, slot: SlotId, tokens: &[u32], chunks: &[usize]) -> Vec<f32> {
    let (mut all, mut logits, mut rest) = (Vec::new(), Logits::default(), tokens);
    for &chunk in chunks.iter().cycle() {
        let (now, later) = rest.split_at(chunk.min(rest.len()));
        executor.step(&[Feed { slot, tokens: now, want: Want::All }], &mut logits).unwrap();
        all.append(&mut logits.values);
        rest = later;
        if rest.is_empty() {
            break;
        }
    }
    all
}

#[track_caller]
fn assert_same(got: &[f32], want: &[f32], what: &str) {
    assert_eq!(got.len(), want.len(), "{what}: lengths");
    let differ = got.iter().zip(want).position(|(a, b)| a.to_bits() != b.to_bits());
    assert_eq!(differ, None, "{what}: first difference");
}

#[test]
fn chunks_and_recordings_change_nothing() {
    on_the_card(|model, options| {
        let mut cuda = CudaExecutor::new(Arc::clone(model), options).unwrap();
        let tokens = prompt(model, 700, 1);
        let whole = cuda.open().unwrap();
        let want = feed(&mut cuda, whole, &tokens, &[700]);
        for chunks in [&[1][..], &[37, 1, 91, 3, 130], &[300]] {
            let slot = cuda.open().unwrap();
            let got = feed(&mut cuda, slot, &tokens, chunks);
            assert_same(&got, &want, &format!("chunks of {chunks:?}"));
            cuda.close(slot);
        }
    });
}

/// Rounds that are several slices long, and longer than any ring, with the rows of several slots in a
/// slice; and what is taken back afterwards.
#[test]
fn rounds_longer_than_rings_change_nothing() {
    on_the_card(|model, options| {
        let options = CudaOptions { boundary: 0, rewind: 20, ..options };
        let executor = |rows, slice| {
            let options = CudaOptions { rows, slice, ..options };
            CudaExecutor::new(Arc::clone(model), options).unwrap()
        };
        let prompts = [(1400, 5), (900, 6), (130, 7)].map(|(len, seed)| prompt(model, len, seed));
        let mut short = executor(48, 48);
        let alone = prompts.each_ref().map(|tokens| -> (Vec<f32>, SlotState) {
            let slot = short.open().unwrap();
            let logits = feed(&mut short, slot, tokens, &[48]);
            (logits, short.export(slot, 20).unwrap())
        });
        drop(short);

        let vocab = model.config.vocab;
        for (rows, slice) in [(512, 32), (1000, 96)] {
            let mut cuda = executor(rows, slice);
            let slots = prompts.each_ref().map(|_| cuda.open().unwrap());
            let mut logits = Logits::default();
            let mut len = [0; 3];
            for ends in [[700, 1, 100], [701, 640, 101], [1380, 641, 101], [1400, 900, 130]] {
                let fed: Vec<usize> = (0..3).filter(|&i| ends[i] > len[i]).collect();
                let feeds: Vec<Feed<'_>> = fed
                    .iter()
                    .map(|&i| Feed {
                        slot: slots[i],
                        tokens: &prompts[i][len[i]..ends[i]],
                        want: Want::Last,
                    })
                    .collect();
                cuda.step(&feeds, &mut logits).unwrap();
                for (&i, row) in fed.iter().zip(logits.rows()) {
                    let what = format!("{rows} by {slice}: session {i} at {}", ends[i]);
                    assert_same(row, &alone[i].0[(ends[i] - 1) * vocab..][..vocab], &what);
                }
                len = ends;
                if ends[0] == 1380 {
                    len = [1360, 634, 95];
                    for (&slot, len) in slots.iter().zip(len) {
                        assert_eq!(cuda.truncate(slot, len).unwrap(), len);
                    }
                }
            }
            for (i, (&slot, (_, state))) in slots.iter().zip(&alone).enumerate() {
                assert_eq!(&cuda.export(slot, 20).unwrap(), state, "{rows} by {slice}: state {i}");
            }
        }
    });
}

/// Rounds that just fit into the rings, and such as do not, of two sessions that stand anywhere in
/// groups of 4 and of 128; and all that may be taken back, taken back.
#[test]
fn rounds_that_begin_and_end_anywhere_change_nothing() {
    on_the_card(|model, options| {
        let options = CudaOptions { boundary: 0, rows: 300, slice: 70, ..options };
        let (tokens, vocab) = (prompt(model, 470, 10), model.config.vocab);
        let mut cuda = CudaExecutor::new(Arc::clone(model), options).unwrap();
        let slot = cuda.open().unwrap();
        let want = feed(&mut cuda, slot, &tokens, &[1]);
        drop(cuda);
        let want = |at: usize| &want[at * vocab..][..vocab];
        for rewind in [0, 3, 128] {
            let options = CudaOptions { rewind, ..options };
            let mut cuda = CudaExecutor::new(Arc::clone(model), options).unwrap();
            let mut logits = Logits::default();
            let mut both =
                |cuda: &mut CudaExecutor, slots: [SlotId; 2], from: [usize; 2], count| {
                    let feeds = [0, 1].map(|i| {
                        let tokens = &tokens[from[i]..from[i] + count];
                        Feed { slot: slots[i], tokens, want: Want::Last }
                    });
                    cuda.step(&feeds, &mut logits).unwrap();
                    for (from, row) in from.into_iter().zip(logits.rows()) {
                        let what = format!("{count} from {from}, rewind {rewind}");
                        assert_same(row, want(from + count - 1), &what);
                    }
                };
            let starts = [1, 2, 3, 4, 63, 126, 127, 128, 130];
            for (start, count) in starts
                .iter()
                .flat_map(|&start| [1, rewind + 1, rewind + 2, 259].map(|n| (start, n)))
            {
                let starts = [start, start + 65];
                let slots = starts.map(|start| {
                    let slot = cuda.open().unwrap();
                    feed(&mut cuda, slot, &tokens[..start], &[start.div_ceil(2)]);
                    slot
                });
                both(&mut cuda, slots, starts, count);
                let back = starts.map(|start| (start + count).saturating_sub(rewind));
                for (slot, len) in slots.into_iter().zip(back) {
                    assert_eq!(cuda.truncate(slot, len).unwrap(), len);
                }
                for more in 0..5 {
                    both(&mut cuda, slots, back.map(|len| len + more), 1);
                }
                slots.into_iter().for_each(|slot| cuda.close(slot));
            }
        }
    });
}

/// A file whose embedding of `token` is not a number, opened. The file itself may go.
fn damaged(name: &str, token: usize) -> Arc<Model> {
    static MADE: AtomicUsize = AtomicUsize::new(0);
    let mut bytes = fs::read(card::file(name)).unwrap();
    let model = card::model(name);
    let row = model.weights.embedding.row(token);
    let at = bytes.windows(row.len()).position(|window| window == row).unwrap();
    bytes[at..at + row.len()].fill(0xff);
    // Two tests may be at it at the same time.
    let number = MADE.fetch_add(1, Ordering::Relaxed);
    let path = std::env::temp_dir().join(format!("damaged-{}-{number}-{name}", std::process::id()));
    fs::write(&path, bytes).unwrap();
    let model = Arc::new(Model::open(&path).unwrap());
    fs::remove_file(&path).unwrap();
    model
}

#[test]
fn a_step_that_fails_after_long_rounds_leaves_no_trace() {
    const BAD: u32 = 300;
    on_files(|name, options| {
        let model = damaged(name, BAD as usize);
        let good = |len, seed| -> Vec<u32> {
            prompt(&model, len, seed).into_iter().map(|id| if id == BAD { 0 } else { id }).collect()
        };
        let (long, short) = (good(1200, 8), good(250, 9));
        let options = CudaOptions { boundary: 0, rewind: 20, rows: 512, slice: 32, ..options };
        let mut cuda = CudaExecutor::new(Arc::clone(&model), options).unwrap();
        let whole = cuda.open().unwrap();
        let want = feed(&mut cuda, whole, &long, &[64]);
        let slots = [cuda.open().unwrap(), cuda.open().unwrap()];
        feed(&mut cuda, slots[0], &long[..300], &[300]);
        feed(&mut cuda, slots[1], &short[..150], &[150]);
        let states = slots.map(|slot| cuda.export(slot, 20).unwrap());
        // The first round holds all of the short feed and 412 tokens of the long one.
        for spoilt in [0, 411, 899] {
            let mut tokens = long[300..].to_vec();
            tokens[spoilt] = BAD;
            let feeds = [
                Feed { slot: slots[1], tokens: &short[150..], want: Want::Last },
                Feed { slot: slots[0], tokens: &tokens, want: Want::Last },
            ];
            let failed = cuda.step(&feeds, &mut Logits::default());
            assert!(matches!(failed, Err(ExecError::NotFinite { .. })), "{failed:?}");
            let after = slots.map(|slot| cuda.export(slot, 20).unwrap());
            assert!(after == states, "{spoilt}: a state is not what it was");
        }
        let got = feed(&mut cuda, slots[0], &long[300..], &[900]);
        assert_same(&got, &want[300 * model.config.vocab..], "after the failures");
    });
}

/// Steps of one round and of two, within groups of 4 and of 128 and across their ends.
#[test]
fn a_short_step_that_fails_leaves_no_trace() {
    const BAD: u32 = 300;
    on_files(|name, options| {
        let model = damaged(name, BAD as usize);
        let replace = |id| if id == BAD { 0 } else { id };
        let tokens: Vec<u32> = prompt(&model, 330, 11).into_iter().map(replace).collect();
        let options = CudaOptions { boundary: 0, rewind: 20, rows: 40, slice: 32, ..options };
        let mut cuda = CudaExecutor::new(Arc::clone(&model), options).unwrap();
        let whole = cuda.open().unwrap();
        let want = feed(&mut cuda, whole, &tokens, &[40]);
        for (start, count, spoilt) in [
            (5, 2, 1),
            (6, 1, 0),
            (126, 3, 0),
            (127, 21, 20),
            (130, 22, 3),
            (250, 41, 40),
            (255, 60, 5),
        ] {
            let slot = cuda.open().unwrap();
            feed(&mut cuda, slot, &tokens[..start], &[start]);
            let state = cuda.export(slot, 20).unwrap();
            let mut bad = tokens[start..start + count].to_vec();
            bad[spoilt] = BAD;
            let feeds = [Feed { slot, tokens: &bad, want: Want::Last }];
            let failed = cuda.step(&feeds, &mut Logits::default());
            assert!(matches!(failed, Err(ExecError::NotFinite { .. })), "{failed:?}");
            assert!(cuda.export(slot, 20).unwrap() == state, "{count} from {start}");
            let back = start - start.min(20);
            assert_eq!(cuda.truncate(slot, back).unwrap(), back);
            let got = feed(&mut cuda, slot, &tokens[back..], &[7]);
            assert_same(&got, &want[back * model.config.vocab..], &format!("{count} from {start}"));
            cuda.close(slot);
        }
    });
}

#[test]
fn company_changes_nothing() {
    on_the_card(|model, options| {
        let mut cuda = CudaExecutor::new(Arc::clone(model), options).unwrap();
        let prompts: Vec<Vec<u32>> = (0..16).map(|i| prompt(model, 150 + 13 * i, i)).collect();
        let alone: Vec<Vec<f32>> = prompts
            .iter()
            .map(|tokens| {
                let slot = cuda.open().unwrap();
                let logits = feed(&mut cuda, slot, tokens, &[tokens.len() - 4, 1]);
                cuda.close(slot);
                logits
            })
            .collect();
        let slots: Vec<SlotId> = prompts.iter().map(|_| cuda.open().unwrap()).collect();
        let mut logits = Logits::default();
        let vocab = model.config.vocab;
        let mut together: Vec<Vec<f32>> = vec![Vec::new(); prompts.len()];
        let mut step = |part: &dyn Fn(&[u32]) -> std::ops::Range<usize>| {
            let feeds: Vec<Feed<'_>> = slots
                .iter()
                .zip(&prompts)
                .map(|(&slot, tokens)| Feed {
                    slot,
                    tokens: &tokens[part(tokens)],
                    want: Want::All,
                })
                .collect();
            cuda.step(&feeds, &mut logits).unwrap();
            let mut rest = &logits.values[..];
            for (feed, together) in feeds.iter().zip(&mut together) {
                let (mine, others) = rest.split_at(feed.tokens.len() * vocab);
                together.extend_from_slice(mine);
                rest = others;
            }
        };
        step(&|tokens| 0..tokens.len() - 4);
        for back in (1..=4).rev() {
            step(&|tokens| tokens.len() - back..tokens.len() - back + 1);
        }
        for (i, (got, want)) in together.iter().zip(&alone).enumerate() {
            assert_same(got, want, &format!("session {i}"));
        }
    });
}

#[test]
fn going_back_forking_and_travelling_change_nothing() {
    on_the_card(|model, options| {
        let mut cuda = CudaExecutor::new(Arc::clone(model), options).unwrap();
        let tokens = prompt(model, 800, 2);
        let vocab = model.config.vocab;
        let slot = cuda.open().unwrap();
        let want = feed(&mut cuda, slot, &tokens, &[200]);
        let tail = |from: usize| &want[from * vocab..];

        for back in [1, 5, 128] {
            let fork = cuda.fork(slot).unwrap();
            assert_eq!(cuda.truncate(fork, 800 - back).unwrap(), 800 - back);
            let got = feed(&mut cuda, fork, &tokens[800 - back..], &[back.div_ceil(2)]);
            assert_same(&got, tail(800 - back), &format!("back by {back}"));
            cuda.close(fork);
        }
        let fork = cuda.fork(slot).unwrap();
        assert_eq!(cuda.truncate(fork, 600).unwrap(), 512, "the boundary below");
        assert_same(&feed(&mut cuda, fork, &tokens[512..], &[77]), tail(512), "from a boundary");
        assert_eq!(cuda.truncate(fork, 100).unwrap(), 0, "no boundary below");
        assert_same(&feed(&mut cuda, fork, &tokens, &[800]), &want, "from the start");

        let state = cuda.export(slot, 60).unwrap();
        let arrived = cuda.import(&state).unwrap();
        assert_eq!(cuda.export(arrived, 60).unwrap(), state);
        assert_eq!(cuda.truncate(arrived, 750).unwrap(), 750);
        assert_same(&feed(&mut cuda, arrived, &tokens[750..], &[9]), tail(750), "after a travel");
        // What the copies did has not touched the original.
        assert_eq!(cuda.export(slot, 60).unwrap(), state);
    });
}

#[test]
fn the_processor_goes_on_where_the_card_stopped_and_back() {
    on_the_card(|model, options| {
        let options = CudaOptions { fast: false, ..options };
        let cpu = CpuOptions {
            rounding: options.rounding,
            activations: Activations::Exact,
            threads: 2,
            ..CpuOptions::default()
        };
        let mut cpu = CpuExecutor::new(Arc::clone(model), cpu).unwrap();
        let mut cuda = CudaExecutor::new(Arc::clone(model), options).unwrap();
        let tokens = prompt(model, 400, 3);
        let slot = cuda.open().unwrap();
        feed(&mut cuda, slot, &tokens[..350], &[128]);
        let on_cpu = cpu.import(&cuda.export(slot, 40).unwrap()).unwrap();
        let want = feed(&mut cpu, on_cpu, &tokens[350..], &[50]);
        let got = feed(&mut cuda, slot, &tokens[350..], &[50]);
        assert_near(&got, &want, model.config.vocab);
        let back = cuda.import(&cpu.export(on_cpu, 40).unwrap()).unwrap();
        assert_eq!(cuda.truncate(back, 370).unwrap(), 370);
        let again = feed(&mut cuda, back, &tokens[370..], &[30]);
        assert_near(&again, &want[20 * model.config.vocab..], model.config.vocab);
    });
}

/// Half of the rows differ by next to nothing; a few may have chosen another expert or row.
#[track_caller]
fn assert_near(got: &[f32], want: &[f32], vocab: usize) {
    let norm = |values: &mut dyn Iterator<Item = f32>| values.map(|x| x * x).sum::<f32>().sqrt();
    let mut distances: Vec<f32> = got
        .chunks(vocab)
        .zip(want.chunks(vocab))
        .map(|(a, b)| norm(&mut a.iter().zip(b).map(|(a, b)| a - b)) / norm(&mut b.iter().copied()))
        .collect();
    distances.sort_by(f32::total_cmp);
    assert!(distances[distances.len() / 2] < 1e-3, "{distances:?}");
}

#[test]
fn refusals_leave_slots_as_they_were() {
    on_the_card(|model, options| {
        let mut cuda = CudaExecutor::new(Arc::clone(model), options).unwrap();
        let tokens = prompt(model, 40, 4);
        let slot = cuda.open().unwrap();
        feed(&mut cuda, slot, &tokens, &[40]);
        let state = cuda.export(slot, 40).unwrap();
        let mut logits = Logits::default();
        let bad = [model.config.vocab as u32];
        let refused = cuda.step(&[Feed { slot, tokens: &bad, want: Want::Last }], &mut logits);
        assert!(matches!(refused, Err(ExecError::TokenOutOfRange { .. })), "{refused:?}");
        let twice = Feed { slot, tokens: &tokens[..1], want: Want::Last };
        assert!(matches!(cuda.step(&[twice, twice], &mut logits), Err(ExecError::InvalidBatch(_))));
        assert!(matches!(cuda.len(SlotId(99)), Err(ExecError::NoSuchSlot(_))));
        assert_eq!(cuda.export(slot, 40).unwrap(), state);
    });
}
