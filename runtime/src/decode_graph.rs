//! The decode step of a GPU, recorded once: a token of Gemma 3 1B is some 130 launches, and replaying them as one graph
//! saves the processor's time between them.

use lichen_kernels::cuda::Graph;
use lichen_kernels::Device;

use crate::error::Result;

/// How a session runs its decode steps.
#[derive(Default)]
pub enum DecodeGraph {
    /// No step has run. The first runs as it is: whatever loads on first use must be there before recording.
    #[default]
    Cold,
    Warm,
    Recorded(Graph),
    /// The driver cannot record, or the CPU computes.
    Plain,
}

impl DecodeGraph {
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
            DecodeGraph::Recorded(graph) => graph.launch(),
            DecodeGraph::Plain => launch(),
            DecodeGraph::Cold => {
                launch();
                *self = DecodeGraph::Warm;
            }
            DecodeGraph::Warm => match cuda.capture(launch) {
                Ok(Some(graph)) => {
                    graph.launch();
                    *self = DecodeGraph::Recorded(graph);
                }
                other => {
                    // A device that still works goes on without a recording.
                    cuda.check()?;
                    if let Err(error) = other {
                        log::warn!("the decode step is launched kernel by kernel: {error}");
                    }
                    launch();
                    *self = DecodeGraph::Plain;
                }
            },
        }
        Ok(())
    }
}
