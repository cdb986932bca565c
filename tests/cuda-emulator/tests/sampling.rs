//! The largest logits, against the search on the CPU: the same ids and bits, ties and NaN included.

mod common;
mod oracle;

use lichen_kernels::ops::sampling::{TopK, MAX_TOP_K};
use lichen_kernels::{Buffer, Device};
use oracle::{cpu, for_each_arch, random};

fn find(device: &Device, top: &mut TopK, logits: &[f32], k: usize) -> Vec<(u32, f32)> {
    find_rows(device, top, logits, 1, k).concat()
}

/// What is found in each row of `logits` (n_rows, V).
fn find_rows(device: &Device, top: &mut TopK, logits: &[f32], n_rows: usize, k: usize) -> Vec<Vec<(u32, f32)>> {
    let buffer = Buffer::from_slice(device, logits).unwrap();
    top.find(device, buffer.view([n_rows, logits.len() / n_rows]), k).unwrap();
    (0..n_rows).map(|row| top.of_row(row).to_vec()).collect()
}

/// Logits that are hard to sort.
fn cases() -> Vec<Vec<f32>> {
    let mut cases: Vec<Vec<f32>> = Vec::new();
    for n in [1, 2, 31, 63, 64, 65, 255, 1000, 2048, 2049, 6000] {
        cases.push(random(n, 10.0, n as u64));
        // Nearly all are equal to others.
        cases.push(random(n, 2.0, n as u64).iter().map(|v| v.round()).collect());
        cases.push((0..n).map(|i| i as f32).collect());
        cases.push((0..n).map(|i| -(i as f32)).collect());
        cases.push(vec![f32::NAN; n]);
        cases.push(vec![0.5; n]);
    }
    let mut odd = random(3000, 1.0, 7);
    odd[17] = f32::NAN;
    odd[18] = f32::INFINITY;
    odd[2999] = f32::INFINITY;
    odd[5] = f32::NEG_INFINITY;
    odd[6] = f32::from_bits(0xffc0_0000);
    cases.push(odd);
    cases.push(vec![f32::NEG_INFINITY, -0.0, 0.0, -0.0, f32::MIN, f32::MAX, f32::MIN_POSITIVE, -1e-45]);
    cases
}

#[test]
fn the_largest_are_those_of_the_cpu() {
    let cpu = cpu();
    for_each_arch(|device, arch| {
        for (i, logits) in cases().iter().enumerate() {
            let (mut on_gpu, mut on_cpu) =
                (TopK::new(device, logits.len(), 1).unwrap(), TopK::new(&cpu, logits.len(), 1).unwrap());
            // Twice with each count: the counter in the workspace must be as it was.
            for k in [1, 1, 2, 33, MAX_TOP_K, MAX_TOP_K, 1] {
                let (got, want) = (find(device, &mut on_gpu, logits, k), find(&cpu, &mut on_cpu, logits, k));
                assert_eq!(got, want, "sm_{arch}, case {i}, the {k} largest of {}", logits.len());
            }
        }
    });
}

#[test]
fn a_vocabulary_of_a_quarter_million_is_searched() {
    let cpu = cpu();
    let logits = random(262_144, 20.0, 9);
    for_each_arch(|device, arch| {
        let (mut on_gpu, mut on_cpu) =
            (TopK::new(device, logits.len(), 1).unwrap(), TopK::new(&cpu, logits.len(), 1).unwrap());
        for k in [1, 40] {
            assert_eq!(find(device, &mut on_gpu, &logits, k), find(&cpu, &mut on_cpu, &logits, k), "sm_{arch}");
        }
    });
}

/// As many rows as there are, in any order of counts: each row has a counter of its own.
#[test]
fn rows_are_searched_side_by_side() {
    let cpu = cpu();
    let n = 5000;
    for_each_arch(|device, arch| {
        let (mut on_gpu, mut on_cpu) = (TopK::new(device, n, 9).unwrap(), TopK::new(&cpu, n, 9).unwrap());
        for (n_rows, k) in [(9, 1), (9, 64), (1, 1), (2, 40), (9, 1), (3, 64), (9, 7)] {
            let logits = random(n_rows * n, 10.0, (n_rows * 100 + k) as u64);
            let got = find_rows(device, &mut on_gpu, &logits, n_rows, k);
            assert_eq!(got, find_rows(&cpu, &mut on_cpu, &logits, n_rows, k), "sm_{arch}, {n_rows} rows, top {k}");
        }
    });
}
