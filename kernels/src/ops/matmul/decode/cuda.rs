//! Launches of the kernels of decoding: which kernel, how many blocks, how much of `x` lies in shared memory at a time.
//!
//! Neither depends on positions. The number of warps that share the k of a row depends on the weights and the device, not
//! on T, so that a row has the same bits alone and in a batch.

use crate::cuda::{Arg, Cuda, DevicePtr, LaunchShape, Occupancy};
use crate::formats::Format;
use crate::matrix::PackedMatrix;
use crate::ops::activation::Activation;
use crate::ops::matmul::{Gated, Input, Product};
use crate::ops::rmsnorm::Normed;

/// Rows of `x` that are multiplied by one reading of the weights.
pub const COLUMNS_MAX: usize = 8;
/// Products of one launch.
const PRODUCTS_MAX: usize = 3;
/// Columns of a tile of weights, and tiles a warp reads at once.
const TILE_K: u32 = 128;
const BATCH: u32 = 2;
/// Warps an SM should have at least before a row's k is not shared any further: enough to keep its memory busy.
const WARPS_PER_SM: u32 = 16;

/// One launch per run of products in the same format. The first computes the norm where there is one, the others read it.
pub fn forward(cuda: &Cuda, products: &mut [Product<'_>], input: Input<'_>) {
    let mut rows = Rows::of(input);
    let mut rest = &products[..];
    while let Some(first) = rest.first() {
        let format = first.weights.format();
        let n = rest.iter().take(PRODUCTS_MAX).take_while(|p| p.weights.format() == format).count();
        let mut jobs = [const { None }; PRODUCTS_MAX];
        for (p, slot) in rest[..n].iter().zip(&mut jobs) {
            let bias = p.bias.map_or(DevicePtr::NULL, |b| b.ptr());
            *slot = Some(Job { weights: p.weights.packed(), bias, out: p.out.ptr() });
        }
        launch(cuda, &jobs, None, &rows);
        rows = rows.done();
        rest = &rest[n..];
    }
}

/// Both products and the activation in one launch. The matrices have the same format.
pub fn forward_gated(cuda: &Cuda, g: &Gated<'_>, input: Input<'_>) {
    let (bias, out) = (DevicePtr::NULL, g.out.ptr());
    let jobs = [g.gate, g.up].map(|m| Some(Job { weights: m.packed(), bias, out }));
    let [gate, up] = jobs;
    launch(cuda, &[gate, up, None], Some(g.activation), &Rows::of(input));
}

/// The kernels' input.
#[derive(Clone, Copy)]
struct Rows {
    x: DevicePtr,
    y: DevicePtr,
    post_weight: DevicePtr,
    weight: DevicePtr,
    x_new: DevicePtr,
    h: DevicePtr,
    eps: f32,
    n_rows: u32,
    cols: u32,
}

impl Rows {
    /// For a norm this already makes the new stream the current one: it is, for whatever is launched later.
    fn of(input: Input<'_>) -> Rows {
        let [n_rows, cols] = input.shape();
        let null = DevicePtr::NULL;
        let Normed { residual, post_norm, weight, eps, h, rows } = match input {
            Input::Rows(x) => return Rows::plain(x.ptr(), n_rows as u32, cols as u32),
            Input::Normed(n) => n,
            Input::Gated { .. } => panic!("an activation is computed before decode's products"),
        };
        let first = rows.start * cols * size_of::<f32>();
        let x = residual.stream(rows.end).ptr().offset(first);
        let y = residual.pending(rows.end).map(|y| y.ptr().offset(first));
        // Rows alone at the end of a pass: nobody asks for their sum again.
        let is_kept = y.is_some() && residual.is_whole(&rows);
        let x_new = if is_kept { residual.next_mut(rows.end).ptr() } else { null };
        if is_kept {
            residual.advance(&rows);
        }
        Rows {
            x,
            y: y.unwrap_or(null),
            post_weight: post_norm.map_or(null, |w| w.ptr()),
            weight: weight.ptr(),
            x_new,
            h: h.ptr(),
            eps,
            n_rows: n_rows as u32,
            cols: cols as u32,
        }
    }

    fn plain(x: DevicePtr, n_rows: u32, cols: u32) -> Rows {
        let null = DevicePtr::NULL;
        Rows { x, y: null, post_weight: null, weight: null, x_new: null, h: null, eps: 0.0, n_rows, cols }
    }

    /// The same rows once a launch has computed their norm.
    fn done(self) -> Rows {
        if self.weight.is_null() {
            return self;
        }
        Rows::plain(self.h, self.n_rows, self.cols)
    }
}

struct Job<'a> {
    weights: &'a PackedMatrix,
    bias: DevicePtr,
    out: DevicePtr,
}

/// What a format's kernels have in common: the constants of its struct in the .cuh of the same name.
struct FormatKernels {
    tile_rows: u32,
    n_warps: u32,
    /// Bytes of x in shared memory for a k-tile and a column.
    x_bytes: u32,
    table_bytes: u32,
    /// For 1, 2, 4 and 8 columns. NF4 without tensor cores has fewer: its table leaves little shared memory for x, and on a
    /// Jetson Nano few registers for columns.
    kernels: &'static [&'static str],
}

macro_rules! kernels {
    ($format:literal) => {
        [
            concat!("matmul_decode_", $format, "_t1"),
            concat!("matmul_decode_", $format, "_t2"),
            concat!("matmul_decode_", $format, "_t4"),
            concat!("matmul_decode_", $format, "_t8"),
        ]
    };
}

fn kernels_of(format: Format, arch: u32) -> FormatKernels {
    const NF4: [&str; 4] = kernels!("nf4");
    let float = FormatKernels { tile_rows: 4, n_warps: 8, x_bytes: 512, table_bytes: 0, kernels: &kernels!("f32") };
    match format {
        Format::Q8_0 => FormatKernels { x_bytes: 272, kernels: &kernels!("q8_0"), ..float },
        Format::Q4_0 => FormatKernels { tile_rows: 8, x_bytes: 288, kernels: &kernels!("q4_0"), ..float },
        Format::NF4 => {
            let nf4 = FormatKernels { tile_rows: 8, table_bytes: 32 << 10, ..float };
            match arch {
                53 => FormatKernels { n_warps: 16, x_bytes: 256, kernels: &NF4[..2], ..nf4 },
                72 => FormatKernels { n_warps: 16, x_bytes: 256, kernels: &NF4[..3], ..nf4 },
                // On tensor cores.
                _ => FormatKernels { x_bytes: 272, kernels: &NF4, ..nf4 },
            }
        }
        Format::F32 => float,
        Format::F16 => FormatKernels { kernels: &kernels!("f16"), ..float },
        Format::BF16 => FormatKernels { kernels: &kernels!("bf16"), ..float },
        other => unreachable!("{other} is converted when it is read"),
    }
}

/// How the work is cut: the kernels' MatmulCut, and the launch.
struct Cut {
    kernel: &'static str,
    shape: LaunchShape,
    chunk_tiles: u32,
    splits: u32,
}

fn cut(cuda: &Cuda, f: &FormatKernels, n_units: u32, n_rows: u32, cols: u32) -> Cut {
    let index = n_rows.next_power_of_two().ilog2().min(f.kernels.len() as u32 - 1);
    let columns = 1 << index;
    let n_tiles = cols.div_ceil(TILE_K);
    let mut splits = 1;
    while n_units * splits < cuda.n_sms() * WARPS_PER_SM && splits < f.n_warps && 2 * splits * BATCH <= n_tiles {
        splits *= 2;
    }
    let kernel = f.kernels[index as usize];
    let Occupancy { blocks_per_sm, static_shared_bytes } = cuda.occupancy(kernel);
    let tile_bytes = f.x_bytes * columns;
    let fixed_bytes = static_shared_bytes + f.table_bytes;
    let room = shared_bytes(cuda, blocks_per_sm).max(fixed_bytes + BATCH * tile_bytes) - fixed_bytes;
    let chunk_tiles = if room / tile_bytes >= n_tiles { n_tiles } else { room / tile_bytes / BATCH * BATCH };
    let units_per_block = f.n_warps / splits;
    let mut n_blocks = n_units.div_ceil(units_per_block);
    // Blocks that hold all of x keep it for further units; the others are made for one unit a warp.
    if chunk_tiles == n_tiles {
        n_blocks = n_blocks.min(cuda.n_sms() * blocks_per_sm);
    }
    Cut {
        kernel,
        shape: LaunchShape {
            grid: [n_blocks, n_rows.div_ceil(columns), 1],
            block: f.n_warps * 32,
            shared_bytes: f.table_bytes + tile_bytes * chunk_tiles.min(n_tiles),
        },
        chunk_tiles,
        splits,
    }
}

/// Shared memory for each of so many blocks of an SM.
fn shared_bytes(cuda: &Cuda, blocks: u32) -> u32 {
    // A Jetson Nano's SM has more than a block may have; elsewhere a block may have all but the driver's 1 KiB.
    let of_sm = if cuda.arch() == 53 { 64 << 10 } else { cuda.max_shared_bytes() + 1024 };
    (of_sm / blocks - 1024).min(cuda.max_shared_bytes())
}

fn launch(cuda: &Cuda, jobs: &[Option<Job>; PRODUCTS_MAX], gate: Option<Activation>, rows: &Rows) {
    let format = jobs[0].as_ref().expect("one product").weights.format;
    let f = kernels_of(format, cuda.arch());
    let unit_rows = if gate.is_some() { f.tile_rows } else { 2 * f.tile_rows } as usize;
    let n_units = |i: usize, job: &Job| match gate {
        Some(_) if i > 0 => 0,
        _ => job.weights.rows.div_ceil(unit_rows) as u32,
    };
    let units: [u32; PRODUCTS_MAX] = std::array::from_fn(|i| jobs[i].as_ref().map_or(0, |job| n_units(i, job)));
    let total = units.iter().sum();
    let cut = cut(cuda, &f, total, rows.n_rows, rows.cols);
    let gate = match gate {
        None => 0u32,
        Some(Activation::GeluTanh) => 1,
        Some(Activation::Silu) => 2,
    };
    let mut args = [Arg::U32(0); 14 + 6 * PRODUCTS_MAX];
    let pointers = [rows.x, rows.y, rows.post_weight, rows.weight, rows.x_new, rows.h];
    args.iter_mut().zip(pointers).for_each(|(arg, ptr)| *arg = ptr.into());
    args[6] = rows.eps.into();
    let bits_and_gate = cut.splits.ilog2() | gate << 8;
    let numbers = [rows.n_rows, rows.cols, cut.chunk_tiles, bits_and_gate, total, units[0], units[1]];
    args[7..].iter_mut().zip(numbers).for_each(|(arg, n)| *arg = n.into());
    for (job, args) in jobs.iter().zip(args[14..].chunks_exact_mut(6)) {
        let null = DevicePtr::NULL;
        args.copy_from_slice(&match job {
            Some(job) => [
                job.weights.codes.ptr().into(),
                job.weights.scales.as_ref().map_or(null, |s| s.ptr()).into(),
                job.bias.into(),
                job.out.into(),
                (job.weights.rows as u32).into(),
                job.weights.absmax_scale.into(),
            ],
            None => [null.into(), null.into(), null.into(), null.into(), 0u32.into(), 0f32.into()],
        });
    }
    cuda.launch(cut.kernel, cut.shape, &args);
}
