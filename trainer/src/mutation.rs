//! Deliberate mistakes in the backward pass, for the tests of the tests: each must make a gradient check fail. Outside this
//! crate's own tests nothing of it is left.

use lichen_kernels::ViewMut;

/// A term of the backward pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Term {
    GatedProduct,
    Gate,
    Up,
    Heads,
    Queries,
    Keys,
    Values,
    SubLayer,
    Norm,
    Residual,
    LowRank,
}

#[cfg(test)]
pub(crate) mod active {
    use super::Term;
    use std::cell::Cell;

    /// The term, the layer, and the factor that it is multiplied by: 1.01, -1, or 0 for a term that is dropped.
    #[derive(Clone, Copy, Debug)]
    pub struct Mutation {
        pub term: Term,
        pub layer: usize,
        pub factor: f32,
    }

    thread_local! {
        pub static ACTIVE: Cell<Option<Mutation>> = const { Cell::new(None) };
    }
}

/// Multiplies `d` by the factor of the active mutation, if it is this term's.
#[inline(always)]
pub(crate) fn apply<const R: usize>(term: Term, layer: usize, d: ViewMut<'_, f32, R>) {
    #[cfg(test)]
    if let Some(mutation) = active::ACTIVE.get().filter(|m| m.term == term && m.layer == layer) {
        let mut d = d;
        d.host_mut().iter_mut().for_each(|v| *v *= mutation.factor);
    }
    #[cfg(not(test))]
    let _ = (term, layer, d);
}
