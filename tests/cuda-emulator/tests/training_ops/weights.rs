//! Matrices that training owns: what they hold is what an upload of the same values holds, padding included.

use lichen_kernels::ops::encode;
use lichen_kernels::{Device, Format, Matrix, PackedMatrix, View};

use crate::common::cuda;
use crate::oracle::{cpu, for_each_arch, random};
use crate::support::{Array, STARTS};

fn codes(matrix: &Matrix) -> Vec<u8> {
    let plane = &matrix.packed().codes;
    let mut bytes = vec![0; plane.len_bytes()];
    plane.read(0, &mut bytes).unwrap();
    bytes
}

fn encoded(device: &Device, format: Format, rows: usize, cols: usize, start: usize, values: &[f32]) -> Matrix {
    let mut matrix = Matrix::zeros(device, format, rows, cols).unwrap();
    // Twice: nothing of the first time may stay.
    for values in [&vec![7.5; rows * cols], values] {
        let values = Array::new(device, start, values);
        encode::matrix(device, &mut matrix, values.view([rows, cols]));
        device.synchronize().unwrap();
    }
    matrix
}

#[test]
fn encoded_matrices_are_those_of_an_upload() {
    let cpu = cpu();
    for_each_arch(|device, arch| {
        for (rows, cols) in [(1, 1), (3, 31), (8, 128), (9, 132), (2, 1028), (17, 129)] {
            let mut values = random(rows * cols, 3.0, 7);
            // Halfway between two of bf16 and of f16, beyond f16, below its smallest, zero.
            let special = [1.003_906_3, 1.000_488_3, 1e6, -1e6, 1e-8, -0.0, f32::INFINITY, f32::MAX];
            values.iter_mut().step_by(5).zip(special).for_each(|(v, s)| *v = s);
            for format in [Format::F32, Format::F16, Format::BF16] {
                let on_host = encoded(&cpu, format, rows, cols, 0, &values);
                let driver = cuda(device);
                let mut staging = driver.alloc_pinned(1 << 20).unwrap();
                let memory = &mut |bytes| driver.alloc(bytes);
                let packed = PackedMatrix::upload(driver, &on_host, memory, &mut staging, &mut |_| {}).unwrap();
                let want = Matrix::on_gpu(packed);
                for start in STARTS {
                    let got = encoded(device, format, rows, cols, start, &values);
                    assert_eq!((got.format(), got.rows(), got.cols()), (format, rows, cols));
                    assert_eq!(got.packed().padded_cols, want.packed().padded_cols);
                    let (got, want) = (codes(&got), codes(&want));
                    let first = got.iter().zip(&want).position(|(a, b)| a != b);
                    assert_eq!(first, None, "sm_{arch} {format} ({rows}, {cols}) from {start}");
                    assert_eq!(got.len(), want.len());
                }
            }
        }
    });
}

#[test]
fn a_matrix_that_is_shared_is_not_changed() {
    let shared = |device: &Device| {
        let mut matrix = Matrix::zeros(device, Format::F32, 2, 4).unwrap();
        let _other = matrix.clone();
        let values = [1.0; 8];
        let changed = std::panic::AssertUnwindSafe(|| encode::matrix(device, &mut matrix, View::new(&values, [2, 4])));
        std::panic::catch_unwind(changed).is_err()
    };
    assert!(shared(&cpu()));
    for_each_arch(|device, arch| assert!(shared(device), "sm_{arch}"));
}
