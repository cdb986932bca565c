//! A residual stream with what a sub-layer left, for the norms that products compute.

use super::decode::{encode, random, upload};
use lichen_kernels::formats::Format;
use lichen_kernels::ops::embedding;
use lichen_kernels::ops::residual::Residual;
use lichen_kernels::ops::rmsnorm::Normed;
use lichen_kernels::step::Step;
use lichen_kernels::{Buffer, Device, Matrix};

const EPS: f32 = 1e-6;

/// A stream of `t` rows with or without a pending output, as a pass leaves it.
pub struct Stream {
    pub residual: Residual,
    pub h: Buffer<f32>,
    weight: Buffer<f32>,
    post: Buffer<f32>,
}

impl Stream {
    pub fn new(device: &Device, t: usize, dim: usize, is_pending: bool) -> Stream {
        let mut residual = Residual::new(device, t, dim).unwrap();
        table(device, t, dim, |table, step| embedding::forward(device, residual.start(t), table, step, 30.0));
        if is_pending {
            table(device, t, dim, |table, step| embedding::forward(device, residual.output(t), table, step, 500.0));
        }
        let vector = |seed| Buffer::from_vec(device, random(dim, 2.0, seed)).unwrap();
        Stream { residual, h: Buffer::new(device, t * dim).unwrap(), weight: vector(11), post: vector(12) }
    }

    pub fn normed(&mut self, t: usize, has_post: bool) -> Normed<'_> {
        let dim = self.residual.dim();
        Normed {
            residual: &mut self.residual,
            post_norm: has_post.then(|| self.post.all()),
            weight: self.weight.all(),
            eps: EPS,
            h: self.h.view_mut([t, dim]),
            rows: 0..t,
        }
    }
}

/// Calls `then` with an F32 table on the device and a step of the tokens 1..=t.
pub fn table(device: &Device, t: usize, dim: usize, then: impl FnOnce(&Matrix, &Step)) {
    let host = encode(Format::F32, t + 1, dim, &random((t + 1) * dim, 1.0, 10));
    let mut step = Step::new(device, t).unwrap();
    step.set(0, &(1..=t as u32).collect::<Vec<_>>());
    match device {
        Device::Cpu(_) => then(&host, &step),
        Device::Cuda(_) => {
            step.send();
            then(&upload(device, &host), &step);
            device.synchronize().unwrap();
        }
    }
}

pub fn read_stream(device: &Device, residual: &Residual, t: usize) -> Vec<f32> {
    let dim = residual.dim();
    let mut values = vec![0.0; t * dim];
    match device {
        Device::Cpu(_) => values.copy_from_slice(residual.stream(t).host()),
        Device::Cuda(cuda) => {
            let mut copy = cuda.alloc(4 * t * dim).unwrap();
            cuda.copy_on_device(copy.ptr(), residual.stream(t).ptr(), 4 * t * dim);
            cuda.synchronize().unwrap();
            copy.read(0, bytemuck::cast_slice_mut(&mut values)).unwrap();
            let _ = &mut copy;
        }
    }
    values
}

pub fn assert_close(got: &[f32], want: &[f32], share: f32, what: &str) {
    assert_eq!(got.len(), want.len());
    for (i, (g, w)) in got.iter().zip(want).enumerate() {
        assert!((g - w).abs() <= share * w.abs() + 1e-6, "{what}[{i}]: {g}, the CPU has {w}");
    }
}
