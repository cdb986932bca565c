//! Launches of training's attention: one kernel forward, two backward.

use super::backward::{Given, Gradients};
use super::train::{Sequence, Starts};
use crate::cuda::{Arg, Cuda, DevicePtr, LaunchShape};
use crate::view::ViewMut;

/// Values of a head at most.
const HEAD_DIM_MAX: usize = 256;
/// Queries and keys of a block: TRAIN_QUERIES and TRAIN_KEYS of train.cuh.
const QUERIES: usize = 64;
const KEYS: usize = 32;
const THREADS: u32 = 256;

const FORWARD: [&str; 3] = ["attention_train_64", "attention_train_128", "attention_train_256"];
const DQ: [&str; 3] = ["attention_dq_64", "attention_dq_128", "attention_dq_256"];
const DKV: [&str; 3] = ["attention_dkv_64", "attention_dkv_128", "attention_dkv_256"];

/// What all three kernels are told.
struct Launch<'a> {
    s: Sequence<'a>,
    starts: DevicePtr,
    n_sequences: usize,
    /// Rows of the longest sequence.
    longest: usize,
    /// Which of the kernels for 64, 128 and 256 values.
    width: usize,
}

impl<'a> Launch<'a> {
    fn new(s: Sequence<'a>, starts: Option<&'a Starts>) -> Launch<'a> {
        let [t, _, d] = s.q.shape();
        assert!(d <= HEAD_DIM_MAX && d.is_multiple_of(8), "heads of {d} values");
        let (starts, n_sequences, longest) = match starts {
            None => (DevicePtr::NULL, 1, t),
            Some(starts) => {
                let longest = starts.sequences().map(|rows| rows.len()).max().unwrap_or(0);
                (starts.on_device().ptr(), starts.sequences().count(), longest)
            }
        };
        let width = match d {
            ..=64 => 0,
            65..=128 => 1,
            _ => 2,
        };
        Launch { s, starts, n_sequences, longest, width }
    }

    /// A block for each tile of rows, head and sequence; `outputs` come before what all kernels are given.
    fn run(&self, cuda: &Cuda, kernels: &[&'static str; 3], (tile, n_heads): (usize, usize), outputs: &[DevicePtr]) {
        if self.longest == 0 {
            return;
        }
        let ([t, all_heads, d], [_, n_kv_heads, _]) = (self.s.q.shape(), self.s.k.shape());
        let size = |n: usize| Arg::U32(n as u32);
        let inputs: [Arg; 10] = [
            self.s.q.ptr().into(),
            self.s.k.ptr().into(),
            self.s.v.ptr().into(),
            self.starts.into(),
            self.s.scale.into(),
            size(self.s.window.min(self.longest)),
            size(t),
            size(all_heads),
            size(all_heads / n_kv_heads),
            size(d),
        ];
        // An array and not a vector: a step allocates nothing.
        let (mut args, n) = ([Arg::U32(0); 16], outputs.len());
        for (arg, output) in args.iter_mut().zip(outputs) {
            *arg = (*output).into();
        }
        args[n..n + inputs.len()].copy_from_slice(&inputs);
        let grid = [self.longest.div_ceil(tile), n_heads, self.n_sequences].map(|n| n as u32);
        cuda.launch(
            kernels[self.width],
            LaunchShape { grid, block: THREADS, shared_bytes: 0 },
            &args[..n + inputs.len()],
        );
    }
}

pub fn forward(
    cuda: &Cuda,
    out: ViewMut<'_, f32, 3>,
    stats: ViewMut<'_, f32, 3>,
    s: Sequence<'_>,
    starts: Option<&Starts>,
) {
    let n_heads = s.q.shape()[1];
    Launch::new(s, starts).run(cuda, &FORWARD, (QUERIES, n_heads), &[out.ptr(), stats.ptr()]);
}

pub fn backward(cuda: &Cuda, gradients: Gradients<'_>, given: Given<'_>, s: Sequence<'_>, starts: Option<&Starts>) {
    let ([_, n_heads, _], [_, n_kv_heads, _]) = (s.q.shape(), s.k.shape());
    let launch = Launch::new(s, starts);
    let [out, dout, stats] = [given.out, given.dout, given.stats].map(|x| x.ptr());
    launch.run(cuda, &DQ, (QUERIES, n_heads), &[gradients.dq.ptr(), out, dout, stats]);
    launch.run(cuda, &DKV, (KEYS, n_kv_heads), &[gradients.dk.ptr(), gradients.dv.ptr(), out, dout, stats]);
}
