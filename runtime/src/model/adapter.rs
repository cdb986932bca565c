//! LoRA adapters at inference: low-rank pairs beside the frozen matrices, swapped at run time.

use std::ops::Range;
use std::sync::Arc;

use lichen_kernels::ops::lora::LoraPair;
use lichen_kernels::{Buffer, Device, Matrix};
use sha2::{Digest, Sha256};

use crate::error::Result;
use crate::files::adapter_file::{AdapterFile, Tables};
use crate::files::model_source::{Part, PartShape};
use crate::model::upload::Upload;
use crate::model_config::ModelConfig;

/// A matrix of a block that an adapter may stand beside.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TargetModule {
    Q,
    K,
    V,
    O,
    Gate,
    Up,
    Down,
}

impl TargetModule {
    /// All seven, in the order blocks use them.
    pub const ALL: [TargetModule; 7] = {
        use TargetModule::*;
        [Q, K, V, O, Gate, Up, Down]
    };

    /// Its place in [`TargetModule::ALL`].
    pub fn index(self) -> usize {
        self as usize
    }

    pub fn part(self) -> Part {
        TARGETS[self as usize]
    }
}

/// The parts of [`TargetModule::ALL`].
pub const TARGETS: [Part; 7] =
    [Part::AttnQ, Part::AttnK, Part::AttnV, Part::AttnOutput, Part::FfnGate, Part::FfnUp, Part::FfnDown];

/// An adapter ready to be applied.
pub struct Adapter {
    layers: Vec<LayerAdapter>,
    /// In place of the base's, on the device.
    tables: Tables,
    tables_bytes: usize,
    max_rank: usize,
    fingerprint: [u8; 32],
}

/// One block's pairs.
#[derive(Default)]
pub struct LayerAdapter {
    pairs: [Option<Pair>; 7],
}

struct Pair {
    /// (rank, inputs).
    a: Buffer<f32>,
    /// (outputs, rank).
    b: Buffer<f32>,
    rank: usize,
    scale: f32,
}

impl LayerAdapter {
    /// The pair beside a matrix, if there is one.
    pub fn pair(&self, target: TargetModule) -> Option<LoraPair<'_>> {
        let p = self.pairs[target.index()].as_ref()?;
        Some(LoraPair {
            a: p.a.view([p.rank, p.a.len() / p.rank]),
            b: p.b.view([p.b.len() / p.rank, p.rank]),
            scale: p.scale,
        })
    }
}

impl Adapter {
    /// Takes the pairs and tables of a file that was checked against this configuration; `strength` multiplies every scale.
    /// A table replaces the base's whatever the strength.
    ///
    /// # Errors
    /// The device has no room.
    pub fn new(file: AdapterFile, config: &ModelConfig, strength: f32, device: &Device) -> Result<Adapter> {
        let (max_rank, mut hash) = (file.max_rank(), Sha256::new());
        hash.update(file.fingerprint());
        hash.update(strength.to_le_bytes());
        let mut layers: Vec<LayerAdapter> = (0..config.n_layers).map(|_| LayerAdapter::default()).collect();
        for target in file.targets {
            let i = TARGETS.iter().position(|part| *part == target.part).expect("the reader knows these seven alone");
            let (rank, scale) = (target.rank, target.scale * strength);
            let (a, b) = (Buffer::from_vec(device, target.a)?, Buffer::from_vec(device, target.b)?);
            layers[target.layer].pairs[i] = Some(Pair { a, b, rank, scale });
        }
        let tables_bytes = file.tables.size_bytes();
        let tables = on_device(file.tables, device)?;
        Ok(Adapter { layers, tables, tables_bytes, max_rank, fingerprint: hash.finalize().into() })
    }

    /// (vocab_size, dim), where the adapter brings its own.
    pub fn embedding(&self) -> Option<&Matrix> {
        self.tables.embedding.as_ref()
    }

    /// The same of the head.
    pub fn head(&self) -> Option<&Matrix> {
        self.tables.head.as_ref()
    }

    pub fn layer(&self, i: usize) -> &LayerAdapter {
        &self.layers[i]
    }

    /// Whether every pair fits its matrix in a model of this shape.
    pub fn fits(&self, config: &ModelConfig) -> bool {
        let fits = |layer: &LayerAdapter| {
            TargetModule::ALL.into_iter().all(|target| match (layer.pair(target), target.part().shape(config)) {
                (Some(pair), PartShape::Matrix(outputs, inputs)) => {
                    pair.a.shape()[1] == inputs && pair.b.shape()[0] == outputs
                }
                (pair, _) => pair.is_none(),
            })
        };
        let mut tables = self.tables.embedding.iter().chain(&self.tables.head);
        let has_vocabulary = tables.all(|table| (table.rows(), table.cols()) == (config.vocab_size, config.dim));
        has_vocabulary && self.layers.len() == config.n_layers && self.layers.iter().all(fits)
    }

    /// The largest rank of any pair: what the session's scratch must hold.
    pub fn max_rank(&self) -> usize {
        self.max_rank
    }

    /// SHA-256 over its tensors and scales: part of the key of everything computed with it.
    pub fn fingerprint(&self) -> [u8; 32] {
        self.fingerprint
    }

    /// Bytes of its own embedding and head.
    pub fn tables_bytes(&self) -> usize {
        self.tables_bytes
    }

    /// Bytes of its matrices.
    pub fn size_bytes(&self) -> usize {
        let pairs = self.layers.iter().flat_map(|l| l.pairs.iter().flatten());
        pairs.map(|p| 4 * (p.a.len() + p.b.len())).sum::<usize>() + self.tables_bytes
    }
}

/// Tables where the device wants them, one that is both once.
fn on_device(tables: Tables, device: &Device) -> Result<Tables> {
    if matches!(device, Device::Cpu(_)) || tables.is_empty() {
        return Ok(tables);
    }
    let mut upload = Upload::new(device)?;
    let is_shared = tables.each().count() == 1 && tables.embedding.is_some() && tables.head.is_some();
    let mut place = |table: Option<Matrix>| table.map(|m| upload.matrix(m, &|_| {})).transpose();
    let embedding = place(tables.embedding)?;
    let head = if is_shared { embedding.clone() } else { place(tables.head)? };
    Ok(Tables { embedding, head })
}

/// Rows of a pass that one adapter is applied to. A pass may hold rows of several: they are ordered by adapter, and each group
/// gets one low-rank product.
#[derive(Clone)]
pub struct AdapterRows {
    pub rows: Range<usize>,
    pub adapter: Arc<Adapter>,
}
