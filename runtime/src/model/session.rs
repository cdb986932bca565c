//! A session owns everything that changes: the KV cache, the activations, the tokens so far.

use std::ops::{ControlFlow, Range};
use std::sync::Arc;

use lichen_kernels::ops::attention::KvStore;
use lichen_kernels::ops::matmul::Family;
use lichen_kernels::ops::sampling;
use lichen_kernels::{Device, Readback, Row, Step};

use crate::error::{Error, Result};
use crate::limits::Limits;
use crate::memory_plan::MemoryPlan;
use crate::model::adapter::{Adapter, AdapterRows};
use crate::model::block::Activations;
use crate::model::forward::{Forward, Ropes};
use crate::model::kv_cache::KvCache;
use crate::model::snapshot::{SequenceState, Snapshot};
use crate::model::step_graph::StepGraph;
use crate::model::Model;
use crate::setting::CONTEXT;

/// One conversation with a model. Sessions of one model share its weights and, through the device, its threads or stream.
///
/// Nothing is allocated after [`Session::new`] by prefill and decode.
pub struct Session {
    model: Arc<Model>,
    device: Arc<Device>,
    limits: Limits,
    activations: Activations,
    cache: KvCache,
    ropes: Ropes,
    adapter: Option<Arc<Adapter>>,
    /// The adapter, for all rows of the pass.
    adapters: Vec<AdapterRows>,
    /// Tokens whose keys and values the cache holds.
    tokens: Vec<u32>,
    /// Tokens of the rows of a prompt that are computed.
    chunk_tokens: Vec<u32>,
    /// The rows being computed.
    step: Step,
    /// (logit_rows, vocab_size).
    logits: Readback<f32>,
    /// The best candidates of the last token, on request.
    top: sampling::TopK,
    graph: StepGraph,
}

impl Session {
    /// Allocates what the plan says. Check the plan against a budget first ([`MemoryPlan::check`]).
    ///
    /// # Errors
    /// The device has no room.
    pub fn new(model: Arc<Model>, device: Arc<Device>, plan: &MemoryPlan) -> Result<Session> {
        match &*device.clone() {
            Device::Cpu(_) => Session::allocate(model, device, plan),
            Device::Cuda(cuda) => cuda.with_arena(plan.session_gpu_bytes(), || Session::allocate(model, device, plan)),
        }
    }

    fn allocate(model: Arc<Model>, device: Arc<Device>, plan: &MemoryPlan) -> Result<Session> {
        let (config, limits) = (&model.config, plan.limits);
        assert!(limits.context > 0 && limits.chunk > 0 && limits.logit_rows > 0);
        Ok(Session {
            limits,
            activations: Activations::new(&device, config, &limits)?,
            cache: KvCache::new(&device, config, limits.kv_format, limits.context, limits.chunk)?,
            ropes: Ropes::new(&device, config, &limits)?,
            adapter: None,
            adapters: Vec::with_capacity(1),
            tokens: Vec::with_capacity(limits.context),
            chunk_tokens: Vec::with_capacity(limits.chunk),
            step: Step::new(&device, limits.chunk)?,
            logits: Readback::new(&device, limits.logit_rows * config.vocab_size)?,
            top: sampling::TopK::new(&device, config.vocab_size, 1)?,
            graph: StepGraph::default(),
            model,
            device,
        })
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

    /// True when a GPU computes.
    pub fn has_gpu(&self) -> bool {
        matches!(*self.device, Device::Cuda(_))
    }

    /// Tokens the cache holds, in order.
    pub fn tokens(&self) -> &[u32] {
        &self.tokens
    }

    /// Positions left before the context is full.
    pub fn positions_left(&self) -> usize {
        self.limits.context - self.tokens.len()
    }

    /// Forgets every token.
    pub fn reset(&mut self) {
        self.cache.rewind(0);
        self.tokens.clear();
    }

    /// Applies another adapter, or none. What was computed with the old one is forgotten: its keys and values are not
    /// the new one's.
    ///
    /// # Errors
    /// The adapter's rank passes the one planned for, and the device has no room for more.
    pub fn set_adapter(&mut self, adapter: Option<Arc<Adapter>>) -> Result<()> {
        if let Some(adapter) = &adapter {
            self.activations.reserve_rank(&self.device, self.limits.chunk, adapter.max_rank())?;
            self.limits.max_rank = self.limits.max_rank.max(adapter.max_rank());
        }
        self.assume_adapter(adapter.as_ref());
        self.reset();
        Ok(())
    }

    /// Goes on with an adapter under which what is held was computed.
    pub(crate) fn assume_adapter(&mut self, adapter: Option<&Arc<Adapter>>) {
        // A recorded step holds the old one's addresses.
        self.graph = StepGraph::default();
        self.adapters.clear();
        self.adapters.extend(adapter.map(|adapter| AdapterRows { rows: 0..0, adapter: adapter.clone() }));
        self.adapter = adapter.cloned();
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
            done += chunk.len();
            self.compute(chunk, done == ids.len())?;
        }
        Ok(())
    }

    /// Adds one chunk of tokens, and on request leaves the logits of its last one.
    pub(crate) fn compute(&mut self, chunk: &[u32], wants_logits: bool) -> Result<()> {
        self.check(chunk)?;
        self.start(chunk)?;
        self.forward();
        if wants_logits {
            self.compute_logits(chunk.len() - 1, 1);
        }
        self.finish();
        Ok(())
    }

    /// One token more; its logits are there to be asked for.
    pub fn decode(&mut self, token: u32) -> Result<()> {
        self.check(&[token])?;
        self.start(&[token])?;
        let mut graph = std::mem::take(&mut self.graph);
        let device = self.device.clone();
        graph.run(&device, &mut || {
            self.forward();
            self.compute_logits(0, 1);
        })?;
        self.graph = graph;
        self.finish();
        Ok(())
    }

    /// Logits of the last token computed, (vocab_size), free to be changed by a sampler.
    ///
    /// # Errors
    /// What went wrong on the device.
    pub fn last_logits(&mut self) -> Result<&mut [f32]> {
        Ok(self.logits.fetch(self.model.config.vocab_size)?)
    }

    /// The most probable candidates of the last token computed and their logits, best first, at most
    /// [`sampling::MAX_TOP_K`]: found on the device, so that the logits need not be copied.
    ///
    /// # Errors
    /// What went wrong on the device.
    pub fn top_logits(&mut self, k: usize) -> Result<&[(u32, f32)]> {
        let logits = self.logits.view_mut([1, self.model.config.vocab_size]);
        self.top.find(&self.device, logits.as_view(), k)?;
        Ok(self.top.of_row(0))
    }

    /// Adds tokens and shows the logits of each, in order.
    pub fn evaluate(&mut self, ids: &[u32], each: &mut dyn FnMut(&[f32]) -> Result<()>) -> Result<()> {
        self.check(ids)?;
        let vocab_size = self.model.config.vocab_size;
        for chunk in ids.chunks(self.limits.chunk) {
            self.start(chunk)?;
            self.forward();
            for first in (0..chunk.len()).step_by(self.limits.logit_rows) {
                let n = self.limits.logit_rows.min(chunk.len() - first);
                self.compute_logits(first, n);
                let logits = self.logits.fetch(n * vocab_size)?;
                logits.chunks_exact(vocab_size).try_for_each(&mut *each)?;
            }
            self.finish();
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

    /// How many of the first `n` tokens [`Session::rewind`] would leave: all, or none.
    pub(crate) fn usable(&self, n: usize) -> usize {
        if n >= self.tokens.len() || self.cache.holds_before(n) {
            n
        } else {
            0
        }
    }

    /// [`Session::set_adapter`], unless it is the one applied.
    pub(crate) fn use_adapter(&mut self, adapter: Option<&Arc<Adapter>>) -> Result<()> {
        let fingerprint = |adapter: &Arc<Adapter>| adapter.fingerprint();
        if self.adapter.as_ref().map(fingerprint) != adapter.map(fingerprint) {
            self.set_adapter(adapter.cloned())?;
        }
        Ok(())
    }

    /// Makes room for an adapter of this rank.
    pub(crate) fn reserve_rank(&mut self, rank: usize) -> Result<()> {
        // A recorded step holds the address of the room there was.
        self.graph = StepGraph::default();
        self.limits.max_rank = self.limits.max_rank.max(rank);
        Ok(self.activations.reserve_rank(&self.device, self.limits.chunk, rank)?)
    }

    /// Adds rows of a prompt, at most a chunk of them, and waits for the device.
    pub(crate) fn prefill_rows(&mut self, rows: &[Row], wants_logits: bool) -> Result<()> {
        assert!(rows.first().is_none_or(|row| row.position as usize == self.tokens.len()));
        self.chunk_tokens.clear();
        self.chunk_tokens.extend(rows.iter().map(|row| row.token));
        let tokens = std::mem::take(&mut self.chunk_tokens);
        let computed = self.compute(&tokens, wants_logits);
        self.chunk_tokens = tokens;
        computed?;
        // So that the caller's clock has seen all of it.
        Ok(self.device.synchronize()?)
    }

    /// What [`Session::top_logits`] found.
    pub(crate) fn top_found(&mut self) -> &[(u32, f32)] {
        self.top.of_row(0)
    }

    /// What [`Session::last_logits`] brought to the host.
    pub(crate) fn fetched_logits(&mut self) -> &mut [f32] {
        let vocab_size = self.model.config.vocab_size;
        &mut self.logits.host_mut()[..vocab_size]
    }

    pub(crate) fn cache(&self) -> &KvCache {
        &self.cache
    }

    fn check(&self, ids: &[u32]) -> Result<()> {
        let vocab_size = self.model.config.vocab_size;
        if let Some(id) = ids.iter().find(|id| **id as usize >= vocab_size) {
            return Err(Error::input(format!("token {id} is outside the vocabulary of {vocab_size}")));
        }
        if ids.len() > self.positions_left() {
            return Err(Error::limit(format!(
                "{} tokens more do not fit: {} of {} positions are in use (raise {CONTEXT}, the model allows {})",
                ids.len(),
                self.tokens.len(),
                self.limits.context,
                self.model.config.context_length
            )));
        }
        Ok(())
    }

    /// Takes the rows of the next pass, once the device has finished the last one.
    fn start(&mut self, chunk: &[u32]) -> Result<()> {
        self.device.synchronize()?;
        self.step.set(self.tokens.len(), chunk);
        if let Some(group) = self.adapters.first_mut() {
            group.rows = 0..chunk.len();
        }
        Ok(())
    }

    /// The rows of this pass are part of the session.
    fn finish(&mut self) {
        self.cache.advance(self.step.n_rows());
        self.tokens.extend_from_slice(self.step.tokens());
    }

    /// Runs the rows through every block; the result stays in the residual stream.
    fn forward(&mut self) {
        let (forward, activations, cache, _) = self.parts();
        forward.blocks(activations, cache.layers_mut());
    }

    /// Logits of rows `first..first + n` of the last pass.
    fn compute_logits(&mut self, first: usize, n: usize) {
        let shape = [n, self.model.config.vocab_size];
        let (forward, activations, _, logits) = self.parts();
        forward.logits(activations, first..first + n, logits.view_mut(shape));
    }

    /// What a pass reads, and what it changes.
    fn parts(&mut self) -> (Forward<'_>, &mut Activations, &mut KvCache, &mut Readback<f32>) {
        let forward = Forward {
            device: &self.device,
            model: &self.model,
            adapters: &self.adapters,
            ropes: &self.ropes,
            pages: None,
            family: Family::ByRows,
            step: &self.step,
        };
        (forward, &mut self.activations, &mut self.cache, &mut self.logits)
    }
}

impl SequenceState for Session {
    fn model(&self) -> &Model {
        &self.model
    }

    fn limits(&self) -> &Limits {
        &self.limits
    }

    fn adapter(&self) -> Option<[u8; 32]> {
        self.adapter.as_ref().map(|a| a.fingerprint())
    }

    fn snapshot(&self) -> Result<Snapshot> {
        let layers = self.cache.layers();
        let held: Vec<Range<usize>> = (0..layers.len()).map(|i| self.cache.held(i)).collect();
        let save = |(layer, held): (&KvStore, &Range<usize>)| {
            let mut bytes = Vec::with_capacity(layer.saved_bytes(held.len()));
            layer.save(held, &mut bytes)?;
            Ok(bytes)
        };
        let planes = layers.iter().zip(&held).map(save).collect::<Result<_>>()?;
        Ok(Snapshot { tokens: self.tokens.clone(), held, planes })
    }

    fn can_hold(&self, i: usize, held: &Range<usize>, n: usize) -> bool {
        self.cache.can_hold(i, held, n)
    }

    fn n_kept(&self, i: usize, held: &Range<usize>) -> usize {
        self.cache.n_kept(i, held)
    }

    fn last_positions(&self, i: usize, bytes: &[u8], n_kept: usize) -> Vec<u8> {
        self.cache.layer(i).last_positions(bytes, n_kept)
    }

    fn saved_bytes(&self, i: usize, n_positions: usize) -> usize {
        self.cache.layer(i).saved_bytes(n_positions)
    }

    fn restore(&mut self, tokens: &[u32], held: &[Range<usize>], planes: &[&[u8]]) -> Result<()> {
        self.reset();
        self.cache.restore(tokens.len(), held, planes)?;
        self.tokens.extend_from_slice(tokens);
        Ok(())
    }
}
