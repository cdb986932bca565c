#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Part {
    TokenEmbedding,
    OutputNorm,
    Output,
    AttnNorm,
    AttnQ,
    AttnK,
    AttnV,
    AttnQBias,
    AttnKBias,
    AttnVBias,
    AttnQNorm,
    AttnKNorm,
    AttnOutput,
    PostAttnNorm,
    FfnNorm,
    FfnGate,
    FfnUp,
    FfnDown,
    PostFfnNorm,
}
use crate::{ModelConfig, Result};
use lichen_kernels::Matrix;
pub struct ModelSource;
impl ModelSource {
    pub fn config(&self) -> &ModelConfig {
        todo!()
    }
    pub fn matrix(&self, _: Part, _: Option<usize>) -> Result<Matrix> {
        todo!()
    }
    pub fn vector(&self, _: Part, _: Option<usize>) -> Result<Vec<f32>> {
        todo!()
    }
    pub fn fingerprint(&self) -> [u8; 32] {
        todo!()
    }
    pub fn heap_bytes(&self) -> usize {
        0
    }
}
