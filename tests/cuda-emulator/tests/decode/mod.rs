//! What the tests of decoding share: devices, matrices, the products as the ops compute them, and their twins on the CPU.
#![allow(dead_code)]

pub mod twin;

use lichen_kernels::formats::Format;
use lichen_kernels::ops::matmul::{self, Family, Input, Product, Scratch};
use lichen_kernels::{Buffer, Device, Matrix, PackedMatrix};

pub use crate::common::{cuda, encode};
use crate::common::{devices, Random};

pub const FORMATS: [Format; 6] = [Format::Q8_0, Format::Q4_0, Format::NF4, Format::F16, Format::BF16, Format::F32];

/// Every device of [`devices`]; LICHEN_TEST_ARCH takes one architecture alone.
pub fn for_each_arch(test: impl Fn(&Device)) {
    let only: Option<u32> = std::env::var("LICHEN_TEST_ARCH").ok().map(|a| a.parse().expect("a number"));
    for device in devices().iter().filter(|d| only.is_none_or(|o| o == cuda(d).arch())) {
        test(device);
        device.synchronize().expect("no failure");
    }
}

/// Uniform numbers in -scale..scale.
pub fn random(n: usize, scale: f32, seed: u64) -> Vec<f32> {
    let mut random = Random::new(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(1));
    (0..n).map(|_| random.unit() * scale).collect()
}

pub fn matrix(format: Format, rows: usize, cols: usize, seed: u64) -> Matrix {
    encode(format, rows, cols, &random(rows * cols, 0.5, seed))
}

/// On the device, through a buffer that takes several parts.
pub fn upload(device: &Device, matrix: &Matrix) -> Matrix {
    let cuda = cuda(device);
    let eight_rows = PackedMatrix::planned_bytes(matrix.format(), 8, matrix.cols());
    let mut staging = cuda.alloc_pinned(2 * eight_rows + 3).expect("memory");
    let mut done = 0;
    let packed = PackedMatrix::upload(cuda, matrix, &mut |bytes| cuda.alloc(bytes), &mut staging, &mut |rows| {
        assert_eq!(rows.start, done);
        done = rows.end;
    });
    assert_eq!(done, matrix.rows());
    let packed = packed.expect("an upload");
    // The plan counts what both planes take of an arena.
    let padding = PackedMatrix::planned_bytes(matrix.format(), matrix.rows(), matrix.cols()) - packed.size_bytes();
    assert!(padding < 2 * 256);
    Matrix::on_gpu(packed)
}

/// `x` times each of the matrices and its bias.
pub fn products(device: &Device, weights: &[&Matrix], x: &[f32], t: usize, biases: &[Option<&[f32]>]) -> Vec<Vec<f32>> {
    let k = weights[0].cols();
    let x = Buffer::from_slice(device, x).unwrap();
    let mut outs: Vec<Buffer<f32>> =
        weights.iter().map(|w| Buffer::from_slice(device, &vec![f32::NAN; t * w.rows()]).unwrap()).collect();
    let biases: Vec<Option<Buffer<f32>>> =
        biases.iter().map(|b| b.map(|b| Buffer::from_slice(device, b).unwrap())).collect();
    let n_max = weights.iter().map(|w| w.rows()).max().unwrap();
    let mut scratch = Scratch::new(device, t, k, n_max).unwrap();
    let mut list: Vec<Product> = outs
        .iter_mut()
        .zip(weights)
        .zip(&biases)
        .map(|((out, weights), bias)| Product {
            out: out.view_mut([t, weights.rows()]),
            weights,
            bias: bias.as_ref().map(|b| b.all()),
        })
        .collect();
    matmul::forward(device, Family::ByRows, &mut list, Input::Rows(x.view([t, k])), &mut scratch);
    drop(list);
    outs.iter().map(read).collect()
}

pub fn read(buffer: &Buffer<f32>) -> Vec<f32> {
    let mut values = vec![0.0; buffer.len()];
    buffer.read(0, &mut values).unwrap();
    values
}

pub fn product(device: &Device, weights: &Matrix, x: &[f32], t: usize, bias: Option<&[f32]>) -> Vec<f32> {
    products(device, &[weights], x, t, &[bias]).remove(0)
}

/// The weights as the device has them.
pub fn dense(on_gpu: &Matrix) -> Vec<f32> {
    let host = on_gpu.packed().download().expect("a download");
    let mut values = vec![0.0; host.rows() * host.cols()];
    host.decode_rows(0..host.rows(), &mut values);
    values
}

pub fn assert_same(got: &[f32], want: &[f32], what: &str) {
    assert_eq!(got.len(), want.len(), "{what}");
    for (i, (g, w)) in got.iter().zip(want).enumerate() {
        let same = g.to_bits() == w.to_bits() || g.is_nan() && w.is_nan();
        assert!(same, "{what}: [{i}] is {g} ({:#x}), the twin has {w} ({:#x})", g.to_bits(), w.to_bits());
    }
}
