//! Recorded launches that are replayed as one.

/// What [`capture`](super::Cuda::capture) recorded.
pub struct Graph;

impl Graph {
    pub fn launch(&self) {
        unimplemented!()
    }
}
