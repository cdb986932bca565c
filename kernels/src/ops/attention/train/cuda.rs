//! Launches of training's attention: one kernel forward, two backward.

use super::backward::{Gradients, SavedForward};
use super::{Sequence, Starts};
use crate::cuda::{Arg, Cuda, DevicePtr, LaunchShape};
use crate::view::ViewMut;

/// Values of a head at most.
const HEAD_DIM_MAX: usize = 256;
/// Values of a head a kernel has room for.
const WIDTHS: [usize; 3] = [64, 128, 256];

/// The kernels of one kind for each of the widths.
type Kernels = [Kernel; 3];

#[derive(Clone, Copy)]
struct Kernel {
    name: &'static str,
    threads: u32,
    /// Rows of a block: queries, or keys for dk and dv.
    rows: usize,
    /// Dynamic shared memory of a block.
    shared_bytes: usize,
}

/// In f32: TRAIN_QUERIES and TRAIN_KEYS of train.cuh.
const fn plain(name: &'static str, rows: usize) -> Kernel {
    Kernel { name, threads: 256, rows, shared_bytes: 0 }
}

/// On tensor cores: tiles of 64 rows that stay, two of `columns` that pass, and `n_floats` beside them. Two bf16 a value.
const fn split(name: &'static str, width: usize, n_resident: usize, columns: usize, n_floats: usize) -> Kernel {
    let shared_bytes = 4 * width * (64 * n_resident + 2 * columns) + 4 * n_floats;
    Kernel { name, threads: 128, rows: 64, shared_bytes }
}

const FORWARD: Kernels =
    [plain("attention_train_64", 64), plain("attention_train_128", 64), plain("attention_train_256", 64)];
const DQ: Kernels = [plain("attention_dq_64", 64), plain("attention_dq_128", 64), plain("attention_dq_256", 64)];
const DKV: Kernels = [plain("attention_dkv_64", 32), plain("attention_dkv_128", 32), plain("attention_dkv_256", 32)];

const FORWARD_MMA: Kernels = [
    split("attention_train_mma_64", 64, 1, 32, 0),
    split("attention_train_mma_128", 128, 1, 32, 0),
    split("attention_train_mma_256", 256, 1, 16, 0),
];
const DQ_MMA: Kernels = [
    split("attention_dq_mma_64", 64, 2, 32, 3 * 64),
    split("attention_dq_mma_128", 128, 2, 32, 3 * 64),
    split("attention_dq_mma_256", 256, 2, 16, 3 * 64),
];
/// dk and dv of the narrower heads, dk of the widest.
const DKV_MMA: Kernels = [
    split("attention_dkv_mma_64", 64, 2, 32, 3 * 32),
    split("attention_dkv_mma_128", 128, 2, 32, 3 * 32),
    split("attention_dk_mma_256", 256, 2, 16, 3 * 16),
];
/// The widest heads' dk and dv do not fit into the registers of a warp together.
const DV_MMA_256: Kernel = split("attention_dv_mma_256", 256, 1, 32, 3 * 32);

/// What all three kernels are told.
struct Launch<'a> {
    s: Sequence<'a>,
    starts: DevicePtr,
    n_sequences: usize,
    /// Rows of the longest sequence.
    longest: usize,
    /// Which of the widths.
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
        let width = WIDTHS.iter().position(|width| d <= *width).expect("checked");
        Launch { s, starts, n_sequences, longest, width }
    }

    /// A block for each tile of rows, head and sequence; `outputs` come before what all kernels are saved.
    fn run(&self, cuda: &Cuda, kernel: Kernel, n_heads: usize, outputs: &[DevicePtr]) {
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
        let grid = [self.longest.div_ceil(kernel.rows), n_heads, self.n_sequences].map(|n| n as u32);
        let shape = LaunchShape { grid, block: kernel.threads, shared_bytes: kernel.shared_bytes as u32 };
        cuda.launch(kernel.name, shape, &args[..n + inputs.len()]);
    }

    /// The kernel on tensor cores where there are some, and shared memory for it (99 KiB of sm_86 are too few for the widest
    /// heads' gradients).
    fn choose(&self, cuda: &Cuda, plain: &Kernels, mma: &Kernels) -> Kernel {
        let kernel = mma[self.width];
        let fits = kernel.shared_bytes <= cuda.max_shared_bytes() as usize;
        if cuda.arch() >= 80 && fits {
            kernel
        } else {
            plain[self.width]
        }
    }
}

pub fn forward(
    cuda: &Cuda,
    out: ViewMut<'_, f32, 3>,
    stats: ViewMut<'_, f32, 3>,
    s: Sequence<'_>,
    starts: Option<&Starts>,
) {
    let launch = Launch::new(s, starts);
    let kernel = launch.choose(cuda, &FORWARD, &FORWARD_MMA);
    launch.run(cuda, kernel, s.q.shape()[1], &[out.ptr(), stats.ptr()]);
}

pub fn backward(
    cuda: &Cuda,
    gradients: Gradients<'_>,
    saved: SavedForward<'_>,
    s: Sequence<'_>,
    starts: Option<&Starts>,
) {
    let ([_, n_heads, _], [_, n_kv_heads, _]) = (s.q.shape(), s.k.shape());
    let launch = Launch::new(s, starts);
    let [out, dout, stats] = [saved.out, saved.dout, saved.stats].map(|x| x.ptr());
    launch.run(cuda, launch.choose(cuda, &DQ, &DQ_MMA), n_heads, &[gradients.dq.ptr(), out, dout, stats]);
    let by_keys = [gradients.dk.ptr(), gradients.dv.ptr(), out, dout, stats];
    let kernel = launch.choose(cuda, &DKV, &DKV_MMA);
    launch.run(cuda, kernel, n_kv_heads, &by_keys);
    if kernel.name == DKV_MMA[2].name {
        launch.run(cuda, DV_MMA_256, n_kv_heads, &by_keys);
    }
}
