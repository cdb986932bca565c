//! The last norm, the head and the loss, for a chunk of labelled rows at a time: logits of the whole sequence never exist
//! together, and rows without a label cost nothing.

use lichen_kernels::ops::matmul::{self, Product, Write};
use lichen_kernels::ops::{cross_entropy, rmsnorm};
use lichen_kernels::Buffer;
use lichen_runtime::model_source::Part;

use crate::activations::{Activations, LossWork, LOSS_ROWS};
use crate::forward::Pass;
use crate::full::Full;
use crate::mutation::{self, Term};

/// The sum of -ln p over the targets of the batch. With `scale`, `a.dx` becomes the gradient of `scale` times that sum by
/// the last layer's output; `full` and the flat gradients are given where norm and head are trained.
pub fn loss(
    pass: &Pass<'_>,
    a: &mut Activations,
    scale: Option<f32>,
    mut full: Option<(&Full, &mut Buffer<f32>)>,
) -> f64 {
    let (c, t) = (pass.config(), pass.rows());
    let Activations { inputs, loss, dx, work, .. } = a;
    let x = &inputs[c.n_layers];
    if scale.is_some() {
        dx.view_mut([t, c.dim]).host_mut().fill(0.0);
    }
    let mut sum = 0.0;
    for chunk in pass.batch.targets().chunks(LOSS_ROWS) {
        sum += logits_and_loss(pass, chunk, x, loss, &mut work.matmul, scale);
        if scale.is_some() {
            backward(pass, chunk, loss, dx, full.as_mut().map(|(full, gradients)| (*full, &mut **gradients)));
        }
    }
    sum
}

/// Forward: `h = norm(x)`, `logits = head(h)`, and the loss, whose gradient takes the place of the logits.
fn logits_and_loss(
    pass: &Pass<'_>,
    chunk: &[(usize, u32)],
    x: &Buffer<f32>,
    w: &mut LossWork,
    scratch: &mut matmul::Scratch,
    scale: Option<f32>,
) -> f64 {
    let (c, n, device) = (pass.config(), chunk.len(), pass.device);
    let wide = [n, c.dim];
    w.targets.clear();
    w.targets.extend(chunk.iter().map(|(_, token)| *token));
    for (to, (row, _)) in w.x.view_mut(wide).host_mut().chunks_exact_mut(c.dim).zip(chunk) {
        to.copy_from_slice(x.part(row * c.dim, [c.dim]).host());
    }
    rmsnorm::forward(device, w.h.view_mut(wide), w.x.view(wide), pass.model.output_norm.all(), c.rms_eps);
    let logits = w.logits.view_mut([n, c.vocab_size]);
    let products = &mut [Product { out: logits, weights: &pass.model.head, bias: None }];
    matmul::forward_training(device, products, w.h.view(wide), scratch);
    w.scale.clear();
    w.scale.extend(scale.into_iter().cycle().take(n));
    let scales = scale.map(|_| w.scale.as_slice());
    let logits = w.logits.view_mut([n, c.vocab_size]);
    cross_entropy::forward_backward(device, logits, &w.targets, scales, &mut w.losses[..n]);
    w.losses[..n].iter().sum()
}

/// Each row of a batch has at most one target, so its gradient is put, not added.
fn backward(
    pass: &Pass<'_>,
    chunk: &[(usize, u32)],
    w: &mut LossWork,
    dx: &mut Buffer<f32>,
    full: Option<(&Full, &mut Buffer<f32>)>,
) {
    let (c, n, device) = (pass.config(), chunk.len(), pass.device);
    let wide = [n, c.dim];
    let dlogits = w.logits.view([n, c.vocab_size]);
    matmul::backward::input(device, w.dh.view_mut(wide), dlogits, &pass.model.head, Write::Replace);
    mutation::apply(Term::Head, 0, w.dh.view_mut(wide));
    if let Some((full, gradients)) = full {
        let head = full.place(if c.tied_head { Part::TokenEmbedding } else { Part::Output }, None);
        let dhead = gradients.part_mut(head.start, [c.vocab_size, c.dim]);
        matmul::backward::weight(device, dhead, dlogits, w.h.view(wide));
        let norm = full.place(Part::OutputNorm, None);
        let dnorm = gradients.part_mut(norm.start, [norm.len]);
        rmsnorm::backward::weight(device, dnorm, w.dh.view(wide), w.x.view(wide), c.rms_eps);
    }
    let (dh, x, norm) = (w.dh.view(wide), w.x.view(wide), pass.model.output_norm.all());
    rmsnorm::backward::input(device, w.h.view_mut(wide), dh, x, norm, c.rms_eps, Write::Replace);
    for (d, (row, _)) in w.h.view(wide).host().chunks_exact(c.dim).zip(chunk) {
        dx.part_mut::<1>(row * c.dim, [c.dim]).host_mut().copy_from_slice(d);
    }
}
