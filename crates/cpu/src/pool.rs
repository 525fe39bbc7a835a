//! The threads that compute: made once, waiting between tasks, each with its share of every task.
//!
//! Work is cut by index alone, never by who is free, so a result can depend on the number of threads
//! only if it depends on the cut; nothing here does. Threads spin for a moment and then park: a
//! forward pass is thousands of short tasks in a row, a pause between sessions is long.

use std::{
    any::Any,
    cell::UnsafeCell,
    hint,
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread::{self, JoinHandle, Thread},
};

use ds4_host::{Core, stay_on};

use crate::{near::Near, simd::Panel, split::Rows, stages::Meter};

/// How often a waiting thread looks before it parks: some hundreds of microseconds, longer than the
/// parts of a step that one worker does alone.
const LOOKS: usize = 1 << 14;
/// After so many looks it offers its core to whoever else wants to run.
const LOOKS_ALONE: usize = 1 << 7;

/// Memory that a worker keeps between tasks.
#[derive(Default)]
pub struct Scratch {
    floats: Vec<f32>,
    /// What integer kernels unpack weights into.
    pub panel: Panel,
}

impl Scratch {
    /// Room for `len` numbers; what is in it is left over from earlier.
    pub fn floats(&mut self, len: usize) -> &mut [f32] {
        if self.floats.len() < len {
            self.floats.resize(len, 0.0);
        }
        &mut self.floats[..len]
    }
}

type Work<'a> = dyn Fn(usize, &mut Scratch) + Sync + 'a;

#[derive(Clone)]
struct Task {
    /// Valid until the caller has seen `running` reach zero.
    work: *const Work<'static>,
    caller: Thread,
}

struct Shared {
    /// What to do; `None` asks the helpers to end. Written by the caller alone, while no helper runs.
    task: UnsafeCell<Option<Task>>,
    /// Grows by one with every task.
    generation: AtomicUsize,
    /// Helpers that have not finished the task.
    running: AtomicUsize,
    /// Which helpers are parked, or about to be.
    parked: Vec<AtomicBool>,
    /// The first panic of a helper.
    panic: Mutex<Option<Box<dyn Any + Send>>>,
}

// SAFETY: the only field that is not `Sync` by itself is `task`. The caller writes it while `running`
// is zero and publishes it with the store to `generation`; helpers read it after they have seen that
// store and before they take themselves off `running`. So no write is concurrent with a read. The
// work behind the pointer is `Sync`.
unsafe impl Sync for Shared {}
// SAFETY: as above; the pointer may be followed from any thread because the work is `Sync`.
unsafe impl Send for Shared {}

/// A fixed set of workers: the calling thread and its helpers.
pub struct Pool {
    shared: Arc<Shared>,
    helpers: Vec<JoinHandle<()>>,
    own: Scratch,
    /// Where the time goes. It is here because whoever computes has a pool at hand.
    pub meter: Meter,
    /// For each worker, copies of its rows of weights; none where they are read where they lie.
    pub near: Arc<[Near]>,
}

impl Pool {
    /// A pool of `workers` workers, the caller being one of them. Where there is a core for each, the
    /// helpers stay on theirs; the caller is left on the first by having nowhere else to go.
    pub fn new(workers: usize, cores: &[Core]) -> std::io::Result<Pool> {
        let helpers = workers.saturating_sub(1);
        let shared = Arc::new(Shared {
            task: UnsafeCell::new(None),
            generation: AtomicUsize::new(0),
            running: AtomicUsize::new(0),
            parked: (0..helpers).map(|_| AtomicBool::new(false)).collect(),
            panic: Mutex::new(None),
        });
        let (own, meter, near) = Default::default();
        let mut pool = Pool { shared, helpers: Vec::new(), own, meter, near };
        for helper in 0..helpers {
            let shared = Arc::clone(&pool.shared);
            let core = cores.get(helper + 1).copied().filter(|_| workers <= cores.len());
            let thread = thread::Builder::new().name(format!("ds4-cpu-{}", helper + 1)).spawn(
                move || {
                    // A thread that may not stay on a core computes wherever it is put.
                    core.map(stay_on);
                    shared.serve(helper);
                },
            )?;
            pool.helpers.push(thread);
        }
        Ok(pool)
    }

    /// How many workers there are.
    pub fn workers(&self) -> usize {
        self.helpers.len() + 1
    }

    /// Runs `work` once on every worker and returns when all have finished. A panic of any of them
    /// goes on in the caller.
    pub fn run(&mut self, work: impl Fn(usize, &mut Scratch) + Sync) {
        if !self.helpers.is_empty() {
            let work: *const Work<'_> = &work;
            // SAFETY: only the lifetime is forgotten. Helpers follow the pointer between the
            // publication below and taking themselves off `running`; this function neither returns
            // nor unwinds before `running` is zero, and `work` lives until then.
            let work: *const Work<'static> = unsafe { std::mem::transmute(work) };
            self.publish(Some(Task { work, caller: thread::current() }));
        }
        let own = catch_unwind(AssertUnwindSafe(|| work(0, &mut self.own)));
        if !look(|| self.shared.running.load(Ordering::Acquire) == 0) {
            while self.shared.running.load(Ordering::Acquire) != 0 {
                thread::park();
            }
        }
        let helpers = self.shared.panic.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(panic) = own.err().or(helpers) {
            resume_unwind(panic);
        }
    }

    /// Gives each worker its share of `parts`.
    pub fn each<P: Send>(&mut self, parts: Vec<P>, work: impl Fn(P, &mut Scratch) + Sync) {
        if parts.len() <= 1 {
            parts.into_iter().for_each(|part| work(part, &mut self.own));
            return;
        }
        let workers = self.workers();
        let parts: Vec<Mutex<Option<P>>> = parts.into_iter().map(|p| Mutex::new(Some(p))).collect();
        self.run(|worker, scratch| {
            for part in parts.iter().skip(worker).step_by(workers) {
                let part = part.lock().unwrap_or_else(PoisonError::into_inner).take();
                if let Some(part) = part {
                    work(part, scratch);
                }
            }
        });
    }

    /// Calls `work` with every one of `count` rows and its index, the workers sharing them out in
    /// runs of neighbours.
    pub fn rows<R: Rows>(
        &mut self,
        count: usize,
        mut rows: R,
        work: impl Fn(usize, R::Row, &mut Scratch) + Sync,
    ) {
        let parts = self.workers().min(count);
        let mut runs = Vec::with_capacity(parts);
        for part in 0..parts {
            let (start, end) = (share(count, part, parts), share(count, part + 1, parts));
            let (run, rest) = rows.split(end - start);
            rows = rest;
            runs.push((start, run));
        }
        self.each(runs, |(start, mut run), scratch| {
            let mut index = start;
            while let Some(row) = run.next_row() {
                work(index, row, scratch);
                index += 1;
            }
        });
    }

    fn publish(&mut self, task: Option<Task>) {
        // SAFETY: `&mut self` and the wait at the end of `run` mean that `running` is zero: no helper
        // reads the task until the generation changes, below.
        unsafe { *self.shared.task.get() = task };
        self.shared.running.store(self.helpers.len(), Ordering::Relaxed);
        // Sequentially consistent with the helpers' stores to `parked`: either a helper sees the new
        // generation after it said that it parks, or we see that it does.
        self.shared.generation.fetch_add(1, Ordering::SeqCst);
        for (parked, helper) in self.shared.parked.iter().zip(&self.helpers) {
            if parked.swap(false, Ordering::SeqCst) {
                helper.thread().unpark();
            }
        }
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.publish(None);
        for helper in self.helpers.drain(..) {
            // A helper catches the panics of its tasks, so there is nothing to hear of here.
            let _ = helper.join();
        }
    }
}

impl Shared {
    fn serve(&self, helper: usize) {
        let mut scratch = Scratch::default();
        let mut seen = 0;
        loop {
            seen = self.wait(helper, seen);
            // SAFETY: the generation has changed, so the task is published, and it is not written
            // again before this helper has taken itself off `running`.
            let Some(task) = (unsafe { (*self.task.get()).clone() }) else { return };
            // SAFETY: see `Pool::run`: the caller keeps the work alive until `running` is zero.
            let work = unsafe { &*task.work };
            if let Err(panic) = catch_unwind(AssertUnwindSafe(|| work(helper + 1, &mut scratch))) {
                self.panic.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(panic);
            }
            if self.running.fetch_sub(1, Ordering::AcqRel) == 1 {
                task.caller.unpark();
            }
        }
    }

    /// Waits for a generation other than `seen` and returns it.
    fn wait(&self, helper: usize, seen: usize) -> usize {
        look(|| self.generation.load(Ordering::Acquire) != seen);
        loop {
            self.parked[helper].store(true, Ordering::SeqCst);
            let now = self.generation.load(Ordering::SeqCst);
            if now != seen {
                self.parked[helper].store(false, Ordering::SeqCst);
                return now;
            }
            thread::park();
        }
    }
}

/// Looks again and again, for a while. Says whether it came true.
fn look(is_true: impl Fn() -> bool) -> bool {
    for looked in 0..LOOKS {
        if is_true() {
            return true;
        }
        if looked % LOOKS_ALONE == LOOKS_ALONE - 1 {
            thread::yield_now()
        } else {
            hint::spin_loop()
        }
    }
    false
}

/// Where part `part` of `parts` begins in `count` things.
pub fn share(count: usize, part: usize, parts: usize) -> usize {
    count * part / parts
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::split::RowsMut;
    use ds4_host::cores;

    #[test]
    fn every_row_is_visited_once_whatever_the_number_of_workers() {
        for workers in [1, 2, 3, 7] {
            let mut pool = Pool::new(workers, &[]).unwrap();
            for count in [0, 1, 2, 6, 100] {
                let mut data = vec![0u32; count * 3];
                pool.rows(count, RowsMut::new(&mut data, 3), |index, row, _| {
                    row.iter_mut().for_each(|x| *x += index as u32 + 1);
                });
                let want: Vec<u32> = (0..count as u32).flat_map(|i| [i + 1; 3]).collect();
                assert_eq!(data, want);
            }
        }
    }

    #[test]
    fn parked_helpers_wake_again() {
        let mut pool = Pool::new(3, &cores()).unwrap();
        let total = AtomicUsize::new(0);
        for round in 0..20 {
            if round % 5 == 0 {
                thread::sleep(std::time::Duration::from_millis(3));
            }
            pool.run(|worker, _| {
                total.fetch_add(worker, Ordering::Relaxed);
            });
        }
        assert_eq!(total.into_inner(), 20 * 3);
    }

    #[test]
    fn a_panic_reaches_the_caller_and_the_pool_lives_on() {
        let mut pool = Pool::new(2, &cores()).unwrap();
        for culprit in [0, 1] {
            let caught = catch_unwind(AssertUnwindSafe(|| {
                pool.run(|worker, _| assert_ne!(worker, culprit, "planted"));
            }));
            assert!(caught.is_err());
        }
        let ran = AtomicUsize::new(0);
        pool.run(|_, _| {
            ran.fetch_add(1, Ordering::Relaxed);
        });
        assert_eq!(ran.into_inner(), 2);
    }
}
