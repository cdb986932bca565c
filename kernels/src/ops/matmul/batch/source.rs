//! What the rows of a batch's product are made of: the kernels that turn them into 16-bit floats make them on the way.

use crate::cuda::{Arg, DevicePtr};
use crate::ops::matmul::Input;
use crate::ops::rmsnorm::cuda::InPlace;
use crate::view::View;

/// Rows (n_rows, cols), or what they will be made of.
#[derive(Clone, Copy)]
pub struct Source {
    making: Making,
    pub n_rows: usize,
    pub cols: usize,
}

#[derive(Clone, Copy)]
enum Making {
    Rows(DevicePtr),
    /// `gate = act(gate) * up`.
    Gated {
        gate: DevicePtr,
        up: DevicePtr,
        activation: u32,
    },
    /// `x += norm(y) * post_weight`, then `h = norm(x) * weight`.
    Normed(InPlace),
}

impl Source {
    pub fn rows(x: View<'_, f32, 2>) -> Source {
        let [n_rows, cols] = x.shape();
        Source { making: Making::Rows(x.ptr()), n_rows, cols }
    }

    /// The norm's stream counts as added to from now on: it is, for whatever is launched later.
    pub fn of(input: Input<'_>) -> Source {
        let [n_rows, cols] = input.shape();
        let making = match input {
            Input::Rows(x) => return Source::rows(x),
            Input::Gated { gate, up, activation } => {
                Making::Gated { gate: gate.ptr(), up: up.ptr(), activation: activation.number() }
            }
            Input::Normed(n) => Making::Normed(InPlace::of(n)),
        };
        Source { making, n_rows, cols }
    }

    /// Rows `first..first + n_rows`.
    pub fn from(&self, first: usize, n_rows: usize) -> Source {
        let offset = |p: DevicePtr| if p.is_null() { p } else { p.offset(first * self.cols * size_of::<f32>()) };
        let making = match self.making {
            Making::Rows(x) => Making::Rows(offset(x)),
            Making::Gated { gate, up, activation } => Making::Gated { gate: offset(gate), up: offset(up), activation },
            Making::Normed(n) => Making::Normed(InPlace { x: offset(n.x), y: offset(n.y), h: offset(n.h), ..n }),
        };
        Source { making, n_rows, cols: self.cols }
    }

    /// The same once a kernel has made them.
    pub fn made(&self) -> Source {
        let rows = match self.making {
            Making::Rows(x) => x,
            Making::Gated { gate, .. } => gate,
            Making::Normed(n) => n.h,
        };
        Source { making: Making::Rows(rows), ..*self }
    }

    /// The kernel that makes them f16, or bf16.
    pub fn kernel(&self, is_bf16: bool) -> &'static str {
        match (&self.making, is_bf16) {
            (Making::Rows(_), false) => "matmul_batch_prepare_f16",
            (Making::Rows(_), true) => "matmul_batch_prepare_bf16",
            (Making::Gated { .. }, false) => "matmul_batch_prepare_gated_f16",
            (Making::Gated { .. }, true) => "matmul_batch_prepare_gated_bf16",
            (Making::Normed(_), false) => "matmul_batch_prepare_normed_f16",
            (Making::Normed(_), true) => "matmul_batch_prepare_normed_bf16",
        }
    }

    /// Puts what this source's kernels take behind the others' into `args`, and returns how many there are.
    pub fn arguments(&self, args: &mut [Arg]) -> usize {
        let mut put = |values: &[Arg]| {
            args[..values.len()].copy_from_slice(values);
            values.len()
        };
        match self.making {
            Making::Rows(x) => put(&[x.into()]),
            Making::Gated { gate, up, activation } => put(&[gate.into(), up.into(), activation.into()]),
            Making::Normed(InPlace { x, y, post_weight, weight, h, eps }) => {
                put(&[x.into(), y.into(), post_weight.into(), weight.into(), h.into(), eps.into()])
            }
        }
    }
}
