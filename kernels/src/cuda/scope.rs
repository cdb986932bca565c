//! One piece of device memory for everything that is made together: a model's weights, a session's buffers. Hundreds of
//! allocations of their own would each be rounded up by the driver, and leave holes where memory is shared with the host.

use std::cell::RefCell;
use std::sync::Arc;

use super::{Allocation, Arena, Cuda, DeviceError};

thread_local! {
    /// The arenas of the scopes this thread is in, innermost last.
    static SCOPES: RefCell<Vec<(Cuda, Arena)>> = const { RefCell::new(Vec::new()) };
}

/// Leaves the scope however `work` ends.
struct Leave;

impl Drop for Leave {
    fn drop(&mut self) {
        SCOPES.with_borrow_mut(|scopes| scopes.pop());
    }
}

impl Cuda {
    /// Runs `work`, whose allocations on this device and thread are parts of one of `bytes`; what does not fit any more
    /// gets memory of its own.
    ///
    /// # Errors
    /// The device has no room, or those of `work`.
    pub fn with_arena<T, E: From<DeviceError>>(
        &self,
        bytes: usize,
        work: impl FnOnce() -> Result<T, E>,
    ) -> Result<T, E> {
        let arena = self.arena(bytes)?;
        SCOPES.with_borrow_mut(|scopes| scopes.push((self.clone(), arena)));
        let _leave = Leave;
        work()
    }

    /// Device memory, not initialised: a part of the arena this thread is in, or an allocation of its own.
    ///
    /// # Errors
    /// The device has no room.
    pub fn alloc(&self, bytes: usize) -> Result<Allocation, DeviceError> {
        let part = SCOPES.with_borrow_mut(|scopes| {
            let innermost = scopes.last_mut().filter(|(cuda, _)| Arc::ptr_eq(&cuda.0, &self.0));
            innermost.filter(|(_, arena)| arena.free_bytes() >= bytes).map(|(_, arena)| arena.alloc(bytes))
        });
        part.unwrap_or_else(|| Allocation::new(self, bytes))
    }
}
