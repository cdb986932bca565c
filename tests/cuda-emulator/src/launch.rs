//! A launch: a kernel, its arguments, and the blocks spread over a few threads of the system.
//!
//! One launch runs at a time and the caller runs blocks itself; the helpers join when there is more than one block.

use std::ffi::c_void;
use std::ptr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread;

use crate::block::{self, Worker};
use crate::environment::environment;
use crate::error::{Error, Result};
use crate::fault;
use crate::foreign::Kernel;
use crate::order::{Random, Walk};

pub struct Launch {
    pub kernel: &'static Kernel,
    pub grid: [u32; 3],
    pub block: u32,
    pub shared_bytes: u32,
    /// Of static and dynamic shared memory together.
    pub shared_limit: u32,
    /// Each parameter in whole words of eight bytes; `pointers` point into it.
    _words: Box<[u64]>,
    pointers: Box<[*const c_void]>,
}

// SAFETY:
// - The pointers point to the launch's own words, which nothing changes.
unsafe impl Send for Launch {}
// SAFETY:
// - As above.
unsafe impl Sync for Launch {}

impl Launch {
    /// Copies the parameters: `params` has one pointer for each of the kernel's.
    pub unsafe fn new(
        kernel: &'static Kernel,
        params: *const *const c_void,
        shape: [u32; 5],
        shared_limit: u32,
    ) -> Self {
        let bytes = kernel.param_bytes();
        let n_words = bytes.iter().map(|b| (*b as usize).div_ceil(8)).sum();
        let mut words = vec![0u64; n_words].into_boxed_slice();
        let mut pointers = Vec::new();
        let mut at = 0;
        for (i, bytes) in bytes.iter().map(|b| *b as usize).enumerate() {
            let word: *mut u8 = words[at..].as_mut_ptr().cast();
            // SAFETY:
            // - By the contract there is a parameter of this size, and the words were counted above.
            unsafe { ptr::copy_nonoverlapping((*params.add(i)).cast::<u8>(), word, bytes) };
            pointers.push(word as *const c_void);
            at += bytes.div_ceil(8);
        }
        let [x, y, z, block, shared_bytes] = shape;
        let pointers = pointers.into_boxed_slice();
        Launch { kernel, grid: [x, y, z], block, shared_bytes, shared_limit, _words: words, pointers }
    }

    pub fn params(&self) -> *const *const c_void {
        self.pointers.as_ptr()
    }

    fn n_blocks(&self) -> u64 {
        self.grid.iter().map(|n| u64::from(*n)).product()
    }
}

/// A launch that is being run.
struct Job {
    launch: Arc<Launch>,
    walk: Walk,
    seed: u64,
    next: AtomicU64,
    faulted: AtomicBool,
}

impl Job {
    /// Runs blocks until none are left.
    fn work(&self, worker: &mut Worker) {
        fault::prepare_thread(worker);
        let [nx, ny, _] = self.launch.grid.map(u64::from);
        while !self.faulted.load(Ordering::Relaxed) {
            let i = self.next.fetch_add(1, Ordering::Relaxed);
            if i >= self.launch.n_blocks() {
                break;
            }
            let at = self.walk.at(i);
            let index = [at % nx, at / nx % ny, at / nx / ny].map(|v| v as u32);
            let seed = self.seed ^ at.wrapping_mul(0x9e37_79b9_7f4a_7c15);
            // SAFETY:
            // - The worker is this thread's; parameters were held against the kernel when the launch was made.
            if unsafe { block::run(worker, &self.launch, index, seed) }.is_err() {
                self.faulted.store(true, Ordering::Relaxed);
            }
        }
        fault::leave_thread();
    }
}

/// What helpers wait for.
#[derive(Default)]
struct Board {
    job: Option<Arc<Job>>,
    number: u64,
    n_working: usize,
}

#[derive(Default)]
struct Pool {
    board: Mutex<Board>,
    posted: Condvar,
    finished: Condvar,
}

/// The worker of whoever launches, and with it the right to launch.
struct Turn {
    worker: Box<Worker>,
    pool: Option<Arc<Pool>>,
    n_launches: u64,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Runs a launch to its end.
pub fn run(launch: &Arc<Launch>) -> Result<()> {
    static TURN: OnceLock<Mutex<Turn>> = OnceLock::new();
    let turn = TURN.get_or_init(|| Mutex::new(Turn { worker: Worker::new(), pool: None, n_launches: 0 }));
    let mut turn = lock(turn);
    turn.n_launches += 1;
    let seed = environment().seed.wrapping_mul(0x1000_0000_01b3) ^ turn.n_launches.wrapping_mul(0xd134_2543_de82_ef95);
    let walk = Walk::new(&mut Random::new(seed), launch.n_blocks());
    let (next, faulted) = (AtomicU64::new(0), AtomicBool::new(false));
    let job = Arc::new(Job { launch: launch.clone(), walk, seed, next, faulted });
    let pool = (launch.n_blocks() > 1 && environment().n_threads > 1)
        .then(|| turn.pool.get_or_insert_with(start_helpers).clone());
    if let Some(pool) = &pool {
        let mut board = lock(&pool.board);
        board.job = Some(job.clone());
        board.number += 1;
        pool.posted.notify_all();
    }
    job.work(&mut turn.worker);
    if let Some(pool) = &pool {
        let mut board = lock(&pool.board);
        board.job = None;
        while board.n_working > 0 {
            board = pool.finished.wait(board).unwrap_or_else(PoisonError::into_inner);
        }
    }
    if job.faulted.load(Ordering::Relaxed) {
        return Err(fault::last().unwrap_or(Error::LAUNCH_FAILED));
    }
    Ok(())
}

fn start_helpers() -> Arc<Pool> {
    let pool = Arc::new(Pool::default());
    for _ in 1..environment().n_threads {
        let pool = pool.clone();
        thread::spawn(move || help(&pool));
    }
    pool
}

fn help(pool: &Pool) {
    let mut worker = Worker::new();
    let mut seen = 0;
    let mut board = lock(&pool.board);
    loop {
        let job = board.job.clone().filter(|_| board.number != seen);
        let Some(job) = job else {
            board = pool.posted.wait(board).unwrap_or_else(PoisonError::into_inner);
            continue;
        };
        seen = board.number;
        board.n_working += 1;
        drop(board);
        job.work(&mut worker);
        board = lock(&pool.board);
        board.n_working -= 1;
        if board.n_working == 0 {
            pool.finished.notify_all();
        }
    }
}
