//! What the compiled kernels and this half know of each other: the twin of include/runtime.h.

use std::ffi::{c_char, c_void, CStr};

/// What the threads of a block share.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Block {
    pub dim: u32,
    pub index: [u32; 3],
    pub grid: [u32; 3],
    pub dynamic_bytes: u32,
    pub dynamic_shared: *mut u8,
    pub shared_base: *mut u8,
}

/// What a kernel sees of its thread; [`crate::block::Thread`] begins with it.
#[repr(C)]
pub struct Head {
    pub index: u32,
    pub reserved: u32,
    pub block: *const Block,
}

#[repr(C)]
pub struct Collective {
    name: *const c_char,
    pub combine: unsafe extern "C" fn(*const *mut c_void),
}

impl Collective {
    pub fn name(&self) -> &str {
        // SAFETY:
        // - The name is a literal of the compiled kernels.
        unsafe { CStr::from_ptr(self.name) }.to_str().unwrap_or("?")
    }
}

/// A compiled kernel.
#[repr(C)]
pub struct Kernel {
    name: *const c_char,
    pub invoke: unsafe extern "C" fn(*const *const c_void),
    param_bytes: *const u32,
    next: *const Kernel,
    n_params: u32,
    pub arch: u32,
    pub max_threads: u32,
    pub min_blocks: u32,
}

// SAFETY:
// - Kernels are constants once the library is loaded.
unsafe impl Sync for Kernel {}

impl Kernel {
    pub fn name(&self) -> &'static str {
        // SAFETY:
        // - The name is a literal of the compiled kernels.
        unsafe { CStr::from_ptr(self.name) }.to_str().unwrap_or("?")
    }

    pub fn param_bytes(&self) -> &'static [u32] {
        // SAFETY:
        // - The table has n_params entries and lives as long as the library.
        unsafe { std::slice::from_raw_parts(self.param_bytes, self.n_params as usize) }
    }
}

/// The functions of this half that kernels call.
#[repr(C)]
pub struct Calls {
    pub sync_block: unsafe extern "C" fn(*mut Head),
    pub warp: unsafe extern "C" fn(*mut Head, *const Collective, *mut c_void),
    pub shared: unsafe extern "C" fn(*mut Head, *const c_void, *const c_char, u64) -> *mut u8,
    pub copy_async: unsafe extern "C" fn(*mut Head, *mut c_void, *const c_void, u32),
    pub copy_async_commit: unsafe extern "C" fn(*mut Head),
    pub copy_async_wait: unsafe extern "C" fn(*mut Head, u32),
}

#[cfg(has_kernels)]
mod linked {
    use super::{Calls, Head, Kernel};

    extern "C" {
        static lichen_emulator_kernels: *const Kernel;
        static mut lichen_emulator_calls: Calls;
        fn lichen_emulator_thread_slot() -> *mut *mut Head;
    }

    /// Where this thread of the system keeps the CUDA thread it runs: one address for its whole life.
    pub fn thread_slot() -> *mut *mut Head {
        // SAFETY:
        // - The function only takes an address.
        unsafe { lichen_emulator_thread_slot() }
    }

    /// Once, before any kernel runs.
    pub fn connect(calls: Calls) {
        // SAFETY:
        // - Called from cuInit's `Once`, and nothing reads the table before it.
        unsafe { lichen_emulator_calls = calls }
    }

    pub fn first() -> *const Kernel {
        // SAFETY:
        // - The list is built before main, or inside dlopen.
        unsafe { lichen_emulator_kernels }
    }
}

#[cfg(not(has_kernels))]
mod linked {
    use super::{Calls, Head, Kernel};

    pub fn thread_slot() -> *mut *mut Head {
        std::ptr::null_mut()
    }
    pub fn connect(_calls: Calls) {}
    pub fn first() -> *const Kernel {
        std::ptr::null()
    }
}

pub use linked::{connect, thread_slot};

/// The kernel of this name for `arch`.
pub fn find(arch: u32, name: &str) -> Option<&'static Kernel> {
    let mut next = linked::first();
    // SAFETY:
    // - Entries are statics of the compiled kernels; the list ends with null.
    while let Some(kernel) = unsafe { next.as_ref() } {
        if kernel.arch == arch && kernel.name() == name {
            return Some(kernel);
        }
        next = kernel.next;
    }
    None
}

/// Why there is nothing to run; `None` when there is.
pub fn missing() -> Option<&'static CStr> {
    if cfg!(not(has_kernels)) {
        return Some(c"the emulator was built without clang and has no kernels");
    }
    #[cfg(target_arch = "x86_64")]
    if option_env!("LICHEN_EMULATOR_LEVEL") == Some("x86-64-v3") {
        let is_there = is_x86_feature_detected!("fma") && is_x86_feature_detected!("avx2");
        return (!is_there).then_some(c"the emulator was built for a processor with AVX2 and FMA; this one has none");
    }
    None
}
