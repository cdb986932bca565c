//! Deliberate mistakes in the backward pass, for the tests of the tests: each must make a gradient check fail. Outside this
//! crate's own tests nothing of it is left.

use lichen_kernels::ViewMut;

/// Defines the terms and, for tests, the list of them: one cannot be forgotten.
macro_rules! terms {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// A term of the backward pass. One that stands in several places of a layer is mutated in each by itself.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub(crate) enum Term {
            $($(#[$doc])* $name,)*
        }

        #[cfg(test)]
        impl Term {
            pub const ALL: &[Term] = &[$(Term::$name,)*];
        }
    };
}

terms! {
    /// What comes back through the head; of layer 0, as it belongs to none.
    Head,
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
    /// What the rows of the embedding get; of layer 0, as it belongs to none.
    Embedding,
}

/// Multiplies `d` by the factor of the active mutation, if it is this term's.
#[inline(always)]
pub(crate) fn apply<const R: usize>(term: Term, layer: usize, d: ViewMut<'_, f32, R>) {
    #[cfg(test)]
    if let Some(factor) = active::factor(term, layer) {
        let mut d = d;
        d.host_mut().iter_mut().for_each(|v| *v *= factor);
    }
    #[cfg(not(test))]
    let _ = (term, layer, d);
}

#[cfg(test)]
pub(crate) mod active {
    use super::Term;
    use std::cell::Cell;

    /// A mistake: `d` of a term is multiplied by a factor (1.01, -1, or 0 where a term is dropped).
    #[derive(Clone, Copy, Debug)]
    pub struct Mutation {
        pub term: Term,
        pub layer: usize,
        /// Which of the term's places in that layer, in the order of the pass.
        pub place: usize,
        pub factor: f32,
    }

    thread_local! {
        static ACTIVE: Cell<Option<Mutation>> = const { Cell::new(None) };
        /// Places of the active mutation's term that were passed.
        static PASSED: Cell<usize> = const { Cell::new(0) };
    }

    /// Ends the mutation, also where the test panics.
    struct Guard;

    impl Drop for Guard {
        fn drop(&mut self) {
            ACTIVE.set(None);
        }
    }

    /// Runs `body`, whose backward pass is on this thread, with the mistake; returns how many places its term has there.
    pub fn with<R>(mutation: Mutation, body: impl FnOnce() -> R) -> (R, usize) {
        ACTIVE.set(Some(mutation));
        PASSED.set(0);
        let _guard = Guard;
        let result = body();
        (result, PASSED.get())
    }

    /// The factor for the next place of a term.
    pub fn factor(term: Term, layer: usize) -> Option<f32> {
        let mutation = ACTIVE.get().filter(|m| m.term == term && m.layer == layer)?;
        let place = PASSED.replace(PASSED.get() + 1);
        (place == mutation.place).then_some(mutation.factor)
    }
}
