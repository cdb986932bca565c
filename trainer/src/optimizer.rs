//! AdamW over one flat vector, with the global norm of the gradient: for clipping, and to see what is not finite.

use std::io::{self, Write};

use lichen_kernels::ops::adamw::{self, CHUNK};
use lichen_kernels::ops::sum_of_squares;
use lichen_kernels::{Buffer, Device, DeviceError, Readback};

/// The optimisers there are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OptimizerKind {
    #[default]
    AdamW,
}

impl OptimizerKind {
    /// # Errors
    /// What is allowed.
    pub fn parse(name: &str) -> Result<OptimizerKind, String> {
        match name {
            "adamw" => Ok(OptimizerKind::AdamW),
            _ => Err("adamw".to_string()),
        }
    }

    pub fn name(self) -> &'static str {
        match self {
            OptimizerKind::AdamW => "adamw",
        }
    }
}

/// The numbers that do not change from step to step.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AdamWSettings {
    pub beta1: f64,
    pub beta2: f64,
    pub eps: f64,
    pub weight_decay: f64,
    /// Largest global norm of a gradient; `None` to take any.
    pub clip: Option<f64>,
}

/// Moments, and how many steps they have seen.
pub struct Optimizer {
    pub settings: AdamWSettings,
    /// Chunks of first moments, each followed by the second moments of the same parameters; those that decay first.
    moments: Buffer<f32>,
    partials: Readback<f64>,
    n_decayed: usize,
    n: usize,
    /// Updates made.
    pub t: u64,
}

impl Optimizer {
    /// For `n` parameters, weight decay applying to the first `n_decayed`.
    ///
    /// # Errors
    /// The device has no room.
    pub fn new(device: &Device, settings: AdamWSettings, n: usize, n_decayed: usize) -> Result<Optimizer, DeviceError> {
        assert!(n_decayed <= n);
        let partials = Readback::new(device, sum_of_squares::n_partials(n))?;
        Ok(Optimizer { settings, moments: Buffer::new(device, 2 * n)?, partials, n_decayed, n, t: 0 })
    }

    /// Bytes [`Optimizer::new`] takes.
    pub fn size_bytes(n: usize) -> usize {
        8 * n + 8 * sum_of_squares::n_partials(n)
    }

    /// The global norm of a gradient; not finite when any of its values is not.
    ///
    /// # Errors
    /// What went wrong on the device.
    pub fn gradient_norm(&mut self, device: &Device, gradients: &Buffer<f32>) -> Result<f64, DeviceError> {
        Ok(sum_of_squares::forward(device, gradients.all(), &mut self.partials)?.sqrt())
    }

    /// One update; a gradient longer than the clip is shortened to it.
    pub fn step(
        &mut self,
        device: &Device,
        values: &mut Buffer<f32>,
        gradients: &Buffer<f32>,
        norm: f64,
        learning_rate: f64,
    ) {
        let AdamWSettings { beta1, beta2, eps, weight_decay, clip } = self.settings;
        // PyTorch's rule, with its small constant.
        let gradient_scale = clip.map_or(1.0, |clip| (clip / (norm + 1e-6)).min(1.0)) as f32;
        self.t += 1;
        let groups = [(0, self.n_decayed, weight_decay), (self.n_decayed, self.n - self.n_decayed, 0.0)];
        for (start, n, weight_decay) in groups {
            let step = adamw::Step { learning_rate, beta1, beta2, eps, weight_decay, t: self.t, gradient_scale };
            let (p, g) = (values.part_mut(start, [n]), gradients.part(start, [n]));
            adamw::step(device, p, g, self.moments.part_mut(2 * start, [2 * n]), &step);
        }
    }

    /// Writes all first moments, or all second ones, as f32.
    pub fn write_moments(&self, second: bool, out: &mut dyn Write) -> io::Result<()> {
        let mut values = vec![0.0f32; CHUNK];
        for (start, len) in self.chunks() {
            let at = if second { start + len } else { start };
            self.moments.read(at, &mut values[..len]).map_err(io::Error::other)?;
            out.write_all(bytemuck::cast_slice(&values[..len]))?;
        }
        Ok(())
    }

    /// Takes what [`Optimizer::write_moments`] wrote. Panics on another length.
    ///
    /// # Errors
    /// The device fails.
    pub fn read_moments(&mut self, second: bool, bytes: &[u8]) -> Result<(), DeviceError> {
        assert_eq!(bytes.len(), 4 * self.n);
        let (mut values, mut at) = (vec![0.0f32; CHUNK], 0);
        for (start, len) in self.chunks() {
            let start = if second { start + len } else { start };
            // The bytes of a file need not be aligned.
            bytemuck::cast_slice_mut(&mut values[..len]).copy_from_slice(&bytes[at..at + 4 * len]);
            self.moments.write(start, &values[..len])?;
            at += 4 * len;
        }
        Ok(())
    }

    /// Where each chunk of first moments starts, and its length.
    fn chunks(&self) -> impl Iterator<Item = (usize, usize)> {
        let groups = [(0, self.n_decayed), (self.n_decayed, self.n - self.n_decayed)];
        groups
            .into_iter()
            .flat_map(|(start, n)| (0..n).step_by(CHUNK).map(move |i| (2 * (start + i), CHUNK.min(n - i))))
    }
}
