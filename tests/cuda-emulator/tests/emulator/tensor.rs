//! Tensor cores against plain loops: small whole numbers, whose products and sums are exact, and one-hot tiles, which tell
//! every element's place.

use half::{bf16, f16};

use crate::raw::{self, Arg, Device};

/// (16, 16) and (n, 16) times each other's rows, plus `c`.
fn product(a: &[f32], b: &[f32], c: f32) -> Vec<f32> {
    product_of(16, a, b, c)
}

/// The same with rows of `n_k`.
fn product_of(n_k: usize, a: &[f32], b: &[f32], c: f32) -> Vec<f32> {
    let dot = |i: usize, j: usize| (0..n_k).map(|k| a[i * n_k + k] * b[j * n_k + k]).sum::<f32>() + c;
    (0..16).flat_map(|i| (0..b.len() / n_k).map(move |j| (i, j))).map(|(i, j)| dot(i, j)).collect()
}

/// Tiles of `n_a` and `n_b` elements: whole numbers, then every element alone in one of the two.
fn tiles(n_a: usize, n_b: usize) -> Vec<(Vec<f32>, Vec<f32>)> {
    let whole = |n: usize, step: usize| (0..n).map(|i| (i * step % 15) as f32 - 7.0).collect::<Vec<f32>>();
    let hot = |n: usize, at: usize| (0..n).map(|i| (i == at) as u32 as f32).collect::<Vec<f32>>();
    let mut all = vec![(whole(n_a, 7), whole(n_b, 11))];
    all.extend((0..n_a).map(|at| (hot(n_a, at), whole(n_b, 13))));
    all.extend((0..n_b).map(|at| (whole(n_a, 13), hot(n_b, at))));
    all
}

fn f16s(values: &[f32]) -> Vec<u16> {
    values.iter().map(|v| f16::from_f32(*v).to_bits()).collect()
}

fn brains(values: &[f32]) -> Vec<u16> {
    values.iter().map(|v| bf16::from_f32(*v).to_bits()).collect()
}

#[test]
fn wmma_multiplies() {
    if !raw::is_ready() {
        return;
    }
    for ordinal in [1, 2, 4] {
        let device = Device::open(ordinal);
        let kernel = device.kernel("emulator_wmma", "u64 u64 u64");
        let (c, at_a, at_b) = (device.alloc(1024), device.alloc(512), device.alloc(512));
        for (a, b) in tiles(256, 256) {
            device.write(at_a, &f16s(&a));
            device.write(at_b, &f16s(&b));
            device.run(kernel, 1, 32, 0, &[Arg::Ptr(c), Arg::Ptr(at_a), Arg::Ptr(at_b)]);
            assert_eq!(device.download::<f32>(c, 256), product(&a, &b, 1.0));
        }
    }
}

#[test]
fn mma_multiplies() {
    if !raw::is_ready() {
        return;
    }
    for ordinal in [2, 4] {
        let device = Device::open(ordinal);
        let kernel = device.kernel("emulator_mma", "u64 u64 u64 u32");
        let (c, at_a, at_b) = (device.alloc(512), device.alloc(512), device.alloc(256));
        for (a, b) in tiles(256, 128) {
            for is_bf16 in [false, true] {
                let encode = if is_bf16 { brains } else { f16s };
                device.write(at_a, &encode(&a));
                device.write(at_b, &encode(&b));
                let args = [Arg::Ptr(c), Arg::Ptr(at_a), Arg::Ptr(at_b), Arg::U32(is_bf16.into())];
                device.run(kernel, 1, 32, 0, &args);
                assert_eq!(device.download::<f32>(c, 128), product(&a, &b, 0.0), "bf16: {is_bf16}");
            }
        }
    }
}

#[test]
fn mma_of_tf32_multiplies_and_rounds() {
    if !raw::is_ready() {
        return;
    }
    for ordinal in [2, 4] {
        let device = Device::open(ordinal);
        let kernel = device.kernel("emulator_mma_tf32", "u64 u64 u64");
        let (c, at_a, at_b) = (device.alloc(512), device.alloc(512), device.alloc(256));
        // A bit below the last of tf32 is rounded away, one that is half of it up.
        let fine = |v: &f32| v * (1.0 + 2f32.powi(-12));
        for (a, b) in tiles(128, 64) {
            let a_fine: Vec<f32> = a.iter().map(fine).collect();
            for a_sent in [&a, &a_fine] {
                device.write(at_a, a_sent);
                device.write(at_b, &b);
                device.run(kernel, 1, 32, 0, &[Arg::Ptr(c), Arg::Ptr(at_a), Arg::Ptr(at_b)]);
                assert_eq!(device.download::<f32>(c, 128), product_of(8, &a, &b, 0.0));
            }
        }
    }
}

#[test]
fn ldmatrix_follows_its_map() {
    if !raw::is_ready() {
        return;
    }
    let device = Device::open(2);
    let kernel = device.kernel("emulator_ldmatrix", "u64 u64");
    let x: Vec<u16> = (0..256).collect();
    let out = device.alloc(1024);
    device.run(kernel, 1, 32, 0, &[Arg::Ptr(out), Arg::Ptr(device.upload(&x))]);
    let got = device.download::<u16>(out, 512);
    for lane in 0..32 {
        let (g, t) = (lane / 4, lane % 4);
        for matrix in 0..4 {
            let at = |row: usize, column: usize| x[matrix * 64 + row * 8 + column];
            let pair = |register: usize| [got[lane * 16 + 2 * register], got[lane * 16 + 2 * register + 1]];
            assert_eq!(pair(matrix), [at(g, 2 * t), at(g, 2 * t + 1)], "lane {lane}, matrix {matrix}");
            assert_eq!(pair(4 + matrix), [at(2 * t, g), at(2 * t + 1, g)], "lane {lane}, matrix {matrix}, transposed");
        }
    }
}
