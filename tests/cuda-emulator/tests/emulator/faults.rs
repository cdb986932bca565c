//! What ends the process, and what it says: each case runs in a process of its own.

use crate::raw::{self, Arg, Device};

/// A launch that must not survive.
struct Case {
    name: &'static str,
    kernel: &'static str,
    block: u32,
    shared: u32,
    /// The kernel's second argument; the first is room for 256 words.
    value: u32,
    says: &'static [&'static str],
}

const fn case(name: &'static str, kernel: &'static str, block: u32, value: u32, says: &'static [&'static str]) -> Case {
    Case { name, kernel, block, shared: 256, value, says }
}

const CASES: [Case; 12] = [
    case(
        "exit before a barrier",
        "emulator_barrier_below",
        64,
        40,
        &["emulator_barrier_below, block (0, 0, 0)", "sync_block"],
    ),
    case("a warp at the barrier, another gone", "emulator_barrier_below", 64, 32, &["sync_block"]),
    case(
        "half a warp at each",
        "emulator_barrier_or_warp",
        32,
        16,
        &["no thread can go on", "16 threads wait at sync_block", "16 threads wait at sync_warp"],
    ),
    case("two collectives of a warp", "emulator_two_collectives", 32, 16, &["ballot", "shuffle_xor"]),
    case("a warp that is not whole", "emulator_shuffles", 40, 1, &["shuffle_xor in a warp of 8 lanes"]),
    case(
        "behind the end",
        "emulator_poke",
        1,
        256,
        &["emulator_poke, block (0, 0, 0), thread 0", "0 bytes behind the end of 1024 bytes"],
    ),
    case("far behind the end", "emulator_poke", 1, 200000, &["798976 bytes behind the end of 1024 bytes"]),
    case("no multiple of 16", "emulator_misaligned", 1, 4, &["no multiple of its size"]),
    case("behind a shared array", "emulator_overrun", 64, 64, &["behind the end of a shared array"]),
    case("behind dynamic shared memory", "emulator_dynamic", 64, 64, &["emulator_dynamic", "access to"]),
    case("more shared than was asked for", "emulator_dynamic", 1, 100, &["access to"]),
    case("a null pointer", "emulator_null", 1, 0, &["access to 0x0"]),
];

#[test]
fn faults_are_reported() {
    const ME: &str = "faults::faults_are_reported";
    if !raw::is_ready() {
        return;
    }
    if raw::is_child(ME) {
        let number: usize = std::env::var("LICHEN_TEST_CASE").expect("set").parse().expect("a number");
        return commit(&CASES[number]);
    }
    for (number, case) in CASES.iter().enumerate() {
        let (survived, said) = raw::child(ME, &[("LICHEN_TEST_CASE", &number.to_string())]);
        assert!(!survived, "{}: the process went on\n{said}", case.name);
        for part in ["lichen emulator: "].iter().chain(case.says) {
            assert!(said.contains(part), "{}: \"{part}\" is not in\n{said}", case.name);
        }
    }
}

fn commit(case: &Case) {
    let device = Device::open(0);
    let out = device.alloc(1024);
    let (name, out) = if case.kernel == "emulator_null" { ("emulator_poke", 0) } else { (case.kernel, out) };
    let kernel = device.kernel(name, "u64 u32");
    device.launch(kernel, 1, case.block, case.shared, &[Arg::Ptr(out), Arg::U32(case.value)]);
}

#[test]
fn freed_memory_is_named() {
    const ME: &str = "faults::freed_memory_is_named";
    if !raw::is_ready() {
        return;
    }
    if raw::is_child(ME) {
        let device = Device::open(0);
        let out = device.alloc(1024);
        let kernel = device.kernel("emulator_poke", "u64 u32");
        ok!(cuMemFree_v2: fn(u64), out);
        device.launch(kernel, 1, 1, 0, &[Arg::Ptr(out), Arg::U32(2)]);
        return;
    }
    let (survived, said) = raw::child(ME, &[]);
    assert!(!survived && said.contains("byte 8 of 1024 freed bytes"), "{said}");
}

#[test]
fn a_fault_can_stick_to_the_context() {
    const ME: &str = "faults::a_fault_can_stick_to_the_context";
    if !raw::is_ready() {
        return;
    }
    if !raw::is_child(ME) {
        for threads in ["1", "3"] {
            let (survived, said) =
                raw::child(ME, &[("LICHEN_EMULATOR_FAULT", "sticky"), ("LICHEN_EMULATOR_THREADS", threads)]);
            assert!(survived && said.contains("emulator_poke"), "{said}");
        }
        return;
    }
    const ILLEGAL_ADDRESS: u32 = 700;
    let broken = Device::open(0);
    let out = broken.alloc(1024);
    let kernel = broken.kernel("emulator_poke", "u64 u32");
    // As on a device the launch itself succeeds.
    assert_eq!(broken.launch(kernel, 50, 64, 0, &[Arg::Ptr(out), Arg::U32(5000)]), 0);
    assert_eq!(call!(cuCtxSynchronize: fn(),), ILLEGAL_ADDRESS);
    assert_eq!(broken.launch(kernel, 1, 1, 0, &[Arg::Ptr(out), Arg::U32(0)]), ILLEGAL_ADDRESS);
    let mut pointer = 0;
    assert_eq!(call!(cuMemAlloc_v2: fn(*mut u64, usize), &mut pointer, 16), ILLEGAL_ADDRESS);
    assert_eq!(raw::error_string(ILLEGAL_ADDRESS), "an illegal memory access was encountered");
    // Another device has not heard of it, and its fibers run.
    let whole = Device::open(1);
    let out = whole.alloc(8 * 4);
    let x = whole.upload(&[1.0f32; 8 * 64]);
    let sum = whole.kernel("emulator_sum", "u64 u64");
    whole.run(sum, 8, 64, 0, &[Arg::Ptr(out), Arg::Ptr(x)]);
    assert_eq!(whole.download::<f32>(out, 8), [64.0; 8]);
    let misaligned = whole.kernel("emulator_misaligned", "u64 u32");
    assert_eq!(whole.launch(misaligned, 1, 1, 0, &[Arg::Ptr(out), Arg::U32(4)]), 0);
    assert_eq!(call!(cuCtxSynchronize: fn(),), 716);
}

#[test]
fn a_device_can_be_lost() {
    const ME: &str = "faults::a_device_can_be_lost";
    if !raw::is_ready() {
        return;
    }
    if !raw::is_child(ME) {
        let (is_ok, said) = raw::child(ME, &[("LICHEN_EMULATOR_LOSE_AFTER", "3")]);
        assert!(is_ok, "{said}");
        return;
    }
    let device = Device::open(0);
    let out = device.alloc(1024);
    let kernel = device.kernel("emulator_poke", "u64 u32");
    let args = [Arg::Ptr(out), Arg::U32(0)];
    let codes: Vec<u32> = (0..4).map(|_| device.launch(kernel, 1, 1, 0, &args)).collect();
    assert_eq!(codes, [0, 0, 719, 719]);
    assert_eq!(call!(cuCtxSynchronize: fn(),), 719);
    let mut word = [0u32];
    assert_eq!(device.try_download(out, &mut word), 719);
}
