//! The trainable pairs of a LoRA adapter in one flat vector, so that one pass clips, updates and saves them all.
//! Hu et al. 2021, arXiv 2106.09685.

use lichen_kernels::ops::dropout::Key;
use lichen_kernels::ops::lora::backward::LoraGradients;
use lichen_kernels::ops::lora::LoraPair;
use lichen_kernels::{Buffer, ViewMut};
use lichen_runtime::files::adapter_file::{AdapterFile, AdapterTarget};
use lichen_runtime::files::model_source::PartShape;
use lichen_runtime::model::adapter::TARGETS;
use lichen_runtime::{Error, ModelConfig, Result};

use crate::layers::Layers;
use crate::setting::{ALPHA, LAYERS, RANK, TARGETS as TARGETS_SETTING};

/// Which of [`TARGETS`] are adapted.
pub type Targets = [bool; TARGETS.len()];

/// Where the pair of one matrix lies in the flat vector: A (rank, inputs), then B (outputs, rank).
#[derive(Clone, Copy, Debug)]
struct PairPlace {
    start: usize,
    inputs: usize,
    outputs: usize,
}

/// The layout of an adapter.
#[derive(Clone, Debug)]
pub struct Lora {
    pub rank: usize,
    pub alpha: f32,
    pub targets: Targets,
    layers: Vec<[Option<PairPlace>; TARGETS.len()]>,
    n_parameters: usize,
}

impl Lora {
    /// Pairs beside these targets of these layers.
    pub fn new(config: &ModelConfig, targets: Targets, layers: &Layers, rank: usize, alpha: f32) -> Lora {
        let mut n_parameters = 0;
        let mut place = |i: usize| {
            let PartShape::Matrix(outputs, inputs) = TARGETS[i].shape(config) else {
                unreachable!("targets are matrices")
            };
            let start = n_parameters;
            n_parameters += rank * (inputs + outputs);
            PairPlace { start, inputs, outputs }
        };
        let mut of_layer = |layer| std::array::from_fn(|i| (targets[i] && layers.contains(layer)).then(|| place(i)));
        let layers = (0..config.n_layers).map(&mut of_layer).collect();
        Lora { rank, alpha, targets, layers, n_parameters }
    }

    pub fn n_parameters(&self) -> usize {
        self.n_parameters
    }

    pub fn n_layers(&self) -> usize {
        self.layers.len()
    }

    /// The first layer with a pair: no gradient is needed before it.
    pub fn first_layer(&self) -> usize {
        self.layers.iter().position(|pairs| pairs.iter().any(Option::is_some)).unwrap_or(0)
    }

    /// alpha / rank.
    pub fn scale(&self) -> f32 {
        self.alpha / self.rank as f32
    }

    /// Matrices that are adapted.
    pub fn n_pairs(&self) -> usize {
        self.layers.iter().flatten().flatten().count()
    }

    /// PEFT's start: A uniform in +-1 / sqrt(inputs), B zero. A function of the seed and the place.
    pub fn initialise(&self, values: &mut [f32], seed: u64) {
        assert_eq!(values.len(), self.n_parameters);
        values.fill(0.0);
        for (layer, i, place) in self.places() {
            let bound = 1.0 / (place.inputs as f32).sqrt();
            let mut random = Key::new(&[seed, 0x4c6f_5241, layer as u64, i as u64]).numbers();
            for v in &mut values[place.start..place.start + self.rank * place.inputs] {
                // 24 bits, so that every value is exact.
                *v = ((random.next().unwrap_or_default() >> 40) as f32 / (1u64 << 23) as f32 - 1.0) * bound;
            }
        }
    }

    /// Takes the values of a file made for this layout.
    ///
    /// # Errors
    /// Another rank, scale or set of matrices; whole matrices, which are not trained.
    pub fn load(&self, values: &mut [f32], file: &AdapterFile) -> Result<()> {
        if !file.tables.is_empty() {
            return Err(Error::input(
                "the adapter brings its own embedding or head (modules_to_save), which are not trained: merge it into the \
                 model and train on that",
            ));
        }
        for target in &file.targets {
            let i = TARGETS.iter().position(|part| *part == target.part).expect("the reader knows these seven alone");
            let place = self.layers[target.layer][i];
            let place = place.filter(|_| target.rank == self.rank && same_scale(target.scale, self.scale()));
            let Some(place) = place else {
                return Err(Error::input(format!(
                    "the adapter has rank {} and scale {} for {:?} of layer {}; this job has rank {}, scale {} and other \
                     targets or layers, or the same ({RANK}, {ALPHA}, {TARGETS_SETTING}, {LAYERS})",
                    target.rank,
                    target.scale,
                    target.part,
                    target.layer,
                    self.rank,
                    self.scale()
                )));
            };
            let (a, b) = self.ranges(place);
            values[a].copy_from_slice(&target.a);
            values[b].copy_from_slice(&target.b);
        }
        match file.targets.len() == self.n_pairs() {
            true => Ok(()),
            false => Err(Error::input(format!(
                "the adapter holds {} pairs; this job trains {} ({TARGETS_SETTING}, {LAYERS})",
                file.targets.len(),
                self.n_pairs()
            ))),
        }
    }

    /// The adapter as a file would hold it.
    pub fn to_file(&self, values: &[f32]) -> AdapterFile {
        let target = |(layer, i, place): (usize, usize, PairPlace)| {
            let (a, b) = self.ranges(place);
            let (a, b) = (values[a].to_vec(), values[b].to_vec());
            AdapterTarget { part: TARGETS[i], layer, rank: self.rank, scale: self.scale(), a, b }
        };
        AdapterFile::of(self.places().map(target).collect())
    }

    /// (layer, index in [`TARGETS`], A, B) of every pair, in the order of the flat vector.
    pub fn pairs<'a>(&'a self, values: &'a [f32]) -> impl Iterator<Item = (usize, usize, &'a [f32], &'a [f32])> + 'a {
        self.places().map(move |(layer, i, place)| {
            let (a, b) = self.ranges(place);
            (layer, i, &values[a], &values[b])
        })
    }

    /// The pair beside matrix `i` of a layer.
    pub fn pair<'a>(&self, values: &'a Buffer<f32>, layer: usize, i: usize) -> Option<LoraPair<'a>> {
        let place = self.layers[layer][i]?;
        Some(LoraPair {
            a: values.part(place.start, [self.rank, place.inputs]),
            b: values.part(place.start + self.rank * place.inputs, [place.outputs, self.rank]),
            scale: self.scale(),
        })
    }

    /// Where its gradients are added up.
    pub fn gradients<'a>(&self, gradients: &'a mut Buffer<f32>, layer: usize, i: usize) -> Option<LoraGradients<'a>> {
        let PairPlace { start, inputs, outputs } = self.layers[layer][i]?;
        let both = gradients.part_mut(start, [self.rank * (inputs + outputs)]);
        let (da, db): (ViewMut<'a, f32, 1>, _) = both.split_at(self.rank * inputs);
        Some(LoraGradients { da: da.reshape([self.rank, inputs]), db: db.reshape([outputs, self.rank]) })
    }

    /// `layer 3 AttnQ lora_A` for the parameter at `index`, for messages.
    pub fn name_of(&self, index: usize) -> String {
        let holds = |place: &PairPlace| {
            (place.start..place.start + self.rank * (place.inputs + place.outputs)).contains(&index)
        };
        match self.places().find(|(_, _, place)| holds(place)) {
            Some((layer, i, place)) => {
                let half = if index < place.start + self.rank * place.inputs { "lora_A" } else { "lora_B" };
                format!("layer {layer} {:?} {half}", TARGETS[i])
            }
            None => format!("parameter {index}"),
        }
    }

    fn places(&self) -> impl Iterator<Item = (usize, usize, PairPlace)> + '_ {
        let layers = self.layers.iter().enumerate();
        layers.flat_map(|(layer, places)| {
            places.iter().enumerate().filter_map(move |(i, place)| Some((layer, i, (*place)?)))
        })
    }

    fn ranges(&self, place: PairPlace) -> (std::ops::Range<usize>, std::ops::Range<usize>) {
        let middle = place.start + self.rank * place.inputs;
        (place.start..middle, middle..middle + self.rank * place.outputs)
    }
}

fn same_scale(a: f32, b: f32) -> bool {
    (a - b).abs() <= 1e-6 * b.abs()
}
