//! Where constrained output hangs: what may come next of an answer.

/// Says which tokens may come next in one answer. The sampler draws first and asks for that token alone; only when it may not
/// come are all logits masked, and another number is drawn. An allowed token keeps its probability so, and most tokens cost
/// one question.
pub trait TokenMask: Send {
    /// Whether `token` may come next.
    fn allows(&mut self, token: u32) -> bool;

    /// Sets the logits (vocab_size) of all tokens that may not come next to minus infinity.
    fn apply(&mut self, logits: &mut [f32]);

    /// `token` is part of the answer now. End tokens are not told.
    fn accept(&mut self, token: u32);
}
