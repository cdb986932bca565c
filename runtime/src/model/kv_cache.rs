//! Keys and values of all layers: rings of `window + chunk` slots for local layers, the whole context for global ones.

use std::ops::Range;

use lichen_kernels::ops::attention::{KvFormat, KvStore};
use lichen_kernels::{Device, DeviceError};

use crate::model_config::ModelConfig;

/// One [`KvStore`] per layer, and how many positions they hold.
pub struct KvCache {
    layers: Vec<KvStore>,
    position: usize,
    /// The highest position ever written since the last reset: a ring has forgotten what lies `n_slots` before it.
    written: usize,
    /// The first position a restored ring holds.
    floor: usize,
    window: Option<usize>,
    /// True for local layers.
    rings: Vec<bool>,
}

/// Slots of each layer: a chunk of `chunk` rows is written before its first row looks `window` positions back.
fn slots(config: &ModelConfig, layer: usize, context: usize, chunk: usize) -> usize {
    match config.sliding_window {
        Some(window) if !config.is_global[layer] => context.min(window + chunk),
        _ => context,
    }
}

impl KvCache {
    /// # Errors: the device has no room.
    pub fn new(
        device: &Device,
        config: &ModelConfig,
        format: KvFormat,
        context: usize,
        chunk: usize,
    ) -> Result<Self, DeviceError> {
        let layer =
            |i| KvStore::new(device, format, slots(config, i, context, chunk), config.n_kv_heads, config.head_dim);
        let layers = (0..config.n_layers).map(layer).collect::<Result<Vec<_>, _>>()?;
        let rings = config.is_global.iter().map(|g| !g).collect();
        Ok(KvCache { layers, position: 0, written: 0, floor: 0, window: config.sliding_window, rings })
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

    /// All of them, to be written by a pass.
    pub fn layers_mut(&mut self) -> &mut [KvStore] {
        &mut self.layers
    }

    pub fn layers(&self) -> &[KvStore] {
        &self.layers
    }

    /// Accounts for `n` rows written to every layer.
    pub fn advance(&mut self, n: usize) {
        self.position += n;
        self.written = self.written.max(self.position);
    }

    /// Whether the rings still hold what `position` sees.
    pub fn holds_before(&self, position: usize) -> bool {
        self.layers.iter().all(|layer| {
            let Some(window) = self.window.filter(|_| layer.n_slots() < self.written || self.floor > 0) else {
                return true;
            };
            let oldest_held = self.written.saturating_sub(layer.n_slots()).max(self.floor);
            (position + 1).saturating_sub(window) >= oldest_held
        })
    }

    /// Goes back to `position` if the rings still hold what it sees, else to 0; returns where it went.
    pub fn rewind(&mut self, position: usize) -> usize {
        assert!(position <= self.position);
        if self.holds_before(position) {
            self.position = position;
        } else {
            (self.position, self.written, self.floor) = (0, 0, 0);
        }
        self.position
    }

    /// Positions of layer `i` that are still held.
    pub fn held(&self, i: usize) -> Range<usize> {
        let oldest = self.written.saturating_sub(self.layers[i].n_slots());
        let floor = if self.is_ring(i) { self.floor } else { 0 };
        oldest.max(floor).min(self.position)..self.position
    }

    /// Fills every layer from a saved session: `held[i]` positions and their bytes ([`KvStore::save`]). The caller has
    /// checked the sizes with [`KvCache::can_hold`].
    pub fn restore(&mut self, position: usize, held: &[Range<usize>], bytes: &[&[u8]]) -> Result<(), DeviceError> {
        for (i, (positions, bytes)) in held.iter().zip(bytes).enumerate() {
            self.layers[i].restore(positions, bytes)?;
        }
        let rings = (0..self.layers.len()).filter(|i| self.is_ring(*i));
        self.floor = rings.map(|i| held[i].start).max().unwrap_or(0);
        (self.position, self.written) = (position, position);
        Ok(())
    }

    /// True when layer `i` has room for these positions and they cover what the next token sees.
    pub fn can_hold(&self, i: usize, held: &Range<usize>, position: usize) -> bool {
        let needed = match self.window {
            Some(window) if self.is_ring(i) => (position + 1).saturating_sub(window),
            _ => 0,
        };
        let room = self.layers[i].n_slots();
        let fits = if self.is_ring(i) { position - needed.min(position) <= room } else { held.len() <= room };
        fits && held.end == position && held.start <= needed
    }

    /// How many of these positions, the last ones, layer `i` has room for.
    pub fn n_kept(&self, i: usize, held: &Range<usize>) -> usize {
        held.len().min(self.layers[i].n_slots())
    }

    fn is_ring(&self, i: usize) -> bool {
        self.window.is_some() && self.rings[i]
    }
}
