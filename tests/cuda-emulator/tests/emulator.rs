//! What the emulator promises, each with a kernel that would show it broken.

#[macro_use]
mod raw;

use raw::{Arg, Device};

#[test]
fn kernels_run() {
    if !raw::has_kernels() {
        return;
    }
    let device = Device::open(0);
    let n = 1000;
    let a: Vec<f32> = (0..n).map(|i| i as f32).collect();
    let b: Vec<f32> = (0..n).map(|i| (i * 7 % 13) as f32).collect();
    let out = device.alloc(n * 4);
    let axpy = device.kernel(53, "emulator_axpy", "u64 u64 u64 f32 u32");
    let args =
        [Arg::Ptr(out), Arg::Ptr(device.upload(&a)), Arg::Ptr(device.upload(&b)), Arg::F32(0.5), Arg::U32(n as u32)];
    assert_eq!(device.launch(axpy, 4, 256, 0, &args), 0);
    let want: Vec<f32> = a.iter().zip(&b).map(|(a, b)| a + 0.5 * b).collect();
    assert_eq!(device.download::<f32>(out, n), want);
}

#[test]
fn shuffles_and_barriers_meet() {
    if !raw::has_kernels() {
        return;
    }
    let device = Device::open(0);
    let x: Vec<f32> = (0..8 * 1024).map(|i| (i % 97) as f32).collect();
    let out = device.alloc(8 * 4);
    let sum = device.kernel(53, "emulator_sum", "u64 u64");
    assert_eq!(device.launch(sum, 8, 1024, 0, &[Arg::Ptr(out), Arg::Ptr(device.upload(&x))]), 0);
    let want: Vec<f32> = x.chunks(1024).map(|c| c.iter().sum()).collect();
    assert_eq!(device.download::<f32>(out, 8), want);
}
