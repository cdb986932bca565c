//! The memory plan of a CUDA device against what the device says is gone. Alone in its program: others would allocate too.

#[path = "../cuda-emulator/tests/common/mod.rs"]
mod common;

use std::sync::Arc;

use lichen_kernels::{Device, Format};
use lichen_runtime::engine::request::{Request, SamplingOverrides};
use lichen_runtime::engine::{Engine, LoadedModel};
use lichen_runtime::limits::BatchLimits;
use lichen_runtime::memory_plan::{MemoryPlan, ModelBytes, Place};
use lichen_runtime::model::session::Session;
use lichen_runtime::model::Model;
use lichen_runtime::ModelSource;
use lichen_tests::models::*;
use lichen_tests::programs;
use lichen_trainer::data::Sample;
use lichen_trainer::forward::Dropout;
use lichen_trainer::full::Full;
use lichen_trainer::layers::Layers;
use lichen_trainer::lora::Lora;
use lichen_trainer::machine::Machine;
use lichen_trainer::network::{Mode, Network};
use lichen_trainer::optimizer::AdamWSettings;
use lichen_trainer::plan::{HostAndGpu, JobSize, Recompute, TrainPlan};

#[test]
fn a_device_gives_what_the_plan_says() {
    if std::env::var_os(programs::PROGRAMS).is_none() {
        programs::cuda_emulator();
    }
    for device in common::devices().into_iter().map(Arc::new) {
        let Device::Cuda(cuda) = &*device else { panic!("not a CUDA device") };
        // Another program may use a real device at the same time.
        if !cuda.info().is_emulated() {
            continue;
        }
        for name in ["tiny-gemma3", "tiny-gemma3/tiny-gemma3-q8_0.gguf", "tiny-gemma3-nf4"] {
            let source = ModelSource::open(&fixture(name)).unwrap_or_else(|e| panic!("{e}"));
            let (weights, _) = Model::planned_gpu_bytes(&source).unwrap_or_else(|e| panic!("{e}"));
            let free = cuda.free_bytes().unwrap();
            let model = Arc::new(Model::load(&source, &device).unwrap_or_else(|e| panic!("{e}")));
            assert_eq!(free - cuda.free_bytes().unwrap(), weights, "{} {name}: weights", device.describe());
            let bytes = ModelBytes { device: weights, ..ModelBytes::default() };
            let plan = MemoryPlan::on(&device, &model.config, bytes, limits(1), None);
            let mut session = Session::new(model.clone(), device.clone(), &plan).unwrap_or_else(|e| panic!("{e}"));
            for token in 3..8 {
                decode(&mut session, token);
            }
            let used = free - cuda.free_bytes().unwrap();
            let planned = plan.bytes_in(Place::Device);
            // Where memory is shared the driver counts what is pinned too: logits, candidates, tokens.
            let pinned = if cuda.info().is_integrated { 4 * 5 * 320 + 1024 } else { 0 };
            assert!((planned..=planned + pinned).contains(&used), "{} {name}: {used}\n{plan}", device.describe());
            drop(session);
            a_batch_takes_what_its_plan_says(&device, &model, weights, free);
        }
        for name in ["tiny-gemma3/tiny-gemma3-q8_0.gguf", "tiny-qwen2-tied"] {
            check_training(&device, name, None, "all");
        }
        check_training(&device, "tiny-gemma3/tiny-gemma3-q8_0.gguf", None, "4,6");
        for format in [Format::BF16, Format::F32] {
            check_training(&device, "tiny-qwen2-tied", Some(format), "all");
        }
    }
}

/// A network takes what its bill says, to the byte.
fn check_training(device: &Arc<Device>, name: &str, full_format: Option<Format>, layers: &str) {
    let Device::Cuda(cuda) = &**device else { panic!("not a CUDA device") };
    let source = ModelSource::open(&fixture(name)).unwrap_or_else(|e| panic!("{e}"));
    let config = source.config().clone();
    let layers = Layers::parse(layers).expect("layers");
    let (mode, rank, files) = match full_format {
        None => (Mode::Lora(Lora::new(&config, [true; 7], &layers, 4, 8.0)), 4, device.clone()),
        Some(format) => (Mode::Full(Full::new(&config), format), 0, Arc::new(Device::cpu(1).expect("a thread"))),
    };
    let size = JobSize {
        n_parameters: mode.n_parameters(),
        first_layer: mode.first_layer(),
        full_format,
        batch: 3,
        max_seq: 40,
        rank,
        has_dropout: true,
        regression_prompts: HostAndGpu::default(),
    };
    let machine = Machine::of(device).unwrap_or_else(|e| panic!("{e}"));
    let weights = match full_format {
        None => Model::planned_gpu_bytes(&source).unwrap_or_else(|e| panic!("{e}")).0,
        Some(_) => 0,
    };
    let bytes = ModelBytes { device: weights, ..ModelBytes::default() };
    let plan = TrainPlan::new(&config, bytes, &size, &machine, Recompute::On, None);
    let free = cuda.free_bytes().unwrap();
    let model = Arc::new(Model::load(&source, &files).unwrap_or_else(|e| panic!("{e}")));
    let settings = AdamWSettings { beta1: 0.9, beta2: 0.999, eps: 1e-8, weight_decay: 0.0, clip: None };
    let mut network =
        Network::new(device.clone(), model, mode, settings, &plan.rows, 3).unwrap_or_else(|e| panic!("{e}"));
    let ids: Vec<u32> = (3..41).collect();
    let sample = Sample { labels: ids.iter().map(|id| *id as i32).collect(), ids, line: 1 };
    let dropout = Dropout { share: 0.1, seed: 0, step: 1, micro_batch: 0 };
    let samples = [sample.clone(), sample.clone(), sample];
    let report =
        network.step(&samples, 1e-3, full_format.is_none().then_some(dropout)).unwrap_or_else(|e| panic!("{e}"));
    assert_eq!(report.skipped, None);
    let used = free - cuda.free_bytes().unwrap();
    let planned = plan.bytes_in(&[Place::Device]);
    // Where memory is shared the driver counts what is pinned too; the upload buffer is gone.
    let pinned = if cuda.info().is_integrated { plan.bytes_in(&[Place::Pinned]) } else { 0 };
    let case = format!("{} {name} {full_format:?}", device.describe());
    assert!((planned..=planned + pinned).contains(&used), "{case}: {used}\n{plan}");
}

fn a_batch_takes_what_its_plan_says(device: &Arc<Device>, model: &Arc<Model>, weights: usize, free: usize) {
    let Device::Cuda(cuda) = &**device else { panic!("not a CUDA device") };
    let bytes = ModelBytes { device: weights, ..ModelBytes::default() };
    let batch = BatchLimits { n_slots: 5, n_contexts: 3 };
    let plan = MemoryPlan::on(device, &model.config, bytes, limits(1), Some(batch));
    let (model, device) = (model.clone(), device.clone());
    let mut batch = Engine::new(Arc::new(LoadedModel::of(model, device.clone(), plan.clone()))).unwrap();
    for _ in 0..5 {
        let (max_new_tokens, sampling) = (Some(6), SamplingOverrides::greedy());
        batch.submit(Request { max_new_tokens, sampling, ..Request::tokens(vec![3, 1, 4, 15]) }).unwrap();
    }
    while batch.step(&mut |_| {}).unwrap() {}
    let (used, planned) = (free - cuda.free_bytes().unwrap(), plan.bytes_in(Place::Device));
    // Pinned: logits and candidates of eight rows, and the rows themselves.
    let pinned = if cuda.info().is_integrated { 8 * (4 * 320 + 8 * 64) + 1024 } else { 0 };
    assert!((planned..=planned + pinned).contains(&used), "{} batch: {used}\n{plan}", device.describe());
}
