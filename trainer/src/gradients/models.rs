//! Tiny random models of two blocks, and batches for them.

use std::sync::Arc;

use lichen_kernels::ops::dropout::Key;
use lichen_kernels::ops::rope::RopeScaling;
use lichen_kernels::{Buffer, Device, Format};
use lichen_runtime::model::synthetic;
use lichen_runtime::model::Model;
use lichen_runtime::{Architecture, ModelConfig};

use crate::activations::ActivationSizes;
use crate::data::Sample;
use crate::forward::Dropout;
use crate::full::Full;
use crate::layers::Layers;
use crate::lora::Lora;
use crate::machine::LOSS_ROWS;
use crate::network::{Mode, Network, StepReport};
use crate::optimizer::AdamWSettings;

pub const RANK: usize = 3;
/// No power of two times the rank: the scale is 4/3.
const ALPHA: f32 = 4.0;

/// A row of the tables.
#[derive(Clone)]
pub struct Case {
    pub name: &'static str,
    pub config: ModelConfig,
}

/// Heads of 32 and of an odd number of pairs; one, two and three query heads for a key head; head tied and not.
pub fn cases() -> [Case; 4] {
    [
        Case { name: "Gemma, heads of 32", config: gemma3(20, 28, [4, 2, 32], 37) },
        Case { name: "Gemma, heads of 14", config: gemma3(33, 21, [2, 2, 14], 29) },
        Case { name: "Qwen, tied", config: qwen2(19, 30, [4, 2, 10], 31, true) },
        Case { name: "Qwen, untied, three query heads a key head", config: qwen2(24, 17, [6, 2, 6], 35, false) },
    ]
}

/// Widths that whole blocks of every format fill, and sums of more than one block of 128.
pub fn cases_of_64() -> [Case; 2] {
    [
        Case { name: "Gemma", config: gemma3(64, 192, [4, 2, 32], 40) },
        Case { name: "Qwen", config: qwen2(64, 192, [2, 1, 64], 40, false) },
    ]
}

/// A local layer that sees three positions, then a global one. `heads`: of queries, of keys, and their width.
fn gemma3(dim: usize, hidden_dim: usize, heads: [usize; 3], vocab_size: usize) -> ModelConfig {
    let [n_heads, n_kv_heads, head_dim] = heads;
    ModelConfig {
        architecture: Architecture::Gemma3,
        block: Architecture::Gemma3.block(),
        n_layers: 2,
        dim,
        hidden_dim,
        n_heads,
        n_kv_heads,
        head_dim,
        vocab_size,
        context_length: 128,
        rms_eps: 1e-6,
        rope_theta: 1e4,
        rope_theta_local: 100.0,
        rope_scaling: RopeScaling::Linear(2.0),
        sliding_window: Some(3),
        is_global: vec![false, true],
        query_scale: 0.3,
        embedding_scale: (dim as f32).sqrt(),
        tied_head: true,
    }
}

fn qwen2(dim: usize, hidden_dim: usize, heads: [usize; 3], vocab_size: usize, tied_head: bool) -> ModelConfig {
    ModelConfig {
        architecture: Architecture::Qwen2,
        block: Architecture::Qwen2.block(),
        rope_theta: 1e3,
        rope_theta_local: 1e3,
        rope_scaling: RopeScaling::NONE,
        sliding_window: None,
        is_global: vec![true; 2],
        embedding_scale: 1.0,
        tied_head,
        ..gemma3(dim, hidden_dim, heads, vocab_size)
    }
}

/// The model of a case. Norms are factors around one and biases are not zero: ones and zeros would hide what they do.
pub fn model(config: &ModelConfig, format: Format, device: &Device) -> Model {
    let mut model = synthetic::model(config.clone(), format, device).unwrap();
    let mut n = 0;
    let mut fill = |v: &mut Buffer<f32>, low: f32, high: f32| {
        n += 1;
        let values = uniform(n, v.len(), low, high);
        v.host_mut().copy_from_slice(&values);
    };
    fill(&mut model.output_norm, 0.5, 1.5);
    for w in &mut model.layers {
        let norms = [&mut w.attn_norm, &mut w.ffn_norm];
        let more = w.qk_norm.iter_mut().flatten().chain(&mut w.post_attn_norm).chain(&mut w.post_ffn_norm);
        norms.into_iter().chain(more).for_each(|v| fill(v, 0.5, 1.5));
        w.qkv_bias.iter_mut().flatten().for_each(|v| fill(v, -0.5, 0.5));
    }
    model
}

/// Numbers of a seed.
pub fn uniform(seed: u64, n: usize, low: f32, high: f32) -> Vec<f32> {
    let shares = Key::new(&[seed]).numbers().map(|bits| (bits >> 40) as f32 / (1u64 << 24) as f32);
    shares.take(n).map(|share| low + (high - low) * share).collect()
}

/// Samples of these lengths. Of four labels one is masked, but never the last, and the first label of a sample, which no
/// token precedes, is set to be ignored.
pub fn samples(vocab_size: usize, lengths: &[usize]) -> Vec<Sample> {
    let sample = |(line, n): (usize, &usize)| {
        let draw = |seed| Key::new(&[seed, line as u64]).numbers().take(*n);
        let ids: Vec<u32> = draw(1).map(|bits| (bits % vocab_size as u64) as u32).collect();
        let is_masked = |i: usize, bits: u64| bits.is_multiple_of(4) && i + 1 < *n;
        let labels = ids.iter().zip(draw(2)).enumerate();
        let labels = labels.map(|(i, (id, bits))| if is_masked(i, bits) { -100 } else { *id as i32 });
        let mut labels: Vec<i32> = labels.collect();
        labels[0] = 0;
        Sample { labels, ids, line: line + 1 }
    };
    lengths.iter().enumerate().map(sample).collect()
}

/// How a network is set up.
#[derive(Clone, Copy, Debug)]
pub struct Setup {
    pub recompute: bool,
    /// Of a micro-batch.
    pub max_samples: usize,
    pub dropout: Option<Dropout>,
}

const SETTINGS: AdamWSettings =
    AdamWSettings { beta1: 0.9, beta2: 0.99, eps: 1e-8, weight_decay: 0.01, clip: Some(1.0) };

/// A network for these samples.
pub fn network(device: &Arc<Device>, model: Model, mode: Mode, samples: &[Sample], setup: Setup) -> Network {
    let n_rows = |s: &Sample| s.ids.len() - 1;
    let trained_weights = match &mode {
        Mode::Lora(_) => None,
        Mode::Full(_, format) => Some(*format),
    };
    let rows = ActivationSizes {
        rows: samples.iter().map(n_rows).sum(),
        longest: samples.iter().map(n_rows).max().unwrap_or(0),
        rank: if matches!(mode, Mode::Lora(_)) { RANK } else { 0 },
        has_dropout: setup.dropout.is_some(),
        trained_weights,
        loss_rows: LOSS_ROWS,
        kept_layers: if setup.recompute { 0 } else { usize::MAX },
        first_layer: mode.first_layer(),
    };
    Network::new(device.clone(), Arc::new(model), mode, SETTINGS, &rows, setup.max_samples).unwrap()
}

/// One with a random adapter on all seven matrices: neither half is zero, as B is at the start of a training.
pub fn lora(device: &Arc<Device>, model: Model, samples: &[Sample], setup: Setup) -> Network {
    lora_of(device, model, &Layers::default(), samples, setup)
}

/// The same on some layers.
pub fn lora_of(device: &Arc<Device>, model: Model, layers: &Layers, samples: &[Sample], setup: Setup) -> Network {
    let layout = Lora::new(&model.config, [true; 7], layers, RANK, ALPHA);
    let mut network = network(device, model, Mode::Lora(layout), samples, setup);
    network.set_values(|values| values.copy_from_slice(&uniform(99, values.len(), -0.3, 0.3))).unwrap();
    network
}

/// One that trains all weights.
pub fn full(device: &Arc<Device>, model: Model, format: Format, samples: &[Sample], setup: Setup) -> Network {
    let layout = Full::new(&model.config);
    network(device, model, Mode::Full(layout, format), samples, setup)
}

/// The layout and values of a network's adapter.
pub fn adapter(network: &Network) -> Option<(&Lora, &[f32])> {
    match network.mode() {
        Mode::Lora(lora) => Some((lora, super::on_cpu(network.values()))),
        Mode::Full(..) => None,
    }
}

/// A step that computes gradients and changes nothing.
pub fn step(network: &mut Network, samples: &[Sample], setup: Setup) -> StepReport {
    network.step(samples, 0.0, setup.dropout).unwrap()
}
