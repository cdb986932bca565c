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

/// The job of one [`ThreadPool::run`]; the pointer is only followed between its publication and the last arrival.
struct Job {
    task: Mutex<Option<TaskPointer>>,
    n_tasks: AtomicUsize,
    next: AtomicUsize,
    /// Workers that have not yet finished this epoch.
    running: AtomicUsize,
    epoch: AtomicU64,
    panicked: AtomicBool,
    stop: AtomicBool,
    spins: u32,
}

#[derive(Clone, Copy)]
struct TaskPointer(*const Task);

// SAFETY:
// - The pointee is `Sync`, and `run` keeps it alive until every worker has arrived.
unsafe impl Send for TaskPointer {}

/// `n_threads - 1` workers and the caller.
pub struct ThreadPool {
    job: Arc<Job>,
    workers: Vec<JoinHandle<()>>,
    /// One `run` at a time: sessions that share the pool queue here.
    turn: Mutex<()>,
}

impl ThreadPool {
    /// Starts the workers. `n_threads` counts the caller; at least 1.
    pub fn new(n_threads: usize) -> std::io::Result<Self> {
        let n_cores = thread::available_parallelism().map_or(1, |n| n.get());
        let job = Arc::new(Job {
            task: Mutex::new(None),
            n_tasks: AtomicUsize::new(0),
            next: AtomicUsize::new(0),
            running: AtomicUsize::new(0),
            epoch: AtomicU64::new(0),
            panicked: AtomicBool::new(false),
            stop: AtomicBool::new(false),
            spins: if n_threads <= n_cores { SPINS } else { SPINS_OVERSUBSCRIBED },
        });
        let mut pool = ThreadPool { job, workers: Vec::new(), turn: Mutex::new(()) };
        for i in 1..n_threads.max(1) {
            let job = pool.job.clone();
            let worker = thread::Builder::new().name(format!("lichen-{i}")).spawn(move || work(&job))?;
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

    /// Calls `task(i)` once for each `i < n_tasks`, on all threads, and returns when all have returned.
    /// A panic in a task is raised again here.
    pub fn run(&self, n_tasks: usize, task: &(dyn Fn(usize) + Sync)) {
        if self.workers.is_empty() || n_tasks <= 1 {
            (0..n_tasks).for_each(task);
            return;
        }
        let turn = self.turn.lock().unwrap_or_else(|e| e.into_inner());
        let job = &*self.job;
        // SAFETY:
        // - The lifetime is erased for the time of this call only: below, `run` waits until `running` is 0, and a
        //   worker does not touch the pointer after it has lowered `running`.
        let erased: *const Task = unsafe { std::mem::transmute::<*const (dyn Fn(usize) + Sync), *const Task>(task) };
        *job.task.lock().unwrap_or_else(|e| e.into_inner()) = Some(TaskPointer(erased));
        job.n_tasks.store(n_tasks, Ordering::Relaxed);
        job.next.store(0, Ordering::Relaxed);
        job.running.store(self.workers.len(), Ordering::Relaxed);
        job.epoch.fetch_add(1, Ordering::Release);
        for worker in &self.workers {
            worker.thread().unpark();
        }
        let own = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| claim_tasks(job, task)));
        wait_for_workers(job);
        let panicked = job.panicked.swap(false, Ordering::Relaxed);
        drop(turn);
        if let Err(payload) = own {
            std::panic::resume_unwind(payload);
        }
        assert!(!panicked, "a task of the thread pool panicked");
    }
}

impl Drop for ThreadPool {
    fn drop(&mut self) {
        self.job.stop.store(true, Ordering::Relaxed);
        self.job.epoch.fetch_add(1, Ordering::Release);
        for worker in self.workers.drain(..) {
            worker.thread().unpark();
            // A worker that panicked has already been reported by `run`.
            let _ = worker.join();
        }
    }
}

fn claim_tasks(job: &Job, task: &(dyn Fn(usize) + Sync)) {
    let n_tasks = job.n_tasks.load(Ordering::Relaxed);
    loop {
        let i = job.next.fetch_add(1, Ordering::Relaxed);
        if i >= n_tasks {
            return;
        }
        task(i);
    }
}

fn wait_for_workers(job: &Job) {
    let mut spins = 0;
    while job.running.load(Ordering::Acquire) != 0 {
        spins += 1;
        if spins < job.spins {
            std::hint::spin_loop();
        } else {
            thread::yield_now();
        }
    }
}

fn work(job: &Job) {
    let mut seen = 0;
    loop {
        let mut spins = 0;
        while job.epoch.load(Ordering::Acquire) == seen {
            spins += 1;
            if spins < job.spins {
                std::hint::spin_loop();
            } else {
                thread::park();
            }
        }
        // `run` waits for every worker before it starts the next epoch, so none is missed.
        seen = job.epoch.load(Ordering::Acquire);
        if job.stop.load(Ordering::Relaxed) {
            return;
        }
        let task = *job.task.lock().unwrap_or_else(|e| e.into_inner());
        if let Some(TaskPointer(task)) = task {
            // SAFETY:
            // - `run` published the pointer before it raised the epoch and waits for `running` to reach 0.
            let task = unsafe { &*task };
            let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| claim_tasks(job, task)));
            if result.is_err() {
                job.panicked.store(true, Ordering::Relaxed);
            }
        }
        job.running.fetch_sub(1, Ordering::Release);
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
