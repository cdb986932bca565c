//! Keys and values in pages: a pool of pages of [`PAGE`] positions serves many sequences, and a table says which pages
//! hold whose. A pool is a [`KvStore`](super::KvStore) of as many slots as all its pages have positions; page i has the
//! slots from `i * PAGE` on.

use std::ops::Range;

use crate::cuda::{DeviceError, DevicePtr};
use crate::device::Device;
use crate::view::Buffer;

/// Positions of a page.
pub const PAGE: usize = 32;

/// The pages of each sequence of a batch, by its slot: position p lies in page `(p / PAGE) mod n_entries` of its row. Rows
/// of fewer entries than the context has pages are rings: for layers whose window is shorter.
pub struct PageTable {
    n_entries: usize,
    /// (n_slots, n_entries).
    entries: Vec<u32>,
    on_device: Option<Buffer<u32>>,
}

impl PageTable {
    /// `n_slots` rows of `n_entries` pages, all page 0.
    ///
    /// # Errors
    /// The device has no room.
    pub fn new(device: &Device, n_slots: usize, n_entries: usize) -> Result<PageTable, DeviceError> {
        let entries = vec![0; n_slots * n_entries];
        let on_device = match device {
            Device::Cpu(_) => None,
            Device::Cuda(_) => Some(Buffer::new(device, entries.len())?),
        };
        Ok(PageTable { n_entries, entries, on_device })
    }

    /// Bytes [`PageTable::new`] takes, on the host and on a GPU alike.
    pub fn size_bytes(n_slots: usize, n_entries: usize) -> usize {
        4 * n_slots * n_entries
    }

    /// Gives a slot its pages. Waits for the device.
    ///
    /// # Errors
    /// What went wrong on the device.
    pub fn set(&mut self, slot: usize, pages: &[u32]) -> Result<(), DeviceError> {
        assert!(pages.len() <= self.n_entries, "{} pages in {} entries", pages.len(), self.n_entries);
        let first = slot * self.n_entries;
        self.entries[first..first + pages.len()].copy_from_slice(pages);
        match &mut self.on_device {
            Some(buffer) => buffer.write(first, pages),
            None => Ok(()),
        }
    }

    /// Where in the pool the positions of a slot lie: runs of neighbours, in order of position.
    pub fn runs(&self, slot: usize, positions: &Range<usize>) -> Vec<Range<usize>> {
        segments(self.of_slot(slot), positions).collect()
    }

    pub fn n_entries(&self) -> usize {
        self.n_entries
    }

    /// u32 (n_slots, n_entries). Panics on the CPU.
    pub(super) fn ptr(&self) -> DevicePtr {
        self.on_device.as_ref().expect("the table of a GPU").ptr()
    }

    pub(super) fn of_slot(&self, slot: usize) -> &[u32] {
        &self.entries[slot * self.n_entries..(slot + 1) * self.n_entries]
    }
}

/// Where in the pool a position lies.
pub(super) fn slot(pages: &[u32], position: usize) -> usize {
    pages[position / PAGE % pages.len()] as usize * PAGE + position % PAGE
}

/// The slots of consecutive positions, oldest first: a run a page.
pub(super) fn segments<'a>(pages: &'a [u32], positions: &Range<usize>) -> impl Iterator<Item = Range<usize>> + 'a {
    let (mut position, end) = (positions.start, positions.end);
    std::iter::from_fn(move || {
        let n = (PAGE - position % PAGE).min(end - position);
        let first = slot(pages, position);
        position += n;
        (n > 0).then_some(first..first + n)
    })
}
