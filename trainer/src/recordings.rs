//! Micro-batches of a GPU that launch the same, recorded once: rows of one length come again and again in packed data, and
//! their launches are then replayed as one graph. What differs between them is read from device memory.

use std::ops::Range;

use lichen_kernels::Device;
use lichen_runtime::model::step_graph::StepGraph;
use lichen_runtime::Result;

use crate::forward::ForwardPass;

/// Shapes that are remembered: whole micro-batches and the last one of a step, to train and to evaluate. Graphs take memory
/// of the driver, and data of many lengths would never come back to the same one anyway.
const REMEMBERED: usize = 4;

/// All that the launches of a micro-batch depend on.
#[derive(Clone, Copy, Debug)]
pub struct MicroBatchShape<'a> {
    /// Rows of each sample.
    sequences: &'a [Range<usize>],
    n_targets: usize,
    /// The bits of the gradients' scale; `None` without gradients.
    scale: Option<u32>,
}

impl<'a> MicroBatchShape<'a> {
    /// `None` where every micro-batch has launches of its own: a dropout's key is one of their arguments. The CPU records
    /// nothing.
    pub fn of(pass: &ForwardPass<'a>, scale: Option<f32>) -> Option<Self> {
        let is_recordable = matches!(pass.device, Device::Cuda(_)) && pass.dropout.is_none_or(|d| d.share == 0.0);
        is_recordable.then(|| MicroBatchShape {
            sequences: pass.batch.sequences(),
            n_targets: pass.batch.n_targets(),
            scale: scale.map(f32::to_bits),
        })
    }
}

/// The shapes seen last, the newest at the end.
#[derive(Default)]
pub struct Recordings {
    seen: Vec<Seen>,
}

struct Seen {
    sequences: Vec<Range<usize>>,
    n_targets: usize,
    scale: Option<u32>,
    graph: StepGraph,
}

impl Seen {
    fn is(&self, shape: &MicroBatchShape<'_>) -> bool {
        self.sequences == shape.sequences && self.n_targets == shape.n_targets && self.scale == shape.scale
    }
}

impl Recordings {
    /// Runs the micro-batch that `launch` launches, from a recording from its second time on.
    ///
    /// # Errors
    /// What went wrong on the device.
    pub fn run(&mut self, device: &Device, shape: MicroBatchShape<'_>, launch: &mut dyn FnMut()) -> Result<()> {
        let mut seen = match self.seen.iter().position(|seen| seen.is(&shape)) {
            Some(index) => self.seen.remove(index),
            None => {
                if self.seen.len() == REMEMBERED {
                    self.seen.remove(0);
                }
                let MicroBatchShape { sequences, n_targets, scale } = shape;
                Seen { sequences: sequences.to_vec(), n_targets, scale, graph: StepGraph::default() }
            }
        };
        seen.graph.run(device, launch)?;
        self.seen.push(seen);
        Ok(())
    }

    pub fn n_recorded(&self) -> usize {
        self.seen.iter().filter(|seen| seen.graph.is_recorded()).count()
    }
}
