//! Training as it is used: `lichen-train` killed, signalled, overheated, with a full disk, with bad numbers, with wrong flags;
//! and the same jobs through the library, where a fault can be put at every call of the disk. The oracle is nearly always the
//! same: what the run ends with is, byte for byte, what an undisturbed one ends with.

/// Optimiser steps take nothing from the heap.
mod allocation;
/// Files of data, and what is said of them.
mod data_flags;
/// Threads, recomputation and the shape of a batch do not change what is trained.
mod equality;
/// What is published, and what only kept; rolling back.
mod evaluation;
/// The n-th call of the disk fails; the power goes.
mod faults;
/// Hot boards, and boards with little power.
mod heat;
/// SIGKILL at random instants.
mod kills;
/// Some layers alone.
mod layers;
/// Jobs through the library, on a disk in memory.
mod library;
/// The memory plan against what was taken.
mod memory;
/// Weights and data that are not finite.
mod not_finite;
/// Checkpoints that are damaged, and ones that belong to another job.
mod resume;
/// SIGTERM and SIGINT at random instants; readers that leave.
mod signals;
/// No room for checkpoints.
mod small_disk;
/// Running the program, and what a run leaves behind.
mod support;
/// Flags and job files.
mod usage;

use lichen_tests::heap::CountingAllocator;

#[global_allocator]
static HEAP: CountingAllocator = CountingAllocator;
