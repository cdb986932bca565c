//! Measuring a model on a machine: prefill, decode, the first token, and the memory bandwidth that bounds decode.

use std::hint::black_box;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use lichen_kernels::ops::attention::KvStore;
use lichen_kernels::ops::bandwidth;
use lichen_kernels::Device;

use crate::engine::request::{Request, SamplingOverrides};
use crate::engine::{Engine, Event};
use crate::error::{Error, Result};
use crate::loader::LoadedModel;
use crate::memory_plan::available_memory::available_bytes;
use crate::setting::{CONTEXT, NEW_TOKENS, PARALLEL, PROMPT_TOKENS};

/// What to run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BenchOptions {
    pub prompt_tokens: usize,
    pub new_tokens: usize,
    /// Measured runs, after one that warms up.
    pub repeat: usize,
}

/// Median, least and greatest of the measured runs.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Spread {
    pub median: f64,
    pub min: f64,
    pub max: f64,
}

/// What was measured.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct BenchReport {
    pub prefill_tokens_per_s: Spread,
    /// Of all sequences of a batch together.
    pub decode_tokens_per_s: Spread,
    /// Weights and the keys and values that one token reads, half way through the new tokens; the sequences of a batch share
    /// the reading of the weights.
    pub decode_bytes_per_token: usize,
    /// Pure reads of a buffer larger than the caches, by the same threads, between the runs.
    pub memory_bandwidth_gb_per_s: Spread,
    /// Seconds from the start of loading to the first token of the first prompt.
    pub time_to_first_token_s: f64,
    /// Highest resident size up to the end of the warm-up; the buffer of the bandwidth measurement comes later.
    pub peak_rss_bytes: Option<usize>,
}

impl BenchReport {
    /// Share of the memory bandwidth that decode uses.
    pub fn memory_bandwidth_fraction(&self) -> f64 {
        let used = self.decode_tokens_per_s.median * self.decode_bytes_per_token as f64;
        used / (self.memory_bandwidth_gb_per_s.median * 1e9)
    }
}

/// Runs the benchmark on a fresh engine, all of whose slots are in use.
///
/// # Errors
/// The tokens do not fit the context.
pub fn run(engine: &mut Engine, options: &BenchOptions) -> Result<BenchReport> {
    let start = Instant::now();
    let needed = options.prompt_tokens + options.new_tokens;
    let model = engine.model().clone();
    let context = engine.limits().context;
    if needed > context {
        return Err(Error::usage(format!(
            "{PROMPT_TOKENS} and {NEW_TOKENS} are {needed} together; {CONTEXT} is {context}"
        )));
    }
    // The first run reads the weights from the disk; a few tokens are enough to touch all of the memory.
    let (first_s, _) = answer(engine, options.prompt_tokens, options.new_tokens.min(4), &start)?;
    let time_to_first_token_s = model.load_s + first_s;
    let peak_rss_bytes = peak_rss_bytes();

    let buffer = match *model.device {
        Device::Cpu(_) => bandwidth_buffer(),
        Device::Cuda(_) => Vec::new(),
    };
    let (mut prefills, mut decodes, mut bandwidths) = (Vec::new(), Vec::new(), Vec::new());
    let n_sequences = engine.n_slots();
    for _ in 0..options.repeat {
        let (prefill_s, decode_s) = answer(engine, options.prompt_tokens, options.new_tokens, &Instant::now())?;
        prefills.push((n_sequences * options.prompt_tokens) as f64 / prefill_s);
        decodes.push((n_sequences * options.new_tokens) as f64 / decode_s);
        bandwidths.push(bandwidth_gb_per_s(&model.device, &buffer)?);
    }
    let position = options.prompt_tokens + options.new_tokens / 2;
    Ok(BenchReport {
        prefill_tokens_per_s: spread(prefills),
        decode_tokens_per_s: spread(decodes),
        decode_bytes_per_token: model.model.active_bytes() / n_sequences + kv_bytes(&model, position),
        memory_bandwidth_gb_per_s: spread(bandwidths),
        time_to_first_token_s,
        peak_rss_bytes,
    })
}

/// Lets every slot answer a prompt of its own. Seconds from `start` until the prompts are computed, and those of the tokens
/// after them.
fn answer(engine: &mut Engine, prompt_tokens: usize, new_tokens: usize, start: &Instant) -> Result<(f64, f64)> {
    // What the run before left would save this one its prompts.
    engine.clear();
    let vocab_size = engine.model().model.config.vocab_size;
    for i in 0..engine.n_slots() {
        let mut prompt = some_tokens(prompt_tokens, vocab_size);
        prompt.rotate_left(i % prompt_tokens);
        engine.submit(Request {
            // The first token comes from the prompt; nothing ends an answer before its time.
            max_new_tokens: Some(new_tokens + 1),
            ignore_eos: true,
            sampling: SamplingOverrides::greedy(),
            ..Request::tokens(prompt)
        })?;
    }
    let mut failed = None;
    let mut on_event = |event: Event<'_>| {
        if let Event::Failed { error, .. } = event {
            failed = Some(error);
        }
    };
    while engine.prefill(&mut on_event)? {}
    // Fewer pages than slots would measure a smaller batch.
    if engine.n_waiting() > 0 {
        return Err(Error::limit(format!(
            "there is memory for {} of {} sequences: lower {CONTEXT} or {PARALLEL}",
            engine.n_running(),
            engine.n_slots()
        )));
    }
    let (prefill_s, start) = (start.elapsed().as_secs_f64(), Instant::now());
    while engine.decode(&mut on_event)? {}
    let decode_s = start.elapsed().as_secs_f64();
    failed.map_or(Ok((prefill_s, decode_s)), Err)
}

/// The same for every run: a multiplicative walk over the vocabulary.
fn some_tokens(n: usize, vocab_size: usize) -> Vec<u32> {
    (1..=n as u64)
        .map(|i| (i.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 20) % vocab_size as u64)
        .map(|id| id as u32)
        .collect()
}

/// Keys and values that the token at `position` reads.
fn kv_bytes(model: &LoadedModel, position: usize) -> usize {
    let config = &model.model.config;
    let per_layer = config.is_global.iter().map(|is_global| {
        let window = if *is_global { usize::MAX } else { config.sliding_window.unwrap_or(usize::MAX) };
        KvStore::size_bytes(model.plan.limits.kv_format, position.min(window), config.n_kv_heads, config.head_dim)
    });
    per_layer.sum()
}

/// Four times the largest cache and at least 64 MiB, as far as the memory allows.
fn bandwidth_buffer() -> Vec<u64> {
    const LEAST: usize = 64 << 20;
    let size = (4 * largest_cache_bytes()).clamp(LEAST, 1 << 30);
    let size = size.min(available_bytes().unwrap_or(LEAST) / 4).max(1 << 20);
    // Not zeros: pages that were never written are one shared page of zeros.
    (0..size as u64 / 8).collect()
}

fn largest_cache_bytes() -> usize {
    let caches = (0..8).filter_map(|i| {
        let path = format!("/sys/devices/system/cpu/cpu0/cache/index{i}/size");
        let text = std::fs::read_to_string(path).ok()?;
        text.trim().strip_suffix('K')?.parse::<usize>().ok()
    });
    caches.max().unwrap_or(0) * 1024
}

/// The best of three passes over the buffer.
fn bandwidth_gb_per_s(device: &Device, buffer: &[u64]) -> Result<f64> {
    const CHUNK: usize = 1 << 17;
    let chunks: Vec<&[u64]> = buffer.chunks(CHUNK).collect();
    let cpu = match device {
        Device::Cpu(cpu) => cpu,
        Device::Cuda(cuda) => return Ok(bandwidth::read_gb_per_s(cuda, gpu_buffer_bytes(cuda.free_bytes()?))?),
    };
    let sum = AtomicU64::new(0);
    let mut best = 0.0f64;
    for _ in 0..3 {
        let start = Instant::now();
        cpu.pool.run(chunks.len(), &|i| {
            sum.fetch_add(sum_of(chunks[i]), Ordering::Relaxed);
        });
        best = best.max(buffer.len() as f64 * 8.0 / start.elapsed().as_secs_f64() / 1e9);
    }
    black_box(sum.into_inner());
    Ok(best)
}

/// Twice the largest second-level cache of a GPU and more, as far as its memory allows.
fn gpu_buffer_bytes(free: usize) -> usize {
    (512 << 20).min(free / 4)
}

/// Sixteen independent sums, so that additions never wait for each other.
fn sum_of(values: &[u64]) -> u64 {
    let mut sums = [0u64; 16];
    for chunk in values.chunks_exact(16) {
        for (sum, value) in sums.iter_mut().zip(chunk) {
            *sum = sum.wrapping_add(*value);
        }
    }
    sums.iter().fold(0, |a, b| a.wrapping_add(*b))
}

/// The highest resident size of this process so far, mapped weights included.
pub fn peak_rss_bytes() -> Option<usize> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<usize>().ok().map(|kib| kib * 1024)
}

fn spread(mut values: Vec<f64>) -> Spread {
    values.sort_by(f64::total_cmp);
    let n = values.len();
    match n {
        0 => Spread::default(),
        _ => Spread { median: (values[(n - 1) / 2] + values[n / 2]) / 2.0, min: values[0], max: values[n - 1] },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_the_middle() {
        for (values, want) in [(vec![3.0, 1.0, 2.0], 2.0), (vec![4.0, 1.0], 2.5), (vec![7.0], 7.0)] {
            assert_eq!(spread(values).median, want);
        }
    }

    #[test]
    fn tokens_lie_in_the_vocabulary() {
        assert!(some_tokens(1000, 7).iter().all(|id| *id < 7));
        assert_eq!(sum_of(&(0..1024).collect::<Vec<u64>>()), 1023 * 512);
    }
}
