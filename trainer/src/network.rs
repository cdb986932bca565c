//! A model in training: weights, what is trained, its gradients, moments and activations, all allocated once; and one
//! optimiser step of it.

use std::borrow::Cow;
use std::sync::Arc;

use lichen_kernels::ops::copy;
use lichen_kernels::{Buffer, Device, Format};
use lichen_runtime::model::Model;
use lichen_runtime::Result;

use crate::activations::{ActivationSizes, Activations};
use crate::backward::{Backward, Trainable};
use crate::batch::{n_targets, Batch};
use crate::data::Sample;
use crate::forward::{Dropout, ForwardPass, Rope};
use crate::full::Full;
use crate::lora::Lora;
use crate::loss::{loss, sum_of_losses};
use crate::machine::Gpu;
use crate::optimizer::{AdamWSettings, Optimizer};
use crate::plan::network_gpu_bytes;
use crate::recordings::{MicroBatchShape, Recordings};

/// What is trained.
pub enum Mode {
    /// An adapter over a frozen base.
    Lora(Lora),
    /// Every weight, which the forward pass multiplies in this format (F32 or BF16).
    Full(Full, Format),
}

impl Mode {
    pub fn n_parameters(&self) -> usize {
        match self {
            Mode::Lora(lora) => lora.n_parameters(),
            Mode::Full(full, _) => full.n_parameters(),
        }
    }

    /// The first layer that gradients reach.
    pub fn first_layer(&self) -> usize {
        match self {
            Mode::Lora(lora) => lora.first_layer(),
            Mode::Full(..) => 0,
        }
    }

    fn n_decayed(&self) -> usize {
        match self {
            Mode::Lora(lora) => lora.n_parameters(),
            Mode::Full(full, _) => full.n_decayed(),
        }
    }

    /// The parameter at `index` of the flat vector, for messages.
    pub fn name_of(&self, index: usize) -> String {
        match self {
            Mode::Lora(lora) => lora.name_of(index),
            Mode::Full(full, _) => full.name_of(index),
        }
    }
}

/// What one optimiser step did.
#[derive(Clone, Debug, PartialEq)]
pub struct StepReport {
    /// Mean of -ln p over the labelled tokens of the whole batch.
    pub loss: f64,
    /// Global norm of the gradient before clipping.
    pub gradient_norm: f64,
    /// ActivationSizes computed, and predictions that counted.
    pub rows: usize,
    pub targets: usize,
    /// Why nothing was updated: what was not finite, or that nothing was labelled.
    pub skipped: Option<String>,
    /// Of a GPU: how often a number was infinite or NaN where a product takes f16.
    pub overflows: Option<u32>,
}

/// Everything that a training run changes.
pub struct Network {
    device: Arc<Device>,
    model: Arc<Model>,
    mode: Mode,
    values: Buffer<f32>,
    gradients: Buffer<f32>,
    pub optimizer: Optimizer,
    activations: Activations,
    batch: Batch,
    rope: Rope,
    recordings: Recordings,
    /// Counted until the last step.
    n_overflows: u32,
    /// Samples of a micro-batch.
    max_samples: usize,
}

impl Network {
    /// Allocates what [`crate::plan`] adds up. In full training `model` is on the host, whatever the device, and its weights
    /// are replaced by copies that may change, where the device has them.
    ///
    /// # Errors
    /// The device has no room. Panics in full training when somebody else holds the model.
    pub fn new(
        device: Arc<Device>,
        model: Arc<Model>,
        mode: Mode,
        settings: AdamWSettings,
        rows: &ActivationSizes,
        max_samples: usize,
    ) -> Result<Network> {
        match &*device {
            Device::Cpu(_) => Network::allocate(device, model, mode, settings, rows, max_samples),
            Device::Cuda(cuda) => {
                let format = if let Mode::Full(_, format) = mode { Some(format) } else { None };
                let gpu = Gpu::of(cuda)?;
                let bytes = network_gpu_bytes(&model.config, mode.n_parameters(), format, rows, gpu);
                let cuda = cuda.clone();
                cuda.with_arena(bytes, || Network::allocate(device, model, mode, settings, rows, max_samples))
            }
        }
    }

    fn allocate(
        device: Arc<Device>,
        mut model: Arc<Model>,
        mode: Mode,
        settings: AdamWSettings,
        rows: &ActivationSizes,
        max_samples: usize,
    ) -> Result<Network> {
        let n = mode.n_parameters();
        let mut values = Buffer::new(&device, n)?;
        if let Mode::Full(full, format) = &mode {
            let model = Arc::get_mut(&mut model).expect("nobody else holds a model that is to change");
            full.take_over(&device, model, *format, &mut values)?;
        }
        Ok(Network {
            gradients: Buffer::new(&device, n)?,
            optimizer: Optimizer::new(&device, settings, n, mode.n_decayed())?,
            activations: Activations::new(&device, &model.config, rows)?,
            batch: Batch::new(&device, max_samples, rows.rows)?,
            rope: Rope::new(&device, &model.config, rows.longest)?,
            recordings: Recordings::default(),
            n_overflows: 0,
            device,
            model,
            mode,
            values,
            max_samples,
        })
    }

    pub fn mode(&self) -> &Mode {
        &self.mode
    }

    pub fn model(&self) -> &Arc<Model> {
        &self.model
    }

    /// The trained values, one flat vector; a copy where they lie on a GPU.
    ///
    /// # Errors
    /// The device fails.
    pub fn values(&self) -> Result<Cow<'_, [f32]>> {
        on_host(&self.device, &self.values)
    }

    /// The gradients of the last step, or of the micro-batches since [`Network::clear_gradients`]; likewise.
    ///
    /// # Errors
    /// The device fails.
    pub fn gradients(&self) -> Result<Cow<'_, [f32]>> {
        on_host(&self.device, &self.gradients)
    }

    /// Changes the trained values.
    ///
    /// # Errors
    /// The device fails.
    pub fn set_values(&mut self, fill: impl FnOnce(&mut [f32])) -> Result<()> {
        match &*self.device {
            Device::Cpu(_) => fill(self.values.host_mut()),
            Device::Cuda(_) => {
                let mut values = self.values()?.into_owned();
                fill(&mut values);
                self.values.write(0, &values)?;
            }
        }
        self.write_back();
        Ok(())
    }

    pub fn clear_gradients(&mut self) {
        let n = self.gradients.len();
        copy::zero(&self.device, self.gradients.view_mut([n]));
    }

    /// Adds the gradients of one micro-batch, as a share of a batch with `n_targets` predictions; returns its sum of -ln p.
    ///
    /// # Errors
    /// The device fails.
    pub fn micro_batch(&mut self, samples: &[Sample], n_targets: usize, dropout: Option<Dropout>) -> Result<f64> {
        self.pass(samples, dropout, Some(1.0 / n_targets as f32))
    }

    /// The sum of -ln p over the targets of these samples, at most a micro-batch of them.
    ///
    /// # Errors
    /// The device fails.
    pub fn evaluate(&mut self, samples: &[Sample]) -> Result<f64> {
        self.pass(samples, None, None)
    }

    /// Forward, and with a scale back again: the gradients of that many times the sum are added. The host waits once, at the
    /// end, so that a GPU never runs out of work on the way.
    fn pass(&mut self, samples: &[Sample], dropout: Option<Dropout>, scale: Option<f32>) -> Result<f64> {
        self.batch.set(samples);
        let pass = ForwardPass {
            device: &self.device,
            model: &self.model,
            lora: adapter(&self.mode, &self.values),
            batch: &self.batch,
            rope: &self.rope,
            dropout,
        };
        let (activations, gradients) = (&mut self.activations, &mut self.gradients);
        let mut launch = || run(&pass, &self.mode, activations, gradients, scale);
        match MicroBatchShape::of(&pass, scale) {
            Some(shape) => self.recordings.run(&self.device, shape, &mut launch)?,
            None => launch(),
        }
        Ok(sum_of_losses(&self.batch, &mut self.activations)?)
    }

    /// Micro-batches of how many shapes are replayed as one graph each.
    pub fn n_recorded(&self) -> usize {
        self.recordings.n_recorded()
    }

    /// One optimiser step over `samples`, however many micro-batches they take. What is not finite is never applied.
    ///
    /// # Errors
    /// The device fails.
    pub fn step(&mut self, samples: &[Sample], learning_rate: f64, dropout: Option<Dropout>) -> Result<StepReport> {
        let targets = samples.iter().map(n_targets).sum();
        let rows = samples.iter().map(|s| s.ids.len().saturating_sub(1)).sum();
        let mut report = StepReport { loss: 0.0, gradient_norm: 0.0, rows, targets, skipped: None, overflows: None };
        if targets == 0 {
            report.skipped = Some("no token of the batch is labelled".to_string());
            return Ok(report);
        }
        self.clear_gradients();
        let mut sum = 0.0;
        for (i, samples) in samples.chunks(self.max_samples).enumerate() {
            let dropout = dropout.map(|d| Dropout { micro_batch: i as u64, ..d });
            sum += self.micro_batch(samples, targets, dropout)?;
        }
        report.loss = sum / targets as f64;
        report.gradient_norm = self.optimizer.gradient_norm(&self.device, &self.gradients)?;
        report.skipped = self.not_finite(&report)?;
        report.overflows = self.new_overflows()?;
        if report.skipped.is_none() {
            let norm = report.gradient_norm;
            self.optimizer.step(&self.device, &mut self.values, &self.gradients, norm, learning_rate);
            self.write_back();
        }
        Ok(report)
    }

    /// Overflows since the step before.
    fn new_overflows(&mut self) -> Result<Option<u32>> {
        let Device::Cuda(_) = &*self.device else { return Ok(None) };
        let count = self.activations.work.matmul.overflows()?;
        let new = count.wrapping_sub(std::mem::replace(&mut self.n_overflows, count));
        Ok(Some(new))
    }

    /// What must not reach the weights, and where it was seen first.
    fn not_finite(&self, report: &StepReport) -> Result<Option<String>> {
        if report.loss.is_finite() && report.gradient_norm.is_finite() {
            return Ok(None);
        }
        let bad = self.gradients()?.iter().position(|g| !g.is_finite());
        Ok(Some(match bad {
            Some(index) => format!("the gradient of {} is not finite", self.mode.name_of(index)),
            None if !report.loss.is_finite() => "the loss is not finite".to_string(),
            None => "the gradient is too long for a number".to_string(),
        }))
    }

    /// The first of these values of all parameters that is not finite, by name: such values must not be saved.
    pub fn first_bad_value(&self, values: &[f32]) -> Option<String> {
        let bad = values.iter().position(|v| !v.is_finite());
        bad.map(|index| self.mode.name_of(index))
    }

    /// In full training the matrices follow the values.
    fn write_back(&mut self) {
        if let Mode::Full(full, _) = &self.mode {
            let model = Arc::get_mut(&mut self.model).expect("nobody else holds a model that changes");
            full.write(&self.device, model, &self.values);
        }
    }
}

fn run(
    pass: &ForwardPass<'_>,
    mode: &Mode,
    activations: &mut Activations,
    gradients: &mut Buffer<f32>,
    scale: Option<f32>,
) {
    pass.forward(activations);
    let (trained, full) = match mode {
        Mode::Lora(lora) => (Trainable::Lora(lora), None),
        Mode::Full(full, _) => (Trainable::Full(full), scale.map(|_| (full, &mut *gradients))),
    };
    loss(pass, activations, scale, full);
    if scale.is_some() {
        Backward { pass, trained, gradients }.run(activations);
    }
}

fn adapter<'a>(mode: &'a Mode, values: &'a Buffer<f32>) -> Option<(&'a Lora, &'a Buffer<f32>)> {
    match mode {
        Mode::Lora(lora) => Some((lora, values)),
        Mode::Full(..) => None,
    }
}

fn on_host<'a>(device: &Device, buffer: &'a Buffer<f32>) -> Result<Cow<'a, [f32]>> {
    match device {
        Device::Cpu(_) => Ok(Cow::Borrowed(buffer.host())),
        Device::Cuda(_) => {
            let mut values = vec![0.0; buffer.len()];
            buffer.read(0, &mut values)?;
            Ok(Cow::Owned(values))
        }
    }
}
