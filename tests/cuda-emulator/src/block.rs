//! One block: its threads, their barriers and the collectives of its warps.
//!
//! Threads are fibers of one thread of the system, so nothing here is shared between threads. A thread that must wait gives
//! the processor back to [`run`]; the last to arrive releases the others in a drawn order and goes on. What a GPU would hang
//! on, or leave undefined, ends the process with a sentence: which kernel, block and thread, and what they wait for.

use std::collections::BTreeMap;
use std::ffi::{c_char, c_void, CStr};
use std::ptr;

use corosensei::Yielder;

use crate::copies::Copies;
use crate::fiber::{pause, Fibers, Pause, N_MAX};
use crate::foreign::{self, Calls, Collective, Head};
use crate::launch::Launch;
use crate::order::{Random, Ready};
use crate::shared::Shared;

const WARP: u32 = 32;
const NOBODY: u32 = u32::MAX;

/// A CUDA thread.
#[repr(C)]
pub struct Thread {
    /// What the kernel sees.
    head: Head,
    pub invoke: unsafe extern "C" fn(*const *const c_void),
    pub params: *const *const c_void,
    pub yielder: *const Yielder<(), Pause>,
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
                yielder: ptr::null(),
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
        self.fibers.reserve(n as usize, self.threads.as_mut_ptr());
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

    /// After a fault no fiber is where it could go on.
    fn abandon(&mut self) {
        self.fibers.abandon();
    }

    fn place(&self) -> String {
        let [x, y, z] = self.block.index;
        format!("kernel {}, block ({x}, {y}, {z})", self.kernel)
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
    let slot = foreign::thread_slot();
    // SAFETY:
    // - By the contract. While a fiber runs, the calls below reach the worker's other fields through the same pointer, so no
    //   reference to the whole of it is held across `resume`.
    unsafe {
        (*worker).begin(launch, index, seed);
        let threads = (*worker).threads.as_mut_ptr();
        while let Some(i) = (*worker).ready.pop() {
            let thread = threads.add(usize::from(i));
            (*thread).state = State::Running;
            *slot = thread.cast();
            let pause = (*worker).fibers.resume(usize::from(i));
            match pause {
                Pause::Waiting => {}
                Pause::Finished => exit(thread),
                Pause::Faulted => {
                    *slot = ptr::null_mut();
                    (*worker).abandon();
                    return Err(Faulted);
                }
            }
        }
        if (*worker).n_exited != launch.block {
            fail(ptr::null_mut(), worker, &deadlock(&*worker));
        }
        *slot = ptr::null_mut();
        if (*worker).shared.is_overrun() {
            fail(ptr::null_mut(), worker, "a write behind the end of a shared array");
        }
    }
    Ok(())
}

/// The thread returned from its kernel.
unsafe fn exit(thread: *mut Thread) {
    // SAFETY:
    // - The thread and its worker are alive, and this thread of the system is theirs.
    unsafe {
        let worker = (*thread).worker;
        (*thread).state = State::Exited;
        (*worker).n_exited += 1;
        if (*worker).n_at_barrier > 0 {
            fail(
                thread,
                worker,
                &format!("left the kernel while {} threads wait at sync_block", (*worker).n_at_barrier),
            );
        }
        let warp = &(&(*worker).warps)[((*thread).head.index / WARP) as usize];
        if warp.n_arrived > 0 {
            let name = (*warp.collective).name();
            fail(thread, worker, &format!("left the kernel while lanes of its warp wait at {name}"));
        }
    }
}

/// Says what is wrong and ends the process. A null thread: the block as a whole.
pub unsafe fn fail(thread: *mut Thread, worker: *mut Worker, what: &str) -> ! {
    // SAFETY:
    // - As in `exit`.
    let (place, index) = unsafe { ((*worker).place(), thread.as_ref().map(|t| t.head.index)) };
    match index {
        Some(index) => eprintln!("lichen emulator: {place}, thread {index}: {what}"),
        None => eprintln!("lichen emulator: {place}: {what}"),
    }
    std::process::abort()
}

/// Where the thread runs: for reports.
pub unsafe fn place_of(thread: *const Thread) -> String {
    // SAFETY:
    // - The thread and its worker are alive.
    unsafe { format!("{}, thread {}", (*(*thread).worker).place(), (*thread).head.index) }
}

fn deadlock(worker: &Worker) -> String {
    let mut waits: BTreeMap<String, u32> = BTreeMap::new();
    for thread in &worker.threads[..worker.block.dim as usize] {
        let what = match thread.state {
            State::AtBarrier => "wait at sync_block".to_string(),
            State::AtCollective => {
                let collective = worker.warps[(thread.head.index / WARP) as usize].collective;
                // SAFETY:
                // - A lane that waits has set it.
                format!("wait at {}", unsafe { &*collective }.name())
            }
            State::Exited => "have left the kernel".to_string(),
            State::Running => "run".to_string(),
        };
        *waits.entry(what).or_default() += 1;
    }
    let list: Vec<String> = waits.iter().map(|(what, n)| format!("{n} threads {what}")).collect();
    format!("no thread can go on: {}", list.join(", "))
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
            (*thread).state = State::AtBarrier;
            return pause(thread, Pause::Waiting);
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
            if (*worker).n_exited > 0 || (*worker).block.dim % WARP != 0 {
                check_whole(thread, worker, collective);
            }
        } else if (*warp).collective != collective {
            fail_mixed(thread, worker, collective, (*warp).collective);
        }
        (*warp).slots[(index % WARP) as usize] = slot;
        (*warp).n_arrived += 1;
        if (*warp).n_arrived < WARP {
            (*thread).state = State::AtCollective;
            return pause(thread, Pause::Waiting);
        }
        (*warp).n_arrived = 0;
        ((*collective).combine)((*warp).slots.as_ptr());
        (*worker).ready.push_warp(&mut (*worker).random, index & !(WARP - 1), WARP, index);
    }
}

// The sentences are made elsewhere: a function that can fail with one has a frame, and cannot end in a jump to `pause`.

#[cold]
#[inline(never)]
unsafe fn fail_late(thread: *mut Thread, worker: *mut Worker) -> ! {
    // SAFETY:
    // - As in `sync_block`.
    unsafe {
        fail(thread, worker, &format!("reached sync_block after {} threads left the kernel", (*worker).n_exited));
    }
}

#[cold]
#[inline(never)]
unsafe fn fail_mixed(
    thread: *mut Thread,
    worker: *mut Worker,
    mine: *const Collective,
    theirs: *const Collective,
) -> ! {
    // SAFETY:
    // - As in `warp`; collectives are constants of the compiled kernels.
    unsafe {
        let (mine, theirs) = ((*mine).name(), (*theirs).name());
        fail(thread, worker, &format!("reached {mine} while lanes of its warp wait at {theirs}"));
    }
}

/// A collective is for 32 lanes that are all there.
#[cold]
#[inline(never)]
unsafe fn check_whole(thread: *mut Thread, worker: *mut Worker, collective: *const Collective) {
    // SAFETY:
    // - As in `warp`.
    unsafe {
        let name = (*collective).name();
        let dim = (*worker).block.dim;
        let first = (*thread).head.index & !(WARP - 1);
        if dim - first < WARP {
            fail(thread, worker, &format!("{name} in a warp of {} lanes; collectives need all 32", dim - first));
        }
        if (*worker).n_exited == 0 {
            return;
        }
        let lanes = &(&(*worker).threads)[first as usize..(first + WARP) as usize];
        if lanes.iter().any(|lane| lane.state == State::Exited) {
            fail(thread, worker, &format!("reached {name} after lanes of its warp left the kernel"));
        }
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
