//! The last norm, the head and the loss, for a chunk of labelled rows at a time: logits of the whole sequence never exist
//! together, and rows without a label cost nothing.

use std::ops::Range;

use lichen_kernels::ops::matmul::{self, Product, Write};
use lichen_kernels::ops::{copy, cross_entropy, rmsnorm, rows};
use lichen_kernels::{Buffer, DeviceError};
use lichen_runtime::files::model_source::Part;

use crate::activations::{Activations, LossWork, Work};
use crate::batch::Batch;
use crate::forward::ForwardPass;
use crate::full::Full;
use crate::mutation::{self, Term};

/// Computes -ln p of every target of the batch, for [`sum_of_losses`]. With `scale`, `a.dx` becomes the gradient of `scale`
/// times that sum by the last layer's output; `full` and the flat gradients are given where norm and head are trained.
pub fn loss(
    pass: &ForwardPass<'_>,
    a: &mut Activations,
    scale: Option<f32>,
    mut full: Option<(&Full, &mut Buffer<f32>)>,
) {
    let (c, t) = (pass.config(), pass.rows());
    let Activations { inputs, loss, dx, work, .. } = a;
    let x = inputs.last().expect("the input of the last norm");
    if scale.is_some() {
        copy::zero(pass.device, dx.view_mut([t, c.dim]));
    }
    let n_targets = pass.batch.n_targets();
    for start in (0..n_targets).step_by(loss.max_rows) {
        let chunk = start..n_targets.min(start + loss.max_rows);
        logits_and_loss(pass, chunk.clone(), x, loss, work, scale);
        if scale.is_some() {
            let full = full.as_mut().map(|(full, gradients)| (*full, &mut **gradients));
            backward(pass, chunk, loss, dx, full, work);
        }
    }
}

/// The sum of -ln p over the targets of the batch: the only thing of a micro-batch that the host waits for.
///
/// # Errors
/// What went wrong on the device since the last call.
pub fn sum_of_losses(batch: &Batch, a: &mut Activations) -> Result<f64, DeviceError> {
    Ok(a.loss.losses.fetch(batch.n_targets())?.iter().sum())
}

/// Forward: `h = norm(x)`, `logits = head(h)`, and the loss, whose gradient takes the place of the logits.
fn logits_and_loss(
    pass: &ForwardPass<'_>,
    chunk: Range<usize>,
    x: &Buffer<f32>,
    w: &mut LossWork,
    work: &mut Work,
    scale: Option<f32>,
) {
    let (c, n, device) = (pass.config(), chunk.len(), pass.device);
    let wide = [n, c.dim];
    rows::gather(device, w.x.view_mut(wide), x.view([pass.rows(), c.dim]), pass.batch.target_rows(chunk.clone()));
    rmsnorm::forward(device, w.h.view_mut(wide), w.x.view(wide), pass.model.output_norm.all(), c.rms_eps);
    let logits = w.logits.view_mut([n, c.vocab_size]);
    let products = &mut [Product { out: logits, weights: &pass.model.head, bias: None }];
    matmul::forward_training(device, products, w.h.view(wide), &mut work.matmul);
    let (logits, losses) = (w.logits.view_mut([n, c.vocab_size]), w.losses.part_mut(chunk.start, [n]));
    cross_entropy::forward_backward(device, logits, pass.batch.target_tokens(chunk), scale, losses);
}

/// Each row of a batch has at most one target, so its gradient is put, not added.
fn backward(
    pass: &ForwardPass<'_>,
    chunk: Range<usize>,
    w: &mut LossWork,
    dx: &mut Buffer<f32>,
    full: Option<(&Full, &mut Buffer<f32>)>,
    work: &mut Work,
) {
    let (c, n, device) = (pass.config(), chunk.len(), pass.device);
    let (wide, scratch) = ([n, c.dim], &mut work.matmul);
    let dlogits = w.logits.view([n, c.vocab_size]);
    matmul::backward::input(device, w.dh.view_mut(wide), dlogits, &pass.model.head, Write::Replace, scratch);
    mutation::apply(Term::Head, 0, w.dh.view_mut(wide));
    if let Some((full, gradients)) = full {
        let head = full.place(if c.tied_head { Part::TokenEmbedding } else { Part::Output }, None);
        let dhead = gradients.part_mut(head.start, [c.vocab_size, c.dim]);
        matmul::backward::weight(device, dhead, dlogits, w.h.view(wide), pass.model.head.format(), scratch);
        let norm = full.place(Part::OutputNorm, None);
        let dnorm = gradients.part_mut(norm.start, [norm.len]);
        rmsnorm::backward::weight(device, dnorm, work.rstd.view_mut([n]), w.dh.view(wide), w.x.view(wide), c.rms_eps);
    }
    let (dh, x, norm) = (w.dh.view(wide), w.x.view(wide), pass.model.output_norm.all());
    rmsnorm::backward::input(device, w.h.view_mut(wide), dh, x, norm, c.rms_eps, Write::Replace);
    rows::scatter(device, dx.view_mut([pass.rows(), c.dim]), w.h.view(wide), pass.batch.target_rows(chunk));
}
