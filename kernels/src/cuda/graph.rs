//! Recorded launches that are replayed as one.

use super::context::Context;
use super::driver::Handle;
use super::{Cuda, DeviceError};

/// What [`capture`](Cuda::capture) recorded. The memory that its launches use must outlive it.
pub struct Graph {
    cuda: Cuda,
    executable: Handle,
}

impl Graph {
    /// Gives the stream everything that was recorded. A failure stays, as of [`launch`](Cuda::launch).
    pub fn launch(&self) {
        let context = self.cuda.context();
        context.give(|| "launching a graph".into(), || context.driver.launch_graph(self.executable, context.stream));
    }
}

impl Drop for Graph {
    fn drop(&mut self) {
        let context = self.cuda.context();
        context.settle();
        if context.make_current().is_ok() {
            context.driver.destroy_executable(self.executable);
        }
    }
}

/// Ends a recording however it went: a stream that still records would do nothing ever after.
struct Recording<'a>(&'a Context);

impl Recording<'_> {
    fn end(self) -> Result<Handle, DeviceError> {
        let context = self.0;
        std::mem::forget(self);
        context.set_recording(false);
        context.run("recording launches", || context.driver.end_capture(context.stream))
    }
}

impl Drop for Recording<'_> {
    fn drop(&mut self) {
        self.0.set_recording(false);
        if let Ok(graph) = self.0.driver.end_capture(self.0.stream) {
            self.0.driver.destroy_graph(graph);
        }
    }
}

pub(super) fn capture(cuda: &Cuda, record: &mut dyn FnMut()) -> Result<Option<Graph>, DeviceError> {
    let context = cuda.context();
    let _turn = context.take_turn();
    if context.is_recording() {
        return Err(DeviceError::Other("launches are being recorded already".into()));
    }
    if !context.run("recording launches", || context.driver.begin_capture(context.stream))? {
        return Ok(None);
    }
    context.set_recording(true);
    let recording = Recording(context);
    record();
    // A launch that failed leaves a graph without it.
    context.check()?;
    let graph = recording.end()?;
    let executable = context.run("preparing a graph", || context.driver.instantiate(graph));
    context.driver.destroy_graph(graph);
    Ok(Some(Graph { cuda: cuda.clone(), executable: executable? }))
}

/// Milliseconds that the stream needs for what `record` gives it.
pub(super) fn time_ms(cuda: &Cuda, record: &mut dyn FnMut()) -> Result<f32, DeviceError> {
    let context = cuda.context();
    let _turn = context.take_turn();
    if context.is_recording() {
        return Err(DeviceError::Other("launches that are recorded cannot be timed".into()));
    }
    let [first, second] = [Event::new(context)?, Event::new(context)?];
    first.record()?;
    record();
    second.record()?;
    context.check()?;
    // What the kernels did wrong is noticed in this wait.
    context.synchronize()?;
    context.run("timing launches", || context.driver.ms_between(first.handle, second.handle))
}

struct Event<'a> {
    context: &'a Context,
    handle: Handle,
}

impl Event<'_> {
    fn new(context: &Context) -> Result<Event<'_>, DeviceError> {
        let handle = context.run("timing launches", || context.driver.create_event())?;
        Ok(Event { context, handle })
    }

    fn record(&self) -> Result<(), DeviceError> {
        let context = self.context;
        context.run("timing launches", || context.driver.record_event(self.handle, context.stream))
    }
}

impl Drop for Event<'_> {
    fn drop(&mut self) {
        if self.context.make_current().is_ok() {
            let _ = self.context.driver.destroy_event(self.handle);
        }
    }
}
