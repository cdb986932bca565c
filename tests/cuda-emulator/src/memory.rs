//! Device and pinned memory: every allocation is a map of its own that ends, to 16 bytes, where memory that cannot be
//! touched begins, and the same before it. New memory is 0xff: NaN as a float, out of range as an index. What was freed
//! cannot be touched either, until much else was freed.

use std::collections::{BTreeMap, VecDeque};
use std::ptr;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::environment::environment;
use crate::error::{Error, Result};

const PAGE: usize = 4096;
/// Of address space on either side: a row too far lands in it as well.
const GUARD: usize = 1 << 20;
/// Freed allocations whose addresses are not used again yet.
const N_FREED: usize = 1000;

#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Device,
    Pinned,
}

struct Allocation {
    bytes: usize,
    kind: Kind,
    /// The device whose memory it takes; `None` for pinned memory of a device that has its own.
    device: Option<usize>,
    map: usize,
    map_bytes: usize,
}

#[derive(Default)]
struct Memory {
    allocations: BTreeMap<usize, Allocation>,
    freed: VecDeque<(usize, Allocation)>,
    used: BTreeMap<usize, usize>,
    n_device: u64,
}

static MEMORY: Mutex<Option<Memory>> = Mutex::new(None);

fn with<T>(f: impl FnOnce(&mut Memory) -> T) -> T {
    let mut guard: MutexGuard<Option<Memory>> = MEMORY.lock().unwrap_or_else(PoisonError::into_inner);
    f(guard.get_or_insert_with(Memory::default))
}

/// Memory of `device`, which is used up by it unless `device` is `None`.
pub fn alloc(kind: Kind, device: Option<usize>, bytes: usize) -> Result<usize> {
    if bytes == 0 {
        return Err(Error::INVALID_VALUE);
    }
    with(|memory| {
        if kind == Kind::Device {
            memory.n_device += 1;
            if memory.n_device == environment().fail_alloc {
                return Err(Error::OUT_OF_MEMORY);
            }
        }
        if let Some(device) = device {
            let used = memory.used.entry(device).or_default();
            let total = used.checked_add(bytes).filter(|n| *n <= environment().memory_bytes);
            *used = total.ok_or(Error::OUT_OF_MEMORY)?;
        }
        let data = bytes.next_multiple_of(PAGE);
        let map_bytes = data + 2 * GUARD;
        // SAFETY:
        // - A fresh private map, of which the inner pages are opened and filled.
        let map = unsafe {
            let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
            let map = libc::mmap(ptr::null_mut(), map_bytes, libc::PROT_NONE, flags, -1, 0);
            assert!(map != libc::MAP_FAILED, "no address space for {bytes} bytes of device memory");
            let inner = map.byte_add(GUARD);
            assert!(libc::mprotect(inner, data, libc::PROT_READ | libc::PROT_WRITE) == 0, "no pages for {bytes} bytes");
            ptr::write_bytes(inner.cast::<u8>(), 0xff, data);
            map as usize
        };
        let start = map + GUARD + data - bytes.next_multiple_of(16);
        memory.allocations.insert(start, Allocation { bytes, kind, device, map, map_bytes });
        Ok(start)
    })
}

pub fn free(kind: Kind, start: usize) -> Result<()> {
    with(|memory| {
        if memory.allocations.get(&start).is_none_or(|a| a.kind != kind) {
            return Err(Error::INVALID_VALUE);
        }
        let allocation = memory.allocations.remove(&start).ok_or(Error::INVALID_VALUE)?;
        if let Some(used) = allocation.device.and_then(|d| memory.used.get_mut(&d)) {
            *used -= allocation.bytes;
        }
        // SAFETY:
        // - The map of this allocation, which is in the table no more: its pages go, its addresses stay taken.
        let closed = unsafe {
            let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE | libc::MAP_FIXED;
            let map = allocation.map as *mut libc::c_void;
            libc::mmap(map, allocation.map_bytes, libc::PROT_NONE, flags, -1, 0)
        };
        assert!(closed != libc::MAP_FAILED, "a freed map cannot be closed");
        memory.freed.push_front((start, allocation));
        if memory.freed.len() > N_FREED {
            let (_, oldest) = memory.freed.pop_back().expect("more than none");
            // SAFETY:
            // - A closed map that nothing knows of any more.
            unsafe { libc::munmap(oldest.map as *mut libc::c_void, oldest.map_bytes) };
        }
        Ok(())
    })
}

/// Bytes of `device` that are taken.
pub fn used(device: usize) -> usize {
    with(|memory| memory.used.get(&device).copied().unwrap_or(0))
}

/// Everything a device holds goes with its context.
pub fn free_all(device: usize) {
    let starts: Vec<(usize, Kind)> = with(|memory| {
        let of_device = memory.allocations.iter().filter(|(_, a)| a.device == Some(device));
        of_device.map(|(start, a)| (*start, a.kind)).collect()
    });
    for (start, kind) in starts {
        let _ = free(kind, start);
    }
}

/// Fails unless `start..start + bytes` lies in one allocation.
pub fn check(start: usize, bytes: usize) -> Result<()> {
    let is_inside = with(|memory| {
        let below = memory.allocations.range(..=start).next_back();
        below.is_some_and(|(at, a)| start.checked_add(bytes).is_some_and(|end| end <= at + a.bytes))
    });
    is_inside.then_some(()).ok_or(Error::INVALID_VALUE)
}

pub fn is_pinned(start: usize) -> bool {
    with(|memory| memory.allocations.get(&start).is_some_and(|a| a.kind == Kind::Pinned))
}

/// What lies at or next to an address that could not be touched. Called from a signal handler, so it does not wait.
pub fn describe(address: usize) -> String {
    let Ok(guard) = MEMORY.try_lock() else { return "memory is being allocated".to_string() };
    let Some(memory) = guard.as_ref() else { return "nothing is allocated".to_string() };
    if let Some((start, a)) = memory.freed.iter().find(|(at, a)| (*at..at + a.bytes).contains(&address)) {
        return format!("byte {} of {} freed bytes at {start:#x}", address - start, a.bytes);
    }
    let below = memory.allocations.range(..=address).next_back();
    let above = memory.allocations.range(address..).next();
    let past = below.map(|(at, a)| (address - at - a.bytes.min(address - at), at, a.bytes));
    let before = above.map(|(at, a)| (at - address, at, a.bytes));
    match (past, before) {
        (Some((n, at, bytes)), other) if other.is_none_or(|(m, ..)| n <= m) => {
            format!("{n} bytes behind the end of {bytes} bytes at {at:#x}")
        }
        (_, Some((n, at, bytes))) => format!("{n} bytes before {bytes} bytes at {at:#x}"),
        _ => "nothing is allocated".to_string(),
    }
}
