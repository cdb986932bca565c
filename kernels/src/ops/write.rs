//! How an op leaves its result.

/// What happens to what is in `out`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Write {
    /// It is replaced.
    Replace,
    /// The result is added to it.
    Add,
}
