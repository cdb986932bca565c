//! What the products of a batch make on the way: the norm of the residual stream, a gated activation. Their rows have the bits
//! that the same rows have when they come as they are.

mod common;
mod decode;
#[path = "decode/stream.rs"]
mod stream;

use decode::{assert_same, cuda, for_each_arch, matrix, random, read, upload};
use lichen_kernels::formats::Format;
use lichen_kernels::ops::activation::{self, Activation};
use lichen_kernels::ops::matmul::{self, Family, Gated, Input, Product, Scratch};
use lichen_kernels::ops::rmsnorm;
use lichen_kernels::{Buffer, Device};
use stream::{assert_close, read_stream, Stream};

const FORMATS: [Format; 6] = [Format::Q8_0, Format::Q4_0, Format::NF4, Format::F16, Format::BF16, Format::F32];

fn scratch(device: &Device, t: usize, k: usize, n: usize) -> Scratch {
    Scratch::new(device, t, k, n).unwrap()
}

/// Products by these formats, each with `n` rows.
fn products(device: &Device, formats: &[Format], n: usize, [t, k]: [usize; 2], input: Input<'_>) -> Vec<Vec<f32>> {
    let weights: Vec<_> = (1..).zip(formats).map(|(i, f)| upload(device, &matrix(*f, n, k, i))).collect();
    let mut outs: Vec<Buffer<f32>> = weights.iter().map(|_| Buffer::new(device, t * n).unwrap()).collect();
    let product = |(out, weights)| {
        let out: &mut Buffer<f32> = out;
        Product { out: out.view_mut([t, n]), weights, bias: None }
    };
    let mut list: Vec<Product<'_>> = outs.iter_mut().zip(&weights).map(product).collect();
    matmul::forward(device, Family::Batch, &mut list, input, &mut scratch(device, t, k, n));
    drop(list);
    outs.iter().map(read).collect()
}

/// The last is longer than what a thread keeps in registers.
#[test]
fn a_norm_is_that_of_the_cpu_and_the_product_that_of_its_rows() {
    let cpu = Device::cpu(1).unwrap();
    for_each_arch(|device| {
        let cases = [
            (1, 1152, true, true),
            (3, 896, true, false),
            (17, 128, false, true),
            (65, 192, true, true),
            (2, 64, false, false),
            (2, 33_280, true, true),
        ];
        for (i, (t, dim, is_pending, has_post)) in cases.into_iter().enumerate() {
            // One alone, then two kinds of rows, then with one that decode's kernels multiply.
            for formats in [&FORMATS[i % 5..][..1], &[Format::NF4, Format::Q8_0, Format::BF16], &FORMATS[3..]] {
                let what = format!("sm_{} {formats:?} T {t}, D {dim}, {is_pending} {has_post}", cuda(device).arch());
                let n = 24;
                let mut stream = Stream::new(device, t, dim, is_pending);
                let got = products(device, formats, n, [t, dim], Input::Normed(stream.normed(t, has_post)));
                let mut oracle = Stream::new(&cpu, t, dim, is_pending);
                rmsnorm::add_norm(&cpu, oracle.normed(t, has_post));
                // Sums of squares in another order: 2^-24 for each of a few dozen roundings.
                assert_close(&read(&stream.h), oracle.h.host(), 4e-6, &format!("{what}: h"));
                let (now, want) = (read_stream(device, &stream.residual, t), read_stream(&cpu, &oracle.residual, t));
                // The stream is a sum that may cancel: its terms are below 30 + 1000 * 2.
                for (g, w) in now.iter().zip(&want) {
                    assert!((g - w).abs() <= 4e-6 * (w.abs() + 2000.0), "{what}: stream {g} {w}");
                }
                let rows = products(device, formats, n, [t, dim], Input::Rows(stream.h.view([t, dim])));
                for (got, want) in got.iter().zip(&rows) {
                    assert_same(got, want, &what);
                }
                // Nothing is pending any more.
                let mut again = Buffer::new(device, t * dim).unwrap();
                let normed = rmsnorm::Normed { h: again.view_mut([t, dim]), ..stream.normed(t, has_post) };
                rmsnorm::add_norm(device, normed);
                assert_close(&read(&again), oracle.h.host(), 4e-6, &format!("{what}: again"));
            }
        }
    });
}

#[test]
fn an_activation_is_that_of_its_op_and_the_product_has_the_bits_of_its_rows() {
    for_each_arch(|device| {
        for (i, (t, k, hidden)) in
            [(1, 64, 192), (3, 128, 1216), (17, 64, 64), (65, 128, 320), (2, 64, 33_280)].into_iter().enumerate()
        {
            for (j, activation) in [Activation::GeluTanh, Activation::Silu].into_iter().enumerate() {
                let (format, down) = (FORMATS[(i + j) % 6], FORMATS[(i + 2 * j + 1) % 6]);
                let what = format!("sm_{} {format} {down} ({t}, {k}, {hidden}) {activation:?}", cuda(device).arch());
                let [gate, up] = [1, 2].map(|seed| upload(device, &matrix(format, hidden, k, seed)));
                let x = Buffer::from_vec(device, random(t * k, 2.0, 3)).unwrap();
                let [mut out, mut spare] = [(); 2].map(|()| Buffer::new(device, t * hidden).unwrap());
                let mut room = scratch(device, t, k.max(hidden), hidden);
                let shape = [t, hidden];
                let (out_view, spare_view) = (out.view_mut(shape), spare.view_mut(shape));
                let gated = Gated { out: out_view, gate: &gate, up: &up, activation, spare: spare_view };
                let input = matmul::forward_gated(device, Family::Batch, gated, Input::Rows(x.view([t, k])), &mut room);
                let got = products(device, &[down], 8, shape, input);

                let [mut want, mut second] = [(); 2].map(|()| Buffer::new(device, t * hidden).unwrap());
                let list = &mut [
                    Product { out: want.view_mut(shape), weights: &gate, bias: None },
                    Product { out: second.view_mut(shape), weights: &up, bias: None },
                ];
                matmul::forward(device, Family::Batch, list, Input::Rows(x.view([t, k])), &mut room);
                activation::forward(device, activation, want.view_mut(shape), second.view(shape));
                // The device's exponential and the rounding of its argument, below 128: 2^-22 and 2^-18.
                assert_close(&read(&out), &read(&want), 4e-6, &what);
                let rows = products(device, &[down], 8, shape, Input::Rows(out.view(shape)));
                assert_same(&got[0], &rows[0], &what);
            }
        }
    });
}
