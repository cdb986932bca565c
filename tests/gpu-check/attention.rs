//! Attention alone, at the heads of released models. Training's: TFLOP/s of the products that causality and the window leave,
//! two forward and five backward. A batch's decode step: GB/s of the keys and values, each read once.

use std::ops::Range;

use lichen_kernels::cuda::Cuda;
use lichen_kernels::ops::attention::train::backward::{self, Gradients, SavedForward};
use lichen_kernels::ops::attention::train::{self, Sequence, Starts};
use lichen_kernels::ops::attention::{self, Attention, KvFormat, KvStore, PageTable, Scratch, PAGE};
use lichen_kernels::ops::rope::RopeTable;
use lichen_kernels::{Buffer, Device, DeviceError, Row, Step};
use serde_json::{json, Value};

/// Rounds of each measurement; the least time counts.
const ROUNDS: usize = 5;

struct Case {
    name: &'static str,
    n_sequences: usize,
    /// Rows of a sequence.
    t: usize,
    n_heads: usize,
    n_kv_heads: usize,
    head_dim: usize,
    window: usize,
}

const fn case(name: &'static str, heads: [usize; 3], window: usize, n_sequences: usize, t: usize) -> Case {
    Case { name, n_sequences, t, n_heads: heads[0], n_kv_heads: heads[1], head_dim: heads[2], window }
}

const WHOLE: [Case; 6] = [
    case("qwen2.5-7b", [28, 4, 128], usize::MAX, 16, 512),
    case("qwen2.5-7b", [28, 4, 128], usize::MAX, 1, 512),
    case("qwen2.5-7b", [28, 4, 128], usize::MAX, 2, 4096),
    case("gemma-3-1b", [4, 1, 256], 512, 16, 512),
    case("gemma-3-1b", [4, 1, 256], 512, 2, 4096),
    case("qwen2.5-0.5b", [14, 2, 64], usize::MAX, 16, 512),
];
const QUICK: [Case; 1] = [case("small", [2, 1, 64], 20, 2, 40)];

/// All cases.
///
/// # Errors
/// The device has no memory left, or is lost.
pub fn measure(cuda: &Cuda, quick: bool) -> Result<Value, DeviceError> {
    let cases = if quick { &QUICK[..] } else { &WHOLE[..] };
    let results: Result<Vec<Value>, DeviceError> = cases.iter().map(|c| one(cuda, c)).collect();
    Ok(Value::Array(results?))
}

fn one(cuda: &Cuda, c: &Case) -> Result<Value, DeviceError> {
    let device = Device::Cuda(cuda.clone());
    let rows = c.n_sequences * c.t;
    let (wide, narrow) = ([rows, c.n_heads, c.head_dim], [rows, c.n_kv_heads, c.head_dim]);
    let values = |shape: [usize; 3], step: usize| {
        let values: Vec<f32> =
            (0..shape.iter().product()).map(|i: usize| (i * step % 251) as f32 / 125.5 - 1.0).collect();
        Buffer::from_slice(&device, &values)
    };
    let (q, k, v, dout) = (values(wide, 7919)?, values(narrow, 6133)?, values(narrow, 4211)?, values(wide, 3571)?);
    let zeros = |shape: [usize; 3]| Buffer::new(&device, shape.iter().product());
    let (mut out, mut stats) = (zeros(wide)?, zeros([rows, c.n_heads, 2])?);
    let (mut dq, mut dk, mut dv) = (zeros(wide)?, zeros(narrow)?, zeros(narrow)?);
    let mut starts = Starts::new(&device, c.n_sequences)?;
    let sequences: Vec<Range<usize>> = (0..c.n_sequences).map(|i| i * c.t..(i + 1) * c.t).collect();
    starts.set(&sequences);
    let scale = 1.0 / (c.head_dim as f32).sqrt();
    let s = Sequence { q: q.view(wide), k: k.view(narrow), v: v.view(narrow), window: c.window, scale };
    let stats_shape = [rows, c.n_heads, 2];
    let forward_ms = best_ms(cuda, &mut || {
        train::forward_batch(&device, out.view_mut(wide), stats.view_mut(stats_shape), s, &starts);
    })?;
    let backward_ms = best_ms(cuda, &mut || {
        let saved = SavedForward { out: out.view(wide), dout: dout.view(wide), stats: stats.view(stats_shape) };
        let gradients = Gradients { dq: dq.view_mut(wide), dk: dk.view_mut(narrow), dv: dv.view_mut(narrow) };
        backward::backward_batch(&device, gradients, saved, s, &starts);
    })?;
    device.synchronize()?;
    let pairs: usize = (0..c.t).map(|t| (t + 1).min(c.window)).sum();
    let product = 2.0 * (pairs * c.n_sequences * c.n_heads * c.head_dim) as f64;
    Ok(json!({
        "name": c.name, "sequences": c.n_sequences, "tokens": c.t, "heads": c.n_heads, "kv_heads": c.n_kv_heads,
        "head_dim": c.head_dim, "forward_us": 1e3 * forward_ms, "forward_tflop_per_s": 2.0 * product / forward_ms / 1e9,
        "backward_us": 1e3 * backward_ms, "backward_tflop_per_s": 5.0 * product / backward_ms / 1e9,
    }))
}

/// Keys and values that a round of decode steps walks over at least: several times the largest second-level cache.
const ROUND_BYTES: usize = 256 << 20;

/// A decode step of Qwen 2.5 72B's attention over f16 keys and values in pages, for batches of two sizes. `read_gb_per_s`:
/// what the pure read reaches.
///
/// # Errors
/// The device has no memory left, or is lost.
pub fn measure_pages(cuda: &Cuda, quick: bool, read_gb_per_s: f64) -> Result<Value, DeviceError> {
    let cases: &[(&str, usize, usize, [usize; 3])] = match quick {
        true => &[("small", 2, 40, [2, 1, 64])],
        false => &[("qwen2.5-72b", 16, 1024, [64, 8, 128]), ("qwen2.5-72b", 64, 1024, [64, 8, 128])],
    };
    let result = |&(name, n, positions, heads): &(&str, usize, usize, [usize; 3])| {
        let bytes = 2 * n * positions * heads[1] * heads[2] * size_of::<u16>();
        let us = 1e3 * pages_ms(cuda, n, positions, heads, ROUND_BYTES.div_ceil(bytes).clamp(2, 8))?;
        let gb_per_s = bytes as f64 / us / 1e3;
        Ok(json!({
            "name": name, "sequences": n, "positions": positions, "heads": heads[0], "kv_heads": heads[1],
            "head_dim": heads[2], "us": us, "gb_per_s": gb_per_s, "of_read_kernel": gb_per_s / read_gb_per_s,
        }))
    };
    let results: Result<Vec<Value>, DeviceError> = cases.iter().map(result).collect();
    Ok(Value::Array(results?))
}

/// Milliseconds of one of `n_layers` layers: `n` sequences whose newest position is the last of `positions`.
fn pages_ms(cuda: &Cuda, n: usize, positions: usize, heads: [usize; 3], n_layers: usize) -> Result<f64, DeviceError> {
    let device = Device::Cuda(cuda.clone());
    let ([n_heads, n_kv_heads, head_dim], n_entries) = (heads, positions.div_ceil(PAGE));
    let mut layers = Vec::new();
    for _ in 0..n_layers {
        layers.push(KvStore::new(&device, KvFormat::F16, n * n_entries * PAGE, n_kv_heads, head_dim)?);
    }
    let mut table = PageTable::new(&device, n, n_entries)?;
    for slot in 0..n {
        // As after a while: a sequence's pages lie apart.
        let pages: Vec<u32> = (0..n_entries).map(|i| (i * n + slot) as u32).collect();
        table.set(slot, &pages)?;
    }
    let row = |slot: usize| Row { token: 0, position: positions as u32 - 1, slot: slot as u32 };
    let mut step = Step::of_batch(&device, n)?;
    step.set_rows(&(0..n).map(row).collect::<Vec<_>>());
    step.send();
    let rope = RopeTable::new(&device, positions, head_dim, 1e6, 1.0)?;
    let mut scratch = Scratch::of_batch(&device, 1, positions, n_heads, head_dim, n)?;
    let (wide, narrow) = ([n, n_heads, head_dim], [n, n_kv_heads, head_dim]);
    let zeros = |shape: [usize; 3]| Buffer::new(&device, shape.iter().product());
    let (mut out, mut q, mut k, v) = (zeros(wide)?, zeros(wide)?, zeros(narrow)?, zeros(narrow)?);
    let ms = best_ms(cuda, &mut || {
        for cache in &mut layers {
            let call = Attention {
                out: out.view_mut(wide),
                q: q.view_mut(wide),
                k: k.view_mut(narrow),
                v: v.view(narrow),
                cache,
                pages: Some(&table),
                step: &step,
                rope: &rope,
                qk_norm: None,
                window: usize::MAX,
                scale: 1.0 / (head_dim as f32).sqrt(),
            };
            attention::forward(&device, call, &mut scratch);
        }
    })?;
    device.synchronize()?;
    Ok(ms / n_layers as f64)
}

/// Milliseconds of the best round; the first compiles and warms up.
fn best_ms(cuda: &Cuda, record: &mut dyn FnMut()) -> Result<f64, DeviceError> {
    cuda.time_ms(record)?;
    let mut best = f64::INFINITY;
    for _ in 0..ROUNDS {
        best = best.min(f64::from(cuda.time_ms(record)?));
    }
    Ok(best)
}
