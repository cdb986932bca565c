//! Kernels alone, at the sizes of released models: the pure read, decode products in GB/s, prefill products in TFLOP/s, and
//! the attention of training and of a batch's decode step.

use lichen_kernels::cuda::Cuda;
use lichen_kernels::ops::matmul::{self, Family, Input, Product, Scratch};
use lichen_kernels::{Buffer, Device, DeviceError, Format, Matrix, PackedMatrix};
use serde_json::{json, Map, Value};

use crate::attention;
use crate::processes::{self, program};
use crate::Plan;

/// Rounds of each measurement; the least time counts.
const ROUNDS: usize = 5;
/// Weights that a round of decode walks over: several times the largest second-level cache (50 MB on an H200).
const ROUND_BYTES: usize = 512 << 20;

/// Matrices (N, K) of a decode step: Gemma 3 1B's and Qwen 2.5's.
const DECODE: [(&str, usize, usize); 13] = [
    ("gemma-3-1b q", 1024, 1152),
    ("gemma-3-1b k", 256, 1152),
    ("gemma-3-1b o", 1152, 1024),
    ("gemma-3-1b gate", 6912, 1152),
    ("gemma-3-1b down", 1152, 6912),
    ("gemma-3-1b head", 262_144, 1152),
    ("qwen2.5-7b q", 3584, 3584),
    ("qwen2.5-7b gate", 18_944, 3584),
    ("qwen2.5-7b down", 3584, 18_944),
    ("qwen2.5-72b q", 8192, 8192),
    ("qwen2.5-72b gate", 29_568, 8192),
    ("qwen2.5-72b down", 8192, 29_568),
    ("qwen2.5-72b head", 152_064, 8192),
];
const DECODE_QUICK: [(&str, usize, usize); 2] = [("small", 96, 256), ("odd", 41, 192)];
/// Products (T, N, K) of a prefill.
const PREFILL: [(&str, usize, usize, usize); 5] = [
    ("gemma-3-1b gate", 512, 6912, 1152),
    ("qwen2.5-7b gate", 128, 18_944, 3584),
    ("qwen2.5-7b gate", 512, 18_944, 3584),
    ("qwen2.5-7b gate", 2048, 18_944, 3584),
    ("square", 8192, 8192, 8192),
];
const PREFILL_QUICK: [(&str, usize, usize, usize); 1] = [("small", 16, 96, 256)];

/// Measures with each architecture's kernels, in a process each. (results, whether all ran)
pub fn run(plan: &Plan) -> (Value, bool) {
    let (mut results, mut ok) = (Map::new(), true);
    for arch in &plan.archs {
        let mut command = program(plan, "lichen-gpu-check");
        command.args(["measure-kernels", &arch.to_string(), if plan.quick { "quick" } else { "whole" }]);
        let outcome = processes::run(plan, &format!("kernels-sm_{arch}"), &mut command);
        let last = outcome.stdout.lines().last().unwrap_or("");
        let value = serde_json::from_str(last).unwrap_or_else(|_| json!({"error": outcome.output.trim()}));
        ok &= outcome.ok;
        results.insert(format!("sm_{arch}"), value);
    }
    (Value::Object(results), ok)
}

/// All figures of one architecture's kernels.
///
/// # Errors
/// The device has no memory left, or is lost.
pub fn measure(cuda: Cuda, quick: bool) -> Result<Value, DeviceError> {
    let device = Device::Cuda(cuda.clone());
    let read_gb_per_s = read_bandwidth(&cuda, if quick { 1 << 20 } else { 2 << 30 })?;
    let bench = Bench { cuda, device, quick, read_gb_per_s };
    let wanted = std::env::var("LICHEN_GPU_CHECK_PRODUCTS").unwrap_or_default().to_lowercase();
    let wants = |name: &str, format: Format| format!("{name} {format}").to_lowercase().contains(&wanted);
    let mut decode = Vec::new();
    let cases = if quick { &DECODE_QUICK[..] } else { &DECODE[..] };
    for (name, rows, cols) in cases {
        for format in [Format::Q8_0, Format::NF4, Format::Q4_0, Format::BF16].into_iter().filter(|f| wants(name, *f)) {
            // Columns computed at once: one, and a full group; then those of a batch.
            for (t, family) in
                [(1, Family::ByRows), (8, Family::ByRows), (1, Family::Batch), (16, Family::Batch), (64, Family::Batch)]
            {
                decode.push(bench.decode(name, format, *rows, *cols, t, family)?);
            }
        }
    }
    let mut prefill = Vec::new();
    let cases = if quick { &PREFILL_QUICK[..] } else { &PREFILL[..] };
    for (name, t, rows, cols) in cases {
        for format in [Format::BF16, Format::F16, Format::Q8_0, Format::NF4].into_iter().filter(|f| wants(name, *f)) {
            prefill.push(bench.prefill(name, format, *t, *rows, *cols)?);
        }
    }
    let training = attention::measure(&bench.cuda, quick)?;
    let batch = attention::measure_pages(&bench.cuda, quick, read_gb_per_s)?;
    Ok(json!({
        "read_gb_per_s": read_gb_per_s, "decode": decode, "prefill": prefill, "training_attention": training,
        "batch_attention": batch,
    }))
}

/// The pure read kernel over `bytes` bytes.
fn read_bandwidth(cuda: &Cuda, bytes: usize) -> Result<f64, DeviceError> {
    lichen_kernels::ops::bandwidth::read_gb_per_s(cuda, bytes)
}

struct Bench {
    cuda: Cuda,
    device: Device,
    quick: bool,
    read_gb_per_s: f64,
}

impl Bench {
    /// Decode: each weight is read once, from memory and not from a cache.
    fn decode(
        &self,
        name: &str,
        format: Format,
        rows: usize,
        cols: usize,
        t: usize,
        family: Family,
    ) -> Result<Value, DeviceError> {
        let one = matrix(&self.cuda, format, rows, cols)?;
        let bytes = one.size_bytes();
        let n_copies = if self.quick { 2 } else { ROUND_BYTES.div_ceil(bytes).clamp(2, 256) };
        let mut copies = vec![one];
        for _ in 1..n_copies {
            copies.push(matrix(&self.cuda, format, rows, cols)?);
        }
        let ms = self.time(&copies, t, family)?;
        let gb_per_s = bytes as f64 / ms / 1e6;
        Ok(json!({
            "name": name, "format": format.name(), "rows": rows, "cols": cols, "columns": t, "bytes": bytes,
            "family": if family == Family::Batch { "batch" } else { "decode" },
            "us": 1e3 * ms, "gb_per_s": gb_per_s, "of_read_kernel": gb_per_s / self.read_gb_per_s,
        }))
    }

    /// Prefill: the same weights for many rows of activations.
    fn prefill(&self, name: &str, format: Format, t: usize, rows: usize, cols: usize) -> Result<Value, DeviceError> {
        let ms = self.time(&[matrix(&self.cuda, format, rows, cols)?], t, Family::ByRows)?;
        let tflop_per_s = 2.0 * (t * rows * cols) as f64 / ms / 1e9;
        Ok(json!({
            "name": name, "format": format.name(), "tokens": t, "rows": rows, "cols": cols,
            "us": 1e3 * ms, "tflop_per_s": tflop_per_s,
        }))
    }

    /// Milliseconds of one product, the best round of several over all of `matrices`.
    fn time(&self, matrices: &[Matrix], t: usize, family: Family) -> Result<f64, DeviceError> {
        let (rows, cols) = (matrices[0].rows(), matrices[0].cols());
        let values: Vec<f32> = (0..t * cols).map(|i| ((i * 7919) % 251) as f32 / 251.0 - 0.5).collect();
        let x = Buffer::from_slice(&self.device, &values)?;
        let mut out = Buffer::new(&self.device, t * rows)?;
        let mut scratch = Scratch::new(&self.device, t, cols, rows)?;
        let mut best = f64::INFINITY;
        // The first round compiles and warms up.
        for round in 0..=ROUNDS {
            let mut record = || {
                for weights in matrices {
                    let products = &mut [Product { out: out.view_mut([t, rows]), weights, bias: None }];
                    matmul::forward(&self.device, family, products, Input::Rows(x.view([t, cols])), &mut scratch);
                }
            };
            let ms = f64::from(self.cuda.time_ms(&mut record)?);
            if round > 0 {
                best = best.min(ms / matrices.len() as f64);
            }
        }
        self.device.synchronize()?;
        Ok(best)
    }
}

/// A matrix of arbitrary codes with scales of about 0.02, made on the spot: only its size matters.
fn matrix(cuda: &Cuda, format: Format, rows: usize, cols: usize) -> Result<Matrix, DeviceError> {
    let (padded_rows, padded_cols) = (rows.next_multiple_of(8), cols.next_multiple_of(128));
    let n = padded_rows * padded_cols;
    let (code_bytes, scale_bytes) = match format {
        Format::Q8_0 => (n, n / 16),
        Format::Q4_0 => (n / 2, n / 16),
        Format::NF4 => (n / 2, n / 32),
        Format::F16 | Format::BF16 => (2 * n, 0),
        other => panic!("{other} has no bench"),
    };
    // A small half in both 16-bit formats (0.019 and 0.0063), and small codes.
    let codes = filled(cuda, code_bytes, if scale_bytes == 0 { [0xe0, 0x24] } else { [0x25, 0xd3] })?;
    let scales = if scale_bytes == 0 { None } else { Some(filled(cuda, scale_bytes, [0xe0, 0x24])?) };
    Ok(Matrix::on_gpu(PackedMatrix { format, rows, cols, padded_cols, codes, scales, absmax_scale: 1.0 }))
}

fn filled(cuda: &Cuda, bytes: usize, pattern: [u8; 2]) -> Result<lichen_kernels::cuda::Allocation, DeviceError> {
    let mut memory = cuda.alloc(bytes)?;
    let chunk = pattern.repeat((bytes / 2).min(8 << 20));
    let mut at = 0;
    while at < bytes {
        let n = chunk.len().min(bytes - at);
        memory.write(at, &chunk[..n])?;
        at += n;
    }
    Ok(memory)
}
