//! Weights from values of f32, in one of the float formats: what training changes are the values, and what it multiplies is
//! the matrix. Rounding is to nearest, ties to even.

mod cuda;

use half::f16;

use crate::device::Device;
use crate::formats::{float, Format};
use crate::matrix::Matrix;
use crate::ops::kernel_module::{KernelModule, Role};
use crate::view::View;

/// What the kernels of this folder are for.
pub(crate) const MODULES: &[KernelModule] = &[KernelModule::one("encode", Role::Training)];

/// Bytes of a task: 64 k take some microseconds.
const CHUNK_BYTES: usize = 64 << 10;

/// `m = values`, both (N, K). Panics when `m` is of a format with blocks, or somebody else holds it too.
pub fn matrix(device: &Device, m: &mut Matrix, values: View<'_, f32, 2>) {
    assert_eq!([m.rows(), m.cols()], values.shape());
    assert!(m.format().is_float(), "{} has blocks", m.format());
    match device {
        Device::Cpu(cpu) => {
            let (format, cols, values) = (m.format(), m.cols(), values.host());
            let row_bytes = format.row_bytes(cols).expect("float formats have no blocks");
            let rows = (CHUNK_BYTES / row_bytes.max(1)).max(1);
            let bytes = m.bytes_mut().expect("nobody else holds a matrix that changes");
            cpu.pool.for_chunks(bytes, (rows * row_bytes).max(1), &|i, bytes| {
                encode(format, &values[i * rows * cols..][..bytes.len() / row_bytes * cols], bytes);
            });
        }
        Device::Cuda(cuda) => {
            cuda::matrix(cuda, m.packed_mut().expect("nobody else holds a matrix that changes"), values);
        }
    }
}

fn encode(format: Format, values: &[f32], bytes: &mut [u8]) {
    match format {
        Format::F32 => bytes.copy_from_slice(bytemuck::cast_slice(values)),
        Format::BF16 => float::encode_bf16_into(values, bytes),
        Format::F16 => {
            for (b, v) in bytes.chunks_exact_mut(2).zip(values) {
                b.copy_from_slice(&f16::from_f32(*v).to_le_bytes());
            }
        }
        other => unreachable!("{other} is no float format"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::testing::random;

    #[test]
    fn a_matrix_holds_the_values_as_its_format_rounds_them() {
        for n_threads in [1, 3] {
            let device = Device::cpu(n_threads).unwrap();
            for (rows, cols) in [(1, 1), (3, 31), (130, 257), (2, 40_000)] {
                let values = random(rows * cols, 3.0, 7);
                for (format, bits) in [(Format::F32, 24), (Format::F16, 11), (Format::BF16, 8)] {
                    let mut m = Matrix::zeros(&device, format, rows, cols).unwrap();
                    matrix(&device, &mut m, View::new(&values, [rows, cols]));
                    let mut got = vec![f32::NAN; rows * cols];
                    m.decode_rows(0..rows, &mut got);
                    for (got, want) in got.iter().zip(&values) {
                        // Half a unit of the last bit; f16 has a smallest one.
                        let bound = (want.abs() * 2f32.powi(-bits)).max(if bits == 11 { 2f32.powi(-25) } else { 0.0 });
                        let bound = if bits == 24 { 0.0 } else { bound };
                        assert!((got - want).abs() <= bound, "{format} ({rows}, {cols}): {got} {want}");
                    }
                }
            }
        }
    }
}
