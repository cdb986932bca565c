//! Two of a kind: what local (sliding-window) layers have of their own, and global ones of theirs.

/// What local layers have of their own, and global ones of theirs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct LocalGlobal<T> {
    pub local: T,
    pub global: T,
}

impl<T> LocalGlobal<T> {
    pub fn of(&self, is_global: bool) -> &T {
        if is_global {
            &self.global
        } else {
            &self.local
        }
    }

    pub fn of_mut(&mut self, is_global: bool) -> &mut T {
        if is_global {
            &mut self.global
        } else {
            &mut self.local
        }
    }
}
