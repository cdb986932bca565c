//! A step of a GPU, recorded once: a token of Gemma 3 1B is some 130 launches, a micro-batch of its training some 3,000, and
//! replaying them as one graph saves the processor's time between them.

use lichen_kernels::cuda::Graph;
use lichen_kernels::Device;

use crate::error::Result;

/// How steps that launch the same run: decode steps, micro-batches of one shape.
#[derive(Default)]
pub enum StepGraph {
    /// No step has run. The first runs as it is: whatever loads on first use must be there before recording.
    #[default]
    Cold,
    Warm,
    Recorded(Graph),
    /// The driver cannot record, or the CPU computes.
    Plain,
}

impl StepGraph {
    /// True when steps are replayed.
    pub fn is_recorded(&self) -> bool {
        matches!(self, StepGraph::Recorded(_))
    }

    /// Runs the step that `launch` launches, from a recording where there is one. What changes between steps must be read
    /// from device memory.
    ///
    /// # Errors
    /// What went wrong on the device.
    pub fn run(&mut self, device: &Device, launch: &mut dyn FnMut()) -> Result<()> {
        let Device::Cuda(cuda) = device else {
            launch();
            return Ok(());
        };
        match self {
            StepGraph::Recorded(graph) => graph.launch(),
            StepGraph::Plain => launch(),
            StepGraph::Cold => {
                launch();
                *self = StepGraph::Warm;
            }
            StepGraph::Warm => match cuda.capture(launch) {
                Ok(Some(graph)) => {
                    graph.launch();
                    *self = StepGraph::Recorded(graph);
                }
                other => {
                    // A device that still works goes on without a recording.
                    cuda.check()?;
                    if let Err(error) = other {
                        log::warn!("a step is launched kernel by kernel: {error}");
                    }
                    launch();
                    *self = StepGraph::Plain;
                }
            },
        }
        Ok(())
    }
}
