//! Fibers: one per CUDA thread, kept from block to block and from launch to launch.
//!
//! A fiber runs the kernel that its thread is shown, says that it has finished, and waits to be shown the next. The switch
//! goes from one fiber straight to the next, without a scheduler in between: the lanes of a warp wait at the same place of
//! the program, so the processor's prediction of where each returns to is right. Through a scheduler (corosensei) two
//! returns an event were predicted wrongly: 29 ns of processor time a shuffle instead of 8 on an x86-64 server.
//!
//! Stacks lie in one map with a guard page below each, and begin at staggered addresses: with all of them at the same place
//! of a page, the 32 lanes of a warp would share eight lines of the first-level cache.

use std::arch::naked_asm;
use std::ptr;

use crate::block::{self, Thread};

const PAGE: usize = 4096;
/// Guard page included.
const STRIDE: usize = 68 * 1024;
/// Threads a block may have.
pub const N_MAX: usize = 1024;

/// Where a fiber, or the thread of the system below them, goes on: its stack pointer, with its registers above it.
pub type Place = *mut u8;

/// The stacks of one thread of the system.
pub struct Fibers {
    map: *mut u8,
    n_made: usize,
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
        Fibers { map: map.cast(), n_made: 0 }
    }

    /// Makes the fibers of the first `n` threads that have none, and tells `place` where each begins.
    pub fn reserve(&mut self, n: usize, threads: *mut Thread, place: impl Fn(*mut Thread, Place)) {
        for i in self.n_made..n {
            // 31 * 192 bytes and a multiple of 64: neighbours begin in different sets of the cache.
            let above = STRIDE - (i % 32) * 192;
            // SAFETY:
            // - The stack and the thread are this fiber's; `above` leaves more than 56 KiB to the guard page.
            unsafe {
                let thread = threads.add(i);
                place(thread, first_place(self.map.add(i * STRIDE + above), thread));
            }
        }
        self.n_made = self.n_made.max(n);
    }

    /// Forgets every fiber, wherever it stands: after a fault. What is on their stacks are a kernel's frames and ours, and
    /// neither own anything.
    pub fn abandon(&mut self) {
        self.n_made = 0;
    }

    /// True for an address in the page below a stack.
    pub fn is_guard(&self, address: usize) -> bool {
        let at = address.wrapping_sub(self.map as usize);
        at < N_MAX * STRIDE && at % STRIDE < PAGE
    }
}

impl Drop for Fibers {
    fn drop(&mut self) {
        // SAFETY:
        // - The map of `new`; no fiber runs.
        unsafe { libc::munmap(self.map.cast(), N_MAX * STRIDE) };
    }
}

/// The body of a fiber.
unsafe extern "C" fn body(thread: *mut Thread) -> ! {
    loop {
        // SAFETY:
        // - A fiber is switched to only once its thread was set up for a block.
        unsafe {
            ((*thread).invoke)((*thread).params);
            block::exit(thread);
        }
    }
}

/// Registers that a function must leave as they were, as [`switch`] takes them off a stack, and where it goes then.
#[cfg(target_arch = "x86_64")]
unsafe fn first_place(above: *mut u8, thread: *mut Thread) -> Place {
    // r15, r14, r13, r12, rbx, rbp, the address to go to; then a word, so that the stack is 16-byte aligned at the call.
    let words: [usize; 8] = [0, 0, 0, thread as usize, 0, 0, begin as *const () as usize, 0];
    // SAFETY:
    // - The stack ends at `above`, a multiple of 16.
    unsafe {
        let place = above.cast::<usize>().sub(words.len());
        ptr::copy_nonoverlapping(words.as_ptr(), place, words.len());
        place.cast()
    }
}

#[cfg(target_arch = "x86_64")]
#[unsafe(naked)]
unsafe extern "C" fn begin() {
    naked_asm!("and rsp, -16", "mov rdi, r12", "call {body}", "ud2", body = sym body)
}

/// Keeps where the caller stands in `*from` and goes on at `to`. Returns when another switch goes to that place.
///
/// # Safety
/// `to` came from [`Fibers::reserve`] or from a switch, and was not gone to since; its stack is not in use.
#[cfg(target_arch = "x86_64")]
#[unsafe(naked)]
pub unsafe extern "C" fn switch(from: *mut Place, to: Place) {
    naked_asm!(
        "push rbp",
        "push rbx",
        "push r12",
        "push r13",
        "push r14",
        "push r15",
        "mov [rdi], rsp",
        "mov rsp, rsi",
        "pop r15",
        "pop r14",
        "pop r13",
        "pop r12",
        "pop rbx",
        "pop rbp",
        "ret",
    )
}

#[cfg(target_arch = "aarch64")]
unsafe fn first_place(above: *mut u8, thread: *mut Thread) -> Place {
    // x19 to x28, x29, x30, d8 to d15.
    let mut words = [0usize; 20];
    words[0] = thread as usize;
    words[11] = begin as *const () as usize;
    // SAFETY:
    // - The stack ends at `above`, a multiple of 16, and so is the size of the words.
    unsafe {
        let place = above.cast::<usize>().sub(words.len());
        ptr::copy_nonoverlapping(words.as_ptr(), place, words.len());
        place.cast()
    }
}

#[cfg(target_arch = "aarch64")]
#[unsafe(naked)]
unsafe extern "C" fn begin() {
    naked_asm!("mov x0, x19", "bl {body}", "brk #1", body = sym body)
}

/// Keeps where the caller stands in `*from` and goes on at `to`. Returns when another switch goes to that place.
///
/// # Safety
/// `to` came from [`Fibers::reserve`] or from a switch, and was not gone to since; its stack is not in use.
#[cfg(target_arch = "aarch64")]
#[unsafe(naked)]
pub unsafe extern "C" fn switch(from: *mut Place, to: Place) {
    naked_asm!(
        "sub sp, sp, #160",
        "stp x19, x20, [sp]",
        "stp x21, x22, [sp, #16]",
        "stp x23, x24, [sp, #32]",
        "stp x25, x26, [sp, #48]",
        "stp x27, x28, [sp, #64]",
        "stp x29, x30, [sp, #80]",
        "stp d8, d9, [sp, #96]",
        "stp d10, d11, [sp, #112]",
        "stp d12, d13, [sp, #128]",
        "stp d14, d15, [sp, #144]",
        "mov x9, sp",
        "str x9, [x0]",
        "mov sp, x1",
        "ldp x19, x20, [sp]",
        "ldp x21, x22, [sp, #16]",
        "ldp x23, x24, [sp, #32]",
        "ldp x25, x26, [sp, #48]",
        "ldp x27, x28, [sp, #64]",
        "ldp x29, x30, [sp, #80]",
        "ldp d8, d9, [sp, #96]",
        "ldp d10, d11, [sp, #112]",
        "ldp d12, d13, [sp, #128]",
        "ldp d14, d15, [sp, #144]",
        "add sp, sp, #160",
        "ret",
    )
}
