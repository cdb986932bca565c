//! A small persistent thread pool: tasks are claimed from a counter, so a slow core takes fewer of them. What a task
//! computes never depends on who runs it.
#![allow(unsafe_code)]

use std::marker::PhantomData;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};

/// Polls before a worker sleeps, and before the caller gives its core away. A decode step leaves gaps of a few
/// microseconds between parallel regions; waking a sleeping thread costs about 50.
const SPINS: u32 = 20_000;
/// The same when there are more threads than cores: who polls then keeps somebody from working.
const SPINS_OVERSUBSCRIBED: u32 = 50;

/// Multiply-adds below which a region runs on the caller alone: about 15 microseconds, what waking and waiting costs on a
/// machine that has other things to do.
pub const WORTH_SHARING: usize = 256 << 10;

type Task = dyn Fn(usize) + Sync;

/// What is done with the `i`-th chunks of two arrays.
pub type PairTask<'a, A, B> = dyn Fn(usize, &mut [A], &mut [B]) + Sync + 'a;

/// What caller and workers share. A worker may only follow a task's pointer between a claim and the end of what it
/// claimed: `run` returns when every task is done, and does not wait for workers that never claimed one. So a worker that
/// was put aside by the system delays nobody.
struct Shared {
    /// The latest job; its number is the epoch.
    job: Mutex<Job>,
    /// The epoch in the upper half, the next unclaimed task in the lower.
    tickets: AtomicU64,
    /// Tasks of the latest job that have returned.
    done: AtomicUsize,
    panicked: AtomicBool,
    stop: AtomicBool,
    spins: u32,
}

#[derive(Clone, Copy)]
struct Job {
    epoch: u32,
    n_tasks: u32,
    task: Option<TaskPointer>,
}

#[derive(Clone, Copy)]
struct TaskPointer(*const Task);

// SAFETY:
// - The pointee is `Sync`, and `run` keeps it alive while anybody may follow the pointer.
unsafe impl Send for TaskPointer {}

/// `n_threads - 1` workers and the caller.
pub struct ThreadPool {
    shared: Arc<Shared>,
    workers: Vec<JoinHandle<()>>,
    /// One `run` at a time: sessions that share the pool queue here.
    turn: Mutex<()>,
}

impl ThreadPool {
    /// Starts the workers. `n_threads` counts the caller; at least 1.
    pub fn new(n_threads: usize) -> std::io::Result<Self> {
        let n_cores = thread::available_parallelism().map_or(1, |n| n.get());
        let shared = Arc::new(Shared {
            job: Mutex::new(Job { epoch: 0, n_tasks: 0, task: None }),
            tickets: AtomicU64::new(0),
            done: AtomicUsize::new(0),
            panicked: AtomicBool::new(false),
            stop: AtomicBool::new(false),
            spins: if n_threads <= n_cores { SPINS } else { SPINS_OVERSUBSCRIBED },
        });
        let mut pool = ThreadPool { shared, workers: Vec::new(), turn: Mutex::new(()) };
        for i in 1..n_threads.max(1) {
            let shared = pool.shared.clone();
            let worker = thread::Builder::new().name(format!("lichen-{i}")).spawn(move || work(&shared))?;
            pool.workers.push(worker);
        }
        Ok(pool)
    }

    pub fn n_threads(&self) -> usize {
        self.workers.len() + 1
    }

    /// [`ThreadPool::run`] when the work is worth waking others for, else a plain loop.
    pub fn run_if(&self, worth_it: bool, n_tasks: usize, task: &(dyn Fn(usize) + Sync)) {
        if worth_it {
            self.run(n_tasks, task);
        } else {
            (0..n_tasks).for_each(task);
        }
    }

    /// Cuts `data` into chunks of `chunk_len` (the last may be shorter) and calls `task(i, chunk)` for each, on all threads.
    pub fn for_chunks<T: Send>(&self, data: &mut [T], chunk_len: usize, task: &(dyn Fn(usize, &mut [T]) + Sync)) {
        let (n, parts) = (data.len(), Disjoint::new(data));
        self.run(n.div_ceil(chunk_len), &|i| {
            let start = i * chunk_len;
            // SAFETY:
            // - Each task number is used once, and chunks are disjoint.
            task(i, unsafe { parts.part(start, chunk_len.min(n - start)) });
        });
    }

    /// The same for two arrays cut into equally many chunks, on all threads when that is worth it.
    pub fn for_chunk_pairs<A: Send, B: Send>(
        &self,
        worth_it: bool,
        (a, a_len): (&mut [A], usize),
        (b, b_len): (&mut [B], usize),
        task: &PairTask<'_, A, B>,
    ) {
        let (a_total, b_total) = (a.len(), b.len());
        assert_eq!(a_total.div_ceil(a_len), b_total.div_ceil(b_len));
        let (a, b) = (Disjoint::new(a), Disjoint::new(b));
        self.run_if(worth_it, a_total.div_ceil(a_len), &|i| {
            let (a_start, b_start) = (i * a_len, i * b_len);
            // SAFETY:
            // - Each task number is used once, and chunks of one array are disjoint.
            let (a, b) = unsafe {
                (a.part(a_start, a_len.min(a_total - a_start)), b.part(b_start, b_len.min(b_total - b_start)))
            };
            task(i, a, b);
        });
    }

    /// Calls `task(i)` once for each `i < n_tasks`, on all threads, and returns when all have returned.
    /// A panic in a task is raised again here.
    pub fn run(&self, n_tasks: usize, task: &(dyn Fn(usize) + Sync)) {
        if self.workers.is_empty() || n_tasks <= 1 {
            (0..n_tasks).for_each(task);
            return;
        }
        let n_tasks = u32::try_from(n_tasks).expect("fewer than 2^32 tasks");
        let turn = self.turn.lock().unwrap_or_else(|e| e.into_inner());
        let shared = &*self.shared;
        // SAFETY:
        // - The lifetime is erased for the time of this call only: `run` returns when `done` has reached `n_tasks`, and
        //   nobody follows the pointer without a claim on one of them.
        let erased: *const Task = unsafe { std::mem::transmute::<*const (dyn Fn(usize) + Sync), *const Task>(task) };
        let job = {
            let mut latest = shared.job.lock().unwrap_or_else(|e| e.into_inner());
            *latest = Job { epoch: latest.epoch.wrapping_add(1), n_tasks, task: Some(TaskPointer(erased)) };
            *latest
        };
        shared.done.store(0, Ordering::Relaxed);
        shared.tickets.store((job.epoch as u64) << 32, Ordering::Release);
        for worker in &self.workers {
            worker.thread().unpark();
        }
        let mut own_panic = None;
        while let Some(i) = shared.claim(&job) {
            let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| task(i)));
            own_panic = own_panic.or(result.err());
            shared.done.fetch_add(1, Ordering::Release);
        }
        shared.wait_until_done(n_tasks as usize);
        let panicked = shared.panicked.swap(false, Ordering::Relaxed);
        drop(turn);
        if let Some(payload) = own_panic {
            std::panic::resume_unwind(payload);
        }
        assert!(!panicked, "a task of the thread pool panicked");
    }
}

impl Drop for ThreadPool {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Release);
        for worker in self.workers.drain(..) {
            worker.thread().unpark();
            // Workers catch what their tasks raise; `run` has reported it.
            let _ = worker.join();
        }
    }
}

impl Shared {
    /// The next task of `job`; `None` when all are claimed or another job has begun.
    fn claim(&self, job: &Job) -> Option<usize> {
        let mut ticket = self.tickets.load(Ordering::Acquire);
        loop {
            let (epoch, next) = ((ticket >> 32) as u32, ticket as u32);
            if epoch != job.epoch || next >= job.n_tasks {
                return None;
            }
            match self.tickets.compare_exchange_weak(ticket, ticket + 1, Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => return Some(next as usize),
                Err(current) => ticket = current,
            }
        }
    }

    fn wait_until_done(&self, n_tasks: usize) {
        let mut spins = 0;
        while self.done.load(Ordering::Acquire) != n_tasks {
            spins += 1;
            if spins < self.spins {
                std::hint::spin_loop();
            } else {
                thread::yield_now();
            }
        }
    }
}

fn work(shared: &Shared) {
    let mut seen = 0;
    loop {
        let mut spins = 0;
        let epoch = loop {
            let epoch = (shared.tickets.load(Ordering::Acquire) >> 32) as u32;
            if epoch != seen {
                break epoch;
            }
            if shared.stop.load(Ordering::Acquire) {
                return;
            }
            spins += 1;
            if spins < shared.spins {
                std::hint::spin_loop();
            } else {
                thread::park();
            }
        };
        seen = epoch;
        let job = *shared.job.lock().unwrap_or_else(|e| e.into_inner());
        // A later job than the one announced will be announced too.
        let Some(TaskPointer(task)) = job.task.filter(|_| job.epoch == epoch) else { continue };
        while let Some(i) = shared.claim(&job) {
            // SAFETY:
            // - The claim holds `run` back until this task is counted as done, so the pointee is alive.
            let task = unsafe { &*task };
            if std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| task(i))).is_err() {
                shared.panicked.store(true, Ordering::Relaxed);
            }
            shared.done.fetch_add(1, Ordering::Release);
        }
    }
}

/// A slice whose disjoint parts are written by different tasks.
pub struct Disjoint<'a, T> {
    pointer: *mut T,
    len: usize,
    marker: PhantomData<&'a mut [T]>,
}

// SAFETY:
// - Parts handed out by `part` never overlap (its contract), so sharing the handle shares no element.
unsafe impl<T: Send> Sync for Disjoint<'_, T> {}

impl<'a, T> Disjoint<'a, T> {
    pub fn new(data: &'a mut [T]) -> Self {
        Disjoint { pointer: data.as_mut_ptr(), len: data.len(), marker: PhantomData }
    }

    /// The elements `start..start + len`; panics outside the slice.
    ///
    /// # Safety
    /// - No two parts that are alive at once may overlap.
    #[allow(clippy::mut_from_ref)]
    pub unsafe fn part(&self, start: usize, len: usize) -> &mut [T] {
        assert!(start.checked_add(len).is_some_and(|end| end <= self.len), "part {start}+{len} of {}", self.len);
        // SAFETY:
        // - The range lies inside the slice borrowed for 'a: asserted above.
        // - No other reference to it exists: the caller's promise.
        unsafe { std::slice::from_raw_parts_mut(self.pointer.add(start), len) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_task_runs_once_for_any_number_of_threads() {
        for n_threads in [1, 2, 3, 5] {
            let pool = ThreadPool::new(n_threads).unwrap();
            for n_tasks in [0, 1, 2, 7, 1000] {
                let counts: Vec<AtomicUsize> = (0..n_tasks).map(|_| AtomicUsize::new(0)).collect();
                pool.run(n_tasks, &|i| {
                    counts[i].fetch_add(1, Ordering::Relaxed);
                });
                assert!(counts.iter().all(|c| c.load(Ordering::Relaxed) == 1), "{n_threads} threads, {n_tasks} tasks");
            }
        }
    }

    #[test]
    fn a_panic_in_a_task_reaches_the_caller_and_the_pool_still_works() {
        let pool = ThreadPool::new(2).unwrap();
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            pool.run(8, &|i| assert!(i != 5, "task 5"));
        }));
        assert!(result.is_err());
        let sum = AtomicUsize::new(0);
        pool.run(10, &|i| {
            sum.fetch_add(i, Ordering::Relaxed);
        });
        assert_eq!(sum.load(Ordering::Relaxed), 45);
    }
}
