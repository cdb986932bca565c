//! One block: its threads, their barriers and the collectives of its warps.
//!
//! Threads are fibers of one thread of the system, so nothing here is shared between threads. A thread that must wait gives
//! the processor back to [`run`]; the last to arrive releases the others in a drawn order and goes on. What a GPU would hang
//! on, or leave undefined, ends the process with a sentence: which kernel, block and thread, and what they wait for.

use std::ffi::{c_char, c_void, CStr};
use std::ptr;

use crate::copies::Copies;
use crate::fiber::{switch, Fibers, Place, N_MAX};
use crate::foreign::{self, Calls, Collective, Head};
use crate::launch::Launch;
use crate::order::{Random, Ready};
use crate::shared::Shared;

mod report;

pub use report::place_of;
use report::{check_whole, deadlock, fail, fail_late, fail_mixed};

const WARP: u32 = 32;
const NOBODY: u32 = u32::MAX;

/// A CUDA thread.
#[repr(C)]
pub struct Thread {
    /// What the kernel sees.
    head: Head,
    pub invoke: unsafe extern "C" fn(*const *const c_void),
    pub params: *const *const c_void,
    /// Where its fiber goes on.
    at: Place,
    worker: *mut Worker,
    state: State,
    copies: Copies,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Running,
    AtBarrier,
    AtCollective,
    Exited,
}

struct Warp {
    n_arrived: u32,
    collective: *const Collective,
    slots: [*mut c_void; WARP as usize],
}

/// What one thread of the system needs to run blocks.
pub struct Worker {
    threads: Vec<Thread>,
    fibers: Fibers,
    /// Where [`run`] goes on, when no thread can or one faulted.
    below: Place,
    has_faulted: bool,
    /// [`foreign::thread_slot`] of the thread of the system that runs the block.
    slot: *mut *mut Head,
    pub shared: Shared,
    block: foreign::Block,
    warps: Vec<Warp>,
    ready: Ready,
    random: Random,
    n_at_barrier: u32,
    n_exited: u32,
    shared_limit: usize,
    pub kernel: &'static str,
}

// SAFETY:
// - A worker is used by one thread at a time, and between blocks no fiber holds anything of the thread it ran on.
unsafe impl Send for Worker {}

/// The table for the compiled kernels.
pub fn calls() -> Calls {
    Calls { sync_block, warp, shared, copy_async, copy_async_commit, copy_async_wait }
}

impl Worker {
    pub fn new() -> Box<Self> {
        let none = ptr::null_mut();
        let block = foreign::Block {
            dim: 0,
            index: [0; 3],
            grid: [0; 3],
            dynamic_bytes: 0,
            dynamic_shared: none,
            shared_base: none,
        };
        let warp = || Warp { n_arrived: 0, collective: ptr::null(), slots: [ptr::null_mut(); WARP as usize] };
        let mut worker = Box::new(Worker {
            threads: Vec::with_capacity(N_MAX),
            fibers: Fibers::new(),
            below: ptr::null_mut(),
            has_faulted: false,
            slot: ptr::null_mut(),
            shared: Shared::new(),
            block,
            warps: (0..N_MAX / WARP as usize).map(|_| warp()).collect(),
            ready: Ready::new(),
            random: Random::new(0),
            n_at_barrier: 0,
            n_exited: 0,
            shared_limit: 0,
            kernel: "",
        });
        let me: *mut Worker = &mut *worker;
        for index in 0..N_MAX as u32 {
            worker.threads.push(Thread {
                head: Head { index, reserved: 0, block: ptr::null() },
                invoke: nothing,
                params: ptr::null(),
                at: ptr::null_mut(),
                worker: me,
                state: State::Exited,
                copies: Copies::default(),
            });
        }
        worker
    }

    /// True for an address below the stack of a fiber.
    pub fn is_guard(&self, address: usize) -> bool {
        self.fibers.is_guard(address)
    }

    fn begin(&mut self, launch: &Launch, index: [u32; 3], seed: u64) {
        let n = launch.block;
        // SAFETY:
        // - The threads of this worker.
        self.fibers.reserve(n as usize, self.threads.as_mut_ptr(), |thread, at| unsafe { (*thread).at = at });
        (self.slot, self.has_faulted) = (foreign::thread_slot(), false);
        self.block = foreign::Block {
            dim: n,
            index,
            grid: launch.grid,
            dynamic_bytes: launch.shared_bytes,
            dynamic_shared: self.shared.begin(launch.shared_bytes as usize),
            shared_base: self.shared.base(),
        };
        (self.n_at_barrier, self.n_exited, self.kernel) = (0, 0, launch.kernel.name());
        self.shared_limit = launch.shared_limit as usize;
        self.random = Random::new(seed);
        let block: *const foreign::Block = &self.block;
        for thread in &mut self.threads[..n as usize] {
            thread.head.block = block;
            thread.invoke = launch.kernel.invoke;
            thread.params = launch.params();
            thread.state = State::Running;
            thread.copies.clear();
        }
        for warp in &mut self.warps[..n.div_ceil(WARP) as usize] {
            warp.n_arrived = 0;
        }
        self.ready.clear();
        self.ready.push_block(&mut self.random, n, NOBODY);
    }
}

unsafe extern "C" fn nothing(_: *const *const c_void) {}

/// A signal stopped a thread of the block.
pub struct Faulted;

/// Runs a block to its end.
///
/// # Safety
/// `worker` is this thread's alone, and the launch's parameters are what its kernel wants.
pub unsafe fn run(worker: *mut Worker, launch: &Launch, index: [u32; 3], seed: u64) -> Result<(), Faulted> {
    // SAFETY:
    // - By the contract. Fibers reach the worker's fields through the same pointer, so no reference to any of it is held
    //   across the switch.
    unsafe {
        (*worker).begin(launch, index, seed);
        let first = next(worker);
        switch(&raw mut (*worker).below, first);
        *(*worker).slot = ptr::null_mut();
        if (*worker).has_faulted {
            (*worker).fibers.abandon();
            return Err(Faulted);
        }
        if (*worker).n_exited != launch.block {
            fail(ptr::null_mut(), worker, &deadlock(&*worker));
        }
        if (*worker).shared.is_overrun() {
            fail(ptr::null_mut(), worker, "a write behind the end of a shared array");
        }
    }
    Ok(())
}

/// Takes a thread that may run and gives its place; the place of [`run`] when there is none.
#[inline(always)]
unsafe fn next(worker: *mut Worker) -> Place {
    // SAFETY:
    // - The worker is this thread's own.
    unsafe {
        match (*worker).ready.pop() {
            Some(i) => {
                let thread = (*worker).threads.as_mut_ptr().add(usize::from(i));
                (*thread).state = State::Running;
                *(*worker).slot = thread.cast();
                (*thread).at
            }
            None => (*worker).below,
        }
    }
}

/// Lets others run until one of them releases this thread.
#[inline(always)]
unsafe fn wait(thread: *mut Thread, worker: *mut Worker, state: State) {
    // SAFETY:
    // - The thread runs here; what is ready waits at its place, and so does `run`.
    unsafe {
        (*thread).state = state;
        let to = next(worker);
        switch(&raw mut (*thread).at, to);
    }
}

/// A signal handler led the thread here: it is left where it is.
pub unsafe fn give_up(thread: *mut Thread) {
    // SAFETY:
    // - The thread runs here, and `run` waits.
    unsafe {
        let worker = (*thread).worker;
        (*worker).has_faulted = true;
        switch(&raw mut (*thread).at, (*worker).below);
    }
}

/// The thread returned from its kernel. Comes back when the thread was set up for another block.
pub unsafe fn exit(thread: *mut Thread) {
    // SAFETY:
    // - The thread and its worker are alive, and this thread of the system is theirs.
    unsafe {
        let worker = (*thread).worker;
        (*worker).n_exited += 1;
        if (*worker).n_at_barrier > 0 {
            fail(
                thread,
                worker,
                &format!("left the kernel while {} threads wait at sync_block", (*worker).n_at_barrier),
            );
        }
        let warp = (*worker).warps.as_ptr().add(((*thread).head.index / WARP) as usize);
        if (*warp).n_arrived > 0 {
            let name = (*(*warp).collective).name();
            fail(thread, worker, &format!("left the kernel while lanes of its warp wait at {name}"));
        }
        wait(thread, worker, State::Exited);
    }
}

unsafe extern "C" fn sync_block(head: *mut Head) {
    let thread: *mut Thread = head.cast();
    // SAFETY:
    // - Kernels pass the thread that runs, whose worker is this thread's own.
    unsafe {
        let worker = (*thread).worker;
        if (*worker).n_exited > 0 {
            fail_late(thread, worker);
        }
        (*worker).n_at_barrier += 1;
        if (*worker).n_at_barrier < (*worker).block.dim {
            return wait(thread, worker, State::AtBarrier);
        }
        (*worker).n_at_barrier = 0;
        let (n, me) = ((*worker).block.dim, (*thread).head.index);
        (*worker).ready.push_block(&mut (*worker).random, n, me);
    }
}

unsafe extern "C" fn warp(head: *mut Head, collective: *const Collective, slot: *mut c_void) {
    let thread: *mut Thread = head.cast();
    // SAFETY:
    // - Kernels pass the thread that runs, whose worker is this thread's own. A slot lives in the frame of a lane that waits.
    unsafe {
        let worker = (*thread).worker;
        let index = (*thread).head.index;
        let warp: *mut Warp = (*worker).warps.as_mut_ptr().add((index / WARP) as usize);
        if (*warp).n_arrived == 0 {
            (*warp).collective = collective;
            if (*worker).n_exited > 0 || !(*worker).block.dim.is_multiple_of(WARP) {
                check_whole(thread, worker, collective);
            }
        } else if (*warp).collective != collective {
            fail_mixed(thread, worker, collective, (*warp).collective);
        }
        (*warp).slots[(index % WARP) as usize] = slot;
        (*warp).n_arrived += 1;
        if (*warp).n_arrived < WARP {
            return wait(thread, worker, State::AtCollective);
        }
        (*warp).n_arrived = 0;
        ((*collective).combine)((*warp).slots.as_ptr());
        (*worker).ready.push_warp(&mut (*worker).random, index & !(WARP - 1), WARP, index);
    }
}

unsafe extern "C" fn shared(head: *mut Head, site: *const c_void, name: *const c_char, bytes: u64) -> *mut u8 {
    let thread: *mut Thread = head.cast();
    // SAFETY:
    // - Kernels pass the thread that runs; the name is a literal.
    unsafe {
        let worker = (*thread).worker;
        let limit = (*worker).shared_limit;
        match (*worker).shared.array(site, bytes as usize, limit) {
            Ok(array) => array,
            Err(what) => fail(thread, worker, &format!("{}: {what}", CStr::from_ptr(name).to_string_lossy())),
        }
    }
}

unsafe extern "C" fn copy_async(head: *mut Head, to: *mut c_void, from: *const c_void, valid: u32) {
    let thread: *mut Thread = head.cast();
    // SAFETY:
    // - Kernels pass the thread that runs. The destination is checked to lie in the block's shared memory.
    unsafe {
        let worker = (*thread).worker;
        if !(to as usize | from as usize).is_multiple_of(16) {
            fail(thread, worker, "copy_async with an address that is no multiple of 16");
        }
        if (*worker).shared.room(to) < 16 {
            fail(thread, worker, "copy_async to an address outside the block's shared memory");
        }
        (*thread).copies.begin(to.cast(), from.cast(), valid != 0);
    }
}

unsafe extern "C" fn copy_async_commit(head: *mut Head) {
    let thread: *mut Thread = head.cast();
    // SAFETY:
    // - Kernels pass the thread that runs.
    unsafe { (*thread).copies.commit() };
}

unsafe extern "C" fn copy_async_wait(head: *mut Head, pending: u32) {
    let thread: *mut Thread = head.cast();
    // SAFETY:
    // - Kernels pass the thread that runs; a source that cannot be read faults as any load would.
    unsafe { (*thread).copies.wait(pending as usize) };
}
