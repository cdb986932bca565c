//! Speed of the matrix product by format and instruction set: decode in GB/s of weights, beside a plain read of the same
//! bytes; prefill in billions of multiply-adds a second.
//!
//! `cargo run --release -p lichen-kernels --example matmul_bench -- [rows] [cols] [threads]`

use std::sync::Arc;
use std::time::Instant;

use lichen_kernels::formats::{float, nf4, q4_0, q8_0};
use lichen_kernels::ops::matmul::{forward, Family, Input, Product, Scratch};
use lichen_kernels::{Device, Format, Isa, Matrix, SharedBytes, View, ViewMut};

fn main() {
    let arg = |i, default| std::env::args().nth(i).and_then(|a| a.parse().ok()).unwrap_or(default);
    let (rows, cols, threads): (usize, usize, usize) = (arg(1, 65_536), arg(2, 1152), arg(3, 2));
    println!("{rows} x {cols}, {threads} threads; read bandwidth {:.1} GB/s", read_bandwidth(threads));
    for isa in Isa::ALL.into_iter().filter(|isa| isa.is_available()) {
        let device = Device::cpu_with_isa(threads, isa).expect("available");
        for format in [Format::Q8_0, Format::Q4_0, Format::NF4, Format::BF16, Format::F32] {
            let rows = if isa == Isa::Scalar { rows / 64 } else { rows };
            let w = matrix(format, rows, cols);
            let decode_s = time(&device, &w, 1);
            let (small, t) = (matrix(format, 4096.min(rows), cols), 128);
            let prefill_s = time(&device, &small, t);
            println!(
                "{:7} {:5} decode {:6.1} GB/s  prefill {:6.1} GMAC/s",
                isa.name(),
                format.name(),
                w.size_bytes() as f64 / decode_s / 1e9,
                (small.rows() * cols * t) as f64 / prefill_s / 1e9,
            );
        }
    }
}

/// Best of five, seconds.
fn time(device: &Device, w: &Matrix, t: usize) -> f64 {
    let x: Vec<f32> = (0..t * w.cols()).map(|i| (i % 17) as f32 - 8.0).collect();
    let mut out = vec![0.0; t * w.rows()];
    let mut scratch = Scratch::new(device, t, w.cols(), w.rows()).expect("host memory");
    let mut run = || {
        let start = Instant::now();
        let out = ViewMut::new(&mut out, [t, w.rows()]);
        let x = View::new(&x, [t, w.cols()]);
        forward(device, Family::ByRows, &mut [Product { out, weights: w, bias: None }], Input::Rows(x), &mut scratch);
        start.elapsed().as_secs_f64()
    };
    (0..5).map(|_| run()).fold(f64::INFINITY, f64::min)
}

fn read_bandwidth(threads: usize) -> f64 {
    let data = vec![1u64; 32 << 20];
    let pool = lichen_kernels::pool::ThreadPool::new(threads).expect("threads");
    let best = (0..5).map(|_| {
        let start = Instant::now();
        pool.run(256, &|i| {
            let part = &data[i * data.len() / 256..(i + 1) * data.len() / 256];
            std::hint::black_box(part.iter().fold(0u64, |a, v| a.wrapping_add(*v)));
        });
        start.elapsed().as_secs_f64()
    });
    data.len() as f64 * 8.0 / best.fold(f64::INFINITY, f64::min) / 1e9
}

fn matrix(format: Format, rows: usize, cols: usize) -> Matrix {
    let row: Vec<f32> = (0..cols).map(|i| ((i * 7919) % 251) as f32 / 251.0 - 0.5).collect();
    let mut bytes = Vec::new();
    match format {
        Format::F32 => row.iter().for_each(|v| bytes.extend(v.to_le_bytes())),
        Format::BF16 => float::encode_bf16(&row, &mut bytes),
        Format::Q8_0 => q8_0::encode(&row, &mut bytes),
        Format::Q4_0 => q4_0::encode(&row, &mut bytes),
        Format::NF4 => {
            let mut absmax = Vec::new();
            nf4::encode(&row, &mut bytes, &mut absmax);
            let nibbles = SharedBytes::from_vec(bytes.repeat(rows));
            return Matrix::new_nf4(rows, cols, nibbles, Arc::from(absmax.repeat(rows)));
        }
        other => panic!("{other} has no bench"),
    }
    Matrix::new(format, rows, cols, SharedBytes::from_vec(bytes.repeat(rows)))
}
