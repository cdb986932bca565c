//! Threads, barriers, collectives, shared memory: what kernels may rely on, and what they may not.

use crate::raw::{self, Arg, Device};

#[test]
fn kernels_run() {
    if !raw::is_ready() {
        return;
    }
    for (ordinal, _) in raw::DEVICES {
        let device = Device::open(ordinal);
        let n = 1000;
        let a: Vec<f32> = (0..n).map(|i| i as f32).collect();
        let b: Vec<f32> = (0..n).map(|i| (i * 7 % 13) as f32).collect();
        let out = device.alloc(n * 4);
        let axpy = device.kernel("emulator_axpy", "u64 u64 u64 f32 u32");
        let (at_a, at_b) = (device.upload(&a), device.upload(&b));
        let args = [Arg::Ptr(out), Arg::Ptr(at_a), Arg::Ptr(at_b), Arg::F32(0.5), Arg::U32(n as u32)];
        device.run(axpy, 4, 256, 0, &args);
        let want: Vec<f32> = a.iter().zip(&b).map(|(a, b)| a + 0.5 * b).collect();
        assert_eq!(device.download::<f32>(out, n), want);
    }
}

#[test]
fn shuffles_and_barriers_meet() {
    if !raw::is_ready() {
        return;
    }
    let device = Device::open(0);
    let x: Vec<f32> = (0..8 * 1024).map(|i| (i % 97) as f32).collect();
    let out = device.alloc(8 * 4);
    let sum = device.kernel("emulator_sum", "u64 u64");
    let args = [Arg::Ptr(out), Arg::Ptr(device.upload(&x))];
    for block in [32, 64, 256, 1024] {
        device.run(sum, 8, block, 0, &args);
        let want: Vec<f32> = x.chunks(block as usize).take(8).map(|c| c.iter().sum()).collect();
        assert_eq!(device.download::<f32>(out, 8), want, "block {block}");
    }
}

#[test]
fn the_last_block_sees_all_others() {
    if !raw::is_ready() {
        return;
    }
    let device = Device::open(0);
    let n = 300;
    let (out, parts, counter) = (device.alloc(4), device.alloc(n * 4), device.upload(&[0u32]));
    let kernel = device.kernel("emulator_last_block", "u64 u64 u64");
    for _ in 0..20 {
        device.run(kernel, n as u32, 32, 0, &[Arg::Ptr(out), Arg::Ptr(parts), Arg::Ptr(counter)]);
        assert_eq!(device.download::<u32>(out, 1), [(n * (n + 1) / 2) as u32]);
        assert_eq!(device.download::<u32>(counter, 1), [0]);
    }
}

fn order_of_threads() -> Vec<u32> {
    let device = Device::open(0);
    let (out, counter) = (device.alloc(256 * 4), device.upload(&[0u32]));
    let kernel = device.kernel("emulator_order", "u64 u64");
    device.run(kernel, 1, 256, 0, &[Arg::Ptr(out), Arg::Ptr(counter)]);
    device.download(out, 256)
}

#[test]
fn seeds_change_the_order() {
    const ME: &str = "threads::seeds_change_the_order";
    if !raw::is_ready() {
        return;
    }
    if raw::is_child(ME) {
        println!("order {:?}", order_of_threads());
        return;
    }
    let order = |seed: &str| {
        let (is_ok, said) = raw::child(ME, &[("LICHEN_EMULATOR_SEED", seed)]);
        assert!(is_ok, "{said}");
        said.lines().find(|l| l.starts_with("order")).expect("printed").to_string()
    };
    let (one, two) = (order("1"), order("2"));
    assert_ne!(one, two);
    assert_eq!(one, order("1"));
    let mut all = order_of_threads();
    all.sort_unstable();
    assert_eq!(all, (0..256).collect::<Vec<u32>>());
}

#[test]
fn what_nothing_wrote_is_poison() {
    if !raw::is_ready() {
        return;
    }
    let device = Device::open(0);
    let out = device.alloc(128 * 4);
    assert_eq!(device.download::<u32>(out, 128), [u32::MAX; 128]);
    let kernel = device.kernel("emulator_unwritten", "u64 u32");
    // The kernel leaves other values behind: the next block must not find them.
    for value in [5, 6, 7] {
        device.run(kernel, 3, 64, 256, &[Arg::Ptr(out), Arg::U32(value)]);
        assert_eq!(device.download::<u32>(out, 128), [u32::MAX; 128]);
    }
}

#[test]
fn a_copy_is_there_at_its_wait_and_not_before() {
    if !raw::is_ready() {
        return;
    }
    for (ordinal, _) in raw::DEVICES.into_iter().filter(|(_, arch)| *arch >= 80) {
        let device = Device::open(ordinal);
        let x: Vec<u32> = (0..256).collect();
        let out = device.alloc(256 * 4);
        let kernel = device.kernel("emulator_copy", "u64 u64 u32 u32");
        let at_x = device.upload(&x);
        let run = |waits, n_valid| {
            device.run(kernel, 1, 64, 0, &[Arg::Ptr(out), Arg::Ptr(at_x), Arg::U32(waits), Arg::U32(n_valid)]);
            device.download::<u32>(out, 256)
        };
        let swapped: Vec<u32> = (0..256).map(|i| x[i ^ 4]).collect();
        assert_eq!(run(1, 64), swapped);
        let some: Vec<u32> = (0..256).map(|i| if (i ^ 4) < 40 { x[i ^ 4] } else { 0 }).collect();
        assert_eq!(run(1, 10), some);
        assert_eq!(run(0, 64), [u32::MAX; 256]);
    }
}

fn thread_seconds() -> f64 {
    // SAFETY:
    // - The call fills the struct.
    let time = unsafe {
        let mut time: libc::timespec = std::mem::zeroed();
        libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &mut time);
        time
    };
    time.tv_sec as f64 + time.tv_nsec as f64 * 1e-9
}

/// Processor time of one thread at one barrier or shuffle: printed, not judged.
#[test]
fn time_of_a_sync_event() {
    if !raw::is_ready() {
        return;
    }
    let device = Device::open(0);
    let out = device.alloc(4 * 1024 * 4);
    let n = 1000;
    for (name, block) in [("emulator_shuffles", 32), ("emulator_shuffles", 256), ("emulator_barriers", 256)] {
        let kernel = device.kernel(name, "u64 u32");
        device.run(kernel, 1, block, 0, &[Arg::Ptr(out), Arg::U32(1)]);
        let start = thread_seconds();
        device.run(kernel, 1, block, 0, &[Arg::Ptr(out), Arg::U32(n)]);
        let ns = (thread_seconds() - start) * 1e9 / f64::from(n * block);
        println!("{name}, {block} threads: {ns:.1} ns for each thread");
        assert!(ns > 0.0);
    }
}
