//! What a stream does, at once or, under capture, when the graph is launched.

use std::sync::Arc;

use crate::error::Result;
use crate::launch::{self, Launch};

#[derive(Clone)]
pub enum Work {
    Launch(Arc<Launch>),
    /// Between any two addresses: host and device share one space here.
    Copy {
        to: usize,
        from: usize,
        bytes: usize,
    },
    Fill {
        to: usize,
        value: u32,
        width: usize,
        count: usize,
    },
}

impl Work {
    /// # Safety
    /// Addresses and lengths were checked when the work was made; memory may have been freed since, and then faults.
    pub unsafe fn run(&self) -> Result<()> {
        match self {
            Work::Launch(launch) => return launch::run(launch),
            // SAFETY:
            // - By the contract.
            Work::Copy { to, from, bytes } => unsafe { std::ptr::copy(*from as *const u8, *to as *mut u8, *bytes) },
            // SAFETY:
            // - By the contract.
            Work::Fill { to, value, width: 1, count } => unsafe {
                std::ptr::write_bytes(*to as *mut u8, *value as u8, *count);
            },
            Work::Fill { to, value, count, .. } => {
                for i in 0..*count {
                    // SAFETY:
                    // - By the contract, with `count` words of four bytes.
                    unsafe { (*to as *mut u32).add(i).write_unaligned(*value) };
                }
            }
        }
        Ok(())
    }
}
