//! Tiny models in training, and what the fixtures say of them.

use std::path::PathBuf;
use std::sync::Arc;

use lichen_kernels::{Device, Format};
use lichen_runtime::files::adapter_file::AdapterFile;
use lichen_runtime::model::Model;
use lichen_runtime::{ModelConfig, ModelSource};
use lichen_tests::models::fixture;
use lichen_trainer::activations::ActivationSizes;
use lichen_trainer::data::Sample;
use lichen_trainer::full::Full;
use lichen_trainer::layers::Layers;
use lichen_trainer::lora::Lora;
use lichen_trainer::machine::LOSS_ROWS;
use lichen_trainer::network::{Mode, Network};
use lichen_trainer::optimizer::AdamWSettings;
use safetensors::SafeTensors;
use serde_json::Value;

pub const MODELS: [&str; 2] = ["tiny-gemma3", "tiny-qwen2-tied"];
/// Samples of a batch in the fixtures.
pub const BATCH: usize = 4;

pub fn training(model: &str) -> PathBuf {
    fixture("training").join(model)
}

/// The pre-tokenised rows of a fixture.
pub fn rows(model: &str) -> Vec<Sample> {
    let text = std::fs::read_to_string(training(model).join("rows.jsonl")).unwrap();
    let sample = |(line, text): (usize, &str)| {
        let row: Value = serde_json::from_str(text).unwrap();
        let numbers =
            |name: &str| row[name].as_array().unwrap().iter().map(|v| v.as_i64().unwrap()).collect::<Vec<_>>();
        let ids = numbers("input_ids").into_iter().map(|v| v as u32).collect();
        Sample { ids, labels: numbers("labels").into_iter().map(|v| v as i32).collect(), line: line + 1 }
    };
    text.lines().enumerate().map(sample).collect()
}

/// `golden.safetensors`, which holds f64 too and so is read by the reference implementation.
pub struct Golden(Vec<u8>);

impl Golden {
    pub fn open(model: &str) -> Golden {
        Golden(std::fs::read(training(model).join("golden.safetensors")).unwrap())
    }

    fn file(&self) -> SafeTensors<'_> {
        SafeTensors::deserialize(&self.0).unwrap()
    }

    pub fn has(&self, name: &str) -> bool {
        self.file().tensor(name).is_ok()
    }

    pub fn f32(&self, name: &str) -> Vec<f32> {
        numbers(self.file().tensor(name).unwrap_or_else(|e| panic!("{name}: {e}")).data())
    }

    pub fn f64(&self, name: &str) -> Vec<f64> {
        numbers(self.file().tensor(name).unwrap_or_else(|e| panic!("{name}: {e}")).data())
    }
}

pub fn open(model: &str, device: &Device) -> Arc<Model> {
    let source = ModelSource::open(&fixture(model)).unwrap();
    Arc::new(Model::load(&source, device).unwrap())
}

/// How a network is set up; the default is what the fixtures were made with.
#[derive(Clone, Copy)]
pub struct Setup {
    pub recompute: bool,
    /// Samples of a micro-batch.
    pub batch: usize,
    pub has_dropout: bool,
    pub rank: usize,
}

impl Default for Setup {
    fn default() -> Self {
        Setup { recompute: true, batch: BATCH, has_dropout: false, rank: 4 }
    }
}

pub const LORA: AdamWSettings = AdamWSettings { beta1: 0.9, beta2: 0.999, eps: 1e-8, weight_decay: 0.01, clip: None };
pub const FULL: AdamWSettings = AdamWSettings { beta1: 0.9, beta2: 0.98, eps: 1e-8, weight_decay: 0.05, clip: None };

fn sizes(setup: &Setup, rank: usize, trained_weights: Option<Format>) -> ActivationSizes {
    let kept_layers = if setup.recompute { 0 } else { usize::MAX };
    ActivationSizes {
        rows: 40 * setup.batch,
        longest: 40,
        rank,
        has_dropout: setup.has_dropout,
        trained_weights,
        loss_rows: LOSS_ROWS,
        kept_layers,
        first_layer: 0,
    }
}

/// An adapter on all seven matrices, alpha twice the rank; its values are zero.
pub fn lora(device: Arc<Device>, model: Arc<Model>, setup: Setup) -> Network {
    let layout = Lora::new(&model.config, [true; 7], &Layers::default(), setup.rank, 2.0 * setup.rank as f32);
    let rows = sizes(&setup, setup.rank, None);
    Network::new(device, model, Mode::Lora(layout), LORA, &rows, setup.batch).unwrap()
}

pub fn full(device: Arc<Device>, model: Arc<Model>, format: Format, setup: Setup) -> Network {
    let layout = Full::new(&model.config);
    Network::new(device, model, Mode::Full(layout, format), FULL, &sizes(&setup, 0, Some(format)), setup.batch).unwrap()
}

/// A network with the fixture's first adapter.
pub fn start(name: &str, device: &Arc<Device>, setup: Setup) -> Network {
    let model = open(name, device);
    let file = AdapterFile::open(&training(name).join("init"), &model.config).unwrap();
    let mut network = lora(device.clone(), model, setup);
    let layout = layout(&network).clone();
    network.set_values(|values| layout.load(values, &file).unwrap()).unwrap();
    network
}

/// The layout of an adapter in training.
pub fn layout(network: &Network) -> &Lora {
    match network.mode() {
        Mode::Lora(lora) => lora,
        Mode::Full(..) => panic!("an adapter is expected"),
    }
}

/// What PEFT calls a half of a pair.
pub fn peft_name(config: &ModelConfig, layer: usize, target: usize, half: &str) -> String {
    let part = lichen_runtime::model::adapter::TARGETS[target];
    let name = part.hf_name(config.architecture, Some(layer));
    format!("base_model.model.model.{}.lora_{half}.weight", name.trim_end_matches(".weight"))
}

/// The largest difference of two tensors as a share of the largest entry; NaN counts as infinite.
pub fn worst(got: &[f32], want: &[f32]) -> f64 {
    assert_eq!(got.len(), want.len());
    let largest = want.iter().fold(0.0f64, |m, v| m.max(f64::from(v.abs())));
    let differences = got.iter().zip(want).map(|(g, w)| f64::from((g - w).abs()));
    let worst = differences.fold(0.0, |m: f64, d| if d.is_nan() { f64::INFINITY } else { m.max(d) });
    worst / largest.max(1e-30)
}

/// Compares the gradient of each weight with the fixture's, which for some holds its norm alone; returns how many.
pub fn check_full_gradients(case: &str, network: &Network, golden: &Golden, bound: f64) -> usize {
    let Mode::Full(layout, _) = network.mode() else { panic!("all weights are trained") };
    let (config, gradients) = (&network.model().config, network.gradients().unwrap());
    for place in layout.places() {
        let tensor = place.part.hf_name(config.architecture, place.layer);
        let got = &gradients[place.start..place.start + place.len];
        let whole = format!("full.model.{tensor}");
        let off = if golden.has(&whole) {
            worst(got, &golden.f32(&whole))
        } else {
            let norm = got.iter().map(|v| f64::from(*v).powi(2)).sum::<f64>().sqrt();
            let want = golden.f64(&format!("full_norm.model.{tensor}"))[0];
            (norm - want).abs() / want
        };
        assert!(off <= bound, "{case}: {tensor} is off by {off:.1e}");
    }
    layout.places().len()
}

/// A copy: the bytes of a file need not be aligned.
fn numbers<T: bytemuck::Pod>(bytes: &[u8]) -> Vec<T> {
    let mut out = vec![T::zeroed(); bytes.len() / size_of::<T>()];
    bytemuck::cast_slice_mut(&mut out).copy_from_slice(bytes);
    out
}
