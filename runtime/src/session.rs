//! A session owns everything that changes: the KV cache, the activations, the tokens so far.

use std::ops::{ControlFlow, Range};
use std::sync::Arc;

use lichen_kernels::ops::matmul::{self, Product};
use lichen_kernels::ops::rope::RopeTable;
use lichen_kernels::ops::{embedding, rmsnorm};
use lichen_kernels::{Buffer, Device};

use crate::adapter::Adapter;
use crate::block::{Activations, BlockContext};
use crate::error::{Error, Result};
use crate::kv_cache::KvCache;
use crate::memory_plan::{Limits, MemoryPlan};
use crate::model::Model;

/// One conversation with a model. Sessions of one model share its weights and, through the device, its threads.
///
/// Nothing is allocated after [`Session::new`] by prefill and decode.
pub struct Session {
    model: Arc<Model>,
    device: Arc<Device>,
    limits: Limits,
    activations: Activations,
    cache: KvCache,
    rope_global: RopeTable,
    rope_local: RopeTable,
    adapter: Option<Arc<Adapter>>,
    /// Tokens whose keys and values the cache holds.
    tokens: Vec<u32>,
    /// (logit_rows, vocab_size).
    logits: Buffer<f32>,
}

impl Session {
    /// Allocates what the plan says. Check the plan against a budget first ([`MemoryPlan::check`]).
    pub fn new(model: Arc<Model>, device: Arc<Device>, plan: &MemoryPlan) -> Session {
        let (config, limits) = (&model.config, plan.limits);
        assert!(limits.context > 0 && limits.chunk > 0 && limits.logit_rows > 0);
        let rope = |theta, scale| RopeTable::new(limits.context, config.head_dim, theta, scale);
        Session {
            limits,
            activations: Activations::new(config, &limits),
            cache: KvCache::new(config, limits.kv_format, limits.context, limits.chunk),
            rope_global: rope(config.rope_theta, config.rope_scale),
            rope_local: rope(config.rope_theta_local, 1.0),
            adapter: None,
            tokens: Vec::with_capacity(limits.context),
            logits: Buffer::new(limits.logit_rows * config.vocab_size),
            model,
            device,
        }
    }

    pub fn model(&self) -> &Arc<Model> {
        &self.model
    }

    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    pub fn adapter(&self) -> Option<&Arc<Adapter>> {
        self.adapter.as_ref()
    }

    /// Tokens the cache holds, in order.
    pub fn tokens(&self) -> &[u32] {
        &self.tokens
    }

    /// Positions left before the context is full.
    pub fn room(&self) -> usize {
        self.limits.context - self.tokens.len()
    }

    /// Forgets every token.
    pub fn reset(&mut self) {
        self.cache.rewind(0);
        self.tokens.clear();
    }

    /// Applies another adapter, or none. What was computed with the old one is forgotten: its keys and values are not
    /// the new one's.
    pub fn set_adapter(&mut self, adapter: Option<Arc<Adapter>>) {
        if let Some(rank) = adapter.as_ref().map(|a| a.max_rank()).filter(|r| *r > self.limits.max_rank) {
            self.limits.max_rank = rank;
            self.activations = Activations::new(&self.model.config, &self.limits);
        }
        self.adapter = adapter;
        self.reset();
    }

    /// Makes the session hold exactly `ids`, keeping the longest prefix it already holds, and leaves the logits of the
    /// last token. Returns how many tokens were kept. `go_on` is asked before each chunk; `Break` stops there.
    pub fn prompt(&mut self, ids: &[u32], go_on: &mut dyn FnMut() -> ControlFlow<()>) -> Result<usize> {
        if ids.is_empty() {
            return Err(Error::input("the prompt is empty: there is no token to start from"));
        }
        // The last token is computed again even when it is held: its logits are wanted.
        let common = self.tokens.iter().zip(ids).take_while(|(a, b)| a == b).count().min(ids.len() - 1);
        let kept = self.rewind(common);
        self.append(&ids[kept..], go_on)?;
        Ok(kept)
    }

    /// Adds tokens after those held and leaves the logits of the last one. Stopped by `go_on`, it holds a prefix of them.
    pub fn append(&mut self, ids: &[u32], go_on: &mut dyn FnMut() -> ControlFlow<()>) -> Result<()> {
        self.check(ids)?;
        let mut done = 0;
        for chunk in ids.chunks(self.limits.chunk) {
            if go_on().is_break() {
                return Ok(());
            }
            self.forward(chunk);
            done += chunk.len();
            if done == ids.len() {
                self.compute_logits(chunk.len() - 1, 1);
            }
        }
        Ok(())
    }

    /// One token more; returns its logits (vocab_size).
    pub fn decode(&mut self, token: u32) -> Result<&mut [f32]> {
        self.check(&[token])?;
        self.forward(&[token]);
        self.compute_logits(0, 1);
        Ok(self.last_logits())
    }

    /// Logits of the last token computed, free to be changed by a sampler.
    pub fn last_logits(&mut self) -> &mut [f32] {
        let n = self.model.config.vocab_size;
        &mut self.logits.host_mut()[..n]
    }

    /// Adds tokens and shows the logits of each, in order.
    pub fn evaluate(&mut self, ids: &[u32], each: &mut dyn FnMut(&[f32]) -> Result<()>) -> Result<()> {
        self.check(ids)?;
        let vocab_size = self.model.config.vocab_size;
        for chunk in ids.chunks(self.limits.chunk) {
            self.forward(chunk);
            for first in (0..chunk.len()).step_by(self.limits.logit_rows) {
                let n = self.limits.logit_rows.min(chunk.len() - first);
                self.compute_logits(first, n);
                self.logits.host()[..n * vocab_size].chunks_exact(vocab_size).try_for_each(&mut *each)?;
            }
        }
        Ok(())
    }

    /// Goes back to the first `n` tokens, or to none when a ring no longer holds what they would see. Returns how many
    /// are left.
    pub fn rewind(&mut self, n: usize) -> usize {
        let left = if n < self.tokens.len() { self.cache.rewind(n) } else { self.tokens.len() };
        self.tokens.truncate(left);
        left
    }

    pub(crate) fn cache(&self) -> &KvCache {
        &self.cache
    }

    /// Replaces the contents by restored ones, checked by the caller.
    pub(crate) fn restore(&mut self, tokens: &[u32], held: &[Range<usize>], bytes: &[&[u8]]) {
        self.reset();
        self.tokens.extend_from_slice(tokens);
        self.cache.restore(tokens.len(), held, bytes);
    }

    fn check(&self, ids: &[u32]) -> Result<()> {
        let vocab_size = self.model.config.vocab_size;
        if let Some(id) = ids.iter().find(|id| **id as usize >= vocab_size) {
            return Err(Error::input(format!("token {id} is outside the vocabulary of {vocab_size}")));
        }
        if ids.len() > self.room() {
            return Err(Error::limit(format!(
                "{} tokens more do not fit: {} of {} positions are in use (raise --context, the model allows {})",
                ids.len(),
                self.tokens.len(),
                self.limits.context,
                self.model.config.context_length
            )));
        }
        Ok(())
    }

    /// Runs one chunk through every block; the result stays in the residual stream.
    fn forward(&mut self, chunk: &[u32]) {
        let (model, config, device) = (&*self.model, &self.model.config, &*self.device);
        let (t, position) = (chunk.len(), self.tokens.len());
        let a = &mut self.activations;
        embedding::forward(device, a.x.view_mut([t, config.dim]), &model.embedding, chunk, config.embedding_scale);
        for (i, weights) in model.layers.iter().enumerate() {
            let is_global = config.is_global[i];
            let context = BlockContext {
                device,
                config,
                adapter: self.adapter.as_ref().map(|a| a.layer(i)),
                rope: if is_global { &self.rope_global } else { &self.rope_local },
                window: if is_global { usize::MAX } else { config.sliding_window.unwrap_or(usize::MAX) },
                first_position: position,
                n_rows: t,
            };
            context.forward(weights, a, self.cache.layer_mut(i));
        }
        self.cache.advance(t);
        self.tokens.extend_from_slice(chunk);
    }

    /// Logits of rows `first..first + n` of the last chunk.
    fn compute_logits(&mut self, first: usize, n: usize) {
        let config = &self.model.config;
        let a = &mut self.activations;
        let dim = config.dim;
        let rows = lichen_kernels::View::new(&a.x.host()[first * dim..(first + n) * dim], [n, dim]);
        rmsnorm::forward(&self.device, a.h.view_mut([n, dim]), rows, &self.model.output_norm, config.rms_eps);
        let out = self.logits.view_mut([n, config.vocab_size]);
        let products = &mut [Product { out, weights: &self.model.head, bias: None }];
        matmul::forward(&self.device, products, a.h.view([n, dim]), &mut a.matmul);
    }
}
