//! Fibers: one per CUDA thread, kept from block to block and from launch to launch.
//!
//! A fiber runs the kernel it is shown, says that it finished, and waits to be shown the next. Stacks lie in one map with a
//! guard page below each, and begin at staggered addresses: with all of them at the same place of a page, the 32 lanes of a
//! warp would share eight lines of the first-level cache.

use std::num::NonZeroUsize;
use std::ptr;

use corosensei::stack::{Stack, StackPointer};
use corosensei::{Coroutine, CoroutineResult, Yielder};

use crate::block::Thread;

const PAGE: usize = 4096;
/// Guard page included.
const STRIDE: usize = 68 * 1024;
/// Threads a block may have.
pub const N_MAX: usize = 1024;

/// Why a fiber gave up the processor. As wide as the register it travels in: written as a byte and read as a word, it would
/// wait for the store.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(usize)]
pub enum Pause {
    /// At a barrier or a collective of its warp.
    Waiting,
    Finished,
    /// A signal: the fiber cannot go on.
    Faulted,
}

/// A part of the stacks' map.
struct Part {
    base: usize,
    limit: usize,
}

// SAFETY:
// - The map outlives the fibers and has an unreadable page at `limit`; STRIDE leaves 60 KiB above it.
unsafe impl Stack for Part {
    fn base(&self) -> StackPointer {
        NonZeroUsize::new(self.base).expect("mapped")
    }
    fn limit(&self) -> StackPointer {
        NonZeroUsize::new(self.limit).expect("mapped")
    }
}

type Fiber = Coroutine<(), Pause, (), Part>;

/// The fibers of one thread of the system.
pub struct Fibers {
    map: *mut u8,
    fibers: Vec<Fiber>,
}

impl Fibers {
    pub fn new() -> Self {
        // SAFETY:
        // - A fresh private map; pages are only backed once touched.
        let map = unsafe {
            let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
            libc::mmap(ptr::null_mut(), N_MAX * STRIDE, libc::PROT_READ | libc::PROT_WRITE, flags, -1, 0)
        };
        assert!(map != libc::MAP_FAILED, "no address space for the stacks of {N_MAX} fibers");
        for i in 0..N_MAX {
            // SAFETY:
            // - A page of the map above, which nothing uses.
            let rc = unsafe { libc::mprotect(map.byte_add(i * STRIDE), PAGE, libc::PROT_NONE) };
            assert!(rc == 0, "no guard page below a fiber's stack");
        }
        Fibers { map: map.cast(), fibers: Vec::new() }
    }

    /// Makes the fibers of the first `n` threads. A fiber belongs to the thread at its index of `threads`.
    pub fn reserve(&mut self, n: usize, threads: *mut Thread) {
        for i in self.fibers.len()..n {
            let limit = self.map as usize + i * STRIDE;
            // 31 * 192 bytes and a multiple of 64: neighbours begin in different sets of the cache.
            let base = limit + STRIDE - (i % 32) * 192;
            // SAFETY:
            // - Threads live beside the fibers, at addresses that do not change.
            let thread = unsafe { threads.add(i) };
            self.fibers.push(Coroutine::with_stack(Part { base, limit }, move |yielder, ()| run(yielder, thread)));
        }
    }

    /// Runs fiber `i` until it pauses.
    #[inline]
    pub fn resume(&mut self, i: usize) -> Pause {
        match self.fibers[i].resume(()) {
            CoroutineResult::Yield(pause) => pause,
            CoroutineResult::Return(()) => unreachable!("a fiber never returns"),
        }
    }

    /// Forgets every fiber, wherever it stands: after a fault.
    pub fn abandon(&mut self) {
        for mut fiber in self.fibers.drain(..) {
            // SAFETY:
            // - What is on the stack of a fiber is a kernel's frames and ours, and neither own anything.
            unsafe { fiber.force_reset() };
        }
    }

    /// True for an address in the page below a stack.
    pub fn is_guard(&self, address: usize) -> bool {
        let at = address.wrapping_sub(self.map as usize);
        at < N_MAX * STRIDE && at % STRIDE < PAGE
    }
}

impl Drop for Fibers {
    fn drop(&mut self) {
        self.abandon();
        // SAFETY:
        // - The map of `new`, and no fiber is left on it.
        unsafe { libc::munmap(self.map.cast(), N_MAX * STRIDE) };
    }
}

fn run(yielder: &Yielder<(), Pause>, thread: *mut Thread) {
    loop {
        // SAFETY:
        // - The thread is set up for a block before its fiber is resumed, and the yielder lives as long as the fiber.
        unsafe {
            (*thread).yielder = yielder;
            ((*thread).invoke)((*thread).params);
            pause(thread, Pause::Finished);
        }
    }
}

/// Gives the processor back to whoever resumed the fiber of `thread`, which runs here. The only place that does: the switch
/// is then compiled into it, and its callers jump here instead of calling. Every call that begins on one stack and returns
/// on another is a return that the processor predicts wrongly, 5 ns each.
#[inline(never)]
pub unsafe extern "C" fn pause(thread: *mut Thread, why: Pause) {
    // SAFETY:
    // - The yielder is that of the fiber that runs here.
    unsafe { (*(*thread).yielder).suspend(why) }
}
