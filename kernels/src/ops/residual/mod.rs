//! The residual stream, f32 throughout: `x[i] += y[i]`. Gemma 3's exceeds the range of f16.

use crate::device::Device;
use crate::simd::per_isa;

/// Elements per task: 32 k values take about 5 microseconds.
const CHUNK: usize = 32 << 10;

/// Adds `y` to `x`, any shape.
pub fn forward(device: &Device, x: &mut [f32], y: &[f32]) {
    assert_eq!(x.len(), y.len());
    match device {
        Device::Cpu(cpu) => {
            cpu.pool.for_chunks(x, CHUNK, &|i, x| {
                let start = i * CHUNK;
                add(cpu.isa, x, &y[start..start + x.len()]);
            });
        }
    }
}

per_isa! {
    fn add(x: &mut [f32], y: &[f32]) = add_body;
}

#[inline(always)]
fn add_body(x: &mut [f32], y: &[f32]) {
    x.iter_mut().zip(y).for_each(|(x, y)| *x += y);
}
