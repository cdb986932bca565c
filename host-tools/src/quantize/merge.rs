//! An adapter on its way into the weights: `W + scale * B A`, row by row.

use std::cell::RefCell;
use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use lichen_kernels::Matrix;
use lichen_runtime::engine::AdapterPath;
use lichen_runtime::files::adapter_file::{AdapterFile, AdapterTarget, BaseCheck, Tables};
use lichen_runtime::loader::open_tokenizer;
use lichen_runtime::model::adapter::TARGETS;
use lichen_runtime::setting::{ALLOW_OTHER_BASE, MODEL};
use lichen_runtime::{Error, ModelConfig, ModelSource, Part, Result};

use super::report::MergeReport;

/// An adapter that fits the model.
pub struct Merge {
    path: PathBuf,
    /// What was asked for, beside the adapter's own scales.
    scale: f32,
    base_name: Option<String>,
    /// What there is to say of the base it was made for.
    about_base: Option<String>,
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
    /// The adapter cannot be read, does not fit the model, or was made for another one and that is not allowed.
    pub fn open(adapter: &AdapterPath, source: &ModelSource, allow_other_base: bool) -> Result<Merge> {
        let file = AdapterFile::open(&adapter.path, source.config())?;
        let about_base = check_base(&file, source, allow_other_base).map_err(|e| e.in_file(&adapter.path))?;
        let pairs = file.targets.into_iter().map(|target| ((target.part, target.layer), target)).collect();
        let (path, scale) = (adapter.path.clone(), adapter.scale);
        let (base_name, tables) = (file.base_name, file.tables);
        Ok(Merge { path, scale, base_name, about_base, pairs, tables, merged: RefCell::default() })
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
        let mut notes: Vec<String> = self.about_base.iter().cloned().collect();
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

/// What there is to say where the adapter was made for another file than the model.
fn check_base(file: &AdapterFile, source: &ModelSource, allow_other_base: bool) -> Result<Option<String>> {
    match file.base.check(source, || open_tokenizer(source).map(|t| t.map(Arc::new)))? {
        BaseCheck::Fits => Ok(None),
        BaseCheck::OtherFormat => Ok(Some("the adapter was made for this model in another format".to_string())),
        BaseCheck::OtherFile => {
            Ok(Some("the adapter was made for another file; whether of this model is not recorded".to_string()))
        }
        BaseCheck::OtherModel(why) if allow_other_base => {
            Ok(Some(format!("the adapter was made for another model: {why}")))
        }
        BaseCheck::OtherModel(why) => Err(Error::input(format!(
            "the adapter was made for another model than {MODEL} ({why}): {ALLOW_OTHER_BASE} merges it nevertheless"
        ))),
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
