//! The global norm and AdamW: the bits of the CPU.

use lichen_kernels::ops::adamw::{self, CHUNK};
use lichen_kernels::ops::sum_of_squares;
use lichen_kernels::{Device, Readback};

use crate::oracle::{assert_same_bits, cpu, for_each_arch, random};
use crate::support::{Array, STARTS};

#[test]
fn sums_of_squares_have_the_bits_of_the_cpu() {
    let cpu = cpu();
    let x = random(140_000, 2.0, 9);
    let run = |device: &Device, start: usize, x: &[f32]| {
        let array = Array::new(device, start, x);
        let mut partials = Readback::new(device, sum_of_squares::n_partials(x.len()) + 2).unwrap();
        sum_of_squares::forward(device, array.view([x.len()]), &mut partials).unwrap()
    };
    for_each_arch(|device, arch| {
        for n in [0, 1, 3, 15, 16, 17, 4095, 4096, 4097, 8211, x.len()] {
            for start in STARTS {
                let (got, want) = (run(device, start, &x[..n]), run(&cpu, start, &x[..n]));
                assert_eq!(got.to_bits(), want.to_bits(), "sm_{arch}: {n} from {start}: {got}, {want} expected");
            }
        }
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, 2e19] {
            for at in [0, 4095, 5000] {
                let mut x = x[..5001].to_vec();
                x[at] = bad;
                assert!(!run(device, 0, &x).is_finite(), "sm_{arch}: {bad} at {at}");
            }
        }
    });
}

#[test]
fn three_steps_have_the_bits_of_the_cpu() {
    let cpu = cpu();
    // Around a block of 1,024 and a chunk of 16,384; last chunks of whole groups of four, and not.
    let lengths = [0, 1, 4, 7, 1023, 1024, 1028, CHUNK - 1, CHUNK, CHUNK + 4, CHUNK + 1027];
    for_each_arch(|device, arch| {
        for n in lengths {
            let (p, g) = (random(n, 1.0, 1), random(3 * n, 0.1, 2));
            let run = |device: &Device, start: usize| {
                let mut p = Array::new(device, start, &p);
                let mut moments = Array::new(device, start, &vec![0.0; 2 * n]);
                for t in 1..=3 {
                    let gradient = &g[(t - 1) * n..t * n];
                    // A parameter without a gradient divides by little more than eps.
                    let gradient: Vec<f32> =
                        gradient.iter().enumerate().map(|(i, g)| if i % 9 == 5 { 0.0 } else { *g }).collect();
                    let gradient = Array::new(device, start, &gradient);
                    let step = adamw::Step {
                        learning_rate: 1e-3,
                        beta1: 0.9,
                        beta2: 0.999,
                        eps: 1e-8,
                        weight_decay: 0.1,
                        t: t as u64,
                        gradient_scale: 0.7,
                    };
                    let views = (p.view_mut([n]), moments.view_mut([2 * n]));
                    adamw::step(device, views.0, gradient.view([n]), views.1, &step);
                }
                (p.read(device), moments.read(device))
            };
            for start in STARTS {
                let what = format!("sm_{arch}: {n} parameters from {start}");
                let (got, want) = (run(device, start), run(&cpu, start));
                assert_same_bits(&got.0, &want.0, &what);
                assert_same_bits(&got.1, &want.1, &format!("{what}, moments"));
            }
        }
    });
}
