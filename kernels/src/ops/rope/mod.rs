//! Rotary position embedding, halves rotated against each other (NeoX order, as Gemma and Qwen use it):
//! `(a, b) -> (a cos - b sin, b cos + a sin)` for `a = x[i]`, `b = x[i + D/2]`. Su et al. 2021, arXiv 2104.09864.

mod cuda;
mod scaling;

use crate::cuda::DeviceError;
use crate::device::{Cpu, Device};
use crate::ops::kernel_module::{KernelModule, Role};
use crate::simd::per_isa;
use crate::view::{Buffer, View, ViewMut};

pub use scaling::{RopeScaling, Yarn};

/// What the kernels of this folder are for.
pub(crate) const MODULES: &[KernelModule] = &[KernelModule::one("rope", Role::Training)];

/// Cosines and sines of one RoPE base, `(positions, head_dim / 2)` each, computed in f64 once: a sine of a large f32
/// angle would be off by its rounding.
pub struct RopeTable {
    cos: Buffer<f32>,
    sin: Buffer<f32>,
    half: usize,
    n_positions: usize,
}

impl RopeTable {
    /// Angles are `position * theta^(-2 i / head_dim)`, the frequencies scaled as `scaling` says.
    ///
    /// # Errors
    /// The device has no room.
    pub fn new(
        device: &Device,
        n_positions: usize,
        head_dim: usize,
        theta: f32,
        scaling: impl Into<RopeScaling>,
    ) -> Result<Self, DeviceError> {
        let half = head_dim / 2;
        let mut cos = Vec::with_capacity(n_positions * half);
        let mut sin = Vec::with_capacity(n_positions * half);
        let scaling = scaling.into();
        let magnitude = scaling.magnitude();
        let frequencies: Vec<f32> = (0..half).map(|i| scaling.frequency(i, head_dim, theta)).collect();
        for position in 0..n_positions {
            for frequency in &frequencies {
                let angle = position as f64 * *frequency as f64;
                cos.push(angle.cos() as f32 * magnitude);
                sin.push(angle.sin() as f32 * magnitude);
            }
        }
        let (cos, sin) = (Buffer::from_vec(device, cos)?, Buffer::from_vec(device, sin)?);
        Ok(RopeTable { cos, sin, half, n_positions })
    }

    /// Bytes [`RopeTable::new`] takes.
    pub fn size_bytes(n_positions: usize, head_dim: usize) -> usize {
        n_positions * head_dim * 4
    }

    pub fn n_positions(&self) -> usize {
        self.n_positions
    }

    pub fn head_dim(&self) -> usize {
        2 * self.half
    }

    /// Cosines, (n_positions, head_dim / 2).
    pub fn cos(&self) -> View<'_, f32, 2> {
        self.cos.view([self.n_positions, self.half])
    }

    /// Sines, (n_positions, head_dim / 2).
    pub fn sin(&self) -> View<'_, f32, 2> {
        self.sin.view([self.n_positions, self.half])
    }
}

/// Rotates `x` (T, H, D) in place; row `t` is at position `first_position + t`. On a GPU the attention does it.
pub(crate) fn forward_cpu(cpu: &Cpu, x: &mut [f32], n_heads: usize, table: &RopeTable, first_position: usize) {
    let n_rows = x.len() / (n_heads * table.head_dim());
    assert!(first_position + n_rows <= table.n_positions(), "position beyond the RoPE table");
    let range = first_position * table.half..(first_position + n_rows) * table.half;
    let (cos, sin) = (&table.cos.host()[range.clone()], &table.sin.host()[range]);
    rotate(cpu.isa, x, n_heads, Angles { half: table.half, cos, sin, direction: 1.0 });
}

/// Rotates `x` (T, H, D) in place, for a trainer; row `t` is at `positions[t]`, which is in the table: samples lie side by
/// side.
pub fn forward(device: &Device, x: ViewMut<'_, f32, 3>, table: &RopeTable, positions: View<'_, u32, 1>) {
    rotate_at(device, x, table, positions, 1.0);
}

/// Backward: a rotation's transpose is the rotation by the opposite angle. `d` (T, H, D) is changed in place.
pub fn backward(device: &Device, d: ViewMut<'_, f32, 3>, table: &RopeTable, positions: View<'_, u32, 1>) {
    rotate_at(device, d, table, positions, -1.0);
}

fn rotate_at(
    device: &Device,
    mut x: ViewMut<'_, f32, 3>,
    table: &RopeTable,
    positions: View<'_, u32, 1>,
    direction: f32,
) {
    let [n_rows, n_heads, head_dim] = x.shape();
    assert!(head_dim == table.head_dim() && positions.len() == n_rows);
    match device {
        Device::Cpu(cpu) => {
            let (half, cos, sin) = (table.half, table.cos.host(), table.sin.host());
            for (row, position) in x.host_mut().chunks_exact_mut(n_heads * head_dim).zip(positions.host()) {
                let range = *position as usize * half..(*position as usize + 1) * half;
                rotate(cpu.isa, row, n_heads, Angles { half, cos: &cos[range.clone()], sin: &sin[range], direction });
            }
        }
        Device::Cuda(cuda) => cuda::rotate(cuda, x, table, positions, direction),
    }
}

/// Rows of the tables, (T, half) each.
#[derive(Clone, Copy)]
struct Angles<'a> {
    half: usize,
    cos: &'a [f32],
    sin: &'a [f32],
    /// 1, or -1 for the opposite angles.
    direction: f32,
}

per_isa! {
    fn rotate(x: &mut [f32], n_heads: usize, angles: Angles<'_>) = rotate_body;
}

#[inline(always)]
fn rotate_body(x: &mut [f32], n_heads: usize, angles: Angles<'_>) {
    let Angles { half, cos, sin, direction } = angles;
    for ((row, cos), sin) in
        x.chunks_exact_mut(n_heads * half * 2).zip(cos.chunks_exact(half)).zip(sin.chunks_exact(half))
    {
        for head in row.chunks_exact_mut(half * 2) {
            let (a, b) = head.split_at_mut(half);
            for i in 0..half {
                let (u, v) = (a[i], b[i]);
                let sin = direction * sin[i];
                a[i] = u * cos[i] - v * sin;
                b[i] = v * cos[i] + u * sin;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::testing::{assert_same_on_every_isa, random};

    #[test]
    fn equals_the_f64_formula_on_every_isa() {
        for (t, h, d, first, theta, scale) in
            [(1, 1, 2, 0, 1e4, 1.0), (5, 3, 6, 7, 1e6, 1.0), (2, 4, 64, 1000, 1e4, 1.0), (3, 1, 256, 500, 1e6, 8.0)]
        {
            let x = random(t * h * d, 1.0, 3);
            let got = assert_same_on_every_isa(|device| {
                let table = RopeTable::new(device, first + t, d, theta, scale).unwrap();
                let mut y = x.clone();
                let Device::Cpu(cpu) = device else { unreachable!("instruction sets are the CPU's") };
                forward_cpu(cpu, &mut y, h, &table, first);
                y
            });
            for (j, got) in got.iter().enumerate() {
                let (row, i) = (j / d, j % d);
                let pair = i % (d / 2);
                let frequency = (theta as f64).powf(-2.0 * pair as f64 / d as f64);
                let angle = (first + row / h) as f64 * frequency / scale as f64;
                let (a, b) = (x[row * d + pair] as f64, x[row * d + pair + d / 2] as f64);
                let want =
                    if i < d / 2 { a * angle.cos() - b * angle.sin() } else { b * angle.cos() + a * angle.sin() };
                // The angle is off by position * 2^-24.
                let bound = 1e-6 + 1002.0 * 6e-8 * 2.0;
                assert!((*got as f64 - want).abs() <= bound, "[{j}] {got} {want}");
            }
        }
    }

    /// YaRN's tables are those of its frequencies, longer by its attention factor.
    #[test]
    fn tables_of_yarn() {
        let yarn = Yarn { factor: 4.0, original_context: 64, beta_fast: 8.0, beta_slow: 1.0, attention_factor: 1.5 };
        let scaling = RopeScaling::Yarn(yarn);
        let table = RopeTable::new(&Device::cpu(1).unwrap(), 100, 32, 1e4, scaling).unwrap();
        for (j, (cos, sin)) in table.cos.host().iter().zip(table.sin.host()).enumerate() {
            let angle = (j / 16) as f64 * scaling.frequency(j % 16, 32, 1e4) as f64;
            let want = (1.5 * angle.cos(), 1.5 * angle.sin());
            assert!((*cos as f64 - want.0).abs() <= 2e-7 && (*sin as f64 - want.1).abs() <= 2e-7, "[{j}] {cos} {sin}");
        }
    }

    /// The transpose of a rotation is its inverse, and `<R x, d> = <x, R^T d>`: both, for every instruction set.
    #[test]
    fn backward_undoes_forward_and_is_its_transpose() {
        for (t, h, d, first) in [(1, 1, 2, 0), (5, 3, 6, 7), (2, 4, 64, 100), (3, 1, 256, 500)] {
            let (x, dy) = (random(t * h * d, 1.0, 3), random(t * h * d, 1.0, 4));
            let table = |device: &Device| RopeTable::new(device, first + t, d, 1e4, 1.0).unwrap();
            let positions: Vec<u32> = (first as u32..).take(t).collect();
            let forth = |device: &Device, x: &[f32]| {
                let mut y = x.to_vec();
                forward(device, ViewMut::new(&mut y, [t, h, d]), &table(device), View::new(&positions, [t]));
                y
            };
            let back = |device: &Device, x: &[f32]| {
                let mut y = x.to_vec();
                backward(device, ViewMut::new(&mut y, [t, h, d]), &table(device), View::new(&positions, [t]));
                y
            };
            let again = assert_same_on_every_isa(|device| back(device, &forth(device, &x)));
            // Two rotations, each with two products and a sum, of values up to 1.5.
            assert!(again.iter().zip(&x).all(|(a, b)| (a - b).abs() <= 1e-6), "({t} {h} {d})");
            let device = Device::cpu(1).unwrap();
            let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| *a as f64 * *b as f64).sum::<f64>();
            let (left, right) = (dot(&forth(&device, &x), &dy), dot(&x, &back(&device, &dy)));
            assert!((left - right).abs() <= 1e-6 * (t * h * d) as f64, "{left} {right}");
        }
    }
}
