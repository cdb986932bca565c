//! The largest logits, found where they are, so that a GPU's need not be copied: the first step of every sampler.
//!
//! Sorted by value, greatest first, equal ones by id. NaN and minus infinity are impossible tokens and never listed.

mod cuda;

use crate::cuda::DeviceError;
use crate::device::Device;
use crate::readback::Readback;
use crate::view::{Buffer, View};

/// Most candidates [`TopK::find`] gives.
pub const MAX_TOP_K: usize = 64;

/// Memory for the search, allocated once.
pub struct TopK {
    /// (MAX_TOP_K): id, bits of the logit. An id of `u32::MAX` where there are fewer.
    found: Readback<[u32; 2]>,
    /// What the blocks of a GPU leave for the last of them.
    workspace: Buffer<u32>,
    list: Vec<(u32, f32)>,
}

impl TopK {
    /// For at most `vocab_size` logits.
    ///
    /// # Errors
    /// The device has no room.
    pub fn new(device: &Device, vocab_size: usize) -> Result<TopK, DeviceError> {
        let (n_found, workspace) = match device {
            Device::Cpu(_) => (0, 0),
            Device::Cuda(_) => (MAX_TOP_K, cuda::workspace_len(vocab_size)),
        };
        Ok(TopK {
            found: Readback::new(device, n_found)?,
            workspace: Buffer::new(device, workspace)?,
            list: Vec::with_capacity(MAX_TOP_K + 1),
        })
    }

    /// Device bytes [`TopK::new`] takes on a GPU.
    pub fn device_bytes(vocab_size: usize) -> usize {
        8 * MAX_TOP_K + 4 * cuda::workspace_len(vocab_size)
    }

    /// The `k` greatest of `logits` (V), (id, logit) each.
    ///
    /// # Errors
    /// What went wrong on the device.
    pub fn find(&mut self, device: &Device, logits: View<'_, f32, 1>, k: usize) -> Result<&[(u32, f32)], DeviceError> {
        assert!((1..=MAX_TOP_K).contains(&k), "top {k}");
        self.list.clear();
        match device {
            Device::Cpu(_) => largest(logits.host(), k, &mut self.list),
            Device::Cuda(cuda) => {
                cuda::find(cuda, logits, k, &mut self.workspace, &mut self.found);
                let found = self.found.fetch(k)?;
                let real = found.iter().take_while(|[id, _]| *id != u32::MAX);
                self.list.extend(real.map(|[id, bits]| (*id, f32::from_bits(*bits))));
            }
        }
        Ok(&self.list)
    }
}

/// The oracle: insertion into a sorted list.
fn largest(logits: &[f32], k: usize, list: &mut Vec<(u32, f32)>) {
    for (id, &logit) in logits.iter().enumerate() {
        let is_candidate = logit > f32::NEG_INFINITY && (list.len() < k || logit > list[k - 1].1);
        if is_candidate {
            let at = list.partition_point(|(_, other)| *other >= logit);
            list.insert(at, (id as u32, logit));
            list.truncate(k);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_greatest_come_first_and_ties_in_order_of_id() {
        let device = Device::cpu(1).unwrap();
        let mut top = TopK::new(&device, 8).unwrap();
        let logits = [1.0, f32::NAN, 3.0, 3.0, f32::NEG_INFINITY, -2.0, 1.0];
        let view = View::new(&logits, [7]);
        assert_eq!(top.find(&device, view, 1).unwrap(), [(2, 3.0)]);
        assert_eq!(top.find(&device, view, 3).unwrap(), [(2, 3.0), (3, 3.0), (0, 1.0)]);
        assert_eq!(top.find(&device, view, 64).unwrap().len(), 5);
    }
}
