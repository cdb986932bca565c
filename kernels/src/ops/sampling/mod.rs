//! The largest logits, found where they are, so that a GPU's need not be copied: the first step of every sampler.
//!
//! Sorted by value, greatest first, equal ones by id. NaN and minus infinity are impossible tokens and never listed.

mod cuda;

use crate::cuda::DeviceError;
use crate::device::Device;
use crate::ops::kernel_module::{KernelModule, Role};
use crate::readback::Readback;
use crate::view::{Buffer, View};

/// What the kernels of this folder are for.
pub(crate) const MODULES: &[KernelModule] = &[KernelModule::one("sampling", Role::Answers)];

/// Most candidates [`TopK::find`] gives.
pub const MAX_TOP_K: usize = 64;

/// Memory for the search in some rows of logits, allocated once.
pub struct TopK {
    /// (max_rows, MAX_TOP_K), used as (rows, k): id, bits of the logit. An id of `u32::MAX` where there are fewer.
    found: Readback<[u32; 2]>,
    /// What the blocks of a GPU leave for the last of each row.
    workspace: Buffer<u32>,
    vocab_size: usize,
    /// How many candidates of each row were asked for.
    k: usize,
    list: Vec<(u32, f32)>,
}

impl TopK {
    /// For at most `max_rows` rows of `vocab_size` logits.
    ///
    /// # Errors
    /// The device has no room.
    pub fn new(device: &Device, vocab_size: usize, max_rows: usize) -> Result<TopK, DeviceError> {
        let workspace = match device {
            Device::Cpu(_) => 0,
            Device::Cuda(_) => max_rows * cuda::workspace_len(vocab_size),
        };
        Ok(TopK {
            found: Readback::new(device, max_rows * MAX_TOP_K)?,
            workspace: Buffer::new(device, workspace)?,
            vocab_size,
            k: 0,
            list: Vec::with_capacity(MAX_TOP_K),
        })
    }

    /// Device bytes [`TopK::new`] takes on a GPU.
    pub fn device_bytes(vocab_size: usize, max_rows: usize) -> usize {
        max_rows * (8 * MAX_TOP_K + 4 * cuda::workspace_len(vocab_size))
    }

    /// Looks for the `k` greatest of each row of `logits` (R, V).
    ///
    /// # Errors
    /// What went wrong on the device.
    pub fn find(&mut self, device: &Device, logits: View<'_, f32, 2>, k: usize) -> Result<(), DeviceError> {
        assert!((1..=MAX_TOP_K).contains(&k), "top {k}");
        let [n_rows, vocab_size] = logits.shape();
        // Where a GPU's counters lie depends on it.
        assert_eq!(vocab_size, self.vocab_size);
        self.k = k;
        match device {
            Device::Cpu(cpu) => {
                let (found, logits) = (&mut self.found.host_mut()[..n_rows * k], logits.host());
                cpu.pool.for_chunks(found, k, &|row, found| {
                    largest(&logits[row * vocab_size..(row + 1) * vocab_size], found);
                });
            }
            Device::Cuda(cuda) => {
                cuda::find(cuda, logits, k, &mut self.workspace, &mut self.found);
                self.found.fetch(n_rows * k)?;
            }
        }
        Ok(())
    }

    /// What was found in a row, (id, logit) each.
    pub fn of_row(&mut self, row: usize) -> &[(u32, f32)] {
        let found = &self.found.host()[row * self.k..(row + 1) * self.k];
        let real = found.iter().take_while(|[id, _]| *id != u32::MAX);
        self.list.clear();
        self.list.extend(real.map(|[id, bits]| (*id, f32::from_bits(*bits))));
        &self.list
    }
}

/// The oracle: insertion into a sorted list, which is as long as `found`.
fn largest(logits: &[f32], found: &mut [[u32; 2]]) {
    let mut n = 0;
    for (id, &logit) in logits.iter().enumerate() {
        let is_full = n == found.len();
        if logit > f32::NEG_INFINITY && (!is_full || logit > f32::from_bits(found[n - 1][1])) {
            let at = found[..n].partition_point(|[_, other]| f32::from_bits(*other) >= logit);
            n += !is_full as usize;
            found[at..n].rotate_right(1);
            found[at] = [id as u32, logit.to_bits()];
        }
    }
    found[n..].fill([u32::MAX, 0]);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_greatest_come_first_and_ties_in_order_of_id() {
        let device = Device::cpu(2).unwrap();
        let mut top = TopK::new(&device, 7, 2).unwrap();
        let (nan, none) = (f32::NAN, f32::NEG_INFINITY);
        let logits = [1.0, nan, 3.0, 3.0, none, -2.0, 1.0, none, nan, none, none, 0.5, none, nan];
        for (k, first, second) in [
            (1, &[(2, 3.0)][..], &[(4, 0.5)][..]),
            (3, &[(2, 3.0), (3, 3.0), (0, 1.0)], &[(4, 0.5)]),
            (64, &[(2, 3.0), (3, 3.0), (0, 1.0), (6, 1.0), (5, -2.0)], &[(4, 0.5)]),
        ] {
            top.find(&device, View::new(&logits, [2, 7]), k).unwrap();
            assert_eq!((top.of_row(0).to_vec(), top.of_row(1).to_vec()), (first.to_vec(), second.to_vec()), "top {k}");
        }
    }
}
