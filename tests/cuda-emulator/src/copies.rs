//! Copies from global to shared memory that a thread began and has not waited for.
//!
//! The hardware may write at any time between the two. So what was in shared memory is gone as soon as the copy begins, and
//! what comes is there when the wait returns: a kernel that reads early finds poison.

use std::ptr;

#[derive(Default)]
pub struct Copies {
    open: Vec<Copy16>,
    /// Where each committed group ends in `open`.
    groups: Vec<usize>,
}

struct Copy16 {
    to: *mut u8,
    from: *const u8,
    is_valid: bool,
}

impl Copies {
    pub fn clear(&mut self) {
        self.open.clear();
        self.groups.clear();
    }

    /// # Safety
    /// `to` is 16 bytes of the block's shared memory; both addresses are multiples of 16.
    pub unsafe fn begin(&mut self, to: *mut u8, from: *const u8, is_valid: bool) {
        // SAFETY:
        // - By the contract.
        unsafe { ptr::write_bytes(to, 0xff, 16) };
        self.open.push(Copy16 { to, from, is_valid });
    }

    pub fn commit(&mut self) {
        self.groups.push(self.open.len());
    }

    /// Carries out all committed groups but the last `pending`. The source is read even for zeros: it must be readable.
    ///
    /// # Safety
    /// As [`Copies::begin`]; a source that cannot be read faults, as a load would.
    pub unsafe fn wait(&mut self, pending: usize) {
        let Some(n_groups) = self.groups.len().checked_sub(pending).filter(|n| *n > 0) else { return };
        let end = self.groups[n_groups - 1];
        for copy in self.open.drain(..end) {
            // SAFETY:
            // - By the contract.
            unsafe {
                let bytes: [u8; 16] = ptr::read_volatile(copy.from.cast());
                copy.to.cast::<[u8; 16]>().write(if copy.is_valid { bytes } else { [0; 16] });
            }
        }
        self.groups.drain(..n_groups);
        self.groups.iter_mut().for_each(|group| *group -= end);
    }
}
