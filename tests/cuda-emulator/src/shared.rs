//! The shared memory of a block.
//!
//! Static arrays stand at the front in the order their declarations are first run, with a gap after each; the launch's own
//! bytes end where memory that cannot be touched begins. All of it is 0xff before a block begins. A gap that is no
//! longer 0xff was written past an end.

use std::ffi::c_void;
use std::ptr;

/// Of address space behind the launch's bytes.
const GUARD: usize = 1 << 20;
/// More than any architecture has.
const DYNAMIC_MAX: usize = 256 * 1024;
const STATIC_MAX: usize = 64 * 1024;
/// The device's limit for arrays declared in a kernel.
pub const STATIC_LIMIT: usize = 48 * 1024;
const GAP: usize = 64;

struct Array {
    site: *const c_void,
    offset: usize,
    bytes: usize,
}

pub struct Shared {
    /// STATIC_MAX and DYNAMIC_MAX bytes, then memory that cannot be touched.
    map: *mut u8,
    arrays: Vec<Array>,
    /// End of the last array and its gap.
    static_end: usize,
    static_bytes: usize,
    dynamic_bytes: usize,
}

impl Shared {
    pub fn new() -> Self {
        let bytes = STATIC_MAX + DYNAMIC_MAX;
        // SAFETY:
        // - A fresh private map; its last part is nobody's.
        let map = unsafe {
            let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
            let map = libc::mmap(ptr::null_mut(), bytes + GUARD, libc::PROT_READ | libc::PROT_WRITE, flags, -1, 0);
            assert!(map != libc::MAP_FAILED, "no memory for a block's shared memory");
            assert!(libc::mprotect(map.byte_add(bytes), GUARD, libc::PROT_NONE) == 0, "no guard behind shared memory");
            map.cast::<u8>()
        };
        let mut shared = Shared { map, arrays: Vec::new(), static_end: 0, static_bytes: 0, dynamic_bytes: 0 };
        shared.poison(0, bytes);
        shared
    }

    fn poison(&mut self, at: usize, bytes: usize) {
        debug_assert!(at + bytes <= STATIC_MAX + DYNAMIC_MAX);
        // SAFETY:
        // - Inside the map, by the line above and its callers.
        unsafe { ptr::write_bytes(self.map.add(at), 0xff, bytes) };
    }

    pub fn base(&self) -> *mut u8 {
        self.map
    }

    /// Poisons what the last block used and gives the address of the launch's `bytes`, 16-byte aligned.
    pub fn begin(&mut self, bytes: usize) -> *mut u8 {
        assert!(bytes <= DYNAMIC_MAX);
        self.poison(0, self.static_end);
        let end = STATIC_MAX + DYNAMIC_MAX;
        let used = self.dynamic_bytes.max(bytes).next_multiple_of(16);
        self.poison(end - used, used);
        self.arrays.clear();
        (self.static_end, self.static_bytes, self.dynamic_bytes) = (0, 0, bytes);
        // SAFETY:
        // - Inside the map: bytes <= DYNAMIC_MAX, which is a multiple of 16.
        unsafe { self.map.add(end - bytes.next_multiple_of(16)) }
    }

    /// The array of a declaration, the same for every thread of the block.
    pub fn array(&mut self, site: *const c_void, bytes: usize, limit: usize) -> Result<*mut u8, String> {
        if let Some(array) = self.arrays.iter().find(|a| a.site == site) {
            // SAFETY:
            // - Arrays are inside the map.
            return Ok(unsafe { self.map.add(array.offset) });
        }
        let n_static = self.static_bytes + bytes.next_multiple_of(16);
        if n_static > STATIC_LIMIT || n_static + self.dynamic_bytes > limit {
            let dynamic = self.dynamic_bytes;
            return Err(format!(
                "{n_static} static and {dynamic} dynamic bytes of shared memory; the device has {limit}"
            ));
        }
        let offset = self.static_end;
        if offset + bytes.next_multiple_of(16) + GAP > STATIC_MAX {
            return Err(format!("more than {} shared arrays in one kernel", self.arrays.len()));
        }
        self.arrays.push(Array { site, offset, bytes });
        self.static_bytes = n_static;
        self.static_end = offset + bytes.next_multiple_of(16) + GAP;
        // SAFETY:
        // - Inside the map, by the check above.
        Ok(unsafe { self.map.add(offset) })
    }

    /// True when a block wrote behind the end of one of its arrays.
    pub fn is_overrun(&self) -> bool {
        self.arrays.iter().any(|array| {
            let end = array.offset + array.bytes;
            let gap = (array.bytes.next_multiple_of(16) - array.bytes) + GAP;
            // SAFETY:
            // - The gap of an array is inside the map, and no thread of the block runs any more.
            let gap = unsafe { std::slice::from_raw_parts(self.map.add(end), gap) };
            gap.iter().any(|b| *b != 0xff)
        })
    }

    /// Bytes from `address` to the end of the shared memory in use, 0 when it is not in it.
    pub fn room(&self, address: *const c_void) -> usize {
        let at = (address as usize).wrapping_sub(self.map as usize);
        let end = STATIC_MAX + DYNAMIC_MAX;
        match at {
            _ if at < self.static_end => self.static_end - at,
            _ if at < end && at >= end - self.dynamic_bytes.next_multiple_of(16) => end - at,
            _ => 0,
        }
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        // SAFETY:
        // - The map of `new`.
        unsafe { libc::munmap(self.map.cast(), STATIC_MAX + DYNAMIC_MAX + GUARD) };
    }
}
