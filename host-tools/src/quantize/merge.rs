//! An adapter on its way into the weights: `W + scale * B A`, row by row.

use std::cell::RefCell;
use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};

use lichen_kernels::Matrix;
use lichen_runtime::engine::AdapterPath;
use lichen_runtime::files::adapter_file::{AdapterFile, AdapterTarget, Tables};
use lichen_runtime::model::adapter::TARGETS;
use lichen_runtime::{ModelConfig, ModelSource, Part, Result};

use super::report::MergeReport;

/// An adapter that fits the model.
pub struct Merge {
    path: PathBuf,
    /// What was asked for, beside the adapter's own scales.
    scale: f32,
    base_name: Option<String>,
    pairs: HashMap<(Part, usize), AdapterTarget>,
    /// In place of the base's.
    tables: Tables,
    /// Pairs that were added to something.
    merged: RefCell<HashSet<(Part, usize)>>,
}

/// One matrix's part of it.
pub struct MergePair<'a> {
    target: &'a AdapterTarget,
    scale: f32,
}

impl Merge {
    /// # Errors
    /// The adapter cannot be read, or does not fit the model.
    pub fn open(adapter: &AdapterPath, source: &ModelSource) -> Result<Merge> {
        let file = AdapterFile::open(&adapter.path, source.config())?;
        let pairs = file.targets.into_iter().map(|target| ((target.part, target.layer), target)).collect();
        let (path, scale) = (adapter.path.clone(), adapter.scale);
        let (base_name, tables) = (file.base_name, file.tables);
        Ok(Merge { path, scale, base_name, pairs, tables, merged: RefCell::default() })
    }

    /// A whole matrix that stands in place of the base's.
    pub fn table(&self, part: Part) -> Option<&Matrix> {
        match part {
            Part::TokenEmbedding => self.tables.embedding.as_ref(),
            Part::Output => self.tables.head.as_ref(),
            _ => None,
        }
    }

    /// Whether a base whose head is its embedding has two tables afterwards.
    pub fn unties(&self, config: &ModelConfig) -> bool {
        let is_shared =
            self.tables.embedding.is_some() && self.tables.head.is_some() && self.tables.each().count() == 1;
        config.tied_head && !self.tables.is_empty() && !is_shared
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What is to be added to a matrix; asking for it counts as adding it.
    pub fn pair(&self, part: Part, layer: usize) -> Option<MergePair<'_>> {
        let target = self.pairs.get(&(part, layer))?;
        self.merged.borrow_mut().insert((part, layer));
        Some(MergePair { target, scale: target.scale * self.scale })
    }

    pub fn report(&self) -> MergeReport {
        MergeReport {
            adapter: self.path.clone(),
            scale: self.scale,
            matrices_merged: self.merged.borrow().len(),
            matrices: self.pairs.len(),
            base_name: self.base_name.clone(),
        }
    }

    /// What a person should know.
    pub fn notes(&self, source: &ModelSource) -> Result<Vec<String>> {
        let mut notes = Vec::new();
        for (name, part) in [("embedding", Part::TokenEmbedding), ("head", Part::Output)] {
            if self.table(part).is_some() {
                notes.push(format!("the {name} is the adapter's own, not the base's"));
            }
        }
        if self.unties(source.config()) {
            notes.push("the head is written beside the embedding, which it was in the base".to_string());
        }
        let mut n_quantised = 0;
        for layer in 0..source.config().n_layers {
            for part in TARGETS {
                let is_float = source.plain_format(part, Some(layer))?.is_some_and(|format| format.is_float());
                n_quantised += usize::from(!is_float && self.pairs.contains_key(&(part, layer)));
            }
        }
        // A base that is rounded already is rounded a second time.
        if n_quantised > 0 {
            notes.push(format!(
                "{n_quantised} of these matrices are quantised in the base: they were decoded, added to and rounded \
                 again; the model in f16, bf16 or f32 as the base loses less"
            ));
        }
        Ok(notes)
    }
}

impl MergePair<'_> {
    /// Adds to `values` (rows, inputs), whose first row is `first_row` of the matrix. The products of a row are summed by
    /// rank in f32 before they meet the weight.
    pub fn add_to(&self, values: &mut [f32], first_row: usize) {
        let AdapterTarget { rank, a, b, .. } = self.target;
        let cols = a.len() / rank;
        let mut delta = vec![0.0; cols];
        for (row, b) in values.chunks_exact_mut(cols).zip(b[first_row * rank..].chunks_exact(*rank)) {
            delta.fill(0.0);
            for (b, a) in b.iter().zip(a.chunks_exact(cols)) {
                let factor = b * self.scale;
                delta.iter_mut().zip(a).for_each(|(d, a)| *d += factor * a);
            }
            row.iter_mut().zip(&delta).for_each(|(w, d)| *w += d);
        }
    }
}
