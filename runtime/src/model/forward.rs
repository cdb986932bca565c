//! One forward pass over rows of tokens, for a session and for a batch alike.

use std::ops::Range;

use lichen_kernels::ops::attention::{KvStore, PageTable};
use lichen_kernels::ops::embedding;
use lichen_kernels::ops::matmul::{self, Family, Input, Product};
use lichen_kernels::ops::rmsnorm::Normed;
use lichen_kernels::ops::rope::{RopeScaling, RopeTable};
use lichen_kernels::{Device, DeviceError, Matrix, Step, ViewMut};

use crate::limits::Limits;
use crate::model::adapter::AdapterRows;
use crate::model::block::{Activations, BlockContext};
use crate::model::local_global::LocalGlobal;
use crate::model::Model;
use crate::model_config::ModelConfig;

/// The rotations of local and global layers.
pub(crate) type Ropes = LocalGlobal<RopeTable>;

impl Ropes {
    /// # Errors: the device has no room.
    pub fn new(device: &Device, config: &ModelConfig, limits: &Limits) -> Result<Ropes, DeviceError> {
        let table = |theta, scaling| RopeTable::new(device, limits.context, config.head_dim, theta, scaling);
        let global = table(config.rope_theta, config.rope_scaling)?;
        Ok(Ropes { global, local: table(config.rope_theta_local, RopeScaling::NONE)? })
    }
}

/// What a pass reads.
pub(crate) struct Forward<'a> {
    pub device: &'a Device,
    pub model: &'a Model,
    /// Which rows have an adapter; none for those of the model alone.
    pub adapters: &'a [AdapterRows],
    pub ropes: &'a Ropes,
    /// Where a batch has its keys and values; `None` for a session's rings.
    pub pages: Option<&'a LocalGlobal<PageTable>>,
    /// The kernels of the products.
    pub family: Family,
    pub step: &'a Step,
}

impl Forward<'_> {
    /// Runs the rows through every block; the result stays in the residual stream. `caches` holds a store a layer.
    pub fn blocks(&self, a: &mut Activations, caches: &mut [KvStore]) {
        let (model, config) = (self.model, &self.model.config);
        self.step.send();
        self.embed(a.residual.start(self.step.n_rows()));
        for (i, (weights, cache)) in model.layers.iter().zip(caches).enumerate() {
            let is_global = config.is_global[i];
            let before = i.checked_sub(1).and_then(|i| model.layers[i].post_ffn_norm.as_ref());
            let context = BlockContext {
                device: self.device,
                config,
                adapters: self.adapters,
                layer: i,
                rope: self.ropes.of(is_global),
                pages: self.pages.map(|pages| pages.of(is_global)),
                window: if is_global { usize::MAX } else { config.sliding_window.unwrap_or(usize::MAX) },
                family: self.family,
                step: self.step,
                pending_norm: before.map(|b| b.all()),
            };
            context.forward(weights, a, cache);
        }
    }

    /// The rows' tokens, each looked up in its adapter's table where that has one.
    fn embed(&self, mut x: ViewMut<'_, f32, 2>) {
        let (table, scale) = (&self.model.embedding, self.model.config.embedding_scale);
        embedding::forward(self.device, x.reborrow(), table, self.step, scale);
        for group in self.adapters {
            if let Some(table) = group.adapter.embedding() {
                embedding::forward_rows(self.device, x.reborrow(), table, self.step, group.rows.clone(), scale);
            }
        }
    }

    /// Logits of `rows` of the pass, (rows, vocab_size): each row's by its adapter's head where that has one.
    pub fn logits(&self, a: &mut Activations, rows: Range<usize>, mut out: ViewMut<'_, f32, 2>) {
        let mut next = rows.start;
        let mut project = |part: Range<usize>, head: &Matrix| {
            if !part.is_empty() {
                let out = out.reborrow().into_rows(part.start - rows.start..part.end - rows.start);
                self.project(a, part, head, out);
            }
        };
        for group in self.adapters {
            let Some(head) = group.adapter.head() else { continue };
            let part = group.rows.start.max(next)..group.rows.end.min(rows.end);
            if part.is_empty() {
                continue;
            }
            project(next..part.start, &self.model.head);
            next = part.end;
            project(part, head);
        }
        project(next..rows.end, &self.model.head);
    }

    /// Logits of rows of one head.
    fn project(&self, a: &mut Activations, rows: Range<usize>, head: &Matrix, out: ViewMut<'_, f32, 2>) {
        let (model, config) = (self.model, &self.model.config);
        let post_norm = model.layers.last().and_then(|l| l.post_ffn_norm.as_ref()).map(|b| b.all());
        let input = Input::Normed(Normed {
            residual: &mut a.residual,
            post_norm,
            weight: model.output_norm.all(),
            eps: config.rms_eps,
            h: a.h.view_mut([rows.len(), config.dim]),
            rows,
        });
        let products = &mut [Product { out, weights: head, bias: None }];
        matmul::forward(self.device, self.family, products, input, &mut a.matmul);
    }
}
