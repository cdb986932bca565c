//! What a block did that a GPU would hang on or leave undefined: one sentence, and the process ends.
//!
//! The sentences are made in functions of their own, out of the way of the barriers that find the faults.

use std::collections::BTreeMap;

use super::{Collective, State, Thread, Worker, WARP};

impl Worker {
    fn place(&self) -> String {
        let [x, y, z] = self.block.index;
        format!("kernel {}, block ({x}, {y}, {z})", self.kernel)
    }
}

/// Says what is wrong and ends the process. A null thread: the block as a whole.
pub(super) unsafe fn fail(thread: *mut Thread, worker: *mut Worker, what: &str) -> ! {
    // SAFETY:
    // - As in `exit`.
    let (place, index) = unsafe { ((*worker).place(), thread.as_ref().map(|t| t.head.index)) };
    match index {
        Some(index) => eprintln!("lichen emulator: {place}, thread {index}: {what}"),
        None => eprintln!("lichen emulator: {place}: {what}"),
    }
    std::process::abort()
}

/// Where the thread runs: for reports.
pub unsafe fn place_of(thread: *const Thread) -> String {
    // SAFETY:
    // - The thread and its worker are alive.
    unsafe { format!("{}, thread {}", (*(*thread).worker).place(), (*thread).head.index) }
}

pub(super) fn deadlock(worker: &Worker) -> String {
    let mut waits: BTreeMap<String, u32> = BTreeMap::new();
    for thread in &worker.threads[..worker.block.dim as usize] {
        let what = match thread.state {
            State::AtBarrier => "wait at sync_block".to_string(),
            State::AtCollective => {
                let collective = worker.warps[(thread.head.index / WARP) as usize].collective;
                // SAFETY:
                // - A lane that waits has set it.
                format!("wait at {}", unsafe { &*collective }.name())
            }
            State::Exited => "have left the kernel".to_string(),
            State::Running => "run".to_string(),
        };
        *waits.entry(what).or_default() += 1;
    }
    let list: Vec<String> = waits.iter().map(|(what, n)| format!("{n} threads {what}")).collect();
    format!("no thread can go on: {}", list.join(", "))
}

#[cold]
#[inline(never)]
pub(super) unsafe fn fail_late(thread: *mut Thread, worker: *mut Worker) -> ! {
    // SAFETY:
    // - As in `sync_block`.
    unsafe {
        fail(thread, worker, &format!("reached sync_block after {} threads left the kernel", (*worker).n_exited));
    }
}

#[cold]
#[inline(never)]
pub(super) unsafe fn fail_mixed(
    thread: *mut Thread,
    worker: *mut Worker,
    mine: *const Collective,
    theirs: *const Collective,
) -> ! {
    // SAFETY:
    // - As in `warp`; collectives are constants of the compiled kernels.
    unsafe {
        let (mine, theirs) = ((*mine).name(), (*theirs).name());
        fail(thread, worker, &format!("reached {mine} while lanes of its warp wait at {theirs}"));
    }
}

/// A collective is for 32 lanes that are all there.
#[cold]
#[inline(never)]
pub(super) unsafe fn check_whole(thread: *mut Thread, worker: *mut Worker, collective: *const Collective) {
    // SAFETY:
    // - As in `warp`.
    unsafe {
        let name = (*collective).name();
        let dim = (*worker).block.dim;
        let first = (*thread).head.index & !(WARP - 1);
        if dim - first < WARP {
            fail(thread, worker, &format!("{name} in a warp of {} lanes; collectives need all 32", dim - first));
        }
        if (*worker).n_exited == 0 {
            return;
        }
        let lanes = &(&(*worker).threads)[first as usize..(first + WARP) as usize];
        if lanes.iter().any(|lane| lane.state == State::Exited) {
            fail(thread, worker, &format!("reached {name} after lanes of its warp left the kernel"));
        }
    }
}
