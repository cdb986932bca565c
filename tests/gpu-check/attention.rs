//! Training's attention alone, at the heads of released models: TFLOP/s of the products that causality and the window leave,
//! two forward and five backward.

use std::ops::Range;

use lichen_kernels::cuda::Cuda;
use lichen_kernels::ops::attention::backward::{self, Given, Gradients};
use lichen_kernels::ops::attention::train::{self, Sequence, Starts};
use lichen_kernels::{Buffer, Device, DeviceError};
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
        let given = Given { out: out.view(wide), dout: dout.view(wide), stats: stats.view(stats_shape) };
        let gradients = Gradients { dq: dq.view_mut(wide), dk: dk.view_mut(narrow), dv: dv.view_mut(narrow) };
        backward::backward_batch(&device, gradients, given, s, &starts);
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

/// Milliseconds of the best round; the first compiles and warms up.
fn best_ms(cuda: &Cuda, record: &mut dyn FnMut()) -> Result<f64, DeviceError> {
    cuda.time_ms(record)?;
    let mut best = f64::INFINITY;
    for _ in 0..ROUNDS {
        best = best.min(f64::from(cuda.time_ms(record)?));
    }
    Ok(best)
}
