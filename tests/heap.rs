//! How much heap a piece of code takes: an allocator that counts per thread, so that tests may run side by side.
#![allow(unsafe_code)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

/// Install it in a test program: `#[global_allocator] static HEAP: CountingAllocator = CountingAllocator;`.
pub struct CountingAllocator;

thread_local! {
    static LIVE_BYTES: Cell<isize> = const { Cell::new(0) };
    static PEAK_BYTES: Cell<isize> = const { Cell::new(0) };
    static N_ALLOCATIONS: Cell<usize> = const { Cell::new(0) };
}

/// What a piece of code took, in this thread.
#[derive(Clone, Copy, Debug)]
pub struct HeapUse {
    /// Most bytes that were live at once, above what was live before.
    pub peak_bytes: usize,
    pub n_allocations: usize,
}

/// Runs `work` and says what heap it took in this thread. Zero without [`CountingAllocator`].
pub fn measure<T>(work: impl FnOnce() -> T) -> (T, HeapUse) {
    let before = LIVE_BYTES.get();
    let n_before = N_ALLOCATIONS.get();
    PEAK_BYTES.set(before);
    let result = work();
    let peak_bytes = (PEAK_BYTES.get() - before).max(0) as usize;
    (result, HeapUse { peak_bytes, n_allocations: N_ALLOCATIONS.get() - n_before })
}

fn count(bytes: isize) {
    // A thread that is ending has no counters any more: its last frees are not counted.
    let _ = LIVE_BYTES.try_with(|live| {
        live.set(live.get() + bytes);
        let _ = PEAK_BYTES.try_with(|peak| peak.set(peak.get().max(live.get())));
    });
    if bytes > 0 {
        let _ = N_ALLOCATIONS.try_with(|n| n.set(n.get() + 1));
    }
}

// SAFETY:
// - Every call is passed on to the system's allocator unchanged; counting touches thread-local cells only.
// - The cells are constant-initialised and have no destructor, so counting never allocates.
unsafe impl GlobalAlloc for CountingAllocator {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size() as isize);
        // SAFETY:
        // - The caller's promises about the layout are passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        count(-(layout.size() as isize));
        // SAFETY:
        // - `at` came from `alloc` or `realloc` above, that is from the system's allocator, with this layout.
        unsafe { System.dealloc(at, layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count(layout.size() as isize);
        // SAFETY:
        // - The caller's promises about the layout are passed on.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, at: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        // While it is moved, both blocks exist.
        count(new_size as isize);
        count(-(layout.size() as isize));
        // SAFETY:
        // - `at` came from the system's allocator with this layout; the caller vouches for the new size.
        unsafe { System.realloc(at, layout, new_size) }
    }
}
