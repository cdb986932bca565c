//! After the first, an optimiser step takes nothing from the heap.

use std::sync::Arc;

use lichen_kernels::{Device, Format};
use lichen_runtime::model::Model;
use lichen_runtime::ModelSource;
use lichen_tests::heap::measure;
use lichen_tests::models::fixture;
use lichen_trainer::activations::ActivationSizes;
use lichen_trainer::data::{Dataset, Sample};
use lichen_trainer::forward::Dropout;
use lichen_trainer::full::Full;
use lichen_trainer::layers::Layers;
use lichen_trainer::lora::Lora;
use lichen_trainer::machine::LOSS_ROWS;
use lichen_trainer::network::{Mode, Network};
use lichen_trainer::optimizer::AdamWSettings;

use crate::library::job;
use crate::support::MODELS;

const SETTINGS: AdamWSettings =
    AdamWSettings { beta1: 0.9, beta2: 0.999, eps: 1e-8, weight_decay: 0.1, clip: Some(1.0) };

/// What a network trains, and how.
#[derive(Clone, Copy, Debug)]
struct Case {
    /// The format of all weights in full training; `None` for an adapter.
    full: Option<Format>,
    has_dropout: bool,
    /// Of the last layers; the others are recomputed.
    kept_layers: usize,
}

const CASES: [Case; 5] = [
    Case { full: None, has_dropout: false, kept_layers: usize::MAX },
    Case { full: None, has_dropout: true, kept_layers: 1 },
    Case { full: None, has_dropout: true, kept_layers: 0 },
    Case { full: Some(Format::F32), has_dropout: false, kept_layers: usize::MAX },
    Case { full: Some(Format::BF16), has_dropout: false, kept_layers: 0 },
];

fn network(path: &str, n_threads: usize, case: Case) -> Network {
    let source = ModelSource::open(&fixture(path)).unwrap_or_else(|e| panic!("{e}"));
    let device = Arc::new(Device::cpu(n_threads).expect("threads"));
    let model = Arc::new(Model::load(&source, &device).unwrap_or_else(|e| panic!("{e}")));
    let rank = if case.full.is_some() { 0 } else { 4 };
    let rows = ActivationSizes {
        rows: 80,
        longest: 40,
        rank,
        has_dropout: case.has_dropout,
        trained_weights: case.full,
        loss_rows: LOSS_ROWS,
        kept_layers: case.kept_layers,
        first_layer: 0,
    };
    let mode = match case.full {
        None => Mode::Lora(Lora::new(&model.config, [true; 7], &Layers::default(), rank, 8.0)),
        Some(format) => Mode::Full(Full::new(&model.config), format),
    };
    let mut network = Network::new(device, model, mode, SETTINGS, &rows, 2).unwrap_or_else(|e| panic!("{e}"));
    if let Mode::Lora(lora) = network.mode() {
        let lora = lora.clone();
        network.set_values(|values| lora.initialise(values, 1)).unwrap_or_else(|e| panic!("{e}"));
    }
    network
}

fn samples(model: &str) -> Vec<Sample> {
    let job = job(model, 1);
    let data = Dataset::open(&job.data[0], None, 320, &job.data_options()).unwrap_or_else(|e| panic!("{e}"));
    (0..data.n_train()).map(|i| data.train(0, i).unwrap_or_else(|e| panic!("{e}"))).collect()
}

#[test]
fn a_step_allocates_nothing() {
    for model in MODELS {
        let samples = samples(model);
        // A quantised base is multiplied by other kernels; every weight is trained of float models alone.
        let quantised = format!("{model}/{model}-q8_0.gguf");
        let cases = CASES.iter().flat_map(|case| [(model, *case), (&quantised, *case)]);
        for (path, case) in cases.filter(|(path, case)| case.full.is_none() || *path == model) {
            for n_threads in [1, 2] {
                let mut network = network(path, n_threads, case);
                let mut step = |number| {
                    let dropout = Dropout { share: 0.1, seed: 0, step: number, micro_batch: 0 };
                    let report = network.step(&samples, 1e-3, case.has_dropout.then_some(dropout)).expect("a CPU");
                    assert!(report.skipped.is_none(), "{report:?}");
                };
                step(1);
                let ((), heap) = measure(|| (2..5).for_each(&mut step));
                assert_eq!(heap.n_allocations, 0, "{path}, {n_threads} threads, {case:?}: {heap:?}");
                let (loss, heap) = measure(|| network.evaluate(&samples[..2]).expect("a CPU"));
                assert!(
                    loss.is_finite() && heap.n_allocations == 0,
                    "{path}, {n_threads} threads, evaluating, {loss}: {heap:?}"
                );
            }
        }
    }
}
