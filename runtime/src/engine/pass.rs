//! What an engine of several slots computes with: activations, pools of pages, and the forward pass over rows of its slots.
//!
//! On a GPU a decode step always multiplies with the kernels of batches, whatever the number of rows, so that a sequence has
//! the same bits in any batch; a prompt's chunks take what their own length asks for, which is the same in any batch too.
//! Its rows are filled up to a bucket with padding rows, and the step is recorded once for each bucket.

use std::ops::Range;
use std::sync::Arc;

use lichen_kernels::ops::attention::{KvStore, PageTable, PAGE};
use lichen_kernels::ops::matmul::Family;
use lichen_kernels::ops::sampling::TopK;
use lichen_kernels::{Device, Readback, Row, Step, NO_SLOT};

use super::pages::PageIds;
use crate::error::Result;
use crate::limits::{bucket, table_entries, BatchLimits, BUCKETS, CHUNK_MAX, SLOTS_MAX};
use crate::memory_plan::MemoryPlan;
use crate::model::adapter::{Adapter, AdapterRows};
use crate::model::block::Activations;
use crate::model::forward::{Forward, Ropes};
use crate::model::local_global::LocalGlobal;
use crate::model::step_graph::StepGraph;
use crate::model::Model;

pub(super) struct Pass {
    pub model: Arc<Model>,
    device: Arc<Device>,
    /// The adapters of the pass, each with its rows.
    adapters: Vec<AdapterRows>,
    /// Rows of a pass at most.
    max_rows: usize,
    activations: Activations,
    /// One a layer.
    pools: Vec<KvStore>,
    tables: LocalGlobal<PageTable>,
    ropes: Ropes,
    step: Step,
    /// The rows of a decode step, filled up.
    rows: Vec<Row>,
    /// (rows, vocab_size).
    logits: Readback<f32>,
    top: TopK,
    /// A recorded step for each of the buckets.
    graphs: [StepGraph; BUCKETS.len()],
    /// The adapters and rows that each of them is for. A recorded step holds their addresses, so they live as long as it.
    recorded: [Vec<AdapterRows>; BUCKETS.len()],
}

impl Pass {
    /// # Errors: the device has no room.
    pub fn new(model: Arc<Model>, device: Arc<Device>, plan: &MemoryPlan, batch: &BatchLimits) -> Result<Pass> {
        let (config, limits) = (&model.config, &plan.limits);
        assert!((1..=SLOTS_MAX).contains(&batch.n_slots) && (1..=CHUNK_MAX).contains(&limits.chunk));
        let pass = batch.pass_limits(limits);
        let (n_pages, entries) = (batch.n_pages(config, limits), table_entries(config, limits));
        let pool = |is_global: &bool| {
            let n_slots = n_pages.of(*is_global) * PAGE;
            KvStore::new(&device, limits.kv_format, n_slots, config.n_kv_heads, config.head_dim)
        };
        Ok(Pass {
            activations: Activations::of_batch(&device, config, &pass, batch.n_rows())?,
            pools: config.is_global.iter().map(pool).collect::<std::result::Result<_, _>>()?,
            tables: LocalGlobal {
                local: PageTable::new(&device, batch.n_slots, entries.local)?,
                global: PageTable::new(&device, batch.n_slots, entries.global)?,
            },
            ropes: Ropes::new(&device, config, limits)?,
            step: Step::of_batch(&device, pass.chunk)?,
            rows: Vec::with_capacity(batch.n_rows()),
            logits: Readback::new(&device, batch.n_rows() * config.vocab_size)?,
            top: TopK::new(&device, config.vocab_size, batch.n_rows())?,
            graphs: Default::default(),
            recorded: Default::default(),
            adapters: Vec::with_capacity(batch.n_slots),
            max_rows: pass.chunk,
            model,
            device,
        })
    }

    /// Gives a slot the pages of its sequence.
    ///
    /// # Errors
    /// What went wrong on the device.
    pub fn set_pages(&mut self, slot: usize, pages: &PageIds) -> Result<()> {
        self.tables.local.set(slot, &pages.local)?;
        Ok(self.tables.global.set(slot, &pages.global)?)
    }

    /// Computes a part of one slot's prompt; on request the logits of its last row, which are then row 0's.
    ///
    /// # Errors
    /// What went wrong on the device.
    pub fn prefill(&mut self, rows: &[Row], adapter: Option<&Arc<Adapter>>, wants_logits: bool) -> Result<()> {
        self.device.synchronize()?;
        self.step.set_chunk(rows);
        self.adapters.clear();
        self.adapters.extend(adapter.map(|a| AdapterRows { rows: 0..rows.len(), adapter: a.clone() }));
        self.blocks();
        if wants_logits {
            self.compute_logits(rows.len() - 1, 1);
        }
        // So that the caller's clock has seen all of it.
        Ok(self.device.synchronize()?)
    }

    /// Computes one token of each of some slots, and the logits of every row. `adapters` are in order of their rows.
    ///
    /// # Errors
    /// What went wrong on the device.
    pub fn decode(&mut self, rows: &[Row], adapters: &[AdapterRows]) -> Result<()> {
        self.device.synchronize()?;
        let index = bucket(rows.len());
        self.adapters.clear();
        self.adapters.extend_from_slice(adapters);
        self.forget_other_recording(index);
        self.rows.clear();
        self.rows.extend_from_slice(rows);
        if let Device::Cuda(_) = *self.device {
            self.rows.resize(BUCKETS[index], Row { token: 0, position: 0, slot: NO_SLOT });
        }
        self.step.set_rows(&self.rows);
        let mut graph = std::mem::take(&mut self.graphs[index]);
        let device = self.device.clone();
        let ran = graph.run(&device, &mut || {
            self.blocks();
            self.compute_logits(0, self.rows.len());
        });
        self.graphs[index] = graph;
        ran
    }

    /// A step recorded with other adapters, or with the same for other rows, would not be this one.
    fn forget_other_recording(&mut self, index: usize) {
        if let Device::Cpu(_) = *self.device {
            // Nothing is recorded, and an adapter that was unloaded is freed at once.
            return;
        }
        let same = |(then, now): (&AdapterRows, &AdapterRows)| {
            then.rows == now.rows && Arc::ptr_eq(&then.adapter, &now.adapter)
        };
        let recorded = &mut self.recorded[index];
        if recorded.len() != self.adapters.len() || !recorded.iter().zip(&self.adapters).all(same) {
            recorded.clear();
            recorded.extend_from_slice(&self.adapters);
            self.graphs[index] = StepGraph::default();
        }
    }

    /// Makes room for the low-rank products of an adapter of this rank.
    ///
    /// # Errors
    /// The device has no room.
    pub fn reserve_rank(&mut self, rank: usize) -> Result<()> {
        // Recorded steps hold the address of the room there was.
        self.graphs = Default::default();
        Ok(self.activations.reserve_rank(&self.device, self.max_rows, rank)?)
    }

    /// What each layer holds of a slot's positions: `held` says which of local and of global layers.
    ///
    /// # Errors
    /// What went wrong on the device.
    pub fn save(&self, slot: usize, held: &LocalGlobal<Range<usize>>) -> Result<Vec<Vec<u8>>> {
        let layers = self.pools.iter().zip(&self.model.config.is_global);
        let save = |(pool, is_global): (&KvStore, &bool)| {
            let positions = held.of(*is_global);
            let mut bytes = Vec::with_capacity(pool.saved_bytes(positions.len()));
            pool.save_runs(&self.tables.of(*is_global).runs(slot, positions), &mut bytes)?;
            Ok(bytes)
        };
        layers.map(save).collect()
    }

    /// Undoes [`Pass::save`] into a slot whose pages hold these positions.
    ///
    /// # Errors
    /// What went wrong on the device.
    pub fn restore(&mut self, slot: usize, held: &[Range<usize>], bytes: &[&[u8]]) -> Result<()> {
        let layers = self.pools.iter_mut().zip(&self.model.config.is_global);
        for ((pool, is_global), (positions, bytes)) in layers.zip(held.iter().zip(bytes)) {
            pool.restore_runs(&self.tables.of(*is_global).runs(slot, positions), bytes)?;
        }
        Ok(())
    }

    /// The pool of layer `i`.
    pub fn layer(&self, i: usize) -> &KvStore {
        &self.pools[i]
    }

    /// Looks for the `k` best candidates of the first `n_rows` rows of logits.
    ///
    /// # Errors
    /// What went wrong on the device.
    pub fn find_top(&mut self, n_rows: usize, k: usize) -> Result<()> {
        let logits = self.logits.view_mut([n_rows, self.model.config.vocab_size]);
        Ok(self.top.find(&self.device, logits.as_view(), k)?)
    }

    /// What was found, best first.
    pub fn top_of_row(&mut self, row: usize) -> &[(u32, f32)] {
        self.top.of_row(row)
    }

    /// Brings the logits of some rows to the host, in one wait for all of them; none where there are none.
    ///
    /// # Errors
    /// What went wrong on the device.
    pub fn fetch_rows(&mut self, rows: impl Iterator<Item = usize>) -> Result<()> {
        let mut has_any = false;
        for row in rows {
            has_any = true;
            self.logits.start_fetch(self.of_row(row));
        }
        if has_any {
            self.device.synchronize()?;
        }
        Ok(())
    }

    /// Logits of a row that was fetched, free to be changed by a sampler.
    pub fn logits_of_row(&mut self, row: usize) -> &mut [f32] {
        let range = self.of_row(row);
        &mut self.logits.host_mut()[range]
    }

    fn of_row(&self, row: usize) -> Range<usize> {
        let vocab_size = self.model.config.vocab_size;
        row * vocab_size..(row + 1) * vocab_size
    }

    fn blocks(&mut self) {
        let (forward, activations, pools, _) = self.parts();
        forward.blocks(activations, pools);
    }

    fn compute_logits(&mut self, first: usize, n: usize) {
        let shape = [n, self.model.config.vocab_size];
        let (forward, activations, _, logits) = self.parts();
        forward.logits(activations, first..first + n, logits.view_mut(shape));
    }

    /// What a pass reads, and what it changes.
    fn parts(&mut self) -> (Forward<'_>, &mut Activations, &mut [KvStore], &mut Readback<f32>) {
        let forward = Forward {
            device: &self.device,
            model: &self.model,
            adapters: &self.adapters,
            ropes: &self.ropes,
            pages: Some(&self.tables),
            family: if self.step.is_chunk() { Family::ByRows } else { Family::Batch },
            step: &self.step,
        };
        (forward, &mut self.activations, &mut self.pools, &mut self.logits)
    }
}
