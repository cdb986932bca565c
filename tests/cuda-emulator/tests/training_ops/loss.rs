//! Cross-entropy, and the gradient of the embedding.

use lichen_kernels::ops::{cross_entropy, embedding};
use lichen_kernels::{Device, Readback, Step};

use crate::common::upload;
use crate::oracle::{assert_same_bits, cpu, for_each_arch, random};
use crate::support::{assert_within, Array, ROUNDING, STARTS};

/// Losses, and what became of the logits.
fn loss(device: &Device, start: usize, z: &[f32], targets: &[u32], scale: Option<f32>) -> (Vec<f64>, Vec<f32>) {
    let (rows, vocab) = (targets.len(), z.len() / targets.len());
    let mut logits = Array::new(device, start, z);
    let targets = upload(device, targets);
    let mut losses = Readback::new(device, rows + 1).unwrap();
    let out = losses.part_mut(1, [rows]);
    cross_entropy::forward_backward(device, logits.view_mut([rows, vocab]), targets.view([rows]), scale, out);
    let losses = losses.fetch(rows + 1).unwrap()[1..].to_vec();
    (losses, logits.read(device))
}

/// An exponential of a difference of d is off by 4 d roundings and 8 on a GPU, whose sum may be of two such factors; by d and
/// 4 on the CPU. Sums add a few; differences reach twice the size of logits.
fn exponentials(size: f32) -> f64 {
    let d = 2.0 * f64::from(size);
    (9.0 * d + 24.0) * ROUNDING
}

#[test]
fn losses_and_gradients_are_those_of_the_cpu() {
    let cpu = cpu();
    // Around a block's 512 threads with one and with four entries, and four times that; a vocabulary of a quarter million.
    let cases = [
        (1, 1, 3.0),
        (3, 15, 1.0),
        (2, 17, 30.0),
        (2, 512, 5.0),
        (2, 2045, 5.0),
        (2, 2052, 5.0),
        (3, 8196, 40.0),
        (2, 8195, 0.01),
        (1, 262_144, 8.0),
    ];
    for_each_arch(|device, arch| {
        for (rows, vocab, size) in cases {
            let z = random(rows * vocab, size, 5);
            let targets: Vec<u32> = (0..rows).map(|c| ((c * 7919 + 1) % vocab) as u32).collect();
            let scale = 1.0 / (rows + 3) as f32;
            for start in STARTS {
                let what = format!("sm_{arch} ({rows}, {vocab}) of {size} from {start}");
                let (got, dz) = loss(device, start, &z, &targets, Some(scale));
                let (want, want_dz) = loss(&cpu, start, &z, &targets, Some(scale));
                for (got, want) in got.iter().zip(&want) {
                    let bound = exponentials(size) + 2.0 * ROUNDING * want.abs();
                    assert!((got - want).abs() <= bound, "{what}: {got}, {want} expected within {bound:e}");
                }
                let bound = |i: usize| {
                    let is_target = i % vocab == targets[i / vocab] as usize;
                    let p = f64::from(want_dz[i].abs()) + if is_target { f64::from(scale) } else { 0.0 };
                    (2.0 * exponentials(size) + 4.0 * ROUNDING) * p
                };
                assert_within(&dz, &want_dz, bound, &what);
                for row in dz.chunks(vocab) {
                    let total: f64 = row.iter().map(|v| f64::from(*v)).sum::<f64>() / f64::from(scale);
                    assert!(total.abs() <= 1e-5, "{what}: a softmax sums to one: {total}");
                }
                let again = loss(device, start, &z, &targets, Some(scale));
                assert_eq!(again.0, got, "{what}");
                assert_same_bits(&again.1, &dz, &what);
                let (alone, untouched) = loss(device, start, &z, &targets, None);
                assert_eq!(alone, got, "{what}: without a gradient");
                assert_same_bits(&untouched, &z, &what);
            }
        }
    });
}

/// Rows that move the base of the sum: ever larger logits, one that is far above all, all the same.
#[test]
fn rows_that_rise_keep_their_sum() {
    let vocab = 4096;
    let rising = |i: usize| i as f32 * 0.05 - 100.0;
    let peak = |i: usize| if i == 3000 { 60.0 } else { (i % 7) as f32 };
    let cases: [(&str, &dyn Fn(usize) -> f32); 3] = [("rising", &rising), ("one peak", &peak), ("flat", &|_| -3.5)];
    for_each_arch(|device, arch| {
        for (name, value) in cases {
            let z: Vec<f32> = (0..vocab).map(value).collect();
            for target in [0, 3000, vocab - 1] {
                let (got, dz) = loss(device, 0, &z, &[target as u32], Some(1.0));
                let top = z.iter().fold(f32::MIN, |a, b| a.max(*b));
                let sum: f64 = z.iter().map(|v| f64::from(v - top).exp()).sum();
                let want = sum.ln() - f64::from(z[target] - top);
                // What counts lies within 20 of the top.
                let bound = exponentials(10.0) + 2.0 * ROUNDING * want;
                assert!((got[0] - want).abs() <= bound, "sm_{arch}, {name}, target {target}: {} {want}", got[0]);
                let total: f64 = dz.iter().map(|v| f64::from(*v)).sum();
                assert!(total.abs() <= 1e-5, "sm_{arch}, {name}, target {target}: {total}");
            }
        }
    });
}

#[test]
fn what_is_not_a_number_reaches_the_loss() {
    let cpu = cpu();
    for_each_arch(|device, arch| {
        for vocab in [3, 4, 5000] {
            for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
                for at in [0, vocab / 2, vocab - 1] {
                    let mut z = random(2 * vocab, 4.0, 8);
                    z[vocab + at] = bad;
                    let targets = [0, (vocab / 2) as u32];
                    let what = format!("sm_{arch}: {bad} at {at} of {vocab}");
                    let (got, _) = loss(device, 0, &z, &targets, Some(1.0));
                    let (want, _) = loss(&cpu, 0, &z, &targets, Some(1.0));
                    assert!(got[0].is_finite() && want[0].is_finite(), "{what}: the row before");
                    assert!(!got[1].is_finite() && !want[1].is_finite(), "{what}: {} {}", got[1], want[1]);
                }
            }
        }
    });
}

#[test]
fn rows_of_one_token_are_added_in_order() {
    let cpu = cpu();
    // (T, V, D): every token once, a few tokens often, more rows than a block finds at once, more columns than a block has.
    let cases = [(1, 1, 1), (5, 9, 4), (40, 3, 31), (300, 5, 8), (530, 1, 3), (9, 4, 1028), (7, 3, 1025)];
    for_each_arch(|device, arch| {
        for (t, vocab, dim) in cases {
            let (before, dx) = (random(vocab * dim, 1.0, 1), random(t * dim, 1.0, 2));
            let tokens: Vec<u32> = (0..t).map(|i| ((i * i + 3 * i) % vocab) as u32).collect();
            let run = |device: &Device, start: usize| {
                let mut step = Step::new(device, t).unwrap();
                step.set(0, &tokens);
                step.send();
                let (mut table, dx) = (Array::new(device, start, &before), Array::new(device, start, &dx));
                embedding::backward(device, table.view_mut([vocab, dim]), dx.view([t, dim]), &step, 33.94);
                table.read(device)
            };
            for start in STARTS {
                let what = format!("sm_{arch}: {t} rows of ({vocab}, {dim}) from {start}");
                assert_same_bits(&run(device, start), &run(&cpu, start), &what);
            }
        }
    });
}
