//! Launches of attention: one kernel for a single row or for rows of several sequences, two for several rows of one.

use super::kv_store::Plane;
use super::{Attention, KvFormat, PageTable, QkNorm, Scratch, PAGE};
use crate::cuda::{Arg, Cuda, DevicePtr, LaunchShape};

/// KV splits that the positions of a decode step are cut into at most: SPLITS_MAX of decode.cuh.
const SPLITS_MAX: usize = 64;
/// Positions of a KV split at least: SPLIT_MIN of decode.cuh.
const SPLIT_MIN: usize = 32;
/// Positions of a KV split in pages at least. Half as many halve what a block does one after the other, and double the blocks,
/// which each norm and rotate the queries: on an H200 64 sequences at position 1,024 of 72B's heads took 143 us so, and 106
/// with these.
const PAGES_SPLIT_MIN: usize = 8 * PAGE;
/// Blocks that a long sequence alone is cut into, nearly one for each multiprocessor of an H200; and KV splits of each group of
/// heads that there may be however many groups are. More would help nobody else: a block whose KV split a short sequence does
/// not have takes 0.5 us of its place all the same.
const PAGES_BLOCKS: usize = 128;
const PAGES_SPLITS_MIN: usize = 16;
/// Values of a head at most: eight for each lane of a warp.
const HEAD_DIM_MAX: usize = 256;

const PREPARE_WARPS: usize = 4;
const DECODE_WARPS: usize = 4;
const PREFILL_WARPS: usize = 8;
/// Rows of a block of prefill_mma.cuh.
const MMA_ROWS: usize = 64;

/// f32 values of the scratch memory: a counter for each head, then the partial results of the KV splits: maximum, sum and
/// values.
pub fn scratch_len(cuda: &Cuda, n_heads: usize, head_dim: usize) -> usize {
    n_heads + n_heads * splits_max(cuda) * (head_dim + 2)
}

/// The same for the rows of a batch that see at most `longest` positions.
pub fn batch_scratch_len(max_rows: usize, n_heads: usize, head_dim: usize, longest: usize) -> usize {
    // Of every window up to the whole pages of the longest: fewer positions may be cut into more KV splits.
    let most = longest.next_multiple_of(PAGE) + PAGE - 1;
    let n_splits = most.div_ceil(PAGES_SPLIT_MIN).min(SPLITS_MAX);
    max_rows * n_heads * (1 + n_splits * (head_dim + 2))
}

/// KV splits in pages at most, for `n_groups` groups of heads that see at most `longest` positions. A row's KV splits have
/// [`PAGES_SPLIT_MIN`] positions, more where its own would else be more than so many; with a shorter `longest` there are
/// fewer only where no row has more. So a row's sums depend on its position and the heads alone.
fn page_splits(longest: usize, n_groups: usize) -> usize {
    // The oldest that is visible may be the last of its page.
    let most = longest + PAGE - 1;
    most.div_ceil(PAGES_SPLIT_MIN).min((PAGES_BLOCKS / n_groups).clamp(PAGES_SPLITS_MIN, SPLITS_MAX))
}

/// Blocks of a decode step in one direction: twice the multiprocessors keep every one of them busy.
fn splits_max(cuda: &Cuda) -> usize {
    SPLITS_MAX.min(2 * cuda.n_sms() as usize)
}

/// How the heads of a call are shared among warps.
struct Heads {
    /// Query heads of a kv head.
    per_kv: usize,
    /// Rows of a warp.
    rows: usize,
    /// Values of a head the kernel has room for: the end of its name.
    width: usize,
}

impl Heads {
    fn new(n_heads: usize, n_kv_heads: usize, head_dim: usize) -> Heads {
        assert!(head_dim <= HEAD_DIM_MAX && head_dim.is_multiple_of(8), "heads of {head_dim} values");
        let (rows, width) = match head_dim {
            ..=64 => (8, 64),
            65..=128 => (8, 128),
            _ => (4, 256),
        };
        Heads { per_kv: n_heads / n_kv_heads, rows, width }
    }

    /// One of the kernels for 64, 128 and 256 values.
    fn kernel(&self, names: &[&'static str; 3]) -> &'static str {
        names[match self.width {
            64 => 0,
            128 => 1,
            _ => 2,
        }]
    }
}

const DECODE: [[&str; 3]; 3] = [
    ["attention_decode_f32_64", "attention_decode_f32_128", "attention_decode_f32_256"],
    ["attention_decode_f16_64", "attention_decode_f16_128", "attention_decode_f16_256"],
    ["attention_decode_i8_64", "attention_decode_i8_128", "attention_decode_i8_256"],
];

const PAGES: [[&str; 3]; 3] = [
    ["attention_pages_f32_64", "attention_pages_f32_128", "attention_pages_f32_256"],
    ["attention_pages_f16_64", "attention_pages_f16_128", "attention_pages_f16_256"],
    ["attention_pages_i8_64", "attention_pages_i8_128", "attention_pages_i8_256"],
];

/// On tensor cores, over f16 and for whole heads.
const PAGES_MMA: [&str; 3] =
    ["attention_pages_mma_f16_64", "attention_pages_mma_f16_128", "attention_pages_mma_f16_256"];
/// Heads of a block there.
const PAGES_MMA_HEADS: usize = 8;

const PREFILL_ROWS: [[&str; 3]; 3] = [
    ["attention_prefill_f32_64", "attention_prefill_f32_128", "attention_prefill_f32_256"],
    ["attention_prefill_f16_64", "attention_prefill_f16_128", "attention_prefill_f16_256"],
    ["attention_prefill_i8_64", "attention_prefill_i8_128", "attention_prefill_i8_256"],
];

/// Without f32.
const PREFILL_MMA: [[&str; 3]; 2] = [
    ["attention_mma_f16_64", "attention_mma_f16_128", "attention_mma_f16_256"],
    ["attention_mma_i8_64", "attention_mma_i8_128", "attention_mma_i8_256"],
];

pub fn forward(cuda: &Cuda, a: Attention<'_>, scratch: &mut Scratch) {
    let ([n_rows, n_heads, head_dim], n_kv_heads) = (a.q.shape(), a.cache.n_kv_heads());
    let heads = Heads::new(n_heads, n_kv_heads, head_dim);
    match a.pages {
        Some(table) if !a.step.is_chunk() => return decode_pages(cuda, &a, table, &heads, scratch),
        None if n_rows == 1 => return decode(cuda, &a, &heads, scratch),
        _ => {}
    }
    prepare(cuda, &a);
    let (index, n_group_rows) = (format_index(a.cache.format()), n_rows * heads.per_kv);
    // Stores of f32 are for those who want f32 results.
    if cuda.arch() >= 80 && a.cache.format() != KvFormat::F32 {
        let shared_bytes = match heads.width {
            256 => (MMA_ROWS + 2 * 32) * 256 * 2,
            width => (MMA_ROWS + 2 * 64) * width * 2,
        };
        let grid = [n_group_rows.div_ceil(MMA_ROWS) as u32, n_kv_heads as u32, 1];
        let shape = LaunchShape { grid, block: 128, shared_bytes: shared_bytes as u32 };
        return prefill(cuda, &a, heads.kernel(&PREFILL_MMA[index - 1]), shape);
    }
    let grid = [n_group_rows.div_ceil(PREFILL_WARPS * heads.rows) as u32, n_kv_heads as u32, 1];
    let shape = LaunchShape { grid, block: 32 * PREFILL_WARPS as u32, shared_bytes: 0 };
    prefill(cuda, &a, heads.kernel(&PREFILL_ROWS[index]), shape);
}

/// The codes of KvFormatCode in rows.cuh.
fn format_index(format: KvFormat) -> usize {
    match format {
        KvFormat::F32 => 0,
        KvFormat::F16 => 1,
        KvFormat::I8 => 2,
    }
}

fn size(n: usize) -> Arg {
    Arg::U32(n as u32)
}

/// What is stored; int8 alone has scales.
#[derive(Clone, Copy)]
struct Stored {
    keys: Arg,
    key_scales: Arg,
    values: Arg,
    value_scales: Arg,
}

impl Stored {
    fn of(a: &Attention<'_>) -> Stored {
        let pointers = |plane: &Plane| match plane {
            Plane::F32(floats) => (floats.ptr(), DevicePtr::NULL),
            Plane::F16(f16s) => (f16s.ptr(), DevicePtr::NULL),
            Plane::I8(codes, scales) => (codes.ptr(), scales.ptr()),
        };
        let (keys, key_scales) = pointers(&a.cache.keys);
        let (values, value_scales) = pointers(&a.cache.values);
        Stored {
            keys: keys.into(),
            key_scales: key_scales.into(),
            values: values.into(),
            value_scales: value_scales.into(),
        }
    }
}

/// Positions a query sees: no sequence has as many as the window of a layer that sees all.
fn window(a: &Attention<'_>) -> u32 {
    let n_positions = a.pages.map_or(a.cache.n_slots(), |table| table.n_entries() * PAGE);
    a.window.min(n_positions) as u32
}

/// The pages of a chunk's sequence, and how many there are; null for a ring.
fn chunk_pages(a: &Attention<'_>) -> (Arg, Arg) {
    let Some(table) = a.pages else { return (DevicePtr::NULL.into(), size(0)) };
    let slot = a.step.slots()[0] as usize;
    (table.ptr().offset(4 * slot * table.n_entries()).into(), size(table.n_entries()))
}

/// What queries and keys pass before they meet; the norms may be null.
#[derive(Clone, Copy)]
struct Rotation {
    cos: Arg,
    sin: Arg,
    q_norm: Arg,
    k_norm: Arg,
    eps: Arg,
}

impl Rotation {
    fn of(a: &Attention<'_>) -> Rotation {
        let (q_norm, k_norm, eps) = match &a.qk_norm {
            Some(QkNorm { q, k, eps }) => (q.ptr(), k.ptr(), *eps),
            None => (DevicePtr::NULL, DevicePtr::NULL, 0.0),
        };
        Rotation {
            cos: a.rope.cos().ptr().into(),
            sin: a.rope.sin().ptr().into(),
            q_norm: q_norm.into(),
            k_norm: k_norm.into(),
            eps: eps.into(),
        }
    }
}

/// What the kernels of a decode step take, over a ring and over pages alike: `DecodeArgs` of `decode.cuh`.
struct DecodeArgs {
    out: Arg,
    q: Arg,
    k: Arg,
    v: Arg,
    stored: Stored,
    rotation: Rotation,
    /// Counters of blocks that are through.
    finished: Arg,
    /// What the KV splits gave.
    partial: Arg,
    scale: Arg,
    window: Arg,
    n_heads: Arg,
    n_kv_heads: Arg,
    head_dim: Arg,
    n_slots: Arg,
}

impl DecodeArgs {
    /// `n_counters` of the scratch are for blocks that are through; what the KV splits gave comes after them.
    fn new(a: &Attention<'_>, scratch: &Scratch, n_counters: usize) -> DecodeArgs {
        let [_, n_heads, head_dim] = a.q.shape();
        let finished = scratch.scores.ptr();
        DecodeArgs {
            out: a.out.ptr().into(),
            q: a.q.ptr().into(),
            k: a.k.ptr().into(),
            v: a.v.ptr().into(),
            stored: Stored::of(a),
            rotation: Rotation::of(a),
            finished: finished.into(),
            partial: finished.offset(4 * n_counters).into(),
            scale: a.scale.into(),
            window: window(a).into(),
            n_heads: size(n_heads),
            n_kv_heads: size(a.cache.n_kv_heads()),
            head_dim: size(head_dim),
            n_slots: size(a.cache.n_slots()),
        }
    }

    /// In the order of the kernels' parameters, with what one kernel takes between and behind.
    fn around<const N: usize>(&self, between: &[Arg], behind: &[Arg]) -> [Arg; N] {
        let Stored { keys, key_scales, values, value_scales } = self.stored;
        let Rotation { cos, sin, q_norm, k_norm, eps } = self.rotation;
        let vectors = [self.out, self.q, self.k, self.v, keys, key_scales, values, value_scales];
        let rotation = [cos, sin, q_norm, k_norm];
        let splits = [self.finished, self.partial];
        let sizes = [self.scale, self.window, self.n_heads, self.n_kv_heads, self.head_dim, self.n_slots];
        let parts: [&[Arg]; 7] = [&vectors, &rotation, between, &splits, &[eps], &sizes, behind];
        let mut args = parts.into_iter().flatten().copied();
        let all = std::array::from_fn(|i| args.next().unwrap_or_else(|| panic!("{i} arguments of {N}")));
        assert!(args.next().is_none(), "more than {N} arguments");
        all
    }
}

/// Blocks of a decode step in the second direction: groups of query heads.
fn decode_groups(a: &Attention<'_>, heads: &Heads) -> usize {
    a.cache.n_kv_heads() * heads.per_kv.div_ceil(heads.rows)
}

fn decode(cuda: &Cuda, a: &Attention<'_>, heads: &Heads, scratch: &mut Scratch) {
    let ([_, n_heads, head_dim], grid_y) = (a.q.shape(), decode_groups(a, heads));
    // By what the cache may hold, not by the position: the launch is recorded once.
    let wanted = (2 * cuda.n_sms() as usize).div_ceil(grid_y).min(splits_max(cuda));
    let n_splits = (window(a) as usize).div_ceil(SPLIT_MIN).min(wanted);
    assert!(scratch.scores.len() >= n_heads + n_heads * n_splits * (head_dim + 2));
    let args = DecodeArgs::new(a, scratch, n_heads).around::<22>(&[a.step.position_ptr().into()], &[]);
    let grid = [n_splits as u32, grid_y as u32, 1];
    let shape = LaunchShape { grid, block: 32 * DECODE_WARPS as u32, shared_bytes: 0 };
    cuda.launch(heads.kernel(&DECODE[format_index(a.cache.format())]), shape, &args);
}

/// One row of each of several sequences.
fn decode_pages(cuda: &Cuda, a: &Attention<'_>, table: &PageTable, heads: &Heads, scratch: &mut Scratch) {
    let ([n_rows, n_heads, head_dim], format) = (a.q.shape(), a.cache.format());
    let is_mma = cuda.arch() >= 80 && format == KvFormat::F16 && head_dim == heads.width;
    let heads = &Heads { rows: if is_mma { PAGES_MMA_HEADS } else { heads.rows }, ..*heads };
    let kernel = heads.kernel(if is_mma { &PAGES_MMA } else { &PAGES[format_index(format)] });
    let grid_y = decode_groups(a, heads);
    let n_splits = page_splits(window(a) as usize, grid_y);
    // A counter for each block of the largest launch, whatever this one's size: they are zeros between launches.
    let n_counters = scratch.max_rows * n_heads;
    assert!(n_rows <= scratch.max_rows && grid_y <= n_heads, "{n_rows} rows");
    assert!(scratch.scores.len() >= n_counters + n_rows * n_heads * n_splits * (head_dim + 2));
    let rows = [a.step.positions_ptr(), a.step.slots_ptr(), table.ptr()].map(Arg::from);
    let splits = [table.n_entries(), PAGES_SPLIT_MIN].map(size);
    let args = DecodeArgs::new(a, scratch, n_counters).around::<26>(&rows, &splits);
    let grid = [n_splits as u32, grid_y as u32, n_rows as u32];
    let shape = LaunchShape { grid, block: 32 * DECODE_WARPS as u32, shared_bytes: 0 };
    cuda.launch_pdl(kernel, shape, &args);
}

/// Norms and rotates q in place, and stores k and v.
fn prepare(cuda: &Cuda, a: &Attention<'_>) {
    let ([n_rows, n_heads, head_dim], n_kv_heads) = (a.q.shape(), a.cache.n_kv_heads());
    let Stored { keys, key_scales, values, value_scales } = Stored::of(a);
    let Rotation { cos, sin, q_norm, k_norm, eps } = Rotation::of(a);
    let (pages, n_entries) = chunk_pages(a);
    let [rows, heads, kv_heads, dim, slots] = [n_rows, n_heads, n_kv_heads, head_dim, a.cache.n_slots()].map(size);
    let args = [
        a.q.ptr().into(),
        a.k.ptr().into(),
        a.v.ptr().into(),
        keys,
        key_scales,
        values,
        value_scales,
        cos,
        sin,
        q_norm,
        k_norm,
        a.step.position_ptr().into(),
        pages,
        eps,
        rows,
        heads,
        kv_heads,
        dim,
        slots,
        n_entries,
        size(format_index(a.cache.format())),
    ];
    let n_blocks = (n_rows * (n_heads + 2 * n_kv_heads)).div_ceil(PREPARE_WARPS);
    let shape = LaunchShape { grid: [n_blocks as u32, 1, 1], block: 32 * PREPARE_WARPS as u32, shared_bytes: 0 };
    cuda.launch("attention_prepare", shape, &args);
}

/// After [`prepare`]: both kinds of kernels take the same arguments.
fn prefill(cuda: &Cuda, a: &Attention<'_>, kernel: &'static str, shape: LaunchShape) {
    let ([n_rows, n_heads, head_dim], n_kv_heads) = (a.q.shape(), a.cache.n_kv_heads());
    let per_kv = n_heads / n_kv_heads;
    let Stored { keys, key_scales, values, value_scales } = Stored::of(a);
    let (pages, n_entries) = chunk_pages(a);
    let [rows, heads, per_kv, dim, slots] = [n_rows, n_heads, per_kv, head_dim, a.cache.n_slots()].map(size);
    let args = [
        a.out.ptr().into(),
        a.q.ptr().into(),
        keys,
        key_scales,
        values,
        value_scales,
        a.step.position_ptr().into(),
        pages,
        a.scale.into(),
        window(a).into(),
        rows,
        heads,
        per_kv,
        dim,
        slots,
        n_entries,
    ];
    cuda.launch(kernel, shape, &args);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batchs_scratch_holds_the_parts_of_every_window_up_to_its_context() {
        for longest in (1usize..=1700).chain(8_000..8_400).chain([40_000, 131_072]) {
            for window in [longest, longest.next_multiple_of(PAGE), longest * 31 / 32, 8_161.min(longest)] {
                let n_splits =
                    [1usize, 4, 8, 64].map(|n_groups| page_splits(window, n_groups)).into_iter().max().unwrap();
                assert!(n_splits <= SPLITS_MAX);
                let needed = 3 * 4 * (1 + n_splits * (64 + 2));
                assert!(batch_scratch_len(3, 4, 64, longest) >= needed, "{longest} positions, a window of {window}");
            }
        }
    }
}
