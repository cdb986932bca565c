//! Norms with the residual addition, gated activations and low-rank products, on every architecture.

mod common;
mod oracle;

use lichen_kernels::ops::activation::{self, Activation};
use lichen_kernels::ops::lora::{self, LoraPair};
use lichen_kernels::ops::residual::Residual;
use lichen_kernels::ops::rmsnorm::{self, Normed};
use lichen_kernels::{Buffer, Device};
use oracle::{assert_same_bits, cpu, for_each_arch, random};

fn upload(device: &Device, values: &[f32]) -> Buffer<f32> {
    Buffer::from_slice(device, values).unwrap()
}

fn download(buffer: &Buffer<f32>) -> Vec<f32> {
    let mut values = vec![0.0; buffer.len()];
    buffer.read(0, &mut values).unwrap();
    values
}

/// The stream after the addition, and the norm of the last `n_wanted` of `n_rows` rows.
fn add_norm(device: &Device, n_rows: usize, n_wanted: usize, dim: usize, y: bool, post: bool) -> (Vec<f32>, Vec<f32>) {
    let mut residual = Residual::new(device, n_rows, dim).unwrap();
    let mut x = Buffer::new(device, n_rows * dim).unwrap();
    x.write(0, &random(n_rows * dim, 3.0, 1)).unwrap();
    let ones = upload(device, &vec![1.0; dim]);
    // The embedding's part, played by a norm: rows that are the same on both devices within the tolerance.
    rmsnorm::forward(device, residual.start(n_rows), x.view([n_rows, dim]), ones.all(), 1e-6);
    if y {
        x.write(0, &random(n_rows * dim, 5.0, 2)).unwrap();
        rmsnorm::forward(device, residual.output(n_rows), x.view([n_rows, dim]), ones.all(), 1e-6);
    }
    let (weight, post_weight) = (upload(device, &random(dim, 2.0, 3)), upload(device, &random(dim, 1.0, 4)));
    let mut h = Buffer::new(device, n_wanted * dim).unwrap();
    rmsnorm::add_norm(
        device,
        Normed {
            residual: &mut residual,
            post_norm: post.then(|| post_weight.all()),
            weight: weight.all(),
            eps: 1e-6,
            h: h.view_mut([n_wanted, dim]),
            rows: n_rows - n_wanted..n_rows,
        },
    );
    // Adding once more must not add `y` again where all rows were wanted.
    let mut stream = Buffer::new(device, n_rows * dim).unwrap();
    rmsnorm::forward(device, stream.view_mut([n_rows, dim]), residual.stream(n_rows), ones.all(), 1e-6);
    (download(&stream), download(&h))
}

#[test]
fn norms_add_what_is_pending() {
    let cpu = cpu();
    for_each_arch(|device, arch| {
        for (n_rows, n_wanted, dim) in
            [(1, 1, 1), (1, 1, 8), (3, 3, 31), (2, 2, 32), (2, 1, 257), (9, 9, 640), (4, 1, 1152), (1, 1, 8192)]
        {
            for (y, post) in [(false, false), (true, false), (true, true)] {
                let (stream, h) = add_norm(device, n_rows, n_wanted, dim, y, post);
                let (want_stream, want_h) = add_norm(&cpu, n_rows, n_wanted, dim, y, post);
                // Sums of `dim` squares, each addition 2^-24, halved by the square root, in three norms after each other;
                // the addition may cancel: so relative to the largest values, which are a few.
                let bound = 4.0 * (dim as f32 / 256.0 + 16.0) * 2f32.powi(-24) * 4.0;
                for (got, want) in stream.iter().chain(&h).zip(want_stream.iter().chain(&want_h)) {
                    assert!(
                        (got - want).abs() <= bound,
                        "sm_{arch} ({n_rows}, {dim}) {y} {post}: {got}, {want} expected"
                    );
                }
            }
        }
    });
}

#[test]
fn activations_have_the_bits_of_the_cpu() {
    let mut gate = random(1000, 8.0, 5);
    gate.extend([
        0.0,
        -0.0,
        1e-30,
        -1e-30,
        87.0,
        89.0,
        -87.0,
        -89.0,
        1e30,
        -1e30,
        f32::INFINITY,
        f32::NEG_INFINITY,
        f32::NAN,
    ]);
    gate.extend((-2000..2000).map(|i| i as f32 * 0.047));
    let up = random(gate.len(), 1.0, 6);
    let cpu = cpu();
    let run = |device: &Device, n: usize, which: Activation| {
        let (mut g, u) = (upload(device, &gate[..n]), upload(device, &up[..n]));
        activation::forward(device, which, g.view_mut([n]), u.view([n]));
        download(&g)
    };
    for_each_arch(|device, arch| {
        for n in [1, 255, 256, 257, gate.len()] {
            for which in [Activation::GeluTanh, Activation::Silu] {
                let what = format!("sm_{arch} {which:?} of {n}");
                assert_same_bits(&run(device, n, which), &run(&cpu, n, which), &what);
            }
        }
    });
}

#[test]
fn low_rank_products_are_added() {
    for_each_arch(|device, arch| {
        for (t, k, n, r) in
            [(1, 1, 1, 1), (3, 33, 5, 4), (2, 64, 17, 16), (1, 100, 31, 7), (5, 1152, 257, 64), (9, 130, 300, 33)]
        {
            let (x, a) = (random(t * k, 1.0, 1), random(r * k, 0.3, 2));
            let (b, y) = (random(n * r, 0.3, 3), random(t * n, 1.0, 4));
            let (xs, a_s, bs) = (upload(device, &x), upload(device, &a), upload(device, &b));
            let (mut ys, mut u) = (upload(device, &y), Buffer::new(device, t * r).unwrap());
            let pair = LoraPair { a: a_s.view([r, k]), b: bs.view([n, r]), scale: 2.0 };
            lora::forward(device, ys.view_mut([t, n]), xs.view([t, k]), pair, u.view_mut([t * r]));
            let got = download(&ys);
            for i in 0..t {
                for j in 0..n {
                    let mut want = y[i * n + j] as f64;
                    let mut magnitude = want.abs();
                    for c in 0..r {
                        for l in 0..k {
                            let term = 2.0 * b[j * r + c] as f64 * a[c * k + l] as f64 * x[i * k + l] as f64;
                            want += term;
                            magnitude += term.abs();
                        }
                    }
                    // A lane's share of K, five folds, then the ranks in turn.
                    let bound = ((k as f64 / 32.0).ceil() + 8.0 + r as f64) * 2f64.powi(-24) * magnitude;
                    let got = got[i * n + j] as f64;
                    assert!(
                        (got - want).abs() <= bound,
                        "sm_{arch} ({t} {k} {n} {r})[{i} {j}]: {got}, {want} expected"
                    );
                }
            }
        }
    });
}
