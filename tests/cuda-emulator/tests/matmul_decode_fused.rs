//! What decoding fuses into its products: the norm of the residual stream before them, the activation behind them; and the
//! embedding that begins the stream.

mod common;
mod decode;
#[path = "decode/stream.rs"]
mod stream;

use decode::{assert_same, cuda, for_each_arch, matrix, random, read, twin, upload, FORMATS};
use lichen_kernels::ops::activation::Activation;
use lichen_kernels::ops::embedding;
use lichen_kernels::ops::matmul::{self, Family, Gated, Input, Product, Scratch};
use lichen_kernels::ops::rmsnorm;
use lichen_kernels::step::Step;
use lichen_kernels::{math, Buffer, Device};
use stream::{assert_close, read_stream, Stream};

#[test]
fn the_norm_before_a_product_is_that_of_the_cpu_and_the_product_that_of_its_rows() {
    let cpu = Device::cpu(1).unwrap();
    for_each_arch(|device| {
        for format in FORMATS {
            for (t, dim, is_pending, has_post) in [
                (1, 1152, true, true),
                (1, 896, true, false),
                (3, 128, false, true),
                (8, 192, true, true),
                (2, 64, false, false),
            ] {
                let what = format!("sm_{} {format} T {t}, D {dim}, {is_pending} {has_post}", cuda(device).arch());
                let n = 24;
                let w = upload(device, &matrix(format, n, dim, 1));
                let mut scratch = Scratch::new(device, t, dim, n).unwrap();
                let mut stream = Stream::new(device, t, dim, is_pending);
                let mut out = Buffer::new(device, t * n).unwrap();
                let p = Product { out: out.view_mut([t, n]), weights: &w, bias: None };
                matmul::forward(
                    device,
                    Family::ByRows,
                    &mut [p],
                    Input::Normed(stream.normed(t, has_post)),
                    &mut scratch,
                );

                let mut oracle = Stream::new(&cpu, t, dim, is_pending);
                rmsnorm::add_norm(&cpu, oracle.normed(t, has_post));
                // Sums of squares in another order: 2^-24 for each of a few dozen roundings.
                assert_close(&read(&stream.h), oracle.h.host(), 4e-6, &format!("{what}: h"));
                let (got, want) = (read_stream(device, &stream.residual, t), read_stream(&cpu, &oracle.residual, t));
                // The stream is a sum that may cancel: its terms are below 30 + 1000 * 2.
                for (g, w) in got.iter().zip(&want) {
                    assert!(
                        (g - w).abs() <= 4e-6 * (w.abs() + if is_pending { 2000.0 } else { 0.0 }),
                        "{what}: stream {g} {w}"
                    );
                }
                // The kernel multiplied the rows it wrote.
                let h = read(&stream.h);
                assert_same(&read(&out), &decode::product(device, &w, &h, t, None), &what);
            }
        }
    });
}

#[test]
fn the_activation_behind_gate_and_up_is_that_of_the_cpu() {
    for_each_arch(|device| {
        for format in FORMATS {
            for (n, k, t) in [(8, 128, 1), (33, 1152, 2), (20, 192, 5)] {
                for activation in [Activation::GeluTanh, Activation::Silu] {
                    let what = format!("sm_{} {format} N {n}, K {k}, T {t} {activation:?}", cuda(device).arch());
                    let [gate, up] = [1, 2].map(|seed| upload(device, &matrix(format, n, k, seed)));
                    let host_x = random(t * k, 1.0, 3);
                    let x = Buffer::from_slice(device, &host_x).unwrap();
                    let mut out = Buffer::new(device, t * n).unwrap();
                    let mut spare = Buffer::new(device, t * n).unwrap();
                    let g = Gated {
                        out: out.view_mut([t, n]),
                        gate: &gate,
                        up: &up,
                        activation,
                        spare: spare.view_mut([t, n]),
                    };
                    let mut scratch = Scratch::new(device, t, k, n).unwrap();
                    let _ = matmul::forward_gated(device, Family::ByRows, g, Input::Rows(x.view([t, k])), &mut scratch);
                    let act = |v: f32| match activation {
                        Activation::GeluTanh => math::gelu_tanh(v),
                        Activation::Silu => math::silu(v),
                    };
                    let splits = twin::splits(cuda(device).n_sms(), format, &[n], k, true);
                    let twins = [&gate, &up].map(|w| twin::product(w, &host_x, None, splits));
                    if let [Some(g), Some(u)] = twins {
                        let want: Vec<f32> = g.iter().zip(&u).map(|(g, u)| act(*g) * u).collect();
                        assert_same(&read(&out), &want, &what);
                    } else {
                        let [g, u] = [&gate, &up].map(|w| decode::product(device, w, &host_x, t, None));
                        let want: Vec<f32> = g.iter().zip(&u).map(|(g, u)| act(*g) * u).collect();
                        assert_close(&read(&out), &want, 1e-5, &what);
                    }
                }
            }
        }
    });
}

#[test]
fn embedding_rows_have_the_bits_of_the_cpu() {
    for_each_arch(|device| {
        for format in FORMATS {
            for (dim, scale) in [(64, 1.0), (1152, 33.941_125), (192, 0.5)] {
                let host = matrix(format, 37, dim, 4);
                let on_gpu = upload(device, &host);
                let tokens = [0, 36, 7, 7, 17];
                let mut step = Step::new(device, tokens.len()).unwrap();
                step.set(9, &tokens);
                step.send();
                let mut out = Buffer::new(device, tokens.len() * dim).unwrap();
                embedding::forward(device, out.view_mut([tokens.len(), dim]), &on_gpu, &step, scale);
                // Of the matrix as the device has it: NF4's absmax was rounded.
                let all = decode::dense(&on_gpu);
                let want: Vec<f32> =
                    tokens.iter().flat_map(|t| &all[*t as usize * dim..][..dim]).map(|v| v * scale).collect();
                assert_same(&read(&out), &want, &format!("sm_{} {format} D {dim}", cuda(device).arch()));
            }
        }
    });
}

#[test]
fn packing_and_its_inverse_keep_every_byte() {
    for_each_arch(|device| {
        for format in FORMATS {
            let host = matrix(format, 41, 192, 4);
            let first = upload(device, &host);
            let copied = first.packed().copy().unwrap();
            drop(first);
            let back = copied.download().unwrap();
            assert_eq!(back.bytes(), host.bytes(), "{format}");
            for (got, want) in back.absmax().iter().zip(host.absmax()) {
                assert!((got - want).abs() <= want * 2f32.powi(-11), "{format}: absmax {got}, was {want}");
            }
        }
    });
}

/// More rows than a launch multiplies at once, by the kernels of batches: each has the bits that it has alone, the norm
/// before it and the activation behind it included.
#[test]
fn many_rows_by_the_kernels_of_batches_have_the_bits_of_one() {
    for_each_arch(|device| {
        for format in FORMATS {
            for t in [2, 9, 19] {
                let (dim, n) = (192, 24);
                let what = format!("sm_{} {format} T {t}", cuda(device).arch());
                let (gate, up) =
                    (upload(device, &matrix(format, n, dim, 1)), upload(device, &matrix(format, n, dim, 2)));
                let mut scratch = Scratch::new(device, t, dim, n).unwrap();
                let mut stream = Stream::new(device, t, dim, true);
                let (mut out, mut spare) = (Buffer::new(device, t * n).unwrap(), Buffer::new(device, t * n).unwrap());
                let gated = Gated {
                    out: out.view_mut([t, n]),
                    gate: &gate,
                    up: &up,
                    activation: Activation::Silu,
                    spare: spare.view_mut([t, n]),
                };
                let _ = matmul::forward_gated(
                    device,
                    Family::Batch,
                    gated,
                    Input::Normed(stream.normed(t, true)),
                    &mut scratch,
                );
                let (gated, h, whole) = (read(&out), read(&stream.h), read_stream(device, &stream.residual, t));
                let mut plain = Buffer::new(device, t * n).unwrap();
                let product = Product { out: plain.view_mut([t, n]), weights: &gate, bias: None };
                matmul::forward(
                    device,
                    Family::Batch,
                    &mut [product],
                    Input::Rows(stream.h.view([t, dim])),
                    &mut scratch,
                );
                let plain = read(&plain);
                for row in 0..t {
                    let mut stream = Stream::new(device, t, dim, true);
                    let mut out = Buffer::new(device, n).unwrap();
                    let mut normed = stream.normed(t, true);
                    normed.rows = row..row + 1;
                    normed.h = normed.h.reshape([t * dim]).split_at(dim).0.reshape([1, dim]);
                    let mut spare = Buffer::new(device, n).unwrap();
                    let (out_view, spare) = (out.view_mut([1, n]), spare.view_mut([1, n]));
                    let gated_one = Gated { out: out_view, gate: &gate, up: &up, activation: Activation::Silu, spare };
                    let _ =
                        matmul::forward_gated(device, Family::Batch, gated_one, Input::Normed(normed), &mut scratch);
                    let want = read(&out);
                    assert_same(&gated[row * n..(row + 1) * n], &want, &format!("{what}: row {row}, gated"));
                    let h_row = &h[row * dim..(row + 1) * dim];
                    let (x, mut one) = (Buffer::from_slice(device, h_row).unwrap(), Buffer::new(device, n).unwrap());
                    let product = Product { out: one.view_mut([1, n]), weights: &gate, bias: None };
                    matmul::forward(device, Family::Batch, &mut [product], Input::Rows(x.view([1, dim])), &mut scratch);
                    let want = read(&one);
                    assert_same(&plain[row * n..(row + 1) * n], &want, &format!("{what}: row {row}"));
                    assert!(whole[row * dim..(row + 1) * dim].iter().all(|v| v.is_finite()), "{what}: the stream");
                }
            }
        }
    });
}
