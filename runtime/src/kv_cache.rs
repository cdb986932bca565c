//! Keys and values of all layers: rings of `window + chunk` slots for local layers, the whole context for global ones.

use lichen_kernels::ops::attention::{KvFormat, KvStore};

use crate::model_config::ModelConfig;

/// One [`KvStore`] per layer, and how many positions they hold.
pub struct KvCache {
    layers: Vec<KvStore>,
    position: usize,
    /// The highest position ever written since the last reset: a ring has forgotten what lies `n_slots` before it.
    written: usize,
    window: Option<usize>,
}

/// Slots of each layer: a chunk of `chunk` rows is written before its first row looks `window` positions back.
fn slots(config: &ModelConfig, layer: usize, context: usize, chunk: usize) -> usize {
    match config.sliding_window {
        Some(window) if !config.is_global[layer] => context.min(window + chunk),
        _ => context,
    }
}

impl KvCache {
    pub fn new(config: &ModelConfig, format: KvFormat, context: usize, chunk: usize) -> Self {
        let layers = (0..config.n_layers)
            .map(|i| KvStore::new(format, slots(config, i, context, chunk), config.n_kv_heads, config.head_dim))
            .collect();
        KvCache { layers, position: 0, written: 0, window: config.sliding_window }
    }

    /// Bytes of (local, global) layers.
    pub fn size_bytes(config: &ModelConfig, format: KvFormat, context: usize, chunk: usize) -> (usize, usize) {
        let mut sums = (0, 0);
        for i in 0..config.n_layers {
            let n_slots = slots(config, i, context, chunk);
            let bytes = KvStore::size_bytes(format, n_slots, config.n_kv_heads, config.head_dim);
            let is_local = config.sliding_window.is_some() && !config.is_global[i];
            *(if is_local { &mut sums.0 } else { &mut sums.1 }) += bytes;
        }
        sums
    }

    /// Positions held: the next token goes here.
    pub fn position(&self) -> usize {
        self.position
    }

    pub fn layer(&self, i: usize) -> &KvStore {
        &self.layers[i]
    }

    pub fn layer_mut(&mut self, i: usize) -> &mut KvStore {
        &mut self.layers[i]
    }

    pub fn layers(&self) -> &[KvStore] {
        &self.layers
    }

    /// Accounts for `n` rows written to every layer.
    pub fn advance(&mut self, n: usize) {
        self.position += n;
        self.written = self.written.max(self.position);
    }

    /// Goes back to `position` if the rings still hold what it sees, else to 0; returns where it went.
    pub fn rewind(&mut self, position: usize) -> usize {
        assert!(position <= self.position);
        let fits = self.layers.iter().all(|layer| {
            let Some(window) = self.window.filter(|_| layer.n_slots() < self.written) else { return true };
            // The row at `position` looks back to `position + 1 - window`; the ring starts at `written - n_slots`.
            position + 1 >= window.min(position + 1) + (self.written - layer.n_slots())
        });
        if fits {
            self.position = position;
        } else {
            (self.position, self.written) = (0, 0);
        }
        self.position
    }

    /// Positions of layer `i` that are still held.
    pub fn held(&self, i: usize) -> std::ops::Range<usize> {
        self.written.saturating_sub(self.layers[i].n_slots()).min(self.position)..self.position
    }

    /// Declares `position` rows present, after every layer was restored.
    pub fn restored(&mut self, position: usize) {
        (self.position, self.written) = (position, position);
    }
}
