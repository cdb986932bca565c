//! What goes element by element, or row by row: the bits of the CPU.

use lichen_kernels::ops::activation::{self, Activation};
use lichen_kernels::ops::dropout::{self, Key};
use lichen_kernels::ops::rope::{self, RopeTable};
use lichen_kernels::ops::{copy, residual, rows};
use lichen_kernels::Device;

use crate::common::upload;
use crate::oracle::{assert_same_bits, cpu, for_each_arch, random};
use crate::support::{Array, STARTS};

/// Around a thread's four elements, a block's 1,024, and what the grid of a one-multiprocessor device takes at once.
const LENGTHS: [usize; 9] = [0, 1, 3, 4, 5, 1023, 1024, 1030, 16_401];

/// Runs `op` over `x` and `y`, and on the CPU: all that it wrote must be the same.
fn check(name: &str, x: &[f32], y: &[f32], op: impl Fn(&Device, &mut [Array; 3], usize)) {
    let run = |device: &Device, start: usize, n: usize| {
        let mut arrays = [
            Array::unwritten(device, start, n),
            Array::new(device, start, &x[..n]),
            Array::new(device, start, &y[..n]),
        ];
        op(device, &mut arrays, n);
        arrays.each_ref().map(|a| a.read(device))
    };
    let cpu = cpu();
    for_each_arch(|device, arch| {
        for n in LENGTHS.into_iter().filter(|n| *n <= x.len()) {
            for start in STARTS {
                let (got, want) = (run(device, start, n), run(&cpu, start, n));
                for (which, (got, want)) in got.iter().zip(&want).enumerate() {
                    assert_same_bits(got, want, &format!("sm_{arch}: {name} of {n} from {start}, array {which}"));
                }
            }
        }
    });
}

/// Gates from -94 to 94, the ends of the exponential and what is no number among them.
fn gates(n: usize) -> Vec<f32> {
    let special =
        [0.0, -0.0, 1e-30, -1e-30, 87.0, 89.0, -87.5, -89.0, 1e30, -1e30, f32::INFINITY, f32::NEG_INFINITY, f32::NAN];
    let mut gates = random(n, 8.0, 5);
    gates.iter_mut().skip(7).step_by(3).enumerate().for_each(|(i, g)| *g = (i as f32 - 900.0) * 0.047);
    gates.iter_mut().skip(2).step_by(71).zip(special.iter().cycle()).for_each(|(g, special)| *g = *special);
    gates
}

#[test]
fn sums_and_copies() {
    let (x, y) = (random(16_401, 3.0, 1), random(16_401, 2.0, 2));
    check("sum", &x, &y, |device, [out, x, y], n| residual::sum(device, out.view_mut([n]), x.view([n]), y.view([n])));
    check("add_to", &x, &y, |device, [_, x, y], n| residual::add_to(device, x.view_mut([n]), y.view([n])));
    check("copy", &x, &y, |device, [out, x, _], n| copy::copy(device, out.view_mut([n]), x.view([n])));
    check("zero", &x, &y, |device, [_, x, _], n| copy::zero(device, x.view_mut([n])));
}

#[test]
fn activations_and_their_gradients() {
    let (gate, up) = (gates(16_401), random(16_401, 1.5, 6));
    let dout = random(16_401, 2.0, 7);
    for which in [Activation::GeluTanh, Activation::Silu] {
        check("activation", &gate, &up, |device, [_, gate, up], n| {
            activation::forward(device, which, gate.view_mut([n]), up.view([n]));
        });
        check("activation to", &gate, &up, |device, [out, gate, up], n| {
            activation::forward_to(device, which, out.view_mut([n]), gate.view([n]), up.view([n]));
        });
        check("its gradient", &gate, &up, |device, [out, gate, up], n| {
            *out = Array::new(device, 0, &dout[..n]);
            activation::backward::in_place(device, which, gate.view_mut([n]), up.view_mut([n]), out.view([n]));
        });
    }
}

#[test]
fn dropout_drops_the_same() {
    let x = gates(16_401);
    for (i, p) in [0.0f32, 0.1, 0.5, 0.97].into_iter().enumerate() {
        let key = Key::new(&[i as u64, u64::MAX, 3]);
        check(&format!("dropout of {p}"), &x, &x, |device, [out, x, _], n| {
            dropout::forward(device, out.view_mut([n]), x.view([n]), p, key);
        });
    }
}

#[test]
fn rotations_turn_forth_and_back() {
    let cpu = cpu();
    // (T, H, D, first position): D / 2 with and without whole groups of four, more pairs than a block has threads.
    let cases = [(1, 1, 2, 0), (5, 3, 6, 7), (3, 2, 8, 0), (2, 4, 64, 100), (3, 9, 256, 50), (0, 2, 8, 3)];
    for_each_arch(|device, arch| {
        for (t, h, d, first) in cases {
            let x = random(t * h * d, 1.0, 3);
            // In no order: rows of several samples lie side by side.
            let positions: Vec<u32> = (0..t).map(|i| (first + (i * 3 + 2) % t) as u32).collect();
            let run = |device: &Device, start: usize, is_back: bool| {
                let table = RopeTable::new(device, first + t, d, 1e4, 1.0).unwrap();
                let mut array = Array::new(device, start, &x);
                let (view, at) = (array.view_mut([t, h, d]), upload(device, &positions));
                match is_back {
                    false => rope::forward(device, view, &table, at.all()),
                    true => rope::backward(device, view, &table, at.all()),
                }
                array.read(device)
            };
            for (start, is_back) in [(0, false), (0, true), (1, false), (1, true)] {
                let what = format!("sm_{arch}: rope ({t}, {h}, {d}) at {first} from {start}, back: {is_back}");
                assert_same_bits(&run(device, start, is_back), &run(&cpu, start, is_back), &what);
            }
        }
    });
}

#[test]
fn rows_are_gathered_and_scattered() {
    let cpu = cpu();
    for_each_arch(|device, arch| {
        for (n, t, dim) in [(1, 1, 1), (3, 5, 4), (2, 7, 31), (9, 40, 516), (2, 4, 513), (0, 2, 8)] {
            let (short, long) = (random(n * dim, 1.0, 1), random(t * dim, 1.0, 2));
            // Each once, in no order.
            let places: Vec<u32> = (0..n).map(|i| ((i * 3 + 2) % t) as u32).collect();
            let run = |device: &Device, start: usize| {
                let (mut a, mut b) = (Array::new(device, start, &short), Array::new(device, start, &long));
                let at = upload(device, &places);
                let (mut gathered, x) = (Array::unwritten(device, start, n * dim), Array::new(device, start, &long));
                rows::gather(device, gathered.view_mut([n, dim]), x.view([t, dim]), at.view([n]));
                rows::scatter(device, b.view_mut([t, dim]), a.view([n, dim]), at.view([n]));
                // Back again: what was put there.
                rows::gather(device, a.view_mut([n, dim]), b.view([t, dim]), at.view([n]));
                [gathered.read(device), b.read(device), a.read(device)].concat()
            };
            for start in STARTS {
                let what = format!("sm_{arch}: {n} rows of ({t}, {dim}) from {start}");
                assert_same_bits(&run(device, start), &run(&cpu, start), &what);
            }
        }
    });
}
